//! Volumes: exactly one source each, and what each source must have (`ValidateVolumes`).
//!
//! Sources the engine cannot serve at all are only counted here; `unsupported` refuses them by name.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, DownwardAPIVolumeFile, EphemeralVolumeSource, HostPathVolumeSource, ImageVolumeSource,
    KeyToPath, ProjectedVolumeSource, SecretVolumeSource, Volume, VolumeProjection,
};

use super::{environment, format, resource};
use crate::path::Path;
use crate::problem::Findings;

const MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";

/// Checks the volumes and returns them by name. Upstream leaves those with problems out, so that a mount of one is
/// reported a second time as `Not found`; here every named volume counts.
pub(super) fn volumes<'a>(
    volumes: &'a [Volume],
    pod: Option<&str>,
    path: &Path,
    findings: &mut Findings,
) -> BTreeMap<&'a str, &'a Volume> {
    let mut by_name = BTreeMap::new();
    let claims: Vec<String> = volumes
        .iter()
        .filter(|volume| volume.ephemeral.is_some())
        .filter_map(|volume| pod.map(|pod| format!("{pod}-{}", volume.name)))
        .collect();
    for (index, volume) in volumes.iter().enumerate() {
        let path = path.index(index);
        if volume.name.is_empty() {
            findings.required(path.field("name"), "");
        } else {
            findings.each_invalid(&path.field("name"), &volume.name, format::dns_label(&volume.name));
        }
        if by_name.insert(volume.name.as_str(), volume).is_some() {
            findings.duplicate(path.field("name"), &volume.name);
        }
        source(volume, &path, findings);
        if let Some(claim) = volume.persistent_volume_claim.as_ref().filter(|claim| claims.contains(&claim.claim_name))
        {
            let path = path.under("persistentVolumeClaim.claimName");
            let detail = "must not reference a PVC that gets created for an ephemeral volume";
            findings.invalid(path, claim.claim_name.as_str(), detail);
        }
    }
    by_name
}

fn source(volume: &Volume, path: &Path, findings: &mut Findings) {
    let present = sources(volume);
    let mut present = present.iter().filter(|(_, present)| *present).map(|(name, _)| *name);
    if present.next().is_none() {
        findings.required(path.clone(), "must specify a volume type");
    }
    for extra in present {
        findings.forbidden(path.field(extra), "may not specify more than 1 volume type");
    }
    if let Some(limit) = volume.empty_dir.as_ref().and_then(|source| source.size_limit.as_ref()) {
        let path = path.under("emptyDir.sizeLimit");
        match crate::quantity::parse(&limit.0) {
            Ok((amount, _)) if amount < Default::default() => {
                findings.forbidden(path, "SizeLimit field must be a valid resource quantity");
            }
            Ok(_) => {}
            Err(_) => resource::malformed(limit, path, findings),
        }
    }
    if let Some(source) = &volume.empty_dir {
        let medium = source.medium.as_deref().unwrap_or_default();
        if !matches!(medium, "" | "Memory") && !medium.starts_with("HugePages") {
            findings.not_supported(path.under("emptyDir.medium"), medium, &["", "Memory", "HugePages"]);
        }
    }
    if let Some(source) = &volume.host_path {
        host_path(source, &path.field("hostPath"), findings);
    }
    if let Some(source) = &volume.config_map {
        config_map(source, &path.field("configMap"), findings);
    }
    if let Some(source) = &volume.secret {
        secret(source, &path.field("secret"), findings);
    }
    if let Some(source) = &volume.downward_api {
        let path = path.field("downwardAPI");
        mode(source.default_mode, path.field("defaultMode"), findings);
        for (index, file) in source.items.iter().flatten().enumerate() {
            downward_file(file, &path.field("items").index(index), findings);
        }
    }
    if let Some(source) = &volume.projected {
        projected(source, &path.field("projected"), findings);
    }
    if volume.persistent_volume_claim.as_ref().is_some_and(|claim| claim.claim_name.is_empty()) {
        findings.required(path.under("persistentVolumeClaim.claimName"), "");
    }
    if let Some(source) = &volume.ephemeral {
        ephemeral(source, &path.field("ephemeral"), findings);
    }
    if let Some(source) = &volume.image {
        image(source, &path.field("image"), findings);
    }
}

/// Every source by its JSON name.
fn sources(volume: &Volume) -> [(&'static str, bool); 30] {
    [
        ("emptyDir", volume.empty_dir.is_some()),
        ("hostPath", volume.host_path.is_some()),
        ("gitRepo", volume.git_repo.is_some()),
        ("gcePersistentDisk", volume.gce_persistent_disk.is_some()),
        ("awsElasticBlockStore", volume.aws_elastic_block_store.is_some()),
        ("secret", volume.secret.is_some()),
        ("nfs", volume.nfs.is_some()),
        ("iscsi", volume.iscsi.is_some()),
        ("glusterfs", volume.glusterfs.is_some()),
        ("flocker", volume.flocker.is_some()),
        ("persistentVolumeClaim", volume.persistent_volume_claim.is_some()),
        ("rbd", volume.rbd.is_some()),
        ("cinder", volume.cinder.is_some()),
        ("cephfs", volume.cephfs.is_some()),
        ("quobyte", volume.quobyte.is_some()),
        ("downwardAPI", volume.downward_api.is_some()),
        ("fc", volume.fc.is_some()),
        ("flexVolume", volume.flex_volume.is_some()),
        ("configMap", volume.config_map.is_some()),
        ("azureFile", volume.azure_file.is_some()),
        ("vsphereVolume", volume.vsphere_volume.is_some()),
        ("photonPersistentDisk", volume.photon_persistent_disk.is_some()),
        ("portworxVolume", volume.portworx_volume.is_some()),
        ("azureDisk", volume.azure_disk.is_some()),
        ("storageos", volume.storageos.is_some()),
        ("projected", volume.projected.is_some()),
        ("scaleIO", volume.scale_io.is_some()),
        ("csi", volume.csi.is_some()),
        ("ephemeral", volume.ephemeral.is_some()),
        ("image", volume.image.is_some()),
    ]
}

fn host_path(source: &HostPathVolumeSource, path: &Path, findings: &mut Findings) {
    if source.path.is_empty() {
        return findings.required(path.field("path"), "");
    }
    if source.path.split('/').any(|part| part == "..") {
        findings.invalid(path.field("path"), source.path.as_str(), "must not contain '..'");
    }
    let types = ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
    let type_ = source.type_.as_deref().unwrap_or_default();
    if !types.contains(&type_) {
        findings.not_supported(path.field("type"), type_, &types);
    }
}

fn config_map(source: &ConfigMapVolumeSource, path: &Path, findings: &mut Findings) {
    if source.name.is_empty() {
        findings.required(path.field("name"), "");
    }
    mode(source.default_mode, path.field("defaultMode"), findings);
    items(source.items.as_deref(), path, findings);
}

fn secret(source: &SecretVolumeSource, path: &Path, findings: &mut Findings) {
    if source.secret_name.as_deref().is_none_or(str::is_empty) {
        findings.required(path.field("secretName"), "");
    }
    mode(source.default_mode, path.field("defaultMode"), findings);
    items(source.items.as_deref(), path, findings);
}

fn items(items: Option<&[KeyToPath]>, path: &Path, findings: &mut Findings) {
    for (index, item) in items.into_iter().flatten().enumerate() {
        let path = path.field("items").index(index);
        if item.key.is_empty() {
            findings.required(path.field("key"), "");
        }
        file_path(&item.path, path.field("path"), findings);
        mode(item.mode, path.field("mode"), findings);
    }
}

/// A path inside a volume the engine writes; names beginning with `..` are its own.
fn file_path(file: &str, path: Path, findings: &mut Findings) {
    if file.is_empty() {
        findings.required(path.clone(), "");
    }
    descending(file, &path, findings);
    if file.starts_with("..") && !file.starts_with("../") && file != ".." {
        findings.invalid(path, file, "must not start with '..'");
    }
}

/// Relative and without `..`.
pub(super) fn descending(file: &str, path: &Path, findings: &mut Findings) {
    if file.starts_with('/') {
        findings.invalid(path.clone(), file, "must be a relative path");
    }
    if file.split('/').any(|part| part == "..") {
        findings.invalid(path.clone(), file, "must not contain '..'");
    }
}

fn mode(mode: Option<i32>, path: Path, findings: &mut Findings) {
    if let Some(mode) = mode.filter(|mode| !(0..=0o777).contains(mode)) {
        findings.invalid(path, mode, MODE);
    }
}

fn downward_file(file: &DownwardAPIVolumeFile, path: &Path, findings: &mut Findings) {
    file_path(&file.path, path.field("path"), findings);
    match (&file.field_ref, &file.resource_field_ref) {
        (Some(_), Some(_)) => {
            let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
            findings.invalid(path.clone(), "resource", detail);
        }
        (Some(field), None) => {
            environment::field_ref(field, environment::FIELDS_FOR_FILES, &path.field("fieldRef"), findings);
        }
        (None, Some(resource)) => {
            environment::resource_ref(resource, true, &path.field("resourceFieldRef"), findings);
        }
        (None, None) => findings.required(path.clone(), "one of fieldRef and resourceFieldRef is required"),
    }
    mode(file.mode, path.field("mode"), findings);
}

fn projected(source: &ProjectedVolumeSource, path: &Path, findings: &mut Findings) {
    mode(source.default_mode, path.field("defaultMode"), findings);
    let mut taken: Vec<&str> = Vec::new();
    for (index, projection) in source.sources.iter().flatten().enumerate() {
        let source_path = path.field("sources").index(index);
        for (file, of) in self::projection(projection, &source_path, findings) {
            if taken.contains(&file) {
                findings.invalid(path.clone(), of, "conflicting duplicate paths");
            } else if !file.is_empty() {
                taken.push(file);
            }
        }
    }
}

/// Checks one source of a projected volume; returns the files it names and what to call each in a complaint.
fn projection<'a>(projection: &'a VolumeProjection, path: &Path, findings: &mut Findings) -> Vec<(&'a str, &'a str)> {
    let mut files = Vec::new();
    let objects = [
        ("secret", projection.secret.as_ref().map(|source| (&source.name, &source.items))),
        ("configMap", projection.config_map.as_ref().map(|source| (&source.name, &source.items))),
    ];
    for (field, object) in objects {
        if let Some((name, entries)) = object {
            let path = path.field(field);
            if name.is_empty() {
                findings.required(path.field("name"), "");
            }
            items(entries.as_deref(), &path, findings);
            files.extend(entries.iter().flatten().map(|item| (item.path.as_str(), name.as_str())));
        }
    }
    if let Some(source) = &projection.downward_api {
        for (index, file) in source.items.iter().flatten().enumerate() {
            downward_file(file, &path.under("downwardAPI.items").index(index), findings);
            files.push((&file.path, &file.path));
        }
    }
    if let Some(token) = &projection.service_account_token {
        let path = path.field("serviceAccountToken");
        if let Some(seconds) = token.expiration_seconds.filter(|seconds| *seconds < 600) {
            findings.invalid(
                path.field("expirationSeconds"),
                seconds,
                "may not specify a duration less than 10 minutes",
            );
        }
        file_path(&token.path, path.field("path"), findings);
        files.push((&token.path, &token.path));
    }
    let sources = [
        projection.secret.is_some(),
        projection.config_map.is_some(),
        projection.downward_api.is_some(),
        projection.service_account_token.is_some(),
        projection.cluster_trust_bundle.is_some(),
        projection.pod_certificate.is_some(),
    ];
    if sources.iter().filter(|present| **present).count() > 1 {
        findings.forbidden(path.clone(), "may not specify more than 1 volume type per source");
    }
    files
}

fn ephemeral(source: &EphemeralVolumeSource, path: &Path, findings: &mut Findings) {
    let Some(template) = &source.volume_claim_template else {
        return findings.required(path.field("volumeClaimTemplate"), "");
    };
    let spec = path.under("volumeClaimTemplate.spec");
    if template.spec.access_modes.as_ref().is_none_or(Vec::is_empty) {
        findings.required(spec.field("accessModes"), "at least 1 access mode is required");
    }
    let storage = template
        .spec
        .resources
        .as_ref()
        .and_then(|resources| resources.requests.as_ref())
        .and_then(|requests| requests.get("storage"));
    let path = spec.under("resources").key("storage");
    match storage {
        None => findings.required(path, ""),
        Some(storage) => resource::malformed(storage, path, findings),
    }
}

fn image(source: &ImageVolumeSource, path: &Path, findings: &mut Findings) {
    if source.reference.as_deref().is_none_or(str::is_empty) {
        findings.required(path.field("reference"), "");
    }
    findings.one_of(path.field("pullPolicy"), source.pull_policy.as_deref(), super::PULL_POLICIES);
}
