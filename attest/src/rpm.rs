//! RPM files, as far as evidence is concerned: what a file was before a publisher signed it.
//!
//! ```text
//!  lead (96 bytes) | signature header, padded to 8 | header | payload
//! ```
//! Builders attest the file that `rpmbuild` wrote. A publisher puts its signature into the signature header, as one entry more;
//! taking every such entry out again gives the attested bytes, so the signed file proves itself against the same evidence.
//! That works because a signature header is written in one way only here: entries sorted by tag, data in the same order, each
//! aligned by its type, the region's trailer last, as rpm itself writes it. A file that has another form is refused.
//!
//! Whether a signature holds is not asked here: rpm and dnf do that.

use sha2::Digest as _;

use protocol::Sha256;

/// The length of the lead, in bytes.
const LEAD: usize = 96;
/// How a lead begins.
const LEAD_MAGIC: [u8; 4] = [0xed, 0xab, 0xee, 0xdb];
/// How a header begins.
const HEADER_MAGIC: [u8; 8] = [0x8e, 0xad, 0xe8, 0x01, 0, 0, 0, 0];
/// Magic, count of entries and length of data.
const INTRO: usize = 16;
/// One entry of the index.
const ENTRY: usize = 16;
/// The most entries of a header.
const ENTRIES_MAX: usize = 0xffff;
/// The largest data of a signature header, in bytes.
const SIGNATURE_DATA_MAX: usize = 1 << 20;
/// The largest data of a header, in bytes.
const HEADER_DATA_MAX: usize = 64 << 20;
/// The tag of a signature header's region.
const REGION: u32 = 62;
/// Tags of OpenPGP signatures in a signature header: DSA and EdDSA, RSA, PGP, PGP5, GPG, and the list of rpm 4.20.
const SIGNATURES: [u32; 6] = [SIGNATURE, 268, 1002, 1003, 1005, 278];
/// The tag of a signature of the header by a DSA or EdDSA key (`RPMSIGTAG_DSA`).
const SIGNATURE: u32 = 267;
/// Tags of the unpacked payload's length in a signature header, in 32 and in 64 bits.
const UNPACKED: [u32; 2] = [1007, 271];
/// The type of bytes.
const BIN: u32 = 7;

/// Why a file cannot be read as an RPM.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an RPM that can be read: {0}")]
pub struct Error(String);

fn refuse<T>(why: impl Into<String>) -> Result<T, Error> {
    Err(Error(why.into()))
}

/// One entry of a header.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    tag: u32,
    kind: u32,
    count: u32,
    data: Vec<u8>,
}

/// A header: values by tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Sorted by tag.
    entries: Vec<Entry>,
}

/// The parts of an RPM that come before its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Front {
    /// The header that describes the package.
    pub header: Header,
    /// The length of the payload when it is unpacked, in bytes, where that is said.
    pub unpacked: Option<u64>,
    /// Where the header begins, in bytes.
    pub begin: usize,
    /// Where it ends and the payload begins, in bytes.
    pub end: usize,
}

/// Says how many bytes from the beginning of a file are needed to go on: all of lead, signature header and header are there
/// when it is not more than were given.
///
/// # Errors
/// When the bytes are no RPM, or a header is too large.
pub fn front_size(bytes: &[u8]) -> Result<usize, Error> {
    let signature = signature_size(bytes)?;
    if bytes.len() < signature + INTRO {
        return Ok(if bytes.len() < signature { signature } else { signature + INTRO });
    }
    Ok(signature + section_size(&bytes[signature..], HEADER_DATA_MAX)?)
}

/// As [`front_size`], for lead and signature header alone, padding included.
///
/// # Errors
/// As [`front_size`].
pub fn signature_size(bytes: &[u8]) -> Result<usize, Error> {
    if bytes.len() < LEAD + INTRO {
        return Ok(LEAD + INTRO);
    }
    if bytes[..4] != LEAD_MAGIC {
        return refuse("it does not begin as an RPM");
    }
    Ok(LEAD + section_size(&bytes[LEAD..], SIGNATURE_DATA_MAX)?.next_multiple_of(8))
}

/// Reads lead and headers.
///
/// # Errors
/// When they are not all there, or break a rule.
pub fn front(bytes: &[u8]) -> Result<Front, Error> {
    let (begin, end) = (signature_size(bytes)?, front_size(bytes)?);
    if end > bytes.len() {
        return refuse("it ends within its headers");
    }
    let signature = Header::read(&bytes[LEAD..begin])?;
    let unpacked = UNPACKED.iter().find_map(|tag| signature.number(*tag));
    Ok(Front { header: Header::read(&bytes[begin..end])?, unpacked, begin, end })
}

/// The beginning of a file without any signature: lead and signature header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsigned {
    /// The bytes that stand in place of the first [`Unsigned::instead_of`] bytes of the file.
    pub bytes: Vec<u8>,
    /// How many bytes of the file they stand for; what follows is the same.
    pub instead_of: usize,
}

/// Takes every signature out of the beginning of a file.
///
/// # Errors
/// When lead and signature header are not all there, or are not written as rpm writes them.
pub fn unsigned(bytes: &[u8]) -> Result<Unsigned, Error> {
    let (mut header, instead_of) = signature_header(bytes)?;
    header.entries.retain(|entry| !SIGNATURES.contains(&entry.tag));
    Ok(Unsigned { bytes: beginning(bytes, &header), instead_of })
}

/// Puts a signature of the header into the beginning of a file that has none: a V4 OpenPGP signature packet by an EdDSA key.
///
/// # Errors
/// As [`unsigned`], and when the file is signed already.
pub fn sign(bytes: &[u8], signature: &[u8]) -> Result<Unsigned, Error> {
    let (mut header, instead_of) = signature_header(bytes)?;
    if header.entries.iter().any(|entry| SIGNATURES.contains(&entry.tag)) {
        return refuse("it is signed already; builders leave that to the publisher");
    }
    let count = u32::try_from(signature.len()).map_err(|_| Error("the signature is too long".into()))?;
    header.entries.push(Entry { tag: SIGNATURE, kind: BIN, count, data: signature.to_vec() });
    header.entries.sort_by_key(|entry| entry.tag);
    Ok(Unsigned { bytes: beginning(bytes, &header), instead_of })
}

/// Gives the signature in the beginning of a file: of its header, by an EdDSA key.
///
/// # Errors
/// As [`unsigned`], and when there is none, or another one: a reader might believe that instead.
pub fn signature(bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let (header, _) = signature_header(bytes)?;
    let mut found = header.entries.into_iter().filter(|entry| SIGNATURES.contains(&entry.tag));
    match (found.next(), found.next()) {
        (Some(Entry { tag: SIGNATURE, kind: BIN, data, .. }), None) => Ok(data),
        (None, _) => refuse("it is not signed"),
        (Some(_), _) => refuse("it has other signatures than one of its header by an EdDSA key"),
    }
}

/// Gives the SHA-256 that builders attested, of a file that may have been signed since. Anything that cannot be read as an RPM is
/// hashed as it is.
pub fn attested(bytes: &[u8]) -> Sha256 {
    let mut hasher = sha2::Sha256::new();
    match unsigned(bytes) {
        Ok(unsigned) => {
            hasher.update(&unsigned.bytes);
            hasher.update(&bytes[unsigned.instead_of..]);
        }
        Err(_) => hasher.update(bytes),
    }
    Sha256::from_bytes(hasher.finalize().into())
}

/// Reads the signature header, and refuses one that would be written otherwise.
fn signature_header(bytes: &[u8]) -> Result<(Header, usize), Error> {
    let size = signature_size(bytes)?;
    if size > bytes.len() {
        return refuse("it ends within its signature header");
    }
    let mut header = Header::read(&bytes[LEAD..])?;
    if header.entries.first().is_none_or(|entry| entry.tag != REGION) {
        return refuse("its signature header has no region");
    }
    header.entries.remove(0);
    if beginning(bytes, &header) != bytes[..size] {
        return refuse("its signature header is not written as rpmbuild writes it");
    }
    Ok((header, size))
}

fn beginning(bytes: &[u8], header: &Header) -> Vec<u8> {
    let mut new = bytes[..LEAD].to_vec();
    new.extend(header.to_bytes());
    new.resize(new.len().next_multiple_of(8), 0);
    new
}

/// Gives the length of a header by its intro.
fn section_size(bytes: &[u8], data_max: usize) -> Result<usize, Error> {
    if bytes[..8] != HEADER_MAGIC {
        return refuse("a header does not begin as one");
    }
    let (entries, data) = (number(bytes, 8)? as usize, number(bytes, 12)? as usize);
    if entries == 0 || entries > ENTRIES_MAX || data > data_max {
        return refuse(format!("a header has {entries} entries and {data} bytes of data"));
    }
    Ok(INTRO + entries * ENTRY + data)
}

fn number(bytes: &[u8], at: usize) -> Result<u32, Error> {
    let four = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>());
    four.map(|four| u32::from_be_bytes(*four)).ok_or_else(|| Error("a header ends too early".into()))
}

impl Header {
    fn read(bytes: &[u8]) -> Result<Self, Error> {
        let size = section_size(bytes, HEADER_DATA_MAX)?;
        let count = number(bytes, 8)? as usize;
        let data = bytes.get(INTRO + count * ENTRY..size).ok_or_else(|| Error("a header ends too early".into()))?;
        let mut entries: Vec<Entry> = Vec::with_capacity(count);
        let mut taken = 0;
        for at in (0..count).map(|at| INTRO + at * ENTRY) {
            let [tag, kind, offset, count] = [0, 4, 8, 12].map(|field| number(bytes, at + field));
            let (tag, kind, offset, count) = (tag?, kind?, offset? as usize, count?);
            if entries.last().is_some_and(|last| last.tag >= tag) {
                return refuse("a header's entries are not sorted by tag");
            }
            let value = value(data, kind, offset, count).ok_or_else(|| Error(format!("tag {tag} is malformed")))?;
            taken += value.len();
            // Entries that share their data would take more memory than the file has bytes.
            if taken > data.len() {
                return refuse("a header's entries overlap");
            }
            entries.push(Entry { tag, kind, count, data: value.to_vec() });
        }
        Ok(Self { entries })
    }

    /// Writes a signature header as rpm does, with its region.
    fn to_bytes(&self) -> Vec<u8> {
        let (mut index, mut data) = (Vec::new(), Vec::new());
        for entry in &self.entries {
            data.resize(data.len().next_multiple_of(alignment(entry.kind)), 0);
            index.extend([entry.tag, entry.kind, length(&data), entry.count].map(u32::to_be_bytes).concat());
            data.extend_from_slice(&entry.data);
        }
        let region = length(&index) + 16;
        let trailer = data.len();
        data.extend([REGION, BIN, region.wrapping_neg(), 16].map(u32::to_be_bytes).concat());
        let mut bytes = HEADER_MAGIC.to_vec();
        bytes.extend((region / 16).to_be_bytes());
        bytes.extend(length(&data).to_be_bytes());
        let offset = u32::try_from(trailer).expect("limited to a few MiB");
        bytes.extend([REGION, BIN, offset, 16].map(u32::to_be_bytes).concat());
        bytes.extend(index);
        bytes.extend(data);
        bytes
    }

    fn entry(&self, tag: u32) -> Option<&Entry> {
        self.entries.binary_search_by_key(&tag, |entry| entry.tag).ok().map(|at| &self.entries[at])
    }

    /// Gives how many values a tag has, 0 where it is absent, without reading one.
    pub fn count(&self, tag: u32) -> usize {
        self.entry(tag).map_or(0, |entry| entry.count as usize)
    }

    /// Gives the texts of a tag; none where it is absent, of another type, or not UTF-8.
    pub fn texts(&self, tag: u32) -> Option<Vec<&str>> {
        self.parts(tag)?.collect()
    }

    /// Gives the first text of a tag, and reads no other.
    pub fn text(&self, tag: u32) -> Option<&str> {
        self.parts(tag)?.next().flatten()
    }

    fn parts(&self, tag: u32) -> Option<impl Iterator<Item = Option<&str>>> {
        let entry = self.entry(tag).filter(|entry| matches!(entry.kind, 6 | 8 | 9))?;
        let parts = entry.data.split(|byte| *byte == 0).take(entry.count as usize);
        Some(parts.map(|part| std::str::from_utf8(part).ok()))
    }

    /// Gives the numbers of a tag; none where it is absent or of another type.
    pub fn numbers(&self, tag: u32) -> Option<Vec<u64>> {
        Some(self.values(tag)?.collect())
    }

    /// Gives the first number of a tag, and reads no other.
    pub fn number(&self, tag: u32) -> Option<u64> {
        self.values(tag)?.next()
    }

    fn values(&self, tag: u32) -> Option<impl Iterator<Item = u64>> {
        let entry = self.entry(tag)?;
        let width = match entry.kind {
            2 => 1,
            3 => 2,
            4 => 4,
            5 => 8,
            _ => return None,
        };
        let number = |bytes: &[u8]| bytes.iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
        Some(entry.data.chunks_exact(width).map(number))
    }

    /// Says whether a tag is there.
    pub fn has(&self, tag: u32) -> bool {
        self.entry(tag).is_some()
    }
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("limited to a few MiB")
}

fn alignment(kind: u32) -> usize {
    match kind {
        3 => 2,
        4 => 4,
        5 => 8,
        _ => 1,
    }
}

/// Gives the bytes of one value, where they are all there.
fn value(data: &[u8], kind: u32, offset: usize, count: u32) -> Option<&[u8]> {
    let (rest, count) = (data.get(offset..)?, count as usize);
    if count == 0 {
        return None;
    }
    let length = match kind {
        1 | 2 | BIN => count,
        3 => count.checked_mul(2)?,
        4 => count.checked_mul(4)?,
        5 => count.checked_mul(8)?,
        6 | 8 | 9 => {
            let mut ends = rest.iter().enumerate().filter(|(_, byte)| **byte == 0).map(|(at, _)| at + 1);
            ends.nth(if kind == 6 { 0 } else { count - 1 })?
        }
        _ => return None,
    };
    rest.get(..length)
}

#[cfg(test)]
mod tests;
