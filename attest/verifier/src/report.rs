//! How results are said: the chain for people, JSON for programs, one exit code for all.

use std::path::Path;

use attest::verify::Proof;
use serde_json::{Value, json};

use crate::{Error, folder::Checked, package::Proven};

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// For people.
    Text,
    /// One JSON object.
    Json,
}

/// What was asked for, and what came of it.
#[derive(Debug)]
pub enum Answer {
    /// One file.
    File(Box<Checked>),
    /// Packages of a folder; of those that are proven only their number and names are told.
    Many(Vec<Checked>),
}

impl Answer {
    fn checked(&self) -> &[Checked] {
        match self {
            Answer::File(checked) => std::slice::from_ref(&**checked),
            Answer::Many(checked) => checked,
        }
    }
}

/// Gives the exit code for several results: the worst, 13 before 12, 11, 10 and 1; 0 when all are proven.
pub fn exit_code<'a>(results: impl IntoIterator<Item = Option<&'a Error>>) -> u8 {
    results.into_iter().flatten().map(Error::exit_code).max().unwrap_or(0)
}

/// Says what came of everything, and gives the exit code.
pub fn write(answers: &[Result<Answer, Error>], output: Output) -> (String, u8) {
    let all = answers.iter().flat_map(|answer| match answer {
        Err(error) => vec![Some(error)],
        Ok(answer) => answer.checked().iter().map(|checked| checked.result.as_ref().err()).collect(),
    });
    let code = exit_code(all);
    let text = match output {
        Output::Text => answers.iter().map(text).collect(),
        Output::Json => {
            let results: Vec<Value> = answers.iter().flat_map(values).collect();
            format!("{}\n", json!({ "proven": code == 0, "exit": code, "results": results }))
        }
    };
    (text, code)
}

fn text(answer: &Result<Answer, Error>) -> String {
    let mut lines: Vec<String> = Vec::new();
    match answer {
        Err(error) => lines.push(format!("REFUSED: {} (exit {})", error.words(), error.exit_code())),
        Ok(Answer::File(checked)) => match &checked.result {
            Ok(proven) => {
                lines.extend(proven.chain.lines());
                let what = proven.identity.as_ref().map_or_else(String::new, |identity| format!("{identity}, "));
                lines.push(format!("ok {}: {what}for channel {}", checked.file.display(), proven.chain.proof.channel));
            }
            Err(error) => lines.push(refused(&checked.file, error)),
        },
        Ok(Answer::Many(checked)) => {
            lines.extend(checked.iter().map(|Checked { file, result }| match result {
                Ok(proven) => format!("ok {}: {}", file.display(), in_short(proven)),
                Err(error) => refused(file, error),
            }));
            let proven = checked.iter().filter(|c| c.result.is_ok()).count();
            lines.push(format!("{proven} of {} packages are proven", checked.len()));
        }
    }
    lines.iter().map(|line| printable(line) + "\n").collect()
}

fn refused(file: &Path, error: &Error) -> String {
    format!("REFUSED {}: {} (exit {})", file.display(), error.words(), error.exit_code())
}

/// Names whoever agrees in one line.
fn in_short(proven: &Proven) -> String {
    let agree: Vec<String> = proven.chain.proof.agree.iter().map(ToString::to_string).collect();
    let (title, channel) = (proven.chain.proof.request.title(), &proven.chain.proof.channel);
    format!("{} of {title} agree, for channel {channel}", agree.join(", "))
}

fn values(answer: &Result<Answer, Error>) -> Vec<Value> {
    match answer {
        Err(error) => vec![json!({ "proven": false, "exit": error.exit_code(), "error": error.words() })],
        Ok(answer) => answer.checked().iter().map(value).collect(),
    }
}

fn value(checked: &Checked) -> Value {
    let file = checked.file.display().to_string();
    match &checked.result {
        Err(error) => json!({ "file": file, "proven": false, "exit": error.exit_code(), "error": error.words() }),
        Ok(proven) => proven_value(file, proven),
    }
}

fn proven_value(file: String, Proven { sha256, identity, chain, .. }: &Proven) -> Value {
    let log = chain.logged.as_ref().map(|logged| {
        json!({
            "origin": logged.witnessed.checkpoint.get().origin(),
            "index": logged.index,
            "size": logged.witnessed.checkpoint.head().size,
            "witnesses": logged.witnessed.seen.iter().map(|seen| seen.witness.name().to_string()).collect::<Vec<_>>(),
        })
    });
    let own = json!({
        "file": file,
        "sha256": sha256,
        "package": identity.as_ref().map(|i| json!({ "name": i.name, "version": i.version, "architecture": i.arch })),
        "log": log,
        "alive_ms": chain.seen.map(protocol::Timestamp::as_millis),
        "chain": chain.lines(),
    });
    with_proof(&chain.proof, own)
}

/// Adds what operators' evidence proves, of a file as of a bundle, to what else is told of it.
pub(crate) fn with_proof(proof: &Proof, own: Value) -> Value {
    let mut all = json!({
        "proven": true,
        "exit": 0,
        "network": proof.network,
        "policy": proof.policy.number,
        "job": proof.job,
        "title": proof.request.title(),
        "channel": proof.channel,
        "maintainer": proof.maintainer,
        "environment": proof.request.environment,
        "wanted": proof.rule.agree,
        "agree": proof.agree,
        "dissent": proof.dissent,
    });
    if let (Value::Object(all), Value::Object(mut own)) = (&mut all, own) {
        all.append(&mut own);
    }
    all
}

/// Makes a stranger's words safe for a terminal.
pub(crate) fn printable(line: &str) -> String {
    // Those that turn the direction of a line make it read as another one.
    let turns =
        |c| matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    line.chars().map(|c| if c.is_control() || turns(c) { '\u{fffd}' } else { c }).collect()
}
