//! A small network with one job in each state, for tests and for looking at the pages.

use std::collections::BTreeMap;

use protocol::{
    Arch, ChannelName, Hash, JobId, MaintainerName, NetworkId, OperatorName, Sha256, SuiteName,
    blame::Blame,
    job::{JobKind, JobRequest},
    lease::LeaseNumber,
    testing::node,
    words::RelativePath,
};

use super::{Fake, at};
use crate::api::{
    Agreement, AttemptState, AttemptView, BlobUsage, Builder, Dissent, ExplanationView, FailureView, FileView,
    GroupView, JobDetail, JobLink, JobState, JobSummary, NetworkView, PeerView, PolicyView, PublishedView, QuoteView,
    RepositoryView, RequestView, ServiceView, Status, StepView, Time, VerdictView, VerdictWord,
};

/// When the samples are looked at.
const NOW: u64 = 3600;

/// Jobs of the sample by what became of them.
#[derive(Debug, Clone, Copy)]
pub struct SampleJobs {
    /// Two operators agree, one lied; published.
    pub published: JobId,
    /// Two builders are at work; its log grows.
    pub building: JobId,
    /// No two agree.
    pub unreproducible: JobId,
    /// The build fails for everybody.
    pub failed: JobId,
    /// A server job at work: packages are promoted, after a build.
    pub promoting: JobId,
}

/// Gives a word that is valid.
fn word<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().expect("words of the samples are valid")
}

/// Gives the view of a job that was only just accepted.
pub fn detail(id: JobId, request: &JobRequest, accepted: Time) -> JobDetail {
    let facts = match &request.kind {
        JobKind::Deb(deb) => {
            vec![("source".to_owned(), deb.source.to_string()), ("version".to_owned(), deb.version.to_string())]
        }
        JobKind::Rpm(rpm) => {
            vec![("source".to_owned(), rpm.name.to_string()), ("version".to_owned(), rpm.version.to_string())]
        }
        JobKind::Command(command) => vec![("command".to_owned(), command.argv.join(" "))],
        JobKind::Image(image) => vec![("version".to_owned(), image.version.to_string())],
        JobKind::Server(_) | JobKind::Fetch(_) => Vec::new(),
    };
    let summary = JobSummary {
        group: None,
        id,
        title: request.title(),
        kind: request.kind.word().to_owned(),
        arch: request.arch,
        channel: request.channel.clone(),
        maintainer: word("maintainer"),
        state: JobState::Waiting,
        why: "no builder has bid yet".to_owned(),
        created: Time::from(request.created),
        accepted,
        ended: None,
        agreement: Agreement { agree: 0, needed: 2, asked: 0 },
        expected: None,
    };
    let request = RequestView {
        facts,
        inputs: Vec::new(),
        environment: request.environment,
        expires: Time::from(request.expires),
    };
    JobDetail {
        at: accepted,
        summary,
        request,
        attempts: Vec::new(),
        verdict: None,
        published: None,
        service: None,
        links: Vec::new(),
        explanations: Vec::new(),
        logged: Vec::new(),
    }
}

/// Gives a network of three operators, with jobs in several states.
pub fn sample() -> (Fake, SampleJobs) {
    let fake = Fake::new(status());
    for (seed, name) in [(1, "alder"), (2, "birch"), (3, "cedar")] {
        fake.add_peer(peer(seed, name));
    }
    let jobs = SampleJobs {
        unreproducible: add(&fake, unreproducible(&fake)),
        failed: add(&fake, failed(&fake)),
        published: add(&fake, published(&fake)),
        building: add(&fake, building()),
        promoting: add(&fake, promoting()),
    };
    add(&fake, job("deb tzdata 2026c-0+deb12u1 amd64", JobState::Waiting, 3580));
    fake.append_log(jobs.building, LeaseNumber(21), b"dpkg-buildpackage: info: source package base-files\n");
    fake.append_log(jobs.published, LeaseNumber(11), b"dpkg-buildpackage: info: binary-only upload\n");
    fake.end_log(jobs.published, LeaseNumber(11));
    fake.add_bundle(jobs.published, &b"evidence of the sample"[..]);
    fake.add_log_file(word("checkpoint"), &b"artel/sample\n1\n"[..]);
    fake.add_log_file(word("tile/entries/x001/234.p/5"), &b"entries"[..]);
    let deb = "pool/main/d/distro-info-data/distro-info-data_0.58+deb12u6_all.deb";
    fake.add_file(word("stable"), word(deb), &b"bytes of distro-info-data"[..]);
    fake.add_file(word("stable"), word("dists/bookworm/InRelease"), &b"Origin: artel\nSuite: bookworm\n"[..]);
    (fake, jobs)
}

fn add(fake: &Fake, job: JobDetail) -> JobId {
    let id = job.summary.id;
    fake.add_job(job);
    id
}

fn status() -> Status {
    let repository = RepositoryView {
        channel: word::<ChannelName>("stable"),
        suite: word::<SuiteName>("bookworm"),
        generation: 7,
        packages: 12,
        published: Some(at(900)),
        valid_until: Some(at(7 * 86_400)),
        manifest: None,
        fingerprints: vec!["4F2A90C1D7E8B3A65C0D1E2F3A4B5C6D7E8F9012".to_owned()],
    };
    Status {
        at: at(NOW),
        node: node(9),
        network: NetworkView { id: NetworkId::from_bytes([7; 32]), name: "orchard".to_owned() },
        roles: vec!["coordinator".to_owned(), "mirror".to_owned()],
        coordinator: Some(node(9)),
        policy: PolicyView { number: 3, expires: at(90 * 86_400) },
        jobs: BTreeMap::new(),
        peers: 3,
        blobs: BlobUsage { count: 1482, bytes: 734_003_200, quota: 21_474_836_480 },
        repositories: vec![repository],
        version: "0.1.0".to_owned(),
        uptime_seconds: 93_784,
        addresses: Vec::new(),
        draining: None,
        conflict: None,
        doubt: None,
        clock_behind: None,
    }
}

fn peer(seed: u8, operator: &str) -> PeerView {
    PeerView {
        node: node(seed),
        operator: Some(word(operator)),
        roles: vec!["builder".to_owned()],
        arches: vec![Arch::Amd64],
        slots: 2,
        address: format!("/ip4/192.0.2.{seed}/udp/4001/quic-v1"),
        rtt_us: Some(1200 * u64::from(seed) + 350),
        since: Some(at(60 * u64::from(seed))),
        version: "0.1.0".to_owned(),
        member: true,
        draining: None,
    }
}

fn job(title: &str, state: JobState, accepted: u64) -> JobDetail {
    let mut words = title.split(' ');
    let kind = words.next().unwrap_or_default().to_owned();
    let fact = |name: &str, value: Option<&str>| (name.to_owned(), value.unwrap_or_default().to_owned());
    let facts = vec![fact("source", words.next()), fact("version", words.next()), fact("options", Some("nocheck"))];
    let input = |name: &str, size| FileView {
        name: name.to_owned(),
        size,
        sha256: Sha256::of(name.as_bytes()),
        hash: Some(Hash::of(name.as_bytes())),
    };
    let why = if state == JobState::Waiting { "no builder for amd64 has a free slot; 2 are busy" } else { "" };
    let summary = JobSummary {
        group: None,
        id: JobId::from(Hash::of(title.as_bytes())),
        title: title.to_owned(),
        kind,
        arch: Arch::Amd64,
        channel: word("stable"),
        maintainer: word::<MaintainerName>("maple"),
        state,
        why: why.to_owned(),
        created: at(accepted - 2),
        accepted: at(accepted),
        ended: state.is_over().then(|| at(accepted + 187)),
        agreement: Agreement { agree: 0, needed: 2, asked: 2 },
        expected: None,
    };
    let request = RequestView {
        facts,
        inputs: vec![input("source.dsc", 1734), input("source.tar.xz", 67_108)],
        environment: Hash::of(b"environment"),
        expires: at(86_400),
    };
    JobDetail {
        at: at(NOW),
        summary,
        request,
        attempts: Vec::new(),
        verdict: None,
        published: None,
        service: None,
        links: Vec::new(),
        explanations: Vec::new(),
        logged: Vec::new(),
    }
}

fn promoting() -> JobDetail {
    let mut job = job("promote testing to stable: hello", JobState::Running, 3500);
    (job.summary.arch, job.summary.agreement.asked) = (Arch::All, 0);
    job.request.inputs.clear();
    job.request.facts = vec![("from".to_owned(), "testing".to_owned()), ("packages".to_owned(), "hello".to_owned())];
    let step = |name: &str, began, ended| StepView { name: name.to_owned(), began: at(began), ended };
    job.service = Some(ServiceView {
        began: Some(at(3510)),
        expected: Some(at(3640)),
        steps: vec![step("choose", 3510, Some(at(3511))), step("check evidence", 3511, None)],
        log: None,
        result: None,
    });
    let title = "deb hello 2.10-3 amd64".to_owned();
    job.links = vec![JobLink { relation: "waits for".to_owned(), job: JobId::from(Hash::of(title.as_bytes())), title }];
    job
}

fn attempt(number: u64, seed: u8, operator: &str, profile: u16, granted: u64) -> AttemptView {
    AttemptView {
        number: LeaseNumber(number),
        builder: Builder { node: node(seed), operator: word::<OperatorName>(operator), info: BTreeMap::new() },
        profile,
        state: AttemptState::Running,
        phase: "build".to_owned(),
        granted: at(granted),
        started: Some(at(granted + 3)),
        ended: None,
        outputs: Vec::new(),
        failure: None,
        log: None,
    }
}

fn built(mut attempt: AttemptView, took: u64, files: &[(&str, u64, &str)]) -> AttemptView {
    attempt.state = AttemptState::Built;
    attempt.phase.clear();
    attempt.ended = Some(at(attempt.granted.timestamp().as_secs() - at(0).timestamp().as_secs() + took));
    let file = |(name, size, content): &(&str, u64, &str)| FileView {
        name: (*name).to_owned(),
        size: *size,
        sha256: Sha256::of(content.as_bytes()),
        hash: Some(Hash::of(content.as_bytes())),
    };
    attempt.outputs = files.iter().map(file).collect();
    attempt.builder.info = info(attempt.profile);
    attempt
}

/// What a builder signs of the circumstances of an attempt.
fn info(profile: u16) -> BTreeMap<String, String> {
    let mut info = vec![
        ("TZ", if profile == 0 { "UTC".to_owned() } else { format!("ART+{profile}:00") }),
        ("cpu_seconds", format!("{}.5", 20 + profile)),
        ("kernel", "6.1.0-41-amd64".to_owned()),
        ("lint", "lintian: 0 errors, 1 warning; W: sample: no-manual-page [usr/bin/sample]".to_owned()),
        ("memory_peak_mib", "97".to_owned()),
        ("profile", profile.to_string()),
        ("step_1_inputs", "0.1".to_owned()),
        ("step_2_build", format!("{}.2", 40 + profile)),
    ];
    if profile > 0 {
        info.push(("COLUMNS", (81 + profile).to_string()));
    }
    info.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn published(fake: &Fake) -> JobDetail {
    let mut job = job("deb distro-info-data 0.58+deb12u6 amd64", JobState::Published, 700);
    let deb = "distro-info-data_0.58+deb12u6_all.deb";
    let honest = [(deb, 6908, "honest"), ("distro-info-data_0.58+deb12u6_amd64.buildinfo", 5312, "same")];
    let liar = [(deb, 6912, "changed"), ("distro-info-data_0.58+deb12u6_amd64.buildinfo", 5312, "same")];
    job.attempts = vec![
        built(attempt(11, 1, "alder", 0, 702), 171, &honest),
        built(attempt(12, 2, "birch", 1, 702), 180, &liar),
        built(attempt(13, 3, "cedar", 2, 884), 150, &honest),
    ];
    job.attempts[0].log = Some(fake.add_blob(&b"dpkg-buildpackage: info: binary-only upload\n"[..]));
    job.summary.agreement = Agreement { agree: 2, needed: 2, asked: 3 };
    job.verdict = Some(VerdictView {
        word: VerdictWord::Reproduced,
        agree: vec![word("alder"), word("cedar")],
        dissent: vec![Dissent {
            operator: word("birch"),
            node: node(2),
            file: deb.to_owned(),
            theirs: Some(Sha256::of(b"changed")),
            agreed: Some(Sha256::of(b"honest")),
        }],
        differing: vec![deb.to_owned()],
    });
    job.summary.group = Some(group("amd64-full"));
    let path: RelativePath = word("pool/main/d/distro-info-data/distro-info-data_0.58+deb12u6_all.deb");
    job.published = Some(PublishedView { generation: 7, channel: word("stable"), files: vec![path.to_string()] });
    job
}

/// Two jobs of the sample were asked for together.
fn group(variant: &str) -> GroupView {
    GroupView { id: Hash::of(b"group"), variant: word(variant) }
}

fn building() -> JobDetail {
    let mut job = job("deb base-files 12.4+deb12u12 amd64", JobState::Building, 3400);
    let waiting = attempt(22, 3, "cedar", 1, 3590);
    job.summary.group = Some(group("amd64-terse"));
    job.attempts = vec![
        attempt(21, 1, "alder", 0, 3402),
        AttemptView { state: AttemptState::Granted, phase: "environment".to_owned(), started: None, ..waiting },
    ];
    job
}

fn unreproducible(fake: &Fake) -> JobDetail {
    let mut job = job("deb hello 2.10-3 amd64", JobState::Unreproducible, 120);
    let deb = "hello_2.10-3_amd64.deb";
    let debug = "hello-dbgsym_2.10-3_amd64.deb";
    let files = |seed| [(debug, 31_220, "debug"), (deb, 53_084, seed)];
    job.attempts = vec![
        built(attempt(1, 1, "alder", 0, 122), 61, &files("year 2026")),
        built(attempt(2, 2, "birch", 1, 122), 63, &files("year 2028")),
        built(attempt(3, 3, "cedar", 2, 187), 60, &files("year 2024")),
    ];
    job.summary.agreement = Agreement { agree: 1, needed: 2, asked: 3 };
    job.summary.why = format!("{deb} differs between all builders");
    let differs = |seed: u8, operator: &str, content: &str| Dissent {
        operator: word(operator),
        node: node(seed),
        file: deb.to_owned(),
        theirs: Some(Sha256::of(content.as_bytes())),
        agreed: None,
    };
    job.verdict = Some(VerdictView {
        word: VerdictWord::Unreproducible,
        agree: Vec::new(),
        dissent: vec![
            differs(1, "alder", "year 2026"),
            differs(2, "birch", "year 2028"),
            differs(3, "cedar", "year 2024"),
        ],
        differing: vec![deb.to_owned()],
    });
    job.explanations = vec![explanation(fake)];
    job
}

/// What diffoscope says of the first two.
fn explanation(fake: &Fake) -> ExplanationView {
    let quote = QuoteView {
        place: "hello_2.10-3_amd64.deb / data.tar / ./usr/bin/hello".to_owned(),
        left: "Copyright (C) 2026 Free Software Foundation, Inc.".to_owned(),
        right: "Copyright (C) 2028 Free Software Foundation, Inc.".to_owned(),
        variation: "date".to_owned(),
    };
    ExplanationView {
        id: JobId::from(Hash::of(b"explain")),
        left: LeaseNumber(1),
        right: LeaseNumber(2),
        left_operators: vec![word("alder")],
        right_operators: vec![word("birch")],
        ended: Some(at(260)),
        text: Some(fake.add_blob(&b"-year 2026\n+year 2028\n"[..])),
        html: Some(fake.add_blob(&b"<!DOCTYPE html><title>diffoscope</title>"[..])),
        quotes: vec![quote],
        summary: "1 differing line; circumstances that show: date in 1".to_owned(),
    }
}

fn failed(fake: &Fake) -> JobDetail {
    let mut job = job("deb figlet 2.2.5-3 amd64", JobState::Failed, 400);
    let log = "\u{1b}[1mmake[1]: Entering directory '/build/figlet-2.2.5'\u{1b}[0m\ngcc -c -g -O2 figlet.c\n\
        figlet.c:41:10: fatal error: <zipio.h>: No such file or directory\n\u{1b}[31mcompilation terminated.\u{1b}[0m\n\
        make[1]: *** [Makefile:60: figlet.o] Error 1\n";
    let log = fake.add_blob(log);
    let fail = |number, seed, operator: &str, profile| {
        let failure = FailureView {
            blame: Blame::Job,
            step: "build".to_owned(),
            what: "dpkg-buildpackage ended with exit status 2".to_owned(),
        };
        let ended = built(attempt(number, seed, operator, profile, 402), 22, &[]);
        AttemptView { state: AttemptState::Failed, failure: Some(failure), log: Some(log), ..ended }
    };
    job.attempts = vec![fail(4, 1, "alder", 0), fail(5, 2, "birch", 1)];
    job.summary.why = "the step build failed for 2 operators: dpkg-buildpackage ended with exit status 2".to_owned();
    job.verdict =
        Some(VerdictView { word: VerdictWord::Failed, agree: Vec::new(), dissent: Vec::new(), differing: Vec::new() });
    job
}
