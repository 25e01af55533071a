//! What the first paragraph promises a person, unchanged.

use crate::node::Node;
use crate::with_both;

const WALKTHROUGH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/walkthrough.yaml");

with_both!(the_walkthrough);

fn the_walkthrough(node: &Node) {
    assert_eq!(node.ok(&format!("apply -f {WALKTHROUGH}")), "pod/sidecar created\n");
    assert_eq!(node.ok("wait --for=condition=Ready pod/sidecar --timeout=120s"), "pod/sidecar condition met\n");
    let table = node.ok("get pod sidecar");
    assert!(
        table.starts_with("NAME      READY   STATUS    RESTARTS   AGE\nsidecar   2/2     Running   0          "),
        "{table}"
    );
    let wide = node.ok("get pod sidecar -o wide");
    assert!(
        wide.lines().next().unwrap().ends_with("IP          NODE   NOMINATED NODE   READINESS GATES")
            || wide.contains("NOMINATED NODE   READINESS GATES"),
        "{wide}"
    );

    let main = node.kubectl("logs sidecar");
    assert_eq!((main.out.as_str(), main.code), ("", Some(0)));
    assert_eq!(main.err, "Defaulted container \"main-container\" out of: main-container, sidecar-container\n");
    let dates = node.until("logs sidecar -c sidecar-container", |out| !out.is_empty());
    assert!(dates.contains("UTC"), "{dates}");

    let said = node.ok("describe pod sidecar");
    for part in [
        "Name:             sidecar\nNamespace:        default\n",
        "Status:           Running\n",
        "  main-container:\n",
        "  sidecar-container:\n",
        "    Ready:          True\n    Restart Count:  0\n",
        "  PodReadyToStartContainers   True",
        "      /var/log from shared-logs (rw)\n",
        "    Type:       EmptyDir (a temporary directory that shares a pod's lifetime)",
        "QoS Class:",
        "Scheduled",
        "Successfully assigned default/sidecar to ",
        "Container created",
        "Container started",
    ] {
        let squeezed = |text: &str| text.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
        assert!(squeezed(&said).contains(&squeezed(part)), "no {part:?} in\n{said}");
    }
    assert_eq!(node.ok(&format!("apply -f {WALKTHROUGH}")), "pod/sidecar unchanged\n");

    // Its shells are PID 1 and deaf to SIGTERM: `--now` is a grace of one second.
    let deleted = node.ok("delete pod sidecar --now");
    assert!(deleted.starts_with("pod \"sidecar\" deleted"), "{deleted}");
    assert_eq!(node.refused("get pod sidecar"), "Error from server (NotFound): pods \"sidecar\" not found\n");
    let none = node.kubectl("get pods");
    assert_eq!((none.code, none.err.as_str()), (Some(0), "No resources found in default namespace.\n"));
}
