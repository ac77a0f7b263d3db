//! Recipes and their runs, as they were signed.

use protocol::{
    message::Octets,
    recipe::{Recipe, RecipeRun},
};
use serde::{Deserialize, Serialize};

/// A recipe and what its runs found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecipeView {
    /// The newest recipe of its name; without a plan it is removed.
    pub recipe: Recipe,
    /// Its last runs, the newest last; empty in lists.
    #[serde(default)]
    pub runs: Vec<RecipeRun>,
    /// The envelopes of the recipe and of each run, in that order: who goes on with them believes only these. Empty in lists.
    #[serde(default)]
    pub envelopes: Vec<Octets>,
}
