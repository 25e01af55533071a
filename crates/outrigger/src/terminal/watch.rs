//! Knowing when files in a directory changed without asking again and again: inotify(7).

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use tokio::io::unix::AsyncFd;

/// Directories whose files are watched.
#[derive(Debug)]
pub(crate) struct Watch {
    inotify: AsyncFd<OwnedFd>,
}

impl Watch {
    /// Must be called inside a runtime.
    #[expect(
        deprecated,
        reason = "deprecated for types that lend out descriptors they do not own; an OwnedFd owns its own"
    )]
    pub(crate) fn new() -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        Ok(Self { inotify: AsyncFd::new(inotify)? })
    }

    /// Files written to, made, or moved there. A directory that is gone will not change any more.
    pub(crate) fn add(&self, directory: &Path) -> io::Result<()> {
        let changes = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::CLOSE_WRITE;
        match inotify::add_watch(&self.inotify, directory, changes) {
            Ok(_) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until something changed since the last call. Cancel-safe: what is read is only that there was something.
    pub(crate) async fn changed(&self) -> io::Result<()> {
        loop {
            let mut guard = self.inotify.readable().await?;
            match guard.try_io(|inotify| drain(inotify.get_ref())) {
                Ok(Ok(true)) => return Ok(()),
                Ok(Ok(false)) => {}
                Ok(Err(error)) => return Err(error),
                Err(_would_block) => {}
            }
        }
    }
}

/// Takes all events that are there; whether any told of a change (the end of a watch does not).
fn drain(inotify: &OwnedFd) -> io::Result<bool> {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(inotify, &mut buffer);
    let (mut any, mut changed) = (false, false);
    loop {
        match reader.next() {
            Ok(event) => {
                any = true;
                changed |= !event.events().contains(ReadFlags::IGNORED);
            }
            Err(rustix::io::Errno::WOULDBLOCK) if any => return Ok(changed),
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(flavor = "current_thread")]
    async fn a_write_wakes_and_silence_does_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let watch = Watch::new().expect("inotify");
        watch.add(directory.path()).expect("watched");
        watch.add(&directory.path().join("missing")).expect("a missing directory is fine");
        let silence = tokio::time::timeout(Duration::from_millis(20), watch.changed()).await;
        assert!(silence.is_err());
        std::fs::write(directory.path().join("0.log"), "x").expect("written");
        let change = tokio::time::timeout(Duration::from_secs(5), watch.changed()).await;
        change.expect("in time").expect("readable");
        let silence = tokio::time::timeout(Duration::from_millis(20), watch.changed()).await;
        assert!(silence.is_err(), "one change is told once");
    }
}
