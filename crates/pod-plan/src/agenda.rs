//! A plan being made.

use crate::{Plan, Step, Time};

/// Collects the steps that are due now and the earliest time at which another one will be.
#[derive(Debug)]
pub(crate) struct Agenda {
    pub(crate) now: Time,
    plan: Plan,
}

impl Agenda {
    pub(crate) fn new(now: Time) -> Self {
        Self { now, plan: Plan::default() }
    }

    pub(crate) fn step(&mut self, step: Step) {
        self.plan.steps.push(step);
    }

    /// Is it time? If not, the plan is asked for again when it is.
    pub(crate) fn is_due(&mut self, time: Time) -> bool {
        if time <= self.now {
            return true;
        }
        self.wake_at(Some(time));
        false
    }

    pub(crate) fn wake_at(&mut self, time: Option<Time>) {
        if let Some(time) = time {
            self.plan.wake = Some(self.plan.wake.map_or(time, |wake| wake.min(time)));
        }
    }

    pub(crate) fn finish(mut self, finished: bool) -> Plan {
        self.plan.finished = finished;
        self.plan
    }
}
