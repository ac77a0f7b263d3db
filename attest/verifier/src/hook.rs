//! Installing the hooks of apt and dnf, and taking them out again: files below `/etc` and dnf's folder of plugins, each with a head that
//! says who wrote it.
//!
//! | file | what it does |
//! |---|---|
//! | `etc/apt/apt.conf.d/90artel` | has apt run `<program> apt-hook run` before dpkg |
//! | `usr/lib/python3*/*-packages/dnf-plugins/artel.py` | beside dnf's own package: has dnf ask `<program>` before it runs a transaction |
//! | `etc/dnf/plugins/artel.conf` | says to that which program, which policy file and which repositories |

mod plugins;
mod sources;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use self::sources::Sources;
use crate::{
    Error, Verifier,
    apt::{Marks, Scope},
    channel::Channels,
    now,
};

/// How every file that is written here begins, behind the sign of a comment.
const HEAD: &str = "Written by `artel";
/// Apt's setting.
const APT: &str = "etc/apt/apt.conf.d/90artel";
/// The settings of dnf's plugin.
const DNF: &str = "etc/dnf/plugins/artel.conf";
/// What the plugin is called in its folder.
const PLUGIN_NAME: &str = "artel.py";
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
    /// For which channels packages must be proven: by the addresses of apt's sources, or the ids of dnf's repositories.
    pub channels: Channels,
    /// Which repositories' packages dnf must have proven, by the patterns of their ids; every one's by `*`.
    pub repositories: Vec<String>,
    /// Where dnf looks for plugins, where that is not beside its own package.
    pub plugins: Option<PathBuf>,
}

/// Files to be written, each with its text, and words for people.
type Prepared = (Vec<(PathBuf, String)>, Vec<String>);

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
    /// When a name cannot stand in a setting, or a file cannot be written; when apt would not know which packages are the
    /// network's, or no dnf would load the plugin. Then nothing is written.
    pub fn install(&self, manager: Manager) -> Result<Vec<String>, Error> {
        let (files, mut notes) = match manager {
            Manager::Apt => self.for_apt()?,
            Manager::Dnf => self.for_dnf()?,
        };
        let mut said = Vec::new();
        for (path, text) in files {
            let path = self.root.join(path);
            write(&path, &text)?;
            said.push(format!("wrote {}", path.display()));
        }
        said.append(&mut notes);
        match self.verifier() {
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
            Manager::Dnf => {
                let folders =
                    self.named_folder().map_or_else(|| plugins::holding(&self.root, PLUGIN_NAME), |it| vec![it]);
                folders.into_iter().map(|folder| folder.join(PLUGIN_NAME)).chain([PathBuf::from(DNF)]).collect()
            }
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

    /// Gives apt's files, and words for people.
    ///
    /// # Errors
    /// When nothing is named and no policy file says the network's name: the hook would have to refuse every package.
    fn for_apt(&self) -> Result<Prepared, Error> {
        let verifier = match self.verifier() {
            Err(why) if self.scope == Scope::Marked(Marks::default()) => {
                return Err(Error::Unmarked { why: Box::new(why) });
            }
            verifier => verifier.ok(),
        };
        let policy = verifier.as_ref().map(|verifier| verifier.trust.newest());
        let marks = match &self.scope {
            Scope::Marked(marks) => marks.clone(),
            Scope::All => Marks::default(),
        };
        let Sources { marks, channels, mut notes } = Sources::find(&self.root, (marks, self.channels.clone()), policy);
        let scope = match &self.scope {
            Scope::Marked(_) => options(&marks)?,
            Scope::All => " --all".to_owned(),
        };
        if notes.is_empty() && self.scope != Scope::All {
            notes.push(
                "apt has no source of the network yet: add it, run apt-get update, and install the hook again; until then \
                 packages are known only by the Origin that their repository says"
                    .to_owned(),
            );
        }
        let channels =
            channel_words(&channels)?.into_iter().map(|word| format!(" --channel {word}")).collect::<String>();
        Ok((vec![(PathBuf::from(APT), self.apt(&(scope + &channels))?)], notes))
    }

    /// Gives dnf's files, and words for people.
    fn for_dnf(&self) -> Result<Prepared, Error> {
        plugins::loads_plugins(&self.root)?;
        let folders = self.named_folder().map_or_else(|| plugins::folders(&self.root), |folder| Ok(vec![folder]))?;
        let plugins = folders.into_iter().map(|folder| (folder.join(PLUGIN_NAME), PLUGIN.to_owned()));
        let files = plugins.chain([(PathBuf::from(DNF), self.dnf()?)]).collect();
        Ok((files, plugins::notes(&self.root).into_iter().collect()))
    }

    /// Reads the policy file of the root.
    fn verifier(&self) -> Result<Verifier, Error> {
        Verifier::open(&self.root.join(self.policy.strip_prefix("/").unwrap_or(&self.policy)), |_| (), now())
    }

    /// Gives the folder of plugins that was named, as it is called below the root.
    fn named_folder(&self) -> Option<PathBuf> {
        self.plugins.as_ref().map(|folder| folder.strip_prefix("/").unwrap_or(folder).to_owned())
    }

    /// Gives apt's setting. The marks are written down here, so that apt knows whose packages to refuse when the policy file is gone.
    fn apt(&self, scope: &str) -> Result<String, Error> {
        let (program, policy) = (word(&self.program.display())?, word(&self.policy.display())?);
        Ok(format!(
            "// {HEAD} apt-hook install`; `artel apt-hook uninstall` takes it out.\n\
             // Packages of artel repositories are installed only with the proof that operators built them.\n\
             DPkg::Pre-Install-Pkgs {{ \"{program} apt-hook run --policy {policy}{scope}\"; }};\n\
             DPkg::Tools::Options::{program}::Version \"3\";\n"
        ))
    }

    fn dnf(&self) -> Result<String, Error> {
        let (program, policy) = (word(&self.program.display())?, word(&self.policy.display())?);
        let repositories = self.repositories.iter().map(|r| word(r)).collect::<Result<Vec<_>, _>>()?.join(" ");
        let channels = channel_words(&self.channels)?.join(" ");
        Ok(format!(
            "# {HEAD} dnf-hook install`; `artel dnf-hook uninstall` takes it out.\n[main]\nenabled = 1\n\
             program = {program} verify\npolicy = {policy}\n# Ids of repositories whose packages must be proven; patterns, and * for all.\n\
             repositories = {repositories}\n# Their channels, ID=CHANNEL, where addresses do not say them; CHANNEL alone for all others.\n\
             channels = {channels}\n"
        ))
    }
}

/// Gives the marks as the hook's options.
fn options(marks: &Marks) -> Result<String, Error> {
    let lists = [("--origin", &marks.origins), ("--source", &marks.sources)];
    let words = lists.iter().flat_map(|(option, list)| list.iter().map(move |text| (option, text)));
    words.map(|(option, text)| Ok(format!(" {option} {}", word(text)?))).collect()
}

/// Gives channels as they stand on the command line.
fn channel_words(channels: &Channels) -> Result<Vec<String>, Error> {
    let of = channels.of.iter().map(|(source, channel)| Ok(format!("{}={}", word(source)?, word(channel)?)));
    of.chain(channels.others.iter().map(|channel| word(channel))).collect()
}

/// Gives a word that means nothing to a shell, nor to the syntax of apt's and dnf's settings.
fn word(text: &dyn std::fmt::Display) -> Result<String, Error> {
    let text = text.to_string();
    // In brackets stand IPv6 addresses; a shell takes them for a pattern, which no file has the name of.
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+*?:@[]".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return Ok(text);
    }
    Err(Error::Usage(format!("{text:?} cannot stand in a setting: use letters, digits and / . _ - + * ? : @ [ ]")))
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
            channels: Channels::default(),
            repositories: vec!["artel-*".into()],
            plugins: None,
        }
    }

    #[test]
    fn what_is_written_is_taken_out_again() {
        let dir = tempfile::tempdir().unwrap();
        let setup = setup(dir.path());
        let python = dir.path().join("usr/lib/python3.12/site-packages");
        assert_eq!(setup.install(Manager::Dnf).unwrap_err().exit_code(), 1, "nothing would load it");
        fs::create_dir_all(python.join("dnf")).unwrap();
        fs::write(python.join("dnf/__init__.py"), "").unwrap();
        setup.install(Manager::Apt).unwrap();
        let said = setup.install(Manager::Dnf).unwrap();
        assert!(said.last().unwrap().contains("there is no policy file"), "{said:?}");
        let apt = fs::read_to_string(dir.path().join(APT)).unwrap();
        assert!(
            apt.contains("\"/usr/bin/artel-verify apt-hook run --policy /etc/artel/verify.policy --origin sample\"")
        );
        let dnf = fs::read_to_string(dir.path().join(DNF)).unwrap();
        assert!(dnf.contains("\nrepositories = artel-*\n") && dnf.contains("\npolicy = /etc/artel/verify.policy\n"));
        let plugin = python.join("dnf-plugins/artel.py");
        assert!(plugin.is_file());
        setup.uninstall(Manager::Apt).unwrap();
        // It is found where it lies, dnf or not.
        fs::remove_dir_all(python.join("dnf")).unwrap();
        setup.uninstall(Manager::Dnf).unwrap();
        assert!(!dir.path().join(APT).exists() && !dir.path().join(DNF).exists() && !plugin.exists());
        fs::write(dir.path().join(APT), "mine").unwrap();
        assert!(setup.uninstall(Manager::Apt).unwrap()[0].contains("somebody else"));
    }

    /// Without a mark nobody could tell whose a package is, and apt would install nothing any more.
    #[test]
    fn apts_hook_is_not_written_before_it_can_know_the_network() {
        let dir = tempfile::tempdir().unwrap();
        let with = |marks, scope: fn(Marks) -> Scope| Setup { scope: scope(marks), ..setup(dir.path()) };
        let refused = with(Marks::default(), Scope::Marked).install(Manager::Apt).unwrap_err();
        assert_eq!(refused.exit_code(), 3);
        assert!(refused.words().contains("or name --source"), "{}", refused.words());
        assert!(!dir.path().join(APT).exists());
        let source = Marks { sources: vec!["http://x/".into()], ..Marks::default() };
        with(source, Scope::Marked).install(Manager::Apt).unwrap();
        with(Marks::default(), |_| Scope::All).install(Manager::Apt).unwrap();
        assert!(dir.path().join(APT).exists());
    }

    #[test]
    fn nothing_that_a_shell_reads_gets_into_a_setting() {
        let dir = tempfile::tempdir().unwrap();
        for bad in ["a b", "a;b", "$(x)", "~root", "a\"b", "a\nb", ""] {
            let named = Marks { sources: vec![bad.into()], ..Marks::default() };
            let sources = Setup { scope: Scope::Marked(named), ..setup(dir.path()) };
            assert_eq!(sources.install(Manager::Apt).unwrap_err().exit_code(), 2, "{bad:?}");
            let policy = Setup { policy: bad.into(), ..setup(dir.path()) };
            let policy = Setup { plugins: Some("/plugins".into()), ..policy };
            assert_eq!(policy.install(Manager::Dnf).unwrap_err().exit_code(), 2, "{bad:?}");
        }
        assert!(word(&"http://[2001:db8::5]:4780/repo/main/").is_ok());
    }
}
