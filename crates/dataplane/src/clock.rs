//! Nanoseconds of the monotonic clock, as one number: every request carries a dozen of them.

use rustix::time::{ClockId, clock_gettime};

pub const MILLISECOND: u64 = 1_000_000;
pub const SECOND: u64 = 1_000_000_000;

/// Now, in nanoseconds since some moment before the start of this program; never goes back.
pub fn now() -> u64 {
    #[cfg(test)]
    if let Some(held) = HELD.get() {
        // Looking at it takes a microsecond.
        HELD.set(Some(held + 1000));
        return held;
    }
    let time = clock_gettime(ClockId::Monotonic);
    u64::try_from(time.tv_sec).unwrap_or(0) * SECOND + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// The wall clock, in nanoseconds since 1970.
pub fn wall() -> u64 {
    let time = clock_gettime(ClockId::Realtime);
    u64::try_from(time.tv_sec).unwrap_or(0) * SECOND + u64::try_from(time.tv_nsec).unwrap_or(0)
}

#[cfg(test)]
thread_local! {
    static HELD: std::cell::Cell<Option<u64>> = const { std::cell::Cell::new(None) };
}

/// From here on this thread's clock stands at `at`, and goes on only by being looked at.
#[cfg(test)]
pub fn hold(at: u64) {
    HELD.set(Some(at));
}
