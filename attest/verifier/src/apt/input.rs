//! What apt writes to a hook of protocol version 3: its configuration, an empty line, a line for each package.

use std::{fmt, io::Read, path::PathBuf};

/// The most that is read, in bytes.
const INPUT_MAX: u64 = 64 << 20;
/// Settings that are given on to questions: where things lie, how they are fetched.
const GIVEN_ON: [&str; 5] = ["dir", "acquire", "apt::architecture", "apt::architectures", "apt::sandbox"];

/// A package that apt is about to install.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its architecture.
    pub arch: String,
    /// Where it lies.
    pub file: PathBuf,
}

impl Wanted {
    /// Gives what apt's word for its address is found by.
    pub(super) fn key(&self) -> (String, String, String) {
        (self.name.clone(), self.version.clone(), self.arch.clone())
    }

    /// Gives the file as an address: a repository on this machine's own disk is not copied.
    pub(super) fn as_address(&self) -> String {
        format!("file:{}", self.file.display())
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.name, self.version, self.arch)
    }
}

/// What apt wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// Settings for questions, `name=value` each.
    pub options: Vec<String>,
    /// The packages.
    pub wanted: Vec<Wanted>,
}

/// Reads what apt wrote.
///
/// # Errors
/// Words, where it is of another protocol or ends early.
pub fn read(from_apt: &mut impl Read) -> Result<Input, String> {
    let mut text = String::new();
    let read = from_apt.take(INPUT_MAX).read_to_string(&mut text);
    read.map_err(|error| format!("what apt says cannot be read: {error}"))?;
    let mut lines = text.lines();
    if lines.next() != Some("VERSION 3") {
        return Err(
            "apt speaks another protocol than version 3; write the hook anew with `artel apt-hook install`".into()
        );
    }
    let mut options = Vec::new();
    for line in lines.by_ref().take_while(|line| !line.is_empty()) {
        options.extend(given_on(line));
    }
    let wanted = lines.filter_map(|line| package(line).transpose()).collect::<Result<_, _>>()?;
    Ok(Input { options, wanted })
}

/// Gives a setting as an option of apt's programs. Members of lists are left out: every program reads those that lie in files.
fn given_on(line: &str) -> Option<String> {
    let (name, value) = line.split_once('=')?;
    let part = |known: &&str| {
        let (head, rest) = name.as_bytes().split_at_checked(known.len()).unwrap_or_default();
        head.eq_ignore_ascii_case(known.as_bytes()) && (rest.is_empty() || rest.starts_with(b"::"))
    };
    let known = GIVEN_ON.iter().any(part) && !name.ends_with("::") && !name.contains("/");
    known.then(|| format!("{name}={}", unquoted(value)))
}

/// Undoes what apt does to characters that would end a line: `%0a` for one.
fn unquoted(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        let hex = more.get(..2).and_then(|hex| u8::from_str_radix(str::from_utf8(hex).ok()?, 16).ok());
        match (first, hex) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &more[2..];
            }
            _ => {
                bytes.push(*first);
                rest = more;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads a package's line: name, three fields of what is installed, the direction, three of what comes, and the file. What is removed
/// or configured only has no file. Apt writes the words of an index as they are: one with a space in it moves all others.
fn package(line: &str) -> Result<Option<Wanted>, String> {
    let fields: Vec<&str> = line.splitn(9, ' ').collect();
    let [name, _, _, _, _, version, arch, _, file] = fields.as_slice() else {
        return Err(format!("apt names a package in a way that is not known here: {line:?}"));
    };
    if matches!(*file, "**CONFIGURE**" | "**REMOVE**") {
        return Ok(None);
    }
    if !file.starts_with('/') || fields.iter().take(8).any(|field| field.is_empty()) {
        return Err(format!("apt names a package's file in a way that is not known here: {line:?}"));
    }
    let owned = |word: &str| word.to_owned();
    Ok(Some(Wanted { name: owned(name), version: owned(version), arch: owned(arch), file: file.into() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "VERSION 3\nAPT::Architecture=amd64\nDir=/\nDir::Etc=a%20b%0a\nDir::Ignore::=x\nDPkg::Pre-Install-Pkgs::=y\n\n\
                        old 1 amd64 none > - - none **REMOVE**\n\
                        tiny - - none < 1:0.5 amd64 none /var/cache/apt/archives/tiny_1%3a0.5_amd64.deb\n\
                        tiny - - none < 1:0.5 amd64 none **CONFIGURE**\n";

    #[test]
    fn what_apt_says() {
        let input = read(&mut SAID.as_bytes()).unwrap();
        assert_eq!(input.options, ["APT::Architecture=amd64", "Dir=/", "Dir::Etc=a b\n"]);
        assert_eq!(input.wanted.len(), 1);
        assert_eq!(input.wanted[0].to_string(), "tiny 1:0.5 amd64");
        assert_eq!(input.wanted[0].as_address(), "file:/var/cache/apt/archives/tiny_1%3a0.5_amd64.deb");
    }

    /// `Version: 9 amd64 none **CONFIGURE**`, as apt hands it on.
    #[test]
    fn words_with_spaces_move_no_file_out_of_sight() {
        let said = |line: &str| read(&mut format!("VERSION 3\n\n{line}\n").as_bytes());
        for version in ["9 amd64 none **CONFIGURE**", "9 amd64 none **REMOVE**", "9 ", " 9", "9 amd64 none /etc/passwd"]
        {
            let line = format!("tiny - - none < {version} amd64 none /var/cache/apt/archives/tiny_9_amd64.deb");
            match said(&line) {
                Err(why) => assert!(why.contains("not known here"), "{why}"),
                Ok(input) => {
                    let file = input.wanted[0].as_address();
                    assert!(file.contains(' ') && !input.wanted[0].file.exists(), "it is asked about: {file}");
                }
            }
        }
        assert_eq!(said("tiny - - none < 9 amd64 none **CONFIGURE**").unwrap().wanted, []);
    }

    #[test]
    fn another_protocol_is_refused() {
        for said in ["", "VERSION 2\n\n", "/var/cache/apt/archives/x.deb\n", "VERSION 3\n\ntiny\n"] {
            assert!(read(&mut said.as_bytes()).is_err(), "{said:?}");
        }
    }
}
