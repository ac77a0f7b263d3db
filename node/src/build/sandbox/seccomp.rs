//! Which system calls a build may make: a list of what programs, compilers and test suites need, and nothing else.
//!
//! Whatever is not listed is answered with `ENOSYS`, as by an older kernel, so that a C library falls back to what is
//! listed (`clone3` to `clone`). Calls under another ABI than the machine's own end the process: i386 numbers mean other
//! calls, and x32 numbers, which stand for the same calls again, are not listed.
//!
//! Room on a disk that is not written, `fallocate`, is answered with "not supported", as some file systems do, by a filter of
//! its own: a build could take more room in one call than anybody can watch, and C libraries write the blocks instead.
//!
//! What needs a right that no build has (mounting, modules, clocks) is left out though the kernel would refuse it, because
//! the code behind it is where kernels were broken. It is a second wall: the first are namespaces and missing rights.

use seccompiler::{BpfProgram, TargetArch};
use serde_json::{Value, json};

/// Files and folders.
const FILES: &str = "openat openat2 close close_range read write readv writev pread64 pwrite64 preadv pwritev preadv2 \
    pwritev2 lseek sendfile splice tee vmsplice copy_file_range fstat newfstatat statx statfs fstatfs faccessat \
    faccessat2 readlinkat getdents64 getcwd chdir fchdir mkdirat mknodat linkat symlinkat unlinkat renameat2 \
    fchmod fchmodat fchmodat2 fchown fchownat truncate ftruncate fallocate fadvise64 readahead utimensat umask flock \
    fcntl fsync fdatasync sync syncfs sync_file_range cachestat dup dup3 pipe2 setxattr lsetxattr fsetxattr getxattr \
    lgetxattr fgetxattr listxattr llistxattr flistxattr removexattr lremovexattr fremovexattr inotify_init1 \
    inotify_add_watch inotify_rm_watch io_setup io_submit io_getevents io_pgetevents io_cancel io_destroy";
/// Waiting, clocks that are read, timers.
const TIME: &str = "pselect6 ppoll epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 eventfd2 signalfd4 timerfd_create \
    timerfd_settime timerfd_gettime clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday getitimer \
    setitimer timer_create timer_settime timer_gettime timer_getoverrun timer_delete";
/// Memory of one's own.
const MEMORY: &str = "brk mmap munmap mremap mprotect madvise msync mincore mlock mlock2 munlock mlockall munlockall \
    membarrier memfd_create remap_file_pages pkey_alloc pkey_free pkey_mprotect mseal";
/// Processes, threads and what they are. `ptrace` and its like reach what the same user runs in the same sandbox:
/// debuggers and sanitizers are tested with them. `chroot` needs a right that only an installation has.
const PROCESSES: &str = "chroot execve execveat exit exit_group wait4 waitid getpid getppid gettid getpgid setpgid getsid setsid \
    set_tid_address set_robust_list get_robust_list futex futex_waitv futex_wait futex_wake futex_requeue rseq \
    sched_getaffinity sched_setaffinity sched_getattr sched_setattr sched_getparam sched_setparam sched_getscheduler \
    sched_setscheduler sched_get_priority_max sched_get_priority_min sched_rr_get_interval sched_yield getpriority \
    setpriority ioprio_get ioprio_set getcpu prlimit64 getrlimit setrlimit getrusage times prctl capget capset ptrace \
    process_vm_readv process_vm_writev pidfd_open pidfd_send_signal process_mrelease restart_syscall seccomp \
    landlock_create_ruleset landlock_add_rule landlock_restrict_self uname sysinfo getrandom getuid geteuid getgid \
    getegid getresuid getresgid getgroups setuid setgid setreuid setregid setresuid setresgid setfsuid setfsgid \
    setgroups kill tkill tgkill rt_sigaction rt_sigprocmask rt_sigpending rt_sigqueueinfo rt_tgsigqueueinfo \
    rt_sigreturn rt_sigsuspend rt_sigtimedwait sigaltstack";
/// Talking, within the sandbox.
const TALK: &str = "bind listen accept accept4 connect shutdown getsockname getpeername getsockopt setsockopt sendto \
    sendmsg sendmmsg recvfrom recvmsg recvmmsg shmget shmat shmdt shmctl semget semop semtimedop semctl msgget msgsnd \
    msgrcv msgctl mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr";
/// Calls that only some architectures have: the first ports' own, which newer ones do without.
const AMD64: &str = "open creat stat lstat access readlink getdents mkdir rmdir mknod link symlink unlink rename chmod \
    chown lchown utime utimes futimesat dup2 pipe poll select epoll_create epoll_wait eventfd signalfd inotify_init \
    alarm pause time getpgrp fork vfork arch_prctl renameat";
const ARM64: &str = "renameat";
const RISCV64: &str = "riscv_flush_icache";

/// `CLONE_NEWNS`, `NEWCGROUP`, `NEWUTS`, `NEWIPC`, `NEWUSER`, `NEWPID` and `NEWNET`.
const NAMESPACES: u32 = 0x7e02_0000;
/// `CLONE_NEWTIME`, which only `unshare` takes: to `clone` it is part of a signal's number.
const TIME_NAMESPACE: u32 = 0x80;
/// What `setarch` sets for builds: 32-bit words in `uname`, version 2.6 in `uname`, no random addresses.
const PERSONALITIES: u32 = 0x8 | 0x2_0000 | 0x4_0000;
/// Asks for the personality and changes nothing.
const WHICH_PERSONALITY: u32 = u32::MAX;
/// `TIOCSTI` and `TIOCLINUX`: they type into a terminal.
const TYPING: [u32; 2] = [0x5412, 0x541c];
/// `FS_IOC_RESVSP`, `FS_IOC_RESVSP64` and `FS_IOC_ZERO_RANGE`: they are `fallocate` by another way.
const RESERVING: [u32; 3] = [0x4030_5828, 0x4030_582a, 0x4030_5839];
const UNIX: u32 = 1;
const INET: u32 = 2;
const INET6: u32 = 10;
const NETLINK: u32 = 16;
/// `NETLINK_ROUTE`, which lists interfaces, `NETLINK_AUDIT`, without which `groupadd` and `useradd` of a package give up (the
/// kernel hears nobody there from a namespace), and `NETLINK_KOBJECT_UEVENT`, which device libraries open.
const NETLINKS: [u32; 3] = [0, 9, 15];
/// "Function not implemented".
const ENOSYS: u32 = 38;
/// "Operation not supported".
const EOPNOTSUPP: u32 = 95;

/// Gives the filters of an architecture, by its name in Rust, as bytes that bubblewrap takes.
///
/// # Errors
/// When the architecture is not known, or a call's name is not known for it.
pub(in crate::build) fn filters(arch: &str) -> Result<[Vec<u8>; 2], seccompiler::Error> {
    let arch = TargetArch::try_from(arch)?;
    Ok([bytes(&program(arch)?), bytes(&unsupported(arch)?)])
}

fn bytes(program: &BpfProgram) -> Vec<u8> {
    let instruction = |i: &seccompiler::sock_filter| {
        let ([c0, c1], [k0, k1, k2, k3]) = (i.code.to_ne_bytes(), i.k.to_ne_bytes());
        [c0, c1, i.jt, i.jf, k0, k1, k2, k3]
    };
    program.iter().flat_map(instruction).collect()
}

/// What is answered with "not supported"; where two filters differ, the kernel takes the stricter answer.
fn unsupported(arch: TargetArch) -> Result<BpfProgram, seccompiler::Error> {
    let filters = json!({ "build": {
        "mismatch_action": "allow",
        "match_action": { "errno": EOPNOTSUPP },
        "filter": [json!({ "syscall": "fallocate" })],
    }});
    let compiled = seccompiler::compile_from_json(filters.to_string().as_bytes(), arch)?;
    Ok(compiled.into_values().next().unwrap_or_default())
}

fn program(arch: TargetArch) -> Result<BpfProgram, seccompiler::Error> {
    let own = match arch {
        TargetArch::x86_64 => AMD64,
        TargetArch::aarch64 => ARM64,
        TargetArch::riscv64 => RISCV64,
    };
    let plain = [FILES, TIME, MEMORY, PROCESSES, TALK, own].into_iter().flat_map(str::split_whitespace);
    let rules: Vec<_> = plain.map(|name| json!({ "syscall": name })).chain(conditional()).collect();
    let filters = json!({ "build": {
        "mismatch_action": { "errno": ENOSYS },
        "match_action": "allow",
        "filter": rules,
    }});
    let compiled = seccompiler::compile_from_json(filters.to_string().as_bytes(), arch)?;
    Ok(compiled.into_values().next().unwrap_or_default())
}

/// The calls that are allowed with some arguments only.
fn conditional() -> Vec<Value> {
    let sockets = [UNIX, INET, INET6].map(|family| json!([is(0, family)]));
    let netlinks = NETLINKS.map(|protocol| json!([is(0, NETLINK), is(2, protocol)]));
    let personalities = [is(0, WHICH_PERSONALITY), without(0, !PERSONALITIES)].map(|condition| json!([condition]));
    let ioctls = TYPING.iter().chain(&RESERVING).map(|request| compare(1, json!("ne"), *request));
    let mut rules = vec![
        json!({ "syscall": "clone", "args": [without(0, NAMESPACES)] }),
        json!({ "syscall": "unshare", "args": [without(0, NAMESPACES | TIME_NAMESPACE)] }),
        json!({ "syscall": "ioctl", "args": ioctls.collect::<Vec<_>>() }),
        json!({ "syscall": "socketpair", "args": [is(0, UNIX)] }),
    ];
    rules.extend(personalities.map(|args| json!({ "syscall": "personality", "args": args })));
    rules.extend(sockets.into_iter().chain(netlinks).map(|args| json!({ "syscall": "socket", "args": args })));
    rules
}

fn is(argument: u8, value: u32) -> Value {
    compare(argument, json!("eq"), value)
}

/// None of the bits may be set.
fn without(argument: u8, bits: u32) -> Value {
    compare(argument, json!({ "masked_eq": bits }), 0)
}

/// Compares 32 bits: the kernel looks at no more of any of these arguments.
fn compare(argument: u8, operator: Value, value: u32) -> Value {
    json!({ "index": argument, "type": "dword", "op": operator, "val": value })
}

#[cfg(test)]
mod tests;
