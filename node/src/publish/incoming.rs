//! The door of a repository: what a `.deb` must be before it may enter.
//!
//! A `.deb` comes from builders, so it is hostile: sizes are limited before anything is unpacked, the control file is read
//! in memory, and nothing is ever written to disk or run. What the package *does* is not judged here.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

use protocol::{
    Arch, FileName, PackageName,
    words::{DebVersion, WordError},
};

use super::version::{self, Ordered};

/// The largest `.deb`, in bytes.
pub const DEB_MAX: u64 = 4 << 30;
/// How an ar container begins.
const AR_MAGIC: &[u8; 8] = b"!<arch>\n";
/// The length of a member's header in an ar container, in bytes.
const AR_HEADER: usize = 60;
/// The largest compressed control member, in bytes.
const CONTROL_MEMBER_MAX: u64 = 16 << 20;
/// The most bytes that a control member may unpack to.
const CONTROL_UNPACKED_MAX: u64 = 64 << 20;
/// The largest control file, in bytes.
const CONTROL_MAX: u64 = 512 * 1024;
/// The most entries in a control member.
const ENTRIES_MAX: usize = 4096;
/// The most memory that unpacking may take, in bytes.
const UNPACK_MEMORY_MAX: u64 = 256 << 20;
/// Fields that the index itself writes; a control file that brings them wants to be something else.
const INDEX_FIELDS: &[&str] = &["Filename", "Size", "MD5sum", "SHA1", "SHA256", "SHA512"];

/// Why a `.deb` may not enter.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read as what it should be.
    #[error("{file} cannot be read as a .deb: {what}")]
    Read {
        /// The file's name.
        file: FileName,
        /// Which part.
        what: &'static str,
        /// The reader's words.
        #[source]
        source: io::Error,
    },
    /// The container breaks a rule.
    #[error("{file} is not an acceptable .deb: {why}")]
    Container {
        /// The file's name.
        file: FileName,
        /// The rule.
        why: String,
    },
    /// The control file breaks a rule.
    #[error("the control file of {file} is not acceptable: {why}")]
    Control {
        /// The file's name.
        file: FileName,
        /// The rule.
        why: String,
    },
    /// The file's name does not say what the control file says.
    #[error("{file} should be called {wanted}, by its control file")]
    Name {
        /// The file's name.
        file: FileName,
        /// The name by the control file.
        wanted: String,
    },
    /// An architecture that the channel does not build.
    #[error("{file} is for {arch}, which this channel does not build")]
    Arch {
        /// The file's name.
        file: FileName,
        /// The package's architecture.
        arch: Arch,
    },
}

/// What the control file of an accepted `.deb` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    /// The package's name.
    pub name: PackageName,
    /// The package's version.
    pub version: DebVersion,
    /// The package's architecture.
    pub arch: Arch,
    /// The source package's name.
    pub source: PackageName,
    /// The source package's version.
    pub source_version: DebVersion,
    /// The control file as it is, one paragraph that ends in one newline.
    pub text: String,
}

/// Checks a `.deb` that lies at `path` and is called `file`.
///
/// # Errors
/// The first rule that it breaks.
pub fn inspect(path: &Path, file: &FileName, arches: &[Arch]) -> Result<Control, Error> {
    let deb = File::open(path).map_err(|source| Error::Read { file: file.clone(), what: "file", source })?;
    let text = control_text(deb, file)?;
    let control = parse_control(&text).map_err(|why| Error::Control { file: file.clone(), why })?;
    let wanted = format!("{}_{}_{}.deb", control.name, version::without_epoch(&control.version), control.arch);
    if wanted != file.as_str() {
        return Err(Error::Name { file: file.clone(), wanted });
    }
    if control.arch != Arch::All && !arches.contains(&control.arch) {
        return Err(Error::Arch { file: file.clone(), arch: control.arch });
    }
    Ok(control)
}

/// Walks the members in the order that deb(5) demands and gives the control file.
fn control_text(mut deb: File, file: &FileName) -> Result<String, Error> {
    let refuse = |why: String| Error::Container { file: file.clone(), why };
    let broken = |what| move |source| Error::Read { file: file.clone(), what, source };
    let length = deb.metadata().map_err(broken("file"))?.len();
    let mut magic = [0; AR_MAGIC.len()];
    deb.read_exact(&mut magic).map_err(broken("the ar container"))?;
    if magic != *AR_MAGIC {
        return Err(refuse("it does not begin as an ar container".into()));
    }
    let (mut control, mut count, mut at) = (None, 0, AR_MAGIC.len() as u64);
    while at < length {
        let (name, size) = member_header(&mut deb).map_err(broken("the ar container"))?;
        let end = at + AR_HEADER as u64 + size;
        if end > length {
            return Err(refuse(format!("it ends within {name:?}")));
        }
        count += 1;
        match (count, name.as_str()) {
            (1, "debian-binary") => {
                let mut text = String::new();
                (&mut deb).take(size.min(16)).read_to_string(&mut text).map_err(broken("debian-binary"))?;
                if text != "2.0\n" {
                    return Err(refuse(format!("debian-binary says {text:?}, not 2.0")));
                }
            }
            (1, other) => return Err(refuse(format!("the first member is {other:?}, not debian-binary"))),
            (2, name) if name.starts_with("control.tar") => {
                if size > CONTROL_MEMBER_MAX {
                    return Err(refuse(format!("{name} has {size} bytes, at most {CONTROL_MEMBER_MAX} are allowed")));
                }
                control = Some(unpack_control(name, &mut (&mut deb).take(size), file)?);
            }
            (2, other) => return Err(refuse(format!("the second member is {other:?}, not control.tar"))),
            (3, "data.tar" | "data.tar.gz" | "data.tar.xz" | "data.tar.zst" | "data.tar.bz2") => {}
            (3, other) => return Err(refuse(format!("the third member is {other:?}, not data.tar"))),
            (_, other) => return Err(refuse(format!("it has a further member {other:?}"))),
        }
        at = deb.seek(SeekFrom::Start(end + end % 2)).map_err(broken("the ar container"))?;
    }
    match (control, count) {
        (Some(text), 3) => Ok(text),
        _ => Err(refuse(format!("it has {count} members, not debian-binary, control.tar and data.tar"))),
    }
}

/// Reads a member's header: name and size. The crate `ar` allocates what a header claims (a table of long names may claim
/// ten thousand million bytes), so the one form that deb(5) allows is read here.
fn member_header(deb: &mut File) -> io::Result<(String, u64)> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what);
    let mut header = [0; AR_HEADER];
    deb.read_exact(&mut header)?;
    if !header.is_ascii() || header[58..] != *b"`\n" {
        return Err(bad("a member's header is broken"));
    }
    let text = |range: std::ops::Range<usize>| String::from_utf8_lossy(&header[range]).trim_end_matches(' ').to_owned();
    let (name, size) = (text(0..16), text(48..58));
    let digits = !size.is_empty() && size.bytes().all(|b| b.is_ascii_digit());
    let size = size.parse().ok().filter(|_| digits).ok_or_else(|| bad("a member's size is no number"))?;
    Ok((name.trim_end_matches('/').to_owned(), size))
}

/// Unpacks the control member in memory, within limits, and gives the file `control`.
fn unpack_control(name: &str, member: &mut dyn Read, file: &FileName) -> Result<String, Error> {
    let refuse = |why: String| Error::Container { file: file.clone(), why };
    let broken = |source| Error::Read { file: file.clone(), what: "control.tar", source };
    let unpacked: Box<dyn Read + '_> = match name {
        "control.tar" => Box::new(member),
        "control.tar.gz" => Box::new(flate2::read::GzDecoder::new(member)),
        "control.tar.xz" => {
            let stream = liblzma::stream::Stream::new_stream_decoder(UNPACK_MEMORY_MAX, 0)
                .map_err(|error| broken(io::Error::other(error)))?;
            Box::new(liblzma::read::XzDecoder::new_stream(member, stream))
        }
        "control.tar.zst" => {
            let mut decoder = zstd::stream::read::Decoder::new(member).map_err(broken)?;
            decoder.window_log_max(27).map_err(broken)?;
            Box::new(decoder)
        }
        other => return Err(refuse(format!("{other:?} is packed in a way that we do not know"))),
    };
    let mut limited = Limited { inner: unpacked, left: CONTROL_UNPACKED_MAX };
    let mut tar = tar::Archive::new(&mut limited);
    let mut found = None;
    for (at, entry) in tar.entries().map_err(broken)?.enumerate() {
        let mut entry = entry.map_err(broken)?;
        if at >= ENTRIES_MAX {
            return Err(refuse(format!("control.tar has more than {ENTRIES_MAX} entries")));
        }
        let path = entry.path_bytes();
        if !matches!(&*path, b"./control" | b"control") {
            continue;
        }
        if !entry.header().entry_type().is_file() || entry.size() > CONTROL_MAX || found.is_some() {
            return Err(refuse(format!("control must be one plain file of at most {CONTROL_MAX} bytes")));
        }
        let mut text = String::new();
        entry.read_to_string(&mut text).map_err(broken)?;
        found = Some(text);
    }
    found.ok_or_else(|| refuse("control.tar has no file called control".into()))
}

/// A reader that ends with an error, not silently, when more comes than is allowed.
struct Limited<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(count as u64).ok_or_else(|| {
            io::Error::new(io::ErrorKind::FileTooLarge, format!("it unpacks to more than {CONTROL_UNPACKED_MAX} bytes"))
        })?;
        Ok(count)
    }
}

/// Reads the control file. Its text goes into the index as it is, so it must be exactly one clean paragraph.
fn parse_control(text: &str) -> Result<Control, String> {
    let body = text.trim_end_matches('\n');
    if body.chars().any(|c| c.is_control() && c != '\n' && c != '\t') {
        return Err("it has control characters".into());
    }
    if let Some(line) = body.lines().find(|l| l.trim().is_empty() || l.starts_with('#')) {
        return Err(format!("the line {line:?} does not belong into a control file"));
    }
    let parsed: deb822_fast::Deb822 = body.parse().map_err(|e| format!("{e:?}"))?;
    let mut paragraphs = parsed.iter();
    let (Some(fields), None) = (paragraphs.next(), paragraphs.next()) else {
        return Err("it must hold one paragraph".into());
    };
    let mut names: Vec<String> = fields.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
    names.sort();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(format!("the field {} stands twice", pair[0]));
    }
    if let Some(field) = INDEX_FIELDS.iter().find(|field| fields.get(field).is_some()) {
        return Err(format!("the field {field} belongs to the index"));
    }
    if !body.starts_with("Package:") {
        return Err("it must begin with the field Package".into());
    }
    let field = |name: &str| fields.get(name).map(str::trim).ok_or_else(|| format!("the field {name} is missing"));
    let word = |error: WordError| error.to_string();
    let name = PackageName::new(field("Package")?).map_err(word)?;
    let version = DebVersion::new(field("Version")?).map_err(word)?;
    if !name.is_debian() || !version.is_debian() {
        return Err(format!("{name} {version} is no Debian package's name and version"));
    }
    Ordered::new(&version).map_err(|e| e.to_string())?;
    field("Description")?;
    let (source, source_version) = match fields.get("Source").map(str::trim) {
        None => (name.clone(), version.clone()),
        Some(text) => match text.split_once(" (") {
            None => (PackageName::new(text).map_err(word)?, version.clone()),
            Some((source, of)) => {
                let of = DebVersion::new(of.trim_end_matches(')')).map_err(word)?;
                (PackageName::new(source).map_err(word)?, of)
            }
        },
    };
    let arch = field("Architecture")?.parse().map_err(|e: protocol::arch::UnknownArch| e.to_string())?;
    Ok(Control { name, version, arch, source, source_version, text: format!("{body}\n") })
}

#[cfg(test)]
mod tests;
