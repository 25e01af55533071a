//! What a worker and the rest of the program say to each other: plans and answers one way, counters the other. Whatever is said
//! to it comes with a byte to its eventfd.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::EventfdFlags;

use crate::count::{Counter, Throttle};
use crate::filter::wait::Told;
use crate::ledger::Phases;
use crate::plan::Plan;
use crate::slowest::Slowest;

/// What others see of a worker, and tell it.
#[derive(Debug)]
pub struct Shared {
    pub index: usize,
    next: Mutex<Option<Arc<Plan>>>,
    running: AtomicBool,
    /// For parked exchanges.
    told: Mutex<Vec<Told>>,
    draining: AtomicBool,
    /// Somebody else accepts.
    pub(super) retired: AtomicBool,
    /// The end has a deadline, so that nobody waits longer than needed.
    pub(super) hurried: AtomicBool,
    /// The end waits until nobody new is let in.
    pub(super) stays: AtomicBool,
    /// Nobody new is let in.
    pub(super) closed: AtomicBool,
    /// Nanoseconds of the clock after which everything is cut; `u64::MAX`: not yet known.
    pub(super) deadline: AtomicU64,
    pub(super) waker: OwnedFd,
    pub phases: Phases,
    pub slowest: Slowest,
    pub connections: Counter,
    pub accepted: Counter,
    pub refused: Counter,
    pub handshake_failures: Counter,
    pub announcement_failures: Counter,
    pub cut: Counter,
    /// Bytes held for others, see [`crate::purse`], and times that somebody had to do with little.
    pub held: Counter,
    pub shortages: Counter,
    /// Words about descriptors that are all in use.
    pub shortage_told: Throttle,
    /// Connections ended to make room, see `worker/room.rs`.
    pub given_up: Counter,
    /// Lines the access log was configured to leave out.
    pub unlogged: Counter,
}

impl Shared {
    pub fn new(index: usize) -> io::Result<Shared> {
        let waker = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Shared {
            index,
            next: Mutex::new(None),
            running: AtomicBool::new(false),
            told: Mutex::new(Vec::new()),
            draining: AtomicBool::new(false),
            retired: AtomicBool::new(false),
            hurried: AtomicBool::new(false),
            stays: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            deadline: AtomicU64::new(u64::MAX),
            waker,
            phases: Phases::default(),
            slowest: Slowest::default(),
            connections: Counter::default(),
            accepted: Counter::default(),
            refused: Counter::default(),
            handshake_failures: Counter::default(),
            announcement_failures: Counter::default(),
            cut: Counter::default(),
            held: Counter::default(),
            shortages: Counter::default(),
            shortage_told: Throttle::default(),
            given_up: Counter::default(),
            unlogged: Counter::default(),
        })
    }

    /// The worker goes over to `plan`.
    pub fn apply(&self, plan: Arc<Plan>) {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(plan);
        self.wake();
    }

    pub(super) fn take_plan(&self) -> Option<Arc<Plan>> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The worker ends when its last connection has, or at `deadline`. If it `stays`, it ends only after [`Shared::close`],
    /// and until then every connection is left alone until its next answer.
    pub fn drain(&self, deadline: u64, stays: bool) {
        self.stays.store(stays, Ordering::Relaxed);
        self.deadline.store(deadline, Ordering::Relaxed);
        self.hurried.store(true, Ordering::Relaxed);
        self.draining.store(true, Ordering::Release);
        self.wake();
    }

    /// The sockets are closed, so that a worker that drains has an end even if clients never stop coming.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.wake();
    }

    /// Others accept from now on; the worker ends when its last connection has.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
        self.draining.store(true, Ordering::Release);
        self.wake();
    }

    pub(crate) fn begin(&self) {
        for flag in [&self.draining, &self.retired, &self.hurried, &self.stays, &self.closed] {
            flag.store(false, Ordering::Relaxed);
        }
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.deadline.store(u64::MAX, Ordering::Relaxed);
        self.running.store(true, Ordering::Release);
    }

    pub(crate) fn end(&self) {
        self.running.store(false, Ordering::Release);
    }

    pub fn is_running(&self) -> bool {
        self.running.load(Ordering::Acquire)
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// From any thread: what an exchange has waited for.
    pub(crate) fn tell(&self, told: Told) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).push(told);
        self.wake();
    }

    pub(super) fn take_told(&self) -> Vec<Told> {
        std::mem::take(&mut *self.told.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn wake(&self) {
        // It can only fail because it is full, which wakes as well.
        let _ = rustix::io::write(&self.waker, &1u64.to_ne_bytes());
    }
}
