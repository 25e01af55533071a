//! `outrigger events`: what happened, oldest first.

use jiff::Timestamp;
use pod_client::Call;
use pod_client::print::columns::Columns;
use pod_client::print::{json, yaml};
use pod_client::query::Query;
use pod_client::watch::Watch;
use serde_json::{Value, json};

use super::arguments::Events;
use super::describe::page::event_age;
use super::target::take_items;
use super::value::{self, text as text_at};
use super::{Node, Outcome, text};
use crate::cli::Global;
use crate::{exit, stdout};

pub(crate) fn run(global: &Global, arguments: &Events) -> anyhow::Result<u8> {
    let node = Node::connect(global, &arguments.server)?;
    super::run(async { events(&node, arguments).await.map_err(|trouble| vec![trouble]) })
}

async fn events(node: &Node, arguments: &Events) -> Outcome<u8> {
    if arguments.types.iter().any(|one| !one.eq_ignore_ascii_case("normal") && !one.eq_ignore_ascii_case("warning")) {
        return text("valid --types are Normal or Warning");
    }
    let kind = node.kind("events").await?;
    let namespace = (!arguments.all_namespaces).then_some(node.namespace.as_str());
    let mut query = Query::new(kind.list_path(namespace));
    if let Some(word) = &arguments.object {
        let Some((of, name)) = word.split_once('/') else { return text("--for must be in resource/name form") };
        if name.contains('/') {
            return text("arguments in resource/name form may not have more than one slash");
        }
        let of = node.kind(of).await?;
        let version = of.api_version();
        query = query.with(
            "fieldSelector",
            &format!("involvedObject.kind={},involvedObject.apiVersion={version},involvedObject.name={name}", of.kind),
        );
    }
    let wanted = |event: &Value| {
        arguments.types.is_empty() || arguments.types.iter().any(|one| one.eq_ignore_ascii_case(text_at(event, "type")))
    };
    let mut columns = Columns::table();
    let mut headed = arguments.no_headers;
    if arguments.watch {
        let mut watch = Watch::open(&node.client, Call::get(query.with("watch", "true").into_string())).await?;
        while let Some(event) = watch.next().await? {
            // That an event is forgotten is no news.
            if matches!(event.kind.as_str(), "ADDED" | "MODIFIED") && wanted(&event.object) {
                let printed = print(arguments, std::slice::from_ref(&event.object), &mut columns, &mut headed, true);
                stdout::write(printed)?;
            }
        }
        return Ok(exit::OK);
    }
    let mut list = node.client.json(Call::get(query.with("limit", "500").into_string())).await?;
    let mut events = take_items(&mut list, kind);
    events.retain(wanted);
    if events.is_empty() {
        match arguments.all_namespaces {
            true => eprintln!("No events found."),
            false => eprintln!("No events found in {} namespace.", node.namespace),
        }
        return Ok(exit::OK);
    }
    events.sort_by_key(last_seen);
    stdout::print(print(arguments, &events, &mut columns, &mut headed, false))?;
    Ok(exit::OK)
}

fn last_seen(event: &Value) -> Option<Timestamp> {
    let times = [&event["series"]["lastObservedTime"], &event["lastTimestamp"], &event["eventTime"]];
    times.into_iter().find_map(|time| time.as_str()?.parse().ok())
}

fn print(arguments: &Events, events: &[Value], columns: &mut Columns, headed: &mut bool, single: bool) -> String {
    if let Some(form) = &arguments.output {
        let object = match events {
            [one] if single => one.clone(),
            several => json!({"apiVersion": "v1", "kind": "EventList", "metadata": {}, "items": several}),
        };
        return if form == "json" { format!("{}\n", json::pretty(&object)) } else { yaml::write(&object) };
    }
    let mut text = String::new();
    if !std::mem::replace(headed, true) {
        let place = if arguments.all_namespaces { "NAMESPACE\t" } else { "" };
        text.push_str(&format!("{place}LAST SEEN\tTYPE\tREASON\tOBJECT\tMESSAGE\n"));
    }
    let now = Timestamp::now();
    for event in events {
        if arguments.all_namespaces {
            text.push_str(&format!("{}\t", value::namespace(event)));
        }
        let object = format!("{}/{}", text_at(event, "involvedObject.kind"), text_at(event, "involvedObject.name"));
        let message = text_at(event, "message").trim().replace('\u{1b}', "^[");
        text.push_str(&format!(
            "{}\t{}\t{}\t{object}\t{message}\n",
            event_age(event, now),
            text_at(event, "type"),
            text_at(event, "reason")
        ));
    }
    columns.render(&text)
}
