//! `artel mirror`: follow repositories and serve them.

use clap::Subcommand;
use protocol::ChannelName;
use web::Backend;

use super::{
    Context, exit,
    output::{self, Format},
};
use crate::config::{Config, Mirror as Mirrored};

/// Follow repositories and serve them
#[derive(Debug, Subcommand)]
pub(super) enum Mirror {
    /// Follow a channel from the next start of the daemon on
    Add {
        /// The channel
        channel: ChannelName,
    },
    /// No longer follow a channel, from the next start of the daemon on
    Remove {
        /// The channel
        channel: ChannelName,
    },
    /// List what this node follows and how far it is
    Ls,
}

impl Mirror {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<u8> {
        let mut config = Config::load(&context.home)?;
        let mut channels = config.mirror.take().map(|m| m.channels).unwrap_or_default();
        match self {
            Mirror::Ls => return list(context, &channels).await,
            Mirror::Add { channel } => channels.push(channel),
            Mirror::Remove { channel } => channels.retain(|c| *c != channel),
        }
        channels.sort();
        channels.dedup();
        config.mirror = (!channels.is_empty()).then_some(Mirrored { channels });
        config.save(&context.home)?;
        anstream::eprintln!("wrote {}; restart the daemon to apply it", context.home.config().display());
        Ok(exit::DONE)
    }
}

async fn list(context: &Context, channels: &[ChannelName]) -> anyhow::Result<u8> {
    let views = context.client().repositories().await?;
    let followed: Vec<_> = views.into_iter().filter(|v| channels.contains(&v.channel)).collect();
    match context.format {
        Format::Json => output::json(&followed)?,
        Format::People => {
            let row = |c: &ChannelName| {
                let view = followed.iter().find(|v| v.channel == *c);
                let cell = |f: fn(&web::api::RepositoryView) -> String| view.map_or_else(|| "-".into(), f);
                vec![
                    c.to_string(),
                    cell(|v| v.generation.to_string()),
                    cell(|v| v.packages.to_string()),
                    cell(|v| v.published.as_ref().map_or_else(|| "-".into(), ToString::to_string)),
                ]
            };
            let rows = channels.iter().map(row).collect();
            output::table(&["CHANNEL", "GENERATION", "PACKAGES", "PUBLISHED"], rows)?;
        }
    }
    Ok(exit::DONE)
}
