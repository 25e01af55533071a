//! Changes of one resource, for a task that looks at several: a list first, then every change. Who falls behind gets a
//! list again.

use std::time::Duration;

use pod_store::{Event, List, Store};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

const PAUSE: Duration = Duration::from_millis(100);

/// What the store says about one resource.
#[derive(Debug)]
pub(crate) enum Word {
    /// Everything there is; what is not in it is gone.
    Listed(List),
    Changed(Event),
}

/// Ends when the receiver does.
pub(crate) fn follow<T: 'static>(
    store: &Store,
    resource: &'static str,
    sender: &mpsc::UnboundedSender<T>,
    wrap: impl Fn(Word) -> T + 'static,
) -> JoinHandle<()> {
    let (store, sender) = (store.clone(), sender.clone());
    tokio::task::spawn_local(async move {
        loop {
            let list = store.list(resource, None);
            let watch = store.watch(resource, None, Some(list.revision));
            if sender.send(wrap(Word::Listed(list))).is_err() {
                return;
            }
            if let Ok(mut watch) = watch {
                while let Ok(event) = watch.next().await {
                    if sender.send(wrap(Word::Changed(event))).is_err() {
                        return;
                    }
                }
            }
            // Too many changes in too short a time (or a store that was closed): no use to be back at once.
            tokio::time::sleep(PAUSE).await;
        }
    })
}
