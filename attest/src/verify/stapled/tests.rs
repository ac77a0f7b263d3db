//! Honest staples prove their package; each mutation is refused with its exit code, and no line more makes a proof of a refusal.

use std::time::Duration;

use protocol::{
    Hash, Sha256, Signed as Record,
    job::{Promote, ServerJob},
    message::Octets,
    policy::{Channel, Coordinators, Revoked},
    testing::{node, public_key, samples, signing_key},
};
use serde_json::{Value, json};

use super::*;
use crate::{
    bundle::Bundle,
    dsse,
    testing::{
        DEB, bundle, signed_attestation,
        staple::{BEFORE, Sample},
    },
    trust::Demands,
};

const NOW: Moment<'_> = Moment { now: samples::NOW, checkpoint: None };

/// What was stapled to the sample package, and what is believed.
struct Bench {
    sample: Sample,
    trust: Trust,
    lines: Vec<u8>,
    proof: Vec<u8>,
}

impl Bench {
    /// Three operators, two agree; both must have seen the log.
    fn new() -> Self {
        Self::of(&["x", "x", "lie"])
    }

    fn of(contents: &[&str]) -> Self {
        let sample = Sample::of(&Sample::policy(2), contents);
        let (trust, lines, proof) = (sample.trust(Demands::default()), sample.lines(), sample.proof(&[0, 2]));
        Self { sample, trust, lines, proof }
    }

    fn demanding(self, demands: Demands) -> Self {
        Self { trust: self.trust.demanding(demands, samples::NOW).unwrap(), ..self }
    }

    fn check(&self) -> Result<Chain, Broken> {
        verify_stapled(&Stapled { lines: &self.lines, proof: Some(&self.proof) }, &self.trust, &NOW)
    }

    fn code(&self, lines: &[u8]) -> u8 {
        code(verify_stapled(&Stapled { lines, proof: Some(&self.proof) }, &self.trust, &NOW))
    }

    /// The code with one line changed as JSON.
    fn with(&self, line: usize, change: impl Fn(&mut Value)) -> u8 {
        let mut lines: Vec<Value> =
            split(&self.lines).iter().map(|line| serde_json::from_slice(line).unwrap()).collect();
        change(&mut lines[line]);
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        assert_ne!(text.as_bytes(), self.lines);
        self.code(text.as_bytes())
    }

    /// The code with another proof.
    fn proven_by(&self, proof: &[u8]) -> u8 {
        code(verify_stapled(&Stapled { lines: &self.lines, proof: Some(proof) }, &self.trust, &NOW))
    }
}

fn split(lines: &[u8]) -> Vec<&[u8]> {
    lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect()
}

fn joined(lines: &[&[u8]]) -> Vec<u8> {
    lines.iter().flat_map(|line| [line, b"\n".as_slice()].concat()).collect()
}

fn code(result: Result<Chain, Broken>) -> u8 {
    result.map_or_else(|broken| broken.exit_code(), |_| 0)
}

/// Flips a bit of one character of base64, so that it stays base64.
fn flip(text: &mut Value) {
    let old = text.as_str().unwrap();
    let at = old.len() / 2;
    let other = if &old[at..=at] == "A" { "B" } else { "A" };
    *text = Value::String(format!("{}{other}{}", &old[..at], &old[at + 1..]));
}

#[test]
fn honest_staples_prove_their_package() {
    let bench = Bench::new();
    let chain = bench.check().unwrap();
    assert_eq!(chain.proof.agree, [samples::operator(0), samples::operator(1)]);
    assert_eq!(chain.proof.dissent.len(), 1);
    let logged = chain.logged.unwrap();
    assert_eq!((logged.index, logged.witnessed.seen.len(), chain.seen), (BEFORE, 2, Some(samples::NOW)));
    assert!(chain.proof.file(DEB, &Sha256::of(b"x")).is_ok());
    assert_eq!(chain.proof.file(DEB, &Sha256::of(b"lie")).unwrap_err().exit_code(), 12);
}

#[test]
fn the_order_of_lines_and_lines_that_nobody_knows_mean_nothing() {
    let bench = Bench::new();
    let mut lines = split(&bench.lines);
    lines.reverse();
    assert_eq!(bench.code(&joined(&lines)), 0);
    let twice = [lines.clone(), lines.clone()].concat();
    assert_eq!(bench.code(&joined(&twice)), 0);
    let strange: [&[u8]; 4] =
        [b"not json", b"{}", b"{\"payload\":\"\",\"payloadType\":\"x\",\"signatures\":[]}", b"\xff"];
    assert_eq!(bench.code(&joined(&[&strange[..], &lines].concat())), 0);
}

/// Invariant: each field of each line, of the proof, of the checkpoint counts.
#[test]
fn every_mutation_is_refused_with_its_exit_code() {
    // Line 0 is the request, 1 and 2 agree, 3 is the summary, which nobody needs.
    let bench = Bench::of(&["x", "x"]);
    assert_eq!(bench.with(0, |line| flip(&mut line["payload"])), 13, "the request's payload");
    assert_eq!(bench.with(0, |line| flip(&mut line["signatures"][0]["sig"])), 13, "the maintainer's signature");
    assert_eq!(bench.with(0, |line| line["signatures"] = json!([])), 13, "no signature");
    assert_eq!(bench.with(0, |line| line["payloadType"] = json!("application/x")), 13, "the request's type");
    for line in [1, 2] {
        assert_eq!(bench.with(line, |line| flip(&mut line["payload"])), 13, "a statement's payload");
        assert_eq!(bench.with(line, |line| flip(&mut line["signatures"][0]["sig"])), 13, "a builder's signature");
        assert_eq!(bench.with(line, |line| line["signatures"] = json!([])), 11, "no signature");
        assert_eq!(bench.with(line, |line| line["payloadType"] = json!("text/plain")), 11, "a statement's type");
        assert_eq!(bench.with(line, |line| *line = json!({})), 11, "no statement");
        assert_eq!(bench.with(line, |line| line["signatures"][0]["keyid"] = json!("0")), 11, "not what was logged");
    }
    assert_eq!(bench.with(3, |line| flip(&mut line["payload"])), 0, "the summary is for others");
    let without = |bench: &Bench, at: usize| {
        let mut lines = split(&bench.lines);
        lines.remove(at);
        bench.code(&joined(&lines))
    };
    assert_eq!([0, 1, 2, 3].map(|at| without(&bench, at)), [13, 11, 11, 0]);
    let split_vote = Bench::new();
    assert_eq!([0, 1, 2, 3, 4].map(|at| without(&split_vote, at)), [13, 12, 12, 13, 0], "line 3 contradicts");
    assert_eq!(split_vote.with(3, |line| flip(&mut line["payload"])), 13, "the verdict names what contradicts it, too");
    assert_eq!(split_vote.with(1, |line| flip(&mut line["payload"])), 13);
    assert_eq!(bench.code(b""), 10);
    assert_eq!(bench.code(split(&bench.lines)[0]), 10, "a request alone");
    assert_eq!(code(verify_stapled(&Stapled { lines: &bench.lines, proof: None }, &bench.trust, &NOW)), 13);
    // Whatever byte of the proof is changed, it proves nothing.
    for at in 0..bench.proof.len() {
        let mut proof = bench.proof.clone();
        proof[at] ^= 1;
        assert_eq!(bench.proven_by(&proof), 13, "byte {at}");
    }
}

#[test]
fn proofs_of_something_else() {
    let bench = Bench::of(&["x", "x"]);
    let sample = &bench.sample;
    let seen = |witnesses: &[u8]| bench.proven_by(&sample.proof(witnesses));
    assert_eq!((seen(&[0]), seen(&[0, 1]), seen(&[])), (13, 0, 13), "two witnesses are asked for");
    let Event::Verdict(verdict) = sample.verdict.event.clone() else { panic!("a verdict") };
    let logged = |event: Event| {
        let verdict = Entry { at: samples::NOW, event };
        let log = crate::testing::log::Memory::of([verdict.to_bytes()]);
        let other = Sample { log, verdict, ..Sample::of(&Sample::policy(2), &["x", "x"]) };
        bench.proven_by(&other.proof_of(&other.verdict, 0, other.checkpoint(&[0, 1], samples::NOW)))
    };
    assert_eq!(logged(Event::Verdict(verdict.clone())), 0);
    let change = |change: fn(&mut Verdict)| {
        let mut verdict = verdict.clone();
        change(&mut verdict);
        logged(Event::Verdict(verdict))
    };
    assert_eq!(change(|v| v.job = Hash::of(b"other").into()), 13, "another job's verdict");
    assert_eq!(change(|v| v.verdict = Judgement::Disputed), 13, "another verdict");
    assert_eq!(change(|v| v.attestations.truncate(1)), 11, "one that does not rest on it");
    let more = |v: &mut Verdict| {
        v.attestations.push(Hash::of(b"more"));
        v.attestations.sort();
    };
    assert_eq!(change(more), 13, "one that rests on more than is here");
    let policy = crate::log::entry::Policy { number: 1, envelope: Hash::of(&sample.genesis) };
    assert_eq!(logged(Event::Policy(policy)), 13, "no verdict at all");
    let other = Sample::of(&Policy { name: "other".parse().unwrap(), ..Sample::policy(2) }, &["x", "x", "lie"]);
    assert_eq!(bench.proven_by(&other.proof(&[0, 1])), 13, "another network's log");
}

/// Invariant: no line more turns a refusal into a proof, unless an operator signed it and the log names it.
#[test]
fn a_line_more_makes_no_proof() {
    let bench = Bench::new();
    let lines = split(&bench.lines);
    let request = samples::signed_request(&samples::deb_request(bench.sample.network));
    let stranger = signed_attestation(&request, 7, "x");
    let late = signed_attestation(&request, 2, "x");
    let again = signed_attestation(&request, 1, "x");
    for missing in 0..4 {
        let mut fewer = lines.clone();
        fewer.remove(missing);
        let refused = bench.code(&joined(&fewer));
        assert_ne!(refused, 0);
        for more in [&stranger, &late, &again] {
            let more = joined(&[&fewer[..], &[more.as_slice()]].concat());
            let same = missing == 2 && more.windows(again.len()).any(|w| w == again);
            assert!(bench.code(&more) != 0 || same, "without line {missing}");
        }
    }
    for more in [&stranger, &late, &again] {
        assert_eq!(bench.code(&joined(&[&lines[..], &[more.as_slice()]].concat())), 0);
    }
}

#[test]
fn what_the_verifier_asks_for_itself() {
    let demand = |demands: Demands| code(Bench::new().demanding(demands).check());
    assert_eq!(demand(Demands { agree: Some(2), ..Demands::default() }), 0);
    assert_eq!(demand(Demands { agree: Some(3), ..Demands::default() }), 11);
    assert_eq!(demand(Demands { channels: vec!["stable".parse().unwrap()], ..Demands::default() }), 0);
    assert_eq!(demand(Demands { channels: vec!["other".parse().unwrap()], ..Demands::default() }), 13);
    assert_eq!(demand(Demands { log: LogDemand::Witnesses(2), ..Demands::default() }), 0);
    assert_eq!(demand(Demands { log: LogDemand::Witnesses(3), ..Demands::default() }), 13);
    assert_eq!(demand(Demands { log: LogDemand::Witnesses(9), ..Demands::default() }), 13, "more than there are");
    let never = Bench::new().demanding(Demands { log: LogDemand::Never, ..Demands::default() });
    assert_eq!(never.proven_by(b"nonsense"), 0, "what is never asked for is not read");
    assert!(never.check().unwrap().logged.is_none());
}

/// Who leaves the proof out leaves out which attestations the verdict rests on: it must be there whoever has seen it.
#[test]
fn a_proof_from_the_log_is_needed_without_witnesses_too() {
    let sample = Sample::of(&Sample::policy(0), &["x", "x", "lie"]);
    let check = |log: LogDemand, lines: &[u8], proof: Option<&[u8]>| {
        let trust = sample.trust(Demands { log, ..Demands::default() });
        code(verify_stapled(&Stapled { lines, proof }, &trust, &NOW))
    };
    let (lines, unseen) = (sample.lines(), sample.proof(&[]));
    assert_eq!(check(LogDemand::AsPolicySays, &lines, Some(&unseen)), 0);
    assert_eq!(check(LogDemand::AsPolicySays, &lines, None), 13);
    assert_eq!(check(LogDemand::Never, &lines, None), 0);
    let mut fewer = split(&lines);
    fewer.remove(3);
    let codes = [None, Some(unseen.as_slice())].map(|proof| check(LogDemand::AsPolicySays, &joined(&fewer), proof));
    assert_eq!(codes, [13, 13], "what contradicts is missing");
    let bundled = verify_bundle(&sample.bundle, None, (&sample.trust(Demands::default()), &NOW));
    assert!(matches!(bundled, Err(Broken::NotLogged { witnesses: 0 })));
}

/// A checkpoint has no time of its own, only witnesses have.
#[test]
fn without_witnesses_no_checkpoint_makes_a_package_younger() {
    let day = Duration::from_secs(86_400);
    let sample = Sample::of(&Sample::policy(0), &["x", "x"]);
    let trust = sample.trust(Demands { max_age: Some(day), ..Demands::default() });
    let (lines, proof) = (sample.lines(), sample.proof(&[]));
    let check = |days: u32, checkpoint: Option<&str>| {
        let moment = Moment { now: samples::NOW.after(day * days), checkpoint: checkpoint.map(str::as_bytes) };
        verify_stapled(&Stapled { lines: &lines, proof: Some(&proof) }, &trust, &moment)
    };
    assert_eq!(check(1, None).unwrap().seen, Some(samples::NOW), "by the coordinator's clock");
    let newer = sample.checkpoint(&[0, 1], samples::NOW.after(day * 2)).to_string();
    for checkpoint in [None, Some(newer.as_str())] {
        let refused = check(2, checkpoint).unwrap_err();
        assert!(matches!(refused, Broken::Untimed { .. }), "{refused}");
        assert_eq!(refused.exit_code(), 13);
    }
}

#[test]
fn what_no_witness_saw_for_long_is_stale() {
    let day = Duration::from_secs(86_400);
    let bench = Bench::new().demanding(Demands { max_age: Some(day), ..Demands::default() });
    let check = |days: u32, checkpoint: Option<&Signed>| {
        let checkpoint = checkpoint.map(ToString::to_string);
        let moment =
            Moment { now: samples::NOW.after(day * days), checkpoint: checkpoint.as_deref().map(str::as_bytes) };
        let stapled = Stapled { lines: &bench.lines, proof: Some(&bench.proof) };
        code(verify_stapled(&stapled, &bench.trust, &moment))
    };
    assert_eq!((check(1, None), check(2, None)), (0, 13));
    let (fresh, half) = (samples::NOW.after(day * 2), bench.sample.checkpoint(&[0], samples::NOW.after(day * 2)));
    assert_eq!(check(2, Some(&bench.sample.checkpoint(&[0, 1], fresh))), 0);
    assert_eq!(check(2, Some(&half)), 13, "one witness of two");
    let at_different_times = {
        let old = bench.sample.checkpoint(&[0], samples::NOW);
        let new = bench.sample.checkpoint(&[1], fresh).to_string();
        let text = format!("{old}{}\n", new.lines().last().unwrap());
        Signed::read(text.as_bytes()).unwrap()
    };
    assert_eq!(check(2, Some(&at_different_times)), 13, "a single witness does not make it young");
    assert_eq!(check(1, Some(&at_different_times)), 0);
    let trust = bench.sample.trust(Demands { max_age: Some(day), log: LogDemand::Never, ..Demands::default() });
    let stapled = Stapled { lines: &bench.lines, proof: None };
    assert!(matches!(verify_stapled(&stapled, &trust, &NOW), Err(Broken::Ageless { .. })));
}

/// A package that two channels have: the last one's rule counts, whatever the order of the lines.
#[test]
fn promotions_lead_to_the_channel_whose_rule_counts() {
    let mut policy = Sample::policy(0);
    let testing = Channel { name: "testing".parse().unwrap(), ..samples::channel(3, 3) };
    policy.maintainers[0].channels.push(testing.name.clone());
    policy.channels.push(testing);
    let promoted = |contents: &[&str]| {
        let (bundle, network) = bundle(&policy, contents);
        let promote = Promote { from: "stable".parse().unwrap(), packages: vec!["base-files".parse().unwrap()] };
        let mut request = samples::server_request(network, ServerJob::Promote(promote));
        request.channel = "testing".parse().unwrap();
        let sign = |seed| Octets(Record::sign(&request, Some(&network), &[&signing_key(seed)]).to_bytes());
        let bundle = Bundle { promotions: vec![sign(samples::MAINTAINER_SEED)], ..bundle };
        Sample::of_bundle(bundle, network)
    };
    let check = |sample: &Sample, lines: &[u8]| {
        let proof = sample.proof(&[]);
        verify_stapled(&Stapled { lines, proof: Some(&proof) }, &sample.trust(Demands::default()), &NOW)
    };
    let enough = promoted(&["x", "x", "x"]);
    let mut lines = enough.lines();
    assert_eq!(check(&enough, &lines).unwrap().proof.channel.as_str(), "testing");
    let mut reversed = split(&lines);
    reversed.reverse();
    assert_eq!(check(&enough, &joined(&reversed)).unwrap().proof.channel.as_str(), "testing");
    let few = promoted(&["x", "x"]);
    lines = few.lines();
    assert_eq!(code(check(&few, &lines)), 11, "enough for stable, not for testing");
    // Whoever maintains the first channel alone says when it was asked for, and the log when it was decided.
    let decided = |after: u64| {
        let at = Timestamp::from_millis(samples::NOW.as_millis() + after);
        let sample = promoted(&["x", "x", "x"]).decided(at);
        check(&sample, &sample.lines())
    };
    assert_eq!(decided(86_400_000).unwrap().proof.channel.as_str(), "testing");
    assert_eq!(code(decided(86_400_001)), 13, "its time was over");
    let mut stripped = split(&lines);
    stripped.remove(1);
    assert_eq!(
        check(&few, &joined(&stripped)).unwrap().proof.channel.as_str(),
        "stable",
        "whoever asks names the channel"
    );
}

/// A step into a channel that there was not when the package was built, signed by who maintains it since.
#[test]
fn promotions_count_by_a_later_policy_but_not_by_a_revoked_key() {
    let (late, testing) = (samples::MAINTAINER_SEED + 50, "testing".parse::<ChannelName>().unwrap());
    let (bundle, network) = bundle(&Sample::policy(0), &["x", "x"]);
    let promote = Promote { from: "stable".parse().unwrap(), packages: vec!["base-files".parse().unwrap()] };
    let mut request = samples::server_request(network, ServerJob::Promote(promote));
    request.channel = testing.clone();
    let step = Octets(Record::sign(&request, Some(&network), &[&signing_key(late)]).to_bytes());
    let sample = Sample::of_bundle(Bundle { promotions: vec![step], ..bundle }, network);
    let sign = |policy: &Policy| Record::sign(policy, Some(&network), &[&signing_key(samples::ROOT_SEED)]).to_bytes();
    let mut second = Policy { number: 2, network: Some(network), ..Sample::policy(0) };
    let channels = vec![testing.clone()];
    let name = "zora".parse().unwrap();
    let zora = protocol::policy::Maintainer { name, key: public_key(late), channels };
    second.maintainers.push(zora);
    second.maintainers.sort();
    second.channels.push(Channel { name: testing.clone(), ..samples::channel(2, 2) });
    let mut third = Policy { number: 3, ..second.clone() };
    third.maintainers.retain(|maintainer| maintainer.key != public_key(late));
    let gone = sign(&third);
    third.revoked = vec![Revoked { key: public_key(late), from: 1000, reason: "lost".to_owned() }];
    let (second, revoked) = (sign(&second), sign(&third));
    let proof = sample.proof(&[]);
    let judge = |later: &[&Vec<u8>]| {
        let later = (60..).zip(later).map(|(place, policy)| ((*policy).clone(), Some(place)));
        let chain: Vec<_> = [(sample.genesis.clone(), Some(0))].into_iter().chain(later).collect();
        let trust = Trust::new(network, &chain, Demands::default(), samples::NOW).unwrap();
        let stapled = Stapled { lines: &sample.lines(), proof: Some(&proof) };
        let of_lines = verify_stapled(&stapled, &trust, &NOW).unwrap().proof;
        let of_bundle = verify_bundle(&sample.bundle, Some(&proof), (&trust, &NOW)).unwrap().proof;
        assert!(of_lines.channel == of_bundle.channel && of_bundle.lock.is_some());
        of_lines.channel
    };
    assert_eq!(judge(&[]).as_str(), "stable", "nobody knows who signed it");
    assert_eq!(judge(&[&second]), testing);
    assert_eq!(judge(&[&second, &gone]), testing, "who left did not sign in vain");
    assert_eq!(judge(&[&second, &revoked]).as_str(), "stable", "nothing says when it was signed");
}

/// What nobody honest puts into a bundle refuses all of it, though lines that say nothing are passed over.
#[test]
fn a_bundle_with_a_part_that_does_not_belong_there_proves_nothing() {
    let Bench { sample, trust, proof, .. } = Bench::of(&["x", "x"]);
    let judge = |bundle: &Bundle| verify_bundle(bundle, Some(&proof), (&trust, &NOW));
    assert!(judge(&sample.bundle).unwrap().logged.is_some());
    let foreign = Bench::of(&["x", "x", "lie"]).sample.bundle.attestations[2].clone();
    let mut more = sample.bundle.clone();
    more.attestations.push(foreign);
    assert_eq!(judge(&more).unwrap().proof.agree.len(), 2, "what the verdict does not rest on is not counted");
    more.attestations[2] = Octets(b"{}".to_vec());
    assert!(matches!(judge(&more), Err(Broken::Evidence(Error::Attestation { position: 3, .. }))));
    let mut twice = sample.bundle.clone();
    twice.attestations[1] = twice.attestations[0].clone();
    assert_eq!(code(judge(&twice)), 11, "one voice, heard twice");
    let mut other = sample.bundle.clone();
    other.lock = Octets(b"lock".to_vec());
    assert!(matches!(judge(&other), Err(Broken::Evidence(Error::Lock(_)))));
    assert_eq!(code(verify_bundle(&sample.bundle, None, (&trust, &NOW))), 13, "its channel asks for witnesses");
}

/// Under the policy that was in force at the verdict's place: who left the network later did not build in vain.
#[test]
fn a_policy_counts_from_its_place_in_the_log_on() {
    let sample = Sample::of(&Sample::policy(1), &["x", "x"]);
    let (lines, proof) = (sample.lines(), sample.proof(&[0]));
    let mut second = samples::second(sample.network, 3);
    second.expires = samples::NOW.after(Duration::from_secs(1000));
    second.channels = Sample::policy(1).channels;
    second.operators.remove(1);
    let second = Record::sign(&second, Some(&sample.network), &[&signing_key(samples::ROOT_SEED)]).to_bytes();
    let check = |from: Option<u64>, proof: Option<&[u8]>, log| {
        let chain = [(sample.genesis.clone(), Some(0)), (second.clone(), from)];
        let trust = Trust::new(sample.network, &chain, Demands { log, ..Demands::default() }, samples::NOW).unwrap();
        code(verify_stapled(&Stapled { lines: &lines, proof }, &trust, &NOW))
    };
    let asked = LogDemand::AsPolicySays;
    assert_eq!(check(Some(BEFORE + 1), Some(&proof), asked), 0, "the verdict was before");
    assert_eq!(check(Some(BEFORE), Some(&proof), asked), 11, "op-b had left");
    assert_eq!(check(None, Some(&proof), asked), 11, "nobody knows since when: the newest counts");
    assert_eq!(check(Some(BEFORE + 1), None, LogDemand::Never), 11, "without a place the newest counts");
}

/// A network that began without witnesses: what one coordinator says of that time does not do once it asks for two.
#[test]
fn as_many_witnesses_must_have_seen_it_as_the_newest_policy_asks_for() {
    let sample = Sample::of(&Sample::policy(0), &["x", "x"]);
    let (lines, alone, seen) = (sample.lines(), sample.proof(&[]), sample.proof(&[0, 2]));
    let sign = |policy: Policy| {
        let policy = Policy { network: Some(sample.network), ..policy };
        Record::sign(&policy, Some(&sample.network), &[&signing_key(samples::ROOT_SEED)]).to_bytes()
    };
    let second = sign(Policy { number: 2, ..Sample::policy(2) });
    let third = sign(Policy { number: 3, ..Sample::policy(0) });
    let check = |later: &[&Vec<u8>], proof: Option<&[u8]>| {
        let later = (60..).zip(later).map(|(place, policy)| ((*policy).clone(), Some(place)));
        let chain: Vec<_> = [(sample.genesis.clone(), Some(0))].into_iter().chain(later).collect();
        let trust = Trust::new(sample.network, &chain, Demands::default(), samples::NOW).unwrap();
        code(verify_stapled(&Stapled { lines: &lines, proof }, &trust, &NOW))
    };
    assert_eq!([None, Some(&*alone), Some(&*seen)].map(|proof| check(&[], proof)), [13, 0, 0]);
    assert_eq!([None, Some(&*alone), Some(&*seen)].map(|proof| check(&[&second], proof)), [13, 13, 0]);
    assert_eq!(check(&[&second], Some(&sample.proof(&[2]))), 13, "one of two");
    assert_eq!(check(&[&second, &third], Some(&alone)), 0, "the roots ask for none again");
}

/// What is no envelope of ours is not believed because its bytes decode.
#[test]
fn a_record_signed_for_another_network_is_no_request() {
    let bench = Bench::new();
    let (other, network) = bundle(&Policy { name: "other".parse().unwrap(), ..Sample::policy(2) }, &["x", "x", "lie"]);
    let foreign = crate::staple::lines(&other, None).unwrap();
    assert_eq!(bench.code(&foreign), 13, "its statements are for network {network}");
    let envelope = dsse::Envelope::read(split(&foreign)[0], 1 << 20).unwrap();
    assert!(!envelope.payload().is_empty());
}

/// The exit code for the sample package once a second policy, logged as entry 60, revokes the key of `seed` from a place on. The
/// verdict is entry 40, and the checkpoint, signed by node 10 and seen by nodes 10 and 12, has 81 entries.
fn code_when_revoked(seed: u8, from: u64) -> u8 {
    let bench = Bench::of(&["x", "x"]);
    let network = bench.sample.network;
    let mut second = Policy { number: 2, network: Some(network), ..Sample::policy(2) };
    second.coordinators = Coordinators::Pinned(node(30));
    second.operators.iter_mut().for_each(|operator| operator.nodes.retain(|known| *known != node(seed)));
    second.maintainers.retain(|maintainer| maintainer.key != public_key(seed));
    second.revoked = vec![Revoked { key: public_key(seed), from, reason: "lost".to_owned() }];
    let second = Record::sign(&second, Some(&network), &[&signing_key(samples::ROOT_SEED)]).to_bytes();
    let chain = [(bench.sample.genesis.clone(), Some(0)), (second, Some(60))];
    let trust = Trust::new(network, &chain, Demands::default(), samples::NOW).unwrap();
    let bench = Bench { trust, ..bench };
    let code_of_lines = bench.code(&bench.lines);
    let judged = verify_bundle(&bench.sample.bundle, Some(&bench.proof), (&bench.trust, &NOW));
    assert_eq!(code(judged), code_of_lines, "who mirrors a package judges as who installs it");
    code_of_lines
}

#[test]
fn a_revoked_key_proves_what_was_logged_before_its_place_and_nothing_from_there_on() {
    let maria = samples::MAINTAINER_SEED;
    assert_eq!(code_when_revoked(99, 0), 0, "somebody else");
    assert_eq!([41, 40, 0].map(|from| code_when_revoked(11, from)), [0, 11, 11], "a builder");
    assert_eq!([41, 40, 0].map(|from| code_when_revoked(maria, from)), [0, 13, 13], "the maintainer");
    assert_eq!([81, 80, 41].map(|from| code_when_revoked(12, from)), [0, 13, 13], "a witness, which did not build");
    assert_eq!([81, 80, 41].map(|from| code_when_revoked(10, from)), [0, 13, 13], "the coordinator, a builder too");
    assert_eq!(code_when_revoked(10, 40), 13);
}
