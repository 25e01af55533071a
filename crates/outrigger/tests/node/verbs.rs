//! The verbs of `outrigger` that kubectl has too: the same words, the same codes, on the same objects.

use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::node::{Going, Node, Said};
use crate::world::{eventually, text};

const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web, tier: "1"}, annotations: {note: "two\nlines"}}
spec:
  terminationGracePeriodSeconds: 3
  initContainers:
  - {name: setup, image: busybox, command: [sh, -c, "echo setting up"]}
  - name: proxy
    image: busybox
    restartPolicy: Always
    command: [sh, -c, "trap 'exit 0' TERM; echo proxy; while true; do sleep 0.1; done"]
    startupProbe: {exec: {command: ["true"]}, periodSeconds: 1}
    livenessProbe: {tcpSocket: {port: 22}, periodSeconds: 3600, initialDelaySeconds: 3600}
  containers:
  - name: app
    image: busybox
    command: [sh, -c, "trap 'exit 0' TERM; echo hello; while true; do sleep 0.1; done"]
    args: [one, "two\nthree"]
    env:
    - {name: A, value: "b c"}
    - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    - {name: CPU, valueFrom: {resourceFieldRef: {resource: limits.cpu}}}
    - {name: KEY, valueFrom: {configMapKeyRef: {name: conf, key: key}}}
    - {name: SECRET, valueFrom: {secretKeyRef: {name: sec, key: password, optional: true}}}
    envFrom: [{prefix: P_, configMapRef: {name: conf}}]
    ports: [{containerPort: 8080, name: http}, {containerPort: 53, protocol: UDP}]
    readinessProbe: {httpGet: {path: /x, port: 8080}, initialDelaySeconds: 3600}
    resources: {requests: {cpu: 10m, memory: 16Mi}, limits: {memory: 64Mi}}
    volumeMounts: [{name: tmp, mountPath: /scratch, subPath: a}, {name: conf, mountPath: /conf, readOnly: true}]
  tolerations: [{key: a, operator: Equal, value: b, effect: NoSchedule}, {operator: Exists}]
  volumes:
  - {name: tmp, emptyDir: {sizeLimit: 1Gi}}
  - {name: conf, configMap: {name: conf}}
  - {name: info, downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}
  - name: all
    projected: {sources: [{configMap: {name: conf}}, {secret: {name: sec}}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: conf}
data: {key: value, multi: "a\nb\n", number: "1", yes: "yes"}
binaryData: {bin: AAEC}
---
apiVersion: v1
kind: Secret
metadata: {name: sec}
data: {password: aHVudGVyMg==}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: http}, {name: dns, port: 53, protocol: UDP}]}
"#;

impl Node {
    /// `outrigger` with a line as it would be typed.
    fn ours(&self, line: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("exec {} {line}", env!("CARGO_BIN_EXE_outrigger"))]);
        self.ours_environment(&mut command);
        command
    }

    fn ours_environment(&self, command: &mut Command) {
        command.env("OUTRIGGER_ROOT", self.world.path("root")).env("KUBECONFIG", self.kubeconfig());
        command.env("HOME", self.world.path("")).current_dir(self.world.path("")).env("NO_COLOR", "1");
    }

    fn outrigger_line(&self, line: &str) -> Said {
        let output = self.ours(line).stdin(Stdio::null()).output().unwrap();
        let said = Said { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) };
        eprintln!("$ outrigger {line}   [{:?}]\n{}{}", said.code, said.out, said.err);
        said
    }

    /// On a terminal of its own (33 rows, 77 columns), with this typed.
    fn outrigger_typed(&self, line: &str, input: &str) -> Said {
        let ours = format!("stty rows 33 cols 77; {} {line}", env!("CARGO_BIN_EXE_outrigger"));
        let mut command = Command::new("script");
        command.args(["-qec", &ours, "/dev/null"]);
        self.ours_environment(&mut command);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        drop(stdin);
        Said { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }
}

/// Ages move on between the two: what differs is asked again.
#[track_caller]
fn same(node: &Node, line: &str) {
    let both = || (node.kubectl(line), node.outrigger_line(line));
    let mut last = both();
    for _ in 0..20 {
        if is_same(&last) {
            return;
        }
        last = both();
    }
    let (kubectl, ours) = last;
    // What is measured may change between any two looks.
    let shown = |out: &str| if line.starts_with("top ") { without_numbers(out) } else { out.to_owned() };
    assert_eq!(shown(&ours.out), shown(&kubectl.out), "stdout of {line}");
    assert_eq!(ours.err, kubectl.err, "stderr of {line}");
    assert_eq!(ours.code, kubectl.code, "code of {line}");
}

fn without_numbers(text: &str) -> String {
    let squeezed = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut lines: Vec<String> = text.lines().map(squeezed).collect();
    lines.iter_mut().for_each(|line| {
        *line = line
            .split(|letter: char| letter.is_ascii_digit())
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join("#")
    });
    lines.join("\n")
}

fn is_same((kubectl, ours): &(Said, Said)) -> bool {
    (kubectl.code, &kubectl.out, &kubectl.err) == (ours.code, &ours.out, &ours.err)
}

#[track_caller]
fn ours(node: &Node, line: &str) -> String {
    let said = node.outrigger_line(line);
    assert_eq!(said.code, Some(0), "outrigger {line}: {}", said.err);
    said.out
}

fn with_pod() -> (Node, String) {
    let node = Node::start("1.35");
    let file = node.write("pod.yaml", POD);
    let said = ours(&node, &format!("apply -f {file}"));
    assert_eq!(said, "pod/web created\nconfigmap/conf created\nsecret/sec created\nservice/web created\n");
    ours(&node, "wait --for=jsonpath={.status.phase}=Running pod/web --timeout=120s");
    node.until("get pod web", |text| text.contains("Running"));
    (node, file)
}

#[test]
fn reading_prints_what_kubectl_prints() {
    let (node, file) = with_pod();
    for line in [
        "get pods",
        "get pods -o wide",
        "get po web -o yaml",
        "get pods -o json",
        "get all",
        "get pods,svc,cm -A",
        "get cm,secret --show-labels",
        "get pods -L app,tier --no-headers",
        "get pod/web svc/web -o name",
        "get pods -l app=web,tier!=2 -o 'jsonpath={range .items[*]}{.metadata.name}{\"\\t\"}{.status.phase}{\"\\n\"}{end}'",
        "get pods -o 'jsonpath={.items[0].status.conditions[?(@.type==\"PodScheduled\")]}'",
        "get all -o yaml",
        "get ev",
        "get ev -o yaml",
        "get nodes -o yaml",
        "get ns",
        "get pvc",
        "get foos",
        "get po web nope",
        "get pods --field-selector foo=bar",
        "get pods -n nowhere",
        "get pods -A web",
        "describe pod web",
        "describe pod we",
        "describe pod nope",
        "describe node",
        "describe ns default",
        "describe svc web",
        "describe cm conf",
        "describe secret sec",
        "describe sa default",
        "describe lease -n kube-node-lease",
        "top pod",
        "top pod --containers",
        "top node",
        "events",
        "events --for pod/web",
        "events --types=Warning -A",
        "logs web",
        "logs web -c proxy --tail=1 --timestamps --prefix",
        "logs -l app=web",
        "logs web --previous",
        "logs web -c nope",
        "logs nope",
        "wait --for=condition=PodScheduled pod/web",
        "wait --for=condition=Nope pod/web --timeout=300ms",
        "wait --for=condition=Nope pod/web --timeout=0",
        "wait --for=delete pod/nope",
        "wait --for=condition=Ready pod/nope",
        "exec web -c app -- sh -c 'echo out; echo err >&2; exit 5'",
        "exec web -c nope -- true",
        "exec nope -- true",
        "exec svc/web -- echo hi",
        "port-forward nope 80",
        "port-forward web 0",
        "port-forward svc/web 81",
    ] {
        same(&node, line);
    }
    same(&node, &format!("get -f {file}"));
}

#[test]
fn writing_prints_what_kubectl_prints() {
    let (node, file) = with_pod();
    // Kubectl finds nothing to do where we did it, and the other way round.
    same(&node, &format!("apply -f {file}"));
    let changed = node.write("changed.yaml", &POD.replace("key: value", "key: other").replace("number: \"1\", ", ""));
    for line in [
        format!("apply -f {changed} --dry-run=server"),
        format!("apply -f {changed} --dry-run=client"),
        format!("apply -f {file} -o name"),
        format!("delete -f {file} --dry-run=server"),
        format!("delete -f {file} --dry-run=client -o name"),
        "delete pod nope".to_owned(),
        "delete pod nope --ignore-not-found".to_owned(),
        "delete pods --all --dry-run=server".to_owned(),
        "delete pods -l app=nothing".to_owned(),
        "delete pod web --now --grace-period=3".to_owned(),
        "apply -f nothing.yaml".to_owned(),
    ] {
        same(&node, &line);
    }
    let unknown = node.write("unknown.yaml", "{apiVersion: v1, kind: ConfigMap, metadata: {name: x}, foo: 1}");
    same(&node, &format!("apply -f {unknown}"));
    let invalid =
        node.write("invalid.yaml", "{apiVersion: v1, kind: Pod, metadata: {name: x}, spec: {containers: [{name: A}]}}");
    same(&node, &format!("apply -f {invalid}"));
    let other = node.write("other.yaml", "{apiVersion: v1, kind: ConfigMap, metadata: {name: x, namespace: other}}");
    same(&node, &format!("apply -f {other} -n another"));
    let no_text = node.write("no-text.yaml", "{apiVersion: v1, kind: ConfigMap, metadata: {name: x, namespace: y}}");
    same(&node, &format!("apply -f {no_text}"));

    assert!(ours(&node, &format!("apply -f {changed}")).contains("configmap/conf configured"));
    assert_eq!(node.value("cm/conf", "{.data.key}{.data.number}"), "other");
    assert!(node.ok(&format!("apply -f {file}")).contains("configmap/conf configured"));
    assert_eq!(node.value("cm/conf", "{.data.key}{.data.number}"), "value1");
    same(&node, &format!("apply -f {file}"));

    assert_eq!(ours(&node, "delete pod web"), "pod \"web\" deleted from default namespace\n");
    assert!(node.refused("get pod web").contains("not found"), "it waits until the pod is gone");
}

#[test]
fn bytes_go_through_as_they_are() {
    let (node, _) = with_pod();
    let data: Vec<u8> = (0..600_000u32).flat_map(|number| number.to_le_bytes()).collect();
    std::fs::create_dir(node.world.path("tree")).unwrap();
    std::fs::write(node.world.path("tree/data"), &data).unwrap();
    std::os::unix::fs::symlink("data", node.world.path("tree/link")).unwrap();
    assert_eq!(ours(&node, "cp tree web:/scratch/tree -c app"), "");
    assert_eq!(ours(&node, "exec web -c app -- readlink /scratch/tree/link"), "data\n");
    let said = node.outrigger_line("cp web:/scratch/tree back -c app");
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(said.err.contains("skipping symlink"), "{}", said.err);
    assert!(std::fs::read(node.world.path("back/data")).unwrap() == data, "another file came back");
    assert_eq!(node.outrigger_line("cp web:/nope x -c app").code, Some(2));
}

#[test]
fn a_port_leads_into_the_pod_until_it_is_gone() {
    let node = Node::start("1.35");
    let serve = "import http.server;http.server.HTTPServer((\\'127.0.0.1\\',8080),http.server.SimpleHTTPRequestHandler).serve_forever()";
    let pod = format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: web}}, spec: {{terminationGracePeriodSeconds: 1, containers: [{{name: a, \
         image: busybox, command: [python3, -c, \"{}\"], readinessProbe: {{tcpSocket: {{port: 8080}}, periodSeconds: 1}}}}]}}}}",
        serve.replace("\\'", "'").replace("127.0.0.1", "0.0.0.0")
    );
    let file = node.write("pod.yaml", &pod);
    ours(&node, &format!("apply -f {file}"));
    ours(&node, "wait --for=condition=Ready pod/web --timeout=120s");
    let line = "port-forward web :8080 --address 127.0.0.1";
    let (mut going, line) = Going::start(node.ours(line), line, |going| going.line("Forwarding"));
    let port: u16 = line.split(" -> ").next().and_then(|text| text.rsplit(':').next()?.parse().ok()).unwrap();
    assert_eq!(line, format!("Forwarding from 127.0.0.1:{port} -> 8080"));
    let ask = || {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.write_all(b"GET /etc/ HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    };
    eventually("an answer", || ask().is_some_and(|answer| answer.contains("200 OK")));
    ours(&node, "delete pod web --now");
    assert_eq!(going.end().0, Some(1));
    let said = || going.errors();
    eventually("the last words", || said().ends_with("error: lost connection to pod\n"));
}

#[test]
fn without_a_node_it_says_how_to_get_one() {
    let node = Node::prepared("1.35");
    let said = node.outrigger_line("get pods");
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains("hint: start one: outrigger start\n"), "{}", said.err);
    node.come();
    node.kill();
    let said = node.outrigger_line("apply -f -");
    assert_eq!(said.code, Some(1));
    let said = node.outrigger_line("get pods,nodes");
    assert!(said.err.contains("Connection refused"), "{}", said.err);
    assert!(said.err.contains("hint: start one: outrigger start\n"), "{}", said.err);
    node.come();
}

#[test]
fn the_terminal_is_the_containers() {
    let (node, _) = with_pod();
    let said = node.outrigger_typed("exec -it web -c app -- sh", "stty size; exit 7\n");
    assert!(said.out.contains("33 77"), "{}", said.out);
    assert!(said.out.contains("command terminated with exit code 7"), "{}", said.out);
    assert_eq!(said.code, Some(7));
}
