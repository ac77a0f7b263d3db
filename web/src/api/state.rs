//! Words for states: each has a word, a shape and a tone, so that no colour is needed to read it.

use serde::{Deserialize, Serialize};

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal, $symbol:literal, $tone:literal;)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$variant_doc])* #[serde(rename = $word)] $variant,)*
            /// A word that this version does not know.
            #[serde(other, rename = "unknown")]
            Unknown,
        }

        impl $name {
            /// Every word but `unknown`, in the order of a life.
            pub const EVERY: &'static [Self] = &[$(Self::$variant),*];

            /// Gives the word, as in JSON.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* Self::Unknown => "unknown" }
            }

            /// Gives the shape that stands beside the word, so that no colour is needed to read it.
            pub const fn symbol(self) -> &'static str {
                match self { $(Self::$variant => $symbol,)* Self::Unknown => "?" }
            }

            /// Gives the style class: `good`, `bad`, `warn`, `busy` or `idle`.
            pub const fn tone(self) -> &'static str {
                match self { $(Self::$variant => $tone,)* Self::Unknown => "idle" }
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                Self::EVERY.iter().copied().find(|state| state.word() == text).ok_or_else(|| {
                    let all: Vec<_> = Self::EVERY.iter().map(|state| state.word()).collect();
                    format!("no such word {:?}; use one of {}", text.chars().take(40).collect::<String>(), all.join(", "))
                })
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.word())
            }
        }
    };
}

words! {
    /// Where a job is in its life.
    JobState {
        /// Accepted; no builder holds a lease yet.
        Waiting = "waiting", "◌", "idle";
        /// Builders hold leases, or more of them are asked.
        Building = "building", "▶", "busy";
        /// Reproduced; the repository is being written.
        Publishing = "publishing", "▲", "busy";
        /// A server job at work: the coordinator's publisher runs it.
        Running = "running", "▶", "busy";
        /// Reproduced by enough operators, and in the repository.
        Published = "published", "✔", "good";
        /// Reproduced by enough operators; a kind that is not published.
        Reproduced = "reproduced", "✔", "good";
        /// A server job did what it was asked.
        Done = "done", "✔", "good";
        /// Operators agree, but too few of them.
        Disputed = "disputed", "≠", "warn";
        /// No two operators agree.
        Unreproducible = "unreproducible", "✘", "bad";
        /// A quorum reports the same failing step, or publication was refused.
        Failed = "failed", "✘", "bad";
        /// A job that it waits for did not end well.
        Skipped = "skipped", "■", "warn";
        /// The maintainer cancelled.
        Cancelled = "cancelled", "■", "idle";
        /// Its time was over before a verdict.
        Expired = "expired", "■", "idle";
    }
}

impl JobState {
    /// Says whether nothing more will happen.
    pub const fn is_over(self) -> bool {
        match self {
            JobState::Waiting | JobState::Building | JobState::Publishing | JobState::Running | JobState::Unknown => {
                false
            }
            JobState::Published
            | JobState::Reproduced
            | JobState::Done
            | JobState::Skipped
            | JobState::Disputed
            | JobState::Unreproducible
            | JobState::Failed
            | JobState::Cancelled
            | JobState::Expired => true,
        }
    }
}

words! {
    /// Where an attempt is in its life.
    AttemptState {
        /// The lease is granted; the sandbox has not started.
        Granted = "granted", "◌", "idle";
        /// The sandbox runs.
        Running = "running", "▶", "busy";
        /// Outputs are attested.
        Built = "built", "✔", "good";
        /// It ended without outputs; `failure` says why.
        Failed = "failed", "✘", "bad";
        /// The lease ended without a word from the builder.
        Lost = "lost", "⚡", "warn";
        /// It was stopped because the job is over.
        Revoked = "revoked", "■", "idle";
    }
}

words! {
    /// What the attestations of one job add up to.
    VerdictWord {
        /// More attestations are awaited.
        Pending = "pending", "◌", "idle";
        /// k operators agree bit for bit.
        Reproduced = "reproduced", "✔", "good";
        /// Two or more agree, fewer than k.
        Disputed = "disputed", "≠", "warn";
        /// No two agree.
        Unreproducible = "unreproducible", "✘", "bad";
        /// A quorum reports the same failing step.
        Failed = "failed", "✘", "bad";
    }
}
