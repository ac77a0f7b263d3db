//! From the ledger's views to the ones of the interface. They change nothing.

mod explain;
mod outcome;
pub mod recipes;
mod reputation;

use std::collections::BTreeMap;

pub use outcome::word as outcome_word;
pub use reputation::peer;

use ledger::{Ledger, News, view};
use protocol::{
    JobId, NodeId, Timestamp, Verified,
    job::{FetchJob, ImageJob, JobKind, JobRequest, Origin, ServerJob, SourceFile},
    message::Refusal,
};
use web::api::{
    self, Agreement, AttemptState, AttemptView, Builder, Dissent, ExpectedView, FailureView, FileView, GroupView,
    JobDetail, JobFilter, JobLink, JobPage, JobState, JobSummary, PublishedView, RequestView, ServiceView, StepView,
    Time, VerdictView, VerdictWord,
};

use super::Decisions;
use crate::clock;

/// The view path of jobs counted by state.
pub const COUNTS: &str = "counts";

/// The view path of the log's size and the policies' places in it.
pub const POLICIES: &str = "policies";

/// Answers a view of the interface as JSON, for nodes that do not coordinate: `counts`, `policies`, `jobs?<filter as
/// JSON>`, `peer/<id>` or `job/<id>`. `complete` adds to a job what only this node knows.
///
/// # Errors
/// When there is no such view or job.
pub async fn answer(
    decisions: &Decisions,
    path: &str,
    complete: impl FnOnce(&mut JobDetail) + Send,
) -> Result<Vec<u8>, Refusal> {
    let busy = || Refusal::Busy("the coordinator is stopping".into());
    if let Some(filter) = path.strip_prefix("jobs?") {
        let filter: JobFilter =
            serde_json::from_str(filter).map_err(|_| Refusal::Invalid("the filter is not valid".into()))?;
        let page = decisions.view(move |ledger| page(ledger, &filter)).await.ok_or_else(busy)?;
        return Ok(serde_json::to_vec(&page).expect("a view is plain data"));
    }
    if path == COUNTS {
        let counts = decisions.view(counts).await.ok_or_else(busy)?;
        return Ok(serde_json::to_vec(&counts).expect("a view is plain data"));
    }
    if path == POLICIES {
        let look = |ledger: &Ledger| (ledger.log_head().size, ledger.enacted().to_vec());
        let places = decisions.view(look).await.ok_or_else(busy)?;
        return Ok(serde_json::to_vec(&places).expect("a view is plain data"));
    }
    if let Some(node) = path.strip_prefix("peer/").and_then(|node| node.parse().ok()) {
        let look = move |ledger: &Ledger| peer(ledger, node, clock::now());
        let detail = decisions.view(look).await.ok_or_else(busy)?;
        return Ok(serde_json::to_vec(&detail).expect("a view is plain data"));
    }
    if let Some(json) = recipes::answer(decisions, path).await {
        return json.ok_or_else(busy);
    }
    let id = path.strip_prefix("job/").and_then(|id| id.parse::<JobId>().ok());
    let id = id.ok_or_else(|| Refusal::Unknown(format!("view {}", path.chars().take(80).collect::<String>())))?;
    let found = decisions.view(move |ledger| detail(ledger, id)).await.ok_or_else(busy)?;
    let mut found = found.ok_or_else(|| Refusal::Unknown(format!("job {id}")))?;
    complete(&mut found);
    Ok(serde_json::to_vec(&found).expect("a view is plain data"))
}

/// Gives a view path for what a builder has shown, see [`answer`].
pub fn peer_path(node: protocol::NodeId) -> String {
    format!("peer/{node}")
}

/// Gives a view path for a filter, see [`answer`].
pub fn jobs_path(filter: &JobFilter) -> String {
    format!("jobs?{}", serde_json::to_string(filter).expect("a filter is plain data"))
}

/// Lists jobs, newest first.
pub fn page(ledger: &Ledger, filter: &JobFilter) -> JobPage {
    // What a job waits for is looked up for the jobs of the page only.
    let mut briefs = ledger.briefs().into_iter();
    // The last job of the page before may have another state by now: it is sought among all.
    if let Some(after) = filter.after {
        let _ = briefs.by_ref().find(|brief| brief.id == after);
    }
    let ids = briefs
        .filter(|b| filter.asks_for(b.arch, b.group.as_ref()) && filter.passes(state(b.state), &b.kind, &b.channel))
        .filter(|b| filter.is_begun_by(&b.id, b.group.as_ref()))
        .map(|b| b.id);
    let views = ids.take(filter.limit() + 1).filter_map(|id| ledger.job(id));
    let mut jobs: Vec<JobSummary> = views.filter_map(|view| summary(ledger, &view)).collect();
    let more = jobs.len() > filter.limit();
    jobs.truncate(filter.limit());
    let next = if more { jobs.last().map(|s| s.id) } else { None };
    JobPage { jobs, next }
}

/// Counts jobs by state.
pub fn counts(ledger: &Ledger) -> BTreeMap<JobState, u64> {
    let mut counts = BTreeMap::new();
    for word in ledger.states() {
        *counts.entry(state(word)).or_default() += 1;
    }
    counts
}

/// Shows one job.
pub fn detail(ledger: &Ledger, id: JobId) -> Option<JobDetail> {
    let view = ledger.job(id)?;
    let summary = summary(ledger, &view)?;
    let request = ledger.request(id).map(Verified::get);
    let published = match &view.verdict {
        view::VerdictView::Reproduced { generation: Some(generation), outputs, .. } => Some(PublishedView {
            generation: *generation,
            channel: view.channel.clone(),
            files: outputs
                .iter()
                .filter(|o| !crate::publish::rpm::is_source(o.name.as_str()))
                .map(|o| pool_path(request, o.name.as_str()))
                .collect(),
        }),
        view::VerdictView::Reproduced { generation: None, .. }
        | view::VerdictView::Pending
        | view::VerdictView::Disputed { .. }
        | view::VerdictView::Unreproducible { .. }
        | view::VerdictView::Failed { .. }
        | view::VerdictView::Skipped { .. }
        | view::VerdictView::Cancelled { .. }
        | view::VerdictView::Served { .. }
        | view::VerdictView::Unserved { .. } => None,
    };
    let mut attempts: Vec<_> = view.earlier.iter().chain(&view.attempts).map(attempt).collect();
    for attestation in ledger.attested(id) {
        let run = &attestation.get().run;
        let its = attempts.iter_mut().find(|a| a.number == run.lease && a.builder.node == run.node);
        if let Some(attempt) = its {
            attempt.builder.info.clone_from(&run.node_info);
        }
    }
    Some(JobDetail {
        at: Time::from(clock::now()),
        summary,
        request: request_view(request, &view),
        attempts,
        verdict: verdict(&view),
        published,
        service: ledger.service_run(id).map(service),
        links: ledger.links(id).into_iter().map(link).collect(),
        explanations: ledger.explanations(id).into_iter().map(explain::view).collect(),
        logged: outcome::of(ledger, id),
    })
}

fn service(run: view::RunView) -> ServiceView {
    let step = |step: ledger::service::Step| StepView {
        name: step.name,
        began: Time::from(step.began),
        ended: Some(Time::from(step.ended)),
    };
    ServiceView {
        began: run.began.map(Time::from),
        expected: run.expected.map(Time::from),
        steps: run.steps.into_iter().map(step).collect(),
        log: run.log,
        result: run.result,
    }
}

fn link(link: view::Link) -> JobLink {
    JobLink { relation: link.relation.words().to_owned(), job: link.job, title: link.title }
}

/// Where a published output lies below the repository's root; just its name once the request is forgotten.
fn pool_path(request: Option<&JobRequest>, name: &str) -> String {
    let source = request.and_then(|request| match &request.kind {
        JobKind::Deb(deb) => Some(&deb.source),
        JobKind::Rpm(rpm) => Some(&rpm.name),
        JobKind::Command(_) | JobKind::Image(_) | JobKind::Server(_) | JobKind::Fetch(_) => None,
    });
    let path = source.and_then(|source| crate::publish::apt::pool_path(source, name));
    path.map_or_else(|| name.to_owned(), |path| path.to_string())
}

/// Which nodes hold a job's inputs: the builders whose sandbox has started.
pub fn builders_with_inputs(ledger: &Ledger, job: &JobId) -> Vec<NodeId> {
    let attempts = ledger.job(*job).map(|view| view.attempts).unwrap_or_default();
    attempts.iter().filter(|a| a.started.is_some()).map(|a| a.node).collect()
}

fn state(word: &str) -> JobState {
    match word {
        "queued" => JobState::Waiting,
        "failed-to-publish" | "unpublished" | "failed-to-run" => JobState::Failed,
        word => word.parse().unwrap_or(JobState::Unknown),
    }
}

fn summary(ledger: &Ledger, view: &view::JobView) -> Option<JobSummary> {
    // What was decided was decided by the rules of that time.
    let policy = view.times.ended.map_or_else(|| ledger.policy(), |ended| ledger.policy_at(ended)).get();
    let needed = policy.channel(&view.channel).map_or(0, |c| u32::from(c.agree));
    let agree = match &view.verdict {
        view::VerdictView::Reproduced { agree, .. } => agree.len(),
        view::VerdictView::Disputed { groups, .. } | view::VerdictView::Unreproducible { groups, .. } => {
            groups.iter().map(|g| g.operators.len()).max().unwrap_or(0)
        }
        view::VerdictView::Pending | view::VerdictView::Failed { .. } => largest_group(view),
        view::VerdictView::Skipped { .. }
        | view::VerdictView::Cancelled { .. }
        | view::VerdictView::Served { .. }
        | view::VerdictView::Unserved { .. } => 0,
    };
    let mut asked: Vec<_> = view.attempts.iter().map(|a| &a.operator).collect();
    asked.sort();
    asked.dedup();
    let agreement = Agreement {
        agree: u32::try_from(agree).unwrap_or(u32::MAX),
        needed,
        asked: u32::try_from(asked.len()).unwrap_or(u32::MAX),
    };
    Some(JobSummary {
        id: view.id,
        title: view.title.clone(),
        kind: view.kind.clone(),
        arch: view.arch,
        channel: view.channel.clone(),
        maintainer: view.maintainer.clone(),
        state: state(&view.state),
        why: why(view),
        created: Time::from(view.times.created),
        accepted: Time::from(view.times.accepted),
        ended: view.times.ended.map(Time::from),
        agreement,
        expected: expected(view.expected),
        group: view.group.as_ref().map(|g| GroupView { id: g.id, variant: g.variant.clone() }),
    })
}

fn expected(known: view::Expected) -> Option<ExpectedView> {
    let expected = ExpectedView { start: known.start.map(Time::from), end: known.end.map(Time::from) };
    (expected != ExpectedView::default()).then_some(expected)
}

fn largest_group(view: &view::JobView) -> usize {
    let mut groups: BTreeMap<_, usize> = BTreeMap::new();
    for attempt in &view.attempts {
        if let view::ResultView::Outputs { digest, .. } = &attempt.result {
            *groups.entry(*digest).or_default() += 1;
        }
    }
    groups.into_values().max().unwrap_or(0)
}

fn why(view: &view::JobView) -> String {
    match &view.verdict {
        view::VerdictView::Reproduced { unpublished: Some(why), .. } => format!("not published: {why}"),
        view::VerdictView::Failed { why, .. }
        | view::VerdictView::Skipped { why, .. }
        | view::VerdictView::Cancelled { why }
        | view::VerdictView::Unserved { why } => why.clone(),
        view::VerdictView::Served { summary, .. } => summary.clone(),
        view::VerdictView::Disputed { files, .. } | view::VerdictView::Unreproducible { files, .. } => {
            let names: Vec<_> = differing(files);
            format!("builders differ in {}", names.join(", "))
        }
        view::VerdictView::Reproduced { unpublished: None, .. } | view::VerdictView::Pending => {
            view.waiting.clone().unwrap_or_default()
        }
    }
}

fn differing(files: &[ledger::tally::Difference]) -> Vec<String> {
    let mut names: Vec<_> = files.iter().map(|d| d.file.to_string()).collect();
    names.sort();
    names.dedup();
    names
}

fn request_view(request: Option<&JobRequest>, view: &view::JobView) -> RequestView {
    let mut facts = Vec::new();
    let mut inputs = Vec::new();
    let mut fact = |name: &str, value: String| facts.push((name.to_owned(), value));
    if let Some(request) = request {
        match &request.kind {
            JobKind::Deb(deb) => {
                fact("source", deb.source.to_string());
                fact("version", deb.version.to_string());
                fact("options", deb.options.join(" "));
                fact("profiles", deb.profiles.join(" "));
                inputs.extend(deb.files.iter().map(source_view));
            }
            JobKind::Rpm(rpm) => {
                fact("source", rpm.name.to_string());
                fact("version", rpm.version.to_string());
                fact("macros", rpm.macros.join(", "));
                inputs.extend(rpm.files.iter().map(source_view));
            }
            JobKind::Command(command) => {
                fact("command", command.argv.join(" "));
                let outputs: Vec<_> = command.outputs.iter().map(ToString::to_string).collect();
                fact("outputs", outputs.join(" "));
                if !command.isolation.is_rootfs() {
                    fact("isolation", "light".to_owned());
                }
                inputs.extend(command.inputs.iter().map(|f| FileView {
                    name: f.path.to_string(),
                    size: f.size,
                    sha256: f.sha256,
                    hash: Some(f.hash),
                }));
            }
            JobKind::Image(image) => image_facts(image, &mut fact, &mut inputs),
            JobKind::Server(server) => server_facts(server, &mut fact),
            JobKind::Fetch(fetch) => fetch_facts(fetch, &mut fact),
        }
        if request.server().is_none() {
            fact("memory", format!("{} MiB", request.limits.memory_mib));
            fact("wall time", format!("{} s", request.limits.wall_secs));
        }
    }
    facts.retain(|(_, value)| !value.is_empty());
    let environment = request.map_or(protocol::Hash::from_bytes([0; 32]), |r| r.environment);
    RequestView { facts, inputs, environment, expires: Time::from(view.times.expires) }
}

fn source_view(file: &SourceFile) -> FileView {
    FileView { name: file.name.to_string(), size: file.size, sha256: file.sha256, hash: Some(file.hash) }
}

/// Says what an image is to be.
fn image_facts(image: &ImageJob, fact: &mut impl FnMut(&str, String), inputs: &mut Vec<FileView>) {
    let formats: Vec<&str> = image.formats.iter().map(|format| format.word()).collect();
    fact("version", image.version.to_string());
    fact("subproject", image.subproject.as_ref().map(ToString::to_string).unwrap_or_default());
    fact("formats", formats.join(" "));
    fact("hostname", image.hostname.clone());
    fact("locale", image.locale.clone());
    fact("setup", image.setup.join("; "));
    let lock = &image.packages;
    let file = |name: String, size, sha256, hash| FileView { name, size, sha256, hash: Some(hash) };
    inputs.push(file(lock.name.to_string(), lock.size, lock.sha256, lock.hash));
    inputs.extend(image.files.iter().map(|f| file(f.path.to_string(), f.size, f.sha256, f.hash)));
}

/// Says what is to be fetched.
fn fetch_facts(fetch: &FetchJob, fact: &mut impl FnMut(&str, String)) {
    for source in &fetch.sources {
        let what = match &source.origin {
            Origin::Git(git) => format!("{} {} of {}", git.reference, git.commit, git.url),
            Origin::File(file) => match file.sha256 {
                Some(sha256) => format!("{} with sha256 {sha256}", file.url),
                None => file.url.to_string(),
            },
            Origin::Named(named) => {
                let hosts: Vec<&str> = named.hosts.iter().map(|host| host.as_str()).collect();
                format!("what the {} of {} names, at {}", named.by.word(), named.tree, hosts.join(" "))
            }
        };
        fact(source.name.as_str(), what);
    }
}

/// Says what a server job was asked to do.
fn server_facts(server: &ServerJob, fact: &mut impl FnMut(&str, String)) {
    let names = |list: &[protocol::PackageName]| match list {
        [] => "all".to_owned(),
        some => some.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
    };
    match server {
        ServerJob::Promote(promote) => {
            fact("from", promote.from.to_string());
            fact("packages", names(&promote.packages));
        }
        ServerJob::Prune(prune) => {
            fact("packages", names(&prune.packages));
            fact("versions kept", prune.keep.to_string());
            fact("published before", prune.before.map_or_else(String::new, |at| Time::from(at).to_string()));
        }
        ServerJob::Derive(derive) => {
            let arches: Vec<_> = derive.arches.iter().map(ToString::to_string).collect();
            fact("parent", derive.parent.to_string());
            fact("packages", names(&derive.packages));
            fact("architectures", arches.join(" "));
        }
        ServerJob::Diff(diff) => {
            fact("left", diff.left.to_string());
            fact("right", diff.right.to_string());
        }
    }
}

fn file(output: &attest::compare::Output) -> FileView {
    FileView { name: output.name.to_string(), size: output.size, sha256: output.sha256, hash: Some(output.hash) }
}

fn attempt(attempt: &view::AttemptView) -> AttemptView {
    let state = match attempt.state.as_str() {
        "granted" => AttemptState::Granted,
        "running" => AttemptState::Running,
        // It is built; nobody has seen what.
        "committed" | "revealed" => AttemptState::Built,
        "failed" => AttemptState::Failed,
        "interrupted" | "withheld" | "unanswered" => AttemptState::Lost,
        "revoked" => AttemptState::Revoked,
        _ => AttemptState::Unknown,
    };
    let mut outputs = Vec::new();
    let mut failure = None;
    match &attempt.result {
        view::ResultView::None | view::ResultView::Sealed => {}
        view::ResultView::Outputs { outputs: files, .. } => outputs = files.iter().map(file).collect(),
        view::ResultView::Failed(f) => {
            failure = Some(FailureView { blame: f.blame, step: f.step.clone(), what: f.what.clone() });
        }
        view::ResultView::Stopped { why } => {
            let (step, what) = ("lease".to_owned(), why.clone());
            failure = Some(FailureView { blame: protocol::blame::Blame::Interrupted, step, what });
        }
    }
    AttemptView {
        number: attempt.lease,
        builder: Builder { node: attempt.node, operator: attempt.operator.clone(), info: BTreeMap::new() },
        profile: attempt.profile.0,
        state,
        phase: attempt.phase.clone().unwrap_or_default(),
        granted: Time::from(attempt.granted),
        started: attempt.started.map(Time::from),
        ended: attempt.ended.map(Time::from),
        outputs,
        failure,
        log: attempt.log,
    }
}

fn verdict(view: &view::JobView) -> Option<VerdictView> {
    let empty = |word| VerdictView { word, agree: Vec::new(), dissent: Vec::new(), differing: Vec::new() };
    Some(match &view.verdict {
        view::VerdictView::Pending
        | view::VerdictView::Skipped { .. }
        | view::VerdictView::Cancelled { .. }
        | view::VerdictView::Served { .. }
        | view::VerdictView::Unserved { .. } => return None,
        view::VerdictView::Reproduced { agree, dissent, .. } => VerdictView {
            agree: agree.clone(),
            dissent: dissent.iter().flat_map(dissents).collect(),
            ..empty(VerdictWord::Reproduced)
        },
        view::VerdictView::Disputed { groups, files } => VerdictView {
            agree: groups.iter().max_by_key(|g| g.operators.len()).map(|g| g.operators.clone()).unwrap_or_default(),
            differing: differing(files),
            ..empty(VerdictWord::Disputed)
        },
        view::VerdictView::Unreproducible { files, .. } => {
            VerdictView { differing: differing(files), ..empty(VerdictWord::Unreproducible) }
        }
        view::VerdictView::Failed { .. } => empty(VerdictWord::Failed),
    })
}

fn dissents(dissent: &ledger::tally::Dissent) -> Vec<Dissent> {
    let one = |difference: &ledger::tally::Difference| Dissent {
        operator: dissent.operator.clone(),
        node: dissent.node,
        file: difference.file.to_string(),
        theirs: difference.got,
        agreed: difference.agreed,
    };
    dissent.files.iter().map(one).collect()
}

/// Turns news into a sentence for people; none when it is about no job.
pub fn news(news: &News, at: Timestamp) -> Option<api::News> {
    let (job, state, text) = match news {
        News::PolicyAdopted { .. } => return None,
        News::Accepted { job, title } => (job, JobState::Waiting, format!("{title} accepted")),
        News::Granted { job, operator, lease, .. } => {
            (job, JobState::Building, format!("{operator} got lease {lease}"))
        }
        News::Started { job, lease, .. } => (job, JobState::Building, format!("attempt {lease} started")),
        News::Committed { job, lease, .. } => {
            (job, JobState::Building, format!("attempt {lease} is built, and its builder bound to the result"))
        }
        News::Revealed { job, lease, .. } => {
            (job, JobState::Building, format!("attempt {lease} showed the coordinators what it is bound to"))
        }
        News::AttemptFailed { job, lease, why, .. } => {
            (job, JobState::Building, format!("attempt {lease} failed: {why}"))
        }
        News::Declined { job, lease, why, .. } => (job, JobState::Building, format!("lease {lease} declined: {why}")),
        News::LeaseExpired { job, lease, .. } => (job, JobState::Building, format!("lease {lease} expired")),
        News::LateReport { job, lease, .. } => {
            (job, JobState::Building, format!("a late report under lease {lease} was kept as evidence"))
        }
        News::Dissent { job, operator, file, .. } => (job, JobState::Building, format!("{operator} differs in {file}")),
        News::Quarantined { job, operator, class, .. } => {
            (job, JobState::Building, format!("a builder of {operator} is in quarantine for {class} jobs"))
        }
        News::Disabled { job, operator, class, .. } => {
            (job, JobState::Building, format!("a builder of {operator} is disabled for {class} jobs"))
        }
        News::Restored { job, operator, class, .. } => {
            (job, JobState::Building, format!("a builder of {operator} gets {class} jobs again"))
        }
        News::Verdict { job, word, why } => (job, word.parse().unwrap_or(JobState::Unknown), format!("{word}: {why}")),
        News::Published { job, channel, generation } => {
            (job, JobState::Published, format!("published in {channel}, generation {generation}"))
        }
        News::PublishFailed { job, why, .. } => (job, JobState::Publishing, format!("not published: {why}")),
        News::Ordered { job, what, by, reason } => {
            let why = if reason.is_empty() { String::new() } else { format!(": {reason}") };
            (job, JobState::Waiting, format!("{by} orders to {what} it{why}"))
        }
        News::Cancelled { job, reason } => (job, JobState::Cancelled, format!("cancelled: {reason}")),
        News::Skipped { job, why, .. } => (job, JobState::Skipped, format!("skipped: {why}")),
        News::Served { job, summary, .. } => (job, JobState::Done, format!("done: {summary}")),
        News::ServeFailed { job, why, again: Some(_) } => {
            (job, JobState::Running, format!("it failed and is tried again: {why}"))
        }
        News::ServeFailed { job, why, again: None } => (job, JobState::Failed, format!("not done: {why}")),
        News::JobExpired { job } => (job, JobState::Expired, "its time is over".to_owned()),
    };
    Some(api::News { at: Time::from(at), job: *job, state, text })
}
