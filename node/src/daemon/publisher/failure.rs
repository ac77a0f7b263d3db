//! Why a publication did not come about, and whether it may later.

use ledger::{Cause, Left};

use super::chain;
use crate::publish::{apt, incoming};

/// What the ledger is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::daemon) struct Failure {
    pub(in crate::daemon) cause: Cause,
    /// Whether the generation may be out all the same.
    pub(in crate::daemon) left: Left,
    pub(in crate::daemon) why: String,
}

impl Failure {
    /// Asking again will not help.
    pub(in crate::daemon) fn permanent(why: impl Into<String>) -> Self {
        Self { cause: Cause::Permanent, left: Left::Nothing, why: why.into() }
    }

    /// The generation was begun, or it is signed and not everybody holds it: it may be out.
    pub(in crate::daemon) fn begun(self) -> Self {
        Self { left: Left::Perhaps, ..self }
    }

    /// The repository refused a generation, or could not write it: its fence tells whether it had begun.
    pub(in crate::daemon) fn of_repository(error: apt::Error, repository: &apt::Repository, generation: u64) -> Self {
        let failure = Self::from(error);
        if repository.may_have_begun(generation) { failure.begun() } else { failure }
    }
}

/// Words without a cause are about this machine or the network, and those may recover.
impl From<String> for Failure {
    fn from(why: String) -> Self {
        Self { cause: Cause::Transient, left: Left::Nothing, why }
    }
}

impl From<apt::Error> for Failure {
    fn from(error: apt::Error) -> Self {
        Self { cause: cause(&error), left: Left::Nothing, why: chain(&error) }
    }
}

fn cause(error: &apt::Error) -> Cause {
    match error {
        apt::Error::Incoming(error) => cause_of_package(error),
        apt::Error::Settings(_)
        | apt::Error::NotAttested { .. }
        | apt::Error::Different { .. }
        | apt::Error::Older { .. }
        | apt::Error::Conflict { .. } => Cause::Permanent,
        apt::Error::Disk(_)
        | apt::Error::Sign(_)
        | apt::Error::Adopt(_)
        | apt::Error::NotLeading(_)
        | apt::Error::Closed(_)
        | apt::Error::OlderTerm { .. }
        | apt::Error::Locked { .. }
        | apt::Error::State { .. }
        | apt::Error::Fenced { .. }
        | apt::Error::Backwards { .. }
        | apt::Error::Date { .. }
        | apt::Error::Damaged { .. } => Cause::Transient,
        #[cfg(test)]
        apt::Error::Stopped => Cause::Transient,
    }
}

/// A package that is malformed stays so; a file that cannot be read because of this machine may be read later.
fn cause_of_package(error: &incoming::Error) -> Cause {
    match error {
        // What the system says has a number; what the reader of a package says has none.
        incoming::Error::Read { source, .. } if source.raw_os_error().is_some() => Cause::Transient,
        incoming::Error::Read { .. }
        | incoming::Error::Container { .. }
        | incoming::Error::Control { .. }
        | incoming::Error::Name { .. }
        | incoming::Error::Arch { .. } => Cause::Permanent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::testing::{AT, addition, addition_of, repository};

    #[test]
    fn what_the_package_says_lasts_and_what_the_machine_says_passes() {
        let (dir, debs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut repository = repository(dir.path());
        let add = |version, salt| [addition(debs.path(), ("tiny", version, "amd64"), salt)];
        repository.publish(&add("2", "a"), AT, 1).unwrap();
        let mut fails = |additions: &[apt::Addition]| Failure::from(repository.publish(additions, AT, 2).unwrap_err());
        let lasting = [
            fails(&add("2", "changed")),
            fails(&add("1", "a")),
            fails(&[addition_of(debs.path(), ("junk", "1", "amd64"), b"no archive")]),
            fails(&[addition(debs.path(), ("tiny", "3", "s390x"), "a")]),
        ];
        for failure in lasting {
            assert_eq!(failure.cause, Cause::Permanent, "{failure:?}");
        }
        let mut gone = add("3", "a");
        gone[0].path = debs.path().join("nowhere");
        let failure = fails(&gone);
        assert_eq!(failure.cause, Cause::Transient, "{failure:?}");
        assert!(failure.why.contains("No such file"), "{failure:?}");
        assert_eq!(Failure::from("a node is away".to_owned()).cause, Cause::Transient);
    }

    #[test]
    fn a_generation_that_was_not_begun_has_left_nothing() {
        let (dir, debs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut repository = repository(dir.path());
        let mut gone = [addition(debs.path(), ("tiny", "1", "amd64"), "a")];
        let there = gone.clone();
        gone[0].path = debs.path().join("nowhere");
        let error = repository.publish(&gone, AT, 1).unwrap_err();
        assert_eq!(Failure::of_repository(error, &repository, 1).left, Left::Nothing);
        repository.publish(&there, AT, 1).unwrap();
        let other = [addition(debs.path(), ("tiny", "2", "amd64"), "a")];
        let error = repository.publish(&other, AT, 1).unwrap_err();
        assert_eq!(Failure::of_repository(error, &repository, 1).left, Left::Perhaps);
        let error = repository.publish(&gone, AT, 2).unwrap_err();
        assert_eq!(Failure::of_repository(error, &repository, 2).left, Left::Nothing);
    }
}
