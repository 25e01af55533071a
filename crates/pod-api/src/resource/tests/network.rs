//! Services, and what stands behind them.

use serde_json::{Value, json};

use super::{created, patched, plural, refused, row, updated};

fn service(spec: Value) -> Value {
    json!({"metadata": {"name": "web"}, "spec": spec})
}

fn plain() -> Value {
    json!({"selector": {"app": "web"}, "ports": [{"port": 80}]})
}

#[test]
fn a_service_gets_an_address_and_its_defaults() {
    let stored = created("services", service(plain()));
    assert_eq!(
        stored["spec"],
        json!({
            "selector": {"app": "web"}, "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
            "type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
            "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"], "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
        })
    );
    assert_eq!(stored["status"], json!({"loadBalancer": {}}));
    assert_eq!(row("services", &stored), "web | ClusterIP | 10.96.0.7 | <none> | 80/TCP | <unknown> | app=web");
    assert_eq!(plural("services").1.strategy.field(&stored, "spec.type").as_deref(), Some("ClusterIP"));
    let headless = created("services", service(json!({"clusterIP": "None", "selector": {"app": "web"}})));
    assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));
    assert_eq!(row("services", &headless), "web | ClusterIP | None | <none> | <none> | <unknown> | app=web");
    let asked = created("services", service(patched(&plain(), &json!({"clusterIP": "10.96.0.9"}))));
    assert_eq!(asked["spec"]["clusterIPs"], json!(["10.96.0.9"]));
    assert_eq!(
        refused("services", service(patched(&plain(), &json!({"clusterIP": "10.96.0.1"})))),
        "Service \"web\" is invalid: spec.clusterIPs: Invalid value: [\"10.96.0.1\"]: failed to allocate IP: provided IP is \
         already allocated"
    );
}

#[test]
fn a_body_without_the_address_keeps_it() {
    let stored = created("services", service(plain()));
    let more = json!({"ports": [{"name": "a", "port": 80}, {"name": "b", "port": 81}]});
    let mut replaced = service(patched(&plain(), &more));
    replaced["metadata"] = stored["metadata"].clone();
    let new = updated("services", &stored, replaced, "").unwrap();
    assert_eq!(new["spec"]["clusterIP"], "10.96.0.7");
    let moved = patched(&stored, &json!({"spec": {"clusterIP": "10.96.0.8", "clusterIPs": ["10.96.0.8"]}}));
    assert_eq!(
        updated("services", &stored, moved, "").unwrap_err(),
        "spec.clusterIPs[0]: Invalid value: [\"10.96.0.8\"]: may not change once set"
    );
}

#[test]
fn what_would_go_nowhere_is_refused() {
    let table = [
        (
            json!({"type": "NodePort"}),
            "spec.type: Unsupported value: \"NodePort\": supported values: \"ClusterIP\"; reach it",
        ),
        (json!({"type": "ExternalName", "externalName": "a.b"}), "spec.type: Unsupported value: \"ExternalName\""),
        (json!({"externalIPs": ["1.2.3.4"]}), "spec.externalIPs: Forbidden"),
        (json!({"sessionAffinity": "ClientIP"}), "spec.sessionAffinity: Unsupported value: \"ClientIP\""),
        (json!({"ports": [{"port": 1, "protocol": "SCTP"}]}), "spec.ports[0].protocol: Unsupported value: \"SCTP\""),
        (
            json!({"ports": [{"port": 0}]}),
            "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
        ),
        (json!({"ports": [{"port": 1}, {"port": 2}]}), "spec.ports[0].name: Required value"),
        (json!({"ports": []}), "spec.ports: Required value"),
        (
            json!({"ports": [{"name": "a", "port": 1}, {"name": "b", "port": 1}]}),
            "spec.ports[1]: Duplicate value: {\"port\":1,\"protocol\":\"TCP\"}",
        ),
        (json!({"clusterIP": "nope"}), "spec.clusterIPs[0]: Invalid value: \"nope\": must be a valid IP address"),
        (
            json!({"ipFamilies": ["IPv6"]}),
            "spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster",
        ),
        (json!({"ipFamilyPolicy": "RequireDualStack"}), "this cluster is not configured for dual-stack services"),
        (json!({"selector": {"a b": "c"}}), "spec.selector: Invalid value: \"a b\""),
    ];
    for (patch, expected) in table {
        let message = refused("services", service(patched(&plain(), &patch)));
        assert!(message.contains(expected), "{message}\n--- expected\n{expected}");
    }
    let message = refused("services", json!({"metadata": {"name": "1web"}, "spec": plain()}));
    assert!(message.contains("a DNS-1035 label must consist of"), "{message}");
}

#[test]
fn endpoints_old_and_new() {
    let address = |ip: &str| json!({"ip": ip});
    let stored = created(
        "endpoints",
        json!({"metadata": {"name": "web"}, "subsets": [{
            "addresses": [address("10.0.0.1"), address("10.0.0.2")],
            "ports": [{"name": "a", "port": 80}, {"name": "b", "port": 81}],
        }]}),
    );
    assert_eq!(stored["subsets"][0]["ports"][0]["protocol"], "TCP");
    assert_eq!(row("endpoints", &stored), "web | 10.0.0.1:80,10.0.0.2:80,10.0.0.1:81 + 1 more... | <unknown>");
    assert_eq!(row("endpoints", &json!({"metadata": {"name": "web"}})), "web | <none> | <unknown>");
    let message = refused(
        "endpoints",
        json!({"metadata": {"name": "web"}, "subsets": [{"addresses": [address("127.0.0.1")]}, {}]}),
    );
    assert!(message.contains("subsets[0].addresses[0].ip: Invalid value: \"127.0.0.1\": may not be in the loopback"));
    assert!(message.contains("subsets[1]: Required value: must specify `addresses` or `notReadyAddresses`"));

    let slice = json!({
        "metadata": {"name": "web-1"}, "addressType": "IPv4", "ports": [{"port": 80}, {"name": "x"}],
        "endpoints": [{"addresses": ["10.0.0.1"]}, {"addresses": ["10.0.0.2"]}],
    });
    let kind = "discovery.k8s.io/endpointslices";
    let stored = created(kind, slice.clone());
    assert_eq!(stored["ports"][0], json!({"port": 80, "name": "", "protocol": "TCP"}));
    assert_eq!(row(kind, &stored), "web-1 | IPv4 | 80,x | 10.0.0.1,10.0.0.2 | <unknown>");
    assert_eq!(row(kind, &json!({})), " |  | <unset> | <unset> | <unknown>");
    let table = [
        (json!({"addressType": "FQDN"}), "addressType: Unsupported value: \"FQDN\""),
        (
            json!({"addressType": "IPv6"}),
            "endpoints[0].addresses[0]: Invalid value: \"10.0.0.1\": must be an IPv6 address",
        ),
        (json!({"endpoints": [{}]}), "endpoints[0].addresses: Required value"),
        (json!({"ports": [{"port": 1}, {"port": 2}]}), "ports[1].name: Duplicate value: \"\""),
    ];
    for (patch, expected) in table {
        let message = refused(kind, patched(&slice, &patch));
        assert!(message.contains(expected), "{message}");
    }
    let moved = patched(&stored, &json!({"addressType": "IPv6", "endpoints": []}));
    assert!(
        updated(kind, &stored, moved, "")
            .unwrap_err()
            .contains("addressType: Invalid value: \"IPv6\": field is immutable")
    );
}
