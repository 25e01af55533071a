//! What a pod asks of the pods beside it: inter-pod affinity, anti-affinity and topology spread
//! (`pkg/scheduler/framework/plugins/{interpodaffinity,podtopologyspread}/filtering.go`).
//!
//! There is one node, so a topology key is either a label of it, and then every pod is in the same domain, or it is not.

use serde_json::{Map, Value};

use super::{Refusal, holds};
use crate::object::{is_being_deleted, items, text};

const AFFINITY: &str = "/spec/affinity/podAffinity/requiredDuringSchedulingIgnoredDuringExecution";
const ANTI_AFFINITY: &str = "/spec/affinity/podAntiAffinity/requiredDuringSchedulingIgnoredDuringExecution";
const SPREAD: &str = "/spec/topologySpreadConstraints";

/// Labels of a namespace, by its name.
pub(crate) type Namespaces<'a> = &'a dyn Fn(&str) -> Map<String, Value>;

/// Whether where the pod may go depends on its neighbours.
pub(crate) fn looks_around(pod: &Value) -> bool {
    [AFFINITY, ANTI_AFFINITY, SPREAD].iter().any(|list| !items(pod, list).is_empty())
}

/// `others`: the pods that are bound to the node and have not ended.
pub(super) fn refusal(pod: &Value, node: &Value, others: &[Value], namespaces: Namespaces<'_>) -> Option<Refusal> {
    let empty = Map::new();
    let labels = node.pointer("/metadata/labels").and_then(Value::as_object).unwrap_or(&empty);
    spread(pod, labels, others).or_else(|| affinity(pod, labels, others, namespaces))
}

fn spread(pod: &Value, node: &Map<String, Value>, others: &[Value]) -> Option<Refusal> {
    let binding = |constraint: &&Value| text(constraint, "/whenUnsatisfiable") == "DoNotSchedule";
    for constraint in items(pod, SPREAD).iter().filter(binding) {
        if !node.contains_key(text(constraint, "/topologyKey")) {
            let reason = "node(s) didn't match pod topology spread constraints (missing required label)";
            return Some(Refusal { reasons: vec![reason], preemptable: false });
        }
        let chosen = |other: &Value| selects(constraint, pod, other);
        let beside = |other: &&Value| same_namespace(pod, other) && !is_being_deleted(other) && chosen(other);
        let here = others.iter().filter(beside).count() as u64;
        // One domain is the least filled one, unless more are asked for than there are.
        let least = if constraint["minDomains"].as_u64().unwrap_or(1) > 1 { 0 } else { here };
        let skew = here + u64::from(chosen(pod)) - least;
        if skew > constraint["maxSkew"].as_u64().unwrap_or(1) {
            let reason = "node(s) didn't match pod topology spread constraints";
            return Some(Refusal { reasons: vec![reason], preemptable: true });
        }
    }
    None
}

fn affinity(pod: &Value, node: &Map<String, Value>, others: &[Value], namespaces: Namespaces<'_>) -> Option<Refusal> {
    let known = |term: &Value| node.contains_key(text(term, "/topologyKey"));
    let of_term = |term: &Value, owner: &Value, other: &Value| {
        reaches(term, owner, text(other, "/metadata/namespace"), namespaces) && selects(term, owner, other)
    };
    let wanted = items(pod, AFFINITY);
    let met = |term: &Value| others.iter().any(|other| of_term(term, pod, other));
    // The first of a group that wants to be together has nobody to join yet.
    let first = || {
        let anybody = others.iter().any(|other| wanted.iter().all(|term| of_term(term, pod, other)));
        !anybody && wanted.iter().all(|term| of_term(term, pod, pod))
    };
    if !wanted.iter().all(known) || (!wanted.iter().all(met) && !first()) {
        let reasons = vec!["node(s) didn't match pod affinity rules"];
        return Some(Refusal { reasons, preemptable: false });
    }
    let refuses = |owner: &Value, other: &Value| {
        items(owner, ANTI_AFFINITY).iter().any(|term| known(term) && of_term(term, owner, other))
    };
    if others.iter().any(|other| refuses(pod, other)) {
        let reasons = vec!["node(s) didn't match pod anti-affinity rules"];
        return Some(Refusal { reasons, preemptable: true });
    }
    if others.iter().any(|other| refuses(other, pod)) {
        let reasons = vec!["node(s) didn't satisfy existing pods anti-affinity rules"];
        return Some(Refusal { reasons, preemptable: true });
    }
    None
}

fn same_namespace(pod: &Value, other: &Value) -> bool {
    text(pod, "/metadata/namespace") == text(other, "/metadata/namespace")
}

/// Whether a term of `owner` speaks of pods in `namespace`: those it lists and those it selects; its own if it says nothing.
fn reaches(term: &Value, owner: &Value, namespace: &str, namespaces: Namespaces<'_>) -> bool {
    let (listed, selector) = (items(term, "/namespaces"), &term["namespaceSelector"]);
    if listed.is_empty() && selector.is_null() {
        return text(owner, "/metadata/namespace") == namespace;
    }
    listed.iter().any(|listed| listed == namespace)
        || (selector.is_object() && matches_selector(selector, &namespaces(namespace)))
}

/// The `labelSelector` of a term or constraint of `owner`, with what its `matchLabelKeys` add.
fn selects(term: &Value, owner: &Value, other: &Value) -> bool {
    let empty = Map::new();
    let labels_of = |pod: &'_ Value| pod.pointer("/metadata/labels").and_then(Value::as_object).cloned();
    let (own, labels) = (labels_of(owner).unwrap_or_default(), labels_of(other).unwrap_or(empty));
    let selector = &term["labelSelector"];
    let value = |key: &Value| key.as_str().and_then(|key| Some((key.to_owned(), own.get(key)?.clone())));
    let same =
        items(term, "/matchLabelKeys").iter().filter_map(value).all(|(key, value)| labels.get(&key) == Some(&value));
    let differs =
        items(term, "/mismatchLabelKeys").iter().filter_map(value).all(|(key, value)| labels.get(&key) != Some(&value));
    // None selects nothing, an empty one everything.
    selector.is_object() && same && differs && matches_selector(selector, &labels)
}

fn matches_selector(selector: &Value, labels: &Map<String, Value>) -> bool {
    let equal =
        selector["matchLabels"].as_object().into_iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    let label = |expression: &Value| labels.get(text(expression, "/key")).and_then(Value::as_str);
    equal && items(selector, "/matchExpressions").iter().all(|expression| holds(expression, label(expression)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const HOST: &str = "kubernetes.io/hostname";

    fn judge(pod: &Value, others: &[Value]) -> &'static str {
        let node = json!({"metadata": {"labels": {HOST: "n"}}});
        let namespaces = |name: &str| json!({"name": name}).as_object().unwrap().clone();
        refusal(pod, &node, others, &namespaces)
            .map_or("fits", |refusal| refusal.reasons[0].trim_start_matches("node(s) didn't "))
    }

    fn pod(namespace: &str, app: &str, spec: Value) -> Value {
        json!({"metadata": {"namespace": namespace, "labels": {"app": app}}, "spec": spec})
    }

    fn term(kind: &str, mut term: Value, key: &str, app: &str) -> Value {
        term["topologyKey"] = key.into();
        term["labelSelector"] = json!({"matchLabels": {"app": app}});
        json!({"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}})
    }

    #[test]
    fn one_stands_beside_those_it_wants() {
        let near = |key: &str, app: &str| pod("a", "web", term("podAffinity", json!({}), key, app));
        let db = pod("a", "db", json!({}));
        assert_eq!(judge(&near(HOST, "db"), &[]), "match pod affinity rules");
        assert_eq!(judge(&near(HOST, "db"), std::slice::from_ref(&db)), "fits");
        assert_eq!(judge(&near("zone", "db"), &[db]), "match pod affinity rules");
        assert_eq!(judge(&near(HOST, "db"), &[pod("b", "db", json!({}))]), "match pod affinity rules");
        assert_eq!(judge(&near(HOST, "web"), &[]), "fits", "the first of its kind");
    }

    #[test]
    fn and_not_beside_those_it_does_not_want() {
        let away = |more: Value| pod("a", "web", term("podAntiAffinity", more, HOST, "web"));
        let (here, there) = (pod("a", "web", json!({})), pod("b", "web", json!({})));
        assert_eq!(judge(&away(json!({})), std::slice::from_ref(&here)), "match pod anti-affinity rules");
        assert_eq!(judge(&away(json!({})), std::slice::from_ref(&there)), "fits");
        let away_from = |more: Value| judge(&away(more), std::slice::from_ref(&there));
        assert_eq!(away_from(json!({"namespaces": ["b"]})), "match pod anti-affinity rules");
        assert_eq!(away_from(json!({"namespaceSelector": {}})), "match pod anti-affinity rules");
        assert_eq!(away_from(json!({"namespaceSelector": {"matchLabels": {"name": "c"}}})), "fits");
        assert_eq!(
            judge(&here, &[away(json!({}))]),
            "node(s) didn't satisfy existing pods anti-affinity rules".trim_start_matches("node(s) didn't ")
        );
        let zoned = pod("a", "web", term("podAntiAffinity", json!({}), "zone", "web"));
        assert_eq!(judge(&zoned, &[here]), "fits", "no node has the key");
    }

    #[test]
    fn one_domain_is_always_even() {
        let spread = |more: Value| {
            let mut constraint = json!({"maxSkew": 1, "topologyKey": HOST, "whenUnsatisfiable": "DoNotSchedule",
                "labelSelector": {"matchLabels": {"app": "web"}}});
            constraint.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            pod("a", "web", json!({"topologySpreadConstraints": [constraint]}))
        };
        let here = [pod("a", "web", json!({})), pod("a", "web", json!({}))];
        assert_eq!(judge(&spread(json!({})), &here), "fits");
        assert_eq!(judge(&spread(json!({"minDomains": 2})), &here), "match pod topology spread constraints");
        assert_eq!(judge(&spread(json!({"minDomains": 2})), &[]), "fits");
        let missing = "match pod topology spread constraints (missing required label)";
        assert_eq!(judge(&spread(json!({"topologyKey": "zone"})), &[]), missing);
        assert_eq!(judge(&spread(json!({"topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"})), &[]), "fits");
    }
}
