//! The kinds an API server serves: one [`Resource`] each, so that adding a kind is writing down what is special about it.
//!
//! A write goes through a strategy in this order:
//!
//! ```text
//! create   default ▶ prepare_create ▶ validate_create ▶ admit ▶ to_stored ▶ stored
//! update   default ▶ prepare_update ▶ validate_update ▶ admit ▶ to_stored ▶ stored, or gone: is_removable
//! delete   graceful_deletion ▶ prepare_deletion               ▶ to_stored ▶ stored, or gone
//! read     from_stored ▶ cells, field, the body
//! ```

mod account;
mod canonical;
mod claim;
mod configuration;
mod endpoint;
mod event;
mod lease;
mod limits;
mod namespace;
mod node;
mod pod;
mod quota;
mod registry;
mod service;
mod template;
mod total;
mod view;

use jiff::Timestamp;
use serde_json::Value;

use crate::failure::Failure;
use crate::validate::FieldError;

pub use namespace::FINALIZER as NAMESPACE_FINALIZER;
pub use quota::used as quota_used;
pub use registry::all;

/// A kind and how it is served.
#[derive(Debug)]
pub struct Resource {
    /// Empty for the core group.
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    /// `pods`
    pub plural: &'static str,
    pub singular: &'static str,
    pub short_names: &'static [&'static str],
    pub categories: &'static [&'static str],
    pub namespaced: bool,
    /// In discovery's alphabetical order.
    pub verbs: &'static [&'static str],
    pub subresources: &'static [Subresource],
    /// Under which resource the store keeps it: `pods`, `leases.coordination.k8s.io`. Two resources may be views of one
    /// stored kind (events of both groups).
    pub stored_as: &'static str,
    pub strategy: &'static dyn Strategy,
}

#[derive(Debug)]
pub struct Subresource {
    pub name: &'static str,
    pub verbs: &'static [&'static str],
    /// Group, version and kind of what is read and written there.
    pub kind: (&'static str, &'static str, &'static str),
}

/// What a write is made through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part<'a> {
    /// The object itself: `status` is not its business.
    Object,
    /// `status`, `resize`, `ephemeralcontainers`, …: only that part changes, whatever else the body holds.
    Sub(&'a str),
}

/// Takes the asked address, or with an empty text any; or says why not.
pub type TakeAddress<'a> = &'a dyn Fn(&str) -> Result<String, String>;

/// What surrounds a write.
pub struct Surroundings<'a> {
    pub now: Timestamp,
    /// Objects in reach, by stored resource, namespace and name (limit ranges, quotas, service accounts).
    pub find: &'a dyn Fn(&str, &str, &str) -> Option<Value>,
    /// All objects of a stored resource in a namespace.
    pub list: &'a dyn Fn(&str, &str) -> Vec<Value>,
    /// Takes a cluster address for a Service: the asked one, or with `""` any; the text says why there is none. `None`: this
    /// node has no cluster network, and a Service that needs an address is refused. Whoever has the store gives the
    /// address back if the write fails, and when the Service is gone.
    pub cluster_address: Option<TakeAddress<'a>>,
}

impl std::fmt::Debug for Surroundings<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Surroundings").field("now", &self.now).finish_non_exhaustive()
    }
}

/// What is special about a kind. Objects are whole JSON objects, already fitting their schema; the server keeps name, namespace,
/// uid, creationTimestamp, resourceVersion, managedFields and generation.
pub trait Strategy: Sync + std::fmt::Debug {
    /// From the kind that is served to the one that is stored, where [`Resource::stored_as`] is another kind's.
    fn to_stored(&self, _object: &mut Value) {}

    /// The way back.
    #[expect(clippy::wrong_self_convention, reason = "the strategy is no part of what is converted")]
    fn from_stored(&self, _object: &mut Value) {}

    /// Fills in what upstream stores as defaults. Idempotent.
    fn default(&self, _object: &mut Value) {}

    /// Admission and clearing at creation: a client's `status` goes, the first one is set, limit ranges apply.
    ///
    /// # Errors
    /// 403 of a quota or limit range, 422 of what is not supported here.
    fn prepare_create(&self, _object: &mut Value, _cx: &Surroundings<'_>) -> Result<(), Failure> {
        Ok(())
    }

    fn validate_create(&self, _object: &Value) -> Vec<FieldError> {
        Vec::new()
    }

    /// Puts back what this part may not change (status through the object, spec through status).
    fn prepare_update(&self, _new: &mut Value, _old: &Value, _part: Part<'_>) {}

    fn validate_update(&self, new: &Value, _old: &Value, _part: Part<'_>) -> Vec<FieldError> {
        self.validate_create(new)
    }

    /// What the rest of the namespace has to say to a valid write: limit ranges and quotas. `old` is `None` for a creation.
    ///
    /// # Errors
    /// 403 with upstream's words.
    fn admit(&self, new: &Value, old: Option<&Value>, part: Part<'_>, cx: &Surroundings<'_>) -> Result<(), Failure> {
        quota::admit(new, old, part, cx)
    }

    /// Whether `metadata.generation` counts changes of the spec.
    fn has_generation(&self) -> bool {
        false
    }

    /// Whether a delete waits (pods by their grace period, namespaces until empty) instead of removing the object at once.
    /// The object then gets its deletionTimestamp (and grace period) and somebody else removes it. `Some(0)`: it waits,
    /// and has no period.
    fn graceful_deletion(&self, _object: &Value, _asked_seconds: Option<i64>) -> Option<i64> {
        None
    }

    /// What else changes in an object that gets a deletionTimestamp.
    fn prepare_deletion(&self, _object: &mut Value) {}

    /// Whether an object with a deletionTimestamp has nothing left to wait for after an update: no finalizers and no grace
    /// period. The server then removes it.
    fn is_removable(&self, object: &Value) -> bool {
        view::items(object, "metadata.finalizers").is_empty()
            && view::integer(object, "metadata.deletionGracePeriodSeconds").unwrap_or(0) == 0
    }

    /// Columns of the table, without those of `-A`.
    fn columns(&self) -> &'static [Column] {
        NAME_AND_AGE
    }

    /// Cells in the order of [`Self::columns`].
    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value>;

    /// `conditions` of the table row (finished pods), or none.
    fn row_conditions(&self, _object: &Value) -> Option<Value> {
        None
    }

    /// The value of a field for field selectors; `None` if the label is not supported. `metadata.name` and
    /// `metadata.namespace` are the server's.
    fn field(&self, _object: &Value, _label: &str) -> Option<String> {
        None
    }
}

/// `columnDefinitions` of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    pub name: &'static str,
    /// `string`, `integer`, `date`
    pub kind: &'static str,
    /// `name` for the first one.
    pub format: &'static str,
    pub description: &'static str,
    /// 1: only with `-o wide`.
    pub priority: u8,
}

impl Column {
    /// A column of text that is always shown.
    const fn text(name: &'static str, description: &'static str) -> Self {
        Self { name, kind: "string", format: "", description, priority: 0 }
    }

    const fn integer(name: &'static str, description: &'static str) -> Self {
        Self { name, kind: "integer", format: "", description, priority: 0 }
    }

    /// Only shown with `-o wide`.
    const fn wide(self) -> Self {
        Self { priority: 1, ..self }
    }

    const NAME: Self = Self {
        name: "Name",
        kind: "string",
        format: "name",
        description: "Name must be unique within a namespace.",
        priority: 0,
    };

    const AGE: Self = Self::text("Age", "Time since the object was created.");
}

/// What a kind without columns of its own shows.
pub const NAME_AND_AGE: &[Column] = &[Column::NAME, Column::AGE];

/// The resource served under this group, version and plural.
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
    all().iter().find(|resource| (resource.group, resource.version, resource.plural) == (group, version, plural))
}

#[cfg(test)]
mod tests;
