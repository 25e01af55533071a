//! Waiting until something happens to files: one inotify(7) instance with one watch per directory, whatever the number of
//! files, and a descriptor by which other threads wake this one. Where the kernel gives no watches, polling is what is
//! left, and that is said.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

#[derive(Debug)]
pub struct Watch {
    inotify: Option<Inotify>,
    directories: HashMap<WatchDescriptor, PathBuf>,
    wake: Arc<OwnedFd>,
    buffer: Vec<u8>,
}

/// Wakes the waiting thread.
#[derive(Debug, Clone)]
pub struct Waker(Arc<OwnedFd>);

impl Waker {
    pub fn wake(&self) {
        // It can only fail when it is full, and then the thread is awake.
        let _ = rustix::io::write(&*self.0, &1u64.to_ne_bytes());
    }
}

/// What happened.
#[derive(Debug, Default)]
pub struct Changes {
    /// Names came or went: look at the patterns again.
    pub names: bool,
    /// These were written to.
    pub written: Vec<PathBuf>,
    /// Events were lost: look at everything.
    pub overflow: bool,
}

impl Watch {
    /// The second value says why there are no events, if there are none.
    pub fn new() -> io::Result<(Watch, Option<io::Error>)> {
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let (inotify, refused) = match Inotify::init() {
            Ok(inotify) => (Some(inotify), None),
            Err(error) => (None, Some(error)),
        };
        Ok((Watch { inotify, directories: HashMap::new(), wake, buffer: vec![0; 16 * 1024] }, refused))
    }

    pub fn waker(&self) -> Waker {
        Waker(Arc::clone(&self.wake))
    }

    /// Watches a directory; asking again is fine.
    pub fn add(&mut self, directory: &Path) -> io::Result<()> {
        let Some(inotify) = &self.inotify else { return Ok(()) };
        let mask = WatchMask::CREATE
            | WatchMask::MODIFY
            | WatchMask::MOVED_FROM
            | WatchMask::MOVED_TO
            | WatchMask::DELETE
            | WatchMask::DELETE_SELF
            | WatchMask::ONLYDIR;
        let watch = inotify.watches().add(directory, mask)?;
        self.directories.insert(watch, directory.to_owned());
        Ok(())
    }

    /// Waits for events, the waker, or something to read from `others`, at most so long, and takes what events there are.
    pub fn wait<'a>(&mut self, time: Duration, others: impl Iterator<Item = BorrowedFd<'a>>) -> Changes {
        let timeout = Timespec { tv_sec: time.as_secs().try_into().unwrap_or(1), tv_nsec: time.subsec_nanos().into() };
        let mut descriptors = vec![PollFd::new(&*self.wake, PollFlags::IN)];
        if let Some(inotify) = &self.inotify {
            descriptors.push(PollFd::from_borrowed_fd(inotify.as_fd(), PollFlags::IN));
        }
        descriptors.extend(others.map(|other| PollFd::from_borrowed_fd(other, PollFlags::IN)));
        // Interrupted is as good as woken.
        let _ = poll(&mut descriptors, Some(&timeout));
        let mut count = [0; 8];
        let _ = rustix::io::read(&*self.wake, &mut count);
        self.take()
    }

    fn take(&mut self) -> Changes {
        let mut changes = Changes::default();
        let Some(inotify) = &mut self.inotify else { return changes };
        while let Ok(events) = inotify.read_events(&mut self.buffer) {
            let mut any = false;
            for event in events {
                any = true;
                if event.mask.contains(EventMask::Q_OVERFLOW) {
                    changes.overflow = true;
                } else if event.mask.contains(EventMask::MODIFY) {
                    let directory = self.directories.get(&event.wd);
                    if let (Some(directory), Some(name)) = (directory, event.name) {
                        note(&mut changes.written, directory, name);
                    }
                } else {
                    changes.names = true;
                    if event.mask.contains(EventMask::IGNORED) {
                        self.directories.remove(&event.wd);
                    }
                }
            }
            if !any {
                break;
            }
        }
        changes
    }
}

fn note(written: &mut Vec<PathBuf>, directory: &Path, name: &OsStr) {
    // A busy file is mentioned many times in a row.
    let repeated =
        written.last().is_some_and(|last| last.file_name() == Some(name) && last.parent() == Some(directory));
    if !repeated {
        written.push(directory.join(name));
    }
}
