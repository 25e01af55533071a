//! `PrepareVolumes`: every volume of the pod as a directory (or file) that containers then bind.

use std::path::PathBuf;
use std::rc::Rc;

use k8s_openapi::api::core::v1::{PodSpec, Volume};
use pod_container::spec::Tmpfs;
use pod_plan::Event;
use pod_volume::{FileEntry, FsGroup, HostPathKind};

use crate::running::Running;
use crate::{blocking, chain};

/// Where containers find a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Path(PathBuf),
    /// Read-only image layers, topmost first.
    Layers(Vec<PathBuf>),
}

pub(crate) async fn prepare(running: &Rc<Running>) -> Event {
    match prepare_all(running, false).await {
        Ok(()) => Event::VolumesReady,
        Err(message) => Event::VolumesFailed { message },
    }
}

/// Sources changed: configMap, secret, projected and downward volumes swap their content atomically.
pub(crate) async fn refresh(running: &Rc<Running>) -> Result<(), String> {
    prepare_all(running, true).await
}

async fn prepare_all(running: &Rc<Running>, content_only: bool) -> Result<(), String> {
    let _turn = running.volume_turn.lock().await;
    let mut content_only = content_only;
    loop {
        let sources = running.sources.get();
        prepare_round(running, content_only).await?;
        // A source that changed meanwhile may have been read before the change.
        if running.sources.get() == sources {
            return Ok(());
        }
        content_only = true;
    }
}

async fn prepare_round(running: &Rc<Running>, content_only: bool) -> Result<(), String> {
    let spec = running.spec();
    let volumes = spec.volumes.clone().unwrap_or_default();
    if volumes.iter().any(in_memory) {
        running.shim_standing().await?;
    }
    let fs_group = fs_group(&spec);
    for volume in volumes {
        if content_only && !pod_api::content::is_content(&volume) {
            continue;
        }
        prepare_one(running, &volume, fs_group)
            .await
            .map_err(|cause| format!("MountVolume.SetUp failed for volume \"{}\" : {cause}", volume.name))?;
    }
    Ok(())
}

async fn prepare_one(running: &Rc<Running>, volume: &Volume, fs_group: Option<FsGroup>) -> Result<(), String> {
    if pod_api::content::is_content(volume) {
        let entries = running.with_context(|cx| pod_api::content::files(volume, cx)).map_err(|e| chain(&e))?;
        let (dir, root) = running.through_shim(&content_dir(running, &volume.name))?;
        return blocking(move || {
            let _root = root;
            let files: Vec<FileEntry<'_>> =
                entries.iter().map(|f| FileEntry { path: &f.path, mode: f.mode, data: &f.data }).collect();
            pod_volume::write_atomic(&dir, &files, fs_group.as_ref()).map(|_| ()).map_err(|e| chain(&e))
        })
        .await;
    }
    if let Some(host_path) = &volume.host_path {
        let kind = host_path_kind(host_path.type_.as_deref());
        let path = PathBuf::from(&host_path.path);
        return blocking(move || pod_volume::ensure_host_path(&path, kind).map_err(|e| chain(&e))).await;
    }
    if volume.image.is_some() {
        return crate::image::ensure_volume(running, volume).await;
    }
    let (dir, root) = match place(running, volume)? {
        Place::Path(path) if in_memory(volume) => {
            let (dir, root) = running.through_shim(&path)?;
            (dir, Some(root))
        }
        Place::Path(path) => (path, None),
        Place::Layers(_) => return Ok(()),
    };
    blocking(move || {
        let _root = root;
        pod_volume::ensure_empty_dir(&dir, fs_group.as_ref()).map_err(|e| chain(&e))
    })
    .await
}

/// Where a prepared volume is, as the shim's mount namespace sees it.
pub(crate) fn place(running: &Rc<Running>, volume: &Volume) -> Result<Place, String> {
    let uid = running.uid();
    if pod_api::content::is_content(volume) {
        return Ok(Place::Path(content_dir(running, &volume.name)));
    }
    if let Some(host_path) = &volume.host_path {
        return Ok(Place::Path(host_path.path.clone().into()));
    }
    if let Some(claim) = &volume.persistent_volume_claim {
        return Ok(Place::Path(named_dir(running, &claim.claim_name)));
    }
    if volume.ephemeral.is_some() {
        return Ok(Place::Path(running.paths.disk_volume(&uid, &volume.name)));
    }
    if volume.image.is_some() {
        return running
            .volume_image(&volume.name)
            .map(|image| Place::Layers(image.layers))
            .ok_or_else(|| format!("the image of volume \"{}\" is not in the store", volume.name));
    }
    if in_memory(volume) {
        return Ok(Place::Path(running.paths.memory_volume(&volume.name)));
    }
    Ok(Place::Path(running.paths.disk_volume(&uid, &volume.name)))
}

/// The tmpfs mounts the shim makes: one for all content volumes, one per `emptyDir` in memory.
pub(crate) fn memory_mounts(running: &Rc<Running>, spec: &PodSpec) -> Vec<Tmpfs> {
    let volumes = spec.volumes.as_deref().unwrap_or_default();
    let mut mounts = Vec::new();
    if volumes.iter().any(pod_api::content::is_content) {
        mounts.push(Tmpfs { path: running.paths.memory(), size: None, mode: 0o755 });
    }
    let effective = pod_api::resources::pod_effective(spec).unwrap_or_default();
    let pod_limit = effective.cgroup_memory_limit();
    for volume in volumes.iter().filter(|volume| is_memory_empty_dir(volume)) {
        let asked = volume.empty_dir.as_ref().and_then(|dir| dir.size_limit.as_ref());
        let asked = asked.and_then(|quantity| pod_api::quantity::bytes(quantity).ok()).filter(|bytes| *bytes > 0);
        let size = [asked, pod_limit, Some(running.cx.node.memory_bytes)].into_iter().flatten().min();
        mounts.push(Tmpfs {
            path: running.paths.memory_volume(&volume.name),
            size: size.and_then(|bytes| u64::try_from(bytes).ok()),
            mode: 0o777,
        });
    }
    mounts
}

/// Volumes of a claim survive their pods; a namespace and a name are one directory.
fn named_dir(running: &Rc<Running>, claim: &str) -> PathBuf {
    let namespace = running.record().namespace().to_owned();
    running.cx.config.roots.data.join("claims").join(format!("{namespace}_{claim}"))
}

fn content_dir(running: &Rc<Running>, volume: &str) -> PathBuf {
    running.paths.memory().join(volume)
}

fn is_memory_empty_dir(volume: &Volume) -> bool {
    volume.empty_dir.as_ref().is_some_and(|dir| dir.medium.as_deref() == Some("Memory"))
}

fn in_memory(volume: &Volume) -> bool {
    pod_api::content::is_content(volume) || is_memory_empty_dir(volume)
}

fn fs_group(spec: &PodSpec) -> Option<FsGroup> {
    let context = spec.security_context.as_ref()?;
    Some(FsGroup {
        gid: u32::try_from(context.fs_group?).ok()?,
        on_root_mismatch: context.fs_group_change_policy.as_deref() == Some("OnRootMismatch"),
    })
}

fn host_path_kind(kind: Option<&str>) -> HostPathKind {
    match kind {
        Some("DirectoryOrCreate") => HostPathKind::DirectoryOrCreate,
        Some("Directory") => HostPathKind::Directory,
        Some("FileOrCreate") => HostPathKind::FileOrCreate,
        Some("File") => HostPathKind::File,
        Some("Socket") => HostPathKind::Socket,
        Some("CharDevice") => HostPathKind::CharDevice,
        Some("BlockDevice") => HostPathKind::BlockDevice,
        _ => HostPathKind::Unset,
    }
}
