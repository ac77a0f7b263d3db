//! The comparison of two sets of outputs by `diffoscope`, as a command for the sandbox: the same walls and limits as for a
//! build, since outputs are as hostile as the sources that they came from.
//!
//! What it prints is read in [`quotes`]. It fetches nothing and decides nothing.

pub mod quotes;

use std::collections::BTreeSet;

use attest::compare::Output;
use protocol::{
    FileName,
    job::{BuildLimits, CommandJob, InputFile, Isolation},
    words::RelativePath,
};

const SCRIPT: &str = include_str!("explain/compare.sh");
/// The comparison as text.
pub const TEXT: &str = "difference.txt";
/// The comparison as HTML.
pub const HTML: &str = "difference.html";
/// The longest text, in bytes.
pub const TEXT_MAX: u64 = 512 * 1024;
/// The longest HTML, in bytes.
pub const HTML_MAX: u64 = 4 * 1024 * 1024;
/// Files of each side that are compared; the rest differs as well, and is not looked at.
pub const FILES_MAX: usize = 64;
/// The Debian packages of the environment: diffoscope, and what it unpacks packages, archives and images with.
pub const TOOLS: [&str; 14] = [
    "binutils",
    "bzip2",
    "cpio",
    "diffoscope-minimal",
    "e2fsprogs",
    "genisoimage",
    "python3-debian",
    "rpm",
    "rpm2cpio",
    "squashfs-tools",
    "unzip",
    "xxd",
    "xz-utils",
    "zstd",
];

/// What one comparison may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Wall time, in seconds.
    pub wall_secs: u32,
    /// Disk, in MiB; both sets of outputs included.
    pub disk_mib: u32,
    /// Memory, in MiB.
    pub memory_mib: u32,
}

impl Bounds {
    /// Gives the limits of the sandbox.
    pub fn limits(&self) -> BuildLimits {
        BuildLimits {
            pids: 256,
            log_kib: 1024,
            disk_mib: self.disk_mib,
            cpu_milli: 1000,
            wall_secs: self.wall_secs,
            memory_mib: self.memory_mib,
            silence_secs: self.wall_secs,
        }
    }
}

/// Which files of two sets to compare: those that are not the same in both, at most [`FILES_MAX`] of each side.
pub fn differing<'a>(left: &'a [Output], right: &'a [Output]) -> (Vec<&'a Output>, Vec<&'a Output>) {
    let names: BTreeSet<&RelativePath> = left.iter().chain(right).map(|output| &output.name).collect();
    let of = |side: &'a [Output], name: &RelativePath| side.iter().find(|output| output.name == *name);
    let differ = names.into_iter().filter(|name| {
        let (left, right) = (of(left, name), of(right, name));
        left.map(|o| (o.sha256, o.size)) != right.map(|o| (o.sha256, o.size))
    });
    let pairs: Vec<_> = differ.take(FILES_MAX).map(|name| (of(left, name), of(right, name))).collect();
    (pairs.iter().filter_map(|pair| pair.0).collect(), pairs.iter().filter_map(|pair| pair.1).collect())
}

/// Makes the command that compares them; its inputs are `left/NAME` and `right/NAME`.
///
/// # Errors
/// When a name is too long to lie in a folder.
pub fn command(left: &[&Output], right: &[&Output], bounds: &Bounds) -> Result<CommandJob, String> {
    let input = |folder: &str, output: &&Output| {
        let path = RelativePath::new(format!("{folder}/{}", output.name)).map_err(|error| error.to_string())?;
        Ok::<_, String>(InputFile { hash: output.hash, path, size: output.size, sha256: output.sha256 })
    };
    let left = left.iter().map(|output| input("left", output));
    let mut inputs = left.chain(right.iter().map(|output| input("right", output))).collect::<Result<Vec<_>, _>>()?;
    inputs.sort_by(|a, b| a.path.cmp(&b.path));
    // It needs a moment to write what it has when its time is over.
    let seconds = (bounds.wall_secs * 3 / 4).max(1).to_string();
    let argv = ["sh", "-euc", SCRIPT, "explain", &seconds, &TEXT_MAX.to_string(), &HTML_MAX.to_string()];
    let outputs = [HTML, TEXT].map(|name| RelativePath::new(name).expect("a valid name")).to_vec();
    let name = FileName::new("explain").expect("a valid name");
    Ok(CommandJob { argv: argv.map(str::to_owned).to_vec(), name, inputs, outputs, isolation: Isolation::Rootfs })
}

#[cfg(test)]
mod tests {
    use protocol::{Hash, Sha256};

    use super::*;

    fn output(name: &str, content: &str) -> Output {
        let (hash, sha256) = (Hash::of(content.as_bytes()), Sha256::of(content.as_bytes()));
        Output { hash, name: RelativePath::new(name).unwrap(), size: content.len() as u64, sha256 }
    }

    #[test]
    fn only_what_differs_is_compared() {
        let (left, right) =
            ([output("a", "1"), output("b", "1"), output("c", "1")], [output("a", "2"), output("b", "1")]);
        let (l, r) = differing(&left, &right);
        let bounds = Bounds { wall_secs: 8, disk_mib: 1, memory_mib: 1 };
        let command = command(&l, &r, &bounds).unwrap();
        let paths: Vec<&str> = command.inputs.iter().map(|input| input.path.as_str()).collect();
        assert_eq!(paths, ["left/a", "left/c", "right/a"]);
        assert_eq!(command.argv[4], "6");
        assert!(protocol::job::JobKind::Command(command).word() == "command");
    }
}
