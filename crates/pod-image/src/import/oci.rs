//! OCI image layouts (image-spec, `image-layout.md`): `index.json` leads to manifests, everything by digest.

use super::{Archive, Found, Import, ImportError, bytes, docker};
use crate::{
    digest::Digest,
    export::{NAME_ANNOTATION, REF_NAME_ANNOTATION},
    manifest::{ConfigFile, Descriptor, Document, Index, Manifest, ManifestError},
    reference::Reference,
};

const INDEX: &str = "index.json";
/// An index in an index in an index is nonsense.
const DEPTH: usize = 3;

pub(super) fn import(import: &mut Import<'_>, archive: &impl Archive) -> Result<Vec<Found>, ImportError> {
    let fail = |source| ImportError::Manifest { path: INDEX.to_owned(), source };
    let index = match Document::parse(&bytes(archive, INDEX)?).map_err(fail)? {
        Document::Index(index) => index,
        Document::Manifest(manifest) => return Err(fail(ManifestError::MediaType(manifest.media_type))),
    };
    let docker_names = docker::names(archive)?;
    let mut found: Vec<Found> = Vec::new();
    for group in group(index)? {
        let (manifest_digest, target, manifest) = resolve(import, archive, &group.entries)?;
        let config = blob(archive, &manifest.config)?;
        let parsed = ConfigFile::parse(&config, manifest.layers.len())
            .map_err(|source| ImportError::Manifest { path: manifest.config.digest.to_string(), source })?;
        import.check_platform(&parsed)?;
        import.put_bytes(&config)?;
        for layer in &manifest.layers {
            put_layer(import, archive, layer)?;
        }
        let mut names: Vec<Reference> = group.name.into_iter().collect();
        if names.is_empty() {
            names = docker_names.get(&manifest.config.digest).cloned().unwrap_or_default();
        }
        // The same image under several names comes as several entries.
        match found.iter_mut().find(|known| known.manifest == manifest_digest) {
            Some(known) => known.names.extend(names),
            None => found.push(Found { names, manifest: manifest_digest, target }),
        }
    }
    import.rename(found)
}

/// Entries of the index that are one image, for one platform each.
struct Group {
    name: Option<Reference>,
    entries: Vec<Descriptor>,
}

fn group(index: Index) -> Result<Vec<Group>, ImportError> {
    let mut groups: Vec<Group> = Vec::new();
    for entry in index.manifests {
        let name = name(&entry)?;
        // Entries without a name belong together only if the platform tells them apart.
        let joins = |group: &&mut Group| {
            group.name == name
                && (name.is_some() || entry.platform.is_some())
                && group.entries.iter().all(|known| known.platform != entry.platform)
        };
        match groups.iter_mut().find(joins) {
            Some(group) => group.entries.push(entry),
            None => groups.push(Group { name, entries: vec![entry] }),
        }
    }
    Ok(groups)
}

/// The image's full name. `org.opencontainers.image.ref.name` is often a tag alone, which names nothing.
fn name(entry: &Descriptor) -> Result<Option<Reference>, ImportError> {
    let full = entry.annotations.get(NAME_ANNOTATION);
    let short = || entry.annotations.get(REF_NAME_ANNOTATION).filter(|name| name.contains(['/', ':']));
    let Some(name) = full.or_else(short) else { return Ok(None) };
    name.parse().map(Some).map_err(|source| ImportError::Name { name: name.clone(), source })
}

/// Follows indexes to this platform's manifest, which is stored. Returns its digest and what the entry pointed to.
fn resolve(
    import: &mut Import<'_>,
    archive: &impl Archive,
    entries: &[Descriptor],
) -> Result<(Digest, Digest, Manifest), ImportError> {
    let mut entries = entries.to_vec();
    let mut target = None;
    for _ in 0..DEPTH {
        let entry = match entries.as_slice() {
            [only] => only.clone(),
            several => {
                let manifests = several.to_vec();
                let index = Index { schema_version: 2, media_type: String::new(), manifests };
                let selected = index.select(&import.options.platform).cloned();
                selected.ok_or_else(|| ImportError::NoMatchingPlatform {
                    wanted: import.options.platform.to_string(),
                    offered: index.platforms(),
                })?
            }
        };
        let target = target.get_or_insert_with(|| entry.digest.clone()).clone();
        let json = blob(archive, &entry)?;
        let fail = |source| ImportError::Manifest { path: entry.digest.to_string(), source };
        match Document::parse(&json).map_err(fail)? {
            Document::Index(index) => entries = index.manifests,
            Document::Manifest(manifest) => {
                import.put_bytes(&json)?;
                return Ok((entry.digest, target, manifest));
            }
        }
        if entries.is_empty() {
            return Err(ImportError::Empty);
        }
    }
    Err(ImportError::Manifest { path: INDEX.to_owned(), source: ManifestError::Ambiguous })
}

/// A small blob, verified.
fn blob(archive: &impl Archive, descriptor: &Descriptor) -> Result<Vec<u8>, ImportError> {
    let path = path(&descriptor.digest);
    let bytes = bytes(archive, &path)?;
    match Digest::of(&bytes) {
        actual if actual == descriptor.digest => Ok(bytes),
        actual => Err(ImportError::Digest { path, actual }),
    }
}

fn put_layer(import: &mut Import<'_>, archive: &impl Archive, layer: &Descriptor) -> Result<(), ImportError> {
    if import.store.has_blob(&layer.digest) {
        return Ok(());
    }
    let path = path(&layer.digest);
    let stream = archive.open(&path)?.ok_or_else(|| ImportError::Missing(path.clone()))?;
    let (actual, _) = import.put(stream)?;
    if actual != layer.digest {
        return Err(ImportError::Digest { path, actual });
    }
    Ok(())
}

fn path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}
