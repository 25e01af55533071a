//! Filters that ask somebody else before they answer. The worker does not wait: the exchange is parked, and whoever has
//! the answer tells the worker, from any thread.

use std::sync::Arc;

use super::{Flow, Response};
use crate::exchange::Failure;
use crate::worker::Shared;

/// The exchange that would wait.
#[derive(Clone, Copy, Debug)]
pub struct Waiting<'a> {
    pub(crate) worker: &'a Arc<Shared>,
    pub(crate) x: u32,
    pub(crate) ticket: u64,
}

/// What an exchange is told.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) x: u32,
    pub(crate) ticket: u64,
    pub(crate) flow: Flow,
    /// Whole lines for the answer.
    pub(crate) lines: Vec<u8>,
}

/// The right, and the duty, to tell a parked exchange how to go on. If it is dropped instead, the exchange fails.
#[derive(Debug)]
pub struct Waiter {
    worker: Arc<Shared>,
    x: u32,
    ticket: u64,
    done: bool,
}

impl Waiting<'_> {
    /// For a gate that then says [`Flow::Wait`].
    pub fn waiter(&self) -> Waiter {
        Waiter { worker: Arc::clone(self.worker), x: self.x, ticket: self.ticket, done: false }
    }
}

impl Waiter {
    /// How the exchange goes on; `lines` are added to its answer, whoever gives it.
    pub fn tell(mut self, flow: Flow, lines: Vec<u8>) {
        self.done = true;
        self.worker.tell(Told { x: self.x, ticket: self.ticket, flow, lines });
    }

    /// Nobody waits after all: the gate has answered itself.
    pub fn forget(mut self) {
        self.done = true;
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if !self.done {
            let response = Response::refuse(503, Failure::Limit, "a filter could not answer");
            let flow = Flow::Respond(response);
            self.worker.tell(Told { x: self.x, ticket: self.ticket, flow, lines: Vec::new() });
        }
    }
}
