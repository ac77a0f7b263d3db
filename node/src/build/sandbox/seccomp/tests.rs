//! The programs are run by a small interpreter, so that the other architecture's is tested too.

use super::*;

const ALLOW: u32 = 0x7fff_0000;
const ABSENT: u32 = 0x0005_0000 | ENOSYS;
const KILL: u32 = 0x8000_0000;
const AMD64_ABI: u32 = 0xc000_003e;
const I386_ABI: u32 = 0x4000_0003;
const ARM64_ABI: u32 = 0xc000_00b7;
/// Says that a number is one of x32.
const X32: u32 = 0x4000_0000;

/// Runs a program over one call, as the kernel does.
fn run(program: &BpfProgram, abi: u32, number: u32, arguments: [u64; 3]) -> u32 {
    let mut data = Vec::from(number.to_ne_bytes());
    data.extend(abi.to_ne_bytes());
    data.extend([0; 8]);
    data.extend(arguments.iter().flat_map(|argument| argument.to_ne_bytes()));
    data.resize(64, 0);
    let (mut at, mut accumulator) = (0, 0_u32);
    loop {
        let i = &program[at];
        let jump = |holds: bool| usize::from(if holds { i.jt } else { i.jf });
        at += 1;
        match i.code {
            0x20 => accumulator = u32::from_ne_bytes(data[i.k as usize..][..4].try_into().unwrap()),
            0x54 => accumulator &= i.k,
            0x05 => at += i.k as usize,
            0x15 => at += jump(accumulator == i.k),
            0x25 => at += jump(accumulator > i.k),
            0x35 => at += jump(accumulator >= i.k),
            0x06 => return i.k,
            other => panic!("instruction {other:#x} is not known here"),
        }
    }
}

fn amd64(number: u32, arguments: [u64; 3]) -> u32 {
    run(&program(TargetArch::x86_64).unwrap(), AMD64_ABI, number, arguments)
}

#[test]
fn what_builds_do_is_allowed_and_what_breaks_kernels_is_absent() {
    // read, write, open, execve, fork, mknod, ptrace, openat, getrandom, rseq, statx, faccessat2
    for number in [0, 1, 2, 59, 57, 133, 101, 257, 318, 334, 332, 439] {
        assert_eq!(amd64(number, [0; 3]), ALLOW, "call {number}");
    }
    // mount, umount2, pivot_root, setns, keyctl, add_key, request_key, bpf, perf_event_open, kexec_load,
    // kexec_file_load, init_module, finit_module, userfaultfd, io_uring_setup, open_by_handle_at, swapon, reboot,
    // quotactl, acct, syslog, clone3, fsopen, move_mount, open_tree, mount_setattr, iopl, modify_ldt, sethostname,
    // settimeofday, fanotify_init, pidfd_getfd, and one that nobody has thought of yet.
    let absent = [
        165, 166, 155, 308, 250, 248, 249, 321, 298, 246, 320, 175, 313, 323, 425, 304, 167, 169, 179, 163, 103, 435,
        430, 429, 428, 442, 172, 154, 170, 164, 300, 438, 999,
    ];
    for number in absent {
        assert_eq!(amd64(number, [0; 3]), ABSENT, "call {number}");
    }
}

#[test]
fn arguments_decide_where_they_must() {
    let (clone, ioctl, socket, personality, unshare, socketpair) = (56, 16, 41, 135, 272, 53);
    let cases = [
        (clone, [0x11, 0, 0], ALLOW),
        (clone, [0x003d_0f00, 0, 0], ALLOW),
        (clone, [0x1000_0011, 0, 0], ABSENT),
        (clone, [0x0002_0011, 0, 0], ABSENT),
        (unshare, [0x200, 0, 0], ALLOW),
        (unshare, [0x1000_0000, 0, 0], ABSENT),
        (unshare, [0x80, 0, 0], ABSENT),
        (ioctl, [0, 0x5401, 0], ALLOW),
        (ioctl, [0, 0x5412, 0], ABSENT),
        // The kernel looks at the lower half only.
        (ioctl, [0, 0xffff_ffff_0000_5412, 0], ABSENT),
        (ioctl, [0, 0x541c, 0], ABSENT),
        (ioctl, [0, 0x4030_5828, 0], ABSENT),
        (ioctl, [0, 0x4030_582a, 0], ABSENT),
        (ioctl, [0, 0x4030_5839, 0], ABSENT),
        (personality, [0, 0, 0], ALLOW),
        (personality, [0xffff_ffff, 0, 0], ALLOW),
        (personality, [0x0006_0008, 0, 0], ALLOW),
        (personality, [0x0040_0000, 0, 0], ABSENT),
        (socket, [1, 1, 0], ALLOW),
        (socket, [10, 2, 0], ALLOW),
        (socket, [16, 3, 0], ALLOW),
        (socket, [16, 3, 12], ABSENT),
        (socket, [40, 1, 0], ABSENT),
        (socket, [38, 5, 0], ABSENT),
        (socketpair, [1, 1, 0], ALLOW),
        (socketpair, [30, 1, 0], ABSENT),
    ];
    for (number, arguments, expect) in cases {
        assert_eq!(amd64(number, arguments), expect, "call {number} with {arguments:x?}");
    }
}

#[test]
fn another_abi_is_the_end_and_x32_is_absent() {
    assert_eq!(run(&program(TargetArch::x86_64).unwrap(), I386_ABI, 3, [0; 3]), KILL, "read");
    for number in [0, 165, 520] {
        assert_eq!(amd64(X32 | number, [0; 3]), ABSENT);
    }
}

#[test]
fn arm64_has_the_same_list_without_the_old_calls() {
    let arm64 = |number, arguments| run(&program(TargetArch::aarch64).unwrap(), ARM64_ABI, number, arguments);
    // read, openat, execve, clone with a signal
    for (number, first) in [(63, 0), (56, 0), (221, 0), (220, 0x11)] {
        assert_eq!(arm64(number, [first, 0, 0]), ALLOW, "call {number}");
    }
    // mount, unshare of a user namespace, clone of one, clone3, bpf, keyctl, setns
    for (number, first) in [(40, 0), (97, 0x1000_0000), (220, 0x1000_0011), (435, 0), (280, 0), (219, 0), (268, 0)] {
        assert_eq!(arm64(number, [first, 0, 0]), ABSENT, "call {number}");
    }
    assert_eq!(run(&program(TargetArch::aarch64).unwrap(), 0x4000_0028, 3, [0; 3]), KILL, "a call of 32-bit ARM");
}

#[test]
fn filters_are_whole_instructions_and_small_enough() {
    for arch in ["x86_64", "aarch64", "riscv64"] {
        let bytes = filters(arch).unwrap()[0].len();
        assert!(bytes.is_multiple_of(8) && bytes / 8 < 4096 && bytes / 8 > 1000, "{arch}: {bytes}");
    }
    assert!(filters("m68k").is_err());
}
