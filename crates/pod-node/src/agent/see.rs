//! A new version of a pod object: schedule it, hand it to the engine, tell the engine what changed, or end it.

use std::sync::Arc;

use pod_engine::{PodRequest, RunError, chain, record};
use pod_store::{Durability, Object};
use serde_json::Value;

use super::slot::{Slot, State, manifest_hash};
use super::{Agent, status_of};
use crate::condition::Scheduled;
use crate::fit::{self, Share};
use crate::object::{self, has_finalizers, is_being_deleted, items, text};
use crate::recorder::{Incident, Regarding, Reporter};
use crate::{PodKey, machine, service, source, status};

/// What `see` needs of a version.
pub(super) struct Seen {
    pub(super) key: PodKey,
    pub(super) uid: String,
    pub(super) revision: u64,
    pub(super) json: Value,
}

impl Seen {
    pub(super) fn of(object: &Object) -> Self {
        Self {
            key: (object.key.namespace.clone(), object.key.name.clone()),
            uid: object.uid.clone(),
            revision: object.revision,
            json: object::value(object),
        }
    }

    pub(super) fn regarding(&self) -> Regarding {
        Regarding { kind: "Pod", namespace: self.key.0.clone(), name: self.key.1.clone(), uid: self.uid.clone() }
    }
}

impl Agent {
    pub(super) async fn see(&mut self, object: &Arc<Object>) {
        let key = (object.key.namespace.clone(), object.key.name.clone());
        match self.slots.get(&key) {
            Some(slot) if slot.uid == object.uid && object.revision <= slot.revision => return,
            Some(slot) if slot.uid != object.uid => self.gone(&key).await,
            _ => {}
        }
        let seen = Seen::of(object);
        let slot = self.slots.entry(key.clone()).or_insert_with(|| Slot::new(&seen.uid));
        slot.revision = seen.revision;
        let was_here = slot.share.is_some();
        self.consider(seen).await;
        // Whoever waits for company may have it now.
        if !was_here && self.slots.get(&key).is_some_and(|slot| slot.share.is_some()) {
            self.again(|slot| slot.state == State::Waiting && slot.looks_around).await;
        }
    }

    /// The newest version once more, because something around it changed.
    pub(super) async fn reconsider(&mut self, key: &PodKey) {
        let Some(object) = self.store.get(&object::key("pods", &key.0, &key.1)) else { return };
        if self.slots.get(key).is_some_and(|slot| slot.uid == object.uid) {
            self.consider(Seen::of(&object)).await;
        }
    }

    async fn consider(&mut self, mut seen: Seen) {
        if is_being_deleted(&seen.json) {
            return self.end(&seen).await;
        }
        let bound = text(&seen.json, "/spec/nodeName").to_owned();
        if bound.is_empty() {
            match self.schedule(seen).await {
                Some(scheduled) => seen = scheduled,
                None => return,
            }
        } else if bound != self.engine.node().name {
            // Another node's, which there is not: it waits for ever, as upstream.
            return;
        }
        self.drive(&seen).await;
    }

    /// Binds a pod that fits. `None`: it waits.
    async fn schedule(&mut self, seen: Seen) -> Option<Seen> {
        let verdict = if items(&seen.json, "/spec/schedulingGates").is_empty() {
            match self.fits(&seen) {
                Ok(()) => Scheduled::Yes,
                Err(message) => Scheduled::Unschedulable(message),
            }
        } else {
            Scheduled::Gated
        };
        let (now, node) = (self.now(), self.engine.node().name.clone());
        let key = object::key("pods", &seen.key.0, &seen.key.1);
        let written = object::modify(&self.store, &key, &seen.uid, Durability::Lazy, |mut pod| {
            if is_being_deleted(&pod) || !text(&pod, "/spec/nodeName").is_empty() {
                return None;
            }
            let turned = verdict.write(&mut pod, now);
            if verdict == Scheduled::Yes {
                pod["spec"]["nodeName"] = node.as_str().into();
            }
            (turned || verdict == Scheduled::Yes).then_some(pod)
        });
        let written = match written.await {
            Ok(written) => written,
            Err(error) => {
                self.check::<()>(Err(error));
                return None;
            }
        };
        let slot = self.slots.get_mut(&seen.key)?;
        slot.looks_around = fit::looks_around(&seen.json);
        if let Some(object) = &written {
            slot.revision = object.revision;
        }
        let regarding = seen.regarding();
        let incident = |warning, reason: &str, message: String| Incident {
            at: now,
            warning,
            reason: reason.into(),
            message,
            field_path: String::new(),
        };
        match verdict {
            Scheduled::Yes => {
                let bound = Seen::of(written.as_ref()?);
                let message = format!("Successfully assigned {}/{} to {node}", seen.key.0, seen.key.1);
                self.record(Reporter::Scheduler, &regarding, incident(false, "Scheduled", message)).await;
                Some(bound)
            }
            Scheduled::Unschedulable(message) => {
                if slot.complaint != message {
                    slot.complaint.clone_from(&message);
                    self.record(Reporter::Scheduler, &regarding, incident(true, "FailedScheduling", message)).await;
                }
                None
            }
            Scheduled::Gated => None,
        }
    }

    fn fits(&self, seen: &Seen) -> Result<(), String> {
        let node = self.store.get(&machine::node_key(self.engine.node())).map(|node| object::value(&node));
        let spec = pod_api::decode::pod(&seen.json).ok().and_then(|pod| pod.spec).unwrap_or_default();
        let others: Vec<&Share> = self.slots.values().filter_map(|slot| slot.share.as_ref()).collect();
        let (room, node) = (machine::room(self.engine.node()), node.unwrap_or_default());
        fit::check(&seen.json, &Share::of(&spec), &node, &room, &others)?;
        if !fit::looks_around(&seen.json) && !others.iter().any(|other| other.repels) {
            return Ok(());
        }
        let bound = self.slots.iter().filter(|(_, slot)| slot.share.is_some());
        let neighbours: Vec<Value> = bound
            .filter_map(|(key, _)| self.store.get(&object::key("pods", &key.0, &key.1)))
            .map(|pod| object::value(&pod))
            .collect();
        let namespaces = |name: &str| {
            let namespace = self.store.get(&object::key("namespaces", "", name)).map(|found| object::value(&found));
            let labels = namespace.and_then(|found| found.pointer("/metadata/labels")?.as_object().cloned());
            labels.unwrap_or_default()
        };
        fit::check_neighbours(&seen.json, &node, &neighbours, &namespaces)
    }

    /// A bound pod: the engine gets it, or what changed of it.
    async fn drive(&mut self, seen: &Seen) {
        let Some(slot) = self.slots.get(&seen.key) else { return };
        if matches!(slot.state, State::Stopping | State::Down) || self.stopping {
            return;
        }
        let gates = status::gates(&seen.json);
        let known = manifest_hash(&seen.json, &source::revisions(&self.store, &seen.key.0, &slot.needs));
        if matches!(slot.state, State::Running | State::Ended) && slot.told == Some(known) && slot.gates == gates {
            return;
        }
        let Ok(mut pod) = pod_api::decode::pod(&seen.json) else { return };
        pod.status = None;
        pod.metadata.managed_fields = None;
        let needs = source::needs(&pod);
        let (mut objects, revisions) = source::collect(&self.store, &seen.key.0, &needs);
        if let Some(network) = &self.config.services {
            let links = pod.spec.as_ref().and_then(|spec| spec.enable_service_links).unwrap_or(true);
            let (dns, variables) = service::surroundings(network, &self.store, &seen.key.0, links);
            (objects.cluster_dns, objects.service_variables) = (Some(dns), variables);
        }
        let hash = manifest_hash(&seen.json, &revisions);
        let news = slot.told != Some(hash);
        let state = slot.state;
        let request = PodRequest {
            pod,
            objects,
            origin: None,
            offline: self.config.offline,
            detached: true,
            recreate: false,
            pids_limit: self.config.pids_limit,
            of_store: true,
        };
        let share = request.pod.spec.as_ref().map(Share::of);
        let placed = match state {
            State::Waiting | State::Blocked => self.place(seen, request),
            State::Running if news => self.engine.run(request).map(|()| State::Running).map_err(|error| chain(&error)),
            state => Ok(state),
        };
        let Some(slot) = self.slots.get_mut(&seen.key) else { return };
        slot.needs = needs;
        match placed {
            Ok(state) => {
                slot.told = Some(hash);
                slot.state = state;
                slot.share = if state == State::Ended { None } else { share };
                slot.complaint.clear();
                // One that had ended before the machine went down is nowhere but in the store.
                slot.was_here |= state != State::Ended || self.engine.drives(&seen.key.0, &seen.key.1);
                if state == State::Running && slot.gates != gates {
                    let taken = slot.gates.iter().filter(|(kind, _)| !gates.iter().any(|(known, _)| known == kind));
                    let taken = taken.map(|(kind, _)| (kind, ""));
                    for (kind, status) in gates.iter().map(|(kind, status)| (kind, status.as_str())).chain(taken) {
                        // A pod that has ended in this moment needs none.
                        let _ = self.engine.set_condition(&seen.key.0, &seen.key.1, kind, status);
                    }
                    slot.gates = gates;
                }
            }
            Err(error) => {
                slot.state = if state == State::Running { State::Running } else { State::Blocked };
                // It is bound all the same.
                slot.share = share;
                self.complain_about(seen, error).await;
            }
        }
    }

    /// Where a pod stands that this agent sees for the first time.
    fn place(&mut self, seen: &Seen, request: PodRequest) -> Result<State, String> {
        let failed = |error: RunError| chain(&error);
        let (namespace, name) = (&seen.key.0, &seen.key.1);
        let ended = matches!(text(&seen.json, "/status/phase"), "Succeeded" | "Failed");
        let listed = record::find(self.engine.roots(), namespace, name).ok().flatten();
        match listed {
            Some(listed) if listed.record.of_store && listed.record.uid == seen.uid => {
                self.engine.adopt(namespace, name).map_err(failed)?;
                if !ended {
                    self.engine.run(request).map_err(failed)?;
                }
                Ok(if ended { State::Ended } else { State::Running })
            }
            _ if ended => Ok(State::Ended),
            // `run` has the name; what has ended there makes room.
            Some(listed) if !listed.record.of_store && (listed.owned || !has_ended(&listed)) => Err(format!(
                "`outrigger run` has a pod of this name; take it down first: outrigger down {name} -n {namespace}"
            )),
            Some(_) => self.engine.run(request).map(|()| State::Running).map_err(failed),
            None if status::has_run(&seen.json) => {
                self.engine.restore(request, &status_of(&seen.json)).map(|()| State::Running).map_err(failed)
            }
            None => self.engine.run(request).map(|()| State::Running).map_err(failed),
        }
    }

    async fn complain_about(&mut self, seen: &Seen, message: String) {
        let Some(slot) = self.slots.get_mut(&seen.key) else { return };
        if slot.complaint == message {
            return;
        }
        slot.complaint.clone_from(&message);
        let incident =
            Incident { at: self.now(), warning: true, reason: "FailedSync".into(), message, field_path: String::new() };
        self.record(Reporter::Kubelet, &seen.regarding(), incident).await;
    }

    // --- what surrounds pods changed ---

    pub(super) async fn source_changed(&mut self, kind: source::Kind, namespace: &str, name: &str) {
        let need = (kind, name.to_owned());
        let concerned = self
            .slots
            .iter()
            .filter(|(key, slot)| key.0 == namespace && slot.state == State::Running && slot.needs.contains(&need));
        let concerned: Vec<PodKey> = concerned.map(|(key, _)| key.clone()).collect();
        for key in concerned {
            self.reconsider(&key).await;
        }
    }

    pub(super) async fn refresh_all(&mut self) {
        self.again(|slot| slot.state == State::Running && !slot.needs.is_empty()).await;
    }

    pub(super) async fn retry_unscheduled(&mut self) {
        self.again(|slot| slot.state == State::Waiting).await;
    }

    pub(super) async fn retry_blocked(&mut self) {
        self.again(Slot::is_blocked).await;
    }

    async fn again(&mut self, which: impl Fn(&Slot) -> bool) {
        let keys: Vec<PodKey> = self.slots.iter().filter(|(_, slot)| which(slot)).map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.reconsider(&key).await;
        }
    }
}

fn has_ended(listed: &record::Listed) -> bool {
    matches!(listed.status.phase.as_deref(), Some("Succeeded" | "Failed"))
}

/// Whether an object whose pod is down may go.
pub(super) fn may_go(pod: &Value) -> bool {
    is_being_deleted(pod) && !has_finalizers(pod)
}
