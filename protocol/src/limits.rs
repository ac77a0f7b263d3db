//! Every limit of the protocol in one place. A policy may lower some of them, never raise one.

use std::time::Duration;

/// The largest gossip message that is forwarded, in bytes.
pub const GOSSIP_MAX: usize = 8 * 1024;
/// The largest request on the exchange protocol, in bytes (a submitted request with its envelope fits).
pub const REQUEST_MAX: usize = 1024 * 1024;
/// The largest response on the exchange protocol, in bytes.
pub const RESPONSE_MAX: usize = 1024 * 1024;
/// Elements of a list in a message of the exchange protocol. A signed record has over 128 bytes, so no response holds more of them;
/// a list of leases is one builder's, which has at most [`SLOTS_MAX`] of them.
pub const LIST_MAX: usize = RESPONSE_MAX / 128;
/// Attempts that a builder makes at one time.
pub const SLOTS_MAX: u16 = 1024;
/// The largest signed policy, in bytes.
pub const POLICY_MAX: usize = 512 * 1024;
/// The largest signed job request, in bytes.
pub const JOB_MAX: usize = 256 * 1024;
/// The largest environment lock, in bytes (about 4,000 packages).
pub const LOCK_MAX: usize = 1024 * 1024;
/// The largest release manifest, in bytes.
pub const MANIFEST_MAX: usize = 64 * 1024 * 1024;
/// The largest attestation envelope (DSSE JSON), in bytes.
pub const ATTESTATION_MAX: usize = 768 * 1024;
/// Signatures on one envelope.
pub const SIGNATURES_MAX: usize = 64;
/// The largest SSH signature in an envelope, in bytes.
pub const SSH_SIGNATURE_MAX: usize = 384;
/// The longest application of a security key, in bytes.
pub const SSH_APPLICATION_MAX: usize = 64;
/// What an envelope may add to its payload, in bytes: as many signatures as there may be, each with its key.
pub const ENVELOPE_ROOM: usize = SIGNATURES_MAX * (SSH_SIGNATURE_MAX + 64) + 256;
/// Source or input files of one job.
pub const INPUTS_MAX: usize = 512;
/// Output files of one attempt.
pub const OUTPUTS_MAX: usize = 1024;
/// Packages in one environment lock.
pub const LOCK_PACKAGES_MAX: usize = 4096;
/// Arguments of a command, and each one's bytes.
pub const ARGUMENTS_MAX: usize = 256;
/// Bytes of one argument, one environment value or one free text.
pub const TEXT_MAX: usize = 16 * 1024;
/// Operators, maintainers or channels in a policy, or nodes of one operator.
pub const POLICY_ENTRIES_MAX: usize = 1024;
/// Bytes of the words that say why a key was revoked.
pub const REASON_MAX: usize = 256;
/// Attempts that one job may ever get, lost builders included.
pub const ATTEMPTS_MAX: u32 = 24;
/// Builders that may be lost to one job before it is called poison (publication.md 5.5).
pub const LOST_BUILDERS_MAX: u32 = 5;

/// How often a builder says that its leases live.
pub const LEASE_RENEW_EVERY: Duration = Duration::from_secs(5);
/// How long a lease lives without being renewed.
pub const LEASE_TTL: Duration = Duration::from_secs(25);
/// How long a result waits for others to be bound before it is shown all the same: it lives on its builder's disk alone until
/// then, and goes with the builder.
pub const REVEAL_WAIT: Duration = Duration::from_secs(900);
/// How long an attempt may take beside the wall time of its build: to fetch what it needs, to make its environment, and to keep
/// what came out. Who renews its lease for longer than both without a result loses it.
pub const ATTEMPT_ROOM: Duration = Duration::from_secs(30 * 60);
/// How long an announcement is valid.
pub const ANNOUNCEMENT_TTL: Duration = Duration::from_secs(600);
/// How far another node's clock may be off before its messages are ignored.
pub const CLOCK_SKEW_MAX: Duration = Duration::from_secs(60);
/// How long a node card is valid.
pub const NODE_CARD_TTL: Duration = Duration::from_secs(30 * 60);
