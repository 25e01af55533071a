//! Termination messages: what a container says last, from its file or, on error, from the end of its log
//! (pod v1 `terminationMessagePath`, `terminationMessagePolicy`).

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use crate::running::Running;

const FILE_BYTES: u64 = 4096;
const LOG_BYTES: usize = 2048;
const LOG_LINES: usize = 80;

pub(crate) fn message(running: &Running, container: &str, attempt: u32, code: i32) -> String {
    let file = read_file(&running.paths.termination_log(container, attempt));
    let policy = running.container(container).and_then(|c| c.termination_message_policy);
    if !file.is_empty() || code == 0 || policy.as_deref() != Some("FallbackToLogsOnError") {
        return file;
    }
    log_tail(&running.paths.log(&running.uid(), container, attempt))
}

fn read_file(path: &Path) -> String {
    let Ok(file) = File::open(path) else { return String::new() };
    let mut bytes = Vec::new();
    // A file that cannot be read has nothing to say: the exit itself must still be reported.
    let _ = file.take(FILE_BYTES).read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The last lines' contents, without the log's own columns.
fn log_tail(path: &Path) -> String {
    let Ok(mut file) = File::open(path) else { return String::new() };
    let length = file.metadata().map_or(0, |meta| meta.len());
    // Each line carries some forty bytes of its own; twice the wanted content is enough for 80 short lines.
    let window = u64::try_from(LOG_BYTES * 2 + LOG_LINES * 64).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    if file.seek(SeekFrom::Start(length.saturating_sub(window))).is_err() || file.read_to_end(&mut bytes).is_err() {
        return String::new();
    }
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<String> = text
        .lines()
        .filter_map(|line| {
            let mut columns = line.splitn(4, ' ');
            let stream = columns.nth(1)?;
            let tag = columns.next()?;
            let content = columns.next().unwrap_or("");
            matches!(stream, "stdout" | "stderr").then(|| match tag {
                "P" => content.to_owned(),
                _ => format!("{content}\n"),
            })
        })
        .collect();
    let tail = lines[lines.len().saturating_sub(LOG_LINES)..].concat();
    let mut start = tail.len().saturating_sub(LOG_BYTES);
    while !tail.is_char_boundary(start) {
        start += 1;
    }
    tail[start..].to_owned()
}

#[cfg(test)]
mod tests {
    use super::log_tail;

    #[test]
    fn the_tail_of_a_log_is_its_contents_only() {
        let path = std::env::temp_dir().join(format!("outrigger-tail-{}", std::process::id()));
        let line = |n: usize| format!("2026-11-22T00:00:00.000000000Z stderr F line {n}\n");
        std::fs::write(&path, (0..200).map(line).collect::<String>()).unwrap();
        let tail = log_tail(&path);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(tail.lines().count(), 80);
        assert!(tail.starts_with("line 120\n"), "{tail}");
        assert!(tail.ends_with("line 199\n"), "{tail}");
    }
}
