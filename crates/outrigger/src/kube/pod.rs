//! The pod and the container that a verb means.

use pod_client::Call;
use pod_client::query::Query;
use serde_json::Value;

use super::target::Named;
use super::value::{self, items, text as text_at};
use super::{Node, Outcome, text};

/// Chooses a container when nobody names one.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// What the word meant, and its pod.
pub(super) struct Found<'a> {
    pub(super) kind: &'a pod_client::Kind,
    /// The object of the word: the pod itself, or a Service.
    pub(super) object: Value,
    pub(super) pod: Value,
}

/// `web`, `pod/web`, or `service/web` and others with a selector: then the best of their pods.
pub(super) async fn find<'a>(node: &'a Node, word: &str) -> Outcome<Found<'a>> {
    let (kind, name) = word.split_once('/').unwrap_or(("pods", word));
    let kind = node.kind(kind).await?;
    let named = Named { kind, namespace: node.namespace.clone(), name: name.to_owned(), source: String::new() };
    let object = node.client.json(Call::get(named.path())).await?;
    if kind.kind == "Pod" && kind.group.is_empty() {
        return Ok(Found { kind, pod: object.clone(), object });
    }
    let selector = value::members(&object, "spec.selector.matchLabels");
    let selector = if selector.is_empty() { value::members(&object, "spec.selector") } else { selector };
    let selector: Vec<String> =
        selector.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", value.as_str()?))).collect();
    if selector.is_empty() {
        return text(format!("cannot find the pods of {word}: it has no selector"));
    }
    let path = node.kind("pods").await?.list_path(Some(&node.namespace));
    let path = Query::new(path).with("labelSelector", &selector.join(",")).into_string();
    let list = node.client.json(Call::get(path)).await?;
    // The one that has run longest, of those that run.
    let rank = |pod: &&Value| {
        let phase = match text_at(pod, "status.phase") {
            "Running" => 0,
            "Unknown" => 1,
            "Pending" => 2,
            _ => 3,
        };
        (phase, !is_ready(pod), text_at(pod, "metadata.creationTimestamp").to_owned())
    };
    match items(&list, "items").iter().min_by_key(rank) {
        Some(pod) => Ok(Found { kind, pod: pod.clone(), object }),
        None => text(format!("no pods of {word} were found: selector {}", selector.join(","))),
    }
}

fn is_ready(pod: &Value) -> bool {
    items(pod, "status.conditions").iter().any(|one| one["type"] == "Ready" && one["status"] == "True")
}

/// Every container, mains first, as the choice of one goes.
fn containers(pod: &Value) -> impl Iterator<Item = (&Value, &'static str)> {
    let of = |path: &str, mark| items(pod, path).iter().map(move |container| (container, mark));
    of("spec.containers", "")
        .chain(of("spec.ephemeralContainers", " (ephem)"))
        .chain(of("spec.initContainers", " (init)"))
}

/// The container of a name; without one the default, which is said if there were others.
pub(super) fn container<'p>(pod: &'p Value, asked: Option<&str>, quiet: bool) -> Outcome<&'p Value> {
    let find = |name: &str| containers(pod).find(|(one, _)| text_at(one, "name") == name).map(|(one, _)| one);
    if let Some(name) = asked.filter(|name| !name.is_empty()) {
        return match find(name) {
            Some(container) => Ok(container),
            None => text(format!("container {name} not found in pod {}", value::name(pod))),
        };
    }
    if let Some(container) = pod["metadata"]["annotations"][DEFAULT_CONTAINER].as_str().and_then(find) {
        return Ok(container);
    }
    let Some(first) = items(pod, "spec.containers").first() else {
        return text(format!("pod {}/{} does not have any containers", value::namespace(pod), value::name(pod)));
    };
    if !quiet && containers(pod).count() > 1 {
        let all: Vec<String> = containers(pod).map(|(one, mark)| format!("{}{mark}", text_at(one, "name"))).collect();
        eprintln!("Defaulted container \"{}\" out of: {}", text_at(first, "name"), all.join(", "));
    }
    Ok(first)
}

pub(super) fn is_ephemeral(pod: &Value, name: &str) -> bool {
    items(pod, "spec.ephemeralContainers").iter().any(|one| one["name"] == name)
}

/// The path of a pod's subresource.
pub(super) fn path(pod: &Value, subresource: &str) -> String {
    let encode = pod_client::query::encode;
    format!("/api/v1/namespaces/{}/pods/{}/{subresource}", encode(value::namespace(pod)), encode(value::name(pod)))
}

/// Refuses pods whose containers will not run any more.
pub(super) fn require_alive(pod: &Value, doing: &str) -> Outcome<()> {
    match text_at(pod, "status.phase") {
        phase @ ("Succeeded" | "Failed") => {
            text(format!("cannot {doing} a container in a completed pod; current phase is {phase}"))
        }
        _ => Ok(()),
    }
}
