//! `artel log conflict`: the evidence that the log was forked.

use std::path::PathBuf;

use anyhow::Context as _;
use attest::log::{conflict, network};
use web::{Backend, api::ApiError};

use super::{Context, Known};
use crate::cli::{
    exit,
    output::{self, Format},
};

/// Show the evidence that the log was forked, where there is any, and write it to a file
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Conflict {
    /// Where to write the evidence, for `artel-verify conflict`
    file: Option<PathBuf>,
}

impl Conflict {
    pub(in crate::cli) async fn run(self, context: &Context, known: &Known) -> anyhow::Result<u8> {
        let evidence = match context.client().conflict().await {
            Err(ApiError::NotFound { .. }) => {
                match context.format {
                    Format::Json => output::json(&serde_json::json!({ "forked": false }))?,
                    Format::People => output::line("nobody has shown this node two histories of the log")?,
                }
                return Ok(exit::DONE);
            }
            answer => answer?,
        };
        let read = conflict::Conflict::from_bytes(&evidence).context("the evidence cannot be read")?;
        if let Some(file) = &self.file {
            std::fs::write(file, &evidence).with_context(|| format!("cannot write {}", file.display()))?;
            anstream::eprintln!(
                "wrote {}: `artel-verify conflict {}` checks it offline",
                file.display(),
                file.display()
            );
        }
        let keys = network::log_keys(&known.network, &known.policy);
        let heads = read.convicts(&keys);
        match (context.format, heads) {
            (Format::Json, heads) => {
                let sizes = heads.as_ref().ok().map(|heads| heads.map(|head| head.size));
                output::json(
                    &serde_json::json!({ "forked": true, "by_present_coordinators": sizes.is_some(), "sizes": sizes }),
                )?;
            }
            (Format::People, Ok([older, newer])) => output::line(&format!(
                "the log was forked: it signed {} entries with root {} and {} entries with root {}, and no log has both",
                older.size, older.root, newer.size, newer.root
            ))?,
            (Format::People, Err(error)) => output::line(&format!(
                "there is evidence against former coordinators; those of the policy in force it does not convict ({error})"
            ))?,
        }
        Ok(exit::BROKEN)
    }
}
