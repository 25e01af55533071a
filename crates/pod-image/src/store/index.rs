//! Which names mean which images.

use std::{collections::BTreeMap, fs, io, path::Path};

use serde::{Deserialize, Serialize};

use super::{StoreError, blob::write_atomic};
use crate::{digest::Digest, reference::Reference};

const VERSION: u32 = 1;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Index {
    version: u32,
    /// Keys are [`Reference::store_name`]s.
    pub names: BTreeMap<String, Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// The manifest for this machine's platform.
    pub manifest: Digest,
    /// What the name meant where it came from: the same manifest, or an index that has it.
    pub target: Digest,
}

impl Index {
    pub(super) fn read(path: &Path) -> Result<Index, StoreError> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Index { version: VERSION, names: BTreeMap::new() });
            }
            Err(error) => return Err(StoreError::io("read", path)(error)),
        };
        let index: Index =
            serde_json::from_slice(&bytes).map_err(|source| StoreError::Index { path: path.to_owned(), source })?;
        if index.version != VERSION {
            return Err(StoreError::IndexVersion { path: path.to_owned(), found: index.version });
        }
        Ok(index)
    }

    pub(super) fn write(&self, path: &Path) -> Result<(), StoreError> {
        let bytes = serde_json::to_vec_pretty(self).map_err(|e| StoreError::io("write", path)(e.into()))?;
        write_atomic(path, &bytes).map_err(StoreError::io("write", path))
    }

    pub(super) fn find(&self, reference: &Reference) -> Option<&Entry> {
        self.find_name(reference).map(|(_, entry)| entry)
    }

    pub(super) fn find_name(&self, reference: &Reference) -> Option<(&String, &Entry)> {
        if let found @ Some(_) = self.names.get_key_value(&reference.store_name()) {
            return found;
        }
        // The same bytes under a tag of the same repository. Another repository's would do as well, but having
        // access to one does not mean having it to the other.
        let (digest, repository) = (reference.digest()?, reference.name());
        let same_repository = |name: &str| {
            let rest = name.strip_prefix(&repository);
            rest.is_some_and(|rest| rest.starts_with([':', '@']))
        };
        self.names
            .iter()
            .find(|(name, entry)| same_repository(name) && (entry.target == *digest || entry.manifest == *digest))
    }
}

impl Entry {
    /// `repository@digest` for a stored `name`.
    pub(super) fn repo_digest(&self, name: &str) -> Option<String> {
        let reference: Reference = name.parse().ok()?;
        Some(reference.at(self.target.clone()).to_string())
    }
}
