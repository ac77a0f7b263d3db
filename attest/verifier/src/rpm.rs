//! What an RPM says of itself, and which bytes of it were attested: its header is read by [`attest::rpm`], from disk piece by
//! piece.

use std::io::{self, Read, Seek, SeekFrom};

use attest::rpm as form;
use protocol::{Arch, Sha256};
use sha2::Digest as _;

/// Tags of the header: name, version, release, epoch, architecture.
const TAGS: [u32; 5] = [1000, 1001, 1002, 1003, 1022];

/// Gives the SHA-256 that builders attested: of the file without the signature of its publisher.
///
/// # Errors
/// Words, when it is no RPM as rpmbuild writes it, or cannot be read.
pub fn attested(rpm: &mut (impl Read + Seek)) -> Result<Sha256, String> {
    let front = front(rpm, form::signature_size)?;
    let unsigned = form::unsigned(&front).map_err(|e| e.to_string())?;
    rpm.seek(SeekFrom::Start(unsigned.instead_of as u64)).map_err(|e| e.to_string())?;
    let mut hasher = sha2::Sha256::new_with_prefix(&unsigned.bytes);
    io::copy(rpm, &mut HashedBy(&mut hasher)).map_err(|e| e.to_string())?;
    Ok(Sha256::from_bytes(hasher.finalize().into()))
}

/// Reads name, `[epoch:]version-release` and architecture, in Debian's word.
///
/// # Errors
/// Words.
pub fn fields(rpm: &mut (impl Read + Seek)) -> Result<[String; 3], String> {
    rpm.rewind().map_err(|e| e.to_string())?;
    let header = form::front(&front(rpm, form::front_size)?).map_err(|e| e.to_string())?.header;
    let [name, version, release, epoch, arch] = TAGS;
    let text = |tag| header.text(tag).map(str::to_owned).ok_or_else(|| format!("its header has no text {tag}"));
    let plain = format!("{}-{}", text(version)?, text(release)?);
    let version = match header.number(epoch) {
        None | Some(0) => plain,
        Some(epoch) => format!("{epoch}:{plain}"),
    };
    let arch = text(arch)?;
    let arch = Arch::from_rpm_name(&arch).ok_or_else(|| format!("its architecture {arch:?} is unknown"))?;
    Ok([text(name)?, version, arch.to_string()])
}

/// Reads the beginning of a file, never more than `size` asks for.
fn front(rpm: &mut impl Read, size: fn(&[u8]) -> Result<usize, form::Error>) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    loop {
        let wanted = size(&bytes).map_err(|e| e.to_string())?;
        let missing = wanted.saturating_sub(bytes.len());
        if missing == 0 {
            return Ok(bytes);
        }
        let read = rpm.take(missing as u64).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
        if read < missing {
            return Err("it ends within its headers".into());
        }
    }
}

/// Feeds a hasher.
pub(crate) struct HashedBy<'a>(pub(crate) &'a mut sha2::Sha256);

impl io::Write for HashedBy<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
