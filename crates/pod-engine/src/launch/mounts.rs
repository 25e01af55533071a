//! The container's mounts: the image's own, the attempt's files, `/dev/shm`, the volumes.

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Volume, VolumeMount};
use pod_container::spec::{Mount, MountSource, Propagation};

use super::files::Files;
use super::{Launch, Unlaunchable};
use crate::chain;
use crate::volumes::{self, Place};

impl Launch<'_> {
    pub(super) fn mounts(&self, env: &[(String, String)]) -> Result<Vec<Mount>, Unlaunchable> {
        let Self { running, pod, container, image, effective, attempt } = *self;
        let mut mounts: Vec<Mount> =
            image.binds.iter().map(|(host, target)| bind(host.clone(), target, true)).collect();
        let own = |target: &str| {
            let mut targets = container.volume_mounts.iter().flatten().map(|mount| mount.mount_path.as_str());
            targets.any(|other| other == target)
        };
        let files = Files::make(running, &container.name, attempt).map_err(Unlaunchable::Create)?;
        for (target, path) in files.etc {
            if !own(target) {
                mounts.push(bind(path, target, effective.read_only_root));
            }
        }
        if !own("/dev/shm") {
            let host_ipc = pod.host_ipc == Some(true);
            let source = if host_ipc { Path::new("/dev/shm").to_owned() } else { running.paths.shm() };
            mounts.push(bind(source, "/dev/shm", false));
        }
        mounts.extend(self.volume_mounts(env)?);
        let target = container.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
        mounts.push(bind(files.termination, target, false));
        Ok(mounts)
    }

    /// Outer paths before inner ones, whatever the manifest's order.
    fn volume_mounts(&self, env: &[(String, String)]) -> Result<Vec<Mount>, Unlaunchable> {
        let mut asked: Vec<&VolumeMount> = self.container.volume_mounts.iter().flatten().collect();
        asked.sort_by_key(|mount| mount.mount_path.trim_end_matches('/').matches('/').count());
        asked.into_iter().map(|mount| self.volume_mount(mount, env)).collect()
    }

    fn volume_mount(&self, mount: &VolumeMount, env: &[(String, String)]) -> Result<Mount, Unlaunchable> {
        let volume = self.pod.volumes.iter().flatten().find(|volume| volume.name == mount.name);
        let volume = volume.ok_or_else(|| Unlaunchable::Create(format!("volume \"{}\" is gone", mount.name)))?;
        let place = volumes::place(self.running, volume).map_err(Unlaunchable::Create)?;
        let is_image = matches!(place, Place::Layers(_));
        let sub_path = pod_api::env::sub_path(mount, env).map_err(|error| Unlaunchable::Config(chain(&error)))?;
        let source = match (place, sub_path) {
            (Place::Path(root), Some(path)) => MountSource::BindBelow { root, path },
            (Place::Path(path), None) => MountSource::Bind(path),
            (Place::Layers(layers), None) => MountSource::Layers(layers),
            (Place::Layers(_), Some(_)) => {
                return Err(Unlaunchable::Config("subPath of an image volume is not supported".into()));
            }
        };
        let readonly = is_readonly(mount, volume);
        let recursive = mount.recursive_read_only.as_deref();
        Ok(Mount {
            source,
            target: mount.mount_path.clone(),
            readonly,
            recursive_readonly: readonly && matches!(recursive, Some("Enabled" | "IfPossible")),
            noexec: is_image,
            propagation: match mount.mount_propagation.as_deref() {
                Some("HostToContainer") => Propagation::Slave,
                Some("Bidirectional") => Propagation::Shared,
                _ => Propagation::Private,
            },
        })
    }
}

/// Asked for at the mount, at the claim (pod v1 `persistentVolumeClaim.readOnly`: "forces the readOnly setting"), or in
/// the volume's nature.
fn is_readonly(mount: &VolumeMount, volume: &Volume) -> bool {
    let claim = volume.persistent_volume_claim.as_ref().and_then(|claim| claim.read_only);
    mount.read_only == Some(true)
        || claim == Some(true)
        || volume.image.is_some()
        || pod_api::content::is_content(volume)
}

fn bind(source: PathBuf, target: &str, readonly: bool) -> Mount {
    Mount {
        source: MountSource::Bind(source),
        target: target.into(),
        readonly,
        recursive_readonly: false,
        noexec: false,
        propagation: Propagation::Private,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::is_readonly;

    #[test]
    fn what_makes_a_mount_read_only() {
        let readonly = |mount: Value, volume: Value| {
            is_readonly(&serde_json::from_value(mount).unwrap(), &serde_json::from_value(volume).unwrap())
        };
        let (plain, asked) =
            (json!({"name": "v", "mountPath": "/v"}), json!({"name": "v", "mountPath": "/v", "readOnly": true}));
        let claim =
            |read_only: bool| json!({"name": "v", "persistentVolumeClaim": {"claimName": "c", "readOnly": read_only}});
        assert!(!readonly(plain.clone(), claim(false)));
        assert!(readonly(plain.clone(), claim(true)));
        assert!(readonly(asked, json!({"name": "v", "emptyDir": {}})));
        assert!(readonly(plain.clone(), json!({"name": "v", "configMap": {"name": "c"}})));
        assert!(readonly(plain.clone(), json!({"name": "v", "image": {"reference": "a"}})));
        assert!(!readonly(plain, json!({"name": "v", "emptyDir": {}})));
    }
}
