//! `outrigger apply`: objects are made, or changed by what the manifest says and no longer says.

use http::Method;
use pod_client::print::json;
use pod_client::query::Query;
use pod_client::three_way::three_way;
use pod_client::{Call, CallError};
use pod_schema::Type;
use serde_json::{Map, Value};

use super::arguments::{Apply, DryRun};
use super::document::{self, Placed};
use super::get::Form;
use super::value;
use super::{Node, Outcome, Trouble};
use crate::cli::Global;
use crate::{exit, stdout};

/// Shared with kubectl, so that both find what the other applied last.
const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const MERGE: &str = "application/merge-patch+json";
const SERVER_SIDE: &str = "application/apply-patch+yaml";

/// How often a change is tried that another one overtook.
const TRIES: usize = 5;

pub(crate) fn run(global: &Global, arguments: &Apply) -> anyhow::Result<u8> {
    let node = Node::connect(global, &arguments.server)?;
    super::run(async { apply(&node, arguments).await })
}

async fn apply(node: &Node, arguments: &Apply) -> Result<u8, Vec<Trouble>> {
    let refuse = |text: &str| Err(vec![Trouble::Text(text.to_owned())]);
    if arguments.prune {
        return refuse("--prune is not supported: remove objects with outrigger delete");
    }
    if arguments.files.filenames.is_empty() {
        return refuse("must specify one of -f and -k");
    }
    if arguments.server_side && arguments.dry_run == DryRun::Client {
        return refuse("--dry-run=client doesn't work with --server-side (did you mean --dry-run=server instead?)");
    }
    let form = Form::parse(arguments.output.as_deref()).map_err(|trouble| vec![trouble])?;
    let (documents, mut troubles) = document::read(&arguments.files);
    let mut placed = Vec::new();
    for document in documents {
        match document.place(node).await {
            Ok(one) => placed.push(one),
            Err(trouble) => troubles.push(trouble),
        }
    }
    if let Some(selector) = &arguments.selector {
        let selector = Labels::parse(selector).map_err(|trouble| vec![trouble])?;
        placed.retain(|one| selector.admits(&one.object));
    }
    if placed.is_empty() && troubles.is_empty() {
        return refuse("no objects passed to apply");
    }
    let mut results: Vec<(&pod_client::Kind, Value)> = Vec::new();
    for one in &placed {
        let outcome = if arguments.server_side {
            on_server(node, arguments, one).await
        } else {
            by_client(node, arguments, one).await
        };
        match outcome {
            Ok((object, word)) if arguments.output.is_none() => {
                let suffix = match arguments.dry_run {
                    DryRun::None => "",
                    DryRun::Client => " (dry run)",
                    DryRun::Server => " (server dry run)",
                };
                if object["metadata"]["deletionTimestamp"].is_string() {
                    eprintln!(
                        "Warning: Detected changes to resource {} which is currently being deleted.",
                        value::name(&object)
                    );
                }
                stdout::print(format!("{} {word}{suffix}\n", one.said())).map_err(|error| vec![error.into()])?;
            }
            Ok((mut object, _)) => {
                super::get::hide_managed_fields(&mut object);
                results.push((one.kind, object));
            }
            Err(trouble) => troubles.push(trouble),
        }
    }
    let printed = match results.as_slice() {
        [] => Ok(String::new()),
        [(kind, object)] => form.object(kind, object),
        several => form.list(several),
    };
    stdout::print(printed.map_err(|trouble| vec![trouble])?).map_err(|error| vec![error.into()])?;
    if troubles.is_empty() { Ok(exit::OK) } else { Err(troubles) }
}

/// Parameters of every write.
fn write_query(arguments: &Apply, path: String, manager: &str) -> Query {
    let validation = match arguments.validate.as_str() {
        "warn" => "Warn",
        "ignore" | "false" => "Ignore",
        _ => "Strict",
    };
    let manager = arguments.field_manager.as_deref().unwrap_or(manager);
    let query = Query::new(path).with("fieldManager", manager).with("fieldValidation", validation);
    if arguments.dry_run == DryRun::Server { query.with("dryRun", "All") } else { query }
}

async fn on_server(node: &Node, arguments: &Apply, one: &Placed<'_>) -> Outcome<(Value, &'static str)> {
    let force = if arguments.force_conflicts { "true" } else { "false" };
    let path = write_query(arguments, one.path(), "kubectl").with("force", force).into_string();
    let call = Call::new(Method::PATCH, path).body(SERVER_SIDE, &one.object);
    match node.client.json(call).await {
        Ok(object) => Ok((object, "serverside-applied")),
        Err(CallError::Refused(status)) if status.reason == "Conflict" => Err(Trouble::Text(format!(
            "{}\nPlease review the fields above--they currently have other managers. To take them, repeat the command with \
             --force-conflicts.\nTo leave them to their managers, remove them from your manifest, or give them the values \
             they have.",
            status.message
        ))),
        Err(error) => Err(error.into()),
    }
}

async fn by_client(node: &Node, arguments: &Apply, one: &Placed<'_>) -> Outcome<(Value, &'static str)> {
    if one.name.is_empty() {
        return match value::text(&one.object, "metadata.generateName") {
            "" => Err(Trouble::Text(format!(
                "error when retrieving current configuration of:\nresource name may not be empty, from \"{}\"",
                one.source
            ))),
            prefix => Err(Trouble::Text(format!("from {prefix}: cannot use generate name with apply"))),
        };
    }
    let modified = annotated(&one.object);
    for attempt in 1.. {
        let outcome = match node.client.json(Call::get(one.path())).await {
            Ok(current) => change(node, arguments, one, &modified, current).await,
            Err(error) if error.is_not_found() => create(node, arguments, one, &modified).await,
            Err(error) => return Err(Trouble::from(error).about("retrieving current configuration of", &one.source)),
        };
        match outcome {
            Err(Trouble::Call(error)) if error.is("Conflict") && attempt < TRIES => {}
            other => return other,
        }
    }
    unreachable!("the last attempt returns")
}

async fn create(node: &Node, arguments: &Apply, one: &Placed<'_>, modified: &Value) -> Outcome<(Value, &'static str)> {
    let object = without_nulls(modified);
    if arguments.dry_run == DryRun::Client {
        return Ok((object, "created"));
    }
    let path = one.kind.list_path(Some(&one.namespace));
    let path = write_query(arguments, path, "kubectl-client-side-apply").into_string();
    let call = Call::new(Method::POST, path).body(pod_client::client::JSON, &object);
    match node.client.json(call).await {
        Ok(object) => Ok((object, "created")),
        Err(error) => Err(Trouble::from(error).about("creating", &one.source)),
    }
}

async fn change(
    node: &Node,
    arguments: &Apply,
    one: &Placed<'_>,
    modified: &Value,
    current: Value,
) -> Outcome<(Value, &'static str)> {
    let last = current["metadata"]["annotations"][ANNOTATION].as_str();
    if arguments.dry_run == DryRun::Client {
        return Ok((current, "configured"));
    }
    if last.is_none() {
        eprintln!(
            "Warning: resource {}/{} is missing the {ANNOTATION} annotation which is required by outrigger apply. outrigger \
             apply should only be used on resources created declaratively by either kubectl create --save-config or outrigger \
             apply. The missing annotation will be patched automatically.",
            one.kind.resource(),
            one.name
        );
    }
    let original: Option<Value> = last.and_then(|text| serde_json::from_str(text).ok());
    let ty = Type::of_kind(&one.kind.group, &one.kind.version, &one.kind.kind);
    let patch = three_way(ty, original.as_ref(), modified, &current);
    if patch.is_empty() {
        return Ok((current, "unchanged"));
    }
    let content_type = if ty.is_some() { STRATEGIC } else { MERGE };
    let path = write_query(arguments, one.path(), "kubectl-client-side-apply").into_string();
    let patch = Value::Object(patch);
    match node.client.json(Call::new(Method::PATCH, path).body(content_type, &patch)).await {
        Ok(object) => Ok((object, "configured")),
        Err(error) => {
            let shown = json::compact(&patch);
            let resource = format!("{}/{}, Resource={}", one.kind.group, one.kind.version, one.kind.plural);
            let doing = format!(
                "applying patch:\n{shown}\nto:\nResource: \"{}\", GroupVersionKind: \"{}/{}, Kind={}\"\nName: \"{}\", \
                 Namespace: \"{}\"\nfor:",
                resource, one.kind.group, one.kind.version, one.kind.kind, one.name, one.namespace
            );
            Err(Trouble::from(error).about(&doing, &one.source))
        }
    }
}

/// The object with the annotation that remembers it.
fn annotated(object: &Value) -> Value {
    let mut object = object.clone();
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return object };
    let annotations = metadata.entry("annotations").or_insert_with(|| Value::Object(Map::new()));
    if !annotations.is_object() {
        *annotations = Value::Object(Map::new());
    }
    if let Some(annotations) = annotations.as_object_mut() {
        annotations.remove(ANNOTATION);
    }
    let remembered = format!("{}\n", json::compact(&object));
    object["metadata"]["annotations"][ANNOTATION] = remembered.into();
    object
}

/// A field that is null in a manifest is one that shall not be there.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(members) => Value::Object(
            members
                .iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(name, value)| (name.clone(), without_nulls(value)))
                .collect(),
        ),
        Value::Array(items) => items.iter().map(without_nulls).collect(),
        other => other.clone(),
    }
}

/// A label selector for objects that no server has yet: `a=b`, `a!=b`, `a`, `!a`, separated by commas.
struct Labels(Vec<(String, Wanted)>);

enum Wanted {
    Is(String),
    IsNot(String),
    There,
    Absent,
}

impl Labels {
    fn parse(text: &str) -> Outcome<Labels> {
        if text.contains('(') {
            return super::text(format!("selector \"{text}\": sets are not understood here; use a=b, a!=b, a or !a"));
        }
        let one = |part: &str| {
            let part = part.trim();
            let pair = |name: &str, value: &str| (name.trim().to_owned(), value.trim().to_owned());
            if let Some((name, value)) = part.split_once("!=") {
                let (name, value) = pair(name, value);
                return (name, Wanted::IsNot(value));
            }
            if let Some((name, value)) = part.split_once('=') {
                let (name, value) = pair(name, value.trim_start_matches('='));
                return (name, Wanted::Is(value));
            }
            match part.strip_prefix('!') {
                Some(name) => (name.trim().to_owned(), Wanted::Absent),
                None => (part.to_owned(), Wanted::There),
            }
        };
        Ok(Labels(text.split(',').filter(|part| !part.trim().is_empty()).map(one).collect()))
    }

    fn admits(&self, object: &Value) -> bool {
        self.0.iter().all(|(name, wanted)| {
            let value = object["metadata"]["labels"][name.as_str()].as_str();
            match wanted {
                Wanted::Is(text) => value == Some(text),
                Wanted::IsNot(text) => value != Some(text),
                Wanted::There => value.is_some(),
                Wanted::Absent => value.is_none(),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_annotation_is_kubectls() {
        let object =
            json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "a", "annotations": {ANNOTATION: "old"}}});
        let text = annotated(&object)["metadata"]["annotations"][ANNOTATION].clone();
        assert_eq!(text, "{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{\"annotations\":{},\"name\":\"a\"}}\n");
    }

    #[test]
    fn labels_choose() {
        let object = json!({"metadata": {"labels": {"a": "1", "b": "2"}}});
        for (text, admitted) in [("a=1", true), ("a==1,b!=3", true), ("a,!c", true), ("a=2", false), ("!a", false)] {
            assert_eq!(Labels::parse(text).expect("valid").admits(&object), admitted, "{text}");
        }
        assert!(Labels::parse("a in (b)").is_err());
    }
}
