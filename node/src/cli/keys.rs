//! `artel keys`: keys of people. A node's own key is made by `artel init`.

use clap::Subcommand;
use serde::Serialize;

use super::{
    Context, exit,
    output::{self, Format},
};
use crate::keys;

/// Make and list keys of people (roots, maintainers)
#[derive(Debug, Subcommand)]
pub(super) enum Keys {
    /// Make a key; prints its public half
    New {
        /// What to call it, for instance `root` or `alice`
        name: protocol::MaintainerName,
    },
    /// List keys
    Ls,
    /// Print the public half of a key
    Show {
        /// The key's name
        name: protocol::MaintainerName,
    },
}

#[derive(Serialize)]
struct KeyView {
    name: String,
    public: String,
}

impl Keys {
    pub(super) fn run(self, context: &Context) -> anyhow::Result<u8> {
        match self {
            Keys::New { name } => {
                let path = context.home.key(name.as_str());
                std::fs::create_dir_all(path.parent().expect("a key lies in a folder"))?;
                let key = keys::create(&path)?;
                anstream::eprintln!("wrote {}", path.display());
                print(context, &[KeyView { name: name.to_string(), public: keys::public(&key).to_string() }])
            }
            Keys::Show { name } => {
                let key = keys::load(&context.home.key(name.as_str()))?;
                print(context, &[KeyView { name: name.to_string(), public: keys::public(&key).to_string() }])
            }
            Keys::Ls => print(context, &list(context)?),
        }
    }
}

fn list(context: &Context) -> anyhow::Result<Vec<KeyView>> {
    let mut views = Vec::new();
    let node = context.home.node_key();
    if node.exists() {
        views.push(KeyView { name: "(node)".into(), public: keys::public(&keys::load(&node)?).to_string() });
    }
    let folder = context.home.path().join("keys");
    let mut paths: Vec<_> = match std::fs::read_dir(&folder) {
        Ok(entries) => entries.filter_map(|e| Some(e.ok()?.path())).collect(),
        Err(_) => Vec::new(),
    };
    paths.sort();
    for path in paths.iter().filter(|p| p.extension().is_some_and(|e| e == "key")) {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        views.push(KeyView { name, public: keys::public(&keys::load(path)?).to_string() });
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
