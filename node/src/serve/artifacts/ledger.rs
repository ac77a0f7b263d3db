//! What a ledger tells of files: those of its last jobs with a verdict, and packages that no repository has.

use std::collections::BTreeSet;

use attest::{compare, statement::VerifiedAttestation};
use ledger::{
    Ledger,
    view::{Decided, Verdict},
};
use protocol::{
    Arch, Sha256,
    job::{JobKind, JobRequest},
    words::DebVersion,
};
use web::api::{ArtifactView, PackageView, VerdictWord};

/// Packages that are listed at most.
const PACKAGES_MAX: usize = 1000;

/// Gives what is attested of files whose digest begins so, and what their jobs came to.
pub(super) fn attested(ledger: &Ledger, prefix: &[u8]) -> Vec<(VerdictWord, Sha256, VerifiedAttestation)> {
    let each =
        ledger.decided().flat_map(|decided| decided.attestations().map(move |attestation| (decided, attestation)));
    let found = each.filter_map(|(decided, attestation)| {
        let outputs = &attestation.get().outputs;
        let output = outputs.iter().find(|output| output.sha256.as_bytes().starts_with(prefix))?;
        Some((word(&decided, attestation), output.sha256, attestation.clone()))
    });
    found.take(ArtifactView::FOUND_MAX * protocol::limits::ATTEMPTS_MAX as usize).collect()
}

/// What a builder who differed made of a job that others reproduced was not reproduced.
fn word(decided: &Decided<'_>, attestation: &VerifiedAttestation) -> VerdictWord {
    match decided.verdict {
        Verdict::Reproduced(agreed) if compare::digest(&attestation.get().outputs) == agreed => VerdictWord::Reproduced,
        Verdict::Reproduced(_) | Verdict::Disputed => VerdictWord::Disputed,
        Verdict::Unreproducible => VerdictWord::Unreproducible,
        Verdict::Failed => VerdictWord::Failed,
    }
}

/// Lists Debian packages that builders could not reproduce, and sources that wait for a verdict.
pub(super) fn packages(ledger: &Ledger) -> Vec<PackageView> {
    let mut known = BTreeSet::new();
    let mut packages = Vec::new();
    let mut add = |view: PackageView| {
        if packages.len() < PACKAGES_MAX && known.insert((view.name.clone(), view.version.clone(), view.architecture)) {
            packages.push(view);
        }
    };
    for decided in ledger.decided() {
        let verdict = match decided.verdict {
            Verdict::Reproduced(_) | Verdict::Failed => continue,
            Verdict::Disputed => VerdictWord::Disputed,
            Verdict::Unreproducible => VerdictWord::Unreproducible,
        };
        let JobKind::Deb(deb) = &decided.request.kind else { continue };
        for output in decided.attestations().flat_map(|attestation| &attestation.get().outputs) {
            if let Some((name, version, architecture)) = package(output.name.as_str(), &deb.version) {
                add(view(ledger, decided.request, (name, version, architecture), verdict));
            }
        }
    }
    for request in ledger.undecided() {
        if let JobKind::Deb(deb) = &request.kind {
            let package = (deb.source.as_str(), deb.version.as_str(), request.arch);
            add(view(ledger, request, package, VerdictWord::Pending));
        }
    }
    packages
}

fn view(ledger: &Ledger, request: &JobRequest, package: (&str, &str, Arch), verdict: VerdictWord) -> PackageView {
    let (name, version, architecture) = package;
    let channel = ledger.policy().get().channel(&request.channel);
    PackageView {
        name: name.to_owned(),
        version: version.to_owned(),
        architecture,
        verdict,
        channel: request.channel.clone(),
        suite: channel.map(|channel| channel.suite.clone()),
        path: None,
    }
}

/// Reads name, version and architecture from a package's file name, which has no epoch: that of its source is taken where the
/// rest of the version is the source's, as it mostly is.
fn package<'a>(file: &'a str, source: &'a DebVersion) -> Option<(&'a str, &'a str, Arch)> {
    let mut words = file.strip_suffix(".deb")?.split('_');
    let (name, version, arch) = (words.next()?, words.next()?, words.next()?.parse().ok()?);
    let whole = source.as_str();
    let bare = whole.split_once(':').map_or(whole, |(_, bare)| bare);
    words.next().is_none().then_some((name, if bare == version { whole } else { version }, arch))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_are_packages_with_the_epoch_of_their_source() {
        let source: DebVersion = "1:2.10-3".parse().unwrap();
        let read = |file| package(file, &source);
        assert_eq!(read("hello_2.10-3_amd64.deb"), Some(("hello", "1:2.10-3", Arch::Amd64)));
        assert_eq!(read("hello-data_5_all.deb"), Some(("hello-data", "5", Arch::All)));
        for other in ["hello_2.10-3_amd64.udeb", "hello_2.10-3.deb", "hello_1_2_amd64.deb", "hello_1_pdp11.deb"] {
            assert_eq!(read(other), None, "{other}");
        }
    }
}
