//! Memory given back whenever the program was busy and now is quiet: at first what its start mapped.
//!
//! Most of what a small program keeps is the text that its start ran through once. What it needs again comes back from the
//! page cache within microseconds, so a program that works is left alone.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::warn;

/// After the start.
const FIRST: Duration = Duration::from_secs(2);
/// Between two looks. Nothing waits for it.
const LOOK: Duration = Duration::from_secs(20);
/// The part of the time spent working that still is rest: a few probes and scrapes.
const QUIET: f64 = 0.01;
/// Page faults; fewer since the last time are not worth the trouble.
const WORTH: u64 = 64;

/// For as long as the program runs.
pub(crate) async fn rest() {
    let (mut pause, mut worked, mut given_back) = (FIRST, processor_time(), 0);
    loop {
        tokio::time::sleep(pause).await;
        let now = processor_time();
        let quiet = now.saturating_sub(worked).as_secs_f64() < pause.as_secs_f64() * QUIET;
        (worked, pause) = (now, LOOK);
        if quiet && footprint::faults() > given_back + WORTH {
            if let Err(error) = footprint::shed() {
                warn!("failed to give memory back", reason = error);
                return;
            }
            given_back = footprint::faults();
        }
    }
}

fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}
