//! The file of a pod's Kubernetes events, for those who ask later.
//!
//! What a container prints into a failing probe ends up in an event, so the file is bounded against it: long messages
//! are cut, repetitions are counted rather than written (as a cluster's event correlator does, client-go
//! tools/record/events_cache.go), and a full file is moved aside once.

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use jiff::SignedDuration;
use pod_plan::{Notice, Time};
use serde::Serialize;

/// The API server's own limit for an event's message (k8s.io/api events/v1, `note`).
const LONGEST_MESSAGE: usize = 1024;
/// Repetitions within this time of the last line are only counted.
const QUIET: SignedDuration = SignedDuration::from_secs(60);
/// An event that did not come again for so long begins to count anew (`defaultAggregateIntervalInSeconds`).
const FORGOTTEN: SignedDuration = SignedDuration::from_secs(600);
/// Different events remembered at once; more are possible only if a container makes them up.
const REMEMBERED: usize = 64;
/// The file and its one predecessor together take at most twice this.
const FULL: u64 = 1 << 20;

/// One pod's event file. A line is a [`Notice`] as JSON, with `count` where it stands for several.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    recent: RefCell<Recent>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Line {
    #[serde(flatten)]
    notice: Notice,
    /// How often it has happened up to `at`, if more than once.
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u32>,
}

/// What happened lately, the longest ago first.
#[derive(Debug, Default)]
struct Recent(Vec<Repeated>);

#[derive(Debug)]
struct Repeated {
    /// The last occurrence.
    notice: Notice,
    count: u32,
    counted_in_file: u32,
    written: Time,
}

// === impl Journal ===

impl Journal {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, recent: RefCell::default() }
    }

    /// Takes down an event whose message was [`cut`].
    pub(crate) fn write(&self, notice: &Notice) -> io::Result<()> {
        let lines = self.recent.borrow_mut().lines(notice);
        if lines.is_empty() { Ok(()) } else { self.append(&lines) }
    }

    fn append(&self, lines: &[Line]) -> io::Result<()> {
        let mut bytes = Vec::new();
        for line in lines {
            serde_json::to_writer(&mut bytes, line)?;
            bytes.push(b'\n');
        }
        let mut file = File::options().create(true).append(true).mode(0o600).open(&self.path)?;
        // In one write, so that a reader finds whole lines.
        file.write_all(&bytes)?;
        if file.metadata()?.len() >= FULL {
            fs::rename(&self.path, self.path.with_extension("jsonl.1"))?;
        }
        Ok(())
    }
}

// === impl Recent ===

impl Recent {
    /// What is to be written now that `notice` has happened: it, unless it repeats, and counts that were held back.
    fn lines(&mut self, notice: &Notice) -> Vec<Line> {
        let now = notice.at;
        let index = self.0.iter().position(|known| known.is_like(notice));
        let mut repeated = match index.map(|index| self.0.remove(index)) {
            Some(known) if now.duration_since(known.notice.at) < FORGOTTEN => {
                Repeated { notice: notice.clone(), count: known.count.saturating_add(1), ..known }
            }
            _ => Repeated { notice: notice.clone(), count: 1, counted_in_file: 0, written: now },
        };
        let mut lines: Vec<Line> = self.0.iter_mut().filter_map(|known| known.line_if_due(now)).collect();
        lines.extend(repeated.line_if_due(now));
        self.0.push(repeated);
        self.0.retain(|known| now.duration_since(known.notice.at) < FORGOTTEN);
        if self.0.len() > REMEMBERED {
            lines.extend(self.0.remove(0).line());
        }
        lines
    }
}

// === impl Repeated ===

impl Repeated {
    fn is_like(&self, other: &Notice) -> bool {
        let known = &self.notice;
        (known.warning, &known.reason, &known.field_path, &known.message)
            == (other.warning, &other.reason, &other.field_path, &other.message)
    }

    fn line_if_due(&mut self, now: Time) -> Option<Line> {
        let due = self.counted_in_file == 0 || now.duration_since(self.written) >= QUIET;
        if !due {
            return None;
        }
        let line = self.line();
        if line.is_some() {
            (self.counted_in_file, self.written) = (self.count, now);
        }
        line
    }

    /// Nothing if the file has it all.
    fn line(&self) -> Option<Line> {
        let count = (self.count > 1).then_some(self.count);
        (self.count > self.counted_in_file).then(|| Line { notice: self.notice.clone(), count })
    }
}

/// The message in at most [`LONGEST_MESSAGE`] bytes; `…` says that there was more.
pub(crate) fn cut(mut message: String) -> String {
    const MORE: &str = "…";
    if message.len() > LONGEST_MESSAGE {
        message.truncate(message.floor_char_boundary(LONGEST_MESSAGE - MORE.len()));
        message.push_str(MORE);
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(second: i64, message: &str) -> Notice {
        Notice {
            at: Time::from_second(second).unwrap(),
            warning: true,
            reason: "Unhealthy".into(),
            message: message.into(),
            field_path: "spec.containers{app}".into(),
        }
    }

    /// `second message count` of what is written when these happen.
    fn written(happen: &[(i64, &str)]) -> Vec<String> {
        let mut recent = Recent::default();
        let lines = happen.iter().flat_map(|(second, message)| recent.lines(&notice(*second, message)));
        lines
            .map(|line| format!("{} {} {}", line.notice.at.as_second(), line.notice.message, line.count.unwrap_or(1)))
            .collect()
    }

    #[test]
    fn repetitions_are_one_line_a_minute_with_their_count() {
        let every_ten: Vec<(i64, &str)> = (0..15).map(|i| (i * 10, "refused")).collect();
        assert_eq!(written(&every_ten), ["0 refused 1", "60 refused 7", "120 refused 13"]);
    }

    #[test]
    fn different_events_do_not_hold_each_other_back_and_bring_out_held_counts() {
        assert_eq!(written(&[(0, "a"), (1, "b"), (2, "a"), (70, "c")]), ["0 a 1", "1 b 1", "2 a 2", "70 c 1"]);
    }

    #[test]
    fn after_ten_minutes_an_event_is_new() {
        assert_eq!(written(&[(0, "a"), (601, "a")]), ["0 a 1", "601 a 1"]);
    }

    #[test]
    fn what_a_container_makes_up_is_not_remembered_without_end() {
        let mut recent = Recent::default();
        for second in 0..1000 {
            recent.lines(&notice(0, &second.to_string()));
        }
        assert_eq!(recent.0.len(), REMEMBERED);
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        assert_eq!(cut("short".into()), "short");
        let long = cut("ä".repeat(5000));
        assert!(long.len() <= LONGEST_MESSAGE && long.len() > LONGEST_MESSAGE - 4);
        assert!(long.ends_with("ä…"));
    }

    #[test]
    fn the_file_is_readable_as_notices_and_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::new(dir.path().join("events.jsonl"));
        for number in 0..5000 {
            journal.write(&notice(number / 10, &format!("{number} {}", "x".repeat(1000)))).unwrap();
        }
        journal.write(&notice(500, "again")).unwrap();
        journal.write(&notice(501, "again")).unwrap();
        journal.write(&notice(561, "again")).unwrap();
        let text = fs::read_to_string(dir.path().join("events.jsonl")).unwrap();
        let notices: Vec<Notice> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(notices.last(), Some(&notice(561, "again")));
        assert!(text.ends_with("\"count\":3}\n"), "{}", text.lines().last().unwrap());
        let sizes = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len());
        let sizes: Vec<u64> = sizes.collect();
        assert!(sizes.len() == 2 && sizes.iter().all(|size| *size < FULL + 4096), "{sizes:?}");
    }
}
