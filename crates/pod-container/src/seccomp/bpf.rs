//! From a policy to a program for the kernel's classic BPF machine (`Documentation/networking/filter.rst`,
//! seccomp(2)).

use super::policy::{Action, Comparison, Condition, Policy, Rule};

/// `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Instruction {
    pub(super) code: u16,
    /// Instructions to skip when a test holds, and when not.
    pub(super) jt: u8,
    pub(super) jf: u8,
    pub(super) k: u32,
}

pub(super) const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
pub(super) const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
pub(super) const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
pub(super) const JUMP_GREATER: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
pub(super) const JUMP_GREATER_EQUAL: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
pub(super) const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
pub(super) const RETURN: u16 = 0x06; // BPF_RET | BPF_K

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

#[cfg(target_arch = "x86_64")]
pub(super) const NATIVE: u32 = 0xc000_003e; // AUDIT_ARCH_X86_64
#[cfg(target_arch = "aarch64")]
pub(super) const NATIVE: u32 = 0xc000_00b7; // AUDIT_ARCH_AARCH64

/// x86-64 kernels may take a second set of numbers for the x32 ABI, with this bit.
#[cfg(target_arch = "x86_64")]
const FOREIGN_NUMBERS: Option<u32> = Some(0x4000_0000);
#[cfg(target_arch = "aarch64")]
const FOREIGN_NUMBERS: Option<u32> = None;

/// The bytes of `struct sock_filter`s.
pub(super) fn compile(policy: &Policy) -> Vec<u8> {
    let mut bytes = Vec::new();
    for Instruction { code, jt, jf, k } in assemble(policy) {
        bytes.extend_from_slice(&code.to_ne_bytes());
        bytes.extend_from_slice(&[jt, jf]);
        bytes.extend_from_slice(&k.to_ne_bytes());
    }
    bytes
}

fn assemble(policy: &Policy) -> Vec<Instruction> {
    let mut program = vec![
        plain(LOAD, ARCHITECTURE),
        jump(JUMP_EQUAL, NATIVE, 1, 0),
        plain(RETURN, Action::KILL_PROCESS.0),
        plain(LOAD, NUMBER),
    ];
    if let Some(bit) = FOREIGN_NUMBERS {
        program.extend([jump(JUMP_GREATER_EQUAL, bit, 0, 1), plain(RETURN, Action::KILL_PROCESS.0)]);
    }
    program.extend(search(&spans(policy)));
    program
}

/// What is done from a number on, until the next span begins.
struct Span {
    first: u32,
    code: Vec<Instruction>,
}

/// Neighbours with the same fate share a span: most of a real profile is a few long runs.
fn spans(policy: &Policy) -> Vec<Span> {
    let default = vec![plain(RETURN, policy.default.0)];
    let mut spans = vec![Span { first: 0, code: default.clone() }];
    let mut next = 0;
    let mut push = |first: u32, code: Vec<Instruction>| match spans.last_mut() {
        Some(last) if last.code == code => {}
        Some(last) if last.first == first => last.code = code,
        _ => spans.push(Span { first, code }),
    };
    for (&number, rules) in &policy.calls {
        if number > next {
            push(next, default.clone());
        }
        push(number, leaf(rules, policy.default));
        next = number + 1;
    }
    push(next, default);
    spans
}

/// A binary search. Every leaf returns, so code follows code without further jumps.
fn search(spans: &[Span]) -> Vec<Instruction> {
    match spans {
        [] => Vec::new(),
        [only] => only.code.clone(),
        _ => {
            let (left, right) = spans.split_at(spans.len() / 2);
            let below = search(left);
            // A test can skip 255 instructions, a plain jump any number.
            let mut code = match u8::try_from(below.len()) {
                Ok(skip) => vec![jump(JUMP_GREATER_EQUAL, right[0].first, skip, 0)],
                Err(_) => {
                    let far = u32::try_from(below.len()).unwrap_or(u32::MAX);
                    vec![jump(JUMP_GREATER_EQUAL, right[0].first, 0, 1), plain(JUMP, far)]
                }
            };
            code.extend(below);
            code.extend(search(right));
            code
        }
    }
}

/// The rules of one call, then what happens if none holds.
fn leaf(rules: &[Rule], default: Action) -> Vec<Instruction> {
    let mut code = Vec::new();
    for rule in rules {
        let mut steps: Vec<Step> = rule.conditions.iter().flat_map(|condition| test(*condition)).collect();
        steps.push(Step::Plain(plain(RETURN, rule.action.0)));
        code.extend(resolve(&steps));
        if rule.conditions.is_empty() {
            return code;
        }
    }
    code.push(plain(RETURN, default.0));
    code
}

/// An instruction of a rule, before jumps have lengths.
enum Step {
    Plain(Instruction),
    Test {
        code: u16,
        k: u32,
        yes: To,
        no: To,
    },
    /// Ends a condition.
    Landing,
}

#[derive(Clone, Copy)]
enum To {
    /// The next instruction.
    On,
    /// The end of this condition: it holds.
    Holds,
    /// The end of this rule: it does not.
    Fails,
}

fn resolve(steps: &[Step]) -> Vec<Instruction> {
    let instructions = |steps: &[Step]| steps.iter().filter(|step| !matches!(step, Step::Landing)).count();
    let distance = |from: usize, to: To| {
        let rest = &steps[from + 1..];
        let skipped = match to {
            To::On => 0,
            To::Holds => {
                let landing = rest.iter().position(|step| matches!(step, Step::Landing)).unwrap_or(rest.len());
                instructions(&rest[..landing])
            }
            To::Fails => instructions(rest),
        };
        // Six arguments with at most six instructions each never come near the limit.
        u8::try_from(skipped).unwrap_or(u8::MAX)
    };
    steps
        .iter()
        .enumerate()
        .filter_map(|(index, step)| match step {
            Step::Plain(instruction) => Some(*instruction),
            Step::Test { code, k, yes, no } => Some(jump(*code, *k, distance(index, *yes), distance(index, *no))),
            Step::Landing => None,
        })
        .collect()
}

/// Arguments have 64 bits, the machine has 32: the high half decides unless it is equal.
fn test(condition: Condition) -> Vec<Step> {
    use To::{Fails, Holds, On};
    let offset = ARGUMENTS + 8 * u32::from(condition.argument);
    // Little endian, as both architectures are.
    let load_low = || Step::Plain(plain(LOAD, offset));
    let load_high = || Step::Plain(plain(LOAD, offset + 4));
    let high = |value: u64| (value >> 32) as u32;
    let low = |value: u64| value as u32;
    let test = |code, k, yes, no| Step::Test { code, k, yes, no };
    let mut steps = match condition.comparison {
        Comparison::Equal(value) => vec![
            load_high(),
            test(JUMP_EQUAL, high(value), On, Fails),
            load_low(),
            test(JUMP_EQUAL, low(value), On, Fails),
        ],
        Comparison::NotEqual(value) => vec![
            load_high(),
            test(JUMP_EQUAL, high(value), On, Holds),
            load_low(),
            test(JUMP_EQUAL, low(value), Fails, On),
        ],
        Comparison::Greater(value) => vec![
            load_high(),
            test(JUMP_GREATER, high(value), Holds, On),
            test(JUMP_EQUAL, high(value), On, Fails),
            load_low(),
            test(JUMP_GREATER, low(value), On, Fails),
        ],
        Comparison::GreaterOrEqual(value) => vec![
            load_high(),
            test(JUMP_GREATER, high(value), Holds, On),
            test(JUMP_EQUAL, high(value), On, Fails),
            load_low(),
            test(JUMP_GREATER_EQUAL, low(value), On, Fails),
        ],
        Comparison::Less(value) => vec![
            load_high(),
            test(JUMP_GREATER, high(value), Fails, On),
            test(JUMP_EQUAL, high(value), On, Holds),
            load_low(),
            test(JUMP_GREATER_EQUAL, low(value), Fails, On),
        ],
        Comparison::LessOrEqual(value) => vec![
            load_high(),
            test(JUMP_GREATER, high(value), Fails, On),
            test(JUMP_EQUAL, high(value), On, Holds),
            load_low(),
            test(JUMP_GREATER, low(value), Fails, On),
        ],
        Comparison::MaskedEqual { mask, value } => vec![
            load_high(),
            Step::Plain(plain(AND, high(mask))),
            test(JUMP_EQUAL, high(value), On, Fails),
            load_low(),
            Step::Plain(plain(AND, low(mask))),
            test(JUMP_EQUAL, low(value), On, Fails),
        ],
    };
    steps.push(Step::Landing);
    steps
}

fn plain(code: u16, k: u32) -> Instruction {
    Instruction { code, jt: 0, jf: 0, k }
}

fn jump(code: u16, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code, jt, jf, k }
}
