use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use logfile::write::Writer;

use super::*;

/// 2026-08-15T10:00:00Z
const NOW: i64 = 1_786_788_000_000_000_000;

fn entry(second: u32, stream: &str, tag: &str, text: &str) -> String {
    format!("2026-08-15T10:00:{second:02}.000000000Z {stream} {tag} {text}\n")
}

fn reader(directory: &Path, options: Options, form: Form, over: Option<IsOver>) -> Reader {
    Reader::new(&directory.join("0.log"), 0, options, form, over)
}

async fn all(mut reader: Reader) -> String {
    let mut text = Vec::new();
    while let Some(chunk) = reader.next().await.unwrap() {
        assert!(!chunk.is_empty());
        text.extend_from_slice(&chunk);
    }
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn entries_are_printed_as_kubectl_wants_them() {
    let directory = tempfile::tempdir().unwrap();
    let text = [
        entry(1, "stdout", "F", "one"),
        entry(2, "stderr", "P", "two "),
        entry(3, "stderr", "F", "halves"),
        entry(4, "stdout", "F", ""),
    ];
    std::fs::write(directory.path().join("0.log"), text.concat()).unwrap();
    std::fs::write(directory.path().join("0.log.20260815-095959"), entry(0, "stdout", "F", "rotated")).unwrap();
    let rotated = Options { rotated: true, ..Options::default() };
    let print = |options, form| all(reader(directory.path(), options, form, None));

    assert_eq!(print(rotated, Form::default()).await, "rotated\none\ntwo halves\n\n");
    let stamped = Form { timestamps: true, ..Form::default() };
    let expected = "2026-08-15T10:00:01.000000000Z one\n2026-08-15T10:00:02.000000000Z two halves\n2026-08-15T10:00:04.000000000Z \n";
    assert_eq!(print(Options::default(), stamped).await, expected);
    let tail = Options { tail: Some(2), ..rotated };
    assert_eq!(print(tail, Form { most: Some(2), ..Form::default() }).await, "halves\n\n");
    assert_eq!(print(tail, Form { most: Some(1), ..Form::default() }).await, "halves\n");
    assert_eq!(print(Options { tail: Some(0), ..rotated }, Form { most: Some(0), ..Form::default() }).await, "");
    assert_eq!(print(rotated, Form { limit: Some(10), ..Form::default() }).await, "rotated\non");
    assert_eq!(print(rotated, Form { stream: Some(Stream::Stderr), ..Form::default() }).await, "two halves\n");
    let missing = tempfile::tempdir().unwrap();
    assert_eq!(all(reader(&missing.path().join("none"), rotated, Form::default(), None)).await, "");
}

/// With the real writer, across rotations; every line is there within 20 ms, and the end is noticed.
#[tokio::test]
async fn following_is_prompt_complete_and_ends() {
    let directory = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(directory.path().join("0.log"), 4096, 1000, NOW).unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let is_over = {
        let over = over.clone();
        Box::new(move || over.load(Ordering::SeqCst)) as IsOver
    };
    let mut reader =
        reader(directory.path(), Options { rotated: true, ..Options::default() }, Form::default(), Some(is_over));
    let mut delays = Vec::new();
    for number in 0..200 {
        let line = format!("line {number} {}\n", "x".repeat(100));
        writer.write(Stream::Stdout, line.as_bytes(), NOW).unwrap();
        let written = Instant::now();
        let mut seen = Vec::new();
        while seen.len() < line.len() {
            seen.extend_from_slice(&reader.next().await.unwrap().unwrap());
        }
        delays.push(written.elapsed());
        assert_eq!(String::from_utf8(seen).unwrap(), line);
    }
    delays.sort_unstable();
    // The machine may be busy; what comes fastest is what the code does. A reader that looked now and then would be slow
    // nearly always.
    assert!(delays[20] < Duration::from_millis(20), "{:?}", delays[20]);
    assert!(logfile::files::rotated(&directory.path().join("0.log")).unwrap().len() > 2);
    over.store(true, Ordering::SeqCst);
    writer.write(Stream::Stdout, b"last\n", NOW).unwrap();
    assert_eq!(all(reader).await, "last\n");
}
