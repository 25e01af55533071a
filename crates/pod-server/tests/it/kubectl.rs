//! What people do, with the kubectl they do it with.

use serde_json::{Value, json};

use crate::world::{World, error, text};

/// Runs kubectl and gives its output, or leaves the test.
macro_rules! kubectl {
    ($world:expr, $($argument:expr),+ $(,)?) => {
        match $world.kubectl(&[$($argument),+]) {
            Some(output) => output,
            None => return,
        }
    };
}

const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata:
  name: web
  labels: {app: web}
spec:
  initContainers:
  - name: proxy
    image: proxy:1
    restartPolicy: Always
  containers:
  - name: app
    image: app:1
    ports: [{containerPort: 80}]
"#;

#[test]
fn discovery_and_version() {
    let world = World::new();
    let out = text(&kubectl!(world, "api-resources"));
    for line in ["configmaps", "pods", "namespaces", "nodes", "events", "serviceaccounts"] {
        assert!(out.contains(line), "{out}");
    }
    let pods = out.lines().find(|line| line.starts_with("pods ")).unwrap();
    assert_eq!(pods.split_whitespace().collect::<Vec<_>>(), ["pods", "po", "v1", "true", "Pod"]);
    assert!(text(&kubectl!(world, "api-versions")).contains("v1\n"));
    assert!(text(&kubectl!(world, "version")).contains("Server Version: v1.35.0"));
    assert!(text(&kubectl!(world, "auth", "can-i", "create", "pods")).contains("yes"));
    assert!(text(&kubectl!(world, "auth", "whoami")).contains("test-admin"));
    assert_eq!(text(&kubectl!(world, "get", "--raw", "/readyz")), "ok");
}

#[test]
fn config_maps_from_creation_to_deletion() {
    let world = World::new();
    assert_eq!(text(&kubectl!(world, "create", "configmap", "one", "--from-literal=a=1")), "configmap/one created\n");
    assert!(error(&kubectl!(world, "create", "configmap", "one")).contains("configmaps \"one\" already exists"));
    assert_eq!(text(&kubectl!(world, "get", "cm", "one", "-o", "jsonpath={.data.a}")), "1");
    let out = text(&kubectl!(world, "get", "cm"));
    assert_eq!(out.lines().next().unwrap().split_whitespace().collect::<Vec<_>>(), ["NAME", "DATA", "AGE"]);
    assert!(text(&kubectl!(world, "get", "cm", "-A")).starts_with("NAMESPACE "));
    assert_eq!(text(&kubectl!(world, "label", "cm", "one", "tier=back")), "configmap/one labeled\n");
    assert_eq!(text(&kubectl!(world, "annotate", "cm", "one", "note=x")), "configmap/one annotated\n");
    assert_eq!(text(&kubectl!(world, "get", "cm", "-l", "tier in (back)", "-o", "name")), "configmap/one\n");
    assert_eq!(text(&kubectl!(world, "get", "cm", "-l", "tier!=back", "-o", "name")), "");
    for (kind, patch) in [
        ("merge", r#"{"data":{"b":"2"}}"#),
        ("json", r#"[{"op":"add","path":"/data/c","value":"3"}]"#),
        ("strategic", r#"{"data":{"a":null}}"#),
    ] {
        let out = text(&kubectl!(world, "patch", "cm", "one", "--type", kind, "-p", patch));
        assert_eq!(out, "configmap/one patched\n");
    }
    assert_eq!(text(&kubectl!(world, "get", "cm", "one", "-o", "jsonpath={.data}")), r#"{"b":"2","c":"3"}"#);
    let describe = text(&kubectl!(world, "describe", "cm", "one"));
    assert!(describe.contains("tier=back"), "{describe}");
    assert!(text(&kubectl!(world, "delete", "cm", "one")).starts_with("configmap \"one\" deleted"));
    assert!(error(&kubectl!(world, "get", "cm", "one")).contains("configmaps \"one\" not found"));
}

#[test]
fn apply_twice_diff_replace_and_dry_run() {
    let world = World::new();
    let map = world.file("map.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: one}\ndata: {a: '1'}\n");
    assert_eq!(
        text(&kubectl!(world, "apply", "--dry-run=server", "-f", &map)),
        "configmap/one created (server dry run)\n"
    );
    assert!(error(&kubectl!(world, "get", "cm", "one")).contains("not found"));
    assert_eq!(text(&kubectl!(world, "apply", "-f", &map)), "configmap/one created\n");
    assert_eq!(text(&kubectl!(world, "apply", "-f", &map)), "configmap/one unchanged\n");
    assert_eq!(text(&kubectl!(world, "diff", "-f", &map)), "");
    let other = world.file("other.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: one}\ndata: {a: '2'}\n");
    let diff = kubectl!(world, "diff", "-f", &other);
    assert!(diff.status.code() == Some(1) && String::from_utf8_lossy(&diff.stdout).contains("+  a: \"2\""), "{diff:?}");
    assert_eq!(text(&kubectl!(world, "apply", "-f", &other)), "configmap/one configured\n");
    assert_eq!(text(&kubectl!(world, "replace", "-f", &map)), "configmap/one replaced\n");
    assert_eq!(text(&kubectl!(world, "get", "cm", "one", "-o", "jsonpath={.data.a}")), "1");
    let script = world.file("editor.sh", "sed -i 's/a: \"1\"/a: \"edited\"/' \"$1\"\n");
    let editor = format!("sh {script}");
    let Some(edited) = world.kubectl_with(&["edit", "cm", "one"], "", &[("EDITOR", &editor)]) else { return };
    assert_eq!(text(&edited), "configmap/one edited\n");
    assert_eq!(text(&kubectl!(world, "get", "cm", "one", "-o", "jsonpath={.data.a}")), "edited");
    let unknown = world.file("unknown.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: two}\nfoo: 1\n");
    let refused = error(&kubectl!(world, "apply", "-f", &unknown));
    assert!(refused.contains("strict decoding error: unknown field \"foo\""), "{refused}");
}

#[test]
fn server_side_apply_and_its_conflicts() {
    let world = World::new();
    let map =
        |value: &str| format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: one}}\ndata: {{a: '{value}'}}\n");
    let (first, second) = (world.file("first.yaml", &map("1")), world.file("second.yaml", &map("2")));
    let applied = text(&kubectl!(world, "apply", "--server-side", "-f", &first));
    assert_eq!(applied, "configmap/one serverside-applied\n");
    let refused = error(&kubectl!(world, "apply", "--server-side", "--field-manager=other", "-f", &second));
    assert!(refused.contains("conflict with \"kubectl\": .data.a"), "{refused}");
    let forced = kubectl!(world, "apply", "--server-side", "--force-conflicts", "--field-manager=other", "-f", &second);
    assert_eq!(text(&forced), "configmap/one serverside-applied\n");
    let owners = text(&kubectl!(
        world,
        "get",
        "cm",
        "one",
        "--show-managed-fields",
        "-o",
        "jsonpath={.metadata.managedFields[*].manager}"
    ));
    assert!(owners.contains("other"), "{owners}");
}

#[test]
fn pods_are_served_defaulted_and_deleted_gracefully() {
    let world = World::new();
    let file = world.file("pod.yaml", POD);
    assert_eq!(text(&kubectl!(world, "apply", "-f", &file)), "pod/web created\n");
    assert_eq!(text(&kubectl!(world, "apply", "-f", &file)), "pod/web unchanged\n");
    let wide = text(&kubectl!(world, "get", "pods", "-o", "wide"));
    let head: Vec<&str> =
        wide.lines().next().unwrap().split("  ").map(str::trim).filter(|word| !word.is_empty()).collect();
    assert_eq!(head, ["NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP", "NODE", "NOMINATED NODE", "READINESS GATES"]);
    let pod: Value = serde_json::from_str(&text(&kubectl!(world, "get", "pod", "web", "-o", "json"))).unwrap();
    assert_eq!(pod["spec"]["terminationGracePeriodSeconds"], 30);
    assert_eq!(pod["metadata"]["generation"], 1);
    assert_eq!(text(&kubectl!(world, "set", "image", "pod/web", "app=app:2")), "pod/web image updated\n");
    let generation = text(&kubectl!(world, "get", "pod", "web", "-o", "jsonpath={.metadata.generation}"));
    assert_eq!(generation, "2");
    let describe = text(&kubectl!(world, "describe", "pod", "web"));
    assert!(describe.contains("Init Containers:") && describe.contains("app:2"), "{describe}");

    // The node takes it, and a delete waits for the node.
    let mut bound = pod;
    bound["spec"]["nodeName"] = "node".into();
    world.seed("pods", "default", "web", bound);
    assert!(text(&kubectl!(world, "delete", "pod", "web", "--wait=false")).starts_with("pod \"web\" deleted"));
    let deleting = text(&kubectl!(world, "get", "pod", "web", "-o", "jsonpath={.metadata.deletionGracePeriodSeconds}"));
    assert_eq!(deleting, "30");
    world.remove("pods", "default", "web");
    assert_eq!(text(&kubectl!(world, "wait", "--for=delete", "pod/web", "--timeout=20s")), "");
    assert_eq!(text(&kubectl!(world, "run", "short", "--image=x")), "pod/short created\n");
    // Nobody has taken it yet: it goes at once.
    assert!(text(&kubectl!(world, "delete", "pod", "short")).starts_with("pod \"short\" deleted"));
}

#[test]
fn watch_and_wait_see_changes() {
    let world = World::new();
    text(&kubectl!(world, "run", "web", "--image=x"));
    let Some(watching) = world.start_kubectl(&["get", "pods", "-w", "--no-headers"]) else { return };
    let wait = ["wait", "--for=condition=Ready", "pod/web", "--timeout=30s"];
    let Some(waiting) = world.start_kubectl(&wait) else { return };
    // Generous: both list first, and what comes after is seen either way.
    std::thread::sleep(std::time::Duration::from_secs(1));
    let ready = r#"{"status":{"phase":"Running","conditions":[{"type":"Ready","status":"True"}]}}"#;
    text(&kubectl!(world, "patch", "pod", "web", "--subresource=status", "-p", ready));
    assert_eq!(text(&waiting.wait()), "pod/web condition met\n");
    std::thread::sleep(std::time::Duration::from_millis(500));
    let out = watching.kill();
    assert!(out.lines().count() >= 2 && out.contains("Running"), "{out}");
}

#[test]
fn explain_reads_the_schemas() {
    let world = World::new();
    let out = text(&kubectl!(world, "explain", "pod.spec.initContainers.restartPolicy"));
    assert!(out.contains("KIND:       Pod") && out.contains("FIELD: restartPolicy <string>"), "{out}");
}

#[test]
fn namespaces_and_tokens() {
    let world = World::new();
    assert_eq!(text(&kubectl!(world, "create", "namespace", "other")), "namespace/other created\n");
    assert_eq!(text(&kubectl!(world, "get", "ns", "other", "-o", "jsonpath={.status.phase}")), "Active");
    assert!(text(&kubectl!(world, "get", "ns", "-l", "kubernetes.io/metadata.name=other")).contains("other"));
    let missing = error(&kubectl!(world, "create", "configmap", "x", "-n", "nowhere"));
    assert!(missing.contains("namespaces \"nowhere\" not found"), "{missing}");
    assert_eq!(text(&kubectl!(world, "create", "token", "default")), "token-of-default");
}

#[test]
fn what_typed_commands_create() {
    let world = World::new();
    for arguments in [
        &["create", "secret", "generic", "s", "--from-literal=k=v"][..],
        &["create", "serviceaccount", "robot"],
        &["create", "quota", "q", "--hard=pods=10"],
    ] {
        assert!(text(&kubectl!(world, "version")).contains("Server"), "the server is there");
        let Some(output) = world.kubectl(arguments) else { return };
        assert!(text(&output).contains(" created"), "{arguments:?}");
    }
    assert_eq!(text(&kubectl!(world, "get", "secret", "s", "-o", "jsonpath={.data.k} {.type}")), "dg== Opaque");
    let data =
        text(&kubectl!(world, "create", "configmap", "f", "--from-literal=a=1", "--dry-run=server", "-o", "json"));
    assert_eq!(serde_json::from_str::<Value>(&data).unwrap()["data"]["a"], "1");
}

#[test]
fn usage_events_debug_and_resize() {
    let world = World::new();
    let file = world.file("pod.yaml", POD);
    text(&kubectl!(world, "apply", "-f", &file));
    assert!(text(&kubectl!(world, "top", "pod", "--containers")).contains("34Mi"));
    assert!(text(&kubectl!(world, "events", "--for", "pod/web")).is_empty());
    let out = kubectl!(world, "debug", "web", "--image=tool", "--target=app", "-c", "helper", "--attach=false");
    assert!(out.status.success(), "{out:?}");
    let ephemeral = text(&kubectl!(world, "get", "pod", "web", "-o", "jsonpath={.spec.ephemeralContainers[0].name}"));
    assert_eq!(ephemeral, "helper");
    let resize = r#"{"spec":{"containers":[{"name":"app","resources":{"requests":{"cpu":"100m"}}}]}}"#;
    let resized = kubectl!(world, "patch", "pod", "web", "--subresource=resize", "-p", resize);
    // A pod of the best effort class may not become another; that is the kind's business, said in its words.
    let said = String::from_utf8_lossy(&resized.stderr).into_owned();
    assert!(resized.status.success() || said.contains("Pod QOS Class may not change"), "{said}");
}

/// A list is checked by kubectl itself, with the OpenAPI document of version 2.
#[test]
fn what_was_listed_can_be_put_back() {
    let world = World::new();
    world.config_map("one", &json!({"a": "1"}));
    world.config_map("two", &json!({"a": "1"}));
    let Some(listed) = world.kubectl(&["get", "configmaps", "one", "two", "-o", "yaml"]) else { return };
    let file = world.file("list.yaml", &text(&listed));
    let revision = world.store.revision();
    let replaced = text(&world.kubectl(&["replace", "-f", &file]).unwrap());
    assert_eq!(replaced, "configmap/one replaced\nconfigmap/two replaced\n");
    assert_eq!(world.store.revision(), revision, "it was there already");
}
