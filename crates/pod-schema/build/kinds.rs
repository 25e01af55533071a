//! Which kinds there are: schemas of the Kubernetes crate, plus those it lacks (lists, metrics).

use std::collections::BTreeMap;

use k8s_openapi::schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::{Value, json};

/// A kind, and the name of its schema.
#[derive(Debug, Clone)]
pub(crate) struct Kind {
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    pub(crate) kind: String,
    pub(crate) schema: String,
}

#[derive(Debug)]
pub(crate) struct Collected {
    pub(crate) kinds: Vec<Kind>,
    pub(crate) schemas: BTreeMap<String, Value>,
}

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const METRICS: &str = "io.k8s.metrics.pkg.apis.metrics.v1beta1";

/// `listed`: kinds that have a list; `single`: those that are only ever sent or answered one at a time.
macro_rules! group {
    ($collected:ident, $generator:ident, $group:literal, $version:literal, $path:path,
     listed: [$($listed:ident),*], single: [$($single:ident),*]) => {{
        use $path as types;
        $(
            let name = add::<types::$listed>(&mut $generator);
            $collected.kind($group, $version, stringify!($listed), name.clone());
            $collected.list($group, $version, stringify!($listed), &name);
        )*
        $(
            let name = add::<types::$single>(&mut $generator);
            $collected.kind($group, $version, stringify!($single), name);
        )*
    }};
}

pub(crate) fn collect() -> Collected {
    let mut collected = Collected { kinds: Vec::new(), schemas: BTreeMap::new() };
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    group!(collected, generator, "", "v1", k8s_openapi::api::core::v1,
        listed: [ConfigMap, Endpoints, Event, LimitRange, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, PodTemplate,
                 ReplicationController, ResourceQuota, Secret, Service, ServiceAccount],
        single: [Binding]);
    group!(collected, generator, "apps", "v1", k8s_openapi::api::apps::v1,
        listed: [ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet], single: []);
    group!(collected, generator, "batch", "v1", k8s_openapi::api::batch::v1, listed: [CronJob, Job], single: []);
    group!(collected, generator, "events.k8s.io", "v1", k8s_openapi::api::events::v1, listed: [Event], single: []);
    group!(collected, generator, "discovery.k8s.io", "v1", k8s_openapi::api::discovery::v1,
        listed: [EndpointSlice], single: []);
    group!(collected, generator, "coordination.k8s.io", "v1", k8s_openapi::api::coordination::v1,
        listed: [Lease], single: []);
    group!(collected, generator, "policy", "v1", k8s_openapi::api::policy::v1,
        listed: [PodDisruptionBudget], single: [Eviction]);
    group!(collected, generator, "autoscaling", "v1", k8s_openapi::api::autoscaling::v1, listed: [], single: [Scale]);
    group!(collected, generator, "authentication.k8s.io", "v1", k8s_openapi::api::authentication::v1,
        listed: [], single: [SelfSubjectReview, TokenRequest, TokenReview]);
    group!(collected, generator, "authorization.k8s.io", "v1", k8s_openapi::api::authorization::v1,
        listed: [],
        single: [LocalSubjectAccessReview, SelfSubjectAccessReview, SelfSubjectRulesReview, SubjectAccessReview]);
    group!(collected, generator, "", "v1", k8s_openapi::apimachinery::pkg::apis::meta::v1,
        listed: [], single: [APIGroup, APIGroupList, APIResourceList, APIVersions, DeleteOptions, Status]);
    add::<k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta>(&mut generator);
    add::<k8s_openapi::apimachinery::pkg::apis::meta::v1::Patch>(&mut generator);
    collected.metrics();
    for (name, schema) in generator.take_definitions(true) {
        collected.schemas.insert(name, schema);
    }
    collected
}

fn add<T: k8s_openapi::schemars::JsonSchema>(generator: &mut SchemaGenerator) -> String {
    generator.subschema_for::<T>();
    T::schema_name().into_owned()
}

impl Collected {
    fn kind(&mut self, group: &'static str, version: &'static str, kind: &str, schema: String) {
        self.kinds.push(Kind { group, version, kind: kind.into(), schema });
    }

    /// The crate's list types carry no schema.
    fn list(&mut self, group: &'static str, version: &'static str, kind: &str, item: &str) {
        let name = format!("{item}List");
        self.schemas.insert(
            name.clone(),
            json!({
                "description": format!("A list of objects of kind {kind}."),
                "type": "object",
                "properties": {
                    "apiVersion": {"type": "string", "description": API_VERSION},
                    "kind": {"type": "string", "description": KIND},
                    "metadata": {"$ref": reference(&format!("{META}.ListMeta")), "description": "Metadata of the list."},
                    "items": {"type": "array", "items": {"$ref": reference(item)}, "description": "The objects."},
                },
                "required": ["items"],
            }),
        );
        self.kind(group, version, &format!("{kind}List"), name);
    }

    /// `metrics.k8s.io/v1beta1`, which is not part of the Kubernetes crate.
    fn metrics(&mut self) {
        let (group, version) = ("metrics.k8s.io", "v1beta1");
        let quantity = reference("io.k8s.apimachinery.pkg.api.resource.Quantity");
        let usage = json!({
            "type": "object",
            "additionalProperties": {"$ref": quantity},
            "description": "Memory in use (working set) and processor use averaged over the window.",
        });
        let common = json!({
            "apiVersion": {"type": "string", "description": API_VERSION},
            "kind": {"type": "string", "description": KIND},
            "metadata": {"$ref": reference(&format!("{META}.ObjectMeta")), "description": "Standard object's metadata."},
            "timestamp": {"$ref": reference(&format!("{META}.Time")), "description": "End of the window."},
            "window": {"$ref": reference(&format!("{META}.Duration")), "description": "How long was measured."},
        });
        let mut node = common.clone();
        node["usage"] = usage.clone();
        let mut pod = common;
        pod["containers"] = json!({
            "type": "array",
            "items": {"$ref": reference(&format!("{METRICS}.ContainerMetrics"))},
            "description": "Use by container of the pod, in the same window.",
        });
        let schemas = [
            ("NodeMetrics", "What a node used in a window of time.", node, json!(["timestamp", "window", "usage"])),
            (
                "PodMetrics",
                "What a pod's containers used in a window of time.",
                pod,
                json!(["timestamp", "window", "containers"]),
            ),
            (
                "ContainerMetrics",
                "What a container used in a window of time.",
                json!({"name": {"type": "string", "description": "The container's name in the pod."}, "usage": usage}),
                json!(["name", "usage"]),
            ),
        ];
        for (name, description, properties, required) in schemas {
            let schema =
                json!({"description": description, "type": "object", "properties": properties, "required": required});
            self.schemas.insert(format!("{METRICS}.{name}"), schema);
        }
        self.schemas.insert(
            format!("{META}.Duration"),
            json!({"description": "A length of time as Go writes it: `1m30.5s`.", "type": "string"}),
        );
        for kind in ["NodeMetrics", "PodMetrics"] {
            let name = format!("{METRICS}.{kind}");
            self.kind(group, version, kind, name.clone());
            self.list(group, version, kind, &name);
        }
    }
}

fn reference(name: &str) -> String {
    format!("#/$defs/{name}")
}

const API_VERSION: &str = "The version of the schema that this object is in, as group/version.";
const KIND: &str = "What this object is, in CamelCase; a client cannot change it.";
