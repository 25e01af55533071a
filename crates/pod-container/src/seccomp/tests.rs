//! The programs, run by a small machine of our own: what would the kernel answer?

use super::bpf::{self, AND, JUMP, JUMP_EQUAL, JUMP_GREATER, JUMP_GREATER_EQUAL, LOAD, RETURN};
use super::policy::{Action, Comparison, Condition, Policy};
use super::{from_profile, runtime_default, syscall};
use crate::capability;

const EPERM: Action = Action::errno(1);
const ENOSYS: Action = Action::errno(38);

/// What the kernel's checker demands of a program, and what the program answers.
fn answer(program: &[u8], architecture: u32, number: u32, arguments: &[u64]) -> Action {
    let (instructions, rest) = program.as_chunks::<8>();
    assert!(rest.is_empty() && instructions.len() <= 4096, "{} instructions", instructions.len());
    let mut data = Vec::new();
    data.extend(number.to_le_bytes());
    data.extend(architecture.to_le_bytes());
    data.extend(0_u64.to_le_bytes());
    data.extend(arguments.iter().chain(&[0; 6]).take(6).flat_map(|argument| argument.to_le_bytes()));
    let (mut at, mut accumulator) = (0, 0_u32);
    loop {
        let [c0, c1, jt, jf, k0, k1, k2, k3] = instructions[at];
        let k = u32::from_ne_bytes([k0, k1, k2, k3]);
        at += 1;
        let mut branch = |holds: bool| at += usize::from(if holds { jt } else { jf });
        match u16::from_ne_bytes([c0, c1]) {
            LOAD => {
                let offset = k as usize;
                accumulator = u32::from_le_bytes(data[offset..offset + 4].try_into().expect("in range"));
            }
            AND => accumulator &= k,
            JUMP => at += k as usize,
            JUMP_EQUAL => branch(accumulator == k),
            JUMP_GREATER => branch(accumulator > k),
            JUMP_GREATER_EQUAL => branch(accumulator >= k),
            RETURN => return Action(k),
            other => panic!("instruction {other:#x}"),
        }
    }
}

fn native(program: &[u8], name: &str, arguments: &[u64]) -> Action {
    answer(program, bpf::NATIVE, syscall::number(name).expect("known"), arguments)
}

#[test]
fn the_default_profile_answers_as_dockers_does() {
    let [program] = &runtime_default(capability::DEFAULT)[..] else { panic!("one program") };
    const NEWUSER: u64 = 0x1000_0000;
    #[rustfmt::skip]
    let cases: &[(&str, &[u64], Action)] = &[
        ("read",        &[],             Action::ALLOW),
        ("writev",      &[],             Action::ALLOW),
        ("execve",      &[],             Action::ALLOW),
        ("chroot",      &[],             Action::ALLOW), // CAP_SYS_CHROOT is a default one
        ("ptrace",      &[],             Action::ALLOW),
        ("mount",       &[],             EPERM),
        ("unshare",     &[],             EPERM),
        ("setns",       &[],             EPERM),
        ("bpf",         &[],             EPERM),
        ("keyctl",      &[],             EPERM),
        ("add_key",     &[],             EPERM),
        ("userfaultfd", &[],             EPERM),
        ("io_uring_setup", &[],          EPERM),
        ("kexec_load",  &[],             EPERM),
        ("reboot",      &[],             EPERM),
        ("clone3",      &[],             ENOSYS),
        ("clone",       &[17],           Action::ALLOW),
        ("clone",       &[NEWUSER | 17], EPERM),
        ("socket",      &[2],            Action::ALLOW),
        ("socket",      &[40],           EPERM),
        ("socket",      &[1 << 32 | 40], Action::ALLOW), // another value in 64 bits
        ("personality", &[0],            Action::ALLOW),
        ("personality", &[0xffff_ffff],  Action::ALLOW),
        ("personality", &[0x40_0000],    EPERM),
    ];
    for (name, arguments, expected) in cases {
        assert_eq!(native(program, name, arguments), *expected, "{name}{arguments:x?}");
    }
    assert_eq!(answer(program, bpf::NATIVE, 4000, &[]), EPERM, "an unknown number");
    assert_eq!(answer(program, 0x4000_0003, 1, &[]), Action::KILL_PROCESS, "i386");
    #[cfg(target_arch = "x86_64")]
    assert_eq!(answer(program, bpf::NATIVE, 0x4000_0000, &[]), Action::KILL_PROCESS, "x32");
}

#[test]
fn capabilities_open_their_calls() {
    let program = |name: &str| runtime_default(capability::mask(name).expect("known")).remove(0);
    let admin = program("SYS_ADMIN");
    for name in ["mount", "unshare", "clone3", "bpf"] {
        assert_eq!(native(&admin, name, &[]), Action::ALLOW, "{name}");
    }
    assert_eq!(native(&admin, "clone", &[0x1000_0000]), Action::ALLOW);
    assert_eq!(native(&admin, "reboot", &[]), EPERM);
    assert_eq!(native(&program("SYS_BOOT"), "reboot", &[]), Action::ALLOW);
    assert_eq!(native(&program("CHOWN"), "chroot", &[]), EPERM);
}

#[test]
fn comparisons_are_of_64_bits() {
    const BIG: u64 = 5 << 32 | 7;
    let others = [0, 7, 5 << 32, 4 << 32 | 9, BIG - 1, BIG, BIG + 1, 6 << 32 | 1, u64::MAX];
    type Check = (Comparison, fn(u64) -> bool);
    let comparisons: [Check; 7] = [
        (Comparison::Equal(BIG), |value| value == BIG),
        (Comparison::NotEqual(BIG), |value| value != BIG),
        (Comparison::Less(BIG), |value| value < BIG),
        (Comparison::LessOrEqual(BIG), |value| value <= BIG),
        (Comparison::Greater(BIG), |value| value > BIG),
        (Comparison::GreaterOrEqual(BIG), |value| value >= BIG),
        (Comparison::MaskedEqual { mask: 0xf_0000_000f, value: BIG }, |value| value & 0xf_0000_000f == BIG),
    ];
    for (comparison, expected) in comparisons {
        // Also as the second of two conditions, so that its failure must skip the rest of the rule.
        for first in [true, false] {
            let mut conditions = vec![Condition { argument: 3, comparison }];
            if !first {
                conditions.insert(0, Condition { argument: 5, comparison: Comparison::NotEqual(1) });
            }
            let mut policy = Policy::new(EPERM);
            policy.add_all("read", &conditions, Action::ALLOW);
            let program = bpf::compile(&policy);
            for value in others {
                let verdict = native(&program, "read", &[0, 0, 0, value]);
                assert_eq!(verdict == Action::ALLOW, expected(value), "{comparison:?} of {value:#x}");
            }
        }
    }
}

#[test]
fn every_number_is_found_in_the_search() {
    // Rules far apart and side by side, enough of them that jumps must be long.
    let mut policy = Policy::new(ENOSYS);
    let chosen: Vec<u32> = (0..460).filter(|number| number % 3 != 1).collect();
    for &number in &chosen {
        let errno = u16::try_from(number).expect("small") + 100;
        let rule = super::policy::Rule { conditions: Vec::new(), action: Action::errno(errno) };
        policy.calls.insert(number, vec![rule]);
    }
    let program = bpf::compile(&policy);
    for number in 0..500 {
        let chosen = chosen.contains(&number);
        let expected = if chosen { Action::errno(u16::try_from(number).expect("small") + 100) } else { ENOSYS };
        assert_eq!(answer(&program, bpf::NATIVE, number, &[]), expected, "{number}");
    }
}

#[test]
fn docker_and_oci_profiles_are_read() {
    let json = br#"{
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "architectures": ["SCMP_ARCH_X86_64"],
        "comment": "for a test",
        "syscalls": [
            {"names": ["read", "write", "not_a_call"], "action": "SCMP_ACT_ALLOW"},
            {"name": "mkdir", "action": "SCMP_ACT_ERRNO", "errnoRet": 13},
            {"names": ["chroot"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_CHROOT"]}},
            {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["sync"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_SYS_CHROOT"]}},
            {"names": ["getpid"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "3.2"}},
            {"names": ["getppid"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "999.0"}},
            {"names": ["kill"], "action": "SCMP_ACT_KILL_PROCESS", "args": [
                {"index": 1, "value": 9, "op": "SCMP_CMP_EQ"}, {"index": 1, "value": 15, "op": "SCMP_CMP_EQ"}]},
            {"names": ["dup3"], "action": "SCMP_ACT_LOG", "args": [
                {"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}, {"index": 1, "value": 2, "op": "SCMP_CMP_EQ"}]}
        ]}"#;
    let program = from_profile(json, capability::DEFAULT).expect("a good profile").remove(0);
    #[rustfmt::skip]
    let cases: &[(&str, &[u64], Action)] = &[
        ("read",    &[],      Action::ALLOW),
        ("chroot",  &[],      Action::ALLOW),
        ("mount",   &[],      ENOSYS),
        ("sync",    &[],      ENOSYS),
        ("getpid",  &[],      Action::ALLOW),
        ("getppid", &[],      ENOSYS),
        ("kill",    &[1, 9],  Action::KILL_PROCESS),
        ("kill",    &[1, 15], Action::KILL_PROCESS),
        ("kill",    &[1, 1],  ENOSYS),
        ("dup3",    &[1, 2],  Action::LOG),
        ("dup3",    &[1, 3],  ENOSYS),
    ];
    for (name, arguments, expected) in cases {
        assert_eq!(native(&program, name, arguments), *expected, "{name}{arguments:?}");
    }
    #[cfg(target_arch = "x86_64")]
    assert_eq!(native(&program, "mkdir", &[]), Action::errno(13));
}

#[test]
fn bad_profiles_are_refused_with_the_reason() {
    let refusal = |json: &str| from_profile(json.as_bytes(), 0).unwrap_err().to_string();
    assert_eq!(refusal("{"), "the seccomp profile is malformed");
    assert_eq!(refusal(r#"{"defaultAction": "ALLOW"}"#), "the seccomp profile has an unknown action `ALLOW`");
    let notify = r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#;
    assert_eq!(refusal(notify), "the seccomp profile asks for `SCMP_ACT_NOTIFY`, which is not supported");
    let argument = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ERRNO",
        "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}]}"#;
    assert_eq!(refusal(argument), "the seccomp profile asks about argument 6; there are six, from 0");
}
