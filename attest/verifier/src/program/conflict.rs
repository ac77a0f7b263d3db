//! Evidence against a log: two checkpoints that no honest log has signed, checked offline.

use std::path::PathBuf;

use attest::log::conflict::{CONFLICT_MAX, Conflict};
use serde_json::json;

use crate::{Error, POLICY, Verifier, now, read};

/// What is told to who asks for help.
pub(super) const USAGE: &str = "\
usage: artel-verify conflict [--policy FILE] [--json] FILE

Checks, offline, that a network's log was forked: that FILE, as `artel log conflict FILE` writes it, holds two checkpoints that the
log signed and that no log has both.

  --policy FILE   what is trusted, as `artel policy export` writes it [default: /etc/artel/verify.policy]
  --json          one JSON object

exit status: 0 the log was forked, 1 something else failed, 2 usage, 3 no policy file, 13 FILE convicts nobody
";

/// Runs the command; gives what to print and the exit code.
///
/// # Errors
/// When the command line is wrong, a file cannot be read, or it convicts nobody.
pub(super) fn run(words: &[String]) -> Result<(String, u8), Error> {
    let usage = |why: &str| Error::Usage(format!("{why}\n\n{USAGE}"));
    let (mut policy, mut file, mut as_json) = (PathBuf::from(POLICY), None, false);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--json" => as_json = true,
            "--policy" => policy = words.next().ok_or_else(|| usage("--policy needs a value"))?.into(),
            option if option.starts_with('-') => return Err(usage(&format!("unknown option {option}"))),
            name if file.is_none() => file = Some(PathBuf::from(name)),
            _ => return Err(usage("name one FILE")),
        }
    }
    let file = file.ok_or_else(|| usage("name a FILE"))?;
    let verifier = Verifier::open(&policy, |_| {}, now())?;
    let conflict = Conflict::from_bytes(&read(&file, CONFLICT_MAX)?);
    let heads = conflict.and_then(|conflict| conflict.convicts(&verifier.trust.log_keys())).map_err(Error::Conflict)?;
    let [older, newer] = heads;
    let text = if as_json {
        let head = |head: attest::log::tree::Head| json!({ "size": head.size, "root": head.root });
        format!("{}\n", json!({ "forked": true, "older": head(older), "newer": head(newer) }))
    } else {
        format!(
            "the log of network {} was forked: it signed\n  {} entries with root {}\n  {} entries with root {}\n\
             and no log has both\n",
            verifier.trust.network(),
            older.size,
            older.root,
            newer.size,
            newer.root
        )
    };
    Ok((text, 0))
}
