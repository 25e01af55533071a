use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;

fn pod(spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec})
}

fn pod_type() -> Option<Type> {
    Type::of_kind("", "v1", "Pod")
}

/// The patch for these specs.
fn patch(original: Value, modified: Value, current: Value) -> Value {
    let patch = three_way(pod_type(), Some(&pod(original)), &pod(modified), &pod(current));
    patch.get("spec").cloned().unwrap_or(Value::Null)
}

#[test]
fn defaults_of_the_server_are_no_difference() {
    let wanted = json!({"containers": [{"name": "a", "image": "x"}]});
    let live = json!({"containers": [{"name": "a", "image": "x", "imagePullPolicy": "Always"}], "dnsPolicy": "x"});
    assert_eq!(patch(wanted.clone(), wanted, live), Value::Null);
}

#[test]
fn changes_go_by_key_and_in_order() {
    let was = json!({"containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "x"}]});
    let wanted = json!({"containers": [{"name": "a", "image": "y"}, {"name": "c", "image": "z", "tty": null}]});
    let live = json!({"containers": [{"name": "a", "image": "x", "tty": true}, {"name": "b", "image": "x"}]});
    assert_eq!(
        patch(was, wanted, live),
        json!({
            "$setElementOrder/containers": [{"name": "a"}, {"name": "c"}],
            "containers": [
                {"name": "a", "image": "y"}, {"name": "c", "image": "z"}, {"$patch": "delete", "name": "b"},
            ],
        })
    );
}

#[test]
fn what_was_applied_and_is_no_longer_goes() {
    let was = json!({"containers": [], "nodeSelector": {"a": "1", "b": "2"}, "hostname": "h"});
    let wanted = json!({"containers": [], "nodeSelector": {"a": "1"}});
    let live =
        json!({"containers": [], "nodeSelector": {"a": "1", "b": "2", "c": "3"}, "hostname": "h", "subdomain": "s"});
    assert_eq!(patch(was, wanted, live), json!({"nodeSelector": {"b": null}, "hostname": null}));
}

#[test]
fn a_volume_keeps_only_the_wanted_source() {
    let was = json!({"volumes": [{"name": "v", "emptyDir": {}}]});
    let wanted = json!({"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]});
    let seen = patch(was.clone(), wanted, was);
    assert_eq!(
        seen["volumes"],
        json!([{"name": "v", "emptyDir": null, "hostPath": {"path": "/x"}, "$retainKeys": ["hostPath", "name"]}])
    );
}

#[test]
fn ports_of_one_number_are_replaced_as_a_whole() {
    let ports = |udp: u16| json!([{"containerPort": 53, "protocol": "TCP"}, {"containerPort": udp, "protocol": "UDP"}]);
    let spec = |ports: Value| json!({"containers": [{"name": "a", "ports": ports}]});
    assert_eq!(patch(spec(ports(53)), spec(ports(53)), spec(ports(53))), Value::Null);
    let seen = patch(spec(ports(53)), spec(ports(54)), spec(ports(53)));
    assert_eq!(seen["containers"][0]["ports"][0], json!({"$patch": "replace"}));
}

#[test]
fn finalizers_merge_as_a_set() {
    let with = |list: Value| json!({"metadata": {"finalizers": list}});
    let seen =
        three_way(pod_type(), Some(&with(json!(["a", "b"]))), &with(json!(["b", "c"])), &with(json!(["a", "b", "d"])));
    assert_eq!(
        Value::Object(seen),
        json!({"metadata": {
            "finalizers": ["c"], "$deleteFromPrimitiveList/finalizers": ["a"], "$setElementOrder/finalizers": ["b", "c"],
        }})
    );
}

#[test]
fn without_types_lists_are_values() {
    let seen = three_way(None, None, &json!({"a": [{"name": "x"}]}), &json!({"a": [{"name": "x", "y": 1}]}));
    assert_eq!(Value::Object(seen), json!({"a": [{"name": "x"}]}));
}

fn any_spec() -> impl Strategy<Value = Value> {
    let text = || prop::option::of(prop::sample::select(&["x", "y"][..]));
    let name = || prop::sample::select(&["a", "b", "c"][..]);
    let env = prop::collection::btree_map(name(), text(), 0..3);
    let container = (text(), env, prop::option::of(prop::collection::vec("[ab]", 0..2)));
    let containers = prop::collection::btree_map(name(), container, 0..4);
    (containers, text(), prop::option::of(prop::collection::btree_map(name(), name(), 0..3)), any::<bool>()).prop_map(
        |(containers, hostname, selector, reversed)| {
            let mut list: Vec<Value> = containers
                .into_iter()
                .map(|(name, (image, env, command))| {
                    let env = env
                        .into_iter()
                        .map(|(name, value)| fields(json!({"name": name}), "value", value.map(Value::from)));
                    let container = json!({"name": name, "env": env.collect::<Vec<_>>()});
                    let container = fields(container, "image", image.map(Value::from));
                    fields(container, "command", command.map(Value::from))
                })
                .collect();
            if reversed {
                list.reverse();
            }
            let spec = fields(json!({"containers": list}), "hostname", hostname.map(Value::from));
            fields(spec, "nodeSelector", selector.map(|selector| json!(selector)))
        },
    )
}

fn fields(mut object: Value, name: &str, value: Option<Value>) -> Value {
    if let Some(value) = value {
        object[name] = value;
    }
    object
}

proptest! {
    /// The server's own merge makes of the live object what is wanted, and then there is nothing left to do.
    #[test]
    fn the_patch_makes_what_is_wanted(was in any_spec(), wanted in any_spec()) {
        let Some(ty) = pod_type() else { panic!("a Pod has a type") };
        let (was, wanted) = (pod(was), pod(wanted));
        let patch = three_way(Some(ty), Some(&was), &wanted, &was);
        let mut live = was.clone();
        pod_patch::strategic(ty, &mut live, &Value::Object(patch)).unwrap();
        prop_assert_eq!(three_way(Some(ty), Some(&wanted), &wanted, &live), Map::new());
        prop_assert_eq!(&live["spec"]["hostname"], &wanted["spec"]["hostname"]);
        prop_assert_eq!(&live["spec"]["containers"], &wanted["spec"]["containers"]);
    }
}
