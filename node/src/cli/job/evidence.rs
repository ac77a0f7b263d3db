//! What a job's evidence proves of what a node says of it: who coordinates is not believed.

use anyhow::{Context as _, ensure};
use attest::{
    bundle::Bundle,
    verify::{self, Proof},
};
use protocol::{
    JobId, NetworkId, PublicKey, Signed, Timestamp, Verified,
    environment::EnvironmentLock,
    job::{JobRequest, job_id},
    policy::Maintainer,
};
use web::{Backend, Client, api::FileView};

use crate::clock;

/// What a job was asked for with, and by whom; it need not have ended well.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) request: JobRequest,
    pub(super) maintainer: PublicKey,
    pub(super) environment: EnvironmentLock,
}

/// Gets what a job was asked for with, from its evidence: signed by somebody who may ask for it now.
///
/// # Errors
/// When nobody has the evidence, or it is not of that job, or was not signed by a maintainer of its channel.
pub(super) async fn asked(client: &Client, network: &NetworkId, job: JobId) -> anyhow::Result<Asked> {
    let bundle = Bundle::from_bytes(&client.bundle(job).await?)?;
    read_asked(&bundle, network, job, clock::now())
}

/// Gets what a job was asked for with as it was signed, and the maintainer of its channel who did.
///
/// # Errors
/// As [`asked`].
pub(super) async fn signed(
    client: &Client,
    network: &NetworkId,
    job: JobId,
) -> anyhow::Result<(Verified<JobRequest>, Maintainer)> {
    let bundle = Bundle::from_bytes(&client.bundle(job).await?)?;
    read_signed(&bundle, network, job, clock::now())
}

fn read_asked(bundle: &Bundle, network: &NetworkId, job: JobId, now: Timestamp) -> anyhow::Result<Asked> {
    let (verified, maintainer) = read_signed(bundle, network, job, now)?;
    let request = verified.into_inner();
    let environment = EnvironmentLock::from_bytes(&bundle.lock.0)?;
    let same = environment.id() == request.environment && environment.arch == request.arch;
    ensure!(same, "the environment lock is not the one that job {} names", job.short());
    Ok(Asked { request, maintainer: maintainer.key, environment })
}

fn read_signed(
    bundle: &Bundle,
    network: &NetworkId,
    job: JobId,
    now: Timestamp,
) -> anyhow::Result<(Verified<JobRequest>, Maintainer)> {
    let policy = verify::policy_in_force(bundle, network, now)?;
    let verified = Signed::<JobRequest>::read(&bundle.request.0)?.verify(Some(network))?;
    ensure!(job_id(&verified) == job, "the evidence is of job {}, not of {}", job_id(&verified).short(), job.short());
    let request = verified.get();
    ensure!(request.network == *network, "job {} is of network {}", job.short(), request.network);
    let signers = verified.signers();
    let mut may_ask = signers.iter().filter_map(|key| policy.maintainer(key));
    let maintainer = may_ask.find(|maintainer| maintainer.channels.contains(&request.channel));
    let maintainer = maintainer
        .with_context(|| format!("no maintainer of channel {} signed job {}", request.channel, job.short()))?;
    let maintainer = maintainer.clone();
    Ok((verified, maintainer))
}

/// Brings what a job made onto the node, and proves it by the attestations of those who made it.
///
/// # Errors
/// When the job made nothing that is agreed, or what came is not proven.
pub(in crate::cli) async fn bring(
    client: &Client,
    network: &NetworkId,
    job: JobId,
) -> anyhow::Result<(Vec<FileView>, Proof)> {
    let files = client.bring(job).await?;
    let proof = prove(client, network, job).await?;
    check(&proof, &files)?;
    Ok((files, proof))
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

#[cfg(test)]
mod tests {
    use attest::testing;
    use protocol::{
        message::Octets,
        testing::{samples, signing_key},
    };

    use super::*;

    #[test]
    fn what_is_asked_again_was_asked_by_a_maintainer_under_that_id() {
        let (mut bundle, network) = testing::bundle(&samples::genesis(3), &[]);
        let wish = samples::deb_request(network);
        let job = job_id(&samples::signed_request(&wish));
        let why = |bundle: &Bundle, job| read_asked(bundle, &network, job, samples::NOW).unwrap_err().to_string();
        assert_eq!(read_asked(&bundle, &network, job, samples::NOW).unwrap().request, wish);
        let other = JobId::from(protocol::Hash::of(b"other"));
        assert!(why(&bundle, other).starts_with("the evidence is of job "));
        let lock = bundle.lock.clone();
        bundle.lock = Octets(samples::lock_of_rpm().to_bytes());
        assert!(why(&bundle, job).starts_with("the environment lock is not the one"));
        bundle.lock = lock;
        // A stranger's signature makes another id, and under that id it is still a stranger's.
        let strange = Signed::sign(&wish, Some(&network), &[&signing_key(99)]);
        bundle.request = Octets(strange.to_bytes());
        let job = job_id(&strange.verify(Some(&network)).unwrap());
        assert!(why(&bundle, job).starts_with("no maintainer of channel stable signed job "), "{}", why(&bundle, job));
    }
}
