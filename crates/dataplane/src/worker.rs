//! One worker: one thread, one epoll, its own connections and pools. Descriptors are registered once, edge-triggered;
//! everything is tried before it is waited for, so that a request on warm connections costs four system calls and its
//! share of one epoll_wait.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::event::{Timespec, epoll};

use crate::clock::{self, MILLISECOND};
use crate::exchange::{Exchange, Local};
use crate::head::Field;
use crate::plan::{Listener, Plan, Serves};
use crate::pool::{Dice, Member, Pool};
use crate::purse::Purse;
use crate::slab::{Kind, Slab, Token};
use crate::sock;
use crate::timer::{Deadline, Timers};
use crate::tracing::Identities;

mod announce;
mod client;
mod drain;
mod ebb;
mod filter;
mod finish;
mod gather;
mod greeting;
mod hedge;
mod mirror;
mod multiplex;
mod request;
mod response;
mod room;
mod shared;
mod sharing;
mod tracing;
mod tunnel;
mod upstream;
mod waiting;
mod websocket;

use client::Down;
use ebb::Ebb;
pub(crate) use filter::Parked;
pub(crate) use mirror::Copy;
pub use shared::Shared;
use upstream::Up;
use waiting::Waiting;

/// Room for one read. A head must fit in it with space to spare.
const ROOM: usize = 64 << 10;
/// Exchanges kept for later, with their buffers.
const SPARE: usize = 64;
/// A buffer larger than this is not kept.
const SPARE_BYTES: usize = 16 << 10;
/// Turns of one connection before others have theirs.
const TURNS: usize = 8;
/// Log lines wait this long at most.
const LOG_DELAY: u64 = 100 * MILLISECOND;
/// Log bytes handed over at once.
const LOG_BYTES: usize = 16 << 10;

/// A listener as one worker sees it, with the plan it belongs to: what it says of routes and backends are numbers there.
#[derive(Debug)]
struct Door {
    listener: Arc<Listener>,
    local: Rc<Local>,
}

impl Door {
    /// Whether connections that came in here can go over to `new`: what they speak is settled.
    fn becomes(&self, new: &Listener) -> bool {
        let speaks = |one: &Listener| (matches!(one.serves, Serves::Http(_)), one.tls.is_some());
        speaks(&self.listener) == speaks(new)
    }
}

/// A door that is open.
#[derive(Debug)]
struct Entrance {
    door: Rc<Door>,
    socket: Arc<OwnedFd>,
}

#[derive(Debug)]
pub struct Worker {
    shared: Arc<Shared>,
    epoll: OwnedFd,
    local: Rc<Local>,
    doors: Slab<Entrance>,
    downs: Slab<Down>,
    ups: Slab<Up>,
    exchanges: Slab<Exchange>,
    #[allow(clippy::vec_box, reason = "they come from boxes and go back into boxes")]
    spare: Vec<Box<Exchange>>,
    /// Connections that could go on at once but let others have their turn.
    ready: VecDeque<Token>,
    /// Clients whose session has something to write.
    dirty: Vec<Token>,
    timers: Timers,
    waiting: Waiting,
    dice: Dice,
    identities: Identities,
    /// When epoll returned.
    wake: u64,
    /// Counts the times it has.
    round: u64,
    /// It has told everything there was to tell.
    told_all: bool,
    /// The last time the clock was read.
    tick: u64,
    /// Room for one read. Whoever reads takes it; empty means that somebody further up is reading.
    input: Box<[u8]>,
    cipher: Box<[u8]>,
    output: Vec<u8>,
    extra: Vec<u8>,
    fields: Vec<Field>,
    log: String,
    log_since: u64,
    sampling: crate::log::Sampling,
    draining: bool,
    /// Draining, but nobody has to hurry.
    leisurely: bool,
    /// Of the next exchange that is parked.
    ticket: u64,
    ebb: Ebb,
    /// When it was last looked for somebody who stands still.
    looked: u64,
}

impl Worker {
    pub fn new(shared: Arc<Shared>, plan: Arc<Plan>) -> io::Result<Worker> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let data = epoll::EventData::new_u64(Token::new(Kind::Waker, 0, 0).0);
        epoll::add(&epoll, &shared.waker, data, epoll::EventFlags::IN)?;
        let now = clock::now();
        let pools = plan.backends.iter().map(|backend| Rc::new(Pool::new(Arc::clone(backend)))).collect();
        let purse = Purse::endless();
        let mut worker = Worker {
            epoll,
            local: Rc::new(Local { plan: Arc::clone(&plan), pools, purse }),
            doors: Slab::new(Kind::Listener),
            downs: Slab::new(Kind::Down),
            ups: Slab::new(Kind::Up),
            exchanges: Slab::new(Kind::Exchange),
            spare: Vec::new(),
            ready: VecDeque::new(),
            dirty: Vec::new(),
            timers: Timers::default(),
            waiting: Waiting::default(),
            dice: Dice::new(now ^ (shared.index as u64) << 32),
            identities: Identities::default(),
            wake: now,
            round: 0,
            told_all: false,
            tick: now,
            input: vec![0; ROOM].into_boxed_slice(),
            cipher: Box::default(),
            output: Vec::with_capacity(8 << 10),
            extra: Vec::new(),
            fields: Vec::with_capacity(64),
            log: String::new(),
            log_since: 0,
            sampling: crate::log::Sampling::default(),
            draining: false,
            leisurely: false,
            ticket: 0,
            ebb: Ebb::default(),
            looked: 0,
            shared,
        };
        worker.open_doors()?;
        Ok(worker)
    }

    /// Works until it has been told to drain and nothing is left.
    pub fn run(mut self) -> io::Result<()> {
        let mut events: Vec<epoll::Event> = Vec::with_capacity(256);
        loop {
            let timeout = self.timeout();
            if !self.turn(&mut events, timeout.as_ref())? {
                return Ok(());
            }
        }
    }

    /// One round: waits, and does all there is to do. False when it was the last.
    fn turn(&mut self, events: &mut Vec<epoll::Event>, timeout: Option<&Timespec>) -> io::Result<bool> {
        events.clear();
        self.round += 1;
        self.told_all = match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(events), timeout) {
            Ok(_) => events.len() < events.capacity(),
            Err(rustix::io::Errno::INTR) => false,
            Err(error) => return Err(error.into()),
        };
        self.wake = clock::now();
        self.tick = self.wake;
        self.local.purse.set_now(self.tick);
        if events.len() > 1 {
            self.bury(events);
        }
        for event in &*events {
            self.dispatch(Token(event.data.u64()), event.flags);
        }
        for _ in 0..self.ready.len() {
            let Some(token) = self.ready.pop_front() else { break };
            self.resume(token);
        }
        // Not before: if this process was stopped for a while, others may have taken what they were to take meanwhile.
        if self.local.purse.is_overdrawn() {
            self.make_way();
        }
        while let Some(token) = self.timers.pop(self.tick) {
            self.expire(token);
        }
        if !self.waiting.is_empty() {
            self.serve_waiting();
        }
        self.clean();
        self.hand_over_log(false);
        self.give_back();
        self.shared.held.set(self.local.purse.held() as u64);
        self.shared.shortages.set(self.local.purse.shortages());
        if self.draining && self.is_over() {
            self.hand_over_log(true);
            return Ok(false);
        }
        Ok(true)
    }

    fn timeout(&self) -> Option<Timespec> {
        if !self.ready.is_empty() {
            return Some(Timespec { tv_sec: 0, tv_nsec: 0 });
        }
        let log = if self.log.is_empty() { u64::MAX } else { self.log_since + LOG_DELAY };
        let drain = if self.draining { self.shared.deadline.load(Ordering::Relaxed) } else { u64::MAX };
        let next = self
            .timers
            .next()
            .unwrap_or(u64::MAX)
            .min(log)
            .min(drain)
            .min(self.waiting.next(self.tick))
            .min(self.ebb.due);
        if next == u64::MAX {
            return None;
        }
        // Rounded up to milliseconds, which is what epoll_wait(2) knows: else it would return too early, for nothing.
        let wait = next.saturating_sub(self.tick).div_ceil(MILLISECOND) * MILLISECOND;
        Timespec::try_from(Duration::from_nanos(wait)).ok()
    }

    /// First of all, pooled connections that their backend has closed, or on which it has said what nobody asked for: no
    /// request of this round may get one.
    fn bury(&mut self, events: &[epoll::Event]) {
        let closing = epoll::EventFlags::RDHUP | epoll::EventFlags::HUP | epoll::EventFlags::ERR;
        for event in events {
            let token = Token(event.data.u64());
            let flags = event.flags;
            if token.kind() == Kind::Up
                && flags.intersects(closing | epoll::EventFlags::IN)
                && let Some(u) = self.ups.find(token)
                && let Some(up) = self.ups.get_mut(u)
            {
                let closed = flags.intersects(closing);
                if up.h2.is_some() {
                    // No new streams; what it said before its end is still read.
                    up.sock.hangup |= closed;
                } else if up.exchange.is_none() {
                    self.close_idle(u, closed);
                }
            }
        }
    }

    fn dispatch(&mut self, token: Token, flags: epoll::EventFlags) {
        match token.kind() {
            Kind::Listener => self.knock(token),
            Kind::Down => {
                if let Some(d) = self.downs.find(token) {
                    self.down_event(d, flags);
                }
            }
            Kind::Up => {
                if let Some(u) = self.ups.find(token) {
                    self.up_event(u, flags);
                }
            }
            Kind::Waker => self.woken(),
            Kind::Exchange => {}
        }
    }

    /// A connection whose turn it is again.
    fn resume(&mut self, token: Token) {
        match token.kind() {
            Kind::Down => {
                if let Some(d) = self.downs.find(token) {
                    self.client(d);
                }
            }
            Kind::Up if self.is_shared(token) => self.read_shared(token.index()),
            Kind::Up => {
                let x = self.ups.find(token).and_then(|u| self.ups.get(u)?.exchange);
                if let Some(x) = x {
                    self.pump_response(x);
                }
            }
            Kind::Listener | Kind::Exchange | Kind::Waker => {}
        }
    }

    fn is_shared(&self, token: Token) -> bool {
        self.ups.find(token).and_then(|u| self.ups.get(u)).is_some_and(|up| up.h2.is_some())
    }

    fn expire(&mut self, token: Token) {
        let now = self.tick;
        match token.kind() {
            Kind::Down => {
                let Some(d) = self.downs.find(token) else { return };
                let Some(down) = self.downs.get_mut(d) else { return };
                if self.timers.passed(&mut down.deadline, token, now) {
                    self.down_timeout(d);
                }
            }
            Kind::Up => {
                let Some(u) = self.ups.find(token) else { return };
                let Some(up) = self.ups.get_mut(u) else { return };
                if self.timers.passed(&mut up.deadline, token, now) {
                    self.up_timeout(u);
                }
            }
            Kind::Listener | Kind::Exchange | Kind::Waker => {}
        }
    }

    fn woken(&mut self) {
        let mut count = [0; 8];
        // Nothing to read means that somebody was faster; there is nobody else.
        let _ = rustix::io::read(&self.shared.waker, &mut count);
        self.told();
        if let Some(plan) = self.shared.take_plan() {
            self.change_to(plan);
        }
        if self.shared.is_draining() {
            self.begin_to_end();
        }
    }

    /// Pools of backends that are still there go on, with their connections.
    fn change_to(&mut self, plan: Arc<Plan>) {
        let old = Rc::clone(&self.local);
        let pools = plan.backends.iter().map(|backend| {
            let same = old.pools.iter().find(|pool| Arc::ptr_eq(&pool.backend.common, &backend.common));
            match same {
                Some(pool) if Arc::ptr_eq(&pool.backend, backend) => Rc::clone(pool),
                Some(pool) => Rc::new(pool.next(Arc::clone(backend))),
                None => Rc::new(Pool::new(Arc::clone(backend))),
            }
        });
        let pools: Vec<Rc<Pool>> = pools.collect();
        for gone in old.pools.iter().filter(|pool| !pools.iter().any(|new| Rc::ptr_eq(new, pool))) {
            gone.stale.set(true);
            let stays = |member: &Rc<Member>| {
                pools.iter().any(|pool| pool.members.iter().any(|other| Rc::ptr_eq(other, member)))
            };
            for member in gone.members.iter().filter(|member| !stays(member)) {
                member.retired.set(true);
                let idle = std::mem::take(&mut *member.idle.borrow_mut());
                for token in idle {
                    self.ups.find(token).into_iter().for_each(|u| self.drop_up(u));
                }
                // Streams go on; the connection ends with the last.
                let shared = member.shared.borrow().clone();
                for token in shared {
                    self.ups.find(token).into_iter().for_each(|u| self.retire(u));
                }
            }
        }
        self.local = Rc::new(Local { plan, pools, purse: Rc::clone(&old.purse) });
        // They have the old plan.
        self.spare.clear();
        self.clean();
        if let Err(error) = self.open_doors() {
            daemon::error!("failed to take over a listener", reason = error);
        }
    }

    /// Waits at the plan's sockets, and no longer at those it has not. Open connections go over to what their listener has
    /// become; if it is not there any more, they keep the plan it belonged to.
    fn open_doors(&mut self) -> io::Result<()> {
        let plan = Arc::clone(&self.local.plan);
        let (most, socket) = plan.room.map_or((usize::MAX, 0), |room| (room.all, 2 * room.socket));
        self.local.purse.bound(most, socket);
        let mut wanted: Vec<_> = plan.listeners.iter().filter_map(|one| Some((one, one.socket.upgrade()?))).collect();
        let mut moved: Vec<(Rc<Door>, Rc<Door>)> = Vec::new();
        for index in self.doors.indices() {
            let Some(entrance) = self.doors.get_mut(index) else { continue };
            match wanted.iter().position(|(_, socket)| Arc::ptr_eq(socket, &entrance.socket)) {
                Some(position) => {
                    let (listener, _) = wanted.swap_remove(position);
                    let new = Rc::new(Door { listener: Arc::clone(listener), local: Rc::clone(&self.local) });
                    let old = std::mem::replace(&mut entrance.door, Rc::clone(&new));
                    if old.becomes(listener) {
                        moved.push((old, new));
                    }
                }
                None => {
                    // Whoever has been waiting is still let in.
                    self.knock(self.doors.token(index));
                    self.close_door(index);
                }
            }
        }
        for d in self.downs.indices() {
            let Some(down) = self.downs.get_mut(d) else { continue };
            if let Some((_, new)) = moved.iter().find(|(old, _)| Rc::ptr_eq(old, &down.door)) {
                down.door = Rc::clone(new);
            }
        }
        for (listener, socket) in wanted {
            if let Some(room) = plan.room {
                // Connections inherit it.
                sock::bound(&socket, room.socket);
            }
            let data = epoll::EventData::new_u64(self.doors.next().0);
            epoll::add(&self.epoll, &*socket, data, epoll::EventFlags::IN | epoll::EventFlags::EXCLUSIVE)?;
            let door = Rc::new(Door { listener: Arc::clone(listener), local: Rc::clone(&self.local) });
            self.doors.insert(Box::new(Entrance { door, socket }));
        }
        Ok(())
    }

    fn hand_over_log(&mut self, now: bool) {
        if self.log.is_empty() {
            return;
        }
        if now || self.log.len() >= LOG_BYTES || self.tick.saturating_sub(self.log_since) >= LOG_DELAY {
            match &self.local.plan.log {
                Some(log) => log.writer.write(&mut self.log),
                None => self.log.clear(),
            }
        }
    }

    // === exchanges ===

    fn begin_exchange(&mut self, down: u32, at: u64) -> u32 {
        let local = Rc::clone(self.downs.get(down).map_or(&self.local, |down| &down.door.local));
        let mut exchange = match self.spare.pop() {
            Some(spare) => spare,
            None => Box::new(Exchange::new(Rc::clone(&local))),
        };
        exchange.begin(down, local, at);
        self.exchanges.insert(exchange).index()
    }

    fn exchange(&mut self, x: u32) -> Option<&mut Exchange> {
        self.exchanges.get_mut(x)
    }

    /// The client's side of an exchange goes on when others have had their turn, or when the room for reading is free.
    fn later(&mut self, x: u32) {
        if let Some(d) = self.exchange(x).filter(|exchange| exchange.shadow.is_none()).map(|exchange| exchange.down) {
            self.ready.push_back(self.downs.token(d));
        }
    }

    fn end_exchange(&mut self, x: u32) -> Option<Box<Exchange>> {
        self.unqueue(x);
        self.exchanges.remove(x)
    }

    /// Lets go of all that the exchange had, but for its buffers.
    fn keep_spare(&mut self, mut exchange: Box<Exchange>) {
        if self.spare.len() < SPARE {
            if exchange.replay.capacity() > SPARE_BYTES {
                exchange.replay = Vec::new();
            }
            exchange.renew(Rc::clone(&self.local));
            self.spare.push(exchange);
        }
    }

    fn now(&mut self) -> u64 {
        self.tick = clock::now();
        self.tick
    }
}

/// Registered once, for everything.
fn watch(epoll: &OwnedFd, fd: &OwnedFd, token: Token) -> io::Result<()> {
    let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
    Ok(epoll::add(epoll, fd, epoll::EventData::new_u64(token.0), flags)?)
}

fn set_deadline(timers: &mut Timers, deadline: &mut Deadline, token: Token, now: u64, after: u64) {
    if after == 0 {
        deadline.clear();
    } else {
        timers.set(deadline, token, now.saturating_add(after));
    }
}

#[cfg(test)]
mod tests;
