//! Whether an index for apt (`Packages`, deb822(5)) names only files of a manifest.

use std::collections::BTreeSet;

/// Reads an index line by line: apt's parser is lenient, so what ours never writes is refused. `packages` are the paths that it may
/// name.
///
/// # Errors
/// The rule that it breaks.
pub fn check(index: &[u8], packages: &BTreeSet<&str>) -> Result<(), String> {
    let text = std::str::from_utf8(index).map_err(|_| "it is not UTF-8".to_owned())?;
    if text.contains('\r') {
        return Err(OTHERWISE.into());
    }
    let mut paragraph = Paragraph::default();
    // Once through: an index may have millions of lines, and a hostile one nothing else.
    for line in text.split('\n') {
        match line.as_bytes().first() {
            None => std::mem::take(&mut paragraph).end(packages)?,
            // What is indented goes on with the field before.
            Some(b' ' | b'\t') if paragraph.has_lines && !line.trim().is_empty() => {}
            Some(first) if first.is_ascii_graphic() => paragraph.take(line)?,
            Some(_) => return Err(OTHERWISE.into()),
        }
    }
    paragraph.end(packages)
}

const OTHERWISE: &str = "it has lines that apt may read in another way";
const ONE: &str = "a paragraph must have one Filename";

/// What was read of a package.
#[derive(Default)]
struct Paragraph<'a> {
    has_lines: bool,
    file: Option<&'a str>,
}

impl<'a> Paragraph<'a> {
    fn take(&mut self, line: &'a str) -> Result<(), String> {
        self.has_lines = true;
        let (field, value) = line.split_once(':').ok_or(OTHERWISE)?;
        if field.trim().eq_ignore_ascii_case("Filename") && self.file.replace(value.trim()).is_some() {
            return Err(ONE.into());
        }
        Ok(())
    }

    fn end(self, packages: &BTreeSet<&str>) -> Result<(), String> {
        match self.file {
            Some(file) if packages.contains(file) => Ok(()),
            Some(file) => {
                let file: String = file.chars().take(80).collect();
                Err(format!("it names {file:?}, which is no package of the manifest"))
            }
            None if self.has_lines => Err(ONE.into()),
            None => Ok(()),
        }
    }
}
