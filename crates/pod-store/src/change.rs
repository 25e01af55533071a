//! What may be asked of an object, and what comes of it: decided here without disk, threads or time.

use std::sync::Arc;

use serde_json::Value;

use crate::feed::{ChangeKind, Event};
use crate::object::{Key, LIMIT, Object};

/// When a write is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// After it is on the disk (one sync for all writes that wait at that time). Readers and watchers see it only then:
    /// what somebody has acted upon is never taken back.
    Synced,
    /// At once; a crash of the machine may take it back (a crash of the process as well, until the next sync, which comes
    /// within a second). For what is worked out again from facts: statuses, events, leases.
    Lazy,
}

/// What is asked of an object.
#[derive(Debug)]
pub enum Change {
    /// Only if there is none of this key.
    Create(Value),
    /// Only if there is one, and (with `expected`) it still has that revision. An equal value changes nothing and gets no new revision.
    Replace { value: Value, expected: Option<u64> },
    /// The last state goes to watchers with a revision of its own. `last`: what that state is, if it is not the stored one.
    Delete { expected: Option<u64>, last: Option<Value> },
}

/// Another object that a write depends on: it is made only while that one is there and has this revision. So nothing is put
/// into a namespace whose deletion was asked for after the writer had looked at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    pub key: Key,
    pub revision: u64,
}

/// Why a write was not made. Nothing of it happened.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error("it exists already")]
    Exists(Arc<Object>),
    #[error("it does not exist")]
    Missing,
    #[error("it has revision {} by now", .0.revision)]
    Conflict(Arc<Object>),
    /// What its [`Guard`] names has changed, or is gone.
    #[error("an object it depends on has changed")]
    Outdated,
    /// In bytes, as JSON.
    #[error("it would have {0} bytes, and {limit} are the most", limit = crate::object::LIMIT)]
    TooLarge(usize),
    #[error("the disk refused the write")]
    Disk(#[source] std::io::Error),
    /// The caller's mistake: a value that is no JSON object, or a key that cannot be one.
    #[error("it cannot be stored: {0}")]
    Unfit(&'static str),
}

/// Why [`Store::modify`](crate::Store::modify) changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum ModifyError<E> {
    /// The caller's function said no.
    #[error("the change was refused")]
    Refused(E),
    /// [`WriteError::Missing`], [`WriteError::Disk`] or [`WriteError::Unfit`]; a conflict is tried again, not reported.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// What comes of a change, given what is stored.
pub(crate) enum Decision {
    Refused(WriteError),
    Unchanged(Arc<Object>),
    Changed(Event),
}

/// `revision` is used up only by [`Decision::Changed`]. `change` may be decided again: only the revision inside its value
/// is touched.
pub(crate) fn decide(key: &Key, change: &mut Change, current: Option<&Arc<Object>>, revision: u64) -> Decision {
    let changed =
        |kind, value: &mut Value, before: Option<&Arc<Object>>| match Object::render(key.clone(), value, revision) {
            // What is there may always go.
            Ok(object) if object.json.len() > LIMIT && kind != ChangeKind::Deleted => {
                Decision::Refused(WriteError::TooLarge(object.json.len()))
            }
            Ok(object) => Decision::Changed(Event { kind, object: Arc::new(object), before: before.cloned() }),
            Err(reason) => Decision::Refused(WriteError::Unfit(reason)),
        };
    let conflicts = |current: &Arc<Object>, expected: Option<u64>| expected.is_some_and(|it| it != current.revision);
    match (change, current) {
        (Change::Create(_), Some(current)) => Decision::Refused(WriteError::Exists(current.clone())),
        (Change::Create(value), None) => changed(ChangeKind::Added, value, None),
        (Change::Replace { .. } | Change::Delete { .. }, None) => Decision::Refused(WriteError::Missing),
        (Change::Replace { expected, .. } | Change::Delete { expected, .. }, Some(current))
            if conflicts(current, *expected) =>
        {
            Decision::Refused(WriteError::Conflict(current.clone()))
        }
        (Change::Replace { value, .. }, Some(current)) => {
            if current.equals(value) {
                return Decision::Unchanged(current.clone());
            }
            changed(ChangeKind::Modified, value, Some(current))
        }
        (Change::Delete { last, .. }, Some(current)) => match last {
            Some(last) => changed(ChangeKind::Deleted, last, Some(current)),
            None => changed(ChangeKind::Deleted, &mut current.value(), Some(current)),
        },
    }
}
