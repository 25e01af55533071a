use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::*;
use crate::context::{NodeInfo, Objects};

struct World {
    pod: Pod,
    node: NodeInfo,
    objects: Objects,
}

impl World {
    /// The pod's single main is `container`.
    fn new(container: Value) -> World {
        let pod = json!({
            "metadata": {
                "name": "web", "namespace": "shop",
                "labels": {"app": "web", "tier": "front"}, "annotations": {"note": "a\"b"},
            },
            "spec": {
                "serviceAccountName": "robot",
                "initContainers": [{
                    "name": "proxy", "restartPolicy": "Always", "resources": {"limits": {"cpu": "150m"}},
                }],
                "containers": [container],
            },
        });
        let config_map = json!({
            "metadata": {"name": "settings", "namespace": "shop"},
            "data": {"COLOR": "red", "my.key": "dots", "SIZE": "1"}, "binaryData": {"RAW": "AAE="},
        });
        let secret = json!({
            "metadata": {"name": "keys", "namespace": "shop"},
            "data": {"TOKEN": "czNjcjN0", "SIZE": "Mg==", "BAD": "/w=="},
        });
        World {
            pod: serde_json::from_value(pod).unwrap(),
            node: NodeInfo {
                name: "node-1".to_owned(),
                host_ips: vec!["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()],
                cpu_millis: 4000,
                memory_bytes: 8 << 30,
                ephemeral_bytes: 10 << 30,
            },
            objects: Objects::new(
                [serde_json::from_value(config_map).unwrap()],
                [serde_json::from_value(secret).unwrap()],
            ),
        }
    }

    fn resolve(&self, image: &[&str], services: &[(&str, &str)]) -> Result<Environment, ConfigError> {
        let ips = ["10.0.0.2".parse().unwrap(), "fd00::2".parse().unwrap()];
        let cx = PodContext {
            pod: &self.pod,
            uid: "uid-1",
            pod_ips: &ips,
            node: &self.node,
            objects: &self.objects,
            hostname: "web",
        };
        let image: Vec<String> = image.iter().map(|entry| (*entry).to_owned()).collect();
        let services: Vec<_> = services.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        resolve(&self.pod.spec.as_ref().unwrap().containers[0], &image, &services, &cx)
    }
}

fn declared(env: Value) -> Result<Vec<String>, String> {
    let world = World::new(json!({"name": "app", "env": env}));
    let environment = world.resolve(&[], &[]).map_err(|error| error.to_string())?;
    Ok(environment.declared.into_iter().map(|(name, value)| format!("{name}={value}")).collect())
}

#[test]
fn precedence_from_image_to_env() {
    let world = World::new(json!({
        "name": "app",
        "envFrom": [
            {"configMapRef": {"name": "settings"}},
            {"configMapRef": {"name": "nope", "optional": true}},
            {"secretRef": {"name": "keys-without-bad", "optional": true}},
            {"prefix": "P_", "configMapRef": {"name": "settings"}},
        ],
        "env": [
            {"name": "COLOR", "value": "blue"},
            {"name": "DB_HOST", "value": "mine"},
            {"name": "TWICE", "value": "1"},
            {"name": "TWICE", "value": "$(TWICE)2"},
        ],
    }));
    let environment = world
        .resolve(&["PATH=/bin", "COLOR=image", "ONLY=image", "LANG"], &[("DB_HOST", "svc"), ("DB_PORT", "5432")])
        .unwrap();
    let all: Vec<_> = environment.all.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(
        all,
        [
            "PATH=/bin",
            "HOSTNAME=web",
            "COLOR=blue",
            "ONLY=image",
            "LANG=",
            "SIZE=1",
            "my.key=dots",
            "P_COLOR=red",
            "P_SIZE=1",
            "P_my.key=dots",
            "DB_HOST=mine",
            "TWICE=12",
            "DB_PORT=5432",
        ]
    );
    assert!(!environment.declared.iter().any(|(name, _)| name == "PATH" || name == "ONLY"));
}

#[test]
fn defaults_without_an_image_environment() {
    let world = World::new(json!({"name": "app", "tty": true}));
    let all = world.resolve(&[], &[]).unwrap().all;
    let expected = [("PATH", DEFAULT_PATH), ("HOSTNAME", "web"), ("TERM", "xterm")];
    assert_eq!(all, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

#[test]
fn references_see_only_what_came_before() {
    let world = World::new(json!({
        "name": "app",
        "env": [
            {"name": "EARLY", "value": "$(LATE) $(SVC) $(PATH) $$(SVC)"},
            {"name": "LATE", "value": "x"},
            {"name": "AFTER", "value": "$(LATE)"},
        ],
    }));
    let declared = world.resolve(&["PATH=/bin"], &[("SVC", "s")]).unwrap().declared;
    assert_eq!(declared[0].1, "$(LATE) s $(PATH) $(SVC)");
    assert_eq!(declared[2].1, "x");
}

#[test]
fn downward_fields() {
    for (path, expected) in [
        ("metadata.name", "web"),
        ("metadata.namespace", "shop"),
        ("metadata.uid", "uid-1"),
        ("metadata.labels['app']", "web"),
        ("metadata.labels['nope']", ""),
        ("metadata.annotations['note']", "a\"b"),
        ("metadata.labels", "app=\"web\"\ntier=\"front\""),
        ("spec.nodeName", "node-1"),
        ("spec.serviceAccountName", "robot"),
        ("status.hostIP", "192.0.2.7"),
        ("status.hostIPs", "192.0.2.7,2001:db8::7"),
        ("status.podIP", "10.0.0.2"),
        ("status.podIPs", "10.0.0.2,fd00::2"),
    ] {
        let env = json!([{"name": "V", "valueFrom": {"fieldRef": {"fieldPath": path}}}]);
        assert_eq!(declared(env).unwrap(), [format!("V={expected}")], "{path}");
    }
    for (path, message) in [
        ("spec.hostname", "field label not supported: spec.hostname"),
        ("spec.x['a']", "field label does not support subscript: spec.x"),
    ] {
        let env = json!([{"name": "V", "valueFrom": {"fieldRef": {"fieldPath": path}}}]);
        assert_eq!(declared(env).unwrap_err(), message);
    }
}

#[test]
fn downward_resources() {
    let value = |selector: Value| {
        let world = World::new(json!({
            "name": "app",
            "resources": {"limits": {"cpu": "1500m", "hugepages-2Mi": "4Mi"}, "requests": {"memory": "100Mi"}},
            "env": [{"name": "V", "valueFrom": {"resourceFieldRef": selector}}],
        }));
        let environment = world.resolve(&[], &[]).map_err(|error| error.to_string())?;
        Ok::<_, String>(environment.declared[0].1.clone())
    };
    for (selector, expected) in [
        (json!({"resource": "limits.cpu"}), "2"),
        (json!({"resource": "limits.cpu", "divisor": "1m"}), "1500"),
        (json!({"resource": "limits.cpu", "divisor": "0"}), "2"),
        (json!({"resource": "requests.cpu", "divisor": "1m"}), "1500"),
        (json!({"resource": "requests.memory", "divisor": "1Mi"}), "100"),
        (json!({"resource": "requests.memory", "divisor": "1Gi"}), "1"),
        (json!({"resource": "limits.memory"}), "8589934592"),
        (json!({"resource": "limits.ephemeral-storage", "divisor": "1Gi"}), "10"),
        (json!({"resource": "requests.ephemeral-storage"}), "0"),
        (json!({"resource": "limits.hugepages-2Mi", "divisor": "1Mi"}), "4"),
        (json!({"resource": "limits.cpu", "divisor": "1m", "containerName": "proxy"}), "150"),
    ] {
        assert_eq!(value(selector.clone()).unwrap(), expected, "{selector}");
    }
    assert_eq!(value(json!({"resource": "limits.gpu"})).unwrap_err(), "unsupported container resource : limits.gpu");
    let other = json!({"resource": "limits.cpu", "containerName": "x"});
    assert_eq!(value(other).unwrap_err(), "container x not found");
}

#[test]
fn missing_objects_and_keys_have_upstreams_messages() {
    let from = |source: Value| declared(json!([{"name": "V", "valueFrom": source}, {"name": "W", "value": "w"}]));
    let map = |name: &str, key: &str| from(json!({"configMapKeyRef": {"name": name, "key": key}}));
    let secret = |name: &str, key: &str| from(json!({"secretKeyRef": {"name": name, "key": key}}));
    assert_eq!(map("settings", "COLOR").unwrap(), ["V=red", "W=w"]);
    assert_eq!(secret("keys", "TOKEN").unwrap(), ["V=s3cr3t", "W=w"]);
    assert_eq!(map("x", "K").unwrap_err(), "configmap \"x\" not found");
    assert_eq!(map("settings", "K").unwrap_err(), "couldn't find key K in ConfigMap shop/settings");
    assert_eq!(map("settings", "RAW").unwrap_err(), "couldn't find key RAW in ConfigMap shop/settings");
    assert_eq!(secret("x", "K").unwrap_err(), "secret \"x\" not found");
    assert_eq!(secret("keys", "K").unwrap_err(), "couldn't find key K in Secret shop/keys");
    let text = "environment variable V from key BAD in Secret shop/keys is not valid UTF-8";
    assert_eq!(secret("keys", "BAD").unwrap_err(), text);
    let optional = json!({"configMapKeyRef": {"name": "x", "key": "K", "optional": true}});
    assert_eq!(from(optional).unwrap(), ["W=w"]);
    let optional = json!({"secretKeyRef": {"name": "keys", "key": "K", "optional": true}});
    assert_eq!(from(optional).unwrap(), ["W=w"]);
    let file = json!({"fileKeyRef": {"volumeName": "v", "path": "p", "key": "K"}});
    assert_eq!(from(file).unwrap_err(), "fileKeyRef of environment variable V is not supported");
}

#[test]
fn missing_whole_objects() {
    let world = World::new(json!({"name": "app", "envFrom": [{"configMapRef": {"name": "x"}}]}));
    assert_eq!(world.resolve(&[], &[]).unwrap_err().to_string(), "configmap \"x\" not found");
    let world = World::new(json!({"name": "app", "envFrom": [{"secretRef": {"name": "x"}}]}));
    assert_eq!(world.resolve(&[], &[]).unwrap_err().to_string(), "secret \"x\" not found");
    let world = World::new(json!({"name": "app", "env": [{"name": "V", "value": "a\u{0}b"}]}));
    assert_eq!(world.resolve(&[], &[]).unwrap_err().to_string(), "environment variable \"V\" contains a NUL byte");
}

#[test]
fn command_and_args() {
    let image = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let declared = [("A".to_owned(), "1".to_owned())];
    let line = |value: Value| {
        let container = serde_json::from_value(value).unwrap();
        command(&container, &image(&["/entry", "$(A)"]), &image(&["cmd"]), &declared)
    };
    assert_eq!(line(json!({"name": "c"})), ["/entry", "$(A)", "cmd"]);
    assert_eq!(line(json!({"name": "c", "command": [], "args": []})), ["/entry", "$(A)", "cmd"]);
    assert_eq!(line(json!({"name": "c", "args": ["$(A)", "$(B)"]})), ["/entry", "$(A)", "1", "$(B)"]);
    assert_eq!(line(json!({"name": "c", "command": ["sh"]})), ["sh"]);
    assert_eq!(line(json!({"name": "c", "command": ["sh"], "args": ["-c", "x$(A)"]})), ["sh", "-c", "x1"]);
}

#[test]
fn sub_paths() {
    let declared = [("POD".to_owned(), "web".to_owned()), ("ROOT".to_owned(), "/etc".to_owned())];
    let path = |mount: Value| {
        let mut mount = mount;
        mount["name"] = json!("v");
        mount["mountPath"] = json!("/m");
        sub_path(&serde_json::from_value(mount).unwrap(), &declared).map_err(|error| error.to_string())
    };
    assert_eq!(path(json!({})).unwrap(), None);
    assert_eq!(path(json!({"subPath": "a/$(POD)"})).unwrap().as_deref(), Some("a/$(POD)"));
    assert_eq!(path(json!({"subPathExpr": "logs/$(POD)"})).unwrap().as_deref(), Some("logs/web"));
    assert_eq!(path(json!({"subPathExpr": "$(NOPE)/x"})).unwrap_err(), "missing value for \"NOPE\"");
    assert_eq!(
        path(json!({"subPathExpr": "$(ROOT)"})).unwrap_err(),
        "error SubPath `/etc` must not be an absolute path"
    );
    assert_eq!(
        path(json!({"subPath": "a/../b"})).unwrap_err(),
        "unable to provision SubPath `a/../b`: must not contain '..'"
    );
}
