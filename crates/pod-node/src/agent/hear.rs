//! What the engine says of a pod, written to the store.

use k8s_openapi::api::core::v1::PodStatus;
use pod_engine::{Message, News};
use pod_store::Durability;

use super::Agent;
use super::slot::State;
use crate::recorder::{Incident, Regarding, Reporter};
use crate::{PodKey, object, status};

impl Agent {
    pub(super) async fn hear(&mut self, message: Message) {
        let key = (message.namespace, message.name);
        match message.news {
            News::Accepted { uid, .. } => {
                self.driven.insert(key, uid);
            }
            News::Status(status) => self.status(&key, &status).await,
            News::Notice(notice) => {
                let Some(uid) = self.driven.get(&key) else { return };
                // Pods that `run` made have no object, and what another uid says is not about ours.
                if self.slots.get(&key).is_none_or(|slot| slot.uid != *uid) {
                    return;
                }
                let about = Regarding { kind: "Pod", namespace: key.0, name: key.1, uid: uid.clone() };
                let incident = Incident {
                    at: notice.at,
                    warning: notice.warning,
                    reason: notice.reason,
                    message: notice.message,
                    field_path: notice.field_path,
                };
                self.record(Reporter::Kubelet, &about, incident).await;
            }
            News::Finished { .. } => {}
            News::Removed => self.removed(&key).await,
            News::Trouble(text) => super::complain(format!("pod {}/{}: {text}", key.0, key.1)),
            News::Pull { .. } | News::Ended => {}
        }
    }

    async fn status(&mut self, key: &PodKey, told: &PodStatus) {
        let Some(uid) = self.driven.get(key).cloned() else { return };
        if self.slots.get(key).is_none_or(|slot| slot.uid != uid) {
            return;
        }
        // What is stopped with the node has not ended: its object says what it said, and the next node goes on from there.
        if self.stopping {
            return;
        }
        let ended = matches!(told.phase.as_deref(), Some("Succeeded" | "Failed"));
        // An end is never told twice; after a crash of the machine it cannot be worked out again.
        let durability = if ended { Durability::Synced } else { Durability::Lazy };
        let store_key = object::key("pods", &key.0, &key.1);
        let written = object::modify(&self.store, &store_key, &uid, durability, |pod| status::merged(pod, told)).await;
        let refused = written.is_err();
        self.check(written);
        let Some(slot) = self.slots.get_mut(key) else { return };
        slot.unwritten = refused.then(|| Box::new(told.clone()));
        if ended && slot.state == State::Running {
            slot.state = State::Ended;
            slot.share = None;
            self.retry_unscheduled().await;
        }
    }

    /// What the store refused before, once more.
    pub(super) async fn write_again(&mut self) {
        let refused = self.slots.iter_mut().filter_map(|(key, slot)| Some((key.clone(), slot.unwritten.take()?)));
        let refused: Vec<(PodKey, Box<PodStatus>)> = refused.collect();
        for (key, told) in refused {
            self.status(&key, &told).await;
        }
        let down = self.slots.iter().filter(|(_, slot)| slot.state == State::Down).map(|(key, _)| key.clone());
        let down: Vec<PodKey> = down.collect();
        for key in down {
            self.remove_if_free(&key).await;
        }
    }

    /// Nothing of the pod is left on the machine.
    async fn removed(&mut self, key: &PodKey) {
        let uid = self.driven.remove(key);
        let Some(slot) = self.slots.get_mut(key) else { return };
        let ours = uid.is_some_and(|uid| uid == slot.uid);
        match slot.state {
            State::Stopping => {
                slot.state = State::Down;
                slot.share = None;
                self.remove_if_free(key).await;
                self.retry_unscheduled().await;
            }
            State::Running | State::Ended if ours && !self.stopping => {
                self.remove_object(key).await;
                self.retry_unscheduled().await;
            }
            State::Blocked => self.reconsider(key).await,
            _ => {}
        }
    }
}
