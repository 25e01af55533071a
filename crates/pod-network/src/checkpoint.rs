//! Places where a test lets the engine die. In a build for people they are nothing.

/// A point between two changes of the outside world.
#[cfg(not(test))]
pub(crate) fn pass(_: &'static str) {}

#[cfg(test)]
pub(crate) use armed::pass;

#[cfg(test)]
pub(crate) mod armed {
    //! A panic that nobody between the checkpoint and the test catches is as good as a kill: no rollback runs, the lock
    //! is let go.

    use std::cell::Cell;

    thread_local! {
        static REMAINING: Cell<Option<u32>> = const { Cell::new(None) };
    }

    /// Panics at the checkpoint passed after `count` others on this thread.
    pub(crate) fn arm(count: u32) {
        REMAINING.set(Some(count));
    }

    pub(crate) fn disarm() {
        REMAINING.set(None);
    }

    pub(crate) fn pass(name: &'static str) {
        match REMAINING.get() {
            None => {}
            Some(0) => {
                disarm();
                // Unlike panic!, without a message on the terminal.
                std::panic::resume_unwind(Box::new(Killed(name)));
            }
            Some(remaining) => REMAINING.set(Some(remaining - 1)),
        }
    }

    /// The panic's payload: which checkpoint killed.
    #[derive(Debug)]
    pub(crate) struct Killed(pub(crate) &'static str);
}
