//! One job: the verdict in a sentence, a column per builder, who differs and where, how to check it without us.

use std::collections::{BTreeMap, BTreeSet};

use askama::Template;
use protocol::{Sha256, lease::LeaseNumber};

use super::phrase;
use crate::api::{
    AttemptView, Circumstance, DifferenceForm, ExplanationView, FileView, JobDetail, JobState, Status, VerdictWord,
};

/// What stands in the page.
#[derive(Template)]
#[template(path = "job.html")]
pub(super) struct Page {
    title: String,
    status: Status,
    detail: JobDetail,
    sentence: String,
    columns: Vec<Column>,
    /// Who told the circumstances of an attempt, and what differed and what did not.
    told: Vec<String>,
    differing: Vec<Circumstance>,
    same: Vec<Circumstance>,
    rows: Vec<Row>,
    explained: Vec<Explained>,
    tails: Vec<Tail>,
    json: String,
}

/// A comparison of two attempts.
struct Explained {
    view: ExplanationView,
    /// What differed between their circumstances.
    variations: String,
}

/// One builder's attempt.
struct Column {
    attempt: AttemptView,
    took: String,
}

/// One output file over all builders.
struct Row {
    name: String,
    cells: Vec<Cell>,
}

/// What one builder made of one file.
enum Cell {
    /// A file; equal letters are equal bytes.
    File { letter: char, group: &'static str, file: FileView },
    /// Outputs, but not this file.
    Missing,
    /// No outputs (yet).
    Nothing,
}

/// The end of a log.
pub(super) struct Tail {
    /// The attempt.
    pub(super) attempt: LeaseNumber,
    /// Who built.
    pub(super) operator: String,
    /// Plain text.
    pub(super) text: String,
}

impl Page {
    /// Arranges what the backend said.
    pub(super) fn new(mut detail: JobDetail, status: &Status, tails: Vec<Tail>) -> Self {
        let who = |a: &&AttemptView| format!("{}, attempt {}", a.builder.operator, a.number);
        let told = detail.told().iter().map(who).collect();
        let (differing, same) = detail.circumstances().into_iter().partition(Circumstance::differs);
        let explained = explained(&detail);
        let attempts = std::mem::take(&mut detail.attempts);
        let rows = rows(&attempts);
        let column = |attempt: AttemptView| {
            let took = phrase::between(attempt.started.unwrap_or(attempt.granted), attempt.ended.unwrap_or(detail.at));
            Column { attempt, took }
        };
        let columns = attempts.into_iter().map(column).collect();
        let (title, json) = (detail.summary.title.clone(), format!("/api/v1/jobs/{}", detail.summary.id));
        let sentence = sentence(&detail);
        let status = status.clone();
        Self { title, sentence, columns, told, differing, same, rows, explained, tails, json, status, detail }
    }

    fn took(&self) -> String {
        phrase::between(self.detail.summary.accepted, self.detail.summary.ended.unwrap_or(self.detail.at))
    }

    fn is_linted(&self) -> bool {
        self.columns.iter().any(|column| column.attempt.lint().is_some())
    }

    fn inputs(&self) -> String {
        phrase::count(self.detail.request.inputs.len() as u64, "input file")
    }

    fn differs(&self, row: &Row) -> bool {
        let letters: BTreeSet<char> = row.cells.iter().filter_map(Cell::letter).collect();
        letters.len() > 1 || (row.cells.iter().any(Cell::is_missing) && !letters.is_empty())
    }
}

impl Cell {
    fn letter(&self) -> Option<char> {
        match self {
            Cell::File { letter, .. } => Some(*letter),
            Cell::Missing | Cell::Nothing => None,
        }
    }

    fn is_missing(&self) -> bool {
        match self {
            Cell::Missing => true,
            Cell::File { .. } | Cell::Nothing => false,
        }
    }
}

impl Explained {
    fn text(&self) -> String {
        DifferenceForm::Text.address(&self.view.id)
    }

    fn html(&self) -> String {
        DifferenceForm::Html.address(&self.view.id)
    }
}

fn explained(detail: &JobDetail) -> Vec<Explained> {
    let one = |view: &ExplanationView| Explained { variations: detail.variations(view).join(", "), view: view.clone() };
    detail.explanations.iter().map(one).collect()
}

/// Puts the files of all attempts beside each other.
fn rows(attempts: &[AttemptView]) -> Vec<Row> {
    let names: BTreeSet<&str> = attempts.iter().flat_map(|a| &a.outputs).map(|f| f.name.as_str()).collect();
    let row = |name: &str| {
        let of = |attempt: &AttemptView| attempt.outputs.iter().find(|f| f.name == name).cloned();
        let letters = letters(attempts.iter().filter_map(of).map(|f| f.sha256));
        let cell = |attempt: &AttemptView| match of(attempt) {
            Some(file) => {
                let (letter, group) = letters.get(&file.sha256).copied().unwrap_or(('?', "other"));
                Cell::File { letter, group, file }
            }
            None if attempt.outputs.is_empty() => Cell::Nothing,
            None => Cell::Missing,
        };
        Row { name: name.to_owned(), cells: attempts.iter().map(cell).collect() }
    };
    names.into_iter().map(row).collect()
}

/// Gives each hash a letter, A to what most builders have (earlier builders first), and the style of its group: what one
/// builder has alone agrees with nobody.
fn letters(hashes: impl Iterator<Item = Sha256>) -> BTreeMap<Sha256, (char, &'static str)> {
    let mut groups: Vec<(usize, Sha256)> = Vec::new();
    for hash in hashes {
        match groups.iter_mut().find(|(_, known)| *known == hash) {
            Some((count, _)) => *count += 1,
            None => groups.push((1, hash)),
        }
    }
    groups.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
    let group = |letter, count| match (letter, count) {
        ('A', 2..) => "agreed",
        ('A', _) => "alone",
        _ => "other",
    };
    groups.into_iter().zip('A'..='Z').map(|((count, hash), letter)| (hash, (letter, group(letter, count)))).collect()
}

/// Says what the job has come to.
fn sentence(detail: &JobDetail) -> String {
    let agreement = detail.summary.agreement;
    let differ = detail
        .verdict
        .as_ref()
        .map_or(0, |v| v.dissent.iter().map(|d| &d.operator).collect::<BTreeSet<_>>().len() as u64);
    let word = detail.verdict.as_ref().map_or(VerdictWord::Pending, |v| v.word);
    let (agree, needed) = (u64::from(agreement.agree), agreement.needed);
    if let Some(sentence) = service_sentence(detail) {
        return sentence;
    }
    match (word, detail.summary.state) {
        (VerdictWord::Pending | VerdictWord::Unknown, JobState::Skipped) => {
            "It never began, because a job that it waits for did not end well.".to_owned()
        }
        (VerdictWord::Reproduced, _) => {
            let built = format!("{} built the same bytes; {needed} were needed.", phrase::count(agree, "operator"));
            let dissent = match differ {
                0 => String::new(),
                1 => " 1 operator differs.".to_owned(),
                many => format!(" {many} operators differ."),
            };
            built + &dissent
        }
        (VerdictWord::Disputed, _) => {
            format!("Only {} agree, and {needed} are needed. Nothing was published.", phrase::count(agree, "operator"))
        }
        (VerdictWord::Unreproducible, _) => "No two operators built the same bytes. Nothing was published.".to_owned(),
        (VerdictWord::Failed, _) | (VerdictWord::Pending, JobState::Failed) => {
            "The build fails in the same step for several operators. Nothing was published.".to_owned()
        }
        (VerdictWord::Pending | VerdictWord::Unknown, JobState::Cancelled) => "The maintainer cancelled it.".to_owned(),
        (VerdictWord::Pending | VerdictWord::Unknown, JobState::Expired) => "It expired before a verdict.".to_owned(),
        (VerdictWord::Pending | VerdictWord::Unknown, _) => {
            format!("{agree} of {needed} needed operators agree so far; {} asked.", agreement.asked)
        }
    }
}

/// Says what a server job has come to; nothing for what builders do.
fn service_sentence(detail: &JobDetail) -> Option<String> {
    detail.service.as_ref()?;
    let sentence = match detail.summary.state {
        JobState::Waiting => "The coordinator runs it when its turn comes; no builder is asked.",
        JobState::Running => "The coordinator runs it; no builder is asked.",
        JobState::Done => "The coordinator has done it.",
        JobState::Failed => "The coordinator could not do it. The repository is as it was.",
        JobState::Building
        | JobState::Publishing
        | JobState::Published
        | JobState::Reproduced
        | JobState::Disputed
        | JobState::Unreproducible
        | JobState::Skipped
        | JobState::Cancelled
        | JobState::Expired
        | JobState::Unknown => return None,
    };
    Some(sentence.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_group_is_a() {
        let [x, y] = [Sha256::of(b"x"), Sha256::of(b"y")];
        assert_eq!(letters([x, y, y].into_iter()), BTreeMap::from([(y, ('A', "agreed")), (x, ('B', "other"))]));
        assert_eq!(letters([x, y].into_iter()), BTreeMap::from([(x, ('A', "alone")), (y, ('B', "other"))]));
    }
}
