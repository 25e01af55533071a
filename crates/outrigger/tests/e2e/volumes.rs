//! Volumes as containers see them: content, modes, sub-paths, and the atomic swap when a source changes.

use crate::world::{World, eventually, text};

#[test]
fn content_volumes_show_their_sources_and_follow_a_change() {
    let world = World::new();
    let input = |value: &str| {
        format!(
            r#"
apiVersion: v1
kind: ConfigMap
metadata: {{name: settings}}
data: {{mode: {value}, other: x}}
---
apiVersion: v1
kind: Secret
metadata: {{name: keys}}
stringData: {{token: s3cret}}
---
apiVersion: v1
kind: Pod
metadata: {{name: reader, labels: {{app: web}}}}
spec:
  terminationGracePeriodSeconds: 1
  volumes:
  - {{name: c, configMap: {{name: settings, items: [{{key: mode, path: deep/mode, mode: 0400}}]}}}}
  - {{name: s, secret: {{secretName: keys, defaultMode: 0440}}}}
  - {{name: d, downwardAPI: {{items: [{{path: labels, fieldRef: {{fieldPath: metadata.labels}}}}]}}}}
  - name: p
    projected: {{sources: [{{configMap: {{name: settings}}}}, {{secret: {{name: keys}}}}]}}
  containers:
  - name: m
    image: busybox
    command:
    - sh
    - -c
    - |
      stat -L -c '%a %n' /c/deep/mode /s/token; cat /s/token; echo; cat /d/labels; echo; ls /p
      touch /c/x 2>/dev/null || echo read-only
      trap 'exit 0' TERM
      while :; do cat /c/deep/mode; echo; sleep 0.1; done
    volumeMounts:
    - {{name: c, mountPath: /c}}
    - {{name: s, mountPath: /s}}
    - {{name: d, mountPath: /d}}
    - {{name: p, mountPath: /p}}
"#
        )
    };
    world.detach(&input("first"));
    eventually("the first content", || world.log("reader", "m", 0).contains("first"));
    let said = world.log("reader", "m", 0);
    for expected in ["400 /c/deep/mode", "440 /s/token", "s3cret", "app=\"web\"", "mode\nother\ntoken", "read-only"] {
        assert!(said.contains(expected), "`{expected}` in {said}");
    }
    world.detach(&input("second"));
    eventually("the changed content in the mounted volume", || world.log("reader", "m", 0).contains("second"));
    assert_eq!(world.container("reader", "m").unwrap().restart_count, 0);
    world.ok(&["down", "reader"]);
    world.assert_nothing_left();
}

#[test]
fn volumes_are_shared_survive_restarts_and_keep_symlinks_inside() {
    let world = World::new();
    let host = world.path("host");
    std::fs::create_dir_all(&host).unwrap();
    let manifest = format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: shared}}
spec:
  restartPolicy: Never
  volumes:
  - {{name: e, emptyDir: {{}}}}
  - {{name: h, hostPath: {{path: {}, type: Directory}}}}
  initContainers:
  - name: first
    image: busybox
    command: [sh, -c, 'echo word > /e/file; mkdir /e/dir; ln -s /etc /e/escape; stat -c %a /e']
    volumeMounts: [{{name: e, mountPath: /e}}]
  containers:
  - name: m
    image: busybox
    env: [{{name: SUB, value: dir}}]
    command: [sh, -c, 'cat /e/file; touch /sub/made; ls /e/dir; echo host > /h/word; touch /ro/x 2>/dev/null || echo read-only']
    volumeMounts:
    - {{name: e, mountPath: /e}}
    - {{name: e, mountPath: /sub, subPathExpr: $(SUB)}}
    - {{name: h, mountPath: /h}}
    - {{name: h, mountPath: /ro, readOnly: true}}
"#,
        host.display()
    );
    let path = world.manifest("pod.yaml", &manifest);
    let output = world.run(&["run", "--offline", path.to_str().unwrap()]);
    let said = text(&output.stdout);
    for expected in ["777", "word", "made", "read-only"] {
        assert!(said.contains(expected), "`{expected}` in {said}");
    }
    assert_eq!(std::fs::read_to_string(host.join("word")).unwrap(), "host\n");
    world.assert_nothing_left();
}

#[test]
fn a_missing_source_keeps_the_pod_waiting_until_it_appears() {
    let world = World::new();
    let pod = r#"
apiVersion: v1
kind: Pod
metadata: {name: waiting}
spec:
  restartPolicy: Never
  volumes: [{name: c, configMap: {name: late}}]
  containers:
  - {name: m, image: busybox, command: [cat, /c/word], volumeMounts: [{name: c, mountPath: /c}]}
"#;
    let path = world.manifest("pod.yaml", pod);
    let run = world.foreground(&["run", "--offline", path.to_str().unwrap()]);
    eventually("the event", || {
        world.notices("waiting").iter().any(|notice| {
            notice.reason == "FailedMount"
                && notice.message == "MountVolume.SetUp failed for volume \"c\" : configmap \"late\" not found"
        })
    });
    eventually("the reason", || {
        let waiting = world.container("waiting", "m").and_then(|container| container.state?.waiting?.reason);
        waiting.as_deref() == Some("ContainerCreating")
    });
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: late}\ndata: {word: arrived}\n---";
    let both = world.manifest("both.yaml", &format!("{map}{pod}"));
    world.run(&["run", "--offline", "--detach", both.to_str().unwrap()]);
    let output = run.end();
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).contains("arrived"));
}

#[test]
fn the_termination_message_is_read_from_its_file_or_the_log() {
    let world = World::new();
    world.detach_badly(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: last-words}
spec:
  restartPolicy: Never
  containers:
  - {name: file, image: busybox, command: [sh, -c, 'echo -n goodbye > /dev/termination-log']}
  - name: log
    image: busybox
    terminationMessagePolicy: FallbackToLogsOnError
    command: [sh, -c, 'echo it broke; exit 4']
"#,
    );
    world.await_phase("last-words", "Failed");
    let message = |name: &str| world.container("last-words", name).unwrap().state.unwrap().terminated.unwrap().message;
    assert_eq!(message("file").as_deref(), Some("goodbye"));
    assert_eq!(message("log").as_deref(), Some("it broke\n"));
    world.ok(&["down", "last-words"]);
}

#[test]
fn a_claim_that_is_read_only_is_mounted_so() {
    let world = World::new();
    let path = world.manifest(
        "pod.yaml",
        r#"
apiVersion: v1
kind: Pod
metadata: {name: claimed}
spec:
  restartPolicy: Never
  volumes:
  - {name: writable, persistentVolumeClaim: {claimName: data}}
  - {name: fixed, persistentVolumeClaim: {claimName: data, readOnly: true}}
  containers:
  - name: m
    image: busybox
    command: [sh, -c, 'echo word > /w/file; cat /r/file; touch /r/x 2>/dev/null || echo read-only']
    volumeMounts: [{name: writable, mountPath: /w}, {name: fixed, mountPath: /r}]
"#,
    );
    let output = world.run(&["run", "--offline", path.to_str().unwrap()]);
    let said = text(&output.stdout);
    assert!(said.contains("word") && said.contains("read-only"), "{said}");
}

#[test]
fn edits_of_the_hosts_file_reach_no_sibling_and_no_later_attempt() {
    let world = World::new();
    let path = world.manifest(
        "pod.yaml",
        r#"
apiVersion: v1
kind: Pod
metadata: {name: hosts}
spec:
  restartPolicy: OnFailure
  volumes: [{name: e, emptyDir: {}}]
  containers:
  - name: editor
    image: busybox
    command:
    - sh
    - -c
    - |
      echo seen $(grep -c edited /etc/hosts) mode $(stat -c %a /etc/hosts)
      echo 192.0.2.1 edited >> /etc/hosts
      [ -e /e/again ] && exit
      touch /e/again
      exit 1
    volumeMounts: [{name: e, mountPath: /e}]
  - name: sibling
    image: busybox
    command: [sh, -c, 'until [ -e /e/again ]; do sleep 0.05; done; echo sibling $(grep -c edited /etc/hosts)']
    volumeMounts: [{name: e, mountPath: /e}]
"#,
    );
    let output = world.run(&["run", "--offline", path.to_str().unwrap()]);
    let said = text(&output.stdout);
    assert_eq!(said.matches("seen 0 mode 644").count(), 2, "{said}");
    assert!(said.contains("sibling 0"), "{said}");
    world.assert_nothing_left();
}
