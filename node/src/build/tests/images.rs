//! What makes an image is root of its namespace, and all of it is a stranger's: the environment's tools, the packages, their
//! scripts and the recipe's own commands. Each attack here runs where the first of these would, with the rights that all have.

use std::{fs, net::TcpListener, os::unix::fs::PermissionsExt, path::Path, time::Instant};

use protocol::{
    Hash, Sha256,
    blame::{Blame, Fault},
    environment::EnvironmentLock,
    job::{BuildLimits, ImageFormat, ImageJob, InputFile, JobKind},
    testing::samples,
    words::RelativePath,
};
use tokio_util::sync::CancellationToken;

use super::{
    bench::{Bench, Job, limits, lives},
    census::{Census, Left},
    honest, hostile,
};

/// What lies in place of the environment's shell: it runs a file of the job instead of our script.
const SHELL: &str = "#!/bin/bash\nexec bash files/attack.sh\n";

struct Attack {
    script: &'static str,
    blame: Blame,
    /// At which step it fails, and what its failure says.
    step: &'static str,
    words: &'static str,
    /// What its log holds.
    says: &'static [&'static str],
    limits: BuildLimits,
}

fn attack(script: &'static str, words: &'static str) -> Attack {
    Attack { script, blame: Blame::Job, step: "build", words, says: &[], limits: limits() }
}

/// One on whoever takes the image.
fn left(script: &'static str, words: &'static str) -> Attack {
    Attack { step: "outputs", ..attack(script, words) }
}

impl Attack {
    fn says(self, says: &'static [&'static str]) -> Self {
        Self { says, ..self }
    }
}

fn attacks() -> Vec<Attack> {
    let disk = "disk limit of 64 MiB reached";
    vec![
        attack("bomb() { bomb | bomb & }; bomb; sleep 300", "process limit of 64 reached"),
        attack("tail -n 1 /dev/zero; exit 7", "memory limit of 256 MiB reached"),
        attack("dd if=/dev/zero of=root/fill bs=1M count=4096; sleep 300", disk),
        attack("dd if=/dev/zero of=/fill bs=1M count=4096; sleep 300", disk),
        attack("dd if=/dev/zero of=root/dev/shm/fill bs=1M count=4096; sleep 300", disk),
        attack("attack unnamed 4096", disk).says(&["room without writing: Operation not supported\n"]),
        Attack {
            blame: Blame::Builder(Fault::DiskFull),
            ..attack("attack mapped 4096", "not all of its files can be measured")
        },
        Attack {
            limits: BuildLimits { disk_mib: 16, ..limits() },
            ..attack("attack files 1000000; sleep 300", "file count limit of 4096 reached")
        },
        attack("exec yes", "log limit of 256 KiB reached"),
        Attack {
            limits: BuildLimits { wall_secs: 1, ..limits() },
            blame: Blame::Timeout,
            ..attack("attack stubborn 86385", "time limit of 1 s reached")
        },
        attack(
            "grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status; mount -t tmpfs none /mnt && echo reached it\n\
             mount --bind / root/mnt && echo reached it; umount /proc && echo reached it\n\
             umount root/proc && echo reached it; mknod root/disk b 254 0 && echo reached it\n\
             unshare --user true && echo reached it; unshare --net true && echo reached it\n\
             echo 1 > /proc/sys/user/max_user_namespaces && echo reached it; exit 7",
            "ended with exit code 7",
        )
        .says(&["CapEff:\t00000000800400fb\n", "CapBnd:\t00000000800400fb\n", "NoNewPrivs:\t1\n", "Seccomp:\t2\n"]),
        attack("attack first; kill -KILL 1; kill -KILL -1; exit 7", "ended with exit code 7").says(&[
            "ptrace: Operation not permitted\n",
            "memory: Permission denied\n",
            "root: Permission denied\n",
        ]),
        attack("(exec 3<>/dev/tcp/127.0.0.1/$(< files/port)) && echo reached it; exit 7", "ended with exit code 7"),
        attack(
            "for file in /proc/1/fd/2 /proc/self/fd/3 /proc/self/fd/5; do echo artel:disk 999999999 1 0 > $file; done; \
             echo artel:disk 999999999 1 0; exit 7",
            "ended with exit code 7",
        ),
        attack("setsid sleep 86384 & setsid sleep 86384 & exit 7", "ended with exit code 7"),
        left("ln -s /etc/shadow $IMAGE_STEM.tar", "is or lies behind a symbolic link"),
        left("echo x > /x; chmod 4777 /x; ln /x $IMAGE_STEM.tar", "is a hard link with 2 names"),
        left("dd if=/dev/zero of=$IMAGE_STEM.tar bs=1 count=0 seek=8T", "has 8796093022208 bytes, over the 67108864 that are left of the limit"),
        left(
            "cd /; echo x > /etc/$IMAGE_STEM.tar; mv build/reproducible-path build/moved; ln -s /etc build/reproducible-path",
            "reproducible-path",
        ),
    ]
}

/// Gives an image job of one file: the attack.
fn task(bench: &Bench, script: &str, port: u16, limits: BuildLimits) -> super::super::Task {
    let plain = bench.task(&Job { limits, ..honest() });
    let inputs = bench.folder.join("inputs");
    let lock = EnvironmentLock { packages: Vec::new(), ..plain.lock.clone() }.to_bytes();
    let JobKind::Image(sample) = samples::image_request(samples::network()).kind else { panic!("it is an image") };
    let put = |path: &str, bytes: &[u8]| {
        let file = inputs.join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, bytes).unwrap();
    };
    put(ImageJob::LOCK, &lock);
    fs::create_dir_all(inputs.join(ImageJob::PACKAGES)).unwrap();
    let files = [("attack.sh", script.to_owned()), ("port", port.to_string())].map(|(path, text)| {
        put(&format!("files/{path}"), text.as_bytes());
        let (hash, sha256, size) = (Hash::of(text.as_bytes()), Sha256::of(text.as_bytes()), text.len() as u64);
        InputFile { hash, path: RelativePath::new(path).unwrap(), size, sha256 }
    });
    let mut packages = sample.packages.clone();
    (packages.size, packages.hash, packages.sha256) = (lock.len() as u64, Hash::of(&lock), Sha256::of(&lock));
    let job = ImageJob { files: files.to_vec(), packages, formats: vec![ImageFormat::Tar], ..sample };
    let mut task = plain;
    task.request.kind = JobKind::Image(job);
    task
}

#[tokio::test]
async fn what_makes_an_image_gets_nowhere_and_leaves_nothing() {
    let change = |root: &Path| {
        hostile::compile(root);
        fs::write(root.join("usr/bin/sh"), SHELL).unwrap();
        fs::set_permissions(root.join("usr/bin/sh"), fs::Permissions::from_mode(0o755)).unwrap();
    };
    let Some(bench) = Bench::open_with(change).await else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let census = Census::begin(&bench.folder);
    let all = attacks();
    for attack in &all {
        let (name, log, begun) = (attack.script, bench.log(), Instant::now());
        let task = task(&bench, name, port, attack.limits);
        let failed = bench.workshop.attempt(task, log.clone(), CancellationToken::new()).await;
        let text = String::from_utf8_lossy(&fs::read(log.path()).unwrap()).into_owned();
        let failure = failed.expect_err(name).failure();
        println!("figure: {:<60.60} {:>5.2} s  {failure:.120}", name.replace('\n', " "), begun.elapsed().as_secs_f64());
        assert_eq!((failure.blame, failure.step.as_str()), (attack.blame, attack.step), "{name}: {failure}\n{text}");
        assert!(failure.what.contains(attack.words), "{name}: {failure}\n{text}");

        assert!(!text.contains("reached it"), "{name}: {text}");
        for said in attack.says {
            assert!(text.contains(said), "{name} does not say {said:?}:\n{text}");
        }
        assert_eq!(census.left(), Left::default(), "after {name}");
        assert!(!lives("86385") && !lives("86384"), "{name}");
    }
    assert!(listener.accept().is_err(), "nobody came out of the sandbox");
    println!("figure: {} images, nothing left of {} processes", all.len(), census.processes());
}
