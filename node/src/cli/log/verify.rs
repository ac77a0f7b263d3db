//! `artel log verify`: that the log is one log, and tells a whole story.
//!
//! What was verified before is remembered in the node's folder: the checkpoint, and how far the story was. A log that does
//! not continue it, goes back, or says what cannot follow, is broken, whoever signed it.

use std::{fs, io::Write, time::Duration};

use anyhow::{Context as _, anyhow};
use attest::log::{
    checkpoint::{Signed, Verified},
    entry::Entry,
    network,
    story::Story,
    tree::Head,
};
use protocol::{codec, message::Octets};
use serde::{Deserialize, Serialize};
use web::Client;

use super::{Known, Whose, as_json};
use crate::{
    cli::{
        Context, exit,
        output::{self, Format},
    },
    config::Home,
    tlog::{ReadError, Reader, Remote},
};

/// How long a node may be behind what was seen before; another node may be further.
const CATCHES_UP_WITHIN: Duration = Duration::from_secs(15);
/// How often it is asked meanwhile.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// Read what is new in the log, and check that it continues what was seen before and tells a whole story
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Verify {
    /// Read the whole log again, not only what is new
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    whose: Whose,
}

/// What was verified before, as it is kept.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    story: Octets,
    checkpoint: Octets,
}

/// What was verified before.
struct Seen {
    head: Head,
    story: Story,
}

impl Verify {
    pub(in crate::cli) async fn run(self, context: &Context, known: &Known) -> anyhow::Result<u8> {
        let client = self.whose.client(context)?;
        let seen = recall(&context.home, known)?;
        let checkpoint = not_smaller(&client, known, seen.head.size).await?;
        let source = Remote(client);
        let mut reader = Reader::new(&source, checkpoint.head());
        reader.continues(seen.head).await.map_err(broken)?;
        let (mut next, mut story) = if self.all { (0, Story::default()) } else { (seen.head.size, seen.story) };
        let from = next;
        while next < checkpoint.head().size {
            let (first, bundle) = reader.bundle_with(next).await.map_err(broken)?;
            for (index, bytes) in (first..).zip(&bundle).filter(|(index, _)| *index >= next) {
                let wrong = || exit::failure(exit::BROKEN, format!("entry {index} of the log is wrong"));
                let entry = Entry::from_bytes(bytes).with_context(wrong)?;
                story.read(&entry).with_context(wrong)?;
            }
            next = first + bundle.len() as u64;
        }
        keep(&context.home, &checkpoint, &story)?;
        let new = checkpoint.head().size - from;
        report(context, known, (&checkpoint, &story), new)?;
        Ok(exit::DONE)
    }
}

fn report(context: &Context, known: &Known, (checkpoint, story): (&Verified, &Story), new: u64) -> anyhow::Result<()> {
    let (open, waiting) = (story.open().count(), story.waiting());
    if context.format == Format::Json {
        let mut json = as_json(known, checkpoint);
        json["read"] = new.into();
        json["open_leases"] = open.into();
        json["open_jobs"] = waiting.into();
        return output::json(&json);
    }
    let signers: Vec<String> = known.signers(checkpoint).iter().map(ToString::to_string).collect();
    let head = checkpoint.head();
    output::line(&format!(
        "log          {}\nsize         {} entries, {new} of them read now\nroot         {}\nsigned by    {}\nopen         {open} \
         leases without an outcome, {waiting} jobs without a verdict\nit continues what was seen before, and each entry follows",
        checkpoint.get().origin(),
        head.size,
        head.root,
        signers.join(" "),
    ))
}

fn broken(error: ReadError) -> anyhow::Error {
    let code = if error.is_proof() { exit::BROKEN } else { exit::UNREACHABLE };
    anyhow::Error::from(error).context(exit::failure(code, "the log is not verified"))
}

/// Asks for the newest checkpoint until it is no smaller than what was seen.
async fn not_smaller(client: &Client, known: &Known, size: u64) -> anyhow::Result<Verified> {
    let behind = async {
        loop {
            let checkpoint = known.newest(client).await?;
            if checkpoint.head().size >= size {
                return Ok(checkpoint);
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    };
    tokio::time::timeout(CATCHES_UP_WITHIN, behind).await.unwrap_or_else(|_| {
        let hint = "a log never shrinks: this node is far behind, or somebody hides entries; ask another one";
        Err(anyhow!(
            exit::failure(exit::BROKEN, format!("the log has gone back: {size} entries were seen before")).hint(hint)
        ))
    })
}

fn recall(home: &Home, known: &Known) -> anyhow::Result<Seen> {
    let path = home.log_seen();
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Seen { head: Head::empty(), story: Story::default() });
        }
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let unusable = || exit::failure(exit::CONFIGURATION, format!("{} is damaged", path.display()));
    let kept: Kept = codec::decode(&bytes, usize::MAX).with_context(unusable)?;
    let signed = Signed::read(&kept.checkpoint.0).with_context(unusable)?;
    // Its signer need not be a coordinator any more: it was verified when it was kept.
    if signed.claims().origin() != network::origin(&known.network).as_str() {
        let of = signed.claims().origin();
        return Err(anyhow!(exit::failure(exit::CONFIGURATION, format!("{} is of {of}", path.display()))));
    }
    Ok(Seen { head: signed.claims().head(), story: Story::from_bytes(&kept.story.0).with_context(unusable)? })
}

fn keep(home: &Home, checkpoint: &Verified, story: &Story) -> anyhow::Result<()> {
    let checkpoint = Octets(checkpoint.as_signed().to_string().into_bytes());
    let bytes = codec::encode(&Kept { story: Octets(story.to_bytes()), checkpoint });
    let path = home.log_seen();
    let new = path.with_added_extension("new");
    let write = || {
        let mut file = fs::File::create(&new)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&new, &path)
    };
    write().with_context(|| format!("cannot remember what was verified in {}", path.display()))
}
