//! Workloads: what a controller would multiply is run once, as one pod made of the template.

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaimVolumeSource, Pod, PodTemplate, PodTemplateSpec, ReplicationController, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use super::Object;
use super::kind::typed;
use crate::path::Path;
use crate::problem::Findings;
use crate::{default, validate};

/// What the kinds of workloads have in common.
pub(super) struct Workload {
    kind: &'static str,
    pub(super) meta: ObjectMeta,
    template: PodTemplateSpec,
    pub(super) template_path: Path,
    selector: Option<LabelSelector>,
    /// A CronJob's.
    schedule: Option<String>,
    /// A StatefulSet's service.
    service: Option<String>,
    /// Names of a StatefulSet's volume claim templates.
    claims: Vec<String>,
}

impl Workload {
    /// Decodes an object of one of the workload kinds; `None` when nothing of it could be decoded.
    pub(super) fn decode(kind: &'static str, object: Object<'_>, findings: &mut Findings) -> Option<Workload> {
        let mut workload = match kind {
            "Deployment" => {
                let Deployment { metadata, spec, .. } = typed(object, findings)?;
                let spec = spec.unwrap_or_default();
                Workload::new(kind, metadata, spec.template).selected_by(spec.selector)
            }
            "ReplicaSet" => {
                let ReplicaSet { metadata, spec, .. } = typed(object, findings)?;
                let spec = spec.unwrap_or_default();
                Workload::new(kind, metadata, spec.template.unwrap_or_default()).selected_by(spec.selector)
            }
            "DaemonSet" => {
                let DaemonSet { metadata, spec, .. } = typed(object, findings)?;
                let spec = spec.unwrap_or_default();
                Workload::new(kind, metadata, spec.template).selected_by(spec.selector)
            }
            "StatefulSet" => {
                let StatefulSet { metadata, spec, .. } = typed(object, findings)?;
                let spec = spec.unwrap_or_default();
                let claims = spec.volume_claim_templates.into_iter().flatten();
                let claims = claims.map(|claim| claim.metadata.name.unwrap_or_default()).collect();
                let workload = Workload::new(kind, metadata, spec.template).selected_by(spec.selector);
                Workload { claims, service: spec.service_name, ..workload }
            }
            "ReplicationController" => {
                let ReplicationController { metadata, spec, .. } = typed(object, findings)?;
                let spec = spec.unwrap_or_default();
                let workload = Workload::new(kind, metadata, spec.template.unwrap_or_default());
                // Without a selector the template's labels are it.
                match spec.selector.filter(|selector| !selector.is_empty()) {
                    Some(labels) => {
                        workload.selected_by(LabelSelector { match_labels: Some(labels), ..Default::default() })
                    }
                    None => workload,
                }
            }
            "Job" => {
                let Job { metadata, spec, .. } = typed(object, findings)?;
                Workload::new(kind, metadata, spec.unwrap_or_default().template)
            }
            "CronJob" => {
                let CronJob { metadata, spec, .. } = typed(object, findings)?;
                let spec = spec.unwrap_or_default();
                let template = spec.job_template.spec.unwrap_or_default().template;
                let template_path = Path::of("spec.jobTemplate.spec.template");
                Workload { template_path, schedule: Some(spec.schedule), ..Workload::new(kind, metadata, template) }
            }
            "PodTemplate" => {
                let PodTemplate { metadata, template } = typed(object, findings)?;
                let template_path = Path::of("template");
                Workload { template_path, ..Workload::new(kind, metadata, template.unwrap_or_default()) }
            }
            _ => return None,
        };
        // The types make an absent selector an empty one, which is another problem.
        let spec = object.node.member("spec");
        let written = spec.and_then(|spec| spec.node.member("selector")).is_some_and(|member| !member.node.is_null());
        if workload.selector.is_some() && !written {
            findings.required(Path::of("spec.selector"), "");
            workload.selector = None;
        }
        Some(workload)
    }

    fn new(kind: &'static str, meta: ObjectMeta, template: PodTemplateSpec) -> Workload {
        Workload {
            kind,
            meta,
            template,
            template_path: Path::of("spec.template"),
            selector: None,
            schedule: None,
            service: None,
            claims: Vec::new(),
        }
    }

    fn selected_by(self, selector: LabelSelector) -> Workload {
        Workload { selector: Some(selector), ..self }
    }

    pub(super) fn apply_defaults(&mut self) {
        default::metadata(&mut self.meta);
        self.add_claims();
        self.template.spec.iter_mut().for_each(default::pod_spec);
    }

    /// A StatefulSet's claims become volumes of its pod, instead of template volumes of the same name.
    fn add_claims(&mut self) {
        let pod = self.pod_name();
        let Some(spec) = self.template.spec.as_mut().filter(|_| !self.claims.is_empty()) else { return };
        let volumes = spec.volumes.get_or_insert_default();
        volumes.retain(|volume| !self.claims.contains(&volume.name));
        volumes.extend(self.claims.iter().map(|claim| Volume {
            name: claim.clone(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: format!("{claim}-{pod}"),
                read_only: None,
            }),
            ..Volume::default()
        }));
    }

    pub(super) fn check(&self, findings: &mut Findings) {
        let path = &self.template_path;
        let template = self.template.metadata.as_ref();
        validate::find_in_metadata(&self.meta, findings);
        validate::find_in_template(template, self.template.spec.as_ref(), path, findings);
        if let Some(selector) = &self.selector {
            validate::find_in_selector(selector, &Path::of("spec.selector"), template, path, findings);
        }
        if self.schedule.as_deref() == Some("") {
            findings.required(Path::of("spec.schedule"), "");
        }
        self.check_life(findings);
    }

    /// Jobs must end, services must not (`validateJobSpec`, `ValidatePodTemplateSpecForReplicaSet`).
    fn check_life(&self, findings: &mut Findings) {
        let Some(spec) = &self.template.spec else { return };
        let path = self.template_path.field("spec");
        let policy = spec.restart_policy.as_deref().unwrap_or_default();
        match self.kind {
            "Job" | "CronJob" if policy == "Always" => {
                findings.required(path.field("restartPolicy"), "valid values: \"OnFailure\", \"Never\"");
            }
            "Job" | "CronJob" | "PodTemplate" => {}
            kind => {
                if matches!(policy, "OnFailure" | "Never") {
                    findings.not_supported(path.field("restartPolicy"), policy, &["Always"]);
                }
                if spec.active_deadline_seconds.is_some() {
                    let path = path.field("activeDeadlineSeconds");
                    findings.forbidden(path, &format!("activeDeadlineSeconds in {kind} is not Supported"));
                }
            }
        }
    }

    /// What is not as it would be in a cluster.
    pub(super) fn note(&self) -> &'static str {
        match self.kind {
            "Job" => {
                "running its pod template once; completions, parallelism, backoffLimit and the Job's own \
                 activeDeadlineSeconds are not applied"
            }
            "CronJob" => "running its pod template once, now; the schedule is not applied",
            "PodTemplate" => "running it once",
            "DaemonSet" => "running its pod template once",
            "StatefulSet" => "running its pod template once, as ordinal 0; replicas are not applied",
            _ => "running its pod template once; replicas and rollouts are not applied",
        }
    }

    fn pod_name(&self) -> String {
        let name = self.meta.name.clone().unwrap_or_default();
        if self.kind == "StatefulSet" { format!("{name}-0") } else { name }
    }

    /// The one pod, defaulted.
    pub(super) fn into_pod(self) -> Pod {
        let name = self.pod_name();
        let template = self.template.metadata.unwrap_or_default();
        let mut pod = Pod {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: self.meta.namespace,
                labels: template.labels,
                annotations: template.annotations,
                finalizers: template.finalizers,
                ..ObjectMeta::default()
            },
            spec: self.template.spec,
            status: None,
        };
        match self.kind {
            "StatefulSet" => {
                let labels = pod.metadata.labels.get_or_insert_default();
                labels.insert("apps.kubernetes.io/pod-index".to_owned(), "0".to_owned());
                labels.insert("statefulset.kubernetes.io/pod-name".to_owned(), name.clone());
                if let Some(spec) = &mut pod.spec {
                    spec.hostname = Some(name);
                    spec.subdomain = self.service.filter(|service| !service.is_empty());
                }
            }
            "Job" | "CronJob" => {
                let labels = pod.metadata.labels.get_or_insert_default();
                for key in ["batch.kubernetes.io/job-name", "job-name"] {
                    labels.insert(key.to_owned(), name.clone());
                }
            }
            _ => {}
        }
        default::pod(&mut pod);
        pod
    }
}
