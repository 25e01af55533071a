use k8s_openapi::api::core::v1::PodStatus;
use pod_plan::{Notice, Time};
use serde_json::{Value, json};

use super::{changes, event};

fn status(value: Value) -> PodStatus {
    serde_json::from_value(value).expect("a pod status")
}

/// The lines, one a row: `container * text`.
fn tell(before: Option<Value>, after: Value) -> String {
    let before = before.map(status);
    changes(before.as_ref(), &status(after)).into_iter().map(|line| show(&line)).collect()
}

fn show(line: &super::Line) -> String {
    format!("{} {:?}: {}\n", line.container.as_deref().unwrap_or("-"), line.tone, line.text)
}

fn container(name: &str, restarts: i32, state: Value, last: Value, ready: bool) -> Value {
    json!({"name": name, "image": "i", "imageID": "", "restartCount": restarts, "ready": ready, "started": ready,
           "state": state, "lastState": last})
}

fn running(at: u8) -> Value {
    json!({"running": {"startedAt": format!("2025-01-01T00:00:{at:02}Z")}})
}

fn exited(code: i32, at: u8) -> Value {
    let reason = if code == 0 { "Completed" } else { "Error" };
    json!({"terminated": {"exitCode": code, "reason": reason, "finishedAt": format!("2025-01-01T00:00:{at:02}Z")}})
}

fn waiting(reason: &str, message: &str) -> Value {
    json!({"waiting": {"reason": reason, "message": message}})
}

fn pod(phase: &str, containers: &[Value]) -> Value {
    json!({"phase": phase, "containerStatuses": containers})
}

#[test]
fn a_pod_comes_up() {
    let first = pod("Pending", &[container("app", 0, waiting("ContainerCreating", ""), json!({}), false)]);
    assert_eq!(tell(None, first.clone()), "");
    let mut second = pod("Running", &[container("app", 0, running(1), json!({}), true)]);
    second["podIP"] = json!("10.4.0.2");
    second["conditions"] = json!([{"type": "Ready", "status": "True"}]);
    assert_eq!(tell(Some(first), second), "- Quiet: address 10.4.0.2\napp Quiet: started\n- Quiet: running, ready\n");
}

#[test]
fn a_crash_and_a_restart_are_told_once_even_when_a_status_was_skipped() {
    let up = pod("Running", &[container("app", 0, running(1), json!({}), true)]);
    let again = pod("Running", &[container("app", 1, running(3), exited(1, 2), true)]);
    assert_eq!(
        tell(Some(up), again.clone()),
        "app Notable: exited with code 1\napp Quiet: started again (restart 1)\n"
    );
    let down = pod("Running", &[container("app", 1, exited(137, 4), exited(1, 2), false)]);
    assert_eq!(tell(Some(again), down.clone()), "app Notable: exited with code 137 (SIGKILL)\n");
    let message = "back-off 10s restarting failed container=app pod=web_default(1)";
    let back_off = pod("Running", &[container("app", 1, waiting("CrashLoopBackOff", message), exited(137, 4), false)]);
    assert_eq!(tell(Some(down.clone()), back_off.clone()), "app Notable: CrashLoopBackOff: back-off 10s\n");
    assert_eq!(tell(Some(back_off), down), "", "an end is told once");
}

#[test]
fn readiness_and_start_up_are_told_when_they_change() {
    let with = |started: bool, ready: bool| {
        let mut one = container("proxy", 0, running(1), json!({}), ready);
        one["started"] = json!(started);
        json!({"phase": "Pending", "initContainerStatuses": [one]})
    };
    assert_eq!(tell(Some(with(false, false)), with(true, false)), "proxy Quiet: start-up finished\n");
    assert_eq!(tell(Some(with(true, false)), with(true, true)), "proxy Quiet: ready\n");
    assert_eq!(tell(Some(with(true, true)), with(true, false)), "proxy Notable: not ready\n");
}

#[test]
fn the_past_is_not_told_to_who_attaches() {
    let now = pod("Running", &[container("app", 4, running(9), exited(1, 8), true)]);
    assert_eq!(tell(None, now), "app Quiet: running (restarts: 4)\n- Quiet: running\n");
}

#[test]
fn what_never_ran_is_not_lost() {
    let lost = json!({"terminated": {"exitCode": 137, "reason": "ContainerStatusUnknown"}});
    let pending = pod("Pending", &[container("app", 0, waiting("ErrImagePull", ""), json!({}), false)]);
    assert_eq!(tell(Some(pending), pod("Pending", &[container("app", 0, lost.clone(), json!({}), false)])), "");
    let up = pod("Running", &[container("app", 0, running(1), json!({}), true)]);
    let expected = "app Bad: lost: its processes died with the pod's shim\n";
    assert_eq!(tell(Some(up), pod("Running", &[container("app", 0, lost, json!({}), false)])), expected);
}

#[test]
fn failures_say_why() {
    let oom = json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}});
    let start = json!({"terminated": {"exitCode": 128, "reason": "StartError", "message": "no such file: /nope"}});
    let mut failed =
        pod("Failed", &[container("a", 0, oom, json!({}), false), container("b", 0, start, json!({}), false)]);
    failed["reason"] = json!("DeadlineExceeded");
    failed["message"] = json!("Pod was active too long");
    let expected = "a Bad: killed: it used more memory than its limit (exit code 137)\n\
                    b Bad: could not start: no such file: /nope\n\
                    - Bad: failed: DeadlineExceeded: Pod was active too long\n";
    assert_eq!(tell(None, failed), expected);
    let pull =
        pod("Pending", &[container("a", 0, waiting("ErrImagePull", "failed to pull: refused"), json!({}), false)]);
    assert_eq!(tell(None, pull), "a Notable: ErrImagePull: failed to pull: refused\n");
}

fn notice(warning: bool, reason: &str, message: &str, field_path: &str) -> Notice {
    let (reason, message, field_path) = (reason.into(), message.into(), field_path.into());
    Notice { at: Time::UNIX_EPOCH, warning, reason, message, field_path }
}

#[test]
fn events_that_statuses_do_not_say_are_told() {
    let tell = |notice: Notice| event(&notice).map(|line| show(&line));
    let stopping = notice(false, "Killing", "Stopping container app", "spec.containers{app}");
    assert_eq!(tell(stopping).as_deref(), Some("app Quiet: stopping\n"));
    let unhealthy = notice(true, "Unhealthy", "Liveness probe failed: refused", "spec.initContainers{proxy}");
    assert_eq!(tell(unhealthy).as_deref(), Some("proxy Notable: Unhealthy: Liveness probe failed: refused\n"));
    let silent = notice(true, "Unhealthy", "Startup probe failed: ", "spec.containers{app}");
    assert_eq!(tell(silent).as_deref(), Some("app Notable: Unhealthy: Startup probe failed\n"));
    assert_eq!(tell(notice(false, "Started", "Container started", "spec.containers{app}")), None);
    assert_eq!(tell(notice(true, "BackOff", "Back-off restarting", "spec.containers{app}")), None);
}
