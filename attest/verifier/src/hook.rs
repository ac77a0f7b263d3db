//! Installing the hooks of apt and dnf, and taking them out again: files below `/etc` and dnf's folder of plugins, each with a head that
//! says who wrote it.
//!
//! | file | what it does |
//! |---|---|
//! | `etc/apt/apt.conf.d/90artel` | has apt run `<program> apt-hook run` before dpkg |
//! | `usr/lib/python3/dist-packages/dnf-plugins/artel.py` | has dnf ask `<program>` before it runs a transaction |
//! | `etc/dnf/plugins/artel.conf` | says to that which program, which policy file and which repositories |

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    Error, Verifier,
    apt::{Marks, Scope},
    now,
};

/// How every file that is written here begins, behind the sign of a comment.
const HEAD: &str = "Written by `artel";
/// Apt's setting.
const APT: &str = "etc/apt/apt.conf.d/90artel";
/// Folders of dnf's plugins, Debian's first: below one of them dnf looks.
const DNF_PLUGINS: [&str; 2] =
    ["usr/lib/python3/dist-packages/dnf-plugins", "usr/lib/python3/site-packages/dnf-plugins"];
/// The settings of dnf's plugin.
const DNF: &str = "etc/dnf/plugins/artel.conf";
/// The plugin itself.
const PLUGIN: &str = include_str!("hook/dnf.py");

/// What is to be installed.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Below which folder: `/`, or the root of another system.
    pub root: PathBuf,
    /// The program that the hooks run, as it is called in that root.
    pub program: PathBuf,
    /// The policy file, as it is called in that root.
    pub policy: PathBuf,
    /// Which packages apt must have proven.
    pub scope: Scope,
    /// Which repositories' packages dnf must have proven, by the patterns of their ids; every one's by `*`.
    pub repositories: Vec<String>,
    /// Where dnf looks for plugins, where that is another folder than Debian's.
    pub plugins: Option<PathBuf>,
}

/// A package manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manager {
    /// apt.
    Apt,
    /// dnf.
    Dnf,
}

impl Setup {
    /// Writes the hook, and gives words for people: each file, and what is still to be done.
    ///
    /// # Errors
    /// When a name cannot stand in a setting, or a file cannot be written.
    pub fn install(&self, manager: Manager) -> Result<Vec<String>, Error> {
        let (marks, mut notes) = match (manager, &self.scope) {
            (Manager::Apt, Scope::Marked(marks)) => self.found(marks),
            (Manager::Apt, Scope::All) | (Manager::Dnf, _) => (None, Vec::new()),
        };
        let files = match manager {
            Manager::Apt => vec![(PathBuf::from(APT), self.apt(marks.as_ref())?)],
            Manager::Dnf => vec![(self.plugin(), PLUGIN.to_owned()), (PathBuf::from(DNF), self.dnf()?)],
        };
        let mut said = Vec::new();
        for (path, text) in files {
            let path = self.root.join(path);
            write(&path, &text)?;
            said.push(format!("wrote {}", path.display()));
        }
        said.append(&mut notes);
        let policy = self.root.join(self.policy.strip_prefix("/").unwrap_or(&self.policy));
        match Verifier::open(&policy, |_| (), now()) {
            Ok(verifier) => {
                said.push(format!("packages of network {} are proven from now on", verifier.trust.newest().name))
            }
            Err(error) => said.push(format!("nothing of the network is installed until then: {}", error.words())),
        }
        Ok(said)
    }

    /// Takes the hook out again; what is not there, or was written by somebody else, is left alone.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn uninstall(&self, manager: Manager) -> Result<Vec<String>, Error> {
        let files = match manager {
            Manager::Apt => vec![PathBuf::from(APT)],
            Manager::Dnf => vec![self.plugin(), PathBuf::from(DNF)],
        };
        let mut said = Vec::new();
        for path in files.into_iter().map(|path| self.root.join(path)) {
            match fs::read_to_string(&path) {
                Ok(text) if text.lines().next().is_some_and(|line| line.contains(HEAD)) => {
                    fs::remove_file(&path).map_err(|source| Error::Write { path: path.clone(), source })?;
                    said.push(format!("removed {}", path.display()));
                }
                Ok(_) => said.push(format!("left {} alone: it was written by somebody else", path.display())),
                Err(_) => said.push(format!("there is no {}", path.display())),
            }
        }
        Ok(said)
    }

    /// Gives the marks by which repositories of the network are known from now on: those that are named, and the sources whose
    /// repositories call themselves so today. A repository that calls itself otherwise tomorrow is known by its source. Gives words
    /// for people, too.
    fn found(&self, named: &Marks) -> (Option<Marks>, Vec<String>) {
        let mut marks = named.clone();
        if marks.origins.is_empty() {
            marks.origins = self.own_origin();
        }
        match marks.clone().found_in(&self.root) {
            Ok(found) => marks = found,
            Err(why) => return (Some(marks), vec![why]),
        }
        let notes = if marks.sources.is_empty() {
            vec![
                "apt has no source of the network yet: add it, run apt-get update, and install the hook again; until then \
                 packages are known only by the Origin that their repository says"
                    .to_owned(),
            ]
        } else {
            marks.sources.iter().map(|source| format!("packages from {source} must be proven")).collect()
        };
        (Some(marks), notes)
    }

    /// Gives apt's setting. The marks are written down here, so that apt knows whose packages to refuse when the policy file is gone.
    fn apt(&self, marks: Option<&Marks>) -> Result<String, Error> {
        let (program, policy) = (word(&self.program.display())?, word(&self.policy.display())?);
        let scope = marks.map_or(Ok(" --all".to_owned()), options)?;
        Ok(format!(
            "// {HEAD} apt-hook install`; `artel apt-hook uninstall` takes it out.\n\
             // Packages of artel repositories are installed only with the proof that operators built them.\n\
             DPkg::Pre-Install-Pkgs {{ \"{program} apt-hook run --policy {policy}{scope}\"; }};\n\
             DPkg::Tools::Options::{program}::Version \"3\";\n"
        ))
    }

    fn own_origin(&self) -> Vec<String> {
        let policy = self.root.join(self.policy.strip_prefix("/").unwrap_or(&self.policy));
        let verifier = Verifier::open(&policy, |_| (), now());
        verifier.map(|verifier| vec![verifier.trust.newest().name.to_string()]).unwrap_or_default()
    }

    fn dnf(&self) -> Result<String, Error> {
        let (program, policy) = (word(&self.program.display())?, word(&self.policy.display())?);
        let repositories = self.repositories.iter().map(|r| word(r)).collect::<Result<Vec<_>, _>>()?.join(" ");
        Ok(format!(
            "# {HEAD} dnf-hook install`; `artel dnf-hook uninstall` takes it out.\n[main]\nenabled = 1\n\
             program = {program} verify\npolicy = {policy}\n# Ids of repositories whose packages must be proven; patterns, and * for all.\n\
             repositories = {repositories}\n"
        ))
    }

    fn plugin(&self) -> PathBuf {
        let known = || DNF_PLUGINS.iter().find(|folder| self.root.join(folder).is_dir()).unwrap_or(&DNF_PLUGINS[0]);
        let folder = self.plugins.as_ref().map(|folder| folder.strip_prefix("/").unwrap_or(folder).to_owned());
        folder.unwrap_or_else(|| PathBuf::from(known())).join("artel.py")
    }
}

/// Gives the marks as the hook's options.
fn options(marks: &Marks) -> Result<String, Error> {
    let lists = [("--origin", &marks.origins), ("--source", &marks.sources)];
    let words = lists.iter().flat_map(|(option, list)| list.iter().map(move |text| (option, text)));
    words.map(|(option, text)| Ok(format!(" {option} {}", word(text)?))).collect()
}

/// Gives a word that means nothing to a shell, nor to the syntax of apt's and dnf's settings.
fn word(text: &dyn std::fmt::Display) -> Result<String, Error> {
    let text = text.to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+*?:@".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return Ok(text);
    }
    Err(Error::Usage(format!("{text:?} cannot stand in a setting: use letters, digits and / . _ - + * ? : @")))
}

/// Writes a file whole or not at all.
fn write(path: &Path, text: &str) -> Result<(), Error> {
    let failed = |source: io::Error| Error::Write { path: path.into(), source };
    fs::create_dir_all(path.parent().unwrap_or(path)).map_err(failed)?;
    // Neither apt nor dnf reads a name that ends so.
    let new = path.with_extension("artel-new");
    fs::write(&new, text).map_err(failed)?;
    fs::rename(&new, path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setup(root: &Path) -> Setup {
        Setup {
            root: root.into(),
            program: "/usr/bin/artel-verify".into(),
            policy: "/etc/artel/verify.policy".into(),
            scope: Scope::Marked(Marks { origins: vec!["sample".into()], ..Marks::default() }),
            repositories: vec!["artel-*".into()],
            plugins: None,
        }
    }

    #[test]
    fn what_is_written_is_taken_out_again() {
        let dir = tempfile::tempdir().unwrap();
        let setup = setup(dir.path());
        setup.install(Manager::Apt).unwrap();
        let said = setup.install(Manager::Dnf).unwrap();
        assert!(said.last().unwrap().contains("there is no policy file"), "{said:?}");
        let apt = fs::read_to_string(dir.path().join(APT)).unwrap();
        assert!(
            apt.contains("\"/usr/bin/artel-verify apt-hook run --policy /etc/artel/verify.policy --origin sample\"")
        );
        let dnf = fs::read_to_string(dir.path().join(DNF)).unwrap();
        assert!(dnf.contains("\nrepositories = artel-*\n") && dnf.contains("\npolicy = /etc/artel/verify.policy\n"));
        assert!(dir.path().join(DNF_PLUGINS[0]).join("artel.py").is_file());
        setup.uninstall(Manager::Apt).unwrap();
        setup.uninstall(Manager::Dnf).unwrap();
        assert!(!dir.path().join(APT).exists() && !dir.path().join(DNF).exists());
        fs::write(dir.path().join(APT), "mine").unwrap();
        assert!(setup.uninstall(Manager::Apt).unwrap()[0].contains("somebody else"));
    }

    #[test]
    fn nothing_that_a_shell_reads_gets_into_a_setting() {
        let dir = tempfile::tempdir().unwrap();
        for bad in ["a b", "a;b", "$(x)", "a\"b", "a\nb", ""] {
            let named = Marks { sources: vec![bad.into()], ..Marks::default() };
            let sources = Setup { scope: Scope::Marked(named), ..setup(dir.path()) };
            assert_eq!(sources.install(Manager::Apt).unwrap_err().exit_code(), 2, "{bad:?}");
            let policy = Setup { policy: bad.into(), ..setup(dir.path()) };
            assert!(policy.install(Manager::Dnf).is_err(), "{bad:?}");
        }
    }
}
