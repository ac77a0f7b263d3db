//! Our order beside dpkg's: pairs that dpkg's own tests name, and pairs that nobody thought of.

use std::process::Command;

use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::TestRunner,
};

use super::*;

/// Pairs that `dpkg --compare-versions` judges in every run, one process each; `ARTEL_PAIRS` asks for more.
const PAIRS: usize = 3_000;
/// Pairs that dpkg's Perl modules judge in every run, in one process.
const PAIRS_OF_PERL: usize = 20_000;

fn version(text: &str) -> DebVersion {
    DebVersion::new(text).unwrap()
}

/// Gives how many pairs to make; `make versions` asks for 100,000.
pub(in crate::publish) fn pairs_wanted(usual: usize) -> usize {
    std::env::var("ARTEL_PAIRS").map_or(usual, |count| count.parse().expect("ARTEL_PAIRS is a number"))
}

/// Makes a pair of near versions: the second is the first with one edit, which is where orders differ, or now and then another.
pub(in crate::publish) fn near(runner: &mut TestRunner, text: &'static str, insert: &'static str) -> (String, String) {
    let parts = (text, text, 0..3u8, 0..10usize, insert);
    let (a, other, how, at, insert) = parts.new_tree(runner).unwrap().current();
    let mut b = a.clone();
    match how {
        0 => b = other,
        1 => b.insert_str(at.min(b.len()), &insert),
        _ => drop(b.remove(at.min(b.len() - 1))),
    }
    (a, b)
}

/// Makes pairs that dpkg accepts, and our order of each.
fn pairs(count: usize) -> impl Iterator<Item = (String, String, Ordering)> {
    let mut runner = TestRunner::deterministic();
    let placed = |text: &str| {
        let version = DebVersion::new(text).ok()?;
        Ordered::new(&version).is_ok().then_some(version)
    };
    let made = std::iter::repeat_with(move || {
        let text = "([0-9]{1,2}:)?[0-9][0-9a-cA-B.+~]{0,9}(-[0-9a-b.+~]{1,5})?";
        let (a, b) = near(&mut runner, text, "[0-9a~+.-]");
        let order = compare(&placed(&a)?, &placed(&b)?);
        Some((a, b, order))
    });
    made.flatten().take(count)
}

#[test]
fn the_order_of_the_manual() {
    for (low, high) in
        [("1.0~rc1", "1.0"), ("1.0-1", "1.0-1+b1"), ("9", "1:1"), ("1.2.9", "1.2.10"), ("1.0a", "1.0+"), ("1", "1-1")]
    {
        assert_eq!(compare(&version(low), &version(high)), Ordering::Less, "{low} {high}");
    }
    assert_eq!(compare(&version("2~"), &version("2~0")), Ordering::Equal);
    assert_eq!(compare(&version("0:1.00"), &version("1.0")), Ordering::Equal);
    assert!(Ordered::new(&version("99999999999:1")).is_err());
}

/// What dpkg's own tests (`lib/dpkg/t/t-version.c`, `dpkg --compare-versions` of its test suite) say of order and parts.
#[test]
fn the_order_of_dpkgs_own_tests() {
    for (low, high) in
        [("0-0", "1:0-0"), ("0-a", "0-b"), ("1:0", "2:0"), ("1-1", "2-1"), ("1-1", "1-2"), ("0a-0", "0b-0")]
    {
        assert_eq!(compare(&version(low), &version(high)), Ordering::Less, "{low} {high}");
        assert_eq!(compare(&version(high), &version(low)), Ordering::Greater, "{high} {low}");
    }
    for (one, other) in [
        ("0", "0:0"),
        ("0:0", "0:0-0"),
        ("0-00", "00-0"),
        ("1:2-3", "1:2-3"),
        ("0:0.0-0.0", "0.0-0.0"),
        ("0:0-0-0", "0-0-0"),
        ("0:0-0-0-0", "0-0-0-0"),
        ("0:09azAZ.-+~-0", "09azAZ.-+~-0"),
        ("0:0-azAZ09.+~", "0-azAZ09.+~"),
    ] {
        assert_eq!(compare(&version(one), &version(other)), Ordering::Equal, "{one} {other}");
    }
    let refused = |text: &str| match DebVersion::new(text) {
        Err(_) => true,
        Ok(version) => !version.is_debian() || Ordered::new(&version).is_err(),
    };
    let odd = "!#@$%&/|\\<>()[]{};,_=*^'\" ".chars();
    let odd = odd.flat_map(|c| [format!("0:0{c}a-0"), format!("0:0-{c}")]);
    let others = ["", "0:", "0:0-", "a:0-0", "A:0-0", "-1:0", "0:abc3-0", "0:0-0:0", "2147483648:0"];
    let accepted: Vec<String> = others.map(String::from).into_iter().chain(odd).filter(|text| !refused(text)).collect();
    assert_eq!(accepted, Vec::<String>::new());
}

#[test]
fn dpkg_says_the_same_of_generated_pairs() {
    if Command::new("dpkg").arg("--version").output().is_err() {
        eprintln!("skipped: dpkg is not installed");
        return;
    }
    let wanted = pairs_wanted(PAIRS);
    let mut script = String::new();
    for (a, b, order) in pairs(wanted) {
        let relation = match order {
            Ordering::Less => "lt",
            Ordering::Equal => "eq",
            Ordering::Greater => "gt",
        };
        script += &format!("dpkg --compare-versions '{a}' {relation} '{b}' || echo '{a} is not {relation} {b}'\n");
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{script}echo end\n")).unwrap();
    let out = Command::new("sh").arg(file.path()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&out.stdout), "end\n", "{}", String::from_utf8_lossy(&out.stderr));
    println!("dpkg --compare-versions: {wanted} pairs, 0 differences");
}

/// `Dpkg::Version` is a second implementation, in Perl.
#[test]
fn dpkgs_perl_modules_say_the_same_of_generated_pairs() {
    let perl = ["-MDpkg::Version=version_compare", "-e"];
    if !Command::new("perl").args(perl).arg("1").output().is_ok_and(|out| out.status.success()) {
        eprintln!("skipped: dpkg's Perl modules are not installed");
        return;
    }
    let wanted = pairs_wanted(PAIRS_OF_PERL);
    let told: String = pairs(wanted).map(|(a, b, order)| format!("{a} {b} {}\n", order as i8)).collect();
    let ask =
        "while (<STDIN>) { my ($a, $b, $o) = split; print unless version_compare($a, $b) == $o } print qq(end $.\\n)";
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), told).unwrap();
    let told = std::fs::File::open(file.path()).unwrap();
    let out = Command::new("perl").args(perl).arg(ask).stdin(told).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&out.stdout), format!("end {wanted}\n"));
    println!("Dpkg::Version: {wanted} pairs, 0 differences");
}
