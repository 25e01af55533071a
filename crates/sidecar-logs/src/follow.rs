//! Following files to their real end.
//!
//! ```text
//!             name leads elsewhere, or nowhere              quiet for rotateWait        every sink has it
//!  followed ────────────────────────────────▶ gone ─────────────────────────▶ ended ──────────────────▶ let go
//!     │  shrank, or other text before our position                                  
//!     └──▶ the kept copy, if there is one, is read from our position; the file begins anew as another origin
//! ```
//! Every read takes the bytes before the position along and compares them: a file that was truncated and has already
//! grown beyond us is noticed without another system call. A descriptor stays open until every sink has the file's
//! last byte, so a deleted file's text stays readable as long as this process lives.

pub mod copy;
pub mod open;
mod read;
pub mod stream;
mod unseen;

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use daemon::{info, warn};
use record::queue::{Position, Positions, Recovered};
use record::{Batch, Origin, Queue};

use crate::checkpoint::{Checkpoint, Identity, Saved, hash};
use crate::config::{self, StartAt};
use crate::encoding::Encoding;
use crate::enrich::Fields;
use crate::frame::Framer;
use crate::glob::Selection;
use crate::receipt::{Line, Receipt};
use crate::stages::Stages;
use crate::watch::{Changes, Watch};
use open::StreamKind;
use stream::{Door, Input};
use unseen::{Known, PastTexts};

/// A source, ready to be followed.
#[derive(Debug)]
pub struct Source {
    pub name: String,
    pub selection: Selection,
    pub start_at: StartAt,
    pub ignore_older_than: Duration,
    pub rotate_wait: Duration,
    pub poll: Duration,
    /// How long a group waits for more.
    pub idle: Duration,
    pub framer: Framer,
    pub encoding: config::Encoding,
    /// What it is if it is no files.
    pub stream: Option<StreamKind>,
    pub fields: Fields,
}

/// One file being followed.
#[derive(Debug)]
struct Followed {
    source: usize,
    origin: Arc<Origin>,
    path: PathBuf,
    file: File,
    identity: Identity,
    /// Everything before it is queued.
    position: u64,
    /// The bytes before the position, as they were read.
    tail: Vec<u8>,
    /// Bytes behind the position that were looked at and are not finished.
    pending: usize,
    /// Made from the bytes before the position, with nowhere to go yet.
    parked: Option<Batch>,
    encoding: Option<Encoding>,
    size: u64,
    grown: Instant,
    /// When its text was last found where it was.
    looked: SystemTime,
    /// The pending bytes were looked at after the idle time too.
    idled: bool,
    gone: bool,
    /// Gone, and at the last look nothing else had its name.
    nameless: bool,
    ended: bool,
    dirty: bool,
}

impl Followed {
    /// From `position` on.
    fn new(source: usize, origin: Arc<Origin>, path: &Path, file: File, identity: Identity, position: u64) -> Followed {
        Followed {
            source,
            origin,
            path: path.to_owned(),
            file,
            identity,
            position,
            tail: Vec::new(),
            pending: 0,
            parked: None,
            encoding: None,
            size: position,
            grown: Instant::now(),
            looked: SystemTime::now(),
            idled: false,
            gone: false,
            nameless: false,
            ended: false,
            dirty: true,
        }
    }
}

#[derive(Debug)]
pub struct Follower {
    sources: Vec<Source>,
    stages: Stages,
    files: Vec<Followed>,
    inputs: Vec<Input>,
    doors: Vec<Door>,
    /// Streams of earlier runs whose records may still be in the spool.
    past: Vec<Saved>,
    queue: Arc<Queue>,
    watch: Watch,
    /// Remembered files that have not been found yet.
    remembered: Vec<Saved>,
    next_id: u64,
    sinks: Vec<String>,
    /// Nothing was ever saved: `startAt` counts.
    first_start: bool,
    scratch: PathBuf,
    buffer: Vec<u8>,
    /// Made into one batch at most.
    chunk: usize,
    rescan: bool,
    scanned: Option<Instant>,
    finished: (u64, u64),
    truncated_unseen: u64,
    lost_bytes: u64,
    watch_refused: bool,
    /// When an earlier run last looked at the patterns, as far as it wrote that down.
    last_run: Option<SystemTime>,
    /// When this one did.
    scan_began: SystemTime,
    past_texts: PastTexts,
}

/// What the follower starts from.
#[derive(Debug)]
pub struct Start {
    pub stages: Stages,
    pub checkpoint: Option<Checkpoint>,
    pub recovered: Recovered,
    /// Names of the sinks, in the queue's order.
    pub sinks: Vec<String>,
    /// For text that must be unpacked before it can be read.
    pub scratch: PathBuf,
}

/// The saved positions in the queue's order. A sink that is new gets what comes from now on.
pub fn positions(checkpoint: &Checkpoint, sinks: &[String]) -> Positions {
    let of = |saved: &Saved| {
        let furthest = saved.positions.values().max().copied().unwrap_or_default();
        sinks.iter().map(|sink| saved.positions.get(sink).copied().unwrap_or(furthest)).collect()
    };
    checkpoint.files.iter().map(|saved| (saved.id, of(saved))).collect()
}

impl Follower {
    pub fn new(sources: Vec<Source>, queue: Arc<Queue>, watch: Watch, start: Start) -> Follower {
        let first_start = start.checkpoint.is_none();
        let last_run = start.checkpoint.as_ref().map(|checkpoint| checkpoint.looked);
        let checkpoint = start.checkpoint.unwrap_or_default();
        let mut next_id = checkpoint.next_id.max(1);
        let mut remembered = checkpoint.files;
        for (id, (origin, upto)) in start.recovered {
            next_id = next_id.max(id + 1);
            let everywhere: BTreeMap<_, _> = start.sinks.iter().map(|sink| (sink.clone(), upto)).collect();
            match remembered.iter_mut().find(|saved| saved.id == id) {
                // The spool holds everything up to here: reading goes on behind it.
                Some(saved) => saved.positions = everywhere,
                None => remembered.push(Saved {
                    id,
                    path: PathBuf::from(&origin.name),
                    identity: Identity::from_bytes(&origin.identity).unwrap_or_default(),
                    size: upto.end,
                    positions: everywhere,
                }),
            }
        }
        let (past, remembered) = remembered.into_iter().partition(|saved| saved.identity.inode == 0);
        Follower {
            sources,
            stages: start.stages,
            files: Vec::new(),
            inputs: Vec::new(),
            doors: Vec::new(),
            past,
            queue,
            watch,
            remembered,
            next_id,
            sinks: start.sinks,
            first_start,
            scratch: start.scratch,
            buffer: Vec::new(),
            chunk: read::FIRST_CHUNK,
            rescan: true,
            scanned: None,
            finished: (0, 0),
            truncated_unseen: 0,
            lost_bytes: 0,
            watch_refused: false,
            last_run,
            scan_began: SystemTime::now(),
            past_texts: PastTexts::default(),
        }
    }

    /// Looks for files that came, went or were renamed.
    pub fn scan(&mut self) {
        self.rescan = false;
        self.scanned = Some(Instant::now());
        let before = std::mem::replace(&mut self.scan_began, SystemTime::now());
        let mut present: HashMap<(u64, u64), PathBuf> = HashMap::new();
        for index in 0..self.sources.len() {
            if self.sources[index].stream.is_some() {
                continue;
            }
            let found = self.sources[index].selection.find();
            for directory in &found.directories {
                self.watch_directory(directory);
            }
            for path in found.files {
                if let Some(key) = self.meet(index, &path) {
                    present.entry(key).or_insert(path);
                }
            }
        }
        let mut left = Vec::new();
        for file in &mut self.files {
            match present.get(&file.identity.key()) {
                Some(path) if file.gone && !file.ended => {
                    // Renamed back, or by a pattern that matches both names.
                    file.gone = false;
                    file.path.clone_from(path);
                }
                Some(path) => file.path.clone_from(path),
                None if !file.gone => {
                    file.gone = true;
                    file.dirty = true;
                    left.push((file.source, file.path.clone()));
                    // Whatever is only in memory cannot be read again after a crash.
                    self.queue.spill();
                }
                // Nothing had its name at the last look: whatever got it since may be away again.
                None if file.nameless => left.push((file.source, file.path.clone())),
                None => {}
            }
            file.nameless = file.gone && !file.ended && !file.path.exists();
        }
        for (source, path) in left {
            self.adopt_unseen(source, &path, before, None);
        }
        self.find_remembered();
        self.first_start = false;
    }

    /// A path that matches: known already, remembered, or new.
    fn meet(&mut self, source: usize, path: &Path) -> Option<(u64, u64)> {
        use std::os::unix::fs::MetadataExt as _;
        let metadata = std::fs::metadata(path).ok()?;
        let key = (metadata.dev(), metadata.ino());
        if self.files.iter().any(|file| file.identity.key() == key && !file.ended) {
            return Some(key);
        }
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    warn!("cannot read file", path = path.display(), reason = error);
                }
                return None;
            }
        };
        let looked = SystemTime::now();
        let identity = Identity::of(&file).ok()?;
        let same = |saved: &Saved| saved.identity.is_same_file(&identity);
        if let Some(index) = self.remembered.iter().position(same) {
            let saved = &self.remembered[index];
            let position = furthest_common(saved);
            if saved.identity.has_text(&file, position).unwrap_or(false) {
                let saved = self.remembered.remove(index);
                self.resume(source, path, file, identity, &saved, false);
                return Some(key);
            }
            // The same file with other text: it was truncated while nobody looked. What we had not read may be in a copy.
        }
        let age = metadata.modified().ok().and_then(|time| SystemTime::now().duration_since(time).ok());
        let limit = self.sources[source].ignore_older_than;
        if !limit.is_zero() && age.is_some_and(|age| age > limit) {
            return None;
        }
        let at_end = self.first_start && self.sources[source].start_at == StartAt::End;
        self.begin(source, path, file, identity, if at_end { metadata.len() } else { 0 }, looked);
        Some(key)
    }

    fn begin(&mut self, source: usize, path: &Path, file: File, identity: Identity, position: u64, looked: SystemTime) {
        let id = self.next_id;
        self.next_id += 1;
        let origin = Arc::new(self.origin(source, id, path, &identity));
        let mut followed = Followed::new(source, origin, path, file, identity, position);
        followed.looked = looked;
        let mark = followed.remember_tail().unwrap_or(0);
        self.queue.register(id, Position { end: position, mark });
        info!("following", path = path.display(), from = position, origin = id);
        self.files.push(followed);
    }

    fn resume(&mut self, source: usize, path: &Path, file: File, identity: Identity, saved: &Saved, gone: bool) {
        let position = furthest_common(saved);
        let origin = Arc::new(self.origin(source, saved.id, &saved.path, &identity));
        let mut followed = Followed::new(source, origin, path, file, identity, position.end);
        followed.gone = gone;
        followed.remember_tail();
        self.queue.register(saved.id, position);
        info!("following again", path = path.display(), from = position.end, origin = saved.id);
        self.files.push(followed);
    }

    fn origin(&self, source: usize, id: u64, path: &Path, identity: &Identity) -> Origin {
        let source = &self.sources[source];
        let name = path.to_string_lossy().into_owned();
        let mut fields = source.fields.clone();
        fields.add("file", &name);
        Origin { id, name, fields: fields.json, labels: fields.labels, identity: identity.to_bytes() }
    }

    /// Remembered files that no pattern leads to: renamed, copied or compressed while nobody looked.
    fn find_remembered(&mut self) {
        let mut left = Vec::new();
        for saved in std::mem::take(&mut self.remembered) {
            let position = furthest_common(&saved);
            let source = self.source_for(&saved.path);
            // Found or not (it may have been empty): its name had another text since.
            left.extend(source.map(|source| (source, saved.path.clone())));
            match source.and_then(|source| Some((source, copy::find(&saved, position, &self.scratch)?))) {
                Some((source, (path, file))) => {
                    let Ok(identity) = Identity::of(&file) else { continue };
                    self.resume(source, &path, file, identity, &saved, true);
                }
                None => {
                    let unread = saved.size.saturating_sub(position.end);
                    if unread > 0 {
                        warn!("file vanished unread", path = saved.path.display(), bytes = unread);
                        self.lost_bytes += unread;
                    }
                }
            }
        }
        // Only now: everything that was remembered is known.
        left.sort();
        left.dedup();
        for (source, path) in left {
            if let Some(last_run) = self.last_run {
                self.adopt_unseen(source, &path, last_run, None);
            }
        }
    }

    /// Follows what was written under this name and put away again since the last look: rotation may be quicker than
    /// we are, or than the processor we get. `next` is about to be followed under it.
    fn adopt_unseen(&mut self, source: usize, live: &Path, since: SystemTime, next: Option<&Identity>) {
        let candidates = unseen::candidates(live, since);
        if candidates.is_empty() {
            return;
        }
        let following = self.files.iter().map(|file| Known {
            identity: &file.identity,
            position: Position { end: file.position, mark: hash(&file.tail) },
            length: if file.gone { read::length(&file.file).ok() } else { None },
        });
        let remembered = self.remembered.iter();
        let remembered = remembered.map(|saved| Known::begun(&saved.identity, furthest_common(saved)));
        let next = next.map(|identity| Known::begun(identity, Position::default()));
        let known: Vec<Known<'_>> = following.chain(remembered).chain(next).collect();
        for unseen in unseen::find(live, candidates, &self.past_texts, &known, &self.scratch) {
            // What a pattern leads to is met by the scan.
            let path = unseen.path;
            if self.sources.iter().any(|source| source.selection.names(&path)) {
                continue;
            }
            info!("written and put away between two looks", path = live.display(), copy = path.display());
            // Under the live name: that is where a restart looks for it, and what people know it by.
            self.begin(source, live, unseen.file, unseen.identity, 0, SystemTime::now());
            if let Some(file) = self.files.last_mut() {
                (file.gone, file.path) = (true, path);
            }
        }
    }

    fn source_for(&self, path: &Path) -> Option<usize> {
        let index = self.sources.iter().position(|source| {
            let bytes = |path: &Path| path.to_string_lossy().into_owned();
            source.selection.include.iter().any(|pattern| crate::glob::matches_path(pattern, bytes(path).as_bytes()))
        });
        // Patterns may have changed; any source is better than none.
        index.or(if self.sources.is_empty() { None } else { Some(0) })
    }

    fn watch_directory(&mut self, directory: &Path) {
        if let Err(error) = self.watch.add(directory)
            && !std::mem::replace(&mut self.watch_refused, true)
        {
            warn!("no file events, polling instead", directory = directory.display(), reason = error);
        }
    }

    /// Waits for changes and notes what they concern.
    pub fn wait(&mut self, time: Duration) {
        let fds = stream::fds(&self.inputs, &self.doors);
        let Changes { names, written, overflow } = self.watch.wait(time, fds);
        self.rescan |= names || overflow;
        for path in written {
            match self.files.iter_mut().find(|file| file.path == path && !file.ended) {
                Some(file) => file.dirty = true,
                // Written under a name we do not know: the new one of a file we follow, or through a link.
                None => self.files.iter_mut().filter(|file| file.gone).for_each(|file| file.dirty = true),
            }
        }
        if overflow {
            self.files.iter_mut().for_each(|file| file.dirty = true);
        }
    }

    /// How long nothing needs to be looked at without an event.
    pub fn patience(&self) -> Duration {
        let poll = self.sources.iter().map(|source| source.poll).min().unwrap_or(Duration::from_secs(1));
        let groups = self.files.iter().filter(|file| file.pending > 0 && !file.idled);
        let idle = groups.map(|file| self.sources[file.source].idle.saturating_sub(file.grown.elapsed())).min();
        let scanned = self.scanned.map_or(Duration::ZERO, |at| poll.saturating_sub(at.elapsed()));
        scanned.min(idle.unwrap_or(scanned)).min(self.stream_patience()).max(Duration::from_millis(1))
    }

    /// Looks at patterns when names changed or it is time to.
    pub fn scan_if_due(&mut self) {
        let poll = self.sources.iter().map(|source| source.poll).min().unwrap_or(Duration::from_secs(1));
        let due = self.scanned.is_none_or(|at| at.elapsed() >= poll);
        if due {
            self.files.iter_mut().for_each(|file| file.dirty = true);
        }
        if due || self.rescan {
            self.scan();
        }
    }

    /// The next [`Follower::read_all`] looks at every file.
    pub fn look_at_all(&mut self) {
        self.files.iter_mut().for_each(|file| file.dirty = true);
    }

    /// Lets go of files whose last byte every sink has.
    pub fn let_go(&mut self) {
        self.let_streams_go();
        let queue = &self.queue;
        let (finished, past_texts) = (&mut self.finished, &mut self.past_texts);
        self.files.retain(|file| {
            let acknowledged = queue.acknowledged(file.origin.id).unwrap_or_default().end;
            // A spool that still holds its entries needs the position to know that they were delivered.
            // One that is still there is remembered: it may go on.
            let over = file.gone
                && file.ended
                && file.parked.is_none()
                && acknowledged >= file.position
                && !queue.is_spooled(file.origin.id);
            if over {
                past_texts.note(&file.identity, Position { end: file.position, mark: hash(&file.tail) });
                queue.forget(file.origin.id);
                finished.0 += 1;
                finished.1 += file.position;
            }
            !over
        });
        for saved in self.past.extract_if(.., |saved| !queue.is_spooled(saved.id)) {
            queue.forget(saved.id);
        }
    }

    /// Every file is at its end and has not grown for `settle`.
    pub fn is_settled(&self, settle: Duration) -> bool {
        self.streams_settled(settle)
            && self.files.iter().all(|file| file.ended || (file.at_end() && file.grown.elapsed() >= settle))
    }

    /// Positions to be saved.
    pub fn checkpoint(&self, positions: &Positions) -> Checkpoint {
        let by_sink = |id: u64| {
            let ends = positions.get(&id);
            let of = |index: usize| ends.and_then(|ends| ends.get(index)).copied().unwrap_or_default();
            self.sinks.iter().enumerate().map(|(index, sink)| (sink.clone(), of(index))).collect()
        };
        let files = self.files.iter().map(|file| Saved {
            id: file.origin.id,
            path: PathBuf::from(&file.origin.name),
            identity: file.identity.clone(),
            size: file.size,
            positions: by_sink(file.origin.id),
        });
        let streams = self.stream_origins().map(|(id, name, position)| Saved {
            id,
            path: PathBuf::from(name),
            identity: Identity::default(),
            size: position,
            positions: by_sink(id),
        });
        let past = self.past.iter().map(|saved| Saved { positions: by_sink(saved.id), ..saved.clone() });
        let looks = self.files.iter().filter(|file| !file.gone).map(|file| file.looked);
        Checkpoint {
            next_id: self.next_id,
            // A scan does not see that a file was truncated: only a look at its text does.
            looked: looks.fold(self.scan_began, SystemTime::min),
            files: files.chain(streams).chain(past).collect(),
        }
    }

    pub fn receipt(&self) -> Receipt {
        let line = |file: &Followed| Line {
            path: PathBuf::from(&file.origin.name),
            id: file.origin.id,
            written: file.size,
            read: file.position,
            acknowledged: self.queue.acknowledged(file.origin.id).unwrap_or_default().end,
            gone: file.gone,
        };
        Receipt {
            lines: self.files.iter().map(line).chain(self.stream_lines()).collect(),
            finished: self.finished.0,
            finished_bytes: self.finished.1,
            truncated_unseen: self.truncated_unseen,
            lost_bytes: self.lost_bytes,
        }
    }
}

/// Where reading goes on so that no sink misses anything.
fn furthest_common(saved: &Saved) -> Position {
    saved.positions.values().min().copied().unwrap_or_default()
}
