//! Every way to change an object, and what is refused.

use std::os::unix::fs::PermissionsExt as _;

use crate::node::Node;
use crate::pods::{idle, web};
use crate::with_both;

const SETTINGS: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {color: blue}\n";

with_both!(
    labels_annotations_patches_edits,
    replace_and_diff,
    what_of_a_pod_may_change,
    dry_runs_validation_and_generated_names,
    server_side_apply_knows_whose_a_field_is,
    deletion_has_many_ways,
    namespaces_are_emptied,
    quotas_and_limit_ranges,
    the_other_kinds_are_kept
);

fn labels_annotations_patches_edits(node: &Node) {
    node.ready("one", &idle("one", "team: a"));
    assert_eq!(node.ok("label pod one color=red"), "pod/one labeled\n");
    assert!(node.refused("label pod one color=blue").contains("--overwrite is false"));
    node.ok("label pod one color=blue --overwrite");
    node.ok("label pod one team-");
    assert_eq!(node.value("pod/one", "{.metadata.labels}"), r#"{"color":"blue"}"#);
    assert!(node.refused("label pod one 'a=not a value'").contains("invalid label value"));
    node.ok("annotate pods --all note='some text'");
    assert_eq!(node.value("pod/one", "{.metadata.annotations.note}"), "some text");

    node.ok(r#"patch pod one -p '{"metadata":{"labels":{"size":"s"}}}'"#);
    node.ok(r#"patch pod one --type=merge -p '{"metadata":{"labels":{"size":null,"shape":"round"}}}'"#);
    node.ok(r#"patch pod one --type=json -p '[{"op":"test","path":"/metadata/labels/shape","value":"round"},{"op":"add","path":"/metadata/labels/deep","value":"1"}]'"#);
    assert_eq!(node.value("pod/one", "{.metadata.labels}"), r#"{"color":"blue","deep":"1","shape":"round"}"#);
    assert_eq!(node.ok(r#"patch pod one -p '{"metadata":{"labels":{"deep":"1"}}}'"#), "pod/one patched (no change)\n");
    let failed = node
        .refused(r#"patch pod one --type=json -p '[{"op":"test","path":"/metadata/labels/shape","value":"flat"}]'"#);
    assert!(failed.contains("The request is invalid"), "{failed}");
    // By the merge key: the other fields of the container stay.
    node.ok(r#"patch pod one -p '{"spec":{"containers":[{"name":"app","image":"alpine"}]}}'"#);
    assert_eq!(node.value("pod/one", "{.spec.containers[*].image} {.spec.containers[0].command[0]}"), "alpine sh");
    assert_eq!(node.value("pod/one", "{.metadata.generation}"), "2");

    node.apply(SETTINGS);
    let editor = node.write("editor", "#!/bin/sh\nsed -i s/blue/green/ \"$1\"\n");
    std::fs::set_permissions(&editor, std::fs::Permissions::from_mode(0o700)).unwrap();
    let mut edit = node.command("edit configmap settings");
    let edited = edit.env("KUBE_EDITOR", &editor).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&edited.stdout), "configmap/settings edited\n", "{edited:?}");
    assert_eq!(node.value("configmap/settings", "{.data.color}"), "green");
    let same = node.command("edit configmap settings").env("KUBE_EDITOR", "true").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&same.stderr), "Edit cancelled, no changes made.\n");
}

fn replace_and_diff(node: &Node) {
    node.apply(SETTINGS);
    let diff = node.kubectl_with("diff -f -", &SETTINGS.replace("blue", "red"));
    assert_eq!(diff.code, Some(1));
    assert!(diff.out.contains("-  color: blue\n") && diff.out.contains("+  color: red\n"), "{}", diff.out);
    assert_eq!(node.kubectl_with("diff -f -", SETTINGS).code, Some(0));

    let object = node.ok("get configmap settings -o yaml");
    assert_eq!(
        node.ok_with("replace -f -", &object.replace("color: blue", "color: red")),
        "configmap/settings replaced\n"
    );
    let late = node.refused_with("replace -f -", &object.replace("color: blue", "color: black"));
    assert_eq!(
        late,
        "Error from server (Conflict): error when replacing \"STDIN\": Operation cannot be fulfilled on configmaps \"settings\": the object has been modified; please apply your changes to the latest version and try again\n"
    );
    assert_eq!(node.value("configmap/settings", "{.data.color}"), "red");
    let missing = SETTINGS.replace("settings", "other");
    assert!(node.refused_with("replace -f -", &missing).contains("(NotFound)"));
    assert!(
        node.refused_with("create -f -", SETTINGS)
            .contains("(AlreadyExists): error when creating \"STDIN\": configmaps \"settings\" already exists")
    );

    node.ready("one", &idle("one", "team: a"));
    let uid = node.value("pod/one", "{.metadata.uid}");
    let replaced = node.ok_with("replace --force -f -", &idle("one", "team: b"));
    assert!(replaced.contains("pod/one replaced"), "{replaced}");
    node.ok("wait --for=condition=Ready pod/one --timeout=120s");
    assert_ne!(node.value("pod/one", "{.metadata.uid}"), uid);
}

fn what_of_a_pod_may_change(node: &Node) {
    node.ready("web", &web("web"));
    let refused = node.refused_with("apply -f -", &web("web").replace("echo serving", "echo other"));
    assert!(refused.contains("The Pod \"web\" is invalid: spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"), "{refused}");
    assert_eq!(node.apply(&web("web")), "pod/web unchanged\n");
    node.ok(r#"patch pod web -p '{"spec":{"activeDeadlineSeconds":1000}}'"#);
    let refused = node.refused(r#"patch pod web -p '{"spec":{"activeDeadlineSeconds":2000}}'"#);
    assert!(refused.contains("activeDeadlineSeconds"), "{refused}");
    // A status that a client sends with the object is not one.
    node.ok(r#"patch pod web --type=merge -p '{"status":{"phase":"Failed"}}'"#);
    assert_eq!(node.value("pod/web", "{.status.phase}"), "Running");

    let bad = "apiVersion: v1\nkind: Pod\nmetadata: {name: Bad}\nspec:\n  containers:\n  - {name: a, image: b, imagePullPolicy: Sometimes}\n  - {name: a}\n";
    let refused = node.refused_with("create -f -", bad);
    for part in [
        "The Pod \"Bad\" is invalid:",
        "metadata.name: Invalid value: \"Bad\": a lowercase RFC 1123 subdomain",
        "spec.containers[0].imagePullPolicy: Unsupported value: \"Sometimes\"",
        "spec.containers[1].image: Required value",
        "spec.containers[1].name: Duplicate value: \"a\"",
    ] {
        assert!(refused.contains(part), "no {part:?} in {refused}");
    }
    let sidecar = web("probed").replace("- name: prep", "- name: prep\n    livenessProbe: {exec: {command: ['true']}}");
    let refused = node.refused_with("create -f -", &sidecar);
    assert!(refused.contains("spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always"), "{refused}");
}

fn dry_runs_validation_and_generated_names(node: &Node) {
    assert_eq!(
        node.ok_with("apply --dry-run=server -f -", &idle("ghost", "a: b")),
        "pod/ghost created (server dry run)\n"
    );
    assert!(node.refused("get pod ghost").contains("NotFound"));
    node.apply(SETTINGS);
    let output = node.ok_with("apply --dry-run=server -o yaml -f -", &SETTINGS.replace("blue", "red"));
    assert!(output.contains("color: red"), "{output}");
    assert_eq!(node.value("configmap/settings", "{.data.color}"), "blue");
    node.ok("delete configmap settings --dry-run=server");
    node.ok("get configmap settings");

    let odd = idle("odd", "a: b").replace("image: busybox", "image: busybox, colour: red");
    let refused = node.refused_with("create -f -", &odd);
    assert_eq!(
        refused,
        "Error from server (BadRequest): error when creating \"STDIN\": Pod in version \"v1\" cannot be handled as a Pod: strict decoding error: unknown field \"spec.containers[0].colour\"\n"
    );
    let warned = node.kubectl_with("create --validate=warn -f -", &odd);
    assert_eq!(warned.code, Some(0));
    assert!(warned.err.contains("Warning: unknown field \"spec.containers[0].colour\""), "{}", warned.err);
    assert_eq!(node.value("pod/odd", "{.spec.containers[0].colour}"), "");
    node.ok_with("create --validate=ignore -f -", &odd.replace("name: odd", "name: odder"));

    let generated = idle("x", "a: b").replace("name: x", "generateName: made-");
    let first = node.ok_with("create -f -", &generated);
    let name = first.strip_prefix("pod/made-").and_then(|rest| rest.strip_suffix(" created\n")).unwrap();
    assert!(name.len() == 5 && name.chars().all(|letter| "bcdfghjklmnpqrstvwxz2456789".contains(letter)), "{first}");
    assert_ne!(node.ok_with("create -f -", &generated), first);
}

fn server_side_apply_knows_whose_a_field_is(node: &Node) {
    assert_eq!(node.ok_with("apply --server-side -f -", SETTINGS), "configmap/settings serverside-applied\n");
    let red = SETTINGS.replace("blue", "red");
    let conflict = node.refused_with("apply --server-side --field-manager=other -f -", &red);
    assert!(
        conflict.contains("error: Apply failed with 1 conflict: conflict with \"kubectl\": .data.color\n"),
        "{conflict}"
    );
    node.ok_with("apply --server-side --field-manager=other --force-conflicts -f -", &red);
    assert_eq!(node.value("configmap/settings", "{.data.color}"), "red");
    let managers = node.ok("get configmap settings --show-managed-fields -o 'jsonpath={range .metadata.managedFields[*]}{.manager}/{.operation}:{.fieldsV1.f:data.f:color} {end}'");
    assert!(managers.contains("other/Apply:{}"), "{managers}");
    // Who no longer names a field gives it up; when it was its only owner, the field goes.
    node.ok_with("apply --server-side --field-manager=other -f -", &red.replace("color: red", "shape: round"));
    assert_eq!(node.value("configmap/settings", "{.data}"), r#"{"shape":"round"}"#);
    node.ok(r#"patch configmap settings --type=merge -p '{"data":{"shape":"flat"}}'"#);
    let conflict =
        node.refused_with("apply --server-side --field-manager=other -f -", &red.replace("color: red", "shape: round"));
    assert!(conflict.contains("conflict with \"kubectl-patch\"") && conflict.contains(".data.shape"), "{conflict}");

    node.ok_with("apply --server-side -f -", &web("web"));
    node.ok("wait --for=condition=Ready pod/web --timeout=120s");
    node.ok_with("apply --server-side -f -", &web("web"));
    assert_eq!(node.value("pod/web", "{.metadata.generation}"), "1");
}

fn deletion_has_many_ways(node: &Node) {
    let deaf = idle("deaf", "a: b").replace("trap exit TERM; ", "");
    let deaf = deaf.replace("terminationGracePeriodSeconds: 0", "terminationGracePeriodSeconds: 300");
    node.ready("deaf", &deaf);
    node.ok("delete pod deaf --wait=false");
    let row = node.ok("get pod deaf --no-headers");
    assert!(row.contains("Terminating"), "{row}");
    assert_eq!(node.value("pod/deaf", "{.metadata.deletionGracePeriodSeconds}"), "300");
    assert!(node.ok("describe pod deaf").contains("Termination Grace Period:  300s"));
    let forced = node.kubectl("delete pod deaf --force --grace-period=0");
    assert_eq!(forced.code, Some(0));
    assert!(forced.err.contains("Immediate deletion does not wait for confirmation"), "{}", forced.err);
    assert!(node.refused("get pod deaf").contains("NotFound"));

    node.ready("deaf", &deaf);
    let began = std::time::Instant::now();
    node.ok("delete pod deaf --now");
    assert!(began.elapsed().as_secs() < 150, "{:?}", began.elapsed());
    node.ready("deaf", &deaf);
    node.ok("delete pod deaf --grace-period=1");

    node.apply(&[idle("one", "team: a"), idle("two", "team: b")].join("\n---\n"));
    node.ok("delete pods -l team=a");
    assert_eq!(node.ok("get pods -o name"), "pod/two\n");
    node.ok("delete pods --all");
    assert_eq!(node.ok("get pods -o name"), "");
    assert_eq!(node.ok("delete pod nope --ignore-not-found"), "");
    assert_eq!(node.refused("delete pod nope"), "Error from server (NotFound): pods \"nope\" not found\n");
    node.ok("wait --for=delete pod/nope --timeout=5s");

    // Waiting for what is deleted meanwhile.
    node.ready("one", &idle("one", "team: a"));
    let mut waits = node.spawn("wait --for=delete pod/one --timeout=120s");
    std::thread::sleep(std::time::Duration::from_millis(300));
    node.ok("delete pod one");
    assert_eq!(waits.end().0, Some(0));
    let missed = node.refused("wait --for=condition=Ready pod/one --timeout=30s");
    assert!(missed.contains("not found"), "{missed}");
    node.apply(&idle("one", "team: a"));
    node.ok("wait --for=jsonpath='{.status.phase}'=Running pod/one --timeout=120s");
    assert!(
        node.refused("wait --for=condition=Nothing pod/one --timeout=1s")
            .contains("timed out waiting for the condition")
    );
}

fn namespaces_are_emptied(node: &Node) {
    node.ok("create namespace team");
    node.ok_with("apply -n team -f -", &[idle("one", "a: b"), SETTINGS.into()].join("\n---\n"));
    node.ok("wait -n team --for=condition=Ready pod/one --timeout=120s");
    node.until("get -n team serviceaccount -o name", |out| out == "serviceaccount/default\n");
    assert_eq!(node.ok("get pods -o name"), "");
    assert!(node.ok("get pods -A").contains("team"));
    let wrong = idle("two", "a: b").replace("{name: two,", "{name: two, namespace: other,");
    assert!(
        node.refused_with("apply -n team -f -", &wrong)
            .contains("the namespace from the provided object \"other\" does not match the namespace \"team\"")
    );
    node.ok("delete namespace team");
    assert!(node.refused("get namespace team").contains("namespaces \"team\" not found"));
    assert_eq!(node.ok("get pods,configmaps -n team -o name"), "");
    let gone = node.refused_with("create -n team -f -", SETTINGS);
    assert_eq!(gone, "Error from server (NotFound): error when creating \"STDIN\": namespaces \"team\" not found\n");
    assert!(node.refused("delete namespace default").contains("is forbidden: this namespace may not be deleted"));
}

fn quotas_and_limit_ranges(node: &Node) {
    node.ok("create namespace small");
    node.ok_with(
        "apply -n small -f -",
        "
apiVersion: v1
kind: LimitRange
metadata: {name: sizes}
spec:
  limits:
  - {type: Container, default: {memory: 64Mi}, defaultRequest: {memory: 32Mi}, max: {memory: 128Mi}}
---
apiVersion: v1
kind: ResourceQuota
metadata: {name: few}
spec: {hard: {pods: '1', configmaps: '2'}}
",
    );
    node.ok_with("apply -n small -f -", &idle("one", "a: b"));
    let resources = node.ok("get -n small pod one -o 'jsonpath={.spec.containers[0].resources.limits.memory} {.spec.containers[0].resources.requests.memory}'");
    assert_eq!(resources, "64Mi 32Mi");
    let big = idle("big", "a: b").replace("image: busybox", "image: busybox, resources: {limits: {memory: 1Gi}}");
    let refused = node.refused_with("create -n small -f -", &big);
    assert!(
        refused.contains("(Forbidden)")
            && refused
                .contains("pods \"big\" is forbidden: maximum memory usage per Container is 128Mi, but limit is 1Gi"),
        "{refused}"
    );
    let refused = node.refused_with("create -n small -f -", &idle("two", "a: b"));
    assert!(
        refused.contains(
            "pods \"two\" is forbidden: exceeded quota: few, requested: pods=1, used: pods=1, limited: pods=1"
        ),
        "{refused}"
    );
    let used = node
        .until("get -n small resourcequota few -o 'jsonpath={.status.used.pods}/{.status.hard.pods}'", |out| {
            out == "1/1"
        });
    assert_eq!(used, "1/1");
    node.ok("delete -n small pod one");
    node.until("get -n small resourcequota few -o 'jsonpath={.status.used.pods}'", |out| out == "0");
    node.ok_with("create -n small -f -", &idle("two", "a: b"));
}

fn the_other_kinds_are_kept(node: &Node) {
    node.ok("create secret generic password --from-literal=word=hidden");
    assert_eq!(node.value("secret/password", "{.data.word}"), "aGlkZGVu");
    assert_eq!(
        node.ok("get secrets --no-headers").split_whitespace().take(3).collect::<Vec<_>>(),
        ["password", "Opaque", "1"]
    );
    node.ok("create serviceaccount robot");
    assert!(node.ok("create token robot").split('.').count() == 3);
    node.ok("run quick --image=busybox --restart=Never -- true");
    node.until("get pod quick --no-headers", |out| out.contains("Completed"));
    assert_eq!(
        node.value("pod/quick", "{.status.phase} {.status.containerStatuses[0].state.terminated.reason}"),
        "Succeeded Completed"
    );
    node.ok_with(
        "apply -f -",
        "
apiVersion: coordination.k8s.io/v1
kind: Lease
metadata: {name: lead}
spec: {holderIdentity: me, leaseDurationSeconds: 15}
---
apiVersion: v1
kind: PodTemplate
metadata: {name: shape}
template: {metadata: {labels: {a: b}}, spec: {containers: [{name: a, image: busybox}]}}
",
    );
    assert!(node.ok("get lease lead").contains("me"));
    assert!(node.ok("get podtemplates").contains("shape"));
    let refused = node.refused("create deployment web --image=busybox");
    assert!(
        refused.contains("Deployment") || refused.contains("the server could not find the requested resource"),
        "{refused}"
    );
    node.ok("create configmap fixed --from-literal=a=1");
    node.ok(r#"patch configmap fixed -p '{"immutable":true}'"#);
    assert!(
        node.refused(r#"patch configmap fixed -p '{"data":{"a":"2"}}'"#)
            .contains("field is immutable when `immutable` is set")
    );
}
