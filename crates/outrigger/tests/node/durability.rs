//! What survives: a stop, kills under load, the machine's end, a disk that is full.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::node::{Going, Node};
use crate::pods::{idle, web};
use crate::world::eventually;

/// Says numbers without a gap, and beside it a sidecar that had to restart once.
const COUNTING: &str = "apiVersion: v1
kind: Pod
metadata: {name: counting}
spec:
  terminationGracePeriodSeconds: 0
  initContainers:
  - name: side
    image: busybox
    restartPolicy: Always
    command: [sh, -c, 'if [ -e /d/once ]; then trap exit TERM; sleep 1000000 & wait; fi; touch /d/once; exit 1']
    volumeMounts: [{name: d, mountPath: /d}]
  containers:
  - name: app
    image: busybox
    command: [sh, -c, 'trap exit TERM; i=0; while :; do echo line $i; i=$((i+1)); sleep 0.02; done']
    volumeMounts: [{name: d, mountPath: /d}]
  volumes: [{name: d, emptyDir: {}}]
";

const ONCE: &str = "apiVersion: v1
kind: Pod
metadata: {name: once}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  containers:
  - {name: app, image: busybox, command: [sh, -c, 'echo ran; exit 4']}
";

/// Every line up to the last, none missing, none twice.
#[track_caller]
fn assert_whole(log: &str) -> usize {
    let mut lines = 0;
    for (expected, line) in log.lines().enumerate() {
        assert_eq!(line, format!("line {expected}"));
        lines = expected + 1;
    }
    lines
}

fn end_shims(node: &Node) {
    for entry in std::fs::read_dir(node.world.roots().pods()).unwrap().flatten() {
        let pid = std::fs::read_to_string(entry.path().join("shim.pid")).unwrap_or_default();
        if let Some(pid) = pid.trim().parse().ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::KILL);
            eventually("the shim to be gone", || rustix::process::test_kill_process(pid).is_err());
        }
    }
}

const IDENTITY: &str = "{.metadata.uid} {.status.podIP} {.status.startTime} {range .status.containerStatuses[*]}{.containerID} {.restartCount} {.state.running.startedAt}{end} {range .status.initContainerStatuses[*]}{.containerID} {.restartCount} {.state.running.startedAt}{end}";

#[test]
fn pods_run_on_without_the_daemon_and_are_found_again() {
    let node = Node::start("1.35");
    node.ready("counting", COUNTING);
    node.until("get pod counting -o 'jsonpath={.status.initContainerStatuses[0].restartCount}'", |out| out == "1");
    node.ok("wait --for=condition=Ready pod/counting --timeout=120s");
    node.apply(ONCE);
    node.until("get pod once --no-headers", |out| out.contains("Error"));
    let before = (node.value("pod/counting", IDENTITY), node.world.shim_pid("counting"));
    let finished = "{.status.phase} {.status.containerStatuses[0].state.terminated}";
    let once = node.value("pod/once", finished);
    let lines = assert_whole(&node.ok("logs counting"));

    for keep in [false, true] {
        if keep {
            assert_eq!(node.outrigger(&["stop", "--keep-pods"]).code, Some(0));
        } else {
            node.kill();
        }
        assert!(node.refused("get pods").contains("refused"));
        std::thread::sleep(Duration::from_millis(300));
        // Pods are bound to the name of the node's first start.
        if keep {
            node.come_renamed("renamed")
        } else {
            node.come()
        }
        assert_eq!((node.value("pod/counting", IDENTITY), node.world.shim_pid("counting")), before);
        assert_eq!(node.value("pod/once", finished), once);
        assert_eq!(node.ok("logs once"), "ran\n");
    }
    eventually("the log to go on", || assert_whole(&node.ok("logs counting")) > lines + 20);
    assert!(node.ok("get pod counting --no-headers").contains("2/2"));
    assert_eq!(node.ok("exec counting -c app -- echo alive"), "alive\n");

    // What happened while nobody looked is told afterwards.
    let events =
        node.ok("get events --field-selector involvedObject.name=counting,reason=Created -o name").lines().count();
    node.kill();
    let mains: Vec<String> = processes(node.world.shim_pid("counting"), "line");
    for pid in mains {
        kill_process(Pid::from_raw(pid.parse().unwrap()).unwrap(), Signal::KILL).unwrap();
    }
    node.come();
    node.until("get pod counting -o 'jsonpath={.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].lastState.terminated.exitCode} {.status.containerStatuses[0].ready}'", |out| out == "1 137 true");
    assert!(assert_whole(&node.ok("logs counting --previous")) > lines);
    assert!(events <= 4, "{events}");
}

/// Children of a shim whose command line holds this.
fn processes(shim: u32, needle: &str) -> Vec<String> {
    let children = Command::new("ps").args(["-o", "pid=,args=", "--ppid", &shim.to_string()]).output().unwrap();
    let children = String::from_utf8_lossy(&children.stdout).into_owned();
    let found = children.lines().filter(|line| line.contains(needle));
    found.map(|line| line.split_whitespace().next().unwrap().to_owned()).collect()
}

#[test]
fn a_stopped_node_keeps_its_objects() {
    let node = Node::start("1.33");
    node.ready("web", &web("web"));
    node.apply(ONCE);
    node.until("get pod once --no-headers", |out| out.contains("Error"));
    node.ok("create namespace team");
    node.ok("create -n team configmap settings --from-literal=color=blue");
    let kept = ["configmap/settings -n team", "pod/web", "pod/once", "namespace/team"];
    let uids = || kept.map(|object| node.value(object, "{.metadata.uid}"));
    let before = uids();
    let ran = node.value("pod/web", "{.status.containerStatuses[0].containerID}");
    assert_eq!(node.outrigger(&["stop"]).code, Some(0));
    assert!(processes_of_pods(&node).is_empty());
    node.come();
    assert_eq!(uids(), before);
    node.until(
        "get pod web -o 'jsonpath={.status.containerStatuses[0].ready} {.status.containerStatuses[0].containerID}'",
        |out| out.starts_with("true ") && !out.ends_with(&ran),
    );
    assert_eq!(
        node.value("pod/once", "{.status.phase} {.status.containerStatuses[0].state.terminated.exitCode}"),
        "Failed 4"
    );
    assert_eq!(node.ok("exec web -c app -- cat /www/index.html"), "prepared by web\n");
}

#[test]
fn a_stop_among_creations_ends_them_all() {
    for pause in [0, 5, 20] {
        let node = Node::start("1.35");
        let pods: Vec<String> = (0..4).map(|number| idle(&format!("pod-{number}"), "a: b")).collect();
        node.apply(&pods.join("\n---\n"));
        std::thread::sleep(Duration::from_millis(pause));
        assert_eq!(node.outrigger(&["stop"]).code, Some(0));
        assert!(processes_of_pods(&node).is_empty());
    }
}

fn processes_of_pods(node: &Node) -> Vec<PathBuf> {
    let pods = std::fs::read_dir(node.world.roots().pods()).into_iter().flatten().flatten();
    pods.map(|entry| entry.path())
        .filter(|path| {
            let pid = std::fs::read_to_string(path.join("shim.pid")).unwrap_or_default();
            pid.trim()
                .parse()
                .ok()
                .and_then(Pid::from_raw)
                .is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok())
        })
        .collect()
}

#[test]
fn after_the_machines_end_pods_start_by_policy() {
    let node = Node::start("1.35");
    node.ready("web", &web("web"));
    node.ready("never", &idle("never", "a: b").replace("spec:", "spec:\n  restartPolicy: Never"));
    node.apply(ONCE);
    node.until("get pod once --no-headers", |out| out.contains("Error"));
    let uid = node.value("pod/web", "{.metadata.uid}");
    let before = node.value("pod/web", "{.status.containerStatuses[0].containerID}");
    // The power goes: the daemon, every shim, and what was in memory (/run).
    node.kill();
    end_shims(&node);
    std::fs::remove_dir_all(node.world.roots().run).unwrap();
    node.come();
    node.until(
        "get pod web -o 'jsonpath={.status.containerStatuses[0].ready}{.status.initContainerStatuses[1].ready} {.status.containerStatuses[0].containerID}'",
        // Until the node has looked, it says what was before.
        |out| out.starts_with("truetrue ") && !out.ends_with(&before),
    );
    assert_eq!(node.value("pod/web", "{.metadata.uid}"), uid);
    assert_eq!(node.ok("exec web -c app -- cat /www/index.html"), "prepared by web\n");
    assert_eq!(
        node.value("pod/once", "{.status.phase} {.status.containerStatuses[0].state.terminated.exitCode}"),
        "Failed 4"
    );
    node.until("get pod never -o 'jsonpath={.status.phase}'", |out| out == "Failed");
    // The first look around of the node comes after a second.
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(node.ok("get pods -o name"), "pod/never\npod/once\npod/web\n");
    assert_eq!(node.ok("logs once"), "ran\n");
    node.ok("delete pods --all");
}

/// How many writes were acknowledged and how many events and watches there were so far.
fn progress(survivor: &mut Going) -> [u64; 3] {
    let line = survivor.line("so far ");
    let counts: serde_json::Value = serde_json::from_str(line.trim_start_matches("so far ")).unwrap();
    ["writes", "events", "answered"].map(|what| counts[what].as_u64().unwrap())
}

#[test]
fn kills_under_load_lose_nothing_that_was_acknowledged() {
    let node = Node::start("1.35");
    node.ready("one", &idle("one", "a: b"));
    let before = node.value("pod/one", IDENTITY);
    let mut survivor = node.python_going("survivor.py", &[]);
    for round in 0..8u64 {
        // However slow the machine is just now: everybody has been at work since the last start.
        survivor.seen();
        let [writes, events, watches] = progress(&mut survivor);
        eventually("writes, events and a watch", || {
            let now = progress(&mut survivor);
            now[0] >= writes + 3 && now[1] >= events + 3 && now[2] > watches
        });
        // At another moment of the writes each time.
        std::thread::sleep(Duration::from_millis(37 * round));
        node.kill();
        node.come();
    }
    survivor.end_of_input();
    let (code, said) = survivor.end();
    assert_eq!(code, Some(0), "{said} {}", survivor.errors());
    let counts: serde_json::Value =
        serde_json::from_str(said.lines().find(|line| line.starts_with('{')).unwrap()).unwrap();
    let count = |what: &str| counts[what].as_u64().unwrap();
    assert!(count("writes") >= 24 && count("events") >= 24 && count("watches") >= 8, "{counts}");
    assert_eq!(node.value("pod/one", IDENTITY), before);
}

/// A root on a small file system of its own.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(path: PathBuf) -> SmallDisk {
        std::fs::create_dir_all(&path).unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=24m", "tmpfs"]).arg(&path).status().unwrap();
        assert!(mounted.success());
        SmallDisk(path)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_refuses_writes_and_loses_nothing() {
    let node = Node::prepared("1.35");
    let disk = SmallDisk::mount(node.world.path("root"));
    // Its pods are away and its mount is gone before the node looks for leftovers.
    let (node, disk) = (node, disk);
    node.come();
    node.ready("one", &idle("one", "a: b"));
    node.ok("create configmap before --from-literal=a=1");
    let filler = disk.0.join("filler");
    let _ =
        Command::new("dd").args(["if=/dev/zero", "bs=64k"]).arg(format!("of={}", filler.display())).output().unwrap();

    let big = "x".repeat(200_000);
    let mut kept = Vec::new();
    let mut refusal = None;
    for number in 0..60 {
        let object = format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: big-{number}}}\ndata: {{a: {big}}}\n");
        let said = node.kubectl_with("create -f -", &object);
        if said.code == Some(0) {
            kept.push(number);
        } else {
            refusal = Some(said.err);
            break;
        }
    }
    let refusal = refusal.expect("a full disk takes no more");
    assert!(refusal.contains("Error from server") && refusal.contains("space"), "{refusal}");
    // Reading goes on, and so do the pods.
    assert_eq!(node.value("configmap/before", "{.data.a}"), "1");
    assert!(node.ok("get pod one --no-headers").contains("Running"));
    assert_eq!(node.ok("exec one -- echo alive"), "alive\n");
    assert!(
        node.refused_with(
            "create -f -",
            &format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: more}}\ndata: {{a: {big}}}\n")
        )
        .contains("space")
    );

    std::fs::remove_file(&filler).unwrap();
    node.ok("create configmap after --from-literal=a=1");
    node.kill();
    node.come();
    for name in kept.iter().map(|number| format!("big-{number}")).chain(["before".into(), "after".into()]) {
        node.ok(&format!("get configmap {name} -o name"));
    }
    assert!(node.refused("get configmap more").contains("NotFound"));
    assert_eq!(node.value("pod/one", "{.status.phase} {.status.containerStatuses[0].restartCount}"), "Running 0");
    node.ok("delete pods --all");
    assert_eq!(node.outrigger(&["stop", "--clean"]).code, Some(0));
}
