//! The command line of `artel-verify`.

mod bundle;
mod conflict;
mod hooks;

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use attest::trust::{Demands, LogDemand, duration, log_demand};
use protocol::{Arch, ChannelName, NetworkId};

use crate::{
    Error, POLICY, Verifier,
    channel::{Allowed, Channels},
    folder::Checked,
    hook::Manager,
    now,
    package::{Identity, Place, Proven},
    read,
    report::{self, Answer, Output},
};

const USAGE: &str = "\
usage: artel-verify [OPTIONS] FILE|PACKAGE|REPOSITORY...
       artel-verify --network HEX [--json] BUNDLE [FILE...]
       artel-verify conflict FILE
       artel-verify apt-hook|dnf-hook install|uninstall [--help]

Checks, offline, that a maintainer asked for a package, that enough independent operators built it bit for bit the same, that
this was logged and witnessed as the policy asks, and that the package is what it says it is.

  FILE        a package or another file, with its evidence beside it (FILE.intoto.jsonl, FILE.tlog-proof)
  PACKAGE     name or name=version, looked for in the folder of --in
  REPOSITORY  a folder: every package of its indexes, or every package in it where it has none
  BUNDLE      a job's evidence in one file; HEX is the network's id, the only thing that is believed then. It has no proof from the
              log, and the newest policy that it brings along counts: no other option goes with it

  --policy FILE      what is trusted, as `artel policy export` writes it [default: /etc/artel/verify.policy]
  --in FOLDER        where a PACKAGE is looked for [default: .]
  --evidence STEM    the evidence of the one FILE is STEM.intoto.jsonl and STEM.tlog-proof
  --is N=V/ARCH      the one FILE must be this package, for instance tiny=1:0.5/amd64
  --log WHAT         proof from the log: policy, none, or a number of witnesses
  --max-age SPAN     how old the newest sign of life of the log may be, for instance 30d
  --checkpoint FILE  a newer checkpoint of the log (LOG/checkpoint): witnesses say in it until when they saw the log alive
  --agree N          operators that must agree at least
  --channel NAME     accept packages of this channel only; may stand several times; it is needed, or --from, where the policy's
                     channels have different rules
  --from ADDRESS     what is named is from a repository there: it must be proven for the channel of that address
                     (.../repo/NAME/); where it says none, and the policy's channels have different rules, nothing is proven
  --channel-of WORD  with --from: ADDRESS=NAME says the channel of what is from there, NAME that of everything else whose address
                     does not say it; may stand several times
  --json             one JSON object

exit status: 0 proven, 1 something else failed, 2 usage, 3 no policy file, or not an acceptable one, 10 no attestation,
             11 too few operators agree, 12 builders disagree or a FILE differs, 13 bad signature, broken chain or log proof
";

/// What the command line asks for.
#[derive(Debug)]
pub struct Options {
    /// The policy file.
    pub policy: PathBuf,
    /// What is asked beside what the policy file asks for.
    pub changes: Changes,
    /// A newer checkpoint.
    pub checkpoint: Option<PathBuf>,
    /// Where packages are looked for.
    pub inside: PathBuf,
    /// The beginning of the names of the evidence, where it does not lie beside the file.
    pub evidence: Option<PathBuf>,
    /// The package that the file must be.
    pub wanted: Option<Identity>,
    /// The address of the repository that the file is from; empty where nobody knows it.
    pub from: Option<String>,
    /// The channels of such addresses, where they do not say them.
    pub channels: Channels,
    /// Files, packages, folders.
    pub what: Vec<String>,
    /// How results are written.
    pub output: Output,
}

impl Options {
    fn is_of_one_file(&self) -> bool {
        self.evidence.is_some() || self.wanted.is_some() || self.from.is_some()
    }
}

/// What is asked beside what the policy file asks for; what is not named stays as it is there.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    /// See [`Demands::log`].
    pub log: Option<LogDemand>,
    /// See [`Demands::max_age`].
    pub max_age: Option<Duration>,
    /// See [`Demands::agree`].
    pub agree: Option<u8>,
    /// See [`Demands::channels`].
    pub channels: Vec<ChannelName>,
}

impl Changes {
    /// Makes the changes.
    pub fn make(self, demands: &mut Demands) {
        demands.log = self.log.unwrap_or(demands.log);
        demands.max_age = self.max_age.or(demands.max_age);
        demands.agree = self.agree.or(demands.agree);
        if !self.channels.is_empty() {
            demands.channels = self.channels;
        }
    }
}

/// Runs the program on the command line of this process.
pub fn main() -> ExitCode {
    let words: Result<Vec<String>, _> = std::env::args_os().skip(1).map(std::ffi::OsString::into_string).collect();
    ExitCode::from(words.map_or_else(|word| refused(&unreadable(&word), false).1, perform))
}

/// Runs the program on the words of a command line, prints what it says, and gives the exit code. A first word `verify` may be
/// left out.
pub fn perform(mut words: Vec<String>) -> u8 {
    if words.first().is_some_and(|word| word == "verify") {
        words.remove(0);
    }
    // What stands behind `--` are names.
    let options = || words.iter().take_while(|word| *word != "--");
    let asks_for_help = options().any(|word| word == "--help" || word == "-h");
    let json = options().any(|word| word == "--json");
    let ran = match words.first().map(String::as_str) {
        Some("conflict") if asks_for_help => Ok((conflict::USAGE.to_owned(), 0)),
        Some("conflict") => conflict::run(&words[1..]),
        Some("apt-hook" | "dnf-hook") if asks_for_help => Ok((hooks::USAGE.to_owned(), 0)),
        Some("apt-hook") => hooks::run(Manager::Apt, &words[1..]),
        Some("dnf-hook") => hooks::run(Manager::Dnf, &words[1..]),
        Some(_) | None if asks_for_help => Ok((USAGE.to_owned(), 0)),
        Some(_) | None => parse(words).and_then(|asked| match asked {
            Asked::Options(options) => run(*options),
            Asked::Bundle { network, paths, output } => bundle::run(&network, &paths, output).map(|text| (text, 0)),
        }),
    };
    let (text, code) = ran.unwrap_or_else(|error| refused(&error, json));
    print(&text);
    code
}

/// Says why nothing is checked, and gives what to print and the exit code.
fn refused(error: &Error, json: bool) -> (String, u8) {
    let (code, words) = (error.exit_code(), error.words());
    eprintln!("artel-verify: {words}");
    let refused = serde_json::json!({ "proven": false, "exit": code, "error": words });
    (if json { format!("{refused}\n") } else { String::new() }, code)
}

fn unreadable(word: &std::ffi::OsStr) -> Error {
    Error::Usage(format!("{} is no UTF-8, and names of files must be here", word.display()))
}

/// Checks what is asked for, and gives what to print and the exit code.
///
/// # Errors
/// When nothing can be checked at all: there is no policy, or the checkpoint cannot be read.
pub fn run(options: Options) -> Result<(String, u8), Error> {
    let Options { policy, changes, checkpoint, inside, evidence, wanted, from, channels, what, output } = options;
    let mut verifier = Verifier::open(&policy, |demands| changes.make(demands), now())?;
    verifier.checkpoint = checkpoint.map(|path| read(&path, attest::log::note::NOTE_MAX)).transpose()?;
    let source = from.as_deref().filter(|from| !from.is_empty());
    let of_source = from.as_ref().map(|_| channels.allowed(source, &verifier)).transpose()?;
    // Whoever serves a file or folder chooses what lies there, so that nobody but the caller can say for which channel it is.
    let allowed = || of_source.clone().map_or_else(|| channels.allowed(None, &verifier), Ok);
    let many = |checked: Vec<Checked>, allowed: &Allowed| {
        let is_allowed = |proven: Proven| allowed.check(&proven).map(|()| proven);
        Answer::Many(
            checked.into_iter().map(|one| Checked { result: one.result.and_then(is_allowed), ..one }).collect(),
        )
    };
    let answer = |what: &String| {
        let path = Path::new(what);
        let is_named = !path.is_file() && !what.contains('/') && !looks_like_a_file(what);
        if (path.is_dir() || is_named) && (evidence.is_some() || wanted.is_some()) {
            return Err(usage("--evidence and --is are of one FILE"));
        }
        if path.is_dir() {
            let allowed = allowed()?;
            return verifier.repository(path).map(|checked| many(checked, &allowed));
        }
        if is_named {
            let allowed = allowed()?;
            return verifier.named(&inside, what).map(|checked| many(checked, &allowed));
        }
        let place = evidence.as_ref().map_or_else(|| Place::beside(path), |stem| Place::elsewhere(path, stem));
        let is_it = |proven: Proven| {
            wanted.as_ref().map_or_else(|| proven.is_named_so(), |wanted| proven.is(wanted))?;
            allowed()?.check(&proven)?;
            Ok(proven)
        };
        Ok(Answer::File(Box::new(Checked { file: path.into(), result: verifier.file(&place).and_then(is_it) })))
    };
    let answers: Vec<_> = what.iter().map(answer).collect();
    Ok(report::write(&answers, output))
}

/// Says whether a word that is no file here was meant as one.
fn looks_like_a_file(what: &str) -> bool {
    [".deb", ".udeb", ".rpm"].iter().any(|end| what.ends_with(end))
}

enum Asked {
    Options(Box<Options>),
    Bundle { network: NetworkId, paths: Vec<PathBuf>, output: Output },
}

/// The words of a command line, with what was read of them.
struct Words {
    words: std::vec::IntoIter<String>,
    options: Options,
    network: Option<NetworkId>,
    /// The first option that is not for a bundle.
    of_policy: Option<String>,
}

fn parse(words: Vec<String>) -> Result<Asked, Error> {
    let options = Options {
        policy: POLICY.into(),
        changes: Changes::default(),
        checkpoint: None,
        inside: ".".into(),
        evidence: None,
        wanted: None,
        from: None,
        channels: Channels::default(),
        what: Vec::new(),
        output: Output::Text,
    };
    let mut words = Words { words: words.into_iter(), options, network: None, of_policy: None };
    while let Some(word) = words.words.next() {
        match word.as_str() {
            "--" => {
                let rest: Vec<String> = words.words.by_ref().collect();
                words.options.what.extend(rest);
            }
            "--json" => words.options.output = Output::Json,
            option if option.starts_with('-') => {
                let (name, value) = option.split_once('=').map_or((option, None), |(n, v)| (n, Some(v.to_owned())));
                words.option(name, value)?;
            }
            _ => words.options.what.push(word),
        }
    }
    let Words { options, network, of_policy, .. } = words;
    match network {
        Some(_) if options.what.is_empty() => Err(usage("name a BUNDLE")),
        Some(_) if of_policy.is_some() => Err(usage(&format!(
            "{} asks for what a bundle cannot show: name a FILE under a policy file instead of --network",
            of_policy.unwrap_or_default()
        ))),
        Some(network) => {
            let paths = options.what.iter().map(PathBuf::from).collect();
            Ok(Asked::Bundle { network, paths, output: options.output })
        }
        None if options.what.is_empty() => Err(usage("name a FILE, a PACKAGE or a REPOSITORY")),
        None if options.is_of_one_file() && options.what.len() > 1 => {
            Err(usage("--evidence, --is and --from are of one FILE"))
        }
        None => Ok(Asked::Options(Box::new(options))),
    }
}

impl Words {
    fn option(&mut self, name: &str, value: Option<String>) -> Result<(), Error> {
        let known = "policy in evidence is from channel-of log max-age checkpoint agree channel network";
        if !name.strip_prefix("--").is_some_and(|name| known.split(' ').any(|known| known == name)) {
            return Err(usage(&format!("unknown option {name}")));
        }
        let value = value.or_else(|| self.words.next()).ok_or_else(|| usage(&format!("{name} needs a value")))?;
        let wrong = |why: String| usage(&format!("{name}: {why}"));
        if name != "--network" {
            self.of_policy.get_or_insert_with(|| name.to_owned());
        }
        let Options { policy, changes, checkpoint, inside, evidence, wanted, from, channels, .. } = &mut self.options;
        match name {
            "--policy" => *policy = value.into(),
            "--in" => *inside = value.into(),
            "--evidence" => *evidence = Some(value.into()),
            "--is" => *wanted = Some(identity(&value).map_err(wrong)?),
            "--from" => *from = Some(value),
            "--channel-of" => channels.add(&value).map_err(wrong)?,
            "--checkpoint" => *checkpoint = Some(value.into()),
            "--log" => changes.log = Some(log_demand(&value).map_err(wrong)?),
            "--max-age" => changes.max_age = Some(duration(&value).map_err(wrong)?),
            "--agree" => {
                let agree = value.parse().ok().filter(|agree| *agree > 0);
                changes.agree = Some(agree.ok_or_else(|| wrong("write a number from 1 to 255".into()))?);
            }
            "--channel" => {
                changes.channels.push(value.parse().map_err(|e: protocol::words::WordError| wrong(e.to_string()))?)
            }
            _ => self.network = Some(value.parse().map_err(|_| wrong("write 64 hexadecimal digits".into()))?),
        }
        Ok(())
    }
}

/// Reads a package's name, version and architecture, in Debian's word or RPM's.
fn identity(text: &str) -> Result<Identity, String> {
    let form = || "write NAME=VERSION/ARCHITECTURE".to_owned();
    let (name, rest) = text.split_once('=').ok_or_else(form)?;
    let (version, arch) = rest.rsplit_once('/').ok_or_else(form)?;
    let arch = Arch::from_rpm_name(arch).map_or_else(|| arch.to_owned(), |arch| arch.to_string());
    // dnf tells an epoch of 0, too.
    Identity::of(name, version.strip_prefix("0:").unwrap_or(version), &arch)
}

fn usage(why: &str) -> Error {
    Error::Usage(format!("{why}\n\n{USAGE}"))
}

/// Writes to stdout; a reader that went away (`| head`) is no error.
fn print(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}
