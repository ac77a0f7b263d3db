//! A coordinator from before there were groups keeps its jobs: its journal becomes the first snapshot of a group of one.
//!
//! The journal (schema 1) is a snapshot of the ledger and the commands after it. They are replayed once, the ledger's state is
//! written as the group's snapshot at the journal's last number, and the journal is emptied, all in one transaction. What the
//! ledger logs meanwhile is in the transparency log's tables by then: nobody would log it again.

use std::collections::BTreeSet;

use ledger::{Command, Ledger};
use openraft::{CommittedLeaderId, LogId, Membership, StoredMembership, Vote};
use protocol::{NetworkId, NodeId, Timestamp, Verified, policy::Policy};

use super::{
    Error,
    record::{self, Meta, Place},
};
use crate::{
    consensus::Member,
    store::{Change, Marks, Store},
    tlog::{self, Placed},
};

/// The term of everything that came from the journal; the first election is for the next one.
const TERM: u64 = 1;
/// Journal entries that are read at one time.
const READ: usize = 1024;

/// What became of a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upgraded {
    /// There was none, or it is part of the group already.
    Nothing,
    /// It is the group's first snapshot now, up to this number.
    Journal(u64),
}

/// Turns the journal into the first snapshot of a group whose only member is `me`. Harmless when there is nothing to do; to be
/// called before [`super::Log::open`]. Blocks.
///
/// # Errors
///
/// [`Error::Journal`] when an entry cannot be read, [`Error::Both`] when there is a group besides; nothing is changed then.
pub fn from_journal(
    store: &Store,
    me: NodeId,
    network: NetworkId,
    genesis: &Verified<Policy>,
) -> Result<Upgraded, Error> {
    let last = store.journal_last()?;
    if last == 0 {
        return Ok(Upgraded::Nothing);
    }
    let fresh = store.group_marks()? == Marks::default()
        && store.group_snapshot()?.is_none()
        && store.group_records(0, u64::MAX, 1)?.is_empty();
    if !fresh {
        return Err(Error::Both { last });
    }
    let (ledger, logged) = replay(store, network, genesis)?;
    tlog::keep(store, &logged).map_err(Error::Log)?;
    let last_log_id = LogId::new(CommittedLeaderId::new(TERM, Member::from(me)), last);
    let member = Member::from(me);
    let voters = Membership::new(vec![BTreeSet::from([member])], ());
    let meta = Meta {
        last_log_id: Some(last_log_id),
        last_membership: StoredMembership::new(Some(last_log_id), voters),
        snapshot_id: format!("{TERM}-{last}"),
    };
    store.group_found(&[
        Change::Vote(record::write(Place::Vote, &Vote::new(TERM, member))?),
        Change::Snapshot {
            meta: record::write(Place::Meta, &meta)?,
            bytes: record::seal(Place::Snapshot, &ledger.to_bytes())?,
        },
        Change::Purge { upto: last, mark: record::write(Place::Purged, &last_log_id)? },
    ])?;
    Ok(Upgraded::Journal(last))
}

fn replay(store: &Store, network: NetworkId, genesis: &Verified<Policy>) -> Result<(Ledger, Vec<Placed>), Error> {
    let unreadable = |entry: u64, why: String| Error::Journal { entry, why };
    let (mut done, mut ledger) = match store.snapshot()? {
        Some(kept) => {
            let ledger = Ledger::from_bytes(&kept.bytes);
            (kept.seq, ledger.map_err(|error| unreadable(kept.seq, old_form(&error)))?)
        }
        None => {
            let ledger = Ledger::new(network, genesis.clone());
            (0, ledger.map_err(|error| unreadable(0, error.to_string()))?)
        }
    };
    let mut logged = Vec::new();
    loop {
        let entries = store.journal_from(done + 1, READ)?;
        if entries.is_empty() {
            return Ok((ledger, logged));
        }
        for (number, bytes) in entries {
            let (at, command) = decode(&bytes, &network).map_err(|why| unreadable(number, why))?;
            // Other effects were performed long ago, or are asked for again by the group's first leader.
            logged.extend(ledger.apply(at, command).into_iter().filter_map(tlog::placed));
            done = number;
        }
    }
}

/// A snapshot holds the ledger's own form, which changed with its rules; commands did not.
fn old_form(error: &dyn std::error::Error) -> String {
    format!(
        "its snapshot has the form of an older version: go on with that version, or begin with an empty folder and a new key that \
         the roots name as coordinator ({})",
        in_words(error)
    )
}

/// An error with its sources.
fn in_words(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(Some(error), |error| error.source());
    sources.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// A journal entry: the time in eight big-endian bytes, then the command.
fn decode(bytes: &[u8], network: &NetworkId) -> Result<(Timestamp, Command), String> {
    let (time, command) = bytes.split_first_chunk::<8>().ok_or("shorter than its time")?;
    let command = Command::from_bytes(command, network).map_err(|error| error.to_string())?;
    Ok((Timestamp::from_millis(u64::from_be_bytes(*time)), command))
}
