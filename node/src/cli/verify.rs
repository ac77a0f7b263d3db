//! `artel verify`, `artel apt-hook` and `artel dnf-hook`: the command line of `artel-verify`, which shares its code and its words.

use super::{Context, output::Format};

/// Words that the verifier reads itself
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(super) struct Words {
    /// What to do; --help says what can be said
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "WORDS")]
    words: Vec<String>,
}

impl Words {
    /// Has the verifier do what is asked for under a noun, and gives its exit code.
    pub(super) fn run(self, context: &Context, noun: &str) -> u8 {
        let json = (context.format == Format::Json).then(|| "--json".to_owned());
        verifier::program::perform([noun.to_owned()].into_iter().chain(json).chain(self.words).collect())
    }
}
