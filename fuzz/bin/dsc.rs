//! Source packages' `.dsc` files, alone in a folder.

#![no_main]

artel_fuzz::program!(artel_fuzz::targets::sources::DSC);
