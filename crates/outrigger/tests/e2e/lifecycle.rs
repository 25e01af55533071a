//! The golden timelines on the real kernel, and exit codes. Each container writes what it does, with the time, to one
//! file on a hostPath volume; the test reads order and distances from it.

use crate::world::{World, eventually, text};

/// A manifest whose containers mount the test's directory at `/t`; `say WORD` appends a line to `/t/events`.
fn manifest(world: &World, name: &str, spec: &str) -> String {
    let dir = world.path(&format!("{name}-events"));
    std::fs::create_dir_all(&dir).unwrap();
    let spec = spec
        .replace("@say", r#"say() { echo "$(date +%s.%N) $1" >> /t/events; };"#)
        .replace("@mount", "volumeMounts: [{name: t, mountPath: /t}]");
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  volumes: [{{name: t, hostPath: {{path: {}}}}}]\n{spec}",
        dir.display()
    )
}

/// `(seconds since the first event, word)` in order.
fn events(world: &World, name: &str) -> Vec<(f64, String)> {
    let path = world.path(&format!("{name}-events")).join("events");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let parsed: Vec<(f64, String)> = text
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(time, word)| (time.parse().unwrap(), word.to_owned()))
        .collect();
    let start = parsed.first().map_or(0.0, |(time, _)| *time);
    parsed.into_iter().map(|(time, word)| (time - start, word)).collect()
}

/// Seconds of the day of the first event, as the test counts them.
fn first(world: &World, name: &str) -> f64 {
    let text = std::fs::read_to_string(world.path(&format!("{name}-events")).join("events")).unwrap();
    text.split_once(' ').unwrap().0.parse().unwrap()
}

fn now() -> f64 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_secs_f64()
}

fn at(events: &[(f64, String)], word: &str) -> f64 {
    events.iter().find(|(_, w)| w == word).unwrap_or_else(|| panic!("no `{word}` in {events:?}")).0
}

/// Nothing comes too early; how late it comes is the machine's business, too, but not as late as the next wrong time.
#[track_caller]
fn assert_after(actual: f64, expected: f64, what: &str) {
    assert!((expected - 0.05..expected + 9.0).contains(&actual), "{what}: at {actual:.2} s, expected {expected} s");
}

/// Most of their time is waiting, so they wait together.
#[test]
fn timelines() {
    let cases: [(&str, fn()); 6] = [("t1", t1), ("t2", t2), ("t3", t3), ("t4", t4), ("t5", t5), ("t6", t6)];
    let threads: Vec<_> = cases.into_iter().map(|(name, run)| (name, std::thread::spawn(run))).collect();
    let failed: Vec<&str> = threads.into_iter().filter_map(|(name, t)| t.join().is_err().then_some(name)).collect();
    assert!(failed.is_empty(), "timelines that failed: {failed:?}");
}

/// Init A, sidecar S with a startup probe, init B, main M, one after another.
fn t1() {
    let world = World::new();
    let pod = manifest(
        &world,
        "t1",
        r#"
  terminationGracePeriodSeconds: 2
  initContainers:
  - {name: a, image: busybox, command: [sh, -c, '@say say a-start; sleep 2'], @mount}
  - name: s
    image: busybox
    restartPolicy: Always
    command: [sh, -c, '@say say s-start; sleep 3; touch /tmp/ready; while :; do sleep 1; done']
    startupProbe: {exec: {command: [test, -e, /tmp/ready]}, periodSeconds: 1, failureThreshold: 30}
    @mount
  - {name: b, image: busybox, command: [sh, -c, '@say say b-start; sleep 1'], @mount}
  containers:
  - {name: m, image: busybox, command: [sh, -c, '@say say m-start; while :; do sleep 1; done'], @mount}
"#,
    );
    world.detach(&pod);
    world.await_phase("t1", "Running");
    eventually("the main to say so", || events(&world, "t1").len() == 4 && world.ok(&["ps"]).contains("2/2"));
    let seen = events(&world, "t1");
    let words: Vec<&str> = seen.iter().map(|(_, word)| word.as_str()).collect();
    assert_eq!(words, ["a-start", "s-start", "b-start", "m-start"]);
    assert_after(at(&seen, "s-start"), 2.0, "the sidecar after init A");
    // A probe a second: the one after readiness at three seconds finds it.
    assert_after(at(&seen, "b-start") - at(&seen, "s-start"), 3.0, "init B after the startup probe");
    assert_after(at(&seen, "m-start") - at(&seen, "b-start"), 1.0, "the main after init B");
    world.ok(&["down", "t1", "--force"]);
    world.assert_nothing_left();
}

const TRAPPED: &str =
    r#"trap "say @-term; sleep $N; say @-exit; exit 0" TERM; say @-start; while :; do sleep 0.05; done"#;

fn trapped(name: &str, seconds: u32) -> String {
    format!("@say {}", TRAPPED.replace('@', name).replace("$N", &seconds.to_string()))
}

/// Delete with two sidecars: mains first, then sidecars in reverse, one grace budget.
fn t2() {
    let world = World::new();
    let (m, s1, s2) = (trapped("m", 5), trapped("s1", 1), trapped("s2", 3));
    let spec = format!(
        r#"
  terminationGracePeriodSeconds: 30
  initContainers:
  - {{name: s1, image: busybox, restartPolicy: Always, command: [sh, -c, '{s1}'], @mount}}
  - {{name: s2, image: busybox, restartPolicy: Always, command: [sh, -c, '{s2}'], @mount}}
  containers:
  - {{name: m, image: busybox, command: [sh, -c, '{m}'], @mount}}
"#
    );
    world.detach(&manifest(&world, "t2", &spec));
    eventually("all three to run", || events(&world, "t2").len() == 3);
    world.ok(&["down", "t2"]);
    let seen = events(&world, "t2");
    let zero = at(&seen, "m-term");
    assert_after(at(&seen, "m-exit") - zero, 5.0, "the main's exit");
    assert_after(at(&seen, "s2-term") - zero, 5.0, "the later sidecar's turn");
    assert_after(at(&seen, "s2-exit") - zero, 8.0, "the later sidecar's exit");
    assert_after(at(&seen, "s1-term") - zero, 8.0, "the earlier sidecar's turn");
    assert_after(at(&seen, "s1-exit") - zero, 9.0, "the earlier sidecar's exit");
    let words: Vec<&str> = seen[3..].iter().map(|(_, word)| word.as_str()).collect();
    assert_eq!(words, ["m-term", "m-exit", "s2-term", "s2-exit", "s1-term", "s1-exit"]);
    world.assert_nothing_left();
}

/// The grace runs out: sidecars get their two seconds together.
fn t3() {
    let world = World::new();
    let sidecar =
        |name: &str| format!(r#"@say trap "say {name}-term" TERM; say {name}-start; while :; do sleep 0.05; done"#);
    let spec = format!(
        r#"
  terminationGracePeriodSeconds: 4
  initContainers:
  - {{name: s1, image: busybox, restartPolicy: Always, command: [sh, -c, '{}'], @mount}}
  - {{name: s2, image: busybox, restartPolicy: Always, command: [sh, -c, '{}'], @mount}}
  containers:
  - {{name: m, image: busybox, command: [sh, -c, '{}'], @mount}}
"#,
        sidecar("s1"),
        sidecar("s2"),
        sidecar("m")
    );
    world.detach(&manifest(&world, "t3", &spec));
    eventually("all three to run", || events(&world, "t3").len() == 3);
    let asked = now();
    world.ok(&["down", "t3"]);
    assert_after(now() - asked, 6.0, "the pod gone: grace and the two seconds");
    let seen = events(&world, "t3");
    let zero = asked - first(&world, "t3");
    assert_after(at(&seen, "m-term") - zero, 0.0, "the main's TERM");
    assert_after(at(&seen, "s1-term") - zero, 4.0, "the first sidecar's TERM");
    assert_after(at(&seen, "s2-term") - zero, 4.0, "the second sidecar's TERM");
    world.assert_nothing_left();
}

/// Job-like: the main ends, the sidecar is stopped and killed, the pod Succeeded.
fn t4() {
    let world = World::new();
    let spec = r#"
  restartPolicy: Never
  terminationGracePeriodSeconds: 15
  initContainers:
  - {name: s, image: busybox, restartPolicy: Always, command: [sh, -c, '@say trap "say s-term" TERM; say s-start; while :; do sleep 0.05; done'], @mount}
  containers:
  - {name: m, image: busybox, command: [sh, -c, '@say sleep 2; say m-exit'], @mount}
"#;
    world.detach(&manifest(&world, "t4", spec));
    eventually("the sidecar to be asked to stop", || events(&world, "t4").iter().any(|(_, w)| w == "s-term"));
    assert_eq!(world.phase("t4"), "Running", "until the sidecar has stopped");
    let listed = world.ok(&["ps"]);
    assert!(listed.contains("Completed") && listed.contains("1/2"), "{listed}");
    world.await_phase("t4", "Succeeded");
    let sidecar = world.container("t4", "s").unwrap().state.unwrap().terminated.unwrap();
    assert_eq!((sidecar.exit_code, sidecar.reason.as_deref()), (137, Some("Error")));
    let conditions = world.status("t4").unwrap().conditions.unwrap();
    let ready = conditions.iter().find(|c| c.type_ == "Ready").unwrap();
    assert_eq!((ready.status.as_str(), ready.reason.as_deref()), ("False", Some("PodCompleted")));
    let listed = world.ok(&["ps"]);
    assert!(listed.contains("Completed") && listed.contains("0/2"), "{listed}");
    world.ok(&["down", "t4"]);
    world.assert_nothing_left();
}

/// A sidecar that crash-loops after the start: the main is untouched.
fn t5() {
    let world = World::new();
    let spec = r#"
  terminationGracePeriodSeconds: 1
  initContainers:
  - {name: s, image: busybox, restartPolicy: Always, command: [sh, -c, '@say say s-start; sleep 1; exit 1'], @mount}
  containers:
  - {name: m, image: busybox, command: [sh, -c, '@say say m-start; while :; do sleep 1; done'], @mount}
"#;
    world.detach(&manifest(&world, "t5", spec));
    eventually("the fourth start of the sidecar", || {
        events(&world, "t5").iter().filter(|(_, word)| word == "s-start").count() == 4
    });
    let seen = events(&world, "t5");
    let starts: Vec<f64> = seen.iter().filter(|(_, word)| word == "s-start").map(|(time, _)| *time).collect();
    assert_after(starts[1] - starts[0], 1.0, "the first restart is immediate");
    assert_after(starts[2] - starts[1], 11.0, "the second waits ten seconds");
    assert_after(starts[3] - starts[2], 21.0, "the third waits twenty");
    assert_eq!(world.phase("t5"), "Running");
    assert_eq!(world.container("t5", "m").unwrap().restart_count, 0);
    eventually("the status column", || world.ok(&["ps"]).contains("Init:CrashLoopBackOff"));
    world.ok(&["down", "t5", "--force"]);
    world.assert_nothing_left();
}

/// A sidecar that never passes its startup probe, in a pod that never restarts: restarted all the same, never Failed.
fn t6() {
    let world = World::new();
    let spec = r#"
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  initContainers:
  - name: s
    image: busybox
    restartPolicy: Always
    command: [sh, -c, '@say trap "exit 0" TERM; say s-start; while :; do sleep 0.05; done']
    startupProbe: {exec: {command: ["false"]}, periodSeconds: 1, failureThreshold: 3}
    @mount
  containers:
  - {name: m, image: busybox, command: [sh, -c, '@say say m-start'], @mount}
"#;
    world.detach_badly(&manifest(&world, "t6", spec));
    eventually("a restart of the sidecar", || {
        events(&world, "t6").iter().filter(|(_, word)| word == "s-start").count() >= 2
    });
    let killing = world.notices("t6").into_iter().find(|notice| notice.reason == "Killing").unwrap();
    assert_eq!(killing.message, "Init container s failed startup probe");
    assert_eq!(world.phase("t6"), "Pending");
    assert!(!events(&world, "t6").iter().any(|(_, word)| word == "m-start"));
    world.ok(&["down", "t6", "--force"]);
    world.assert_nothing_left();
}

#[test]
fn the_exit_code_is_the_pods() {
    let world = World::new();
    let pod = |code: u32| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: code}}\nspec:\n  restartPolicy: Never\n  containers:\n  - {{name: m, image: busybox, command: [sh, -c, 'echo bye; exit {code}']}}\n"
        )
    };
    for code in [0, 3] {
        let path = world.manifest("code.yaml", &pod(code));
        let output = world.run(&["run", "--offline", path.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(i32::try_from(code).unwrap()));
        assert!(text(&output.stdout).contains("bye"));
        world.assert_nothing_left();
    }
}

#[test]
fn hooks_run_at_their_times() {
    let world = World::new();
    let spec = r#"
  terminationGracePeriodSeconds: 60
  initContainers:
  - name: s
    image: busybox
    restartPolicy: Always
    command: [sh, -c, '@say trap "say s-term; exit 0" TERM; say s-start; while :; do sleep 0.05; done']
    lifecycle:
      postStart: {exec: {command: [sh, -c, '@say @wait s-start; say s-post-start; sleep 1; say s-post-end']}}
      preStop: {exec: {command: [sh, -c, '@say say s-pre-stop; @wait m-pre-stop']}}
    @mount
  containers:
  - name: m
    image: busybox
    command: [sh, -c, '@say trap "say m-term; exit 0" TERM; say m-start; while :; do sleep 0.05; done']
    lifecycle:
      preStop: {exec: {command: [sh, -c, '@say say m-pre-stop; @wait s-pre-stop; sleep 1; say m-pre-end']}}
    @mount
"#;
    let spec = spec.replace("@wait", r#"wait() { until grep -q " $1$" /t/events; do sleep 0.05; done; }; wait"#);
    world.detach(&manifest(&world, "hooks", &spec));
    eventually("the main", || events(&world, "hooks").iter().any(|(_, word)| word == "m-start"));
    world.ok(&["down", "hooks"]);
    let seen = events(&world, "hooks");
    assert!(at(&seen, "m-start") >= at(&seen, "s-post-end"), "postStart holds the successor back: {seen:?}");
    // All preStop hooks run together: each has waited for the other.
    assert!(at(&seen, "m-term") >= at(&seen, "m-pre-end"), "TERM after the hook: {seen:?}");
    assert!(at(&seen, "s-term") >= at(&seen, "m-term"), "the sidecar last: {seen:?}");
    world.assert_nothing_left();
}

#[test]
fn a_liveness_failure_restarts_and_a_readiness_failure_does_not() {
    let world = World::new();
    world.detach(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: probed}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: sick
    image: busybox
    command: [sh, -c, 'trap "exit 0" TERM; while :; do sleep 0.05; done']
    livenessProbe: {exec: {command: ["false"]}, periodSeconds: 1, failureThreshold: 2}
  - name: unready
    image: busybox
    command: [sh, -c, 'trap "exit 0" TERM; while :; do sleep 0.05; done']
    readinessProbe: {tcpSocket: {port: 81}, periodSeconds: 1, failureThreshold: 1}
"#,
    );
    eventually("a restart of the sick one", || world.container("probed", "sick").is_some_and(|c| c.restart_count >= 1));
    let unready = world.container("probed", "unready").unwrap();
    assert_eq!((unready.restart_count, unready.ready), (0, false));
    let messages: Vec<String> = world.notices("probed").into_iter().map(|notice| notice.message).collect();
    assert!(messages.iter().any(|m| m == "Container sick failed liveness probe, will be restarted"), "{messages:?}");
    assert!(messages.iter().any(|m| m.starts_with("Readiness probe failed: dial tcp ")), "{messages:?}");
    world.ok(&["down", "probed", "--force"]);
}

#[test]
fn a_changed_manifest_replaces_only_what_differs() {
    let world = World::new();
    let pod = |word: &str, extra: &str| {
        format!(
            r#"
apiVersion: v1
kind: Pod
metadata: {{name: changing}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {{name: same, image: busybox, command: [sh, -c, 'trap "exit 0" TERM; while :; do sleep 0.05; done']}}
  - {{name: other, image: busybox, command: [sh, -c, 'echo {word}; trap "exit 0" TERM; while :; do sleep 0.05; done']}}
{extra}"#
        )
    };
    world.detach(&pod("one", ""));
    world.detach(&pod(
        "two",
        "  - {name: added, image: busybox, command: [sh, -c, 'trap \"exit 0\" TERM; while :; do sleep 0.05; done']}\n",
    ));
    eventually("the changed and the added container", || {
        world.log("changing", "other", 1).contains("two")
            && world.container("changing", "added").is_some_and(|c| c.ready)
    });
    assert_eq!(world.container("changing", "same").unwrap().restart_count, 0);
    world.detach(&pod("two", ""));
    eventually("the added container to be gone", || world.container("changing", "added").is_none());
    assert_eq!(world.container("changing", "same").unwrap().restart_count, 0);
    world.ok(&["down", "changing"]);
    world.assert_nothing_left();
}

#[test]
fn several_documents_and_workloads_run_and_bad_input_creates_nothing() {
    let world = World::new();
    let path = world.manifest(
        "bad.yaml",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: Bad_Name}\nspec:\n  containers:\n  - {image: busybox, bogus: 1}\n",
    );
    let output = world.run(&["run", "--offline", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    for expected in ["metadata.name", "spec.containers[0].name: Required value", "bogus", "bad.yaml:"] {
        assert!(said.contains(expected), "`{expected}` in {said}");
    }
    world.assert_nothing_left();

    let path = world.manifest(
        "job.yaml",
        r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: words}
data: {greeting: hello from the map}
---
apiVersion: batch/v1
kind: Job
metadata: {name: once}
spec:
  template:
    spec:
      restartPolicy: Never
      containers:
      - name: m
        image: busybox
        command: [sh, -c, 'echo $GREETING']
        env: [{name: GREETING, valueFrom: {configMapKeyRef: {name: words, key: greeting}}}]
"#,
    );
    let output = world.run(&["run", "--offline", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).contains("hello from the map"));
    assert!(text(&output.stderr).contains("Job"), "it says that a template is run");
}

#[test]
fn a_pod_that_ended_makes_room_for_the_next_of_its_name() {
    let world = World::new();
    let job = |word: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: again}}\nspec:\n  restartPolicy: Never\n  containers:\n  - {{name: m, image: busybox, command: [sh, -c, 'echo {word}; sleep 0.2']}}\n"
        )
    };
    world.detach(&job("one"));
    world.await_phase("again", "Succeeded");
    let first = world.uid("again");
    world.detach(&job("two"));
    assert_ne!(world.uid("again"), first);
    let listed = world.run(&["ps"]);
    assert!(!text(&listed.stdout).contains("no engine") && text(&listed.stderr).is_empty(), "{listed:?}");
    world.await_phase("again", "Succeeded");
    assert_eq!(world.log("again", "m", 0), "two\n");
    world.ok(&["down", "again"]);
    world.assert_nothing_left();
}

#[test]
fn what_a_live_pod_cannot_take_over_is_refused_unless_it_is_recreated() {
    let world = World::new();
    let pod = |spec: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: fixed}}\nspec:\n  terminationGracePeriodSeconds: 1\n{spec}  containers:\n  - {{name: m, image: busybox, command: [sh, -c, 'trap \"exit 0\" TERM; while :; do sleep 0.05; done']}}\n"
        )
    };
    world.detach(&pod(""));
    let uid = world.uid("fixed");
    let output = world.detach_badly(&pod("  hostname: other\n"));
    assert!(!output.status.success());
    assert!(text(&output.stderr).contains("spec.hostname") && text(&output.stderr).contains("--recreate"));
    assert_eq!(world.uid("fixed"), uid);
    let path = world.path("pod.yaml");
    world.ok(&["run", "--offline", "--detach", "--recreate", path.to_str().unwrap()]);
    eventually("a new pod in its place", || {
        pod_engine::record::find(&world.roots(), "default", "fixed")
            .unwrap()
            .is_some_and(|listed| listed.record.uid != uid)
            && world.container("fixed", "m").is_some_and(|c| c.ready)
    });
    world.ok(&["down", "fixed"]);
    world.assert_nothing_left();
}

#[test]
fn a_replaced_or_removed_container_ends_as_it_was_started() {
    let world = World::new();
    let shared = world.path("shared");
    std::fs::create_dir_all(&shared).unwrap();
    let container = |name: &str, word: &str, signal: &str| {
        format!(
            r#"
  - name: {name}
    image: busybox
    env: [{{name: WORD, value: {word}}}]
    command:
    - sh
    - -c
    - |
      for s in USR1 USR2; do trap "echo {name} $s >> /w/signals; echo -n $s > /dev/termination-log; exit 0" $s; done
      echo {name} $WORD >> /w/listening
      while :; do sleep 0.05; done
    volumeMounts: [{{name: w, mountPath: /w}}]
    lifecycle:
      stopSignal: {signal}
      preStop: {{exec: {{command: [sh, -c, 'echo {name} $WORD >> /w/hooks']}}}}"#
        )
    };
    let pod = |containers: &[String]| {
        format!(
            r#"
apiVersion: v1
kind: Pod
metadata: {{name: ending}}
spec:
  os: {{name: linux}}
  terminationGracePeriodSeconds: 60
  volumes: [{{name: w, hostPath: {{path: {}}}}}]
  containers:{}
"#,
            shared.display(),
            containers.concat()
        )
    };
    let told = |file: &str| std::fs::read_to_string(shared.join(file)).unwrap_or_default();
    world.detach(&pod(&[container("stays", "old", "SIGUSR1"), container("goes", "old", "SIGUSR1")]));
    eventually("both to listen to signals", || told("listening").lines().count() == 2);
    world.detach(&pod(&[container("stays", "new", "SIGUSR2")]));
    eventually("the replacement", || {
        world.container("ending", "goes").is_none()
            && world.container("ending", "stays").is_some_and(|c| c.ready && c.restart_count == 1)
            && told("listening").lines().count() == 3
    });
    let sorted = |text: String| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(told("hooks")), ["goes old", "stays old"]);
    assert_eq!(sorted(told("signals")), ["goes USR1", "stays USR1"]);
    world.ok(&["down", "ending"]);
    assert!(told("hooks").ends_with("stays new\n") && told("signals").ends_with("stays USR2\n"));
    world.assert_nothing_left();
}
