//! What a maintainer signed with a key of OpenSSH, as files for its own judge.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use protocol::{
    Verified,
    envelope::Record,
    job::JobRequest,
    policy::Maintainer,
    ssh::{self, Signature},
};

use super::{evidence, find};
use crate::{
    cli::{
        Context, exit,
        output::{self, Format},
    },
    config::Config,
};

const MESSAGE: &str = "request";
const SIGNATURE: &str = "request.sig";
const SIGNERS: &str = "allowed_signers";

/// Which job, and where to write
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Export {
    /// The job's id, or its first digits
    job: String,
    /// The folder for the files `request`, `request.sig` and `allowed_signers`
    #[arg(long, value_name = "DIR", default_value = ".")]
    into: PathBuf,
}

impl Export {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<u8> {
        let network = Config::load(&context.home)?.network.id;
        let job = find(context, &self.job).await?;
        let (request, maintainer) = evidence::signed(&context.client(), &network, job).await?;
        let signature = by_ssh(&request, &maintainer)?;
        fs::create_dir_all(&self.into).with_context(|| format!("cannot make {}", self.into.display()))?;
        let namespace = ssh::namespace(JobRequest::KIND);
        let line = format!("{} namespaces=\"{namespace}\" {}\n", maintainer.name, signature.key().to_line());
        write(&self.into.join(MESSAGE), &request.message())?;
        write(&self.into.join(SIGNATURE), signature.to_armor().as_bytes())?;
        write(&self.into.join(SIGNERS), line.as_bytes())?;
        let command = format!(
            "ssh-keygen -Y verify -f {SIGNERS} -I {} -n {namespace} -s {SIGNATURE} <{MESSAGE}",
            maintainer.name
        );
        match context.format {
            Format::Json => {
                let name = &maintainer.name;
                output::json(&serde_json::json!({ "job": job, "maintainer": name, "namespace": namespace }))?;
            }
            Format::People => {
                anstream::eprintln!("wrote {MESSAGE}, {SIGNATURE} and {SIGNERS} into {}; there:", self.into.display());
                output::line(&command)?;
            }
        }
        Ok(exit::DONE)
    }
}

/// Finds the maintainer's signature, which must be one of OpenSSH.
fn by_ssh(request: &Verified<JobRequest>, maintainer: &Maintainer) -> anyhow::Result<Signature> {
    let signature = request.signatures().iter().find(|signature| signature.key == maintainer.key);
    let blob = signature.map(|signature| &signature.sig).filter(|sig| Signature::is_blob(sig));
    let blob = blob.ok_or_else(|| {
        let what = format!("{} signed with a key file of artel, not with a key of OpenSSH", maintainer.name);
        exit::failure(exit::FAILED, what).hint("`artel attest` shows and checks the job's evidence")
    })?;
    Ok(Signature::read(blob)?)
}

fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}
