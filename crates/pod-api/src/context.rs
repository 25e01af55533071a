//! What surrounds a pod when its environment and its volumes are resolved: the node and the objects it may refer to.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, PodSpec, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};

use crate::names::ClusterDns;

/// The namespace of an object that names none.
pub const DEFAULT_NAMESPACE: &str = "default";

/// What a pod finds around it: config maps, secrets, services.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Objects {
    /// By `NAMESPACE/NAME`, which is unambiguous since neither holds a slash.
    config_maps: BTreeMap<String, ConfigMap>,
    secrets: BTreeMap<String, Secret>,
    /// Who resolves names of services; `None` where there are none.
    #[serde(default)]
    pub cluster_dns: Option<ClusterDns>,
    /// `NAME_SERVICE_HOST` and the like of the services of the pod's namespace, for containers that start from now on.
    #[serde(default)]
    pub service_variables: Vec<(String, String)>,
}

impl Objects {
    /// Later objects replace earlier ones of the same name.
    pub fn new(config_maps: impl IntoIterator<Item = ConfigMap>, secrets: impl IntoIterator<Item = Secret>) -> Objects {
        let mut objects = Objects::default();
        config_maps.into_iter().for_each(|config_map| objects.insert_config_map(config_map));
        secrets.into_iter().for_each(|secret| objects.insert_secret(secret));
        objects
    }

    pub fn insert_config_map(&mut self, config_map: ConfigMap) {
        self.config_maps.insert(key_of(&config_map.metadata), config_map);
    }

    /// `stringData` is folded into `data`, as the API server does when a secret is written.
    pub fn insert_secret(&mut self, mut secret: Secret) {
        if let Some(texts) = secret.string_data.take() {
            let data = secret.data.get_or_insert_default();
            data.extend(texts.into_iter().map(|(key, text)| (key, ByteString(text.into_bytes()))));
        }
        self.secrets.insert(key_of(&secret.metadata), secret);
    }

    pub fn remove_config_map(&mut self, namespace: &str, name: &str) -> Option<ConfigMap> {
        self.config_maps.remove(&key(namespace, name))
    }

    pub fn remove_secret(&mut self, namespace: &str, name: &str) -> Option<Secret> {
        self.secrets.remove(&key(namespace, name))
    }

    pub fn config_map(&self, namespace: &str, name: &str) -> Option<&ConfigMap> {
        self.config_maps.get(&key(namespace, name))
    }

    pub fn secret(&self, namespace: &str, name: &str) -> Option<&Secret> {
        self.secrets.get(&key(namespace, name))
    }
}

fn key(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}

fn key_of(metadata: &ObjectMeta) -> String {
    key(metadata.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE), metadata.name.as_deref().unwrap_or_default())
}

/// The machine, as pods see it. Its capacities stand in for limits a container does not have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    pub name: String,
    pub host_ips: Vec<IpAddr>,
    pub cpu_millis: i64,
    pub memory_bytes: i64,
    pub ephemeral_bytes: i64,
}

/// A pod with everything that is only known when it runs.
#[derive(Debug, Clone, Copy)]
pub struct PodContext<'a> {
    pub pod: &'a Pod,
    pub uid: &'a str,
    /// Empty until the sandbox stands.
    pub pod_ips: &'a [IpAddr],
    pub node: &'a NodeInfo,
    pub objects: &'a Objects,
    /// What `hostname` prints in the pod ([`crate::names`]); the node's with `hostNetwork`.
    pub hostname: &'a str,
}

impl<'a> PodContext<'a> {
    pub fn name(&self) -> &'a str {
        self.pod.metadata.name.as_deref().unwrap_or_default()
    }

    pub fn namespace(&self) -> &'a str {
        self.pod.metadata.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE)
    }

    pub fn spec(&self) -> Option<&'a PodSpec> {
        self.pod.spec.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_are_found_by_namespace_and_name_also_after_a_trip_through_json() {
        let config_map = serde_json::from_value(json!({"metadata": {"name": "c"}, "data": {"a": "1"}})).unwrap();
        let secret = serde_json::from_value(json!({
            "metadata": {"name": "s", "namespace": "n"}, "data": {"a": "b2xk", "b": "AP8="}, "stringData": {"a": "new"},
        }));
        let objects = Objects::new([config_map], [secret.unwrap()]);
        let text = serde_json::to_string(&objects).unwrap();
        let objects: Objects = serde_json::from_str(&text).unwrap();

        assert!(objects.config_map("default", "c").is_some());
        assert!(objects.config_map("n", "c").is_none());
        let data = objects.secret("n", "s").and_then(|secret| secret.data.as_ref()).unwrap();
        assert_eq!((data["a"].0.as_slice(), data["b"].0.as_slice()), (b"new".as_slice(), [0u8, 0xff].as_slice()));
    }
}
