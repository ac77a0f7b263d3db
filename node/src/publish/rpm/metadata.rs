//! `repodata`: what dnf reads. A pure function of the packages and the time.

use protocol::Timestamp;

use super::package::Entry;
use crate::resolve::digest::Digest;

/// The folder of the metadata, below the repository's root.
pub(in crate::publish) const FOLDER: &str = "repodata/";
/// The file that names the others by their digests.
pub(in crate::publish) const REPOMD: &str = "repodata/repomd.xml";
/// The signature of [`REPOMD`].
pub(in crate::publish) const SIGNATURE: &str = "repodata/repomd.xml.asc";

const HEAD: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";
const COMMON: &str = "http://linux.duke.edu/metadata/common";
const RPM: &str = "http://linux.duke.edu/metadata/rpm";
const REPO: &str = "http://linux.duke.edu/metadata/repo";

/// One of the files that list the packages.
struct Kind {
    word: &'static str,
    element: &'static str,
    namespaces: String,
    part: fn(&Entry) -> &str,
}

fn kinds() -> [Kind; 3] {
    let lists = |word| format!(" xmlns=\"http://linux.duke.edu/metadata/{word}\"");
    [
        Kind {
            word: "primary",
            element: "metadata",
            namespaces: format!(" xmlns=\"{COMMON}\" xmlns:rpm=\"{RPM}\""),
            part: |entry| &entry.primary,
        },
        Kind {
            word: "filelists",
            element: "filelists",
            namespaces: lists("filelists"),
            part: |entry| &entry.filelists,
        },
        Kind { word: "other", element: "otherdata", namespaces: lists("other"), part: |entry| &entry.other },
    ]
}

/// Writes every file of the metadata but the signature, [`REPOMD`] last. The packages come in the order of their paths.
pub(in crate::publish) fn generate(packages: &[&Entry], at: Timestamp) -> Vec<(String, Vec<u8>)> {
    let (mut files, time) = (Vec::new(), at.as_secs());
    let mut repomd = format!("{HEAD}<repomd xmlns=\"{REPO}\" xmlns:rpm=\"{RPM}\">\n  <revision>{time}</revision>\n");
    for Kind { word, element, namespaces, part } in kinds() {
        let body: String = packages.iter().map(|entry| part(entry)).collect();
        let open = format!("{HEAD}<{element}{namespaces} packages=\"{}\">\n{body}</{element}>\n", packages.len());
        let packed = crate::publish::apt::index::gzip(open.as_bytes());
        let (outer, inner) = (Digest::of(&packed), Digest::of(open.as_bytes()));
        let path = format!("{FOLDER}{}-{word}.xml.gz", outer.sha256);
        repomd += &format!(
            "  <data type=\"{word}\">\n    <checksum type=\"sha256\">{}</checksum>\n    \
             <open-checksum type=\"sha256\">{}</open-checksum>\n    <location href=\"{path}\"/>\n    \
             <timestamp>{time}</timestamp>\n    <size>{}</size>\n    <open-size>{}</open-size>\n  </data>\n",
            outer.sha256, inner.sha256, outer.size, inner.size
        );
        files.push((path, packed));
    }
    files.push((REPOMD.to_owned(), format!("{repomd}</repomd>\n").into_bytes()));
    files
}
