//! `docker save`: `manifest.json` lists images as a config file, layer tars from the bottom up, and names. There is no
//! manifest with digests, so we write one, of OCI's kind.

use std::{
    collections::BTreeMap,
    io::{self, Read},
};

use serde::{Deserialize, Deserializer};

use super::{Archive, DockerNames, Found, Import, ImportError, bytes, document};
use crate::{
    compression,
    digest::Digest,
    manifest::{ConfigFile, Descriptor, Manifest, OCI_CONFIG, OCI_MANIFEST, layer_type},
    reference::Reference,
};

const MANIFEST: &str = "manifest.json";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    #[serde(default, deserialize_with = "nullable")]
    repo_tags: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    layers: Vec<String>,
}

pub(super) fn import(import: &mut Import<'_>, archive: &impl Archive) -> Result<Vec<Found>, ImportError> {
    let entries: Vec<Entry> = document(archive, MANIFEST)?;
    let mut known = BTreeMap::new();
    let mut found = Vec::new();
    for entry in &entries {
        found.push(image(import, archive, entry, &mut known)?);
    }
    import.rename(found)
}

/// The names that `manifest.json` gives, for an OCI layout beside it that has none.
pub(super) fn names(archive: &impl Archive) -> Result<DockerNames, ImportError> {
    if archive.open(MANIFEST)?.is_none() {
        return Ok(DockerNames::new());
    }
    let entries: Vec<Entry> = document(archive, MANIFEST)?;
    let mut names = DockerNames::new();
    for entry in entries {
        let config = Digest::of(&bytes(archive, &entry.config)?);
        names.entry(config).or_default().extend(parse_names(&entry)?);
    }
    Ok(names)
}

/// `known` has the layers that another image of the archive brought.
fn image(
    import: &mut Import<'_>,
    archive: &impl Archive,
    entry: &Entry,
    known: &mut BTreeMap<String, Descriptor>,
) -> Result<Found, ImportError> {
    let config = bytes(archive, &entry.config)?;
    let parsed = ConfigFile::parse(&config, entry.layers.len())
        .map_err(|source| ImportError::Manifest { path: MANIFEST.to_owned(), source })?;
    import.check_platform(&parsed)?;
    let mut layers = Vec::new();
    for path in &entry.layers {
        if !known.contains_key(path) {
            known.insert(path.clone(), layer(import, archive, path)?);
        }
        layers.push(known[path].clone());
    }
    let digest = import.put_bytes(&config)?;
    let config = Descriptor::new(OCI_CONFIG, digest, config.len() as u64);
    let manifest = Manifest { schema_version: 2, media_type: OCI_MANIFEST.to_owned(), config, layers };
    let json =
        serde_json::to_vec(&manifest).map_err(|source| ImportError::Json { path: MANIFEST.to_owned(), source })?;
    let manifest = import.put_bytes(&json)?;
    Ok(Found { names: parse_names(entry)?, target: manifest.clone(), manifest })
}

fn layer(import: &mut Import<'_>, archive: &impl Archive, path: &str) -> Result<Descriptor, ImportError> {
    let read = |source| ImportError::Read { source };
    let mut stream = archive.open(path)?.ok_or_else(|| ImportError::Missing(path.to_owned()))?;
    let mut start = Vec::new();
    stream.by_ref().take(6).read_to_end(&mut start).map_err(read)?;
    let compression = compression::detect(&start).map_err(read)?;
    let (digest, size) = import.put(io::Cursor::new(start).chain(stream))?;
    Ok(Descriptor::new(layer_type(compression), digest, size))
}

fn parse_names(entry: &Entry) -> Result<Vec<Reference>, ImportError> {
    let parse = |name: &String| name.parse().map_err(|source| ImportError::Name { name: name.clone(), source });
    entry.repo_tags.iter().map(parse).collect()
}

fn nullable<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
