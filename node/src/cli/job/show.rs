//! One job, for people.

use std::fmt::Write;

use protocol::{JobId, blame::Blame};
use web::{
    Backend,
    api::{AttemptView, JobDetail, JobState, ServiceView},
};

use crate::cli::{
    Context, exit,
    output::{self, Format},
};

pub(super) async fn run(context: &Context, job: JobId) -> anyhow::Result<u8> {
    let detail = context.client().job(job).await?;
    match context.format {
        Format::Json => output::json(&detail)?,
        Format::People => output::line(&text(&detail))?,
    }
    Ok(exit::DONE)
}

/// Gives the exit code of a finished job.
pub(in crate::cli) fn exit_code(detail: &JobDetail) -> u8 {
    match detail.summary.state {
        JobState::Published | JobState::Reproduced | JobState::Done => exit::DONE,
        JobState::Waiting | JobState::Building | JobState::Publishing | JobState::Running | JobState::Unknown => {
            exit::DONE
        }
        JobState::Expired => exit::TIMED_OUT,
        JobState::Failed if only_builders_failed(detail) => exit::BUILDER_FAILED,
        JobState::Disputed | JobState::Unreproducible | JobState::Failed | JobState::Skipped | JobState::Cancelled => {
            exit::JOB_FAILED
        }
    }
}

fn only_builders_failed(detail: &JobDetail) -> bool {
    let mut failures = detail.attempts.iter().filter_map(|a| a.failure.as_ref()).peekable();
    failures.peek().is_some() && failures.all(|f| matches!(f.blame, Blame::Builder(_) | Blame::Interrupted))
}

/// Writes a job as lines.
pub(super) fn text(detail: &JobDetail) -> String {
    let summary = &detail.summary;
    let mut out = String::new();
    let mut line = |text: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{}", output::printable(&text));
    };
    line(format!("job        {}", summary.id));
    line(format!("what       {}", summary.title));
    line(format!("state      {} {}", summary.state.symbol(), summary.state));
    if !summary.why.is_empty() {
        line(format!("why        {}", summary.why));
    }
    if let Some(expected) = summary.expected {
        let start = expected.start.map(|at| format!("to begin at {at}"));
        let end = expected.end.map(|at| format!("to end at {at}"));
        let both: Vec<String> = start.into_iter().chain(end).collect();
        line(format!("expected   {}", both.join(", ")));
    }
    if let Some(group) = &summary.group {
        line(format!("group      {} of {}", group.variant, group.id));
    }
    line(format!("maintainer {} on channel {}", summary.maintainer, summary.channel));
    for link in &detail.links {
        line(format!("{:<10} job {} {}", link.relation, link.job.short(), link.title));
    }
    match &detail.service {
        Some(service) => service_lines(service, &mut line),
        None => line(format!(
            "agreement  {} of {} needed, {} asked",
            summary.agreement.agree, summary.agreement.needed, summary.agreement.asked
        )),
    }
    for attempt in &detail.attempts {
        attempt_lines(attempt, &mut line);
    }
    logged_lines(detail, &mut line);
    difference_lines(detail, &mut line);
    for one in &detail.explanations {
        let words = super::diff::lines(detail, one);
        for (number, text) in words.into_iter().enumerate() {
            line(if number == 0 { format!("explained  {text}") } else { text });
        }
    }
    if let Some(verdict) = &detail.verdict {
        let names: Vec<_> = verdict.agree.iter().map(ToString::to_string).collect();
        line(format!("verdict    {} {}", verdict.word, names.join(", ")));
        for dissent in &verdict.dissent {
            let hash = |h: &Option<protocol::Sha256>| h.map_or_else(|| "(no such file)".into(), |h| h.to_string());
            line(format!("  {} differs in {}", dissent.operator, dissent.file));
            line(format!("    theirs {}", hash(&dissent.theirs)));
            line(format!("    agreed {}", hash(&dissent.agreed)));
        }
        if !verdict.differing.is_empty() {
            line(format!("  differing files: {}", verdict.differing.join(", ")));
        }
    }
    if let Some(published) = &detail.published {
        line(format!("published  {} generation {}", published.channel, published.generation));
        for file in &published.files {
            line(format!("  {file}"));
        }
    }
    out.trim_end().to_owned()
}

fn service_lines(service: &ServiceView, line: &mut impl FnMut(String)) {
    for step in &service.steps {
        let ended = step.ended.map_or_else(|| "now".to_owned(), |ended| ended.clock().to_owned());
        line(format!("step       {} ({} to {ended})", step.name, step.began.clock()));
    }
    if let Some(expected) = service.expected {
        line(format!("expected   to end at {expected}"));
    }
}

/// Writes what the log says of each attempt, gaps included.
fn logged_lines(detail: &JobDetail, line: &mut impl FnMut(String)) {
    for one in &detail.logged {
        let committed = one.committed.filter(|_| one.outcome.is_none()).map(|_| ", committed");
        let signed = one.statement.map(|hash| format!(", signed {hash}")).unwrap_or_default();
        let (lease, who, words) = (one.number, one.who(), one.words());
        line(format!(
            "log    {lease:>3} {who}: {words}{}{signed} (entry {})",
            committed.unwrap_or_default(),
            one.entry
        ));
    }
}

/// Writes what differed between the builders, key by key.
fn difference_lines(detail: &JobDetail, line: &mut impl FnMut(String)) {
    let told = detail.told();
    if told.len() < 2 {
        return;
    }
    let who: Vec<_> = told.iter().map(|a| format!("{} ({})", a.builder.operator, a.number)).collect();
    line(format!("differed   between {}", who.join(" | ")));
    for row in detail.circumstances().iter().filter(|row| row.differs()) {
        let values: Vec<_> = row.values.iter().map(|value| value.as_deref().unwrap_or("(not set)")).collect();
        line(format!("    {:<18} {}", row.key, values.join(" | ")));
    }
}

fn attempt_lines(attempt: &AttemptView, line: &mut impl FnMut(String)) {
    line(format!(
        "attempt {:>3} {} {} by {} ({}), profile {}",
        attempt.number.0,
        attempt.state.symbol(),
        attempt.state,
        attempt.builder.operator,
        attempt.builder.node.short(),
        attempt.profile
    ));
    let started = attempt.started.map(|at| format!("started {at}"));
    let took = attempt.started.zip(attempt.ended).map(|(from, to)| {
        let span = to.timestamp().since(from.timestamp());
        format!("took {:.1} s", span.as_secs_f64())
    });
    let cpu = attempt.cpu_seconds().map(|seconds| format!("{seconds} s of CPU"));
    let memory = attempt.memory_peak_mib().map(|mib| format!("at most {mib} MiB"));
    let used: Vec<String> = [started, took, cpu, memory].into_iter().flatten().collect();
    if !used.is_empty() {
        line(format!("    {}", used.join(", ")));
    }
    let steps: Vec<String> = attempt.steps().iter().map(|(name, seconds)| format!("{name} {seconds} s")).collect();
    if !steps.is_empty() {
        line(format!("    steps: {}", steps.join(", ")));
    }
    if let Some(said) = attempt.lint() {
        line(format!("    lint: {said}"));
    }
    for file in &attempt.outputs {
        line(format!("    {} {} {}", file.sha256, file.size, file.name));
    }
    if let Some(failure) = &attempt.failure {
        line(format!("    {} failed (blame: {}): {}", failure.step, failure.blame.word(), failure.what));
    }
}
