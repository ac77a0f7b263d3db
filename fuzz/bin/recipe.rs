//! Recipes and the records of their runs, likewise.

#![no_main]

artel_fuzz::program!(artel_fuzz::targets::records::RECIPE);
