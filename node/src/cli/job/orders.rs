//! Orders for a job that was submitted, signed with the maintainer's key.

use protocol::job::{Change, Order};
use web::Backend;

use crate::{
    cli::{Context, exit, output},
    clock,
    config::Config,
    keys,
};

/// Which job, by whom, and why
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Target {
    /// The job's id, or its first digits
    job: String,
    /// The maintainer's key: its name, or the path of its file
    #[arg(long, default_value = "maintainer")]
    key: keys::Word,
    /// Why, for people
    #[arg(long, default_value = "")]
    reason: String,
}

impl Target {
    /// Signs the order and sends it; it is durable when this returns.
    pub(in crate::cli) async fn order(self, context: &Context, what: Change) -> anyhow::Result<u8> {
        let network = Config::load(&context.home)?.network.id;
        let job = super::find(context, &self.job).await?;
        let key = context.signer(&self.key)?;
        let order = Order { at: clock::now(), job, what, reason: self.reason };
        let signed = keys::sign(&order, Some(&network), &[&key])?;
        context.client().order(signed.to_bytes().into()).await?;
        match context.format {
            output::Format::Json => output::json(&serde_json::json!({ "job": job, "order": what.to_string() }))?,
            output::Format::People => anstream::eprintln!("job {job}: {}", done(what)),
        }
        Ok(exit::DONE)
    }
}

fn done(what: Change) -> String {
    match what {
        Change::Cancel => "cancelled".to_owned(),
        Change::Suspend => "suspended; `artel job resume` lets it go on".to_owned(),
        Change::Resume => "goes on".to_owned(),
        Change::Retry => "begins again".to_owned(),
        Change::Reprioritise(priority) => format!("has priority {}", priority.0),
    }
}
