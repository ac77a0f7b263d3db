//! `artel coordinator`: who coordinates, and handing the role on.

use clap::Subcommand;
use protocol::NodeId;
use web::{
    Backend,
    api::{Coordination, MemberView},
};

use super::{
    Context, exit,
    output::{self, Format},
};

/// Show who coordinates, and hand the role on
#[derive(Debug, Subcommand)]
pub(super) enum Coordinator {
    /// Show the term, the leader, and how far each coordinator is
    Status,
    /// Give the lead to whichever other coordinator is ready; only where this node leads
    StepDown,
    /// Give the lead to a certain coordinator; only where this node leads
    Transfer {
        /// The coordinator's id (`artel coordinator status` lists them)
        node: NodeId,
    },
}

impl Coordinator {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<u8> {
        let client = context.client();
        let view = match self {
            Coordinator::Status => client.coordination().await?,
            Coordinator::StepDown => client.step_down().await?,
            Coordinator::Transfer { node } => client.transfer(node).await?,
        };
        match context.format {
            Format::Json => output::json(&view)?,
            Format::People => people(&view)?,
        }
        Ok(exit::DONE)
    }
}

fn people(view: &Coordination) -> anyhow::Result<()> {
    let leader = view.leader.map_or_else(|| "nobody".to_owned(), |node| node.to_string());
    let since = view.since.map_or_else(String::new, |since| format!(" since {since}"));
    let disk =
        view.disk.as_ref().map_or_else(String::new, |disk| format!("disk         {}\n", output::printable(disk)));
    output::line(&format!(
        "leader       {leader}\nterm         {}{since}\nmajority     {}\n{disk}",
        view.term, view.majority
    ))?;
    let count = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
    let row = |member: &MemberView| {
        vec![member.node.to_string(), member.role.word().to_owned(), count(member.log), count(member.applied)]
    };
    output::table(&["COORDINATOR", "ROLE", "LOG", "APPLIED"], view.members.iter().map(row).collect())
}
