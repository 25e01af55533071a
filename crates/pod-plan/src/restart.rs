//! Is a container that has ended started again? `kubernetes/kubernetes pkg/api/v1/pod/util.go` ContainerShouldRestart,
//! KEP-753 for sidecars, KEP-5307 for exit-code rules.

use k8s_openapi::api::core::v1::ContainerRestartRule;

use crate::facts::{Container, End};
use crate::shape::{ContainerShape, RestartPolicy, Role};

/// By the first matching rule, then the container's policy, then the pod's.
pub(crate) fn restarts_after(shape: &ContainerShape, pod: RestartPolicy, exit_code: i32) -> bool {
    match shape.role {
        Role::Sidecar => return true,
        Role::Ephemeral => return false,
        Role::Init | Role::Main => {}
    }
    // Rules count only beside a policy of the container's own; validation sees to it.
    let rules = shape.spec.restart_policy_rules.as_deref().unwrap_or_default();
    if shape.spec.restart_policy.is_some() && rules.iter().any(|rule| matches(rule, exit_code)) {
        return true;
    }
    match shape.policy(pod) {
        RestartPolicy::Always => !shape.is_init() || exit_code != 0,
        RestartPolicy::OnFailure => exit_code != 0,
        RestartPolicy::Never => false,
    }
}

impl Container {
    /// Is this container, whose newest attempt ended so, started again? An init container that has passed is not,
    /// whatever its rules say of the code 0; that of a main is not looked behind.
    pub(crate) fn runs_again(&self, pod: RestartPolicy, end: &End) -> bool {
        (self.must_restart && !self.shape.is_ephemeral())
            || match self.shape.is_init() {
                true => end.is_failure() && restarts_after(&self.shape, pod, end.init_code()),
                false => restarts_after(&self.shape, pod, end.exit.code),
            }
    }
}

/// Is a container that a failed probe (or hook) stops to be started again? The rules about exit codes do not apply.
pub(crate) fn restarts_after_kill(shape: &ContainerShape, pod: RestartPolicy) -> bool {
    shape.is_sidecar() || shape.policy(pod) != RestartPolicy::Never
}

/// The one action known by default is `Restart`.
fn matches(rule: &ContainerRestartRule, exit_code: i32) -> bool {
    let Some(codes) = &rule.exit_codes else { return false };
    let listed = codes.values.as_deref().unwrap_or_default().contains(&exit_code);
    match codes.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use RestartPolicy::{Always, Never, OnFailure};
    use serde_json::json;

    use super::*;

    fn shape(role: Role, spec: serde_json::Value) -> ContainerShape {
        ContainerShape { role, spec: serde_json::from_value(spec).unwrap() }
    }

    /// Rows: what ended; columns: under `Always`, `OnFailure`, `Never`.
    #[test]
    fn the_restart_table() {
        let rows = [
            (Role::Main, 0, [true, false, false]),
            (Role::Main, 1, [true, true, false]),
            (Role::Init, 0, [false, false, false]),
            (Role::Init, 1, [true, true, false]),
            (Role::Sidecar, 0, [true, true, true]),
            (Role::Sidecar, 1, [true, true, true]),
            (Role::Ephemeral, 0, [false, false, false]),
            (Role::Ephemeral, 1, [false, false, false]),
        ];
        for (role, code, expected) in rows {
            let shape = shape(role, json!({ "name": "c" }));
            let answers = [Always, OnFailure, Never].map(|pod| restarts_after(&shape, pod, code));
            assert_eq!(answers, expected, "{role:?} after {code}");
        }
    }

    #[test]
    fn a_container_has_a_policy_of_its_own() {
        let always = shape(Role::Main, json!({ "name": "c", "restartPolicy": "Always" }));
        assert!(restarts_after(&always, Never, 0));
        let never = shape(Role::Main, json!({ "name": "c", "restartPolicy": "Never" }));
        assert!(!restarts_after(&never, Always, 1));
        assert!(!restarts_after_kill(&never, Always));
    }

    #[test]
    fn rules_come_before_policies() {
        let rule =
            |operator: &str| json!({ "action": "Restart", "exitCodes": { "operator": operator, "values": [42] } });
        let spec = |rule| json!({ "name": "c", "restartPolicy": "Never", "restartPolicyRules": [rule] });
        let on_42 = shape(Role::Main, spec(rule("In")));
        assert!(restarts_after(&on_42, Never, 42));
        assert!(!restarts_after(&on_42, Always, 1));
        let but_42 = shape(Role::Init, spec(rule("NotIn")));
        assert!(!restarts_after(&but_42, Never, 42));
        assert!(restarts_after(&but_42, Never, 1));
        assert!(!restarts_after_kill(&but_42, Never));
    }
}
