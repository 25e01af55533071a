//! The list of what is served, in discovery's order: the core group, then the others by name.

use super::{Resource, Strategy, Subresource};
use super::{
    account, claim, configuration, endpoint, event, lease, limits, namespace, node, pod, quota, service, template,
};

const ALL_VERBS: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const READ_AND_WRITE: &[&str] = &["get", "patch", "update"];
const OPEN: &[&str] = &["create", "get"];

/// A namespaced kind of the core group, with every verb.
const fn core(
    kind: &'static str,
    plural: &'static str,
    singular: &'static str,
    short_names: &'static [&'static str],
    strategy: &'static dyn Strategy,
) -> Resource {
    Resource {
        group: "",
        version: "v1",
        kind,
        plural,
        singular,
        short_names,
        categories: &[],
        namespaced: true,
        verbs: ALL_VERBS,
        subresources: &[],
        stored_as: plural,
        strategy,
    }
}

const fn status(kind: &'static str) -> Subresource {
    Subresource { name: "status", verbs: READ_AND_WRITE, kind: ("", "v1", kind) }
}

static ALL: &[Resource] = &[
    core("ConfigMap", "configmaps", "configmap", &["cm"], &configuration::ConfigMaps),
    core("Endpoints", "endpoints", "endpoints", &["ep"], &endpoint::Endpoints),
    core("Event", "events", "event", &["ev"], &event::Events),
    core("LimitRange", "limitranges", "limitrange", &["limits"], &limits::LimitRanges),
    Resource {
        namespaced: false,
        // A collection of namespaces is not deleted at once.
        verbs: &["create", "delete", "get", "list", "patch", "update", "watch"],
        subresources: &[
            Subresource { name: "finalize", verbs: &["update"], kind: ("", "v1", "Namespace") },
            status("Namespace"),
        ],
        ..core("Namespace", "namespaces", "namespace", &["ns"], &namespace::Namespaces)
    },
    Resource {
        namespaced: false,
        subresources: &[status("Node")],
        ..core("Node", "nodes", "node", &["no"], &node::Nodes)
    },
    Resource {
        subresources: &[status("PersistentVolumeClaim")],
        ..core("PersistentVolumeClaim", "persistentvolumeclaims", "persistentvolumeclaim", &["pvc"], &claim::Claims)
    },
    Resource {
        categories: &["all"],
        subresources: &[
            Subresource { name: "attach", verbs: OPEN, kind: ("", "v1", "PodAttachOptions") },
            Subresource { name: "binding", verbs: &["create"], kind: ("", "v1", "Binding") },
            Subresource { name: "ephemeralcontainers", verbs: READ_AND_WRITE, kind: ("", "v1", "Pod") },
            Subresource { name: "eviction", verbs: &["create"], kind: ("policy", "v1", "Eviction") },
            Subresource { name: "exec", verbs: OPEN, kind: ("", "v1", "PodExecOptions") },
            Subresource { name: "log", verbs: &["get"], kind: ("", "v1", "Pod") },
            Subresource { name: "portforward", verbs: OPEN, kind: ("", "v1", "PodPortForwardOptions") },
            Subresource { name: "resize", verbs: READ_AND_WRITE, kind: ("", "v1", "Pod") },
            status("Pod"),
        ],
        ..core("Pod", "pods", "pod", &["po"], &pod::Pods)
    },
    core("PodTemplate", "podtemplates", "podtemplate", &[], &template::PodTemplates),
    Resource {
        categories: &["all"],
        subresources: &[status("ReplicationController")],
        ..core(
            "ReplicationController",
            "replicationcontrollers",
            "replicationcontroller",
            &["rc"],
            &template::ReplicationControllers,
        )
    },
    Resource {
        subresources: &[status("ResourceQuota")],
        ..core("ResourceQuota", "resourcequotas", "resourcequota", &["quota"], &quota::ResourceQuotas)
    },
    core("Secret", "secrets", "secret", &[], &configuration::Secrets),
    Resource {
        subresources: &[Subresource {
            name: "token",
            verbs: &["create"],
            kind: ("authentication.k8s.io", "v1", "TokenRequest"),
        }],
        ..core("ServiceAccount", "serviceaccounts", "serviceaccount", &["sa"], &account::ServiceAccounts)
    },
    Resource {
        categories: &["all"],
        subresources: &[status("Service")],
        ..core("Service", "services", "service", &["svc"], &service::Services)
    },
    Resource {
        group: "coordination.k8s.io",
        stored_as: "leases.coordination.k8s.io",
        ..core("Lease", "leases", "lease", &[], &lease::Leases)
    },
    Resource {
        group: "discovery.k8s.io",
        stored_as: "endpointslices.discovery.k8s.io",
        ..core("EndpointSlice", "endpointslices", "endpointslice", &[], &endpoint::EndpointSlices)
    },
    Resource {
        group: "events.k8s.io",
        stored_as: "events",
        ..core("Event", "events", "event", &["ev"], &event::EventsV1)
    },
];

/// Every kind served.
pub fn all() -> &'static [Resource] {
    ALL
}
