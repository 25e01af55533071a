use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::config::{Parse, Preset};

fn framer(format: Format, parse: Parse, rule: Option<Rule>) -> Framer {
    Framer { format, parser: Parser::new(parse, None).unwrap(), rule, max_line: 64, scratch: Default::default() }
}

/// Bodies, with `…` behind partial ones, and how much was used.
fn framed(framer: &Framer, text: &str, end: End) -> (Vec<String>, usize) {
    let mut batch = Batch::new(Arc::default(), 0);
    let used = framer.frame(Encoding::Utf8, text.as_bytes(), end, 7, &mut batch);
    assert_eq!(batch.count as usize, batch.records().count());
    let shown = batch.records().map(|record| {
        let more = if record.flags.has(Flags::PARTIAL) { "…" } else { "" };
        format!("{}{more}", String::from_utf8_lossy(record.body))
    });
    (shown.collect(), used)
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn plain_lines() {
    let plain = framer(Format::Plain, Parse::None, None);
    assert_eq!(framed(&plain, "a\r\n\nb\nrest", End::Open), (strings(&["a", "", "b"]), 6));
    assert_eq!(framed(&plain, "a\nrest", End::Idle), (strings(&["a"]), 2), "a writer may be slow");
    assert_eq!(framed(&plain, "a\nrest", End::Final), (strings(&["a", "rest"]), 6));
    assert_eq!(framed(&plain, "\0\0\0a\n", End::Open), (strings(&["a"]), 5));
    let long = "x".repeat(100);
    assert_eq!(framed(&plain, &long, End::Open), (Vec::new(), 0));
    assert_eq!(framed(&plain, &long, End::Full), (vec![format!("{}…", "x".repeat(64))], 64));
    let (records, used) = framed(&plain, &format!("{long}\n"), End::Open);
    assert_eq!((records, used), (vec![format!("{}…", "x".repeat(64)), "x".repeat(36)], 101));
}

proptest! {
    /// Lines taken as they are, or one by one: the same records.
    #[test]
    fn the_short_way_is_the_long_way(pieces in proptest::collection::vec("[ab\\n\\r\\x00é\u{feff}]{0,3}|c{60,70}", 0..40)) {
        let (plain, text) = (framer(Format::Plain, Parse::None, None), pieces.concat());
        for end in [End::Open, End::Idle, End::Full, End::Final] {
            let (mut short, mut long) = (Batch::new(Arc::default(), 0), Batch::new(Arc::default(), 0));
            let record = Record { time: 7, flags: Flags(0), severity: Severity::Unknown, body: b"", fields: b"" };
            long.push(&record);
            let used = plain.frame(Encoding::Utf8, text.as_bytes(), end, 7, &mut short);
            prop_assert_eq!(plain.frame(Encoding::Utf8, text.as_bytes(), end, 7, &mut long), used);
            prop_assert_eq!(short.records().collect::<Vec<_>>(), long.records().skip(1).collect::<Vec<_>>());
            prop_assert_eq!(short.count + 1, long.count);
        }
    }
}

#[test]
fn runtime_entries() {
    let cri = framer(Format::Cri, Parse::None, None);
    let at = "2026-08-15T10:00:00Z";
    let whole = format!("{at} stdout F one\n{at} stderr F two\nnoise\n");
    assert_eq!(framed(&cri, &whole, End::Open), (strings(&["one", "two", "noise"]), whole.len()));
    // The other stream's line waits until the split one is whole: it began later.
    let split = format!("{at} stdout F zero\n{at} stdout P on\n{at} stderr F two\n");
    let zero = format!("{at} stdout F zero\n").len();
    assert_eq!(framed(&cri, &split, End::Open), (strings(&["zero"]), zero));
    let joined = format!("{split}{at} stdout F e\n");
    assert_eq!(framed(&cri, &joined, End::Open), (strings(&["zero", "two", "one"]), joined.len()));
    assert_eq!(framed(&cri, &split, End::Idle), (strings(&["zero", "two", "on"]), split.len()));
}

#[test]
fn groups_wait_for_what_follows() {
    let java = framer(Format::Plain, Parse::None, Some(Rule::Preset(Preset::Java)));
    let text = "a\nb\n\tat c\n";
    assert_eq!(framed(&java, text, End::Open), (strings(&["a"]), 2));
    assert_eq!(framed(&java, text, End::Idle), (strings(&["a", "b\n\tat c"]), text.len()));
    assert_eq!(framed(&java, &format!("{text}d"), End::Final).0, strings(&["a", "b\n\tat c", "d"]));
    let cri = framer(Format::Cri, Parse::None, Some(Rule::Preset(Preset::Java)));
    let at = "2026-08-15T10:00:00Z";
    let text = format!("{at} stdout F a\n{at} stderr F x\n{at} stdout F \tat b\n{at} stdout F c\n{at} stderr F y\n");
    assert_eq!(framed(&cri, &text, End::Final).0, strings(&["a\n\tat b", "x", "c", "y"]));
}

#[test]
fn objects_and_pairs() {
    let record = |parse: Parse, line: &str| {
        let mut batch = Batch::new(Arc::default(), 0);
        framer(Format::Plain, parse, None).frame(
            Encoding::Utf8,
            format!("{line}\n").as_bytes(),
            End::Open,
            7,
            &mut batch,
        );
        let record = batch.records().next().unwrap();
        let fields = String::from_utf8(record.fields.to_vec()).unwrap();
        (record.time, record.severity, record.flags.has(Flags::OBJECT), fields)
    };
    let noon = 1_786_788_000_000_000_000;
    let none = String::new;
    assert_eq!(record(Parse::Json, r#"{"level":"warn","ts":1786788000}"#), (noon, Severity::Warn, true, none()));
    assert_eq!(
        record(Parse::Json, r#"{"time":"2026-08-15T10:00:00Z","level":50}"#),
        (noon, Severity::Error, true, none())
    );
    assert_eq!(record(Parse::Json, r#"{"level":"warn","#), (7, Severity::Unknown, false, none()));
    assert_eq!(
        record(Parse::Logfmt, r#"level=info msg="a \"b\"" x=1 flag y="#),
        (7, Severity::Info, false, r#""level":"info","msg":"a \"b\"","x":"1","y":"""#.to_owned())
    );
}

proptest! {
    /// However reads fall, the records are the same.
    #[test]
    fn grouping_does_not_depend_on_reads(
        lines in proptest::collection::vec("[a-c]{0,3}|\tat [a-z]{1,3}|Caused by: [x-z]|2026-08-15T10:00:00Z (stdout|stderr) [FP] (\tat )?[a-z]{0,4}", 0..20),
        cuts in proptest::collection::vec(1usize..40, 1..30),
        cri: bool,
        grouped: bool,
    ) {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let rule = grouped.then_some(Rule::Preset(Preset::Java));
        let mut framer = framer(if cri { Format::Cri } else { Format::Plain }, Parse::None, rule);
        framer.max_line = 1 << 20;
        let whole = framed(&framer, &text, End::Final).0;
        let mut records = Vec::new();
        let (mut at, mut end) = (0, 0);
        for cut in cuts {
            end = (end + cut).min(text.len());
            let (more, used) = framed(&framer, &text[at..end], End::Open);
            records.extend(more);
            at += used;
        }
        records.extend(framed(&framer, &text[at..], End::Final).0);
        // Streams may interleave differently; within each, and so in all, the records are the same.
        let sorted = |mut list: Vec<String>| { list.sort(); list };
        prop_assert_eq!(sorted(records), sorted(whole));
    }

    #[test]
    fn any_bytes_are_consumed_in_the_end(bytes: Vec<u8>, cri: bool, grouped: bool) {
        let rule = grouped.then_some(Rule::Preset(Preset::Python));
        let framer = framer(if cri { Format::Cri } else { Format::Plain }, Parse::Logfmt, rule);
        let mut batch = Batch::new(Arc::default(), 0);
        prop_assert_eq!(framer.frame(Encoding::Utf8, &bytes, End::Final, 0, &mut batch), bytes.len());
        let used = framer.frame(Encoding::Utf8, &bytes, End::Full, 0, &mut batch);
        prop_assert!(bytes.is_empty() || used > 0);
    }
}

#[test]
fn text_that_is_not_utf8() {
    let plain = framer(Format::Plain, Parse::None, None);
    let text = "\u{feff}gr\u{fc}n \u{1f600}\r\nzwei\nrest";
    let bytes: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let rest = "rest".len() * 2;
    let mut batch = Batch::new(Arc::default(), 0);
    // An odd byte at the end is half of what comes next.
    let used = plain.frame(Encoding::Utf16Le, &bytes[..bytes.len() - 1], End::Open, 7, &mut batch);
    assert_eq!(used, bytes.len() - rest);
    let bodies: Vec<&str> = batch.records().map(|record| std::str::from_utf8(record.body).unwrap()).collect();
    assert_eq!(bodies, ["gr\u{fc}n \u{1f600}", "zwei"]);
    let mut batch = Batch::new(Arc::default(), 0);
    assert_eq!(plain.frame(Encoding::Utf16Le, &bytes, End::Final, 7, &mut batch), bytes.len());
    assert_eq!(batch.count, 3);
    let mut batch = Batch::new(Arc::default(), 0);
    assert_eq!(plain.frame(Encoding::Latin1, b"caf\xe9\n", End::Open, 7, &mut batch), 5);
    assert_eq!(batch.records().next().unwrap().body, "caf\u{e9}".as_bytes());
}

#[test]
fn long_lines_are_not_cut_in_the_middle_of_a_character() {
    let plain = framer(Format::Plain, Parse::None, None);
    let long = "\u{20ac}".repeat(50);
    for end in [End::Full, End::Open] {
        let text = if end == End::Open { format!("{long}\n") } else { long.clone() };
        let (records, _) = framed(&plain, &text, end);
        assert_eq!(records[0], format!("{}…", "\u{20ac}".repeat(21)));
    }
}

#[test]
fn a_message_is_one_record() {
    let plain = framer(Format::Plain, Parse::None, None);
    let mut batch = Batch::new(Arc::default(), 0);
    for message in [&b"two\nlines\n\0"[..], b"", b"\r\n"] {
        plain.message(message, 7, &mut batch);
    }
    assert_eq!(batch.records().map(|record| record.body.to_vec()).collect::<Vec<_>>(), [b"two\nlines".to_vec()]);
}
