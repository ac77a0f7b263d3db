//! What the fuzz targets share. Each program below `bin` gives one [`Target`] to libFuzzer, and this crate checks of every run that
//! it neither panics nor takes longer than [`RUN_MAX`] of CPU time; the targets themselves check that whatever a decoder lets in
//! has one byte string.

pub mod grow;
pub mod measure;
pub mod targets;

#[cfg(feature = "programs")]
pub use libfuzzer_sys;
pub use measure::RUN_MAX;

/// One decoder, or several of one kind of bytes.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, which is that of its program and of its folder below `corpus`.
    pub name: &'static str,
    /// The longest input, in bytes: the decoder's own limit where that is not over [`LIMIT_MAX`].
    pub limit: usize,
    /// Decodes, checks, and says whether the bytes were let in.
    pub run: fn(&[u8]) -> bool,
}

/// The longest input of any target, in bytes. Some decoders take more; what takes more than linear time shows before.
pub const LIMIT_MAX: usize = 1 << 20;

/// Gives the lesser of a decoder's own limit and of [`LIMIT_MAX`].
pub const fn limit(own: usize) -> usize {
    if own < LIMIT_MAX { own } else { LIMIT_MAX }
}

/// Makes a program of a target.
#[cfg(feature = "programs")]
#[macro_export]
macro_rules! program {
    ($target:expr) => {
        $crate::libfuzzer_sys::fuzz_target!(init: $crate::measure::answer(&$target), |bytes: &[u8]| {
            $crate::measure::run(&$target, bytes);
        });

        $crate::libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, most: usize, seed: u32| {
            match $crate::grow::sometimes(&data[..size], most, seed) {
                Some(grown) => {
                    data[..grown.len()].copy_from_slice(&grown);
                    grown.len()
                }
                None => $crate::libfuzzer_sys::fuzzer_mutate(data, size, most),
            }
        });
    };
}
