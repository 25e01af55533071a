//! OTLP's protobuf messages (opentelemetry-proto, `metrics/v1/metrics.proto`, `logs/v1/logs.proto`, `trace/v1/trace.proto`),
//! as far as counters, gauges, histograms, log lines and spans need them.

use std::time::SystemTime;

use crate::log::{Level, Line};
use crate::metrics::{Collected, Kind, Measured, Point};
use crate::span::{Span, Value};

/// `AGGREGATION_TEMPORALITY_CUMULATIVE`.
const CUMULATIVE: u8 = 2;

type Attributes = [(String, String)];

pub(super) fn metrics(
    families: &[Collected],
    resource: &Attributes,
    program: &str,
    started: SystemTime,
    now: SystemTime,
) -> Vec<u8> {
    request(resource, program, |out| {
        for family in families.iter().filter(|family| !family.points.is_empty()) {
            nested(out, 2, |out| {
                bytes(out, 1, family.name.as_bytes());
                bytes(out, 2, family.help.as_bytes());
                let points = |out: &mut Vec<u8>| {
                    for point in &family.points {
                        nested(out, 1, |out| data_point(out, point, nanos(started), nanos(now)));
                    }
                };
                match family.kind {
                    Kind::Gauge => nested(out, 5, points),
                    Kind::Counter => nested(out, 7, |out| {
                        points(out);
                        out.extend_from_slice(&[2 << 3, CUMULATIVE, 3 << 3, 1]);
                    }),
                    Kind::Histogram => nested(out, 9, |out| {
                        points(out);
                        out.extend_from_slice(&[2 << 3, CUMULATIVE]);
                    }),
                }
            });
        }
    })
}

fn data_point(out: &mut Vec<u8>, point: &Point, started: u64, now: u64) {
    fixed(out, 2, started);
    fixed(out, 3, now);
    let attributes = match &point.value {
        Measured::Whole(value) => {
            fixed(out, 6, *value);
            7
        }
        Measured::Number(value) => {
            fixed(out, 4, value.to_bits());
            7
        }
        Measured::Histogram(bounds, counts, sum) => {
            fixed(out, 4, counts.iter().sum());
            fixed(out, 5, sum.to_bits());
            let words =
                |values: &mut dyn Iterator<Item = u64>| -> Vec<u8> { values.flat_map(u64::to_le_bytes).collect() };
            bytes(out, 6, &words(&mut counts.iter().copied()));
            bytes(out, 7, &words(&mut bounds.iter().map(|bound| bound.to_bits())));
            9
        }
    };
    point.labels.iter().for_each(|(name, text)| attribute(out, attributes, name, text));
}

pub(super) fn logs(lines: &[Line], resource: &Attributes, program: &str) -> Vec<u8> {
    request(resource, program, |out| {
        for line in lines {
            nested(out, 2, |out| {
                fixed(out, 1, nanos(line.time));
                let severity = match line.level {
                    Level::Debug => 5,
                    Level::Info => 9,
                    Level::Warn => 13,
                    Level::Error => 17,
                };
                out.extend_from_slice(&[2 << 3, severity]);
                bytes(out, 3, line.level.name().as_bytes());
                nested(out, 5, |out| bytes(out, 1, line.message.as_bytes()));
                line.fields.iter().for_each(|(name, text)| attribute(out, 6, name, text));
                fixed(out, 11, nanos(line.time));
            });
        }
    })
}

/// `SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK` and `SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK`.
const PARENT_KNOWN: u32 = 0x100;
const PARENT_REMOTE: u32 = 0x200;
/// `STATUS_CODE_ERROR`.
const ERROR: u8 = 2;

pub(super) fn spans(spans: &[Span], resource: &Attributes, program: &str) -> Vec<u8> {
    request(resource, program, |out| {
        for span in spans {
            nested(out, 2, |out| {
                bytes(out, 1, &span.trace);
                bytes(out, 2, &span.id);
                if !span.state.is_empty() {
                    bytes(out, 3, span.state.as_bytes());
                }
                if span.parent != [0; 8] {
                    bytes(out, 4, &span.parent);
                }
                bytes(out, 5, span.name.as_bytes());
                out.extend_from_slice(&[6 << 3, span.kind as u8]);
                fixed(out, 7, span.start);
                fixed(out, 8, span.end);
                for (name, value) in &span.attributes {
                    nested(out, 9, |out| {
                        bytes(out, 1, name.as_bytes());
                        nested(out, 2, |out| any(out, value));
                    });
                }
                if let Some(error) = &span.error {
                    nested(out, 15, |out| {
                        if !error.is_empty() {
                            bytes(out, 2, error.as_bytes());
                        }
                        out.extend_from_slice(&[3 << 3, ERROR]);
                    });
                }
                // Field 16, four bytes; its tag takes two.
                let remote = if span.remote { PARENT_REMOTE } else { 0 };
                out.extend_from_slice(&[0x85, 0x01]);
                out.extend_from_slice(&(u32::from(span.flags) | PARENT_KNOWN | remote).to_le_bytes());
            });
        }
    })
}

/// `AnyValue` (`common/v1/common.proto`).
fn any(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Text(text) => bytes(out, 1, text.as_bytes()),
        Value::Number(number) => {
            out.push(3 << 3);
            varint(out, *number as usize);
        }
        Value::List(list) => nested(out, 5, |out| {
            list.iter().for_each(|text| nested(out, 1, |out| bytes(out, 1, text.as_bytes())));
        }),
    }
}

/// Resource and scope have the same field numbers in all three requests.
fn request(resource: &Attributes, program: &str, inner: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    nested(&mut out, 1, |out| {
        nested(out, 1, |out| resource.iter().for_each(|(name, text)| attribute(out, 1, name, text)));
        nested(out, 2, |out| {
            nested(out, 1, |out| {
                bytes(out, 1, program.as_bytes());
                bytes(out, 2, env!("CARGO_PKG_VERSION").as_bytes());
            });
            inner(out);
        });
    });
    out
}

fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn attribute(out: &mut Vec<u8>, field: u8, name: &str, value: &str) {
    nested(out, field, |out| {
        bytes(out, 1, name.as_bytes());
        nested(out, 2, |out| bytes(out, 1, value.as_bytes()));
    });
}

fn varint(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn bytes(out: &mut Vec<u8>, field: u8, value: &[u8]) {
    out.push(field << 3 | 2);
    varint(out, value.len());
    out.extend_from_slice(value);
}

fn fixed(out: &mut Vec<u8>, field: u8, value: u64) {
    out.push(field << 3 | 1);
    out.extend_from_slice(&value.to_le_bytes());
}

fn nested(out: &mut Vec<u8>, field: u8, inner: impl FnOnce(&mut Vec<u8>)) {
    let mut message = Vec::new();
    inner(&mut message);
    bytes(out, field, &message);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// What protoc's decoder (Python's `opentelemetry-proto` 1.39) reads back was compared once; this pins the bytes.
    #[test]
    fn a_counter_a_gauge_and_a_histogram() {
        let point = |value| Point { labels: vec![("a".to_owned(), "b".to_owned())], value };
        let family = |name: &str, kind, value| Collected {
            name: name.to_owned(),
            help: "h".to_owned(),
            kind,
            points: vec![point(value)],
        };
        let families = [
            family("c", Kind::Counter, Measured::Whole(3)),
            family("g", Kind::Gauge, Measured::Number(1.5)),
            family("t", Kind::Histogram, Measured::Histogram(vec![1.0], vec![2, 1], 4.5)),
        ];
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let out = metrics(&families, &[("service.name".to_owned(), "s".to_owned())], "p", at(1), at(2));
        let contains = |part: &[u8]| out.windows(part.len()).any(|window| window == part);
        assert!(contains(b"\x0a\x01c\x12\x01h"));
        // Sum, cumulative and monotonic.
        assert!(contains(
            &[&[0x31][..], &3u64.to_le_bytes(), &[0x3a, 8, 0x0a, 1, b'a', 0x12, 3, 0x0a, 1, b'b']].concat()
        ));
        assert!(contains(&[0x10, 2, 0x18, 1]));
        assert!(contains(&[&[0x21][..], &1.5f64.to_le_bytes()].concat()));
        let histogram = [&[0x21][..], &3u64.to_le_bytes(), &[0x29], &4.5f64.to_le_bytes(), &[0x32, 16]].concat();
        assert!(contains(&histogram));
        assert!(contains(b"service.name\x12\x03\x0a\x01s"));
    }
}
