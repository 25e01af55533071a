//! The system calls.
#![allow(unsafe_code)]

use std::io;

use crate::mapping::Clean;

/// madvise(2), `MADV_DONTNEED`.
pub(crate) fn drop_pages(mapping: &Clean) -> io::Result<()> {
    // SAFETY: the range is a private, read-only mapping of the program's file without a single page that differs from it
    // (`mapping::clean`; it cannot be written, so that stays true). What is dropped is read from the file again at its next
    // use, with the same bytes: neither code nor constants change for any thread. Linux keeps the file of a running
    // program from being written (ETXTBSY).
    let done = unsafe { libc::madvise(mapping.start as *mut libc::c_void, mapping.length, libc::MADV_DONTNEED) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// malloc_trim(3); other C libraries have none.
pub(crate) fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no pointer is passed, and it may be called at any time from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// getrusage(2), `ru_minflt`.
pub(crate) fn faults() -> u64 {
    // SAFETY: all fields are integers, for which zeros are valid values.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is valid for writing for the call.
    let done = unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut usage) };
    if done == 0 { u64::try_from(usage.ru_minflt).unwrap_or(0) } else { 0 }
}
