//! Which logs there are to show: every attempt of every container, each opened once and as soon as it is heard of.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{ContainerStatus, PodStatus};
use logfile::follow::{Follower, Options};
use pod_engine::Roots;

use crate::terminal::label::PodKey;
use crate::terminal::thread::OpenLog;

#[derive(Debug)]
pub(crate) struct OpenLogs {
    roots: Roots,
    uids: BTreeMap<PodKey, String>,
    /// The attempt after the last one that was opened. Of a container that is missing here nothing was.
    next: BTreeMap<(PodKey, String), u32>,
    /// Pods that ran before this command, and the moment from which on their output is shown.
    joined: BTreeMap<PodKey, i64>,
    /// Of a joined pod: containers whose first attempt is yet to come.
    fresh: BTreeSet<(PodKey, String)>,
}

impl OpenLogs {
    pub(crate) fn new(roots: Roots) -> Self {
        Self { roots, uids: BTreeMap::new(), next: BTreeMap::new(), joined: BTreeMap::new(), fresh: BTreeSet::new() }
    }

    /// The pod runs already: what its containers said so far is not repeated.
    pub(crate) fn only_new(&mut self, pod: &PodKey) {
        let now = i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX);
        self.joined.insert(pod.clone(), now);
    }

    pub(crate) fn accept(&mut self, pod: &PodKey, uid: &str) {
        self.uids.insert(pod.clone(), uid.to_owned());
    }

    /// Opens the logs of all attempts that a status tells of and that are not open yet; with each, whether it runs.
    pub(crate) fn open_new(&mut self, pod: &PodKey, status: &PodStatus) -> Vec<(OpenLog, bool)> {
        let Some(uid) = self.uids.get(pod).cloned() else { return Vec::new() };
        let inits = status.init_container_statuses.iter().flatten();
        let mut opened = Vec::new();
        for container in inits.chain(status.container_statuses.iter().flatten()) {
            let key = (pod.clone(), container.name.clone());
            let Some(latest) = latest_attempt(container) else {
                self.fresh.insert(key);
                continue;
            };
            // A joined pod's past attempts are the past.
            let joined = self.joined.contains_key(pod) && !self.fresh.contains(&key);
            let first = self.next.get(&key).copied().unwrap_or(if joined { latest } else { 0 });
            let running = container.state.as_ref().is_some_and(|state| state.running.is_some());
            for attempt in first..=latest {
                opened.push((self.open(pod, &uid, &container.name, attempt), running && attempt == latest));
            }
            self.next.insert(key, latest + 1);
        }
        opened
    }

    fn open(&self, pod: &PodKey, uid: &str, container: &str, attempt: u32) -> OpenLog {
        let log = self.roots.pod(&pod.0, &pod.1).log(uid, container, attempt);
        let directory = log.parent().map(PathBuf::from).unwrap_or_default();
        let options = Options { since: self.joined.get(pod).copied(), rotated: true, ..Options::default() };
        let mut follower = Follower::new(&directory, attempt, options);
        // A log that cannot be read now is complained of by who reads it next.
        let first = follower.read_available().unwrap_or_default();
        OpenLog { pod: pod.clone(), container: container.to_owned(), directory, follower, first }
    }
}

/// The attempt that runs or ran last; attempts are counted from 0, as restarts are.
fn latest_attempt(status: &ContainerStatus) -> Option<u32> {
    let state = status.state.as_ref();
    let begun = state.is_some_and(|state| state.running.is_some() || state.terminated.is_some())
        || status.last_state.as_ref().is_some_and(|last| last.terminated.is_some());
    begun.then(|| u32::try_from(status.restart_count).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const UID: &str = "0-1";

    fn status(restarts: i32, state: Value, last: Value) -> PodStatus {
        let container = json!({"name": "app", "image": "i", "imageID": "", "ready": false, "restartCount": restarts,
            "state": state, "lastState": last});
        serde_json::from_value(json!({"containerStatuses": [container]})).expect("a status")
    }

    fn write(roots: &Roots, attempt: u32, line: &str) {
        let path = roots.pod("default", "web").log(UID, "app", attempt);
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("made");
        std::fs::write(path, format!("2025-01-01T00:00:00Z stdout F {line}\n")).expect("written");
    }

    fn said(opened: Vec<(OpenLog, bool)>) -> Vec<(u32, String)> {
        let lines = |log: OpenLog| {
            log.first.into_iter().map(|line| (line.attempt, String::from_utf8_lossy(&line.content).into_owned()))
        };
        opened.into_iter().map(|(log, _)| log).flat_map(lines).collect()
    }

    fn running() -> Value {
        json!({"running": {}})
    }

    fn ended() -> Value {
        json!({"terminated": {"exitCode": 1}})
    }

    #[test]
    fn every_attempt_is_opened_once_even_when_one_was_not_seen_running() {
        let directory = tempfile::tempdir().expect("a directory");
        let roots = Roots::below(directory.path());
        let pod = ("default".to_owned(), "web".to_owned());
        let mut logs = OpenLogs::new(roots.clone());
        logs.accept(&pod, UID);
        assert!(logs.open_new(&pod, &status(0, json!({"waiting": {}}), json!({}))).is_empty());
        for (attempt, line) in [(0, "zero"), (1, "one"), (2, "two")] {
            write(&roots, attempt, line);
        }
        let first = logs.open_new(&pod, &status(0, running(), json!({})));
        assert_eq!(said(first), [(0, "zero".to_owned())]);
        let skipped = logs.open_new(&pod, &status(2, running(), ended()));
        assert_eq!(said(skipped), [(1, "one".to_owned()), (2, "two".to_owned())]);
        assert!(logs.open_new(&pod, &status(2, json!({"waiting": {}}), ended())).is_empty());
    }

    #[test]
    fn a_joined_pod_repeats_nothing() {
        let directory = tempfile::tempdir().expect("a directory");
        let roots = Roots::below(directory.path());
        let pod = ("default".to_owned(), "web".to_owned());
        let mut logs = OpenLogs::new(roots.clone());
        logs.only_new(&pod);
        logs.accept(&pod, UID);
        write(&roots, 0, "zero");
        write(&roots, 1, "one");
        let opened = logs.open_new(&pod, &status(1, running(), ended()));
        assert_eq!(opened.len(), 1, "the past attempt is not opened");
        assert!(said(opened).is_empty(), "what was said before is not shown");
    }
}
