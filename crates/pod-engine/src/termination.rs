//! Termination messages: what a container says last, from its file or, on error, from the end of its log
//! (pod v1 `terminationMessagePath`, `terminationMessagePolicy`).

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use crate::running::Running;

const FILE_BYTES: u64 = 4096;
const LOG_BYTES: usize = 2048;
const LOG_LINES: usize = 80;
/// Each line carries some forty bytes of its own; twice the wanted content is enough for 80 short lines.
const LOG_WINDOW: u64 = (LOG_BYTES * 2 + LOG_LINES * 64) as u64;

pub(crate) fn message(running: &Running, container: &str, attempt: u32, code: i32) -> String {
    let uid = running.uid();
    let file = read_file(&running.paths.termination_log(&uid, container, attempt));
    if !file.is_empty() || code == 0 {
        return file;
    }
    let launched = running.launched(container, attempt);
    let policy = launched.as_ref().and_then(|launched| launched.container.termination_message_policy.as_deref());
    if policy != Some("FallbackToLogsOnError") {
        return file;
    }
    log_tail(&running.paths.log(&uid, container, attempt))
}

fn read_file(path: &Path) -> String {
    let Ok(file) = File::open(path) else { return String::new() };
    let mut bytes = Vec::new();
    // A file that cannot be read has nothing to say: the exit itself must still be reported.
    let _ = file.take(FILE_BYTES).read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The last lines' contents, without the log's own columns. A log that was rotated a moment ago goes on backwards in the
/// newest rotated file.
fn log_tail(path: &Path) -> String {
    let mut bytes = read_end(path, LOG_WINDOW).unwrap_or_default();
    let missing = LOG_WINDOW.saturating_sub(bytes.len() as u64);
    if missing > 0
        && let Some(before) = logfile::files::rotated(path).unwrap_or_default().pop()
        && let Ok(mut earlier) = read_end(&before.path, missing)
    {
        earlier.append(&mut bytes);
        bytes = earlier;
    }
    tail_of(&String::from_utf8_lossy(&bytes))
}

/// At most `window` bytes, also of a file that is being written to.
fn read_end(path: &Path, window: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(window)))?;
    let mut bytes = Vec::new();
    file.take(window).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Of entries in the log's format; the first may be cut.
fn tail_of(entries: &str) -> String {
    let lines: Vec<String> = entries
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

    fn lines(numbers: std::ops::Range<usize>) -> String {
        numbers.map(|n| format!("2026-11-22T00:00:00.000000000Z stderr F line {n}\n")).collect()
    }

    #[test]
    fn the_tail_of_a_log_is_its_contents_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        std::fs::write(&path, lines(0..200)).unwrap();
        let tail = log_tail(&path);
        assert_eq!(tail.lines().count(), 80);
        assert!(tail.starts_with("line 120\n"), "{tail}");
        assert!(tail.ends_with("line 199\n"), "{tail}");
    }

    #[test]
    fn a_log_that_was_just_rotated_is_read_across_the_seam() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        std::fs::write(logfile::files::rotated_path(&path, 1_786_788_000), lines(0..5)).unwrap();
        std::fs::write(logfile::files::rotated_path(&path, 1_786_788_001), lines(5..198)).unwrap();
        std::fs::write(&path, lines(198..200)).unwrap();
        let tail = log_tail(&path);
        assert_eq!(tail.lines().count(), 80);
        assert!(tail.ends_with("line 197\nline 198\nline 199\n"), "{tail}");

        // Renamed, and the new one not there yet.
        std::fs::remove_file(&path).unwrap();
        assert!(log_tail(&path).ends_with("line 197\n"));
        std::fs::remove_dir_all(directory.path()).unwrap();
        assert_eq!(log_tail(&path), "");
    }
}
