use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::config::Spec;

/// Stages as they stand in a document.
fn stages(yaml: &str) -> Stages {
    let indented: String = yaml.lines().map(|line| format!("  {line}\n")).collect();
    let text = format!(
        "apiVersion: outrigger.dev/v1alpha1\nkind: LogAgent\nspec:\n  sources: [{{name: a, files: {{include: [/x]}}}}]\n  sinks: [{{name: o, to: {{stdout: }}}}]\n  stages:\n{indented}"
    );
    let loaded = daemon::config::load::<Spec>(&text, "LogAgent", config::check);
    Stages::new(&loaded.unwrap_or_else(|problems| panic!("{problems:?}")).spec.stages).unwrap()
}

fn record<'a>(body: &'a str, fields: &'a str) -> Working<'a> {
    let object = body.starts_with('{');
    let flags = if object { Flags::OBJECT } else { Flags(0) };
    Working {
        time: 0,
        flags,
        severity: Severity::Unknown,
        body: Cow::Borrowed(body.as_bytes()),
        fields: Cow::Borrowed(fields.as_bytes()),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn run(stages: &mut Stages, body: &str, severity: Severity) -> Option<String> {
    let working = Working { severity, ..record(body, "") };
    stages.apply(working, Instant::now()).map(|record| text(&record.body))
}

#[test]
fn filters() {
    let health = &mut stages("- drop: {contains: /healthz}");
    assert_eq!(run(health, "GET /healthz", Severity::Info), None);
    assert!(run(health, "GET /", Severity::Info).is_some());
    let loud = &mut stages("- keep: {minSeverity: warn}");
    assert_eq!(run(loud, "x", Severity::Info), None);
    assert!(run(loud, "x", Severity::Error).is_some());
    assert_eq!(run(loud, "x", Severity::Unknown), None);
    let failed = &mut stages("- keep: {fields: {status: '^5', path: '^/a'}}");
    for (body, fields, kept) in [
        (r#"{"status":503,"path":"/a/b"}"#, "", true),
        (r#"{"status":503}"#, r#""path":"/a""#, true),
        (r#"{"status":403,"path":"/a"}"#, "", false),
        ("plain", r#""status":"500""#, false),
        ("plain", r#""status":"500","path":"\/a""#, true),
    ] {
        assert_eq!(failed.apply(record(body, fields), Instant::now()).is_some(), kept, "{body} {fields}");
    }
    assert_eq!(failed.counts().dropped[0].1.load(Ordering::Relaxed), 2);
}

#[test]
fn secrets() {
    let redact =
        &mut stages("- redact: {presets: [email, card, token, password], patterns: ['id-[0-9]+'], replacement: '#'}");
    for (body, expected) in [
        ("mail a.b@c.example now", "mail # now"),
        ("card 4111 1111 1111 1111.", "card #."),
        ("no card 4111 1111 1111 1112", "no card 4111 1111 1111 1112"),
        ("t eyJhbGciOiJI.eyJzdWIiOiIx.abc-_d", "t #"),
        ("Authorization: Bearer abcdefgh1234", "Authorization: #"),
        ("password=hunter2 next", "# next"),
        ("see id-77", "see #"),
        ("nothing here", "nothing here"),
    ] {
        assert_eq!(run(redact, body, Severity::Unknown).unwrap(), expected);
    }
    // What a parser took out of the text is no way around.
    let left = redact.apply(record("user a@b.example", r#""mail":"a@b.example","n":1"#), Instant::now()).unwrap();
    assert_eq!((text(&left.body), text(&left.fields)), ("user #".to_owned(), r##""mail":"#","n":1"##.to_owned()));
}

#[test]
fn samples_are_chosen_by_their_text() {
    let sample = &mut stages("- sample: {oneIn: 4}");
    let kept = (0..4000).filter(|index| run(sample, &format!("line {index}"), Severity::Unknown).is_some());
    let count = kept.count();
    assert!((800..1200).contains(&count), "{count}");
    let again = |sample: &mut Stages| run(sample, "line 17", Severity::Unknown);
    assert_eq!(again(sample), again(sample));
}

#[test]
fn limits_refill_and_may_be_by_a_field() {
    let start = Instant::now();
    let limit = &mut stages("- rateLimit: {records: 10, per: 1s}");
    let mut passed = |millis: u64| limit.apply(record("x", ""), start + Duration::from_millis(millis)).is_some();
    assert_eq!((0..50).filter(|_| passed(0)).count(), 10);
    assert_eq!((0..50).filter(|_| passed(500)).count(), 5);
    assert_eq!((0..50).filter(|_| passed(60_000)).count(), 10, "a pause is not saved up");
    let by = &mut stages("- rateLimit: {records: 1, per: 1h, by: user, when: {contains: x}}");
    let mut lets = |body: &str, fields: &str| by.apply(record(body, fields), start).is_some();
    assert!(lets("x", r#""user":"a""#) && lets("x", r#""user":"b""#) && !lets("x", r#""user":"a""#));
    assert!(lets("x", "") && !lets("x", "") && lets("y", "") && lets("y", ""));
    // Far more values than there is room for.
    for index in 0..20_000 {
        lets("x", &format!(r#""user":{index}"#));
    }
}

#[test]
fn repeats_are_counted_and_said() {
    let start = Instant::now();
    let stages = &mut stages("- deduplicate: {within: 5s, remember: 2}");
    let mut see = |body: &str, seconds: u64| {
        let left = stages.apply(record(body, ""), start + Duration::from_secs(seconds));
        left.map(|record| text(&record.fields))
    };
    assert_eq!(see("a", 0), Some(String::new()));
    assert_eq!((see("a", 1), see("a", 4)), (None, None));
    assert_eq!(see("b", 4), Some(String::new()));
    assert_eq!(see("a", 6), Some(r#""repeated":2"#.to_owned()));
    assert_eq!(see("a", 20), Some(String::new()));
    // Only two are remembered.
    assert!(see("c", 20).is_some() && see("d", 20).is_some() && see("a", 20).is_some());
}

#[test]
fn times_from_fields() {
    let at = |stage: &str, fields: &str| stages(stage).apply(record("x", fields), Instant::now()).unwrap().time;
    let noon = 1_767_268_800_000_000_000; // 2026-01-01T12:00:00Z
    assert_eq!(at("- timestamp: {field: t}", r#""t":"2026-01-01T12:00:00Z""#), noon);
    assert_eq!(at("- timestamp: {field: t}", r#""t":1767268800"#), noon);
    let format = "- timestamp: {field: t, format: '%d.%m.%Y %H:%M:%S%.f'";
    assert_eq!(at(&format!("{format}}}"), r#""t":"01.01.2026 12:00:00.5""#), noon + 500_000_000);
    assert_eq!(at(&format!("{format}, zone: '+02:00'}}"), r#""t":"01.01.2026 14:00:00""#), noon);
    assert_eq!(at("- timestamp: {field: t, format: '%s'}", r#""t":"1767268800""#), noon);
    assert_eq!(at("- timestamp: {field: t}", r#""t":"soon""#), 0);
}

#[test]
fn edits() {
    let edit = &mut stages(
        "- edit:\n    when: {contains: a}\n    remove: [gone]\n    rename: {old: new}\n    convert: {n: integer, new: number, b: boolean, s: text}\n    set: {team: blue, level: 3}\n    severity: error",
    );
    let mut apply = |body: &str, fields: &str| {
        let left = edit.apply(record(body, fields), Instant::now()).unwrap();
        (text(&left.body), text(&left.fields), left.severity)
    };
    assert_eq!(
        apply(r#"{"a":1,"gone":{"x":[1]},"old":"2.5","n":"7","team":"red"}"#, r#""b":"yes","s":12"#),
        (
            r#"{"a":1,"new":2.5,"n":7}"#.to_owned(),
            r#""b":true,"s":"12","level":3,"team":"blue""#.to_owned(),
            Severity::Error
        )
    );
    assert_eq!(apply(r#"{"gone":1,"a":2}"#, "").0, r#"{"a":2}"#);
    assert_eq!(apply("nope: b", r#""gone":1"#), ("nope: b".to_owned(), r#""gone":1"#.to_owned(), Severity::Unknown));
}

#[test]
fn metrics_from_records() {
    let mut stages = stages(
        "- metric: {name: requests, labels: {status: code}}\n- metric: {name: took_seconds, kind: histogram, value: took, buckets: [0.1, 1]}\n- metric: {name: users, kind: gauge, value: users, when: {contains: users}, maxSeries: 1}\n- drop: {contains: x}",
    );
    for (body, fields) in [
        ("a", r#""code":200,"took":0.05"#),
        ("x", r#""code":200,"took":"3.5""#),
        ("users", r#""code":"500","users":7,"took":0.5"#),
    ] {
        stages.apply(record(body, fields), Instant::now());
    }
    let mut out = Exposition::new("p", false);
    stages.counts().metrics(&mut out);
    let out = out.finish();
    for line in [
        "requests_total{status=\"200\"} 2",
        "requests_total{status=\"500\"} 1",
        "took_seconds_bucket{le=\"0.1\"} 1",
        "took_seconds_bucket{le=\"1\"} 2",
        "took_seconds_bucket{le=\"+Inf\"} 3",
        "took_seconds_sum 4.05",
        "took_seconds_count 3",
        "users 7",
        "p_stage_dropped_records_total{stage=\"3 drop\"} 1",
    ] {
        assert!(out.lines().any(|found| found == line), "{line}\n{out}");
    }
}

#[test]
fn a_batch_keeps_its_place() {
    let mut batch = Batch::new(Arc::default(), 5);
    for body in ["keep", "drop", "keep"] {
        batch.push(&record(body, "").record());
    }
    (batch.end, batch.mark) = (20, 3);
    let left = stages("- drop: {contains: drop}").run(batch);
    assert_eq!((left.start, left.end, left.mark, left.count, left.records().count()), (5, 20, 3, 2, 2));
}
