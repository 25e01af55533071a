//! When probes run and what their results mean. `kubernetes/kubernetes pkg/kubelet/prober/worker.go`.
//!
//! A probe ticks on a grid: the container's start plus `initialDelaySeconds`, then every period. (Upstream's grid
//! hangs on the pod's admission; ours is the same in every run.) A tick that comes while the probe is in flight is made
//! up for at once when it ends, later ones are dropped, as a Go ticker does.

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use crate::duration::{after, later};
use crate::facts::Attempt;
use crate::shape::{ContainerShape, ProbeShape};
use crate::{ProbeKind, ProbeOutcome, Time};

pub(crate) const KINDS: [ProbeKind; 3] = [ProbeKind::Startup, ProbeKind::Liveness, ProbeKind::Readiness];

/// The state of one attempt's probes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Probes {
    pub(crate) startup: Worker,
    pub(crate) liveness: Worker,
    pub(crate) readiness: Worker,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Worker {
    pub(crate) in_flight: bool,
    /// The tick that ran last.
    tick: Option<Time>,
    /// The newest raw result, and how often it came in a row.
    run: Option<(bool, u32)>,
    /// The result after thresholds. Until then readiness counts as failed, liveness as passed, startup as unknown.
    pub(crate) verdict: Option<bool>,
    /// When the verdict last changed.
    pub(crate) decided: Option<Time>,
}

impl Probes {
    pub(crate) fn worker(&self, kind: ProbeKind) -> &Worker {
        match kind {
            ProbeKind::Startup => &self.startup,
            ProbeKind::Liveness => &self.liveness,
            ProbeKind::Readiness => &self.readiness,
        }
    }

    pub(crate) fn worker_mut(&mut self, kind: ProbeKind) -> &mut Worker {
        match kind {
            ProbeKind::Startup => &mut self.startup,
            ProbeKind::Liveness => &mut self.liveness,
            ProbeKind::Readiness => &mut self.readiness,
        }
    }
}

impl Worker {
    /// Folds one outcome in. True when it made the verdict (again).
    pub(crate) fn observe(&mut self, outcome: &ProbeOutcome, probe: ProbeShape, at: Time) -> bool {
        self.in_flight = false;
        let success = match outcome {
            ProbeOutcome::Success | ProbeOutcome::Warning(_) => true,
            ProbeOutcome::Failure(_) => false,
            // Thrown away, thresholds untouched.
            ProbeOutcome::Unknown(_) => return false,
        };
        let count = match self.run {
            Some((last, count)) if last == success => count.saturating_add(1),
            _ => 1,
        };
        self.run = Some((success, count));
        let threshold = if success { probe.success_threshold } else { probe.failure_threshold };
        if count < threshold {
            return false;
        }
        if self.verdict != Some(success) {
            self.decided = Some(at);
        }
        self.verdict = Some(success);
        true
    }

    /// The step was begun at `now`: remembers the tick of the grid it stands for.
    pub(crate) fn begin(&mut self, anchor: Time, probe: ProbeShape, now: Time) {
        self.in_flight = true;
        self.tick = Some(last_tick(anchor, probe.period, now));
    }

    /// The engine died over it: the probe is due again.
    pub(crate) fn resume(&mut self) {
        if std::mem::take(&mut self.in_flight) {
            self.tick = None;
        }
    }

    /// The next tick at or after `from`, on the grid that begins at `anchor`.
    fn next_tick(&self, anchor: Time, period: u64, from: Time) -> Time {
        match self.tick {
            // A grid that began after the last tick: readiness once startup has succeeded.
            Some(tick) if tick >= anchor => after(tick, period),
            _ if from <= anchor => anchor,
            _ => {
                let tick = last_tick(anchor, period, from);
                if tick == from { tick } else { after(tick, period) }
            }
        }
    }
}

/// The grid's last tick not after `now`.
fn last_tick(anchor: Time, period: u64, now: Time) -> Time {
    let passed = now.duration_since(anchor).as_nanos().max(0);
    let period = i128::from(period.max(1)) * 1_000_000_000;
    let nanoseconds = passed / period * period;
    later(anchor, SignedDuration::from_nanos(i64::try_from(nanoseconds).unwrap_or(i64::MAX)))
}

/// When the attempt's next probe of this kind is to run; `None` when none is.
pub(crate) fn due(shape: &ContainerShape, attempt: &Attempt, kind: ProbeKind, pod_stops: bool) -> Option<Time> {
    let probe = shape.probe(kind)?;
    let up = attempt.up_since().filter(|_| attempt.is_up())?;
    let worker = attempt.probes.worker(kind);
    if worker.in_flight || on_hold(attempt, kind, pod_stops) {
        return None;
    }
    let (anchor, from) = grid(shape, attempt, kind, up, probe)?;
    Some(worker.next_tick(anchor, probe.period, from))
}

/// Where the grid begins, and the time before which its ticks do not count. `None` while a startup probe keeps the
/// other two from running.
pub(crate) fn grid(
    shape: &ContainerShape,
    attempt: &Attempt,
    kind: ProbeKind,
    up: Time,
    probe: ProbeShape,
) -> Option<(Time, Time)> {
    let first = after(attempt.started?, probe.initial_delay);
    if kind == ProbeKind::Startup || shape.probe(ProbeKind::Startup).is_none() {
        return Some((first, up));
    }
    let startup = &attempt.probes.startup;
    if startup.verdict != Some(true) {
        return None;
    }
    let passed = startup.decided?;
    // Success triggers a readiness probe at once, and its ticker starts over from there.
    Some(if kind == ProbeKind::Readiness { (first.max(passed), passed) } else { (first, passed) })
}

/// A worker rests after the verdict that has the container stopped, and startup also after its success. While the pod
/// (or this container) stops, only readiness goes on, so that a draining container can turn unready. (Upstream goes on
/// probing the liveness of sidecars through 1.36, without any consequence: kubernetes/kubernetes #141766.)
fn on_hold(attempt: &Attempt, kind: ProbeKind, pod_stops: bool) -> bool {
    let verdict = attempt.probes.worker(kind).verdict;
    let stops = pod_stops || attempt.stop.is_some();
    match kind {
        ProbeKind::Startup => verdict.is_some() || stops,
        ProbeKind::Liveness => verdict == Some(false) || stops,
        ProbeKind::Readiness => false,
    }
}

/// `status.started`: up, and the startup probe has succeeded if there is one. The same is a sidecar's "passed", which
/// lets the next init container start: readiness and liveness have no say (KEP-753).
pub(crate) fn is_started(shape: &ContainerShape, attempt: &Attempt) -> bool {
    attempt.is_up() && (shape.probe(ProbeKind::Startup).is_none() || attempt.probes.startup.verdict == Some(true))
}

/// `status.ready` of a main or a sidecar.
pub(crate) fn is_ready(shape: &ContainerShape, attempt: &Attempt) -> bool {
    is_started(shape, attempt)
        && (shape.probe(ProbeKind::Readiness).is_none() || attempt.probes.readiness.verdict == Some(true))
}

/// As events name it: `Liveness probe failed: …`.
pub(crate) fn title(kind: ProbeKind) -> &'static str {
    match kind {
        ProbeKind::Startup => "Startup",
        ProbeKind::Liveness => "Liveness",
        ProbeKind::Readiness => "Readiness",
    }
}
