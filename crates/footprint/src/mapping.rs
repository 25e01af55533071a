//! `/proc/PID/smaps` (proc_pid_smaps(5)), as far as it is asked here.

/// A read-only mapping of the program's file in which no page differs from the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Clean {
    pub(crate) start: usize,
    pub(crate) length: usize,
}

/// The clean mappings of `program`. Relocated data (RELRO) is read-only too by the time a program runs, but its pages are not
/// the file's; so are those a debugger has put a breakpoint into. Both show as anonymous memory.
pub(crate) fn clean(smaps: &str, program: &str) -> Vec<Clean> {
    let mut found = Vec::new();
    let mut current: Option<Clean> = None;
    for line in smaps.lines() {
        if let Some(mapping) = header(line, program) {
            current = mapping;
        } else if let Some(anonymous) = line.strip_prefix("Anonymous:")
            && anonymous.split_whitespace().next() == Some("0")
        {
            found.extend(current.take());
        }
    }
    found
}

/// `None`: not the first line of a mapping. `Some(None)`: of one that is no candidate.
fn header(line: &str, program: &str) -> Option<Option<Clean>> {
    let mut words = line.split_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
    let permissions = words.next()?;
    let path = line.split_once('/').map(|(_, path)| format!("/{path}")).unwrap_or_default();
    let candidate = matches!(permissions, "r-xp" | "r--p") && path == program && end > start;
    Some(candidate.then(|| Clean { start, length: end - start }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
55c764911000-55c764fe1000 r--p 00000000 fe:00 1     /usr/bin/a program
Rss:                3480 kB
Anonymous:             0 kB
55c764fe1000-55c765d31000 r-xp 006d0000 fe:00 1     /usr/bin/a program
Anonymous:             0 kB
55c765d31000-55c765dc0000 r--p 0141e000 fe:00 1     /usr/bin/a program
Anonymous:           572 kB
55c765dc0000-55c765dc4000 rw-p 014ac000 fe:00 1     /usr/bin/a program
Anonymous:             0 kB
7f0000000000-7f0000001000 r-xp 00000000 fe:00 2     /usr/lib/libc.so.6
Anonymous:             0 kB
7f0000002000-7f0000003000 r--p 00000000 00:00 0
Anonymous:             0 kB
";

    #[test]
    fn only_unchanged_read_only_mappings_of_the_program() {
        let found = clean(SMAPS, "/usr/bin/a program");
        let lengths: Vec<usize> = found.iter().map(|mapping| mapping.length).collect();
        assert_eq!(lengths, [0x6d0000, 0xd50000]);
        assert_eq!(found[0].start, 0x55c7_6491_1000);
    }
}
