//! `outrigger-logs test`: what a document's stages make of given lines.

use std::fmt::Write as _;
use std::sync::Arc;

use daemon::config::{Loaded, Problem, load};
use record::{Batch, Record, json};
use serde_json::Value;

use crate::config::{Spec, Test, check};
use crate::encoding::Encoding;
use crate::frame::End;
use crate::stages::{Check, Stages, Working};
use crate::wiring;

#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) text: String,
    pub(super) failed: usize,
}

/// Runs every test of the document in `text`; each begins with fresh stages.
pub(super) fn run(text: &str) -> Result<Report, Vec<Problem>> {
    let loaded = load::<Spec>(text, "LogAgent", check)?;
    let mut report = Report::default();
    for test in &loaded.spec.tests {
        match one(&loaded, test) {
            Ok(()) => {
                let _ = writeln!(report.text, "ok      {}", test.name);
            }
            Err(reason) => {
                report.failed += 1;
                let _ = writeln!(report.text, "FAILED  {}\n{}", test.name, reason.trim_end());
            }
        }
    }
    if loaded.spec.tests.is_empty() {
        report.text.push_str("the document has no `tests`\n");
        return Ok(report);
    }
    let passed = loaded.spec.tests.len() - report.failed;
    let _ = writeln!(report.text, "{passed} passed, {} failed", report.failed);
    Ok(report)
}

fn one(loaded: &Loaded<Spec>, test: &Test) -> Result<(), String> {
    let spec = &loaded.spec;
    let found = spec.sources.iter().find(|source| test.source.as_ref().is_none_or(|name| source.name == *name));
    let source =
        found.ok_or_else(|| format!("  there is no source `{}`", test.source.as_deref().unwrap_or_default()))?;
    let framer = wiring::framer(source).map_err(|error| daemon::log::chain(&error))?;
    let mut stages = Stages::new(&spec.stages).map_err(|error| daemon::log::chain(&error))?;
    let mut text = test.lines.join("\n");
    text.push('\n');
    let mut batch = Batch::new(Arc::default(), 0);
    if source.syslog.is_some() {
        test.lines.iter().for_each(|line| framer.message(line.as_bytes(), 0, &mut batch));
    } else {
        framer.frame(Encoding::Utf8, text.as_bytes(), End::Final, 0, &mut batch);
    }
    let left = stages.run(batch);
    let sinks = spec.sinks.iter().map(|sink| Ok((sink.name.clone(), Check::optional(sink.when.as_ref())?)));
    let sinks = sinks.collect::<Result<Vec<_>, regex::Error>>().map_err(|error| error.to_string())?;
    let records: Vec<Value> = left.records().map(|record| shown(&record, &sinks)).collect();
    let same = records.len() == test.expect.len()
        && records.iter().zip(&test.expect).all(|(record, expected)| is_as(record, expected));
    if same {
        return Ok(());
    }
    let mut reason = String::new();
    for index in 0..records.len().max(test.expect.len()) {
        let (record, expected) = (records.get(index), test.expect.get(index));
        if record.zip(expected).is_some_and(|(record, expected)| is_as(record, expected)) {
            continue;
        }
        let text = |value: Option<&Value>| value.map_or_else(|| "nothing".to_owned(), Value::to_string);
        let _ =
            writeln!(reason, "  record {index}: expected {}\n            but was  {}", text(expected), text(record));
    }
    Err(reason)
}

/// The record as a test sees it.
fn shown(record: &Record<'_>, sinks: &[(String, Option<Check>)]) -> Value {
    let mut members = serde_json::Map::new();
    let mut take = |(key, value): (&[u8], &[u8])| {
        let mut plain = Vec::new();
        json::unescape(&mut plain, key);
        members.insert(String::from_utf8_lossy(&plain).into_owned(), serde_json::from_slice(value).unwrap_or_default());
    };
    if record.flags.has(record::Flags::OBJECT) {
        json::object(record.body, &mut take);
    }
    json::members(record.fields, &mut take);
    let text = String::from_utf8_lossy(record.body);
    members.entry("message").or_insert_with(|| Value::from(text.clone()));
    members.insert("severity".to_owned(), Value::from(record.severity.name().to_ascii_lowercase()));
    if record.time != 0
        && let Ok(time) = jiff::Timestamp::from_nanosecond(i128::from(record.time))
    {
        members.insert("time".to_owned(), Value::from(time.to_string()));
    }
    let working = Working::of(record);
    let takes = sinks.iter().filter(|(_, check)| check.as_ref().is_none_or(|check| check.holds(&working)));
    members.insert("sinks".to_owned(), takes.map(|(name, _)| Value::from(name.as_str())).collect());
    // The whole text, for an expectation that is one.
    members.insert(String::new(), Value::from(text));
    Value::Object(members)
}

fn is_as(record: &Value, expected: &Value) -> bool {
    match expected {
        Value::Object(members) => members.iter().all(|(name, value)| record.get(name) == Some(value)),
        Value::String(text) => record.get("").and_then(Value::as_str) == Some(text),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = r#"
apiVersion: outrigger.dev/v1alpha1
kind: LogAgent
spec:
  sources:
  - {name: web, files: {include: [/log/a]}, parse: access}
  - {name: app, files: {include: [/log/b]}, multiline: {preset: java}, parse: json}
  stages:
  - drop: {contains: healthz}
  - redact: {presets: [email]}
  sinks:
  - {name: all, to: {stdout: }}
  - {name: bad, to: {stdout: }, when: {minSeverity: error}}
  tests:
  - name: health checks are dropped
    lines: ['h - - [10/Oct/2000:13:55:36 -0700] "GET /healthz HTTP/1.0" 200 1', 'h - - [10/Oct/2000:13:55:36 -0700] "GET /a HTTP/1.0" 404 1']
    expect: [{status: 404, path: /a, time: "2000-10-10T20:55:36Z", sinks: [all]}]
  - name: traces are one record, and secrets go
    source: app
    lines: ["boom a@b.example", "\tat x", '{"level":"error","n":1}']
    expect: ["boom [redacted]\n\tat x", {n: 1, severity: error, sinks: [all, bad]}]
  - name: wrong
    lines: ["x", "y"]
    expect: ["x"]
"#;

    #[test]
    fn a_document_tests_itself() {
        let report = run(DOCUMENT).unwrap();
        let lines: Vec<&str> = report.text.lines().collect();
        assert_eq!(
            &lines[..3],
            ["ok      health checks are dropped", "ok      traces are one record, and secrets go", "FAILED  wrong"]
        );
        assert!(lines[3].starts_with("  record 1: expected nothing"), "{}", report.text);
        assert_eq!((report.failed, *lines.last().unwrap()), (1, "2 passed, 1 failed"));
        assert!(run("kind: LogAgent").is_err());
    }
}
