//! From a recipe to an image job: placeholders filled in, the packages and the tools locked, every file hashed.
//!
//! A recipe is read once, here; what is signed is what came of it, so a node that builds reads no recipe.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use protocol::{
    Arch, ChannelName, FileName, Hash, PackageName, Sha256, Timestamp,
    job::{ImageFormat, ImageJob, InputFile, JobKind, SourceFile},
    words::RelativePath,
};
use serde::Deserialize;

use super::{Error, Prepared, locked_files};
use crate::{
    bounded,
    resolve::{
        archive::{Archive, Refresh},
        digest::Digest,
        further::{self, Repository},
        lock::{self, Base},
    },
};

/// The largest recipe, in bytes.
pub(crate) const RECIPE_MAX: usize = 256 * 1024;
/// The largest key of a repository, in bytes.
const KEY_MAX: u64 = 1 << 20;

/// Where keys and sources of repositories lie in an image.
const KEYS: &str = "usr/share/keyrings";
const SOURCES: &str = "etc/apt/sources.list.d";

/// An image as people write it. Texts may hold placeholders: `@NAME@`, `@SUBPROJECT@`, `@VERSION@`, `@DATE@`, `@ARCH@`,
/// `@SUITE@`, `@CHANNEL@`, `@HOSTNAME@`, `@LOCALE@` and `@REPOSITORY@`, this network's own repository of the channel.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// What the image is called.
    pub name: FileName,
    /// Which variant it is.
    pub subproject: Option<FileName>,
    /// What is part of the outputs' names.
    #[serde(default = "date")]
    pub version: String,
    /// The time of its files, in seconds since 1970; otherwise the archive's own.
    pub epoch: Option<u64>,
    /// What to make.
    pub formats: Vec<ImageFormat>,
    /// What it has that is not named.
    #[serde(default = "apt")]
    pub base: Base,
    /// What it has beside that.
    #[serde(default)]
    pub packages: Vec<PackageName>,
    /// The host's name in it.
    #[serde(default = "name")]
    pub hostname: String,
    /// Its locale.
    #[serde(default = "locale")]
    pub locale: String,
    /// Commands that run in it at the end.
    #[serde(default)]
    pub setup: Vec<String>,
    /// Files that come into it, by their paths in it.
    #[serde(default)]
    pub files: BTreeMap<RelativePath, Content>,
    /// Further repositories for its packages.
    #[serde(default)]
    pub repositories: Vec<Source>,
    /// Variants, by name: what each has beside the recipe, or otherwise.
    #[serde(default)]
    pub variants: BTreeMap<FileName, Overlay>,
}

/// A variant of a recipe.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Overlay {
    /// Which variant it is; otherwise its name.
    pub subproject: Option<FileName>,
    /// What to make, instead of the recipe's.
    pub formats: Option<Vec<ImageFormat>>,
    /// The host's name, instead of the recipe's.
    pub hostname: Option<String>,
    /// The locale, instead of the recipe's.
    pub locale: Option<String>,
    /// Packages beside the recipe's.
    #[serde(default)]
    pub packages: Vec<PackageName>,
    /// Commands after the recipe's.
    #[serde(default)]
    pub setup: Vec<String>,
    /// Files beside the recipe's, or in their place.
    #[serde(default)]
    pub files: BTreeMap<RelativePath, Content>,
}

/// A file of an image.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Content {
    /// As it lies, relative to the recipe.
    File(PathBuf),
    /// What the recipe says.
    Text {
        /// The text, with placeholders.
        text: String,
    },
}

/// A further repository.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, untagged)]
pub enum Source {
    /// This network's own, of a channel that the node serves.
    Own {
        /// The channel.
        channel: ChannelName,
    },
    /// Another one.
    Other {
        /// Where it is.
        uri: String,
        /// The suite.
        suite: String,
        /// Its components.
        #[serde(default = "main")]
        components: Vec<String>,
        /// The key's file, relative to the recipe.
        key: PathBuf,
    },
}

/// What a recipe depends on beside itself.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// The channel that the job is for.
    pub channel: ChannelName,
    /// Where images reach the network's repositories, for instance `https://artel.example`.
    pub address: String,
    /// The network's repositories that the node serves, as this machine reaches them.
    pub own: Vec<(ChannelName, Repository)>,
    /// The time.
    pub now: Timestamp,
}

impl Surroundings {
    fn repository(&self, channel: &ChannelName) -> String {
        format!("{}/repo/{channel}/", self.address.trim_end_matches('/'))
    }
}

fn date() -> String {
    "@DATE@".into()
}

fn name() -> String {
    "@NAME@".into()
}

fn locale() -> String {
    "C.UTF-8".into()
}

fn apt() -> Base {
    Base::Apt
}

fn main() -> Vec<String> {
    vec!["main".into()]
}

impl Recipe {
    /// Reads a recipe.
    ///
    /// # Errors
    /// When it is not valid.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = bounded::read_text(path, RECIPE_MAX as u64);
        let text = text.map_err(|source| Error::Read { path: path.to_owned(), source })?;
        toml::from_str(&text).map_err(|source| Error::Recipe { path: path.to_owned(), source: Box::new(source) })
    }

    /// Gives the recipe of one of its variants.
    ///
    /// # Errors
    /// When it has no such variant.
    pub fn variant(&self, name: &FileName) -> Result<Self, Error> {
        let Some(overlay) = self.variants.get(name).cloned() else {
            let known: Vec<&str> = self.variants.keys().map(FileName::as_str).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(Error::Request(format!("the recipe has no variant {name}; it has {known}")));
        };
        let mut recipe = self.clone();
        recipe.subproject = Some(overlay.subproject.unwrap_or_else(|| name.clone()));
        recipe.formats = overlay.formats.unwrap_or(recipe.formats);
        recipe.hostname = overlay.hostname.unwrap_or(recipe.hostname);
        recipe.locale = overlay.locale.unwrap_or(recipe.locale);
        recipe.packages.extend(overlay.packages);
        recipe.setup.extend(overlay.setup);
        recipe.files.extend(overlay.files);
        recipe.variants.clear();
        Ok(recipe)
    }

    /// Gives the packages of the environment: the tools for the formats.
    fn tools(&self, arch: Arch) -> Result<Vec<PackageName>, Error> {
        let mut tools = vec!["mmdebstrap", "apt-utils"];
        for format in &self.formats {
            match format {
                ImageFormat::Tar => {}
                ImageFormat::Squashfs => tools.push("squashfs-tools"),
                ImageFormat::Ext4 => tools.push("e2fsprogs"),
                ImageFormat::Iso if arch != Arch::Amd64 => {
                    return Err(Error::Request(format!("a live system starts on amd64 only, not on {arch}")));
                }
                ImageFormat::Iso => tools.extend(["squashfs-tools", "xorriso", "isolinux", "syslinux-common"]),
            }
        }
        tools.sort_unstable();
        tools.dedup();
        Ok(tools.into_iter().map(|tool| PackageName::new(tool).expect("the tools' names are valid")).collect())
    }

    fn generates_locale(&self) -> bool {
        self.locale != "C" && !self.locale.starts_with("C.")
    }
}

/// What stands for what in a recipe's texts.
struct Placeholders(Vec<(&'static str, String)>);

impl Placeholders {
    /// Fills in; a name that stands for nothing is an error, or a misspelt one would end up in the image.
    fn fill(&self, text: &str) -> Result<String, Error> {
        let text = self.0.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("@{name}@"), value));
        let upper = |word: &str| word.len() > 1 && word.bytes().all(|b| b.is_ascii_uppercase());
        match text.split('@').skip(1).find(|word| upper(word) && text.contains(&format!("@{word}@"))) {
            Some(word) => {
                let known: Vec<_> = self.0.iter().map(|(name, _)| format!("@{name}@")).collect();
                Err(Error::Request(format!("@{word}@ stands for nothing; known are {}", known.join(" "))))
            }
            None => Ok(text),
        }
    }
}

/// Prepares the image of a recipe that lies in `folder`. Blocking: runs apt.
///
/// # Errors
/// When the packages cannot be locked, a file cannot be read, or the recipe asks for what cannot be had.
pub fn image(archive: &Archive, recipe: &Recipe, folder: &Path, around: &Surroundings) -> Result<Prepared, Error> {
    let repositories = repositories(recipe, folder, around)?;
    let tools = lock::lock_plain(archive, &recipe.tools(archive.arch())?)?;
    let further: Vec<Repository> = repositories.iter().map(|(repository, _)| repository.clone()).collect();
    let whole = further::with(archive, &further)?;
    whole.update(around.now, Refresh::WhenStale)?;
    let mut packages = recipe.packages.clone();
    if recipe.generates_locale() {
        packages.push(PackageName::new("locales").expect("a valid name"));
    }
    let system = lock::lock_system(&whole, recipe.base, &packages)?;
    // A further repository may have been published just now; the machine's own archive is older than any build.
    let epoch = recipe.epoch.unwrap_or(tools.lock.epoch);
    if epoch > around.now.as_secs() {
        return Err(Error::Request(format!("the epoch {epoch} lies in the future")));
    }
    let placeholders = placeholders(recipe, archive, around, epoch)?;
    let mut store = Store::open(archive)?;
    for (number, (repository, address)) in repositories.iter().enumerate() {
        store.keep(number, repository, address)?;
    }
    for (path, content) in &recipe.files {
        match content {
            Content::File(from) => store.take(path, beside(folder, from)?)?,
            Content::Text { text } => store.write(path, placeholders.fill(text)?.as_bytes())?,
        }
    }
    let bytes = system.lock.to_bytes();
    let (hash, sha256, size) = (Hash::of(&bytes), Sha256::of(&bytes), bytes.len() as u64);
    store.put(&bytes)?;
    let fill = |text: &String| placeholders.fill(text);
    let mut formats = recipe.formats.clone();
    formats.sort();
    let job = ImageJob {
        name: recipe.name.clone(),
        epoch,
        files: store.inputs.into_values().collect(),
        setup: recipe.setup.iter().map(fill).collect::<Result<_, _>>()?,
        locale: recipe.locale.clone(),
        formats,
        version: word(&fill(&recipe.version)?)?,
        hostname: fill(&recipe.hostname)?,
        packages: SourceFile { hash, name: word(ImageJob::LOCK)?, size, sha256 },
        subproject: recipe.subproject.clone(),
    };
    let mut files = store.files;
    files.extend(locked_files(&system).chain(locked_files(&tools)));
    Ok(Prepared { kind: JobKind::Image(job), lock: tools.lock, files })
}

/// Gives the day of a time in seconds since 1970, as `@DATE@` has it.
pub(super) fn day(epoch: u64) -> String {
    let seconds = i64::try_from(epoch).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::MAX).strftime("%Y%m%d").to_string()
}

fn word(text: &str) -> Result<FileName, Error> {
    FileName::new(text).map_err(|error| Error::Request(error.to_string()))
}

fn placeholders(recipe: &Recipe, archive: &Archive, around: &Surroundings, epoch: u64) -> Result<Placeholders, Error> {
    let date = day(epoch);
    let mut known = Placeholders(vec![
        ("DATE", date),
        ("NAME", recipe.name.to_string()),
        ("SUBPROJECT", recipe.subproject.as_ref().map(ToString::to_string).unwrap_or_default()),
        ("ARCH", archive.arch().to_string()),
        ("SUITE", archive.suite().to_string()),
        ("CHANNEL", around.channel.to_string()),
        ("LOCALE", recipe.locale.clone()),
        ("REPOSITORY", around.repository(&around.channel)),
    ]);
    // These two may hold the others.
    for (name, text) in [("VERSION", &recipe.version), ("HOSTNAME", &recipe.hostname)] {
        let value = known.fill(text)?;
        known.0.push((name, value));
    }
    Ok(known)
}

/// Gives a file that lies in the recipe's folder or below it. A recipe may be somebody else's: it must not name, nor reach by a
/// link, the other files of whoever submits it, for they would be published.
fn beside(folder: &Path, name: &Path) -> Result<PathBuf, Error> {
    let path = folder.join(name);
    let real = |path: &Path| path.canonicalize().map_err(|source| Error::Read { path: path.to_owned(), source });
    if real(&path)?.starts_with(real(folder)?) {
        Ok(path)
    } else {
        Err(Error::Request(format!("{} lies outside the recipe's folder: copy it there", name.display())))
    }
}

/// Gives each repository and where the image reaches it.
fn repositories(recipe: &Recipe, folder: &Path, around: &Surroundings) -> Result<Vec<(Repository, String)>, Error> {
    recipe.repositories.iter().map(|source| repository(source, folder, around)).collect()
}

fn repository(source: &Source, folder: &Path, around: &Surroundings) -> Result<(Repository, String), Error> {
    match source {
        Source::Own { channel } => {
            let own = around.own.iter().find(|(served, _)| served == channel);
            let missing = || Error::Request(format!("this node serves no repository of channel {channel}"));
            let (_, repository) = own.ok_or_else(missing)?;
            Ok((repository.clone(), around.repository(channel)))
        }
        Source::Other { uri, suite, components, key } => {
            let plain = |text: &String| !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic());
            if !plain(uri) || !plain(suite) || !components.iter().all(plain) {
                return Err(Error::Request("a repository's uri, suite and components are words without spaces".into()));
            }
            let path = beside(folder, key)?;
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !name.ends_with(".asc") && !name.ends_with(".gpg") {
                return Err(Error::Request(format!("the key {name} must end in .asc (text) or .gpg")));
            }
            let (key_name, components) = (word(&name)?, components.clone());
            let key = bounded::read(&path, KEY_MAX).map_err(|source| Error::Read { path, source })?;
            let repository = Repository { uri: uri.clone(), suite: suite.clone(), components, key_name, key };
            Ok((repository, uri.clone()))
        }
    }
}

/// The files of an image that are made here, and those that are taken.
struct Store {
    folder: PathBuf,
    files: Vec<(Hash, PathBuf)>,
    inputs: BTreeMap<RelativePath, InputFile>,
}

impl Store {
    fn open(archive: &Archive) -> Result<Self, Error> {
        let folder = archive.debs().with_file_name("generated");
        fs::create_dir_all(&folder).map_err(|source| Error::Read { path: folder.clone(), source })?;
        Ok(Self { folder, files: Vec::new(), inputs: BTreeMap::new() })
    }

    fn take(&mut self, path: &RelativePath, from: PathBuf) -> Result<(), Error> {
        let got = Digest::of_file(&from).map_err(|source| Error::Read { path: from.clone(), source })?;
        let (hash, size, sha256) = (got.hash, got.size, got.sha256);
        self.inputs.insert(path.clone(), InputFile { hash, path: path.clone(), size, sha256 });
        self.files.push((hash, from));
        Ok(())
    }

    fn write(&mut self, path: &RelativePath, bytes: &[u8]) -> Result<(), Error> {
        self.name(path, bytes);
        self.put(bytes)
    }

    fn name(&mut self, path: &RelativePath, bytes: &[u8]) {
        let (hash, sha256, size) = (Hash::of(bytes), Sha256::of(bytes), bytes.len() as u64);
        self.inputs.insert(path.clone(), InputFile { hash, path: path.clone(), size, sha256 });
    }

    /// Keeps bytes in a file of their hash, for the upload.
    fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let hash = Hash::of(bytes);
        let path = self.folder.join(hash.to_string());
        fs::write(&path, bytes).map_err(|source| Error::Read { path: path.clone(), source })?;
        self.files.push((hash, path));
        Ok(())
    }

    /// Has the image use a repository at an address: its key and its stanza.
    fn keep(&mut self, number: usize, repository: &Repository, address: &str) -> Result<(), Error> {
        let name = format!("artel-{number}-{}", repository.key_name);
        let kept = Repository { key_name: word(&name)?, uri: address.to_owned(), ..repository.clone() };
        let at = |path: String| RelativePath::new(path).map_err(|error| Error::Request(error.to_string()));
        self.write(&at(format!("{KEYS}/{name}"))?, &repository.key)?;
        self.write(&at(format!("{SOURCES}/artel-{number}.sources"))?, kept.stanza(&format!("/{KEYS}")).as_bytes())
    }
}

#[cfg(test)]
mod tests;
