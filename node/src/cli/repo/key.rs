//! `artel repo key`: show and change the OpenPGP key that signs this node's repositories.
//!
//! It works on the files of the node's folder. The daemon looks at them every ten seconds and signs its indexes anew when they changed.

use std::{path::Path, time::Duration};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde::Serialize;
use web::api::Time;

use crate::{
    cli::{
        Context, exit,
        output::{self, Format},
    },
    clock,
    publish::sign::keys::Keys,
};

/// Days that both keys sign when nobody says otherwise.
const GRACE_DAYS: u32 = 90;
/// The longest change, in days.
const GRACE_DAYS_MAX: i64 = 3660;

/// Show or change the OpenPGP key that signs this node's repositories
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Key {
    /// Print the fingerprints of the keys that sign
    Show,
    /// Make a new key; old and new sign, until `finish` or the end of the grace
    Rotate(Rotate),
    /// End the change now: the new key signs alone, and the old one is removed for good
    Finish,
}

/// The words of `artel repo key rotate`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Rotate {
    /// How long clients have to learn of the new key, in days
    #[arg(long, value_name = "DAYS", default_value_t = GRACE_DAYS, value_parser = clap::value_parser!(u32).range(1..=GRACE_DAYS_MAX))]
    grace: u32,
}

/// What is printed of the keys.
#[derive(Debug, Serialize)]
struct KeysView {
    /// The fingerprints of the keys that sign, the oldest first.
    fingerprints: Vec<String>,
    /// When the newest signs alone, while there are two.
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<Time>,
}

impl KeysView {
    fn of(keys: &Keys) -> Self {
        let fingerprints = keys.all().into_iter().map(|key| key.fingerprint()).collect();
        let until = match keys {
            Keys::One(_) => None,
            Keys::Two { until, .. } => Some(Time::from(*until)),
        };
        Self { fingerprints, until }
    }
}

impl Key {
    pub(super) fn run(self, context: &Context) -> anyhow::Result<u8> {
        let path = context.home.repository_key();
        if !path.exists() {
            let why = format!("there is no repository key {}", path.display());
            let hint = "a coordinator makes it when it starts first; only coordinators sign repositories";
            return Err(exit::failure(exit::CONFIGURATION, why).hint(hint).into());
        }
        let keys = self.change(&path)?;
        let view = KeysView::of(&keys);
        match context.format {
            Format::Json => output::json(&view)?,
            Format::People => output::line(&words(&self, &view))?,
        }
        Ok(exit::DONE)
    }

    fn change(&self, path: &Path) -> anyhow::Result<Keys> {
        let (keys, what) = match self {
            Key::Show => (Keys::load(path), "read"),
            Key::Rotate(Rotate { grace }) => {
                let grace = Duration::from_secs(24 * 3600 * u64::from(*grace));
                (Keys::rotate(path, clock::now(), grace), "change")
            }
            Key::Finish => (Keys::finish(path), "change"),
        };
        keys.with_context(|| format!("cannot {what} the repository key"))
    }
}

fn words(done: &Key, view: &KeysView) -> String {
    let signing = match (view.fingerprints.as_slice(), &view.until) {
        ([old, new], Some(until)) => format!("{old}  old, signs until {until} or `artel repo key finish`\n{new}  new"),
        (keys, _) => keys.join("\n"),
    };
    let next = match done {
        Key::Show => return signing,
        Key::Rotate(_) => {
            "Within ten seconds the running coordinator publishes both in archive-key.gpg and archive-key.asc: have clients \
             fetch that file again before the old key is dropped."
        }
        Key::Finish => {
            "Within ten seconds the running coordinator signs with it alone, RPMs too; clients that have only the old key \
             refuse what comes."
        }
    };
    format!("{signing}\n{next}")
}
