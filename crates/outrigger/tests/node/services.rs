//! Pods that find each other: by address, by a service's address and by its names.

use std::collections::BTreeSet;
use std::net::TcpStream;

use crate::node::Node;
use crate::pods::{idle, web};
use crate::with_both;

pub(crate) const SHOP: &str = "apiVersion: v1
kind: Service
metadata: {name: shop}
spec:
  selector: {shop: open}
  ports: [{name: http, port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: shop-pods}
spec:
  clusterIP: None
  selector: {shop: open}
  ports: [{name: http, port: 8080}]
";

/// A web server of the shop; it is ready as long as the file is there.
pub(crate) fn server(name: &str) -> String {
    let probe = "readinessProbe: {exec: {command: [test, '!', -e, /www/closed]}, periodSeconds: 1, timeoutSeconds: 60, failureThreshold: 1}";
    web(name).replace(&format!("app: {name}"), "shop: open").replace("    ports:", &format!("    {probe}\n    ports:"))
}

/// What a pod is answered from there.
fn ask(node: &Node, host: &str, port: u16) -> Result<String, String> {
    let script =
        format!("exec 3<>/dev/tcp/{host}/{port} && printf \"GET / HTTP/1.0\\r\\n\\r\\n\" >&3 && timeout 30 cat <&3");
    let said = node.kubectl(&format!("exec client -- timeout 40 bash -c '{script}'"));
    if said.code == Some(0) {
        Ok(said.out.rsplit("\r\n\r\n").next().unwrap_or_default().trim().to_owned())
    } else {
        Err(said.err)
    }
}

fn addresses(node: &Node, name: &str) -> BTreeSet<String> {
    let said = node.kubectl(&format!("exec client -- timeout 40 getent ahostsv4 {name}"));
    said.out.lines().filter_map(|line| line.split_whitespace().next().map(str::to_owned)).collect()
}

/// Who answers at a service's name, asked often.
fn answers(node: &Node, host: &str) -> BTreeSet<String> {
    (0..16).map(|_| ask(node, host, 80).unwrap_or_else(|error| panic!("{host}: {error}"))).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

with_both!(services_balance_and_have_names, what_services_cannot_do_is_refused);

fn services_balance_and_have_names(node: &Node) {
    node.apply(SHOP);
    node.apply(&[server("one"), server("two"), idle("client", "a: b")].join("\n---\n"));
    node.ok("wait --for=condition=Ready pod --all --timeout=120s");
    let address = node.value("pod/one", "{.status.podIP}");
    assert_eq!(ask(node, &address, 8080), Ok("prepared by one".into()), "pods reach each other by address");

    let cluster = node.value("service/shop", "{.spec.clusterIP}");
    let ready = || {
        node.ok("get endpointslices -l kubernetes.io/service-name=shop -o 'jsonpath={.items[*].endpoints[?(@.conditions.ready==true)].targetRef.name}'")
    };
    node.until(
        "get endpointslices -l kubernetes.io/service-name=shop -o 'jsonpath={.items[*].endpoints[*].conditions.ready}'",
        |out| out == "true true",
    );
    let both = set(&["prepared by one", "prepared by two"]);
    for name in [&cluster[..], "shop", "shop.default", "shop.default.svc", "shop.default.svc.cluster.local"] {
        assert!(answers(node, name).is_subset(&both));
        if name == cluster {
            assert_eq!(answers(node, name), both);
        } else {
            assert_eq!(addresses(node, name), set(&[&cluster]), "{name}");
        }
    }
    let pods = node.ok("get pods -l shop=open -o 'jsonpath={.items[*].status.podIP}'");
    assert_eq!(addresses(node, "shop-pods"), pods.split(' ').map(str::to_owned).collect());
    assert_eq!(addresses(node, "no-such.default.svc.cluster.local"), set(&[]));
    assert_eq!(node.ok("get endpoints shop -o 'jsonpath={.subsets[0].ports[0].port}'"), "8080");
    let table = node.ok("get svc -o wide");
    assert!(
        table.lines().next().unwrap().split_whitespace().eq([
            "NAME",
            "TYPE",
            "CLUSTER-IP",
            "EXTERNAL-IP",
            "PORT(S)",
            "AGE",
            "SELECTOR"
        ]),
        "{table}"
    );
    assert!(node.ok("describe service shop").contains("8080"));
    assert!(node.ok("get all").contains("service/shop-pods"));

    // One that is not ready gets nothing new; when it is again, it does.
    node.ok("exec one -c app -- touch /www/closed");
    crate::world::eventually("it to leave the service", || ready() == "two");
    assert_eq!(answers(node, "shop"), set(&["prepared by two"]));
    assert_eq!(addresses(node, "shop-pods").len(), 1);
    node.ok("exec one -c app -- rm /www/closed");
    crate::world::eventually("it to come back", || ready().split(' ').count() == 2);
    assert_eq!(answers(node, "shop"), both);
    node.ok("delete pod two");
    crate::world::eventually("the deleted one to leave", || ready() == "one");
    assert_eq!(answers(node, "shop"), set(&["prepared by one"]));

    // A forward to the service; variables for who comes later.
    let mut forward = node.spawn("port-forward service/shop :80");
    let said = forward.line("Forwarding from 127.0.0.1:");
    let port: u16 = said.split(':').nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    drop(TcpStream::connect(("127.0.0.1", port)).unwrap());
    node.ready("late", &idle("late", "a: b"));
    assert_eq!(node.ok("exec late -- sh -c 'echo $SHOP_SERVICE_HOST:$SHOP_SERVICE_PORT'"), format!("{cluster}:80\n"));

    // The daemon dies: what is balanced is the kernel's.
    node.kill();
    node.come();
    assert_eq!(answers(node, "shop"), set(&["prepared by one"]));
    node.ok("delete service shop");
    crate::world::eventually("the name to go", || addresses(node, "shop.default.svc.cluster.local").is_empty());
    assert!(ask(node, &cluster, 80).is_err());
}

fn what_services_cannot_do_is_refused(node: &Node) {
    for (line, word) in [
        ("nodeport np --tcp=80:8080", "NodePort"),
        ("loadbalancer lb --tcp=80:8080", "LoadBalancer"),
        ("externalname en --external-name example.org", "ExternalName"),
    ] {
        let refused = node.refused(&format!("create service {line}"));
        assert!(refused.contains("is invalid") && refused.contains(word), "{refused}");
    }
    assert_eq!(node.ok("get services -o name"), "");
    node.ok("create service clusterip plain --tcp=80:8080");
    let address = node.value("service/plain", "{.spec.clusterIP}");
    let refused = node.refused(r#"patch service plain -p '{"spec":{"clusterIP":"10.1.2.3"}}'"#);
    assert!(
        refused.contains("spec.clusterIPs[0]: Invalid value: [\"10.1.2.3\"]: may not change once set"),
        "{refused}"
    );
    let refused = node.refused(r#"patch service plain -p '{"spec":{"type":"NodePort"}}'"#);
    assert!(refused.contains("NodePort"), "{refused}");
    let taken = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: thief}}\nspec: {{clusterIP: {address}, ports: [{{port: 80}}]}}\n"
    );
    assert!(node.refused_with("create -f -", &taken).contains("provided IP is already allocated"));
    node.ready("web", &web("web"));
    assert_eq!(node.ok("expose pod web --port=80 --target-port=8080"), "service/web exposed\n");
}
