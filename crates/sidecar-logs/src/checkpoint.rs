//! What survives a restart: which files there are, how they are recognised, and how far every sink has come in each.
//!
//! A file is recognised by device, inode and birth time *and* by its text: its first bytes, and those before the saved
//! position. Inodes are used again, and a file copied and truncated keeps its inode but not its text.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use record::queue::Position;
use serde_json::{Value, json};

/// Bytes at a file's beginning by which it is recognised.
pub const HEAD: usize = 256;
/// Bytes before a position by which that is recognised: several lines, because many end alike.
pub const TAIL: usize = 512;

/// FNV-1a, 64 bits: the same in every version of everything.
pub fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

/// Which file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    pub device: u64,
    pub inode: u64,
    /// Birth time in nanoseconds since 1970; 0 where the file system has none.
    pub born: u64,
    /// Bytes that `head` covers, and their hash.
    pub head_length: usize,
    pub head: u64,
}

impl Identity {
    pub fn of(file: &File) -> io::Result<Identity> {
        let metadata = file.metadata()?;
        let born = metadata.created().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
        let mut identity = Identity {
            device: metadata.dev(),
            inode: metadata.ino(),
            born: born.map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(0)),
            ..Identity::default()
        };
        identity.learn(file)?;
        Ok(identity)
    }

    /// The head grows with the file until it is long enough.
    pub fn learn(&mut self, file: &File) -> io::Result<()> {
        if self.head_length < HEAD {
            let mut head = [0; HEAD];
            let length = read_at(file, &mut head, 0)?;
            self.learn_text(&head[..length]);
        }
        Ok(())
    }

    /// From the text a file begins with. What does not go on from the head is another text, put there meanwhile.
    pub fn learn_text(&mut self, text: &[u8]) {
        let text = &text[..text.len().min(HEAD)];
        let known = self.head_length;
        if text.len() > known && (known == 0 || hash(&text[..known]) == self.head) {
            (self.head_length, self.head) = (text.len(), hash(text));
        }
    }

    pub fn key(&self) -> (u64, u64) {
        (self.device, self.inode)
    }

    /// Whether `file` holds this text up to `position`.
    pub fn has_text(&self, file: &File, position: Position) -> io::Result<bool> {
        let mut head = [0; HEAD];
        let length = read_at(file, &mut head[..self.head_length.min(HEAD)], 0)?;
        Ok(length == self.head_length && hash(&head[..length]) == self.head && has_mark(file, position)?)
    }

    /// Whether `other` is the same file, as far as the file system knows.
    pub fn is_same_file(&self, other: &Identity) -> bool {
        let born = self.born == other.born || self.born == 0 || other.born == 0;
        self.key() == other.key() && born
    }

    /// As an origin carries it.
    pub fn to_bytes(&self) -> Vec<u8> {
        let numbers = [self.device, self.inode, self.born, self.head_length as u64, self.head];
        numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
    }

    pub fn from_bytes(bytes: &[u8]) -> Option<Identity> {
        let (words, []) = bytes.as_chunks::<8>() else { return None };
        let &[device, inode, born, head_length, head] = words else { return None };
        let number = u64::from_le_bytes;
        let head_length = usize::try_from(number(head_length)).ok()?;
        Some(Identity {
            device: number(device),
            inode: number(inode),
            born: number(born),
            head_length,
            head: number(head),
        })
    }
}

/// Whether the bytes before `position` are those that were there.
pub fn has_mark(file: &File, position: Position) -> io::Result<bool> {
    let length = position.end.min(TAIL as u64);
    let mut tail = [0; TAIL];
    let wanted = &mut tail[..length as usize];
    let found = read_at(file, wanted, position.end - length)?;
    Ok(found == wanted.len() && (position.mark == 0 || hash(wanted) == position.mark))
}

/// Reads until the buffer is full or the file ends.
pub fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// One file as it is remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    pub id: u64,
    pub path: PathBuf,
    pub identity: Identity,
    /// Its length when it was last looked at.
    pub size: u64,
    /// By name of the sink.
    pub positions: BTreeMap<String, Position>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The next origin's number.
    pub next_id: u64,
    /// When the patterns were last looked at.
    pub looked: SystemTime,
    pub files: Vec<Saved>,
}

impl Default for Checkpoint {
    fn default() -> Checkpoint {
        Checkpoint { next_id: 0, looked: SystemTime::UNIX_EPOCH, files: Vec::new() }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error("failed to read {0}")]
    Read(PathBuf, #[source] io::Error),
    #[error("{0} is no checkpoint of this version; move it away to begin anew")]
    Format(PathBuf),
    #[error("failed to write {0}")]
    Write(PathBuf, #[source] io::Error),
}

/// Where checkpoints are kept. Two files: `positions.json` is synced to the disk and survives a power cut; `positions.now.json`
/// is only written, which is enough against a kill and cheap enough for every acknowledgement. It counts for as long as
/// the kernel runs that took it.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
    boot: String,
    generation: u64,
    /// Bytes of the last checkpoint, and those set aside.
    length: usize,
    reserved: usize,
}

const DURABLE: &str = "positions.json";
/// Room that nobody else gets: a spool that fills the disk is shortened only after a checkpoint was written.
const RESERVE: &str = "reserve";
const RESERVED: usize = 32 * 1024;
const QUICK: &str = "positions.now.json";

impl Store {
    pub fn new(directory: &Path) -> Store {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned();
        Store { directory: directory.to_owned(), boot, generation: 0, length: 0, reserved: 0 }
    }

    /// The latest; `None` if there is none yet.
    pub fn load(&mut self) -> Result<Option<Checkpoint>, CheckpointError> {
        let path = self.directory.join(DURABLE);
        let durable = match fs::read(&path) {
            Ok(text) => {
                let value: Option<Value> = serde_json::from_slice(&text).ok();
                Some(value.and_then(|value| parse(&value)).ok_or(CheckpointError::Format(path))?)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(CheckpointError::Read(path, error)),
        };
        let latest = [self.quick(), durable].into_iter().flatten().max_by_key(|(generation, _)| *generation);
        Ok(latest.map(|(generation, checkpoint)| {
            self.generation = generation;
            checkpoint
        }))
    }

    /// Anything wrong with it only means that more comes again.
    fn quick(&self) -> Option<(u64, Checkpoint)> {
        let text = fs::read(self.directory.join(QUICK)).ok()?;
        let value: Value = serde_json::from_slice(&text).ok()?;
        let same_boot = !self.boot.is_empty() && value["boot"] == self.boot.as_str();
        if same_boot { parse(&value) } else { None }
    }

    /// Writes it so that after a crash or a power cut either the old or the new one is there.
    pub fn save(&mut self, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
        let text = checkpoint.print(&self.boot, self.generation + 1).to_string();
        let mut saved = self.write(&text, DURABLE, true);
        if matches!(&saved, Err(CheckpointError::Write(_, error)) if is_full(error)) {
            let reserve = self.directory.join(RESERVE);
            if fs::remove_file(&reserve).is_ok() {
                self.reserved = 0;
                saved = self.write(&text, DURABLE, true);
            }
        }
        saved
    }

    /// Sets room aside for twice the last checkpoint; call it when there may be some.
    pub fn reserve(&mut self) {
        let wanted = RESERVED.max(2 * self.length).next_multiple_of(RESERVED);
        if self.reserved < wanted {
            let path = self.directory.join(RESERVE);
            // Anything but zeros: a file system that compresses would set aside nothing.
            let mut state = 1u64;
            let noise = (0..wanted / 8).flat_map(|_| {
                state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                state.to_le_bytes()
            });
            match fs::write(&path, noise.collect::<Vec<u8>>()) {
                Ok(()) => self.reserved = wanted,
                // A part of it would only be in the way of others.
                Err(_) => drop(fs::remove_file(&path)),
            }
        }
    }

    /// Writes it so that after a crash either the old or the new one is there.
    pub fn note(&mut self, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
        let text = checkpoint.print(&self.boot, self.generation + 1).to_string();
        self.write(&text, QUICK, false)
    }

    fn write(&mut self, text: &str, name: &str, sync: bool) -> Result<(), CheckpointError> {
        self.generation += 1;
        self.length = text.len();
        let (path, new) = (self.directory.join(name), self.directory.join(format!("{name}.new")));
        let write = || -> io::Result<()> {
            let mut file = File::create(&new)?;
            file.write_all(text.as_bytes())?;
            if sync {
                file.sync_data()?;
            }
            fs::rename(&new, &path)?;
            if sync { File::open(&self.directory)?.sync_all() } else { Ok(()) }
        };
        write().map_err(|error| CheckpointError::Write(path.clone(), error))
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Since 1970.
fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

impl Checkpoint {
    /// Whether `other` says the same, whenever it was made.
    pub fn is_same(&self, other: &Checkpoint) -> bool {
        self.next_id == other.next_id && self.files == other.files
    }

    fn print(&self, boot: &str, generation: u64) -> Value {
        let files = self.files.iter().map(|file| {
            let positions = file.positions.iter();
            let positions: serde_json::Map<String, Value> =
                positions.map(|(sink, position)| (sink.clone(), json!([position.end, position.mark]))).collect();
            let identity = &file.identity;
            json!({
                "id": file.id,
                "path": record_path(&file.path),
                "device": identity.device,
                "inode": identity.inode,
                "born": identity.born,
                "head": [identity.head_length, identity.head],
                "size": file.size,
                "positions": positions,
            })
        });
        json!({
            "version": 1,
            "boot": boot,
            "generation": generation,
            "nextId": self.next_id,
            "looked": nanos(self.looked),
            "files": files.collect::<Vec<_>>(),
        })
    }
}

/// Paths that are no UTF-8 are recognised by their inode alone.
fn record_path(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// With its generation; the first version had none.
fn parse(value: &Value) -> Option<(u64, Checkpoint)> {
    if value["version"] != 1 {
        return None;
    }
    let files = value["files"].as_array()?.iter().map(|file| {
        let number = |name: &str| file[name].as_u64();
        let pair = |value: &Value| Some((value[0].as_u64()?, value[1].as_u64()?));
        let (head_length, head) = pair(&file["head"])?;
        let positions = file["positions"].as_object()?.iter();
        let positions = positions.map(|(sink, value)| {
            let (end, mark) = pair(value)?;
            Some((sink.clone(), Position { end, mark }))
        });
        Some(Saved {
            id: number("id")?,
            path: PathBuf::from(file["path"].as_str()?),
            identity: Identity {
                device: number("device")?,
                inode: number("inode")?,
                born: number("born")?,
                head_length: usize::try_from(head_length).ok()?,
                head,
            },
            size: number("size")?,
            positions: positions.collect::<Option<_>>()?,
        })
    });
    // The first version did not say; then nothing counts as born since.
    let looked = value["looked"]
        .as_u64()
        .map_or_else(SystemTime::now, |nanos| SystemTime::UNIX_EPOCH + std::time::Duration::from_nanos(nanos));
    let files = files.collect::<Option<_>>()?;
    let checkpoint = Checkpoint { next_id: value["nextId"].as_u64()?, looked, files };
    Some((value["generation"].as_u64().unwrap_or(0), checkpoint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_survives() {
        let directory = tempfile::tempdir().unwrap();
        let load = || Store::new(directory.path()).load();
        let mut store = Store::new(directory.path());
        assert_eq!(store.load().unwrap(), None);
        let path = directory.path().join("a.log");
        fs::write(&path, "hello\n").unwrap();
        let identity = Identity::of(&File::open(&path).unwrap()).unwrap();
        let positions = BTreeMap::from([("out".to_owned(), Position { end: 6, mark: hash(b"hello\n") })]);
        let saved = Saved { id: 4, path: path.clone(), identity: identity.clone(), size: 6, positions };
        let checkpoint = Checkpoint { next_id: 5, looked: SystemTime::UNIX_EPOCH, files: vec![saved] };
        store.save(&checkpoint).unwrap();
        assert_eq!(load().unwrap(), Some(checkpoint.clone()));
        // What was noted since counts, unless the machine was started anew or it is torn.
        let later = Checkpoint { next_id: 9, ..checkpoint.clone() };
        store.note(&later).unwrap();
        assert_eq!(load().unwrap(), Some(later.clone()));
        let quick = directory.path().join(QUICK);
        let text = fs::read_to_string(&quick).unwrap();
        for damaged in [text.replace(&store.boot, "another"), text[..text.len() / 2].to_owned(), String::new()] {
            fs::write(&quick, damaged).unwrap();
            assert_eq!(load().unwrap(), Some(checkpoint.clone()));
        }
        fs::write(&quick, text).unwrap();
        store.save(&checkpoint).unwrap();
        assert_eq!(load().unwrap(), Some(checkpoint), "the note is older");
        assert_eq!(Identity::from_bytes(&identity.to_bytes()), Some(identity));
        fs::write(directory.path().join(DURABLE), "{}").unwrap();
        assert!(matches!(load(), Err(CheckpointError::Format(_))));
    }

    #[test]
    fn a_file_is_recognised_by_its_text() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.log");
        fs::write(&path, "first\nsecond\n").unwrap();
        let identity = Identity::of(&File::open(&path).unwrap()).unwrap();
        let position = Position { end: 6, mark: hash(b"first\n") };
        let holds = || identity.has_text(&File::open(&path).unwrap(), position).unwrap();
        assert!(holds());
        fs::write(&path, "first\nsecond\nthird\n").unwrap();
        assert!(holds());
        fs::write(&path, "other\nsecond\nthird\n").unwrap();
        assert!(!holds(), "same inode, other text");
        fs::write(&path, "fir").unwrap();
        assert!(!holds());
    }
}
