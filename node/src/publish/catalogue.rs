//! What a repository of this node has, to be found by name and by digest: made from a release's manifest, and as small as that
//! allows (about 150 bytes a package). It believes the manifest and reads no file.

use std::collections::BTreeMap;

use protocol::{Arch, ChannelName, Sha256, release::Manifest};

/// The packages of one release.
#[derive(Debug)]
pub struct Catalogue {
    channel: ChannelName,
    /// Names, versions and paths, one after the other.
    texts: String,
    /// Sorted by name, version (as text), architecture and path.
    rows: Vec<Row>,
    /// Rows sorted by what was attested.
    attested: Vec<u32>,
    /// Rows of RPMs by the digest of the file itself, into which its publisher put a signature.
    signed: Vec<(Sha256, u32)>,
}

#[derive(Debug)]
struct Row {
    name: u32,
    version: u32,
    path: u32,
    end: u32,
    arch: Arch,
    sha256: Sha256,
}

/// One package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its version.
    pub version: &'a str,
    /// Its architecture.
    pub arch: Arch,
    /// Where its file lies, below the repository's root.
    pub path: &'a str,
    /// What its builders attested.
    pub sha256: &'a Sha256,
}

impl<'a> Entry<'a> {
    /// Gives the file's name.
    pub fn file(&self) -> &'a str {
        self.path.rsplit('/').next().unwrap_or(self.path)
    }

    /// Gives what orders the packages of a catalogue.
    pub fn key(&self) -> Key<'a> {
        (self.name, self.version, self.arch.name(), self.path)
    }
}

/// Name, version, architecture and path.
pub type Key<'a> = (&'a str, &'a str, &'a str, &'a str);

impl Catalogue {
    /// Makes the catalogue of a channel's release.
    pub fn of(channel: &ChannelName, manifest: &Manifest) -> Self {
        let mut texts = String::new();
        let mut put = |text: &str| {
            let at = place(texts.len());
            texts.push_str(text);
            at
        };
        let (mut rows, mut files) = (Vec::new(), BTreeMap::new());
        for package in &manifest.packages {
            let Some(file) = manifest.file(&package.path) else { continue };
            let name = put(package.name.as_str());
            let (version, path) = (put(package.version.as_str()), put(package.path.as_str()));
            let sha256 = package.attested.unwrap_or(file.sha256);
            rows.push(Row { name, version, path, end: put(""), arch: package.arch, sha256 });
            if file.sha256 != sha256 {
                files.insert(path, file.sha256);
            }
        }
        texts.shrink_to_fit();
        let mut catalogue =
            Self { channel: channel.clone(), texts, rows: Vec::new(), attested: Vec::new(), signed: Vec::new() };
        rows.sort_by(|a, b| catalogue.entry(a).key().cmp(&catalogue.entry(b).key()));
        catalogue.rows = rows;
        catalogue.attested = (0..place(catalogue.rows.len())).collect();
        catalogue.attested.sort_by_key(|at| catalogue.rows[*at as usize].sha256);
        let own = |(at, row): (usize, &Row)| Some((*files.get(&row.path)?, place(at)));
        catalogue.signed = catalogue.rows.iter().enumerate().filter_map(own).collect();
        catalogue.signed.sort_unstable();
        catalogue
    }

    /// Gives the channel.
    pub fn channel(&self) -> &ChannelName {
        &self.channel
    }

    /// Gives the packages after a place, in order; from the beginning without one.
    pub fn after<'a>(&'a self, key: Option<Key<'a>>) -> impl Iterator<Item = Entry<'a>> {
        let start = key.map_or(0, |key| self.rows.partition_point(|row| self.entry(row).key() <= key));
        self.rows[start..].iter().map(|row| self.entry(row))
    }

    /// Gives the files of one package.
    pub fn named<'a>(&'a self, name: &'a str, version: &'a str, arch: Arch) -> impl Iterator<Item = Entry<'a>> {
        let first = (name, version, arch.name(), "");
        let start = self.rows.partition_point(|row| self.entry(row).key() < first);
        let of_it = move |entry: &Entry<'_>| (entry.name, entry.version, entry.arch) == (name, version, arch);
        self.rows[start..].iter().map(|row| self.entry(row)).take_while(of_it)
    }

    /// Gives the files whose digest begins so: of what was attested, and of RPMs the file's own too.
    pub fn with_digest<'a>(&'a self, prefix: &'a [u8]) -> impl Iterator<Item = Entry<'a>> {
        let of = |at: &u32| &self.rows[*at as usize];
        let start = self.attested.partition_point(|at| of(at).sha256.as_bytes().as_slice() < prefix);
        let attested = self.attested[start..].iter().map(of);
        let attested = attested.take_while(move |row| row.sha256.as_bytes().starts_with(prefix));
        let start = self.signed.partition_point(|(sha256, _)| sha256.as_bytes().as_slice() < prefix);
        let signed = self.signed[start..].iter().take_while(move |(sha256, _)| sha256.as_bytes().starts_with(prefix));
        attested.chain(signed.map(move |(_, at)| of(at))).map(|row| self.entry(row))
    }

    fn entry<'a>(&'a self, row: &'a Row) -> Entry<'a> {
        let text = |from: u32, to: u32| &self.texts[from as usize..to as usize];
        Entry {
            name: text(row.name, row.version),
            version: text(row.version, row.path),
            arch: row.arch,
            path: text(row.path, row.end),
            sha256: &row.sha256,
        }
    }
}

/// A manifest is far smaller than 4 GiB.
fn place(at: usize) -> u32 {
    u32::try_from(at).expect("a manifest's texts and packages are fewer than 2^32")
}

#[cfg(test)]
mod tests {
    use protocol::{
        Hash, JobId,
        release::{PublishedPackage, ReleaseFile},
    };

    use super::*;

    fn manifest(packages: &[(&str, &str, &str)]) -> Manifest {
        let (mut files, mut listed) = (Vec::new(), Vec::new());
        for (name, version, end) in packages {
            let path = format!("pool/{name}_{version}_{end}").parse().unwrap();
            let bytes = format!("{name} {version}");
            let sha256 = Sha256::of(bytes.as_bytes());
            let rpm = end.ends_with(".rpm");
            files.push(ReleaseFile { hash: Hash::of(bytes.as_bytes()), path, size: 1, sha256 });
            listed.push(PublishedPackage {
                job: JobId::from_bytes([1; 32]),
                arch: Arch::Amd64,
                name: name.parse().unwrap(),
                path: files.last().unwrap().path.clone(),
                bundle: Hash::of(b"bundle"),
                version: version.parse().unwrap(),
                attested: rpm.then(|| Sha256::of(b"unsigned")),
            });
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        listed.sort_by(|a, b| a.path.cmp(&b.path));
        Manifest { files, packages: listed }
    }

    /// As many packages as Debian 12 has binary packages for one architecture.
    #[test]
    fn a_whole_distribution_is_small_and_found_at_once() {
        let names: Vec<String> = (0..69_000).map(|at| format!("library-number-{at:06}")).collect();
        let manifest =
            manifest(&names.iter().map(|name| (name.as_str(), "1.2.3-4+deb12u1", "amd64.deb")).collect::<Vec<_>>());
        let catalogue = Catalogue::of(&"main".parse().unwrap(), &manifest);
        let bytes = catalogue.texts.capacity()
            + catalogue.rows.capacity() * size_of::<Row>()
            + catalogue.attested.capacity() * size_of::<u32>();
        println!("{} packages, {bytes} bytes, {} a package", names.len(), bytes / names.len());
        assert!(bytes / names.len() < 200, "{bytes}");
        let sha256 = Sha256::of(format!("{} 1.2.3-4+deb12u1", names[4711]).as_bytes());
        assert_eq!(
            catalogue.with_digest(sha256.as_bytes()).map(|entry| entry.name).collect::<Vec<_>>(),
            [&names[4711]]
        );
    }

    fn names(entries: impl Iterator<Item = (String, String)>) -> Vec<String> {
        entries.map(|(name, version)| format!("{name} {version}")).collect()
    }

    fn told(entry: Entry<'_>) -> (String, String) {
        (entry.name.to_owned(), entry.version.to_owned())
    }

    #[test]
    fn packages_are_found_by_name_by_digest_and_in_order() {
        let manifest = manifest(&[
            ("bb", "2", "amd64.deb"),
            ("bb", "10", "amd64.deb"),
            ("aa", "1", "amd64.deb"),
            ("bbb", "1", "amd64.deb"),
            ("rr", "1", "x.rpm"),
        ]);
        let channel = "main".parse().unwrap();
        let catalogue = Catalogue::of(&channel, &manifest);
        assert_eq!(names(catalogue.after(None).map(told)), ["aa 1", "bb 10", "bb 2", "bbb 1", "rr 1"]);
        let second = catalogue.after(None).nth(1).unwrap();
        assert_eq!(names(catalogue.after(Some(second.key())).map(told)), ["bb 2", "bbb 1", "rr 1"]);
        assert_eq!(names(catalogue.after(Some(("bb", "1", "", ""))).map(told)), ["bb 10", "bb 2", "bbb 1", "rr 1"]);
        assert_eq!(names(catalogue.named("bb", "2", Arch::Amd64).map(told)), ["bb 2"]);
        assert_eq!(
            catalogue.named("bb", "2", Arch::Arm64).count() + catalogue.named("bb", "3", Arch::Amd64).count(),
            0
        );
        let digest = |text: &[u8], bytes: usize| {
            let sha256 = Sha256::of(text);
            names(catalogue.with_digest(&sha256.as_bytes()[..bytes]).map(told))
        };
        assert_eq!((digest(b"bb 2", 32), digest(b"bb 2", 12)), (vec!["bb 2".to_owned()], vec!["bb 2".to_owned()]));
        assert_eq!(digest(b"nothing", 12), Vec::<String>::new());
        // An RPM is found by the file that the repository has and by what was attested.
        assert_eq!((digest(b"rr 1", 32), digest(b"unsigned", 32)), (vec!["rr 1".to_owned()], vec!["rr 1".to_owned()]));
        assert_eq!(catalogue.with_digest(Sha256::of(b"rr 1").as_bytes()).next().unwrap().file(), "rr_1_x.rpm");
        assert_eq!(Catalogue::of(&channel, &Manifest { files: vec![], packages: vec![] }).after(None).count(), 0);
    }
}
