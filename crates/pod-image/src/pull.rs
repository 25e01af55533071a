//! Pulling: reference → registry → verified blobs → unpacked layers → a name in the store.
//!
//! ```text
//! for each endpoint (mirrors, then the registry):
//!   manifest ─(index? select platform)─▶ config ─▶ layers, three at a time: download ▶ verify ▶ unpack
//! all there ─▶ commit: the name appears
//! ```
//!
//! Nothing unverified is ever decompressed or parsed beyond the manifest: a layer is unpacked only when its bytes have
//! the digest they should. Downloads go to disk as they come; memory does not depend on the image. The future may be
//! dropped at any moment: blocking work stops soon after, and what was downloaded serves the next try.

use std::{
    collections::BTreeSet,
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use oci_client::{RegistryOperation, client::BlobResponse, client::LayerDescriptor};
use tokio::{sync::mpsc, task::spawn_blocking};

use crate::{
    credentials::Credentials,
    digest::Digest,
    manifest::{ConfigFile, Descriptor, Document, MAX_CONFIG, MAX_MANIFEST, Manifest, ManifestError},
    platform::Platform,
    progress::{Progress, PullProgress},
    reference::Reference,
    registry::{Connection, Endpoint, Registries, RegistriesError, RegistryError},
    store::{BlobWriter, Image, Ingest, Lease, Staged, Store, StoreError},
    unpack::Limits,
};

/// Layers in work at once. More gain nothing on the links and cores we saw and are rude to registries.
const PARALLEL: usize = 3;
/// Times that a download is begun without getting further.
const ATTEMPTS: usize = 4;
const RETRY_PAUSE: Duration = Duration::from_millis(300);
/// How often to look whether another process has finished the download that we want too.
const WAIT_FOR_OTHER: Duration = Duration::from_millis(50);
/// Chunks between network and disk.
const QUEUE: usize = 32;
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// How to pull.
#[derive(Debug, Clone)]
pub struct PullOptions {
    pub auth: Credentials,
    /// Registries (`host:port`) to speak plain HTTP with. Those on the loopback are so anyway.
    pub insecure: Vec<String>,
    /// Mirrors and more; see [`Registries::load`].
    pub registries: Registries,
    pub platform: Platform,
}

impl Default for PullOptions {
    fn default() -> Self {
        PullOptions {
            auth: Credentials::default(),
            insecure: Vec::new(),
            registries: Registries::default(),
            platform: Platform::host(),
        }
    }
}

/// Why an image could not be pulled. The name means what it meant before.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error("registry configuration is unusable")]
    Configuration { source: RegistriesError },
    #[error("`{reference}` has no image for {wanted}, only for {}", .offered.join(", "))]
    NoMatchingPlatform { reference: String, wanted: String, offered: Vec<String> },
    #[error("`{reference}` cannot be used")]
    Manifest { reference: String, source: ManifestError },
    #[error("blob {digest} of `{reference}` is {size} bytes, more than the {limit} allowed")]
    TooLarge { reference: String, digest: Digest, size: u64, limit: u64 },
    #[error("disk full while pulling `{reference}`")]
    DiskFull { reference: String, source: StoreError },
    #[error("failed to store `{reference}`")]
    Store { reference: String, source: StoreError },
    #[error("pulling `{reference}` was interrupted")]
    Interrupted { reference: String },
}

impl PullError {
    /// Whether the image itself is wrong, rather than the way to it.
    fn is_content(&self) -> bool {
        match self {
            PullError::Registry(error) => matches!(error, RegistryError::DigestMismatch { .. }),
            PullError::Store { source, .. } => source.is_content(),
            PullError::Manifest { .. } | PullError::NoMatchingPlatform { .. } | PullError::TooLarge { .. } => true,
            _ => false,
        }
    }

    /// What the person in front of it can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            PullError::Registry(error) => error.hint(),
            PullError::DiskFull { .. } => Some("remove images that are not needed, or move the store".to_owned()),
            PullError::NoMatchingPlatform { .. } => Some("ask the publisher for an image of this platform".to_owned()),
            _ => None,
        }
    }
}

/// Pulls `reference` into the store, whether it is there or not; what is there already is not transferred again.
///
/// Runs on a current-thread runtime as well: all that blocks goes to the blocking pool.
pub async fn pull(
    store: &Store,
    reference: &Reference,
    options: &PullOptions,
    progress: &dyn Progress,
) -> Result<Image, PullError> {
    if reference.is_builtin() {
        return Err(RegistryError::Builtin(reference.to_string()).into());
    }
    let endpoints = options.registries.endpoints(reference, &options.insecure);
    let endpoints = endpoints.map_err(|source| PullError::Configuration { source })?;
    let job = Job::begin(store, reference, options, progress).await?;
    let mut failure = None;
    let mut touched = Vec::new();
    for (position, endpoint) in endpoints.iter().enumerate() {
        match job.pull_from(endpoint, &mut touched).await {
            Ok(image) => {
                let digest = image.digest.to_string();
                progress.event(PullProgress::Done { reference: reference.to_string(), digest });
                return Ok(image);
            }
            // Another registry may do better, except at what is wrong here.
            Err(error @ (PullError::DiskFull { .. } | PullError::Interrupted { .. })) => return Err(error),
            // The registry itself comes last and has the last word.
            Err(error) => {
                if position + 1 < endpoints.len() {
                    let (registry, message) = (endpoint.shown(), with_causes(&error));
                    progress.event(PullProgress::MirrorFailed { registry, message });
                }
                failure = Some(error);
            }
        }
    }
    let failure = failure.unwrap_or_else(|| job.interrupted());
    drop(job);
    if failure.is_content() {
        // The image will never be, and its other blobs are of no use. Not so after a broken connection.
        forget(store, touched).await;
    }
    Err(failure)
}

fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

/// Waits a little for the blocking work of the failed pull to notice that it is over.
async fn forget(store: &Store, blobs: Vec<Digest>) {
    const TRIES: usize = 40;
    for _ in 0..TRIES {
        let (store, blobs) = (store.clone(), blobs.clone());
        // What cannot be removed now is left to the collector: the failure to tell is that of the pull.
        match spawn_blocking(move || store.forget(&blobs)).await {
            Ok(Ok(false)) => tokio::time::sleep(WAIT_FOR_OTHER).await,
            _ => return,
        }
    }
}

/// What all steps of one pull share.
struct Job<'a> {
    store: &'a Store,
    reference: &'a Reference,
    options: &'a PullOptions,
    progress: &'a dyn Progress,
    lease: Arc<Lease>,
    cancel: CancelOnDrop,
}

/// Blocking work cannot be dropped; it looks here now and then.
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl<'a> Job<'a> {
    async fn begin(
        store: &'a Store,
        reference: &'a Reference,
        options: &'a PullOptions,
        progress: &'a dyn Progress,
    ) -> Result<Job<'a>, PullError> {
        let leasing = store.clone();
        let fail = |source| PullError::Store { reference: reference.to_string(), source };
        let lease = spawn_blocking(move || leasing.lease()).await;
        let lease = lease.map_err(|_| PullError::Interrupted { reference: reference.to_string() })?.map_err(fail)?;
        let cancel = CancelOnDrop(Arc::new(AtomicBool::new(false)));
        Ok(Job { store, reference, options, progress, lease: Arc::new(lease), cancel })
    }

    /// `touched` gathers the blobs that may have been brought in.
    async fn pull_from(&self, endpoint: &Endpoint, touched: &mut Vec<Digest>) -> Result<Image, PullError> {
        self.progress
            .event(PullProgress::Resolving { reference: self.reference.to_string(), registry: endpoint.shown() });
        let connection =
            Connection::open(endpoint, self.reference, &self.options.auth, RegistryOperation::Pull).await?;
        let resolved = self.resolve(&connection).await?;
        touched.extend(resolved.manifest.blobs());
        self.fetch(&connection, &resolved).await
    }

    /// Manifest of this platform, and what the name meant.
    async fn resolve(&self, connection: &Connection) -> Result<Resolved, PullError> {
        // An index may hold an index; deeper than that is nonsense.
        const DEPTH: usize = 2;
        let (mut bytes, target) = connection.manifest().await?;
        let mut digest = target.clone();
        for _ in 0..=DEPTH {
            if bytes.len() as u64 > MAX_MANIFEST {
                return Err(self.too_large(&digest, bytes.len() as u64, MAX_MANIFEST));
            }
            match Document::parse(&bytes).map_err(|source| self.bad_manifest(source))? {
                Document::Manifest(manifest) => return Ok(Resolved { manifest, bytes, digest, target }),
                Document::Index(index) => {
                    let selected =
                        index.select(&self.options.platform).ok_or_else(|| PullError::NoMatchingPlatform {
                            reference: self.reference.to_string(),
                            wanted: self.options.platform.to_string(),
                            offered: index.platforms(),
                        })?;
                    (bytes, digest) = connection.manifest_at(&selected.digest).await?;
                }
            }
        }
        Err(self.bad_manifest(ManifestError::Ambiguous))
    }

    async fn fetch(&self, connection: &Connection, resolved: &Resolved) -> Result<Image, PullError> {
        let manifest = &resolved.manifest;
        self.download(connection, &manifest.config, MAX_CONFIG).await?;
        let config = self.read_config(manifest).await?;
        if let Some(offered) = config.platform()
            && self.options.platform.rank(&offered).is_none()
        {
            return Err(PullError::NoMatchingPlatform {
                reference: self.reference.to_string(),
                wanted: self.options.platform.to_string(),
                offered: vec![offered.to_string()],
            });
        }

        // Images do hold a layer twice, an empty one mostly.
        let mut seen = BTreeSet::new();
        let layers = manifest.layers.iter().zip(&config.rootfs.diff_ids).filter(|(_, diff_id)| seen.insert(*diff_id));
        let staged: Vec<Option<Staged>> = stream::iter(layers)
            .map(|(layer, diff_id)| self.layer(connection, layer, diff_id))
            .buffer_unordered(PARALLEL)
            .try_collect()
            .await?;

        let (store, lease) = (self.store.clone(), self.lease.clone());
        let (bytes, digest, target) = (resolved.bytes.clone(), resolved.digest.clone(), resolved.target.clone());
        let name = self.reference.clone();
        self.blocking(move || {
            store.put_blob(&lease, &bytes)?;
            store.commit(&lease, &digest, &target, &[name], staged.into_iter().flatten().collect())
        })
        .await
    }

    async fn layer(
        &self,
        connection: &Connection,
        layer: &Descriptor,
        diff_id: &Digest,
    ) -> Result<Option<Staged>, PullError> {
        if self.store.has_layer(diff_id) {
            self.progress.event(PullProgress::Layer {
                digest: layer.digest.to_string(),
                total: layer.size,
                done: layer.size,
            });
            return Ok(None);
        }
        self.download(connection, layer, Limits::default().bytes).await?;
        self.progress.event(PullProgress::Extracting { digest: layer.digest.to_string() });
        let (store, lease, cancel) = (self.store.clone(), self.lease.clone(), self.cancel.0.clone());
        let (blob, diff_id) = (layer.digest.clone(), diff_id.clone());
        self.blocking(move || store.unpack_layer(&lease, &blob, &diff_id, &cancel)).await.map(Some)
    }

    /// Brings a blob into the store, taking up an earlier download where it was cut off.
    async fn download(&self, connection: &Connection, blob: &Descriptor, limit: u64) -> Result<(), PullError> {
        if blob.size > limit {
            return Err(self.too_large(&blob.digest, blob.size, limit));
        }
        let report = |done| PullProgress::Layer { digest: blob.digest.to_string(), total: blob.size, done };
        let (mut failures, mut reached) = (0, 0);
        loop {
            let Some(mut writer) = self.ingest(&blob.digest).await? else {
                self.progress.event(report(blob.size));
                return Ok(());
            };
            // A bad line that still brings something is worth any number of tries.
            if writer.done() > reached {
                (failures, reached) = (0, writer.done());
            }
            if writer.done() > blob.size {
                writer.restart().map_err(|source| self.storing(source))?;
            }
            if writer.done() < blob.size || blob.size == 0 {
                let result = self.transfer(connection, blob, writer, &report).await;
                writer = match result {
                    Ok(writer) => writer,
                    Err(PullError::Registry(error)) if error.is_transient() && failures + 1 < ATTEMPTS => {
                        failures += 1;
                        tokio::time::sleep(RETRY_PAUSE).await;
                        continue;
                    }
                    Err(error) => return Err(error),
                };
            }
            self.progress.event(report(blob.size));
            let lease = self.lease.clone();
            let finish = move || {
                let _lease = lease;
                writer.finish()
            };
            return match self.blocking(finish).await {
                Err(PullError::Store { source: StoreError::Digest { expected, actual }, .. }) => {
                    Err(connection.explain_digest_mismatch(&expected, &actual).into())
                }
                other => other,
            };
        }
    }

    /// Our turn to download, or `None` when the blob is here.
    async fn ingest(&self, digest: &Digest) -> Result<Option<BlobWriter>, PullError> {
        loop {
            let (store, lease, wanted) = (self.store.clone(), self.lease.clone(), digest.clone());
            match self.blocking(move || store.try_ingest(&lease, &wanted)).await? {
                Some(Ingest::Present) => return Ok(None),
                Some(Ingest::Partial(writer)) => return Ok(Some(*writer)),
                None => tokio::time::sleep(WAIT_FOR_OTHER).await,
            }
        }
    }

    /// Moves bytes from the network to the writer, which lives on a blocking thread meanwhile.
    async fn transfer(
        &self,
        connection: &Connection,
        blob: &Descriptor,
        mut writer: BlobWriter,
        report: &impl Fn(u64) -> PullProgress,
    ) -> Result<BlobWriter, PullError> {
        let digest = blob.digest.to_string();
        let layer = LayerDescriptor { digest: &digest, urls: &None };
        let client = &connection.client;
        let explain = |error| PullError::from(connection.explain(error));
        let mut stream = if writer.done() == 0 {
            client.pull_blob_stream(&connection.wire, &layer).await.map_err(explain)?
        } else {
            match client
                .pull_blob_stream_partial(&connection.wire, &layer, writer.done(), None)
                .await
                .map_err(explain)?
            {
                BlobResponse::Partial(stream) => stream,
                // The registry does not know ranges and begins at the beginning.
                BlobResponse::Full(stream) => {
                    writer.restart().map_err(|source| self.storing(source))?;
                    stream
                }
            }
        };

        let mut done = writer.done();
        let (queue, mut chunks) = mpsc::channel::<Bytes>(QUEUE);
        let lease = self.lease.clone();
        let writing = spawn_blocking(move || {
            let _lease = lease;
            while let Some(chunk) = chunks.blocking_recv() {
                writer.write(&chunk)?;
            }
            Ok(writer)
        });
        let mut reported: Option<Instant> = None;
        let mut failure = None;
        while done < blob.size || blob.size == 0 {
            let chunk = match stream.next().await {
                Some(Ok(chunk)) => chunk,
                Some(Err(error)) => {
                    failure = Some(connection.explain_stream(error));
                    break;
                }
                None if blob.size == 0 => break,
                None => {
                    let error = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
                    failure = Some(connection.explain_stream(error));
                    break;
                }
            };
            done += chunk.len() as u64;
            if queue.send(chunk).await.is_err() {
                // The writer has failed; its result says how.
                break;
            }
            if done > blob.size {
                break;
            }
            if reported.is_none_or(|at| at.elapsed() >= PROGRESS_INTERVAL) {
                reported = Some(Instant::now());
                self.progress.event(report(done));
            }
        }
        drop(queue);
        let writer = writing.await.map_err(|_| self.interrupted())?.map_err(|source| self.storing(source))?;
        match failure {
            Some(error) => {
                // Content that is provably wrong must not be taken up again.
                if let RegistryError::DigestMismatch { .. } = &error {
                    writer.discard().map_err(|source| self.storing(source))?;
                }
                Err(error.into())
            }
            None => Ok(writer),
        }
    }

    async fn read_config(&self, manifest: &Manifest) -> Result<ConfigFile, PullError> {
        let (store, digest) = (self.store.clone(), manifest.config.digest.clone());
        let bytes = self.blocking(move || store.read_blob(&digest, MAX_CONFIG)).await?;
        ConfigFile::parse(&bytes, manifest.layers.len()).map_err(|source| self.bad_manifest(source))
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, PullError> {
        spawn_blocking(work).await.map_err(|_| self.interrupted())?.map_err(|source| self.storing(source))
    }

    fn storing(&self, source: StoreError) -> PullError {
        let reference = self.reference.to_string();
        if source.is_disk_full() {
            PullError::DiskFull { reference, source }
        } else {
            PullError::Store { reference, source }
        }
    }

    fn bad_manifest(&self, source: ManifestError) -> PullError {
        PullError::Manifest { reference: self.reference.to_string(), source }
    }

    fn too_large(&self, digest: &Digest, size: u64, limit: u64) -> PullError {
        PullError::TooLarge { reference: self.reference.to_string(), digest: digest.clone(), size, limit }
    }

    fn interrupted(&self) -> PullError {
        PullError::Interrupted { reference: self.reference.to_string() }
    }
}

/// What the registry says the reference is.
struct Resolved {
    manifest: Manifest,
    bytes: Vec<u8>,
    digest: Digest,
    target: Digest,
}
