//! `artel status`.

use web::{Backend, api::Status};

use super::{
    Context, exit,
    output::{self, Format},
};

pub(super) async fn run(context: &Context) -> anyhow::Result<u8> {
    let status = context.client().status().await?;
    match context.format {
        Format::Json => output::json(&status)?,
        Format::People => people(&status)?,
    }
    Ok(exit::DONE)
}

fn people(status: &Status) -> anyhow::Result<()> {
    let coordinator = match status.coordinator {
        Some(node) if node == status.node => "this node".to_owned(),
        Some(node) => node.short(),
        None => "unknown; no peer has told".into(),
    };
    let jobs: Vec<String> = status.jobs.iter().map(|(state, count)| format!("{count} {state}")).collect();
    let mut lines = vec![
        format!("node         {}", status.node),
        format!("network      {} ({})", status.network.name, status.network.id.short()),
        format!("roles        {}", status.roles.join(", ")),
        format!("coordinator  {coordinator}"),
        format!("policy       {} until {}", status.policy.number, status.policy.expires),
        format!("peers        {}", status.peers),
        format!("jobs         {}", if jobs.is_empty() { "none".into() } else { jobs.join(", ") }),
        format!("blobs        {:.1} MiB", status.blobs.bytes as f64 / f64::from(1 << 20)),
    ];
    if let Some(reason) = &status.draining {
        lines.push(format!("draining     it takes no new job{}", output::because(reason)));
    }
    for repository in &status.repositories {
        lines.push(format!(
            "repository   {} generation {} with {} packages",
            repository.channel, repository.generation, repository.packages
        ));
    }
    lines.push(format!("up           {} s, artel {}", status.uptime_seconds, status.version));
    output::line(&lines.join("\n"))
}
