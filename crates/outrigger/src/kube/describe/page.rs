//! The page of a description: lines with levels, whose tabs become columns, and the blocks that all kinds share.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use pod_api::status::human_duration;
use pod_client::print::columns::Columns;
use serde_json::Value;

use crate::kube::value::{self, integer, text};

/// Bytes of an annotation that are shown.
const ANNOTATION: usize = 140;
const HIDDEN: &str = "kubectl.kubernetes.io/last-applied-configuration";

#[derive(Debug)]
pub(super) struct Page {
    /// Columns align within each of these.
    done: String,
    current: String,
    pub(super) now: Timestamp,
    zone: TimeZone,
}

impl Page {
    pub(super) fn new() -> Self {
        Self { done: String::new(), current: String::new(), now: Timestamp::now(), zone: TimeZone::system() }
    }

    /// A whole line, two blanks for each level before it.
    pub(super) fn line(&mut self, level: usize, line: impl AsRef<str>) {
        self.current.extend(std::iter::repeat_n("  ", level));
        // What a container or a user wrote must not move the terminal's cursor.
        self.current.push_str(&line.as_ref().replace('\u{1b}', "^["));
        self.current.push('\n');
    }

    /// `NAME:` and a value.
    pub(super) fn field(&mut self, level: usize, name: &str, value: impl std::fmt::Display) {
        self.line(level, format!("{name}:\t{value}"));
    }

    /// Only if there is one.
    pub(super) fn maybe(&mut self, level: usize, name: &str, value: &str) {
        if !value.is_empty() {
            self.field(level, name, value);
        }
    }

    pub(super) fn head(&mut self, object: &Value) {
        self.field(0, "Name", value::name(object));
        self.field(0, "Namespace", value::namespace(object));
        self.labels_and_annotations(object);
    }

    pub(super) fn labels_and_annotations(&mut self, object: &Value) {
        self.map("Labels", value::members(object, "metadata.labels"));
        self.annotations(object);
    }

    /// One `name=value` below the other.
    pub(super) fn map(&mut self, title: &str, members: Vec<(&str, &Value)>) {
        let lines = members.into_iter().map(|(name, value)| format!("{name}={}", value::scalar(value)));
        self.list(title, lines.collect());
    }

    pub(super) fn list(&mut self, title: &str, lines: Vec<String>) {
        if lines.is_empty() {
            return self.field(0, title, "<none>");
        }
        for (index, line) in lines.into_iter().enumerate() {
            match index {
                0 => self.line(0, format!("{title}:\t{line}")),
                _ => self.line(0, format!("\t{line}")),
            }
        }
    }

    fn annotations(&mut self, object: &Value) {
        let mut lines = Vec::new();
        for (name, value) in value::members(object, "metadata.annotations") {
            let value = value.as_str().unwrap_or_default();
            let value = value.strip_suffix('\n').unwrap_or(value);
            if name == HIDDEN {
                continue;
            }
            if name.len() + value.len() + 2 > ANNOTATION || value.contains('\n') {
                lines.push(format!("{name}:"));
                lines.extend(value.split('\n').map(|line| format!("  {}", shorten(line, ANNOTATION - 2))));
            } else {
                lines.push(format!("{name}: {value}"));
            }
        }
        self.list("Annotations", lines);
    }

    /// What follows has columns of its own.
    pub(super) fn flush(&mut self) {
        let text = std::mem::take(&mut self.current);
        self.done.push_str(&Columns::description().render(&text));
    }

    pub(super) fn finish(mut self) -> String {
        self.flush();
        self.done
    }

    pub(super) fn events(&mut self, mut events: Vec<Value>) {
        if events.is_empty() {
            return self.field(0, "Events", "<none>");
        }
        self.flush();
        events.sort_by_key(|event| time(&event["lastTimestamp"]));
        self.line(0, "Events:");
        self.line(1, "Type\tReason\tAge\tFrom\tMessage");
        self.line(1, "----\t------\t----\t----\t-------");
        for event in &events {
            let source = match text(event, "source.component") {
                "" => text(event, "reportingComponent"),
                source => source,
            };
            let message = text(event, "message").trim();
            let message = match text(event, "involvedObject.fieldPath") {
                "" => message.to_owned(),
                path => format!("{path}: {message}"),
            };
            let age = event_age(event, self.now);
            self.line(1, format!("{}\t{}\t{age}\t{source}\t{message}", text(event, "type"), text(event, "reason")));
        }
    }

    /// A time as Go's RFC 1123 with a numeric zone, in this machine's.
    pub(super) fn time(&self, value: &Value) -> String {
        let time = time(value).unwrap_or(ZERO);
        let zone = if time == ZERO { TimeZone::UTC } else { self.zone.clone() };
        time.to_zoned(zone).strftime("%a, %d %b %Y %H:%M:%S %z").to_string()
    }

    /// How long ago.
    pub(super) fn since(&self, value: &Value) -> String {
        since(value, self.now)
    }
}

/// Go's zero time.
const ZERO: Timestamp = Timestamp::constant(-62_135_596_800, 0);

fn time(value: &Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}

fn since(value: &Value, now: Timestamp) -> String {
    match time(value) {
        Some(time) => human_duration(now.duration_since(time).as_secs()),
        None => "<unknown>".to_owned(),
    }
}

/// `5s`, `10s (x3 over 2m)`.
pub(in crate::kube) fn event_age(event: &Value, now: Timestamp) -> String {
    let first = match &event["eventTime"] {
        Value::Null => since(&event["firstTimestamp"], now),
        time => since(time, now),
    };
    if event["series"].is_object() {
        let count = integer(event, "series.count").unwrap_or(0);
        return format!("{} (x{count} over {first})", since(&event["series"]["lastObservedTime"], now));
    }
    match integer(event, "count") {
        Some(count @ 2..) => format!("{} (x{count} over {first})", since(&event["lastTimestamp"], now)),
        _ => first,
    }
}

fn shorten(line: &str, most: usize) -> String {
    if line.len() <= most {
        return line.to_owned();
    }
    format!("{}...", &line[..line.floor_char_boundary(most)])
}
