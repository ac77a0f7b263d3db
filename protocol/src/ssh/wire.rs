//! SSH's binary strings (RFC 4251 section 5): a length of four bytes, then as many.

use super::Error;

/// Reads a blob from its beginning to its end.
pub(super) struct Reader<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, rest: bytes }
    }

    pub(super) fn refuse(&self, why: &'static str) -> Error {
        Error::Form { what: self.what, why }
    }

    pub(super) fn bytes(&mut self, count: usize) -> Result<&'a [u8], Error> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or_else(|| self.refuse("it is cut off"))?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        Ok(self.bytes(N)?.try_into().expect("as many bytes were taken"))
    }

    pub(super) fn number(&mut self) -> Result<u32, Error> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn string(&mut self) -> Result<&'a [u8], Error> {
        let length = self.number()?;
        self.bytes(usize::try_from(length).unwrap_or(usize::MAX))
    }

    /// Reads a string of exactly so many bytes.
    pub(super) fn string_of<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        self.string()?.try_into().map_err(|_| self.refuse("a part has the wrong length"))
    }

    /// Reads a string that is a name: printable ASCII without spaces.
    pub(super) fn name(&mut self) -> Result<&'a str, Error> {
        let bytes = self.string()?;
        let name = str::from_utf8(bytes).ok().filter(|_| bytes.iter().all(u8::is_ascii_graphic));
        name.ok_or_else(|| self.refuse("a name has other characters than printable ASCII"))
    }

    pub(super) fn end(self) -> Result<(), Error> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.refuse("more follows after its end")) }
    }
}

/// Adds a string.
pub(super) fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("we write no string of 4 GiB");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(bytes);
}
