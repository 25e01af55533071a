//! The container's first process: identity, capabilities, seccomp, environment.

use pod_api::role::Role;
use pod_api::security::{GroupsPolicy, Seccomp};
use pod_container::seccomp;
use pod_container::spec::{Capabilities, ProcessSpec, User};

use super::{Launch, Unlaunchable};
use crate::chain;

impl Launch<'_> {
    pub(super) fn process(&self, env: Vec<(String, String)>, args: Vec<String>) -> Result<ProcessSpec, Unlaunchable> {
        let Self { running, pod, container, image, effective, .. } = *self;
        let sidecar = matches!(pod_api::role::find(pod, &container.name), Some((Role::Sidecar, _)));
        let score = pod_api::qos::oom_score_adj(pod, container, sidecar, running.cx.node.memory_bytes)
            .map_err(|error| Unlaunchable::Create(chain(&error)))?;
        Ok(ProcessSpec {
            args,
            env,
            cwd: container.working_dir.clone().unwrap_or_else(|| image.config.working_dir.clone()),
            user: self.user(),
            capabilities: Capabilities { bounding: effective.bounding, permitted: effective.permitted },
            no_new_privileges: effective.no_new_privileges,
            seccomp: self.seccomp()?,
            rlimits: Vec::new(),
            oom_score_adj: self.permitted_score(score),
        })
    }

    fn user(&self) -> User {
        let effective = self.effective;
        let id = |value: i64| u32::try_from(value).ok();
        User {
            user: effective.user.map_or_else(|| self.image.config.user.clone(), |uid| uid.to_string()),
            group: effective.group.and_then(id),
            additional_groups: effective.additional_groups().into_iter().filter_map(id).collect(),
            merge_image_groups: effective.groups_policy == GroupsPolicy::Merge,
        }
    }

    /// Lowering the score below the engine's own takes CAP_SYS_RESOURCE (proc_pid_oom_score_adj(5)), which a confined
    /// root may lack: then the container keeps the engine's, and that is said once a pod.
    fn permitted_score(&self, score: i32) -> Option<i32> {
        if self.running.cx.may_lower_oom_score || score >= 0 {
            return Some(score);
        }
        self.running.note_trouble_once(format!(
            "oom_score_adj {score} is not set: the engine lacks CAP_SYS_RESOURCE, so containers are killed for memory in the kernel's own order"
        ));
        None
    }

    /// Compiled here, because the shim is to stay tiny.
    fn seccomp(&self) -> Result<Vec<Vec<u8>>, Unlaunchable> {
        let bounding = self.effective.bounding;
        let profile = match &self.effective.seccomp {
            Seccomp::Unconfined => return Ok(Vec::new()),
            Seccomp::RuntimeDefault => return Ok(seccomp::runtime_default(bounding)),
            Seccomp::Localhost(profile) => profile,
        };
        let path = self.running.cx.config.roots.data.join("seccomp").join(profile);
        let refused = |cause: String| {
            Unlaunchable::Create(format!("cannot load seccomp profile \"{}\": {cause}", path.display()))
        };
        let text = std::fs::read(&path).map_err(|error| refused(error.to_string()))?;
        seccomp::from_profile(&text, bounding).map_err(|error| refused(chain(&error)))
    }
}
