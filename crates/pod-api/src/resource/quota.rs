//! ResourceQuotas: what a namespace may hold, and what of that it holds.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::pod::quality;
use super::total::{amount, of_container, of_pod};
use super::view::{self, at, integer, items, members, text};
use super::{Column, Part, Strategy, Surroundings, all, canonical};
use crate::failure::Failure;
use crate::path::Path;
use crate::problem::Findings;
use crate::qos::QosClass;
use crate::quantity::{Amount, Format};
use crate::validate::{self, FieldError};

/// Names without a domain that may stand in `spec.hard`.
const STANDARD: &[&str] = &[
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "persistentvolumeclaims",
    "configmaps",
    "services.nodeports",
    "services.loadbalancers",
];
/// Those of a pod that every container must say something about once a quota limits them.
const COMPUTE: &[&str] = &["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];
const SCOPES: &[&str] =
    &["BestEffort", "CrossNamespacePodAffinity", "NotBestEffort", "NotTerminating", "PriorityClass", "Terminating"];

#[derive(Debug)]
pub(super) struct ResourceQuotas;

impl Strategy for ResourceQuotas {
    fn default(&self, object: &mut Value) {
        object.get_mut("spec").into_iter().for_each(canonical::quantities);
    }

    fn prepare_create(&self, object: &mut Value, cx: &Surroundings<'_>) -> Result<(), Failure> {
        let used = used(object, cx.list);
        object["status"] = json!({"hard": at(object, "spec.hard"), "used": used});
        Ok(())
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut findings = Findings::default();
        validate::find_in_object_metadata(object, true, validate::NameRule::Subdomain, &mut findings);
        hard(object, &mut findings);
        scopes(object, &mut findings);
        validate::errors(findings)
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, part: Part<'_>) {
        if part != Part::Object {
            return view::put_back(new, old, "spec");
        }
        view::put_back(new, old, "status");
        let hard = at(new, "spec.hard").clone();
        view::object(new, "status").insert("hard".to_owned(), hard);
    }

    fn validate_update(&self, new: &Value, old: &Value, _part: Part<'_>) -> Vec<FieldError> {
        let mut errors = self.validate_create(new);
        let mut findings = Findings::default();
        if at(new, "spec.scopes") != at(old, "spec.scopes") {
            findings.invalid(Path::of("spec.scopes"), at(new, "spec.scopes").clone(), validate::IMMUTABLE_FIELD);
        }
        errors.extend(validate::errors(findings));
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::NAME,
                Column::text("Request", "Used and allowed of what is counted or requested."),
                Column::text("Limit", "Used and allowed of what is limited."),
                Column::AGE,
            ]
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let (mut requests, mut limits) = (Vec::new(), Vec::new());
        for (name, hard) in members(object, "status.hard") {
            let used = at(object, "status.used")[name].as_str().unwrap_or("0");
            let text = format!("{name}: {used}/{}", hard.as_str().unwrap_or_default());
            if name.starts_with("limits.") { limits.push(text) } else { requests.push(text) }
        }
        vec![view::name(object), requests.join(", ").into(), limits.join(", ").into(), view::age(object, now)]
    }
}

fn hard(object: &Value, findings: &mut Findings) {
    for (name, quantity) in members(object, "spec.hard") {
        let path = Path::of("spec.hard").key(name);
        if name.contains('/') {
            validate::qualified_name(name, path.clone(), findings);
        } else if !STANDARD.contains(&name.as_str()) {
            findings.invalid(path.clone(), name.as_str(), "must be a standard resource for quota");
        }
        match amount(quantity) {
            None => findings.invalid(path, quantity.clone(), "must be a quantity"),
            Some((amount, _)) if amount < Amount::default() => {
                findings.invalid(path, quantity.clone(), "must be greater than or equal to 0");
            }
            Some((amount, _)) if is_count(name) && amount != Amount::from_whole(amount.whole()) => {
                findings.invalid(path, quantity.clone(), "must be an integer");
            }
            Some(_) => {}
        }
    }
}

fn scopes(object: &Value, findings: &mut Findings) {
    for (index, scope) in items(object, "spec.scopes").iter().enumerate() {
        let scope = scope.as_str().unwrap_or_default();
        if !SCOPES.contains(&scope) {
            findings.invalid(Path::of("spec.scopes").index(index), scope, "unsupported scope");
        }
    }
    for (index, expression) in items(object, "spec.scopeSelector.matchExpressions").iter().enumerate() {
        let path = Path::of("spec.scopeSelector.matchExpressions").index(index);
        let scope = text(expression, "scopeName");
        if !SCOPES.contains(&scope) {
            findings.invalid(path.field("scopeName"), scope, "unsupported scope");
        }
        let operator = text(expression, "operator");
        if !["In", "NotIn", "Exists", "DoesNotExist"].contains(&operator) {
            findings.invalid(path.field("operator"), operator, "not a valid selector operator");
        }
        match (operator, items(expression, "values").is_empty()) {
            ("In" | "NotIn", true) => {
                let detail = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                findings.required(path.field("values"), detail);
            }
            ("Exists" | "DoesNotExist", false) => {
                let detail = "must be no value when `operator` is 'Exists' or 'DoesNotExist' for scope selector";
                findings.invalid(path.field("values"), expression["values"].clone(), detail);
            }
            _ => {}
        }
    }
}

// === what counts ===

/// How much of a limited name one object takes.
#[derive(Clone, Copy)]
enum Measure<'a> {
    /// One, whatever it is.
    Object,
    /// One, unless it is a pod that has ended.
    LivePod,
    /// A resource of a pod that has not ended: `requests` or `limits`, and which.
    Compute(&'static str, &'a str),
    /// What a claim requests.
    Storage,
    /// There are none of these here.
    Never,
}

/// Which objects a name limits, by stored resource, and how they count. `None` for a name nothing is known of.
fn measure(name: &str) -> Option<(&str, Measure<'_>)> {
    if let Some(resource) = name.strip_prefix("count/") {
        return Some((resource, Measure::Object));
    }
    Some(match name {
        "pods" => ("pods", Measure::LivePod),
        "configmaps"
        | "secrets"
        | "services"
        | "replicationcontrollers"
        | "resourcequotas"
        | "persistentvolumeclaims" => (name, Measure::Object),
        "services.nodeports" | "services.loadbalancers" => ("services", Measure::Never),
        "requests.storage" => ("persistentvolumeclaims", Measure::Storage),
        _ => match name.split_once('.') {
            Some(("limits", resource)) => ("pods", Measure::Compute("limits", resource)),
            Some(("requests", resource)) => ("pods", Measure::Compute("requests", resource)),
            _ if matches!(name, "cpu" | "memory" | "ephemeral-storage") => ("pods", Measure::Compute("requests", name)),
            _ => return None,
        },
    })
}

fn is_count(name: &str) -> bool {
    matches!(measure(name), Some((_, Measure::Object | Measure::LivePod | Measure::Never)))
}

impl Measure<'_> {
    fn of(self, object: &Value) -> Amount {
        let ended = matches!(text(object, "status.phase"), "Succeeded" | "Failed");
        match self {
            Measure::Object => Amount::from_whole(1),
            Measure::Never => Amount::default(),
            Measure::LivePod | Measure::Compute(..) if ended => Amount::default(),
            Measure::LivePod => Amount::from_whole(1),
            Measure::Compute(list, resource) => of_pod(object, list, resource).unwrap_or_default(),
            Measure::Storage => {
                amount(at(object, "spec.resources.requests.storage")).map(|(amount, _)| amount).unwrap_or_default()
            }
        }
    }
}

/// `status.used` of a quota: of every name in `spec.hard`, how much there is. `list` gives all objects of a stored resource
/// in a namespace.
pub fn used(quota: &Value, list: &dyn Fn(&str, &str) -> Vec<Value>) -> Value {
    let namespace = text(quota, "metadata.namespace");
    let mut lists: Vec<(&str, Vec<Value>)> = Vec::new();
    let mut used = Map::new();
    for (name, hard) in members(quota, "spec.hard") {
        let Some((resource, measure)) = measure(name) else { continue };
        if !lists.iter().any(|(listed, _)| *listed == resource) {
            let mut objects = list(resource, namespace);
            objects.retain(|object| covers(quota, resource, object));
            lists.push((resource, objects));
        }
        let objects = lists.iter().find(|(listed, _)| *listed == resource).map_or(&[][..], |(_, objects)| objects);
        let sum = objects.iter().fold(Amount::default(), |sum, object| sum + measure.of(object));
        used.insert(name.clone(), shown(sum, hard).into());
    }
    Value::Object(used)
}

/// Amounts are shown as the quota writes its own.
fn shown(value: Amount, hard: &Value) -> String {
    value.display(amount(hard).map_or(Format::DecimalSi, |(_, format)| format))
}

/// Whether the quota's scopes take this object in.
fn covers(quota: &Value, resource: &str, object: &Value) -> bool {
    let plain = items(quota, "spec.scopes").iter().map(|scope| (scope.as_str().unwrap_or_default(), "Exists", &[][..]));
    let selected = items(quota, "spec.scopeSelector.matchExpressions")
        .iter()
        .map(|expression| (text(expression, "scopeName"), text(expression, "operator"), items(expression, "values")));
    plain.chain(selected).all(|(scope, operator, values)| {
        if resource != "pods" {
            return false;
        }
        let deadline = integer(object, "spec.activeDeadlineSeconds").is_some();
        match scope {
            "Terminating" => deadline,
            "NotTerminating" => !deadline,
            "BestEffort" => quality(object) == Some(QosClass::BestEffort),
            "NotBestEffort" => quality(object) != Some(QosClass::BestEffort),
            "PriorityClass" => {
                let class = text(object, "spec.priorityClassName");
                match operator {
                    "In" => values.iter().any(|value| value == class),
                    "NotIn" => !values.iter().any(|value| value == class),
                    "DoesNotExist" => class.is_empty(),
                    _ => !class.is_empty(),
                }
            }
            _ => false,
        }
    })
}

// === admission ===

/// Refuses what would go over a quota: creations, and changes of what an object asks for.
pub(super) fn admit(new: &Value, old: Option<&Value>, part: Part<'_>, cx: &Surroundings<'_>) -> Result<(), Failure> {
    let Some(resource) = stored_as(new) else { return Ok(()) };
    let counted = match part {
        Part::Object => old.is_none() || resource == "persistentvolumeclaims",
        Part::Sub(part) => part == "resize",
    };
    if !counted {
        return Ok(());
    }
    let forbidden = |why: String| Failure::forbidden(resource, text(new, "metadata.name"), &why);
    for quota in (cx.list)("resourcequotas", text(new, "metadata.namespace")) {
        if !covers(&quota, resource, new) {
            continue;
        }
        let name = text(&quota, "metadata.name");
        if resource == "pods" && old.is_none() {
            let missing = unsaid(&quota, new);
            if !missing.is_empty() {
                return Err(forbidden(format!("failed quota: {name}: must specify {}", missing.join("; "))));
            }
        }
        let mut exceeded = (Vec::new(), Vec::new(), Vec::new());
        let mut used_now: Option<Value> = None;
        for (limited, hard) in members(&quota, "spec.hard") {
            let Some((_, measure)) = measure(limited).filter(|(of, _)| *of == resource) else { continue };
            let Some((most, _)) = amount(hard) else { continue };
            let asked = measure.of(new) - old.map(|old| measure.of(old)).unwrap_or_default();
            if asked <= Amount::default() {
                continue;
            }
            let used = used_now.get_or_insert_with(|| used(&quota, cx.list));
            let has = amount(&used[limited]).map(|(amount, _)| amount).unwrap_or_default();
            if has + asked > most {
                exceeded.0.push(format!("{limited}={}", shown(asked, hard)));
                exceeded.1.push(format!("{limited}={}", shown(has, hard)));
                exceeded.2.push(format!("{limited}={}", shown(most, hard)));
            }
        }
        let (requested, used, limited) = exceeded;
        if !requested.is_empty() {
            return Err(forbidden(format!(
                "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
                requested.join(","),
                used.join(","),
                limited.join(",")
            )));
        }
    }
    Ok(())
}

/// The stored resource of an object that is in a namespace, by its kind.
fn stored_as(object: &Value) -> Option<&'static str> {
    let version = text(object, "apiVersion");
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let kind = (group, version, text(object, "kind"));
    let resource = all().iter().find(|resource| (resource.group, resource.version, resource.kind) == kind)?;
    resource.namespaced.then_some(resource.stored_as)
}

/// Which containers say nothing about a resource that is limited: `limits.cpu for: app,proxy`.
fn unsaid(quota: &Value, pod: &Value) -> Vec<String> {
    let mut missing = Vec::new();
    for (limited, _) in members(quota, "spec.hard").filter(|(name, _)| COMPUTE.contains(&name.as_str())) {
        let Some((_, Measure::Compute(list, resource))) = measure(limited) else { continue };
        let mut silent: Vec<&str> = items(pod, "spec.containers")
            .iter()
            .chain(items(pod, "spec.initContainers"))
            .filter(|container| of_container(container, list, resource).is_none())
            .map(|container| text(container, "name"))
            .collect();
        if !silent.is_empty() {
            silent.sort_unstable();
            missing.push(format!("{limited} for: {}", silent.join(",")));
        }
    }
    missing
}
