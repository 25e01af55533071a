//! An attempt's log as `kubectl logs` prints it, a chunk at a time.
//!
//! ```text
//!   read ──lines──▶ chunk
//!    │ none for now
//!    ▼
//!   end, unless following: wait for inotify(7) or the clock, see whether the attempt is over, read again
//! ```
//! Files are read on a blocking thread, a block for each chunk that the client takes: a slow disk stops nobody else, and a
//! slow client holds one block.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use logfile::Stream;
use logfile::follow::{Follower, Options};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::Interest;

use super::super::descriptor::Descriptor;

/// How often the end is looked for, and new lines where inotify(7) sees nothing.
const LOOK: Duration = Duration::from_millis(250);
/// The end of an attempt may be known a little before its last lines are in the file.
const LAST_LINES: Duration = Duration::from_millis(100);

/// Whether the attempt can write no more.
pub(super) type IsOver = Box<dyn FnMut() -> bool + Send>;

/// What is printed of an entry.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Form {
    pub(super) timestamps: bool,
    /// Most bytes of all.
    pub(super) limit: Option<u64>,
    pub(super) stream: Option<Stream>,
    /// Most entries of all.
    pub(super) most: Option<u64>,
}

pub(super) struct Reader {
    /// `None` only while a blocking thread has it.
    follower: Option<Follower>,
    directory: PathBuf,
    form: Form,
    mid_line: bool,
    /// `None` when not following.
    over: Option<IsOver>,
    changes: Option<Descriptor>,
    ended: bool,
    /// The attempt is over and what comes now is the rest.
    last: bool,
}

impl Reader {
    pub(super) fn new(log: &Path, attempt: u32, options: Options, form: Form, over: Option<IsOver>) -> Self {
        let directory = log.parent().unwrap_or(Path::new("/")).to_owned();
        let follower = Some(Follower::new(&directory, attempt, options));
        let ended = form.most == Some(0);
        Self { follower, directory, form, mid_line: false, over, changes: None, ended, last: false }
    }

    /// The next chunk; `None` at the end.
    pub(super) async fn next(&mut self) -> io::Result<Option<Bytes>> {
        while !self.ended {
            if self.over.is_some() {
                // Before the reading, so that nothing written in between is slept over.
                self.watch();
            }
            let chunk = self.read().await?;
            if !chunk.is_empty() {
                return Ok(Some(chunk));
            }
            let Some(over) = &mut self.over else { break };
            if self.last {
                break;
            }
            if over() {
                self.last = true;
                tokio::time::sleep(LAST_LINES).await;
            } else {
                self.wait().await;
            }
        }
        self.ended = true;
        Ok(None)
    }

    /// What is there, as it is printed; empty when there is nothing for now.
    async fn read(&mut self) -> io::Result<Bytes> {
        let mut out = Vec::new();
        while out.is_empty() && !self.ended {
            let Some(mut follower) = self.follower.take() else { break };
            let read = tokio::task::spawn_blocking(move || (follower.read_available(), follower)).await;
            let (lines, follower) = read.map_err(io::Error::other)?;
            self.follower = Some(follower);
            let lines = lines?;
            if lines.is_empty() {
                break;
            }
            for line in &lines {
                let wanted = self.form.stream.is_none_or(|stream| stream == line.stream);
                if wanted {
                    line.append_to(&mut out, self.form.timestamps, &mut self.mid_line);
                }
                if let Some(most) = &mut self.form.most {
                    *most -= 1;
                    if *most == 0 {
                        self.ended = true;
                        break;
                    }
                }
            }
            self.cut(&mut out);
        }
        Ok(out.into())
    }

    fn cut(&mut self, out: &mut Vec<u8>) {
        let Some(limit) = &mut self.form.limit else { return };
        if out.len() as u64 >= *limit {
            out.truncate(*limit as usize);
            self.ended = true;
        }
        *limit -= out.len() as u64;
    }

    /// Begins to watch the directory, which may not be there yet.
    fn watch(&mut self) {
        if self.changes.is_some() {
            return;
        }
        let begun = || -> io::Result<_> {
            let events = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
            let flags = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO;
            inotify::add_watch(&events, &self.directory, flags)?;
            Descriptor::new(events, Interest::READABLE)
        };
        self.changes = begun().ok();
    }

    /// Until something was written, or it is time to look.
    async fn wait(&mut self) {
        let changed = async {
            let Some(changes) = &self.changes else { return std::future::pending().await };
            // What exactly has changed is of no interest.
            if changes.read(&mut [0; 4096]).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = changed => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

#[cfg(test)]
mod tests;
