//! What the publisher does now, for people who follow it: the steps and the log of each server job and publication.
//!
//! It is in memory and only on the coordinator that leads; what must last, the publisher tells the ledger at the end of each
//! try. It does nothing itself.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ledger::service::Step;
use protocol::JobId;
use serde::{Deserialize, Serialize};
use web::api::{JobDetail, StepView, Time};

use crate::clock;

/// Runs that are remembered; those that ended longest ago are forgotten first.
const RUNS_MAX: usize = 64;
/// The longest log, in bytes; what comes after is left out.
const LOG_MAX: usize = 4 << 20;
/// The largest piece of a log in one answer, in bytes.
const PIECE_MAX: usize = 256 << 10;

/// Every run of this coordinator that is not forgotten.
#[derive(Debug, Default)]
pub struct Runs {
    live: Mutex<BTreeMap<JobId, Live>>,
}

#[derive(Debug, Default)]
struct Live {
    log: String,
    steps: Vec<StepView>,
    stands: Stands,
}

/// Whether a try is under way.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Stands {
    #[default]
    Running,
    Ended,
}

/// A piece of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// Where it begins, in bytes.
    pub at: usize,
    /// The text.
    pub text: String,
}

/// Writes down what happens in one run.
#[derive(Debug)]
pub struct Recorder {
    runs: Arc<Runs>,
    job: JobId,
}

impl Runs {
    /// Begins a try. The log of earlier tries goes on.
    pub fn begin(self: &Arc<Self>, job: JobId) -> Recorder {
        let mut live = self.live();
        while live.len() >= RUNS_MAX
            && let Some(old) = live.iter().find(|(_, run)| run.stands == Stands::Ended).map(|(id, _)| *id)
        {
            live.remove(&old);
        }
        let run = live.entry(job).or_default();
        run.stands = Stands::Running;
        run.steps.clear();
        Recorder { runs: Arc::clone(self), job }
    }

    /// Gives a piece of a log from a byte on; none when nothing is known of the run here.
    pub fn piece(&self, job: &JobId, at: usize) -> Option<Piece> {
        let live = self.live();
        let log = &live.get(job)?.log;
        let end = log.floor_char_boundary(log.len().min(at.saturating_add(PIECE_MAX)));
        Some(Piece { at, text: log.get(at..end).unwrap_or_default().to_owned() })
    }

    /// Shows the steps that the ledger does not know yet.
    pub fn show(&self, detail: &mut JobDetail) {
        let live = self.live();
        let run = live.get(&detail.summary.id).filter(|run| run.stands == Stands::Running);
        if let (Some(service), Some(run)) = (&mut detail.service, run) {
            service.steps.clone_from(&run.steps);
        }
    }

    fn live(&self) -> MutexGuard<'_, BTreeMap<JobId, Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recorder {
    /// A step begins, and the one before has ended.
    pub fn step(&self, name: &str) {
        let now = Time::from(clock::now());
        self.on_run(|run| {
            run.end_step(now);
            run.steps.push(StepView { name: name.to_owned(), began: now, ended: None });
            run.write(now, &format!("step {name}"));
        });
    }

    /// Writes a line into the log.
    pub fn say(&self, line: &str) {
        let now = Time::from(clock::now());
        self.on_run(|run| run.write(now, line));
    }

    /// Ends the try. Gives the log of all tries, and the steps of this one.
    pub fn end(self, line: &str) -> (String, Vec<Step>) {
        let now = Time::from(clock::now());
        let mut ended = (String::new(), Vec::new());
        self.on_run(|run| {
            run.end_step(now);
            run.write(now, line);
            run.stands = Stands::Ended;
            let step = |step: &StepView| Step {
                name: step.name.clone(),
                began: step.began.timestamp(),
                ended: step.ended.unwrap_or(now).timestamp(),
            };
            ended = (run.log.clone(), run.steps.iter().map(step).collect());
        });
        ended
    }

    fn on_run(&self, change: impl FnOnce(&mut Live)) {
        if let Some(run) = self.runs.live().get_mut(&self.job) {
            change(run);
        }
    }
}

impl Live {
    fn end_step(&mut self, now: Time) {
        if let Some(step) = self.steps.last_mut() {
            step.ended.get_or_insert(now);
        }
    }

    fn write(&mut self, now: Time, line: &str) {
        let line = format!("{now} {line}\n");
        if self.log.len() + line.len() <= LOG_MAX {
            self.log.push_str(&line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_followed_and_its_log_goes_on_over_tries() {
        let (runs, job) = (Arc::new(Runs::default()), JobId::from_bytes([1; 32]));
        assert_eq!(runs.piece(&job, 0), None);
        let first = runs.begin(job);
        first.step("fetch");
        first.say("from oak");
        let seen = runs.piece(&job, 0).unwrap().text;
        assert!(seen.contains("step fetch\n") && seen.ends_with("from oak\n"), "{seen}");
        let (log, steps) = first.end("disk full");
        assert_eq!((steps.len(), steps[0].name.as_str()), (1, "fetch"));
        let rest = runs.piece(&job, seen.len()).unwrap().text;
        assert_eq!(format!("{seen}{rest}"), log);
        let second = runs.begin(job);
        second.step("fetch");
        second.step("write");
        let (again, steps) = second.end("done");
        assert!(again.starts_with(&log) && steps.len() == 2);
        assert_eq!(runs.piece(&job, 1 << 30).unwrap().text, "", "behind the end is nothing");
    }

    #[test]
    fn old_runs_are_forgotten_and_running_ones_not() {
        let runs = Arc::new(Runs::default());
        let id = |number: usize| JobId::from_bytes([u8::try_from(number).unwrap(); 32]);
        let running = runs.begin(id(0));
        for number in 1..2 * RUNS_MAX {
            runs.begin(id(number)).end("done");
        }
        assert!(runs.live().len() <= RUNS_MAX);
        running.say("still here");
        assert!(runs.piece(&id(0), 0).unwrap().text.contains("still here"));
    }
}
