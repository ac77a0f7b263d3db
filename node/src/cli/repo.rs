//! `artel repo`: list and explain the repositories that this node serves, ask for changes of them, and change their key.

mod change;
mod key;

use clap::Subcommand;
use protocol::ChannelName;
use web::{Backend, api::RepositoryView};

use super::{
    Context, exit,
    output::{self, Format},
};
use crate::config::Config;

/// List, explain and change repositories
#[derive(Debug, Subcommand)]
pub(super) enum Repo {
    /// List repositories
    Ls,
    /// Print the sources for apt and dnf that use a repository of this node
    Show {
        /// The channel
        channel: ChannelName,
    },
    /// Take packages over from another channel, where enough operators agree for this one too
    Promote(change::PromoteWords),
    /// Fill a channel with what another one has
    Derive(change::DeriveWords),
    /// Take packages out of a channel; their files stay for a day
    Prune(change::PruneWords),
    /// Say what is different between two channels, or two generations
    Diff(change::DiffWords),
    /// Show or change the OpenPGP key that signs this node's repositories
    #[command(subcommand)]
    Key(key::Key),
}

impl Repo {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<u8> {
        match self {
            Repo::Promote(words) => words.run(context).await,
            Repo::Derive(words) => words.run(context).await,
            Repo::Prune(words) => words.run(context).await,
            Repo::Diff(words) => words.run(context).await,
            Repo::Key(key) => key.run(context),
            Repo::Ls => list(context, &context.client().repositories().await?),
            Repo::Show { channel } => {
                let views = context.client().repositories().await?;
                let view = views.into_iter().find(|v| v.channel == channel).ok_or_else(|| {
                    exit::failure(exit::FAILED, format!("this node serves no repository of channel {channel}"))
                        .hint("`artel repo ls` lists those that it serves")
                })?;
                show(context, &view)
            }
        }
    }
}

fn list(context: &Context, views: &[RepositoryView]) -> anyhow::Result<u8> {
    match context.format {
        Format::Json => output::json(&views)?,
        Format::People => {
            let row = |v: &RepositoryView| {
                vec![
                    v.channel.to_string(),
                    v.suite.to_string(),
                    v.generation.to_string(),
                    v.packages.to_string(),
                    v.valid_until.as_ref().map_or_else(|| "-".into(), ToString::to_string),
                ]
            };
            let rows = views.iter().map(row).collect();
            output::table(&["CHANNEL", "SUITE", "GENERATION", "PACKAGES", "VALID UNTIL"], rows)?;
        }
    }
    Ok(exit::DONE)
}

fn show(context: &Context, view: &RepositoryView) -> anyhow::Result<u8> {
    if context.format == Format::Json {
        output::json(view)?;
        return Ok(exit::DONE);
    }
    if view.fingerprints.is_empty() {
        let what = format!("the keys of channel {} are not known here", view.channel);
        return Err(exit::failure(exit::FAILED, what)
            .hint("ask again once this node has its first release (`artel repo ls`)")
            .into());
    }
    let web = address(&Config::load(&context.home)?)?;
    let fingerprints = view.fingerprints.join("\n#   ");
    output::line(&format!(
        "# Save the keys first:\n#   curl -fsS http://{web}/repo/{channel}/archive-key.gpg -o /etc/apt/keyrings/artel.gpg\n\
         # and compare their fingerprints (gpg --show-keys FILE) with what the network's maintainers say, not only with these:\n\
         #   {fingerprints}\n\
         Types: deb\nURIs: http://{web}/repo/{channel}/\nSuites: {suite}\nComponents: main\n\
         Signed-By: /etc/apt/keyrings/artel.gpg\n\n\
         # For dnf, where the channel has RPMs; save http://{web}/repo/{channel}/archive-key.asc as the key:\n\
         [artel-{channel}]\nname={channel}\nbaseurl=http://{web}/repo/{channel}/\nenabled=1\ngpgcheck=1\n\
         repo_gpgcheck=1\ngpgkey=file:///etc/pki/rpm-gpg/artel.asc",
        channel = view.channel,
        suite = view.suite,
    ))?;
    Ok(exit::DONE)
}

/// Gives the address by which others reach this node's web interface, as far as its settings tell: the first of its names, else
/// where it listens.
fn address(config: &Config) -> anyhow::Result<String> {
    let off = || {
        exit::failure(exit::FAILED, "the web interface of this node is off, so that nobody gets packages from it")
            .hint("set `web` in its configuration and restart it, or ask another node")
    };
    let listens = config.reach.web_address().ok().flatten().ok_or_else(off)?;
    Ok(match config.reach.web_hosts.first() {
        Some(name) => format!("{name}:{}", listens.port()),
        None if listens.ip().is_unspecified() => format!("ADDRESS-OF-THIS-NODE:{}", listens.port()),
        None => listens.to_string(),
    })
}
