//! Whole generations of a file that came and went between two looks: written, and renamed or copied away by a rotation
//! that was quicker than we were, or than the processor we got.
//!
//! Nothing but circumstances tells that a file beside the live one is such a generation, so all of them must: its name is one
//! that rotation gives, it was made *and* written to since the last look, and its text is neither that of a file we know nor
//! of one we have read before. Generations may begin alike, so texts are compared at their ends too.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use record::queue::Position;

use super::{copy, read};
use crate::checkpoint::{Identity, TAIL, read_at};

/// Entries of a directory looked at.
const ENTRIES: usize = 4096;
/// Texts remembered.
const PAST: usize = 256;
/// The file system's times are as coarse as the kernel's tick, ours are not.
const TICK: Duration = Duration::from_millis(20);

/// Texts that were read to their end and let go: they may lie there for long, be copied and be compressed.
#[derive(Debug, Default)]
pub(super) struct PastTexts(VecDeque<(Identity, Position)>);

impl PastTexts {
    pub(super) fn note(&mut self, identity: &Identity, end: Position) {
        if self.0.len() == PAST {
            self.0.pop_front();
        }
        self.0.push_back((identity.clone(), end));
    }

    fn known(&self) -> impl Iterator<Item = Known<'_>> {
        self.0.iter().map(|(identity, end)| Known { identity, position: *end, length: Some(end.end) })
    }
}

/// A text that is read, or was.
#[derive(Debug)]
pub(super) struct Known<'a> {
    pub(super) identity: &'a Identity,
    /// How far.
    pub(super) position: Position,
    /// Of the whole, if it does not grow any more.
    pub(super) length: Option<u64>,
}

impl Known<'_> {
    pub(super) fn begun(identity: &Identity, position: Position) -> Known<'_> {
        Known { identity, position, length: None }
    }

    /// Whether `file` of this length is a copy of it.
    fn is_text_of(&self, file: &File, length: u64) -> bool {
        self.identity.head_length > 0
            && self.length.is_none_or(|whole| whole == length)
            && self.identity.has_text(file, self.position).unwrap_or(false)
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

/// Those of the candidates that nobody has read, oldest first. `known` are all that are followed or about to be.
pub(super) fn find(
    live: &Path,
    candidates: Vec<Unseen>,
    past: &PastTexts,
    known: &[Known<'_>],
    scratch: &Path,
) -> Vec<Unseen> {
    let live = File::open(live).ok();
    let mut found: Vec<Unseen> = Vec::new();
    for mut candidate in candidates {
        let mut all = known.iter().map(|known| known.identity).chain(past.0.iter().map(|(identity, _)| identity));
        if all.any(|known| known.is_same_file(&candidate.identity)) {
            continue;
        }
        if candidate.path.extension().is_some_and(|extension| extension == "gz") {
            // In the making it cannot be unpacked to its end; then the plain one is still there.
            let Ok(plain) = File::open(&candidate.path).and_then(|file| copy::unpack(file, scratch)) else { continue };
            let Ok(text) = Identity::of(&plain) else { continue };
            candidate.file = plain;
            (candidate.identity.head_length, candidate.identity.head) = (text.head_length, text.head);
        }
        let file = &candidate.file;
        let Ok(length) = read::length(file) else { continue };
        let is_known = past.known().any(|past| past.is_text_of(file, length))
            // A copy in the making of what is there now: whoever follows that learns its text and finds the copy by it.
            || live.as_ref().is_some_and(|live| goes_on(live, file, length))
            || known.iter().any(|known| {
                // Of what nothing was read of yet there is only the head; while it is still there, it may be another's.
                let begins_so = |live: &File| known.identity.has_text(live, known.position).unwrap_or(false);
                let alike = known.length.is_none() && known.position.end == 0 && live.as_ref().is_some_and(begins_so);
                !alike && known.is_text_of(file, length)
            })
            // Another copy of one we have found.
            || found.iter().any(|other| read::length(&other.file).ok() == Some(length) && goes_on(&other.file, file, length));
        if length > 0 && !is_known {
            found.push(candidate);
        }
    }
    found
}

/// What circumstances let pass for generations of `live` that came and went since, oldest first. Usually there are none.
pub(super) fn candidates(live: &Path, since: SystemTime) -> Vec<Unseen> {
    let since = since.checked_sub(TICK).unwrap_or(UNIX_EPOCH);
    let mut candidates = made_since(live, since).unwrap_or_default();
    candidates.sort_by_key(|candidate| candidate.identity.born);
    candidates
}

fn made_since(live: &Path, since: SystemTime) -> io::Result<Vec<Unseen>> {
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
        // gzip(1) passes on when the text was last written to (in the same tick, if it is short). Who does not may be
        // compressing what we read long ago.
        let packed = path.extension().is_some_and(|extension| extension == "gz");
        if born < since || written < since || (packed && written > born) {
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

/// Whether `file` begins with all the text of `part`, as far as both ends of that tell.
fn goes_on(file: &File, part: &File, length: u64) -> bool {
    let same = |offset: u64| -> io::Result<bool> {
        let (mut one, mut other) = ([0; TAIL], [0; TAIL]);
        let size = length.min(TAIL as u64) as usize;
        let read = read_at(part, &mut other[..size], offset)?;
        Ok(read == size && read_at(file, &mut one[..size], offset)? == size && one == other)
    };
    same(0).unwrap_or(false) && same(length - length.min(TAIL as u64)).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use std::fs::FileTimes;
    use std::io::Write as _;

    use super::*;
    use crate::checkpoint::{HEAD, hash};

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
        let past = PastTexts(VecDeque::from([(identity("app.log.3"), Position { end: 5, mark: hash(b"short") })]));
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
            let written = if passed_on { since } else { SystemTime::now() + Duration::from_secs(1) };
            File::open(path(name)).unwrap().set_times(FileTimes::new().set_modified(written)).unwrap();
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
        let found = find(
            &live,
            candidates(&live, since),
            &past,
            &[Known::begun(&known, Position::default())],
            directory.path(),
        );
        let names: Vec<_> = found.iter().map(|unseen| unseen.path.file_name().unwrap().to_owned()).collect();
        assert_eq!(names, ["app.log.10", "app.log.11.gz"]);
        let mut text = [0; HEAD];
        read_at(&found[1].file, &mut text, 0).unwrap();
        assert_eq!(text, long("packed").as_bytes()[..HEAD]);
        let later = SystemTime::now() + Duration::from_secs(1);
        assert!(candidates(&live, later).is_empty());
    }

    #[test]
    fn generations_that_begin_alike_are_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let text = |word: &str| format!("{}{}", "the same heading\n".repeat(100), format!("{word}\n").repeat(100));
        let since = SystemTime::now();
        for (name, word) in
            [("app.log", "live"), ("app.log.1", "ended"), ("app.log.2", "read"), ("app.log.3", "unseen")]
        {
            fs::write(path(name), text(word)).unwrap();
        }
        let identity = |name: &str| Identity::of(&File::open(path(name)).unwrap()).unwrap();
        let whole = |word: &str| {
            let text = text(word);
            Position { end: text.len() as u64, mark: hash(&text.as_bytes()[text.len() - TAIL..]) }
        };
        let (ended, read, live) = (identity("app.log.1"), identity("app.log.2"), identity("app.log"));
        let past = PastTexts(VecDeque::from([(ended, whole("ended"))]));
        let known = [Known::begun(&read, whole("read")), Known::begun(&live, Position::default())];
        // Others of the same texts, and one that grew while it was copied.
        for (name, word) in [("app.log.11", "ended"), ("app.log.12", "read"), ("app.log.13", "live")] {
            fs::write(path(name), text(word)).unwrap();
        }
        File::options().append(true).open(path("app.log")).unwrap().write_all(b"more\n").unwrap();
        let live = path("app.log");
        let found = find(&live, candidates(&live, since), &past, &known, directory.path());
        let names: Vec<_> = found.iter().map(|unseen| unseen.path.file_name().unwrap().to_owned()).collect();
        assert_eq!(names, ["app.log.3"]);
    }
}
