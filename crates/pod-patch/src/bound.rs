//! How deep a value may be. Everything here recurses over values, and a JSON Patch can nest a copy in itself, so the depth of
//! what comes in and of what goes out is bounded; a bound that the parser of `serde_json` (127) would take back in.

use serde_json::Value;

use crate::PatchError;

/// Levels of objects and lists within one another. No Kubernetes kind without a recursive type comes near: a pod has 11.
pub(crate) const DEPTH: usize = 100;

/// Does `value` nest at most `levels` deep? Never looks deeper than that.
pub(crate) fn within(value: &Value, levels: usize) -> bool {
    match value {
        Value::Array(items) => levels > 0 && items.iter().all(|item| within(item, levels - 1)),
        Value::Object(fields) => levels > 0 && fields.values().all(|field| within(field, levels - 1)),
        _ => true,
    }
}

/// Refuses a patch or an object that nests too deep.
pub(crate) fn require(value: &Value) -> Result<(), PatchError> {
    if within(value, DEPTH) {
        Ok(())
    } else {
        Err(PatchError::Malformed(format!("exceeded max depth: objects and lists may nest {DEPTH} levels deep")))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn counts_objects_and_lists_alike() {
        assert!(within(&json!(1), 0));
        assert!(!within(&json!([]), 0));
        assert!(within(&json!({"a": [{"b": 1}]}), 3));
        assert!(!within(&json!({"a": [{"b": 1}]}), 2));
    }
}
