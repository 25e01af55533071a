//! `outrigger-logs import`: another agent's configuration as ours. What has no counterpart is refused with its place;
//! what needs none is said. Nothing is dropped silently.

mod fluent_bit;
mod promtail;

use std::collections::BTreeMap;

use daemon::config::load;
use daemon::config::print::yaml;
use daemon::config::tree::{Data, Mark, Node, parse};
use serde_json::{Map, Value, json};

pub(super) use fluent_bit::fluent_bit;
pub(super) use promtail::promtail;

use crate::config::{Spec, check};

/// Ours, unless something was refused; and everything to be said, with its place.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) document: Option<String>,
    pub(super) notes: Vec<String>,
}

/// For any text: what comes out is a document of ours, or nothing.
#[cfg(test)]
pub(crate) fn survives(text: &str) {
    for outcome in [fluent_bit(text), promtail(text)] {
        if let Some(document) = outcome.document {
            assert!(load::<Spec>(&document, "LogAgent", check).is_ok(), "{document}");
        }
    }
}

#[derive(Debug, Default)]
struct Notes {
    lines: Vec<(Mark, String)>,
    refused: bool,
}

impl Notes {
    fn refuse(&mut self, mark: Mark, message: impl Into<String>) {
        self.refused = true;
        self.lines.push((mark, message.into()));
    }

    fn note(&mut self, mark: Mark, message: impl Into<String>) {
        self.lines.push((mark, format!("note: {}", message.into())));
    }
}

/// What was gathered.
#[derive(Debug, Default)]
struct Spoken {
    sources: Vec<Value>,
    stages: Vec<Value>,
    sinks: Vec<Value>,
    fields: Map<String, Value>,
}

fn only_document(text: &str, notes: &mut Notes) -> Option<Node> {
    match parse(text) {
        Ok(documents) if documents.len() == 1 => documents.into_iter().next(),
        Ok(_) => {
            notes.refuse(Mark { line: 1, column: 1 }, "must be one YAML document");
            None
        }
        Err(unreadable) => {
            notes.refuse(unreadable.mark, unreadable.message);
            None
        }
    }
}

fn finish(mut spoken: Spoken, mut notes: Notes) -> Outcome {
    let mut document = None;
    if !notes.refused {
        let mut spec = json!({ "sources": spoken.sources });
        if !spoken.stages.is_empty() {
            spec["stages"] = Value::Array(spoken.stages);
        }
        if !spoken.fields.is_empty() {
            spec["fields"] = Value::Object(std::mem::take(&mut spoken.fields));
        }
        spec["sinks"] = Value::Array(spoken.sinks);
        let text = yaml(&json!({ "apiVersion": "outrigger.dev/v1alpha1", "kind": "LogAgent", "spec": spec }));
        // Its words may be ours and its values not.
        match load::<Spec>(&text, "LogAgent", check) {
            Ok(_) => document = Some(text),
            Err(problems) => {
                for problem in problems {
                    notes.refuse(Mark { line: 1, column: 1 }, format!("in the result: {problem}"));
                }
            }
        }
    }
    notes.lines.sort();
    let notes = notes.lines.iter().map(|(mark, text)| format!("{}:{}: {text}", mark.line, mark.column));
    Outcome { document, notes: notes.collect() }
}

/// A map whose members are taken one by one; what is left over is refused. Names are told apart without their case.
struct Section<'a> {
    path: String,
    members: BTreeMap<String, (&'a Node, Mark)>,
    /// Names that may stand more than once are kept in order.
    repeated: Vec<(String, &'a Node)>,
}

impl<'a> Section<'a> {
    fn of(path: &str, node: &'a Node, notes: &mut Notes) -> Section<'a> {
        let mut members = BTreeMap::new();
        let mut repeated = Vec::new();
        match &node.data {
            Data::Map(list) => {
                for member in list {
                    let name = member.name.to_ascii_lowercase();
                    repeated.push((name.clone(), &member.node));
                    members.insert(name, (&member.node, member.mark));
                }
            }
            _ if node.is_null() => {}
            _ => notes.refuse(node.mark, format!("{path}: must be a map")),
        }
        Section { path: path.to_owned(), members, repeated }
    }

    fn take(&mut self, name: &str) -> Option<&'a Node> {
        self.members.remove(name).map(|(node, _)| node).filter(|node| !node.is_null())
    }

    fn text(&mut self, name: &str) -> Option<String> {
        self.take(name).and_then(scalar).map(str::to_owned)
    }

    fn is_on(&mut self, name: &str) -> Option<bool> {
        self.text(name).map(|text| matches!(text.to_ascii_lowercase().as_str(), "on" | "true" | "yes" | "1"))
    }

    /// Takes what has no counterpart because none is needed.
    fn needless(&mut self, names: &[&str], why: &str, notes: &mut Notes) {
        for name in names {
            if let Some((_, mark)) = self.members.remove(*name) {
                notes.note(mark, format!("{}: {why}", self.child(name)));
            }
        }
    }

    fn child(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    fn finish(self, notes: &mut Notes) {
        for (name, (_, mark)) in &self.members {
            notes.refuse(*mark, format!("{}: has no counterpart here", self.child(name)));
        }
    }
}

fn scalar(node: &Node) -> Option<&str> {
    match &node.data {
        Data::Scalar(text, _) => Some(text),
        _ => None,
    }
}

/// The items of a list, or the single one that stands without.
fn items(node: &Node) -> Vec<&Node> {
    match &node.data {
        Data::List(items) => items.iter().collect(),
        _ if node.is_null() => Vec::new(),
        _ => vec![node],
    }
}

fn split(text: &str) -> Vec<String> {
    text.split(',').map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

/// `5m`, `1h`, `2d`, or seconds.
fn duration(text: &str) -> Option<String> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
        return Some(format!("{text}s"));
    }
    if let Some(days) = text.strip_suffix('d').and_then(|days| days.parse::<u64>().ok()) {
        return Some(format!("{}h", days * 24));
    }
    daemon::config::Seconds::parse(text).map(|_| text.to_owned())
}

/// `256k`, `5M`, `1MB`: powers of 1024 in both tools.
fn size(text: &str) -> Option<String> {
    let upper = text.trim().to_ascii_uppercase();
    let upper = upper.strip_suffix('B').unwrap_or(&upper);
    let (digits, unit) = match upper.as_bytes().last()? {
        b'K' => (&upper[..upper.len() - 1], "Ki"),
        b'M' => (&upper[..upper.len() - 1], "Mi"),
        b'G' => (&upper[..upper.len() - 1], "Gi"),
        _ => (upper, ""),
    };
    digits.parse::<u64>().ok().map(|number| format!("{number}{unit}"))
}

/// A condition on the text, or on a field.
fn condition(key: &str, pattern: &str) -> Value {
    if matches!(key, "log" | "message" | "msg" | "MESSAGE" | "$log" | "$message") {
        json!({ "matches": pattern })
    } else {
        json!({ "fields": { key.trim_start_matches('$'): pattern } })
    }
}

#[cfg(test)]
mod tests;
