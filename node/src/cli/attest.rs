//! `artel attest`: show and check evidence.

use std::{fs, path::PathBuf};

use anyhow::Context as _;
use attest::{bundle::Bundle, verify};
use clap::Subcommand;
use protocol::{NetworkId, Sha256};
use web::Backend;

use super::{
    Context, exit, job,
    output::{self, Format},
};
use crate::{clock, config::Config};

/// Show and check evidence
#[derive(Debug, Subcommand)]
pub(super) enum Attest {
    /// Print what the evidence of a job proves, and by whom
    Show {
        /// The job's id or its first digits, or a bundle file
        what: String,
        /// Also write the bundle here, for a check elsewhere
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Check files against a bundle, offline
    Verify {
        /// The bundle (`<package>.artel-bundle` in a repository, or from `attest show --out`), or a job's id
        bundle: String,
        /// Files that the bundle must prove
        files: Vec<PathBuf>,
        /// The network that is trusted [default: this node's]
        #[arg(long)]
        network: Option<NetworkId>,
    },
}

impl Attest {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<u8> {
        match self {
            Attest::Show { what, out } => {
                let network = Config::load(&context.home)?.network.id;
                let bytes = read_or_ask(context, &what).await?;
                if let Some(out) = out {
                    fs::write(&out, &bytes).with_context(|| format!("cannot write {}", out.display()))?;
                    anstream::eprintln!("wrote {}", out.display());
                }
                check(context, &bytes, &network, &[])
            }
            Attest::Verify { bundle, files, network } => {
                let network = match network {
                    Some(network) => network,
                    None => Config::load(&context.home)?.network.id,
                };
                let bytes = read_or_ask(context, &bundle).await?;
                check(context, &bytes, &network, &files)
            }
        }
    }
}

/// Reads a bundle file, or asks the daemon for the bundle of a job.
async fn read_or_ask(context: &Context, what: &str) -> anyhow::Result<Vec<u8>> {
    let looks_like_a_job = what.len() >= 4 && what.bytes().all(|b| b.is_ascii_hexdigit());
    if looks_like_a_job && !PathBuf::from(what).is_file() {
        return Ok(context.client().bundle(job::find(context, what).await?).await?.to_vec());
    }
    fs::read(what).with_context(|| format!("cannot read the bundle {what}"))
}

fn check(context: &Context, bytes: &[u8], network: &NetworkId, files: &[PathBuf]) -> anyhow::Result<u8> {
    let failed = |error: verify::Error| {
        let code = error.exit_code();
        anyhow::Error::from(error).context(exit::failure(code, "the evidence does not prove it"))
    };
    let bundle = Bundle::from_bytes(bytes).map_err(|e| failed(e.into()))?;
    let attempts = verify::attempts(&bundle, network);
    let proof = match verify::verify(&bundle, network, clock::now()) {
        Ok(proof) => proof,
        Err(error) => {
            // Why nothing was reproduced, in the builders' own words.
            let told = attempts.map(|attempts| attempts.lines(None)).unwrap_or_default();
            told.iter().for_each(|line| anstream::eprintln!("{}", output::printable(line)));
            return Err(failed(error));
        }
    };
    let mut lines = proof.lines();
    lines.extend(attempts.map_err(failed)?.lines(Some(&proof)));
    for path in files {
        let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // Whoever publishes an RPM signs it; without its signature it is what was built.
        let sha256 = if name.ends_with(".rpm") { attest::rpm::attested(&bytes) } else { Sha256::of(&bytes) };
        proof.file(&name, &sha256).map_err(failed)?;
        lines.push(format!("file {name} is the one that they built ({sha256})"));
    }
    match context.format {
        Format::Json => output::json(&serde_json::json!({
            "network": proof.network, "job": proof.job, "agree": proof.agree, "proven": lines,
        }))?,
        Format::People => output::line(&output::printable(&lines.join("\n")))?,
    }
    Ok(exit::DONE)
}
