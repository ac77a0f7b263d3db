//! What a recipe of an image depends on beside itself: this node's repositories, and where images reach them.

use std::path::Path;

use protocol::{ChannelName, FileName, words::RelativePath};
use web::{Backend, backend::ByteRange};

use super::super::Context;
use crate::{
    bounded, clock,
    config::Config,
    resolve::further::Repository,
    submit::image::{RECIPE_MAX, Surroundings},
};

/// The key's file in each repository.
const KEY: &str = "archive-key.gpg";
/// The largest key, in bytes.
const KEY_MAX: usize = 64 * 1024;

/// Says whether a file is a recipe of an image: a command file has no formats.
pub(super) fn is_recipe(path: &Path) -> bool {
    let text = bounded::read_text(path, RECIPE_MAX as u64);
    let table = text.ok().and_then(|text| text.parse::<toml::Table>().ok());
    table.is_some_and(|table| table.contains_key("formats"))
}

/// Asks the node for its repositories and their keys.
pub(super) async fn surroundings(
    context: &Context,
    channel: &ChannelName,
    public: Option<String>,
) -> anyhow::Result<Surroundings> {
    let client = context.client();
    let here = format!("http://{}", Config::load(&context.home)?.reach.web);
    let mut own = Vec::new();
    for view in client.repositories().await? {
        let path = RelativePath::new(KEY)?;
        // A channel whose first release is still to come has no key yet, and no package either.
        let Ok(key) = client.repository_file(view.channel.clone(), path, ByteRange::All).await else { continue };
        let repository = Repository {
            uri: format!("{here}/repo/{}/", view.channel),
            suite: view.suite.to_string(),
            components: vec!["main".into()],
            key_name: FileName::new(KEY)?,
            key: key.collect(KEY_MAX).await?.to_vec(),
        };
        own.push((view.channel, repository));
    }
    Ok(Surroundings { channel: channel.clone(), address: public.unwrap_or(here), own, now: clock::now() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_large_for_a_recipe_is_none_and_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let recipe = folder.path().join("recipe.toml");
        std::fs::write(&recipe, "formats = [\"tar\"]\n").unwrap();
        assert!(is_recipe(&recipe));
        // Endless, as far as anybody reads.
        assert!(!is_recipe(Path::new("/dev/zero")));
    }
}
