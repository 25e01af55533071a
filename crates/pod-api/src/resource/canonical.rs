//! The one form a value is stored in, as Go would write it: no empty lists and maps, quantities in their shortest spelling.
//! Two specs in this form are the same exactly if Kubernetes calls them semantically equal.

use serde_json::Value;

use crate::quantity;

/// Maps that are left out when they are empty; an empty structure (`emptyDir: {}`) means something and stays.
const MAPS: &[&str] = &["nodeSelector", "limits", "requests", "matchLabels", "overhead", "labels", "annotations"];
/// Fields whose members are all quantities.
const QUANTITIES: &[&str] = &[
    "limits",
    "requests",
    "overhead",
    "capacity",
    "allocatable",
    "hard",
    "used",
    "min",
    "max",
    "default",
    "defaultRequest",
    "maxLimitRequestRatio",
];
/// Fields that are one quantity.
const QUANTITY: &[&str] = &["sizeLimit", "divisor"];

/// Brings a spec into its canonical form.
pub(super) fn spec(value: &mut Value) {
    drop_empty(value);
    quantities(value);
}

fn drop_empty(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(drop_empty),
        Value::Object(members) => {
            members.retain(|name, value| match value {
                Value::Null => false,
                Value::Array(items) => !items.is_empty(),
                Value::Object(inner) => !(inner.is_empty() && MAPS.contains(&name.as_str())),
                _ => true,
            });
            members.iter_mut().for_each(|(_, value)| drop_empty(value));
        }
        _ => {}
    }
}

/// Writes every quantity in its canonical spelling; one that cannot be read is left for validation.
pub(super) fn quantities(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(quantities),
        Value::Object(members) => {
            for (name, value) in members {
                match value {
                    Value::Object(list) if QUANTITIES.contains(&name.as_str()) => list.values_mut().for_each(quantity),
                    Value::String(_) | Value::Number(_) if QUANTITY.contains(&name.as_str()) => quantity(value),
                    value => quantities(value),
                }
            }
        }
        _ => {}
    }
}

fn quantity(value: &mut Value) {
    let text = match value {
        Value::String(text) => text.trim().to_owned(),
        Value::Number(number) => number.to_string(),
        _ => return,
    };
    if let Ok((amount, format)) = quantity::parse(&text) {
        *value = amount.display(format).into();
    }
}

/// Every difference between two values, a `-` line and a `+` line for each, in the order of the fields.
pub(super) fn difference(old: &Value, new: &Value, path: &str) -> String {
    let mut text = String::new();
    compare(old, new, path, &mut text);
    text
}

fn compare(old: &Value, new: &Value, path: &str, text: &mut String) {
    if old == new {
        return;
    }
    match (old, new) {
        (Value::Object(before), Value::Object(after)) => {
            for (name, old) in before {
                compare(old, after.get(name).unwrap_or(&Value::Null), &format!("{path}.{name}"), text);
            }
            for (name, new) in after.iter().filter(|(name, _)| !before.contains_key(*name)) {
                compare(&Value::Null, new, &format!("{path}.{name}"), text);
            }
        }
        (Value::Array(before), Value::Array(after)) => {
            for index in 0..before.len().max(after.len()) {
                let item = |list: &[Value]| list.get(index).cloned().unwrap_or_default();
                compare(&item(before), &item(after), &format!("{path}[{index}]"), text);
            }
        }
        _ => {
            for (sign, value) in [('-', old), ('+', new)] {
                if !value.is_null() {
                    text.push_str(&format!("{sign} {path}: {value}\n"));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn go_would_write_it_so() {
        let mut value = json!({
            "containers": [{"resources": {"limits": {"cpu": "1000m", "memory": "1024Mi"}, "requests": {}}, "args": []}],
            "volumes": [{"emptyDir": {"sizeLimit": 1024}}], "nodeSelector": {}, "securityContext": {}, "hostname": null,
        });
        spec(&mut value);
        assert_eq!(
            value,
            json!({
                "containers": [{"resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}],
                "volumes": [{"emptyDir": {"sizeLimit": "1024"}}], "securityContext": {},
            })
        );
    }

    #[test]
    fn a_difference_names_the_fields() {
        let old = json!({"a": 1, "b": [{"c": "x"}], "d": {"e": true}});
        let new = json!({"a": 1, "b": [{"c": "y"}, {"c": "z"}], "f": 2});
        let text = difference(&old, &new, "spec");
        assert_eq!(
            text,
            "- spec.b[0].c: \"x\"\n+ spec.b[0].c: \"y\"\n+ spec.b[1]: {\"c\":\"z\"}\n- spec.d: {\"e\":true}\n+ spec.f: 2\n"
        );
    }
}
