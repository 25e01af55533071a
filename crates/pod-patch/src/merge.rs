//! Merge patch (RFC 7386): objects merge, null removes, everything else replaces.

use serde_json::{Map, Value};

use crate::{PatchError, bound};

/// RFC 7386 §2. A patch that is no object replaces the target whole; the server has refused such a body before.
///
/// # Errors
/// [`PatchError::Malformed`] for a patch that is nested deeper than any object may be.
pub fn merge(target: &mut Value, patch: &Value) -> Result<(), PatchError> {
    bound::require(patch)?;
    merge_into(target, patch);
    Ok(())
}

fn merge_into(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(fields) = target else {
        return;
    };
    for (name, change) in changes {
        if change.is_null() {
            fields.remove(name);
        } else {
            merge_into(fields.entry(name.as_str()).or_insert(Value::Null), change);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The table of RFC 7386, appendix A: original, patch, result.
    #[test]
    fn follows_the_table_of_the_standard() {
        for (target, patch, expected) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"a": "b"}), json!(["c"]), json!(["c"])),
            (json!({"a": "foo"}), json!(null), json!(null)),
            (json!({"a": "foo"}), json!("bar"), json!("bar")),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ] {
            let mut result = target.clone();
            merge(&mut result, &patch).unwrap();
            assert_eq!(result, expected, "{target} with {patch}");
        }
    }

    #[test]
    fn a_patch_that_is_too_deep_is_refused_and_not_forgotten() {
        let deep = (0..101).fold(json!(1), |inner, _| json!({ "a": inner }));
        let mut target = json!({"a": 1});
        assert!(matches!(merge(&mut target, &deep), Err(PatchError::Malformed(_))));
        assert_eq!(target, json!({"a": 1}));
    }
}
