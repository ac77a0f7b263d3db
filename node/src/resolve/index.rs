//! Reads the Packages indexes that apt holds, line by line: they have a million lines.

use std::{
    fs::File,
    io::{BufRead, BufReader},
};

use super::archive::{Archive, Error, file_error};

/// The fields of one package that a lock or a comparison needs; empty where the index has none.
#[derive(Debug, Default)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) version: String,
    source: String,
    pub(super) filename: String,
    pub(super) sha256: String,
    essential: String,
    priority: String,
}

impl Package {
    /// Gives the source package's name and version: its own, unless `Source` says otherwise.
    pub(super) fn source(&self) -> (&str, &str) {
        match self.source.split_once(" (") {
            Some((name, version)) => (name, version.trim_end_matches(')')),
            None if self.source.is_empty() => (&self.name, &self.version),
            None => (&self.source, &self.version),
        }
    }

    /// Says whether every system has the package.
    pub(super) fn is_required(&self) -> bool {
        self.essential == "yes" || self.priority == "required"
    }

    fn clear(&mut self) {
        for field in [&mut self.name, &mut self.version, &mut self.source, &mut self.filename, &mut self.sha256] {
            field.clear();
        }
        self.essential.clear();
        self.priority.clear();
    }

    fn take(&mut self, line: &str) {
        let Some((field, value)) = line.split_once(": ") else { return };
        let slot = match field {
            "Package" => &mut self.name,
            "Version" => &mut self.version,
            "Source" => &mut self.source,
            "Filename" => &mut self.filename,
            "SHA256" => &mut self.sha256,
            "Essential" => &mut self.essential,
            "Priority" => &mut self.priority,
            _ => return,
        };
        slot.clear();
        slot.push_str(value);
    }
}

/// Calls `visit` for each package of every Packages index.
///
/// # Errors
/// When apt holds no index, or one cannot be read.
pub(super) fn each_package(archive: &Archive, mut visit: impl FnMut(&Package)) -> Result<(), Error> {
    let indexes = archive.indexes()?;
    let mut any = false;
    for index in indexes.iter().filter(|i| i.kind == "Packages") {
        let file = File::open(&index.path).map_err(file_error("open", &index.path))?;
        let mut reader = BufReader::with_capacity(1 << 17, file);
        let (mut line, mut package) = (String::new(), Package::default());
        loop {
            line.clear();
            let count = reader.read_line(&mut line).map_err(file_error("read", &index.path))?;
            let text = line.trim_end_matches('\n');
            if text.is_empty() {
                if !package.name.is_empty() {
                    visit(&package);
                }
                package.clear();
            } else if !text.starts_with(' ') {
                package.take(text);
            }
            if count == 0 {
                break;
            }
        }
        any = true;
    }
    if any { Ok(()) } else { Err(Error::Index("there is none yet; fetch it first".into())) }
}
