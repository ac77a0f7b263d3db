//! Waits for a job and tells what happens meanwhile, on standard error.

use std::{
    collections::BTreeMap,
    io::IsTerminal,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use protocol::{JobId, lease::LeaseNumber};
use web::{
    Backend,
    api::{ApiError, AttemptState, AttemptView, JobDetail, JobState},
};

use crate::cli::exit;

/// How often the coordinator is asked at first, as people notice.
const POLL: Duration = Duration::from_millis(200);
/// How seldom it is asked of a long job: what that adds is a fiftieth of the job's time.
const POLL_MAX: Duration = Duration::from_secs(2);

/// How long it is asked again where nobody answers: a node that is restarted, a coordinator that another one takes the place of.
const LOST_WITHIN: Duration = Duration::from_secs(600);

/// How long to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    /// The job is durable.
    Accepted,
    /// A sandbox has started.
    Started,
    /// Nothing more will happen.
    Over,
}

/// Follows a job, printing one line for each step of each attempt.
pub(crate) async fn watch(node: &impl Backend, job: JobId, until: Until) -> anyhow::Result<JobDetail> {
    let (mut teller, begun) = (Teller::new(), Instant::now());
    let mut lost: Option<Instant> = None;
    loop {
        let detail = match node.job(job).await {
            Ok(detail) => detail,
            // The job goes on, whoever is restarted meanwhile.
            Err(error @ (ApiError::Unavailable { .. } | ApiError::Unreachable { .. })) => {
                let since = *lost.get_or_insert_with(|| {
                    teller.line(&format!("  {error}; the job goes on, it is asked again"));
                    Instant::now()
                });
                if since.elapsed() > LOST_WITHIN {
                    let hint =
                        format!("the job goes on; `artel job fetch {job}` or `artel job show {job}` look for it again");
                    return Err(exit::failure(exit::UNREACHABLE, error.to_string()).hint(hint).into());
                }
                tokio::time::sleep(POLL_MAX).await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        lost = None;
        teller.tell(&detail);
        let started = detail.attempts.iter().any(|a| a.started.is_some());
        let done = match until {
            Until::Accepted => true,
            Until::Started => started || detail.summary.state.is_over(),
            Until::Over => detail.summary.state.is_over(),
        };
        if done {
            teller.bar.finish_and_clear();
            return Ok(detail);
        }
        tokio::time::sleep((begun.elapsed() / 50).clamp(POLL, POLL_MAX)).await;
    }
}

/// Says each thing once.
struct Teller {
    bar: ProgressBar,
    said: BTreeMap<LeaseNumber, String>,
    state: Option<(JobState, String)>,
}

impl Teller {
    fn new() -> Self {
        let bar = if std::io::stderr().is_terminal() {
            let style = ProgressStyle::with_template("{spinner} {elapsed} {msg}").expect("the template is fixed");
            ProgressBar::new_spinner().with_style(style)
        } else {
            ProgressBar::hidden()
        };
        bar.enable_steady_tick(Duration::from_millis(120));
        Self { bar, said: BTreeMap::new(), state: None }
    }

    fn tell(&mut self, detail: &JobDetail) {
        for attempt in &detail.attempts {
            let now = step(attempt);
            if self.said.insert(attempt.number, now.clone()).as_ref() != Some(&now) {
                self.line(&format!("  attempt {} by {}: {now}", attempt.number, attempt.builder.operator));
            }
        }
        let state = (detail.summary.state, detail.summary.why.clone());
        if self.state.as_ref() != Some(&state) {
            let why = if state.1.is_empty() { String::new() } else { format!(": {}", state.1) };
            self.line(&format!("  {} {}{why}", state.0.symbol(), state.0));
            self.state = Some(state);
        }
        let now = format!("{} {}", detail.summary.title, detail.summary.state);
        self.bar.set_message(crate::cli::output::printable(&now));
    }

    fn line(&self, text: &str) {
        let text = crate::cli::output::printable(text);
        self.bar.suspend(|| anstream::eprintln!("{text}"));
    }
}

fn step(attempt: &AttemptView) -> String {
    match (&attempt.failure, attempt.state) {
        (Some(failure), _) => format!("{}: {} failed, {}", failure.blame.word(), failure.step, failure.what),
        (None, AttemptState::Granted | AttemptState::Running) if !attempt.phase.is_empty() => {
            format!("{} (profile {})", attempt.phase, attempt.profile)
        }
        (None, state) => format!("{state} (profile {})", attempt.profile),
    }
}
