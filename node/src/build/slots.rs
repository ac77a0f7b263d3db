//! How many attempts run at one time: a count, and the memory and the disk that they may use together.
//!
//! It does not decide which job comes first: the ledger grants leases, a slot only says that there is room.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Room for attempts.
#[derive(Debug, Clone)]
pub struct Slots {
    places: Arc<Semaphore>,
    memory: Arc<Semaphore>,
    memory_mib: u32,
    disk: Arc<Semaphore>,
    disk_mib: u32,
}

/// Room for one attempt; given back when dropped.
#[derive(Debug)]
pub struct Slot {
    _place: OwnedSemaphorePermit,
    _memory: OwnedSemaphorePermit,
}

/// Disk for one attempt; given back when dropped.
#[derive(Debug)]
pub struct Disk {
    _disk: OwnedSemaphorePermit,
}

impl Slots {
    /// Makes room for `count` attempts that together may use so much memory and disk, in MiB.
    pub fn new(count: u16, (memory_mib, disk_mib): (u32, u32)) -> Self {
        let [memory, disk] = [memory_mib, disk_mib].map(|mib| Arc::new(Semaphore::new(mib as usize)));
        Self { places: Arc::new(Semaphore::new(count.into())), memory, memory_mib, disk, disk_mib }
    }

    /// Waits for disk, of which a lease says nothing; `None` when the attempt wants more than there is in all. May be dropped while it
    /// waits.
    pub async fn disk(&self, disk_mib: u32) -> Option<Disk> {
        if disk_mib > self.disk_mib {
            return None;
        }
        Some(Disk { _disk: self.disk.clone().acquire_many_owned(disk_mib).await.ok()? })
    }

    /// Takes room for one attempt if there is some now. An attempt that wants more memory than there is in all never
    /// gets room.
    pub fn try_take(&self, memory_mib: u32) -> Option<Slot> {
        let place = self.places.clone().try_acquire_owned().ok()?;
        let memory = self.memory.clone().try_acquire_many_owned(memory_mib).ok()?;
        Some(Slot { _place: place, _memory: memory })
    }

    /// Waits for room; `None` when the attempt wants more memory than there is in all. May be dropped while it waits.
    pub async fn take(&self, memory_mib: u32) -> Option<Slot> {
        if memory_mib > self.memory_mib {
            return None;
        }
        let place = self.places.clone().acquire_owned().await.ok()?;
        let memory = self.memory.clone().acquire_many_owned(memory_mib).await.ok()?;
        Some(Slot { _place: place, _memory: memory })
    }

    /// Gives the free places and the free memory, in MiB.
    pub fn free(&self) -> (u16, u32) {
        let places = u16::try_from(self.places.available_permits()).unwrap_or(u16::MAX);
        (places, u32::try_from(self.memory.available_permits()).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_count_both_bound() {
        let slots = Slots::new(2, (1000, 9));
        let first = slots.try_take(600).unwrap();
        assert!(slots.try_take(600).is_none(), "memory is short");
        assert_eq!(slots.free(), (1, 400), "a refusal takes nothing");
        let _second = slots.try_take(400).unwrap();
        assert!(slots.try_take(0).is_none(), "no place left");
        drop(first);
        assert!(slots.try_take(600).is_some());
    }
}
