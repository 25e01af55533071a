//! What the node serves, as the OpenAPI documents tell it. Workload groups have type tables but no entry here until
//! somebody runs them.

#[derive(Debug)]
pub(crate) struct Group {
    /// Empty for the core group.
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    pub(crate) resources: &'static [Resource],
    /// Kinds that have no path in this group but are read and written elsewhere.
    pub(crate) kinds: &'static [&'static str],
}

#[derive(Debug)]
pub(crate) struct Resource {
    pub(crate) plural: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) namespaced: bool,
    pub(crate) verbs: Verbs,
    pub(crate) subresources: &'static [Subresource],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verbs {
    All,
    /// All but deletecollection.
    OneByOne,
    /// get and list
    Read,
    /// A question: post, answered and forgotten.
    Ask,
}

#[derive(Debug)]
pub(crate) struct Subresource {
    pub(crate) name: &'static str,
    /// Group, version, kind; an empty kind: no object but text or a stream.
    pub(crate) kind: (&'static str, &'static str, &'static str),
    /// `get`, `put`, `patch`, `post`; `connect` is get and post.
    pub(crate) methods: &'static [&'static str],
}

const fn stored(plural: &'static str, kind: &'static str, subresources: &'static [Subresource]) -> Resource {
    Resource { plural, kind, namespaced: true, verbs: Verbs::All, subresources }
}

const fn of_cluster(plural: &'static str, kind: &'static str, subresources: &'static [Subresource]) -> Resource {
    Resource { plural, kind, namespaced: false, verbs: Verbs::All, subresources }
}

const fn asked(plural: &'static str, kind: &'static str) -> Resource {
    Resource { plural, kind, namespaced: false, verbs: Verbs::Ask, subresources: &[] }
}

const fn measured(plural: &'static str, kind: &'static str, namespaced: bool) -> Resource {
    Resource { plural, kind, namespaced, verbs: Verbs::Read, subresources: &[] }
}

/// A part of the object that is read and written apart.
const fn part(name: &'static str, kind: &'static str) -> Subresource {
    Subresource { name, kind: ("", "v1", kind), methods: &["get", "put", "patch"] }
}

const fn stream(name: &'static str) -> Subresource {
    Subresource { name, kind: ("", "v1", ""), methods: &["connect"] }
}

const POD: &[Subresource] = &[
    stream("attach"),
    Subresource { name: "binding", kind: ("", "v1", "Binding"), methods: &["post"] },
    part("ephemeralcontainers", "Pod"),
    Subresource { name: "eviction", kind: ("policy", "v1", "Eviction"), methods: &["post"] },
    stream("exec"),
    Subresource { name: "log", kind: ("", "v1", ""), methods: &["get"] },
    stream("portforward"),
    part("resize", "Pod"),
    part("status", "Pod"),
];

const NAMESPACE: &[Subresource] =
    &[Subresource { name: "finalize", kind: ("", "v1", "Namespace"), methods: &["put"] }, part("status", "Namespace")];

const SERVICE_ACCOUNT: &[Subresource] =
    &[Subresource { name: "token", kind: ("authentication.k8s.io", "v1", "TokenRequest"), methods: &["post"] }];

pub(crate) const GROUPS: &[Group] = &[
    Group {
        group: "",
        version: "v1",
        resources: &[
            stored("configmaps", "ConfigMap", &[]),
            stored("endpoints", "Endpoints", &[]),
            stored("events", "Event", &[]),
            stored("limitranges", "LimitRange", &[]),
            Resource { verbs: Verbs::OneByOne, ..of_cluster("namespaces", "Namespace", NAMESPACE) },
            of_cluster("nodes", "Node", &[part("status", "Node")]),
            stored("persistentvolumeclaims", "PersistentVolumeClaim", &[part("status", "PersistentVolumeClaim")]),
            stored("pods", "Pod", POD),
            stored("podtemplates", "PodTemplate", &[]),
            stored("replicationcontrollers", "ReplicationController", &[part("status", "ReplicationController")]),
            stored("resourcequotas", "ResourceQuota", &[part("status", "ResourceQuota")]),
            stored("secrets", "Secret", &[]),
            stored("serviceaccounts", "ServiceAccount", SERVICE_ACCOUNT),
            stored("services", "Service", &[part("status", "Service")]),
        ],
        kinds: &[],
    },
    Group {
        group: "authentication.k8s.io",
        version: "v1",
        resources: &[asked("selfsubjectreviews", "SelfSubjectReview")],
        kinds: &["TokenRequest"],
    },
    Group {
        group: "authorization.k8s.io",
        version: "v1",
        resources: &[
            asked("selfsubjectaccessreviews", "SelfSubjectAccessReview"),
            asked("selfsubjectrulesreviews", "SelfSubjectRulesReview"),
            asked("subjectaccessreviews", "SubjectAccessReview"),
        ],
        kinds: &[],
    },
    Group { group: "coordination.k8s.io", version: "v1", resources: &[stored("leases", "Lease", &[])], kinds: &[] },
    Group {
        group: "discovery.k8s.io",
        version: "v1",
        resources: &[stored("endpointslices", "EndpointSlice", &[])],
        kinds: &[],
    },
    Group { group: "events.k8s.io", version: "v1", resources: &[stored("events", "Event", &[])], kinds: &[] },
    Group {
        group: "metrics.k8s.io",
        version: "v1beta1",
        resources: &[measured("nodes", "NodeMetrics", false), measured("pods", "PodMetrics", true)],
        kinds: &[],
    },
    Group { group: "policy", version: "v1", resources: &[], kinds: &["Eviction"] },
];
