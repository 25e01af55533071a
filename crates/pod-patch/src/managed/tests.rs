use serde_json::json;

use super::*;

fn entry(manager: &str, operation: &str, time: &str, field: &str) -> Value {
    json!({"manager": manager, "operation": operation, "apiVersion": "v1", "time": time, "fieldsType": "FieldsV1", "fieldsV1": {field: {}}})
}

#[test]
fn writes_appliers_first_and_the_oldest_first() {
    let list = json!([
        entry("u2", "Update", "2026-01-01T00:00:02Z", "f:a"),
        entry("b", "Apply", "2026-01-01T00:00:09Z", "f:a"),
        entry("u1", "Update", "2026-01-01T00:00:02Z", "f:a"),
        entry("u0", "Update", "2026-01-01T00:00:01Z", "f:a"),
    ]);
    let encoded = Managed::decode(Some(&list)).unwrap().encode().unwrap();
    let order: Vec<&str> = encoded.as_array().unwrap().iter().map(|entry| entry["manager"].as_str().unwrap()).collect();
    assert_eq!(order, ["b", "u0", "u1", "u2"]);
    assert_eq!(encoded[0], list[1]);
    assert_eq!(Managed::default().encode(), None);
}

#[test]
fn tells_managers_apart() {
    let of = |manager: &str, operation, version: &str, subresource: &str| Entry {
        manager: manager.to_owned(),
        operation,
        api_version: version.to_owned(),
        subresource: subresource.to_owned(),
        time: String::new(),
        fields: FieldSet::default(),
    };
    let update = of("a", Operation::Update, "v1", "");
    assert!(update.is_of(&update));
    assert!(!update.is_of(&of("a", Operation::Apply, "v1", "")));
    assert!(!update.is_of(&of("a", Operation::Update, "v2", "")));
    assert!(!update.is_of(&of("a", Operation::Update, "v1", "status")));
    assert!(of("a", Operation::Apply, "v1", "").is_of(&of("a", Operation::Apply, "v2", "")));
}

#[test]
fn refuses_entries_that_do_not_hold() {
    for (entry, reason) in [
        (json!({"manager": "a"}), "operation must be `Apply` or `Update`"),
        (json!({"operation": "Update"}), "apiVersion must not be empty"),
        (json!({"operation": "Update", "apiVersion": "v1"}), "missing fieldsType in managed fields entry 0"),
        (
            json!({"operation": "Update", "apiVersion": "v1", "fieldsType": "V9"}),
            "invalid fieldsType \"V9\" in managed fields entry 0",
        ),
        (
            json!({"operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"a": {}}}),
            "error decoding set: missing colon: a",
        ),
        (json!(1), "managed fields entry 0 is no object"),
    ] {
        assert_eq!(Managed::decode(Some(&json!([entry]))).unwrap_err(), reason);
    }
}

#[test]
fn merges_the_oldest_updates_beyond_ten() {
    let list: Vec<Value> = (0..13)
        .map(|n| entry(&format!("m{n:02}"), "Update", &format!("2026-01-01T00:00:{n:02}Z"), &format!("f:f{n:02}")))
        .chain([entry("z", "Apply", "2025-01-01T00:00:00Z", "f:z")])
        .collect();
    let mut managed = Managed::decode(Some(&Value::Array(list))).unwrap();
    managed.cap();
    let encoded = managed.encode().unwrap();
    let order: Vec<&str> = encoded.as_array().unwrap().iter().map(|entry| entry["manager"].as_str().unwrap()).collect();
    assert_eq!(order, ["z", "ancient-changes", "m04", "m05", "m06", "m07", "m08", "m09", "m10", "m11", "m12"]);
    assert_eq!(encoded[1]["time"], "2026-01-01T00:00:03Z");
    assert_eq!(encoded[1]["fieldsV1"], json!({"f:f00": {}, "f:f01": {}, "f:f02": {}, "f:f03": {}}));
    assert_eq!(encoded[1]["operation"], "Update");
}

#[test]
fn keeps_the_first_of_a_version_that_has_no_second() {
    let mut list: Vec<Value> =
        (0..11).map(|n| entry(&format!("m{n:02}"), "Update", &format!("2026-01-01T00:00:{n:02}Z"), "f:a")).collect();
    list[0]["apiVersion"] = json!("v0");
    let mut managed = Managed::decode(Some(&Value::Array(list))).unwrap();
    managed.cap();
    let names: Vec<&str> = managed.entries.iter().map(|entry| entry.manager.as_str()).collect();
    assert!(names.contains(&"m00") && names.contains(&"ancient-changes") && names.len() == 10, "{names:?}");
}
