//! Publishes `.deb`s of a folder as one generation: `repository DIR GENERATION FOLDER` keeps the key in `DIR/key.asc` and the
//! served tree in `DIR/repository/public`.

use std::{
    error::Error,
    fs,
    path::Path,
    time::{Instant, UNIX_EPOCH},
};

use artel::publish::{
    apt::{Addition, Order, Repository, Settings},
    sign::RepositoryKey,
};
use protocol::{Arch, FileName, Hash, JobId, Sha256, SuiteName, Timestamp};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [dir, generation, folder] = &arguments[..] else {
        return Err("usage: repository DIR GENERATION FOLDER".into());
    };
    let dir = Path::new(dir);
    fs::create_dir_all(dir)?;
    // The time of a folder that was just touched is the system's time.
    fs::write(dir.join(".now"), "")?;
    let now = fs::metadata(dir.join(".now"))?.modified()?.duration_since(UNIX_EPOCH)?;
    let at = Timestamp::from_millis(now.as_millis().try_into()?);
    let path = dir.join("key.asc");
    if !path.exists() {
        RepositoryKey::generate("artel example repository", at)?.save(&path)?;
    }
    let settings = Settings {
        suite: SuiteName::new("stable")?,
        codename: SuiteName::new("main")?,
        origin: "artel".into(),
        label: "artel".into(),
        arches: vec![Arch::native().ok_or("this machine's architecture has no Debian name")?],
        valid_secs: 7 * 24 * 3600,
    };
    let mut additions = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default().to_owned();
        let Some((package, rest)) = name.split_once('_').filter(|_| name.ends_with(".deb")) else { continue };
        let rest = rest.split_once("%3a").map_or(rest, |(_, without_epoch)| without_epoch);
        let bytes = fs::read(&path)?;
        additions.push(Addition {
            file: FileName::new(format!("{package}_{rest}"))?,
            sha256: Sha256::of(&bytes),
            size: bytes.len() as u64,
            job: JobId::from(Hash::of(&bytes)),
            bundle: b"an example has no evidence".to_vec(),
            staples: Vec::new(),
            order: Order::Upwards,
            path,
        });
    }
    let mut repository = Repository::open(&dir.join("repository"), settings, RepositoryKey::load(&path)?)?;
    let start = Instant::now();
    let published = repository.publish(&additions, at, generation.parse()?)?;
    println!(
        "generation {} with {} packages and {} files in {} ms",
        published.generation,
        published.manifest.packages.len(),
        published.manifest.files.len(),
        start.elapsed().as_millis()
    );
    Ok(())
}
