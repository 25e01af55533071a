//! Stores and images made for a test.

use std::{
    collections::BTreeMap,
    fs,
    future::Future,
    io::Write,
    path::{Path, PathBuf},
};

use pod_image::{
    Compression, Digest, Image, ImportOptions, ImportSource, PackSpec, Platform, PullError, PullOptions, PushOptions,
    Reference, Silent, Store, import, pack, pull, push,
};
use serde_json::json;

pub(crate) struct World {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) store: Store,
}

impl World {
    pub(crate) fn new() -> World {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store")).unwrap();
        World { directory, store }
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.directory.path().join(below)
    }

    /// An image with one file, `/data`.
    pub(crate) fn pack(&self, name: &str, data: &[u8], compression: Compression) -> Image {
        fs::write(self.path("data"), data).unwrap();
        let mut spec = PackSpec::new(reference(name));
        spec.files = vec![(self.path("data"), "/data".to_owned())];
        spec.cmd = vec!["/data".to_owned()];
        spec.compression = compression;
        pack(&self.store, &spec).unwrap()
    }

    pub(crate) fn push(&self, name: &str) -> Digest {
        let name = reference(name);
        run(push(&self.store, &name, &name, &PushOptions::default(), &Silent)).unwrap()
    }

    pub(crate) fn pull(&self, name: &str) -> Result<Image, PullError> {
        self.pull_with(name, &PullOptions::default())
    }

    pub(crate) fn pull_with(&self, name: &str, options: &PullOptions) -> Result<Image, PullError> {
        run(pull(&self.store, &reference(name), options, &Silent))
    }

    /// Blobs, layers, downloads, half-made things.
    pub(crate) fn counts(&self) -> [usize; 4] {
        ["blobs/sha256", "layers", "ingest", "staging"]
            .map(|directory| fs::read_dir(self.store.root().join(directory)).unwrap().count())
    }

    pub(crate) fn import(&self, path: &Path, name: Option<&str>) -> Vec<Image> {
        let options = ImportOptions { name: name.map(reference), ..ImportOptions::default() };
        import(&self.store, ImportSource::Path(path), &options).unwrap()
    }
}

pub(crate) fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

/// As in the engine: one thread, and a pool for what blocks.
pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Bytes that do not compress, the same each time.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..length).map(|_| next()).collect()
}

pub(crate) fn compress(tar: &[u8], compression: Compression) -> (Vec<u8>, &'static str) {
    match compression {
        Compression::None => (tar.to_vec(), "application/vnd.oci.image.layer.v1.tar"),
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(tar).unwrap();
            (encoder.finish().unwrap(), "application/vnd.oci.image.layer.v1.tar+gzip")
        }
        Compression::Zstd => (zstd::encode_all(tar, 1).unwrap(), "application/vnd.oci.image.layer.v1.tar+zstd"),
    }
}

/// Writes OCI layouts by hand, so that the code under test reads what it has not written.
pub(crate) struct Layout(pub(crate) PathBuf);

impl Layout {
    pub(crate) fn new(path: PathBuf) -> Layout {
        fs::create_dir_all(path.join("blobs/sha256")).unwrap();
        fs::write(path.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        Layout(path)
    }

    pub(crate) fn blob(&self, media_type: &str, bytes: &[u8]) -> serde_json::Value {
        let digest = Digest::of(bytes);
        fs::write(self.0.join("blobs/sha256").join(digest.hex()), bytes).unwrap();
        json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    }

    /// A manifest of these layers for `platform`; its descriptor.
    pub(crate) fn image(&self, layers: &[(&[u8], Compression)], platform: &Platform) -> serde_json::Value {
        let diff_ids: Vec<Digest> = layers.iter().map(|(tar, _)| Digest::of(tar)).collect();
        let config = json!({
            "os": platform.os, "architecture": platform.architecture, "config": {"Cmd": ["/bin/true"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids}
        });
        let config = self.blob("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
        let layers: Vec<_> = layers
            .iter()
            .map(|(tar, compression)| {
                let (bytes, media_type) = compress(tar, *compression);
                self.blob(media_type, &bytes)
            })
            .collect();
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers});
        let mut descriptor = self.blob(media_type, manifest.to_string().as_bytes());
        descriptor["platform"] = json!({"os": platform.os, "architecture": platform.architecture});
        descriptor
    }

    pub(crate) fn index(&self, mut entry: serde_json::Value, tag: &str) {
        entry["annotations"] = json!(BTreeMap::from([("org.opencontainers.image.ref.name", tag)]));
        let index = json!({"schemaVersion": 2, "manifests": [entry]});
        fs::write(self.0.join("index.json"), index.to_string()).unwrap();
    }
}
