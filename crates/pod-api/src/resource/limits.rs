//! LimitRanges: what a container of a namespace gets if it says nothing, and what it must stay within.

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::pod::forbidden;
use super::total::{amount, of_container, of_pod};
use super::view::{self, at, items, members, text};
use super::{Column, Strategy, Surroundings, canonical};
use crate::failure::Failure;
use crate::path::Path;
use crate::problem::Findings;
use crate::quantity::{Amount, Format};
use crate::validate::{self, FieldError};

const ANNOTATION: &str = "kubernetes.io/limit-ranger";
const KINDS: &[&str] = &["Container", "PersistentVolumeClaim", "Pod"];

#[derive(Debug)]
pub(super) struct LimitRanges;

impl Strategy for LimitRanges {
    /// For containers, a maximum is the default limit, and a default limit the default request.
    fn default(&self, object: &mut Value) {
        let Some(spec) = object.get_mut("spec") else { return };
        canonical::quantities(spec);
        for item in spec.get_mut("limits").and_then(Value::as_array_mut).into_iter().flatten() {
            if text(item, "type") == "Container" {
                fill(item, "default", "max");
                fill(item, "defaultRequest", "default");
                fill(item, "defaultRequest", "min");
            }
        }
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut findings = Findings::default();
        validate::find_in_object_metadata(object, true, validate::NameRule::Subdomain, &mut findings);
        let mut seen = Vec::new();
        for (index, item) in items(object, "spec.limits").iter().enumerate() {
            let path = Path::of("spec.limits").index(index);
            let kind = text(item, "type");
            if seen.contains(&kind) {
                findings.duplicate(path.field("type"), kind);
            }
            seen.push(kind);
            if !KINDS.contains(&kind) && !kind.contains('/') {
                findings.invalid(path.field("type"), kind, "must be a standard limit type or fully qualified");
            }
            limits(item, kind, &path, &mut findings);
        }
        validate::errors(findings)
    }

    fn columns(&self) -> &'static [Column] {
        const { &[Column::NAME, Column { kind: "date", ..Column::text("Created At", "When the object was created.") }] }
    }

    fn cells(&self, object: &Value, _now: Timestamp) -> Vec<Value> {
        vec![view::name(object), text(object, "metadata.creationTimestamp").into()]
    }
}

fn fill(item: &mut Value, list: &str, from: &str) {
    let defaults = item[from].as_object().cloned().unwrap_or_default();
    if defaults.is_empty() {
        return;
    }
    let list = view::object(item, list);
    for (name, quantity) in defaults {
        list.entry(name).or_insert(quantity);
    }
}

/// `validateLimitRangeItem`: minimum ≤ default request ≤ default ≤ maximum.
fn limits(item: &Value, kind: &str, path: &Path, findings: &mut Findings) {
    let lists = ["min", "max", "default", "defaultRequest", "maxLimitRequestRatio"];
    let mut names: Vec<&String> = lists.iter().flat_map(|list| members(item, list)).map(|(name, _)| name).collect();
    names.sort_unstable();
    names.dedup();
    if kind == "Pod" {
        for list in ["default", "defaultRequest"] {
            if !view::is_empty(&item[list]) {
                findings.forbidden(path.field(list), "may not be specified when `type` is 'Pod'");
            }
        }
    }
    let storage = |list: &str| item[list].get("storage").is_some();
    if kind == "PersistentVolumeClaim" && !storage("min") && !storage("max") {
        findings.required(
            path.field("limits"),
            "either minimum or maximum storage value is required, but neither was provided",
        );
    }
    for name in names {
        let of = |list: &str| Some((amount(item[list].get(name)?)?.0, item[list][name].as_str().unwrap_or_default()));
        for list in lists.into_iter().filter(|list| item[*list].get(name).is_some_and(|value| amount(value).is_none()))
        {
            findings.invalid(path.field(list).key(name), item[list][name].clone(), "must be a quantity");
        }
        let ordered = [
            ("min", "max", "min", "min value", "max value"),
            ("min", "defaultRequest", "defaultRequest", "min value", "default request value"),
            ("defaultRequest", "max", "defaultRequest", "default request value", "max value"),
            ("defaultRequest", "default", "defaultRequest", "default request value", "default limit value"),
            ("min", "default", "min", "min value", "default value"),
            ("default", "max", "default", "default value", "max value"),
        ];
        for (less, more, at, less_words, more_words) in ordered {
            if let (Some((low, low_text)), Some((high, high_text))) = (of(less), of(more))
                && low > high
            {
                let detail = format!("{less_words} {low_text} is greater than {more_words} {high_text}");
                findings.invalid(path.field(at).key(name), of(at).map_or("", |(_, text)| text), &detail);
            }
        }
        if let Some((ratio, text)) = of("maxLimitRequestRatio")
            && ratio < Amount::from_whole(1)
        {
            let path = path.field("maxLimitRequestRatio").key(name);
            findings.invalid(path, text, &format!("ratio {text} is less than 1"));
        }
    }
}

// === admission ===

fn items_of(object: &Value, kind: &str, cx: &Surroundings<'_>) -> Vec<Value> {
    let ranges = (cx.list)("limitranges", text(object, "metadata.namespace"));
    let limits = ranges.iter().flat_map(|range| items(range, "spec.limits"));
    limits.filter(|item| text(item, "type") == kind).cloned().collect()
}

/// Containers that say nothing get the namespace's defaults; an annotation tells which.
pub(super) fn apply_to_pod(pod: &mut Value, cx: &Surroundings<'_>) {
    let (mut requests, mut limits) = (Map::new(), Map::new());
    for item in items_of(pod, "Container", cx) {
        requests.extend(members(&item, "defaultRequest").map(|(name, value)| (name.clone(), value.clone())));
        limits.extend(members(&item, "default").map(|(name, value)| (name.clone(), value.clone())));
    }
    let mut said = Vec::new();
    for (list, what) in [("containers", "container"), ("initContainers", "init container")] {
        for container in pod["spec"].get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let name = text(container, "name").to_owned();
            for (list, defaults, word) in [("requests", &requests, "request"), ("limits", &limits, "limit")] {
                let missing: Vec<(&String, &Value)> = defaults
                    .iter()
                    .filter(|(resource, _)| at(container, "resources")[list].get(resource.as_str()).is_none())
                    .collect();
                if missing.is_empty() {
                    continue;
                }
                let names: Vec<&str> = missing.iter().map(|(name, _)| name.as_str()).collect();
                said.push(format!("{} {word} for {what} {name}", names.join(", ")));
                let into = view::object(view_resources(container), list);
                into.extend(missing.into_iter().map(|(name, value)| (name.clone(), value.clone())));
            }
        }
    }
    if !said.is_empty() {
        let text = format!("LimitRanger plugin set: {}", said.join("; "));
        view::object(pod, "metadata.annotations").insert(ANNOTATION.to_owned(), text.into());
    }
}

fn view_resources(container: &mut Value) -> &mut Value {
    view::object(container, "resources");
    &mut container["resources"]
}

/// Whether a pod and its containers stay within their ranges.
pub(super) fn check_pod(pod: &Value, cx: &Surroundings<'_>) -> Result<(), Failure> {
    let mut errors = Vec::new();
    let containers = items(pod, "spec.containers").iter().chain(items(pod, "spec.initContainers"));
    let containers: Vec<&Value> = containers.collect();
    for item in items_of(pod, "Container", cx) {
        for container in &containers {
            check(&item, "Container", &|list, name| of_container(container, list, name), &mut errors);
        }
    }
    for item in items_of(pod, "Pod", cx) {
        check(&item, "Pod", &|list, name| of_pod(pod, list, name), &mut errors);
    }
    refuse(errors).map_or(Ok(()), |why| Err(forbidden(pod, &why)))
}

/// Whether a claim does.
pub(super) fn check_claim(claim: &Value, cx: &Surroundings<'_>) -> Result<(), Failure> {
    const KIND: &str = "PersistentVolumeClaim";
    let mut errors = Vec::new();
    let request = |name: &str| Some(amount(at(claim, "spec.resources.requests").get(name)?)?.0);
    for item in items_of(claim, KIND, cx) {
        for (name, enforced) in members(&item, "min") {
            least(name, KIND, enforced, request(name), None, &mut errors);
        }
        for (name, enforced) in members(&item, "max") {
            let Some((most, format)) = amount(enforced) else { continue };
            let rule = format!("maximum {name} usage per {KIND} is {}", most.display(format));
            match request(name) {
                None => errors.push(format!("{rule}.  No request is specified")),
                Some(asked) if asked > most => {
                    errors.push(format!("{rule}, but request is {}", asked.display(format)));
                }
                Some(_) => {}
            }
        }
    }
    let name = text(claim, "metadata.name");
    refuse(errors).map_or(Ok(()), |why| Err(Failure::forbidden("persistentvolumeclaims", name, &why)))
}

fn refuse(mut errors: Vec<String>) -> Option<String> {
    errors.dedup();
    match errors.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        many => Some(format!("[{}]", many.join(", "))),
    }
}

type Has<'a> = &'a dyn Fn(&str, &str) -> Option<Amount>;

fn check(item: &Value, kind: &str, has: Has<'_>, errors: &mut Vec<String>) {
    for (name, enforced) in members(item, "min") {
        least(name, kind, enforced, has("requests", name), has("limits", name), errors);
    }
    for (name, enforced) in members(item, "max") {
        let Some((most, format)) = amount(enforced) else { continue };
        let rule = format!("maximum {name} usage per {kind} is {}", most.display(format));
        match (has("limits", name), has("requests", name)) {
            (None, _) => errors.push(format!("{rule}.  No limit is specified")),
            (Some(limit), _) if limit > most => {
                errors.push(format!("{rule}, but limit is {}", limit.display(format)));
            }
            (_, Some(request)) if request > most => {
                errors.push(format!("{rule}, but request is {}", request.display(format)));
            }
            _ => {}
        }
    }
    for (name, enforced) in members(item, "maxLimitRequestRatio") {
        let Some((most, format)) = amount(enforced) else { continue };
        let rule = format!("{name} max limit to request ratio per {kind} is {}", most.display(format));
        let positive = |amount: Option<Amount>| amount.filter(|amount| !amount.is_zero());
        match (positive(has("requests", name)), positive(has("limits", name))) {
            (None, _) => errors.push(format!("{rule}, but no request is specified or request is 0")),
            (_, None) => errors.push(format!("{rule}, but no limit is specified or limit is 0")),
            (Some(request), Some(limit)) => {
                let ratio = limit.millis() as f64 / request.millis() as f64;
                if ratio > most.millis() as f64 / 1000.0 {
                    errors.push(format!("{rule}, but provided ratio is {ratio:.6}"));
                }
            }
        }
    }
}

fn least(
    name: &str,
    kind: &str,
    enforced: &Value,
    request: Option<Amount>,
    limit: Option<Amount>,
    errors: &mut Vec<String>,
) {
    let Some((least, format)) = amount(enforced) else { return };
    let rule = format!("minimum {name} usage per {kind} is {}", least.display(format));
    let shown = |amount: Amount, format: Format| amount.display(format);
    match (request, limit) {
        (None, _) => errors.push(format!("{rule}.  No request is specified")),
        (Some(request), _) if request < least => {
            errors.push(format!("{rule}, but request is {}", shown(request, format)));
        }
        (_, Some(limit)) if limit < least => errors.push(format!("{rule}, but limit is {}", shown(limit, format))),
        _ => {}
    }
}
