//! Kills: of a main, a sidecar, the shim, the engine. Nothing is lost, nothing leaks, the rest goes on.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::world::{World, eventually, text};

const TWO: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: two}
spec:
  terminationGracePeriodSeconds: 2
  initContainers:
  - name: helper
    image: busybox
    restartPolicy: Always
    command: [sh, -c, 'trap "exit 0" TERM; echo helper up; while :; do sleep 0.05; done']
  containers:
  - name: app
    image: busybox
    command: [sh, -c, 'trap "exit 0" TERM; i=0; while :; do echo line $i; i=$((i+1)); sleep 0.02; done']
"#;

/// The PID of a container's first process, by its command line inside the pod of this world; waits until it runs.
fn pid_of(world: &World, needle: &str) -> Pid {
    let mut found = None;
    eventually("the container to run", || {
        found = world.process("two", &[needle]);
        found.is_some()
    });
    found.unwrap()
}

/// Gone, but for what its parent has still to learn of it.
fn is_dead(process: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero())).unwrap_or_default();
    stat.rsplit(')').next().is_none_or(|rest| rest.trim().is_empty() || rest.trim_start().starts_with(['Z', 'X']))
}

fn restarts(world: &World, container: &str) -> i32 {
    world.container("two", container).map_or(0, |c| c.restart_count)
}

/// Every line up to the last, none missing, none twice.
fn assert_whole(log: &str) {
    for (expected, line) in log.lines().enumerate() {
        assert_eq!(line, format!("line {expected}"));
    }
}

#[test]
fn a_killed_main_restarts_and_its_sidecar_runs_on_with_the_log_whole() {
    let world = World::new();
    world.detach(TWO);
    eventually("some lines", || world.log("two", "app", 0).lines().count() > 5);
    kill_process(pid_of(&world, "line"), Signal::KILL).unwrap();
    eventually("the main to be restarted", || restarts(&world, "app") == 1);
    let main = world.container("two", "app").unwrap();
    let last = main.last_state.unwrap().terminated.unwrap();
    assert_eq!((last.exit_code, last.reason.as_deref()), (137, Some("Error")));
    assert_eq!(restarts(&world, "helper"), 0);
    assert_whole(&world.log("two", "app", 0));
}

#[test]
fn a_killed_sidecar_comes_back_and_the_main_is_untouched() {
    let world = World::new();
    world.detach(TWO);
    let first = pid_of(&world, "helper");
    kill_process(first, Signal::KILL).unwrap();
    eventually("the sidecar to be restarted", || {
        restarts(&world, "helper") == 1 && world.process("two", &["helper"]).is_some_and(|now| now != first)
    });
    kill_process(pid_of(&world, "helper"), Signal::KILL).unwrap();
    eventually("the sidecar to wait for its back-off", || {
        let waiting = world.container("two", "helper").and_then(|c| c.state?.waiting?.reason);
        waiting.as_deref() == Some("CrashLoopBackOff")
    });
    assert_eq!(restarts(&world, "app"), 0);
    assert_eq!(world.phase("two"), "Running");
}

#[test]
fn a_killed_shim_takes_its_processes_along_and_the_engine_starts_the_pod_again() {
    let world = World::new();
    world.detach(TWO);
    let app = pid_of(&world, "line");
    let old = world.shim_pid("two");
    kill_process(Pid::from_raw(old as i32).unwrap(), Signal::KILL).unwrap();
    eventually("the kernel to take the pod's processes", || kill_process(app, Signal::CONT).is_err());
    eventually("the pod to run again", || {
        restarts(&world, "app") == 1 && world.container("two", "app").is_some_and(|c| c.ready)
    });
    assert_ne!(world.shim_pid("two"), old);
    assert!(world.notices("two").iter().any(|notice| notice.reason == "SandboxChanged"));
    world.ok(&["down", "two"]);
    world.assert_nothing_left();
}

#[test]
fn a_killed_engine_leaves_the_pod_running_and_the_next_command_names_it() {
    let world = World::new();
    let path = world.manifest("pod.yaml", TWO);
    let run = world.foreground(&["run", "--offline", path.to_str().unwrap()]);
    eventually("both containers", || world.container("two", "app").is_some_and(|c| c.ready));
    let app = pid_of(&world, "line");
    run.signal(Signal::KILL);
    drop(run);
    std::thread::sleep(Duration::from_millis(300));
    kill_process(app, Signal::CONT).expect("the container runs on");
    let lines = world.log("two", "app", 0).lines().count();
    eventually("the log to grow without an engine", || world.log("two", "app", 0).lines().count() > lines);

    let told = world.run(&["ps"]);
    assert!(text(&told.stderr).contains("two"), "the orphan is named: {}", text(&told.stderr));

    let adopted = world.foreground(&["run", "--adopt", "two"]);
    eventually("the pod to have an owner", || {
        pod_engine::record::find(&world.roots(), "default", "two").unwrap().unwrap().owned
    });
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!((restarts(&world, "app"), restarts(&world, "helper")), (0, 0));
    assert!(kill_process(app, Signal::CONT).is_ok(), "adoption does not restart anything");
    assert_whole(&world.log("two", "app", 0));
    adopted.signal(Signal::INT);
    assert_eq!(adopted.end().status.code(), Some(130));
    world.assert_nothing_left();
}

#[test]
fn an_orphan_can_be_taken_down_without_an_engine() {
    let world = World::new();
    let path = world.manifest("pod.yaml", TWO);
    let run = world.foreground(&["run", "--offline", path.to_str().unwrap()]);
    eventually("both containers", || world.container("two", "app").is_some_and(|c| c.ready));
    run.signal(Signal::KILL);
    drop(run);
    world.ok(&["down", "two"]);
    world.assert_nothing_left();
}

#[test]
fn cleanup_removes_what_a_dead_engine_and_a_dead_shim_left() {
    let world = World::new();
    let path = world.manifest("pod.yaml", TWO);
    let run = world.foreground(&["run", "--offline", path.to_str().unwrap()]);
    eventually("both containers", || world.container("two", "app").is_some_and(|c| c.ready));
    let shim = world.shim_pid("two");
    run.signal(Signal::KILL);
    drop(run);
    kill_process(Pid::from_raw(shim as i32).unwrap(), Signal::KILL).unwrap();
    eventually("the shim's end", || is_dead(Pid::from_raw(shim as i32).unwrap()));
    world.ok(&["cleanup"]);
    world.assert_nothing_left();
}

#[test]
fn a_shim_and_then_its_engine_killed_leave_a_pod_that_can_be_taken_down() {
    let world = World::new();
    let path = world.manifest("pod.yaml", TWO);
    let run = world.foreground(&["run", "--offline", path.to_str().unwrap()]);
    eventually("both containers", || world.container("two", "app").is_some_and(|c| c.ready));
    let shim = Pid::from_raw(world.shim_pid("two") as i32).unwrap();
    kill_process(shim, Signal::KILL).unwrap();
    run.signal(Signal::KILL);
    drop(run);
    world.ok(&["down", "two", "--force"]);
    world.assert_nothing_left();
}

#[test]
fn a_pod_without_a_sandbox_can_be_stopped() {
    let world = World::new();
    let taken = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let output = world.detach_badly(&format!(
        r#"
apiVersion: v1
kind: ConfigMap
metadata: {{name: words}}
data: {{a: b}}
---
apiVersion: v1
kind: Pod
metadata: {{name: two}}
spec:
  volumes: [{{name: c, configMap: {{name: words}}}}]
  containers:
  - {{name: app, image: busybox, command: [sleep, "100"], ports: [{{containerPort: 80, hostPort: {port}}}]}}
"#
    ));
    assert!(text(&output.stderr).contains(&format!("{port}")), "it says which port: {}", text(&output.stderr));
    world.ok(&["down", "two", "--force"]);
    world.assert_nothing_left();
}

/// Serves anything on port 8080.
const SERVER: &str = r#"use IO::Socket::INET; my $s = IO::Socket::INET->new(LocalPort => 8080, Listen => 9, ReuseAddr => 1) or die; while (my $c = $s->accept) { <$c>; print $c "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n"; close $c }"#;

#[test]
fn an_adopted_container_keeps_its_probes_hook_and_stop_signal() {
    let world = World::new();
    let shared = world.path("shared");
    std::fs::create_dir_all(&shared).unwrap();
    let manifest = format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: kept}}
spec:
  os: {{name: linux}}
  terminationGracePeriodSeconds: 60
  volumes: [{{name: w, hostPath: {{path: {}}}}}]
  containers:
  - name: app
    image: busybox
    env: [{{name: WORD, value: said}}]
    command: [sh, -c, 'trap "echo usr1 > /w/signal; exit 0" USR1; touch /tmp/alive; while :; do sleep 0.05; done']
    volumeMounts: [{{name: w, mountPath: /w}}]
    startupProbe: {{exec: {{command: [test, -e, /tmp/alive]}}, periodSeconds: 1, failureThreshold: 100}}
    livenessProbe: {{exec: {{command: [test, -e, /tmp/alive]}}, periodSeconds: 1, timeoutSeconds: 60, failureThreshold: 1}}
    lifecycle:
      stopSignal: SIGUSR1
      preStop: {{exec: {{command: [sh, -c, 'echo $WORD > /w/hook']}}}}
  - name: web
    image: busybox
    command: [perl, -e, '{SERVER}']
    startupProbe: {{httpGet: {{port: 8080}}, periodSeconds: 1, failureThreshold: 100}}
    livenessProbe: {{httpGet: {{port: 8080}}, periodSeconds: 1, timeoutSeconds: 60, failureThreshold: 1}}
"#,
        shared.display()
    );
    let path = world.manifest("pod.yaml", &manifest);
    let run = world.foreground(&["run", "--offline", path.to_str().unwrap()]);
    eventually("both containers", || {
        ["app", "web"].iter().all(|name| world.container("kept", name).is_some_and(|c| c.ready))
    });
    run.signal(Signal::KILL);
    drop(run);

    let adopted = world.foreground(&["run", "--adopt", "kept"]);
    eventually("the pod to have an owner", || {
        pod_engine::record::find(&world.roots(), "default", "kept").unwrap().unwrap().owned
    });
    // Two rounds of each probe.
    std::thread::sleep(Duration::from_millis(2500));
    let unhealthy: Vec<_> = world.notices("kept").into_iter().filter(|notice| notice.reason == "Unhealthy").collect();
    for name in ["app", "web"] {
        let container = world.container("kept", name).unwrap();
        assert!(container.ready && container.restart_count == 0, "{name} is let alone: {unhealthy:#?}");
    }
    world.ok(&["down", "kept"]);
    drop(adopted);
    let told = |file: &str| std::fs::read_to_string(shared.join(file)).unwrap_or_default();
    assert_eq!((told("hook").as_str(), told("signal").as_str()), ("said\n", "usr1\n"));
    world.assert_nothing_left();
}

#[test]
fn an_adopted_pod_with_an_image_volume_starts_its_container_again() {
    let world = World::new();
    world.ok(&["image", "pack", "example.test/data:1", "--add", "/etc/hostname:/word"]);
    let path = world.manifest(
        "pod.yaml",
        r#"
apiVersion: v1
kind: Pod
metadata: {name: two}
spec:
  terminationGracePeriodSeconds: 1
  volumes: [{name: data, image: {reference: "example.test/data:1"}}]
  containers:
  - name: app
    image: busybox
    command: [sh, -c, 'cat /data/word; trap "exit 0" TERM; while :; do sleep 0.05; done']
    volumeMounts: [{name: data, mountPath: /data}]
"#,
    );
    let run = world.foreground(&["run", "--offline", path.to_str().unwrap()]);
    eventually("the container", || world.container("two", "app").is_some_and(|c| c.ready));
    run.signal(Signal::KILL);
    drop(run);
    let adopted = world.foreground(&["run", "--adopt", "two"]);
    eventually("the pod to have an owner", || {
        pod_engine::record::find(&world.roots(), "default", "two").unwrap().unwrap().owned
    });
    kill_process(pid_of(&world, "word"), Signal::KILL).unwrap();
    eventually("the container to run again", || {
        restarts(&world, "app") == 1 && world.container("two", "app").is_some_and(|c| c.ready)
    });
    // Ready is not yet written.
    eventually("the same text again", || world.log("two", "app", 0) == world.log("two", "app", 1));
    world.ok(&["down", "two"]);
    drop(adopted);
    world.assert_nothing_left();
}
