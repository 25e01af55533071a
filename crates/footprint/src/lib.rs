//! A sleeping daemon's memory given back.
//!
//! Starting runs through much of a program's text once, and the kernel maps sixteen pages around every one that is touched
//! (`fault_around_bytes`): a daemon that then waits for days keeps most of its file mapped. [`shed`] lets go of it. The pages
//! stay in the page cache; what is used comes back at the next use for about a microsecond a page, without reading the disk.

#![deny(unsafe_code)]

mod mapping;
mod sys;

use std::io;

/// What was let go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shed {
    /// Bytes of mappings whose pages were dropped; how many of them were resident is not asked.
    pub mapped: usize,
}

/// Unmaps the program's own read-only pages until they are used again, and gives free heap back to the kernel
/// (malloc_trim(3)).
///
/// # Errors
/// When `/proc` cannot be read. Nothing is changed then.
pub fn shed() -> io::Result<Shed> {
    let program = std::fs::read_link("/proc/self/exe")?;
    let text = std::fs::read_to_string("/proc/self/smaps")?;
    let mut mapped = 0;
    for mapping in mapping::clean(&text, &program.to_string_lossy()) {
        sys::drop_pages(&mapping)?;
        mapped += mapping.length;
    }
    trim();
    Ok(Shed { mapped })
}

/// Gives free heap back to the kernel (malloc_trim(3)): for whoever has just freed much. It takes milliseconds if it was
/// much, and other threads that allocate wait for it.
pub fn trim() {
    sys::trim_heap();
}

/// Pages this process has had mapped so far, all threads: what grows while a daemon works, and stands while it sleeps.
pub fn faults() -> u64 {
    sys::faults()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resident_file_pages() -> usize {
        let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss_File:")).unwrap();
        line.trim().trim_end_matches(" kB").trim().parse().unwrap()
    }

    #[test]
    fn pages_go_and_the_program_lives_on() {
        let before = resident_file_pages();
        let shed = shed().unwrap();
        let after = resident_file_pages();
        assert!(shed.mapped > 100_000, "{shed:?}");
        assert!(after < before, "{before} kB before, {after} kB after");
        assert!(faults() > 0);
    }
}
