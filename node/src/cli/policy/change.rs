//! `artel policy admit|revoke`: the usual changes in one step. Where one root is not enough, the next one gets a file.

use std::path::PathBuf;

use anyhow::Context as _;
use protocol::{NodeId, OperatorName, PublicKey, policy::Policy as Record};

use super::{Context, in_force, look, publish, sign, signed_by, versions};
use crate::{
    charter::{Charter, CoordinatorsEntry, RevokedEntry},
    cli::{
        exit,
        output::{self, Format},
    },
    config::Config,
    keys,
};

/// The word that admits a node as a mirror instead of as an operator's.
const MIRROR: &str = "mirror";

/// Add a node to an operator (made when new) or to the mirrors, sign and publish, in one step
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Admit {
    /// Who answers for the node; for a mirror, which has no vote, write `mirror`
    operator: OperatorName,
    /// The node's id (`artel node id` there)
    node: NodeId,
    #[command(flatten)]
    signing: Signing,
}

/// Revoke the key of a node, a maintainer or a root, or all nodes of an operator; sign and publish, in one step
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Revoke {
    /// A key (64 hexadecimal digits), or the name of an operator or of a maintainer
    who: String,
    /// Why, for everybody who meets the key: one line
    #[arg(long)]
    reason: String,
    /// The entry of the log from which on its signatures do not count; 0 for none ever [default: the next one]
    #[arg(long, value_name = "ENTRY")]
    from: Option<u64>,
    #[command(flatten)]
    signing: Signing,
}

/// Who signs, and where the rest goes.
#[derive(Debug, clap::Args)]
struct Signing {
    /// The root key: its name, or the path of its file
    #[arg(long, default_value = "root")]
    key: keys::Word,
    /// Where to write the policy when other roots must sign it, too [default: policy-<number>.signed here]
    #[arg(long)]
    out: Option<PathBuf>,
}

impl Admit {
    pub(in crate::cli) async fn run(self, context: &Context) -> anyhow::Result<u8> {
        let (mut charter, current) = next(context).await?;
        if self.operator.as_str() == MIRROR {
            charter.mirrors.push(self.node);
        } else {
            charter.operators.entry(self.operator).or_default().push(self.node);
        }
        finish(context, &charter, &current, self.signing).await
    }
}

impl Revoke {
    pub(in crate::cli) async fn run(self, context: &Context) -> anyhow::Result<u8> {
        let (mut charter, current) = next(context).await?;
        let from = match self.from {
            Some(from) => from,
            None => versions(context).await?.0.log_size.ok_or_else(|| {
                exit::failure(exit::UNREACHABLE, "no coordinator says how long the log is")
                    .hint("name the entry from which on the key does not count, with --from")
            })?,
        };
        for key in keys_of(&self.who, &current)? {
            strike(&mut charter, key)?;
            match charter.revoked.iter_mut().find(|entry| entry.key == key) {
                Some(entry) => entry.from = entry.from.min(from),
                None => charter.revoked.push(RevokedEntry { key, from, reason: self.reason.clone() }),
            }
        }
        charter.operators.retain(|name, _| name.as_str() != self.who);
        finish(context, &charter, &current, self.signing).await
    }
}

/// Finds the keys that a word names.
fn keys_of(who: &str, policy: &Record) -> anyhow::Result<Vec<PublicKey>> {
    if let Ok(key) = who.parse() {
        return Ok(vec![key]);
    }
    let operator = policy.operators.iter().find(|operator| operator.name.as_str() == who);
    let nodes = operator.into_iter().flat_map(|operator| &operator.nodes).map(|node| PublicKey::from(*node));
    let maintainers = policy.maintainers.iter().filter(|m| operator.is_none() && m.name.as_str() == who).map(|m| m.key);
    let keys: Vec<_> = nodes.chain(maintainers).collect();
    if keys.is_empty() {
        let what =
            format!("{who} is no key, and the policy has no operator with a node and no maintainer of that name");
        return Err(exit::failure(exit::FAILED, what).hint("`artel policy show` names them").into());
    }
    Ok(keys)
}

/// Takes every part from a key.
fn strike(charter: &mut Charter, key: PublicKey) -> anyhow::Result<()> {
    let node = NodeId::from(key);
    charter.operators.values_mut().for_each(|nodes| nodes.retain(|known| *known != node));
    charter.mirrors.retain(|known| *known != node);
    charter.maintainers.retain(|maintainer| maintainer.key != key);
    charter.roots.keys.retain(|known| *known != key);
    let left = match &mut charter.coordinators {
        CoordinatorsEntry::Pinned(pinned) => *pinned != node,
        CoordinatorsEntry::Elected(nodes) => {
            nodes.retain(|known| *known != node);
            !nodes.is_empty()
        }
    };
    if left {
        return Ok(());
    }
    Err(exit::failure(exit::FAILED, "this is the only coordinator: another one must take over first")
        .hint("name more coordinators in a policy of its own, wait until they have caught up (`artel coordinator`), then revoke")
        .into())
}

/// Gives the next policy to edit, and the one in force.
async fn next(context: &Context) -> anyhow::Result<(Charter, Record)> {
    let network = Config::load(&context.home)?.network.id;
    let current = in_force(context).await?.into_inner();
    let mut charter = Charter::from_policy(&current);
    charter.number += 1;
    charter.network = Some(network);
    Ok((charter, current))
}

/// Signs, and publishes where that is enough.
async fn finish(context: &Context, charter: &Charter, current: &Record, signing: Signing) -> anyhow::Result<u8> {
    let policy = charter.to_policy()?;
    look::tell(current, &policy)?;
    let signed = sign::sign(context, &policy, &[signing.key])?;
    let verified = signed.clone().verify(policy.network.as_ref())?;
    let (got, needed) = (signed_by(&current.roots, &verified), usize::from(current.roots.threshold));
    if got >= needed {
        return publish(context, signed.to_bytes()).await;
    }
    let path = signing.out.unwrap_or_else(|| PathBuf::from(format!("policy-{}.signed", policy.number)));
    // Others may have signed the same change there; another one is not written over.
    let signed = match sign::begun(&path, &policy)? {
        Some(begun) => begun.and(signed).context("the signed policy is not written as this program writes it")?,
        None => signed,
    };
    let verified = signed.clone().verify(policy.network.as_ref())?;
    sign::write(&path, &signed.to_bytes())?;
    let got = signed_by(&current.roots, &verified);
    if context.format == Format::Json || got >= needed {
        sign::report(context, &path, &verified, Some(current))?;
        return Ok(exit::DONE);
    }
    output::line(&format!(
        "{got} of {needed} roots signed: hand {path} on; {missing} more must `artel policy sign {path}`, then `artel policy publish {path}`",
        missing = needed - got,
        path = path.display()
    ))?;
    Ok(exit::DONE)
}
