//! What coordinators of a group send each other: commands of the journal, and whole states.

use ledger::{Command, Ledger};
use protocol::testing::samples;

use crate::{Target, limit};

/// Commands.
pub const COMMAND: Target = Target {
    name: "command",
    limit: ledger::command::COMMAND_MAX,
    run: |bytes| {
        let Ok(command) = Command::from_bytes(bytes, &samples::network()) else { return false };
        // Forms of earlier versions are read still, and written as they are now.
        let written = command.to_bytes();
        let again = Command::from_bytes(&written, &samples::network()).expect("what is written can be read");
        assert_eq!(again.to_bytes(), written);
        true
    },
};

/// Snapshots of the whole state.
pub const SNAPSHOT: Target = Target {
    name: "snapshot",
    limit: limit(usize::MAX),
    run: |bytes| {
        let Ok(ledger) = Ledger::from_bytes(bytes) else { return false };
        assert_eq!(ledger.to_bytes(), bytes);
        true
    },
};
