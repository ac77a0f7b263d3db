//! Paths of tiled logs, and entry bundles: a path, a newline, the bytes.

#![no_main]

artel_fuzz::program!(artel_fuzz::targets::log::TILE);
