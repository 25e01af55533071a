//! What happens to a record.

use std::collections::BTreeMap;

use daemon::config::Seconds;
use daemon::config::print::Value as Any;
use daemon::{choice, document, one_of};

one_of! {
    /// One step.
    pub enum Stage {
        /// Keeps what matches, drops the rest.
        Keep(Condition) = "keep",
        /// Drops what matches.
        Drop(Condition) = "drop",
        /// Replaces what must not leave the pod.
        Redact(Redact) = "redact",
        /// Keeps one record in so many.
        Sample(Sample) = "sample",
        /// Drops what comes too fast.
        RateLimit(RateLimit) = "rateLimit",
        /// Drops repeats.
        Deduplicate(Deduplicate) = "deduplicate",
        /// Takes the record's time from a field.
        Timestamp(Timestamp) = "timestamp",
        /// Changes fields.
        Edit(Edit) = "edit",
        /// Counts records on `/metrics`; the record goes on.
        Metric(Metric) = "metric",
    }
}

document! {
    /// All that is given must hold.
    pub struct Condition {
        /// A regular expression that the text matches.
        matches: Option<String> = optional,
        /// A literal part of the text.
        contains: Option<String> = optional,
        /// Fields, each with a regular expression that its text matches. A field that is not there matches nothing.
        fields: BTreeMap<String, String> = default(BTreeMap::new()),
        /// The severity is known and at least this.
        min_severity: Option<Level> = optional,
        /// The severity is known and at most this.
        max_severity: Option<Level> = optional,
    }
}

impl Condition {
    /// Whether nothing is asked.
    pub fn is_empty(&self) -> bool {
        self.matches.is_none()
            && self.contains.is_none()
            && self.fields.is_empty()
            && self.min_severity.is_none()
            && self.max_severity.is_none()
    }
}

choice! {
    /// Severities.
    pub enum Level {
        /// Finer than debug.
        Trace = "trace",
        /// For developers.
        Debug = "debug",
        /// Normal.
        Info = "info",
        /// Unexpected but coped with.
        Warn = "warn",
        /// Failed.
        Error = "error",
        /// The program ends.
        Fatal = "fatal",
    }
}

document! {
    /// Replaces what must not leave the pod.
    pub struct Redact {
        /// Ready-made patterns.
        presets: Vec<Secrets> = default(Vec::new()),
        /// Regular expressions; the whole match is replaced.
        patterns: Vec<String> = default(Vec::new()),
        /// What stands there instead.
        replacement: String = default("[redacted]".to_owned()),
    }
}

choice! {
    /// Ready-made patterns.
    pub enum Secrets {
        /// Mail addresses.
        Email = "email",
        /// Payment card numbers whose check digit is right.
        Card = "card",
        /// JSON Web Tokens, bearer tokens, cloud and forge access keys.
        Token = "token",
        /// What follows `password=`, `secret:` and the like.
        Password = "password",
    }
}

document! {
    /// Keeps one record in so many, chosen by its text: the same text is always kept or always dropped.
    pub struct Sample {
        /// One in so many.
        one_in: u32 = required,
    }
}

document! {
    /// Lets so many records pass in a time and drops the rest, which is counted on `/metrics`. By the agent's clock, not the
    /// records' times: a backlog that is read at once is limited too.
    pub struct RateLimit {
        /// So many records …
        records: u32 = required,
        /// … in this time, refilled evenly; a pause lets as many pass at once.
        per: Seconds = default(Seconds::new(1)),
        /// A limit for each value of this field instead of one for all; records without it share one.
        by: Option<String> = optional,
        /// Only for records for which this holds; others pass and do not count.
        when: Option<Condition> = optional,
    }
}

document! {
    /// Drops a record whose text, or whose fields, came before within a time. The next one after that passes with a field
    /// `repeated`: how many were dropped. What was dropped last may stay unsaid; `/metrics` has the sum.
    pub struct Deduplicate {
        /// How long a repeat is one.
        within: Seconds = default(Seconds::new(5)),
        /// Compared instead of the text.
        by: Vec<String> = default(Vec::new()),
        /// Different texts remembered, about 40 bytes each.
        remember: u32 = default(1000),
    }
}

document! {
    /// Takes the record's time from a field. One that is missing or does not fit leaves the time as it was.
    pub struct Timestamp {
        /// The field.
        field: String = required,
        /// As in strftime(3), such as `%Y-%m-%d %H:%M:%S%.f`. Without: RFC 3339, or seconds, milli-, micro- or nanoseconds
        /// since 1970.
        format: Option<String> = optional,
        /// The time zone of a format without an offset, such as `Europe/Berlin` (needs zone data in the image) or `+02:00`.
        zone: String = default("UTC".to_owned()),
    }
}

document! {
    /// Changes fields, in the order of this table. An application's own JSON object is changed too.
    pub struct Edit {
        /// Only records for which this holds.
        when: Option<Condition> = optional,
        /// Takes fields away.
        remove: Vec<String> = default(Vec::new()),
        /// From the present name to the new one.
        rename: BTreeMap<String, String> = default(BTreeMap::new()),
        /// Makes fields of a type, if their text can be read as it; otherwise they stay.
        convert: BTreeMap<String, Type> = default(BTreeMap::new()),
        /// Sets fields to a value.
        set: BTreeMap<String, Any> = default(BTreeMap::new()),
        /// The severity from now on.
        severity: Option<Level> = optional,
    }
}

choice! {
    /// Types of JSON.
    pub enum Type {
        /// A whole number.
        Integer = "integer",
        /// Any number.
        Number = "number",
        /// `true` or `false`.
        Boolean = "boolean",
        /// Text.
        Text = "text",
    }
}

document! {
    /// Counts records on `/metrics`.
    pub struct Metric {
        /// Its whole name, without `_total`.
        name: String = required,
        /// What it says there.
        help: String = default("From log records.".to_owned()),
        /// What kind it is.
        kind: MetricKind = default(MetricKind::Counter),
        /// The field whose number is added, set or observed; a counter without one counts records.
        value: Option<String> = optional,
        /// From label to field. A record without the field has the label empty.
        labels: BTreeMap<String, String> = default(BTreeMap::new()),
        /// Upper bounds of a histogram, rising.
        buckets: Vec<f64> = default(Vec::new()),
        /// Only records for which this holds.
        when: Option<Condition> = optional,
        /// Combinations of labels; a record with one more is not counted, and that is counted.
        max_series: u32 = default(1000),
    }
}

choice! {
    /// Kinds of metrics.
    pub enum MetricKind {
        /// Only grows.
        Counter = "counter",
        /// The latest value.
        Gauge = "gauge",
        /// How values are spread.
        Histogram = "histogram",
    }
}

document! {
    /// Tests of the stages: lines in, records out. Only `outrigger-logs test` looks at them.
    pub struct Test {
        /// What is tested.
        name: String = required,
        /// The source whose format, parser and multi-line rule are used; the first without.
        source: Option<String> = optional,
        /// Lines as they stand in the file.
        lines: Vec<String> = required,
        /// The records expected, in order. A text is compared with the record's text; of an object each member must be there
        /// and equal, others may be there: `message`, `severity`, `time`, `sinks` (a list of names), and fields.
        expect: Vec<Any> = required,
    }
}
