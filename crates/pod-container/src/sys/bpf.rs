//! The few bpf(2) commands a device filter needs.

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

/// `struct bpf_insn`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Instruction {
    pub(crate) code: u8,
    /// Destination in the low four bits, source in the high four.
    pub(crate) registers: u8,
    pub(crate) offset: i16,
    pub(crate) immediate: i32,
}

impl Instruction {
    pub(crate) fn new(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Instruction {
        Instruction { code, registers: destination | source << 4, offset, immediate }
    }
}

const BPF_PROG_LOAD: i64 = 5;
const BPF_PROG_ATTACH: i64 = 8;
const BPF_PROG_DETACH: i64 = 9;
const BPF_PROG_GET_FD_BY_ID: i64 = 13;
const BPF_PROG_QUERY: i64 = 16;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
/// Filters of this group and all above must allow.
const BPF_F_ALLOW_MULTI: u32 = 2;

/// The head of `union bpf_attr` for `BPF_PROG_LOAD`; the kernel takes the missing rest as zero.
#[repr(C)]
struct Load {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

#[repr(C)]
struct Query {
    target: u32,
    kind: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    padding: u32,
}

pub(crate) fn load_cgroup_device(program: &[Instruction]) -> io::Result<OwnedFd> {
    let mut attributes = Load {
        kind: BPF_PROG_TYPE_CGROUP_DEVICE,
        instruction_count: u32::try_from(program.len()).map_err(io::Error::other)?,
        instructions: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
        name: *b"outrigger_dev\0\0\0",
    };
    let fd = bpf(BPF_PROG_LOAD, &mut attributes)?;
    // SAFETY: a successful BPF_PROG_LOAD returns a descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(crate) fn attach_cgroup_device(group: &OwnedFd, program: &OwnedFd) -> io::Result<()> {
    let mut attributes = Attach {
        target: group.as_raw_fd().cast_unsigned(),
        program: program.as_raw_fd().cast_unsigned(),
        kind: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI,
    };
    bpf(BPF_PROG_ATTACH, &mut attributes).map(drop)
}

/// The ids of the programs attached to this very group.
pub(crate) fn attached_cgroup_device(group: &OwnedFd) -> io::Result<Vec<u32>> {
    let mut ids = vec![0_u32; 64];
    let mut attributes = Query {
        target: group.as_raw_fd().cast_unsigned(),
        kind: BPF_CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        ids: ids.as_mut_ptr() as u64,
        count: 64,
        padding: 0,
    };
    bpf(BPF_PROG_QUERY, &mut attributes)?;
    ids.truncate(attributes.count as usize);
    Ok(ids)
}

pub(crate) fn detach_cgroup_device(group: &OwnedFd, id: u32) -> io::Result<()> {
    let fd = bpf(BPF_PROG_GET_FD_BY_ID, &mut [id, 0, 0])?;
    // SAFETY: a successful BPF_PROG_GET_FD_BY_ID returns a descriptor that nobody else owns.
    let program = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut attributes = Attach {
        target: group.as_raw_fd().cast_unsigned(),
        program: program.as_raw_fd().cast_unsigned(),
        kind: BPF_CGROUP_DEVICE,
        flags: 0,
    };
    bpf(BPF_PROG_DETACH, &mut attributes).map(drop)
}

fn bpf<T>(command: i64, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: `attributes` is a live, initialised `repr(C)` prefix of `union bpf_attr` of the size given, and the
    // addresses in it (built above) point to buffers that outlive the call.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes).cast::<c_void>(), size_of::<T>())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}
