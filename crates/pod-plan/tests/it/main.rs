//! Scripts over a virtual clock (`tests/cases/*.txt`, see `script.rs` for the language), and properties of the plan.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod column;
mod property;
mod script;
mod world;
mod yaml;

use std::path::Path;

/// Runs every script again and compares what it prints with what stands there; `UPDATE_EXPECT=1` rewrites it.
#[test]
fn cases() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut paths: Vec<_> = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    paths.sort();
    let only = std::env::var("CASE").ok();
    let mut wrong = Vec::new();
    for path in paths {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if only.as_ref().is_some_and(|only| !name.contains(only.as_str())) {
            continue;
        }
        let expected = std::fs::read_to_string(&path).unwrap();
        let actual = script::run(&name, &expected);
        if actual == expected {
            continue;
        }
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&path, actual).unwrap();
        } else {
            wrong.push(format!("{name}:\n{}", difference(&expected, &actual)));
        }
    }
    assert!(wrong.is_empty(), "UPDATE_EXPECT=1 takes these over:\n{}", wrong.join("\n"));
}

/// The first lines that differ, with some around them.
fn difference(expected: &str, actual: &str) -> String {
    let (expected, actual): (Vec<_>, Vec<_>) = (expected.lines().collect(), actual.lines().collect());
    let same = expected.iter().zip(&actual).take_while(|(a, b)| a == b).count();
    let from = same.saturating_sub(3);
    let shown = |lines: &[&str], sign: &str| {
        let lines = lines.iter().enumerate().skip(from).take(12);
        lines.map(|(n, line)| format!("{sign}{:4} {line}\n", n + 1)).collect::<String>()
    };
    format!("{}{}", shown(&expected, "-"), shown(&actual, "+"))
}
