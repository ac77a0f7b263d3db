//! The check of a job's bundle, and of files against it.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use attest::{
    bundle::{BUNDLE_MAX, Bundle},
    verify::{self, Attempts, Proof, attempts, attempts::Attempt, verify},
};
use protocol::{NetworkId, Sha256};
use serde_json::{Value, json};

use crate::{
    Error, now, package, read,
    report::{Output, printable, with_proof},
    rpm,
};

/// Checks a bundle, the first of the paths, and files against it; gives what to print.
///
/// # Errors
/// The first link of the chain that does not hold.
pub(super) fn run(network: &NetworkId, paths: &[PathBuf], output: Output) -> Result<String, Error> {
    let [bundle, files @ ..] = paths else { return Err(Error::Usage("name a BUNDLE".into())) };
    let bundle = Bundle::from_bytes(&read(bundle, BUNDLE_MAX)?).map_err(verify::Error::from)?;
    let proof = match verify(&bundle, network, now()) {
        Ok(proof) => proof,
        Err(source) => {
            let told = attempts(&bundle, network).map(|told| told.lines(None)).unwrap_or_default();
            return Err(Error::Unproven { told, source });
        }
    };
    let attempts = attempts(&bundle, network)?;
    for path in files {
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        proof.file(&name, &hash(path)?)?;
    }
    Ok(match output {
        Output::Text => text((&proof, &attempts), files),
        Output::Json => format!("{}\n", report((&proof, &attempts), files)),
    })
}

fn hash(path: &Path) -> Result<Sha256, Error> {
    let mut file = File::open(path).map_err(|source| Error::Read { path: path.into(), source })?;
    // Whoever publishes an RPM signs it; without its signature it is what was built. What is no RPM is hashed as it is.
    if path.extension().is_some_and(|end| end == "rpm")
        && let Ok(attested) = rpm::attested(&mut file)
    {
        return Ok(attested);
    }
    std::io::Seek::rewind(&mut file).map_err(|source| Error::Read { path: path.into(), source })?;
    package::digest(&mut file, path)
}

fn text((proof, attempts): (&Proof, &Attempts), files: &[PathBuf]) -> String {
    let mut lines = proof.lines();
    lines.extend(attempts.lines(Some(proof)).iter().map(|line| printable(line)));
    lines.push(
        "note: a bundle has no proof from the log, so that nobody asked whether this was logged and seen by witnesses, or \
         whether there is a newer policy"
            .to_owned(),
    );
    lines.extend(files.iter().map(|path| format!("ok {}", path.display())));
    lines.push(String::new());
    lines.join("\n")
}

fn report((proof, attempts): (&Proof, &Attempts), files: &[PathBuf]) -> Value {
    let attempt = |it: &Attempt| {
        json!({
            "lease": it.lease, "node": it.node, "operator": it.operator, "ended": it.ended.word(), "entry": it.place,
            "words": it.to_string(),
        })
    };
    let attempts: Vec<_> = attempts.list().iter().map(attempt).collect();
    let files: Vec<_> = files.iter().map(|path| path.display().to_string()).collect();
    with_proof(proof, json!({ "attempts": attempts, "outputs": proof.outputs, "files": files, "log": Value::Null }))
}
