//! Reading one file: bytes behind the position into a batch, truncation noticed, the end recognised.

use std::fs::File;
use std::io;
use std::time::{Duration, Instant, SystemTime};

use daemon::warn;
use record::Batch;
use record::queue::Position;

use super::{Followed, Follower, copy};
use crate::checkpoint::{Identity, Saved, TAIL, hash, read_at};
use crate::encoding::Encoding;
use crate::frame::End;

/// Bytes read at once; thousands of lines, and one turn of a file among many.
const CHUNK: usize = 256 * 1024;
/// Of the first; each after it doubles. What is under way when a crash comes is delivered again, and who crashes often
/// begins often.
pub(super) const FIRST_CHUNK: usize = 32 * 1024;

/// Between two tries to queue what found no room.
pub(super) const BLOCKED: Duration = Duration::from_millis(20);

/// What a turn came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Nothing more for now.
    AtEnd,
    /// So many bytes, and there may be more.
    Read(usize),
    /// There is no room behind us.
    Blocked,
}

impl Followed {
    pub(super) fn at_end(&self) -> bool {
        self.parked.is_none() && self.position + self.pending as u64 >= self.size
    }

    /// Reads back what stands before the position, and its mark.
    pub(super) fn remember_tail(&mut self) -> Option<u64> {
        let length = self.position.min(TAIL as u64);
        let mut tail = [0; TAIL];
        let read = read_at(&self.file, &mut tail[..length as usize], self.position - length).ok()?;
        self.tail = tail[..read].to_vec();
        Some(hash(&self.tail))
    }
}

impl Follower {
    /// Gives every file that needs it a turn. `last` means that no file will be written to again. Returns the bytes read,
    /// and whether the queue was full.
    pub fn read_all(&mut self, last: bool) -> (usize, bool) {
        let (mut total, blocked) = self.read_streams(last);
        if blocked {
            return (total, true);
        }
        for index in 0..self.files.len() {
            if self.files[index].ended || !(self.files[index].dirty || last) {
                continue;
            }
            match self.turn(index, last) {
                Ok(Turn::AtEnd) => self.files[index].dirty = false,
                Ok(Turn::Read(bytes)) => total += bytes,
                Ok(Turn::Blocked) => return (total, true),
                Err(error) => {
                    // A disk that fails now may work at the next look.
                    let file = &mut self.files[index];
                    file.dirty = false;
                    warn!("failed to read", path = file.path.display(), reason = error);
                }
            }
        }
        (total, false)
    }

    fn turn(&mut self, index: usize, last: bool) -> io::Result<Turn> {
        if let Some(batch) = self.files[index].parked.take()
            && let Err(batch) = self.queue.push(batch)
        {
            self.files[index].parked = Some(batch);
            // Sinks need the queue more than we do: what they acknowledge makes room.
            self.queue.pause(BLOCKED);
            return Ok(Turn::Blocked);
        }
        let source = &self.sources[self.files[index].source];
        let (max_line, rotate_wait, idle) = (source.framer.max_line, source.rotate_wait, source.idle);
        let wanted = CHUNK.max(max_line + 4096);
        let file = &mut self.files[index];
        let overlap = file.tail.len();
        self.buffer.resize(self.buffer.len().max(wanted + TAIL), 0);
        let buffer = &mut self.buffer[..overlap + wanted];
        let looked = SystemTime::now();
        let length = read_at(&file.file, buffer, file.position - overlap as u64)?;
        // Before the first line was read only the head can tell, as it was when the file was met.
        let head = file.identity.head_length;
        let other = file.position == 0 && head > 0 && (length < head || hash(&buffer[..head]) != file.identity.head);
        if other || length < overlap || buffer[..overlap] != file.tail[..] {
            self.truncated(index)?;
            return Ok(Turn::Read(0));
        }
        let before = std::mem::replace(&mut file.looked, looked);
        if file.position == 0 && length > 0 {
            // The very text that is about to be read: the file may hold another by now.
            file.identity.learn_text(&buffer[..length]);
            if head == 0 {
                // It was empty: nothing can tell whether this is the first text since, and a writer that was held up
                // writes a whole generation in no time.
                let (source, live) = (file.source, file.path.clone());
                self.adopt_unseen(source, &live, before, None);
                return Ok(Turn::Read(0));
            }
        }
        let data = &buffer[overlap..length];
        let full = data.len() == wanted;
        let size = file.position + data.len() as u64;
        if size > file.size {
            file.grown = Instant::now();
            file.idled = false;
        } else if size < file.size && !full {
            // Shrunk, but not below our position.
            file.size = size;
        }
        file.size = file.size.max(size);
        if file.position > 0 {
            file.identity.learn(&file.file)?;
        }
        let quiet = file.grown.elapsed();
        let over = !full && (last || (file.gone && quiet >= rotate_wait));
        let end = match () {
            () if over => End::Final,
            () if full => End::Full,
            () if quiet >= idle => End::Idle,
            () => End::Open,
        };
        let seen_before = data.len() == file.pending && (end == End::Open || (end == End::Idle && file.idled));
        if seen_before {
            return Ok(Turn::AtEnd);
        }
        if !self.queue.wait_for_room(BLOCKED, file.gone) {
            return Ok(Turn::Blocked);
        }
        let encoding = match file.encoding {
            Some(encoding) => encoding,
            None => {
                file.encoding = Encoding::of(source.encoding, &file.file);
                file.encoding.unwrap_or(Encoding::Utf8)
            }
        };
        let mut batch = Batch::new(file.origin.clone(), file.position);
        let some = &data[..data.len().min(self.chunk)];
        let mut part = some.len() < data.len();
        let mut used = if part { source.framer.frame(encoding, some, End::Open, now(), &mut batch) } else { 0 };
        if used > 0 {
            self.chunk = (self.chunk * 2).min(wanted);
            file.pending = 0;
        } else {
            part = false;
            used = source.framer.frame(encoding, data, end, now(), &mut batch);
            file.pending = data.len() - used;
            file.idled |= end == End::Idle;
        }
        if used > 0 {
            batch.end += used as u64;
            let before = &buffer[..overlap + used];
            let tail = before[before.len().saturating_sub(TAIL)..].to_vec();
            batch.mark = hash(&tail);
            file.tail = tail;
            file.position += used as u64;
            // The stages must not see it twice: it is kept until there is room again.
            if let Err(batch) = self.queue.push(self.stages.run(batch)) {
                file.parked = Some(batch);
                return Ok(Turn::Blocked);
            }
        }
        if part {
            return Ok(Turn::Read(used));
        }
        if over {
            file.ended = true;
            return Ok(Turn::AtEnd);
        }
        Ok(if full { Turn::Read(used) } else { Turn::AtEnd })
    }

    /// The text before our position is not there any more.
    fn truncated(&mut self, index: usize) -> io::Result<()> {
        // What was read and is only in memory cannot be read again.
        self.queue.spill();
        let file = &self.files[index];
        let position = Position { end: file.position, mark: hash(&file.tail) };
        let saved = Saved {
            id: file.origin.id,
            path: file.path.clone(),
            identity: file.identity.clone(),
            size: file.size,
            positions: std::iter::once((String::new(), position)).collect(),
        };
        let known_unread = file.size.saturating_sub(file.position);
        // Before its text is looked at: what comes and goes from now on is found at the next look.
        let looked_again = SystemTime::now();
        let again = (file.source, file.path.clone(), file.file.try_clone()?, Identity::of(&file.file)?);
        let kept = copy::find(&saved, position, &self.scratch);
        let (looked, live) = (file.looked, file.path.clone());
        let file = &mut self.files[index];
        if let Some((path, kept)) = kept {
            daemon::info!(
                "truncated; reading the rest from its copy",
                path = file.path.display(),
                copy = path.display()
            );
            file.identity = Identity::of(&kept)?;
            file.file = kept;
            file.path = path;
            file.size = file.position;
            file.gone = true;
            file.pending = 0;
            file.grown = Instant::now();
            file.remember_tail();
        } else {
            warn!("truncated unseen", path = file.path.display(), position = file.position, unread = known_unread);
            self.truncated_unseen += 1;
            self.lost_bytes += known_unread;
            file.size = file.position;
            file.pending = 0;
            file.ended = true;
            file.gone = true;
        }
        file.dirty = true;
        let (source, path, handle, identity) = again;
        self.adopt_unseen(source, &live, looked, Some(&identity));
        self.begin(source, &path, handle, identity, 0, looked_again);
        Ok(())
    }
}

/// Nanoseconds since 1970.
pub(super) fn now() -> i64 {
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

/// Used by tests and the copy search alike.
pub(super) fn length(file: &File) -> io::Result<u64> {
    file.metadata().map(|metadata| metadata.len())
}
