//! `artel keys`: keys of people. A node's own key is made by `artel init`.

use std::path::PathBuf;

use clap::Subcommand;
use protocol::ssh;
use serde::Serialize;

use super::{
    Context, exit,
    output::{self, Format},
};
use crate::keys::{self, Sign as _, Signer};

/// Make and list keys of people (roots, maintainers)
#[derive(Debug, Subcommand)]
pub(super) enum Keys {
    /// Make a key; prints its public half
    New {
        /// What to call it, for instance `root` or `alice`
        name: protocol::MaintainerName,
    },
    /// Give a name to a key of OpenSSH, which stays where it is
    Add {
        /// What to call it, for instance `maintainer` or `alice`
        name: protocol::MaintainerName,
        /// Its file: `~/.ssh/id_ed25519.pub` for a key that an agent has, or the secret key's
        file: PathBuf,
    },
    /// List keys
    Ls,
    /// Print the public half of a key, as it stands in a policy
    Show {
        /// The key's name, or the path of its file
        key: keys::Word,
        /// Print it as OpenSSH does
        #[arg(long)]
        ssh: bool,
    },
}

#[derive(Serialize)]
struct KeyView {
    name: String,
    public: String,
    ssh: String,
}

impl KeyView {
    fn new(name: impl Into<String>, key: &Signer) -> Self {
        let ssh = match key {
            Signer::Own(_) => ssh::Key::plain(key.public()),
            Signer::Ssh(key) => key.ssh().clone(),
        };
        Self { name: name.into(), public: key.public().to_string(), ssh: ssh.to_line() }
    }
}

impl Keys {
    pub(super) fn run(self, context: &Context) -> anyhow::Result<u8> {
        match self {
            Keys::New { name } => {
                let path = context.home.key(name.as_str());
                std::fs::create_dir_all(path.parent().expect("a key lies in a folder"))?;
                let key = keys::create(&path)?;
                anstream::eprintln!("wrote {}", path.display());
                print(context, &[KeyView::new(name.as_str(), &Signer::Own(key))])
            }
            Keys::Add { name, file } => {
                let path = context.home.key(name.as_str());
                std::fs::create_dir_all(path.parent().expect("a key lies in a folder"))?;
                let key = keys::link(&file, &path)?;
                anstream::eprintln!("{name} is {}", file.display());
                print(context, &[KeyView::new(name.as_str(), &key)])
            }
            Keys::Show { key, ssh } => show(context, &key, ssh),
            Keys::Ls => print(context, &list(context)?),
        }
    }
}

fn show(context: &Context, word: &keys::Word, ssh: bool) -> anyhow::Result<u8> {
    let name = match word {
        keys::Word::Name(name) => name.to_string(),
        keys::Word::File(path) => path.display().to_string(),
    };
    let view = KeyView::new(name, &context.signer(word)?);
    if ssh && context.format == Format::People {
        output::line(&view.ssh)?;
        return Ok(exit::DONE);
    }
    print(context, &[view])
}

fn list(context: &Context) -> anyhow::Result<Vec<KeyView>> {
    let mut views = Vec::new();
    let node = context.home.node_key();
    if node.exists() {
        views.push(KeyView::new("(node)", &Signer::Own(keys::load(&node)?)));
    }
    let folder = context.home.path().join("keys");
    let mut paths: Vec<_> = match std::fs::read_dir(&folder) {
        Ok(entries) => entries.filter_map(|e| Some(e.ok()?.path())).collect(),
        Err(_) => Vec::new(),
    };
    paths.sort();
    for path in paths.iter().filter(|p| p.extension().is_some_and(|e| e == "key")) {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        views.push(KeyView::new(name, &Signer::open(path)?));
    }
    Ok(views)
}

fn print(context: &Context, views: &[KeyView]) -> anyhow::Result<u8> {
    match (context.format, views) {
        (Format::Json, _) => output::json(&views)?,
        (Format::People, [one]) => output::line(&one.public)?,
        (Format::People, _) => {
            let rows = views.iter().map(|v| vec![v.name.clone(), v.public.clone()]).collect();
            output::table(&["NAME", "PUBLIC KEY"], rows)?;
        }
    }
    Ok(exit::DONE)
}
