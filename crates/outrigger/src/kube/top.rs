//! `outrigger top`: what pods and the node use now.

use std::cmp::Reverse;

use pod_api::quantity::{self, Amount};
use pod_client::print::columns::Columns;
use pod_client::query::Query;
use pod_client::{Call, Kind};
use serde_json::Value;

use super::arguments::Top;
use super::target::take_items;
use super::value::{self, items};
use super::{Node, Outcome, text};
use crate::cli::Global;
use crate::{exit, stdout};

pub(crate) fn run(global: &Global, arguments: &Top) -> anyhow::Result<u8> {
    let node = Node::connect(global, &arguments.server)?;
    super::run(async { top(&node, arguments).await.map_err(|trouble| vec![trouble]) })
}

/// CPU and memory.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Usage {
    cpu: Amount,
    memory: Amount,
}

impl Usage {
    fn read(value: &Value) -> Self {
        let amount = |name: &str| {
            value[name]
                .as_str()
                .and_then(|text| quantity::parse(text).ok())
                .map(|(amount, _)| amount)
                .unwrap_or_default()
        };
        Self { cpu: amount("cpu"), memory: amount("memory") }
    }

    fn plus(self, other: Self) -> Self {
        Self { cpu: self.cpu + other.cpu, memory: self.memory + other.memory }
    }

    fn cpu(self) -> String {
        format!("{}m", self.cpu.millis())
    }

    fn memory(self) -> String {
        format!("{}Mi", self.memory.whole() / (1024 * 1024))
    }

    fn rank(self, column: Option<&str>) -> Reverse<i64> {
        match column {
            Some("cpu") => Reverse(self.cpu.millis()),
            Some(_) => Reverse(self.memory.whole()),
            None => Reverse(0),
        }
    }
}

async fn top(node: &Node, arguments: &Top) -> Outcome<u8> {
    if arguments.name.is_some() && arguments.selector.is_some() {
        return text("only one of NAME or selector can be provided");
    }
    let nodes = arguments.what.starts_with('n');
    let kind = if nodes { "nodes.metrics.k8s.io" } else { "pods.metrics.k8s.io" };
    let Ok(kind) = node.discovery().await?.find(kind) else { return text("Metrics API not available") };
    let found = fetch(node, kind, arguments).await?;
    let printed = if nodes { self::nodes(node, arguments, found).await? } else { pods(node, arguments, found) };
    stdout::print(Columns::table().render(&printed))?;
    Ok(exit::OK)
}

async fn fetch(node: &Node, kind: &Kind, arguments: &Top) -> Outcome<Vec<Value>> {
    if let Some(name) = &arguments.name {
        return Ok(vec![node.client.json(Call::get(kind.path(&node.namespace, name))).await?]);
    }
    let namespace = (!arguments.all_namespaces).then_some(node.namespace.as_str());
    let path = Query::new(kind.list_path(namespace))
        .maybe("labelSelector", arguments.selector.as_deref().unwrap_or_default())
        .into_string();
    let mut list = node.client.json(Call::get(path)).await?;
    Ok(take_items(&mut list, kind))
}

fn pods(node: &Node, arguments: &Top, mut found: Vec<Value>) -> String {
    if found.is_empty() {
        match arguments.all_namespaces {
            true => eprintln!("No resources found"),
            false => eprintln!("No resources found in {} namespace.", node.namespace),
        }
        return String::new();
    }
    let sum = |pod: &Value| {
        items(pod, "containers").iter().fold(Usage::default(), |sum, one| sum.plus(Usage::read(&one["usage"])))
    };
    let sort = arguments.sort_by.as_deref();
    let place = |pod: &Value| if arguments.all_namespaces { value::namespace(pod).to_owned() } else { String::new() };
    found.sort_by_cached_key(|pod| (sum(pod).rank(sort), place(pod), value::name(pod).to_owned()));
    let mut text = String::new();
    if !arguments.no_headers {
        let optional = |on: bool, name: &str| if on { format!("{name}\t") } else { String::new() };
        text.push_str(&optional(arguments.all_namespaces, "NAMESPACE"));
        text.push_str(&optional(arguments.containers, "POD"));
        text.push_str("NAME\tCPU(cores)\tMEMORY(bytes)\t\n");
    }
    for pod in &found {
        let place = if arguments.all_namespaces { format!("{}\t", value::namespace(pod)) } else { String::new() };
        let name = value::name(pod);
        if !arguments.containers {
            let usage = sum(pod);
            text.push_str(&format!("{place}{name}\t{}\t{}\t\n", usage.cpu(), usage.memory()));
            continue;
        }
        let mut containers: Vec<(&str, Usage)> =
            items(pod, "containers").iter().map(|one| (value::text(one, "name"), Usage::read(&one["usage"]))).collect();
        containers.sort_by_key(|(name, usage)| (usage.rank(sort), *name));
        for (container, usage) in containers {
            text.push_str(&format!("{place}{name}\t{container}\t{}\t{}\t\n", usage.cpu(), usage.memory()));
        }
    }
    text
}

async fn nodes(node: &Node, arguments: &Top, mut found: Vec<Value>) -> Outcome<String> {
    if found.is_empty() {
        return text("metrics not available yet");
    }
    let usage = |one: &Value| Usage::read(&one["usage"]);
    found.sort_by_cached_key(|one| (usage(one).rank(arguments.sort_by.as_deref()), value::name(one).to_owned()));
    let mut printed = String::new();
    if !arguments.no_headers {
        printed.push_str("NAME\tCPU(cores)\tCPU(%)\tMEMORY(bytes)\tMEMORY(%)\t\n");
    }
    let kind = node.kind("nodes").await?;
    for one in &found {
        let object = node.client.json(Call::get(kind.path("", value::name(one)))).await?;
        let (used, there) = (usage(one), Usage::read(&object["status"]["allocatable"]));
        let percent = |part: Amount, whole: Amount| match whole.millis() {
            0 => 0,
            millis => (part.millis() as f64 / millis as f64 * 100.0) as i64,
        };
        let (cpu, memory) = (percent(used.cpu, there.cpu), percent(used.memory, there.memory));
        printed.push_str(&format!("{}\t{}\t{cpu}%\t{}\t{memory}%\t\n", value::name(one), used.cpu(), used.memory()));
    }
    Ok(printed)
}
