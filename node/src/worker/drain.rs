//! Whether this node drains: one small file, so that a restart does not forget it.

use std::{fs, io};

use ledger::Duty;
use protocol::peer::DRAINING_MAX;

use crate::config::Home;

/// Reads what was written last. A file that cannot be read means that somebody wanted the node to drain.
pub(super) fn read(home: &Home) -> Duty {
    match fs::read(home.drain()) {
        Ok(reason) => Duty::Draining { reason: cut(&String::from_utf8_lossy(&reason)) },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Duty::Ready,
        Err(error) => Duty::Draining { reason: format!("{} cannot be read: {error}", home.drain().display()) },
    }
}

/// Writes it down.
pub(super) fn write(home: &Home, duty: &Duty) -> io::Result<()> {
    let path = home.drain();
    match duty {
        Duty::Draining { reason } => {
            let new = path.with_extension("new");
            fs::write(&new, cut(reason))?;
            fs::File::open(&new)?.sync_all()?;
            fs::rename(&new, &path)
        }
        Duty::Ready => match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        },
    }
}

/// Cuts a reason to what a card may say.
fn cut(reason: &str) -> String {
    let mut end = reason.len().min(DRAINING_MAX);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    reason[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_survives_a_restart_and_ends() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::find(Some(dir.path().to_owned())).unwrap();
        assert_eq!(read(&home), Duty::Ready);
        let reason = "é".repeat(DRAINING_MAX);
        write(&home, &Duty::Draining { reason }).unwrap();
        assert_eq!(read(&home), Duty::Draining { reason: "é".repeat(DRAINING_MAX / 2) });
        write(&home, &Duty::Ready).unwrap();
        write(&home, &Duty::Ready).unwrap();
        assert_eq!(read(&home), Duty::Ready);
    }
}
