//! Strict decoding, in the API server's words.

use serde_json::{Value, json};

use crate::{Misfit, Type, check, duplicates};

/// The misfits of a value of a kind as the server would print them.
fn misfits(kind: &str, value: &Value) -> Vec<String> {
    let (group_version, name) = kind.rsplit_once('/').expect("group/version/kind");
    let (group, version) = group_version.rsplit_once('/').expect("group/version/kind");
    let ty = Type::of_kind(group, version, name).expect("kind is in the table");
    check(ty, value).iter().map(Misfit::to_string).collect()
}

fn in_pod(spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": spec})
}

fn in_container(mut fields: Value) -> Value {
    fields["name"] = json!("c");
    in_pod(json!({"containers": [fields]}))
}

#[test]
fn what_kubectl_makes_fits() {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"creationTimestamp": null, "name": "a", "labels": {"run": "a"}, "annotations": null},
        "spec": {
            "containers": [{
                "name": "a", "image": "i", "resources": {}, "env": [{"name": "A", "value": "1"}],
                "ports": [{"containerPort": 80, "protocol": "TCP"}],
                "livenessProbe": {"httpGet": {"port": "http"}, "periodSeconds": 3},
                "readinessProbe": {"tcpSocket": {"port": 80}},
            }],
            "initContainers": [{"name": "s", "restartPolicy": "Always", "resources":
                {"limits": {"cpu": 1, "memory": "64Mi"}, "requests": {"cpu": "0.5", "memory": 1.5e6}}}],
            "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Gi"}}],
            "restartPolicy": "Always", "terminationGracePeriodSeconds": 30,
        },
        "status": {"startTime": "2026-01-02T03:04:05Z"},
    });
    assert_eq!(misfits("/v1/Pod", &pod), [""; 0]);
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "data": {"a": "aGk=", "b": "", "c": null}});
    assert_eq!(misfits("/v1/Secret", &secret), [""; 0]);
    let lease = json!({"spec": {"renewTime": "2026-01-02T03:04:05.000006Z"}});
    assert_eq!(misfits("coordination.k8s.io/v1/Lease", &lease), [""; 0]);
    let fields = json!({"metadata": {"managedFields": [{"fieldsV1": {"f:metadata": {"f:labels": {}}}}]}});
    assert_eq!(misfits("/v1/ConfigMap", &fields), [""; 0]);
}

#[test]
fn unknown_fields_are_named_by_their_path() {
    let pod = json!({
        "kind": "Pod", "bogus": {"inner": 1}, "metadata": {"nmae": "x", "labels": {"any": "thing"}},
        "spec": {"containers": [{"name": "c"}, {"foo": 1, "ports": [{"containerport": 1}]}]},
    });
    let wanted = [
        r#"unknown field "bogus""#,
        r#"unknown field "metadata.nmae""#,
        r#"unknown field "spec.containers[1].foo""#,
        r#"unknown field "spec.containers[1].ports[0].containerport""#,
    ];
    assert_eq!(misfits("/v1/Pod", &pod), wanted);
}

#[test]
fn unknown_fields_are_told_up_to_a_limit() {
    let many: serde_json::Map<String, Value> = (0..150).map(|number| (format!("x{number}"), json!(1))).collect();
    assert_eq!(misfits("/v1/Pod", &in_pod(many.into())).len(), 100);
}

#[test]
fn wrong_types_are_told_as_gos_decoder_tells_them() {
    let cases = [
        (
            in_pod(json!({"containers": "x"})),
            "json: cannot unmarshal string into Go struct field PodSpec.spec.containers of type []v1.Container",
        ),
        (
            in_pod(json!({"containers": ["x"]})),
            "json: cannot unmarshal string into Go struct field PodSpec.spec.containers of type v1.Container",
        ),
        (
            in_container(json!({"ports": "80"})),
            "json: cannot unmarshal string into Go struct field Container.spec.containers.ports of type []v1.ContainerPort",
        ),
        (
            in_container(json!({"ports": [{"containerPort": "80"}]})),
            "json: cannot unmarshal string into Go struct field ContainerPort.spec.containers.ports.containerPort of type int32",
        ),
        (
            in_container(json!({"ports": [{"containerPort": 3_000_000_000_u32}]})),
            "json: cannot unmarshal number 3000000000 into Go struct field ContainerPort.spec.containers.ports.containerPort \
             of type int32",
        ),
        (
            in_container(json!({"env": [{"name": "A", "value": 1}]})),
            "json: cannot unmarshal number into Go struct field EnvVar.spec.containers.env.value of type string",
        ),
        (
            in_container(json!({"imagePullPolicy": true})),
            "json: cannot unmarshal bool into Go struct field Container.spec.containers.imagePullPolicy of type v1.PullPolicy",
        ),
        (
            in_container(json!({"resources": {"limits": []}})),
            "json: cannot unmarshal array into Go struct field ResourceRequirements.spec.containers.resources.limits \
             of type v1.ResourceList",
        ),
        (
            in_container(json!({"livenessProbe": {"httpGet": {"port": {}}}})),
            "json: cannot unmarshal object into Go struct field HTTPGetAction.spec.containers.livenessProbe.httpGet.port \
             of type int32",
        ),
        (
            json!({"metadata": {"labels": {"a": 1}}}),
            "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
        ),
        (
            json!({"metadata": {"creationTimestamp": 1}}),
            "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.creationTimestamp of type string",
        ),
        (json!([]), "json: cannot unmarshal array into Go value of type v1.Pod"),
    ];
    for (value, wanted) in cases {
        assert_eq!(misfits("/v1/Pod", &value), [wanted], "{value}");
    }
    let deployment = json!({"spec": {"replicas": "3"}});
    assert_eq!(
        misfits("apps/v1/Deployment", &deployment),
        ["json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"]
    );
}

#[test]
fn the_first_wrong_value_counts_unless_a_later_one_ends_decoding() {
    let pod = in_pod(json!({
        "activeDeadlineSeconds": "x", "bogus": 1, "containers": [{"name": 1}],
        "overhead": {"cpu": "much"}, "volumes": 7,
    }));
    let found = check(Type::of_kind("", "v1", "Pod").expect("there are pods"), &pod);
    let path = "spec.overhead.cpu".to_owned();
    let message =
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'".to_owned();
    assert_eq!(found, [Misfit::Wrong { path, message }, Misfit::Unknown { path: "spec.bogus".into() }]);
}

#[test]
fn quantities_are_read_as_upstream_reads_them() {
    let limit = |value: Value| misfits("/v1/Pod", &in_container(json!({"resources": {"limits": {"cpu": value}}})));
    for good in ["1", "0", "+1.5", "-1", "1.", ".5", "100m", "1Ki", "1e3", "1E-3", "5E", "12e+6", " 1 ", "Ki"] {
        assert_eq!(limit(json!(good)), [""; 0], "{good}");
    }
    assert_eq!(limit(json!(0.1)), [""; 0]);
    for (bad, wanted) in [
        ("", "quantities must match the regular expression"),
        ("abc", "quantities must match the regular expression"),
        ("1 Gi", "quantities must match the regular expression"),
        ("1Gb", "quantities must match the regular expression"),
        ("1kk", "unable to parse quantity's suffix"),
        ("1K", "unable to parse quantity's suffix"),
        ("1e", "unable to parse quantity's suffix"),
        ("1m5", "unable to parse quantity's suffix"),
    ] {
        let found = limit(json!(bad));
        assert!(found.len() == 1 && found[0].starts_with(wanted), "{bad}: {found:?}");
    }
    assert_eq!(limit(json!({})).len(), 1);
}

#[test]
fn times_are_rfc_3339() {
    let created = |text: &str| misfits("/v1/Pod", &json!({"metadata": {"creationTimestamp": text}})).join("");
    for good in ["2026-01-02T03:04:05Z", "2024-02-29T23:59:59+01:00", "2026-01-02T03:04:05.123456789Z"] {
        assert_eq!(created(good), "", "{good}");
    }
    let layout = "2006-01-02T15:04:05Z07:00";
    for (bad, rest, element) in [
        ("today", "today", "2006"),
        ("2026-01-02", "", "T"),
        ("2026-01-02 03:04:05Z", " 03:04:05Z", "T"),
        ("2026-01-02T03:04:05", "", "Z07:00"),
        ("", "", "2006"),
    ] {
        let wanted = format!("parsing time {bad:?} as {layout:?}: cannot parse {rest:?} as {element:?}");
        assert_eq!(created(bad), wanted);
    }
    assert_eq!(created("2026-13-02T03:04:05Z"), r#"parsing time "2026-13-02T03:04:05Z": month out of range"#);
    assert_eq!(created("2026-02-29T03:04:05Z"), r#"parsing time "2026-02-29T03:04:05Z": day out of range"#);
    assert_eq!(created("2026-01-02T03:04:05Zx"), r#"parsing time "2026-01-02T03:04:05Zx": extra text: "x""#);
    let renewed = json!({"spec": {"renewTime": "2026-01-02T03:04:05Z"}});
    let wanted =
        r#"parsing time "2026-01-02T03:04:05Z" as "2006-01-02T15:04:05.000000Z07:00": cannot parse "Z" as ".000000""#;
    assert_eq!(misfits("coordination.k8s.io/v1/Lease", &renewed), [wanted]);
}

#[test]
fn secrets_are_base64() {
    let secret = |text: &str| misfits("/v1/Secret", &json!({"data": {"a": text}})).join("");
    for good in ["", "aGk=", "aA==", "aGlq", "aGk=\n", "aG\nk="] {
        assert_eq!(secret(good), "", "{good:?}");
    }
    for (bad, at) in [("a b=", 1), ("aGk", 0), ("aGlqaG", 4), ("aGk=x", 4), ("a===", 1), ("aGk-", 3), ("aA=", 3)] {
        assert_eq!(secret(bad), format!("illegal base64 data at input byte {at}"), "{bad:?}");
    }
}

#[test]
fn duplicates_are_found_in_the_text() {
    let text =
        br#"{"kind": "Pod", "spec": {"x": 1, "containers": [{}, {"name": "a", "image": "b", "name": "c", "name": "d"}],
        "x": {"y": 1.5, "y": null}}, "kind": true, "metadata": {"labels": {"a.b/c": "1", "a.b/c": "2"}}}"#;
    let wanted = ["spec.containers[1].name", "spec.x", "spec.x.y", "kind", "metadata.labels.a.b/c"];
    assert_eq!(duplicates(text), wanted);
    assert_eq!(duplicates(br#"{"a": [1, -2, "three", {"a": 1}], "b": {"a": 1}}"#), [""; 0]);
    assert_eq!(duplicates(br#"{"a": 1, "a": 2, "#), ["a"], "what comes before the error");
    assert_eq!(duplicates(b"]"), [""; 0]);
}
