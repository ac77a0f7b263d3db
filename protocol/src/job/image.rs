//! Images: a root file system of packages, as the file formats that are asked for.

use serde::{Deserialize, Serialize};

use super::kind::{InputFile, SourceFile};
use crate::{Arch, FileName, Hash, envelope::check_set, limits, words::RelativePath};

/// All commands of one image together, in bytes: they reach the sandbox as one word.
const SETUP_BYTES_MAX: usize = 64 * 1024;

/// A file format of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImageFormat {
    /// A bootable live system: the squashfs, kernel and initial RAM disk of the image, and a boot loader.
    Iso,
    /// The root file system as a tar file.
    Tar,
    /// The root file system as ext4.
    Ext4,
    /// The root file system as squashfs.
    Squashfs,
}

impl ImageFormat {
    /// Gives the ending of the format's files.
    pub fn word(self) -> &'static str {
        match self {
            ImageFormat::Iso => "iso",
            ImageFormat::Tar => "tar",
            ImageFormat::Ext4 => "ext4",
            ImageFormat::Squashfs => "squashfs",
        }
    }
}

/// An image to make. Its environment holds the tools; what is in the image has a lock of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageJob {
    /// What the image, or the project that it belongs to, is called.
    pub name: FileName,
    /// The time that every file of the image gets at most, in seconds since 1970 (`SOURCE_DATE_EPOCH`).
    pub epoch: u64,
    /// Files that come into the image after its packages, by their paths in it; sorted by path.
    pub files: Vec<InputFile>,
    /// Commands that run in the image when everything is in it, in this order, as its root.
    pub setup: Vec<String>,
    /// The locale of the image, for instance `C.UTF-8`; any other than `C` and `C.UTF-8` needs the package `locales`.
    pub locale: String,
    /// What to make, sorted; at least one.
    pub formats: Vec<ImageFormat>,
    /// What is part of the outputs' names, most often the date.
    pub version: FileName,
    /// The host's name in the image.
    pub hostname: String,
    /// The lock of the image's packages; the file is always called [`ImageJob::LOCK`].
    pub packages: SourceFile,
    /// Which variant of the project it is, where there are several.
    pub subproject: Option<FileName>,
}

impl ImageJob {
    /// What the lock of the image's packages is called among the inputs.
    pub const LOCK: &'static str = "packages.lock";
    /// The folder of the image's packages among the inputs.
    pub const PACKAGES: &'static str = "packages";
    /// The folder of the files that come into the image among the inputs.
    pub const FILES: &'static str = "files";

    /// Says whether it is nothing but the packages of a lock as a tar file: then who reproduces it shows that this environment
    /// can be installed bit for bit the same.
    pub fn is_environment(&self) -> bool {
        self.formats == [ImageFormat::Tar] && self.files.is_empty() && self.setup.is_empty()
    }

    /// Gives every input that the request itself names, with its size and its path among the inputs. The image's packages
    /// are named by the lock.
    pub fn inputs(&self) -> impl Iterator<Item = (Hash, u64, String)> + '_ {
        let files = self.files.iter().map(|f| (f.hash, f.size, Self::input_path(f).to_string()));
        std::iter::once((self.packages.hash, self.packages.size, self.packages.name.to_string())).chain(files)
    }

    /// Gives the path among the inputs of a file that comes into the image.
    ///
    /// # Panics
    /// When the request was not checked: the path can be too long.
    pub fn input_path(file: &InputFile) -> RelativePath {
        RelativePath::new(format!("{}/{}", Self::FILES, file.path)).expect("check() tries the path")
    }

    /// Gives what all outputs' names begin with, for instance `shop-kiosk-20260711-amd64`.
    pub fn stem(&self, arch: Arch) -> String {
        let subproject = self.subproject.as_ref().map(|s| format!("-{s}")).unwrap_or_default();
        format!("{}{subproject}-{}-{arch}", self.name, self.version)
    }

    /// Gives the outputs' names, sorted.
    ///
    /// # Panics
    /// When the request was not checked: names can be too long.
    pub fn outputs(&self, arch: Arch) -> Vec<RelativePath> {
        let stem = self.stem(arch);
        let name = |format: &ImageFormat| RelativePath::new(format!("{stem}.{}", format.word()));
        let mut names: Vec<_> = self.formats.iter().map(name).map(|n| n.expect("check() tries the name")).collect();
        names.sort();
        names
    }

    pub(super) fn check(&self) -> Result<(), String> {
        check_set(
            "files of the image",
            &self.files.iter().map(|f| &f.path).collect::<Vec<_>>(),
            limits::INPUTS_MAX - 1,
        )?;
        if self.files.iter().any(|f| RelativePath::new(format!("{}/{}", Self::FILES, f.path)).is_err()) {
            return Err("a path of a file of the image is too long".into());
        }
        check_set("formats of the image", &self.formats, 8)?;
        if self.epoch > u64::from(u32::MAX) {
            return Err("the image's date is after the year 2106".into());
        }
        if self.formats.is_empty() {
            return Err("an image has at least one format".into());
        }
        if self.packages.name.as_str() != Self::LOCK || self.packages.size > limits::LOCK_MAX as u64 {
            return Err(format!(
                "an image's packages are a lock called {} of at most {} bytes",
                Self::LOCK,
                limits::LOCK_MAX
            ));
        }
        if Arch::EVERY.iter().any(|arch| FileName::new(format!("{}.squashfs", self.stem(*arch))).is_err()) {
            return Err("name, subproject and version of an image are too long together".into());
        }
        if !word(&self.locale, 32, "._@-") {
            return Err("a locale is written like C.UTF-8 or de_CH.UTF-8".into());
        }
        if !word(&self.hostname, 63, ".-") || self.hostname.starts_with(['-', '.']) {
            return Err("a host's name has up to 63 of A-Z a-z 0-9 - and .".into());
        }
        let bytes: usize = self.setup.iter().map(String::len).sum();
        if self.setup.len() > limits::ARGUMENTS_MAX
            || bytes > SETUP_BYTES_MAX
            || self.setup.iter().any(|c| c.contains('\0'))
        {
            return Err(format!(
                "an image has at most {} commands of {SETUP_BYTES_MAX} bytes in all, without NUL",
                limits::ARGUMENTS_MAX
            ));
        }
        Ok(())
    }
}

fn word(text: &str, max: usize, more: &str) -> bool {
    !text.is_empty() && text.len() <= max && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
}
