//! What a job's evidence proves of what a node says of it: who coordinates is not believed.

use anyhow::{Context as _, ensure};
use attest::{
    bundle::Bundle,
    verify::{self, Proof},
};
use protocol::{JobId, NetworkId};
use web::{Backend, Client, api::FileView};

use crate::clock;

/// Brings what a job made onto the node, and proves it by the attestations of those who made it.
///
/// # Errors
/// When the job made nothing that is agreed, or what came is not proven.
pub(in crate::cli) async fn bring(client: &Client, network: &NetworkId, job: JobId) -> anyhow::Result<Vec<FileView>> {
    let files = client.bring(job).await?;
    check(&prove(client, network, job).await?, &files)?;
    Ok(files)
}

/// Asks for the evidence of a job and checks it, without belief in who gave it.
///
/// # Errors
/// When nobody has it, or it does not prove what operators made.
pub(in crate::cli) async fn prove(client: &Client, network: &NetworkId, job: JobId) -> anyhow::Result<Proof> {
    let what = || format!("the evidence of job {}", job.short());
    let bytes = client.bundle(job).await.with_context(what)?;
    let bundle = Bundle::from_bytes(&bytes).with_context(what)?;
    let proof = verify::verify(&bundle, network, clock::now()).with_context(what)?;
    ensure!(proof.job == job, "the evidence is of job {}, not of {}", proof.job.short(), job.short());
    Ok(proof)
}

/// Checks that files are what operators attested, under the names that they attested.
///
/// # Errors
/// The first file that is not.
pub(in crate::cli) fn check(proof: &Proof, files: &[FileView]) -> anyhow::Result<()> {
    for file in files {
        let output = proof.file(&file.name, &file.sha256).with_context(|| format!("{} is not proven", file.name))?;
        let same = output.name.as_str() == file.name && Some(output.hash) == file.hash && output.size == file.size;
        ensure!(same, "output {} is not what operators attested", file.name);
    }
    Ok(())
}
