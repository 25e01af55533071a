//! v2 has no device controller: a small eBPF program per group decides on every `open` and `mknod` of a device node
//! (`BPF_PROG_TYPE_CGROUP_DEVICE`, `struct bpf_cgroup_dev_ctx` in linux/bpf.h).

use std::io;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::device::{Kind, Rule};
use crate::sys::bpf::{self, Instruction};

const TYPE_BLOCK: i32 = 1;
const TYPE_CHARACTER: i32 = 2;
const ACCESS_MKNOD: i32 = 1;
const ACCESS_READ: i32 = 2;
const ACCESS_WRITE: i32 = 4;

// Registers: r1 the context, r2 type, r3 access, r4 major, r5 minor, r6 scratch, r0 the answer.
const LOAD_WORD: u8 = 0x61; // BPF_LDX | BPF_MEM | BPF_W
const MOVE: u8 = 0xb4; // BPF_ALU | BPF_MOV | BPF_K
const MOVE_REGISTER: u8 = 0xbc; // BPF_ALU | BPF_MOV | BPF_X
const AND: u8 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const SHIFT_RIGHT: u8 = 0x74; // BPF_ALU | BPF_RSH | BPF_K
const JUMP_NOT_EQUAL: u8 = 0x56; // BPF_JMP32 | BPF_JNE | BPF_K
const EXIT: u8 = 0x95; // BPF_JMP | BPF_EXIT

/// Makes `rules` the only filter of the group.
pub(super) fn replace(directory: &Path, rules: &[Rule]) -> io::Result<()> {
    let group = open(directory)?;
    let program = bpf::load_cgroup_device(&assemble(rules))?;
    // Attach first, so that there is no moment without a filter.
    let old = bpf::attached_cgroup_device(&group)?;
    bpf::attach_cgroup_device(&group, &program)?;
    old.into_iter().try_for_each(|id| bpf::detach_cgroup_device(&group, id))
}

pub(super) fn detach_all(directory: &Path) -> io::Result<()> {
    let group = open(directory)?;
    bpf::attached_cgroup_device(&group)?.into_iter().try_for_each(|id| bpf::detach_cgroup_device(&group, id))
}

fn open(directory: &Path) -> io::Result<std::os::fd::OwnedFd> {
    Ok(rustix::fs::open(directory, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// First rule that matches allows; none denies.
pub(super) fn assemble(rules: &[Rule]) -> Vec<Instruction> {
    let mut program = vec![
        Instruction::new(LOAD_WORD, 2, 1, 0, 0),
        Instruction::new(MOVE_REGISTER, 3, 2, 0, 0),
        Instruction::new(AND, 2, 0, 0, 0xffff),
        Instruction::new(SHIFT_RIGHT, 3, 0, 0, 16),
        Instruction::new(LOAD_WORD, 4, 1, 4, 0),
        Instruction::new(LOAD_WORD, 5, 1, 8, 0),
    ];
    for rule in rules {
        program.extend(block(rule));
    }
    program.extend([Instruction::new(MOVE, 0, 0, 0, 0), Instruction::new(EXIT, 0, 0, 0, 0)]);
    program
}

/// Falls through to the next rule when it does not match.
fn block(rule: &Rule) -> Vec<Instruction> {
    let kind = match rule.kind {
        Kind::Character => TYPE_CHARACTER,
        Kind::Block => TYPE_BLOCK,
    };
    let mut forbidden = 0;
    for (allowed, bit) in
        [(rule.access.mknod, ACCESS_MKNOD), (rule.access.read, ACCESS_READ), (rule.access.write, ACCESS_WRITE)]
    {
        if !allowed {
            forbidden |= bit;
        }
    }
    let mut instructions = vec![Instruction::new(JUMP_NOT_EQUAL, 2, 0, 0, kind)];
    if forbidden != 0 {
        instructions.extend([
            Instruction::new(MOVE_REGISTER, 6, 3, 0, 0),
            Instruction::new(AND, 6, 0, 0, forbidden),
            Instruction::new(JUMP_NOT_EQUAL, 6, 0, 0, 0),
        ]);
    }
    for (register, number) in [(4, rule.major), (5, rule.minor)] {
        if let Some(number) = number {
            instructions.push(Instruction::new(JUMP_NOT_EQUAL, register, 0, 0, number.cast_signed()));
        }
    }
    instructions.extend([Instruction::new(MOVE, 0, 0, 0, 1), Instruction::new(EXIT, 0, 0, 0, 0)]);
    let end = instructions.len();
    for (index, instruction) in instructions.iter_mut().enumerate() {
        if instruction.code == JUMP_NOT_EQUAL {
            instruction.offset = i16::try_from(end - index - 1).unwrap_or(i16::MAX);
        }
    }
    instructions
}
