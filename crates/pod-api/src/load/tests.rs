use super::*;

fn text(text: &str) -> Result<Manifest, Problems> {
    load(&[Source { name: "x.yaml".to_owned(), text: text.to_owned() }])
}

fn loaded(yaml: &str) -> Manifest {
    text(yaml).unwrap_or_else(|problems| panic!("{problems}"))
}

fn problems(yaml: &str) -> String {
    text(yaml).expect_err("problems").to_string()
}

const TEMPLATE: &str = "template: {metadata: {labels: {app: web}}, spec: {containers: [{name: a, image: b, resources: {limits: {cpu: 1}}}]}}";

#[test]
fn workloads_become_one_pod() {
    let selector = "selector: {matchLabels: {app: web}}";
    let manifest = loaded(&format!(
        "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: web, namespace: prod}}, spec: {{{selector}, {TEMPLATE}}}}}"
    ));
    let loaded_pod = &manifest.pods[0];
    assert_eq!(loaded_pod.origin, Some(Origin { kind: "Deployment".to_owned(), name: "web".to_owned() }));
    assert_eq!(loaded_pod.value["metadata"]["namespace"], "prod");
    assert_eq!(loaded_pod.value["metadata"]["labels"]["app"], "web");
    assert_eq!(loaded_pod.value["spec"]["containers"][0]["resources"]["requests"]["cpu"], "1");
    assert!(manifest.notes[0].starts_with("Deployment \"web\": running its pod template once"), "{:?}", manifest.notes);

    let manifest = loaded(&format!(
        "{{apiVersion: apps/v1, kind: StatefulSet, metadata: {{name: db}}, spec: {{serviceName: dbs, {selector}, \
         volumeClaimTemplates: [{{metadata: {{name: data}}, spec: {{}}}}], template: {{metadata: {{labels: {{app: web}}}}, \
         spec: {{containers: [{{name: a, image: b, volumeMounts: [{{name: data, mountPath: /d}}]}}]}}}}}}}}"
    ));
    let value = &manifest.pods[0].value;
    assert_eq!(value["metadata"]["name"], "db-0");
    assert_eq!(value["spec"]["hostname"], "db-0");
    assert_eq!(value["spec"]["subdomain"], "dbs");
    assert_eq!(value["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"], "data-db-0");
}

#[test]
fn jobs_must_end_and_services_must_not() {
    let job = |policy: &str| {
        format!(
            "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: j}}\nspec:\n  template:\n    spec:\n      {policy}\n      \
             containers: [{{name: a, image: b}}]\n"
        )
    };
    assert_eq!(
        problems(&job("hostPID: false")),
        "x.yaml:6:5: spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""
    );
    let manifest = loaded(&job("restartPolicy: OnFailure"));
    assert_eq!(manifest.pods[0].value["spec"]["restartPolicy"], "OnFailure");
    assert_eq!(manifest.pods[0].value["metadata"]["labels"]["job-name"], "j");
    let never = "apiVersion: apps/v1\nkind: ReplicaSet\nmetadata: {name: r}\nspec:\n  selector: {matchLabels: {a: b}}\n  \
                 template:\n    metadata: {labels: {a: c}}\n    spec:\n      restartPolicy: Never\n      containers: [{name: a, image: b}]\n";
    assert_eq!(
        problems(never),
        "x.yaml:7:16: spec.template.metadata.labels: Invalid value: {\"a\":\"c\"}: `selector` does not match template `labels`\n\
         x.yaml:9:22: spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\""
    );
    let without = "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: r}\nspec: {template: {spec: {containers: [{name: a, image: b}]}}}\n";
    assert_eq!(problems(without), "x.yaml:4:1: spec.selector: Required value");
}

#[test]
fn lists_and_many_documents_are_one_manifest() {
    let manifest = loaded(
        "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: c}, data: {a: b}}\n\
         - apiVersion: v1\n  kind: List\n  items:\n  - {apiVersion: v1, kind: Secret, metadata: {name: s}, stringData: {a: b}, data: {c: aGk=}}\n\
         ---\n---\n{apiVersion: v1, kind: Namespace, metadata: {name: ns}}\n",
    );
    assert_eq!(manifest.config_maps[0].metadata.namespace.as_deref(), Some("default"));
    let data = manifest.secrets[0].data.as_ref().unwrap();
    assert_eq!((data["a"].0.as_slice(), data["c"].0.as_slice()), (b"b".as_slice(), b"hi".as_slice()));
    assert_eq!(manifest.notes, ["Namespace \"ns\": namespaces need not be created"]);
}

#[test]
fn one_name_names_one_object_across_files() {
    let map = |name: &str| Source {
        name: name.to_owned(),
        text: "\n{apiVersion: v1, kind: ConfigMap, metadata: {name: c}}".to_owned(),
    };
    let problems = load(&[map("a.yaml"), map("b.yaml")]).unwrap_err();
    assert_eq!(
        problems.to_string(),
        "b.yaml:2:52: metadata.name: Duplicate value: \"c\": ConfigMap is already defined at a.yaml:2"
    );
}

#[test]
fn what_the_engine_assigns_is_not_taken_over() {
    let manifest = loaded(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a, uid: x, creationTimestamp: \"2024-01-01T00:00:00Z\"}\n\
         spec: {containers: [{name: a, image: b}], nodeName: node1}\nstatus: {phase: Running}\n",
    );
    let pod = &manifest.pods[0].pod;
    assert_eq!((&pod.metadata.uid, &pod.status), (&None, &None));
    assert_eq!(manifest.notes.len(), 2, "{:?}", manifest.notes);
    assert_eq!(manifest.pods[0].line, 1);
}

#[test]
fn a_readable_document_is_checked_although_the_next_cannot_be_read() {
    let problems = problems("apiVersion: v1\nkind: Pod\nmetadata: {name: A}\n---\na: [\n");
    assert!(problems.contains("x.yaml:3:18: metadata.name: Invalid value: \"A\""), "{problems}");
    assert!(problems.lines().last().unwrap().starts_with("x.yaml:"), "{problems}");
}

#[test]
fn files_directories_and_their_order() {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in [("b.yml", "b"), ("a.yaml", "a"), ("c.json", "1"), ("d.txt", "no")] {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    let sources = read_sources(&[directory.path().to_owned()]).unwrap();
    let texts: Vec<_> = sources.iter().map(|source| source.text.as_str()).collect();
    assert_eq!(texts, ["a", "b", "1"]);

    std::fs::write(directory.path().join("e.yaml"), b"\xff").unwrap();
    assert!(matches!(read_sources(&[directory.path().join("e.yaml")]), Err(ReadError::NotText { .. })));
    assert!(matches!(read_sources(&[directory.path().join("none")]), Err(ReadError::Read { .. })));
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(read_sources(&[empty.path().to_owned()]), Err(ReadError::Empty { .. })));
}
