//! How long to wait before trying again: doubling, with jitter, without end.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub struct Backoff {
    next: Duration,
    ceiling: Duration,
    random: u64,
}

impl Backoff {
    /// Never waits longer than `ceiling`; `seed` keeps several from marching in step.
    pub fn new(ceiling: Duration, seed: u64) -> Backoff {
        Backoff { next: FIRST.min(ceiling), ceiling, random: seed | 1 }
    }

    /// Half of the present step, plus up to the other half.
    pub fn pause(&mut self) -> Duration {
        // Xorshift is random enough to spread retries.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let half = self.next / 2;
        let jitter = half.mul_f64((self.random % 1000) as f64 / 1000.0);
        self.next = (self.next * 2).min(self.ceiling);
        half + jitter
    }

    pub fn reset(&mut self) {
        self.next = FIRST.min(self.ceiling);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_the_ceiling_and_starts_over() {
        let mut backoff = Backoff::new(Duration::from_secs(1), 7);
        for _ in 0..20 {
            assert!(backoff.pause() <= Duration::from_secs(1));
        }
        assert!(backoff.pause() >= Duration::from_millis(500));
        backoff.reset();
        assert!(backoff.pause() <= FIRST);
    }
}
