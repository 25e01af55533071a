//! The engine's clock: wall time as it was at start, plus what the monotonic clock has counted since. A step of the
//! machine's clock (NTP, a person) must not shorten a grace period or fire a back-off early.

use std::time::{Duration, Instant};

use pod_plan::Time;

#[derive(Debug, Clone, Copy)]
pub struct Clock {
    wall: Time,
    instant: Instant,
}

impl Clock {
    pub fn start() -> Self {
        Self { wall: Time::now(), instant: Instant::now() }
    }

    pub fn now(&self) -> Time {
        let elapsed = i64::try_from(self.instant.elapsed().as_nanos()).unwrap_or(i64::MAX);
        self.wall.checked_add(jiff::SignedDuration::from_nanos(elapsed)).unwrap_or(Time::MAX)
    }

    /// How long until `time`; zero if it has passed.
    pub fn until(&self, time: Time) -> Duration {
        let nanos = time.as_nanosecond() - self.now().as_nanosecond();
        Duration::from_nanos(u64::try_from(nanos.max(0)).unwrap_or(u64::MAX))
    }
}

/// The shim's nanoseconds since the Unix epoch.
pub(crate) fn from_nanos(nanos: u64) -> Time {
    Time::from_nanosecond(i128::from(nanos)).unwrap_or(Time::UNIX_EPOCH)
}
