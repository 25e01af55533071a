//! Numbers from records, for `/metrics`.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use daemon::metrics::{Exposition, Kind};

use super::{Check, Working};
use crate::config::{Metric, MetricKind};

#[derive(Debug)]
pub(super) struct Counting {
    name: String,
    help: String,
    kind: MetricKind,
    value: Option<String>,
    /// Label and field.
    labels: Vec<(String, String)>,
    buckets: Vec<f64>,
    when: Option<Check>,
    max_series: usize,
    series: Mutex<Series>,
}

#[derive(Debug, Default)]
struct Series {
    by_labels: BTreeMap<Vec<String>, Values>,
    refused: u64,
}

#[derive(Debug, Clone, Default)]
struct Values {
    sum: f64,
    count: u64,
    /// Not cumulative; the last is what lies above all bounds.
    buckets: Vec<u64>,
}

/// A label's value is cut here.
const LABEL: usize = 200;

impl Counting {
    pub(super) fn new(config: &Metric) -> Result<Counting, regex::Error> {
        Ok(Counting {
            name: config.name.clone(),
            help: config.help.clone(),
            kind: config.kind,
            value: config.value.clone(),
            labels: config.labels.clone().into_iter().collect(),
            buckets: config.buckets.clone(),
            when: Check::optional(config.when.as_ref())?,
            max_series: config.max_series as usize,
            series: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Series> {
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn see(&self, record: &Working<'_>) {
        if self.when.as_ref().is_some_and(|check| !check.holds(record)) {
            return;
        }
        let value = match &self.value {
            None => 1.0,
            Some(field) => {
                let text = record.field_text(field);
                let number = text.and_then(|text| std::str::from_utf8(&text).ok()?.trim().parse::<f64>().ok());
                let Some(number) = number.filter(|number| number.is_finite()) else { return };
                number
            }
        };
        // A counter cannot go down.
        if self.kind == MetricKind::Counter && value < 0.0 {
            return;
        }
        let label = |(_, field): &(String, String)| {
            let text = record.field_text(field).unwrap_or_default();
            String::from_utf8_lossy(&text[..text.len().min(LABEL)]).into_owned()
        };
        let labels: Vec<String> = self.labels.iter().map(label).collect();
        let mut series = self.lock();
        if !series.by_labels.contains_key(&labels) && series.by_labels.len() >= self.max_series {
            series.refused += 1;
            return;
        }
        let values = series.by_labels.entry(labels).or_default();
        values.count += 1;
        match self.kind {
            MetricKind::Gauge => values.sum = value,
            MetricKind::Counter => values.sum += value,
            MetricKind::Histogram => {
                values.sum += value;
                values.buckets.resize(self.buckets.len() + 1, 0);
                let bucket = self.buckets.iter().position(|bound| value <= *bound).unwrap_or(self.buckets.len());
                values.buckets[bucket] += 1;
            }
        }
    }

    pub(super) fn show(&self, out: &mut Exposition) {
        let series = self.lock();
        let kind = match self.kind {
            MetricKind::Counter => Kind::Counter,
            MetricKind::Gauge => Kind::Gauge,
            MetricKind::Histogram => Kind::Histogram,
        };
        let mut family = out.foreign(&self.name, &self.help, kind);
        for (texts, values) in &series.by_labels {
            let labels: Vec<(&str, &str)> =
                self.labels.iter().zip(texts).map(|((name, _), text)| (name.as_str(), text.as_str())).collect();
            match self.kind {
                MetricKind::Histogram => family.histogram(&labels, &self.buckets, &values.buckets, values.sum),
                _ => family.number(&labels, values.sum),
            };
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Records that were not counted because there were too many combinations of labels.
    pub(super) fn refused(&self) -> u64 {
        self.lock().refused
    }
}
