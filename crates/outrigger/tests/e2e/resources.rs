//! Limits that hold: memory, cpu, and what they look like from inside.

use std::time::Instant;

use crate::world::{World, eventually};

#[test]
fn an_over_eater_is_oom_killed_and_its_sidecar_is_not() {
    let world = World::new();
    world.detach_badly(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: hungry}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  initContainers:
  - name: helper
    image: busybox
    restartPolicy: Always
    command: [sh, -c, 'trap "exit 0" TERM; while :; do sleep 0.05; done']
    resources: {limits: {memory: 32Mi}}
  containers:
  - name: eater
    image: busybox
    command: [sh, -c, 'sleep 0.3; exec tail /dev/zero']
    resources: {limits: {memory: 32Mi}}
"#,
    );
    world.await_phase("hungry", "Failed");
    let eater = world.container("hungry", "eater").unwrap().state.unwrap().terminated.unwrap();
    assert_eq!((eater.exit_code, eater.reason.as_deref()), (137, Some("OOMKilled")));
    assert_eq!(world.container("hungry", "helper").unwrap().restart_count, 0);
    world.ok(&["down", "hungry"]);
    world.assert_nothing_left();
}

#[test]
fn a_cpu_limit_holds() {
    let world = World::new();
    world.detach(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: busy}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: spinner
    image: busybox
    command: [sh, -c, 'while :; do :; done']
    resources: {limits: {cpu: 100m, memory: 64Mi}}
"#,
    );
    let uid = world.uid("busy");
    let top = world.roots().cgroup();
    // Guaranteed: the pod's group sits right below the top. v1 counts in cpuacct, v2 in cpu.stat.
    let relative = format!("{}/pod{uid}/spinner", top.strip_prefix("/").unwrap().display());
    let used = || -> f64 {
        if let Ok(text) = std::fs::read_to_string(format!("/sys/fs/cgroup/cpuacct/{relative}/cpuacct.usage")) {
            return text.trim().parse::<f64>().unwrap() / 1e9;
        }
        let text = std::fs::read_to_string(format!("/sys/fs/cgroup/{relative}/cpu.stat")).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("usage_usec ")).unwrap();
        line.parse::<f64>().unwrap() / 1e6
    };
    // However little others leave it: when it has used this much, time enough has passed.
    let start = Instant::now();
    let before = used();
    eventually("a fifth of a second of the processor", || used() > before + 0.2);
    let share = (used() - before) / start.elapsed().as_secs_f64();
    assert!(share < 0.15, "a tenth of a core, measured {share:.3}");
    world.ok(&["down", "busy", "--force"]);
}

#[test]
fn an_empty_dir_in_memory_is_as_large_as_it_says_and_shared_memory_is_shared() {
    let world = World::new();
    let path = world.manifest(
        "pod.yaml",
        r#"
apiVersion: v1
kind: Pod
metadata: {name: memory}
spec:
  restartPolicy: Never
  volumes: [{name: m, emptyDir: {medium: Memory, sizeLimit: 4Mi}}]
  initContainers:
  - name: writer
    image: busybox
    command: [sh, -c, 'echo shared > /dev/shm/word; stat -c %a /m']
    volumeMounts: [{name: m, mountPath: /m}]
  containers:
  - name: reader
    image: busybox
    command: [sh, -c, 'cat /dev/shm/word; head -c 5000000 /dev/zero > /m/big && exit 9; stat -f -c %T /m']
    volumeMounts: [{name: m, mountPath: /m}]
"#,
    );
    let output = world.run(&["run", "--offline", path.to_str().unwrap()]);
    let said = crate::world::text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}");
    for expected in ["777", "shared", "tmpfs"] {
        assert!(said.contains(expected), "`{expected}` in {said}");
    }
}

#[test]
fn a_disk_volume_over_its_limit_evicts_the_pod() {
    let world = World::new();
    world.detach(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: fat}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  volumes: [{name: v, emptyDir: {sizeLimit: 1Mi}}]
  containers:
  - name: m
    image: busybox
    command: [sh, -c, 'head -c 3000000 /dev/zero > /v/big; while :; do sleep 0.1; done']
    volumeMounts: [{name: v, mountPath: /v}]
"#,
    );
    eventually("the eviction", || world.phase("fat") == "Failed");
    let status = world.status("fat").unwrap();
    assert_eq!(status.reason.as_deref(), Some("Evicted"));
    assert_eq!(status.message.as_deref(), Some("Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". "));
    world.ok(&["down", "fat"]);
    world.assert_nothing_left();
}

#[test]
fn a_fork_bomb_ends_at_the_pods_pids_limit() {
    let world = World::new();
    let path = world.manifest(
        "pod.yaml",
        r#"
apiVersion: v1
kind: Pod
metadata: {name: forks}
spec:
  restartPolicy: Never
  containers:
  - name: m
    image: busybox
    command: [sh, -c, 'for i in $(seq 100); do sleep 100 & done; echo never']
"#,
    );
    let output = world.run(&["run", "--offline", "--pids-limit", "20", path.to_str().unwrap()]);
    assert_ne!(output.status.code(), Some(0));
    assert!(crate::world::text(&output.stderr).to_lowercase().contains("fork"), "the shell says why");
    world.assert_nothing_left();
}
