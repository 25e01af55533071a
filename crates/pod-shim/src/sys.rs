//! The system calls for which rustix has no safe door. The only unsafe code of the program.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int};
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::ptr;

use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

fn errno() -> Errno {
    // SAFETY: glibc and musl return a valid pointer to this thread's errno.
    Errno::from_raw_os_error(unsafe { *libc::__errno_location() })
}

fn check(result: c_int) -> Result<c_int, Errno> {
    if result < 0 { Err(errno()) } else { Ok(result) }
}

/// Blocks SIGCHLD and makes it readable instead; the signals by which people and terminals end programs are ignored,
/// because only the engine or SIGKILL ends a pod.
pub(crate) fn take_signals() -> Result<OwnedFd, Errno> {
    // SAFETY: zero is valid storage for a signal set, initialised by sigemptyset before use; SIG_IGN runs no code of ours.
    // The descriptor that signalfd returns belongs to nobody else.
    unsafe {
        for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGTERM, libc::SIGQUIT, libc::SIGPIPE] {
            libc::signal(signal, libc::SIG_IGN);
        }
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        check(libc::sigprocmask(libc::SIG_SETMASK, &raw const set, ptr::null_mut()))?;
        let fd = check(libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Children that end are reaped by the kernel from now on.
pub(crate) fn ignore_children() {
    // SAFETY: SIG_IGN runs no code of ours.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

/// Gives up every capability, for good.
pub(crate) fn drop_bounding_set() {
    for capability in 0..64 {
        // SAFETY: PR_CAPBSET_DROP takes one number; an unknown one is refused.
        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
    }
}

/// kill(2) with any signal number, real-time ones included. A negative `pid` is refused: it would mean a group.
pub(crate) fn kill(pid: i32, signal: i32) -> Result<(), Errno> {
    if pid <= 0 {
        return Err(Errno::SRCH);
    }
    // SAFETY: kill touches no memory of ours.
    check(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// Kills every process of this PID namespace but its init, the caller, and those of nested ones.
pub(crate) fn kill_namespace() {
    // Anywhere else this would reach the whole machine.
    if rustix::process::getpid().as_raw_nonzero().get() == 1 {
        // SAFETY: kill touches no memory of ours.
        unsafe { libc::kill(-1, libc::SIGKILL) };
    }
}

/// Any child that has ended. It keeps its number until [`reap`].
pub(crate) fn ended_child() -> Option<i32> {
    // SAFETY: zero is a valid siginfo, which the call fills; si_pid is what it holds for children, and stays zero when
    // there is none.
    let pid = unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        match libc::waitid(libc::P_ALL, 0, &raw mut info, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT) {
            0 => info.si_pid(),
            _ => 0,
        }
    };
    (pid > 0).then_some(pid)
}

/// The wait status of an ended child.
pub(crate) fn reap(pid: i32) -> Option<i32> {
    let mut status = 0;
    // SAFETY: `status` is live; nobody else in this process waits for children.
    (unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) } == pid).then_some(status)
}

/// A mount namespace of its own for this process, a copy of the one it has.
pub(crate) fn leave_mounts() -> Result<(), Errno> {
    // SAFETY: NEWNS shares or closes no descriptor table or memory.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }
}

/// Everything from `first` up closes at exec.
pub(crate) fn close_on_exec_from(first: u32) {
    // SAFETY: setting close-on-exec invalidates no descriptor.
    unsafe { libc::close_range(first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC as c_int) };
}

/// Leaves the session keyring of whoever started the engine for a new, empty one (session-keyring(7)).
pub(crate) fn leave_keyring() {
    const KEYCTL_JOIN_SESSION_KEYRING: c_int = 1;
    // SAFETY: a null name asks for an anonymous keyring; no memory of ours is touched.
    unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, ptr::null::<c_char>()) };
}

/// Is there any child, ended or not?
pub(crate) fn has_children() -> bool {
    // SAFETY: a null info pointer is allowed (waitid(2), Linux); nothing is reaped because of WNOWAIT.
    unsafe { libc::waitid(libc::P_ALL, 0, ptr::null_mut(), libc::WEXITED | libc::WNOHANG | libc::WNOWAIT) == 0 }
}

/// Waits until a particular child has ended.
pub(crate) fn wait_for(pid: i32) {
    // SAFETY: a null status pointer is allowed.
    while unsafe { libc::waitpid(pid, ptr::null_mut(), 0) } < 0 && errno() == Errno::INTR {}
}

/// How a wait status reads: exit code, and signal.
pub(crate) fn exit_of(status: i32) -> (u8, Option<u8>) {
    match status & 0x7f {
        0 => ((status >> 8 & 0xff) as u8, None),
        signal => (128_u8.wrapping_add(signal as u8), Some(signal as u8)),
    }
}

/// Sets the interface `lo` of this network namespace up.
pub(crate) fn raise_loopback(socket: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: zero is a valid ifreq; the name fits with its end; both ioctls read and write only this live struct, and the
    // flags are the union member they use.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
            *to = *from as c_char;
        }
        check(libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS as _, &raw mut request))?;
        request.ifr_ifru.ifru_flags |= libc::IFF_UP as i16;
        check(libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw mut request))?;
    }
    Ok(())
}

/// Makes a mount, given by its root, read-only (mount_setattr(2)).
pub(crate) fn make_read_only(mount: BorrowedFd<'_>) -> Result<(), Errno> {
    let attributes: [u64; 4] = [u64::from(MountAttrFlags::MOUNT_ATTR_RDONLY.bits()), 0, 0, 0];
    // SAFETY: the four words are a live `struct mount_attr` (set, clear, propagation, userns_fd), only read.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            attributes.as_ptr(),
            size_of_val(&attributes),
        )
    };
    if result < 0 { Err(errno()) } else { Ok(()) }
}

/// Puts a descriptor at `number`, open across exec.
pub(crate) fn place(fd: BorrowedFd<'_>, number: RawFd) -> Result<(), Errno> {
    // SAFETY: the caller is a child about to exec, which closes or replaces every descriptor on its way; none of the
    // `OwnedFd`s it still holds is used or dropped after this.
    check(unsafe { libc::dup2(fd.as_raw_fd(), number) }).map(drop)
}

/// Takes over a descriptor that the exec'ing half of this program has placed.
pub(crate) fn inherited(number: RawFd) -> Result<OwnedFd, Errno> {
    // SAFETY: called once per number, at the very start of the exec'd half, before anything else opens descriptors; the
    // fcntl proves that it is open.
    unsafe {
        check(libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC))?;
        Ok(OwnedFd::from_raw_fd(number))
    }
}

/// execveat(2) of the file that a descriptor holds, with an empty environment.
pub(crate) fn execute(program: BorrowedFd<'_>, arguments: &[CString]) -> Errno {
    let pointers: Vec<*const c_char> =
        arguments.iter().map(|argument| argument.as_ptr()).chain([ptr::null()]).collect();
    let environment = [ptr::null::<c_char>()];
    // SAFETY: both arrays end with a null pointer and, like the strings, outlive the call.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program.as_raw_fd(),
            c"".as_ptr(),
            pointers.as_ptr(),
            environment.as_ptr(),
            libc::AT_EMPTY_PATH,
        );
    }
    errno()
}

/// What the process is called in lists.
pub(crate) fn set_name(name: &CStr) {
    let _ = rustix::thread::set_name(name);
}

/// Closes every descriptor.
pub(crate) fn close_all() {
    // SAFETY: the caller (`pause`) uses and drops no descriptor afterwards; it never returns.
    unsafe { libc::close_range(0, u32::MAX, 0) };
}

/// Gives back every page that can be had again: code and constants (from the page cache, where they stay), free heap, and
/// the stack below us. A sleeping shim then holds little more than its tables.
pub(crate) fn release_memory() {
    unsafe extern "C" {
        // Set by the linker (end(3)): where the program's first read-only segment begins and its code ends. What lies
        // between is never written to, so it is the same when it comes back.
        static __executable_start: u8;
        static etext: u8;
    }
    const PAGE: usize = 4096;
    /// Deeper than any call of this program.
    const STACK: usize = 64 * 1024;
    let discard = |from: usize, to: usize| {
        let from = from.next_multiple_of(PAGE);
        let length = to.saturating_sub(from) / PAGE * PAGE;
        // SAFETY: see the callers below; addresses that are not mapped are refused.
        unsafe { libc::madvise(from as *mut libc::c_void, length, libc::MADV_DONTNEED) };
    };
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim touches free memory only.
    unsafe {
        libc::malloc_trim(0);
    }
    let here = 0_u8;
    let top = (&raw const here).addr() - PAGE;
    // Nothing lives on the stack more than a page below this frame, which calls nothing deep.
    discard(top - STACK, top);
    // Read-only mappings of a file, see above.
    discard((&raw const __executable_start).addr(), (&raw const etext).addr());
}
