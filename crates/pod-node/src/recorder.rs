//! Kubernetes events: equal ones are counted in one object, similar ones are folded together, and who makes too many is not
//! listened to for a while, as client-go's correlator does it (`tools/record/events_cache.go`). Events are forgotten an hour
//! after they happened last.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use jiff::{SignedDuration, Timestamp};
use pod_store::{Change, Durability, Key, Store, WriteError};
use serde_json::{Value, json};

use crate::moment;
use crate::object::{self, key, modify};

/// An API server's `--event-ttl`.
const KEPT: SignedDuration = SignedDuration::from_hours(1);
/// More than that are never kept; the oldest go first. Some megabytes.
const MOST: usize = 5000;
/// `defaultAggregateMaxEvents`, `defaultAggregateIntervalInSeconds`.
const SIMILAR: usize = 10;
const SIMILAR_WITHIN: SignedDuration = SignedDuration::from_mins(10);
/// `defaultSpamBurst`, `defaultSpamQPS`: a token each five minutes.
const BURST: f64 = 25.0;
const REFILL_SECONDS: f64 = 300.0;
/// Different events remembered for counting; client-go's cache has 4096 for a whole cluster's component.
const REMEMBERED: usize = 1024;

/// What an event is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Regarding {
    pub(crate) kind: &'static str,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
}

/// Who says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reporter {
    Kubelet,
    Scheduler,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Incident {
    pub(crate) at: Timestamp,
    pub(crate) warning: bool,
    pub(crate) reason: String,
    pub(crate) message: String,
    /// `spec.containers{app}`, or empty.
    pub(crate) field_path: String,
}

/// Equal events: everything but the time; for folded ones, the message too.
type Likeness = (Reporter, Regarding, bool, String, String, Option<String>);

/// Events that differ in their message only.
type Group = (Reporter, Regarding, bool, String);

#[derive(Debug)]
struct Known {
    name: String,
    count: i64,
    first: Timestamp,
    last: Timestamp,
}

/// What to write for an incident.
#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    name: String,
    message: String,
    count: i64,
    first: Timestamp,
}

/// The memory behind counting; pure.
#[derive(Debug, Default)]
struct Correlator {
    known: BTreeMap<Likeness, Known>,
    /// Messages of similar events lately, and when the first of them came.
    similar: BTreeMap<Group, (BTreeSet<String>, Timestamp)>,
    /// Tokens left, and when that was so.
    tokens: BTreeMap<(Reporter, Regarding), (f64, Timestamp)>,
    /// So that two events of one instant have two names.
    newest_name: i128,
}

#[derive(Debug)]
pub(crate) struct Recorder {
    store: Store,
    host: String,
    correlator: Correlator,
    /// By the time they were last heard of, as far as it was noted; the store knows better.
    kept: VecDeque<(Timestamp, Key)>,
}

// === impl Correlator ===

impl Correlator {
    fn judge(&mut self, reporter: Reporter, about: &Regarding, incident: &Incident) -> Option<Verdict> {
        let Incident { at, warning, reason, message, field_path } = incident;
        // The scheduler's recorder (events.k8s.io) has no such filter.
        if reporter == Reporter::Kubelet && !self.may_speak(reporter, about, *at) {
            return None;
        }
        let group = (reporter, about.clone(), *warning, reason.clone());
        let (messages, since) = self.similar.entry(group).or_insert_with(|| (BTreeSet::new(), *at));
        if at.duration_since(*since) > SIMILAR_WITHIN {
            (*messages, *since) = (BTreeSet::new(), *at);
        }
        messages.insert(message.clone());
        let folded = messages.len() > SIMILAR;
        let likeness = match folded {
            true => (reporter, about.clone(), *warning, reason.clone(), String::new(), None),
            false => (reporter, about.clone(), *warning, reason.clone(), field_path.clone(), Some(message.clone())),
        };
        if folded {
            messages.pop_first();
        }
        self.newest_name = self.newest_name.max(at.as_nanosecond() - 1) + 1;
        let fresh =
            || Known { name: format!("{}.{:016x}", about.name, self.newest_name), count: 0, first: *at, last: *at };
        let known = self.known.entry(likeness).or_insert_with(fresh);
        // What was forgotten begins anew.
        if at.duration_since(known.last) > KEPT {
            *known = fresh();
        }
        known.count += 1;
        known.last = *at;
        let message = if folded { format!("(combined from similar events): {message}") } else { message.clone() };
        let verdict = Verdict { name: known.name.clone(), message, count: known.count, first: known.first };
        self.forget_oldest();
        Some(verdict)
    }

    /// A bucket of tokens for each object.
    fn may_speak(&mut self, reporter: Reporter, about: &Regarding, at: Timestamp) -> bool {
        let (tokens, since) = self.tokens.entry((reporter, about.clone())).or_insert((BURST, at));
        let elapsed = at.duration_since(*since).as_secs_f64().max(0.0);
        *tokens = (*tokens + elapsed / REFILL_SECONDS).min(BURST);
        *since = at;
        if *tokens < 1.0 {
            return false;
        }
        *tokens -= 1.0;
        true
    }

    fn forget_oldest(&mut self) {
        while self.known.len() > REMEMBERED {
            let oldest = self.known.iter().min_by_key(|(_, known)| known.last).map(|(likeness, _)| likeness.clone());
            let Some(oldest) = oldest else { return };
            self.known.remove(&oldest);
        }
    }

    /// Nothing more comes of an object that is gone.
    fn forget(&mut self, uid: &str) {
        self.known.retain(|likeness, _| likeness.1.uid != uid);
        self.similar.retain(|group, _| group.1.uid != uid);
        self.tokens.retain(|(_, about), _| about.uid != uid);
    }
}

// === impl Recorder ===

impl Recorder {
    /// Takes over the events of an earlier process, to forget them in time.
    pub(crate) fn new(store: Store, host: String) -> Self {
        let mut kept: Vec<(Timestamp, Key)> = store
            .list("events", None)
            .items
            .iter()
            .map(|event| (last_of(&object::value(event)), event.key.clone()))
            .collect();
        kept.sort_by_key(|(last, _)| *last);
        Self { store, host, correlator: Correlator::default(), kept: kept.into() }
    }

    pub(crate) async fn record(
        &mut self,
        reporter: Reporter,
        about: &Regarding,
        incident: &Incident,
    ) -> Result<(), WriteError> {
        let Some(verdict) = self.correlator.judge(reporter, about, incident) else { return Ok(()) };
        let namespace = if about.namespace.is_empty() { "default" } else { about.namespace.as_str() };
        let key = key("events", namespace, &verdict.name);
        self.kept.push_back((incident.at, key.clone()));
        if verdict.count > 1 {
            let counted = |mut event: Value| {
                match reporter {
                    Reporter::Kubelet => {
                        event["count"] = verdict.count.into();
                        event["lastTimestamp"] = moment::seconds(incident.at).into();
                        event["message"] = verdict.message.as_str().into();
                    }
                    Reporter::Scheduler => {
                        let last = moment::micros(incident.at);
                        event["series"] = json!({"count": verdict.count, "lastObservedTime": last});
                    }
                }
                Some(event)
            };
            if modify(&self.store, &key, "", Durability::Lazy, counted).await?.is_some() {
                return Ok(());
            }
        }
        let event = self.event(reporter, about, incident, &verdict, namespace);
        let Ok(event) = event else { return Ok(()) };
        match self.store.write(key, Change::Create(event), Durability::Lazy).await {
            Ok(_) | Err(WriteError::Exists(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn event(
        &self,
        reporter: Reporter,
        about: &Regarding,
        incident: &Incident,
        verdict: &Verdict,
        namespace: &str,
    ) -> std::io::Result<Value> {
        let version = match about.kind {
            "Pod" | "Node" | "Namespace" => self.revision_of(about),
            _ => None,
        };
        let mut involved = json!({"kind": about.kind, "name": about.name, "uid": about.uid, "apiVersion": "v1"});
        if !about.namespace.is_empty() {
            involved["namespace"] = about.namespace.as_str().into();
        }
        if let Some(version) = version {
            involved["resourceVersion"] = version.to_string().into();
        }
        if !incident.field_path.is_empty() {
            involved["fieldPath"] = incident.field_path.as_str().into();
        }
        let mut event = json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": object::metadata(namespace, &verdict.name, incident.at)?,
            "involvedObject": involved,
            "reason": incident.reason,
            "message": verdict.message,
            "type": if incident.warning { "Warning" } else { "Normal" },
        });
        match reporter {
            Reporter::Kubelet => {
                event["source"] = json!({"component": "kubelet", "host": self.host});
                event["firstTimestamp"] = moment::seconds(verdict.first).into();
                event["lastTimestamp"] = moment::seconds(incident.at).into();
                event["count"] = verdict.count.into();
                event["eventTime"] = Value::Null;
                event["reportingComponent"] = "kubelet".into();
                event["reportingInstance"] = self.host.as_str().into();
            }
            // Written through events.k8s.io: no source, no count, the time in microseconds.
            Reporter::Scheduler => {
                event["source"] = json!({});
                event["firstTimestamp"] = Value::Null;
                event["lastTimestamp"] = Value::Null;
                event["eventTime"] = moment::micros(incident.at).into();
                event["action"] = if incident.warning { "Scheduling" } else { "Binding" }.into();
                event["reportingComponent"] = "default-scheduler".into();
                event["reportingInstance"] = format!("default-scheduler-{}", self.host).into();
            }
        }
        Ok(event)
    }

    fn revision_of(&self, about: &Regarding) -> Option<u64> {
        let resource = match about.kind {
            "Pod" => "pods",
            "Node" => "nodes",
            _ => "namespaces",
        };
        Some(self.store.get(&key(resource, &about.namespace, &about.name))?.revision)
    }

    pub(crate) fn forget(&mut self, uid: &str) {
        self.correlator.forget(uid);
    }

    /// Removes what is too old or too much. Cheap when there is nothing.
    pub(crate) async fn sweep(&mut self, now: Timestamp) -> Result<(), WriteError> {
        while let Some((noted, _)) = self.kept.front() {
            let too_many = self.kept.len() > MOST;
            if !too_many && now.duration_since(*noted) < KEPT {
                return Ok(());
            }
            let Some((_, key)) = self.kept.pop_front() else { return Ok(()) };
            let Some(event) = self.store.get(&key) else { continue };
            // It came again since; then it stands further back as well.
            let again = now.duration_since(last_of(&object::value(&event))) < KEPT;
            if !again || (too_many && !self.kept.iter().any(|(_, other)| *other == key)) {
                let change = Change::Delete { expected: Some(event.revision), last: None };
                match self.store.write(key, change, Durability::Lazy).await {
                    Ok(_) | Err(WriteError::Missing | WriteError::Conflict(_)) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}

/// When an event happened last, by any of the fields that may say so.
fn last_of(event: &Value) -> Timestamp {
    let fields = ["/series/lastObservedTime", "/lastTimestamp", "/eventTime", "/metadata/creationTimestamp"];
    let times = fields.iter().filter_map(|field| object::text(event, field).parse().ok());
    times.max().unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(name: &str) -> Regarding {
        Regarding { kind: "Pod", namespace: "default".into(), name: name.into(), uid: format!("uid-{name}") }
    }

    fn incident(second: i64, message: &str) -> Incident {
        Incident {
            at: Timestamp::from_second(second).unwrap(),
            warning: true,
            reason: "Unhealthy".into(),
            message: message.into(),
            field_path: "spec.containers{app}".into(),
        }
    }

    #[test]
    fn equal_events_are_one_object_with_a_count() {
        let mut correlator = Correlator::default();
        let mut judge = |second, message: &str| {
            correlator.judge(Reporter::Kubelet, &about("web"), &incident(second, message)).unwrap()
        };
        let (first, other, again) = (judge(1, "refused"), judge(1, "timed out"), judge(9, "refused"));
        assert_eq!(first.name, format!("web.{:016x}", 1_000_000_000));
        assert_ne!(first.name, other.name, "two events of one instant");
        assert_eq!((again.name, again.count, again.first), (first.name, 2, Timestamp::from_second(1).unwrap()));
    }

    #[test]
    fn similar_ones_are_folded_and_a_chatterer_is_not_heard() {
        let mut correlator = Correlator::default();
        let verdicts: Vec<Option<Verdict>> = (0..40)
            .map(|number| {
                correlator.judge(Reporter::Kubelet, &about("web"), &incident(number, &format!("probe {number}")))
            })
            .collect();
        assert!(verdicts[..10].iter().flatten().all(|verdict| verdict.count == 1));
        let folded = verdicts[10].as_ref().unwrap();
        assert_eq!((folded.message.as_str(), folded.count), ("(combined from similar events): probe 10", 1));
        assert_eq!(verdicts[11].as_ref().unwrap().count, 2);
        assert_eq!(verdicts.iter().flatten().count(), 25);
        assert!(correlator.judge(Reporter::Kubelet, &about("db"), &incident(40, "x")).is_some(), "others are");
        assert!(
            correlator.judge(Reporter::Kubelet, &about("web"), &incident(340, "x")).is_some(),
            "five minutes later"
        );
    }

    #[test]
    fn memory_is_bounded() {
        let mut correlator = Correlator::default();
        for number in 0..REMEMBERED + 50 {
            correlator.judge(Reporter::Scheduler, &about(&number.to_string()), &incident(1, "x"));
        }
        assert_eq!(correlator.known.len(), REMEMBERED);
        correlator.forget("uid-500");
        assert_eq!(correlator.tokens.len(), 0);
    }
}
