//! `outrigger describe`: objects with their details and events, laid out as kubectl 1.35 does.

mod container;
mod data;
mod generic;
mod node;
pub(super) mod page;
mod pod;
mod service;
mod volume;

use pod_client::query::Query;
use pod_client::{Call, Kind};
use serde_json::Value;

use self::page::Page;
use super::arguments::{Describe, Selectors};
use super::target::{self, Asked, Scope, take_items};
use super::value;
use super::{Node, Outcome, Trouble};
use crate::cli::Global;
use crate::{exit, stdout};

pub(crate) fn run(global: &Global, arguments: &Describe) -> anyhow::Result<u8> {
    let node = Node::connect(global, &arguments.server)?;
    super::run(async { describe(&node, arguments).await })
}

async fn describe(node: &Node, arguments: &Describe) -> Result<u8, Vec<Trouble>> {
    let one = |trouble| vec![trouble];
    let selectors = Selectors { selector: arguments.selector.clone(), field_selector: None };
    let scope = Scope { selectors, all_namespaces: arguments.all_namespaces, every: true };
    let asked = target::asked(node, &arguments.words, &arguments.files, &scope).await.map_err(one)?;
    let mut troubles = Vec::new();
    let found = target::objects(node, asked, &scope, &mut troubles).await;
    if let ([trouble], [word, prefix]) = (troubles.as_slice(), arguments.words.as_slice())
        && trouble.is_not_found()
    {
        return by_prefix(node, arguments, word, prefix, troubles).await;
    }
    let mut text = String::new();
    for (kind, object) in &found {
        match page(node, arguments, kind, object).await {
            Ok(page) if text.is_empty() => text = page,
            Ok(page) => text.push_str(&format!("\n\n{page}")),
            Err(trouble) => troubles.push(trouble),
        }
    }
    stdout::print(&text).map_err(|error| one(error.into()))?;
    if !troubles.is_empty() {
        return Err(troubles);
    }
    if found.is_empty() {
        match arguments.all_namespaces {
            true => eprintln!("No resources found"),
            false => eprintln!("No resources found in {} namespace.", node.namespace),
        }
    }
    Ok(exit::OK)
}

/// A name that is none may be the beginning of some.
async fn by_prefix(
    node: &Node,
    arguments: &Describe,
    word: &str,
    prefix: &str,
    troubles: Vec<Trouble>,
) -> Result<u8, Vec<Trouble>> {
    let one = |trouble| vec![trouble];
    let kind = node.kind(word).await.map_err(one)?;
    let mut found = false;
    let asked = Asked::Every(vec![kind]);
    let mut failures = Vec::new();
    for (kind, object) in target::objects(node, asked, &Scope::default(), &mut failures).await {
        if value::name(&object).starts_with(prefix) {
            found = true;
            let text = page(node, arguments, kind, &object).await.map_err(one)?;
            stdout::print(format!("{text}\n")).map_err(|error| one(error.into()))?;
        }
    }
    if found { Ok(exit::OK) } else { Err(troubles) }
}

async fn page(node: &Node, arguments: &Describe, kind: &Kind, object: &Value) -> Outcome<String> {
    let mut page = Page::new();
    let events = match arguments.show_events {
        true => events(node, kind, object).await,
        false => None,
    };
    match (kind.group.as_str(), kind.kind.as_str()) {
        ("", "Pod") => pod::describe(&mut page, object),
        ("", "Node") => node::describe(&mut page, node, object).await?,
        ("", "Namespace") => data::namespace(&mut page, node, object).await?,
        ("", "Service") => service::describe(&mut page, node, object).await,
        ("", "ConfigMap") => data::config_map(&mut page, object),
        ("", "Secret") => data::secret(&mut page, object),
        ("", "ServiceAccount") => data::service_account(&mut page, object),
        _ => generic::describe(&mut page, object),
    }
    // These two have none.
    if let Some(events) = events.filter(|_| !matches!(kind.kind.as_str(), "Namespace" | "Secret")) {
        page.events(events);
    }
    Ok(page.finish())
}

/// The events of an object; nothing if they cannot be had.
async fn events(node: &Node, kind: &Kind, object: &Value) -> Option<Vec<Value>> {
    let (name, namespace) = (value::name(object), value::namespace(object));
    let uid = value::text(object, "metadata.uid");
    let mut selector = format!("involvedObject.name={name},involvedObject.namespace={namespace}");
    if kind.kind != "Pod" {
        selector.push_str(&format!(",involvedObject.kind={}", kind.kind));
    }
    let mut uids = vec![uid];
    if kind.kind == "Node" {
        // Some components know their node only by name.
        uids.push(name);
    }
    let events = node.kind("events").await.ok()?;
    let mut all = Vec::new();
    for uid in uids {
        let path = Query::new(events.list_path((!namespace.is_empty()).then_some(namespace)))
            .with("fieldSelector", &format!("{selector},involvedObject.uid={uid}"))
            .with("limit", "500");
        let mut list = node.client.json(Call::get(path.into_string())).await.ok()?;
        all.extend(take_items(&mut list, events));
    }
    Some(all)
}
