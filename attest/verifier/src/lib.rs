//! The verifier: reads packages, what is stapled to them and the policy file from disk, and has [`attest::verify`] judge. Both
//! programs share it, `artel-verify` and `artel verify`, and so do the hooks of apt and dnf.
//!
//! ```text
//!  FILE        -> hash -> staples beside it -> chain -> what the file says of itself is what was built
//!  PACKAGE     -> its files in a folder -> each as FILE
//!  REPOSITORY  -> its indexes -> each package as FILE, on every core, and as its index says
//! ```
//! Nothing here asks a network; where a hook needs what lies beside a package, it lets apt or dnf fetch it. What a package says of itself is read only when k operators signed its bytes.

pub mod apt;
pub mod archive;
pub mod channel;
pub mod deb;
pub mod folder;
pub mod freshness;
pub mod hook;
pub mod package;
pub mod program;
pub mod report;
pub mod rpm;

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use attest::{
    log::conflict::ConflictError,
    trust::{self, Demands, Trust},
    verify::{self, Broken},
};
use protocol::{ChannelName, Timestamp};

/// Where the policy file lies by default.
pub const POLICY: &str = "/etc/artel/verify.policy";

/// Why something was not proven.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line is wrong.
    #[error("{0}")]
    Usage(String),
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no policy file.
    #[error(
        "there is no policy file {}, so nothing can be believed; write it with `artel policy export` on a node of the network, \
         and bring it here",
        path.display()
    )]
    NoPolicy {
        /// Where it should lie.
        path: PathBuf,
    },
    /// The policy file is not acceptable.
    #[error("the policy file {} is not acceptable", path.display())]
    Policy {
        /// The file.
        path: PathBuf,
        /// Why.
        source: trust::Error,
    },
    /// There is no evidence.
    #[error("{} has no evidence beside it: there is no {}", package.display(), lines.display())]
    NotStapled {
        /// The package.
        package: PathBuf,
        /// Where the evidence should lie.
        lines: PathBuf,
    },
    /// The evidence does not hold.
    #[error(transparent)]
    Broken(#[from] Broken),
    /// The evidence holds, but not for this file.
    #[error(transparent)]
    Evidence(#[from] verify::Error),
    /// A bundle does not prove its job; what it tells of the attempts says why, perhaps.
    #[error("{source}{}", .told.iter().map(|line| format!("; {}", line.trim())).collect::<String>())]
    Unproven {
        /// A line for each attempt.
        told: Vec<String>,
        /// The link that does not hold.
        source: verify::Error,
    },
    /// It does not show that the log was forked.
    #[error("it does not show that the log was forked")]
    Conflict(#[source] ConflictError),
    /// The package is not readable as one.
    #[error("{} cannot be read as a package: {why}", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Several channels have rules of their own, and nobody says which of them a package must have been proven for.
    #[error(
        "nobody says for which channel packages from {place} must have been proven, and the channels have different rules; name it \
         with --channel"
    )]
    WhichChannel {
        /// Where it came from.
        place: String,
    },
    /// The package was proven for another channel than its source is for.
    #[error("it is a package of channel {got}, and where it comes from only those of {wanted} are accepted")]
    OtherChannel {
        /// Its channel.
        got: ChannelName,
        /// Those that are accepted.
        wanted: String,
    },
    /// It is too old by its own evidence, and nothing newer is to be had.
    #[error("{stale}, and none is to be had where it comes from ({why})")]
    NotFresh {
        /// How old it is.
        stale: Broken,
        /// Why there is no newer checkpoint.
        why: String,
    },
    /// It is another package than the one that was asked for.
    #[error("it is {got}, not {wanted}")]
    OtherPackage {
        /// What it is.
        got: String,
        /// What was asked for.
        wanted: String,
    },
    /// The evidence cannot be had from where the package came.
    #[error("there is no evidence for it at {address} ({why})")]
    NotFetched {
        /// Where it should be.
        address: String,
        /// What apt says.
        why: String,
    },
    /// The hook cannot do its work.
    #[error("{0}")]
    Hook(String),
    /// The hook would not know which packages are the network's.
    #[error(
        "the hook would not know which packages are the network's, and would refuse every one, so nothing was written: bring the \
         policy file first, or name --source"
    )]
    Unmarked {
        /// Why the policy file does not say it.
        #[source]
        why: Box<Error>,
    },
    /// There is no such package.
    #[error("there is no package {name} in {}", folder.display())]
    NoSuchPackage {
        /// What was asked for.
        name: String,
        /// Where it was looked for.
        folder: PathBuf,
    },
}

impl Error {
    /// Gives the exit code that programs see.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Read { .. } | Error::Write { .. } | Error::Form { .. } | Error::Hook(_) => 1,
            Error::Usage(_) => 2,
            Error::NoPolicy { .. } => 3,
            Error::Unmarked { why } => why.exit_code(),
            Error::Policy { source, .. } => source.exit_code(),
            Error::NotStapled { .. } | Error::NotFetched { .. } | Error::NoSuchPackage { .. } => 10,
            Error::Broken(broken) | Error::NotFresh { stale: broken, .. } => broken.exit_code(),
            Error::Evidence(error) | Error::Unproven { source: error, .. } => error.exit_code(),
            Error::OtherPackage { .. } => 12,
            Error::WhichChannel { .. } | Error::OtherChannel { .. } | Error::Conflict(_) => 13,
        }
    }

    /// Gives the error and its causes in one line.
    pub fn words(&self) -> String {
        let mut words = self.to_string();
        let mut next = std::error::Error::source(self);
        while let Some(source) = next {
            let text = source.to_string();
            if !words.ends_with(&text) {
                words = format!("{words}: {text}");
            }
            next = source.source();
        }
        words
    }
}

/// What is believed, and when.
#[derive(Debug)]
pub struct Verifier {
    /// What is trusted.
    pub trust: Trust,
    /// The time of the check.
    pub now: Timestamp,
    /// A newer checkpoint of the log, where one was given.
    pub checkpoint: Option<Vec<u8>>,
}

impl Verifier {
    /// Reads the policy file, and takes what `demands` changes in it.
    ///
    /// # Errors
    /// When it is missing, or is not acceptable now.
    pub fn open(path: &Path, demands: impl FnOnce(&mut Demands), now: Timestamp) -> Result<Self, Error> {
        let refused = |source| Error::Policy { path: path.into(), source };
        let bytes = match read(path, trust::FILE_MAX) {
            Err(Error::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Err(Error::NoPolicy { path: path.into() });
            }
            read => read?,
        };
        let trust = Trust::read(&bytes, now).map_err(refused)?;
        let mut wanted = trust.demands().clone();
        demands(&mut wanted);
        let trust = if wanted == *trust.demands() { trust } else { trust.demanding(wanted, now).map_err(refused)? };
        Ok(Self { trust, now, checkpoint: None })
    }
}

/// Reads a file of at most `limit` bytes; a longer one is cut right behind, and refused by whoever knows the limit.
fn read(path: &Path, limit: usize) -> Result<Vec<u8>, Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = open(path)?;
    let limit = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    file.take(limit).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// Opens a file. A pipe would be waited for without end, and a device has none.
fn open(path: &Path) -> Result<File, Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file")));
    }
    File::open(path).map_err(failed)
}

/// Gives the time of this machine.
#[expect(clippy::disallowed_methods, reason = "a verifier runs without a daemon; the time is read here and only here")]
pub fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::ZERO.after(since)
}
