//! Packages, their indexes, and the signatures of repositories: at the publisher's door, in a mirror and in the verifier.

use std::{cmp::Ordering, collections::BTreeSet, io::Cursor, path::Path};

use attest::rpm;
use leaves::{
    publish::{
        described,
        follow::covered::packages,
        incoming,
        sign::{
            RepositoryKey, check,
            keyring::{Certificate, Keyring},
        },
    },
    recipe::decide,
};
use protocol::{Arch, FileName, Timestamp, recipe::Product, words::DebVersion};
use verifier::{apt::input, archive, deb};

use super::sources::scratch;
use crate::{Target, limit};

/// Headers of RPM files.
pub const RPM: Target = Target {
    name: "rpm",
    limit: limit(usize::MAX),
    run: |bytes| {
        let _ = rpm::attested(bytes);
        let _ = rpm::front_size(bytes);
        let mut file = Cursor::new(bytes);
        let read = verifier::rpm::fields(&mut file);
        file.set_position(0);
        if let Ok(attested) = verifier::rpm::attested(&mut file) {
            assert_eq!(attested, rpm::attested(bytes));
        }
        if let Ok(front) = rpm::front(bytes) {
            assert!(front.begin <= front.end && front.end <= bytes.len());
            for tag in [1000, 1001, 1002, 1004, 1006, 1022, 1044, 1049, 1106, 5011] {
                let _ = (front.header.texts(tag), front.header.numbers(tag), front.header.has(tag));
            }
        }
        let Ok(unsigned) = rpm::unsigned(bytes) else { return read.is_ok() };
        let whole = [&unsigned.bytes[..], &bytes[unsigned.instead_of..]].concat();
        let again = rpm::unsigned(&whole).expect("what was taken apart can be taken apart");
        assert_eq!(again.bytes, unsigned.bytes);
        // A signature that is put in can be taken out again.
        let signed = rpm::sign(&whole, &[7; 70]).expect("it has no signature");
        let signed = [&signed.bytes[..], &whole[signed.instead_of..]].concat();
        assert_eq!(rpm::attested(&signed), rpm::attested(bytes));
        true
    },
};

/// RPMs at the publisher's door, and what dnf's metadata says of them: nothing of a header is more there than text.
pub const RPM_ENTRY: Target = Target {
    name: "rpm_entry",
    limit: limit(usize::MAX),
    run: |bytes| {
        let Some((name, version, arch)) = named(bytes) else { return false };
        let file = FileName::new(format!("{name}-{version}.{arch}.rpm"));
        let Ok(file) = file else { return false };
        let path = scratch("fuzz.rpm", bytes);
        let Ok([primary, filelists, other]) = described(&path, &file, Arch::EVERY) else { return false };
        for (xml, root) in [(&primary, "package"), (&filelists, "package"), (&other, "package")] {
            assert_eq!(xml.matches(&format!("<{root} ")).count(), 1, "one package is told");
            assert_eq!(xml.matches(&format!("</{root}>")).count(), 1, "one package is told");
            let plain = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
            assert!(xml.chars().all(plain), "no character that XML has not");
        }
        true
    },
};

/// What a header says that its file is called.
fn named(bytes: &[u8]) -> Option<(String, String, String)> {
    let header = rpm::front(bytes).ok()?.header;
    let text = |tag| header.text(tag).map(str::to_owned);
    Some((text(1000)?, format!("{}-{}", text(1001)?, text(1002)?), text(1022)?))
}

/// Debian packages at the publisher's door and in the verifier, which must agree on what they are called.
pub const DEB: Target = Target {
    name: "deb",
    limit: limit(usize::MAX),
    run: |bytes| {
        let fields = deb::fields(&mut Cursor::new(bytes));
        let path = scratch("fuzz.deb", bytes);
        let called = |[name, version, arch]: &deb::Fields| {
            let plain = version.split_once(':').map_or(version.as_str(), |(_, plain)| plain);
            FileName::new(format!("{name}_{plain}_{arch}.deb"))
        };
        let any = || FileName::new("fuzz").expect("a plain word");
        let file = fields.as_ref().ok().and_then(|fields| called(fields).ok()).unwrap_or_else(any);
        match (incoming::inspect(&path, &file, Arch::EVERY), &fields) {
            (Ok(control), Ok(fields)) => {
                let told = [control.name.as_str(), control.version.as_str(), &control.arch.to_string()];
                assert_eq!(told.map(str::to_owned), *fields);
                assert!(!control.text.contains("\n\n") && control.text.ends_with('\n'), "one paragraph of an index");
                true
            }
            (Ok(_) | Err(incoming::Error::Name { .. }), fields) => {
                panic!("what a repository takes the verifier reads otherwise: {fields:?}")
            }
            (Err(_), fields) => fields.is_ok(),
        }
    },
};

/// The indexes of repositories: apt's `Packages`, dnf's `repomd.xml` and primary index. No package lies outside.
pub const INDEX: Target = Target {
    name: "index",
    limit: limit(usize::MAX),
    run: |bytes| {
        let Ok(text) = str::from_utf8(bytes) else { return false };
        let root = Path::new("/repository");
        let found = [archive::packages(text, root), archive::dnf::primary_packages(text, root)];
        for entry in found.iter().flatten().flatten() {
            let inside = entry.file.strip_prefix(root).expect("it lies in the repository");
            assert!(inside.components().all(|part| matches!(part, std::path::Component::Normal(_))));
            let _ = entry.identity();
        }
        archive::dnf::indexes_of(text).is_ok()
            || archive::dnf::only_lists(text).is_ok()
            || found.iter().flatten().any(|entries| !entries.is_empty())
    },
};

/// The packages of a release, of which the index that a mirror is given may name no other.
pub const RELEASED: [&str; 3] =
    ["pool/main/a/a/a_1_all.deb", "pool/main/a/a/b_1-1_amd64.deb", "pool/main/libc/libc/c_1~1_amd64.deb"];

/// Indexes for apt that a mirror is given: in what it lets in, the verifier's own reader finds only the release's packages.
pub const RELEASE_INDEX: Target = Target {
    name: "release_index",
    limit: limit(usize::MAX),
    run: |bytes| {
        if packages::check(bytes, &BTreeSet::from(RELEASED)).is_err() {
            return false;
        }
        let text = str::from_utf8(bytes).expect("it was let in");
        let root = Path::new("/repository");
        for entry in archive::packages(text, root).into_iter().flatten() {
            let inside = entry.file.strip_prefix(root).expect("it lies in the repository");
            assert!(RELEASED.iter().any(|released| Path::new(released) == inside), "{}", inside.display());
        }
        true
    },
};

/// What apt says to its hook.
pub const APT_INPUT: Target = Target {
    name: "apt_input",
    limit: limit(usize::MAX),
    run: |bytes| {
        let Ok(input) = input::read(&mut &bytes[..]) else { return false };
        for option in &input.options {
            assert!(!option.starts_with('-') && option.contains('='), "an option is no flag: {option:?}");
        }
        let _ = input.wanted.iter().map(ToString::to_string).collect::<Vec<_>>();
        true
    },
};

thread_local! {
    static KEY: RepositoryKey =
        RepositoryKey::from_seed("fuzz", Timestamp::from_millis(1_780_000_000_000), [7; 32]).expect("a key can be made");
}

/// The text whose signatures are read.
pub const SIGNED_TEXT: &str = "Origin: artel\nDescription: - dashes\n- at the start\nSHA256:\n abc 1 main/x\n";

/// OpenPGP: certificates, keyrings, and signatures in the three forms of repositories.
pub const OPENPGP: Target = Target {
    name: "openpgp",
    limit: 8192,
    run: |bytes| {
        KEY.with(|key| {
            let own = key.certificate().expect("a key has one");
            let keyring = Keyring::new([own]);
            let mut read = false;
            if let Ok(certificate) = Certificate::read(bytes) {
                assert_eq!(certificate.bytes(), bytes);
                read = true;
            }
            if let Ok(keyring) = Keyring::read(bytes) {
                assert_eq!(keyring.to_bytes(), bytes);
                read = true;
            }
            let text = SIGNED_TEXT.as_bytes();
            let checked = [
                check::detached(&keyring, "x", bytes, text).is_ok(),
                check::clear(&keyring, "x", bytes, text).is_ok(),
                check::packet(&keyring, "x", bytes, text).is_ok(),
            ];
            read || checked.contains(&true)
        })
    },
};

/// Three versions, one a line, in both orders: what comes before comes before, whoever is asked.
pub const VERSION: Target = Target {
    name: "version",
    limit: 1024,
    run: |bytes| {
        let Ok(text) = str::from_utf8(bytes) else { return false };
        let versions: Vec<DebVersion> =
            text.split('\n').filter_map(|line| DebVersion::new(line).ok()).take(3).collect();
        let [a, b, c] = versions.as_slice() else { return false };
        for product in [Product::Deb, Product::Rpm] {
            let compare = |a, b| decide::compare(product, a, b);
            assert_eq!(compare(a, a), Ordering::Equal);
            assert_eq!(compare(a, b), compare(b, a).reverse());
            if compare(a, b) != Ordering::Greater && compare(b, c) != Ordering::Greater {
                assert_ne!(compare(a, c), Ordering::Greater, "{product:?}: {a} {b} {c}");
            }
        }
        true
    },
};
