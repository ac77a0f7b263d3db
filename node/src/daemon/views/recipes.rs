//! Recipes as people see them.

use ledger::Ledger;
use protocol::{Verified, message::Octets, words::RecipeName};
use web::api::RecipeView;

use crate::daemon::Decisions;

/// The view path of the list.
pub const LIST: &str = "recipes";

/// Gives the view path of one recipe.
pub fn path(name: &RecipeName) -> String {
    format!("recipe/{name}")
}

/// Lists recipes that are not removed.
pub fn list(ledger: &Ledger) -> Vec<RecipeView> {
    ledger
        .recipes()
        .map(|recipe| RecipeView { recipe: recipe.clone(), runs: Vec::new(), envelopes: Vec::new() })
        .collect()
}

/// Shows one recipe with its runs.
pub fn show(ledger: &Ledger, name: &RecipeName) -> Option<RecipeView> {
    let (recipe, runs) = ledger.signed_recipe(name)?;
    let envelopes = std::iter::once(recipe.to_bytes()).chain(runs.iter().map(Verified::to_bytes)).map(Octets).collect();
    Some(RecipeView {
        recipe: recipe.get().clone(),
        runs: runs.iter().map(|run| run.get().clone()).collect(),
        envelopes,
    })
}

/// Answers a view path of recipes; nothing for another path.
pub(super) async fn answer(decisions: &Decisions, path: &str) -> Option<Option<Vec<u8>>> {
    if path == LIST {
        let list = decisions.view(list).await;
        return Some(list.map(|list| serde_json::to_vec(&list).expect("a view is plain data")));
    }
    let name: RecipeName = path.strip_prefix("recipe/")?.parse().ok()?;
    let found = decisions.view(move |ledger| show(ledger, &name)).await;
    Some(found.map(|found| serde_json::to_vec(&found).expect("a view is plain data")))
}
