//! Whole generations of a file that came and went between two looks: written, and renamed or copied away by a rotation
//! that was quicker than we were, or than the processor we got.
//!
//! Nothing but circumstances tells that a file beside the live one is such a generation, so all of them must: its name is one
//! that rotation gives, it was made *and* written to since the last look, and its text is neither that of a file we know nor
//! of one we have read before. When in doubt it is left alone.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flate2::read::MultiGzDecoder;

use super::copy;
use crate::checkpoint::{HEAD, Identity, hash, read_at};

/// Entries of a directory looked at.
const ENTRIES: usize = 4096;
/// Texts remembered.
const PAST: usize = 256;
/// The file system's times are as coarse as the kernel's tick, ours are not.
const TICK: Duration = Duration::from_millis(20);

/// Texts that were read to their end and let go: they may lie there for long, be copied and be compressed.
#[derive(Debug, Default)]
pub(super) struct PastTexts(VecDeque<Identity>);

impl PastTexts {
    pub(super) fn note(&mut self, identity: &Identity) {
        if self.0.len() == PAST {
            self.0.pop_front();
        }
        self.0.push_back(identity.clone());
    }
}

/// One of them.
#[derive(Debug)]
pub(super) struct Unseen {
    pub(super) path: PathBuf,
    /// Its plain text.
    pub(super) file: File,
    /// Its own, also if it is compressed: by that it is found again.
    pub(super) identity: Identity,
}

/// The unseen generations of `live`, oldest first. `known` are all that are followed or about to be.
pub(super) fn find(
    live: &Path,
    since: SystemTime,
    past: &PastTexts,
    known: &[&Identity],
    scratch: &Path,
) -> Vec<Unseen> {
    let since = since.checked_sub(TICK).unwrap_or(UNIX_EPOCH);
    let mut candidates = candidates(live, since).unwrap_or_default();
    candidates.sort_by_key(|candidate| candidate.identity.born);
    let mut texts: Vec<Vec<u8>> = File::open(live).and_then(|file| head(&file)).into_iter().collect();
    let mut found = Vec::new();
    for mut candidate in candidates {
        let packed = candidate.path.extension().is_some_and(|extension| extension == "gz");
        let text = if packed { packed_head(&candidate.file) } else { head(&candidate.file) };
        let Ok(text) = text else { continue };
        let is_known = known.iter().any(|known| known.is_same_file(&candidate.identity) || is_begun_by(&text, known))
            || past.0.iter().any(|past| past.is_same_file(&candidate.identity) || is_whole(&text, past))
            // Also a copy in the making of what is there now, or another copy of one we have found.
            || texts.iter().any(|other| other.starts_with(&text) || text.starts_with(other));
        if text.is_empty() || is_known {
            continue;
        }
        if packed {
            // In the making it cannot be unpacked to its end; then the plain one is still there.
            let Ok(plain) = File::open(&candidate.path).and_then(|file| copy::unpack(file, scratch)) else { continue };
            candidate.file = plain;
            (candidate.identity.head_length, candidate.identity.head) = (text.len(), hash(&text));
        }
        texts.push(text);
        found.push(candidate);
    }
    found
}

fn candidates(live: &Path, since: SystemTime) -> io::Result<Vec<Unseen>> {
    let (Some(directory), Some(name)) = (live.parent(), live.file_name()) else { return Ok(Vec::new()) };
    // Nothing was made in it: the usual case costs one system call.
    if fs::metadata(directory)?.modified()? < since {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)?.take(ENTRIES).flatten() {
        let rotated = is_rotated(name.as_encoded_bytes(), entry.file_name().as_encoded_bytes());
        if !rotated || !entry.file_type().is_ok_and(|kind| kind.is_file()) {
            continue;
        }
        let path = entry.path();
        // Without a birth time nobody can tell.
        let times = entry.metadata().and_then(|metadata| Ok((metadata.created()?, metadata.modified()?)));
        let Ok((born, written)) = times else { continue };
        // gzip(1) passes on when the text was last written to. Who does not may be compressing what we read long ago.
        let packed = path.extension().is_some_and(|extension| extension == "gz");
        if born < since || written < since || (packed && written >= born) {
            continue;
        }
        let Ok(file) = File::open(&path) else { continue };
        let Ok(identity) = Identity::of(&file) else { continue };
        found.push(Unseen { path, file, identity });
    }
    Ok(found)
}

/// `app.log.1`, `app.log-20260815`, `app.log.2026-08-15T10.gz` and `app.log.old`, but not `app.log.bak`, `app.log.swp` or
/// `app.log.pos`.
fn is_rotated(live: &[u8], name: &[u8]) -> bool {
    let Some(suffix) = name.strip_prefix(live) else { return false };
    let suffix = suffix.strip_suffix(b".gz").unwrap_or(suffix);
    let Some((b'.' | b'-' | b'_', rest)) = suffix.split_first() else { return false };
    let dated = |byte: &u8| byte.is_ascii_digit() || b".-_:+TZ".contains(byte);
    rest == b"old" || (rest.iter().all(dated) && rest.iter().any(u8::is_ascii_digit))
}

/// The text of something that may still grow.
fn is_begun_by(text: &[u8], known: &Identity) -> bool {
    let length = known.head_length;
    length > 0 && text.len() >= length && hash(&text[..length]) == known.head
}

/// The text of something that does not grow any more.
fn is_whole(text: &[u8], past: &Identity) -> bool {
    is_begun_by(text, past) && (past.head_length == HEAD || past.head_length == text.len())
}

fn head(file: &File) -> io::Result<Vec<u8>> {
    let mut head = vec![0; HEAD];
    let length = read_at(file, &mut head, 0)?;
    head.truncate(length);
    Ok(head)
}

fn packed_head(file: &File) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    MultiGzDecoder::new(file).take(HEAD as u64).read_to_end(&mut head)?;
    Ok(head)
}

#[cfg(test)]
mod tests {
    use std::fs::FileTimes;
    use std::io::Write as _;

    use super::*;

    #[test]
    fn names_that_rotation_gives() {
        for name in ["app.log.1", "app.log-20260815", "app.log.2026-08-15T10:00:00Z.gz", "app.log.old", "app.log_3"] {
            assert!(is_rotated(b"app.log", name.as_bytes()), "{name}");
        }
        let others = ["app.log", "app.log.bak", "app.log.swp", "app.log~", "app.log.pos", "app.log.", "app.log2"];
        for name in
            others.into_iter().chain(["app.log.gz", "app.log.1.zst", "app.log.1.tmp", "other.log.1", ".app.log.1"])
        {
            assert!(!is_rotated(b"app.log", name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn only_what_nobody_can_have_read_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let long = |word: &str| format!("{word}\n").repeat(100);
        let live = path("app.log");
        let since = SystemTime::now();
        fs::write(&live, long("live")).unwrap();
        let identity = |name: &str| Identity::of(&File::open(path(name)).unwrap()).unwrap();
        // Read before; its copy too, compressed or not.
        fs::write(path("app.log.1"), long("followed")).unwrap();
        fs::write(path("app.log.2"), long("followed")).unwrap();
        fs::write(path("app.log.3"), "short").unwrap();
        let past = PastTexts(VecDeque::from([identity("app.log.3")]));
        fs::write(path("app.log.4"), "short").unwrap();
        // In the making, or of the wrong name.
        fs::write(path("app.log.5"), &long("live")[..50]).unwrap();
        fs::write(path("app.log.bak"), long("bak")).unwrap();
        // Not written to since the last look.
        let old = since - Duration::from_secs(60);
        fs::write(path("app.log.6"), long("old")).unwrap();
        File::open(path("app.log.6")).unwrap().set_times(FileTimes::new().set_modified(old)).unwrap();
        let pack = |name: &str, text: &str, passed_on: bool, whole: bool| {
            let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            packed.write_all(text.as_bytes()).unwrap();
            let bytes = packed.finish().unwrap();
            fs::write(path(name), &bytes[..if whole { bytes.len() } else { bytes.len() - 4 }]).unwrap();
            if passed_on {
                File::open(path(name)).unwrap().set_times(FileTimes::new().set_modified(since)).unwrap();
            }
        };
        pack("app.log.7.gz", &long("followed"), true, true);
        pack("app.log.8.gz", &long("late"), false, true);
        pack("app.log.9.gz", &long("torn"), true, false);
        // These are what is looked for.
        fs::write(path("app.log.10"), long("unseen")).unwrap();
        std::thread::sleep(TICK);
        pack("app.log.11.gz", &long("packed"), true, true);
        // And again the same.
        std::thread::sleep(TICK);
        pack("app.log.12.gz", &long("unseen"), true, true);
        std::thread::sleep(TICK);
        // Made long before, as far as anybody can tell: everything is.
        let known = identity("app.log.1");
        let found = find(&live, since, &past, &[&known], directory.path());
        let names: Vec<_> = found.iter().map(|unseen| unseen.path.file_name().unwrap().to_owned()).collect();
        assert_eq!(names, ["app.log.10", "app.log.11.gz"]);
        assert_eq!(head(&found[1].file).unwrap(), long("packed").as_bytes()[..HEAD]);
        let later = SystemTime::now() + Duration::from_secs(1);
        assert!(find(&live, later, &past, &[&known], directory.path()).is_empty());
    }
}
