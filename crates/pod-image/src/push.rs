//! Pushing: the blobs a registry lacks, then the manifest, byte for byte as it is in the store.

use std::{
    io::{self, Read},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use oci_client::{RegistryOperation, errors::OciDistributionError};
use tokio::{sync::mpsc, task::spawn_blocking};

use crate::{
    credentials::Credentials,
    digest::Digest,
    manifest::{Descriptor, MAX_MANIFEST},
    progress::{Progress, PullProgress},
    reference::Reference,
    registry::{Connection, Registries, RegistriesError, RegistryError},
    store::{Lease, Store, StoreError},
};

const PARALLEL: usize = 2;
const CHUNK: usize = 64 << 10;
const QUEUE: usize = 16;
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// How to push.
#[derive(Debug, Clone, Default)]
pub struct PushOptions {
    pub auth: Credentials,
    /// Registries (`host:port`) to speak plain HTTP with. Those on the loopback are so anyway.
    pub insecure: Vec<String>,
    /// Its mirrors play no part here.
    pub registries: Registries,
}

/// Why an image could not be pushed.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    #[error("image `{0}` is not in the store")]
    NotFound(String),
    #[error("`{0}` cannot be pushed to: it names a digest")]
    Digest(String),
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error("registry configuration is unusable")]
    Configuration { source: RegistriesError },
    #[error("failed to read `{reference}` from the store")]
    Store { reference: String, source: StoreError },
    #[error("pushing `{reference}` was interrupted")]
    Interrupted { reference: String },
}

impl PushError {
    /// What the person in front of it can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            PushError::Registry(error) => error.hint(),
            PushError::Store { source: StoreError::MissingBlob(_), .. } => Some(
                "the layer came with another image and was not kept compressed: remove both and pull again".to_owned(),
            ),
            _ => None,
        }
    }
}

/// Pushes the image `source` of the store as `destination`; returns the manifest's digest.
pub async fn push(
    store: &Store,
    source: &Reference,
    destination: &Reference,
    options: &PushOptions,
    progress: &dyn Progress,
) -> Result<Digest, PushError> {
    let shown = source.to_string();
    if destination.digest().is_some() {
        return Err(PushError::Digest(destination.to_string()));
    }
    if destination.is_builtin() {
        return Err(RegistryError::Builtin(destination.to_string()).into());
    }
    let endpoint = options.registries.upstream(destination, &options.insecure);
    let endpoint = endpoint.map_err(|source| PushError::Configuration { source })?;

    let (reading, wanted) = (store.clone(), source.clone());
    let read = spawn_blocking(move || -> Result<_, StoreError> {
        let lease = reading.lease()?;
        let Some(image) = reading.lookup(&wanted)? else { return Ok(None) };
        let (manifest, _) = reading.read_manifest(&image.digest)?;
        let bytes = reading.read_blob(&image.digest, MAX_MANIFEST)?;
        Ok(Some((Arc::new(lease), image.digest, manifest, bytes)))
    });
    let read = read.await.map_err(|_| PushError::Interrupted { reference: shown.clone() })?;
    let read = read.map_err(|source| PushError::Store { reference: shown.clone(), source })?;
    let (lease, digest, manifest, bytes) = read.ok_or_else(|| PushError::NotFound(shown.clone()))?;

    progress.event(PullProgress::Resolving { reference: destination.to_string(), registry: endpoint.shown() });
    let connection = Connection::open(&endpoint, destination, &options.auth, RegistryOperation::Push).await?;
    let job = Job { store, connection: &connection, lease, progress, shown: &shown };
    let mut blobs: Vec<&Descriptor> = std::iter::once(&manifest.config).chain(&manifest.layers).collect();
    blobs.sort_by_key(|blob| &blob.digest);
    blobs.dedup_by_key(|blob| &blob.digest);
    stream::iter(blobs).map(|blob| job.blob(blob)).buffer_unordered(PARALLEL).try_collect::<()>().await?;

    let media_type = manifest.media_type.parse().map_err(|_| {
        let status = "no valid media type".to_owned();
        RegistryError::Answer { registry: endpoint.shown(), status, message: manifest.media_type.clone() }
    })?;
    let sent = connection.client.push_manifest_raw(&connection.wire, bytes, media_type).await;
    sent.map_err(|error| connection.explain(error))?;
    progress.event(PullProgress::Done { reference: destination.to_string(), digest: digest.to_string() });
    Ok(digest)
}

struct Job<'a> {
    store: &'a Store,
    connection: &'a Connection,
    lease: Arc<Lease>,
    progress: &'a dyn Progress,
    shown: &'a str,
}

impl Job<'_> {
    async fn blob(&self, blob: &Descriptor) -> Result<(), PushError> {
        let Connection { client, wire, .. } = self.connection;
        let digest = blob.digest.to_string();
        let report = |done| {
            self.progress.event(PullProgress::Layer { digest: digest.clone(), total: blob.size, done });
        };
        let explain = |error| PushError::from(self.connection.explain(error));
        if client.blob_exists(wire, &digest).await.map_err(explain)? {
            report(blob.size);
            return Ok(());
        }

        let file = self.store.open_blob(&blob.digest);
        let mut file = file.map_err(|source| PushError::Store { reference: self.shown.to_owned(), source })?;
        let (queue, chunks) = mpsc::channel::<io::Result<Bytes>>(QUEUE);
        let lease = self.lease.clone();
        // Ends by itself when the other end of the queue is dropped.
        spawn_blocking(move || {
            let _lease = lease;
            loop {
                let mut chunk = vec![0; CHUNK];
                let item = match file.read(&mut chunk) {
                    Ok(0) => return,
                    Ok(read) => {
                        chunk.truncate(read);
                        Ok(Bytes::from(chunk))
                    }
                    Err(error) => Err(error),
                };
                let failed = item.is_err();
                if queue.blocking_send(item).is_err() || failed {
                    return;
                }
            }
        });
        let sent = Arc::new(AtomicU64::new(0));
        let counter = sent.clone();
        let body = stream::unfold(chunks, |mut chunks| async { chunks.recv().await.map(|chunk| (chunk, chunks)) });
        let body = body.map(move |chunk| {
            if let Ok(chunk) = &chunk {
                counter.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            }
            chunk.map_err(OciDistributionError::from)
        });

        let upload = client.push_blob_stream(wire, body, &digest, Some(blob.size));
        let mut upload = std::pin::pin!(upload);
        let mut ticks = tokio::time::interval(PROGRESS_INTERVAL);
        loop {
            tokio::select! {
                result = &mut upload => {
                    result.map_err(explain)?;
                    report(blob.size);
                    return Ok(());
                }
                // Cancel-safe: a missed tick is no loss.
                _ = ticks.tick() => report(sent.load(Ordering::Relaxed)),
            }
        }
    }
}
