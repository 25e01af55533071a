//! Pods that are not let in: they fail before anything of them is prepared (`kubernetes/kubernetes
//! pkg/kubelet/kubelet.go` rejectPod, `…/sysctl/allowlist.go` Admit).

use k8s_openapi::api::core::v1::{Pod, PodCondition, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time as ApiTime;
use pod_api::security::forbidden_sysctl;

use crate::phase::Phase;
use crate::stop::{PodStop, PodStopCause};
use crate::{Lifecycle, Time};

/// Why the pod is not let in: a reason and a message.
pub(crate) fn refusal(pod: &Pod) -> Option<(&'static str, String)> {
    forbidden_sysctl(pod.spec.as_ref()?).map(|message| ("SysctlForbidden", message))
}

impl Lifecycle {
    pub(crate) fn admit(&mut self, pod: &Pod, now: Time) {
        let Some((reason, message)) = refusal(pod) else { return };
        self.warn_pod(now, reason, message.clone());
        let cause = PodStopCause::Rejected { reason: reason.to_owned(), message };
        self.stop_pod(PodStop { since: now, grace: self.pod.grace, forced: false, cause });
    }

    /// No container ever had a state, and of the conditions only that the pod came here.
    pub(crate) fn rejected_status(&self, reason: &str, message: &str) -> PodStatus {
        let scheduled = PodCondition {
            type_: "PodScheduled".to_owned(),
            status: "True".to_owned(),
            last_transition_time: Some(ApiTime(self.created)),
            observed_generation: self.pod.generation,
            ..PodCondition::default()
        };
        PodStatus {
            phase: Some(Phase::Failed.as_str().to_owned()),
            reason: Some(reason.to_owned()),
            message: Some(format!("Pod was rejected: {message}")),
            conditions: Some(vec![scheduled]),
            start_time: Some(ApiTime(self.created)),
            observed_generation: self.pod.generation,
            ..PodStatus::default()
        }
    }
}
