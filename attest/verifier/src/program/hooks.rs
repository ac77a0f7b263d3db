//! The commands about hooks: install, uninstall, and apt's question itself.

use std::{io, path::PathBuf};

use crate::{
    Error, POLICY,
    apt::{self, CACHE, Hook, Marks, Scope},
    channel::Channels,
    hook::{Manager, Setup},
};

/// What is told to who asks for help.
pub(super) const USAGE: &str = "\
usage: artel-verify apt-hook install|uninstall [--root DIR] [--policy FILE] [--source URI... | --all]
       artel-verify dnf-hook install|uninstall [--root DIR] [--policy FILE] [--repository PATTERN... | --all]

Has apt, or dnf, refuse packages without proof that operators built them.

  --root DIR            install into another system's root [default: /]
  --program FILE        the program that is run, as it is called there [default: this one]
  --policy FILE         what is trusted, as it is called there [default: /etc/artel/verify.policy]
  --source URI          apt: packages from addresses that begin so must be proven; may stand several times
  --origin NAME         apt: packages of repositories with this Origin must be proven, and of the sources that have one when
                        the hook is installed; may stand several times [default: the network's name in the policy file]
  --channel SOURCE=NAME packages from addresses that begin so must be proven for that channel, or of dnf, those of the repository
                        with that id; may stand several times [default: what the address says, .../repo/NAME/, and of apt's
                        sources their Label when the hook is installed]
  --channel NAME        packages from all other sources must be proven for it. Where nobody says a channel and the channels of
                        the policy have different rules, packages are refused
  --repository PATTERN  dnf: packages of repositories with such an id must be proven; may stand several times
                        [default: artel and artel-*]
  --plugins DIR         dnf: where it looks for plugins
                        [default: beside its own package, usr/lib/python3*/*-packages/dnf-plugins]
  --all                 every package must be proven, wherever it comes from

apt itself runs `apt-hook run`, which keeps the evidence that it fetched in --cache DIR [default: /var/cache/artel/staples].
";

struct Words {
    root: PathBuf,
    program: Option<PathBuf>,
    policy: PathBuf,
    cache: PathBuf,
    plugins: Option<PathBuf>,
    /// Patterns of repositories' ids.
    names: Vec<String>,
    /// What apt's repositories are known by.
    marks: Marks,
    channels: Channels,
    scope: Given,
}

/// Whether everything must be proven.
#[derive(PartialEq, Eq)]
enum Given {
    Named,
    All,
}

/// Runs a command about a hook; gives what to print and the exit code.
///
/// # Errors
/// When the command line is wrong, or a file cannot be written.
pub(super) fn run(manager: Manager, words: &[String]) -> Result<(String, u8), Error> {
    let usage = |why: &str| Error::Usage(format!("{why}\n\n{USAGE}"));
    let (verb, rest) = words.split_first().ok_or_else(|| usage("say install or uninstall"))?;
    let words = parse(manager, rest).map_err(|why| usage(&why))?;
    match (verb.as_str(), manager) {
        ("run", Manager::Apt) => {
            let scope = if words.scope == Given::All { Scope::All } else { Scope::Marked(words.marks) };
            let hook = Hook { policy: words.policy, scope, channels: words.channels, cache: words.cache };
            Ok((String::new(), apt::answer(&hook, &mut io::stdin().lock(), &mut io::stderr().lock())))
        }
        ("install", _) => setup(manager, words)?.install(manager).map(said),
        ("uninstall", _) => setup(manager, words)?.uninstall(manager).map(said),
        (other, _) => Err(usage(&format!("unknown command {other:?}"))),
    }
}

fn said(lines: Vec<String>) -> (String, u8) {
    (lines.into_iter().map(|line| line + "\n").collect(), 0)
}

fn setup(manager: Manager, words: Words) -> Result<Setup, Error> {
    let own = || std::env::current_exe().map_err(|source| Error::Read { path: "/proc/self/exe".into(), source });
    let all = words.scope == Given::All;
    let default = || ["artel", "artel-*"].map(str::to_owned).to_vec();
    let repositories = match manager {
        _ if all => vec!["*".to_owned()],
        Manager::Dnf if words.names.is_empty() => default(),
        Manager::Dnf | Manager::Apt => words.names.clone(),
    };
    Ok(Setup {
        root: words.root,
        program: words.program.map_or_else(own, Ok)?,
        policy: words.policy,
        scope: if all { Scope::All } else { Scope::Marked(words.marks) },
        channels: words.channels,
        repositories,
        plugins: words.plugins,
    })
}

fn parse(manager: Manager, words: &[String]) -> Result<Words, String> {
    let mut found = Words {
        root: "/".into(),
        program: None,
        policy: POLICY.into(),
        cache: CACHE.into(),
        plugins: None,
        names: Vec::new(),
        marks: Marks::default(),
        channels: Channels::default(),
        scope: Given::Named,
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let (name, value) = word.split_once('=').map_or((word.as_str(), None), |(n, v)| (n, Some(v.to_owned())));
        let value = || value.or_else(|| words.next().cloned()).ok_or_else(|| format!("{name} needs a value"));
        match (name, manager) {
            ("--all", _) => found.scope = Given::All,
            ("--root", _) => found.root = value()?.into(),
            ("--program", _) => found.program = Some(value()?.into()),
            ("--policy", _) => found.policy = value()?.into(),
            ("--channel", _) => found.channels.add(&value()?).map_err(|why| format!("--channel: {why}"))?,
            ("--cache", Manager::Apt) => found.cache = value()?.into(),
            ("--origin", Manager::Apt) => found.marks.origins.push(value()?),
            ("--source", Manager::Apt) => found.marks.sources.push(value()?),
            ("--repository", Manager::Dnf) => found.names.push(value()?),
            ("--plugins", Manager::Dnf) => found.plugins = Some(value()?.into()),
            _ => return Err(format!("unknown option {name}")),
        }
    }
    Ok(found)
}
