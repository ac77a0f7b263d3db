//! OpenSSH's keys and signatures: a person may sign a record with the key that logs in elsewhere.
//!
//! ```text
//!  namespace job@artel, message = DSSE's pre-authentication encoding
//!        |
//!  "SSHSIG" namespace "" hash H(message)  --ed25519-->  blob: "SSHSIG" 1 key namespace "" hash signature
//!                                                        in an envelope's `sig`, where others have 64 raw bytes
//! ```
//!
//! The formats are those of OpenSSH's `PROTOCOL.sshsig`, `PROTOCOL.key` and `PROTOCOL.u2f`, so `ssh-keygen -Y verify` judges
//! what is accepted here. Every blob has one spelling: lengths must fit exactly and nothing may follow. Two kinds of key fit
//! a policy, whose keys are ed25519's 32 bytes: `ssh-ed25519`, and `sk-ssh-ed25519@openssh.com` of a security key, which
//! signs only while somebody touches it. Nothing here reads secret keys or speaks to an agent.

mod key;
mod signature;
mod wire;

pub use key::{Algorithm, Key};
pub use signature::Signature;

/// Why an SSH key or signature was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not the format that was expected.
    #[error("not an OpenSSH {what}: {why}")]
    Form {
        /// What was expected.
        what: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A key of another type.
    #[error(
        "a key of type {got} cannot sign here; use one of type ssh-ed25519 (`ssh-keygen -t ed25519`) or \
         sk-ssh-ed25519@openssh.com (`ssh-keygen -t ed25519-sk`)"
    )]
    Algorithm {
        /// The type found.
        got: String,
    },
    /// Signed for another purpose.
    #[error("the SSH signature is for the namespace {got:?}, not for {wanted:?}")]
    Namespace {
        /// The namespace found.
        got: String,
        /// The namespace wanted here.
        wanted: String,
    },
    /// Another key than the one named beside it.
    #[error("the SSH signature is by key {got}, not by {wanted}")]
    OtherKey {
        /// The key in the blob.
        got: crate::PublicKey,
        /// The key that was named.
        wanted: crate::PublicKey,
    },
    /// Nobody touched the security key.
    #[error("nobody touched the security key: make it without `no-touch-required`")]
    Touch,
    /// The signature does not verify.
    #[error("the SSH signature does not verify")]
    Mismatch,
}

/// Gives the namespace in which people sign records of a kind: `job@artel`.
///
/// The kind stands in the signed message too; in the namespace, an `allowed_signers` file can confine a key to one kind.
pub fn namespace(kind: &str) -> String {
    format!("{kind}@artel")
}

#[cfg(test)]
mod tests;
