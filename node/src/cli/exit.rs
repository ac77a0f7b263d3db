//! Exit codes, few and documented.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | failed for another reason |
//! | 2 | the command line is wrong |
//! | 3 | configuration missing or wrong |
//! | 4 | the job failed, or its outputs were not agreed on |
//! | 5 | the builders failed, not the job |
//! | 6 | the node does not run or cannot be reached |
//! | 7 | not allowed |
//! | 8 | timed out waiting |
//! | 10 | there is no attestation |
//! | 11 | fewer operators than needed agree |
//! | 12 | operators disagree, or a file differs |
//! | 13 | a signature does not verify, or the log is broken |
//! | 130 | interrupted |

use web::api::ApiError;

/// Done.
pub const DONE: u8 = 0;
/// Failed for another reason.
pub const FAILED: u8 = 1;
/// The command line is wrong.
pub const USAGE: u8 = 2;
/// Configuration missing or wrong.
pub const CONFIGURATION: u8 = 3;
/// The job failed, or its outputs were not agreed on.
pub const JOB_FAILED: u8 = 4;
/// The builders failed, not the job.
pub const BUILDER_FAILED: u8 = 5;
/// The node does not run or cannot be reached.
pub const UNREACHABLE: u8 = 6;
/// Not allowed.
pub const NOT_ALLOWED: u8 = 7;
/// Timed out waiting.
pub const TIMED_OUT: u8 = 8;
/// A signature does not verify, or the log is broken.
pub const BROKEN: u8 = 13;
/// Interrupted from the keyboard.
pub const INTERRUPTED: u8 = 130;

/// An error that knows its exit code and what to do next.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct Failure {
    code: u8,
    what: String,
    hint: Option<String>,
}

/// Makes an error with an exit code.
pub fn failure(code: u8, what: impl Into<String>) -> Failure {
    Failure { code, what: what.into(), hint: None }
}

impl Failure {
    /// Adds what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Gives an error's exit code.
pub fn code_of(error: &anyhow::Error) -> u8 {
    if let Some(failure) = failure_of(error) {
        return failure.code;
    }
    for cause in error.chain() {
        if let Some(error) = said_by_node(cause) {
            return match error {
                ApiError::Unavailable { .. } | ApiError::Unreachable { .. } => UNREACHABLE,
                ApiError::NotAllowed { .. } => NOT_ALLOWED,
                ApiError::NotFound { .. } | ApiError::Refused { .. } | ApiError::Range { .. } | ApiError::Internal => {
                    FAILED
                }
            };
        }
        if cause.is::<crate::config::Error>() || cause.is::<crate::keys::Error>() || stops_a_start(cause) {
            return CONFIGURATION;
        }
    }
    FAILED
}

/// Says whether the daemon did not begin because of its files: it hands their errors on as its own.
fn stops_a_start(cause: &(dyn std::error::Error + 'static)) -> bool {
    use crate::daemon::Error;
    matches!(cause.downcast_ref(), Some(Error::Key(_) | Error::Policy(_) | Error::Configuration(_)))
        || matches!(cause.downcast_ref(), Some(crate::submit::Error::Key(_)))
}

/// Gives what a node answered: as it is, or as a submission hands it on as its own.
fn said_by_node<'a>(cause: &'a (dyn std::error::Error + 'static)) -> Option<&'a ApiError> {
    match cause.downcast_ref() {
        Some(crate::submit::Error::Node(error)) => Some(error),
        Some(_) | None => cause.downcast_ref(),
    }
}

/// Gives what to do next, when the error says so.
pub fn hint_of(error: &anyhow::Error) -> Option<String> {
    let told = failure_of(error).and_then(|failure| failure.hint.clone());
    let api = || error.chain().find_map(|cause| said_by_node(cause));
    told.or_else(|| api().map(|error| error.hint().to_owned()))
}

/// Finds the failure of an error: among its causes, or added as context, which only the error itself can find.
fn failure_of(error: &anyhow::Error) -> Option<&Failure> {
    error.downcast_ref().or_else(|| error.chain().find_map(|cause| cause.downcast_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_found_as_cause_and_as_context() {
        let failed = || failure(12, "it differs").hint("look");
        let as_context = anyhow::Error::from(std::fmt::Error).context(failed());
        for error in [anyhow::Error::from(failed()), as_context, anyhow::Error::from(failed()).context("more")] {
            assert_eq!((code_of(&error), hint_of(&error).as_deref()), (12, Some("look")), "{error:#}");
        }
    }

    #[test]
    fn a_bad_key_is_configuration_also_when_the_daemon_says_so() {
        let key = || crate::keys::Error::Mode { path: "node.key".into(), mode: 0o644 };
        for error in [anyhow::Error::from(key()), anyhow::Error::from(crate::daemon::Error::Key(key()))] {
            assert_eq!(code_of(&error), CONFIGURATION);
        }
    }

    #[test]
    fn what_a_node_says_comes_with_its_hint() {
        let error = anyhow::Error::from(ApiError::Unreachable { reason: "nobody listens".into() }).context("asking");
        assert_eq!(code_of(&error), UNREACHABLE);
        assert!(hint_of(&error).is_some_and(|hint| hint.contains("artel node run")));
        let refused = crate::submit::Error::Node(ApiError::NotAllowed { reason: "no maintainer".into() });
        assert_eq!(code_of(&anyhow::Error::from(refused).context("submitting")), NOT_ALLOWED);
        let gone = crate::submit::Error::Node(ApiError::Unavailable { reason: "later".into() });
        assert!(hint_of(&anyhow::Error::from(gone)).is_some());
        let key = crate::submit::Error::Key(crate::keys::Error::Mode { path: "key".into(), mode: 0o644 });
        assert_eq!(code_of(&anyhow::Error::from(key)), CONFIGURATION);
    }
}
