//! Recipes as their maintainers write them.

#![no_main]

artel_fuzz::program!(artel_fuzz::targets::sources::FORM);
