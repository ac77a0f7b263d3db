//! What is found on the disk when a member starts: read whole, and refused when one record is wrong.

use super::{
    Error,
    flush::State,
    record::{self, Ballot, Id, LogEntry, Meta, Place},
};
use crate::store::{Marks, Store};

/// Bytes of log records that are read at one time.
const READ_BYTES: usize = 4 << 20;

/// Reads and checks everything that the group keeps.
pub(super) fn load(store: &Store) -> Result<State, Error> {
    let Marks { vote, committed, purged } = store.group_marks()?;
    let vote: Option<Ballot> = vote.map(|bytes| record::read(Place::Vote, &bytes)).transpose()?;
    let committed: Option<Id> = committed.map(|bytes| record::read(Place::Committed, &bytes)).transpose()?;
    let purged: Option<Id> = purged.map(|bytes| record::read(Place::Purged, &bytes)).transpose()?;
    let covered = match store.group_snapshot()? {
        Some((meta, bytes)) => {
            record::unseal(Place::Snapshot, &bytes)?;
            let meta: Meta = record::read(Place::Meta, &meta)?;
            meta.last_log_id.map_or(0, |last| last.index + 1)
        }
        None => 0,
    };
    if let Some(purged) = purged.filter(|purged| purged.index >= covered) {
        return Err(Error::Uncovered { purged: purged.index });
    }
    let mut state = State::new(vote, committed, purged, covered);
    loop {
        let records = store.group_records(state.next, u64::MAX, READ_BYTES)?;
        if records.is_empty() {
            break;
        }
        for (index, bytes) in records {
            let entry: LogEntry = record::read(Place::Log(index), &bytes)?;
            if index != state.next || entry.log_id.index != index {
                return Err(Error::Hole { expected: state.next, got: index, says: entry.log_id.index });
            }
            if state.last.is_some_and(|last| last > entry.log_id) {
                return Err(Error::TermGoesBack { index });
            }
            state.push(entry);
            state.tail.trim(state.next);
        }
    }
    match store.group_records(0, state.first(), READ_BYTES)?.first() {
        Some((index, _)) => Err(Error::Left { index: *index, first: state.first() }),
        None => Ok(state),
    }
}
