//! An honest bundle proves its files; every mutation of it is refused with its own exit code.

use protocol::{
    Arch, Sha256,
    job::{JobKind, Promote, Prune, ServerJob},
    message::Octets,
    policy::{Channel, Roots},
    testing::{node, public_key, samples, signing_key},
};

use super::*;
use crate::{
    bundle::{ATTESTATIONS_MAX, POLICIES_MAX},
    testing::{DEB, attestation, bundle, output, signed_attestation},
};

const HONEST: [&str; 3] = ["honest", "honest", "lie"];

fn honest() -> (Bundle, NetworkId) {
    bundle(&samples::genesis(3), &HONEST)
}

fn request_of(network: NetworkId) -> Verified<JobRequest> {
    samples::signed_request(&samples::deb_request(network))
}

#[test]
fn an_honest_bundle_proves_its_file() {
    let (bundle, network) = honest();
    let bundle = Bundle::from_bytes(&bundle.to_bytes()).unwrap();
    let proof = verify(&bundle, &network, samples::NOW).unwrap();
    assert_eq!(proof.agree, [samples::operator(0), samples::operator(1)]);
    assert_eq!(proof.dissent[0].operator, samples::operator(2));
    assert_eq!(proof.file(DEB, &Sha256::of(b"honest")).unwrap(), &output(DEB, "honest"));
    let package = |version: &str, arch| {
        proof.package(&"base-files".parse().unwrap(), &version.parse().unwrap(), arch, &Sha256::of(b"honest"))
    };
    package("12.4", Arch::Amd64).unwrap();
    package("1:12.4", Arch::Amd64).unwrap();
    assert_eq!(package("12.5", Arch::Amd64).unwrap_err().exit_code(), 10, "another version");
    assert_eq!(package("12.4", Arch::Arm64).unwrap_err().exit_code(), 10, "another architecture");
    insta::assert_snapshot!(proof.lines().join("\n"));
}

#[test]
fn a_file_that_was_not_built_is_not_proven() {
    let (bundle, network) = honest();
    let proof = verify(&bundle, &network, samples::NOW).unwrap();
    assert_eq!(proof.file(DEB, &Sha256::of(b"lie")).unwrap_err().exit_code(), 12);
    assert_eq!(proof.file("other.deb", &Sha256::of(b"honest")).unwrap_err().exit_code(), 10);
}

#[test]
fn a_package_for_another_architecture_is_not_proven() {
    let (_, network) = honest();
    let request = request_of(network);
    let foreign = "base-files_12.4_arm64.deb";
    let signed = |at: u8| {
        let mut attestation = attestation(&request, at, "x");
        attestation.outputs = vec![output(foreign, "x")];
        Octets(attestation.sign(&signing_key(10 + at)).unwrap())
    };
    let bundle = Bundle { attestations: vec![signed(0), signed(1)], ..honest().0 };
    let proof = verify(&bundle, &network, samples::NOW).unwrap();
    assert_eq!(proof.file(foreign, &Sha256::of(b"x")).unwrap_err().exit_code(), 12);
}

/// Who holds the newest policy judges by it, whatever chain a bundle carries.
#[test]
fn a_bundle_is_judged_under_the_policy_that_the_caller_believes() {
    let (mut bundle, network) = honest();
    bundle.policies.clear();
    let mut newest = samples::second(network, 3);
    assert_eq!(verify_under(&bundle, &network, &newest).unwrap().policy.number, 2);
    newest.operators.remove(0);
    assert_eq!(verify_under(&bundle, &network, &newest).unwrap_err().exit_code(), 12, "op-b against op-c");
    newest.maintainers.clear();
    assert_eq!(verify_under(&bundle, &network, &newest).unwrap_err().exit_code(), 13, "an expelled maintainer");
}

/// An RPM is named by name, version, release and RPM's own architecture; another architecture's is not the job's.
#[test]
fn rpms_are_found_by_name_and_version() {
    let (mut bundle, network) = honest();
    let request = samples::signed_request(&samples::rpm_request(network));
    bundle.request = Octets(request.to_bytes());
    let names = ["Answer-1.2^git3-1.src.rpm", "Answer-1.2^git3-1.x86_64.rpm", "Answer-doc-1.2^git3-1.noarch.rpm"];
    let signed = |at: u8, further: &str| {
        let mut attestation = attestation(&request, at, "");
        attestation.outputs = names.iter().chain([&further]).map(|name| output(name, name)).collect();
        attestation.byproducts = vec![];
        Octets(attestation.sign(&signing_key(10 + at)).unwrap())
    };
    bundle.attestations = vec![signed(0, "xx-1-1.s390x.rpm"), signed(1, "xx-1-1.s390x.rpm")];
    let proof = verify(&bundle, &network, samples::NOW).unwrap();
    let package = |name: &str, version: &str, arch, content: &str| {
        let sha256 = Sha256::of(content.as_bytes());
        let found = proof.package(&name.parse().unwrap(), &version.parse().unwrap(), arch, &sha256);
        found.map(|o| o.name.to_string()).map_err(|e| e.exit_code())
    };
    assert_eq!(
        package("Answer", "1:1.2^git3-1", Arch::Amd64, names[1]).unwrap(),
        names[1],
        "the epoch is not in the name"
    );
    assert_eq!(package("Answer-doc", "1.2^git3-1", Arch::All, names[2]).unwrap(), names[2]);
    assert_eq!(package("Answer", "1.2^git3-1", Arch::Amd64, "signed"), Err(12));
    assert_eq!(package("Answer", "1.2^git3-2", Arch::Amd64, names[1]), Err(10));
    assert_eq!(package("xx", "1-1", Arch::S390x, "xx-1-1.s390x.rpm"), Err(12));
    proof.file(names[0], &Sha256::of(names[0].as_bytes())).unwrap();
    let package = |name: &str| rpm_package(name).map(|(name, arch)| format!("{name} {arch}"));
    assert_eq!(names.map(package), [None, Some("Answer amd64".into()), Some("Answer-doc all".into())]);
    assert_eq!([package("Answer.x86_64.rpm"), package("x.iso")], [None, None]);
}

/// Two files of one base name in two folders are two files.
#[test]
fn files_in_folders() {
    let (mut bundle, network) = honest();
    let request = samples::signed_request(&{
        let mut request = samples::command_request(network);
        let JobKind::Command(command) = &mut request.kind else { panic!("a command") };
        command.outputs = vec!["a/x".parse().unwrap(), "b/x".parse().unwrap()];
        request
    });
    bundle.request = Octets(request.to_bytes());
    let signed = |at: u8| {
        let mut attestation = attestation(&request, at, "");
        attestation.outputs = vec![output("a/x", "1"), output("b/x", "2")];
        Octets(attestation.sign(&signing_key(10 + at)).unwrap())
    };
    bundle.attestations = vec![signed(0), signed(1)];
    let proof = verify(&bundle, &network, samples::NOW).unwrap();
    let name = |path: &str, content: &str| {
        proof.file(path, &Sha256::of(content.as_bytes())).map(|o| o.name.to_string()).map_err(|e| e.exit_code())
    };
    assert_eq!(name("x", "2"), Ok("b/x".to_owned()));
    assert_eq!(name("a/x", "1"), Ok("a/x".to_owned()));
    assert_eq!(name("a/x", "2"), Err(12), "a path names one file");
    assert_eq!(name("x", "3"), Err(12));
}

#[test]
fn names_of_packages() {
    let deb = DebName::parse(DEB).unwrap();
    assert_eq!((deb.name.as_str(), deb.version.as_str(), deb.arch), ("base-files", "12.4", Arch::Amd64));
    for bad in ["x.tar.xz", "a_1.deb", "a_1_amd64_b.deb", "A_1_amd64.deb", "aa_1_vax.deb"] {
        assert_eq!(DebName::parse(bad), None, "{bad}");
    }
}

#[test]
fn a_policy_chain_is_followed_and_the_last_one_counts() {
    let (mut bundle, network) = honest();
    let second = Policy { expires: Timestamp::from_millis(u64::MAX), ..samples::second(network, 3) };
    let sign =
        |policy: &Policy, seed: u8| Octets(Signed::sign(policy, Some(&network), &[&signing_key(seed)]).to_bytes());
    bundle.policies.push(sign(&second, samples::ROOT_SEED));
    let later = samples::genesis(3).expires;
    assert_eq!(verify(&bundle, &network, later).unwrap().policy.number, 2, "the genesis may have expired by then");

    let expelled = Policy { number: 3, operators: vec![second.operators[0].clone()], ..second.clone() };
    bundle.policies.push(sign(&expelled, samples::ROOT_SEED));
    let error = verify(&bundle, &network, samples::NOW).unwrap_err();
    assert!(matches!(error, Error::TooFew { got: 1, wanted: 2, .. }), "expelled operators weigh nothing: {error}");

    bundle.policies.pop();
    let usurped = Policy { number: 3, roots: Roots { keys: vec![public_key(66)], threshold: 1 }, ..second };
    bundle.policies.push(sign(&usurped, 66));
    assert_eq!(verify(&bundle, &network, samples::NOW).unwrap_err().exit_code(), 13);
}

#[test]
fn an_expired_policy_proves_nothing_now() {
    let (bundle, network) = honest();
    let error = verify(&bundle, &network, samples::genesis(3).expires).unwrap_err();
    assert!(matches!(error, Error::Succession { source: SuccessionError::Expired, .. }));
    assert_eq!(error.exit_code(), 1);
}

/// Applies a change to the honest bundle and gives the exit code.
fn code(change: impl FnOnce(&mut Bundle, NetworkId)) -> u8 {
    let (mut bundle, network) = honest();
    change(&mut bundle, network);
    let read = Bundle::from_bytes(&bundle.to_bytes()).map_err(Error::from);
    match read.and_then(|bundle| verify(&bundle, &network, samples::NOW)) {
        Ok(proof) => panic!("accepted: {:#?}", proof.lines()),
        Err(error) => error.exit_code(),
    }
}

/// Replaces the job request, signed with the given key.
fn replace_request(bundle: &mut Bundle, network: NetworkId, seed: u8, change: impl FnOnce(&mut JobRequest)) {
    let mut request = samples::deb_request(network);
    change(&mut request);
    bundle.request = Octets(Signed::sign(&request, Some(&network), &[&signing_key(seed)]).to_bytes());
}

/// Replaces one attestation by one with a change, signed by the node it names.
fn replace_attestation(
    bundle: &mut Bundle,
    network: NetworkId,
    change: impl FnOnce(&mut crate::statement::Attestation),
) {
    let mut changed = attestation(&request_of(network), 0, "honest");
    change(&mut changed);
    bundle.attestations[0] = Octets(changed.sign(&signing_key(10)).unwrap());
}

#[test]
fn mutations_of_policies() {
    assert_eq!(code(|b, _| b.policies.clear()), 13, "no policy");
    assert_eq!(code(|b, _| b.policies[0].0[100] ^= 1), 13, "a flipped bit");
    assert_eq!(code(|b, _| b.policies[0].0.truncate(50)), 13, "cut short");
    assert_eq!(code(|b, _| b.policies.push(b.policies[0].clone())), 13, "the genesis twice");
    assert_eq!(code(|b, _| b.policies = bundle(&samples::genesis(2), &[]).0.policies), 13, "another network's genesis");
    assert_eq!(code(|b, _| b.policies.resize(POLICIES_MAX + 1, b.policies[0].clone())), 1, "too many");
    let stranger = |b: &mut Bundle, network| {
        let second = samples::second(network, 3);
        b.policies.push(Octets(Signed::sign(&second, Some(&network), &[&signing_key(66)]).to_bytes()));
    };
    assert_eq!(code(stranger), 13, "a successor signed by a stranger");
}

#[test]
fn mutations_of_the_request() {
    assert_eq!(code(|b, _| b.request.0[60] ^= 1), 13, "a flipped bit");
    assert_eq!(code(|b, _| b.request.0.clear()), 13, "nothing");
    assert_eq!(code(|b, n| replace_request(b, n, 66, |_| ())), 13, "signed by a stranger");
    assert_eq!(code(|b, n| replace_request(b, n, 2, |r| r.nonce = vec![9; 16])), 13, "another job, same maintainer");
    assert_eq!(code(|b, n| replace_request(b, n, 2, |r| r.channel = "testing".parse().unwrap())), 13, "other channel");
    let other = NetworkId::from_bytes([9; 32]);
    assert_eq!(code(|b, n| replace_request(b, n, 2, |r| r.network = other)), 13, "another network inside");
}

#[test]
fn mutations_of_the_lock() {
    assert_eq!(code(|b, _| b.lock.0.clear()), 1, "nothing");
    assert_eq!(code(|b, _| b.lock.0.push(0)), 1, "trailing bytes");
    let other = |b: &mut Bundle, _| {
        let mut lock = samples::lock();
        lock.packages[0].sha256 = Sha256::of(b"another package");
        b.lock = Octets(lock.to_bytes());
    };
    assert_eq!(code(other), 13, "another environment");
}

#[test]
fn mutations_of_attestations() {
    assert_eq!(code(|b, _| b.attestations.clear()), 10, "none");
    assert_eq!(code(|b, _| b.attestations.truncate(1)), 11, "one of two");
    assert_eq!(code(|b, _| b.attestations[1] = b.attestations[0].clone()), 12, "one twice, and a liar");
    assert_eq!(code(|b, _| drop(b.attestations.remove(1))), 12, "one and a liar");
    assert_eq!(code(|b, _| b.attestations = vec![b.attestations[0].clone(); 2]), 11, "one builder twice is one");
    assert_eq!(code(|b, _| b.attestations[0].0[200] ^= 1), 13, "a flipped bit in the payload");
    assert_eq!(code(|b, _| b.attestations[2].0.truncate(40)), 13, "a dissenter cut short");
    assert_eq!(code(|b, _| b.attestations.resize(ATTESTATIONS_MAX + 1, b.attestations[0].clone())), 1, "too many");
    let swapped = |b: &mut Bundle, _| {
        let text = String::from_utf8(b.attestations[0].0.clone()).unwrap();
        let other = String::from_utf8(b.attestations[1].0.clone()).unwrap();
        let signature = |t: &str| t.split("\"signatures\"").nth(1).unwrap().to_owned();
        b.attestations[0] = Octets(text.replace(&signature(&text), &signature(&other)).into_bytes());
    };
    assert_eq!(code(swapped), 13, "another node's signature");
    assert_eq!(code(|b, n| replace_attestation(b, n, |a| a.task.job = JobId::from_bytes([1; 32]))), 13, "another job");
    assert_eq!(code(|b, n| replace_attestation(b, n, |a| a.task.arch = Arch::Arm64)), 13, "another architecture");
    assert_eq!(code(|b, n| replace_attestation(b, n, |a| drop(a.materials.pop()))), 13, "a source file left out");
    let other = NetworkId::from_bytes([9; 32]);
    assert_eq!(code(|b, n| replace_attestation(b, n, |a| a.task.network = other)), 13, "another network");
    assert_eq!(code(|b, n| replace_attestation(b, n, |a| a.outputs[0] = output(DEB, "third"))), 12, "all differ");
    let same_profile = |b: &mut Bundle, n| {
        replace_attestation(b, n, |a| a.run.profile = protocol::lease::Profile(1));
        b.attestations.truncate(2);
    };
    assert_eq!(code(same_profile), 11, "two operators under one profile");
}

#[test]
fn nodes_without_operator_weigh_nothing() {
    let strangers = |b: &mut Bundle, network| {
        let request = request_of(network);
        b.attestations = (50..53).map(|at| Octets(signed_attestation(&request, at, "honest"))).collect();
    };
    assert_eq!(code(strangers), 10);
}

#[test]
fn two_nodes_of_one_operator_never_make_two() {
    let mut policy = samples::genesis(2);
    policy.operators[0].nodes = vec![node(10), node(12)];
    policy.operators[0].nodes.sort();
    let (mut bundle, network) = bundle(&policy, &["x", "y", "x"]);
    let error = verify(&bundle, &network, samples::NOW).unwrap_err();
    assert_eq!(error.exit_code(), 12, "{error}");
    bundle.attestations.remove(1);
    let error = verify(&bundle, &network, samples::NOW).unwrap_err();
    assert!(matches!(error, Error::TooFew { got: 1, wanted: 2, .. }), "{error}");
}

#[test]
fn a_bundle_has_one_form() {
    let bytes = honest().0.to_bytes();
    protocol::testing::assert_canonical(&honest().0);
    let mut padded = bytes.clone();
    padded.push(0);
    assert!(matches!(Bundle::from_bytes(&padded), Err(crate::bundle::Error::Door(_))));
    assert!(Bundle::from_bytes(&bytes[..bytes.len() - 1]).is_err());
}

/// The bundle and an attestation as this version writes them: a later version must still read and accept them. See
/// `protocol/src/testing/golden.rs` for when to run this with `ARTEL_BLESS=1`.
#[test]
fn golden_bundle_and_attestation() {
    let (bundle, network) = honest();
    let (deb, whole) = (golden("deb-linked.intoto.json"), golden("linked.bundle"));
    if std::env::var_os("ARTEL_BLESS").is_some() {
        std::fs::write(&deb, &bundle.attestations[0].0).unwrap();
        std::fs::write(&whole, bundle.to_bytes()).unwrap();
    }
    let (deb, whole) = (std::fs::read(deb).unwrap(), std::fs::read(whole).unwrap());
    assert!(deb == bundle.attestations[0].0, "the attestation changed on the wire");
    assert!(whole == bundle.to_bytes(), "the bundle changed on the wire");
    let proof = verify(&Bundle::from_bytes(&whole).unwrap(), &network, samples::NOW).unwrap();
    assert_eq!(proof.agree.len(), 2);
}

/// What was written before builders signed links, too.
#[test]
fn golden_bundle_without_links() {
    let (_, network) = honest();
    let bundle = Bundle::from_bytes(&std::fs::read(golden("sample.bundle")).unwrap()).unwrap();
    assert_eq!(verify(&bundle, &network, samples::NOW).unwrap().agree.len(), 2);
    let attested = std::fs::read(golden("deb.intoto.json")).unwrap();
    assert_eq!(crate::statement::read(&attested, &network).unwrap().links(), Vec::new());
}

fn golden(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/wire/v1/attest").join(name)
}

mod any_byte {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        /// A changed byte is refused, or lies where DSSE says that nothing depends on it (key ids, unknown fields) and
        /// proves exactly the same.
        #[test]
        fn invariant_a_changed_byte_never_proves_something_else(at in any::<prop::sample::Index>(), change in 1..=255u8) {
            let (bundle, network) = honest();
            let proof = verify(&bundle, &network, samples::NOW).unwrap();
            let mut bytes = bundle.to_bytes();
            let at = at.index(bytes.len());
            bytes[at] ^= change;
            if let Ok(changed) = Bundle::from_bytes(&bytes)
                && let Ok(other) = verify(&changed, &network, samples::NOW)
            {
                prop_assert_eq!(other, proof);
            }
        }
    }
}

/// A genesis with the channels `stable` (2 operators) and `testing` (1), and a package built for `testing`.
fn promoted(work: ServerJob, signer: u8, built_by: u8) -> (Bundle, NetworkId) {
    let mut policy = samples::genesis(3);
    policy.channels.push(Channel { name: "testing".parse().unwrap(), ..samples::channel(1, 1) });
    policy.maintainers[0].channels.push("testing".parse().unwrap());
    let (mut bundle, network) = bundle(&policy, &[]);
    let mut wish = samples::deb_request(network);
    wish.channel = "testing".parse().unwrap();
    let request = samples::signed_request(&wish);
    bundle.request = Octets(request.to_bytes());
    bundle.attestations = (0..built_by).map(|at| Octets(signed_attestation(&request, at, "same"))).collect();
    let server = samples::server_request(network, work);
    bundle.promotions = vec![Octets(Signed::sign(&server, Some(&network), &[&signing_key(signer)]).to_bytes())];
    (bundle, network)
}

fn promote(packages: &[&str]) -> ServerJob {
    let packages = packages.iter().map(|name| name.parse().unwrap()).collect();
    ServerJob::Promote(Promote { from: "testing".parse().unwrap(), packages })
}

#[test]
fn a_promoted_package_is_held_to_the_rule_of_its_new_channel() {
    let check = |(bundle, network): (Bundle, NetworkId)| {
        let proof = verify(&Bundle::from_bytes(&bundle.to_bytes()).unwrap(), &network, samples::NOW)?;
        let (name, version) = ("base-files".parse().unwrap(), "12.4".parse().unwrap());
        proof.package(&name, &version, Arch::Amd64, &Sha256::of(b"same")).map(|_| proof.channel.to_string())
    };
    assert_eq!(check(promoted(promote(&[]), samples::MAINTAINER_SEED, 2)).unwrap(), "stable");
    assert_eq!(check(promoted(promote(&["base-files"]), samples::ROOT_SEED, 2)).unwrap(), "stable");
    let few = check(promoted(promote(&[]), samples::MAINTAINER_SEED, 1)).unwrap_err();
    assert!(matches!(few, Error::TooFew { got: 1, wanted: 2, .. }), "{few}");
    let other = check(promoted(promote(&["hello"]), samples::MAINTAINER_SEED, 2)).unwrap_err();
    assert!(matches!(other, Error::NotPromoted { .. }), "{other}");
    // A file that is no package is named by no list of packages.
    let as_file = |work: ServerJob| {
        let (mut bundle, network) = promoted(work, samples::MAINTAINER_SEED, 2);
        let request = Signed::<JobRequest>::read(&bundle.request.0).and_then(|r| r.verify(Some(&network))).unwrap();
        let signed = |at: u8| {
            let mut attestation = attestation(&request, at, "same");
            attestation.outputs.push(output("live.iso", "iso"));
            Octets(attestation.sign(&signing_key(10 + at)).unwrap())
        };
        bundle.attestations = vec![signed(0), signed(1)];
        let proof = verify(&bundle, &network, samples::NOW).unwrap();
        [(DEB, "same"), ("live.iso", "iso")].map(|(name, content)| {
            proof.file(name, &Sha256::of(content.as_bytes())).map(drop).map_err(|e| e.exit_code())
        })
    };
    assert_eq!(as_file(promote(&[])), [Ok(()), Ok(())]);
    assert_eq!(as_file(promote(&["base-files"])), [Ok(()), Err(13)]);
    assert_eq!(as_file(promote(&["hello"])), [Err(13), Err(13)]);
    let stranger = check(promoted(promote(&[]), 99, 2)).unwrap_err();
    assert!(stranger.to_string().contains("no maintainer of channel stable"), "{stranger}");
    let prune = ServerJob::Prune(Prune { keep: 1, before: None, packages: Vec::new() });
    assert_eq!(check(promoted(prune, samples::MAINTAINER_SEED, 2)).unwrap_err().exit_code(), 13);
    let mut elsewhere = promoted(promote(&[]), samples::MAINTAINER_SEED, 2);
    elsewhere.0.promotions.push(elsewhere.0.promotions[0].clone());
    let twice = check(elsewhere).unwrap_err();
    assert!(twice.to_string().contains("this one came from stable"), "{twice}");
    // A promotion is no word about what is asked for once its time is over, though it names neither job nor version.
    let mut old = promoted(promote(&[]), samples::MAINTAINER_SEED, 2);
    let mut server = samples::server_request(old.1, promote(&[]));
    for (expires, promoted) in
        [(server.created, true), (Timestamp::from_millis(server.created.as_millis() - 1000), false)]
    {
        (server.created, server.expires) = (Timestamp::from_millis(expires.as_millis() - 60_000), expires);
        let maintainer = signing_key(samples::MAINTAINER_SEED);
        old.0.promotions = vec![Octets(Signed::sign(&server, Some(&old.1), &[&maintainer]).to_bytes())];
        let judged = check((old.0.clone(), old.1));
        assert_eq!(judged.is_ok(), promoted, "{judged:?}");
        assert!(promoted || judged.unwrap_err().to_string().contains("its time was over"));
    }
    let mut built = promoted(promote(&[]), samples::MAINTAINER_SEED, 2);
    built.0.promotions = vec![built.0.request.clone()];
    assert!(check(built).unwrap_err().to_string().contains("it is a build"));
}
