//! What a whole pod asks for of any resource, worked out on its JSON: for quotas and limit ranges, which know names that the
//! engine does not.

use serde_json::Value;

use super::view::{at, items, text};
use crate::quantity::{self, Amount, Format};

/// The quantity in a field, and how it was written; `None` if there is none that can be read.
pub(super) fn amount(value: &Value) -> Option<(Amount, Format)> {
    match value {
        Value::String(text) => quantity::parse(text).ok(),
        Value::Number(number) => quantity::parse(&number.to_string()).ok(),
        _ => None,
    }
}

/// A container's `requests` or `limits` of a resource.
pub(super) fn of_container(container: &Value, list: &str, resource: &str) -> Option<Amount> {
    Some(amount(at(container, "resources").get(list)?.get(resource)?)?.0)
}

/// `max(each init's amount on top of the sidecars before it, all sidecars + all mains)` (KEP-753); `None` if no container has any.
pub(super) fn of_pod(pod: &Value, list: &str, resource: &str) -> Option<Amount> {
    let (mut sidecars, mut peak, mut any) = (Amount::default(), Amount::default(), false);
    let mut own = |container: &Value| {
        let own = of_container(container, list, resource);
        any |= own.is_some();
        own.unwrap_or_default()
    };
    for init in items(pod, "spec.initContainers") {
        let own = own(init);
        if text(init, "restartPolicy") == "Always" {
            sidecars = sidecars + own;
            peak = peak.max(sidecars);
        } else {
            peak = peak.max(sidecars + own);
        }
    }
    let all = items(pod, "spec.containers").iter().fold(sidecars, |sum, main| sum + own(main));
    any.then(|| peak.max(all))
}
