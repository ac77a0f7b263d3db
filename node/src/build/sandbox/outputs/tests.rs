//! A hostile tree, one trick at a time.

use std::os::unix::{fs::symlink, net::UnixListener};

use rustix::io::Errno;

use super::*;

fn name(text: &str) -> RelativePath {
    RelativePath::new(text).unwrap()
}

fn take(tree: &Path, text: &str) -> Result<OutputFile, OutputError> {
    let copies = tempfile::tempdir().unwrap();
    Leftovers::open(tree, 1024).unwrap().take(&name(text), &copies.path().join("copy"))
}

#[test]
fn a_plain_file_is_copied_and_hashed() {
    let (tree, copies) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::create_dir(tree.path().join("out")).unwrap();
    fs::write(tree.path().join("out/a.txt"), b"artel").unwrap();
    let into = copies.path().join("deep/a.txt");
    let output = Leftovers::open(tree.path(), 1024).unwrap().take(&name("out/a.txt"), &into).unwrap();
    assert_eq!((output.size, output.sha256, output.hash), (5, Sha256::of(b"artel"), Hash::of(b"artel")));
    assert_eq!(fs::read(into).unwrap(), b"artel");
}

#[test]
fn links_are_refused_wherever_they_stand() {
    let tree = tempfile::tempdir().unwrap();
    symlink("/etc/passwd", tree.path().join("direct")).unwrap();
    symlink("/etc", tree.path().join("folder")).unwrap();
    fs::write(tree.path().join("once"), b"x").unwrap();
    fs::hard_link(tree.path().join("once"), tree.path().join("twice")).unwrap();
    assert!(matches!(take(tree.path(), "direct"), Err(OutputError::Link { .. })));
    assert!(matches!(take(tree.path(), "folder/passwd"), Err(OutputError::Link { .. })));
    assert!(matches!(take(tree.path(), "twice"), Err(OutputError::HardLink { links: 2, .. })));
}

#[test]
fn pipes_sockets_and_folders_are_refused_without_waiting() {
    let tree = tempfile::tempdir().unwrap();
    let pipe = tree.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, Mode::RWXU, 0).unwrap();
    let _socket = UnixListener::bind(tree.path().join("socket")).unwrap();
    fs::create_dir(tree.path().join("folder")).unwrap();
    assert!(matches!(take(tree.path(), "pipe"), Err(OutputError::Kind { kind: "pipe", .. })));
    assert!(matches!(take(tree.path(), "socket"), Err(OutputError::Kind { kind: "socket", .. })));
    assert!(matches!(take(tree.path(), "folder"), Err(OutputError::Kind { kind: "directory", .. })));
    assert!(matches!(take(tree.path(), "nothing"), Err(OutputError::Missing { .. })));
}

#[test]
fn holes_count_as_bytes_and_the_limit_is_for_all_together() {
    let (tree, copies) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    File::create(tree.path().join("sparse")).unwrap().set_len(8 << 40).unwrap();
    assert!(matches!(take(tree.path(), "sparse"), Err(OutputError::TooLarge { left: 1024, .. })));
    fs::write(tree.path().join("half"), [0; 600]).unwrap();
    fs::write(tree.path().join("other"), [0; 600]).unwrap();
    let mut leftovers = Leftovers::open(tree.path(), 1024).unwrap();
    leftovers.take(&name("half"), &copies.path().join("half")).unwrap();
    let second = leftovers.take(&name("other"), &copies.path().join("other"));
    assert!(matches!(second, Err(OutputError::TooLarge { left: 424, .. })));
}

#[test]
fn a_build_directory_behind_a_link_is_not_entered() {
    let (tree, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::create_dir_all(tree.path().join("build/place")).unwrap();
    assert!(Leftovers::open_place(tree.path(), "/build/place", 1).is_ok());
    std::os::unix::fs::symlink(elsewhere.path(), tree.path().join("build/link")).unwrap();
    fs::create_dir(elsewhere.path().join("place")).unwrap();
    for (place, expect) in [("/build/link", Errno::NOTDIR), ("/build/link/place", Errno::LOOP)] {
        let error = Leftovers::open_place(tree.path(), place, 1).unwrap_err();
        assert_eq!(Errno::from_io_error(&error), Some(expect), "{place}: {error}");
    }
    assert!(Leftovers::open_place(tree.path(), "/build/../..", 1).is_err());
}
