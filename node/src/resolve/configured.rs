//! The machine's configured apt sources, read and narrowed to one suite. It writes nothing and asks nobody.
//!
//! Both formats of sources.list(5) are read. What is kept is written anew as deb822 stanzas of `deb deb-src`, without the
//! options that switch apt's checks off (`Trusted`, `Allow-Insecure` and their kind).

use std::{fs, path::Path};

/// Options that go over into the private directory; everything else, above all `Trusted`, stays behind.
const KEPT_OPTIONS: &[&str] = &[
    "Signed-By",
    "Check-Valid-Until",
    "Valid-Until-Max",
    "Date-Max-Future",
    "Check-Date",
    "InRelease-Path",
    "By-Hash",
];

/// The largest sources file that is read, in bytes.
const SOURCES_MAX: u64 = 1024 * 1024;

/// One configured source: addresses, suites and components that belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) uris: Vec<String>,
    pub(super) suites: Vec<String>,
    components: Vec<String>,
    arches: Vec<String>,
    options: Vec<(String, String)>,
}

impl Entry {
    /// Writes the entry as a stanza of binary and source packages.
    fn stanza(&self) -> String {
        // From file: apt would use packages in place; from copy: it brings them to where the lock's files lie.
        let reachable = |uri: &String| uri.strip_prefix("file:").map_or(uri.clone(), |path| format!("copy:{path}"));
        let uris: Vec<_> = self.uris.iter().map(reachable).collect();
        let mut out = format!(
            "Types: deb deb-src\nURIs: {}\nSuites: {}\nComponents: {}\n",
            uris.join(" "),
            self.suites.join(" "),
            self.components.join(" ")
        );
        for (name, value) in &self.options {
            out += &format!("{name}: {value}\n");
        }
        out
    }
}

/// Writes entries as one deb822 file.
pub(super) fn write(entries: &[Entry]) -> String {
    entries.iter().map(Entry::stanza).collect::<Vec<_>>().join("\n")
}

/// Reads every source that apt would read below an `etc/apt` directory, in apt's order.
pub(super) fn read(etc: &Path) -> Vec<Entry> {
    let mut entries = Vec::new();
    if let Some(text) = text(&etc.join("sources.list")) {
        entries.extend(one_line(&text));
    }
    let mut parts: Vec<_> =
        fs::read_dir(etc.join("sources.list.d")).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    parts.sort();
    for path in parts {
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        match extension {
            "list" => entries.extend(text(&path).iter().flat_map(|t| one_line(t))),
            "sources" => entries.extend(text(&path).iter().flat_map(|t| deb822(t))),
            _ => {}
        }
    }
    entries
}

/// Keeps what belongs to a suite (`S`, `S-updates`, `S-security`, `S/updates`) and serves an architecture.
pub(super) fn narrow(entries: &[Entry], suite: &str, arch: &str) -> Vec<Entry> {
    let belongs = |s: &String| {
        s.strip_prefix(suite).is_some_and(|rest| ["", "-updates", "-security", "/updates"].contains(&rest))
    };
    let mut kept = Vec::new();
    for entry in entries.iter().filter(|e| e.arches.is_empty() || e.arches.iter().any(|a| a == arch)) {
        let suites: Vec<_> = entry.suites.iter().filter(|s| belongs(s)).cloned().collect();
        let narrowed = Entry { suites, ..entry.clone() };
        if !narrowed.suites.is_empty() && !narrowed.components.is_empty() && !kept.contains(&narrowed) {
            kept.push(narrowed);
        }
    }
    kept
}

fn text(path: &Path) -> Option<String> {
    let small = fs::metadata(path).is_ok_and(|m| m.is_file() && m.len() <= SOURCES_MAX);
    small.then(|| fs::read_to_string(path).ok()).flatten()
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// Reads the one-line format: `deb [ option=value ... ] uri suite component ...`.
fn one_line(text: &str) -> Vec<Entry> {
    text.lines().filter_map(one_source).collect()
}

fn one_source(line: &str) -> Option<Entry> {
    let line = line.split('#').next().unwrap_or_default().trim();
    let rest = line.strip_prefix("deb ").or_else(|| line.strip_prefix("deb\t"))?.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(inner) => inner.split_once(']')?,
        None => ("", rest),
    };
    let mut parts = rest.split_whitespace().map(str::to_owned);
    let (uri, suite) = (parts.next()?, parts.next()?);
    let mut entry =
        Entry { uris: vec![uri], suites: vec![suite], components: parts.collect(), arches: vec![], options: vec![] };
    for (name, value) in options.split_whitespace().filter_map(|o| o.split_once('=')) {
        if name.eq_ignore_ascii_case("arch") {
            entry.arches = value.split(',').map(str::to_owned).collect();
        } else if let Some(kept) = KEPT_OPTIONS.iter().find(|k| k.eq_ignore_ascii_case(name)) {
            entry.options.push(((*kept).into(), value.replace(',', " ")));
        }
    }
    usable(&entry).then_some(entry)
}

/// Reads the deb822 format.
fn deb822(text: &str) -> Vec<Entry> {
    // The parser that we use refuses comments between continuation lines, which apt allows.
    let text: String = text.lines().filter(|l| !l.starts_with('#')).map(|l| format!("{l}\n")).collect();
    let Ok(parsed) = text.parse::<deb822_fast::Deb822>() else { return Vec::new() };
    parsed.iter().filter_map(stanza).collect()
}

fn stanza(paragraph: &deb822_fast::Paragraph) -> Option<Entry> {
    let get = |name: &str| paragraph.get(name).unwrap_or_default();
    let off =
        ["no", "false", "0", "off", "without", "disable"].contains(&get("Enabled").trim().to_lowercase().as_str());
    if off || !words(get("Types")).iter().any(|t| t == "deb") {
        return None;
    }
    let kept = |name: &&str| paragraph.get(name).map(|value| ((*name).to_owned(), value.replace('\n', "\n ")));
    let entry = Entry {
        uris: words(get("URIs")),
        suites: words(get("Suites")),
        components: words(get("Components")),
        arches: words(get("Architectures")),
        options: KEPT_OPTIONS.iter().filter_map(kept).collect(),
    };
    usable(&entry).then_some(entry)
}

/// A disc in a drive is no archive that another step could reach again.
fn usable(entry: &Entry) -> bool {
    !entry.uris.is_empty() && !entry.uris.iter().any(|u| u.starts_with("cdrom:"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_format_keeps_the_key_and_drops_trust() {
        let entries = one_line(
            "# comment\ndeb [arch=amd64,arm64 trusted=yes signed-by=/k.gpg] http://a.example/d bookworm main contrib # x\n\
             deb-src http://a.example/d bookworm main\ndeb cdrom:[disc]/ bookworm main\n",
        );
        let kept = write(&narrow(&entries, "bookworm", "amd64"));
        assert_eq!(
            kept,
            "Types: deb deb-src\nURIs: http://a.example/d\nSuites: bookworm\nComponents: main contrib\nSigned-By: /k.gpg\n"
        );
        assert_eq!(narrow(&entries, "bookworm", "s390x"), []);
    }

    #[test]
    fn deb822_format_keeps_an_inline_key_and_only_the_suite() {
        let text = "Types: deb\n# a note\nURIs: http://a.example/d\nSuites: trixie trixie-updates trixie-backports\n\
                    Components: main\nTrusted: yes\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abcd\n\n\
                    Types: deb\nURIs: http://b.example\nSuites: nodistro\nComponents: main\n\n\
                    Enabled: no\nTypes: deb\nURIs: http://c.example\nSuites: trixie\nComponents: main\n";
        let kept = write(&narrow(&deb822(text), "trixie", "amd64"));
        assert!(kept.contains("Suites: trixie trixie-updates\n"), "{kept}");
        assert!(kept.contains("Signed-By: \n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abcd\n"), "{kept}");
        assert!(!kept.contains("Trusted") && !kept.contains("b.example") && !kept.contains("c.example"), "{kept}");
    }
}
