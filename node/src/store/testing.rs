//! A disk in memory whose k-th write, sync or growth fails, that can be full, and that loses what was not synced when the power
//! goes.

use std::{
    io,
    sync::{Arc, Mutex},
};

use redb::StorageBackend;

/// The unit in which unsynced bytes are lost.
const PAGE: usize = 4096;
/// The smallest unit that a disk writes whole.
const SECTOR: usize = 512;

/// What the disk keeps of writes that were not synced when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unsynced {
    AllKept,
    AllLost,
    EveryOtherKept,
    /// Each page or sector by chance.
    SomeKept(u64),
}

/// What a disk says when it can no longer write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Trouble {
    #[default]
    Broken,
    Full,
}

#[derive(Debug)]
struct Piece {
    offset: usize,
    old: Vec<u8>,
    new: Vec<u8>,
}

#[derive(Debug, Default)]
struct State {
    /// What a reader sees.
    content: Vec<u8>,
    /// Writes since the last sync, with what they replaced.
    pending: Vec<Piece>,
    /// The length that survives.
    synced: usize,
    /// Operations until the disk fails for good; `None` never.
    left: Option<u64>,
    trouble: Trouble,
    operations: u64,
}

/// The disk. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk(Arc<Mutex<State>>);

impl Disk {
    pub(crate) fn failing_after(operations: u64) -> Self {
        let disk = Self::default();
        disk.fail_after(operations, Trouble::Broken);
        disk
    }

    /// Lets the disk do so many more operations, and tears the next one; with `u64::MAX` the power is off at once.
    pub(crate) fn fail_after(&self, operations: u64, trouble: Trouble) {
        let mut state = self.0.lock().unwrap();
        (state.left, state.trouble) = (Some(operations), trouble);
    }

    pub(crate) fn operations(&self) -> u64 {
        self.0.lock().unwrap().operations
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().unwrap().content.len()
    }

    /// The disk as it is found after the power came back; this one stays as it is.
    pub(crate) fn after_failure(&self, unsynced: Unsynced) -> Self {
        let state = self.0.lock().unwrap();
        let pieces = state.pending.iter();
        let pending = pieces.map(|p| Piece { offset: p.offset, old: p.old.clone(), new: p.new.clone() }).collect();
        let copy = State { content: state.content.clone(), pending, synced: state.synced, ..State::default() };
        let copy = Self(Arc::new(Mutex::new(copy)));
        copy.restore_power(unsynced);
        copy
    }

    /// Loses what was not synced, and works again.
    pub(crate) fn restore_power(&self, unsynced: Unsynced) {
        let mut state = self.0.lock().unwrap();
        let state = &mut *state;
        let pending = std::mem::take(&mut state.pending);
        for piece in pending.iter().rev() {
            put(&mut state.content, piece.offset, &piece.old);
        }
        let mut kept_to = state.synced;
        for (index, piece) in pending.iter().enumerate() {
            for (offset, data) in parts(piece, unsynced) {
                if keeps(unsynced, index, offset) {
                    put(&mut state.content, offset, data);
                    kept_to = kept_to.max(offset + data.len());
                }
            }
        }
        // A growth that was not synced may be lost too, but not below what was written there and stayed.
        if let Unsynced::SomeKept(seed) = unsynced
            && mix(seed).is_multiple_of(4)
        {
            state.content.truncate(kept_to);
        }
        state.synced = state.content.len();
        (state.left, state.trouble) = (None, Trouble::Broken);
    }
}

/// Cuts a write into what may be lost by itself.
fn parts(piece: &Piece, unsynced: Unsynced) -> Vec<(usize, &[u8])> {
    let unit = match unsynced {
        Unsynced::AllKept | Unsynced::AllLost | Unsynced::EveryOtherKept => return vec![(piece.offset, &piece.new)],
        Unsynced::SomeKept(seed) if mix(seed ^ 1).is_multiple_of(4) => SECTOR,
        Unsynced::SomeKept(_) => PAGE,
    };
    let (mut rest, mut offset) = (piece.new.as_slice(), piece.offset);
    let mut parts = Vec::new();
    while !rest.is_empty() {
        let (part, after) = rest.split_at(rest.len().min(unit - offset % unit));
        parts.push((offset, part));
        (rest, offset) = (after, offset + part.len());
    }
    parts
}

fn keeps(unsynced: Unsynced, index: usize, offset: usize) -> bool {
    match unsynced {
        Unsynced::AllKept => true,
        Unsynced::AllLost => false,
        Unsynced::EveryOtherKept => index.is_multiple_of(2),
        Unsynced::SomeKept(seed) => {
            let chance = mix(seed ^ ((index as u64) << 32) ^ offset as u64);
            match mix(seed ^ 2) % 4 {
                // Nearly all and nearly nothing are the cases in which one page decides.
                0 => !chance.is_multiple_of(16),
                1 => chance.is_multiple_of(16),
                _ => chance.is_multiple_of(2),
            }
        }
    }
}

/// The next number of a seeded sequence (SplitMix64).
pub(crate) fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl State {
    /// Counts an operation. The one that fails is torn when it is a write; later ones do nothing.
    fn operate(&mut self) -> Result<(), (Torn, io::Error)> {
        self.operations += 1;
        let torn = match &mut self.left {
            None => return Ok(()),
            Some(u64::MAX) => Torn::Nothing,
            Some(0) => Torn::Half,
            Some(left) => {
                *left -= 1;
                return Ok(());
            }
        };
        self.left = Some(u64::MAX);
        Err((
            torn,
            match self.trouble {
                Trouble::Broken => io::Error::other("the disk failed"),
                Trouble::Full => io::ErrorKind::StorageFull.into(),
            },
        ))
    }

    fn write(&mut self, offset: usize, data: &[u8]) {
        let end = offset + data.len();
        if self.content.len() < end {
            self.content.resize(end, 0);
        }
        let old = self.content[offset..end].to_vec();
        self.content[offset..end].copy_from_slice(data);
        self.pending.push(Piece { offset, old, new: data.to_vec() });
    }
}

/// What a failing write still does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Torn {
    Half,
    Nothing,
}

fn put(content: &mut Vec<u8>, offset: usize, data: &[u8]) {
    if content.len() < offset + data.len() {
        content.resize(offset + data.len(), 0);
    }
    content[offset..offset + data.len()].copy_from_slice(data);
}

impl StorageBackend for Disk {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.0.lock().unwrap().content.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let state = self.0.lock().unwrap();
        let from = usize::try_from(offset).unwrap();
        let bytes = state.content.get(from..from + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        let mut state = self.0.lock().unwrap();
        state.operate().map_err(|(_, error)| error)?;
        let len = usize::try_from(len).unwrap();
        if len < state.content.len() {
            // What was cut off does not come back.
            state.pending.retain(|piece| piece.offset + piece.new.len() <= len);
            state.synced = state.synced.min(len);
        }
        state.content.resize(len, 0);
        Ok(())
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        let mut state = self.0.lock().unwrap();
        state.operate().map_err(|(_, error)| error)?;
        state.pending.clear();
        state.synced = state.content.len();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        let mut state = self.0.lock().unwrap();
        let offset = usize::try_from(offset).unwrap();
        match state.operate() {
            Ok(()) => {
                state.write(offset, data);
                Ok(())
            }
            Err((torn, error)) => {
                if torn == Torn::Half {
                    state.write(offset, &data[..data.len() / 2]);
                }
                Err(error)
            }
        }
    }
}
