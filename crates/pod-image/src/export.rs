//! Saving images as one tar that is an OCI layout and, by one more file, what `docker load` of any age reads.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write},
};

use serde::Serialize;

use crate::{
    manifest::{Descriptor, Index, OCI_INDEX},
    reference::Reference,
    store::{Store, StoreError},
};

/// What containerd and Docker call an image in an OCI layout.
pub(crate) const NAME_ANNOTATION: &str = "io.containerd.image.name";
/// image-spec's, which most tools fill with the tag only.
pub(crate) const REF_NAME_ANNOTATION: &str = "org.opencontainers.image.ref.name";

/// Why images could not be saved.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error("image `{0}` is not in the store")]
    NotFound(String),
    #[error("failed to write the archive")]
    Write { source: io::Error },
    #[error("failed to read `{reference}` from the store")]
    Store { reference: String, source: StoreError },
}

/// An entry of `docker save`'s `manifest.json`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEntry {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

/// Writes the images with all their blobs to `output`, the same bytes for the same images. Blocks.
///
/// # Errors
/// Also when a layer's blob was never transferred because an image with another compression of it was here first.
pub fn export(store: &Store, references: &[Reference], output: impl Write) -> Result<(), ExportError> {
    let mut index = Index { schema_version: 2, media_type: OCI_INDEX.to_owned(), manifests: Vec::new() };
    let mut docker = Vec::new();
    let mut blobs = BTreeSet::new();
    let inside = |hex: &str| format!("blobs/sha256/{hex}");
    let first = references.first().map(Reference::to_string).unwrap_or_default();
    let lost = |reference: &str| {
        let reference = reference.to_owned();
        move |source| ExportError::Store { reference, source }
    };
    let _lease = store.lease().map_err(lost(&first))?;
    for reference in references {
        let shown = reference.to_string();
        let image = store.lookup(reference).map_err(lost(&shown))?;
        let image = image.ok_or_else(|| ExportError::NotFound(shown.clone()))?;
        let (manifest, config) = store.read_manifest(&image.digest).map_err(lost(&shown))?;
        let length = store.blob_length(&image.digest).map_err(lost(&shown))?;
        blobs.insert(image.digest.clone());
        blobs.extend(manifest.blobs());
        let mut entry = Descriptor::new(&manifest.media_type, image.digest, length);
        entry.platform = config.platform();
        entry.annotations = BTreeMap::from([(NAME_ANNOTATION.to_owned(), shown.clone())]);
        entry.annotations.extend(reference.tag().map(|tag| (REF_NAME_ANNOTATION.to_owned(), tag.to_owned())));
        index.manifests.push(entry);
        docker.push(DockerEntry {
            config: inside(manifest.config.digest.hex()),
            repo_tags: if reference.digest().is_none() { vec![shown] } else { Vec::new() },
            layers: manifest.layers.iter().map(|layer| inside(layer.digest.hex())).collect(),
        });
    }

    let fail = |source| ExportError::Write { source };
    let mut tar = tar::Builder::new(output);
    for directory in ["blobs/", "blobs/sha256/"] {
        let mut header = header(tar::EntryType::Directory, 0o755, 0);
        tar.append_data(&mut header, directory, io::empty()).map_err(fail)?;
    }
    for digest in &blobs {
        let file = store.open_blob(digest).map_err(lost(&first))?;
        let length = store.blob_length(digest).map_err(lost(&first))?;
        let mut header = header(tar::EntryType::Regular, 0o644, length);
        tar.append_data(&mut header, inside(digest.hex()), file).map_err(fail)?;
    }
    let mut document = |name: &str, bytes: Vec<u8>| {
        let mut header = header(tar::EntryType::Regular, 0o644, bytes.len() as u64);
        tar.append_data(&mut header, name, bytes.as_slice()).map_err(fail)
    };
    let json = |value: serde_json::Result<Vec<u8>>| value.map_err(|error| fail(error.into()));
    document("index.json", json(serde_json::to_vec(&index))?)?;
    document("manifest.json", json(serde_json::to_vec(&docker))?)?;
    document("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec())?;
    tar.into_inner().and_then(|mut output| output.flush()).map_err(fail)
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header
}
