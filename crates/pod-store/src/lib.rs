//! Objects with a resourceVersion: written durably, listed and watched from memory.
//!
//! The store knows no Kubernetes kinds: an object is JSON under a resource, a namespace and a name. It sets
//! `metadata.resourceVersion`, and it reads `metadata.labels` and `metadata.uid`; nothing else in the value is its business.
//!
//! Everything is in memory; readers never wait for the disk. One thread makes all changes in the order of their revisions
//! (`writer`), into a redb file that is never read again after opening (`disk`), and keeps the last changes for those who
//! watch (`feed`).
//!
//! **Revisions** are one counter for the whole store: every change gets the next one, and none is ever given out twice,
//! not by a run after a crash either: before any revision is given out, a greater one is on the disk as "perhaps used", and
//! a run begins above it. The first state of a new store is revision 1.

#![forbid(unsafe_code)]

mod change;
mod disk;
mod feed;
mod object;
#[cfg(test)]
mod tests;
mod watch;
mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use serde_json::Value;
use tokio::sync::oneshot;

pub use change::{Change, Durability, Guard, ModifyError, WriteError};
pub use feed::{ChangeKind, Event, Expired};
pub use object::{Key, List, Object};
pub use watch::Watch;

use disk::{ClaimError, Disk, FileMedium, LoadError, Medium};
use feed::Feed;
use writer::{Message, Request, Writer};

/// Enough for redb's trees, which are a few levels deep.
const WRITER_STACK: usize = 512 << 10;

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("failed to open the object store `{0}`")]
    Open(PathBuf, #[source] io::Error),
    /// `holder`: "process 123 (outrigger)", as far as it can be told.
    #[error("the object store `{path}` is in use by {holder}")]
    Busy { path: PathBuf, holder: String },
    #[error("the object store `{path}` has another format: {found}")]
    Format { path: PathBuf, found: String },
    /// Not a store, or one whose checksums do not hold. Nothing was changed in it.
    #[error("the object store `{path}` cannot be read: {reason}")]
    Damaged { path: PathBuf, reason: String },
}

/// Shared by all threads of the process. The last handle's end closes the store.
#[derive(Debug, Clone)]
pub struct Store(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    feed: Arc<Feed>,
    queue: Sender<Message>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Store {
    /// Opens or creates the store (mode 0600, in a directory that exists); one process at a time. Blocks for milliseconds,
    /// and up to half a second while another process holds it.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let medium = FileMedium::claim(path).map_err(|error| match error {
            ClaimError::Io(error) => OpenError::Open(path.to_owned(), error),
            ClaimError::Busy(holder) => OpenError::Busy { path: path.to_owned(), holder },
        })?;
        Self::on(Box::new(medium)).map_err(|error| match error {
            LoadError::Io(error) => OpenError::Open(path.to_owned(), error),
            LoadError::Format(found) => OpenError::Format { path: path.to_owned(), found },
            LoadError::Damaged(reason) => OpenError::Damaged { path: path.to_owned(), reason },
        })
    }

    fn on(medium: Box<dyn Medium>) -> Result<Self, LoadError> {
        let (disk, objects, mark) = Disk::open(medium)?;
        let feed = Arc::new(Feed::new(objects, mark.revision, mark.reserved));
        let (queue, messages) = channel();
        let writer = Writer::new(feed.clone(), disk, mark);
        let writer = std::thread::Builder::new()
            .name("store".to_owned())
            .stack_size(WRITER_STACK)
            .spawn(move || writer.run(&messages))?;
        Ok(Self(Arc::new(Shared { feed, queue, writer: Mutex::new(Some(writer)) })))
    }

    /// The newest revision given out.
    pub fn revision(&self) -> u64 {
        self.0.feed.read().revision
    }

    pub fn get(&self, key: &Key) -> Option<Arc<Object>> {
        self.0.feed.read().get(&key.resource, &key.namespace, &key.name).cloned()
    }

    /// `namespace`: `None` is all of them.
    pub fn list(&self, resource: &str, namespace: Option<&str>) -> List {
        self.0.feed.read().list(resource, namespace)
    }

    /// Resolves when the write has the asked durability, with the object as it is then (of a deletion: its last state, with
    /// the deletion's revision); dropping the future does not take the write back. On any thread, in any runtime.
    pub async fn write(&self, key: Key, change: Change, durability: Durability) -> Result<Arc<Object>, WriteError> {
        self.send(key, change, durability, None).await
    }

    /// Like [`Self::write`], if the guard still holds when the write's turn comes; else [`WriteError::Outdated`].
    pub async fn write_while(
        &self,
        guard: Guard,
        key: Key,
        change: Change,
        durability: Durability,
    ) -> Result<Arc<Object>, WriteError> {
        self.send(key, change, durability, Some(guard)).await
    }

    async fn send(
        &self,
        key: Key,
        change: Change,
        durability: Durability,
        guard: Option<Guard>,
    ) -> Result<Arc<Object>, WriteError> {
        let (answer, answered) = oneshot::channel();
        let closed = || WriteError::Disk(io::Error::other("the store is closed"));
        let request = Request { key, change, durability, guard, answer };
        self.0.queue.send(Message::Write(Box::new(request))).map_err(|_| closed())?;
        answered.await.map_err(|_| closed())?
    }

    /// Reads, changes and writes as one step: `change` gets the stored object and its value, and returns what the value
    /// shall be, or `None` to leave it. It is asked again with the newer object when somebody else was faster.
    ///
    /// Returns the object as it is then. There must be one: else [`WriteError::Missing`].
    pub async fn modify<E>(
        &self,
        key: &Key,
        durability: Durability,
        mut change: impl FnMut(&Object, Value) -> Result<Option<Value>, E>,
    ) -> Result<Arc<Object>, ModifyError<E>> {
        let mut current = self.get(key).ok_or(WriteError::Missing)?;
        loop {
            let Some(value) = change(&current, current.value()).map_err(ModifyError::Refused)? else {
                return Ok(current);
            };
            let replace = Change::Replace { value, expected: Some(current.revision) };
            match self.write(key.clone(), replace, durability).await {
                Err(WriteError::Conflict(newer)) => current = newer,
                other => return Ok(other?),
            }
        }
    }

    /// Everything that happens after `since` (`None`: from now on).
    ///
    /// `since` may be any revision this run gave out, as long as no later change of this resource was dropped from the
    /// history, and the revision that was on the disk when the store was opened. All else is [`Expired`]: older ones, those
    /// that an earlier run gave out and a crash took back, and those that never were.
    pub fn watch(&self, resource: &str, namespace: Option<&str>, since: Option<u64>) -> Result<Watch, Expired> {
        Watch::new(&self.0.feed, resource, namespace, since)
    }

    /// Writes down what is [`Durability::Lazy`] and ends the store for all its handles: later writes fail, watches end.
    /// Blocks for one sync. The end of the last handle does the same.
    pub fn close(&self) {
        self.0.close();
    }
}

impl Shared {
    fn close(&self) {
        let _ = self.queue.send(Message::Close);
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            // A writer that panicked has said so; there is nothing left to close.
            let _ = writer.join();
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.close();
    }
}
