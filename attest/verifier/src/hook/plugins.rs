//! Where dnf looks for plugins: beside its own Python package, whichever Python it was made for. A plugin that lies elsewhere is
//! never loaded and refuses nothing, so what is not certain is refused here.
//!
//! This is dnf 4. dnf 5 and what else is made of libdnf5 loads no plugin of Python, and is not covered.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::Error;

/// Where the packages of Python lie, in every distribution.
const LIBRARIES: &str = "usr/lib";
/// What Debian and others call the folder of packages.
const PACKAGES: [&str; 2] = ["dist-packages", "site-packages"];
/// What dnf calls its folder of plugins.
const PLUGINS: &str = "dnf-plugins";
/// The settings of dnf itself.
const SETTINGS: &str = "etc/dnf/dnf.conf";
/// What is there where dnf 5 is.
const DNF5: [&str; 3] = ["usr/bin/dnf5", "usr/lib64/libdnf5", "usr/lib/libdnf5"];
/// What is said of it.
const NOT_COVERED: &str = "dnf 5 loads other plugins than this one, so it installs packages without proof";

/// Gives the folders in which each dnf of a root looks for plugins, as they are called in it.
///
/// # Errors
/// When there is none, or its settings have it look elsewhere or nowhere.
pub(super) fn folders(root: &Path) -> Result<Vec<PathBuf>, Error> {
    let folders: Vec<_> = beside_packages(root, |packages| packages.join("dnf/__init__.py").is_file());
    if folders.is_empty() {
        let five = if has_dnf5(root) {
            format!(" {NOT_COVERED}: check packages by `artel-verify` there.")
        } else {
            String::new()
        };
        return Err(Error::Hook(format!(
            "there is no dnf 4 in {} (no {LIBRARIES}/python3*/*-packages/dnf), so nothing would load the plugin, and nothing was \
             written.{five} If dnf looks for plugins elsewhere, name that folder with --plugins",
            root.display()
        )));
    }
    match setting(root, "pluginpath") {
        None => Ok(folders),
        Some(path) => Err(Error::Hook(format!(
            "{SETTINGS} has dnf look for plugins in {path}, so name one of these folders with --plugins; nothing was written"
        ))),
    }
}

/// Refuses a root whose dnf loads no plugin, or reads plugins' settings elsewhere.
///
/// # Errors
/// Words about dnf's settings.
pub(super) fn loads_plugins(root: &Path) -> Result<(), Error> {
    let off = |value: &String| ["0", "no", "false", "off"].contains(&value.to_ascii_lowercase().as_str());
    let (what, value) = match (setting(root, "plugins").filter(off), setting(root, "pluginconfpath")) {
        (None, None) => return Ok(()),
        (Some(value), _) => ("plugins", value),
        (None, Some(value)) => ("pluginconfpath", value),
    };
    Err(Error::Hook(format!(
        "{SETTINGS} says `{what} = {value}`, with which dnf would not load the plugin with its settings; take that line out first. \
         Nothing was written"
    )))
}

/// Gives what is to be said of a root beside what was written.
pub(super) fn notes(root: &Path) -> Option<String> {
    has_dnf5(root).then(|| format!("there is a dnf 5, too: {NOT_COVERED}. Only dnf 4 (`dnf-3`, `dnf4`) asks for proof"))
}

/// Gives the folders in which a plugin of this name lies, whether or not a dnf looks there any more.
pub(super) fn holding(root: &Path, name: &str) -> Vec<PathBuf> {
    beside_packages(root, |packages| packages.join(PLUGINS).join(name).exists())
}

fn beside_packages(root: &Path, wanted: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
    let entries = fs::read_dir(root.join(LIBRARIES)).into_iter().flatten().flatten();
    let pythons = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("python3"));
    let packages = pythons.flat_map(|entry| PACKAGES.map(|packages| Path::new(&entry.file_name()).join(packages)));
    let packages = packages.map(|packages| Path::new(LIBRARIES).join(packages));
    let mut found: Vec<_> =
        packages.filter(|packages| wanted(&root.join(packages))).map(|packages| packages.join(PLUGINS)).collect();
    found.sort();
    found
}

fn has_dnf5(root: &Path) -> bool {
    DNF5.iter().any(|path| root.join(path).exists())
}

/// Gives what dnf's settings say, the last word where it stands several times.
fn setting(root: &Path, name: &str) -> Option<String> {
    let text = fs::read_to_string(root.join(SETTINGS)).ok()?;
    let lines = text.lines().filter(|line| !line.trim_start().starts_with(['#', ';']));
    let pairs = lines.filter_map(|line| line.split_once(['=', ':']));
    pairs.filter(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned()).next_back()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lay(root: &Path, name: &str, text: &str) {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn refused(root: &Path) -> String {
        folders(root).and_then(|found| loads_plugins(root).map(|()| found)).unwrap_err().words()
    }

    #[test]
    fn plugins_lie_beside_dnf_whichever_python_it_is_of() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        assert!(refused(root).contains("there is no dnf 4 in"));
        // A folder of plugins alone is no dnf, and neither is dnf 5.
        lay(root, "usr/lib/python3/dist-packages/dnf-plugins/x.py", "");
        lay(root, "usr/bin/dnf5", "");
        assert!(refused(root).contains("dnf 5 loads other plugins"), "{}", refused(root));
        for python in ["usr/lib/python3.13/site-packages", "usr/lib/python3.6/site-packages"] {
            lay(root, &format!("{python}/dnf/__init__.py"), "");
        }
        let found = ["usr/lib/python3.13/site-packages/dnf-plugins", "usr/lib/python3.6/site-packages/dnf-plugins"];
        assert_eq!(folders(root).unwrap(), found.map(PathBuf::from));
        assert!(notes(root).unwrap().contains("there is a dnf 5, too"));
    }

    #[test]
    fn a_dnf_that_would_not_load_it_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        lay(root, "usr/lib/python3.9/site-packages/dnf/__init__.py", "");
        for (line, why) in [
            ("plugins=0", "says `plugins = 0`"),
            ("plugins = False", "says `plugins = False`"),
            ("pluginpath=/elsewhere", "name one of these folders with --plugins"),
            ("pluginconfpath: /elsewhere", "says `pluginconfpath = /elsewhere`"),
        ] {
            lay(root, SETTINGS, &format!("[main]\n{line}\n"));
            assert!(refused(root).contains(why), "{}", refused(root));
        }
        lay(root, SETTINGS, "[main]\n# plugins=0\nplugins=1\ngpgcheck=1\n");
        assert!(folders(root).is_ok() && loads_plugins(root).is_ok());
    }
}
