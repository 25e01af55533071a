//! What a pull tells while it runs.

use serde::{Deserialize, Serialize};

/// Takes the news of a pull or push. Called from the task that pulls, a few times a second and layer: be quick.
pub trait Progress: Send + Sync {
    fn event(&self, event: PullProgress);
}

/// One piece of news. Serialisable, because the puller and the terminal may be two processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "event")]
pub enum PullProgress {
    /// Asking this registry (a mirror, perhaps) what the reference means.
    Resolving {
        reference: String,
        registry: String,
    },
    /// A mirror could not help; the next is asked.
    MirrorFailed {
        registry: String,
        message: String,
    },
    /// Bytes of a blob transferred so far; `done == total` also for one that was there already.
    Layer {
        digest: String,
        total: u64,
        done: u64,
    },
    /// The layer is here and being unpacked.
    Extracting {
        digest: String,
    },
    Done {
        reference: String,
        digest: String,
    },
}

/// Nobody is watching.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn event(&self, _: PullProgress) {}
}

impl<F: Fn(PullProgress) + Send + Sync> Progress for F {
    fn event(&self, event: PullProgress) {
        self(event);
    }
}
