//! The ConfigMaps and Secrets a pod refers to.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, Pod, VolumeProjection};
use pod_api::context::Objects;
use pod_store::Store;

use crate::object;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    ConfigMap,
    Secret,
}

impl Kind {
    fn resource(self) -> &'static str {
        match self {
            Kind::ConfigMap => "configmaps",
            Kind::Secret => "secrets",
        }
    }
}

pub(crate) type Needs = BTreeSet<(Kind, String)>;

/// By name, in the pod's namespace. Optional ones count as well: they may appear.
pub(crate) fn needs(pod: &Pod) -> Needs {
    let Some(spec) = &pod.spec else { return Needs::new() };
    let mut needs = Needs::new();
    for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
        of_container(container, &mut needs);
    }
    for container in spec.ephemeral_containers.iter().flatten() {
        of_container(&pod_plan::as_container(container), &mut needs);
    }
    for volume in spec.volumes.iter().flatten() {
        if let Some(source) = &volume.config_map {
            needs.insert((Kind::ConfigMap, source.name.clone()));
        }
        if let Some(name) = volume.secret.as_ref().and_then(|source| source.secret_name.clone()) {
            needs.insert((Kind::Secret, name));
        }
        let projected = volume.projected.as_ref().and_then(|source| source.sources.as_ref());
        projected.into_iter().flatten().for_each(|source| of_projection(source, &mut needs));
    }
    needs
}

fn of_container(container: &Container, needs: &mut Needs) {
    for from in container.env_from.iter().flatten() {
        needs.extend(from.config_map_ref.as_ref().map(|source| (Kind::ConfigMap, source.name.clone())));
        needs.extend(from.secret_ref.as_ref().map(|source| (Kind::Secret, source.name.clone())));
    }
    for from in container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref()) {
        needs.extend(from.config_map_key_ref.as_ref().map(|source| (Kind::ConfigMap, source.name.clone())));
        needs.extend(from.secret_key_ref.as_ref().map(|source| (Kind::Secret, source.name.clone())));
    }
}

fn of_projection(source: &VolumeProjection, needs: &mut Needs) {
    needs.extend(source.config_map.as_ref().map(|source| (Kind::ConfigMap, source.name.clone())));
    needs.extend(source.secret.as_ref().map(|source| (Kind::Secret, source.name.clone())));
}

/// What [`collect`] would say of the revisions.
pub(crate) fn revisions(store: &Store, namespace: &str, needs: &Needs) -> Vec<u64> {
    let found = needs.iter().map(|(kind, name)| store.get(&object::key(kind.resource(), namespace, name)));
    found.map(|found| found.map_or(0, |found| found.revision)).collect()
}

/// Those that are there, and the revisions they have.
pub(crate) fn collect(store: &Store, namespace: &str, needs: &Needs) -> (Objects, Vec<u64>) {
    let mut objects = Objects::default();
    let mut revisions = Vec::new();
    for (kind, name) in needs {
        let found = store.get(&object::key(kind.resource(), namespace, name));
        revisions.push(found.as_ref().map_or(0, |found| found.revision));
        let Some(value) = found.map(|found| object::value(&found)) else { continue };
        // The API lets nothing in that does not fit its type.
        match kind {
            Kind::ConfigMap => {
                let _ = pod_api::decode::config_map(&value).map(|found| objects.insert_config_map(found));
            }
            Kind::Secret => {
                let _ = pod_api::decode::secret(&value).map(|found| objects.insert_secret(found));
            }
        }
    }
    (objects, revisions)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_way_to_refer_is_seen() {
        let pod = json!({"metadata": {}, "spec": {
            "initContainers": [{"name": "i", "envFrom": [{"configMapRef": {"name": "a"}}, {"secretRef": {"name": "b"}}]}],
            "containers": [{"name": "c", "env": [
                {"name": "x", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}},
                {"name": "y", "valueFrom": {"secretKeyRef": {"name": "d", "key": "k"}}}]}],
            "ephemeralContainers": [{"name": "debug", "envFrom": [{"configMapRef": {"name": "j"}}]}],
            "volumes": [{"name": "e", "configMap": {"name": "e"}}, {"name": "f", "secret": {"secretName": "f"}},
                {"name": "p", "projected": {"sources": [{"configMap": {"name": "g"}}, {"secret": {"name": "h"}}]}}],
        }});
        let needs = needs(&serde_json::from_value(pod).unwrap());
        let names = |kind| needs.iter().filter(|need| need.0 == kind).map(|need| need.1.as_str()).collect::<String>();
        assert_eq!((names(Kind::ConfigMap).as_str(), names(Kind::Secret).as_str()), ("acegj", "bdfh"));
    }
}
