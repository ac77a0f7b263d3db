//! What nodes say to each other, and what people sign.

use ed25519_dalek::Signer;
use leaves::ticket::Ticket;
use protocol::{
    Arch, ChannelName, Envelope, FileName, Hash, NetworkId, NodeId, PackageName, PublicKey, Sha256, Signed, SuiteName,
    blame::Failure,
    codec,
    envelope::{Record, Signature, pae, type_string},
    environment::EnvironmentLock,
    job::{Announcement, JobRequest, Order},
    lease::Lease,
    limits::{self, ENVELOPE_ROOM},
    message::{Request, Response},
    peer::{Leadership, NodeCard},
    policy::{self, Policy},
    recipe::{Recipe, RecipeRun},
    release::{Manifest, Release},
    ssh,
    testing::{public_key, samples, signing_key},
    words::{CommitId, DebVersion, HostRule, RecipeName, RefName, RelativePath, Url},
};

use super::{canonical, same_text};
use crate::{Target, limit};

/// Signed records: their envelopes, and their payloads properly signed, so that the fuzzer gets past the signature.
pub const ENVELOPE: Target = Target {
    name: "envelope",
    limit: limits::POLICY_MAX + ENVELOPE_ROOM,
    run: |bytes| {
        let read = [
            signed::<Policy>(bytes),
            signed::<JobRequest>(bytes),
            signed::<Order>(bytes),
            signed::<Announcement>(bytes),
            signed::<NodeCard>(bytes),
            signed::<Leadership>(bytes),
            signed::<Release>(bytes),
        ];
        succession(bytes);
        read.contains(&true)
    },
};

/// Recipes and the records of their runs, likewise.
pub const RECIPE: Target = Target {
    name: "recipe",
    limit: 64 * 1024 + ENVELOPE_ROOM,
    run: |bytes| {
        let read = [signed::<Recipe>(bytes), signed::<RecipeRun>(bytes)];
        if let Ok(Some(plan)) = codec::decode::<Recipe>(bytes, bytes.len()).map(|recipe| recipe.plan) {
            let _ = plan.repositories();
        }
        read.contains(&true)
    },
};

fn signed<T: Record>(bytes: &[u8]) -> bool {
    let network = samples::network();
    let mut read = false;
    if let Ok(signed) = Signed::<T>::read(bytes) {
        assert_eq!(signed.to_bytes(), bytes);
        read = signed.verify(Some(&network)).is_ok();
    }
    // Signing takes long, and what is no such record is refused before its signature is looked at.
    if codec::decode::<T>(bytes, T::LIMIT).is_err() {
        return read;
    }
    let kind = type_string(T::KIND, Some(&network));
    let sig = signing_key(1).sign(&pae(&kind, bytes)).to_bytes().to_vec();
    let sigs = vec![Signature { key: public_key(1), sig }];
    let envelope = codec::encode(&Envelope { sigs, kind, payload: bytes.to_vec() });
    if let Ok(verified) = Signed::<T>::read(&envelope).and_then(|signed| signed.verify(Some(&network))) {
        assert_eq!(codec::encode(verified.get()), bytes);
        read = true;
    }
    read
}

/// Asks of a policy that a root signed whether it may follow the samples' own.
fn succession(bytes: &[u8]) {
    let network = samples::network();
    let Ok(next) = codec::decode::<Policy>(bytes, limits::POLICY_MAX) else { return };
    let signed = Signed::sign(&next, Some(&network), &[&signing_key(samples::ROOT_SEED)]);
    let Ok(next) = signed.verify(Some(&network)) else { return };
    let _ = policy::check_successor(&samples::genesis(3), &network, &next, samples::NOW);
    let _ = attest::log::network::log_policy(&network, next.get(), 2);
}

/// Requests of the exchange protocol.
pub const REQUEST: Target = Target { name: "request", limit: limits::REQUEST_MAX, run: canonical::<Request> };

/// Responses of the exchange protocol.
pub const RESPONSE: Target = Target { name: "response", limit: limits::RESPONSE_MAX, run: canonical::<Response> };

/// Up to here every decoder of records reads the same bytes. Longer ones are one decoder's, so that the time which is measured is that
/// of one.
const SHARED_MAX: usize = 64 * 1024;

/// Records that are named by hash and carry no signature of their own, and parts of messages.
pub const RECORD: Target = Target {
    name: "record",
    limit: limit(limits::MANIFEST_MAX),
    run: |bytes| {
        let only = (bytes.len() > SHARED_MAX).then_some(bytes.len() % 4);
        let reads = |decoder| only.is_none_or(|only| only == decoder);
        let mut read = (reads(0) && canonical::<Lease>(bytes)) | (reads(1) && canonical::<Failure>(bytes));
        if reads(2)
            && let Ok(lock) = EnvironmentLock::from_bytes(bytes)
        {
            assert_eq!(lock.to_bytes(), bytes);
            read = true;
        }
        if reads(3)
            && let Ok(manifest) = Manifest::from_bytes(bytes)
        {
            assert_eq!(manifest.to_bytes(), bytes);
            for package in &manifest.packages {
                let _ = (manifest.file(&package.path), package.is_rpm());
            }
            read = true;
        }
        read
    },
};

/// Keys and signatures of OpenSSH: blobs as envelopes carry them, and the texts that people's own tools write.
pub const SSHSIG: Target = Target {
    name: "sshsig",
    limit: 64 * 1024,
    run: |bytes| {
        let mut read = false;
        if let Ok(signature) = ssh::Signature::read(bytes) {
            assert_eq!(signature.to_blob(), bytes);
            read_back(&signature);
            read = true;
        }
        if let Ok(key) = ssh::Key::read(bytes) {
            assert_eq!(key.to_blob(), bytes);
            assert_eq!(ssh::Key::parse(&key.to_line()).as_ref(), Ok(&key));
            read = true;
        }
        let Ok(text) = str::from_utf8(bytes) else { return read };
        if let Ok(signature) = ssh::Signature::parse(text) {
            read_back(&signature);
            read = true;
        }
        for key in [ssh::Key::parse(text), ssh::Key::of_secret(text)].into_iter().flatten() {
            assert_eq!(ssh::Key::read(&key.to_blob()).as_ref(), Ok(&key));
            read = true;
        }
        read
    },
};

fn read_back(signature: &ssh::Signature) {
    assert_eq!(ssh::Signature::read(&signature.to_blob()).as_ref(), Ok(signature));
    assert_eq!(ssh::Signature::parse(&signature.to_armor()).as_ref(), Ok(signature));
    // Nobody guesses a signature, whatever else is right.
    let key = signature.key();
    assert!(signature.verify(&key.public, "job@artel", b"nobody signed this").is_err());
    let stranger = PublicKey::from_bytes([7; 32]);
    assert!(signature.verify(&stranger, "job@artel", b"nobody signed this").is_err());
}

/// The words that every record is made of.
pub const WORDS: Target = Target {
    name: "words",
    limit: 4096,
    run: |bytes| {
        let Ok(text) = str::from_utf8(bytes) else { return false };
        macro_rules! word {
        ($($kind:ty),+) => { [$(same_text(text.parse::<$kind>(), bytes).is_some()),+] };
    }
        if let Ok(url) = text.parse::<Url>() {
            let endpoint = url.endpoint();
            assert!(endpoint.port > 0, "a port leads somewhere");
            if let Ok(rule) = text.parse::<HostRule>() {
                let _ = (rule.covers(&endpoint), rule.endpoint());
            }
        }
        word![
            Arch,
            ChannelName,
            CommitId,
            DebVersion,
            FileName,
            Hash,
            HostRule,
            NetworkId,
            NodeId,
            PackageName,
            PublicKey,
            RecipeName,
            RefName,
            RelativePath,
            Sha256,
            SuiteName,
            Url
        ]
        .contains(&true)
    },
};

/// Tickets that people paste.
pub const TICKET: Target = Target {
    name: "ticket",
    limit: 16 * 1024,
    run: |bytes| {
        let Ok(text) = str::from_utf8(bytes) else { return false };
        let Ok(ticket) = text.parse::<Ticket>() else { return false };
        assert_eq!(ticket.to_string().parse::<Ticket>(), Ok(ticket));
        true
    },
};
