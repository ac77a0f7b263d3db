//! Writes a sample bundle and its attestations into a folder, for the judges in `tests/judges` and for trying
//! `artel-verify`: `cargo run -p artel-attest --example sample -- FOLDER`. The keys are the published test keys.

use std::{fs, path::PathBuf};

use attest::testing::{DEB, bundle};
use protocol::{
    Timestamp,
    policy::Policy,
    testing::{node, samples},
};

fn main() -> std::io::Result<()> {
    let folder: PathBuf = std::env::args().nth(1).ok_or_else(|| std::io::Error::other("name a FOLDER"))?.into();
    fs::create_dir_all(&folder)?;
    let policy = Policy { expires: Timestamp::from_millis(u64::MAX), ..samples::genesis(3) };
    let (bundle, network) = bundle(&policy, &["honest", "honest", "other"]);
    fs::write(folder.join("sample.bundle"), bundle.to_bytes())?;
    fs::write(folder.join("network"), network.to_string())?;
    fs::write(folder.join(DEB), "honest")?;
    for (at, attestation) in (0u8..).zip(&bundle.attestations) {
        fs::write(folder.join(format!("{at}.intoto.json")), &attestation.0)?;
        fs::write(folder.join(format!("{at}.key")), node(10 + at).to_string())?;
    }
    Ok(())
}
