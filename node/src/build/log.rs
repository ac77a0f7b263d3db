//! The live log of an attempt: one file with a size limit, one writer, any number of readers that follow from an offset.
//!
//! It does not keep logs for later: the caller puts the finished file where it belongs.

use std::{
    fs::File,
    io::{self, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use tokio::sync::watch;

/// What one read of a follower gives at most, in bytes.
const READ_MAX: usize = 64 * 1024;

/// What an attempt is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Not started.
    Waiting,
    /// Checking inputs and packages.
    Inputs,
    /// Preparing the environment.
    Environment,
    /// The sandbox is being started.
    Sandbox,
    /// The build's own command runs.
    Build,
    /// Reading and hashing the outputs.
    Outputs,
    /// Over: nothing more is written.
    Done,
}

impl Phase {
    /// Gives the word that people read.
    pub const fn word(self) -> &'static str {
        match self {
            Phase::Waiting => "waiting",
            Phase::Inputs => "inputs",
            Phase::Environment => "environment",
            Phase::Sandbox => "sandbox",
            Phase::Build => "build",
            Phase::Outputs => "outputs",
            Phase::Done => "done",
        }
    }
}

/// How far an attempt is.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Bytes in the log.
    pub bytes: u64,
    /// What is being done.
    pub phase: Phase,
    /// When this phase began.
    pub since: Instant,
}

/// The log has as many bytes as it may have.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// No more is taken.
    #[error("log limit of {limit} bytes reached")]
    Full {
        /// The limit, in bytes.
        limit: u64,
    },
    /// The file cannot be written.
    #[error("cannot write the log {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The writing end; clones write to the same log.
#[derive(Debug, Clone)]
pub struct LogSink {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    limit: u64,
    file: Mutex<File>,
    progress: watch::Sender<Progress>,
}

impl LogSink {
    /// Creates the file, or empties it; at most `limit` bytes are taken.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn create(path: impl Into<PathBuf>, limit: u64) -> Result<Self, LogError> {
        let path = path.into();
        let file = File::options().create(true).truncate(true).read(true).write(true).open(&path);
        let file = Mutex::new(file.map_err(|source| LogError::Write { path: path.clone(), source })?);
        let start = Progress { bytes: 0, phase: Phase::Waiting, since: Instant::now() };
        let progress = watch::Sender::new(start);
        Ok(Self { shared: Arc::new(Shared { path, limit, file, progress }) })
    }

    /// Gives the file.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// Appends bytes; of a piece that does not fit, as much as fits.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn append(&self, bytes: &[u8]) -> Result<(), LogError> {
        let written = self.shared.progress.borrow().bytes;
        let room = usize::try_from(self.shared.limit.saturating_sub(written)).unwrap_or(usize::MAX);
        let fits = &bytes[..bytes.len().min(room)];
        let write = self.shared.file.lock().unwrap_or_else(PoisonError::into_inner).write_all(fits);
        write.map_err(|source| LogError::Write { path: self.shared.path.clone(), source })?;
        self.shared.progress.send_modify(|progress| progress.bytes += fits.len() as u64);
        if fits.len() < bytes.len() { Err(LogError::Full { limit: self.shared.limit }) } else { Ok(()) }
    }

    /// Appends one line of our own, marked as such; a full log does without it.
    pub fn note(&self, text: &str) {
        if let Err(error) = self.append(format!("[artel] {text}\n").as_bytes()) {
            tracing::debug!(%error, "note not logged");
        }
    }

    /// Says what is being done now.
    pub fn enter(&self, phase: Phase) {
        self.shared.progress.send_modify(|progress| {
            progress.phase = phase;
            progress.since = Instant::now();
        });
    }

    /// Gives the progress as it is now and as it changes.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.shared.progress.subscribe()
    }

    /// Follows the log from a byte offset.
    pub fn follow(&self, offset: u64) -> LogReader {
        LogReader { shared: self.shared.clone(), progress: self.progress(), offset }
    }

    /// Gives the last bytes, for a failure's text.
    pub fn tail(&self, bytes: usize) -> String {
        let length = self.shared.progress.borrow().bytes;
        let wanted = bytes.min(usize::try_from(length).unwrap_or(bytes));
        let mut buffer = vec![0; wanted];
        let file = self.shared.file.lock().unwrap_or_else(PoisonError::into_inner);
        let read = file.read_at(&mut buffer, length.saturating_sub(wanted as u64)).unwrap_or(0);
        String::from_utf8_lossy(&buffer[..read]).into_owned()
    }
}

/// The reading end.
#[derive(Debug)]
pub struct LogReader {
    shared: Arc<Shared>,
    progress: watch::Receiver<Progress>,
    offset: u64,
}

impl LogReader {
    /// Waits for the next bytes, at most 64 KiB; `None` when the attempt is over and all was read.
    ///
    /// May be dropped while it waits: nothing is lost.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        let offset = self.offset;
        let more = |progress: &Progress| progress.bytes > offset || progress.phase == Phase::Done;
        let progress = match self.progress.wait_for(more).await {
            Ok(progress) => *progress,
            Err(_) => return Ok(None),
        };
        let wanted = usize::try_from(progress.bytes.saturating_sub(offset)).unwrap_or(READ_MAX).min(READ_MAX);
        if wanted == 0 {
            return Ok(None);
        }
        let mut buffer = vec![0; wanted];
        self.shared.file.lock().unwrap_or_else(PoisonError::into_inner).read_exact_at(&mut buffer, offset)?;
        self.offset += wanted as u64;
        Ok(Some(buffer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn readers_follow_from_an_offset_and_the_limit_cuts() {
        let dir = tempfile::tempdir().unwrap();
        let log = LogSink::create(dir.path().join("log"), 8).unwrap();
        log.append(b"0123").unwrap();
        let (mut all, mut late) = (log.follow(0), log.follow(2));
        assert_eq!(all.next().await.unwrap().unwrap(), b"0123");
        assert_eq!(late.next().await.unwrap().unwrap(), b"23");
        assert!(matches!(log.append(b"456789"), Err(LogError::Full { limit: 8 })));
        log.enter(Phase::Done);
        assert_eq!(all.next().await.unwrap().unwrap(), b"4567");
        assert_eq!(all.next().await.unwrap(), None);
        assert_eq!(log.tail(3), "567");
    }
}
