//! Volume mounts of a container (`ValidateVolumeMounts`).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Volume, VolumeMount};

use super::volume;
use crate::path::Path;
use crate::problem::Findings;

pub(super) fn mounts(container: &Container, volumes: &BTreeMap<&str, &Volume>, path: &Path, findings: &mut Findings) {
    let mut taken: Vec<&str> = Vec::new();
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let path = path.index(index);
        let source = volumes.get(mount.name.as_str());
        if mount.name.is_empty() {
            findings.required(path.field("name"), "");
        } else if source.is_none() {
            findings.not_found(path.field("name"), &mount.name);
        }
        if mount.mount_path.is_empty() {
            findings.required(path.field("mountPath"), "");
        } else if mount.mount_path.contains(':') {
            // Not in ValidateVolumeMounts; the type's documentation says it and runtimes refuse it.
            findings.invalid(path.field("mountPath"), mount.mount_path.as_str(), "must not contain ':'");
        }
        if taken.contains(&mount.mount_path.as_str()) {
            findings.invalid(path.field("mountPath"), mount.mount_path.as_str(), "must be unique");
        }
        taken.push(&mount.mount_path);
        let devices = container.volume_devices.as_deref().unwrap_or_default();
        if devices.iter().any(|device| device.name == mount.name) {
            findings.invalid(path.field("name"), mount.name.as_str(), "must not already exist in volumeDevices");
        }
        sub_path(mount, &path, findings);
        propagation(mount, container, &path, findings);
    }
}

fn sub_path(mount: &VolumeMount, path: &Path, findings: &mut Findings) {
    let fields = [("subPath", mount.sub_path.as_deref()), ("subPathExpr", mount.sub_path_expr.as_deref())];
    let fields = fields.map(|(name, value)| (name, value.filter(|value| !value.is_empty())));
    for (name, value) in fields {
        let Some(value) = value else { continue };
        volume::descending(value, &path.field(name), findings);
    }
    if let [(_, Some(_)), (_, Some(expression))] = fields {
        findings.invalid(path.field("subPathExpr"), expression, "subPathExpr and subPath are mutually exclusive");
    }
}

fn propagation(mount: &VolumeMount, container: &Container, path: &Path, findings: &mut Findings) {
    let propagation = mount.mount_propagation.as_deref();
    if let Some(value) = propagation {
        let path = path.field("mountPropagation");
        let supported = ["Bidirectional", "HostToContainer", "None"];
        if !supported.contains(&value) {
            findings.not_supported(path.clone(), value, &supported);
        }
        let privileged = container.security_context.as_ref().and_then(|context| context.privileged) == Some(true);
        if value == "Bidirectional" && !privileged {
            findings.forbidden(path, "Bidirectional mount propagation is available only to privileged containers");
        }
    }
    match mount.recursive_read_only.as_deref() {
        None | Some("Disabled") => {}
        Some(value @ ("Enabled" | "IfPossible")) => {
            let path = path.field("recursiveReadOnly");
            if mount.read_only != Some(true) {
                findings.forbidden(path.clone(), "may only be specified when readOnly is true");
            }
            if propagation.is_some_and(|propagation| propagation != "None") {
                findings.forbidden(
                    path,
                    &format!("may only be set to {value} when mountPropagation is not specified or is set to None"),
                );
            }
        }
        Some(value) => {
            let supported = ["Disabled", "Enabled", "IfPossible"];
            findings.not_supported(path.field("recursiveReadOnly"), value, &supported);
        }
    }
}
