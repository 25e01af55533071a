//! What time alone does to a pod: its deadline passes, and a failure becomes a back-off that has a name.

use std::borrow::Cow;

use crate::duration::{after, go_text};
use crate::facts::Trouble;
use crate::stop::{PodStop, PodStopCause};
use crate::{Lifecycle, Time, notice};

impl Lifecycle {
    /// Itself, or a copy to which the time until `now` has happened.
    pub(crate) fn settled(&self, now: Time) -> Cow<'_, Self> {
        if self.next_turn_of_time().is_none_or(|time| now < time) {
            return Cow::Borrowed(self);
        }
        let mut view = self.clone();
        view.settle(now);
        Cow::Owned(view)
    }

    /// When time alone next changes a fact.
    pub(crate) fn next_turn_of_time(&self) -> Option<Time> {
        let deadline = self.deadline().into_iter();
        deadline.chain(self.containers.iter().filter_map(|container| container.backs_off)).min()
    }

    fn deadline(&self) -> Option<Time> {
        self.pod.deadline.filter(|_| self.stop.is_none()).map(|seconds| after(self.created, seconds))
    }

    pub(crate) fn turn_time(&mut self, now: Time) {
        for index in 0..self.containers.len() {
            if let Some(at) = self.containers[index].backs_off.filter(|at| *at <= now) {
                self.containers[index].backs_off = None;
                self.name_back_off(index, at);
            }
        }
        if let Some(at) = self.deadline().filter(|at| *at <= now) {
            self.exceed_deadline(at);
        }
    }

    /// `kubernetes/kubernetes pkg/kubelet/active_deadline.go`.
    fn exceed_deadline(&mut self, at: Time) {
        let (reason, message) = ("DeadlineExceeded", "Pod was active on the node longer than the specified deadline");
        self.note_pod(at, reason, message);
        let cause = PodStopCause::Failed { reason: reason.to_owned(), message: message.to_owned() };
        self.stop_pod(PodStop { since: at, grace: self.pod.grace.max(1), forced: false, cause });
    }

    /// The pass after a failure found the container in back-off.
    pub(crate) fn name_back_off(&mut self, index: usize, at: Time) {
        let container = &self.containers[index];
        if let (Some(pull), Some(trouble)) = (&container.pull, &container.trouble)
            && at < pull.until()
        {
            let short = notice::pull_back_off(container);
            let message = format!("{short}: {}: {}", trouble.reason, trouble.message);
            self.note(index, at, "BackOff", short);
            self.warn(index, at, "Failed", "Error: ImagePullBackOff");
            self.containers[index].trouble = Some(Trouble { reason: "ImagePullBackOff".to_owned(), message });
            return;
        }
        let Some(crash) = container.crash.filter(|_| container.crash_wait().is_some_and(|until| at < until)) else {
            return;
        };
        let (name, pod) = (container.name(), self.pod.title());
        let delay = go_text(crash.delay * 1000);
        let message = format!("back-off {delay} restarting failed container={name} pod={pod}");
        let event = format!("Back-off restarting failed container {name} in pod {pod}");
        self.warn(index, at, "BackOff", event);
        self.containers[index].trouble = Some(Trouble { reason: "CrashLoopBackOff".to_owned(), message });
    }
}
