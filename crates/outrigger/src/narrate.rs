//! What happened to a pod, in words: the difference between two statuses, and the events that add something to it.

use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, PodStatus};
use pod_plan::Notice;

/// One line about a pod or one of its containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// `None`: the pod itself.
    pub(crate) container: Option<String>,
    pub(crate) text: String,
    pub(crate) tone: Tone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// The normal course of things.
    Quiet,
    /// Someone may want to look.
    Notable,
    /// Something failed.
    Bad,
}

impl Line {
    pub(crate) fn pod(tone: Tone, text: impl Into<String>) -> Self {
        Self { container: None, text: text.into(), tone }
    }

    fn container(name: &str, tone: Tone, text: impl Into<String>) -> Self {
        Self { container: Some(name.to_owned()), text: text.into(), tone }
    }
}

/// What changed from one status of a pod to the next, containers first. Without a `before` the present is told, not
/// the past.
pub(crate) fn changes(before: Option<&PodStatus>, after: &PodStatus) -> Vec<Line> {
    let mut lines = Vec::new();
    // The host's own address (hostNetwork) is no news.
    let known = [before.and_then(|before| before.pod_ip.as_deref()), after.host_ip.as_deref()];
    if let Some(ip) = after.pod_ip.as_deref().filter(|ip| !known.contains(&Some(*ip))) {
        lines.push(Line::pod(Tone::Quiet, format!("address {ip}")));
    }
    for status in containers(after) {
        let old = before.and_then(|before| containers(before).find(|old| old.name == status.name));
        container_changes(old, status, before.is_none(), &mut lines);
    }
    lines.extend(pod_change(before, after));
    lines
}

fn containers(status: &PodStatus) -> impl Iterator<Item = &ContainerStatus> {
    let inits = status.init_container_statuses.iter().flatten();
    inits.chain(status.container_statuses.iter().flatten()).chain(status.ephemeral_container_statuses.iter().flatten())
}

fn container_changes(old: Option<&ContainerStatus>, new: &ContainerStatus, first: bool, lines: &mut Vec<Line>) {
    let mut push = |tone, text: String| lines.push(Line::container(&new.name, tone, text));
    let state = |status: &ContainerStatus| status.state.clone().unwrap_or_default();
    let (was, is) = (old.map(state).unwrap_or_default(), state(new));

    // A status may have been skipped between two runs: the end of the previous one is still told. An attempt that was
    // never seen is not lost when the pod goes.
    let told = old.and_then(|old| ends(old).last().map(|(attempt, _)| *attempt));
    for (attempt, end) in ends(new) {
        let past = told.is_some_and(|told| attempt <= told) || first && is.running.is_some();
        let never_ran = end.reason.as_deref() == Some("ContainerStatusUnknown") && was.running.is_none();
        if !past && !never_ran {
            let (tone, text) = ending(end);
            push(tone, text);
        }
    }
    if let Some(waiting) = &is.waiting {
        let reason = waiting.reason.as_deref().unwrap_or_default();
        let known = was.waiting.as_ref().and_then(|waiting| waiting.reason.as_deref());
        // How it could not start was said as its end.
        let said = reason == "RunContainerError" && is_start_error(new);
        if !said && !matches!(reason, "" | "ContainerCreating" | "PodInitializing") && known != Some(reason) {
            push(Tone::Notable, waiting_text(reason, waiting.message.as_deref().unwrap_or_default()));
        }
    }
    if let Some(running) = &is.running {
        let same = was.running.as_ref().is_some_and(|was| was == running);
        match (same, new.restart_count) {
            (false, 0) if first => push(Tone::Quiet, "running".into()),
            (false, count) if first => push(Tone::Quiet, format!("running (restarts: {count})")),
            (false, 0) => push(Tone::Quiet, "started".into()),
            (false, count) => push(Tone::Quiet, format!("started again (restart {count})")),
            (true, _) => {}
        }
        let (was_started, was_ready) = match old {
            Some(old) if same => (old.started == Some(true), old.ready),
            _ => (new.started == Some(true), new.ready),
        };
        match (was_ready, new.ready) {
            (false, true) => push(Tone::Quiet, "ready".into()),
            (true, false) => push(Tone::Notable, "not ready".into()),
            // Being ready says it, too.
            _ if new.started == Some(true) && !was_started => push(Tone::Quiet, "start-up finished".into()),
            _ => {}
        }
    }
}

/// The ends a status tells of, oldest first, with the number of the attempt. Restarts are counted when the next attempt
/// is made: while that is waited for, the last one has the count.
fn ends(status: &ContainerStatus) -> Vec<(i32, &ContainerStateTerminated)> {
    let is_waiting = status.state.as_ref().is_some_and(|state| state.waiting.is_some());
    let mut ends = Vec::new();
    let last = if is_waiting { status.restart_count } else { status.restart_count - 1 };
    for (attempt, state) in [(last, &status.last_state), (status.restart_count, &status.state)] {
        ends.extend(state.as_ref().and_then(|state| state.terminated.as_ref()).map(|end| (attempt, end)));
    }
    ends
}

fn is_start_error(status: &ContainerStatus) -> bool {
    ends(status).last().is_some_and(|(_, end)| end.reason.as_deref() == Some("StartError"))
}

fn ending(end: &ContainerStateTerminated) -> (Tone, String) {
    let message = end.message.as_deref().map(str::trim).filter(|message| !message.is_empty());
    let with = |text: String| match message.and_then(|message| message.lines().last()) {
        Some(message) => format!("{text}: {message}"),
        None => text,
    };
    match (end.reason.as_deref().unwrap_or_default(), end.exit_code) {
        ("OOMKilled", code) => (Tone::Bad, format!("killed: it used more memory than its limit (exit code {code})")),
        ("StartError" | "ContainerCannotRun", _) => (Tone::Bad, with("could not start".into())),
        ("ContainerStatusUnknown", _) => (Tone::Bad, "lost: its processes died with the pod's shim".into()),
        (_, 0) => (Tone::Quiet, "completed".into()),
        (_, code) => {
            let text = match signal_name(code) {
                Some(name) => format!("exited with code {code} ({name})"),
                None => format!("exited with code {code}"),
            };
            (Tone::Notable, with(text))
        }
    }
}

/// Codes above 128 that an engine or a person usually causes.
fn signal_name(code: i32) -> Option<&'static str> {
    Some(match code - 128 {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        6 => "SIGABRT",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        15 => "SIGTERM",
        _ => return None,
    })
}

fn waiting_text(reason: &str, message: &str) -> String {
    match reason {
        // The rest of the message is the pod's name and uid.
        "CrashLoopBackOff" => match message.split(" restarting").next() {
            Some(time) if !time.is_empty() => format!("{reason}: {time}"),
            _ => reason.to_owned(),
        },
        // The cause stood in the ErrImagePull before it.
        "ImagePullBackOff" => reason.to_owned(),
        _ if message.is_empty() => reason.to_owned(),
        _ => format!("{reason}: {message}"),
    }
}

fn pod_change(before: Option<&PodStatus>, after: &PodStatus) -> Option<Line> {
    let phase = after.phase.as_deref().unwrap_or_default();
    let new_phase = before.and_then(|before| before.phase.as_deref()) != Some(phase);
    let became_ready = is_ready(after) && !before.is_some_and(is_ready);
    let why = match (after.reason.as_deref(), after.message.as_deref()) {
        (Some(reason), Some(message)) if !message.is_empty() => format!(": {reason}: {message}"),
        (Some(reason), _) => format!(": {reason}"),
        _ => String::new(),
    };
    match phase {
        "Running" if became_ready => Some(Line::pod(Tone::Quiet, if new_phase { "running, ready" } else { "ready" })),
        "Running" if new_phase => Some(Line::pod(Tone::Quiet, "running")),
        "Succeeded" if new_phase => Some(Line::pod(Tone::Quiet, "succeeded")),
        "Failed" if new_phase => Some(Line::pod(Tone::Bad, format!("failed{why}"))),
        _ => None,
    }
}

fn is_ready(status: &PodStatus) -> bool {
    status.conditions.iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// The line of an event, where the status does not say the same already.
pub(crate) fn event(notice: &Notice) -> Option<Line> {
    let tone = match (notice.warning, notice.reason.as_str()) {
        // Waiting reasons and ends say these.
        (_, "Failed" | "BackOff" | "Scheduled" | "Pulling" | "Created" | "Started") => return None,
        (_, "HostUserland") => Tone::Notable,
        (true, _) => Tone::Notable,
        (false, "Killing" | "SandboxChanged") => Tone::Quiet,
        (false, _) => return None,
    };
    let text = match notice.reason.as_str() {
        "Killing" if notice.message.starts_with("Stopping container ") => "stopping".to_owned(),
        "Killing" | "HostUserland" => notice.message.clone(),
        // An exec probe that said nothing leaves nothing behind its colon.
        reason => format!("{reason}: {}", notice.message.trim_end_matches([':', ' '])),
    };
    Some(Line { container: container_of(&notice.field_path), text, tone })
}

/// `app` from `spec.containers{app}`.
fn container_of(field_path: &str) -> Option<String> {
    Some(field_path.split_once('{')?.1.strip_suffix('}')?.to_owned())
}

#[cfg(test)]
mod tests;
