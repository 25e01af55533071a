//! The end of a pod object: the engine stops the pod, and the object goes when nothing of the pod is left and nobody's
//! finalizer holds it.

use pod_engine::record;

use super::Agent;
use super::see::{Seen, may_go};
use super::slot::State;
use crate::PodKey;
use crate::fit::Share;
use crate::object::{self, text};

impl Agent {
    /// A version with a deletionTimestamp.
    pub(super) async fn end(&mut self, seen: &Seen) {
        let Some(slot) = self.slots.get(&seen.key) else { return };
        let (state, told) = (slot.state, slot.grace);
        if state == State::Down {
            return self.remove_if_free(&seen.key).await;
        }
        let grace = self.grace_left(seen);
        // A running termination may only get shorter.
        if state == State::Stopping && told.is_some_and(|told| told <= grace) {
            return;
        }
        let stops = self.stop(&seen.key, &seen.uid, grace);
        let Some(slot) = self.slots.get_mut(&seen.key) else { return };
        slot.grace = Some(grace);
        slot.state = if stops { State::Stopping } else { State::Down };
        // Until it is down it takes what it takes, also when this node has not seen it run.
        if stops && slot.share.is_none() && state != State::Ended {
            slot.share = pod_api::decode::pod(&seen.json).ok().and_then(|pod| pod.spec).as_ref().map(Share::of);
        }
        if !stops {
            slot.share = None;
            self.remove_if_free(&seen.key).await;
        }
    }

    /// What is left of the grace period, rounded up; the object's whole one when it was just asked for.
    fn grace_left(&self, seen: &Seen) -> u64 {
        let whole = seen.json.pointer("/metadata/deletionGracePeriodSeconds").and_then(serde_json::Value::as_i64);
        let whole = whole.unwrap_or(30).max(0);
        let until: Option<jiff::Timestamp> = text(&seen.json, "/metadata/deletionTimestamp").parse().ok();
        let left = until.map_or(whole, |until| until.duration_since(self.now()).as_secs() + 1);
        // Less than nothing left of a grace is the shortest one there is; only a forced deletion has none.
        u64::try_from(left.clamp(i64::from(whole > 0), whole)).unwrap_or(0)
    }

    /// Has the engine stop what it has (or has on disk) under this name. False: there is nothing of the store's.
    fn stop(&mut self, key: &PodKey, uid: &str, grace: u64) -> bool {
        let listed = record::find(self.engine.roots(), &key.0, &key.1).ok().flatten();
        let Some(listed) = listed.filter(|listed| listed.record.of_store) else { return false };
        if self.engine.stop(&key.0, &key.1, Some(grace)).is_ok() {
            return true;
        }
        // The store has one object of a name: what another one of it has left here nobody wants any more.
        let grace = if listed.record.uid == uid { grace } else { 0 };
        self.engine.adopt(&key.0, &key.1).and_then(|()| self.engine.stop(&key.0, &key.1, Some(grace))).is_ok()
    }

    pub(super) async fn remove_if_free(&mut self, key: &PodKey) {
        let Some(slot) = self.slots.get(key) else { return };
        let Some(object) = self.store.get(&object::key("pods", &key.0, &key.1)) else { return };
        if object.uid != slot.uid || !may_go(&object::value(&object)) {
            return;
        }
        let removed = object::remove(&self.store, &object).await;
        // Somebody wrote it in between: that version comes here again.
        self.check(removed);
    }

    /// The object is gone: nothing of the pod may stay. (After an ordinary deletion nothing is left by then.)
    pub(super) async fn gone(&mut self, key: &PodKey) {
        let Some(slot) = self.slots.remove(key) else { return };
        let running = self.driven.get(key).is_some_and(|uid| *uid == slot.uid);
        if running || slot.was_here {
            self.stop(key, &slot.uid, 0);
        }
        if slot.state == State::Ended && !running {
            let listed = record::find(self.engine.roots(), &key.0, &key.1).ok().flatten();
            if listed.is_none_or(|listed| listed.record.uid != slot.uid) {
                self.remove_remains(key, &slot.uid);
            }
        }
        self.recorder.forget(&slot.uid);
        if slot.share.is_some() {
            self.retry_unscheduled().await;
        }
    }

    /// Of a pod that had ended before the machine went down the engine knows nothing; its logs stayed for whoever asks.
    fn remove_remains(&self, key: &PodKey, uid: &str) {
        let paths = self.engine.roots().pod(&key.0, &key.1);
        let trees = [paths.logs(uid), paths.data(uid)];
        tokio::task::spawn_blocking(move || {
            for tree in trees {
                if let Err(error) = std::fs::remove_dir_all(&tree)
                    && error.kind() != std::io::ErrorKind::NotFound
                {
                    eprintln!("node: failed to remove `{}`: {error}", tree.display());
                }
            }
        });
    }

    /// Pods on disk that are objects of the store which it no longer has: deleted while no node ran.
    pub(super) fn stop_strays(&mut self) {
        let Ok(listed) = record::list(self.engine.roots()) else { return };
        for pod in listed.iter().filter(|pod| pod.record.of_store) {
            let key = (pod.record.namespace().to_owned(), pod.record.name().to_owned());
            // One of another uid under a name that is in use is replaced by the engine, once the new one is let run.
            let wanted = self.slots.get(&key).is_some_and(|slot| {
                slot.uid == pod.record.uid || matches!(slot.state, State::Running | State::Stopping)
            });
            if !wanted {
                self.stop(&key, &pod.record.uid, 0);
            }
        }
    }

    /// The whole node goes down: every pod within its own grace period.
    pub(super) fn stop_all(&mut self) {
        self.stopping = true;
        // The engine may have taken on one that it has not told of yet.
        for key in self.engine.driven() {
            if let Some(slot) = self.slots.get(&key) {
                self.driven.entry(key).or_insert_with(|| slot.uid.clone());
            }
        }
        let (engine, slots) = (&self.engine, &self.slots);
        // What cannot be stopped has ended before.
        self.driven.retain(|key, _| {
            let ours = slots.get(key).is_some_and(|slot| !matches!(slot.state, State::Waiting | State::Blocked));
            ours && engine.stop(&key.0, &key.1, None).is_ok()
        });
    }

    /// `down` of a pod that has ended removes what is on disk without asking us; then its object goes as well.
    pub(super) async fn forget_taken_down(&mut self) {
        let ended = self.slots.iter().filter(|(key, slot)| {
            let record = self.engine.roots().pod(&key.0, &key.1).record();
            slot.state == State::Ended && slot.was_here && !record.exists()
        });
        let ended: Vec<PodKey> = ended.map(|(key, _)| key.clone()).collect();
        for key in ended {
            self.remove_object(&key).await;
        }
    }

    /// The pod was removed from outside (`outrigger down`): its object follows, as after a deletion.
    pub(super) async fn remove_object(&mut self, key: &PodKey) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        slot.state = State::Down;
        slot.share = None;
        let uid = slot.uid.clone();
        let Some(object) = self.store.get(&object::key("pods", &key.0, &key.1)).filter(|found| found.uid == uid) else {
            return;
        };
        let deleted = object::delete_now(&self.store, &object, self.now()).await;
        self.check(deleted);
    }
}
