//! How long to wait before trying again. Numbers: `kubernetes/kubernetes pkg/kubelet/kubelet.go`; the mechanism of the
//! crash back-off: `kubernetes/kubernetes staging/src/k8s.io/client-go/util/flowcontrol/backoff.go`.

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use crate::Time;
use crate::duration::{after, later};

/// Seconds before the second restart of a container, or the second pull of an image.
const FIRST: u64 = 10;
/// Seconds a wait never exceeds.
const LONGEST: u64 = 300;
/// Seconds after which a back-off is forgotten.
const FORGOTTEN: u64 = 2 * LONGEST;

/// One container's crash back-off: absent until the first restart, which is therefore immediate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CrashBackoff {
    /// Seconds to wait after the end of an attempt.
    pub(crate) delay: u64,
    /// When the last restart was decided.
    updated: Time,
}

impl CrashBackoff {
    /// The entry after a restart decided at `now` for an attempt that ended at `ended`.
    pub(crate) fn next(entry: Option<Self>, ended: Time, now: Time) -> Self {
        let delay = match entry {
            Some(entry) if !entry.is_forgotten(ended) => (entry.delay * 2).min(LONGEST),
            _ => FIRST,
        };
        Self { delay, updated: now }
    }

    /// When a container whose attempt ended at `ended` may start again; `None` is at once.
    pub(crate) fn until(entry: Option<Self>, ended: Time) -> Option<Time> {
        entry.filter(|entry| !entry.is_forgotten(ended)).map(|entry| after(ended, entry.delay))
    }

    /// The attempt ran for longer than twice the cap.
    fn is_forgotten(self, ended: Time) -> bool {
        ended > after(self.updated, FORGOTTEN)
    }
}

/// The wait between pulls of a container's image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PullBackoff {
    delay: u64,
    failed: Time,
}

impl PullBackoff {
    pub(crate) fn next(entry: Option<Self>, now: Time) -> Self {
        let delay = match entry {
            Some(entry) if now <= after(entry.failed, FORGOTTEN) => (entry.delay * 2).min(LONGEST),
            _ => FIRST,
        };
        Self { delay, failed: now }
    }

    pub(crate) fn until(self) -> Time {
        after(self.failed, self.delay)
    }
}

/// The wait after the `failures`-th failure in a row to prepare volumes (`kubernetes/kubernetes
/// pkg/util/goroutinemap/exponentialbackoff`): 0.5 s, doubling, at most 2 min 2 s.
pub(crate) fn volume_retry(failures: u32, now: Time) -> Time {
    let milliseconds = 500_u64.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(122_000);
    later(now, SignedDuration::from_millis(i64::try_from(milliseconds).unwrap_or(122_000)))
}

/// A sandbox is retried by the next pass, which the runtime's relisting triggers every second.
pub(crate) fn sandbox_retry(now: Time) -> Time {
    after(now, 1)
}

/// A configuration or creation error is retried by the next pass of a pod whose last pass failed. (Upstream adds up to
/// half of it at random, to spread many pods; here there is nothing to spread.)
pub(crate) fn failed_pass_retry(now: Time) -> Time {
    after(now, 10)
}

/// How long a result is shown (`Error`, `ErrImagePull`) before the next pass finds the back-off and names that
/// instead: the runtime is relisted once a second (`kubernetes/kubernetes pkg/kubelet/kubelet.go`
/// genericPlegRelistPeriod).
pub(crate) fn next_pass(now: Time) -> Time {
    after(now, 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_five_minutes() {
        let mut entry = None;
        let mut ended = Time::UNIX_EPOCH;
        let mut waits = Vec::new();
        for _ in 0..8 {
            let start = CrashBackoff::until(entry, ended).unwrap_or(ended);
            waits.push(start.duration_since(ended).as_secs());
            entry = Some(CrashBackoff::next(entry, ended, start));
            ended = after(start, 1);
        }
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn a_run_of_more_than_ten_minutes_is_forgiven() {
        let entry = CrashBackoff { delay: 80, updated: Time::UNIX_EPOCH };
        let at = |seconds| after(Time::UNIX_EPOCH, seconds);
        assert_eq!(CrashBackoff::until(Some(entry), at(600)), Some(at(680)));
        assert_eq!(CrashBackoff::until(Some(entry), at(601)), None);
        assert_eq!(CrashBackoff::next(Some(entry), at(601), at(601)).delay, 10);
    }

    #[test]
    fn volumes_are_retried_ever_more_slowly() {
        let waits = (1..=10).map(|n| volume_retry(n, Time::UNIX_EPOCH).as_millisecond());
        assert_eq!(waits.collect::<Vec<_>>(), [500, 1000, 2000, 4000, 8000, 16_000, 32_000, 64_000, 122_000, 122_000]);
    }
}
