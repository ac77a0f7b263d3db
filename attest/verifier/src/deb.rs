//! What a `.deb` says of itself: name, version and architecture of its control file (deb(5)), read within limits and in memory.
//!
//! It is read only of files that operators attested, and yet as if a stranger had made it.

use std::io::{self, Read, Seek, SeekFrom};

/// How an ar container begins.
const AR_MAGIC: &[u8; 8] = b"!<arch>\n";
/// The length of a member's header in an ar container, in bytes.
const AR_HEADER: usize = 60;
/// The largest compressed control member, in bytes.
const MEMBER_MAX: u64 = 16 << 20;
/// The most bytes of it that are unpacked.
const UNPACKED_MAX: u64 = 64 << 20;
/// The largest control file, in bytes.
const CONTROL_MAX: u64 = 512 * 1024;
/// The most memory that unpacking may take, in bytes.
const MEMORY_MAX: u64 = 256 << 20;
/// The size of a tar's block, in bytes.
const BLOCK: usize = 512;

/// Name, version and architecture, as they stand there.
pub type Fields = [String; 3];

/// Reads name, version and architecture.
///
/// # Errors
/// Words.
pub fn fields(deb: &mut (impl Read + Seek)) -> Result<Fields, String> {
    fields_of(&control(deb)?)
}

fn control(deb: &mut (impl Read + Seek)) -> Result<String, String> {
    let broken = |error: io::Error| format!("its container is broken: {error}");
    let mut magic = [0; AR_MAGIC.len()];
    deb.read_exact(&mut magic).map_err(broken)?;
    if magic != *AR_MAGIC {
        return Err("it does not begin as an ar container".into());
    }
    let (name, size) = member(deb)?;
    if name != "debian-binary" {
        return Err(format!("its first member is {name:?}, not debian-binary"));
    }
    deb.seek(SeekFrom::Current(i64::from(size) + i64::from(size % 2))).map_err(broken)?;
    let (name, size) = member(deb)?;
    let size = u64::from(size);
    if size > MEMBER_MAX {
        return Err(format!("{name} has {size} bytes, at most {MEMBER_MAX} are read"));
    }
    let mut packed = deb.take(size);
    let unpack = |error: io::Error| format!("{name} cannot be unpacked: {error}");
    match name.as_str() {
        "control.tar" => in_tar(&mut packed),
        "control.tar.gz" => in_tar(&mut flate2::read::GzDecoder::new(packed)),
        "control.tar.xz" => {
            let stream = liblzma::stream::Stream::new_stream_decoder(MEMORY_MAX, 0).map_err(|e| unpack(e.into()))?;
            in_tar(&mut liblzma::read::XzDecoder::new_stream(packed, stream))
        }
        "control.tar.zst" => {
            let mut decoder = zstd::stream::read::Decoder::new(packed).map_err(unpack)?;
            decoder.window_log_max(27).map_err(unpack)?;
            in_tar(&mut decoder)
        }
        other => Err(format!("its second member is {other:?}, not a control.tar that can be unpacked")),
    }
}

/// Reads a member's header: name and size.
fn member(deb: &mut impl Read) -> Result<(String, u32), String> {
    let mut header = [0; AR_HEADER];
    deb.read_exact(&mut header).map_err(|e| format!("its container ends early: {e}"))?;
    if !header.is_ascii() || header[58..] != *b"`\n" {
        return Err("a member's header is broken".into());
    }
    let text = |range: std::ops::Range<usize>| String::from_utf8_lossy(&header[range]).trim_end_matches(' ').to_owned();
    let (name, size) = (text(0..16), text(48..58));
    let digits = !size.is_empty() && size.bytes().all(|b| b.is_ascii_digit());
    let size = size.parse::<u32>().ok().filter(|_| digits).ok_or("a member's size is no number")?;
    Ok((name.trim_end_matches('/').to_owned(), size))
}

/// Finds the file `control` in a tar. There is one: of two, readers may take either.
fn in_tar(tar: &mut impl Read) -> Result<String, String> {
    let broken = |error: io::Error| format!("control.tar is broken: {error}");
    let mut tar = tar.take(UNPACKED_MAX);
    let (mut header, mut control) = ([0; BLOCK], None);
    loop {
        let ended = match tar.read_exact(&mut header) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && control.is_some() => true,
            read => read.map(|()| header.iter().all(|byte| *byte == 0)).map_err(broken)?,
        };
        if ended {
            return control.ok_or_else(|| "control.tar has no file called control".to_owned());
        }
        let name = header[..100].split(|byte| *byte == 0).next().unwrap_or_default();
        let size = octal(&header[124..136]).ok_or("control.tar has a size that is no number")?;
        let plain = matches!(header[156], b'0' | 0);
        let mut rest = size.checked_next_multiple_of(BLOCK as u64).ok_or("control.tar has a size without end")?;
        if plain && matches!(name, b"./control" | b"control") {
            if control.is_some() {
                return Err("control.tar has two files called control".into());
            }
            if size > CONTROL_MAX {
                return Err(format!("control has {size} bytes, at most {CONTROL_MAX} are read"));
            }
            let mut text = String::new();
            let read = (&mut tar).take(size).read_to_string(&mut text).map_err(broken)?;
            if read as u64 != size {
                return Err("control.tar ends early".into());
            }
            (control, rest) = (Some(text), rest - size);
        }
        io::copy(&mut (&mut tar).take(rest), &mut io::sink()).map_err(broken)?;
    }
}

fn octal(field: &[u8]) -> Option<u64> {
    let text = str::from_utf8(field).ok()?.trim_matches(['\0', ' ']);
    u64::from_str_radix(text, 8).ok()
}

/// Finds the three fields, each of which stands once; lines that go on belong to the field before.
fn fields_of(control: &str) -> Result<Fields, String> {
    let field = |wanted: &str| {
        let named = |line: &&str| line.split_once(':').is_some_and(|(name, _)| name.eq_ignore_ascii_case(wanted));
        let mut found = control.lines().filter(named);
        match (found.next().and_then(|line| line.split_once(':')), found.next()) {
            (Some((_, value)), None) => Ok(value.trim().to_owned()),
            (None, _) => Err(format!("its control file has no field {wanted}")),
            (Some(_), Some(_)) => Err(format!("its control file has the field {wanted} twice")),
        }
    };
    Ok([field("Package")?, field("Version")?, field("Architecture")?])
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write};

    use super::*;

    const CONTROL: &str =
        "Package: tiny\nVersion: 1:0.5\nArchitecture: amd64\nDescription: a test\n Version: of nothing\n";

    fn tar(name: &str, content: &[u8]) -> Vec<u8> {
        let mut header = [0; BLOCK];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
        header[156] = b'0';
        let mut bytes = [&header[..], content].concat();
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        bytes
    }

    fn deb(name: &str, control: &[u8]) -> Vec<u8> {
        let mut bytes = AR_MAGIC.to_vec();
        for (name, content) in [("debian-binary", b"2.0\n".as_slice()), (name, control)] {
            bytes.extend(format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100_644, content.len()).bytes());
            bytes.extend(content);
            bytes.resize(bytes.len().next_multiple_of(2), b'\n');
        }
        bytes
    }

    fn read(bytes: Vec<u8>) -> Result<Fields, String> {
        fields(&mut Cursor::new(bytes))
    }

    fn packed() -> Vec<(&'static str, Vec<u8>)> {
        let plain = [tar("./md5sums", b"x"), tar("./control", CONTROL.as_bytes())].concat();
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(&plain).unwrap();
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(&plain).unwrap();
        vec![
            ("control.tar.gz", gz.finish().unwrap()),
            ("control.tar.xz", xz.finish().unwrap()),
            ("control.tar.zst", zstd::encode_all(plain.as_slice(), 1).unwrap()),
            ("control.tar", plain),
        ]
    }

    #[test]
    fn however_it_is_packed_it_says_the_same() {
        for (name, bytes) in packed() {
            assert_eq!(read(deb(name, &bytes)).unwrap(), ["tiny", "1:0.5", "amd64"], "{name}");
        }
    }

    #[test]
    fn what_is_no_package_says_why() {
        let plain = |control: &str| read(deb("control.tar", &tar("control", control.as_bytes()))).unwrap_err();
        assert!(plain("Package: tiny\nVersion: 1\n").contains("no field Architecture"));
        assert!(plain(&format!("{CONTROL}package: other\n")).contains("Package twice"));
        let two = [tar("./control", CONTROL.as_bytes()), tar("control", CONTROL.as_bytes())].concat();
        assert!(read(deb("control.tar", &two)).unwrap_err().contains("two files called control"));
        assert!(read(deb("control.tar", &tar("other", b"x"))).unwrap_err().contains("control.tar"));
        assert!(read(deb("control.tar.lz4", b"")).unwrap_err().contains("control.tar.lz4"));
        assert!(read(deb("data.tar", b"")).unwrap_err().contains("data.tar"));
        assert!(read(b"no deb at all".to_vec()).unwrap_err().contains("ar container"));
        assert!(read(vec![]).is_err());
    }

    /// Invariant: nothing that a stranger writes makes the reader panic.
    #[test]
    fn changed_bytes_never_panic() {
        for (name, bytes) in packed() {
            let good = deb(name, &bytes);
            for at in 0..good.len() {
                let mut changed = good.clone();
                changed[at] ^= 0x55;
                drop(read(changed));
                drop(read(good[..at].to_vec()));
            }
        }
    }
}
