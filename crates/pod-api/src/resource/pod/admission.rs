//! What an API server's admission plugins do to a new pod: service account, priority, tolerations.

use serde_json::{Value, json};

use crate::failure::Failure;
use crate::resource::Surroundings;
use crate::resource::view::{self, integer, text};

/// How long a pod stays on a node that is not well (DefaultTolerationSeconds).
const TOLERATION_SECONDS: i64 = 300;
const TOLERATED: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];
/// The account that every namespace has, whether or not its object has been made yet.
const DEFAULT_ACCOUNT: &str = "default";
/// The classes that every cluster has; there are no objects of this kind here.
const PRIORITY_CLASSES: [(&str, i64); 2] =
    [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];

/// ServiceAccount: the account must exist. Its token is not mounted: no pod of this node gets one unasked.
pub(super) fn service_account(object: &mut Value, cx: &Surroundings<'_>) -> Result<(), Failure> {
    let spec = view::object(object, "spec");
    view::fill(spec, "serviceAccountName", DEFAULT_ACCOUNT);
    spec.insert("serviceAccount".to_owned(), spec["serviceAccountName"].clone());
    let (name, namespace) = (text(object, "spec.serviceAccountName"), text(object, "metadata.namespace"));
    if name != DEFAULT_ACCOUNT && (cx.find)("serviceaccounts", namespace, name).is_none() {
        let why = format!("error looking up service account {namespace}/{name}: serviceaccount \"{name}\" not found");
        return Err(forbidden(object, &why));
    }
    Ok(())
}

/// Priority.
pub(super) fn priority(object: &mut Value) -> Result<(), Failure> {
    let class = text(object, "spec.priorityClassName");
    let priority = match PRIORITY_CLASSES.iter().find(|(name, _)| *name == class) {
        Some((_, priority)) => *priority,
        None if class.is_empty() => 0,
        None => return Err(forbidden(object, &format!("no PriorityClass with name {class} was found"))),
    };
    if let Some(asked) = integer(object, "spec.priority").filter(|asked| *asked != priority) {
        let why = format!(
            "the integer value of priority ({asked}) must not be provided in pod spec; priority admission controller \
             computed {priority} from the given PriorityClass name"
        );
        return Err(forbidden(object, &why));
    }
    let spec = view::object(object, "spec");
    spec.insert("priority".to_owned(), priority.into());
    view::fill(spec, "preemptionPolicy", "PreemptLowerPriority");
    Ok(())
}

/// DefaultTolerationSeconds: a pod stays for a while on a node that is not well, unless it says for how long.
pub(super) fn tolerate(object: &mut Value) {
    let mut tolerations = view::items(object, "spec.tolerations").to_vec();
    for key in TOLERATED {
        let said = tolerations.iter().any(|toleration| {
            let (own, effect) = (text(toleration, "key"), text(toleration, "effect"));
            (own == key || own.is_empty()) && matches!(effect, "NoExecute" | "")
        });
        if !said {
            tolerations.push(json!({
                "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": TOLERATION_SECONDS,
            }));
        }
    }
    view::object(object, "spec").insert("tolerations".to_owned(), tolerations.into());
}

pub(in crate::resource) fn forbidden(object: &Value, why: &str) -> Failure {
    Failure::forbidden("pods", text(object, "metadata.name"), why)
}
