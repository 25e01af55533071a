//! `metadata.managedFields`: who owns which fields, as a list of entries in the object.

use std::cmp::Ordering;

use serde_json::{Map, Value};

use crate::field_set::{FieldSet, codec};

/// Update entries above this are merged, oldest first, into one of [`ANCIENT`].
const UPDATE_ENTRIES: usize = 10;

/// The manager of the entry that old Update entries end in.
const ANCIENT: &str = "ancient-changes";

/// Who writes, and through what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manager {
    /// `kubectl`, or derived from the user agent. Empty counts as `unknown`.
    pub name: String,
    /// `v1`, `apps/v1`
    pub api_version: String,
    /// `status`, `scale`; empty for the object itself.
    pub subresource: String,
    /// RFC 3339, whole seconds, UTC (`2026-01-02T03:04:05Z`); written to `managedFields[].time`.
    pub time: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Operation {
    Apply,
    Update,
}

impl Operation {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Operation::Apply => "Apply",
            Operation::Update => "Update",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) manager: String,
    pub(crate) operation: Operation,
    pub(crate) api_version: String,
    pub(crate) subresource: String,
    /// Empty: it has none.
    pub(crate) time: String,
    pub(crate) fields: FieldSet,
}

impl Entry {
    pub(crate) fn new(manager: &Manager, operation: Operation) -> Entry {
        Entry {
            manager: if manager.name.is_empty() { "unknown".to_owned() } else { manager.name.clone() },
            operation,
            api_version: manager.api_version.clone(),
            subresource: manager.subresource.clone(),
            time: manager.time.clone(),
            fields: FieldSet::default(),
        }
    }

    /// Who, how and when, but not what.
    pub(crate) fn without_fields(&self) -> Entry {
        let Entry { manager, operation, api_version, subresource, time, fields: _ } = self;
        Entry {
            manager: manager.clone(),
            operation: *operation,
            api_version: api_version.clone(),
            subresource: subresource.clone(),
            time: time.clone(),
            fields: FieldSet::default(),
        }
    }

    /// Are both about the same manager? An applier stays the same through versions of the API.
    pub(crate) fn is_of(&self, other: &Entry) -> bool {
        self.manager == other.manager
            && self.operation == other.operation
            && self.subresource == other.subresource
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }

    fn decode(value: &Value, index: usize) -> Result<Entry, String> {
        let Value::Object(fields) = value else {
            return Err(format!("managed fields entry {index} is no object"));
        };
        let text = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let operation = match text("operation").as_str() {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return Err("operation must be `Apply` or `Update`".to_owned()),
        };
        if text("apiVersion").is_empty() {
            return Err("apiVersion must not be empty".to_owned());
        }
        match text("fieldsType").as_str() {
            "FieldsV1" => {}
            "" => return Err(format!("missing fieldsType in managed fields entry {index}")),
            other => return Err(format!("invalid fieldsType {other:?} in managed fields entry {index}")),
        }
        Ok(Entry {
            manager: text("manager"),
            operation,
            api_version: text("apiVersion"),
            subresource: text("subresource"),
            time: text("time"),
            fields: codec::decode(fields.get("fieldsV1").unwrap_or(&Value::Null))
                .map_err(|reason| format!("error decoding set: {reason}"))?,
        })
    }

    fn encode(&self) -> Value {
        let mut entry = Map::new();
        let mut put = |name: &str, text: &str| {
            if !text.is_empty() {
                entry.insert(name.to_owned(), Value::String(text.to_owned()));
            }
        };
        put("manager", &self.manager);
        put("operation", self.operation.name());
        put("apiVersion", &self.api_version);
        put("time", &self.time);
        put("fieldsType", "FieldsV1");
        put("subresource", &self.subresource);
        entry.insert("fieldsV1".to_owned(), codec::encode(&self.fields));
        Value::Object(entry)
    }

    fn written_before(&self, other: &Entry) -> Ordering {
        // Times are RFC 3339 in UTC and of one length, so their text sorts.
        let key = |entry: &Entry| {
            (entry.time.clone(), entry.manager.clone(), entry.api_version.clone(), entry.subresource.clone())
        };
        key(self).cmp(&key(other))
    }
}

/// The entries of an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Managed {
    pub(crate) entries: Vec<Entry>,
}

impl Managed {
    /// From the value of `managedFields`.
    ///
    /// # Errors
    /// What is wrong with the first entry that does not hold.
    pub(crate) fn decode(value: Option<&Value>) -> Result<Managed, String> {
        let mut managed = Managed::default();
        let entries = match value {
            None | Some(Value::Null) => return Ok(managed),
            Some(Value::Array(entries)) => entries,
            Some(_) => return Err("managedFields is no list".to_owned()),
        };
        for (index, value) in entries.iter().enumerate() {
            managed.add(Entry::decode(value, index)?);
        }
        Ok(managed)
    }

    /// To the value of `managedFields`: appliers first, the oldest first.
    pub(crate) fn encode(mut self) -> Option<Value> {
        self.entries
            .sort_by(|left, right| left.operation.cmp(&right.operation).then_with(|| left.written_before(right)));
        (!self.entries.is_empty()).then(|| Value::Array(self.entries.iter().map(Entry::encode).collect()))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn of(&self, like: &Entry) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.is_of(like))
    }

    /// Puts an entry in the place of the same manager's.
    pub(crate) fn put(&mut self, entry: Entry) {
        self.entries.retain(|other| !other.is_of(&entry));
        self.entries.push(entry);
    }

    /// Adds to what the manager owns already; time and version become the new entry's.
    pub(crate) fn add(&mut self, mut entry: Entry) {
        if let Some(previous) = self.of(&entry) {
            entry.fields = entry.fields.union(&previous.fields);
        }
        self.put(entry);
    }

    /// Takes fields from everybody; who owns nothing any more leaves.
    pub(crate) fn release(&mut self, fields: &FieldSet) {
        for entry in &mut self.entries {
            entry.fields = entry.fields.difference(fields);
        }
        self.entries.retain(|entry| !entry.fields.is_empty());
    }

    /// Bounds the Update entries: objects that many programs write would grow without end.
    pub(crate) fn cap(&mut self) {
        let updates = self.entries.iter().filter(|entry| entry.operation == Operation::Update).count();
        let mut excess = updates.saturating_sub(UPDATE_ENTRIES);
        if excess == 0 {
            return;
        }
        self.entries.sort_by(|left, right| left.written_before(right));
        let mut rest = Vec::with_capacity(self.entries.len());
        let mut buckets: Vec<(bool, Entry)> = Vec::new();
        for entry in self.entries.drain(..) {
            if entry.operation != Operation::Update || excess == 0 {
                rest.push(entry);
            } else if let Some((used, bucket)) =
                buckets.iter_mut().find(|(_, bucket)| bucket.api_version == entry.api_version)
            {
                ANCIENT.clone_into(&mut bucket.manager);
                bucket.subresource.clear();
                bucket.time = entry.time;
                bucket.fields = std::mem::take(&mut bucket.fields).union(&entry.fields);
                *used = true;
                excess -= 1;
            } else {
                // The first of a version is only the bucket if a second follows.
                buckets.push((false, entry));
            }
        }
        self.entries = rest;
        for (used, bucket) in buckets {
            if used { self.add(bucket) } else { self.entries.push(bucket) }
        }
    }
}

/// The value of `metadata.managedFields`.
pub(crate) fn value_of(object: &Value) -> Option<&Value> {
    object.get("metadata")?.get("managedFields")
}

/// The object without `metadata.managedFields`, and these.
pub(crate) fn split(object: &Value) -> (Value, Option<Value>) {
    let mut object = object.clone();
    let managed = take(&mut object);
    (object, managed)
}

pub(crate) fn take(object: &mut Value) -> Option<Value> {
    object.get_mut("metadata")?.as_object_mut()?.remove("managedFields")
}

/// Writes `metadata.managedFields` into an object that has none.
pub(crate) fn write(object: &mut Value, managed: Managed) {
    let (Some(value), Some(fields)) = (managed.encode(), object.as_object_mut()) else {
        return;
    };
    let metadata = fields.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
    if let Some(metadata) = metadata.as_object_mut() {
        metadata.insert("managedFields".to_owned(), value);
    }
}

#[cfg(test)]
mod tests;
