//! What a witness remembers: the checkpoint that it cosigned last of each log, and evidence against logs that forked.

use protocol::{Hash, Timestamp};
use redb::ReadableTable;

use super::{Error, Store, failed, tables};

const OPEN: &str = "open what was witnessed";
const READ: &str = "read what was witnessed";
const WRITE: &str = "write what was witnessed";

impl Store {
    /// Gives the checkpoint that was cosigned last of a log.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub fn witnessed(&self, origin: &str) -> Result<Option<Vec<u8>>, Error> {
        self.read(|transaction| {
            let table = transaction.open_table(tables::WITNESSED).map_err(failed(OPEN))?;
            let row = table.get(origin).map_err(failed(READ))?;
            Ok(row.map(|row| row.value().to_vec()))
        })
    }

    /// Shows `decide` the checkpoint that was cosigned last of a log and keeps the one that it gives, in one transaction: of
    /// two at a time the second sees what the first has decided. What is kept is on the disk when this returns.
    ///
    /// # Errors
    ///
    /// [`Error::Database`], [`Error::NoSpace`]; then nothing was kept.
    pub fn witness<T>(
        &self,
        origin: &str,
        decide: impl FnOnce(Option<&[u8]>) -> (Option<Vec<u8>>, T),
    ) -> Result<T, Error> {
        self.write(|transaction| {
            let mut table = transaction.open_table(tables::WITNESSED).map_err(failed(OPEN))?;
            let latest = table.get(origin).map_err(failed(READ))?.map(|row| row.value().to_vec());
            let (kept, answer) = decide(latest.as_deref());
            if let Some(checkpoint) = kept {
                table.insert(origin, checkpoint.as_slice()).map_err(failed(WRITE))?;
            }
            Ok(answer)
        })
    }

    /// Keeps evidence of a forked log; gives when it was found first.
    ///
    /// # Errors
    ///
    /// [`Error::Database`], [`Error::NoSpace`].
    pub fn conflict_put(&self, evidence: &[u8], at: Timestamp) -> Result<Timestamp, Error> {
        self.write(|transaction| {
            let mut table = transaction.open_table(tables::CONFLICTS).map_err(failed(OPEN))?;
            let key = Hash::of(evidence);
            let known = table.get(key.as_bytes()).map_err(failed(READ))?.map(|row| row.value().0);
            if known.is_none() {
                table.insert(key.as_bytes(), (at.as_millis(), evidence)).map_err(failed(WRITE))?;
            }
            Ok(known.map_or(at, Timestamp::from_millis))
        })
    }

    /// Gives all evidence of forked logs, and when each was found.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub fn conflicts(&self) -> Result<Vec<(Timestamp, Vec<u8>)>, Error> {
        self.read(|transaction| {
            let table = transaction.open_table(tables::CONFLICTS).map_err(failed(OPEN))?;
            let rows = table.iter().map_err(failed(READ))?;
            rows.map(|row| {
                let (_, row) = row.map_err(failed(READ))?;
                let (at, bytes) = row.value();
                Ok((Timestamp::from_millis(at), bytes.to_vec()))
            })
            .collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use attest::{
        log::{checkpoint::Signed, tree, witness},
        testing::log::{Memory, ORIGIN, log_key},
    };

    use super::*;

    /// Brings a checkpoint of a history to what a log has at this origin; gives what was kept, or the refusal's status.
    fn bring(store: &Store, at: &str, (old, size): (u64, u64), history: &Memory) -> Result<Vec<u8>, u16> {
        let proof = if old == 0 { Vec::new() } else { tree::consistency(old, size, history).unwrap() };
        let request = witness::Request::new(old, proof, &history.checkpoint(size));
        let decide = |latest: Option<&[u8]>| {
            let latest = latest.map(|bytes| Signed::read(bytes).unwrap());
            match witness::decide(&request, &[log_key(ORIGIN)], latest.as_ref()) {
                Ok(_) => {
                    let kept = history.checkpoint(size).as_signed().to_string().into_bytes();
                    (Some(kept.clone()), Ok(kept))
                }
                Err(refusal) => (None, Err(refusal.status())),
            }
        };
        store.witness(at, decide).unwrap()
    }

    #[test]
    fn of_two_histories_at_one_time_exactly_one_is_cosigned_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.db");
        let store = Store::open(&path).unwrap();
        let histories = [Memory::sized(300), Memory::forked(300, 5)];
        let mut kept = Vec::new();
        for round in 0..40 {
            let (at, both) = (format!("log {round}"), Barrier::new(2));
            // First of the same size, then larger ones that both say to follow what was kept.
            for sizes in [(0, 200), (200, 300)] {
                let answers = std::thread::scope(|scope| {
                    let one = |history| {
                        let (store, at, both) = (&store, &at, &both);
                        scope.spawn(move || {
                            both.wait();
                            bring(store, at, sizes, history)
                        })
                    };
                    let threads = [one(&histories[0]), one(&histories[1])];
                    threads.map(|thread| thread.join().unwrap())
                });
                let won: Vec<&Vec<u8>> = answers.iter().filter_map(|answer| answer.as_ref().ok()).collect();
                let [winner] = won[..] else { panic!("round {round}, {sizes:?}: {answers:?}") };
                assert_eq!(store.witnessed(&at).unwrap().as_ref(), Some(winner), "the disk has the winner's");
                kept.push((at.clone(), winner.clone()));
            }
        }
        drop(store);
        let store = Store::open(&path).unwrap();
        for pair in kept.chunks(2) {
            let [_, (at, last)] = pair else { panic!("two each round") };
            assert_eq!(store.witnessed(at).unwrap().as_ref(), Some(last), "after a restart, too");
        }
    }
}
