//! What the demonstration found out.

use std::fmt::Write;

use protocol::{OperatorName, Sha256};
use serde::{Serialize, Serializer, ser::SerializeMap};
use web::api::{JobDetail, JobState, VerdictWord};

use crate::resolve::source::ArchiveBinary;

/// What the attestations added up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// k operators agree bit for bit.
    Reproduced,
    /// Some agree, but fewer than k.
    Disputed,
    /// No two agree.
    Unreproducible,
    /// The build itself failed.
    Failed,
}

/// One output file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct File {
    /// The file's name.
    pub name: String,
    /// Its SHA-256 as agreed.
    pub sha256: Sha256,
    /// Whether it is bit for bit the archive's; null where the archive has none of this name.
    pub equals_archive: Option<bool>,
}

/// An operator that signed something else than those who agree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Liar {
    /// The operator.
    pub operator: OperatorName,
    /// The file that differs.
    pub file: String,
    /// The SHA-256 that it signed.
    pub theirs: Option<Sha256>,
    /// The SHA-256 that the others agree on.
    pub agreed: Option<Sha256>,
}

/// How far agreed outputs came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reached {
    /// Nothing is published.
    Compared,
    /// The repository holds the outputs.
    Published,
    /// apt-get installed the package from the mirror.
    Installed,
}

impl Serialize for Reached {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("published", &(*self >= Self::Published))?;
        map.serialize_entry("installed", &(*self >= Self::Installed))?;
        map.end()
    }
}

/// The demonstration's result; the last line of `artel demo --json`.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The job's title.
    pub job: String,
    /// What the attestations added up to.
    pub verdict: Verdict,
    /// Operators that agree.
    pub agree: usize,
    /// Operators that were asked.
    pub asked: u32,
    /// Whether every file that the archive has is bit for bit the archive's; null where it has none.
    pub equals_archive: Option<bool>,
    /// How far the outputs came; in JSON `published` and `installed`, both true or false.
    #[serde(flatten)]
    pub reached: Reached,
    /// Who signed something else, with both hashes.
    pub liars: Vec<Liar>,
    /// Files that differ between builders, when nobody agrees.
    pub differing: Vec<String>,
    /// Agreed output files.
    pub files: Vec<File>,
    /// Where the job's page is.
    pub dashboard: String,
    /// Wall time of each step.
    #[serde(serialize_with = "as_map")]
    pub seconds: Vec<(&'static str, f64)>,
}

fn as_map<S: Serializer>(seconds: &[(&'static str, f64)], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(seconds.len()))?;
    for (name, value) in seconds {
        map.serialize_entry(name, value)?;
    }
    map.end()
}

impl Report {
    /// Reads a finished job.
    pub(super) fn of(detail: &JobDetail, official: Option<&[ArchiveBinary]>) -> Self {
        let word = detail.verdict.as_ref().map(|v| v.word);
        let verdict = match (word, detail.summary.state) {
            (Some(VerdictWord::Reproduced), _) => Verdict::Reproduced,
            (Some(VerdictWord::Disputed), _) => Verdict::Disputed,
            (Some(VerdictWord::Unreproducible), _) => Verdict::Unreproducible,
            (_, JobState::Published | JobState::Reproduced) => Verdict::Reproduced,
            (_, _) => Verdict::Failed,
        };
        let agree = detail.verdict.as_ref().map(|v| v.agree.clone()).unwrap_or_default();
        let files = agreed_files(detail, &agree, official.unwrap_or_default());
        let dissent = detail.verdict.iter().flat_map(|v| &v.dissent);
        let liars = dissent.filter(|_| verdict == Verdict::Reproduced).map(|d| Liar {
            operator: d.operator.clone(),
            file: d.file.clone(),
            theirs: d.theirs,
            agreed: d.agreed,
        });
        Self {
            job: detail.summary.title.clone(),
            verdict,
            agree: agree.len(),
            asked: detail.summary.agreement.asked,
            equals_archive: files.iter().filter_map(|f| f.equals_archive).reduce(|all, equal| all && equal),
            reached: Reached::Compared,
            liars: liars.collect(),
            differing: detail.verdict.as_ref().map(|v| v.differing.clone()).unwrap_or_default(),
            files,
            dashboard: String::new(),
            seconds: Vec::new(),
        }
    }

    /// Writes the result for people.
    pub fn text(&self) -> String {
        let mut out = format!("{}: {:?}", self.job, self.verdict).to_lowercase();
        // Writing to a string cannot fail.
        let _ = writeln!(out, ", {} of {} operators agree", self.agree, self.asked);
        for file in &self.files {
            let beside = match file.equals_archive {
                Some(true) => "  equal to the archive's",
                Some(false) => "  NOT equal to the archive's",
                None => "",
            };
            let _ = writeln!(out, "  {} {}{beside}", file.sha256, file.name);
        }
        for liar in &self.liars {
            let hash = |h: &Option<Sha256>| h.map_or_else(|| "(none)".into(), |h| h.to_string());
            let (theirs, agreed) = (hash(&liar.theirs), hash(&liar.agreed));
            let _ = writeln!(out, "  {} signed another {}: {theirs} instead of {agreed}", liar.operator, liar.file);
        }
        if !self.differing.is_empty() {
            let _ = writeln!(out, "  differing files: {}", self.differing.join(", "));
        }
        let equal = match self.equals_archive {
            Some(true) => "bit for bit the distribution's own",
            Some(false) => "not the distribution's own bytes (its build environment was another one)",
            None => "the archive has no such files to compare with",
        };
        let word = |yes: bool| if yes { "yes" } else { "no" };
        let _ = writeln!(out, "  against the archive: {equal}");
        let _ = writeln!(
            out,
            "  published: {}; installed with apt-get from the mirror: {}",
            word(self.reached >= Reached::Published),
            word(self.reached >= Reached::Installed)
        );
        let steps: Vec<_> = self.seconds.iter().map(|(name, s)| format!("{name} {s:.1}")).collect();
        let _ = write!(out, "  seconds: {}", steps.join(", "));
        out
    }
}

/// The files of an attempt that belongs to the agreeing group, beside the archive's.
fn agreed_files(detail: &JobDetail, agree: &[OperatorName], official: &[ArchiveBinary]) -> Vec<File> {
    let attempt = detail.attempts.iter().find(|a| !a.outputs.is_empty() && agree.contains(&a.builder.operator));
    let outputs = attempt.map(|a| a.outputs.as_slice()).unwrap_or_default();
    let theirs = |name: &str| official.iter().find(|binary| binary.file.as_str() == name);
    let beside = |name: &str, sha256| theirs(name).map(|binary| binary.sha256 == sha256);
    let file = |name: &String, sha256| File { name: name.clone(), sha256, equals_archive: beside(name, sha256) };
    outputs.iter().map(|f| file(&f.name, f.sha256)).collect()
}
