//! Control files: small texts, read and written whole.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::CgroupError;

/// One write of the whole value; the kernel takes each write as one command. The file must exist.
pub(super) fn write(path: &Path, value: &str) -> io::Result<()> {
    fs::OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}

pub(super) fn read(path: &Path) -> Result<String, CgroupError> {
    fs::read_to_string(path).map_err(|source| CgroupError::Read { path: path.to_owned(), source })
}

/// A file that holds one number.
pub(super) fn number(path: &Path) -> Result<u64, CgroupError> {
    let text = read(path)?;
    text.trim().parse().map_err(|_| strange(path, &text))
}

/// `None` when the file is missing: the controller is not there.
pub(super) fn number_if_present(path: &Path) -> Result<Option<u64>, CgroupError> {
    match number(path) {
        Ok(value) => Ok(Some(value)),
        Err(CgroupError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The number after `key` in a file of `key number` lines.
pub(super) fn keyed(path: &Path, key: &str) -> Result<u64, CgroupError> {
    let text = read(path)?;
    text.lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
        .ok_or_else(|| strange(path, key))
}

/// The processes in `directory` and below it. Groups that vanish meanwhile are left out.
pub(super) fn processes_below(directory: &Path, found: &mut Vec<u32>) -> Result<(), CgroupError> {
    let path = directory.join("cgroup.procs");
    let text = match read(&path) {
        Err(CgroupError::Read { source, .. }) if is_gone(&source) => return Ok(()),
        text => text?,
    };
    // A zero is a process outside the reader's PID namespace: nobody here could signal it.
    found.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()).filter(|pid| *pid != 0));
    for child in children(directory) {
        processes_below(&child, found)?;
    }
    Ok(())
}

/// The groups right below.
pub(super) fn children(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// `ENODEV` is what an open file of a removed group answers.
pub(super) fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

fn strange(path: &Path, text: &str) -> CgroupError {
    let source = io::Error::new(io::ErrorKind::InvalidData, format!("unexpected content: {}", text.trim()));
    CgroupError::Read { path: path.to_owned(), source }
}
