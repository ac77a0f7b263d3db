//! What the network keeps of a recipe, as maintainers signed it. What a maintainer signs next is made of it, so nothing is
//! taken from whom the views come from.

use anyhow::{Context as _, bail};
use protocol::{
    NetworkId, PublicKey, Verified,
    envelope::{Record, Signed},
    message::Octets,
    policy::Policy,
    recipe::{Recipe, RecipeRun, RunState},
    words::RecipeName,
};
use web::api::RecipeView;

use crate::cli::exit;

/// A recipe and its runs, each signed by a maintainer of the recipe's channel.
#[derive(Debug)]
pub(super) struct Kept {
    /// The recipe.
    pub recipe: Recipe,
    /// Its runs, the newest last, without those that ended and whose signer is no maintainer any more.
    pub runs: Vec<RecipeRun>,
    /// The number of the run after the last that is known.
    pub next: u64,
}

impl Kept {
    /// Reads what a view shows from its envelopes.
    pub(super) fn prove(
        view: &RecipeView,
        name: &RecipeName,
        network: &NetworkId,
        policy: &Policy,
    ) -> anyhow::Result<Self> {
        let (first, rest) = view.envelopes.split_first().context("the coordinator sent no signature of the recipe")?;
        let recipe = verified::<Recipe>(first, network).context("the recipe's signature")?;
        let signed = recipe.get();
        if (&signed.name, &signed.network) != (name, network) {
            bail!("asked for recipe {name}, the coordinator sent recipe {}", signed.name);
        }
        let maintains = |signers: &std::collections::BTreeSet<PublicKey>| {
            let mut known = signers.iter().filter_map(|key| policy.maintainer(key));
            known.any(|maintainer| maintainer.channels.contains(&signed.channel))
        };
        if !maintains(&recipe.signers()) {
            let what = format!("no maintainer of channel {} signed recipe {name}", signed.channel);
            let hint = "read it, and have a maintainer of the channel sign it anew with `artel recipe add`";
            return Err(exit::failure(exit::FAILED, what).hint(hint).into());
        }
        let (mut runs, mut last) = (Vec::new(), 0);
        for envelope in rest {
            let run = verified::<RecipeRun>(envelope, network).context("the signature of a run")?;
            let told = run.get();
            if (&told.recipe, &told.network) != (name, network) || told.run <= last {
                bail!("the coordinator sent runs that are not those of recipe {name}");
            }
            last = told.run;
            if maintains(&run.signers()) {
                runs.push(run.into_inner());
            } else if told.state == RunState::Open {
                let what =
                    format!("no maintainer of channel {} signed run {}, which is open", signed.channel, told.run);
                let hint = "remove the recipe and add it again, which forgets its runs";
                return Err(exit::failure(exit::FAILED, what).hint(hint).into());
            }
        }
        Ok(Self { recipe: recipe.into_inner(), runs, next: last + 1 })
    }
}

fn verified<T: Record>(envelope: &Octets, network: &NetworkId) -> anyhow::Result<Verified<T>> {
    Ok(Signed::read(&envelope.0)?.verify(Some(network))?)
}

#[cfg(test)]
mod tests {
    use protocol::testing::{samples, signing_key};

    use super::*;

    fn octets<T: Record>(record: &T, seed: u8) -> Octets {
        Octets(Signed::sign(record, Some(&samples::network()), &[&signing_key(seed)]).to_bytes())
    }

    fn prove(view: &RecipeView) -> anyhow::Result<Kept> {
        Kept::prove(view, &"shop".parse().unwrap(), &samples::network(), &samples::genesis(1))
    }

    #[test]
    fn only_what_a_maintainer_signed_is_believed() {
        const OURS: u8 = samples::MAINTAINER_SEED;
        let recipe = samples::recipe(samples::network());
        let run = samples::recipe_run(samples::network());
        let envelopes = vec![octets(&recipe, OURS), octets(&run, OURS)];
        // What the view says beside the envelopes is not looked at.
        let other = Recipe { number: 9, plan: None, ..recipe.clone() };
        let view = RecipeView { recipe: other, runs: Vec::new(), envelopes: envelopes.clone() };
        let kept = prove(&view).unwrap();
        assert_eq!((kept.recipe, kept.runs, kept.next), (recipe.clone(), vec![run.clone()], run.run + 1));

        let refused = |envelopes| prove(&RecipeView { envelopes, ..view.clone() }).unwrap_err().to_string();
        assert!(refused(Vec::new()).contains("sent no signature"));
        assert!(refused(vec![octets(&recipe, 99)]).contains("no maintainer of channel stable signed recipe shop"));
        let renamed = Recipe { name: "cellar".parse().unwrap(), ..recipe.clone() };
        assert!(refused(vec![octets(&renamed, OURS)]).contains("sent recipe cellar"));
        let elsewhere = RecipeRun { recipe: "cellar".parse().unwrap(), ..run.clone() };
        assert!(refused(vec![octets(&recipe, OURS), octets(&elsewhere, OURS)]).contains("not those of recipe shop"));
        let open = RecipeRun { state: RunState::Open, ..run.clone() };
        assert!(refused(vec![octets(&recipe, OURS), octets(&open, 99)]).contains("signed run 2, which is open"));
        let mut changed = envelopes[0].clone();
        *changed.0.last_mut().unwrap() ^= 1;
        assert!(refused(vec![changed]).contains("signature"));

        // Somebody who left the network has run it: the next run is counted, and what was found is not believed.
        let left = vec![octets(&recipe, OURS), octets(&run, 99)];
        let kept = prove(&RecipeView { envelopes: left, ..view.clone() }).unwrap();
        assert_eq!((kept.runs.len(), kept.next), (0, run.run + 1));
    }
}
