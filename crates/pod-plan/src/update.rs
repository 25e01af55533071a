//! A changed manifest on a live pod.
//!
//! Upstream lets a client change images only, and calls a container's identity its name and image
//! (`kubernetes/kubernetes pkg/kubelet/kuberuntime/kuberuntime_manager.go` containerChanged). Here every difference in a
//! container counts the same way, but for CPU and memory, which are changed in place ([`crate::resize`]).

use k8s_openapi::api::core::v1::Pod;

use crate::facts::{Container, Launch, Volumes};
use crate::shape::{ContainerShape, PodShape, containers_of};
use crate::stop::Why;
use crate::{Lifecycle, Time};

impl Lifecycle {
    /// Containers that differ in anything are stopped and started anew, with the next attempt number and a fresh
    /// back-off; `recreate` makes all of them differ. Removed ones are stopped and disappear. Of new ones, sidecars and
    /// mains are started; a new init container is left out if the pod is initialised already. An init container that
    /// has run or runs is never run again for a change, nor is an ephemeral container. While the pod stops, nothing of
    /// this happens.
    pub fn update(&mut self, pod: &Pod, recreate: bool, now: Time) {
        self.turn_time(now);
        let shape = PodShape::new(pod, &self.pod.uid);
        if self.stop.is_some() {
            self.pod.generation = shape.generation;
            return;
        }
        self.pod = shape;
        let initialised = self.initialisation().done;
        self.cursor = 0;
        let mut former = std::mem::take(&mut self.containers);
        let mut changed = Vec::new();
        for new in containers_of(pod) {
            let container = match former.iter().position(|container| container.name() == new.name()) {
                Some(position) => {
                    let mut container = former.remove(position);
                    if container.replace_shape(new, recreate) {
                        changed.push(self.containers.len());
                    }
                    container
                }
                None => {
                    let mut container = Container::new(new, 0);
                    container.first_number = self.retired.get(container.name()).copied().unwrap_or(0);
                    container.excused = initialised && container.shape.is_init();
                    container
                }
            };
            self.containers.push(container);
        }
        for index in changed {
            self.stop_container(index, Why::Definition, now);
        }
        for mut container in former {
            container.leave();
            self.containers.push(container);
            self.stop_container(self.containers.len() - 1, Why::Removed, now);
        }
        self.consider_resize(now);
        self.conclude(now);
    }

    /// What was missing (a ConfigMap, a Secret) has come: it is not waited for any longer.
    pub fn retry_sources(&mut self, now: Time) {
        if let Volumes::Needed { retry, .. } = &mut self.volumes {
            *retry = now.min(*retry);
        }
        for container in &mut self.containers {
            if container.trouble.as_ref().is_some_and(|trouble| trouble.reason == "CreateContainerConfigError") {
                container.retry = None;
            }
        }
        self.conclude(now);
    }
}

impl Container {
    /// Takes the new definition. True if the running attempt has to give way to it.
    fn replace_shape(&mut self, new: ContainerShape, recreate: bool) -> bool {
        let came_back = !std::mem::replace(&mut self.wanted, true);
        if !recreate && !came_back && self.shape.differs_in_size_only(&new) {
            self.shape = new;
            return false;
        }
        let same = self.shape == new && !recreate && !came_back;
        let image_only = !recreate && !came_back && self.differs_in_image_only(&new);
        let former = std::mem::replace(&mut self.shape, new);
        let once = former.role == self.shape.role && (former.is_init() || former.is_ephemeral());
        if same || once {
            if !same && self.last().is_none() {
                self.forget_launch();
            }
            return false;
        }
        self.forget_launch();
        self.crash = None;
        if self.alive().is_some() {
            // It may be on its way down already, for another reason.
            self.must_restart = true;
            return true;
        }
        // One that has ended for good stays so when only its image changes, as upstream.
        self.must_restart |= self.last().is_some() && !image_only;
        if let Some(end) = self.attempts.last_mut().and_then(|attempt| attempt.end.as_mut()) {
            end.at_once = true;
        }
        false
    }

    fn differs_in_image_only(&self, new: &ContainerShape) -> bool {
        let mut with_image = self.shape.clone();
        with_image.spec.image.clone_from(&new.spec.image);
        with_image == *new
    }

    /// What was under way for the old definition does not count, nor do its failures.
    fn forget_launch(&mut self) {
        self.launch = match self.launch {
            Launch::Pulling { since, announced, .. } => Launch::Pulling { since, announced, stale: true },
            Launch::Starting { number, .. } => Launch::Starting { number, stale: true },
            Launch::Idle | Launch::Pulled => Launch::Idle,
        };
        self.trouble = None;
        self.retry = None;
        self.pull = None;
        self.backs_off = None;
    }

    /// The manifest no longer has it.
    fn leave(&mut self) {
        self.wanted = false;
        self.backs_off = None;
        if matches!(self.launch, Launch::Pulling { .. } | Launch::Pulled) {
            self.launch = Launch::Idle;
        }
    }
}
