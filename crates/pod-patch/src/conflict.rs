//! What others own with another value, and how the API server says so.

use std::fmt;

use crate::managed::Entry;
use crate::wording::quoted;

/// A field that another manager owns with another value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// `.spec.containers[name="app"].image`
    pub field: String,
    pub manager: String,
    /// `Update` or `Apply`.
    pub operation: String,
    pub api_version: String,
    /// Of the entry; empty if it has none.
    pub time: String,
    pub subresource: String,
}

impl Conflict {
    pub(crate) fn new(field: String, owner: &Entry) -> Conflict {
        Conflict {
            field,
            manager: owner.manager.clone(),
            operation: owner.operation.name().to_owned(),
            api_version: owner.api_version.clone(),
            time: owner.time.clone(),
            subresource: owner.subresource.clone(),
        }
    }

    fn owner(&self) -> Owner<'_> {
        Owner {
            manager: &self.manager,
            operation: &self.operation,
            api_version: if self.operation == "Update" { &self.api_version } else { "" },
            subresource: &self.subresource,
        }
    }
}

/// What makes managers different from one another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Owner<'a> {
    manager: &'a str,
    operation: &'a str,
    api_version: &'a str,
    subresource: &'a str,
}

/// `"kubectl-edit" with subresource "status" using v1`
impl fmt::Display for Owner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&quoted(self.manager))?;
        if !self.subresource.is_empty() {
            write!(f, " with subresource {}", quoted(self.subresource))?;
        }
        if !self.api_version.is_empty() {
            write!(f, " using {}", self.api_version)?;
        }
        Ok(())
    }
}

/// The message of the 409 `Conflict`: one conflict in a line, several grouped by manager.
pub fn conflict_message(conflicts: &[Conflict]) -> String {
    if let [conflict] = conflicts {
        return format!("Apply failed with 1 conflict: conflict with {}: {}", conflict.owner(), conflict.field);
    }
    let mut owners: Vec<Owner<'_>> = conflicts.iter().map(Conflict::owner).collect();
    owners.sort_unstable();
    owners.dedup();
    let mut lines = Vec::with_capacity(owners.len() + conflicts.len());
    for owner in owners {
        lines.push(format!("conflicts with {owner}:"));
        let theirs = conflicts.iter().filter(|conflict| conflict.owner() == owner);
        lines.extend(theirs.map(|conflict| format!("- {}", conflict.field)));
    }
    format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
}

/// Message and field of each cause in the status' details; their reason is `FieldManagerConflict`.
pub fn conflict_causes(conflicts: &[Conflict]) -> Vec<(String, String)> {
    conflicts.iter().map(|conflict| (format!("conflict with {}", conflict.owner()), conflict.field.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conflict(manager: &str, operation: &str, subresource: &str, field: &str) -> Conflict {
        Conflict {
            field: field.to_owned(),
            manager: manager.to_owned(),
            operation: operation.to_owned(),
            api_version: "v1".to_owned(),
            time: "2026-01-02T03:04:05Z".to_owned(),
            subresource: subresource.to_owned(),
        }
    }

    #[test]
    fn words_one_and_several() {
        let image = conflict("kubectl-client-side-apply", "Update", "", ".spec.containers[name=\"web\"].image");
        assert_eq!(
            conflict_message(std::slice::from_ref(&image)),
            "Apply failed with 1 conflict: conflict with \"kubectl-client-side-apply\" using v1: .spec.containers[name=\"web\"].image"
        );
        let several = [
            image,
            conflict("alice", "Apply", "", ".a"),
            conflict("bob", "Update", "status", ".b"),
            conflict("alice", "Apply", "", ".c"),
        ];
        assert_eq!(
            conflict_message(&several),
            "Apply failed with 4 conflicts: conflicts with \"alice\":\n- .a\n- .c\nconflicts with \"bob\" with subresource \"status\" using v1:\n- .b\nconflicts with \"kubectl-client-side-apply\" using v1:\n- .spec.containers[name=\"web\"].image"
        );
        assert_eq!(conflict_causes(&several)[1], ("conflict with \"alice\"".to_owned(), ".a".to_owned()));
    }
}
