//! Nasty inputs, as they stand in `tests/corpus` and as chance changes them, through everything that reads what others
//! wrote: framing, parsers, stages, every encoding of every receiver, the spool, checkpoints, documents.
//!
//! What must hold is said in plain words: nothing panics, every byte of a source is used in the end, no text is lost, and
//! what leaves the pod can be read by who receives it. `PROPTEST_CASES` makes it run longer.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use proptest::prelude::*;
use proptest::sample::Index;
use record::encode::{self, Encoder};
use record::spool::Spool;
use record::{Batch, Origin, json};
use serde::de::IgnoredAny;

use crate::checkpoint::Store;
use crate::config::{self, Format, Preset, Spec};
use crate::encoding::Encoding;
use crate::frame::{End, Framer};
use crate::multiline::Rule;
use crate::parse::Parser;
use crate::stages::{StageError, Stages, Working};

/// Every stage that changes or looks into a record.
const DOCUMENT: &str = r"
apiVersion: outrigger.dev/v1alpha1
kind: LogAgent
metadata: {name: fuzz}
spec:
  sources:
  - {name: a, files: {include: [/x], exclude: ['*.gz']}, parse: regex, pattern: '(?P<a>\S+) (?P<message>.*)'}
  - {name: b, fifo: {path: /p}, multiline: {start: '^\S'}}
  stages:
  - redact: {presets: [email, card, token, password], patterns: ['[0-9]{3}'], replacement: '{' }
  - timestamp: {field: ts}
  - timestamp: {field: time, format: '%Y-%m-%dT%H:%M:%S%.f', zone: '+02:00'}
  - edit: {remove: [msg], rename: {a: b, level: message}, convert: {n: integer, ts: text, b: boolean}, set: {c: {d: [1]}}, severity: warn}
  - deduplicate: {by: [a, 'n']}
  - rateLimit: {records: 100000, by: host}
  - sample: {oneIn: 1}
  - metric: {name: seen, kind: histogram, value: 'n', labels: {a: a}, buckets: [1, 2]}
  - drop: {matches: '^never$', fields: {a: '^never$'}, minSeverity: fatal}
  sinks:
  - {name: o, to: {stdout: {}}, when: {contains: x}}
  fields: {pod: {value: p}}
  state: {directory: /s, memory: 1Mi}
  tests:
  - {name: t, lines: ['x'], expect: ['x']}
";

fn corpus() -> Vec<Vec<u8>> {
    let directory = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus"));
    let mut paths: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// A change of some bytes.
#[derive(Debug, Clone)]
enum Change {
    Flip(Index, u8),
    Cut(Index, usize),
    Repeat(Index, usize),
    Insert(Index, Vec<u8>),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let piece = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..6),
        proptest::sample::select(vec![
            "\n",
            "\r\n",
            "\"",
            "\\",
            "{",
            "}",
            "[",
            "]",
            "=",
            "\0",
            "<13>1 ",
            "Z stdout P ",
            "\u{feff}",
            "\\u",
            "1e9",
            " "
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
    ];
    let change = prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, bits)| Change::Flip(at, bits)),
        (any::<Index>(), 1usize..40).prop_map(|(at, length)| Change::Cut(at, length)),
        (any::<Index>(), 1usize..40).prop_map(|(at, length)| Change::Repeat(at, length)),
        (any::<Index>(), piece).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
    ];
    proptest::collection::vec(change, 0..8)
}

fn changed(mut bytes: Vec<u8>, changes: &[Change]) -> Vec<u8> {
    for change in changes {
        let (Change::Flip(at, _) | Change::Cut(at, _) | Change::Repeat(at, _) | Change::Insert(at, _)) = change;
        let at = at.index(bytes.len() + 1);
        let end = |length: &usize| (at + length).min(bytes.len());
        match change {
            Change::Flip(_, bits) => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= bits),
            Change::Cut(_, length) => drop(bytes.drain(at..end(length))),
            Change::Repeat(_, length) => {
                let piece = bytes[at..end(length)].to_vec();
                bytes.splice(at..at, piece);
            }
            Change::Insert(_, piece) => drop(bytes.splice(at..at, piece.iter().copied())),
        }
    }
    bytes
}

fn framers() -> Vec<Framer> {
    let regex = Parser::new(config::Parse::Regex, Some(r"(?P<a>\S+) (?P<message>.*)")).unwrap();
    let parsers = [Parser::None, Parser::Json, Parser::Logfmt, Parser::Access, Parser::Syslog, regex];
    let presets = [Preset::Java, Preset::Go, Preset::Python, Preset::Ruby, Preset::Node, Preset::Dotnet];
    let with = |format, parser, rule, max_line| Framer { format, parser, rule, max_line, scratch: Default::default() };
    let plain = parsers.into_iter().map(|parser| with(Format::Plain, parser, None, 100));
    let grouped =
        presets.into_iter().map(|preset| with(Format::Plain, Parser::Json, Some(Rule::Preset(preset)), 1 << 20));
    let cri = [(None, 100), (Some(Rule::Preset(Preset::Java)), 1 << 20)];
    let cri = cri.into_iter().map(|(rule, max_line)| with(Format::Cri, Parser::Json, rule, max_line));
    plain.chain(grouped).chain(cri).collect()
}

fn batch() -> Batch {
    let fields = br#""file":"/x","a":"b""#.to_vec();
    let labels = vec![("file".to_owned(), "/x\"\n\u{1f600}".to_owned())];
    Batch::new(Arc::new(Origin { id: 1, name: "/x".to_owned(), fields, labels, identity: vec![7; 40] }), 0)
}

fn stages() -> Stages {
    let loaded = daemon::config::load::<Spec>(DOCUMENT, "LogAgent", config::check).unwrap();
    Stages::new(&loaded.spec.stages).unwrap()
}

/// Everything that happens to the bytes of a source.
fn survives(bytes: &[u8], stages: &mut Stages) {
    for framer in framers() {
        for encoding in [Encoding::Utf8, Encoding::Utf16Le, Encoding::Utf16Be, Encoding::Latin1] {
            let mut whole = batch();
            assert_eq!(framer.frame(encoding, bytes, End::Final, 7, &mut whole), bytes.len(), "used in the end");
            for end in [End::Open, End::Idle, End::Full] {
                let used = framer.frame(encoding, bytes, end, 7, &mut batch());
                assert!(used <= bytes.len());
                assert!(end != End::Full || bytes.len() < 8 || used > 0, "nothing is stuck");
            }
            if encoding == Encoding::Utf8 && matches!(framer.parser, Parser::None) {
                no_text_is_lost(bytes, &whole);
            }
            leaves_readable(&whole);
            leaves_readable(&stages.run(whole));
        }
        framer.message(bytes, 7, &mut batch());
    }
}

/// But for ends of lines, holes and byte order marks.
fn no_text_is_lost(bytes: &[u8], batch: &Batch) {
    let text = |bytes: &[u8]| -> Vec<u8> {
        bytes.iter().copied().filter(|byte| !matches!(byte, b'\n' | b'\r' | 0 | 0xef | 0xbb | 0xbf)).collect()
    };
    let bodies: Vec<u8> = batch.records().flat_map(|record| record.body.to_vec()).collect();
    assert_eq!(text(&bodies), text(bytes));
}

/// What receivers get is JSON, or protobuf that hangs together.
fn leaves_readable(batch: &Batch) {
    for record in batch.records() {
        assert!(json::members(record.fields, |_| {}), "{}", String::from_utf8_lossy(record.fields));
        let working = Working::of(&record);
        let _ = (working.field_text("a"), working.field("message"));
    }
    let batches = [Arc::new(batch.clone())];
    let lines = |encoding| {
        let mut out = Vec::new();
        Encoder::new(encoding).append(&mut out, &batches);
        out
    };
    let object = |text: &[u8]| {
        // Its grammar alone: no depth and no number is too large for that.
        let read = serde_json::from_slice::<IgnoredAny>(text);
        assert!(read.is_ok() && text.starts_with(b"{"), "{read:?}: {}", String::from_utf8_lossy(text));
    };
    let text = lines(encode::Encoding::NdJson);
    text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).for_each(object);
    let mut out = Vec::new();
    encode::loki(&mut out, &batches, &[]);
    object(&out);
    let mut out = Vec::new();
    Encoder::new(encode::Encoding::NdJson).bulk(&mut out, &batches, b"{\"create\":{}}\n");
    out.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).for_each(object);
    let mut out = Vec::new();
    encode::otlp(&mut out, &batches, &[], 7);
    assert!(is_message(&out), "protobuf");
}

/// Whether the fields of a protobuf message fill it exactly.
fn is_message(mut bytes: &[u8]) -> bool {
    fn number(bytes: &mut &[u8]) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (first, rest) = bytes.split_first()?;
            *bytes = rest;
            value |= u64::from(first & 0x7f) << shift;
            if first & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
    while !bytes.is_empty() {
        let Some(tag) = number(&mut bytes) else { return false };
        let length = match tag & 7 {
            0 => {
                if number(&mut bytes).is_none() {
                    return false;
                }
                0
            }
            1 => 8,
            2 => match number(&mut bytes).and_then(|length| usize::try_from(length).ok()) {
                Some(length) => length,
                None => return false,
            },
            5 => 4,
            _ => return false,
        };
        let Some(rest) = bytes.get(length..) else { return false };
        bytes = rest;
    }
    true
}

#[test]
fn the_corpus_is_survived() {
    let mut stages = stages();
    for bytes in corpus() {
        survives(&bytes, &mut stages);
    }
}

proptest! {
    // Each case is some two hundred runs of everything.
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 8, ..ProptestConfig::default() })]

    #[test]
    fn what_chance_makes_of_the_corpus_is_survived(
        which: Index, other: Index, changes in changes(), join: bool, start: Index, length in 1usize..3000,
    ) {
        let corpus = corpus();
        let mut bytes = corpus[which.index(corpus.len())].clone();
        if join {
            bytes.extend_from_slice(&corpus[other.index(corpus.len())]);
        }
        let start = start.index(bytes.len() + 1);
        bytes = bytes[start..(start + length).min(bytes.len())].to_vec();
        survives(&changed(bytes, &changes), &mut stages());
    }

    /// However reads fall, nothing is lost and nothing comes twice.
    #[test]
    fn plain_lines_do_not_depend_on_reads(which: Index, changes in changes(), cuts in proptest::collection::vec(1usize..200, 1..40)) {
        let corpus = corpus();
        let bytes = changed(corpus[which.index(corpus.len())].clone(), &changes);
        let bytes = &bytes[..bytes.len().min(4000)];
        let framers = framers();
        let framer = &framers[1];
        let mut whole = batch();
        framer.frame(Encoding::Utf8, bytes, End::Final, 7, &mut whole);
        let mut pieces = Vec::new();
        let (mut at, mut end) = (0, 0);
        for cut in cuts {
            end = (end + cut).min(bytes.len());
            let mut piece = batch();
            at += framer.frame(Encoding::Utf8, &bytes[at..end], End::Open, 7, &mut piece);
            pieces.push(piece);
        }
        let mut piece = batch();
        framer.frame(Encoding::Utf8, &bytes[at..], End::Final, 7, &mut piece);
        pieces.push(piece);
        let bodies = |batch: &Batch| batch.records().map(|record| record.body.to_vec()).collect::<Vec<_>>();
        prop_assert_eq!(pieces.iter().flat_map(bodies).collect::<Vec<_>>(), bodies(&whole));
    }

    /// A spool that anything happened to opens, shows only what was written, and goes on.
    #[test]
    fn a_damaged_spool_is_survived(changes in changes(), which in 0usize..3) {
        let directory = tempfile::tempdir().unwrap();
        let entry = |sequence: u64| {
            let mut batch = Batch { sequence, ..batch() };
            framers()[0].frame(Encoding::Utf8, format!("entry {sequence}\n").as_bytes(), End::Final, 7, &mut batch);
            batch.end = sequence * 10;
            batch
        };
        let mut spool = Spool::open(directory.path(), 600, |_| {}).unwrap();
        for sequence in 1..=9 {
            spool.append(&entry(sequence)).unwrap();
        }
        drop(spool);
        let mut paths: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        let path = &paths[which % paths.len()];
        fs::write(path, changed(fs::read(path).unwrap(), &changes)).unwrap();
        let mut found = Vec::new();
        let mut spool = Spool::open(directory.path(), 600, |batch| found.push(batch)).unwrap();
        for batch in &found {
            prop_assert_eq!(batch, &entry(batch.sequence));
        }
        spool.append(&entry(10)).unwrap();
        let mut after = Vec::new();
        Spool::open(directory.path(), 600, |batch| after.push(batch.sequence)).unwrap();
        prop_assert_eq!(after.len(), found.len() + 1);
    }

    /// A checkpoint that anything happened to is read, or refused by name.
    #[test]
    fn a_damaged_checkpoint_is_survived(changes in changes()) {
        let directory = tempfile::tempdir().unwrap();
        let text = r#"{"version":1,"boot":"b","generation":3,"nextId":5,"looked":7,"files":[{"id":4,"path":"/x","device":1,"inode":2,"born":3,"head":[256,9],"size":6,"positions":{"out":[6,9]}}]}"#;
        for name in ["positions.json", "positions.now.json"] {
            fs::write(directory.path().join(name), changed(text.as_bytes().to_vec(), &changes)).unwrap();
        }
        let _ = Store::new(directory.path()).load();
    }

    /// A document that anything happened to is taken or refused, with a place for every problem.
    #[test]
    fn a_damaged_document_is_survived(changes in changes()) {
        let text = String::from_utf8_lossy(&changed(DOCUMENT.as_bytes().to_vec(), &changes)).into_owned();
        match daemon::config::load::<Spec>(&text, "LogAgent", config::check) {
            // What was checked can be built; but which time zones there are is the machine's business.
            Ok(loaded) => prop_assert!(matches!(Stages::new(&loaded.spec.stages), Ok(_) | Err(StageError::Zone(..))), "{}", text),
            Err(problems) => prop_assert!(!problems.is_empty()),
        }
        crate::command::import_survives(&text);
    }
}

const FLUENT_BIT: &str = "service: {flush: 1}\npipeline:\n  inputs: [{name: tail, path: /l/*.log, tag: a, read_from_head: true, multiline.parser: 'cri, java'}]\n  filters: [{name: grep, match: '*', regex: 'log x'}]\n  outputs: [{name: stdout, match: '*'}, {name: loki, match: a, host: h, port: 3100, labels: 'a=b'}]\n";
const PROMTAIL: &str = "clients: [{url: 'http://l:3100/loki/api/v1/push', batchwait: 1s}]\nscrape_configs:\n- job_name: a\n  static_configs: [{targets: [localhost], labels: {__path__: /l/*.log, job: x}}]\n  pipeline_stages: [{cri: {}}, {json: {expressions: {level: }}}, {drop: {expression: 'x'}}, {match: {selector: '{a=\"b\"}'}}]\n";

proptest! {
    #[test]
    fn a_damaged_configuration_of_another_agent_is_survived(promtail: bool, changes in changes()) {
        let text = if promtail { PROMTAIL } else { FLUENT_BIT };
        let text = changed(text.as_bytes().to_vec(), &changes);
        crate::command::import_survives(&String::from_utf8_lossy(&text));
    }
}

/// Not the fuzzing itself, but that it looks closely.
#[test]
fn stages_change_what_they_are_given() {
    let mut batch = batch();
    framers()[1].frame(Encoding::Utf8, b"{\"level\":\"info\",\"n\":\"3\"}\n", End::Final, 7, &mut batch);
    let record = batch.records().next().unwrap();
    let mut stages = stages();
    let left = stages.apply(Working::of(&record), Instant::now()).unwrap();
    assert_eq!(String::from_utf8_lossy(&left.body), r#"{"message":"info","n":3}"#);
    assert!(is_message(b"\x0a\x01x") && !is_message(b"\x0a\x02x"));
}
