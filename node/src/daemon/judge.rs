//! What a gossiped record is worth. Only what its forwarder could have checked costs the forwarder anything; a replay, a
//! stranger's signature or a clock that is off costs nobody but the time to look.

use protocol::{
    NetworkId, NodeId, PublicKey, Timestamp, Verified,
    envelope::{EnvelopeError, Record, Signed},
    job::Announcement,
    limits,
    release::Release,
};

/// Why a record was not believed.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Too large, not canonical, of another type, or a signature that does not verify: anybody could have seen it.
    #[error(transparent)]
    Malformed(EnvelopeError),
    /// Well formed, but signed by somebody else than who may say it; another policy may see that otherwise.
    #[error("not signed by {}", .wanted.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or "))]
    OtherSigner {
        /// Who should have signed: one of these.
        wanted: Vec<NodeId>,
    },
}

/// What becomes of a gossiped message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Worth {
    /// Forwarded, and acted on.
    News,
    /// Neither forwarded nor held against the forwarder.
    Nothing,
    /// Held against the forwarder.
    Bad,
}

/// Reads a record that a certain node must have signed.
///
/// # Errors
/// [`ReadError`].
pub(super) fn read_signed_by<T: Record>(
    bytes: &[u8],
    network: &NetworkId,
    signer: &NodeId,
) -> Result<Verified<T>, ReadError> {
    read_signed_by_any(bytes, network, std::slice::from_ref(signer))
}

/// Reads a record that one of these nodes must have signed.
///
/// # Errors
/// [`ReadError`].
pub(super) fn read_signed_by_any<T: Record>(
    bytes: &[u8],
    network: &NetworkId,
    signers: &[NodeId],
) -> Result<Verified<T>, ReadError> {
    let record = Signed::<T>::read(bytes).and_then(|s| s.verify(Some(network))).map_err(ReadError::Malformed)?;
    if signers.iter().any(|signer| record.signers().contains(&PublicKey::from(*signer))) {
        return Ok(record);
    }
    Err(ReadError::OtherSigner { wanted: signers.to_vec() })
}

/// Judges an announcement: it must be of now.
pub(super) fn announcement(read: &Result<Verified<Announcement>, ReadError>, now: Timestamp) -> Worth {
    match read {
        Ok(announcement) => {
            let at = announcement.get().at;
            let stale = now.since(at) > limits::ANNOUNCEMENT_TTL || at.since(now) > limits::CLOCK_SKEW_MAX;
            if stale { Worth::Nothing } else { Worth::News }
        }
        Err(error) => of_error(error),
    }
}

/// Judges a release: an old one does no harm, since nobody goes back.
pub(super) fn release(read: &Result<Verified<Release>, ReadError>) -> Worth {
    read.as_ref().map_or_else(of_error, |_| Worth::News)
}

fn of_error(error: &ReadError) -> Worth {
    match error {
        ReadError::Malformed(_) => Worth::Bad,
        ReadError::OtherSigner { .. } => Worth::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use protocol::{
        Arch, ChannelName, JobId,
        testing::{node, signing_key},
    };

    use super::*;

    const NETWORK: NetworkId = NetworkId::from_bytes([9; 32]);
    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    fn announced(at: Timestamp, signer: u8) -> Vec<u8> {
        let announcement = Announcement {
            at,
            job: JobId::from_bytes([1; 32]),
            arch: Arch::Amd64,
            channel: ChannelName::new("main").unwrap(),
            excluded: Vec::new(),
            memory_mib: 512,
        };
        Signed::sign(&announcement, Some(&NETWORK), &[&signing_key(signer)]).to_bytes()
    }

    fn worth(bytes: &[u8], network: &NetworkId) -> Worth {
        announcement(&read_signed_by(bytes, network, &node(1)), NOW)
    }

    #[test]
    fn a_fresh_announcement_is_news() {
        assert_eq!(worth(&announced(NOW, 1), &NETWORK), Worth::News);
    }

    #[test]
    fn an_honest_forwarder_of_a_replay_a_stranger_or_a_wrong_clock_is_not_blamed() {
        let late = Timestamp::from_millis(NOW.as_millis() - 601_000);
        assert_eq!(worth(&announced(late, 1), &NETWORK), Worth::Nothing, "a replay after ten minutes");
        let early = NOW.after(Duration::from_secs(61));
        assert_eq!(worth(&announced(early, 1), &NETWORK), Worth::Nothing, "a clock that is ahead");
        assert_eq!(worth(&announced(NOW, 2), &NETWORK), Worth::Nothing, "another policy may name another coordinator");
    }

    #[test]
    fn what_anybody_could_have_seen_is_held_against_who_forwards_it() {
        let good = announced(NOW, 1);
        let mut flipped = good.clone();
        *flipped.last_mut().unwrap() ^= 1;
        assert_eq!(worth(&flipped, &NETWORK), Worth::Bad, "a flipped byte");
        assert_eq!(worth(&good[..good.len() - 1], &NETWORK), Worth::Bad, "cut short");
        assert_eq!(worth(&[good.as_slice(), &[0]].concat(), &NETWORK), Worth::Bad, "trailing bytes");
        assert_eq!(worth(&good, &NetworkId::from_bytes([8; 32])), Worth::Bad, "for another network");
    }
}
