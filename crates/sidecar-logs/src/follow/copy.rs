//! Finding the text of a file elsewhere: renamed, copied before a truncation, or compressed.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use record::queue::Position;

use crate::checkpoint::{Identity, Saved};

/// Entries of a directory looked at.
const ENTRIES: usize = 4096;
/// Unpacked text of one file.
const UNPACKED: u64 = 1 << 30;

/// A file beside `saved.path` that holds its text up to `position`. By inode if it was renamed, otherwise by its text;
/// then there must be some to go by.
pub fn find(saved: &Saved, position: Position, scratch: &Path) -> Option<(PathBuf, File)> {
    let directory = saved.path.parent()?;
    let mut candidates: Vec<(bool, PathBuf)> = Vec::new();
    for entry in fs::read_dir(directory).ok()?.take(ENTRIES).flatten() {
        let path = entry.path();
        if path != saved.path && entry.file_type().is_ok_and(|kind| kind.is_file()) {
            candidates.push((!is_related(&saved.path, &path), path));
        }
    }
    // Likely names first.
    candidates.sort();
    for (_, path) in candidates {
        let Ok(file) = File::open(&path) else { continue };
        let compressed = path.extension().is_some_and(|extension| extension == "gz");
        let same = Identity::of(&file).is_ok_and(|identity| saved.identity.is_same_file(&identity));
        let file = if compressed && is_related(&saved.path, &path) && (same || position.end > 0) {
            let Ok(file) = unpack(file, scratch) else { continue };
            file
        } else {
            file
        };
        let by_text = saved.identity.head_length > 0;
        if (same || by_text)
            && super::read::length(&file).is_ok_and(|length| length >= position.end)
            && saved.identity.has_text(&file, position).unwrap_or(false)
        {
            return Some((path, file));
        }
    }
    None
}

/// `app.log.1`, `app.log-20260815.gz`, `app-1.log` belong to `app.log`.
fn is_related(live: &Path, other: &Path) -> bool {
    let name = |path: &Path| path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    name(other).starts_with(&name(live))
}

/// Into a file without a name: what reads plain files can read it, and nothing is left behind by a crash.
pub(super) fn unpack(file: File, scratch: &Path) -> io::Result<File> {
    let path = scratch.join(format!("unpacked-{}", std::process::id()));
    let mut plain = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
    fs::remove_file(&path)?;
    let mut reader = io::Read::take(MultiGzDecoder::new(io::BufReader::new(file)), UNPACKED);
    io::copy(&mut reader, &mut plain)?;
    Ok(plain)
}
