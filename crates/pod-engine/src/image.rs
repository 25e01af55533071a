//! `EnsureImage`: the image in the store by its pull policy, or, offline, the host's userland in its place.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Instant;

use k8s_openapi::api::core::v1::Volume;
use pod_image::{Builtin, HostUserland, Image, ImageConfig, Lease, PullOptions, Reference};
use pod_plan::{Event, Pulled};
use serde::{Deserialize, Serialize};

use crate::engine::Context;
use crate::feed::News;
use crate::running::Running;
use crate::{blocking, chain};

/// What a container starts from, or an `image` volume shows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ReadyImage {
    /// Overlay layers, topmost first.
    pub(crate) layers: Vec<PathBuf>,
    pub(crate) config: ImageConfig,
    /// Host directories bound read-only over the layers (host userland only).
    pub(crate) binds: Vec<(PathBuf, String)>,
    /// Keeps the layers from being collected until they are mounted.
    #[serde(skip)]
    _lease: Option<Rc<Lease>>,
}

/// A waiting reason of the API with its message.
struct Refusal {
    reason: &'static str,
    message: String,
}

/// What a look into the store found; nothing of it goes while the lease is held.
struct Found {
    image: Image,
    lease: Lease,
}

pub(crate) async fn ensure(running: &Rc<Running>, container: String) -> Event {
    match try_ensure(running, &container).await {
        Ok(event) => event,
        Err(Refusal { reason, message }) => Event::ImageFailed { container, reason: reason.into(), message },
    }
}

async fn try_ensure(running: &Rc<Running>, container: &str) -> Result<Event, Refusal> {
    let Some(spec) = running.container(container) else {
        return Err(Refusal { reason: "InvalidImageName", message: "the container is gone from the manifest".into() });
    };
    let name = spec.image.unwrap_or_default();
    let reference = name.parse::<Reference>().map_err(|error| Refusal {
        reason: "InvalidImageName",
        message: format!("Failed to apply default image tag \"{name}\": couldn't parse image name \"{name}\": {error}"),
    })?;
    if reference.is_builtin() {
        return builtin(running, container, reference).await;
    }
    let offline = running.record().offline;
    let always = spec.image_pull_policy.as_deref() == Some("Always") && !offline;
    if !always && let Some(found) = look_up(running, &reference).await? {
        return Ok(ready(running, container, found, None));
    }
    if spec.image_pull_policy.as_deref() == Some("Never") {
        return Err(Refusal {
            reason: "ErrImageNeverPull",
            message: format!("Container image \"{name}\" is not present with pull policy of Never"),
        });
    }
    if offline {
        return host_userland(running, container).await;
    }
    tokio::select! {
        outcome = pull_in_turn(running, container, &name, &reference, always) => outcome,
        // A pull does not outlive its pod; what it has loaded is kept for the next one.
        () = running.ended() => {
            Err(Refusal { reason: "ErrImagePull", message: "the pod is being stopped".into() })
        }
    }
}

async fn pull_in_turn(
    running: &Rc<Running>,
    container: &str,
    name: &str,
    reference: &Reference,
    always: bool,
) -> Result<Event, Refusal> {
    let asked = Instant::now();
    let queue = Queue::of(&running.cx, reference);
    let _turn = queue.turn.lock().await;
    // Who waited finds it in the store.
    if !always && let Some(found) = look_up(running, reference).await? {
        return Ok(ready(running, container, found, None));
    }
    let began = Instant::now();
    running.tell(Event::Pulling { container: container.into() });
    pull(running, container, name, reference).await?;
    let pulled = |size| Pulled { took_ms: millis(began), took_with_wait_ms: millis(asked), size };
    match look_up(running, reference).await? {
        Some(found) => {
            let pulled = pulled(found.image.size);
            Ok(ready(running, container, found, Some(pulled)))
        }
        None => Err(Refusal {
            reason: "ErrImagePull",
            message: format!("failed to pull image \"{name}\": it was removed at once"),
        }),
    }
}

/// Not on the engine's thread: a layer may have to be unpacked again, a collection may be under way.
async fn look_up(running: &Rc<Running>, reference: &Reference) -> Result<Option<Found>, Refusal> {
    let (store, wanted) = (running.cx.store.clone(), reference.clone());
    let found = blocking(move || {
        let lease = store.lease().map_err(|error| chain(&error))?;
        let image = store.lookup(&wanted).map_err(|error| chain(&error))?;
        Ok(image.map(|image| Found { image, lease }))
    });
    found.await.map_err(|cause| Refusal {
        reason: "ImageInspectError",
        message: format!("Failed to inspect image \"{reference}\": {cause}"),
    })
}

async fn pull(running: &Rc<Running>, container: &str, name: &str, reference: &Reference) -> Result<(), Refusal> {
    // Progress comes from worker threads; the feed lives on this one.
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let listener = {
        let (running, container, image) = (running.clone(), container.to_owned(), name.to_owned());
        tokio::task::spawn_local(async move {
            while let Some(progress) = receiver.recv().await {
                running.news(News::Pull { container: container.clone(), image: image.clone(), progress });
            }
        })
    };
    let progress = move |event: pod_image::PullProgress| {
        let _ = sender.send(event);
    };
    let result = pull_quietly(running, reference, &progress).await;
    drop(progress);
    let _ = listener.await;
    result.map_err(|cause| Refusal {
        reason: "ErrImagePull",
        message: format!("failed to pull image \"{name}\": {cause}"),
    })
}

async fn pull_quietly(
    running: &Rc<Running>,
    reference: &Reference,
    progress: &dyn pod_image::Progress,
) -> Result<(), String> {
    let store = &running.cx.store;
    // Read for each pull: credentials and mirrors may have been written since the engine started.
    let auth = pod_image::Credentials::load().map_err(|e| chain(&e))?;
    let registries = pod_image::Registries::load(store.root()).map_err(|e| chain(&e))?;
    let options = PullOptions { auth, registries, ..PullOptions::default() };
    pod_image::pull(store, reference, &options, progress).await.map(drop).map_err(|error| match error.hint() {
        Some(hint) => format!("{} ({hint})", chain(&error)),
        None => chain(&error),
    })
}

/// The program beside our own; no pull policy concerns it.
async fn builtin(running: &Rc<Running>, container: &str, reference: Reference) -> Result<Event, Refusal> {
    let image = find_builtin(&running.cx, reference).await;
    let image = image.map_err(|message| Refusal { reason: "ErrImageNeverPull", message })?;
    let image_id = image.id.clone();
    running.remember_image(container, ReadyImage::of_builtin(image));
    Ok(Event::ImageReady { container: container.into(), image_id, pulled: None, host_userland: false })
}

async fn find_builtin(cx: &Rc<Context>, reference: Reference) -> Result<Builtin, String> {
    let dir = cx.config.roots.data.join("builtin");
    blocking(move || {
        let engine =
            std::env::current_exe().map_err(|error| format!("failed to find the engine's program: {error}"))?;
        let programs = engine.parent().unwrap_or(Path::new("/"));
        pod_image::builtin(&dir, programs, &reference).map_err(|error| chain(&error))
    })
    .await
}

/// The image that is not there is stood in for by the host's own programs (`--offline`).
async fn host_userland(running: &Rc<Running>, container: &str) -> Result<Event, Refusal> {
    let host = host_root(&running.cx).await.map_err(|cause| Refusal {
        reason: "ErrImagePull",
        message: format!("failed to prepare the host's userland as an image: {cause}"),
    })?;
    let image_id = host.id.clone();
    running.remember_image(container, ReadyImage::of_host(host));
    Ok(Event::ImageReady { container: container.into(), image_id, pulled: None, host_userland: true })
}

/// Made once an engine: it reads and hashes the host's `/etc`. Somebody may have cleared it away since.
async fn host_root(cx: &Rc<Context>) -> Result<HostUserland, String> {
    let known = cx.host_userland.borrow().clone();
    if let Some(host) = known.filter(|host| host.lower.is_dir()) {
        return Ok(host);
    }
    let dir = cx.config.roots.data.join("host-userland");
    let host = blocking(move || pod_image::host_userland(&dir).map_err(|error| chain(&error))).await?;
    *cx.host_userland.borrow_mut() = Some(host.clone());
    Ok(host)
}

fn ready(running: &Rc<Running>, container: &str, found: Found, pulled: Option<Pulled>) -> Event {
    // What Kubernetes calls imageID; an image that never met a registry has only its own.
    let image_id = found.image.repo_digests.first().unwrap_or(&found.image.id).clone();
    running.remember_image(container, found.into());
    Event::ImageReady { container: container.into(), image_id, pulled, host_userland: false }
}

/// The image of a start whose `EnsureImage` another engine did.
pub(crate) async fn recall(running: &Rc<Running>, container: &str) -> Result<ReadyImage, String> {
    let name = running.container(container).ok_or("it left the manifest")?.image.unwrap_or_default();
    let reference =
        name.parse::<Reference>().map_err(|error| format!("couldn't parse image name \"{name}\": {error}"))?;
    if reference.is_builtin() {
        return find_builtin(&running.cx, reference).await.map(ReadyImage::of_builtin);
    }
    match look_up(running, &reference).await.map_err(|refusal| refusal.message)? {
        Some(found) => Ok(found.into()),
        None if running.record().offline => host_root(&running.cx).await.map(ReadyImage::of_host),
        None => Err(format!("image \"{name}\" is not in the store")),
    }
}

/// An `image` volume: the same policies, mounted instead of run.
pub(crate) async fn ensure_volume(running: &Rc<Running>, volume: &Volume) -> Result<(), String> {
    let source = volume.image.clone().unwrap_or_default();
    let name = source.reference.unwrap_or_default();
    let reference =
        name.parse::<Reference>().map_err(|error| format!("couldn't parse image name \"{name}\": {error}"))?;
    let offline = running.record().offline;
    let policy = source.pull_policy.as_deref();
    let always = policy.map_or(reference.is_latest_or_untagged(), |policy| policy == "Always");
    let look = || async { look_up(running, &reference).await.map_err(|refusal| refusal.message) };
    let missing = || format!("image \"{name}\" is not in the store");

    let present = if always && !offline && !reference.is_builtin() { None } else { look().await? };
    let found = match present {
        Some(found) => found,
        None if offline || policy == Some("Never") => return Err(missing()),
        None => tokio::select! {
            outcome = async {
                let queue = Queue::of(&running.cx, &reference);
                let _turn = queue.turn.lock().await;
                // Who waited finds it in the store.
                if !always && let Some(found) = look().await? {
                    return Ok(found);
                }
                pull_quietly(running, &reference, &pod_image::Silent).await?;
                look().await?.ok_or_else(missing)
            } => outcome?,
            () = running.ended() => return Err("the pod is being stopped".into()),
        },
    };
    // Without the lease: mounted again and again as containers start, as long as the pod lives.
    let image = ReadyImage { _lease: None, ..found.into() };
    running.remember_volume_image(&volume.name, image)
}

// === impl ReadyImage ===

impl From<Found> for ReadyImage {
    fn from(Found { image, lease }: Found) -> Self {
        Self { layers: image.layers, config: image.config, binds: Vec::new(), _lease: Some(Rc::new(lease)) }
    }
}

impl ReadyImage {
    fn of_builtin(image: Builtin) -> Self {
        Self { layers: vec![image.layer], config: image.config, binds: Vec::new(), _lease: None }
    }

    fn of_host(host: HostUserland) -> Self {
        Self { layers: vec![host.lower], config: ImageConfig::default(), binds: host.binds, _lease: None }
    }
}

/// One pull at a time of one image; the entry goes with the last who waits.
struct Queue {
    cx: Rc<Context>,
    key: String,
    turn: Rc<tokio::sync::Mutex<()>>,
}

// === impl Queue ===

impl Queue {
    fn of(cx: &Rc<Context>, reference: &Reference) -> Self {
        let key = reference.to_string();
        let turn = cx.pulls.borrow_mut().entry(key.clone()).or_default().clone();
        Self { cx: cx.clone(), key, turn }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // This one and the map's.
        if Rc::strong_count(&self.turn) <= 2 {
            self.cx.pulls.borrow_mut().remove(&self.key);
        }
    }
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
