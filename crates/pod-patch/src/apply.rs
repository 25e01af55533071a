//! Server-side apply (KEP-555): the client sends what it wants, the server keeps who wants what.

use std::rc::Rc;

use pod_schema::Type;
use serde_json::{Map, Value};

use crate::conflict::Conflict;
use crate::field_set::{Element, FieldSet, path_text};
use crate::managed::{self, Entry, Managed, Manager, Operation};
use crate::track::{self, without_identity, writable};
use crate::{PatchError, bound, last_applied, tree};

/// Owns what an object without entries has when it is first applied to.
const BEFORE: &str = "before-first-apply";

/// Why an apply does not go through.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    #[error(transparent)]
    Patch(#[from] PatchError),
    /// 409; [`conflict_message`](crate::conflict_message) has the words, [`conflict_causes`](crate::conflict_causes) the causes.
    #[error("{}", crate::conflict_message(.0))]
    Conflicts(Vec<Conflict>),
}

/// Server-side apply (KEP-555): `live` (`None`: to be created) and what the manager wants become the new object, with
/// `metadata.managedFields` kept. `force` takes contested fields over.
///
/// # Errors
/// [`ApplyError::Patch`] if `wanted` is not an object of this type, [`ApplyError::Conflicts`] if others own fields with other
/// values and `force` is not set.
pub fn apply(
    ty: Type,
    live: Option<&Value>,
    wanted: &Value,
    manager: &Manager,
    force: bool,
) -> Result<Value, ApplyError> {
    let wanted = acceptable(ty, wanted, manager)?;
    let (old, owners) = match live {
        Some(live) => {
            bound::require(live)?;
            let (old, stored) = managed::split(live);
            let owners = Managed::decode(stored.as_ref())
                .map_err(|reason| PatchError::Malformed(format!("failed to decode managed fields: {reason}")))?;
            let owners = if owners.is_empty() { before_first_apply(ty, &old, manager) } else { owners };
            (Some(old), owners)
        }
        None => (None, Managed::default()),
    };

    let work = Work { ty, live: old.as_ref(), wanted: &wanted, manager, owners };
    let (mut object, owners) = match work.run(force) {
        Ok(done) => done,
        Err(contests) => {
            let left = work.not_last_applied(contests);
            if !left.is_empty() {
                return Err(ApplyError::Conflicts(left));
            }
            work.run(true).map_err(|_| ApplyError::Conflicts(Vec::new()))?
        }
    };
    if manager.name == last_applied::MANAGER {
        last_applied::sync(&mut object, &wanted);
    }
    managed::write(&mut object, owners);
    Ok(object)
}

/// What is wanted, if it can be applied; without the fields of the server's that old clients write as null.
fn acceptable(ty: Type, wanted: &Value, manager: &Manager) -> Result<Value, PatchError> {
    bound::require(wanted)?;
    let Value::Object(fields) = wanted else {
        return Err(PatchError::Malformed("error decoding YAML: the patch is not an object".to_owned()));
    };
    let text = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default();
    if text("apiVersion") != manager.api_version {
        return Err(PatchError::Malformed(format!(
            "Incorrect version specified in apply patch. Specified patch version: {}, expected: {}",
            text("apiVersion"),
            manager.api_version
        )));
    }
    if managed::value_of(wanted).is_some_and(|managed| !managed.is_null()) {
        return Err(PatchError::Malformed("metadata.managedFields must be nil".to_owned()));
    }
    let misfits = tree::misfits(ty, wanted);
    if !misfits.is_empty() {
        let reason = match misfits.as_slice() {
            [only] => only.clone(),
            several => format!("errors:\n  {}", several.join("\n  ")),
        };
        let (namespace, name) = (metadata_text(wanted, "namespace"), metadata_text(wanted, "name"));
        let (group, version) = manager.api_version.rsplit_once('/').unwrap_or(("", &manager.api_version));
        return Err(PatchError::Malformed(format!(
            "failed to create typed patch object ({namespace}/{name}; {group}/{version}, Kind={}): {reason}",
            text("kind")
        )));
    }
    let mut wanted = wanted.clone();
    if let Some(metadata) = wanted.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|name, value| {
            let server = matches!(
                name.as_str(),
                "creationTimestamp" | "managedFields" | "uid" | "resourceVersion" | "generation" | "selfLink"
            );
            !(server && value.is_null())
        });
    }
    Ok(wanted)
}

fn metadata_text<'a>(object: &'a Value, name: &str) -> &'a str {
    object.get("metadata").and_then(|metadata| metadata.get(name)).and_then(Value::as_str).unwrap_or_default()
}

/// Nobody's fields become those of a manager that nobody is, so that the first apply to them is a conflict like any other.
fn before_first_apply(ty: Type, live: &Value, manager: &Manager) -> Managed {
    let before = Manager { name: BEFORE.to_owned(), ..manager.clone() };
    track::update(ty, &tree::blank(ty), live, Managed::default(), &before)
}

/// A path that the apply would write, and the entry that owns it.
struct Contest {
    path: Vec<Element>,
    /// Without its fields, of which there may be as many as there are contests.
    owner: Rc<Entry>,
}

struct Work<'a> {
    ty: Type,
    live: Option<&'a Value>,
    wanted: &'a Value,
    manager: &'a Manager,
    owners: Managed,
}

impl Work<'_> {
    /// The new object without `managedFields`, and who owns what in it.
    fn run(&self, force: bool) -> Result<(Value, Managed), Vec<Contest>> {
        let mut mine = Entry::new(self.manager, Operation::Apply);
        let previous = self.owners.of(&mine).cloned();
        mine.fields = writable(tree::collect(self.ty, self.wanted), &self.manager.subresource);

        let empty = Value::Object(Map::new());
        let live = self.live.unwrap_or(&empty);
        let merged = tree::combine(Some(self.ty), Some(live), Some(self.wanted)).unwrap_or_else(|| empty.clone());
        let mut owners = self.owners.clone();
        owners.put(mine.clone());
        let new = match &previous {
            // Pruning leaves nothing behind of what it empties; what is wanted to be empty comes back.
            Some(previous) => {
                let pruned = self.prune(merged, &owners, &previous.fields);
                tree::combine(Some(self.ty), Some(&pruned), Some(self.wanted)).unwrap_or(pruned)
            }
            None => merged,
        };

        let changed = tree::compare(self.ty, live, &new).map(|set| writable(set, &self.manager.subresource));
        let written = changed.written();
        owners.entries.retain(|entry| !entry.is_of(&mine));
        if !force {
            let contests = contests(&owners, &written);
            if !contests.is_empty() {
                return Err(contests);
            }
        }
        owners.release(&written);
        owners.release(&changed.removed);

        mine.fields = without_identity(&mine.fields);
        if let Some(previous) = previous
            && previous.fields == mine.fields
            && previous.api_version == mine.api_version
            && self.live == Some(&new)
        {
            // Nothing happened, and so it keeps its time.
            mine.time = previous.time;
        }
        if !mine.fields.is_empty() {
            owners.put(mine);
        }
        Ok((new, owners))
    }

    /// Takes out what this manager applied last and does not any more, unless somebody else owns it too.
    fn prune(&self, merged: Value, owners: &Managed, last: &FieldSet) -> Value {
        if last.is_empty() {
            return merged;
        }
        let fields = |set: &FieldSet| set.with_fields(Some(self.ty));
        let without =
            |set: &FieldSet| tree::remove(Some(self.ty), &merged, set).unwrap_or_else(|| Value::Object(Map::new()));
        let all = fields(&tree::collect(self.ty, &merged));
        let last = fields(last);

        // Without all that was applied last, then with what is owned again …
        let owned = owners.entries.iter().fold(FieldSet::default(), |sum, entry| sum.union(&entry.fields));
        let left = fields(&tree::collect(self.ty, &without(&last)));
        let kept = without(&all.difference(&left.union(&fields(&owned))));
        // … and with what came along without ever having been this manager's.
        let kept = fields(&tree::collect(self.ty, &kept));
        without(&all.difference(&kept).intersection(&last))
    }

    /// The conflicts that remain for `kubectl` when it goes from client-side to server-side apply.
    fn not_last_applied(&self, contests: Vec<Contest>) -> Vec<Conflict> {
        let allowed = match self.live {
            Some(live) if self.manager.name == last_applied::MANAGER => {
                last_applied::owned(self.ty, live, &self.manager.api_version)
            }
            _ => None,
        };
        let allowed = allowed.unwrap_or_default();
        contests
            .into_iter()
            .filter(|contest| !allowed.contains(&contest.path))
            .map(|contest| Conflict::new(path_text(&contest.path), &contest.owner))
            .collect()
    }
}

fn contests(owners: &Managed, written: &FieldSet) -> Vec<Contest> {
    let mut found = Vec::new();
    for entry in &owners.entries {
        let paths = entry.fields.intersection(written).paths();
        let owner = Rc::new(entry.without_fields());
        found.extend(paths.into_iter().map(|path| Contest { path, owner: owner.clone() }));
    }
    found.sort_by(|left: &Contest, right: &Contest| {
        fn key(contest: &Contest) -> (&str, &str, &str, &str) {
            let owner = &contest.owner;
            (&owner.manager, owner.operation.name(), &owner.api_version, &owner.subresource)
        }
        key(left).cmp(&key(right))
    });
    found
}

#[cfg(test)]
mod tests;
