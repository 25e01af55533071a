//! The names around a log: attempts of a container and the rotated files of an attempt.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::time;

/// A rotated file; in order of age, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rotated {
    /// From its name: when it was closed, seconds since 1970 (later ones of the same second count up).
    pub closed: i64,
    pub path: PathBuf,
}

/// The rotated files of a log, oldest first; none if the directory is missing. Compressed ones (another runtime's) are
/// not listed.
pub fn rotated(log: &Path) -> io::Result<Vec<Rotated>> {
    let (Some(directory), Some(name)) = (log.parent(), log.file_name()) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    each_name(directory, |entry| {
        let suffix = entry.as_bytes().strip_prefix(name.as_bytes()).and_then(|rest| rest.strip_prefix(b"."));
        if let Some(closed) = suffix.and_then(time::parse_rotation_suffix) {
            found.push(Rotated { closed, path: directory.join(entry) });
        }
    })?;
    found.sort_unstable();
    Ok(found)
}

/// The name a log gets when it is rotated.
pub fn rotated_path(log: &Path, closed: i64) -> PathBuf {
    let mut name = log.as_os_str().as_bytes().to_vec();
    name.push(b'.');
    name.extend_from_slice(&time::rotation_suffix(closed));
    PathBuf::from(OsString::from_vec(name))
}

/// The log of an attempt, in its container's directory.
pub fn attempt_path(directory: &Path, attempt: u32) -> PathBuf {
    let mut digits = [0u8; 10];
    let mut start = digits.len();
    let mut rest = attempt;
    loop {
        start -= 1;
        digits[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    let mut name = digits[start..].to_vec();
    name.extend_from_slice(b".log");
    directory.join(OsString::from_vec(name))
}

/// The attempts that have a log or a rotated one, in order. After an engine lost its state, the highest tells the
/// restart count.
pub fn attempts(directory: &Path) -> io::Result<Vec<u32>> {
    let mut found = Vec::new();
    each_name(directory, |name| found.extend(attempt_of(name)))?;
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// The attempt before `attempt` that still has a log (`kubectl logs --previous`).
pub fn previous_attempt(directory: &Path, attempt: u32) -> io::Result<Option<u32>> {
    Ok(attempts(directory)?.into_iter().rfind(|found| *found < attempt))
}

/// Removes an attempt's log and everything rotated from it; what is already gone is fine.
pub fn remove_attempt(directory: &Path, attempt: u32) -> io::Result<()> {
    let log = attempt_path(directory, attempt);
    for path in rotated(&log)?.into_iter().map(|file| file.path).chain([log]) {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn attempt_of(name: &OsStr) -> Option<u32> {
    let name = name.to_str()?;
    let (digits, rest) = name.split_once(".log")?;
    let is_log = rest.is_empty() || time::parse_rotation_suffix(rest.strip_prefix('.')?.as_bytes()).is_some();
    let canonical = digits == "0" || !digits.starts_with(['0', '+']);
    (is_log && canonical).then(|| digits.parse().ok()).flatten()
}

fn each_name(directory: &Path, mut visit: impl FnMut(&OsStr)) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        visit(&entry?.file_name());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_and_their_rotated_files() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for name in [
            "0.log",
            "2.log",
            "2.log.20260815-100001",
            "2.log.20260815-100000",
            "10.log.20260815-100000",
            "2.log.20260815-100000.gz",
            "02.log",
            "x.log",
            "3.logs",
            "2.log.tmp",
            "+4.log",
        ] {
            fs::write(at(name), "").unwrap();
        }
        assert_eq!(attempts(directory.path()).unwrap(), [0, 2, 10]);
        assert_eq!(previous_attempt(directory.path(), 2).unwrap(), Some(0));
        assert_eq!(previous_attempt(directory.path(), 0).unwrap(), None);
        assert_eq!(attempt_path(directory.path(), 2), at("2.log"));
        assert_eq!(attempt_path(Path::new("/d"), u32::MAX), Path::new("/d/4294967295.log"));
        let paths: Vec<_> = rotated(&at("2.log")).unwrap().into_iter().map(|file| file.path).collect();
        assert_eq!(paths, [at("2.log.20260815-100000"), at("2.log.20260815-100001")]);
        assert_eq!(rotated_path(&at("2.log"), 1_786_788_000), at("2.log.20260815-100000"));

        remove_attempt(directory.path(), 2).unwrap();
        remove_attempt(directory.path(), 7).unwrap();
        assert_eq!(attempts(directory.path()).unwrap(), [0, 10]);
        assert!(attempts(&at("missing")).unwrap().is_empty());
    }
}
