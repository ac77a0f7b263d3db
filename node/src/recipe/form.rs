//! A recipe as people write it, in TOML.

use std::collections::BTreeSet;

use protocol::{
    Arch, ChannelName, Sha256,
    job::Pointer,
    recipe::{Flavour, GitSource, Named, Plan, Product, Recipe, Tarball, Upstream},
    words::{HostRule, RecipeName, RefName, Url},
};
use serde::{Deserialize, Serialize};

/// Why a text is no recipe.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not valid TOML, or has words that nobody knows.
    #[error("not a valid recipe")]
    Form(#[source] Box<toml::de::Error>),
    /// This machine's architecture has no name.
    #[error("this machine's architecture has no name in dpkg: name the recipe's `arches`")]
    Arch,
}

/// A recipe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Form {
    /// Its name.
    pub name: RecipeName,
    /// Where its packages go.
    pub channel: ChannelName,
    /// `deb` or `rpm`.
    pub kind: Product,
    /// `ci` or `release`.
    pub flavour: Flavour,
    /// What it builds for; this machine's architecture where nothing is said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arches: Vec<Arch>,
    /// Macros for rpmbuild, each `NAME VALUE`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub macros: Vec<String>,
    /// Which Debian packages give what an RPM requires, each `RPM=DEB[,DEB]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requires: Vec<String>,
    /// The program's source.
    pub upstream: Source,
    /// The packaging's repository, when it is not part of upstream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packaging: Option<Git>,
}

/// A repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Git {
    /// Its address.
    pub git: Url,
    /// The branch or tag; the repository's own choice where nothing is said.
    #[serde(default = "head")]
    pub reference: RefName,
}

/// The program's source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, untagged)]
pub enum Source {
    /// A repository.
    Git(Git),
    /// A release's tarball.
    Tarball {
        /// Its address.
        tarball: Url,
        /// What it must be.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sha256: Option<Sha256>,
    },
    /// What the packaging names.
    Named {
        /// `watch`, `watch-packaged` or `spec`.
        by: Pointer,
        /// Hosts that its files are expected at, each perhaps with `:port`.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        hosts: Vec<HostRule>,
    },
}

fn head() -> RefName {
    RefName::new("HEAD").expect("a valid word")
}

impl Form {
    /// Reads a recipe.
    ///
    /// # Errors
    /// When it is not valid.
    pub fn parse(text: &str) -> Result<Self, Error> {
        toml::from_str(text).map_err(|error| Error::Form(Box::new(error)))
    }

    /// Gives what is signed.
    ///
    /// # Errors
    /// [`Error::Arch`].
    pub fn plan(&self) -> Result<Plan, Error> {
        let sorted = |words: &[String]| {
            let mut words = words.to_vec();
            words.sort();
            words.dedup();
            words
        };
        let mut arches = self.arches.clone();
        if arches.is_empty() {
            arches.push(Arch::native().ok_or(Error::Arch)?);
        }
        arches.sort();
        arches.dedup();
        let git = |git: &Git| GitSource { url: git.git.clone(), reference: git.reference.clone() };
        Ok(Plan {
            kind: self.kind,
            arches,
            macros: sorted(&self.macros),
            flavour: self.flavour,
            requires: sorted(&self.requires),
            upstream: match &self.upstream {
                Source::Git(source) => Upstream::Git(git(source)),
                Source::Tarball { tarball, sha256 } => {
                    Upstream::Tarball(Tarball { url: tarball.clone(), sha256: *sha256 })
                }
                Source::Named { by, hosts } => {
                    let hosts: BTreeSet<&HostRule> = hosts.iter().collect();
                    Upstream::Named(Named { by: *by, hosts: hosts.into_iter().cloned().collect() })
                }
            },
            packaging: self.packaging.as_ref().map(git),
        })
    }

    /// Writes a recipe as it would be read again; nothing for a removed one.
    pub fn of(recipe: &Recipe) -> Option<Self> {
        let plan = recipe.plan.as_ref()?;
        let git = |git: &GitSource| Git { git: git.url.clone(), reference: git.reference.clone() };
        Some(Self {
            name: recipe.name.clone(),
            channel: recipe.channel.clone(),
            kind: plan.kind,
            flavour: plan.flavour,
            arches: plan.arches.clone(),
            macros: plan.macros.clone(),
            requires: plan.requires.clone(),
            upstream: match &plan.upstream {
                Upstream::Git(source) => Source::Git(git(source)),
                Upstream::Tarball(tarball) => Source::Tarball { tarball: tarball.url.clone(), sha256: tarball.sha256 },
                Upstream::Named(named) => Source::Named { by: named.by, hosts: named.hosts.clone() },
            },
            packaging: plan.packaging.as_ref().map(git),
        })
    }

    /// Gives the text.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).expect("a recipe has nothing that TOML cannot write")
    }
}

#[cfg(test)]
mod tests {
    use protocol::testing::samples;

    use super::*;

    #[test]
    fn a_recipe_is_exported_as_it_is_read() {
        for recipe in [samples::recipe(samples::network()), samples::recipe_named(samples::network())] {
            let form = Form::of(&recipe).unwrap();
            let again = Form::parse(&form.to_toml()).unwrap();
            assert_eq!((again.plan().unwrap(), &again), (recipe.plan.clone().unwrap(), &form));
        }
        let tarball = "name = \"shop\"\nchannel = \"main\"\nkind = \"rpm\"\nflavour = \"release\"\n\
                       [upstream]\ntarball = \"https://example.org/shop-1.0.tar.gz\"\n";
        let form = Form::parse(tarball).unwrap();
        assert!(matches!(form.plan().unwrap().upstream, Upstream::Tarball(Tarball { sha256: None, .. })));
        assert_eq!(form.plan().unwrap().arches, Arch::native().into_iter().collect::<Vec<_>>());
        for bad in ["tarbal = \"https://a.b/c\"", "git = \"ssh://a/b\"", "git = \"https://a/b\"\nbranch = \"x\""] {
            let text = tarball.replace("tarball = \"https://example.org/shop-1.0.tar.gz\"", bad);
            assert!(Form::parse(&text).is_err(), "{bad}");
        }
    }
}
