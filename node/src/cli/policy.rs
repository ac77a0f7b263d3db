//! `artel policy`: show, sign and publish the network's policy.

use std::{fs, path::PathBuf};

use anyhow::Context as _;
use clap::Subcommand;
use protocol::{
    NetworkId, NodeId, OperatorName, Verified,
    envelope::Signed,
    policy::{Policy as Record, check_genesis},
};
use web::Backend;

use super::{
    Context, exit,
    output::{self, Format},
};
use crate::{charter::Charter, clock, config::Config, keys};

/// The word that admits a node as a mirror instead of as an operator's.
const MIRROR: &str = "mirror";

/// Show, sign and publish the network's policy
#[derive(Debug, Subcommand)]
pub(super) enum Policy {
    /// Print the policy in force, as the file that can be edited
    Show,
    /// Sign a policy file
    Sign(Sign),
    /// Have the network adopt a signed policy
    Publish {
        /// The signed policy, as `policy sign` wrote it
        file: PathBuf,
    },
    /// Add a node to an operator (made when new) or to the mirrors, sign and publish, in one step
    Admit {
        /// Who answers for the node; for a mirror, which has no vote, write `mirror`
        operator: OperatorName,
        /// The node's id (`artel node id` there)
        node: NodeId,
        /// The root key: its name, or the path of its file
        #[arg(long, default_value = "root")]
        key: keys::Word,
    },
}

/// Sign a policy file
#[derive(Debug, clap::Args)]
pub(super) struct Sign {
    /// The policy file (TOML)
    file: PathBuf,
    /// Root keys to sign with: names, or paths of files
    #[arg(long, value_delimiter = ',', default_value = "root")]
    key: Vec<keys::Word>,
    /// Where to write the signed policy [default: beside the file, ending in .signed]
    #[arg(long)]
    out: Option<PathBuf>,
    /// Publish it at once
    #[arg(long)]
    publish: bool,
}

impl Policy {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<u8> {
        match self {
            Policy::Show => show(context).await,
            Policy::Sign(sign) => sign.run(context).await,
            Policy::Publish { file } => {
                let bytes = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
                publish(context, bytes).await
            }
            Policy::Admit { operator, node, key } => admit(context, operator, node, &key).await,
        }
    }
}

/// Reads the policy in force from the daemon, or the genesis when it does not run.
pub(super) async fn in_force(context: &Context) -> anyhow::Result<Verified<Record>> {
    let network = Config::load(&context.home)?.network.id;
    let bytes = match context.client().policy().await {
        Ok(bytes) => bytes.to_vec(),
        Err(error) => fs::read(context.home.genesis()).map_err(|_| error)?,
    };
    read(&bytes, &network)
}

fn read(bytes: &[u8], network: &NetworkId) -> anyhow::Result<Verified<Record>> {
    let signed = Signed::<Record>::read(bytes)?;
    let first = NetworkId::from(signed.id()) == *network;
    Ok(signed.verify(if first { None } else { Some(network) })?)
}

async fn show(context: &Context) -> anyhow::Result<u8> {
    let policy = in_force(context).await?;
    match context.format {
        Format::Json => output::json(policy.get())?,
        Format::People => output::line(Charter::from_policy(policy.get()).to_toml().trim_end())?,
    }
    Ok(exit::DONE)
}

impl Sign {
    async fn run(self, context: &Context) -> anyhow::Result<u8> {
        let text = fs::read_to_string(&self.file).with_context(|| format!("cannot read {}", self.file.display()))?;
        let bytes = sign(context, &Charter::parse(&text)?, &self.key)?;
        let out = self.out.unwrap_or_else(|| self.file.with_extension("signed"));
        fs::write(&out, &bytes).with_context(|| format!("cannot write {}", out.display()))?;
        anstream::eprintln!("wrote {}", out.display());
        if self.publish { publish(context, bytes).await } else { Ok(exit::DONE) }
    }
}

fn sign(context: &Context, charter: &Charter, words: &[keys::Word]) -> anyhow::Result<Vec<u8>> {
    let policy = charter.to_policy()?;
    let keys = words.iter().map(|word| context.signer(word)).collect::<Result<Vec<_>, _>>()?;
    let signers: Vec<&dyn keys::Sign> = keys.iter().map(|key| key as &dyn keys::Sign).collect();
    let signed = keys::sign(&policy, policy.network.as_ref(), &signers)?;
    if policy.network.is_none() {
        let genesis = signed.clone().verify(None)?;
        let id = check_genesis(&genesis, clock::now())?;
        anstream::eprintln!("network {id}");
    }
    Ok(signed.to_bytes())
}

async fn publish(context: &Context, bytes: Vec<u8>) -> anyhow::Result<u8> {
    let view = context.client().adopt_policy(bytes.into()).await?;
    match context.format {
        Format::Json => output::json(&view)?,
        Format::People => output::line(&format!("policy {} is in force", view.number))?,
    }
    Ok(exit::DONE)
}

async fn admit(context: &Context, operator: OperatorName, node: NodeId, key: &keys::Word) -> anyhow::Result<u8> {
    let network = Config::load(&context.home)?.network.id;
    let mut charter = Charter::from_policy(in_force(context).await?.get());
    charter.number += 1;
    charter.network = Some(network);
    if operator.as_str() == MIRROR {
        charter.mirrors.push(node);
    } else {
        charter.operators.entry(operator).or_default().push(node);
    }
    publish(context, sign(context, &charter, std::slice::from_ref(key))?).await
}
