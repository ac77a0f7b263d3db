//! `artel policy sign`: one root after the other adds its signature to the same bytes, where its key is.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use protocol::{
    NetworkId, PublicKey, Verified,
    envelope::Signed,
    policy::{Policy as Record, check_genesis},
};
use serde::Serialize;

use super::{Context, in_force, look, publish, signed_by};
use crate::{
    charter::Charter,
    cli::{
        exit,
        output::{self, Format},
    },
    clock, keys,
};

/// Sign a policy file, or add a signature to one that others signed
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Sign {
    /// The policy file (TOML), or a signed policy that needs more signatures
    file: PathBuf,
    /// Root keys to sign with: names, or paths of files
    #[arg(long, value_delimiter = ',', default_value = "root")]
    key: Vec<keys::Word>,
    /// Where to write the signed policy [default: beside the file, ending in .signed]
    #[arg(long)]
    out: Option<PathBuf>,
    /// The signed policy in force, for a machine without a daemon (`artel policy export --signed`): what is changed is read first
    #[arg(long, value_name = "FILE")]
    current: Option<PathBuf>,
    /// Publish it at once
    #[arg(long)]
    publish: bool,
}

/// A policy in a file.
pub(super) enum Draft {
    /// As people write it.
    Text(Box<Record>),
    /// With the signatures that it has so far.
    Signed(Box<Signed<Record>>, Box<Verified<Record>>),
}

/// How far a policy is signed.
#[derive(Serialize)]
struct Progress {
    file: String,
    number: u64,
    signers: Vec<PublicKey>,
    /// Roots that signed, roots that must, and how many are missing.
    roots: Count,
}

#[derive(Clone, Copy, Serialize)]
struct Count {
    signed: usize,
    needed: usize,
    missing: usize,
}

impl Draft {
    /// Reads a policy, signed or not.
    pub(super) fn read(file: &Path) -> anyhow::Result<Self> {
        let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        if let Ok(signed) = Signed::<Record>::read(&bytes) {
            let policy = verified(&signed).with_context(|| format!("{} is not acceptable", file.display()))?;
            return Ok(Self::Signed(Box::new(signed), Box::new(policy)));
        }
        let text = String::from_utf8(bytes).map_err(|_| {
            exit::failure(exit::FAILED, format!("{} is neither a policy file nor a signed policy", file.display()))
        })?;
        Ok(Self::Text(Box::new(Charter::parse(&text)?.to_policy()?)))
    }

    /// Gives the policy.
    pub(super) fn get(&self) -> &Record {
        match self {
            Draft::Text(policy) => policy,
            Draft::Signed(_, policy) => policy.get(),
        }
    }
}

/// Verifies a signed policy for the network that it names itself.
fn verified(signed: &Signed<Record>) -> anyhow::Result<Verified<Record>> {
    let network = signed.unverified()?.network;
    Ok(signed.clone().verify(network.as_ref())?)
}

impl Sign {
    pub(in crate::cli) async fn run(self, context: &Context) -> anyhow::Result<u8> {
        let out = self.out.clone().unwrap_or_else(|| self.file.with_extension("signed"));
        let draft = Draft::read(&self.file)?;
        // Who signs reads first what is changed: a security key asks for no more than a touch.
        let current = self.current(context, draft.get()).await?;
        if let Some(current) = &current {
            look::tell(current.get(), draft.get())?;
        }
        let own = sign(context, draft.get(), &self.key)?;
        let begun = match draft {
            Draft::Signed(signed, _) => Some(*signed),
            Draft::Text(policy) => begun(&out, &policy)?,
        };
        let signed = match begun {
            Some(begun) => begun.and(own).context("the signed policy is not written as this program writes it")?,
            None => own,
        };
        let policy = verified(&signed)?;
        write(&out, &signed.to_bytes())?;
        anstream::eprintln!("wrote {}", out.display());
        report(context, &out, &policy, current.as_ref().map(Verified::get))?;
        if self.publish { publish(context, signed.to_bytes()).await } else { Ok(exit::DONE) }
    }

    /// Finds the policy in force, whose roots count: the file that was named, else what the daemon says. None for a genesis, which
    /// follows nothing.
    async fn current(&self, context: &Context, next: &Record) -> anyhow::Result<Option<Verified<Record>>> {
        let Some(network) = next.network else { return Ok(None) };
        let current = match &self.current {
            Some(file) => match Draft::read(file)? {
                Draft::Signed(_, policy) => *policy,
                Draft::Text(_) => {
                    let what = format!("{} is no signed policy", file.display());
                    return Err(exit::failure(exit::FAILED, what)
                        .hint("`artel policy export --signed --out FILE` on a node writes the one in force")
                        .into());
                }
            },
            None => in_force(context).await?,
        };
        match current.get().network.unwrap_or_else(|| NetworkId::from(current.id())) {
            of if of == network => Ok(Some(current)),
            of => Err(exit::failure(
                exit::FAILED,
                format!("the policy is for network {network}, the one in force for {of}"),
            )
            .into()),
        }
    }
}

/// Signs a policy with these keys.
pub(super) fn sign(context: &Context, policy: &Record, words: &[keys::Word]) -> anyhow::Result<Signed<Record>> {
    let keys = words.iter().map(|word| context.signer(word)).collect::<Result<Vec<_>, _>>()?;
    let signers: Vec<&dyn keys::Sign> = keys.iter().map(|key| key as &dyn keys::Sign).collect();
    Ok(keys::sign(policy, policy.network.as_ref(), &signers)?)
}

/// Reads what others signed already in the file that is about to be written, when it is the same policy.
pub(super) fn begun(out: &Path, policy: &Record) -> anyhow::Result<Option<Signed<Record>>> {
    if !out.exists() {
        return Ok(None);
    }
    match Draft::read(out)? {
        Draft::Signed(signed, known) if known.get() == policy => Ok(Some(*signed)),
        Draft::Signed(..) | Draft::Text(_) => {
            let what = format!("{} holds another policy, perhaps with signatures of others", out.display());
            Err(exit::failure(exit::FAILED, what).hint("remove it, or name another file with --out").into())
        }
    }
}

/// Writes the whole file or nothing of it: it may hold signatures of others.
pub(super) fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let fresh = path.with_extension("signed.new");
    let whole = || -> io::Result<()> {
        fs::write(&fresh, bytes)?;
        fs::rename(&fresh, path)
    };
    whole().with_context(|| format!("cannot write {}", path.display()))
}

/// Says how far the policy is signed.
pub(super) fn report(
    context: &Context,
    out: &Path,
    policy: &Verified<Record>,
    current: Option<&Record>,
) -> anyhow::Result<()> {
    let number = policy.get().number;
    let roots = current.map_or(&policy.get().roots, |current| &current.roots);
    if current.is_none()
        && let Ok(id) = check_genesis(policy, clock::now())
    {
        anstream::eprintln!("network {id}");
    }
    let (signed, needed) = (signed_by(roots, policy), usize::from(roots.threshold));
    let missing = needed.saturating_sub(signed);
    for key in policy.signers().iter().filter(|key| !roots.keys.contains(key)) {
        anstream::eprintln!("warning: key {key} is no root, its signature does not count");
    }
    if context.format == Format::Json {
        let (file, signers) = (out.display().to_string(), policy.signers().into_iter().collect());
        return output::json(&Progress { file, number, signers, roots: Count { signed, needed, missing } });
    }
    output::line(&match missing {
        0 => format!("policy {number}: {signed} roots signed, {needed} must: `artel policy publish {}`", out.display()),
        missing => {
            format!("policy {number}: {signed} of {needed} roots signed, {missing} more must sign {}", out.display())
        }
    })
}
