//! `outrigger delete`, and waiting until what was deleted is gone.

use std::time::Duration;

use http::Method;
use pod_client::{Call, CallError};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::arguments::{Delete, DryRun};
use super::target::{self, Asked, Named, Scope};
use super::value;
use super::{Node, Outcome, Trouble, duration};
use crate::cli::Global;
use crate::{exit, stdout};

/// As long as kubectl waits for what has no limit.
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

pub(crate) fn run(global: &Global, arguments: &Delete) -> anyhow::Result<u8> {
    let node = Node::connect(global, &arguments.server)?;
    super::run(async { delete(&node, arguments).await })
}

async fn delete(node: &Node, arguments: &Delete) -> Result<u8, Vec<Trouble>> {
    let one = |trouble| vec![trouble];
    let refuse = |text: &str| Err(vec![Trouble::Text(text.to_owned())]);
    let selectors = &arguments.selectors;
    if arguments.all && selectors.selector.is_some() {
        return refuse("setting 'all' parameter but found a non empty selector. ");
    }
    if arguments.all && selectors.field_selector.is_some() {
        return refuse("cannot set --all and --field-selector at the same time");
    }
    let grace = grace(arguments).map_err(one)?;
    let limit = duration(&arguments.timeout).map_err(|reason| one(Trouble::Text(reason)))?;
    if arguments.force && grace == Some(0) {
        eprintln!(
            "Warning: Immediate deletion does not wait for confirmation that the running resource has been terminated. The \
             resource may continue to run on the cluster indefinitely."
        );
    }
    let scope = Scope { selectors: selectors.clone(), all_namespaces: arguments.all_namespaces, every: arguments.all };
    let asked = target::asked(node, &arguments.words, &arguments.files, &scope).await.map_err(one)?;
    let ignore = arguments.ignore_not_found || matches!(asked, Asked::Every(_));
    let mut troubles = Vec::new();
    let targets = targets(node, asked, &scope, &mut troubles).await;
    if node.enforced && !arguments.all_namespaces && targets.iter().any(|target| !target.kind.namespaced) {
        eprintln!("Warning: deleting cluster-scoped resources, not scoped to the provided namespace");
    }
    let mut deleted: Vec<(Named<'_>, String)> = Vec::new();
    let found = targets.len();
    for target in targets {
        match remove(node, arguments, &target, grace).await {
            Ok(uid) => {
                say(arguments, &target, grace).map_err(|error| one(error.into()))?;
                deleted.push((target, uid));
            }
            Err(trouble) if ignore && trouble.is_not_found() => {}
            Err(trouble) if target.source.is_empty() => troubles.push(trouble),
            Err(trouble) => troubles.push(trouble.about("deleting", &target.source)),
        }
    }
    if !troubles.is_empty() {
        return Err(troubles);
    }
    if found == 0 {
        stdout::print("No resources found\n").map_err(|error| one(error.into()))?;
    }
    if arguments.wait && arguments.dry_run == DryRun::None {
        let limit = if limit.is_zero() { WEEK } else { Duration::try_from(limit).unwrap_or(Duration::ZERO) };
        let deadline = Instant::now() + limit;
        for (target, uid) in &deleted {
            match until_gone(node, target, uid, deadline).await {
                Ok(()) => {}
                // Whoever may not look may still delete.
                Err(Trouble::Call(error)) if error.is("Forbidden") || error.is("MethodNotAllowed") => {}
                Err(trouble) => return Err(one(trouble)),
            }
        }
    }
    Ok(exit::OK)
}

/// Seconds; nothing for the object's own.
fn grace(arguments: &Delete) -> Outcome<Option<i64>> {
    let asked = (arguments.grace_period >= 0).then_some(arguments.grace_period);
    match (arguments.now, arguments.force, asked) {
        (true, _, Some(_)) => super::text("--now and --grace-period cannot be specified together"),
        (_, true, Some(1..)) => super::text("--force and --grace-period greater than 0 cannot be specified together"),
        (true, true, None) => super::text("--force and --grace-period greater than 0 cannot be specified together"),
        (true, false, None) => Ok(Some(1)),
        (false, true, _) => Ok(Some(0)),
        // Only --force means at once.
        (false, false, Some(0)) => Ok(Some(1)),
        (false, false, asked) => Ok(asked),
    }
}

async fn targets<'a>(node: &'a Node, asked: Asked<'a>, scope: &Scope, troubles: &mut Vec<Trouble>) -> Vec<Named<'a>> {
    match asked {
        Asked::Named(named) => named,
        Asked::Every(_) => {
            let found = target::objects(node, asked, scope, troubles).await;
            let named = |(kind, object): (_, Value)| Named {
                kind,
                namespace: value::namespace(&object).to_owned(),
                name: value::name(&object).to_owned(),
                source: String::new(),
            };
            found.into_iter().map(named).collect()
        }
    }
}

/// The uid of what was deleted; empty if the server does not say.
async fn remove(node: &Node, arguments: &Delete, target: &Named<'_>, grace: Option<i64>) -> Outcome<String> {
    if arguments.dry_run == DryRun::Client {
        return Ok(String::new());
    }
    let policy = match arguments.cascade.as_str() {
        "orphan" | "false" => "Orphan",
        "foreground" => "Foreground",
        _ => "Background",
    };
    let mut options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": policy});
    if let Some(seconds) = grace {
        options["gracePeriodSeconds"] = seconds.into();
    }
    if arguments.dry_run == DryRun::Server {
        options["dryRun"] = json!(["All"]);
    }
    let call = Call::new(Method::DELETE, target.path()).body(pod_client::client::JSON, &options);
    let answer = node.client.json(call).await?;
    let uid = if answer["kind"] == "Status" { &answer["details"]["uid"] } else { &answer["metadata"]["uid"] };
    Ok(uid.as_str().unwrap_or_default().to_owned())
}

fn say(arguments: &Delete, target: &Named<'_>, grace: Option<i64>) -> std::io::Result<()> {
    let kind = target.kind.said();
    if arguments.output.is_some() {
        return stdout::print(format!("{kind}/{}\n", target.name));
    }
    let word = if grace == Some(0) { "force deleted" } else { "deleted" };
    let place = if target.kind.namespaced { format!(" from {} namespace", target.namespace) } else { String::new() };
    let suffix = match arguments.dry_run {
        DryRun::None => "",
        DryRun::Client => " (dry run)",
        DryRun::Server => " (server dry run)",
    };
    stdout::print(format!("{kind} \"{}\" {word}{place}{suffix}\n", target.name))
}

/// Until no object of that name and uid is there.
pub(super) async fn until_gone(node: &Node, target: &Named<'_>, uid: &str, deadline: Instant) -> Outcome<()> {
    let gone = async {
        loop {
            let object = match node.client.json(Call::get(target.path())).await {
                Ok(object) => object,
                Err(error) if error.is_not_found() => return Ok(()),
                Err(error) => return Err(Trouble::from(error)),
            };
            // Another one of that name is not the one that was deleted.
            if !uid.is_empty() && value::text(&object, "metadata.uid") != uid {
                return Ok(());
            }
            let version = value::text(&object, "metadata.resourceVersion").to_owned();
            match super::wait::follow(node, target, &version, |event| Ok((event.kind == "DELETED").then_some(()))).await
            {
                Ok(Some(())) => return Ok(()),
                // The server ended the watch, or has forgotten that version: look again.
                Ok(None) => {}
                Err(Trouble::Call(CallError::Refused(status))) if matches!(status.code, 410) => {}
                Err(trouble) => return Err(trouble),
            }
        }
    };
    match timeout_at(deadline, gone).await {
        Ok(outcome) => outcome,
        Err(_) => Err(super::wait::timed_out(target)),
    }
}
