//! The one machine as a cluster has it: kept free, emptied, pulled to; and whose it is.

use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use crate::node::Node;
use crate::pods::idle;
use crate::with_both;
use crate::world::{Port, eventually};

with_both!(a_machine_is_kept_free_and_emptied, finalizers_and_owners_hold_and_take_along, protocols_of_other_clients);

fn a_machine_is_kept_free_and_emptied(node: &Node) {
    let name = node.value("nodes", "{.items[0].metadata.name}");
    node.ready("one", &idle("one", "a: b"));
    assert_eq!(node.ok(&format!("cordon {name}")), format!("node/{name} cordoned\n"));
    assert!(node.ok("get nodes").contains("Ready,SchedulingDisabled"));
    node.apply(&idle("two", "a: b"));
    node.until("get pod two -o 'jsonpath={.status.conditions[?(@.type==\"PodScheduled\")].reason}'", |out| {
        out == "Unschedulable"
    });
    assert!(node.ok("events --for pod/two").contains("0/1 nodes are available: 1 node(s) were unschedulable."));
    assert!(node.ok("get pod two --no-headers").contains("Pending"));
    node.ok(&format!("uncordon {name}"));
    node.ok("wait --for=condition=Ready pod/two --timeout=120s");

    let huge = idle("huge", "a: b").replace("image: busybox", "image: busybox, resources: {requests: {memory: 100Ti}}");
    node.apply(&huge);
    node.until("events --for pod/huge", |out| out.contains("0/1 nodes are available: 1 Insufficient memory."));
    node.ok("delete pod huge");

    let drained = node.ok(&format!("drain {name} --force --timeout=120s"));
    assert!(drained.contains("pod/one evicted") && drained.contains("pod/two evicted"), "{drained}");
    assert_eq!(node.ok("get pods -o name"), "");
    node.ok(&format!("uncordon {name}"));
    node.ok(&format!("taint node {name} dedicated=x:NoSchedule"));
    node.apply(&idle("three", "a: b"));
    node.until("events --for pod/three", |out| out.contains("had untolerated taint"));
    node.ok(&format!("taint node {name} dedicated-"));
    node.ok("wait --for=condition=Ready pod/three --timeout=120s");
    node.ok(&format!("label node {name} disk=fast"));
    node.ready("picky", &idle("picky", "a: b").replace("spec:", "spec:\n  nodeSelector: {disk: fast}"));
}

fn finalizers_and_owners_hold_and_take_along(node: &Node) {
    let held = idle("held", "a: b").replace("labels:", "finalizers: [example.com/hold], labels:");
    node.ready("held", &held);
    node.ok("delete pod held --wait=false");
    node.until("get pod held -o 'jsonpath={.metadata.deletionTimestamp}'", |out| !out.is_empty());
    let row = node.ok("get pod held --no-headers");
    assert!(row.contains("Terminating") || row.contains("Error") || row.contains("Failed"), "{row}");
    assert!(node.refused_with("create -f -", &held).contains("already exists"));
    node.ok(r#"patch pod held --type=json -p '[{"op":"remove","path":"/metadata/finalizers"}]'"#);
    node.ok("wait --for=delete pod/held --timeout=120s");

    node.ok("create configmap owner --from-literal=a=1");
    let uid = node.value("configmap/owner", "{.metadata.uid}");
    let owned = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: owned\n  ownerReferences: [{{apiVersion: v1, kind: ConfigMap, name: owner, uid: {uid}}}]\n"
    );
    node.ok_with("create -f -", &owned);
    node.ok("delete configmap owner");
    node.ok("wait --for=delete configmap/owned --timeout=120s");

    // `apply --prune`: what is in the set no more goes.
    let both = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: first, labels: {set: x}}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: second, labels: {set: x}}\n";
    node.ok_with("apply --prune -l set=x --prune-allowlist=core/v1/ConfigMap -f -", both);
    let pruned = node.ok_with(
        "apply --prune -l set=x --prune-allowlist=core/v1/ConfigMap -f -",
        both.split("---\n").next().unwrap(),
    );
    assert!(pruned.contains("configmap/second pruned"), "{pruned}");
}

/// Debian's `docker-registry` on a free loopback port.
struct Registry(Child, Port);

impl Registry {
    fn start(node: &Node) -> Registry {
        let reserved = Port::reserve();
        let port = reserved.number;
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: 127.0.0.1:{port}}}\n",
            node.world.path("registry").display()
        );
        let config = node.write("registry.yml", &config);
        let mut command = Command::new("docker-registry");
        command.args(["serve", &config]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let registry =
            Registry(command.spawn().expect("Debian package docker-registry is needed for this test"), reserved);
        eventually("the registry to listen", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        registry
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn an_image_comes_from_a_registry_kubectl_1_33() {
    an_image_comes_from_a_registry(&Node::online("1.33"));
}

#[test]
fn an_image_comes_from_a_registry_kubectl_1_35() {
    an_image_comes_from_a_registry(&Node::online("1.35"));
}

fn an_image_comes_from_a_registry(node: &Node) {
    let registry = Registry::start(node);
    let image = format!("127.0.0.1:{}/team/tool:1", registry.1.number);
    let parts =
        ["--add", "/bin/busybox:/bin/busybox", "--entrypoint", "/bin/busybox", "--cmd", "sleep", "--cmd", "10000"];
    for arguments in [
        &[&["image", "pack", &image][..], &parts].concat()[..],
        &["image", "push", &image],
        &["image", "remove", &image],
    ] {
        assert_eq!(node.outrigger(arguments).code, Some(0));
    }
    node.ready(
        "pulled",
        &idle("pulled", "a: b").replace(
            "image: busybox, command: [sh, -c, 'trap exit TERM; sleep 1000000 & wait']",
            &format!("image: '{image}'"),
        ),
    );
    let events = node.ok("events --for pod/pulled");
    assert!(
        events.contains(&format!("Pulling image \"{image}\"")) && events.contains("Successfully pulled image"),
        "{events}"
    );
    assert_eq!(node.ok("exec pulled -- busybox echo inside").as_str(), "inside\n");
    assert!(node.value("pod/pulled", "{.status.containerStatuses[0].imageID}").contains("@sha256:"));

    let absent = format!("127.0.0.1:{}/no/such:1", registry.1.number);
    node.apply(&idle("absent", "a: b").replace("image: busybox", &format!("image: '{absent}'")));
    node.until("get pod absent --no-headers", |out| out.contains("ErrImagePull") || out.contains("ImagePullBackOff"));
    let refused = node.refused("logs absent");
    assert!(refused.contains("container \"app\" in pod \"absent\" is waiting to start:"), "{refused}");
    node.apply(
        &idle("never", "a: b").replace("image: busybox", "image: 'example.invalid/x:1', imagePullPolicy: Never"),
    );
    node.until("get pod never --no-headers", |out| out.contains("ErrImageNeverPull"));
}

fn protocols_of_other_clients(node: &Node) {
    node.ready(
        "one",
        &idle("one", "a: b").replace(
            "[sh, -c, 'trap exit TERM; sleep 1000000 & wait']",
            "[sh, -c, 'echo said; trap exit TERM; sleep 1000000 & wait']",
        ),
    );
    node.until("logs one", |out| out == "said\n");
    assert!(node.python("protocols.py", &[]).ends_with("done\n"));
}

#[test]
fn one_nodes_credentials_are_nothing_to_another() {
    let (mine, other) = (Node::start("1.35"), Node::start("1.33"));
    let server = other.value_of_config("{.clusters[0].cluster.server}");
    assert_ne!(server, mine.value_of_config("{.clusters[0].cluster.server}"));
    assert!(mine.refused(&format!("--server {server} get pods")).contains("certificate signed by unknown authority"));
    let authority =
        other.write("authority", &other.value_of_config("{.clusters[0].cluster.certificate-authority-data}"));
    let decoded = Command::new("base64").args(["-d", &authority]).output().unwrap().stdout;
    let authority = mine.write("authority.pem", &String::from_utf8(decoded).unwrap());
    let refused = mine.refused(&format!("--server {server} --certificate-authority {authority} get pods"));
    assert!(
        // A client that writes before it reads (TLS 1.3) may see the connection end before the alert.
        ["Unauthorized", "must be logged in", "tls:", "broken pipe", "connection reset"]
            .iter()
            .any(|why| refused.contains(why)),
        "{refused}"
    );
    assert_eq!(mine.ok("get pods"), "");
}
