//! `metrics.k8s.io`: CPU as a rate over the time since the sample before, memory as it is.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::header::ACCEPT;
use http::{HeaderMap, Response, StatusCode};
use pod_api::failure::Failure;
use pod_api::resource;
use pod_store::Object;
use serde_json::{Value, json};

use crate::body::{self, Body};
use crate::discovery::METRICS;
use crate::list;
use crate::machine::ContainerUsage;
use crate::negotiate;
use crate::query::Query;
use crate::selector::Selector;
use crate::server::{Server, key};
use crate::write;

/// A rate over less is noise.
const SHORTEST: Duration = Duration::from_secs(1);
/// A sample older than this says nothing about now; without a request for that long there are no rates at first.
const LONGEST: Duration = Duration::from_secs(120);

/// CPU times seen before, by what used them.
#[derive(Debug, Default)]
pub(crate) struct Samples(Mutex<HashMap<String, Seen>>);

#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Instant,
    cpu_nanoseconds: u64,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    older: Option<Sample>,
    newer: Sample,
}

/// A rate and over how long it was taken.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Rate {
    nanocores: u64,
    window: Duration,
}

impl Samples {
    /// Notes a sample, and says what has been used since an older one.
    fn rate(&self, of: &str, now: Instant, cpu_nanoseconds: u64) -> Option<Rate> {
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        samples.retain(|_, seen| now.saturating_duration_since(seen.newer.at) < LONGEST);
        let sample = Sample { at: now, cpu_nanoseconds };
        let seen = samples.entry(of.to_owned()).or_insert(Seen { older: None, newer: sample });
        // A container that was started again begins at zero.
        if cpu_nanoseconds < seen.newer.cpu_nanoseconds {
            *seen = Seen { older: None, newer: sample };
        } else if now.saturating_duration_since(seen.newer.at) >= SHORTEST {
            *seen = Seen { older: Some(seen.newer), newer: sample };
        }
        let older = seen.older?;
        let window = seen.newer.at.saturating_duration_since(older.at);
        let used = u128::from(seen.newer.cpu_nanoseconds - older.cpu_nanoseconds);
        let nanocores = used * 1_000_000_000 / window.as_nanos().max(1);
        Some(Rate { nanocores: u64::try_from(nanocores).unwrap_or(u64::MAX), window })
    }
}

pub(crate) fn answer(
    server: &Server,
    nodes: bool,
    namespace: Option<&str>,
    name: Option<&str>,
    query: &Query,
    headers: &HeaderMap,
) -> Result<Response<Body>, Failure> {
    negotiate::json(headers.get(ACCEPT))?;
    let plural = if nodes { "nodes" } else { "pods" };
    let missing = |name: &str| Failure::not_found(&format!("{plural}.{}", METRICS.0), name);
    let measure = |object: &Object| if nodes { node(server, object) } else { pod(server, object) };
    if let Some(name) = name {
        let found = server.0.store.get(&key(plural, namespace.unwrap_or_default(), name));
        let value = found.and_then(|object| measure(&object)).ok_or_else(|| missing(name))?;
        return Ok(body::json(StatusCode::OK, &value));
    }
    // Fields are those of the stored kind.
    let resource = resource::find("", "v1", plural).ok_or_else(Failure::unknown_path)?;
    let selector = Selector::parse(resource, query)?;
    let listed = server.0.store.list(plural, namespace);
    let items =
        listed.items.iter().filter(|object| selector.matches(resource, object)).filter_map(|object| measure(object));
    let kind = if nodes { "NodeMetricsList" } else { "PodMetricsList" };
    Ok(list::of_values(&format!("{}/{}", METRICS.0, METRICS.1), kind, items.collect()))
}

fn pod(server: &Server, object: &Object) -> Option<Value> {
    let used = server.0.machine.usage(&object.key.namespace, &object.key.name, &object.uid);
    let now = Instant::now();
    let rates: Vec<(ContainerUsage, Rate)> = used
        .into_iter()
        .map(|usage| {
            let of = format!("{}/{}", object.uid, usage.container);
            let rate = server.0.usage.rate(&of, now, usage.cpu_nanoseconds).unwrap_or(FIRST);
            (usage, rate)
        })
        .collect();
    let window = rates.iter().map(|(_, rate)| rate.window).max()?;
    let containers: Vec<Value> = rates
        .iter()
        .map(|(usage, rate)| json!({"name": usage.container, "usage": quantities(*rate, usage.memory_bytes)}))
        .collect();
    let mut value = measured(server, "PodMetrics", object, window);
    value["metadata"]["namespace"] = object.key.namespace.as_str().into();
    value["containers"] = containers.into();
    Some(value)
}

/// Before there is a second sample.
const FIRST: Rate = Rate { nanocores: 0, window: Duration::ZERO };

fn node(server: &Server, object: &Object) -> Option<Value> {
    let (cpu, memory) = server.0.machine.node_usage();
    let rate = server.0.usage.rate("node", Instant::now(), cpu).unwrap_or(FIRST);
    let mut value = measured(server, "NodeMetrics", object, rate.window);
    value["usage"] = quantities(rate, memory);
    Some(value)
}

fn measured(server: &Server, kind: &str, object: &Object, window: Duration) -> Value {
    let labels: serde_json::Map<String, Value> =
        object.labels.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
    let now = write::timestamp(server);
    json!({
        "kind": kind, "apiVersion": format!("{}/{}", METRICS.0, METRICS.1),
        "metadata": {"name": object.key.name, "labels": labels, "creationTimestamp": now},
        "timestamp": now, "window": format!("{:.3}s", window.as_secs_f64()),
    })
}

fn quantities(rate: Rate, memory: u64) -> Value {
    json!({"cpu": format!("{}n", rate.nanocores), "memory": format!("{}Ki", memory / 1024)})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_taken_over_at_least_a_second() {
        let samples = Samples::default();
        let start = Instant::now();
        let at = |milliseconds: u64, cpu: u64| samples.rate("x", start + Duration::from_millis(milliseconds), cpu);
        assert_eq!(at(0, 1_000), None);
        assert_eq!(at(500, 2_000), None);
        let half = Rate { nanocores: 500_000_000, window: Duration::from_secs(2) };
        assert_eq!(at(2_000, 1_000_001_000), Some(half));
        // Too soon for a new one.
        assert_eq!(at(2_100, 3_000_000_000), Some(half));
        // Started again.
        assert_eq!(at(4_000, 5), None);
    }
}
