//! A reader of the history: it holds a position, not events, so a slow one costs nothing.

use std::sync::Arc;

use tokio::sync::watch;

use crate::feed::{Event, Expired, Feed};

/// Changes in order, none missed. Dropping it ends it.
///
/// It does not keep the store open: when the store is closed, what is left is returned, then [`Expired`].
#[derive(Debug)]
pub struct Watch {
    feed: Arc<Feed>,
    resource: Box<str>,
    namespace: Option<Box<str>>,
    /// All up to here has been returned or is not ours.
    position: u64,
    wake: watch::Receiver<()>,
}

impl Watch {
    pub(crate) fn new(
        feed: &Arc<Feed>,
        resource: &str,
        namespace: Option<&str>,
        since: Option<u64>,
    ) -> Result<Self, Expired> {
        let (position, wake) = feed.subscribe(resource, since)?;
        Ok(Self { feed: feed.clone(), resource: resource.into(), namespace: namespace.map(Into::into), position, wake })
    }

    /// The next change; `Err` once the reader has fallen too far behind (it lists again). Cancel-safe.
    pub async fn next(&mut self) -> Result<Event, Expired> {
        loop {
            // Before reading: a change between the reading and the waiting is then a wake-up, not a loss.
            self.wake.mark_unchanged();
            if let Some(event) = self.read()? {
                return Ok(event);
            }
            if self.wake.changed().await.is_err() {
                return Err(self.ended());
            }
        }
    }

    fn read(&mut self) -> Result<Option<Event>, Expired> {
        let state = self.feed.read();
        if let Some(event) = state.after(&self.resource, self.namespace.as_deref(), self.position)? {
            self.position = event.object.revision;
            return Ok(Some(event.clone()));
        }
        self.position = state.revision.max(self.position);
        let closed = state.closed();
        drop(state);
        if closed { Err(self.ended()) } else { Ok(None) }
    }

    fn ended(&self) -> Expired {
        Expired { asked: self.position, oldest: self.position }
    }

    /// Every change up to this revision has been returned by `next`, or is none of this watch's: what a bookmark may say.
    pub fn revision(&self) -> u64 {
        let state = self.feed.read();
        match state.after(&self.resource, self.namespace.as_deref(), self.position) {
            Ok(None) => state.revision.max(self.position),
            Ok(Some(_)) | Err(_) => self.position,
        }
    }
}
