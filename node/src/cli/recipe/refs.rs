//! What references lead to now, asked by git on this machine. Only commits' ids come of it: their contents are fetched by
//! builders.

use std::{
    collections::BTreeMap,
    process::{Output, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail};
use protocol::{
    recipe::{GitSource, Plan},
    words::CommitId,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::Command,
};

/// How long a repository may take to answer.
const WITHIN: Duration = Duration::from_secs(120);
/// The most bytes that it may say.
const SAID_MAX: u64 = 1 << 20;

/// Gives the commit of each repository.
pub(super) async fn resolve(plan: &Plan) -> anyhow::Result<BTreeMap<&'static str, CommitId>> {
    let mut commits = BTreeMap::new();
    for (name, git) in plan.repositories() {
        commits.insert(name, commit(git).await.with_context(|| format!("{name} of the recipe"))?);
    }
    Ok(commits)
}

async fn commit(source: &GitSource) -> anyhow::Result<CommitId> {
    let (url, reference) = (source.url.as_str(), source.reference.as_str());
    let mut command = Command::new("git");
    let only =
        ["protocol.allow=never", "protocol.http.allow=always", "protocol.https.allow=always", "credential.helper="];
    command.args(only.iter().flat_map(|setting| ["-c", setting])).args(["ls-remote", "--", url]);
    // A tag that is an object of its own is followed to its commit.
    command.args([reference, &format!("{reference}^{{}}")]);
    command.env("GIT_TERMINAL_PROMPT", "0").stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(WITHIN, output(command)).await;
    let output = output.with_context(|| format!("{url} did not answer"))?.with_context(|| format!("git, of {url}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{url} cannot be read: {}", said.trim().lines().last().unwrap_or_default());
    }
    let listed = String::from_utf8_lossy(&output.stdout).into_owned();
    match chosen(&listed, reference) {
        Some(commit) => CommitId::new(commit).with_context(|| format!("what {url} says")),
        None => bail!("{url} has no branch or tag {reference}"),
    }
}

/// Runs a program that says little; one that says more is ended.
async fn output(mut command: Command) -> anyhow::Result<Output> {
    let spawned = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = spawned.context("git cannot be run; install git")?;
    let (out, err) = (child.stdout.take().expect("piped above"), child.stderr.take().expect("piped above"));
    let (stdout, stderr) = tokio::try_join!(said(out), said(err))?;
    Ok(Output { status: child.wait().await?, stdout, stderr })
}

async fn said(stream: impl AsyncRead + Unpin) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.take(SAID_MAX + 1).read_to_end(&mut bytes).await?;
    if bytes.len() as u64 > SAID_MAX {
        bail!("it says more than {SAID_MAX} bytes");
    }
    Ok(bytes)
}

/// Chooses as git does: the very name, then a tag, then a branch; `^{}` is the commit behind a tag.
fn chosen<'a>(listed: &'a str, reference: &str) -> Option<&'a str> {
    let lines: Vec<(&str, &str)> = listed.lines().filter_map(|line| line.split_once('\t')).collect();
    ["", "refs/", "refs/tags/", "refs/heads/"].iter().find_map(|prefix| {
        let name = format!("{prefix}{reference}");
        let of = |name: &str| lines.iter().find(|(_, listed)| *listed == name).map(|(commit, _)| *commit);
        of(&format!("{name}^{{}}")).or_else(|| of(&name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_says_too_much_is_ended() {
        let mut endless = Command::new("yes");
        endless.kill_on_drop(true);
        let ended = tokio::time::timeout(Duration::from_secs(30), output(endless)).await.unwrap();
        assert!(ended.unwrap_err().to_string().contains("it says more than"));
        let mut brief = Command::new("echo");
        brief.arg("a word");
        assert_eq!(output(brief).await.unwrap().stdout, b"a word\n");
    }

    #[test]
    fn a_tag_is_its_commit_and_other_branches_of_the_name_are_not_meant() {
        let listed = "aa\trefs/heads/feature/main\nbb\trefs/heads/main\ncc\trefs/tags/v1\ndd\trefs/tags/v1^{}\n";
        assert_eq!(chosen(listed, "main"), Some("bb"));
        assert_eq!(chosen(listed, "refs/heads/main"), Some("bb"));
        assert_eq!(chosen(listed, "v1"), Some("dd"));
        assert_eq!(chosen(listed, "gone"), None);
    }
}
