//! What we know of Kubernetes against what the build made of it.

mod check;
mod document;

use super::*;

fn pod() -> Type {
    Type::of_kind("", "v1", "Pod").expect("there are pods")
}

/// The field at the end of a path; lists and maps are passed through.
fn field_at(kind: &str, path: &str) -> Field {
    let mut ty = table::of_kind(kind).unwrap_or_else(|| panic!("{kind} is in the table"));
    let mut last = None;
    for name in path.split('.') {
        while let Shape::List { item: inner, .. } | Shape::Map { value: inner, .. } = ty.shape() {
            ty = inner;
        }
        let field = ty.field(name).unwrap_or_else(|| panic!("{kind} {path}: no {name}"));
        ty = field.ty;
        last = Some(field);
    }
    last.expect("path is not empty")
}

/// `merge by name + retainKeys; map by name`
fn describe(field: &Field) -> String {
    let mut words = Vec::new();
    if field.patch.merge {
        words.push(field.patch.merge_key.map_or("merge".into(), |key| format!("merge by {key}")));
    }
    if field.patch.retain_keys {
        words.push("retainKeys".into());
    }
    words.push(match field.ty.shape() {
        Shape::Any => "any".into(),
        Shape::Scalar(scalar) => format!("{scalar:?}"),
        Shape::Object { atomic } => if atomic { "atomic object" } else { "object" }.into(),
        Shape::Map { atomic, .. } => if atomic { "atomic map" } else { "map" }.into(),
        Shape::List { kind: ListKind::Atomic, .. } => "atomic list".into(),
        Shape::List { kind: ListKind::Set, .. } => "set".into(),
        Shape::List { kind: ListKind::Map(keys), .. } => format!("list by {}", keys.join("+")),
    });
    words.join(", ")
}

#[test]
fn fields_merge_as_upstream_says() {
    let known = [
        ("/v1/Pod", "spec.containers", "merge by name, list by name"),
        ("/v1/Pod", "spec.initContainers", "merge by name, list by name"),
        ("/v1/Pod", "spec.ephemeralContainers", "merge by name, list by name"),
        ("/v1/Pod", "spec.containers.env", "merge by name, list by name"),
        ("/v1/Pod", "spec.containers.envFrom", "atomic list"),
        ("/v1/Pod", "spec.containers.args", "atomic list"),
        ("/v1/Pod", "spec.containers.ports", "merge by containerPort, list by containerPort+protocol"),
        ("/v1/Pod", "spec.containers.volumeMounts", "merge by mountPath, list by mountPath"),
        ("/v1/Pod", "spec.containers.volumeDevices", "merge by devicePath, list by devicePath"),
        ("/v1/Pod", "spec.containers.resources", "object"),
        ("/v1/Pod", "spec.containers.resources.claims", "list by name"),
        ("/v1/Pod", "spec.containers.resources.limits", "map"),
        ("/v1/Pod", "spec.containers.env.valueFrom.configMapKeyRef", "atomic object"),
        ("/v1/Pod", "spec.containers.env.valueFrom.secretKeyRef", "atomic object"),
        ("/v1/Pod", "spec.containers.env.valueFrom.fieldRef", "atomic object"),
        ("/v1/Pod", "spec.containers.env.valueFrom.resourceFieldRef", "atomic object"),
        ("/v1/Pod", "spec.containers.livenessProbe.httpGet.port", "IntOrString"),
        ("/v1/Pod", "spec.containers.securityContext.capabilities.add", "atomic list"),
        ("/v1/Pod", "spec.volumes", "merge by name, retainKeys, list by name"),
        ("/v1/Pod", "spec.volumes.configMap.items", "atomic list"),
        ("/v1/Pod", "spec.volumes.emptyDir.sizeLimit", "Quantity"),
        ("/v1/Pod", "spec.imagePullSecrets", "merge by name, list by name"),
        ("/v1/Pod", "spec.hostAliases", "merge by ip, list by ip"),
        ("/v1/Pod", "spec.hostAliases.hostnames", "atomic list"),
        ("/v1/Pod", "spec.topologySpreadConstraints", "merge by topologyKey, list by topologyKey+whenUnsatisfiable"),
        ("/v1/Pod", "spec.tolerations", "atomic list"),
        ("/v1/Pod", "spec.nodeSelector", "atomic map"),
        ("/v1/Pod", "spec.schedulingGates", "merge by name, list by name"),
        ("/v1/Pod", "spec.resourceClaims", "merge by name, retainKeys, list by name"),
        ("/v1/Pod", "status.conditions", "merge by type, list by type"),
        ("/v1/Pod", "status.podIPs", "merge by ip, list by ip"),
        ("/v1/Pod", "status.hostIPs", "merge by ip, atomic list"),
        ("/v1/Pod", "status.containerStatuses", "atomic list"),
        ("/v1/Pod", "status.startTime", "Time"),
        ("/v1/Pod", "metadata.finalizers", "merge, set"),
        ("/v1/Pod", "metadata.ownerReferences", "merge by uid, list by uid"),
        ("/v1/Pod", "metadata.managedFields", "atomic list"),
        ("/v1/Pod", "metadata.managedFields.fieldsV1", "any"),
        ("/v1/Pod", "metadata.labels", "map"),
        ("/v1/PodTemplate", "template.spec.containers", "merge by name, list by name"),
        ("/v1/Service", "spec.ports", "merge by port, list by port+protocol"),
        ("/v1/Service", "spec.selector", "atomic map"),
        ("/v1/Service", "spec.clusterIPs", "atomic list"),
        ("/v1/ServiceAccount", "secrets", "merge by name, list by name"),
        ("/v1/ServiceAccount", "imagePullSecrets", "atomic list"),
        ("/v1/Node", "spec.taints", "atomic list"),
        ("/v1/Node", "spec.podCIDRs", "merge, set"),
        ("/v1/Node", "status.addresses", "merge by type, list by type"),
        ("/v1/Node", "status.conditions", "merge by type, list by type"),
        ("/v1/Namespace", "spec.finalizers", "atomic list"),
        ("/v1/Endpoints", "subsets", "atomic list"),
        ("/v1/Secret", "data", "map"),
        ("/v1/ReplicationController", "spec.selector", "atomic map"),
        ("/v1/Event", "involvedObject", "atomic object"),
        ("/v1/PersistentVolume", "spec.claimRef", "object"),
        ("discovery.k8s.io/v1/EndpointSlice", "endpoints", "atomic list"),
        ("discovery.k8s.io/v1/EndpointSlice", "endpoints.addresses", "set"),
        ("discovery.k8s.io/v1/EndpointSlice", "ports", "atomic list"),
        ("coordination.k8s.io/v1/Lease", "spec.renewTime", "Time"),
        ("apps/v1/Deployment", "spec.selector", "atomic object"),
        ("apps/v1/Deployment", "spec.strategy", "retainKeys, object"),
        ("apps/v1/Deployment", "status.conditions", "merge by type, list by type"),
        ("batch/v1/Job", "status.uncountedTerminatedPods.failed", "set"),
        ("metrics.k8s.io/v1beta1/PodMetrics", "containers.usage", "map"),
    ];
    for (kind, path, wanted) in known {
        assert_eq!(describe(&field_at(kind, path)), wanted, "{kind} {path}");
    }
}

#[test]
fn all_kinds_are_there_and_say_so() {
    let served = [
        ("", "v1", "Binding ConfigMap Endpoints Event LimitRange Namespace Node PersistentVolumeClaim Pod PodTemplate"),
        ("", "v1", "ReplicationController ResourceQuota Secret Service ServiceAccount"),
        ("", "v1", "ConfigMapList NamespaceList PodList DeleteOptions Status APIResourceList"),
        ("apps", "v1", "ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet DeploymentList"),
        ("authentication.k8s.io", "v1", "SelfSubjectReview TokenRequest TokenReview"),
        ("authorization.k8s.io", "v1", "SelfSubjectAccessReview SelfSubjectRulesReview SubjectAccessReview"),
        ("autoscaling", "v1", "Scale"),
        ("batch", "v1", "CronJob Job JobList"),
        ("coordination.k8s.io", "v1", "Lease LeaseList"),
        ("discovery.k8s.io", "v1", "EndpointSlice EndpointSliceList"),
        ("events.k8s.io", "v1", "Event EventList"),
        ("metrics.k8s.io", "v1beta1", "NodeMetrics NodeMetricsList PodMetrics PodMetricsList"),
        ("policy", "v1", "Eviction PodDisruptionBudget"),
    ];
    for (group, version, names) in served {
        for kind in names.split(' ') {
            let ty = Type::of_kind(group, version, kind).unwrap_or_else(|| panic!("{group}/{version} {kind}"));
            assert!(ty.field("kind").is_some() && ty.field("apiVersion").is_some(), "{kind}");
        }
    }
    assert_eq!(Type::of_kind("", "v1", "Widget"), None);
    assert_eq!(Type::of_kind("apps", "v1", "Pod"), None);
    assert!(kinds().any(|kind| kind == "/v1/Pod"));
}

#[test]
fn types_go_by_their_schema_names_too() {
    assert_eq!(Type::named("io.k8s.api.core.v1.Pod"), Some(pod()));
    assert_eq!(Type::named("io.k8s.api.core.v1.Podd"), None);
    let quantity = Type::named("io.k8s.apimachinery.pkg.api.resource.Quantity").expect("there are quantities");
    assert_eq!(quantity.shape(), Shape::Scalar(Scalar::Quantity));
    for name in table::names() {
        let ty = Type::named(name).unwrap_or_else(|| panic!("{name} is found"));
        for field in ty.fields() {
            assert_eq!(ty.field(field.name).map(|found| found.ty), Some(field.ty), "{name}.{}", field.name);
        }
    }
}

#[test]
fn required_fields_are_upstreams_not_the_rust_types() {
    assert!(!field_at("/v1/Pod", "metadata").required, "the Rust type insists on it");
    assert!(!field_at("/v1/Pod", "spec.imagePullSecrets.name").required, "the Rust type insists on it");
    assert!(field_at("/v1/Pod", "spec.containers").required);
    assert!(field_at("/v1/Pod", "spec.containers.ports.containerPort").required);
    assert!(field_at("events.k8s.io/v1/Event", "eventTime").required);
}

#[test]
fn a_port_is_tcp_unless_it_says_otherwise() {
    let port = Type::named("io.k8s.api.core.v1.ContainerPort").expect("there are ports");
    assert_eq!(port.key_default("protocol"), Some("\"TCP\""));
    assert_eq!(port.key_default("containerPort"), None);
    assert_eq!(port.key_default("nothing"), None);
    let port = Type::named("io.k8s.api.core.v1.ServicePort").expect("there are ports");
    assert_eq!(port.key_default("protocol"), Some("\"TCP\""));
}

#[test]
fn every_list_by_keys_has_items_with_those_keys() {
    for name in table::names() {
        for field in Type::named(name).into_iter().flat_map(Type::fields) {
            if let Shape::List { item, kind: ListKind::Map(keys) } = field.ty.shape() {
                assert!(keys.iter().all(|key| item.field(key).is_some()), "{name}.{} by {keys:?}", field.name);
            }
            if let (Some(key), Shape::List { item, .. }) = (field.patch.merge_key, field.ty.shape()) {
                assert!(item.field(key).is_some(), "{name}.{} merges by {key}", field.name);
            }
        }
    }
}

#[test]
fn only_objects_have_fields() {
    let containers = field_at("/v1/Pod", "spec.containers").ty;
    assert_eq!((containers.fields().count(), containers.field("name").is_some()), (0, false));
    assert!(pod().fields().map(|field| field.name).eq(["apiVersion", "kind", "metadata", "spec", "status"]));
}

#[test]
fn the_table_is_small() {
    let size = table::size();
    assert!(size < 64 * 1024, "{size} bytes");
}
