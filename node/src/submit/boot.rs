//! The boot test of a live system: a job of its own, whose operators attest that the image came to its login prompt.
//!
//! It is a command job: the image and the script below are its inputs, QEMU comes from its environment. What is compared
//! says nothing that differs between honest runs; the console is in the log.

use std::path::{Path, PathBuf};

use protocol::{
    Arch, FileName, Hash, PackageName, Sha256,
    job::{CommandJob, InputFile, Isolation, JobKind},
    words::RelativePath,
};

use super::{Error, Prepared, locked_files};
use crate::resolve::{archive::Archive, digest::Digest, lock};

const SCRIPT: &str = include_str!("boot/boot.sh");
const SCRIPT_NAME: &str = "boot.sh";
/// The statement that the job leaves.
const STATEMENT: &str = "boot.json";
/// Memory of the machine that is started, in MiB.
const MEMORY_MIB: u32 = 1024;
/// How long it may take to the prompt, in seconds: emulated, on a busy machine.
const PROMPT_WITHIN_SECS: u32 = 1500;

/// Prepares the boot test of an image that lies on this machine. Blocking: runs apt.
///
/// # Errors
/// When the image cannot be read, or its architecture cannot be emulated.
pub fn boot(archive: &Archive, image: &Path) -> Result<Prepared, Error> {
    if archive.arch() != Arch::Amd64 {
        return Err(Error::Request("live systems are started on amd64 only".into()));
    }
    let unreadable = |path: &Path, source| Error::Read { path: path.to_owned(), source };
    let digest = Digest::of_file(image).map_err(|source| unreadable(image, source))?;
    let name = image.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let word = |text: &str| RelativePath::new(text).map_err(|error| Error::Request(error.to_string()));
    let script = archive.debs().with_file_name(SCRIPT_NAME);
    std::fs::write(&script, SCRIPT).map_err(|source| unreadable(&script, source))?;
    let (hash, sha256, size) = (Hash::of(SCRIPT.as_bytes()), Sha256::of(SCRIPT.as_bytes()), SCRIPT.len() as u64);
    let mut inputs = vec![
        InputFile { hash, path: word(SCRIPT_NAME)?, size, sha256 },
        InputFile { hash: digest.hash, path: word(&name)?, size: digest.size, sha256: digest.sha256 },
    ];
    inputs.sort_by(|a, b| a.path.cmp(&b.path));
    let (memory, within) = (MEMORY_MIB.to_string(), PROMPT_WITHIN_SECS.to_string());
    let argv = ["sh", SCRIPT_NAME, &name, &digest.sha256.to_string(), &memory, &within].map(str::to_owned).to_vec();
    let title = FileName::new(format!("boot-{name}")).map_err(|error| Error::Request(error.to_string()))?;
    let command =
        CommandJob { argv, name: title, inputs, outputs: vec![word(STATEMENT)?], isolation: Isolation::Rootfs };
    let emulator = PackageName::new("qemu-system-x86").expect("a valid name");
    let tools = lock::lock_plain(archive, &[emulator])?;
    let mut files: Vec<(Hash, PathBuf)> = vec![(hash, script), (digest.hash, image.to_owned())];
    files.extend(locked_files(&tools));
    Ok(Prepared { kind: JobKind::Command(command), lock: tools.lock, files })
}
