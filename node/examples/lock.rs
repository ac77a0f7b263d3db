//! Resolves source packages of the configured archive, or `.dsc`s on disk: `lock STATE OUT SOURCE...` writes for each source
//! the lock (CBOR), the `.deb`s and the source files to `OUT/SOURCE`.

use std::{error::Error, fs, path::Path, time::UNIX_EPOCH};

use artel::resolve::{
    archive::{Archive, Refresh, system_suite},
    lock::lock_for_source,
    source::{archive_binaries, fetch_source, read_source},
};
use protocol::{Arch, Timestamp};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [state, out, sources @ ..] = &arguments[..] else { return Err("usage: lock STATE OUT SOURCE...".into()) };
    let (state, out) = (Path::new(state), Path::new(out));
    fs::create_dir_all(out)?;
    let arch = Arch::native().ok_or("this machine's architecture has no Debian name")?;
    let archive = Archive::open(state, system_suite()?, arch)?;
    // The time of a file that was just written is the system's time.
    let probe = out.join(".now");
    fs::write(&probe, "")?;
    let now = fs::metadata(&probe)?.modified()?.duration_since(UNIX_EPOCH)?;
    fs::remove_file(&probe)?;
    archive.update(Timestamp::from_millis(now.as_millis().try_into()?), Refresh::WhenStale)?;
    for name in sources {
        let source = if name.ends_with(".dsc") {
            read_source(Path::new(name))?
        } else {
            fetch_source(&archive, name, &out.join(name).join("source"))?
        };
        let folder = out.join(source.name.as_str());
        fs::create_dir_all(folder.join("source"))?;
        for (file, path) in source.files.iter().zip(source.paths()) {
            let to = folder.join("source").join(file.name.as_str());
            if path != to {
                fs::copy(&path, &to)?;
            }
        }
        let locked = lock_for_source(&archive, &source, &[])?;
        fs::create_dir_all(folder.join("debs"))?;
        for file in &locked.files {
            let to = folder.join("debs").join(file.file_name().ok_or("a file has a name")?);
            if !to.exists() {
                fs::hard_link(file, &to).or_else(|_| fs::copy(file, &to).map(drop))?;
            }
        }
        fs::write(folder.join("lock.cbor"), locked.lock.to_bytes())?;
        let own = archive_binaries(&archive, &source.name, &source.version)?;
        println!("{name} {} lock {} packages {}", source.version, locked.lock.id(), locked.lock.packages.len());
        for binary in own.into_iter().flatten() {
            println!("  archive has {} {}", binary.file, binary.sha256);
        }
    }
    Ok(())
}
