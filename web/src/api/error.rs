//! What goes wrong, in the classes that a caller can act on.

use serde::{Deserialize, Serialize};

/// Why a call gave no answer. Nothing internal is in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// There is no such thing here (404).
    #[error("{what} not found")]
    NotFound {
        /// The thing, for instance `job 1a2b3c4d`.
        what: String,
    },
    /// The request breaks a rule; sending it again will not help (422).
    #[error("refused: {reason}")]
    Refused {
        /// The rule, and what to do.
        reason: String,
    },
    /// The caller may not ask this here (403).
    #[error("not allowed: {reason}")]
    NotAllowed {
        /// Why, and which way is open.
        reason: String,
    },
    /// Not now; the same request can work later (503).
    #[error("unavailable: {reason}")]
    Unavailable {
        /// What is missing at the moment.
        reason: String,
    },
    /// The range lies outside the content (416).
    #[error("range lies outside the content of {size} bytes")]
    Range {
        /// The content's size in bytes.
        size: u64,
    },
    /// No daemon answered at all; only the client says this (502).
    #[error("no answer from the daemon: {reason}")]
    Unreachable {
        /// Which address was tried and how it failed.
        reason: String,
    },
    /// The node failed; the cause is in its own log, not here (500).
    #[error("the node failed to answer; its log says why")]
    Internal,
}

impl ApiError {
    /// Gives the HTTP status code.
    pub const fn status(&self) -> u16 {
        match self {
            ApiError::NotFound { .. } => 404,
            ApiError::Refused { .. } => 422,
            ApiError::NotAllowed { .. } => 403,
            ApiError::Unavailable { .. } => 503,
            ApiError::Range { .. } => 416,
            ApiError::Unreachable { .. } => 502,
            ApiError::Internal => 500,
        }
    }

    /// Says what to do next.
    pub const fn hint(&self) -> &'static str {
        match self {
            ApiError::NotFound { .. } => "check the id; `artel job ls` and `artel repo ls` show what this node knows",
            ApiError::Refused { .. } => "correct the request and sign it again",
            ApiError::NotAllowed { .. } => "use a signed request, or the owner's unix socket on the node itself",
            ApiError::Unavailable { .. } => "try again in a few seconds",
            ApiError::Range { .. } => "ask for a range inside the content, or for all of it",
            ApiError::Unreachable { .. } => {
                "start the daemon with `artel node run`, or name the folder of one that runs with --home"
            }
            ApiError::Internal => "look into the daemon's log; report it if it is not your disk or memory",
        }
    }

    /// Gives the body that travels.
    pub fn body(&self) -> ErrorBody {
        let detail = match self {
            ApiError::NotFound { what: text }
            | ApiError::Refused { reason: text }
            | ApiError::NotAllowed { reason: text }
            | ApiError::Unavailable { reason: text }
            | ApiError::Unreachable { reason: text } => text.clone(),
            ApiError::Range { size } => size.to_string(),
            ApiError::Internal => String::new(),
        };
        ErrorBody { error: self.to_string(), hint: self.hint().to_owned(), detail }
    }

    /// Reads an error back from a status code and its body.
    pub fn from_response(status: u16, body: ErrorBody) -> Self {
        let text = if body.detail.is_empty() { body.error } else { body.detail };
        match status {
            403 => ApiError::NotAllowed { reason: text },
            404 => ApiError::NotFound { what: text },
            416 => ApiError::Range { size: text.parse().unwrap_or(0) },
            429 | 503 => ApiError::Unavailable { reason: text },
            400..=499 => ApiError::Refused { reason: text },
            502 => ApiError::Unreachable { reason: text },
            _ => ApiError::Internal,
        }
    }
}

/// The JSON of an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The whole sentence, for people.
    pub error: String,
    /// What to do next.
    #[serde(default)]
    pub hint: String,
    /// The thing or reason alone, for programs.
    #[serde(default)]
    pub detail: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_survives_the_wire() {
        let text = || "because".to_owned();
        let all = [
            ApiError::NotFound { what: text() },
            ApiError::Refused { reason: text() },
            ApiError::NotAllowed { reason: text() },
            ApiError::Unavailable { reason: text() },
            ApiError::Unreachable { reason: text() },
            ApiError::Range { size: 7 },
            ApiError::Internal,
        ];
        for error in all {
            assert_eq!(ApiError::from_response(error.status(), error.body()), error);
        }
    }
}
