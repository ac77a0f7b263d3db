//! Installs what was published, from the mirror, with the real apt-get into a scratch root.
//!
//! The scratch root is an overlay over the environment that a builder installed from the lock: a minimal Debian, whose
//! own packages stay as they are. It runs in a user namespace, so nothing here needs or has rights on the machine. apt
//! knows one source, the mirror, with `signed-by`; only when a package depends on others than the environment has are the
//! machine's own sources added.

use std::{fs, path::Path, process::Stdio};

use anyhow::{Context as _, bail};
use web::api::JobDetail;

use super::network::Network;
use crate::build::{Rig, RigConfig};

/// Runs as root of the namespace. Arguments: the environment's root, the scratch folder, the package, its version.
const SCRIPT: &str = include_str!("install.sh");

/// Installs the job's main package and gives its name and version.
pub(super) async fn install(network: &Network, detail: &JobDetail) -> anyhow::Result<String> {
    let (package, version) = main_package(detail)?;
    let rig = Rig::find(&RigConfig::default())?;
    let id = detail.request.environment.to_string();
    let mut roots = network.builder_homes().map(|home| home.build().join("environments").join(&id).join("root"));
    let environment = roots.find(|root| root.is_dir()).with_context(|| format!("no builder keeps environment {id}"))?;
    let scratch = network.folder().join("scratch");
    crate::build::remove_tree(&scratch)?;
    rig.make_folder(&scratch)?;
    prepare(&scratch, network)?;
    for file in fs::read_dir(&scratch)? {
        rig.give(&file?.path())?;
    }
    let mut command = rig.command(&[], &[], SCRIPT);
    command.arg(&environment).arg(&scratch).arg(&package).arg(&version);
    let output = command.stdin(Stdio::null()).output().await.context("cannot start the scratch root")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let log = format!("{said}{}", String::from_utf8_lossy(&output.stderr));
    fs::write(network.folder().join("install.log"), &log)?;
    crate::build::remove_tree(&scratch)?;
    let installed = said.lines().rev().find_map(|line| line.strip_prefix("artel-installed "));
    match installed {
        Some(found) if output.status.success() => {
            check_bytes(detail, found)?;
            Ok(format!("{package} {version}"))
        }
        _ => {
            let tail: Vec<_> = log.lines().rev().filter(|l| !l.trim().is_empty()).take(6).collect();
            bail!("{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"))
        }
    }
}

/// Picks the package named like the source, else the first that is no debug package.
fn main_package(detail: &JobDetail) -> anyhow::Result<(String, String)> {
    let files = detail.published.as_ref().map(|p| p.files.as_slice()).unwrap_or_default();
    let names = files.iter().filter_map(|path| {
        let stem = path.rsplit('/').next()?.strip_suffix(".deb")?;
        let mut parts = stem.splitn(3, '_');
        Some((parts.next()?.to_owned(), parts.next()?.to_owned()))
    });
    let names: Vec<_> = names.filter(|(name, _)| !name.ends_with("-dbgsym")).collect();
    let source = detail.request.facts.iter().find(|(key, _)| key == "source").map(|(_, value)| value);
    let main = names.iter().find(|(name, _)| Some(name) == source).or(names.first());
    main.cloned().context("the job published no package")
}

/// What apt downloaded must be what the operators agreed on.
fn check_bytes(detail: &JobDetail, found: &str) -> anyhow::Result<()> {
    let agreed = detail.attempts.iter().flat_map(|a| &a.outputs).any(|file| file.sha256.to_string() == found);
    if agreed { Ok(()) } else { bail!("apt installed a file of sha256 {found}, which nobody attested") }
}

/// Lays out apt's sources and keys for the script.
fn prepare(scratch: &Path, network: &Network) -> anyhow::Result<()> {
    let key = network.mirror_key();
    fs::copy(&key, scratch.join("artel.gpg")).with_context(|| format!("no repository key at {}", key.display()))?;
    let source = format!(
        "Types: deb\nURIs: {}\nSuites: {}\nComponents: main\nSigned-By: /etc/apt/keyrings/artel.gpg\n",
        network.mirror_url(),
        crate::resolve::archive::system_suite()?
    );
    fs::write(scratch.join("artel.sources"), source)?;
    Ok(())
}
