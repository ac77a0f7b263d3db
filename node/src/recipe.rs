//! Recipes, as far as they need no network: how people write them, what commits of theirs are called, how a source package
//! is made of fetched trees, and when a version is built.
//!
//! `cli/recipe` walks through a run, because each of its steps is a request that the maintainer signs.

pub mod decide;
pub mod form;
pub mod source;
