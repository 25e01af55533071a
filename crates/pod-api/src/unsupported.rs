//! What Kubernetes accepts and outrigger does not do yet. Nothing of it is dropped silently: a manifest that asks for it
//! is refused, with the field's name and what to do instead.
//!
//! **When something starts to work, delete its row from [`ROWS`].** Nothing else knows about it.

use serde_json::Value;

use crate::path::Path;
use crate::problem::Findings;

/// Where in a pod a row's field is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Below `spec`.
    Pod,
    /// Below each main, init and ephemeral container.
    Container,
    /// Below each port of a container that is published on the host.
    HostPort,
    /// Below each mount of an image volume.
    ImageMount,
    /// Below each volume.
    Volume,
    /// Below each source of each projected volume.
    Projection,
}

/// Which values of the field are not supported.
#[derive(Clone, Copy, Debug)]
pub enum When {
    /// Any; for a list or text: any but an empty one.
    Set,
    True,
    False,
    /// Exactly this text.
    Is(&'static str),
    /// Text that begins so.
    Begins(&'static str),
    /// Text with this in it.
    Contains(&'static str),
    /// A map with a key that begins so.
    Key(&'static str),
    /// A list of resources with one of somebody's own (`example.com/gpu`).
    ExtendedResource,
}

/// One thing that is not supported.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub place: Place,
    /// Dotted below the place; a list on the way stands for each of its items.
    pub field: &'static str,
    pub when: When,
    /// What is missing and what to do instead: a sentence without its final dot.
    pub advice: &'static str,
}

const fn pod(field: &'static str, when: When, advice: &'static str) -> Row {
    Row { place: Place::Pod, field, when, advice }
}

const fn container(field: &'static str, when: When, advice: &'static str) -> Row {
    Row { place: Place::Container, field, when, advice }
}

const fn volume(field: &'static str, advice: &'static str) -> Row {
    Row { place: Place::Volume, field, when: When::Set, advice }
}

const fn projection(field: &'static str, advice: &'static str) -> Row {
    Row { place: Place::Projection, field, when: When::Set, advice }
}

const NO_WINDOWS: &str = "pods run on Linux only";
const NO_SELINUX: &str = "SELinux labels are not set; leave the field out";
const NO_HUGEPAGES: &str = "huge pages are not managed; leave them out";
const NO_EXTENDED: &str = "there are no device plugins; give the container a device with a hostPath volume";
const NO_NETWORK_STORAGE: &str =
    "network and cloud storage is not mounted; mount it on the host and use a hostPath volume";
const NO_IMAGE_PART: &str = "a part of an image is not mounted alone; mount it whole and use the path below it";
const NO_TOKENS: &str = "pods get no tokens; put one into a Secret (automountServiceAccountToken is ignored)";

/// Everything that is refused, also in ephemeral containers.
pub const ROWS: &[Row] = &[
    // --- the pod
    pod("hostUsers", When::False, "user namespaces are not made yet; leave the field out"),
    pod("resources", When::Set, "pod-level resources are not applied yet; give each container its own"),
    pod("resourceClaims", When::Set, "there is no dynamic resource allocation; use a hostPath volume for a device"),
    pod("schedulingGates", When::Set, "nothing here removes a scheduling gate; leave it out"),
    pod("workloadRef", When::Set, "there is no gang scheduling; leave it out"),
    pod("runtimeClassName", When::Set, "there is one runtime; leave it out"),
    pod("overhead", When::Set, "it belongs to a RuntimeClass, and there is one runtime; leave it out"),
    pod("os.name", When::Is("windows"), NO_WINDOWS),
    pod("securityContext.windowsOptions", When::Set, NO_WINDOWS),
    pod("securityContext.seLinuxOptions", When::Set, NO_SELINUX),
    pod(
        "securityContext.appArmorProfile.type",
        When::Is("Localhost"),
        "AppArmor profiles are not loaded; use RuntimeDefault or Unconfined",
    ),
    // --- containers
    container("volumeDevices", When::Set, "block devices are not mapped; use a hostPath volume of type BlockDevice"),
    container("volumeMounts.mountPropagation", When::Is("Bidirectional"), "mounts made in a container stay there"),
    container("env.valueFrom.fileKeyRef", When::Set, "env files are not read yet; use a ConfigMap"),
    container(
        "restartPolicyRules.action",
        When::Is("RestartAllContainers"),
        "restarting the whole pod in place is not done yet; use Restart",
    ),
    container("resources.claims", When::Set, "there is no dynamic resource allocation"),
    container("resources.limits", When::Key("hugepages-"), NO_HUGEPAGES),
    container("resources.requests", When::Key("hugepages-"), NO_HUGEPAGES),
    container("resources.limits", When::ExtendedResource, NO_EXTENDED),
    container("resources.requests", When::ExtendedResource, NO_EXTENDED),
    container("securityContext.windowsOptions", When::Set, NO_WINDOWS),
    container("securityContext.seLinuxOptions", When::Set, NO_SELINUX),
    container(
        "securityContext.appArmorProfile.type",
        When::Is("Localhost"),
        "AppArmor profiles are not loaded; use RuntimeDefault or Unconfined",
    ),
    container("securityContext.procMount", When::Is("Unmasked"), "/proc is always masked; leave the field out"),
    Row {
        place: Place::HostPort,
        field: "protocol",
        when: When::Is("SCTP"),
        advice: "only TCP and UDP are published on the host; leave hostPort out",
    },
    Row {
        place: Place::HostPort,
        field: "hostIP",
        when: When::Contains(":"),
        advice: "ports are published on IPv4 only; name an IPv4 address or leave hostIP out",
    },
    Row { place: Place::ImageMount, field: "subPath", when: When::Set, advice: NO_IMAGE_PART },
    Row { place: Place::ImageMount, field: "subPathExpr", when: When::Set, advice: NO_IMAGE_PART },
    // --- volumes
    Row {
        place: Place::Volume,
        field: "ephemeral.volumeClaimTemplate.spec.volumeMode",
        when: When::Is("Block"),
        advice: "a claim is a local directory; use a hostPath volume of type BlockDevice",
    },
    Row { place: Place::Volume, field: "emptyDir.medium", when: When::Begins("HugePages"), advice: NO_HUGEPAGES },
    volume("gitRepo", "use an init container or sidecar that clones the repository into an emptyDir"),
    volume("csi", "there are no CSI drivers; use a hostPath or persistentVolumeClaim volume"),
    volume("flexVolume", "there are no volume drivers; use a hostPath or persistentVolumeClaim volume"),
    volume("nfs", NO_NETWORK_STORAGE),
    volume("iscsi", NO_NETWORK_STORAGE),
    volume("fc", NO_NETWORK_STORAGE),
    volume("cephfs", NO_NETWORK_STORAGE),
    volume("rbd", NO_NETWORK_STORAGE),
    volume("glusterfs", NO_NETWORK_STORAGE),
    volume("cinder", NO_NETWORK_STORAGE),
    volume("flocker", NO_NETWORK_STORAGE),
    volume("quobyte", NO_NETWORK_STORAGE),
    volume("scaleIO", NO_NETWORK_STORAGE),
    volume("storageos", NO_NETWORK_STORAGE),
    volume("portworxVolume", NO_NETWORK_STORAGE),
    volume("photonPersistentDisk", NO_NETWORK_STORAGE),
    volume("vsphereVolume", NO_NETWORK_STORAGE),
    volume("azureDisk", NO_NETWORK_STORAGE),
    volume("azureFile", NO_NETWORK_STORAGE),
    volume("awsElasticBlockStore", NO_NETWORK_STORAGE),
    volume("gcePersistentDisk", NO_NETWORK_STORAGE),
    projection("serviceAccountToken", NO_TOKENS),
    projection("clusterTrustBundle", "there is no API server that keeps trust bundles; use a ConfigMap"),
    projection("podCertificate", "there is no API server that signs certificates; use a Secret"),
];

/// Adds `Unsupported by outrigger: …` for every row that `spec`, a pod's spec as JSON, meets. `path` is the spec's.
pub(crate) fn find(spec: &Value, path: &Path, findings: &mut Findings) {
    for row in ROWS {
        let roots: Vec<(Path, &Value)> = match row.place {
            Place::Pod => vec![(path.clone(), spec)],
            Place::Container => all_containers(spec, path).collect(),
            Place::HostPort if spec.get("hostNetwork") == Some(&Value::Bool(true)) => Vec::new(),
            Place::HostPort => below_containers(spec, "ports", path)
                .into_iter()
                .filter(|(_, port)| port.get("hostPort").and_then(Value::as_i64).is_some_and(|port| port != 0))
                .collect(),
            Place::ImageMount => below_containers(spec, "volumeMounts", path)
                .into_iter()
                .filter(|(_, mount)| is_of_image(spec, mount.get("name")))
                .collect(),
            Place::Volume => items(spec, "volumes", path).collect(),
            Place::Projection => items(spec, "volumes", path)
                .filter_map(|(path, volume)| Some((path.field("projected"), volume.get("projected")?)))
                .flat_map(|(path, projected)| items(projected, "sources", &path).collect::<Vec<_>>())
                .collect(),
        };
        for (path, root) in roots {
            row.walk(root, row.field, path, findings);
        }
    }
}

fn all_containers<'a>(spec: &'a Value, path: &Path) -> impl Iterator<Item = (Path, &'a Value)> {
    ["initContainers", "containers", "ephemeralContainers"]
        .into_iter()
        .flat_map(move |list| items(spec, list, path).collect::<Vec<_>>())
}

fn below_containers<'a>(spec: &'a Value, list: &'static str, path: &Path) -> Vec<(Path, &'a Value)> {
    all_containers(spec, path).flat_map(|(path, container)| items(container, list, &path).collect::<Vec<_>>()).collect()
}

fn is_of_image(spec: &Value, name: Option<&Value>) -> bool {
    let mut volumes = spec.get("volumes").and_then(Value::as_array).into_iter().flatten();
    name.is_some() && volumes.any(|volume| volume.get("name") == name && volume.get("image").is_some())
}

fn items<'a>(of: &'a Value, list: &'static str, path: &Path) -> impl Iterator<Item = (Path, &'a Value)> {
    let path = path.field(list);
    of.get(list)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .enumerate()
        .map(move |(index, item)| (path.index(index), item))
}

impl Row {
    /// Follows the rest of the field's name from `value`.
    fn walk(&self, value: &Value, rest: &'static str, path: Path, findings: &mut Findings) {
        if let (Value::Array(items), false) = (value, rest.is_empty()) {
            for (index, item) in items.iter().enumerate() {
                self.walk(item, rest, path.index(index), findings);
            }
            return;
        }
        let (name, rest) = rest.split_once('.').unwrap_or((rest, ""));
        if !name.is_empty() {
            if let Some(inner) = value.get(name) {
                self.walk(inner, rest, path.field(name), findings);
            }
            return;
        }
        let mut refuse = |path: Path| findings.add(path, format!("Unsupported by outrigger: {}", self.advice));
        let mut keys = |wanted: &dyn Fn(&str) -> bool| {
            for key in value.as_object().into_iter().flatten().map(|(key, _)| key).filter(|key| wanted(key)) {
                refuse(path.key(key));
            }
        };
        match self.when {
            When::Key(prefix) => keys(&|key| key.starts_with(prefix)),
            When::ExtendedResource => keys(&|key| key.contains('/')),
            When::Set if is_empty(value) => {}
            When::Set => refuse(path),
            When::True if *value == Value::Bool(true) => refuse(path),
            When::False if *value == Value::Bool(false) => refuse(path),
            When::Is(text) if value.as_str() == Some(text) => refuse(path),
            When::Contains(part) if value.as_str().is_some_and(|text| text.contains(part)) => refuse(path),
            When::Begins(prefix) if value.as_str().is_some_and(|text| text.starts_with(prefix)) => refuse(path),
            _ => {}
        }
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Path, Place, ROWS, When, find};
    use crate::problem::Findings;

    fn paths(spec: serde_json::Value) -> Vec<String> {
        let mut findings = Findings::default();
        find(&spec, &Path::of("spec"), &mut findings);
        findings.0.into_iter().map(|finding| finding.path.to_string()).collect()
    }

    #[test]
    fn every_place_is_searched() {
        let spec = json!({
            "hostUsers": false,
            "overhead": {},
            "schedulingGates": [],
            "initContainers": [
                {"tty": true, "stdin": false},
                {"ports": [{"protocol": "SCTP"}, {"protocol": "SCTP", "hostPort": 1, "hostIP": "::1"}]},
            ],
            "containers": [
                {"resources": {"limits": {"cpu": 1, "hugepages-2Mi": "2Mi", "nvidia.com/gpu": 1}}},
                {"volumeMounts": [{}, {"mountPropagation": "Bidirectional"}, {"name": "i", "subPath": "a"}]},
                {"volumeMounts": [{"name": "other", "subPath": "a"}]},
            ],
            "volumes": [
                {"name": "other", "nfs": {"server": "x"}},
                {"emptyDir": {"medium": "HugePages-2Mi"}},
                {"projected": {"sources": [{"secret": {}}, {"serviceAccountToken": {"path": "t"}}]}},
                {"name": "i", "image": {"reference": "x"}},
                {"ephemeral": {"volumeClaimTemplate": {"spec": {"volumeMode": "Block"}}}},
            ],
        });
        let mut found = paths(spec);
        found.sort();
        assert_eq!(
            found,
            [
                "spec.containers[0].resources.limits[hugepages-2Mi]",
                "spec.containers[0].resources.limits[nvidia.com/gpu]",
                "spec.containers[1].volumeMounts[1].mountPropagation",
                "spec.containers[1].volumeMounts[2].subPath",
                "spec.hostUsers",
                "spec.initContainers[1].ports[1].hostIP",
                "spec.initContainers[1].ports[1].protocol",
                "spec.overhead",
                "spec.volumes[0].nfs",
                "spec.volumes[1].emptyDir.medium",
                "spec.volumes[2].projected.sources[1].serviceAccountToken",
                "spec.volumes[4].ephemeral.volumeClaimTemplate.spec.volumeMode",
            ]
        );
    }

    #[test]
    fn advice_reads_as_a_sentence() {
        for row in ROWS {
            assert!(!row.advice.ends_with('.') && row.advice.len() > 15, "{row:?}");
            assert!(!(row.place == Place::Volume && matches!(row.when, When::True | When::False)), "{row:?}");
        }
    }
}
