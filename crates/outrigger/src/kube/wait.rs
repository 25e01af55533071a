//! `outrigger wait`: until a condition, a field, or their absence is there.

use std::time::Duration;

use pod_client::print::path::Template;
use pod_client::query::Query;
use pod_client::watch::{Event, Watch};
use pod_client::{Call, CallError};
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::arguments::Wait;
use super::delete::until_gone;
use super::get::Form;
use super::target::{self, Asked, Named, Scope};
use super::value;
use super::{Node, Outcome, Trouble, duration, text};
use crate::cli::Global;
use crate::{exit, stdout};

const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);
/// How often is looked whether something has been made.
const LOOK: Duration = Duration::from_millis(500);

/// What is waited for.
#[derive(Debug, PartialEq)]
enum Goal {
    Delete,
    Create,
    Condition { name: String, value: String },
    Path { template: Template, value: Option<String> },
}

pub(crate) fn run(global: &Global, arguments: &Wait) -> anyhow::Result<u8> {
    let node = Node::connect(global, &arguments.server)?;
    super::run(async { wait(&node, arguments).await.map_err(|trouble| vec![trouble]) })
}

async fn wait(node: &Node, arguments: &Wait) -> Outcome<u8> {
    let goal = Goal::parse(&arguments.what)?;
    let form = match &arguments.output {
        Some(word) => Some(Form::parse(Some(word))?),
        None => None,
    };
    let limit = duration(&arguments.timeout).map_err(Trouble::Text)?;
    let once = limit.is_zero();
    let limit = if limit.is_negative() { WEEK } else { Duration::try_from(limit).unwrap_or(WEEK) };
    let deadline = Instant::now() + limit;
    let scope = Scope {
        selectors: arguments.selectors.clone(),
        all_namespaces: arguments.all_namespaces,
        every: arguments.all,
    };
    let asked = target::asked(node, &arguments.words, &arguments.files, &scope).await?;
    let mut troubles = Vec::new();
    let waiting = async {
        match asked {
            Asked::Named(named) if goal == Goal::Create => created(node, named, once).await,
            Asked::Named(named) => Ok(named),
            every => {
                let found = loop {
                    let kinds = match &every {
                        Asked::Every(kinds) => Asked::Every(kinds.clone()),
                        Asked::Named(_) => break Vec::new(),
                    };
                    let found = target::objects(node, kinds, &scope, &mut troubles).await;
                    if goal != Goal::Create || !found.is_empty() || once || !troubles.is_empty() {
                        break found;
                    }
                    tokio::time::sleep(LOOK).await;
                };
                Ok(found
                    .into_iter()
                    .map(|(kind, object)| Named {
                        kind,
                        namespace: value::namespace(&object).to_owned(),
                        name: value::name(&object).to_owned(),
                        source: String::new(),
                    })
                    .collect::<Vec<_>>())
            }
        }
    };
    let targets = timeout_at(if once { Instant::now() + WEEK } else { deadline }, waiting)
        .await
        .map_err(|_| Trouble::Text("timed out waiting for the condition".to_owned()))??;
    if let Some(trouble) = troubles.into_iter().next() {
        return Err(trouble);
    }
    if targets.is_empty() && goal != Goal::Delete {
        return text("no matching resources found");
    }
    let mut first = None;
    for target in &targets {
        match reach(node, target, &goal, deadline, once).await {
            // What was not there to begin with met nothing.
            Ok(None) => {}
            Ok(Some(mut object)) => {
                let said = match &form {
                    None => format!("{}/{} condition met\n", target.kind.said(), target.name),
                    Some(form) => {
                        super::get::hide_managed_fields(&mut object);
                        form.object(target.kind, &object)?
                    }
                };
                stdout::print(said)?;
            }
            Err(trouble) => {
                // All are waited for: one that is late does not hide the others.
                first.get_or_insert(trouble);
                break;
            }
        }
    }
    first.map_or(Ok(exit::OK), Err)
}

async fn created<'a>(node: &Node, named: Vec<Named<'a>>, once: bool) -> Outcome<Vec<Named<'a>>> {
    for one in &named {
        loop {
            match node.client.json(Call::get(one.path())).await {
                Ok(_) => break,
                Err(error) if error.is_not_found() && !once => tokio::time::sleep(LOOK).await,
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(named)
}

/// The object that fits; none of what is gone.
async fn reach(node: &Node, target: &Named<'_>, goal: &Goal, deadline: Instant, once: bool) -> Outcome<Option<Value>> {
    if *goal == Goal::Delete {
        let object = match node.client.json(Call::get(target.path())).await {
            Ok(object) => object,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if once {
            return text(format!("condition not met for {}", target.object_name()));
        }
        until_gone(node, target, value::text(&object, "metadata.uid"), deadline).await?;
        return Ok(Some(object));
    }
    let reached = async {
        loop {
            let object = node.client.json(Call::get(target.path())).await?;
            if goal.is_met(&object)? {
                return Ok(Some(object));
            }
            if once {
                return text(format!("condition not met for {}", target.object_name()));
            }
            let version = value::text(&object, "metadata.resourceVersion").to_owned();
            let check = |event: Event| -> Outcome<Option<Option<Value>>> {
                match event.kind.as_str() {
                    // Looked at again, and not found.
                    "DELETED" => Ok(Some(None)),
                    _ => Ok(goal.is_met(&event.object)?.then_some(Some(event.object))),
                }
            };
            match follow(node, target, &version, check).await {
                Ok(Some(Some(object))) => return Ok(Some(object)),
                Ok(_) => {}
                Err(Trouble::Call(CallError::Refused(status))) if status.code == 410 => {}
                Err(trouble) => return Err(trouble),
            }
        }
    };
    if once {
        return reached.await;
    }
    match timeout_at(deadline, reached).await {
        Ok(outcome) => outcome,
        Err(_) => Err(timed_out(target)),
    }
}

pub(super) fn timed_out(target: &Named<'_>) -> Trouble {
    Trouble::Text(format!("timed out waiting for the condition on {}", target.object_name()))
}

/// Shows `check` each change of one object until it says something; nothing if the server ends the watch first.
pub(super) async fn follow<T>(
    node: &Node,
    target: &Named<'_>,
    version: &str,
    mut check: impl FnMut(Event) -> Outcome<Option<T>>,
) -> Outcome<Option<T>> {
    let query = Query::new(target.kind.list_path(Some(&target.namespace)))
        .with("fieldSelector", &format!("metadata.name={}", target.name))
        .with("resourceVersion", version)
        .with("watch", "true");
    let mut watch = Watch::open(&node.client, Call::get(query.into_string())).await?;
    while let Some(event) = watch.next().await? {
        if event.kind == "BOOKMARK" {
            continue;
        }
        if let Some(found) = check(event)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

// === impl Goal ===

impl Goal {
    fn parse(words: &str) -> Outcome<Goal> {
        match words.to_lowercase().as_str() {
            "delete" => return Ok(Goal::Delete),
            "create" => return Ok(Goal::Create),
            _ => {}
        }
        if let Some(condition) = words.strip_prefix("condition=") {
            let (name, value) = condition.split_once('=').unwrap_or((condition, "true"));
            return Ok(Goal::Condition { name: name.to_owned(), value: value.to_owned() });
        }
        let Some(path) = words.strip_prefix("jsonpath=") else {
            return text(format!("unrecognized condition: \"{words}\""));
        };
        let parts = split_at_equals(path);
        let (path, value) = match parts.as_slice() {
            [path] => (path, None),
            [path, value] => {
                let value = value.trim_matches(['\'', '"']);
                if value.is_empty() {
                    return text(
                        "jsonpath wait has to have a value after equal sign, like --for=jsonpath='{.status.readyReplicas}'=3",
                    );
                }
                (path, Some(value.to_owned()))
            }
            _ => {
                return text(
                    "jsonpath wait format must be --for=jsonpath='{.status.readyReplicas}'=3 or \
                     --for=jsonpath='{.status.readyReplicas}'",
                );
            }
        };
        if path.trim_matches(['\'', '"']).is_empty() {
            return text("jsonpath expression cannot be empty");
        }
        let template =
            Template::relaxed(path.trim_matches(['\'', '"'])).map_err(|error| Trouble::Text(error.to_string()))?;
        Ok(Goal::Path { template, value })
    }

    fn is_met(&self, object: &Value) -> Outcome<bool> {
        match self {
            Goal::Delete => Ok(false),
            Goal::Create => Ok(true),
            Goal::Condition { name, value } => Ok(condition_is(object, name, value)),
            Goal::Path { template, value } => {
                let found = template.find(object).map_err(|error| Trouble::Text(error.to_string()))?;
                match (found.as_slice(), value) {
                    ([], _) => Ok(false),
                    ([_], None) => Ok(true),
                    ([Value::Object(_) | Value::Array(_)], Some(_)) => {
                        text("jsonpath leads to a nested object or list which is not supported")
                    }
                    ([one], Some(value)) => Ok(value::scalar(one).trim() == value.trim()),
                    _ => text("given jsonpath expression matches more than one value"),
                }
            }
        }
    }
}

/// Splits at single `=`; `==` belongs to a filter.
fn split_at_equals(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let last = parts.len() - 1;
        match character {
            '=' if characters.peek() == Some(&'=') => {
                characters.next();
                parts[last].push_str("==");
            }
            '=' => parts.push(String::new()),
            other => parts[last].push(other),
        }
    }
    parts
}

/// A condition that was observed on an older generation of the object says nothing about this one.
fn condition_is(object: &Value, name: &str, wanted: &str) -> bool {
    let conditions = value::items(object, "status.conditions");
    let Some(condition) = conditions.iter().find(|one| value::text(one, "type").eq_ignore_ascii_case(name)) else {
        return false;
    };
    let observed =
        value::integer(condition, "observedGeneration").or(value::integer(object, "status.observedGeneration"));
    if let (Some(generation), Some(observed)) = (value::integer(object, "metadata.generation"), observed)
        && observed < generation
    {
        return false;
    }
    value::text(condition, "status").eq_ignore_ascii_case(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn met(goal: &str, object: &Value) -> Option<bool> {
        Goal::parse(goal).ok()?.is_met(object).ok()
    }

    #[test]
    fn goals_are_kubectls() {
        let object = json!({"metadata": {"generation": 2}, "status": {"phase": "Running", "n": 3, "conditions": [
            {"type": "Ready", "status": "True"}, {"type": "Old", "status": "True", "observedGeneration": 1}]}});
        for (goal, expected) in [
            ("condition=ready", Some(true)),
            ("condition=Ready=false", Some(false)),
            ("condition=Old", Some(false)),
            ("condition=Other", Some(false)),
            ("jsonpath={.status.phase}=Running", Some(true)),
            ("jsonpath='{.status.phase}'=Pending", Some(false)),
            ("jsonpath=.status.n=3", Some(true)),
            ("jsonpath={.status.nothing}", Some(false)),
            ("jsonpath={.status.conditions[?(@.type==\"Ready\")].status}=True", Some(true)),
            ("jsonpath={.status.conditions[*].status}=True", None),
            ("jsonpath={.status}=x", None),
            ("jsonpath={.status.phase}=", None),
            ("ready", None),
        ] {
            assert_eq!(met(goal, &object), expected, "{goal}");
        }
    }
}
