//! A root file system is made of packages that a stranger names: what stands in it leads nobody out of it.

use std::{fs, os::unix::fs::symlink, path::Path, process::Command};

use protocol::blame::Blame;
use tokio_util::sync::CancellationToken;

use super::{
    bench::{Bench, Job, limits, stage},
    honest,
};

/// What is done to a root file system.
type Change = fn(&Path);

#[tokio::test]
async fn a_list_of_users_that_is_a_link_or_a_pipe_is_the_jobs_fault_and_is_not_read() {
    let link = |root: &Path| symlink("/etc/shadow", root.join("etc/passwd")).unwrap();
    let pipe = |root: &Path| {
        let path = root.join("etc/passwd");
        rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
    };
    let cases: [(Change, &str); 2] = [(link, "symbolic link"), (pipe, "a pipe, not a regular file")];
    for (make, word) in cases {
        let change = |root: &Path| {
            fs::remove_file(root.join("etc/passwd")).unwrap();
            make(root);
        };
        let Some(bench) = Bench::open_with(change).await else { return };
        let log = bench.log();
        let failed = bench.workshop.attempt(bench.task(&honest()), log.clone(), CancellationToken::new()).await;
        let failure = failed.unwrap_err().failure();
        assert_eq!((failure.blame, failure.step.as_str()), (Blame::Job, "sandbox"));
        assert!(failure.what.contains("etc/passwd") && failure.what.contains(word), "{failure}");
        assert_eq!(bench.attempts(), 0);
    }
}

#[tokio::test]
async fn folders_that_are_links_out_of_the_root_are_hidden_by_our_own() {
    let outside = tempfile::tempdir().unwrap();
    fs::set_permissions(outside.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let change = |root: &Path| {
        // While bubblewrap mounts, the machine's own root is at /oldroot.
        for name in ["proc", "dev", "run", "build", "etc/hostname"] {
            let path = root.join(name);
            let _ = fs::remove_dir_all(&path);
            symlink(format!("/oldroot{}/{name}", outside.path().display()), &path).unwrap();
        }
    };
    let Some(bench) = Bench::open_with(change).await else { return };
    let script = "cat /etc/hostname; ls -ld /proc/self/status /dev/null /run /build/home";
    let log = bench.log();
    let job = Job { script, arguments: &[], outputs: &[], limits: limits() };
    let built = bench.workshop.attempt(bench.task(&job), log.clone(), CancellationToken::new()).await;
    built.unwrap_or_else(|error| panic!("{}\n{}", error.failure(), log.tail(4000)));
    assert!(log.tail(4000).contains("\nartel\n"), "{}", log.tail(4000));
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0, "nothing was made outside");
}

#[tokio::test]
async fn what_stands_in_place_of_a_shell_has_no_right_and_no_word() {
    let change = |root: &Path| {
        super::hostile::compile(root);
        for name in ["sh", "setpriv", "bash", "env"] {
            fs::copy(root.join("usr/bin/attack"), root.join("usr/bin").join(name)).unwrap();
        }
        // A library that a loader would take first, were one asked.
        fs::write(root.join("etc/ld.so.preload"), "/usr/lib/attack.so\n").unwrap();
    };
    let Some(bench) = Bench::open_with(change).await else { return };
    let log = bench.log();
    let failed = bench.workshop.attempt(bench.task(&honest()), log.clone(), CancellationToken::new()).await;
    let (failure, text) = (failed.unwrap_err().failure(), log.tail(8000));
    assert_eq!((failure.blame, failure.step.as_str()), (Blame::Job, "build"), "{failure}\n{text}");
    assert!(failure.what.starts_with("ended with exit code 7"), "{failure}\n{text}");
    assert!(!text.contains("reached "), "{text}");
    let said =
        ["Uid:\t1000\t1000\t1000\t1000\n", "CapEff:\t0000000000000000\n", "CapBnd:\t0000000000000000\n", "\nsh\n"];
    let words = ["artel:started\n", "artel:disk 99999999 1 0\n", "mount: Function not implemented\n"];
    for line in said.iter().chain(&words) {
        assert!(text.contains(line), "{line:?} is not in {text}");
    }
    assert_eq!(bench.attempts(), 0);
}

#[test]
fn what_finishes_an_image_follows_no_link_out_of_it() {
    let script = include_str!("../image/make.sh");
    let (_, script) = script.split_once("end.sh\" <<'HOOK'\n").expect("it writes this script");
    let (script, _) = script.split_once("\nHOOK\n").unwrap();
    let keep = tempfile::tempdir().unwrap();
    let (root, outside) = (keep.path().join("root"), keep.path().join("outside"));
    stage(&root, &["realpath"]);
    fs::create_dir_all(keep.path().join("files/etc")).unwrap();
    fs::create_dir_all(outside.join("apt")).unwrap();
    let untouched = ["hostname", "hosts", "motd", "apt/sources.list"];
    untouched.iter().for_each(|name| fs::write(outside.join(name), "untouched").unwrap());
    // The whole folder leads out; in it, where it leads to in the image, single files do.
    fs::remove_dir_all(root.join("etc")).unwrap();
    symlink(&outside, root.join("etc")).unwrap();
    let within = root.join(outside.strip_prefix("/").unwrap());
    fs::create_dir_all(within.join("default")).unwrap();
    symlink(format!("..{}/hostname", outside.display()), within.join("hostname")).unwrap();
    symlink("/another", within.join("motd")).unwrap();
    fs::write(keep.path().join("files/etc/motd"), "hello").unwrap();
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "sh", "-euc", script, "end.sh"]).arg(&root).arg(keep.path());
    command.envs([("IMAGE_HOSTNAME", "kiosk"), ("IMAGE_LOCALE", "C.UTF-8"), ("IMAGE_SETUP", "cat /etc/hostname")]);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("unshare failed") {
        assert!(std::env::var_os("ARTEL_TESTS").is_none_or(|word| word != "required"), "{said}");
        return eprintln!("skipped: {said}");
    }
    assert!(output.status.success() && output.stdout == b"kiosk\n", "{said}");
    for name in untouched {
        assert_eq!(fs::read_to_string(outside.join(name)).unwrap(), "untouched", "{name}");
    }
    assert_eq!(fs::read_to_string(within.join("default/locale")).unwrap(), "LANG=C.UTF-8\n");
    assert_eq!(fs::read_to_string(root.join("another")).unwrap(), "hello", "links lead where they lead in the image");
}
