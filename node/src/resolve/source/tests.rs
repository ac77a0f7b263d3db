//! Source packages: what is read from a `.dsc`, and what is refused.

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
    let many: String = (0..14_000).map(|at| format!(" {sha} 0 f{at}\n")).collect();
    for (text, why) in [
        (format!("Source: x\nVersion: 1\nChecksums-Sha256:\n {sha} 0 ../../etc/passwd\n"), "file name"),
        (format!("Source: x\nVersion: 1\nChecksums-Sha256:\n{many}"), "over 511 files"),
        (format!("Source: x\nVersion: 1\nChecksums-Sha256:\n {sha} 0 a\n {sha} 0 a\n"), "twice"),
        ("Source: x\nVersion: 1\n".to_owned(), "no Checksums-Sha256"),
        (format!("Source: x\nVersion: 1\nChecksums-Sha256:\n {sha} many a\n"), "size"),
        (format!("Source: x\n\nVersion: 1\nChecksums-Sha256:\n {sha} 0 a\n"), "one paragraph"),
    ] {
        fs::write(&path, text).unwrap();
        let said = read_source(&path).unwrap_err().to_string();
        assert!(said.contains(why), "{said}");
    }
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
