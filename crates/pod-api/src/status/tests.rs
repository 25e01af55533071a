use serde_json::{Value, json};

use super::*;

fn running(name: &str, started: bool, ready: bool) -> Value {
    json!({"name": name, "ready": ready, "started": started, "restartCount": 0, "image": "", "imageID": "",
           "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}})
}

fn waiting(name: &str, reason: &str) -> Value {
    json!({"name": name, "ready": false, "started": false, "restartCount": 0, "image": "", "imageID": "",
           "state": {"waiting": {"reason": reason}}})
}

fn ended(name: &str, code: i32, reason: &str) -> Value {
    json!({"name": name, "ready": false, "started": false, "restartCount": 0, "image": "", "imageID": "",
           "state": {"terminated": {"exitCode": code, "reason": reason}}})
}

/// A plain init that is done is shown as ready.
fn done(name: &str) -> Value {
    let mut status = ended(name, 0, "Completed");
    status["ready"] = json!(true);
    status
}

/// Containers whose names begin with `s` are sidecars, with `i` plain inits, with `m` mains.
fn pod(phase: &str, conditions: &[&str], statuses: Vec<Value>) -> Value {
    let names = |first: &str| {
        let named = statuses.iter().filter(|status| status["name"].as_str().unwrap().starts_with(first));
        named.map(|status| status["name"].clone()).collect::<Vec<_>>()
    };
    let is_main = |status: &&Value| status["name"].as_str().unwrap().starts_with('m');
    let inits: Vec<_> = statuses.iter().filter(|status| !is_main(status)).cloned().collect();
    let mains: Vec<_> = statuses.iter().filter(is_main).cloned().collect();
    let init_specs = inits.iter().map(|status| {
        let sidecar = status["name"].as_str().unwrap().starts_with('s');
        json!({"name": status["name"], "restartPolicy": sidecar.then_some("Always")})
    });
    json!({
        "metadata": {"name": "p", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {
            "initContainers": init_specs.collect::<Vec<_>>(),
            "containers": names("m").into_iter().map(|name| json!({"name": name})).collect::<Vec<_>>(),
        },
        "status": {
            "phase": phase,
            "conditions": conditions.iter().map(|name| json!({"type": name, "status": "True"})).collect::<Vec<_>>(),
            "initContainerStatuses": inits, "containerStatuses": mains,
        },
    })
}

fn row(pod: Value) -> Columns {
    columns(&serde_json::from_value(pod).unwrap(), "2026-01-01T01:00:00Z".parse().unwrap())
}

#[track_caller]
fn check(pod: Value, ready: &str, status: &str) {
    let row = row(pod);
    assert_eq!((row.ready.as_str(), row.status.as_str()), (ready, status));
}

const INITIALIZED: &[&str] = &["Initialized"];
const READY: &[&str] = &["Initialized", "Ready"];

#[test]
fn first_sidecar_running_but_not_started() {
    let rest = [waiting("s2", "PodInitializing"), waiting("m", "PodInitializing")];
    check(pod("Pending", &[], [vec![running("s1", false, false)], rest.to_vec()].concat()), "0/3", "Init:0/2");
}

#[test]
fn second_sidecar_not_started() {
    let statuses = vec![running("s1", true, false), running("s2", false, false), waiting("m", "PodInitializing")];
    check(pod("Pending", &[], statuses), "0/3", "Init:1/2");
}

#[test]
fn sidecars_started_but_not_ready() {
    let statuses = vec![running("s1", true, false), running("s2", true, false), running("m", true, true)];
    check(pod("Running", INITIALIZED, statuses), "1/3", "Running");
}

#[test]
fn everything_ready() {
    let statuses = vec![running("s1", true, true), running("s2", true, true), running("m", true, true)];
    check(pod("Running", READY, statuses), "3/3", "Running");
}

#[test]
fn plain_init_running() {
    let statuses = vec![running("i", false, false), waiting("s", "PodInitializing"), waiting("m", "PodInitializing")];
    check(pod("Pending", &[], statuses), "0/2", "Init:0/2");
}

#[test]
fn main_image_pulling_after_init() {
    check(pod("Pending", INITIALIZED, vec![done("i"), waiting("m", "PodInitializing")]), "0/1", "PodInitializing");
    check(pod("Pending", INITIALIZED, vec![waiting("m", "ContainerCreating")]), "0/1", "ContainerCreating");
}

#[test]
fn job_done_with_killed_sidecars() {
    let statuses = vec![ended("s1", 137, "Error"), ended("s2", 137, "Error"), ended("m", 0, "Completed")];
    check(pod("Succeeded", INITIALIZED, statuses), "0/3", "Completed");
}

#[test]
fn sidecar_crash_looping_after_initialisation() {
    let statuses = |s1| vec![s1, running("s2", true, true), running("m", true, true)];
    let waiting = statuses(waiting("s1", "CrashLoopBackOff"));
    check(pod("Running", INITIALIZED, waiting), "1/3", "Init:CrashLoopBackOff");
    check(pod("Running", INITIALIZED, statuses(ended("s1", 1, "Error"))), "1/3", "Init:Error");
    let one = vec![self::waiting("s", "CrashLoopBackOff"), running("m", true, true)];
    check(pod("Running", INITIALIZED, one), "1/2", "Init:CrashLoopBackOff");
}

#[test]
fn sidecar_that_exited_zero_and_backs_off() {
    let statuses = vec![ended("s", 0, "Completed"), running("m", true, true)];
    check(pod("Running", INITIALIZED, statuses), "1/2", "Running");
}

#[test]
fn sidecar_restarting_with_its_startup_probe_pending() {
    let statuses = vec![running("s", false, false), running("m", true, true)];
    check(pod("Running", INITIALIZED, statuses), "1/2", "Init:0/1");
}

#[test]
fn main_done_while_the_sidecar_stops() {
    let statuses = vec![running("s", true, true), ended("m", 0, "Completed")];
    check(pod("Running", INITIALIZED, statuses), "1/2", "Completed");
}

#[test]
fn one_of_two_mains_done() {
    let statuses = vec![ended("m1", 0, "Completed"), running("m2", true, true)];
    check(pod("Running", INITIALIZED, statuses.clone()), "1/2", "NotReady");
    check(pod("Running", READY, statuses), "1/2", "Running");
}

#[test]
fn a_failed_main_beside_a_completed_one() {
    let statuses = vec![ended("m1", 0, "Completed"), ended("m2", 3, "Error"), running("m3", true, true)];
    check(pod("Running", INITIALIZED, statuses), "1/3", "Error");
}

#[test]
fn plain_init_failures() {
    let after = || waiting("m", "PodInitializing");
    check(pod("Pending", &[], vec![ended("i", 1, "Error"), after()]), "0/1", "Init:Error");
    check(pod("Pending", &[], vec![ended("i", 3, ""), after()]), "0/1", "Init:ExitCode:3");
    check(pod("Pending", &[], vec![waiting("i", "ErrImagePull"), after()]), "0/1", "Init:ErrImagePull");
    let mut killed = ended("i", 137, "");
    killed["state"]["terminated"]["signal"] = json!(9);
    check(pod("Pending", &[], vec![killed, after()]), "0/1", "Init:Signal:9");
}

#[test]
fn mains_that_ended_without_a_reason() {
    check(pod("Failed", &[], vec![ended("m", 3, "")]), "0/1", "ExitCode:3");
    check(pod("Running", &[], vec![waiting("m", "CrashLoopBackOff")]), "0/1", "CrashLoopBackOff");
}

#[test]
fn reasons_gates_and_deletion() {
    let mut evicted = pod("Failed", &[], vec![]);
    evicted["status"]["reason"] = json!("Evicted");
    check(evicted, "0/0", "Evicted");
    let mut gated = pod("Pending", &[], vec![]);
    gated["status"]["conditions"] = json!([{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]);
    check(gated, "0/0", "SchedulingGated");

    let deleted = |phase: &str| {
        let mut pod = pod(phase, READY, vec![running("m", true, true)]);
        pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:30:00Z");
        pod
    };
    check(deleted("Running"), "1/1", "Terminating");
    check(deleted("Succeeded"), "1/1", "Succeeded");
    let mut lost = deleted("Running");
    lost["status"]["reason"] = json!("NodeLost");
    check(lost, "1/1", "Unknown");
}

#[test]
fn restarts() {
    let restarted = |status: Value, count: i32, finished: &str| {
        let mut status = status;
        status["restartCount"] = json!(count);
        status["lastState"] = json!({"terminated": {"exitCode": 1, "finishedAt": finished}});
        status
    };
    let init = restarted(done("i"), 5, "2026-01-01T00:59:59Z");
    let sidecar = restarted(running("s", true, true), 2, "2026-01-01T00:10:00Z");
    let main = restarted(running("m", true, true), 1, "2026-01-01T00:20:00Z");
    let initialised = pod("Running", READY, vec![init.clone(), sidecar.clone(), main]);
    assert_eq!(row(initialised).restarts, "3 (40m ago)");
    let before = pod("Pending", &[], vec![init, running("s", false, false), waiting("m", "PodInitializing")]);
    assert_eq!(row(before).restarts, "5 (1s ago)");
    assert_eq!(row(pod("Running", READY, vec![running("m", true, true)])).restarts, "0");
}

#[test]
fn the_other_cells() {
    let mut value = pod("Running", &["Initialized", "Ready", "gate/a"], vec![running("m", true, true)]);
    let bare = row(value.clone());
    assert_eq!((bare.name.as_str(), bare.age.as_str()), ("p", "60m"));
    assert_eq!([bare.ip, bare.node, bare.nominated_node, bare.readiness_gates], [NONE; 4].map(str::to_owned));
    value["spec"]["nodeName"] = json!("n1");
    value["spec"]["readinessGates"] = json!([{"conditionType": "gate/a"}, {"conditionType": "gate/b"}]);
    value["status"]["podIP"] = json!("10.0.0.2");
    let full = row(value);
    assert_eq!((full.ip.as_str(), full.node.as_str(), full.readiness_gates.as_str()), ("10.0.0.2", "n1", "1/2"));
    let empty = columns(&Pod::default(), Timestamp::UNIX_EPOCH);
    assert_eq!((empty.ready.as_str(), empty.age.as_str()), ("0/0", "<unknown>"));
}

#[test]
fn durations() {
    let (m, h, d, y) = (60, 3600, 86_400, 365 * 86_400);
    for (seconds, expected) in [
        (-2, "<invalid>"),
        (-1, "0s"),
        (0, "0s"),
        (119, "119s"),
        (2 * m, "2m"),
        (2 * m + 1, "2m1s"),
        (10 * m - 1, "9m59s"),
        (10 * m + 5, "10m"),
        (3 * h - 1, "179m"),
        (3 * h, "3h"),
        (7 * h + 59 * m, "7h59m"),
        (8 * h + 59 * m, "8h"),
        (48 * h - 1, "47h"),
        (48 * h, "2d"),
        (7 * d + 23 * h, "7d23h"),
        (8 * d + 23 * h, "8d"),
        (2 * y - 1, "729d"),
        (2 * y, "2y"),
        (2 * y + d, "2y1d"),
        (8 * y + d, "8y"),
    ] {
        assert_eq!(human_duration(seconds), expected, "{seconds}");
    }
}
