//! The check of a job's bundle, and of files against it.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use attest::{
    bundle::{BUNDLE_MAX, Bundle},
    verify::{self, Proof, verify},
};
use protocol::{NetworkId, Sha256};
use serde_json::{Value, json};

use crate::{
    Error, now, package, read,
    report::{Output, with_proof},
    rpm,
};

/// Checks a bundle, the first of the paths, and files against it; gives what to print.
///
/// # Errors
/// The first link of the chain that does not hold.
pub(super) fn run(network: &NetworkId, paths: &[PathBuf], output: Output) -> Result<String, Error> {
    let [bundle, files @ ..] = paths else { return Err(Error::Usage("name a BUNDLE".into())) };
    let bundle = Bundle::from_bytes(&read(bundle, BUNDLE_MAX)?).map_err(verify::Error::from)?;
    let proof = verify(&bundle, network, now())?;
    for path in files {
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        proof.file(&name, &hash(path)?)?;
    }
    Ok(match output {
        Output::Text => text(&proof, files),
        Output::Json => format!("{}\n", report(&proof, files)),
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

fn text(proof: &Proof, files: &[PathBuf]) -> String {
    let mut lines = proof.lines();
    lines.extend(files.iter().map(|path| format!("ok {}", path.display())));
    lines.push(String::new());
    lines.join("\n")
}

fn report(proof: &Proof, files: &[PathBuf]) -> Value {
    let files: Vec<_> = files.iter().map(|path| path.display().to_string()).collect();
    with_proof(proof, json!({ "outputs": proof.outputs, "files": files }))
}
