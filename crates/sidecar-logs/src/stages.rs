//! What happens to a record between its source and the queue, once for each record: a batch that could not be queued is
//! kept as it is, not made again. After a crash a source is read again; then limits and repeats count anew.

mod condition;
mod edit;
mod limit;
mod metric;
mod redact;

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use daemon::metrics::Exposition;
use record::{Batch, Flags, Record, Severity, json};

pub use condition::Check;
pub use edit::is_format;

use crate::checkpoint::hash;
use crate::config::{self, Stage};
use crate::tap::{Point, Tap};
use edit::Editor;
use limit::{Limiter, Repeats};
use metric::Counting;
use redact::Redaction;

/// A record that may be changed.
#[derive(Debug, Clone)]
pub struct Working<'a> {
    pub time: i64,
    pub flags: Flags,
    pub severity: Severity,
    pub body: Cow<'a, [u8]>,
    pub fields: Cow<'a, [u8]>,
}

impl<'a> Working<'a> {
    pub fn of(record: &Record<'a>) -> Working<'a> {
        Working {
            time: record.time,
            flags: record.flags,
            severity: record.severity,
            body: Cow::Borrowed(record.body),
            fields: Cow::Borrowed(record.fields),
        }
    }

    pub fn record(&self) -> Record<'_> {
        let (time, flags, severity) = (self.time, self.flags, self.severity);
        Record { time, flags, severity, body: &self.body, fields: &self.fields }
    }

    /// The value of a field as JSON, from what was parsed or the application's own object.
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        let mut found = None;
        let mut look = |(key, value)| {
            if key == name.as_bytes() {
                found = Some(value);
            }
        };
        json::members(&self.fields, &mut look);
        if found.is_none() && self.flags.has(Flags::OBJECT) {
            json::object(&self.body, |(key, value)| {
                if key == name.as_bytes() {
                    found = Some(value);
                }
            });
        }
        found
    }

    /// The same as plain text.
    pub fn field_text(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        let raw = self.field(name)?;
        Some(match json::string_value(raw) {
            None => Cow::Borrowed(raw),
            Some(inner) if !inner.contains(&b'\\') => Cow::Borrowed(inner),
            Some(inner) => {
                let mut plain = Vec::new();
                json::unescape(&mut plain, inner);
                Cow::Owned(plain)
            }
        })
    }
}

#[derive(Debug)]
pub struct Stages {
    steps: Vec<Step>,
    /// Seen by whoever asks for metrics.
    counts: Arc<Counts>,
    tap: Option<Arc<Tap>>,
}

#[derive(Debug)]
enum Step {
    Filter { condition: Box<Check>, keep: bool },
    Redact(Box<Redaction>),
    Sample(u64),
    Limit(Box<Limiter>),
    Repeats(Box<Repeats>),
    Timestamp(Box<edit::Clock>),
    Edit(Box<Editor>),
    Metric(Arc<Counting>),
}

/// What the stages have done so far.
#[derive(Debug, Default)]
pub struct Counts {
    /// Name of the stage, and how many records it dropped.
    dropped: Vec<(String, AtomicU64)>,
    metrics: Vec<Arc<Counting>>,
}

#[derive(Debug, thiserror::Error)]
pub enum StageError {
    #[error("a regular expression is wrong")]
    Regex(#[from] regex::Error),
    #[error("the time zone `{0}` is not known on this machine")]
    Zone(String, #[source] jiff::Error),
}

impl Stages {
    pub fn new(config: &[Stage]) -> Result<Stages, StageError> {
        let mut counts = Counts::default();
        let mut steps = Vec::new();
        for (index, stage) in config.iter().enumerate() {
            let check = |condition: &config::Condition| Check::new(condition).map(Box::new);
            let (name, step) = match stage {
                Stage::Keep(condition) => ("keep", Step::Filter { condition: check(condition)?, keep: true }),
                Stage::Drop(condition) => ("drop", Step::Filter { condition: check(condition)?, keep: false }),
                Stage::Redact(redact) => ("redact", Step::Redact(Box::new(Redaction::new(redact)?))),
                Stage::Sample(sample) => ("sample", Step::Sample(u64::from(sample.one_in.max(1)))),
                Stage::RateLimit(limit) => ("rateLimit", Step::Limit(Box::new(Limiter::new(limit)?))),
                Stage::Deduplicate(config) => ("deduplicate", Step::Repeats(Box::new(Repeats::new(config)))),
                Stage::Timestamp(config) => ("timestamp", Step::Timestamp(Box::new(edit::Clock::new(config)?))),
                Stage::Edit(edit) => ("edit", Step::Edit(Box::new(Editor::new(edit)?))),
                Stage::Metric(metric) => {
                    let counting = Arc::new(Counting::new(metric)?);
                    counts.metrics.push(Arc::clone(&counting));
                    ("metric", Step::Metric(counting))
                }
            };
            counts.dropped.push((format!("{index} {name}"), AtomicU64::new(0)));
            steps.push(step);
        }
        Ok(Stages { steps, counts: Arc::new(counts), tap: None })
    }

    pub fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }

    /// Shows every record that comes and goes.
    pub fn set_tap(&mut self, tap: Arc<Tap>) {
        self.tap = Some(tap);
    }

    /// The batch with the records that are left.
    pub fn run(&mut self, batch: Batch) -> Batch {
        if let Some(tap) = &self.tap {
            tap.show(Point::Parsed, &batch);
        }
        let left = self.left_of(batch);
        if let Some(tap) = &self.tap {
            tap.show(Point::Staged, &left);
        }
        left
    }

    fn left_of(&mut self, batch: Batch) -> Batch {
        if self.steps.is_empty() || batch.count == 0 {
            return batch;
        }
        let mut left = Batch { frames: Vec::with_capacity(batch.frames.len()), count: 0, ..batch.clone_head() };
        let now = Instant::now();
        for record in batch.records() {
            if let Some(working) = self.apply(Working::of(&record), now) {
                left.push(&working.record());
            }
        }
        // A filter that drops most lines must not keep their room.
        if left.frames.capacity() > 2 * left.frames.len() {
            left.frames.shrink_to_fit();
        }
        left
    }

    /// `None` if it is dropped.
    pub fn apply<'a>(&mut self, mut record: Working<'a>, now: Instant) -> Option<Working<'a>> {
        for (index, step) in self.steps.iter_mut().enumerate() {
            let passes = match step {
                Step::Filter { condition, keep } => condition.holds(&record) == *keep,
                Step::Sample(one_in) => hash(&record.body).is_multiple_of(*one_in),
                Step::Limit(limiter) => limiter.lets(&record, now),
                Step::Repeats(repeats) => repeats.lets(&mut record, now),
                Step::Redact(redaction) => {
                    redact(redaction, &mut record);
                    true
                }
                Step::Timestamp(clock) => {
                    clock.apply(&mut record);
                    true
                }
                Step::Edit(editor) => {
                    editor.apply(&mut record);
                    true
                }
                Step::Metric(counting) => {
                    counting.see(&record);
                    true
                }
            };
            if !passes {
                self.counts.dropped[index].1.fetch_add(1, Ordering::Relaxed);
                return None;
            }
        }
        Some(record)
    }
}

fn redact(redaction: &Redaction, record: &mut Working<'_>) {
    if let Cow::Owned(changed) = redaction.apply(&record.body) {
        // A replacement of one's own may have broken the object.
        if record.flags.has(Flags::OBJECT) && !json::object(&changed, |_| {}) {
            record.flags = record.flags.without(Flags::OBJECT);
        }
        record.body = Cow::Owned(changed);
    }
    if let Cow::Owned(changed) = redaction.apply(&record.fields) {
        // What cannot be shown without the secret is not shown.
        record.fields = Cow::Owned(if json::members(&changed, |_| {}) { changed } else { Vec::new() });
    }
}

impl Counts {
    pub fn metrics(&self, out: &mut Exposition) {
        if !self.dropped.is_empty() {
            let mut family = out.counter("stage_dropped_records", "Records that a stage dropped.");
            for (stage, count) in &self.dropped {
                family.sample(&[("stage", stage)], count.load(Ordering::Relaxed));
            }
        }
        if !self.metrics.is_empty() {
            let mut family = out.counter(
                "metric_refused_records",
                "Records a metric has no room for: too many combinations of labels.",
            );
            for metric in &self.metrics {
                family.sample(&[("metric", metric.name())], metric.refused());
            }
        }
        self.metrics.iter().for_each(|metric| metric.show(out));
    }
}

#[cfg(test)]
mod tests;
