//! What is known of the difference between two attempts.

use protocol::{Hash, JobId, OperatorName, lease::LeaseNumber};
use serde::{Deserialize, Serialize};

use super::{Circumstance, JobDetail, Time};

/// A comparison of the outputs of two attempts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplanationView {
    /// Its id, as that of a job.
    pub id: JobId,
    /// The attempt whose outputs came first.
    pub left: LeaseNumber,
    /// The attempt whose outputs differ from them.
    pub right: LeaseNumber,
    /// Operators that built what the first one did.
    #[serde(default)]
    pub left_operators: Vec<OperatorName>,
    /// Operators that built what the other one did.
    #[serde(default)]
    pub right_operators: Vec<OperatorName>,
    /// When it ended; absent while it is looked into.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Time>,
    /// BLAKE3 of the comparison as text, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<Hash>,
    /// BLAKE3 of the comparison as HTML, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub html: Option<Hash>,
    /// Lines in which a circumstance shows, and others.
    #[serde(default)]
    pub quotes: Vec<QuoteView>,
    /// What came of it, or why nothing did, in one sentence.
    pub summary: String,
}

/// A place where two sets of outputs differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuoteView {
    /// What it is a part of: files in each other, from the outermost.
    pub place: String,
    /// The first attempt's line.
    pub left: String,
    /// The other attempt's line.
    pub right: String,
    /// The key of the circumstance that shows in both; empty when none was recognised.
    #[serde(default)]
    pub variation: String,
}

/// How a comparison is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DifferenceForm {
    /// As text.
    Text,
    /// As HTML: what a hostile build may have shaped.
    Html,
}

impl DifferenceForm {
    /// The most bytes of either form.
    pub const BYTES_MAX: usize = 16 * 1024 * 1024;

    /// Gives the address of a comparison in this form.
    pub fn address(self, explanation: &JobId) -> String {
        match self {
            DifferenceForm::Text => format!("/api/v1/jobs/{explanation}/difference"),
            DifferenceForm::Html => format!("/api/v1/jobs/{explanation}/difference.html"),
        }
    }
}

impl ExplanationView {
    /// Gives the BLAKE3 of one form.
    pub fn hash(&self, form: DifferenceForm) -> Option<Hash> {
        match form {
            DifferenceForm::Text => self.text,
            DifferenceForm::Html => self.html,
        }
    }

    /// Says who stands on which side.
    pub fn sides(&self) -> String {
        let names = |operators: &[OperatorName]| {
            let names: Vec<&str> = operators.iter().map(OperatorName::as_str).collect();
            names.join(", ")
        };
        let (left, right) = (names(&self.left_operators), names(&self.right_operators));
        match (self.left_operators.len(), self.right_operators.len()) {
            (2.., 0 | 1) => format!("{left} agree; {right} stands alone"),
            (0 | 1, 2..) => format!("{right} agree; {left} stands alone"),
            (2.., 2..) => format!("{left} agree, and so do {right}"),
            (0 | 1, 0 | 1) => format!("{left} and {right} differ"),
        }
    }
}

impl JobDetail {
    /// Gives the circumstances that differ between the two attempts of an explanation, the first one's value before the other's.
    pub fn varied(&self, explanation: &ExplanationView) -> Vec<Circumstance> {
        let told = self.told();
        let at = |lease| told.iter().position(|attempt| attempt.number == lease);
        let (Some(left), Some(right)) = (at(explanation.left), at(explanation.right)) else { return Vec::new() };
        let all = self.circumstances().into_iter();
        let two =
            all.map(|c| Circumstance { values: vec![c.values[left].clone(), c.values[right].clone()], key: c.key });
        two.filter(Circumstance::differs).collect()
    }

    /// Gives the names of those circumstances.
    pub fn variations(&self, explanation: &ExplanationView) -> Vec<String> {
        self.varied(explanation).into_iter().map(|circumstance| circumstance.key).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_say_who_stands_alone() {
        let names = |list: &[&str]| list.iter().map(|name| OperatorName::new(*name).unwrap()).collect();
        let view = |left: &[&str], right: &[&str]| ExplanationView {
            id: JobId::from_bytes([1; 32]),
            left: LeaseNumber(1),
            right: LeaseNumber(2),
            left_operators: names(left),
            right_operators: names(right),
            ended: None,
            text: None,
            html: None,
            quotes: Vec::new(),
            summary: String::new(),
        };
        assert_eq!(view(&["oak"], &["elm"]).sides(), "oak and elm differ");
        assert_eq!(view(&["oak"], &["elm", "yew"]).sides(), "elm, yew agree; oak stands alone");
        assert_eq!(view(&["oak", "ash"], &["elm"]).sides(), "oak, ash agree; elm stands alone");
        assert!(DifferenceForm::Html.address(&view(&[], &[]).id).ends_with("/difference.html"));
    }
}
