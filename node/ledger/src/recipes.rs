//! Recipes by name, and what their runs found. Both are signed by maintainers; nothing here is run.
//!
//! * **No way back.** A recipe's numbers and a recipe's runs are counted, and each record is one more than the one before or
//!   continues the open run with its next step, so of two who run a recipe at
//!   one time one is told to look again. A recipe that was removed leaves its number, so that no old record brings it
//!   back.
//! * **How much.** Every coordinator holds all of it in memory and in each snapshot, so recipes, runs and their bytes together
//!   are bounded; a recipe can always be removed.
//! * **Who.** A maintainer of the recipe's channel; who moves a recipe to another channel may submit to both.

use std::collections::BTreeMap;

use protocol::{
    NetworkId, Timestamp, Verified, limits,
    message::{Octets, Refusal},
    recipe::{Recipe, RecipeRun, RunState},
    words::RecipeName,
};

use crate::{Ledger, Turn, admission, snapshot};

/// Recipes of one network, removed ones included.
const RECIPES_MAX: usize = 2000;
/// Runs that are kept of each recipe, beside the last one that built.
const RUNS_MAX: usize = 12;
/// Bytes of all recipes and runs, as they were signed.
const BYTES_MAX: u64 = 32 << 20;

/// A recipe and its runs, the newest last.
#[derive(Debug, Clone)]
struct Entry {
    recipe: Verified<Recipe>,
    runs: Vec<Verified<RecipeRun>>,
}

/// All recipes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Book {
    entries: BTreeMap<RecipeName, Entry>,
    /// Bytes of all entries.
    bytes: u64,
}

/// A recipe and its runs, as a snapshot keeps them.
pub(crate) type StoredEntry = (Octets, Vec<Octets>);

impl Book {
    /// Gives what a snapshot keeps.
    pub(crate) fn entries(&self) -> Vec<StoredEntry> {
        let stored = |entry: &Entry| {
            let runs = entry.runs.iter().map(|run| Octets(run.to_bytes())).collect();
            (Octets(entry.recipe.to_bytes()), runs)
        };
        self.entries.values().map(stored).collect()
    }

    /// Takes up what a snapshot kept, and verifies every signature again.
    pub(crate) fn from_entries(entries: &[StoredEntry], network: &NetworkId) -> Result<Self, snapshot::SnapshotError> {
        let mut book = Self::default();
        for (recipe, runs) in entries {
            let recipe: Verified<Recipe> = snapshot::verified(recipe, Some(network))?;
            let runs = runs.iter().map(|run| snapshot::verified(run, Some(network))).collect::<Result<_, _>>()?;
            book.put(recipe.get().name.clone(), Entry { recipe, runs });
        }
        Ok(book)
    }

    /// Keeps an entry instead of the one of its name.
    fn put(&mut self, name: RecipeName, entry: Entry) {
        let bytes = entry.bytes();
        let before = self.entries.insert(name, entry).as_ref().map_or(0, Entry::bytes);
        self.bytes = self.bytes - before + bytes;
    }

    /// Refuses an entry that does not fit beside all others.
    fn check_room(&self, name: &RecipeName, entry: &Entry) -> Result<(), Refusal> {
        let before = self.entries.get(name).map_or(0, Entry::bytes);
        let bytes = entry.bytes();
        if bytes > before && self.bytes - before + bytes > BYTES_MAX {
            let what = format!("recipes and their runs have {BYTES_MAX} bytes: remove some that are not needed");
            return Err(Refusal::Busy(what));
        }
        Ok(())
    }
}

impl Ledger {
    /// Gives every recipe that is not removed.
    pub fn recipes(&self) -> impl Iterator<Item = &Recipe> {
        self.book.entries.values().map(|entry| entry.recipe.get()).filter(|recipe| recipe.plan.is_some())
    }

    /// Gives a recipe and its runs, the newest last; a removed one too.
    pub fn recipe(&self, name: &RecipeName) -> Option<(&Recipe, Vec<&RecipeRun>)> {
        let entry = self.book.entries.get(name)?;
        Some((entry.recipe.get(), entry.runs.iter().map(Verified::get).collect()))
    }

    /// Gives a recipe and its runs as [`Ledger::recipe`] does, with their signatures.
    pub fn signed_recipe(&self, name: &RecipeName) -> Option<(&Verified<Recipe>, &[Verified<RecipeRun>])> {
        self.book.entries.get(name).map(|entry| (&entry.recipe, entry.runs.as_slice()))
    }

    pub(crate) fn keep_recipe(&mut self, recipe: Verified<Recipe>, turn: &mut Turn) {
        match self.admit_recipe(recipe, turn.at) {
            Ok(()) => turn.done(),
            Err(refusal) => turn.refuse(refusal),
        }
    }

    fn admit_recipe(&mut self, recipe: Verified<Recipe>, at: Timestamp) -> Result<(), Refusal> {
        let (wish, policy) = (recipe.get(), self.policy_in_force());
        self.check_record(wish.network, (wish.at, at))?;
        let signers = recipe.signers();
        admission::maintainer(&signers, &wish.channel, policy)?;
        let Some(channel) = policy.channel(&wish.channel) else {
            return Err(Refusal::Invalid(format!("there is no channel {} in the policy", wish.channel)));
        };
        let arches = wish.plan.iter().flat_map(|plan| &plan.arches);
        if let Some(arch) = arches.into_iter().find(|arch| channel.arches.binary_search(arch).is_err()) {
            return Err(Refusal::Invalid(format!("channel {} does not build {arch}", channel.name)));
        }
        let before = self.book.entries.get(&wish.name);
        let number = before.map_or(0, |entry| entry.recipe.get().number);
        match before {
            Some(entry) if entry.recipe.id() == recipe.id() => return Ok(()),
            Some(entry) if entry.recipe.get().channel != wish.channel => {
                admission::maintainer(&signers, &entry.recipe.get().channel, policy)?;
            }
            Some(_) => {}
            None if self.book.entries.len() >= RECIPES_MAX => {
                return Err(Refusal::Busy(format!("there are {RECIPES_MAX} recipes: no more fit")));
            }
            None => {}
        }
        if wish.number != number + 1 {
            let name = &wish.name;
            return Err(Refusal::Invalid(format!(
                "the newest recipe {name} has number {number}: sign it again as number {}",
                number + 1
            )));
        }
        if wish.plan.is_none() && before.is_none_or(|entry| entry.recipe.get().plan.is_none()) {
            return Err(Refusal::Unknown(format!("recipe {}", wish.name)));
        }
        let runs = match before {
            Some(entry) if wish.plan.is_some() => entry.runs.clone(),
            Some(_) | None => Vec::new(),
        };
        let (name, removes) = (wish.name.clone(), wish.plan.is_none());
        let entry = Entry { runs, recipe };
        if !removes {
            self.book.check_room(&name, &entry)?;
        }
        self.book.put(name, entry);
        Ok(())
    }

    pub(crate) fn keep_run(&mut self, run: Verified<RecipeRun>, turn: &mut Turn) {
        match self.admit_run(run, turn.at) {
            Ok(()) => turn.done(),
            Err(refusal) => turn.refuse(refusal),
        }
    }

    fn admit_run(&mut self, run: Verified<RecipeRun>, at: Timestamp) -> Result<(), Refusal> {
        let record = run.get();
        self.check_record(record.network, (record.at, at))?;
        let unknown = || Refusal::Unknown(format!("recipe {}", record.recipe));
        let entry =
            self.book.entries.get(&record.recipe).filter(|e| e.recipe.get().plan.is_some()).ok_or_else(unknown)?;
        let signers = run.signers();
        admission::maintainer(&signers, &entry.recipe.get().channel, self.policy_in_force())?;
        let last = entry.runs.last();
        if last.is_some_and(|last| last.id() == run.id()) {
            return Ok(());
        }
        let open = last.map(Verified::get).filter(|last| last.state == RunState::Open);
        match open {
            Some(open) if record.run == open.run => {
                if record.step != open.step + 1 || record.at <= open.at || record.number != open.number {
                    return Err(Refusal::Invalid(format!("run {} went on meanwhile: look again", open.run)));
                }
            }
            Some(open) => {
                return Err(Refusal::Invalid(format!("run {} of the recipe is not over: continue it", open.run)));
            }
            None => {
                let next = last.map_or(0, |last| last.get().run) + 1;
                let number = entry.recipe.get().number;
                if record.run != next || record.step != 0 || record.number != number {
                    return Err(Refusal::Invalid(format!(
                        "the next run of recipe {} is run {next} of number {number}: look again",
                        record.recipe
                    )));
                }
            }
        }
        let continues = open.is_some();
        let name = record.recipe.clone();
        let mut entry = entry.clone();
        if continues {
            entry.runs.pop();
        }
        entry.runs.push(run);
        entry.forget_old();
        self.book.check_room(&name, &entry)?;
        self.book.put(name, entry);
        Ok(())
    }

    fn check_record(&self, network: NetworkId, (signed, at): (Timestamp, Timestamp)) -> Result<(), Refusal> {
        if network != self.network {
            return Err(Refusal::Invalid(format!("it is for network {network}, this is {}", self.network)));
        }
        if self.policy_in_force().expires <= at {
            return Err(Refusal::NotAllowed("the network's policy has expired: its roots must sign a new one".into()));
        }
        if signed > at.after(limits::CLOCK_SKEW_MAX) {
            let ahead = signed.since(at).as_secs();
            return Err(Refusal::Invalid(format!("it was signed {ahead} s in the future: check the signer's clock")));
        }
        Ok(())
    }
}

impl Entry {
    /// Gives its bytes, as they were signed.
    fn bytes(&self) -> u64 {
        let runs: usize = self.runs.iter().map(|run| run.to_bytes().len()).sum();
        (self.recipe.to_bytes().len() + runs) as u64
    }

    /// Drops the oldest runs, but never the last that built: the next decision needs it.
    fn forget_old(&mut self) {
        while self.runs.len() > RUNS_MAX {
            let built = self.runs.iter().rposition(|run| run.get().has_built());
            self.runs.remove(if built == Some(0) { 1 } else { 0 });
        }
    }
}

#[cfg(test)]
mod tests;
