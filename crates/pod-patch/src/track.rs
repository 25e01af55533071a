//! Ownership after a write that was no apply: whoever changed or added a field owns it, alone.

use pod_schema::Type;
use serde_json::Value;

use crate::bound;
use crate::field_set::{Element, FieldSet};
use crate::managed::{self, Entry, Managed, Manager, Operation};
use crate::tree;

/// After a write that was no apply (create, update, the other patches): who owns what now. Changes only
/// `new.metadata.managedFields`. `before`: the stored object, `None` at creation.
///
/// What the client wrote into `managedFields` counts as what was there before, except through a subresource: so entries can be
/// edited. An empty list, or a list of one empty entry, gives up all ownership; an object that has none gets none until the
/// first apply.
pub fn track(ty: Type, before: Option<&Value>, new: &mut Value, manager: &Manager) {
    let given = managed::take(new);
    if !bound::within(new, bound::DEPTH) || before.is_some_and(|before| !bound::within(before, bound::DEPTH)) {
        return;
    }
    let stored = || Managed::decode(before.and_then(managed::value_of)).unwrap_or_default();
    let owners = match given {
        _ if before.is_some() && !manager.subresource.is_empty() => stored(),
        Some(given) if is_reset(&given) => Managed::default(),
        // Clients that do not know the field leave it out, or write nonsense: neither takes anything from anybody.
        given => match Managed::decode(given.as_ref()) {
            Ok(owners) if !owners.is_empty() => owners,
            _ => stored(),
        },
    };
    if before.is_some() && owners.is_empty() {
        return;
    }
    let old = match before {
        Some(before) => managed::split(before).0,
        None => tree::blank(ty),
    };
    let owners = update(ty, &old, new, owners, manager);
    managed::write(new, owners);
}

/// Moves what differs between two objects without `managedFields` to the manager's Update entry.
pub(crate) fn update(ty: Type, old: &Value, new: &Value, mut owners: Managed, manager: &Manager) -> Managed {
    let comparison = tree::compare(ty, old, new).map(|set| writable(set, &manager.subresource));
    let written = comparison.written();
    owners.release(&written);
    owners.release(&comparison.removed);
    let mut entry = Entry::new(manager, Operation::Update);
    entry.fields = without_identity(&written);
    if !entry.fields.is_empty() {
        owners.add(entry);
    }
    owners.cap();
    owners
}

fn is_reset(given: &Value) -> bool {
    given.as_array().is_some_and(|entries| match entries.as_slice() {
        [] => true,
        [only] => only.as_object().is_some_and(serde_json::Map::is_empty),
        _ => false,
    })
}

/// What a write through this subresource can change at all; the rest is put back before it is stored, and nobody comes to own
/// it (the API server's `resetFields`).
pub(crate) fn writable(set: FieldSet, subresource: &str) -> FieldSet {
    match subresource {
        "status" => {
            set.without(&["spec"]).without(&["metadata", "deletionTimestamp"]).without(&["metadata", "ownerReferences"])
        }
        _ => set.without(&["status"]),
    }
}

/// Without what says which object it is and what the server keeps: nobody owns these.
pub(crate) fn without_identity(set: &FieldSet) -> FieldSet {
    const METADATA: [&str; 9] = [
        "name",
        "namespace",
        "creationTimestamp",
        "selfLink",
        "uid",
        "clusterName",
        "generation",
        "managedFields",
        "resourceVersion",
    ];
    let mut server = FieldSet::default();
    for name in ["apiVersion", "kind", "metadata"] {
        server.insert(&[Element::field(name)]);
    }
    for name in METADATA {
        server.insert(&[Element::field("metadata"), Element::field(name)]);
    }
    set.difference(&server)
}

#[cfg(test)]
mod tests;
