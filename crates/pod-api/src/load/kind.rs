//! Which kinds are loaded and how: Pods and configuration as they are, workloads as one pod of their template.

use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;

use super::workload::Workload;
use super::{LoadedPod, Loader, Object, Origin};
use crate::decode::decode;
use crate::path::Path;
use crate::problem::{Finding, Findings, quote};
use crate::yaml::{Data, Node};
use crate::{default, unsupported, validate};

/// Kinds that are loaded, and the one version of each.
const KINDS: &[(&str, &str)] = &[
    ("Pod", "v1"),
    ("ConfigMap", "v1"),
    ("Secret", "v1"),
    ("PodTemplate", "v1"),
    ("ReplicationController", "v1"),
    ("Deployment", "apps/v1"),
    ("StatefulSet", "apps/v1"),
    ("DaemonSet", "apps/v1"),
    ("ReplicaSet", "apps/v1"),
    ("Job", "batch/v1"),
    ("CronJob", "batch/v1"),
];

/// Kinds that may stand beside pods and need nothing done.
const HARMLESS: &[(&str, &str, &str)] = &[
    ("Namespace", "v1", "namespaces need not be created"),
    ("ServiceAccount", "v1", "there is no API server that a service account could talk to"),
    ("PersistentVolumeClaim", "v1", "a local volume of this name is made when a pod first uses it"),
];

/// The items of a `kind: List`; `None` for anything else.
pub(super) fn split_list(node: &Node) -> Option<&[Node]> {
    if node.text("kind") != Some("List") || node.text("apiVersion") != Some("v1") {
        return None;
    }
    match &node.member("items")?.node.data {
        Data::Array(items) => Some(items),
        _ => None,
    }
}

impl Loader {
    /// Loads one object into the manifest and returns what is wrong with it.
    pub(super) fn load(&mut self, object: Object<'_>) -> Vec<Finding> {
        let mut findings = Findings::default();
        let Some(kind) = kind_of(object.node, &mut findings) else { return findings.0 };
        let name = object.node.member("metadata").and_then(|meta| meta.node.text("name")).unwrap_or_default();
        if let Some((_, _, note)) = HARMLESS.iter().find(|(harmless, ..)| *harmless == kind) {
            self.manifest.notes.push(format!("{kind} {}: {note}", quote(name)));
            return findings.0;
        }
        match kind {
            "Pod" => self.pod(object, &mut findings),
            "ConfigMap" => self.config_map(object, &mut findings),
            "Secret" => self.secret(object, &mut findings),
            _ => self.workload(kind, object, &mut findings),
        }
        findings.0
    }

    fn pod(&mut self, object: Object<'_>, findings: &mut Findings) {
        let Some(mut pod) = typed::<Pod>(object, findings) else { return };
        self.drop_assigned(&mut pod);
        default::pod(&mut pod);
        after_decoding(findings, |findings| validate::find_in_pod(&pod, findings));
        self.register("Pod", &pod.metadata, object, findings);
        self.accept(pod, None, &Path::of("spec"), object, findings);
    }

    fn config_map(&mut self, object: Object<'_>, findings: &mut Findings) {
        let decoded = typed::<ConfigMap>(object, findings);
        explain_base64(Path::of("binaryData"), "must be base64; plain text belongs under `data`", findings);
        let Some(mut map) = decoded else { return };
        default::metadata(&mut map.metadata);
        after_decoding(findings, |findings| validate::find_in_config_map(&map, findings));
        self.register("ConfigMap", &map.metadata, object, findings);
        self.manifest.config_maps.push(map);
    }

    fn secret(&mut self, object: Object<'_>, findings: &mut Findings) {
        let decoded = decode::<Secret>(&object.node.to_value(), false, findings);
        explain_base64(Path::of("data"), "must be base64; plain text belongs under `stringData`", findings);
        let Some(mut secret) = decoded else { return };
        default::secret(&mut secret);
        after_decoding(findings, |findings| validate::find_in_secret(&secret, findings));
        self.register("Secret", &secret.metadata, object, findings);
        self.manifest.secrets.push(secret);
    }

    fn workload(&mut self, kind: &'static str, object: Object<'_>, findings: &mut Findings) {
        let Some(mut workload) = Workload::decode(kind, object, findings) else { return };
        workload.apply_defaults();
        after_decoding(findings, |findings| workload.check(findings));
        self.register(kind, &workload.meta, object, findings);
        let name = workload.meta.name.clone().unwrap_or_default();
        self.manifest.notes.push(format!("{kind} {}: {}", quote(&name), workload.note()));
        let path = workload.template_path.field("spec");
        let pod = workload.into_pod();
        self.accept(pod, Some(Origin { kind: kind.to_owned(), name }), &path, object, findings);
    }

    /// What only the engine assigns is not taken from a manifest (as in `kubectl get -o yaml | outrigger run -`).
    fn drop_assigned(&mut self, pod: &mut Pod) {
        let meta = &mut pod.metadata;
        let dropped: Vec<&str> = [
            ("status", pod.status.take().is_some()),
            ("metadata.uid", meta.uid.take().is_some()),
            ("metadata.resourceVersion", meta.resource_version.take().is_some()),
            ("metadata.generation", meta.generation.take().is_some()),
            ("metadata.creationTimestamp", meta.creation_timestamp.take().is_some()),
            ("metadata.deletionTimestamp", meta.deletion_timestamp.take().is_some()),
            ("metadata.deletionGracePeriodSeconds", meta.deletion_grace_period_seconds.take().is_some()),
            ("metadata.managedFields", meta.managed_fields.take().is_some()),
            ("metadata.selfLink", meta.self_link.take().is_some()),
        ]
        .into_iter()
        .filter_map(|(field, dropped)| dropped.then_some(field))
        .collect();
        if !dropped.is_empty() {
            let name = quote(meta.name.as_deref().unwrap_or_default());
            self.manifest.notes.push(format!("Pod {name}: {} not taken over: the engine sets it", dropped.join(", ")));
        }
    }

    /// An object's name may be used once for each kind and namespace.
    fn register(&mut self, kind: &str, meta: &ObjectMeta, object: Object<'_>, findings: &mut Findings) {
        let Some(name) = meta.name.clone() else { return };
        let namespace = meta.namespace.clone().unwrap_or_default();
        let place = format!("{}:{}", object.source, object.node.mark.line);
        if let Some(first) = self.seen.get(&(kind.to_owned(), namespace.clone(), name.clone())) {
            let message = format!("Duplicate value: {}: {kind} is already defined at {first}", quote(&name));
            findings.add(Path::of("metadata.name"), message);
        } else {
            self.seen.insert((kind.to_owned(), namespace, name), place);
        }
    }

    /// The last checks of a pod; `path` is where its spec stands in the object.
    fn accept(&mut self, pod: Pod, origin: Option<Origin>, path: &Path, object: Object<'_>, findings: &mut Findings) {
        let value = match serde_json::to_value(&pod) {
            Ok(value) => value,
            Err(error) => return findings.add(Path::root(), format!("cannot be written as JSON: {error}")),
        };
        // As written: defaulting copies limits to requests, which would be refused a second time.
        let written = object.node.to_value();
        if let Some(spec) = path.segments().iter().try_fold(&written, |value, segment| value.get(&*segment.name())) {
            unsupported::find(spec, path, findings);
        }
        let spec = &value["spec"];
        let ignored: Vec<&str> =
            ["nodeSelector", "affinity", "tolerations", "topologySpreadConstraints", "nodeName", "priorityClassName"]
                .into_iter()
                .filter(|field| spec.get(field).is_some_and(|value| !value.is_null()))
                .collect();
        if !ignored.is_empty() {
            let name = quote(pod.metadata.name.as_deref().unwrap_or_default());
            self.manifest
                .notes
                .push(format!("Pod {name}: {} accepted without effect: there is one machine", ignored.join(", ")));
        }
        if spec.get("imagePullSecrets").and_then(|list| list.as_array()).is_some_and(|list| !list.is_empty()) {
            let name = quote(pod.metadata.name.as_deref().unwrap_or_default());
            self.manifest.notes.push(format!(
                "Pod {name}: imagePullSecrets not read: registries are asked with the credentials of `docker login`"
            ));
        }
        self.manifest.pods.push(LoadedPod {
            pod,
            value,
            origin,
            source: object.source.to_owned(),
            line: object.node.mark.line,
        });
    }
}

/// The object's kind, when it is one that is loaded or harmless, in the right version.
fn kind_of(node: &Node, findings: &mut Findings) -> Option<&'static str> {
    if !matches!(node.data, Data::Object(_)) {
        findings.add(Path::root(), "not a Kubernetes object: expected a map with apiVersion and kind");
        return None;
    }
    let (kind, version) = (node.text("kind").unwrap_or_default(), node.text("apiVersion").unwrap_or_default());
    if kind.is_empty() {
        findings.required(Path::of("kind"), "");
    }
    if version.is_empty() {
        findings.required(Path::of("apiVersion"), "");
    }
    if kind.is_empty() || version.is_empty() {
        return None;
    }
    let known = KINDS.iter().copied().chain(HARMLESS.iter().map(|(kind, version, _)| (*kind, *version)));
    let same_kind: Vec<_> = known.filter(|(known, _)| *known == kind).collect();
    match same_kind.iter().find(|(_, known)| *known == version) {
        Some((kind, _)) => return Some(kind),
        None => match same_kind.first() {
            Some((_, known)) => findings.add(
                Path::of("apiVersion"),
                format!("no matches for kind {} in version {}; write {known}", quote(kind), quote(version)),
            ),
            None if kind == "List" => findings.add(Path::of("items"), "Required value: a List needs its items"),
            None => findings.add(
                Path::of("kind"),
                format!(
                    "{kind} is not run by `outrigger run`, which runs Pods and the pod templates of workloads with \
                     their ConfigMaps and Secrets; leave it out"
                ),
            ),
        },
    }
    None
}

pub(super) fn typed<T: DeserializeOwned>(object: Object<'_>, findings: &mut Findings) -> Option<T> {
    decode(&object.node.to_value(), true, findings)
}

/// Better words for what cannot be decoded below `path`, and none of the value's.
fn explain_base64(path: Path, words: &str, findings: &mut Findings) {
    for finding in &mut findings.0 {
        if finding.path.is_inside(&path) && finding.message.starts_with("Invalid value: string") {
            finding.message = format!("Invalid value: {words}");
        }
    }
}

/// Runs a check, and forgets what it says about values that already were found undecodable: they are empty now.
fn after_decoding(findings: &mut Findings, check: impl FnOnce(&mut Findings)) {
    let mut further = Findings::default();
    check(&mut further);
    let known = findings.0.len();
    for finding in further.0 {
        let (misfits, _) = findings.0.split_at(known);
        if !misfits.iter().any(|misfit| finding.path.is_inside(&misfit.path)) {
            findings.0.push(finding);
        }
    }
}
