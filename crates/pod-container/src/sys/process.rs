//! Forking, and what a forked child does to itself on its way to execve(2).

use std::ffi::{CStr, CString, c_char, c_int, c_ulong};
use std::os::fd::{AsRawFd as _, BorrowedFd, RawFd};
use std::ptr;

use rustix::io::Errno;
use rustix::thread::UnshareFlags;

pub(crate) fn errno() -> Errno {
    // SAFETY: glibc and musl return a valid pointer to this thread's errno.
    Errno::from_raw_os_error(unsafe { *libc::__errno_location() })
}

fn check(result: c_int) -> Result<(), Errno> {
    if result < 0 { Err(errno()) } else { Ok(()) }
}

/// The two sides of [`fork`].
#[derive(Debug)]
pub enum Fork {
    /// With the child's PID in the caller's namespace.
    Parent(i32),
    Child,
}

/// `struct clone_args`, third version (Linux 5.7).
#[repr(C)]
#[derive(Default)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Of linux/sched.h; libc has it too narrow.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// clone3(2) as a fork(2) with new namespaces, and on cgroup v2 into the group whose directory `cgroup` holds: moving there
/// later would wait for an RCU grace period, milliseconds. Only for a process with one thread: in a fork of several, locks
/// that other threads held stay locked for ever.
///
/// # Errors
/// What clone3 says; `EDEADLK` when the process has more than one thread.
pub fn fork(namespaces: UnshareFlags, cgroup: Option<BorrowedFd<'_>>) -> Result<Fork, Errno> {
    // Besides `.` and `..` one entry per thread (proc_pid_task(5)).
    if rustix::fs::stat("/proc/self/task")?.st_nlink > 3 {
        return Err(Errno::DEADLK);
    }
    let arguments = CloneArguments {
        flags: u64::from(namespaces.bits()) | cgroup.map_or(0, |_| CLONE_INTO_CGROUP),
        cgroup: cgroup.map_or(0, |cgroup| u64::from(cgroup.as_raw_fd().cast_unsigned())),
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArguments::default()
    };
    // SAFETY: without CLONE_VM and with no stack of its own the child runs on a copy of this address space, and there is
    // no other thread whose locks or half-done writes it could inherit (checked above). `arguments` outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<CloneArguments>()) };
    match i32::try_from(result) {
        Ok(0) => Ok(Fork::Child),
        Ok(pid) if pid > 0 => Ok(Fork::Parent(pid)),
        _ => Err(errno()),
    }
}

/// fork(2) of a sibling: the new process is a child of this one's parent, in the PID namespace that this one has chosen
/// for its children. By the old call, which seccomp profiles allow where they refuse clone3.
pub(crate) fn fork_sibling() -> Result<Fork, Errno> {
    let flags = libc::CLONE_PARENT | libc::SIGCHLD;
    // SAFETY: as in `fork`; the caller is the only thread, being a fork itself. No flag uses one of the zero pointers.
    let result = unsafe { libc::syscall(libc::SYS_clone, flags as c_ulong, 0_usize, 0_usize, 0_usize, 0_usize) };
    match i32::try_from(result) {
        Ok(0) => Ok(Fork::Child),
        Ok(pid) if pid > 0 => Ok(Fork::Parent(pid)),
        _ => Err(errno()),
    }
}

/// Ends this process at once, without running anything that the program registered for its end.
pub fn exit(code: c_int) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(code) }
}

/// New namespaces for this process, and for its children where the kernel says so.
pub(crate) fn unshare(namespaces: UnshareFlags) -> Result<(), Errno> {
    debug_assert!(!namespaces.intersects(UnshareFlags::FILES | UnshareFlags::FS));
    // SAFETY: without FILES and FS the call changes no table that other parts of the program share.
    unsafe { rustix::thread::unshare_unsafe(namespaces) }
}

/// Puts `fd` at `number`, open across execve; what was there is closed.
pub(crate) fn place(fd: BorrowedFd<'_>, number: RawFd) -> Result<(), Errno> {
    let from = fd.as_raw_fd();
    if from == number {
        // dup2 would leave close-on-exec as it is.
        return rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty());
    }
    // SAFETY: the child owns its whole descriptor table; only 0, 1 and 2 are ever replaced, which no `OwnedFd` holds.
    check(unsafe { libc::dup2(from, number) })
}

/// Closes every descriptor from 3 up but these. A fork has all of its parent's, and `/proc/self/fd/N` would lead a path of
/// the image's making through them to the host (CVE-2024-21626).
pub(crate) fn close_all_but(keep: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut keep: Vec<u32> = keep.iter().map(|fd| fd.as_raw_fd().cast_unsigned()).collect();
    keep.sort_unstable();
    let mut first = 3;
    for number in keep.into_iter().filter(|number| *number >= 3).chain([u32::MAX]) {
        if first < number {
            // SAFETY: the caller is a forked child that ends in execve or _exit without returning to its parent's
            // frames, so no `OwnedFd` of what is closed here is used or dropped again.
            check(unsafe { libc::close_range(first, number - 1, 0) })?;
        }
        first = number.saturating_add(1);
    }
    Ok(())
}

/// Leaves the session keyring of whoever started the engine for a new, empty one (session-keyring(7)).
pub(crate) fn leave_keyring() -> Result<(), Errno> {
    const KEYCTL_JOIN_SESSION_KEYRING: c_int = 1;
    // SAFETY: a null name asks for an anonymous keyring; no memory of ours is touched.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, ptr::null::<c_char>()) };
    if result >= 0 { Ok(()) } else { Err(errno()) }
}

/// Default actions for all signals, and none blocked: both survive execve otherwise. Past the C library, which would leave
/// out two signals that it uses itself; a parent may ignore those too.
pub(crate) fn reset_signals() {
    /// The kernel's `struct sigaction`: handler (SIG_DFL is zero), flags, restorer, mask.
    static DEFAULT: [u64; 4] = [0; 4];
    for signal in 1..=64 {
        // SAFETY: DEFAULT is as large as the kernel's struct on every 64-bit architecture and only read; no handler of
        // this program is needed any more. KILL and STOP are refused, which is as it should be.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, &raw const DEFAULT, ptr::null_mut::<u8>(), 8) };
    }
    // SAFETY: zeroed storage is initialised by sigemptyset before it is read.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
    }
}

/// setrlimit(2) by the kernel's number.
pub(crate) fn set_limit(resource: u32, soft: u64, hard: u64) -> Result<(), Errno> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: `limit` is live and only read; an unknown resource is refused with EINVAL.
    let result = unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, &raw const limit, ptr::null_mut::<u8>()) };
    if result < 0 { Err(errno()) } else { Ok(()) }
}

/// Takes from the bounding set every capability that `keep` lacks.
pub(crate) fn limit_bounding_set(keep: u64) -> Result<(), Errno> {
    for capability in 0..64_u64 {
        if keep >> capability & 1 == 1 {
            continue;
        }
        // SAFETY: PR_CAPBSET_DROP takes one number and no pointer.
        let result = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability as c_ulong, 0, 0, 0) };
        match check(result) {
            // Past the last one this kernel knows.
            Err(Errno::INVAL) if capability > 0 => return Ok(()),
            outcome => outcome?,
        }
    }
    Ok(())
}

/// Loads one classic BPF program (`struct sock_filter` after another) as a seccomp filter.
pub(crate) fn load_filter(program: &[u8]) -> Result<(), Errno> {
    const INSTRUCTION: usize = size_of::<libc::sock_filter>();
    let (instructions, rest) = program.as_chunks::<INSTRUCTION>();
    if !rest.is_empty() {
        return Err(Errno::INVAL);
    }
    let mut filter: Vec<libc::sock_filter> = instructions
        .iter()
        .map(|&[code0, code1, jt, jf, k0, k1, k2, k3]| libc::sock_filter {
            code: u16::from_ne_bytes([code0, code1]),
            jt,
            jf,
            k: u32::from_ne_bytes([k0, k1, k2, k3]),
        })
        .collect();
    let program =
        libc::sock_fprog { len: filter.len().try_into().map_err(|_| Errno::INVAL)?, filter: filter.as_mut_ptr() };
    // SAFETY: `program` and the instructions it points to live until the call returns; the kernel copies and checks them.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    if result < 0 { Err(errno()) } else { Ok(()) }
}

/// Becomes another program; returns only why not.
pub(crate) fn execute(path: &CStr, arguments: &[CString], environment: &[CString]) -> Errno {
    let pointers = |strings: &[CString]| -> Vec<*const c_char> {
        strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
    };
    let (arguments, environment) = (pointers(arguments), pointers(environment));
    // SAFETY: both vectors end with a null pointer and point to strings that outlive the call.
    unsafe { libc::execve(path.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    errno()
}
