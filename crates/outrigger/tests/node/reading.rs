//! What is asked of the node and how it is shown: tables, selectors, watches, documents.

use crate::node::Node;
use crate::pods::{idle, web};
use crate::with_both;

with_both!(
    lists_and_selectors,
    a_watch_shows_each_change_once,
    the_machine_and_what_it_serves,
    events_describe_and_top
);

fn lists_and_selectors(node: &Node) {
    node.apply(&[idle("one", "team: a"), idle("two", "team: b"), idle("three", "other: c")].join("\n---\n"));
    node.ok("wait --for=condition=Ready pod --all --timeout=120s");
    let names = |line: &str| {
        let out = node.ok(&format!("get {line} -o name"));
        out.lines().map(|name| name.trim_start_matches("pod/").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names("pods"), ["one", "three", "two"]);
    assert_eq!(names("pods -l team=a"), ["one"]);
    assert_eq!(names("pods -l 'team in (a, b)'"), ["one", "two"]);
    assert_eq!(names("pods -l team,team!=a"), ["two"]);
    assert_eq!(names("pods -l '!team'"), ["three"]);
    assert_eq!(names("pods -l 'team notin (a)'"), ["three", "two"]);
    assert_eq!(names("pods --field-selector metadata.name=two"), ["two"]);
    assert_eq!(names("pods --field-selector status.phase=Running,metadata.name!=two"), ["one", "three"]);
    assert_eq!(names("pods --field-selector status.phase=Failed"), [""; 0]);
    assert!(node.refused("get pods --field-selector spec.color=red").contains("field label not supported: spec.color"));
    assert_eq!(node.refused("get pods -l 'a in'").lines().count(), 1);
    assert_eq!(names("pods --chunk-size=1"), ["one", "three", "two"]);
    assert_eq!(names("po,pods two one"), ["two", "one", "two", "one"]);

    let all = node.ok("get pods -A --show-labels");
    assert!(all.starts_with("NAMESPACE   NAME    READY   STATUS    RESTARTS   AGE   LABELS\n"), "{all}");
    let columns = node.ok("get pods -L team");
    assert!(columns.lines().next().unwrap().ends_with("AGE   TEAM"), "{columns}");
    let sorted = node.ok("get pods --sort-by=.metadata.labels.team --no-headers");
    assert!(sorted.lines().last().unwrap().starts_with("two "), "{sorted}");
    let custom = node.ok("get pods -o custom-columns=N:.metadata.name,P:.status.phase");
    assert_eq!(
        custom.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>(),
        ["N P", "one Running", "three Running", "two Running"]
    );
    assert_eq!(node.ok("get pods -o 'jsonpath={.items[*].spec.restartPolicy}'"), "Always Always Always");
    let yaml = node.ok("get pod one -o yaml");
    assert!(yaml.starts_with("apiVersion: v1\nkind: Pod\nmetadata:\n"), "{yaml}");
    for part in [
        "  dnsPolicy: ClusterFirst\n",
        "  enableServiceLinks: true\n",
        "  schedulerName: default-scheduler\n",
        "    terminationMessagePath: /dev/termination-log\n",
        "  qosClass: BestEffort\n",
        "  generation: 1\n",
        "kubectl.kubernetes.io/last-applied-configuration",
    ] {
        assert!(yaml.contains(part), "no {part:?} in\n{yaml}");
    }
    assert!(!yaml.contains("managedFields"), "kubectl hides them: {yaml}");
    let everything = node.ok("get all");
    assert!(everything.contains("pod/one"), "{everything}");
    assert_eq!(node.ok("get pods --ignore-not-found nope"), "");
}

fn a_watch_shows_each_change_once(node: &Node) {
    // The header comes with the first event.
    let mut watch = node.watch("get pods --output-watch-events");
    let mut one = node.watch("get configmap --no-headers");
    node.ready("one", &idle("one", "team: a"));
    assert!(watch.line("ADDED").contains("one    0/1     Pending"));
    watch.line("1/1     Running");
    node.ok("create configmap settings --from-literal=color=blue");
    one.line("settings");
    node.ok("delete pod one");
    watch.line("DELETED");
    let seen = watch.seen().to_vec();
    assert_eq!(seen.iter().filter(|line| line.starts_with("EVENT")).count(), 1, "the header once: {seen:#?}");
    assert_eq!(seen.iter().filter(|line| line.starts_with("ADDED")).count(), 1, "{seen:#?}");
    let mut distinct = seen.clone();
    distinct.dedup();
    watch.interrupt();

    // One object alone, by name: only what is new after the table.
    node.ready("two", &idle("two", "team: b"));
    let mut watch = node.spawn("get pod two -w");
    watch.line("1/1     Running");
    node.ok("delete pod two --wait=false");
    watch.line("two");
}

fn the_machine_and_what_it_serves(node: &Node) {
    let nodes = node.ok("get nodes");
    assert!(nodes.starts_with("NAME") && nodes.contains("Ready") && nodes.contains("v1.35"), "{nodes}");
    assert!(node.ok("describe node").contains("Allocatable:"));
    assert!(node.ok("cluster-info").contains("https://127.0.0.1:"));
    let version = node.ok("version");
    assert!(version.contains("Server Version: v1.35"), "{version}");
    let resources = node.ok("api-resources");
    for line in [
        "pods po v1 true Pod",
        "namespaces ns v1 false Namespace",
        "events ev events.k8s.io/v1 true Event",
        "endpointslices discovery.k8s.io/v1 true EndpointSlice",
        "leases coordination.k8s.io/v1 true Lease",
        "pods metrics.k8s.io/v1beta1 true PodMetrics",
        "serviceaccounts sa v1 true ServiceAccount",
    ] {
        let squeezed = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(resources.lines().any(|there| squeezed(there) == line), "no {line:?} in\n{resources}");
    }
    let versions = node.ok("api-versions");
    for group in ["v1", "events.k8s.io/v1", "metrics.k8s.io/v1beta1", "authorization.k8s.io/v1"] {
        assert!(versions.lines().any(|line| line == group), "{versions}");
    }
    assert_eq!(node.ok("get --raw /livez"), "ok");
    assert!(node.ok("get --raw '/readyz?verbose'").ends_with("readyz check passed\n"));
    assert_eq!(node.ok("auth can-i create pods"), "yes\n");
    assert!(node.ok("auth whoami").contains("Username"));
    assert!(node.ok("get namespaces").contains("default"));
    assert_eq!(node.ok("get serviceaccounts -o name"), "serviceaccount/default\n");

    let field = node.ok("explain pod.spec.initContainers.restartPolicy");
    assert!(field.contains("FIELD: restartPolicy <string>") && field.contains("\"sidecar\""), "{field}");
    assert!(node.ok("explain pods --recursive").contains("initContainers"));
    assert!(node.ok("explain configmap.data").contains("<map[string]string>"));
    assert_eq!(node.refused("explain pod.spec.nope"), "error: field \"nope\" does not exist\n");
    assert!(node.refused("get gizmos").contains("the server doesn't have a resource type \"gizmos\""));
}

fn events_describe_and_top(node: &Node) {
    node.ready("web", &web("web"));
    let events = node.ok("events --for pod/web");
    assert!(events.starts_with("LAST SEEN   TYPE     REASON"), "{events}");
    for reason in ["Scheduled", "Created", "Started"] {
        assert!(events.contains(reason), "{events}");
    }
    let table = node.ok("get events --field-selector involvedObject.name=web,reason=Started");
    assert!(table.starts_with("LAST SEEN   TYPE     REASON    OBJECT    MESSAGE\n"), "{table}");
    assert_eq!(table.lines().count(), 4, "one for each container: {table}");
    let other = node.ok("get events.events.k8s.io -o 'jsonpath={.items[*].regarding.name}'");
    assert!(other.contains("web"), "{other}");

    let said = node.ok("describe pod web");
    for part in [
        "Init Containers:\n  prep:\n",
        "    State:          Terminated\n      Reason:       Completed\n      Exit Code:    0\n",
        "  log:\n",
        "Containers:\n  app:\n",
        "    Port:          8080/TCP\n",
        "Labels:           app=web\n",
        "Events:\n",
    ] {
        assert!(said.contains(part), "no {part:?} in\n{said}");
    }
    assert!(node.ok("describe configmap kube-root-ca.crt").contains("BEGIN CERTIFICATE"));
    assert!(node.ok("describe namespace default").contains("Status:"));

    let pods = node.until("top pod --containers", |out| out.contains("web"));
    let rows: Vec<Vec<&str>> = pods.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["POD", "NAME", "CPU(cores)", "MEMORY(bytes)"]);
    assert_eq!(rows[1..].iter().map(|row| row[1]).collect::<Vec<_>>(), ["app", "log"], "{pods}");
    assert!(node.ok("top node").contains("MEMORY(%)"));
    node.ok("top pod web");
}
