//! How many clients all workers together let in, so that a burst does not take more memory than there is. Counted once a
//! connection, whichever worker has it, because connections are not spread evenly.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The number of clients that are here, and its bound.
#[derive(Clone, Debug)]
pub struct Crowd {
    most: usize,
    here: Arc<AtomicUsize>,
}

/// Held for as long as a client is here.
#[derive(Debug)]
pub struct Seat {
    here: Arc<AtomicUsize>,
}

impl Crowd {
    /// `most` may differ from plan to plan; `here` is the same for all of them.
    pub fn new(most: usize, here: Arc<AtomicUsize>) -> Crowd {
        Crowd { most, here }
    }

    /// `None`: there is no room.
    pub fn enter(&self) -> Option<Seat> {
        if self.here.fetch_add(1, Ordering::Relaxed) >= self.most {
            self.here.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Seat { here: Arc::clone(&self.here) })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.here.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_leaves_makes_room() {
        let crowd = Crowd::new(2, Arc::default());
        let (first, second) = (crowd.enter(), crowd.enter());
        assert!(first.is_some() && second.is_some() && crowd.enter().is_none());
        drop(first);
        assert!(crowd.enter().is_some());
    }
}
