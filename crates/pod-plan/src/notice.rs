//! The Kubernetes events a pod gives rise to, with the words of 1.35 (`kubernetes/kubernetes pkg/kubelet/events/event.go`
//! and the places that record them).

use crate::duration::go_text;
use crate::facts::Container;
use crate::{Lifecycle, Notice, Pulled, Time};

impl Notice {
    pub(crate) fn normal(at: Time, reason: &str, message: impl Into<String>, field_path: String) -> Self {
        Self { at, warning: false, reason: reason.to_owned(), message: message.into(), field_path }
    }

    pub(crate) fn warning(at: Time, reason: &str, message: impl Into<String>, field_path: String) -> Self {
        Self { at, warning: true, reason: reason.to_owned(), message: message.into(), field_path }
    }
}

impl Lifecycle {
    pub(crate) fn note(&mut self, index: usize, at: Time, reason: &str, message: impl Into<String>) {
        let path = self.containers[index].shape.field_path();
        self.notices.push(Notice::normal(at, reason, message, path));
    }

    pub(crate) fn warn(&mut self, index: usize, at: Time, reason: &str, message: impl Into<String>) {
        let path = self.containers[index].shape.field_path();
        self.notices.push(Notice::warning(at, reason, message, path));
    }

    /// About the pod as a whole.
    pub(crate) fn note_pod(&mut self, at: Time, reason: &str, message: impl Into<String>) {
        self.notices.push(Notice::normal(at, reason, message, String::new()));
    }

    pub(crate) fn warn_pod(&mut self, at: Time, reason: &str, message: impl Into<String>) {
        self.notices.push(Notice::warning(at, reason, message, String::new()));
    }
}

pub(crate) fn pulling(container: &Container) -> String {
    format!("Pulling image \"{}\"", container.shape.image())
}

pub(crate) fn pulled(container: &Container, pulled: &Pulled) -> String {
    format!(
        "Successfully pulled image \"{}\" in {} ({} including waiting). Image size: {} bytes.",
        container.shape.image(),
        go_text(pulled.took_ms),
        go_text(pulled.took_with_wait_ms),
        pulled.size
    )
}

pub(crate) fn already_present(container: &Container) -> String {
    format!("Container image \"{}\" already present on machine and can be accessed by the pod", container.shape.image())
}

/// Our own: no cluster stands an image in by the host's programs.
pub(crate) fn host_userland(container: &Container) -> String {
    format!(
        "Container image \"{}\" is not in the store; the host's userland (/usr, read-only) stands in for it",
        container.shape.image()
    )
}

pub(crate) fn pull_back_off(container: &Container) -> String {
    format!("Back-off pulling image \"{}\"", container.shape.image())
}
