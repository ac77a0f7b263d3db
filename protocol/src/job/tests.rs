//! What a request may not say, one rule at a time: hostile requests come signed, too.

use super::*;
use crate::{
    Sha256, Signed,
    envelope::EnvelopeError,
    job::kind::{CommandJob, DebJob},
    testing::{node, samples, signing_key},
};

fn network() -> NetworkId {
    samples::network()
}

/// Gives the rule that a record breaks.
fn broken<T: Record>(record: &T) -> String {
    match Signed::sign(record, Some(&network()), &[&signing_key(2)]).verify(Some(&network())) {
        Err(EnvelopeError::Meaning { why, .. }) => why,
        Err(other) => panic!("refused for another reason: {other}"),
        Ok(_) => panic!("accepted"),
    }
}

fn broken_request(change: impl FnOnce(&mut JobRequest)) -> String {
    let mut request = samples::deb_request(network());
    change(&mut request);
    broken(&request)
}

fn broken_deb(change: impl FnOnce(&mut DebJob)) -> String {
    broken_request(|request| match &mut request.kind {
        JobKind::Deb(deb) => change(deb),
        JobKind::Rpm(_) | JobKind::Command(_) | JobKind::Image(_) | JobKind::Server(_) | JobKind::Fetch(_) => {
            panic!("the sample is a deb job")
        }
    })
}

fn broken_command(change: impl FnOnce(&mut CommandJob)) -> String {
    let mut request = samples::command_request(network());
    match &mut request.kind {
        JobKind::Command(command) => change(command),
        JobKind::Deb(_) | JobKind::Rpm(_) | JobKind::Image(_) | JobKind::Server(_) | JobKind::Fetch(_) => {
            panic!("the sample is a command job")
        }
    }
    broken(&request)
}

fn broken_image(change: impl FnOnce(&mut ImageJob)) -> String {
    let mut request = samples::image_request(network());
    match &mut request.kind {
        JobKind::Image(image) => change(image),
        JobKind::Deb(_) | JobKind::Rpm(_) | JobKind::Command(_) | JobKind::Server(_) | JobKind::Fetch(_) => {
            panic!("the sample is an image job")
        }
    }
    broken(&request)
}

#[test]
fn the_rules_of_an_image() {
    assert!(broken_image(|i| i.formats.clear()).contains("at least one format"));
    assert!(broken_image(|i| i.formats.reverse()).contains("sorted"));
    assert!(broken_image(|i| i.packages.name = "other.lock".parse().unwrap()).contains("called packages.lock"));
    assert!(broken_image(|i| i.packages.size = u64::MAX).contains("at most"));
    assert!(broken_image(|i| i.version = "1".repeat(180).parse().unwrap()).contains("too long"));
    assert!(broken_image(|i| i.files[0].path = "p".repeat(398).parse().unwrap()).contains("too long"));
    assert!(broken_image(|i| i.setup.push("nul \0".to_owned())).contains("NUL"));
    assert!(broken_image(|i| i.setup.push("x".repeat(1 << 17))).contains("bytes in all"));
    for hostile in ["", "a b", "$(id)", "-rf", "a\nb"] {
        assert!(broken_image(|i| i.hostname = hostile.to_owned()).contains("host's name"), "{hostile:?}");
    }
    assert!(broken_image(|i| i.locale = "C; reboot".to_owned()).contains("locale"));
}

#[test]
fn the_outputs_of_an_image_are_known_before_it_is_made() {
    let request = samples::image_request(network());
    let JobKind::Image(image) = &request.kind else { panic!("the sample is an image job") };
    let names: Vec<String> = image.outputs(request.arch).iter().map(ToString::to_string).collect();
    assert_eq!(names, ["shop-kiosk-20231114-amd64.ext4", "shop-kiosk-20231114-amd64.iso"]);
    assert_eq!(request.inputs().len(), 3, "environment, lock, one file");
    assert_eq!(request.title(), "image shop-kiosk-20231114-amd64");
}

#[test]
fn the_rules_of_a_request() {
    assert!(broken_request(|r| r.nonce.push(0)).contains("nonce"));
    assert!(broken_request(|r| r.arch = Arch::All).contains("real architecture"));
    assert!(broken_request(|r| r.expires = r.created).contains("expires"));
    assert!(broken_request(|r| r.limits.pids = 0).contains("limit"));
    assert!(broken_request(|r| r.limits.silence_secs = 0).contains("limit"));
}

#[test]
fn the_rules_of_a_source_package() {
    assert!(broken_deb(|d| d.files.reverse()).contains("source files"));
    assert!(broken_deb(|d| drop(d.files.remove(0))).contains("exactly one .dsc"));
    let second = |d: &mut DebJob| {
        d.files.push(SourceFile { name: "base-files_12.5.dsc".parse().unwrap(), ..d.files[0].clone() });
    };
    assert!(broken_deb(second).contains("exactly one .dsc"));
    assert!(broken_deb(|d| d.options = vec!["b".into(), "a".into()]).contains("sorted"));
    assert!(broken_deb(|d| d.options = vec!["$(reboot)".into()]).contains("words"));
    assert!(broken_deb(|d| d.profiles = vec!["a b".into()]).contains("words"));
    assert!(broken_deb(|d| d.profiles = vec![String::new()]).contains("words"));
}

#[test]
fn the_rules_of_a_command() {
    assert!(broken_command(|c| c.argv.clear()).contains("arguments"));
    assert!(broken_command(|c| c.argv = vec!["x".into(); limits::ARGUMENTS_MAX + 1]).contains("arguments"));
    assert!(broken_command(|c| c.argv[0].push('\0')).contains("NUL"));
    assert!(broken_command(|c| c.argv[0] = "x".repeat(limits::TEXT_MAX + 1)).contains("bytes"));
    assert!(broken_command(|c| c.inputs.push(c.inputs[0].clone())).contains("inputs"));
    assert!(broken_command(|c| c.outputs.push(c.outputs[0].clone())).contains("outputs"));
}

#[test]
fn the_rules_of_small_records() {
    let order = Order { reason: "x".repeat(1025), ..samples::order() };
    assert!(broken(&order).contains("reason"));
    let order = Order { what: Change::Reprioritise(Priority(10)), ..samples::order() };
    assert!(broken(&order).contains("priority"));
    let announcement = Announcement { excluded: vec![node(11), node(11)], ..samples::announcement() };
    assert!(broken(&announcement).contains("excluded"));
}

#[test]
fn two_equal_wishes_are_two_jobs() {
    let one = samples::deb_request(network());
    let two = JobRequest { nonce: vec![8; 16], ..one.clone() };
    assert_ne!(job_id(&samples::signed_request(&one)), job_id(&samples::signed_request(&two)));
    assert_eq!(job_id(&samples::signed_request(&one)), job_id(&samples::signed_request(&one)));
}

#[test]
fn inputs_name_the_lock_first() {
    let request = samples::deb_request(network());
    let inputs = request.inputs();
    assert_eq!(inputs[0], samples::lock().id());
    assert_eq!(inputs.len(), 3);
    assert_eq!(request.title(), "deb base-files 12.4 amd64");
    assert_eq!(samples::command_request(network()).title(), "command answer amd64");
}

/// An input's digest is part of the job's identity.
#[test]
fn another_source_is_another_job() {
    let one = samples::deb_request(network());
    let mut two = one.clone();
    let JobKind::Deb(deb) = &mut two.kind else { panic!("the sample is a deb job") };
    deb.files[1].sha256 = Sha256::of(b"tampered");
    assert_ne!(job_id(&samples::signed_request(&one)), job_id(&samples::signed_request(&two)));
}

#[test]
fn the_rules_of_a_server_job() {
    let rule = |kind: ServerJob| broken(&samples::server_request(network(), kind));
    let ([a, b], stable) = (["a", "bb"].map(|n| format!("{n}{n}").parse().unwrap()), "stable".parse::<ChannelName>());
    let (stable, side) =
        (stable.unwrap(), |name: &str, generation| Side { channel: name.parse().unwrap(), generation });
    let promote = Promote { from: stable.clone(), packages: Vec::new() };
    assert!(rule(ServerJob::Promote(promote)).contains("from itself"));
    let promote = Promote { from: "testing".parse().unwrap(), packages: vec![b, a] };
    assert!(rule(ServerJob::Promote(promote)).contains("sorted"));
    let derive = Derive { arches: Vec::new(), parent: stable, packages: Vec::new() };
    assert!(rule(ServerJob::Derive(derive)).contains("from itself"));
    let all = Prune { keep: 0, before: None, packages: Vec::new() };
    assert!(rule(ServerJob::Prune(all)).contains("every package"));
    let other = Diff { left: side("testing", None), right: side("testing", Some(2)) };
    assert!(rule(ServerJob::Diff(other)).contains("one of the channels"));
    let zero = Diff { left: side("stable", Some(0)), right: side("stable", None) };
    assert!(rule(ServerJob::Diff(zero)).contains("start at 1"));
    let built =
        JobRequest { arch: Arch::Amd64, ..samples::server_request(network(), samples::server_jobs().remove(0).1) };
    assert!(broken(&built).contains("all architectures"));
    let locked = JobRequest { environment: samples::lock().id(), ..JobRequest { arch: Arch::All, ..built } };
    assert!(broken(&locked).contains("no environment"));
}

#[test]
fn a_server_job_says_what_it_does() {
    let titles: Vec<String> =
        samples::server_jobs().into_iter().map(|(_, kind)| samples::server_request(network(), kind).title()).collect();
    assert_eq!(
        titles,
        [
            "promote testing to stable: hello",
            "prune stable: hello",
            "derive stable from testing",
            "diff stable@3 stable"
        ]
    );
}
