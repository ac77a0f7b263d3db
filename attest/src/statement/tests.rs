//! The JSON form as others read it, and every binding that a reader checks.

use protocol::testing::{node, samples, signing_key};
use serde_json::{Value, json};

use super::*;
use crate::testing::{DEB, attestation, output, signed_attestation};

fn request() -> Verified<JobRequest> {
    samples::signed_request(&samples::deb_request(samples::network()))
}

fn payload(bytes: &[u8]) -> Value {
    let envelope = dsse::Envelope::read(bytes, limits::ATTESTATION_MAX).unwrap();
    serde_json::from_slice(envelope.payload()).unwrap()
}

/// Gives the payload's own text, broken after commas and brackets so that a change can be reviewed.
fn text(bytes: &[u8]) -> String {
    let envelope = dsse::Envelope::read(bytes, limits::ATTESTATION_MAX).unwrap();
    let text = String::from_utf8(envelope.payload().to_vec()).unwrap();
    text.replace(",\"", ",\n\"").replace(":{", ":{\n").replace("},", "},\n")
}

/// Signs a changed payload with the builder's own key and gives what the reader says of it.
fn resigned(change: impl FnOnce(&mut Value)) -> Result<VerifiedAttestation, Error> {
    let mut json = payload(&signed_attestation(&request(), 0, "x"));
    change(&mut json);
    let payload = serde_json::to_vec(&json).unwrap();
    let bytes = dsse::Envelope::sign(dsse::IN_TOTO, payload, &[&signing_key(10)]).to_bytes();
    read(&bytes, &samples::network())
}

#[test]
fn a_deb_statement_as_json() {
    insta::assert_snapshot!(text(&signed_attestation(&request(), 0, "x")));
}

#[test]
fn a_command_statement_as_json() {
    let request = samples::signed_request(&samples::command_request(samples::network()));
    let mut attestation = attestation(&request, 1, "x");
    attestation.outputs = vec![output("out/answer.txt", "42")];
    attestation.byproducts = vec![];
    let bytes = attestation.sign(&signing_key(11)).unwrap();
    insta::assert_snapshot!(text(&bytes));
    let read = read(&bytes, &samples::network()).unwrap();
    assert_eq!(read.matches_request(&request), Ok(()));
    assert_eq!(read.get().title(), "command answer amd64");
}

#[test]
fn an_rpm_statement_as_json() {
    let request = samples::signed_request(&samples::rpm_request(samples::network()));
    let mut attestation = attestation(&request, 1, "x");
    attestation.outputs = vec![output("Answer-1.2^git3-1.x86_64.rpm", "42")];
    attestation.byproducts = vec![];
    let bytes = attestation.sign(&signing_key(11)).unwrap();
    insta::assert_snapshot!(text(&bytes));
    let read = read(&bytes, &samples::network()).unwrap();
    assert_eq!(read.matches_request(&request), Ok(()));
    assert_eq!(read.get().title(), "rpm Answer 1.2^git3 amd64");
}

#[test]
fn what_was_signed_is_what_is_read() {
    let attestation = attestation(&request(), 0, "x");
    let bytes = attestation.sign(&signing_key(10)).unwrap();
    assert_eq!(bytes, attestation.sign(&signing_key(10)).unwrap(), "equal statements give equal bytes");
    let read = read(&bytes, &samples::network()).unwrap();
    assert_eq!(read.get(), &attestation);
    assert_eq!(read.signer(), node(10));
    assert_eq!(read.id(), Hash::of(&bytes));
    assert_eq!(read.bytes(), bytes);
    assert_eq!(read.matches_request(&request()), Ok(()));
    assert_eq!(read.get().title(), "deb base-files 12.4 amd64");
}

#[test]
fn unknown_fields_are_ignored_but_not_among_external_parameters() {
    resigned(|json| json["predicate"]["runDetails"]["artel_later"] = json!(1)).unwrap();
    let error = resigned(|json| {
        json["predicate"]["buildDefinition"]["externalParameters"]["suite"] = json!("sid");
    });
    assert!(matches!(error, Err(Error::Form { .. })), "{error:?}");
}

#[test]
fn what_is_said_twice_must_agree() {
    let cases: [fn(&mut Value); 12] = [
        |j| j["_type"] = json!("https://in-toto.io/Statement/v0.1"),
        |j| j["predicateType"] = json!("https://slsa.dev/provenance/v0.2"),
        |j| j["predicate"]["buildDefinition"]["buildType"] = json!("https://artel.example/buildtypes/command/v1"),
        |j| j["predicate"]["buildDefinition"]["externalParameters"]["kind"] = json!("command"),
        |j| j["predicate"]["buildDefinition"]["externalParameters"]["name"] = json!("both"),
        |j| j["predicate"]["buildDefinition"]["internalParameters"]["lease"] = json!(2),
        |j| j["predicate"]["runDetails"]["metadata"]["invocationId"] = json!("x/1"),
        |j| j["predicate"]["runDetails"]["metadata"]["startedOn"] = json!("2026-11-21T00:00:00.5Z"),
        |j| j["predicate"]["runDetails"]["metadata"]["startedOn"] = json!("2026-11-21T01:00:00+01:00"),
        |j| j["predicate"]["runDetails"]["metadata"]["startedOn"] = json!("1969-12-31T23:59:59Z"),
        |j| j["predicate"]["runDetails"]["builder"]["id"] = json!("https://elsewhere.example/builder/1"),
        |j| drop(j["subject"][0]["digest"].as_object_mut().unwrap().remove("blake3")),
    ];
    for (at, case) in cases.into_iter().enumerate() {
        let error = resigned(case);
        assert!(matches!(error, Err(Error::Form { .. })), "case {at}: {error:?}");
    }
}

#[test]
fn packages_have_signed_links_and_a_broken_one_breaks_no_statement() {
    let sign = |content| read(&signed_attestation(&request(), 0, content), &samples::network()).unwrap();
    let (attested, other) = (sign("x"), sign("y"));
    let links = attested.links();
    assert_eq!((links.len(), links[0].0.name.as_str(), links[0].1.key), (1, DEB, node(10).into()));
    let theirs = link::to_hex(&other.links()[0].1.bytes);
    for broken in [json!(theirs), json!("00"), json!("zz"), json!(1), json!(null), json!({"a": [1]})] {
        let changed = resigned(|json| json["subject"][0]["annotations"]["link"] = broken.clone()).unwrap();
        assert_eq!((changed.get(), changed.links()), (attested.get(), Vec::new()), "{broken}");
    }
    let without = resigned(|json| drop(json["subject"][0]["annotations"].as_object_mut().unwrap().remove("link")));
    assert_eq!(without.unwrap().links(), Vec::new(), "as builders signed before there were links");
}

#[test]
fn the_rules_of_a_statement() {
    let broken = |change: fn(&mut Attestation)| {
        let mut attestation = attestation(&request(), 0, "x");
        change(&mut attestation);
        match attestation.sign(&signing_key(10)) {
            Err(Error::Meaning(why)) => why,
            other => panic!("signed: {other:?}"),
        }
    };
    assert!(broken(|a| a.outputs.clear()).contains("at least one output"));
    assert!(broken(|a| a.outputs.push(a.outputs[0].clone())).contains("outputs must be sorted"));
    assert!(broken(|a| a.outputs = vec![output("x.buildinfo", "")]).contains("byproduct"));
    assert!(broken(|a| a.byproducts = a.outputs.clone()).contains("both"));
    assert!(broken(|a| a.outputs[0].size = EXACT_MAX + 1).contains("bytes"));
    assert!(broken(|a| a.materials.reverse()).contains("materials must be sorted"));
    assert!(broken(|a| a.run.finished = Timestamp::ZERO).contains("finished before"));
    assert!(broken(|a| a.run.version = "1\n2".into()).contains("version"));
    assert!(broken(|a| drop(a.run.node_info.insert("k".into(), "\u{1b}[2J".into()))).contains("node_info"));
    assert!(broken(|a| a.run.lease = LeaseNumber(u64::MAX)).contains("lease"));
}

/// A rule that the writer keeps is checked by the reader too: whoever signs with other tools gains nothing.
#[test]
fn a_reader_checks_the_rules_too() {
    let error = resigned(|json| json["subject"] = json!([]));
    assert!(matches!(error, Err(Error::Meaning(_))), "{error:?}");
}

#[test]
fn only_the_builder_that_is_named_may_sign() {
    let attestation = attestation(&request(), 0, "x");
    assert_eq!(attestation.sign(&signing_key(11)), Err(Error::BadSignature { node: node(10) }));
    let stolen = resigned(|json| {
        json["predicate"]["runDetails"]["builder"]["id"] = json!(format!("https://artel.example/builder/{}", node(11)));
    });
    assert_eq!(stolen, Err(Error::BadSignature { node: node(11) }));
}

#[test]
fn another_network_and_another_payload_type_are_refused() {
    let bytes = signed_attestation(&request(), 0, "x");
    let other = NetworkId::from_bytes([9; 32]);
    assert_eq!(read(&bytes, &other), Err(Error::OtherNetwork { got: samples::network(), wanted: other }));
    let payload = dsse::Envelope::read(&bytes, 1 << 20).unwrap().payload().to_vec();
    let retyped = dsse::Envelope::sign("application/json", payload, &[&signing_key(10)]).to_bytes();
    assert!(matches!(read(&retyped, &samples::network()), Err(Error::PayloadType { .. })));
    let huge = vec![b' '; limits::ATTESTATION_MAX + 1];
    assert!(matches!(read(&huge, &samples::network()), Err(Error::Envelope(dsse::Error::TooLarge { .. }))));
}

#[test]
fn an_attestation_answers_one_request_only() {
    let mismatch = |change: fn(&mut Attestation)| {
        let mut attestation = attestation(&request(), 0, "x");
        change(&mut attestation);
        let bytes = attestation.sign(&signing_key(10)).unwrap();
        read(&bytes, &samples::network()).unwrap().matches_request(&request()).unwrap_err().field
    };
    assert_eq!(mismatch(|a| a.task.job = JobId::from_bytes([1; 32])), "job");
    assert_eq!(mismatch(|a| a.task.arch = Arch::Arm64), "architecture");
    assert_eq!(mismatch(|a| a.task.channel = "testing".parse().unwrap()), "channel");
    assert_eq!(mismatch(|a| a.task.environment = Hash::of(b"other")), "environment");
    assert_eq!(mismatch(|a| a.materials[0].sha256 = Sha256::of(b"other")), "materials");
    assert_eq!(mismatch(|a| drop(a.materials.pop())), "materials");
    let version = "12.5".parse::<DebVersion>().unwrap();
    let work = Work::Deb { source: "base-files".parse().unwrap(), version };
    let mut other = attestation(&request(), 0, "x");
    other.task.work = work;
    let read = read(&other.sign(&signing_key(10)).unwrap(), &samples::network()).unwrap();
    let mismatch = read.matches_request(&request()).unwrap_err();
    assert_eq!(mismatch.to_string(), "attestation says work deb base-files 12.5, wanted deb base-files 12.4");
}

#[test]
fn a_command_leaves_exactly_its_declared_outputs() {
    let request = samples::signed_request(&samples::command_request(samples::network()));
    let mut extra = attestation(&request, 0, "x");
    extra.outputs = vec![output("out/answer.txt", "42"), output("out/more.txt", "43")];
    extra.byproducts = vec![];
    let read = read(&extra.sign(&signing_key(10)).unwrap(), &samples::network()).unwrap();
    assert_eq!(read.matches_request(&request).unwrap_err().field, "outputs");
}

#[test]
fn an_image_leaves_exactly_its_formats_and_names_its_lock() {
    let request = samples::signed_request(&samples::image_request(samples::network()));
    let mut honest = attestation(&request, 0, "x");
    honest.byproducts = vec![];
    honest.outputs = ["ext4", "iso"].map(|end| output(&format!("shop-kiosk-20231114-amd64.{end}"), end)).to_vec();
    let reread = |a: &Attestation| read(&a.sign(&signing_key(10)).unwrap(), &samples::network()).unwrap();
    assert_eq!(reread(&honest).matches_request(&request), Ok(()));
    let materials: Vec<&str> = honest.materials.iter().map(|m| m.name.as_str()).collect();
    assert_eq!(materials, ["files/etc/motd", "packages.lock"]);
    let mut fewer = honest.clone();
    fewer.outputs.pop();
    assert_eq!(reread(&fewer).matches_request(&request).unwrap_err().field, "outputs");
}

#[test]
fn an_attestation_was_made_under_its_lease() {
    let request = request();
    let read = read(&signed_attestation(&request, 0, "x"), &samples::network()).unwrap();
    let lease = Lease {
        job: protocol::job::job_id(&request),
        node: node(10),
        number: LeaseNumber(1),
        expires: samples::NOW,
        profile: Profile(0),
        memory_mib: 4096,
    };
    assert_eq!(read.matches_lease(&lease), Ok(()));
    let field = |lease: Lease| read.matches_lease(&lease).unwrap_err().field;
    assert_eq!(field(Lease { number: LeaseNumber(2), ..lease.clone() }), "lease");
    assert_eq!(field(Lease { profile: Profile(1), ..lease.clone() }), "profile");
    assert_eq!(field(Lease { node: node(11), ..lease.clone() }), "builder");
    assert_eq!(field(Lease { job: JobId::from_bytes([1; 32]), ..lease }), "job");
}

#[test]
fn the_role_of_a_file() {
    let deb = attestation(&request(), 0, "x").task.work;
    let command = Work::Command { name: "answer".parse().unwrap() };
    let check = |work: &Work, name: &str| role(work, &name.parse().unwrap());
    assert_eq!(check(&deb, DEB), Role::Output);
    assert_eq!(check(&deb, "base-files_12.4_amd64.buildinfo"), Role::Byproduct);
    assert_eq!(check(&deb, "base-files_12.4_amd64.changes"), Role::Byproduct);
    assert_eq!(check(&deb, "build.log"), Role::Byproduct);
    assert_eq!(check(&command, "out/build.log"), Role::Output, "what a command declares counts");
}
