//! Defaults written into an object before anything looks at it (`pkg/apis/core/v1/defaults.go`, 1.35).
//!
//! Not here: what only a cluster's admission adds (service account volume, priority, tolerations) and what the store
//! assigns (uid, generation, status).

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{
    Container, EmptyDirVolumeSource, EnvVar, HTTPGetAction, LifecycleHandler, ObjectFieldSelector, Pod, PodSpec, Probe,
    ResourceRequirements, Secret, Volume, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::ephemeral;

/// `rw-r--r--`, for files of configMap, secret, downwardAPI and projected volumes.
const FILE_MODE: i32 = 0o644;
/// Lower-case letters and digits without those that make words or are misread, as upstream's name generator.
const NAME_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const NAME_TAIL: usize = 5;
/// Upstream cuts the prefix so that the generated name stays a DNS label.
const NAME_PREFIX: usize = 63 - NAME_TAIL;

/// Everything defaulted in a pod that is created, beyond what a template gets: requests from limits, service links,
/// host ports of a pod on the host's network.
pub fn pod(pod: &mut Pod) {
    metadata(&mut pod.metadata);
    let Some(spec) = &mut pod.spec else { return };
    pod_spec(spec);
    let host_network = spec.host_network == Some(true);
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        if let Some(resources) = &mut container.resources {
            requests_from_limits(resources);
        }
        for port in container.ports.iter_mut().flatten().filter(|_| host_network) {
            if matches!(port.host_port, None | Some(0)) {
                port.host_port = Some(port.container_port);
            }
        }
    }
    spec.enable_service_links.get_or_insert(true);
}

/// The namespace, and the name asked for by `generateName`.
pub fn metadata(meta: &mut ObjectMeta) {
    if meta.namespace.as_deref().is_none_or(str::is_empty) {
        meta.namespace = Some("default".to_owned());
    }
    if meta.name.as_deref().is_none_or(str::is_empty) {
        meta.name = meta.generate_name.as_deref().filter(|prefix| !prefix.is_empty()).map(generated_name);
    }
}

/// `stringData` becomes `data`, over what is there; the type becomes `Opaque`.
pub fn secret(secret: &mut Secret) {
    metadata(&mut secret.metadata);
    if let Some(texts) = secret.string_data.take() {
        let data = secret.data.get_or_insert_default();
        data.extend(texts.into_iter().map(|(key, text)| (key, ByteString(text.into_bytes()))));
    }
    fill(&mut secret.type_, "Opaque");
}

/// Defaults of the spec of a pod or of a template.
pub fn pod_spec(spec: &mut PodSpec) {
    fill(&mut spec.dns_policy, "ClusterFirst");
    fill(&mut spec.restart_policy, "Always");
    fill(&mut spec.scheduler_name, "default-scheduler");
    spec.security_context.get_or_insert_default();
    spec.termination_grace_period_seconds.get_or_insert(30);
    // The old and the new name of one field: conversion keeps them equal, and the new one counts.
    match (&spec.service_account_name, &spec.service_account) {
        (Some(name), _) if !name.is_empty() => spec.service_account = Some(name.clone()),
        (_, Some(name)) if !name.is_empty() => spec.service_account_name = Some(name.clone()),
        _ => {}
    }
    for volume in spec.volumes.iter_mut().flatten() {
        self::volume(volume);
    }
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        self::container(container);
    }
    for ephemeral in spec.ephemeral_containers.iter_mut().flatten() {
        let target = ephemeral.target_container_name.take();
        let mut container = ephemeral::as_container(std::mem::take(ephemeral));
        self::container(&mut container);
        *ephemeral = ephemeral::from_container(container, target);
    }
}

fn container(container: &mut Container) {
    let image = container.image.as_deref().unwrap_or_default();
    let policy = pull_policy(image);
    fill(&mut container.image_pull_policy, policy);
    fill(&mut container.termination_message_path, "/dev/termination-log");
    fill(&mut container.termination_message_policy, "File");
    container.resources.get_or_insert_default();
    for port in container.ports.iter_mut().flatten() {
        fill(&mut port.protocol, "TCP");
    }
    for variable in container.env.iter_mut().flatten() {
        environment_variable(variable);
    }
    for probe in [&mut container.liveness_probe, &mut container.readiness_probe, &mut container.startup_probe]
        .into_iter()
        .flatten()
    {
        self::probe(probe);
    }
    if let Some(lifecycle) = &mut container.lifecycle {
        for hook in [&mut lifecycle.post_start, &mut lifecycle.pre_stop].into_iter().flatten() {
            let LifecycleHandler { http_get: get, .. } = hook;
            get.iter_mut().for_each(http_get);
        }
    }
}

fn environment_variable(variable: &mut EnvVar) {
    if let Some(source) = &mut variable.value_from {
        source.field_ref.iter_mut().for_each(field_ref);
    }
}

fn field_ref(field: &mut ObjectFieldSelector) {
    fill(&mut field.api_version, "v1");
}

fn probe(probe: &mut Probe) {
    let numbers = [
        (&mut probe.timeout_seconds, 1),
        (&mut probe.period_seconds, 10),
        (&mut probe.success_threshold, 1),
        (&mut probe.failure_threshold, 3),
    ];
    for (number, default) in numbers {
        if matches!(number, None | Some(0)) {
            *number = Some(default);
        }
    }
    probe.http_get.iter_mut().for_each(http_get);
    if let Some(grpc) = &mut probe.grpc {
        grpc.service.get_or_insert_default();
    }
}

fn http_get(get: &mut HTTPGetAction) {
    fill(&mut get.path, "/");
    fill(&mut get.scheme, "HTTP");
}

fn volume(volume: &mut Volume) {
    // Only a volume with nothing but a name; one whose source is of an unknown kind was refused while decoding.
    if *volume == (Volume { name: volume.name.clone(), ..Volume::default() }) {
        volume.empty_dir = Some(EmptyDirVolumeSource::default());
    }
    if let Some(source) = &mut volume.host_path {
        source.type_.get_or_insert_default();
    }
    if let Some(source) = &mut volume.config_map {
        source.default_mode.get_or_insert(FILE_MODE);
    }
    if let Some(source) = &mut volume.secret {
        source.default_mode.get_or_insert(FILE_MODE);
    }
    if let Some(source) = &mut volume.downward_api {
        source.default_mode.get_or_insert(FILE_MODE);
        source.items.iter_mut().flatten().flat_map(|file| &mut file.field_ref).for_each(field_ref);
    }
    if let Some(source) = &mut volume.projected {
        source.default_mode.get_or_insert(FILE_MODE);
        source.sources.iter_mut().flatten().for_each(projection);
    }
    if let Some(source) = &mut volume.image {
        let policy = pull_policy(source.reference.as_deref().unwrap_or_default());
        fill(&mut source.pull_policy, policy);
    }
    if let Some(template) = volume.ephemeral.as_mut().and_then(|source| source.volume_claim_template.as_mut()) {
        fill(&mut template.spec.volume_mode, "Filesystem");
    }
}

fn projection(projection: &mut VolumeProjection) {
    if let Some(source) = &mut projection.downward_api {
        source.items.iter_mut().flatten().flat_map(|file| &mut file.field_ref).for_each(field_ref);
    }
    if let Some(token) = &mut projection.service_account_token {
        token.expiration_seconds.get_or_insert(3600);
    }
}

/// A pod that limits a resource without requesting it requests the limit (`SetDefaults_Pod`).
fn requests_from_limits(resources: &mut ResourceRequirements) {
    let Some(limits) = resources.limits.as_ref().filter(|limits| !limits.is_empty()) else { return };
    let requests: &mut BTreeMap<String, Quantity> = resources.requests.get_or_insert_default();
    for (name, limit) in limits {
        requests.entry(name.clone()).or_insert_with(|| limit.clone());
    }
}

/// `Always` for the tag `latest`, or for neither a tag nor a digest; else `IfNotPresent`.
pub fn pull_policy(image: &str) -> &'static str {
    let (image, digest) = match image.split_once('@') {
        Some((image, _)) => (image, true),
        None => (image, false),
    };
    // A colon before the last slash belongs to the registry's port.
    let tag = image.rsplit_once(':').map(|(_, tag)| tag).filter(|tag| !tag.contains('/'));
    match tag {
        Some("latest") => "Always",
        None if !digest => "Always",
        _ => "IfNotPresent",
    }
}

fn generated_name(prefix: &str) -> String {
    let prefix: String = prefix.chars().take(NAME_PREFIX).collect();
    // Every RandomState is seeded anew from the system's randomness: enough for names that need not be secret.
    let mut random = RandomState::new().build_hasher().finish();
    let tail = std::iter::repeat_with(|| {
        let letters = NAME_ALPHABET.len() as u64;
        let letter = NAME_ALPHABET[usize::try_from(random % letters).unwrap_or_default()];
        random /= letters;
        char::from(letter)
    });
    prefix.chars().chain(tail.take(NAME_TAIL)).collect()
}

/// Go's "zero value": absent and empty are the same.
fn fill(field: &mut Option<String>, default: &str) {
    if field.as_deref().is_none_or(str::is_empty) {
        *field = Some(default.to_owned());
    }
}

#[cfg(test)]
mod tests;
