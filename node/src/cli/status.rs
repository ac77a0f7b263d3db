//! `artel status`.

use web::{
    Backend,
    api::{Coordination, Majority, Status},
};

use super::{
    Context, exit,
    output::{self, Format},
};

pub(super) async fn run(context: &Context) -> anyhow::Result<u8> {
    let client = context.client();
    let (status, coordination) = (client.status().await?, client.coordination().await?);
    match context.format {
        Format::Json => output::json(&Both { status, coordination })?,
        Format::People => people(&status, &coordination)?,
    }
    Ok(exit::DONE)
}

/// What programs get: the status, and the group beside it.
#[derive(serde::Serialize)]
struct Both {
    #[serde(flatten)]
    status: Status,
    coordination: Coordination,
}

/// Says the term and since when, and what keeps the group from accepting anything.
fn group(view: &Coordination) -> Vec<String> {
    let since = view.since.map_or_else(String::new, |since| format!(" since {since}"));
    let mut lines = vec![format!("term         {}{since}", view.term)];
    match view.majority {
        Majority::Reachable => {}
        Majority::Unsettled | Majority::Missing | Majority::Unknown => {
            lines.push(format!("majority     {}", view.majority));
        }
    }
    lines.extend(view.disk.as_ref().map(|disk| format!("group's disk {}", output::printable(disk))));
    lines
}

fn people(status: &Status, coordination: &Coordination) -> anyhow::Result<()> {
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
    lines.splice(4..4, group(coordination));
    if let Some(conflict) = &status.conflict {
        let [older, newer] = conflict.sizes;
        lines.insert(0, format!("ALARM        the log of this network was forked (checkpoints of {older} and {newer} entries, found {}):", conflict.found));
        lines.insert(1, "             nothing of it is believed; `artel log conflict FILE` writes the evidence".into());
    }
    if let Some(doubt) = &status.doubt {
        let (size, from, since) = (doubt.size, doubt.from.short(), doubt.since);
        lines.insert(0, format!("DOUBT        nobody shows what a checkpoint of {size} entries of the log belongs to (told by {from}, since {since}):"));
        lines
            .insert(1, "             nothing more is cosigned or mirrored until a coordinator serves its tiles".into());
    }
    if let Some(clock) = status.clock() {
        lines.insert(0, format!("CLOCK        {clock}:"));
        lines.insert(
            1,
            "             beyond a minute, messages are ignored here or there; `timedatectl set-ntp true` keeps a clock right".into(),
        );
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_group_is_said_in_words_only_when_something_is_wrong() {
        let mut view = web::testing::sample().0.coordination().await.unwrap();
        assert_eq!(group(&view), [format!("term         3 since {}", view.at)]);
        (view.since, view.majority, view.disk) = (None, Majority::Missing, Some("full: 3 MiB are free".into()));
        let missing = "majority     no majority can be reached: nothing is accepted or published until more come back";
        assert_eq!(group(&view), ["term         3", missing, "group's disk full: 3 MiB are free"]);
    }
}
