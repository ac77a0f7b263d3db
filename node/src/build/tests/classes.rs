//! Every way to fail has its class, and a full disk its own word wherever it shows.

use std::io::{Error as Io, ErrorKind};

use protocol::blame::Blame;

use crate::build::{EnvironmentError, Error, InputError, LogError, OutputError, SandboxError, fault_behind};

fn word(error: &Error) -> &'static str {
    let failure = error.failure();
    assert_eq!(failure.blame, error.blame());
    assert!(!failure.step.is_empty() && !failure.what.is_empty(), "{failure:?}");
    error.blame().word()
}

fn io(kind: ErrorKind) -> Io {
    Io::from(kind)
}

#[test]
fn a_full_disk_has_its_own_word_wherever_it_shows() {
    let each: [fn(Io) -> Error; 9] = [
        |e| Error::Input(InputError::Copy { name: "a".into(), source: e }),
        |e| Error::Environment(EnvironmentError::Disk { what: "make a folder", folder: "/e".into(), source: e }),
        |e| Error::Environment(EnvironmentError::Package(InputError::Copy { name: "a".into(), source: e })),
        |e| Error::Sandbox(SandboxError::Prepare(e)),
        |e| Error::Sandbox(SandboxError::Group(e)),
        |e| Error::Sandbox(SandboxError::Spawn(e)),
        |e| Error::Sandbox(SandboxError::Log(LogError::Write { path: "/l".into(), source: e })),
        |e| Error::Output(OutputError::Copy { name: "a".into(), source: e }),
        |e| Error::Folder { folder: "/f".into(), source: e },
    ];
    let other = ["builder", "sandbox", "builder", "sandbox", "sandbox", "sandbox", "sandbox", "builder", "builder"];
    for (make, other) in each.iter().zip(other) {
        assert_eq!(word(&make(io(ErrorKind::StorageFull))), "disk-full");
        assert_eq!(word(&make(io(ErrorKind::QuotaExceeded))), "disk-full");
        assert_eq!(word(&make(io(ErrorKind::OutOfMemory))), "memory");
        let made = make(io(ErrorKind::PermissionDenied));
        assert_eq!(word(&made), other, "{made:?}");
    }
    let said = |said: &str| word(&Error::Sandbox(SandboxError::Start { said: said.into() }));
    assert_eq!(said("mount: /x: No space left on device"), "disk-full");
    assert_eq!(said("unshare: fork failed: Cannot allocate memory"), "memory");
    assert_eq!(said("bwrap: No permissions to create new namespace"), "sandbox");
    let taken = EnvironmentError::Seal { said: "mv: No space left on device".into() };
    assert_eq!(word(&Error::Environment(taken)), "disk-full");
    assert_eq!(
        fault_behind(&Error::Sandbox(SandboxError::Group(io(ErrorKind::StorageFull))), protocol::blame::Fault::Other),
        protocol::blame::Fault::DiskFull,
        "the whole chain of causes is looked at"
    );
}

#[test]
fn what_the_job_does_is_the_jobs_and_what_gets_out_is_both_of_theirs() {
    let name = || "out.txt".parse().unwrap();
    let outputs = [
        OutputError::Missing { name: name() },
        OutputError::Link { name: name() },
        OutputError::Kind { name: name(), kind: "fifo" },
        OutputError::HardLink { name: name(), links: 2 },
        OutputError::TooLarge { name: name(), size: 2, left: 1 },
    ];
    for error in outputs {
        assert_eq!(word(&Error::Output(error)), "job");
    }
    let table = [
        (Error::Input(InputError::Size { name: "a".into(), wanted: 1, got: 2 }), "input-mismatch"),
        (Error::Input(InputError::Missing { name: "a".into() }), "fetch"),
        (Error::Environment(EnvironmentError::Cancelled), "cancelled"),
        (Error::Environment(EnvironmentError::Slow), "sandbox"),
        (Error::Sandbox(SandboxError::Wait(io(ErrorKind::Other))), "sandbox"),
        (Error::Sandbox(SandboxError::Outlived { count: 2 }), "isolation-breach"),
    ];
    for (error, expect) in table {
        assert_eq!(word(&error), expect, "{error:?}");
    }
    assert_eq!(Blame::IsolationBreach.party(), "the job and the builder");
}
