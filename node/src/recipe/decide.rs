//! Whether a run of a recipe builds: one pure function over what was found and what was built before.
//!
//! | the version is | CI | release |
//! |---|---|---|
//! | less than the last | skip | skip |
//! | equal, the same commits | skip | skip |
//! | equal, other commits | **build** | skip |
//! | greater | **build** | **build** |
//!
//! CI skips the same commits whatever their version says. The last version is the greater of what the recipe built last and
//! what the channel has.

use std::cmp::Ordering;

use protocol::{
    recipe::{Decision, Flavour, Product, Revision},
    words::DebVersion,
};

use crate::publish;

/// A version and what it was made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Made<'a> {
    /// The version.
    pub version: &'a DebVersion,
    /// The sources at that time.
    pub revisions: &'a [Revision],
}

/// Decides whether a version is built.
pub fn decide(
    (product, flavour): (Product, Flavour),
    now: Made<'_>,
    last: Option<Made<'_>>,
    published: Option<&DebVersion>,
) -> Decision {
    if flavour == Flavour::Ci && last.is_some_and(|last| last.revisions == now.revisions) {
        return same_commit();
    }
    let greater = |a, b| if compare(product, a, b) == Ordering::Less { b } else { a };
    let known = last.map(|last| last.version).into_iter().chain(published).reduce(greater);
    let (version, Some(known)) = (now.version, known) else {
        return Decision::Build(format!("{} is the first version", now.version));
    };
    match (compare(product, version, known), flavour) {
        (Ordering::Greater, _) => Decision::Build(format!("{version} is newer than {known}")),
        (Ordering::Equal, Flavour::Ci) => Decision::Build(format!("{version} is equal to the last, of another commit")),
        (Ordering::Equal, Flavour::Release) => Decision::Skip(format!("equal version {version}, skipped")),
        (Ordering::Less, _) => Decision::Skip(format!("{version} is older than {known}, skipped")),
    }
}

/// The decision about what was built already.
pub fn same_commit() -> Decision {
    Decision::Skip("same commit, skipped".to_owned())
}

/// Compares versions by the distribution's own rule.
pub fn compare(product: Product, a: &DebVersion, b: &DebVersion) -> Ordering {
    match product {
        Product::Deb => publish::version::compare(a, b),
        Product::Rpm => publish::rpm::version::compare(a, b),
    }
}

/// Gives what a CI version has after the packaging's: the commit's time in UTC to the second, and its ordinal. A later commit
/// of a branch has a later time or, in the same second, a higher ordinal; a hash would order by chance.
pub fn suffix(product: Product, time: u64, ordinal: u64) -> String {
    let (days, second) = (time / 86_400, time % 86_400);
    let (year, month, day) = date(days);
    let clock = format!("{:02}{:02}{:02}", second / 3600, second / 60 % 60, second % 60);
    let mark = match product {
        Product::Deb => '+',
        // Above the release, below its next one.
        Product::Rpm => '^',
    };
    format!("{mark}git{year:04}{month:02}{day:02}{clock}.{ordinal}")
}

/// Gives the Gregorian date of a day since 1970 (H. Hinnant, "chrono-compatible low-level date algorithms").
fn date(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let of_year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_years = of_era - (365 * of_year + of_year / 4 - of_year / 100);
    let shifted_month = (5 * of_years + 2) / 153;
    let day = of_years - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (of_year + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> DebVersion {
        text.parse().unwrap()
    }

    fn revision(commit: &str) -> Vec<Revision> {
        vec![Revision { name: "upstream".parse().unwrap(), what: commit.to_owned() }]
    }

    #[test]
    fn the_table_holds_for_both_flavours_and_both_orders() {
        // Per product: less, equal and greater than the last. Debian sorts letters before `+`, RPM ignores it.
        let orders =
            [(Product::Deb, "1.0~rc1-1", "1.0-1", "1.0+git1-1"), (Product::Rpm, "1.0~rc1-1", "1.0-1", "1.0^git1-1")];
        for (product, less, last, greater) in orders {
            let rows = [
                (less, "other", [false, false]),
                (last, "same", [false, false]),
                (last, "other", [true, false]),
                (greater, "other", [true, true]),
                (greater, "same", [false, true]),
            ];
            for (now, commit, builds) in rows {
                for (flavour, builds) in [Flavour::Ci, Flavour::Release].into_iter().zip(builds) {
                    let (now, known) = (version(now), version(last));
                    let (of_now, of_last) = (revision(commit), revision("same"));
                    let now = Made { version: &now, revisions: &of_now };
                    let before = Made { version: &known, revisions: &of_last };
                    let decision = decide((product, flavour), now, Some(before), None);
                    assert_eq!(matches!(decision, Decision::Build(_)), builds, "{flavour:?} {now:?}: {decision:?}");
                    // What the channel has counts like what was built last, but for its commits.
                    let decision = decide((product, flavour), now, None, Some(&known));
                    let builds = builds || (flavour == Flavour::Ci && now.version.as_str() != less);
                    assert_eq!(matches!(decision, Decision::Build(_)), builds, "published, {flavour:?} {now:?}");
                }
            }
            let (now, revisions) = (version(last), revision("same"));
            let first = decide((product, Flavour::Release), Made { version: &now, revisions: &revisions }, None, None);
            assert_eq!(first, Decision::Build("1.0-1 is the first version".to_owned()));
        }
    }

    #[test]
    fn reasons_are_words() {
        let (now, revisions) = (version("1.0-1"), revision("a"));
        let made = Made { version: &now, revisions: &revisions };
        let reason = |flavour| decide((Product::Deb, flavour), made, Some(made), None).reason().to_owned();
        assert_eq!(reason(Flavour::Ci), "same commit, skipped");
        assert_eq!(reason(Flavour::Release), "equal version 1.0-1, skipped");
    }

    #[test]
    fn ci_versions_sort_by_time_and_then_by_ordinal() {
        assert_eq!(suffix(Product::Deb, 0, 1), "+git19700101000000.1");
        assert_eq!(suffix(Product::Deb, 1_709_164_799, 7), "+git20240228235959.7");
        assert_eq!(suffix(Product::Deb, 1_709_164_800, 8), "+git20240229000000.8");
        assert_eq!(suffix(Product::Rpm, 1_795_219_200, 9), "^git20261121000000.9");
        for (product, base) in [(Product::Deb, "1.0"), (Product::Rpm, "1.0")] {
            let at = |time, ordinal| version(&format!("{base}{}-1", suffix(product, time, ordinal)));
            let ordered = [at(1_795_219_200, 9), at(1_795_219_200, 10), at(1_795_219_201, 10), at(1_795_305_600, 11)];
            for pair in ordered.windows(2) {
                assert_eq!(compare(product, &pair[0], &pair[1]), Ordering::Less, "{pair:?}");
            }
            assert_eq!(compare(product, &version("1.0-1"), &ordered[0]), Ordering::Less);
            assert_eq!(compare(product, &ordered[3], &version("1.0.1-1")), Ordering::Less);
        }
    }
}
