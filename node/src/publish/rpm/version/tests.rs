//! Our order beside rpm's: pairs that rpm's own tests name, and pairs that nobody thought of.

use std::process::Command;

use proptest::test_runner::TestRunner;

use super::*;
use crate::publish::version::tests::{near, pairs_wanted};

/// Pairs that rpm judges in every run; `ARTEL_PAIRS` asks for more.
const PAIRS: usize = 20_000;
/// Pairs that one process of rpm judges: Lua refuses a function of a few hundred thousand words.
const BATCH: usize = 2_000;

fn version(text: &str) -> DebVersion {
    DebVersion::new(text).unwrap()
}

/// What rpm's own tests (`tests/rpmvercmp.at`) say: each row rises from left to right.
#[test]
fn rows_of_rpms_own_tests_rise() {
    for row in [
        ["1.0", "2.0", "2.0.1", "2.0.1a"].as_slice(),
        &["5.5p1", "5.5p2", "5.5p10", "5.6p1", "6.5p1"],
        &["10xyz", "10.1xyz"],
        &["xyz10", "xyz10.1"],
        &["xyz.4", "2", "8"],
        &["6.0", "6.0.rc1"],
        &["10a2", "10b2"],
        &["10a1", "10b2"],
        &["1.0a", "1.0aa"],
        &["10.0001", "10.0039"],
        &["4.999.9", "5.0"],
        &["20101121", "20101122"],
        &["1.0~rc1~git123", "1.0~rc1", "1.0~rc2", "1.0"],
        &["1.0", "1.0^", "1.0^git1", "1.0^git2", "1.01"],
        &["1.0^20160101", "1.0.1"],
        &["1.0^20160101^git1", "1.0^20160102"],
        &["1.0~rc1", "1.0~rc1^git1", "1.0~rc2"],
        &["1.0^git1~pre", "1.0^git1"],
        // Epoch and release, which decide before and after the version.
        &["9-1", "1:1-1"],
        &["1-1", "1-2"],
    ] {
        for pair in row.windows(2) {
            let (low, high) = (version(pair[0]), version(pair[1]));
            assert_eq!(compare(&low, &high), Ordering::Less, "{low} {high}");
            assert_eq!(compare(&high, &low), Ordering::Greater, "{high} {low}");
        }
    }
    for group in
        [["10.0001", "10.1"].as_slice(), &["2_0", "2.0"], &["a+", "a_"], &["+a", "_a", "a"], &["+_", "_+", "+", "_"]]
    {
        let all = group.iter().flat_map(|a| group.iter().map(move |b| (a, b)));
        all.for_each(|(a, b)| assert_eq!(compare_part(a, b), Ordering::Equal, "{a} {b}"));
    }
}

/// Whole versions, with epoch and release.
#[test]
fn rpm_says_the_same_of_generated_pairs() {
    if Command::new("rpm").arg("--version").output().is_err() {
        eprintln!("skipped: rpm is not installed");
        return;
    }
    let (wanted, mut runner) = (pairs_wanted(PAIRS), TestRunner::deterministic());
    let folder = tempfile::tempdir().unwrap();
    let mut judged = 0;
    while judged < wanted {
        let (mut script, mut count) = (String::new(), 0);
        while count < BATCH.min(wanted - judged) {
            let text = "([0-9]{1,2}:)?[0-9a-z][0-9a-cA-B.+~^_]{0,9}-[0-9a-b][0-9a-b.+~^_]{0,3}";
            let (a, b) = near(&mut runner, text, "[0-9a~^+._]");
            let (Some(x), Some(y)) = (whole(&a), whole(&b)) else { continue };
            let order = compare(&x, &y) as i8;
            script += &format!("if rpm.vercmp('{a}', '{b}') ~= {order} then print('{a} {b} is not {order}') end\n");
            count += 1;
        }
        let path = folder.path().join("pairs.lua");
        std::fs::write(&path, format!("{script} print('end')")).unwrap();
        let run = format!("%{{lua: dofile('{}')}}", path.display());
        let out = Command::new("rpm").args(["--eval", &run]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&out.stdout).trim(), "end", "{}", String::from_utf8_lossy(&out.stderr));
        judged += count;
    }
    println!("rpm.vercmp: {judged} pairs, 0 differences");
}

/// Reads a version as it enters a repository: with one release, and numbers as epoch.
fn whole(text: &str) -> Option<DebVersion> {
    let Evr { epoch, version, release } = Evr::parse(text);
    let good = !version.is_empty() && !release.is_empty() && !version.contains(['-', ':']) && !release.contains(':');
    (good && epoch.bytes().all(|b| b.is_ascii_digit())).then(|| DebVersion::new(text).ok())?
}
