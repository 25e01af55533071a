//! Batches as the bodies receivers expect. Each appends to one buffer; nothing is allocated per record.

use std::sync::Arc;

use crate::batch::{Batch, Flags, Record, Severity};
use crate::json;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// The line as it was.
    Text,
    /// One JSON object per line.
    NdJson,
    /// One JSON array.
    JsonArray,
}

/// Turns times into RFC 3339 text; remembers the last second, because neighbours share it.
#[derive(Debug, Default)]
pub struct Clock {
    second: Option<i64>,
    text: String,
}

impl Clock {
    /// `2026-08-15T10:00:00.123456789Z`. Times before 1970 or beyond year 9999 become the nearest that can be shown.
    pub fn append(&mut self, out: &mut Vec<u8>, nanos: i64) {
        let nanos = nanos.max(0);
        let (second, fraction) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
        if self.second != Some(second) {
            self.second = Some(second);
            let time = jiff::Timestamp::from_second(second).unwrap_or(jiff::Timestamp::MAX);
            self.text = time.to_string();
            self.text.truncate("2026-08-15T10:00:00".len());
        }
        out.extend_from_slice(self.text.as_bytes());
        let mut digits = *b".000000000Z";
        let mut rest = fraction;
        for digit in digits[1..10].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        out.extend_from_slice(&digits);
    }
}

#[derive(Debug)]
pub struct Encoder {
    pub encoding: Encoding,
    clock: Clock,
}

impl Encoder {
    pub fn new(encoding: Encoding) -> Encoder {
        Encoder { encoding, clock: Clock::default() }
    }

    pub fn append(&mut self, out: &mut Vec<u8>, batches: &[Arc<Batch>]) {
        let weight: usize = batches.iter().map(|batch| batch.frames.len()).sum();
        out.reserve(weight + weight / 2);
        if self.encoding == Encoding::JsonArray {
            out.push(b'[');
        }
        let mut first = true;
        for batch in batches {
            if let Some(lines) = batch.lines().filter(|_| self.encoding == Encoding::Text) {
                out.extend_from_slice(lines);
                continue;
            }
            for record in batch.records() {
                match self.encoding {
                    Encoding::Text => text(out, &record),
                    Encoding::NdJson => {
                        self.object(out, &record, &batch.origin.fields);
                        out.push(b'\n');
                    }
                    Encoding::JsonArray => {
                        if !std::mem::take(&mut first) {
                            out.push(b',');
                        }
                        self.object(out, &record, &batch.origin.fields);
                    }
                }
            }
        }
        if self.encoding == Encoding::JsonArray {
            out.push(b']');
        }
    }

    /// The bulk API of Elasticsearch and OpenSearch: an action and a document, each on its line. A document has an
    /// `@timestamp`, its own if the application gave it one.
    pub fn bulk(&mut self, out: &mut Vec<u8>, batches: &[Arc<Batch>], action: &[u8]) {
        for batch in batches {
            for record in batch.records() {
                out.extend_from_slice(action);
                let mut stamped = false;
                if record.flags.has(Flags::OBJECT) {
                    json::object(record.body, |(key, _)| stamped |= key == b"@timestamp");
                }
                let start = out.len();
                self.object(out, &record, &batch.origin.fields);
                // A line of its own, whatever the application wrote.
                out[start..].iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
                if !stamped {
                    let empty = out.len() - start == 2;
                    out.pop();
                    out.extend_from_slice(if empty { b"\"@timestamp\":\"" } else { b",\"@timestamp\":\"" });
                    self.clock.append(out, record.time);
                    out.extend_from_slice(b"\"}");
                }
                out.push(b'\n');
            }
        }
    }

    /// An application's own object keeps its members, and ours are appended; anything else becomes `message`.
    pub fn object(&mut self, out: &mut Vec<u8>, record: &Record<'_>, fields: &[u8]) {
        if record.flags.has(Flags::OBJECT) {
            let body = record.body.trim_ascii();
            let open = body.strip_suffix(b"}").unwrap_or(body).trim_ascii_end();
            out.extend_from_slice(open);
            let mut empty = open == b"{";
            for more in [record.fields, fields] {
                if !more.is_empty() {
                    if !std::mem::take(&mut empty) {
                        out.push(b',');
                    }
                    out.extend_from_slice(more);
                }
            }
        } else {
            out.extend_from_slice(b"{\"time\":\"");
            self.clock.append(out, record.time);
            out.extend_from_slice(b"\",\"message\":");
            json::string(out, record.body);
            if let Some(stream) = stream(record.flags) {
                out.extend_from_slice(b",\"stream\":\"");
                out.extend_from_slice(stream.as_bytes());
                out.push(b'"');
            }
            if record.flags.has(Flags::PARTIAL) {
                out.extend_from_slice(b",\"partial\":true");
            }
            for more in [record.fields, fields] {
                if !more.is_empty() {
                    out.push(b',');
                    out.extend_from_slice(more);
                }
            }
        }
        out.push(b'}');
    }
}

fn text(out: &mut Vec<u8>, record: &Record<'_>) {
    out.extend_from_slice(record.body);
    // A piece of a line is put together again by what follows it.
    if !record.flags.has(Flags::PARTIAL) {
        out.push(b'\n');
    }
}

fn stream(flags: Flags) -> Option<&'static str> {
    if flags.has(Flags::STDERR) {
        Some("stderr")
    } else if flags.has(Flags::STDOUT) {
        Some("stdout")
    } else {
        None
    }
}

/// Loki's push API: one stream per origin (`/loki/api/v1/push`, JSON form).
pub fn loki(out: &mut Vec<u8>, batches: &[Arc<Batch>], labels: &[(String, String)]) {
    out.extend_from_slice(b"{\"streams\":[");
    let mut index = 0;
    while index < batches.len() {
        let origin = &batches[index].origin;
        out.extend_from_slice(if index == 0 { b"{\"stream\":{" } else { b",{\"stream\":{" });
        let own = labels.iter().filter(|(name, _)| !origin.labels.iter().any(|(other, _)| other == name));
        for (position, (name, value)) in own.chain(&origin.labels).enumerate() {
            if position > 0 {
                out.push(b',');
            }
            json::string(out, label(name).as_bytes());
            out.push(b':');
            json::string(out, value.as_bytes());
        }
        out.extend_from_slice(b"},\"values\":[");
        let mut first = true;
        // Neighbours of one origin go into one stream.
        while index < batches.len() && batches[index].origin.id == origin.id {
            for record in batches[index].records() {
                out.extend_from_slice(if std::mem::take(&mut first) { b"[\"" } else { b",[\"" });
                number(out, record.time);
                out.extend_from_slice(b"\",");
                json::string(out, record.body);
                out.push(b']');
            }
            index += 1;
        }
        out.extend_from_slice(b"]}");
    }
    out.extend_from_slice(b"]}");
}

/// Loki's label names are Prometheus': letters, digits and underscores.
fn label(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

fn number(out: &mut Vec<u8>, value: i64) {
    use std::io::Write as _;
    // Writing to a vector cannot fail.
    let _ = write!(out, "{}", value.max(0));
}

/// OTLP's `ExportLogsServiceRequest` in protobuf (opentelemetry-proto, `logs/v1/logs.proto`): one resource per origin.
///
/// Written by hand because generated types want a `String` per line. Lengths of nested messages are padded to four
/// bytes, which protobuf allows, so that nothing is written twice.
pub fn otlp(out: &mut Vec<u8>, batches: &[Arc<Batch>], attributes: &[(String, String)], observed: i64) {
    let mut index = 0;
    while index < batches.len() {
        let origin = &batches[index].origin;
        nested(out, 1, |out| {
            nested(out, 1, |out| {
                let own = attributes.iter().filter(|(name, _)| !origin.labels.iter().any(|(other, _)| other == name));
                own.chain(&origin.labels).for_each(|(name, value)| attribute(out, 1, name, value.as_bytes()));
            });
            nested(out, 2, |out| {
                while index < batches.len() && batches[index].origin.id == origin.id {
                    for record in batches[index].records() {
                        nested(out, 2, |out| log_record(out, &record, &origin.name, observed));
                    }
                    index += 1;
                }
            });
        });
    }
}

fn log_record(out: &mut Vec<u8>, record: &Record<'_>, path: &str, observed: i64) {
    fixed(out, 1, record.time);
    if record.severity != Severity::Unknown {
        out.extend_from_slice(&[2 << 3, record.severity as u8]);
        bytes(out, 3, record.severity.name().as_bytes());
    }
    nested(out, 5, |out| any_string(out, record.body));
    attribute(out, 6, "log.file.path", path.as_bytes());
    if let Some(stream) = stream(record.flags) {
        attribute(out, 6, "log.iostream", stream.as_bytes());
    }
    fixed(out, 11, observed);
}

fn attribute(out: &mut Vec<u8>, field: u8, name: &str, value: &[u8]) {
    nested(out, field, |out| {
        bytes(out, 1, name.as_bytes());
        nested(out, 2, |out| any_string(out, value));
    });
}

/// `AnyValue.string_value` must be UTF-8.
fn any_string(out: &mut Vec<u8>, value: &[u8]) {
    match std::str::from_utf8(value) {
        Ok(_) => bytes(out, 1, value),
        Err(_) => bytes(out, 1, String::from_utf8_lossy(value).as_bytes()),
    }
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn bytes(out: &mut Vec<u8>, field: u8, value: &[u8]) {
    out.push(field << 3 | 2);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

fn fixed(out: &mut Vec<u8>, field: u8, value: i64) {
    out.push(field << 3 | 1);
    out.extend_from_slice(&value.to_le_bytes());
}

fn nested(out: &mut Vec<u8>, field: u8, inner: impl FnOnce(&mut Vec<u8>)) {
    out.push(field << 3 | 2);
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    inner(out);
    let length = (out.len() - at - 4) as u32;
    let padded = [0, 7, 14, 21].map(|shift| (length >> shift) as u8 & 0x7f | if shift < 21 { 0x80 } else { 0 });
    out[at..at + 4].copy_from_slice(&padded);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Origin;

    fn batch(id: u64, records: &[(&str, u8)]) -> Arc<Batch> {
        let origin = Origin {
            id,
            name: "/l".to_owned(),
            fields: b"\"pod\":\"p\"".to_vec(),
            labels: vec![("pod.name".to_owned(), "p".to_owned())],
            ..Origin::default()
        };
        let mut batch = Batch::new(Arc::new(origin), 0);
        for (body, flags) in records {
            let time = 1_786_788_000_123_456_789;
            let severity = Severity::Warn;
            batch.push(&Record { time, flags: Flags(*flags), severity, body: body.as_bytes(), fields: b"" });
        }
        Arc::new(batch)
    }

    fn encoded(encoding: Encoding, batches: &[Arc<Batch>]) -> String {
        let mut out = Vec::new();
        Encoder::new(encoding).append(&mut out, batches);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_and_objects() {
        let batches = [batch(1, &[("a \"b\"", 2), ("{\"x\":1}", 4), ("{ }", 4), ("cut", 8)])];
        assert_eq!(encoded(Encoding::Text, &batches), "a \"b\"\n{\"x\":1}\n{ }\ncut");
        let lines = encoded(Encoding::NdJson, &batches);
        assert_eq!(
            lines.lines().collect::<Vec<_>>(),
            [
                r#"{"time":"2026-08-15T10:00:00.123456789Z","message":"a \"b\"","stream":"stderr","pod":"p"}"#,
                r#"{"x":1,"pod":"p"}"#,
                r#"{"pod":"p"}"#,
                r#"{"time":"2026-08-15T10:00:00.123456789Z","message":"cut","partial":true,"pod":"p"}"#,
            ]
        );
        let array: serde_json::Value = serde_json::from_str(&encoded(Encoding::JsonArray, &batches)).unwrap();
        assert_eq!(array.as_array().unwrap().len(), 4);
    }

    #[test]
    fn bulk_documents_have_a_time() {
        let mut out = Vec::new();
        let stamped = "{\"@timestamp\":\"x\",\n\"a\":1}";
        let batches = [batch(1, &[("a", 0), (stamped, 4), ("{}", 4)])];
        Encoder::new(Encoding::NdJson).bulk(&mut out, &batches, b"{\"create\":{}}\n");
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 6);
        assert_eq!(lines[0], serde_json::json!({"create": {}}));
        assert_eq!(lines[1]["@timestamp"], lines[1]["time"]);
        assert_eq!(lines[3], serde_json::json!({"@timestamp": "x", "a": 1, "pod": "p"}));
        assert_eq!(lines[5]["@timestamp"], "2026-08-15T10:00:00.123456789Z");
    }

    #[test]
    fn loki_has_a_stream_per_origin() {
        let mut out = Vec::new();
        let labels = [("job".to_owned(), "j".to_owned())];
        loki(&mut out, &[batch(1, &[("a", 0)]), batch(1, &[("b", 0)]), batch(2, &[("c", 0)])], &labels);
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(value["streams"].as_array().unwrap().len(), 2);
        assert_eq!(value["streams"][0]["stream"], serde_json::json!({"job": "j", "pod_name": "p"}));
        assert_eq!(value["streams"][0]["values"][1], serde_json::json!(["1786788000123456789", "b"]));
    }

    /// A protobuf reader of its own, so that writer and test cannot share a mistake: field numbers and payloads.
    fn fields(mut message: &[u8]) -> Vec<(u64, Vec<u8>)> {
        fn varint(message: &mut &[u8]) -> u64 {
            let mut value = 0;
            for shift in (0..).step_by(7) {
                let byte = message[0];
                *message = &message[1..];
                value |= u64::from(byte & 0x7f) << shift;
                if byte & 0x80 == 0 {
                    break;
                }
            }
            value
        }
        let mut found = Vec::new();
        while !message.is_empty() {
            let key = varint(&mut message);
            let length = match key & 7 {
                0 => {
                    found.push((key >> 3, varint(&mut message).to_le_bytes().to_vec()));
                    continue;
                }
                1 => 8,
                2 => varint(&mut message) as usize,
                kind => panic!("wire type {kind}"),
            };
            found.push((key >> 3, message[..length].to_vec()));
            message = &message[length..];
        }
        found
    }

    #[test]
    fn otlp_reads_back() {
        let mut out = Vec::new();
        otlp(&mut out, &[batch(1, &[("a", 2), ("b\u{e9}", 0)]), batch(2, &[("c", 0)])], &[], 7);
        let resources = fields(&out);
        assert_eq!(resources.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1, 1]);
        let resource = fields(&resources[0].1);
        let scope = fields(&resource[1].1);
        assert_eq!(scope.len(), 2);
        let record = fields(&scope[1].1);
        let of = |number: u64| record.iter().find(|(found, _)| *found == number).unwrap().1.clone();
        assert_eq!(of(1), 1_786_788_000_123_456_789i64.to_le_bytes());
        assert_eq!((of(2)[0], of(3)), (13, b"WARN".to_vec()));
        assert_eq!(fields(&of(5)), [(1, "b\u{e9}".as_bytes().to_vec())]);
        assert_eq!(of(11), 7i64.to_le_bytes());
        let attribute = fields(&fields(&resource[0].1)[0].1);
        assert_eq!(attribute[0].1, b"pod.name");
    }
}
