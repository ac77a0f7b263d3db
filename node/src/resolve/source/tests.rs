//! Source packages: what is read from a `.dsc`, and what is refused.

use std::{array, time::Duration};

use rustix::time::{ClockId, clock_gettime};

use super::*;

fn package(dir: &Path, content: &[u8]) -> PathBuf {
    fs::write(dir.join("tiny_1.tar.xz"), content).unwrap();
    let text = format!(
        "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nFormat: 3.0 (native)\nSource: tiny\nBinary: tiny, tiny-doc\n\
         Version: 1:1\nBuild-Depends: debhelper-compat (= 13),\n dh-python <!nocheck>,\nChecksums-Sha256:\n {} {} tiny_1.tar.xz\n\
         \n-----BEGIN PGP SIGNATURE-----\n\nabcd\n-----END PGP SIGNATURE-----\n",
        Sha256::of(b"content"),
        7
    );
    let path = dir.join("tiny_1.dsc");
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn a_signed_dsc_is_read_and_its_files_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    let source = read_source(&package(dir.path(), b"content")).unwrap();
    assert_eq!((source.name.as_str(), source.version.as_str()), ("tiny", "1:1"));
    assert_eq!(source.relations.depends, "debhelper-compat (= 13), dh-python <!nocheck>");
    assert_eq!(source.files.iter().map(|f| f.name.as_str()).collect::<Vec<_>>(), ["tiny_1.dsc", "tiny_1.tar.xz"]);
    assert_eq!(source.binaries.len(), 2);
}

#[test]
fn a_different_or_missing_file_is_refused_with_both_hashes() {
    let dir = tempfile::tempdir().unwrap();
    let dsc = package(dir.path(), b"Content");
    let said = read_source(&dsc).unwrap_err().to_string();
    assert!(said.contains("tiny_1.tar.xz") && said.contains(&Sha256::of(b"content").to_string()), "{said}");
    assert!(said.contains(&Sha256::of(b"Content").to_string()), "{said}");
    fs::remove_file(dir.path().join("tiny_1.tar.xz")).unwrap();
    assert!(matches!(read_source(&dsc), Err(Error::MissingFile { .. })));
}

#[test]
fn hostile_dscs_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x_1.dsc");
    let sha = Sha256::of(b"");
    for (text, why) in [
        (format!("Source: x\nVersion: 1\nChecksums-Sha256:\n {sha} 0 ../../etc/passwd\n"), "file name"),
        (format!("Source: x\nVersion: 1\nChecksums-Sha256:\n {sha} 0 a\n {sha} 0 a\n"), "twice"),
        ("Source: x\nVersion: 1\n".to_owned(), "no Checksums-Sha256"),
        (format!("Source: x\nVersion: 1\nChecksums-Sha256:\n {sha} many a\n"), "size"),
        (format!("Source: x\n\nVersion: 1\nChecksums-Sha256:\n {sha} 0 a\n"), "one paragraph"),
        ("\n".repeat(LINES_MAX + 1), "over 65536 lines"),
    ] {
        fs::write(&path, text).unwrap();
        let said = read_source(&path).unwrap_err().to_string();
        assert!(said.contains(why), "{said}");
    }
}

/// Asserts that input of a size takes at most eight times the CPU time of a quarter of it; the square would be sixteen times.
pub(super) fn assert_linear(bytes: usize, run: impl Fn(usize)) {
    let now = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap();
    let least = |bytes: usize| {
        let times: [Duration; 3] = array::from_fn(|_| {
            let before = now();
            run(bytes);
            now().saturating_sub(before)
        });
        times.into_iter().min().unwrap()
    };
    let (quarter, whole) = (least(bytes / 4), least(bytes));
    assert!(whole < quarter * 8, "{whole:?} for {bytes} bytes, {quarter:?} for a quarter of them");
}

/// Gives a `.dsc` that names so many files.
fn naming(files: usize) -> String {
    let sha = Sha256::of(b"");
    let files: String = (0..files).map(|at| format!(" {sha} 0 f{at}\n")).collect();
    format!("Source: x\nVersion: 1\nChecksums-Sha256:\n{files}")
}

#[test]
fn of_too_many_files_only_the_beginning_is_looked_at() {
    let named = |text: &str| named_files(text.split_once("256:\n").unwrap().1).map(|files| files.len());
    assert_eq!(named(&naming(511)), Ok(511));
    for files in [512, 14_000] {
        // Each line is looked at before the number of files is: nobody came to the last one.
        let text = naming(files) + " no file\n";
        assert_eq!(named(&text), Err("it names over 511 files".into()));
    }
    assert!(named(&(naming(510) + " no file\n")).unwrap_err().contains("has the line"));
}

#[test]
fn four_times_the_dsc_takes_no_more_than_about_four_times_as_long() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x_1.dsc");
    assert_linear(DSC_MAX as usize, |bytes| {
        fs::write(&path, naming(bytes / 75)).unwrap();
        assert!(read_source(&path).is_err_and(|error| error.to_string().contains("over 511 files")));
    });
}

#[test]
fn the_fixtures_are_source_packages() {
    for name in ["artel-tiny", "artel-dated"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../fixtures/deb/{name}_1.0.dsc"));
        let source = read_source(&path).unwrap();
        assert_eq!(source.binaries.iter().map(PackageName::as_str).collect::<Vec<_>>(), [name, &format!("{name}-doc")]);
        assert_eq!(source.relations, BuildRelations::default());
        let job = source.job(vec!["nocheck".into(), "nocheck".into()], vec![]);
        assert_eq!((job.dsc().name.as_str(), job.options.len()), (format!("{name}_1.0.dsc").as_str(), 1));
    }
}
