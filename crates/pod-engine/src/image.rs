//! `EnsureImage`: the image in the store by its pull policy, or, offline, the host's userland in its place.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::Instant;

use k8s_openapi::api::core::v1::Volume;
use pod_image::{ImageConfig, PullOptions, Reference};
use pod_plan::{Event, Pulled};

use crate::feed::News;
use crate::running::Running;

/// What a container starts from.
#[derive(Debug, Clone)]
pub(crate) struct ReadyImage {
    /// Overlay layers, topmost first.
    pub(crate) layers: Vec<PathBuf>,
    pub(crate) config: ImageConfig,
    /// Host directories bound read-only over the layers (host userland only).
    pub(crate) binds: Vec<(PathBuf, String)>,
}

/// A waiting reason of the API with its message.
struct Refusal {
    reason: &'static str,
    message: String,
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
    let offline = running.record().offline;
    let policy = spec.image_pull_policy.unwrap_or_else(|| "IfNotPresent".into());
    let asked = Instant::now();
    // One pull of one image at a time; who waited finds it in the store.
    let turn = running.cx.pulls.borrow_mut().entry(reference.to_string()).or_default().clone();
    let _turn = turn.lock().await;

    let always = policy == "Always" && !offline && !reference.is_builtin();
    if !always && let Some(image) = look_up(running, &reference).await? {
        return Ok(ready(running, container, image, None));
    }
    if policy == "Never" {
        return Err(Refusal {
            reason: "ErrImageNeverPull",
            message: format!("Container image \"{name}\" is not present with pull policy of Never"),
        });
    }
    if offline {
        return host_userland(running, container);
    }
    let began = Instant::now();
    running.tell(Event::Pulling { container: container.into() });
    let image = pull(running, container, &name, &reference).await?;
    let pulled = Pulled { took_ms: millis(began), took_with_wait_ms: millis(asked), size: image.size };
    Ok(ready(running, container, image, Some(pulled)))
}

async fn look_up(running: &Rc<Running>, reference: &Reference) -> Result<Option<pod_image::Image>, Refusal> {
    running.cx.store.lookup(reference).map_err(|error| Refusal {
        reason: "ImageInspectError",
        message: format!("Failed to inspect image \"{reference}\": {}", crate::chain(&error)),
    })
}

async fn pull(
    running: &Rc<Running>,
    container: &str,
    name: &str,
    reference: &Reference,
) -> Result<pod_image::Image, Refusal> {
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
) -> Result<pod_image::Image, String> {
    let store = &running.cx.store;
    // Read for each pull: credentials and mirrors may have been written since the engine started.
    let auth = pod_image::Credentials::load().map_err(|e| crate::chain(&e))?;
    let registries = pod_image::Registries::load(store.root()).map_err(|e| crate::chain(&e))?;
    let options = PullOptions { auth, registries, ..PullOptions::default() };
    pod_image::pull(store, reference, &options, progress).await.map_err(|error| match error.hint() {
        Some(hint) => format!("{} ({hint})", crate::chain(&error)),
        None => crate::chain(&error),
    })
}

/// The image that is not there is stood in for by the host's own programs (`--offline`).
fn host_userland(running: &Rc<Running>, container: &str) -> Result<Event, Refusal> {
    let dir = running.cx.config.roots.data.join("host-userland");
    let host = pod_image::host_userland(&dir).map_err(|error| Refusal {
        reason: "ErrImagePull",
        message: format!("failed to prepare the host's userland as an image: {}", crate::chain(&error)),
    })?;
    running.remember_image(
        container,
        ReadyImage { layers: vec![host.lower], config: ImageConfig::default(), binds: host.binds },
    );
    Ok(Event::ImageReady { container: container.into(), image_id: host.id, pulled: None, host_userland: true })
}

fn ready(running: &Rc<Running>, container: &str, image: pod_image::Image, pulled: Option<Pulled>) -> Event {
    let image_id = image.id.clone();
    running.remember_image(container, ReadyImage { layers: image.layers, config: image.config, binds: Vec::new() });
    Event::ImageReady { container: container.into(), image_id, pulled, host_userland: false }
}

/// An `image` volume: the same policies, mounted instead of run.
pub(crate) async fn ensure_volume(running: &Rc<Running>, volume: &Volume) -> Result<(), String> {
    let source = volume.image.clone().unwrap_or_default();
    let name = source.reference.unwrap_or_default();
    let reference =
        name.parse::<Reference>().map_err(|error| format!("couldn't parse image name \"{name}\": {error}"))?;
    let policy = source
        .pull_policy
        .unwrap_or_else(|| if reference.is_latest_or_untagged() { "Always".into() } else { "IfNotPresent".into() });
    let offline = running.record().offline;
    let present = running.cx.store.lookup(&reference).map_err(|e| crate::chain(&e))?;
    let image = match present {
        Some(image) if policy != "Always" || offline => image,
        _ if offline || policy == "Never" => return Err(format!("image \"{name}\" is not in the store")),
        _ => pull_quietly(running, &reference, &pod_image::Silent).await?,
    };
    let ready = ReadyImage { layers: image.layers, config: image.config, binds: Vec::new() };
    running.remember_volume_image(&volume.name, ready);
    Ok(())
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
