//! Pods as the tests use them, and what the machine does with pods that clients change.

use std::time::{Duration, Instant};

use crate::node::Node;
use crate::with_both;
use crate::world::eventually;

/// One container that does nothing, and ends at once when told (a first process without a handler is deaf to SIGTERM, and
/// two seconds is the shortest grace).
pub(crate) fn idle(name: &str, labels: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{{labels}}}}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - {{name: app, image: busybox, command: [sh, -c, 'trap exit TERM; sleep 1000000 & wait']}}
"
    )
}

/// A plain init container, a native sidecar, and an HTTP server on port 8080 that serves what the first one wrote.
pub(crate) fn web(name: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  terminationGracePeriodSeconds: 0
  initContainers:
  - name: prep
    image: busybox
    command: [sh, -c, 'echo prepared by {name} > /www/index.html; echo prepared']
    volumeMounts: [{{name: www, mountPath: /www}}]
  - name: log
    image: busybox
    restartPolicy: Always
    command: [sh, -c, 'echo beside; trap exit TERM; sleep 1000000 & wait']
  containers:
  - name: app
    image: busybox
    command: [sh, -c, 'echo serving; trap exit TERM; busybox httpd -f -p 8080 -h /www & wait']
    ports: [{{containerPort: 8080}}]
    volumeMounts: [{{name: www, mountPath: /www}}]
  volumes: [{{name: www, emptyDir: {{}}}}]
"
    )
}

/// The init containers end a moment after they were told to, so that the `touch` that tells them ends first.
const ORDERED: &str = "apiVersion: v1
kind: Pod
metadata: {name: ordered}
spec:
  terminationGracePeriodSeconds: 0
  initContainers:
  - name: a
    image: busybox
    command: [sh, -c, 'until [ -e /d/a ] && ! busybox pidof touch; do sleep 0.05; done; sleep 0.5']
    volumeMounts: [{name: d, mountPath: /d}]
  - name: s
    image: busybox
    restartPolicy: Always
    command: [sh, -c, 'trap exit TERM; sleep 1000000 & wait']
    startupProbe: {exec: {command: [test, -e, /d/s]}, periodSeconds: 1, timeoutSeconds: 60, failureThreshold: 300}
    volumeMounts: [{name: d, mountPath: /d}]
  - name: b
    image: busybox
    command: [sh, -c, 'until [ -e /d/b ] && ! busybox pidof touch; do sleep 0.05; done; sleep 0.5']
    volumeMounts: [{name: d, mountPath: /d}]
  containers:
  - {name: m, image: busybox, command: [sh, -c, 'trap exit TERM; sleep 1000000 & wait']}
  volumes: [{name: d, emptyDir: {}}]
";

const GATED: &str = "apiVersion: v1
kind: Pod
metadata: {name: gated}
spec:
  terminationGracePeriodSeconds: 0
  readinessGates: [{conditionType: example.com/balanced}]
  containers:
  - {name: app, image: busybox, command: [sh, -c, 'trap exit TERM; sleep 1000000 & wait']}
";

const MOUNTING: &str = "apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {color: blue}
---
apiVersion: v1
kind: Secret
metadata: {name: password}
stringData: {word: before}
---
apiVersion: v1
kind: Pod
metadata: {name: mounting}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: app
    image: busybox
    command: [sh, -c, 'trap exit TERM; sleep 1000000 & wait']
    env:
    - {name: COLOR, valueFrom: {configMapKeyRef: {name: settings, key: color}}}
    - {name: WORD, valueFrom: {secretKeyRef: {name: password, key: word}}}
    volumeMounts: [{name: settings, mountPath: /settings}, {name: password, mountPath: /password}]
  volumes:
  - {name: settings, configMap: {name: settings}}
  - {name: password, secret: {secretName: password}}
";

const LIMITED: &str = "apiVersion: v1
kind: Pod
metadata: {name: limited}
spec:
  terminationGracePeriodSeconds: 0
  initContainers:
  - name: side
    image: busybox
    restartPolicy: Always
    command: [sh, -c, 'trap exit TERM; sleep 1000000 & wait']
    resources: {requests: {cpu: 50m, memory: 32Mi}, limits: {cpu: 100m, memory: 64Mi}}
  containers:
  - name: app
    image: busybox
    command: [sh, -c, 'trap exit TERM; sleep 1000000 & wait']
    resources: {requests: {cpu: 50m, memory: 32Mi}, limits: {cpu: 100m, memory: 64Mi}}
";

with_both!(
    init_containers_and_sidecars_come_in_order,
    readiness_gates_are_the_clients_to_write,
    settings_reach_the_container_and_its_volumes,
    an_image_edit_restarts_that_container_alone,
    a_running_sidecar_is_resized_in_place
);

fn init_containers_and_sidecars_come_in_order(node: &Node) {
    let mut watch = node.watch("get pods --no-headers");
    node.apply(ORDERED);
    let row = |ready: &str, status: &str| {
        node.until("get pod ordered --no-headers", |out| {
            let row: Vec<&str> = out.split_whitespace().collect();
            row[1] == ready && row[2] == status
        });
    };
    row("0/2", "Init:0/3");
    let begun = |index: u8| {
        let path = format!("{{.status.initContainerStatuses[{index}].state.running.startedAt}}");
        node.until(&format!("get pod ordered -o 'jsonpath={path}'"), |out| !out.is_empty());
    };
    begun(0);
    node.ok("exec ordered -c a -- touch /d/a");
    row("0/2", "Init:1/3");
    assert_eq!(node.value("pod/ordered", "{.status.initContainerStatuses[1].started}"), "false");
    let waits = node.refused("logs ordered -c m");
    assert_eq!(
        waits,
        "Error from server (BadRequest): container \"m\" in pod \"ordered\" is waiting to start: PodInitializing\n"
    );
    begun(1);
    node.ok("exec ordered -c s -- touch /d/s");
    row("1/2", "Init:2/3");
    begun(2);
    node.ok("exec ordered -c b -- touch /d/b");
    row("2/2", "Running");
    watch.line(" Running ");
    let mut statuses: Vec<String> =
        watch.seen().iter().map(|line| line.split_whitespace().nth(2).unwrap().to_owned()).collect();
    statuses.dedup();
    let wanted = ["Pending", "Init:0/3", "Init:1/3", "Init:2/3", "PodInitializing", "Running"];
    assert_eq!(
        statuses
            .iter()
            .filter(|status| wanted[..4].contains(&status.as_str()) || *status == "Running")
            .collect::<Vec<_>>(),
        ["Pending", "Init:0/3", "Init:1/3", "Init:2/3", "Running"],
        "{statuses:?}"
    );
    assert!(statuses.iter().all(|status| wanted.contains(&status.as_str())), "{statuses:?}");
    assert_eq!(node.ok("exec ordered -c s -- true").as_str(), "");
    let conditions = node.value("pod/ordered", "{range .status.conditions[*]}{.type}={.status} {end}");
    assert_eq!(
        conditions,
        "PodReadyToStartContainers=True Initialized=True Ready=True ContainersReady=True PodScheduled=True "
    );
}

fn readiness_gates_are_the_clients_to_write(node: &Node) {
    node.apply(GATED);
    node.until("get pod gated -o wide --no-headers", |out| out.contains("Running") && out.trim_end().ends_with("0/1"));
    node.until("get pod gated -o 'jsonpath={.status.conditions[?(@.type==\"ContainersReady\")].status}'", |out| {
        out == "True"
    });
    let ready =
        node.value("pod/gated", "{range .status.conditions[?(@.type==\"Ready\")]}{.status} {.reason}: {.message}{end}");
    assert_eq!(
        ready,
        "False ReadinessGatesNotReady: corresponding condition of pod readiness gate \"example.com/balanced\" does not exist."
    );
    let patch = |status: &str| {
        node.ok(&format!("patch pod gated --subresource=status -p '{{\"status\":{{\"conditions\":[{{\"type\":\"example.com/balanced\",\"status\":\"{status}\"}}]}}}}'"));
    };
    patch("False");
    let message = "{.status.conditions[?(@.type==\"Ready\")].message}";
    node.until(&format!("get pod gated -o 'jsonpath={message}'"), |out| {
        out == "the status of pod readiness gate \"example.com/balanced\" is not \"True\", but False"
    });
    patch("True");
    node.ok("wait --for=condition=Ready pod/gated --timeout=120s");
    node.ok("wait --for=condition=example.com/balanced pod/gated --timeout=120s");
    assert!(node.ok("get pod gated -o wide --no-headers").trim_end().ends_with("1/1"));
}

fn settings_reach_the_container_and_its_volumes(node: &Node) {
    node.apply(MOUNTING);
    node.ok("wait --for=condition=Ready pod/mounting --timeout=120s");
    assert_eq!(node.ok("exec mounting -- sh -c 'echo $COLOR $WORD'"), "blue before\n");
    assert_eq!(node.ok("exec mounting -- cat /settings/color /password/word"), "bluebefore");
    let changed = |line: &str, file: &str, wanted: &str| {
        node.ok(line);
        let since = Instant::now();
        node.until(&format!("exec mounting -- cat {file}"), |out| out == wanted);
        // At once, though the machine may be slow.
        assert!(since.elapsed() < Duration::from_secs(30), "{:?}", since.elapsed());
    };
    changed("patch configmap settings -p '{\"data\":{\"color\":\"green\"}}'", "/settings/color", "green");
    changed("patch secret password -p '{\"stringData\":{\"word\":\"after\"}}'", "/password/word", "after");
    assert_eq!(
        node.ok("exec mounting -- sh -c 'echo $COLOR'"),
        "blue\n",
        "the environment stays as it was at the start"
    );
    assert_eq!(node.value("pod/mounting", "{.status.containerStatuses[0].restartCount}"), "0");
    let described = node.ok("describe secret password");
    assert!(described.contains("word:  5 bytes") && !described.contains("after"), "{described}");

    // What is not there is waited for, and said.
    let early = idle("early", "a: b").replace("command:", "envFrom: [{configMapRef: {name: later}}], command:");
    node.apply(&early);
    node.until("get pod early --no-headers", |out| out.contains("CreateContainerConfigError"));
    node.ok("create configmap later --from-literal=A=1");
    node.ok("wait --for=condition=Ready pod/early --timeout=120s");
    assert_eq!(node.ok("exec early -- sh -c 'echo $A'"), "1\n");
}

fn an_image_edit_restarts_that_container_alone(node: &Node) {
    node.ready("web", &web("web"));
    let ids = || {
        let both = "{.status.initContainerStatuses[1].containerID} {.status.containerStatuses[0].containerID}";
        node.value("pod/web", both)
    };
    let before = ids();
    let changed = web("web").replace(
        "image: busybox\n    command: [sh, -c, 'echo serving",
        "image: alpine\n    command: [sh, -c, 'echo serving",
    );
    assert_eq!(node.apply(&changed), "pod/web configured\n");
    eventually("the container to be another", || {
        ids().split(' ').nth(1) != before.split(' ').nth(1) && !ids().ends_with(' ')
    });
    node.ok("wait --for=condition=Ready pod/web --timeout=120s");
    assert_eq!(ids().split(' ').next(), before.split(' ').next(), "the sidecar runs on");
    assert_eq!(node.value("pod/web", "{.status.containerStatuses[0].restartCount}"), "1");
    assert_eq!(node.value("pod/web", "{.status.containerStatuses[0].image}"), "alpine");
    let events = node.ok("events --for pod/web");
    assert!(events.contains("Container app definition changed, will be restarted"), "{events}");
    assert_eq!(node.apply(&changed), "pod/web unchanged\n");
    assert_eq!(node.ok("set image pod/web log=alpine"), "pod/web image updated\n");
    node.until("get pod web -o 'jsonpath={.status.initContainerStatuses[1].restartCount}'", |out| out == "1");
    assert_eq!(node.value("pod/web", "{.status.containerStatuses[0].restartCount}"), "1");
}

fn a_running_sidecar_is_resized_in_place(node: &Node) {
    node.ready("limited", LIMITED);
    let side = || {
        node.value(
            "pod/limited",
            "{.status.initContainerStatuses[0].containerID} {.status.initContainerStatuses[0].restartCount}",
        )
    };
    let before = side();
    let limit = || {
        let uid = node.value("pod/limited", "{.metadata.uid}");
        let found = std::process::Command::new("find")
            .args(["/sys/fs/cgroup", "-path", &format!("*pod{uid}/side/*")])
            .args(["(", "-name", "memory.limit_in_bytes", "-o", "-name", "memory.max", ")"])
            .output()
            .unwrap();
        let path = String::from_utf8(found.stdout).unwrap();
        std::fs::read_to_string(path.lines().next().expect("no memory limit file")).unwrap().trim().to_owned()
    };
    assert_eq!(limit(), (64 << 20).to_string());
    let bigger =
        r#"{"spec":{"initContainers":[{"name":"side","resources":{"limits":{"memory":"96Mi","cpu":"200m"}}}]}}"#;
    let refused = node.refused(&format!("patch pod limited -p '{bigger}'"));
    assert!(refused.contains("pod updates may not change fields other than"), "{refused}");
    assert_eq!(node.ok(&format!("patch pod limited --subresource resize -p '{bigger}'")), "pod/limited patched\n");
    node.until("get pod limited -o 'jsonpath={.status.initContainerStatuses[0].resources.limits.memory}'", |out| {
        out == "96Mi"
    });
    assert_eq!(limit(), (96 << 20).to_string());
    assert_eq!(side(), before, "neither another container nor a restart");
    assert_eq!(node.value("pod/limited", "{.metadata.generation}"), "2");
    node.until("get pod limited -o 'jsonpath={.status.observedGeneration} {.status.conditions[?(@.type==\"PodResizeInProgress\")].status}'", |out| out == "2 ");

    let class = r#"{"spec":{"initContainers":[{"name":"side","resources":{"requests":{"memory":"96Mi","cpu":"200m"}}}],"containers":[{"name":"app","resources":{"requests":{"cpu":"100m","memory":"64Mi"}}}]}}"#;
    let refused = node.refused(&format!("patch pod limited --subresource resize -p '{class}'"));
    assert!(refused.contains("Pod QOS Class may not change as a result of resizing"), "{refused}");
    let gone = r#"[{"op":"remove","path":"/spec/containers/0/resources/limits/memory"}]"#;
    assert!(
        node.refused(&format!("patch pod limited --subresource resize --type=json -p '{gone}'"))
            .contains("resource limits cannot be removed")
    );
    let huge = r#"{"spec":{"containers":[{"name":"app","resources":{"limits":{"memory":"64Ti"},"requests":{"memory":"64Ti"}}}]}}"#;
    node.ok(&format!("patch pod limited --subresource resize -p '{huge}'"));
    node.until("get pod limited -o 'jsonpath={.status.conditions[?(@.type==\"PodResizePending\")].reason}'", |out| {
        out == "Infeasible"
    });
    assert_eq!(side(), before);
}
