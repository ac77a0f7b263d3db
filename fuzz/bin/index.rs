//! The indexes of repositories: apt's `Packages`, dnf's `repomd.xml` and primary index. No package lies outside.

#![no_main]

artel_fuzz::program!(artel_fuzz::targets::packages::INDEX);
