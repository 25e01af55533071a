use serde_json::json;

use super::*;

fn patched(target: Value, patch: Value) -> Result<Value, String> {
    let mut result = target.clone();
    match super::json(&mut result, &patch) {
        Ok(()) => Ok(result),
        Err(error) => {
            assert_eq!(result, target, "a patch that fails changes nothing");
            Err(match error {
                PatchError::Malformed(text) => format!("malformed: {text}"),
                PatchError::TooLarge(text) => format!("too large: {text}"),
                PatchError::Inapplicable(text) => text,
            })
        }
    }
}

/// RFC 6902 appendix A, and what clients of Kubernetes send.
#[test]
fn performs_every_operation() {
    for (target, patch, expected) in [
        (
            json!({"foo": "bar"}),
            json!([{"op": "add", "path": "/baz", "value": "qux"}]),
            json!({"baz": "qux", "foo": "bar"}),
        ),
        (
            json!({"foo": ["bar", "baz"]}),
            json!([{"op": "add", "path": "/foo/1", "value": "qux"}]),
            json!({"foo": ["bar", "qux", "baz"]}),
        ),
        (
            json!({"foo": ["bar"]}),
            json!([{"op": "add", "path": "/foo/-", "value": ["abc"]}]),
            json!({"foo": ["bar", ["abc"]]}),
        ),
        (json!({"foo": ["bar"]}), json!([{"op": "add", "path": "/foo/1", "value": 1}]), json!({"foo": ["bar", 1]})),
        (json!({"foo": ["bar"]}), json!([{"op": "add", "path": "/foo/-1", "value": 1}]), json!({"foo": ["bar", 1]})),
        (json!({"baz": "qux", "foo": 1}), json!([{"op": "remove", "path": "/baz"}]), json!({"foo": 1})),
        (json!({"foo": [1, 2, 3]}), json!([{"op": "remove", "path": "/foo/1"}]), json!({"foo": [1, 3]})),
        (json!({"foo": [1, 2, 3]}), json!([{"op": "remove", "path": "/foo/-1"}]), json!({"foo": [1, 2]})),
        (json!({"foo": 1}), json!([{"op": "replace", "path": "/foo", "value": null}]), json!({"foo": null})),
        (json!({}), json!([{"op": "replace", "path": "/foo", "value": 1}]), json!({"foo": 1})),
        (
            json!({"a": {"b": 1}, "c": {}}),
            json!([{"op": "move", "from": "/a/b", "path": "/c/d"}]),
            json!({"a": {}, "c": {"d": 1}}),
        ),
        (
            json!({"foo": ["a", "b", "c"]}),
            json!([{"op": "move", "from": "/foo/0", "path": "/foo/2"}]),
            json!({"foo": ["b", "c", "a"]}),
        ),
        (json!({"a": [1]}), json!([{"op": "copy", "from": "/a", "path": "/a/-"}]), json!({"a": [1, [1]]})),
        (
            json!({"a~b/c": 1, "~1": 2}),
            json!([{"op": "test", "path": "/a~0b~1c", "value": 1}, {"op": "test", "path": "/~01", "value": 2}]),
            json!({"a~b/c": 1, "~1": 2}),
        ),
        (
            json!({"a": 1}),
            json!([{"op": "test", "path": "/b", "value": null}, {"op": "test", "path": "/b"}]),
            json!({"a": 1}),
        ),
        (json!({"a": 1}), json!([{"op": "test", "path": "/a", "value": 1.0}]), json!({"a": 1})),
        (
            json!({"a": 1}),
            json!([{"op": "test", "path": "", "value": {"a": 1}}, {"op": "replace", "path": "", "value": {}}]),
            json!({}),
        ),
        (json!({"": 1}), json!([{"op": "remove", "path": "/"}]), json!({})),
        (json!({"a": {"b": 1}}), json!([{"op": "add", "path": "/a", "value": 2, "xyz": 3}]), json!({"a": 2})),
        (json!({"a": 1}), json!([]), json!({"a": 1})),
    ] {
        assert_eq!(patched(target.clone(), patch.clone()).as_ref(), Ok(&expected), "{target} with {patch}");
    }
}

#[test]
fn words_refusals_as_the_api_server_does() {
    for (target, patch, expected) in [
        (
            json!({}),
            json!([{"op": "remove", "path": "/a"}]),
            "error in remove for path: '/a': Unable to remove nonexistent key: a: missing value",
        ),
        (
            json!({}),
            json!([{"op": "remove", "path": "/a/b"}]),
            "remove operation does not apply: doc is missing path: \"/a/b\": missing value",
        ),
        (
            json!({}),
            json!([{"op": "add", "path": "/a/b", "value": 1}]),
            "add operation does not apply: doc is missing path: \"/a/b\": missing value",
        ),
        (
            json!({"a": 1}),
            json!([{"op": "add", "path": "/a/b", "value": 1}]),
            "add operation does not apply: doc is missing path: \"/a/b\": missing value",
        ),
        (
            json!({"a": []}),
            json!([{"op": "add", "path": "/a/1", "value": 1}]),
            "error in add for path: '/a/1': Unable to access invalid index: 1: invalid index referenced",
        ),
        (
            json!({"a": []}),
            json!([{"op": "add", "path": "/a/-2", "value": 1}]),
            "error in add for path: '/a/-2': Unable to access invalid index: -2: invalid index referenced",
        ),
        (
            json!({"a": []}),
            json!([{"op": "add", "path": "/a/x", "value": 1}]),
            "error in add for path: '/a/x': value was not a proper array index: 'x'",
        ),
        (
            json!({"a": [1]}),
            json!([{"op": "replace", "path": "/a/1", "value": 1}]),
            "replace operation does not apply: doc is missing key: /a/1: missing value",
        ),
        (
            json!({}),
            json!([{"op": "replace", "path": "/a/b", "value": 1}]),
            "replace operation does not apply: doc is missing path: /a/b: missing value",
        ),
        (
            json!({}),
            json!([{"op": "copy", "from": "/a", "path": "/b"}]),
            "copy operation does not apply: doc is missing from path: /a: missing value",
        ),
        (
            json!({}),
            json!([{"op": "move", "from": "/a/x", "path": "/b"}]),
            "move operation does not apply: doc is missing from path: /a/x: missing value",
        ),
        (
            json!({"a": {}}),
            json!([{"op": "move", "from": "/a", "path": "/a/b"}]),
            "error in move for path: '/a/b': a value cannot be moved into itself",
        ),
        (json!({"a": 1}), json!([{"op": "test", "path": "/a", "value": 2}]), "testing value /a failed: test failed"),
        (
            json!({}),
            json!([{"op": "test", "path": "/a/b", "value": 2}]),
            "test operation does not apply: is missing path: /a/b: missing value",
        ),
        (json!({}), json!([{"op": "leap", "path": "/a"}]), "Unexpected kind: leap"),
        (json!({}), json!([{"path": "/a"}]), "Unexpected kind: unknown"),
        (
            json!({}),
            json!([{"op": "remove"}]),
            "remove operation failed to decode path: operation missing path field: missing value",
        ),
        (
            json!({}),
            json!([{"op": "remove", "path": "a"}]),
            "remove operation does not apply: doc is missing path: \"a\": missing value",
        ),
        (
            json!({}),
            json!([{"op": "replace", "path": "", "value": 1}]),
            "replace operation value must be object or array",
        ),
        (
            json!({}),
            json!({}),
            "malformed: error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp",
        ),
        (
            json!({}),
            json!([1]),
            "malformed: error decoding patch: json: cannot unmarshal number into Go value of type handlers.jsonPatchOp",
        ),
    ] {
        assert_eq!(patched(target.clone(), patch.clone()), Err(expected.to_owned()), "{target} with {patch}");
    }
}

#[test]
fn bounds_operations_copies_and_depth() {
    let many = Value::Array(vec![json!({"op": "test", "path": "/a", "value": 1}); OPERATIONS + 1]);
    assert_eq!(
        patched(json!({"a": 1}), many),
        Err("too large: The allowed maximum operations in a JSON patch is 10000, got 10001".to_owned())
    );

    let doubling = Value::Array(vec![json!({"op": "copy", "from": "/a", "path": "/a/-"}); 60]);
    let refusal = patched(json!({"a": ["0123456789"]}), doubling).unwrap_err();
    assert!(refusal.contains("exceeded max depth") || refusal.starts_with("Unable to complete the copy"), "{refusal}");

    let wide: Value = (0..64).map(|n| json!({"op": "copy", "from": "/a", "path": format!("/b{n}")})).collect();
    let refusal = patched(json!({"a": "x".repeat(100_000)}), wide).unwrap_err();
    assert!(refusal.starts_with("Unable to complete the copy, the accumulated size increase of copy is "), "{refusal}");
}

#[test]
fn keeps_the_target_when_a_later_operation_fails() {
    let patch = json!([{"op": "add", "path": "/b", "value": 1}, {"op": "test", "path": "/a", "value": 2}]);
    assert!(patched(json!({"a": 1}), patch).is_err());
}
