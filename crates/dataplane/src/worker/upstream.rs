//! Connections to backends: choosing, connecting, sending, keeping, trying again.

use std::rc::Rc;
use std::sync::Arc;

use rustix::event::epoll::EventFlags;

use super::waiting::Due;
use super::{Worker, set_deadline, watch};
use crate::clock;
use crate::exchange::{Answer, Failure};
use crate::h2::Session;
use crate::head::Method;
use crate::ledger::Phase;
use crate::original::{self, Remembered};
use crate::pool::{Pick, Pool, Wish};
use crate::purse::Share;
use crate::retry::Retry;
use crate::slab::Token;
use crate::sock::{self, Sock};
use crate::timer::Deadline;

#[derive(Debug)]
pub(super) struct Up {
    pub(super) sock: Sock,
    pub(super) pool: Rc<Pool>,
    pub(super) endpoint: usize,
    pub(super) exchange: Option<u32>,
    /// Its streams belong to many exchanges.
    pub(super) h2: Option<Box<Session>>,
    /// Among those whose session has something to write.
    pub(super) dirty: bool,
    pub(super) connecting: bool,
    pub(super) deadline: Deadline,
    /// When something was last read, if its streams are shared.
    pub(super) heard: u64,
    /// Streams taken from it, since then, that it had not said a word about.
    pub(super) unheard: u32,
    /// Since when it has been in the pool.
    pub(super) idle_since: u64,
    /// The backend said so, or the configuration: nanoseconds it may be idle.
    pub(super) idle_most: u64,
    /// Nanoseconds it must have been idle to be used again.
    pub(super) idle_least: u64,
    /// After this round, epoll would have told of anything more that has come; `u64::MAX`: only asking tells.
    pub(super) silent_after: u64,
    /// What waits in its session.
    pub(super) share: Share,
    /// The only client it serves.
    pub(super) client: Option<Token>,
    /// It goes to an original destination, and is known for that until it is dropped.
    pub(super) _own: Option<Remembered>,
}

/// How often a request may be sent again that was provably not looked at (RFC 9113 §6.8), besides the route's retries.
pub(super) const UNSEEN: u32 = 8;
/// Streams in a row that a shared connection may leave without a word before it gets no more.
const UNHEARD: u32 = 8;
/// Bytes of plain text in a record at most (RFC 8446 §5.1).
const TLS_RECORD: usize = 16 << 10;

/// Between two words about descriptors that are all in use.
pub(super) const SHORTAGE_QUIET: u64 = 10 * clock::SECOND;
/// Between two words about TLS with one backend.
const TLS_QUIET: u64 = 10 * clock::SECOND;

impl Up {
    /// Says what was wrong with TLS: requests only say that it failed.
    pub(super) fn tell_reason(&self, error: &std::io::Error, now: u64) {
        let backend = &self.pool.backend;
        if let Some(reason) = crate::handshake::reason(error)
            && backend.common.tls_failures.allows(1, TLS_QUIET, now)
        {
            let endpoint = &backend.endpoints[self.endpoint].name;
            daemon::warn!("TLS with a backend failed", backend = backend.name, endpoint = endpoint, reason = reason);
        }
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        self.pool.backend.count_connection(self.endpoint, false);
    }
}

/// Nanoseconds until the earlier of two: `after` from now (0: no bound), or `until` (`u64::MAX`: no bound).
pub(super) fn sooner(after: u64, until: u64, now: u64) -> u64 {
    if until == u64::MAX {
        return after;
    }
    let left = until.saturating_sub(now).max(1);
    if after == 0 { left } else { after.min(left) }
}

impl Worker {
    /// Chooses an endpoint and a connection, and sends.
    pub(super) fn send_out(&mut self, x: u32) {
        let now = self.tick;
        let Some(exchange) = self.exchanges.get_mut(x) else { return };
        let Some(pool) = exchange.pool.as_ref().map(Rc::clone) else { return };
        let pool = if pool.stale.get() { self.renew_pool(x, pool) } else { pool };
        let Some(exchange) = self.exchanges.get_mut(x) else { return };
        let bounded = pool.backend.is_bounded();
        if !exchange.entered {
            let may_wait = pool.backend.settings.limits.pending > 0;
            let behind = may_wait && exchange.queued_until == 0 && self.is_queued_for(&pool);
            if behind || !pool.backend.enter() {
                return self.hold_back(x, &pool);
            }
            pool.deposit();
        }
        let Some(exchange) = self.exchanges.get_mut(x) else { return };
        exchange.entered = true;
        let endpoint = match pool.pick(now, &exchange.wish, &mut self.dice) {
            Pick::At(endpoint) => endpoint,
            Pick::Full => return self.hold_back(x, &pool),
            Pick::Nobody if exchange.twin_of.is_some() => return self.drop_twin(x),
            Pick::Nobody => return self.fail_with(x, Failure::NoEndpoint, 503, "the backend has no endpoint"),
        };
        if exchange.upgrade && pool.backend.settings.http2 && !self.find_way(x, &pool, endpoint) {
            return;
        }
        let Some(exchange) = self.exchanges.get_mut(x) else { return };
        let (tunnel, careful) = (exchange.is_raw(), !exchange.method.is_idempotent());
        let client = pool.backend.settings.is_personal().then(|| self.downs.token(exchange.down));
        let shared = exchange.goes_by_stream(&pool);
        let ready = match (shared, tunnel) {
            (true, _) => self.take_shared(&pool, endpoint),
            (_, true) => None,
            // The others of the pool may have ended just as well.
            _ if exchange.renewed => None,
            _ => self.take_idle(&pool, endpoint, careful, client),
        };
        if bounded && ready.is_none() && !self.make_room(&pool, endpoint) {
            return self.hold_back(x, &pool);
        }
        if bounded {
            self.unqueue(x);
        }
        let Some(exchange) = self.exchanges.get_mut(x) else { return };
        let unbounded = if exchange.shadow.is_some() { exchange.expires } else { u64::MAX };
        exchange.try_until = exchange.bound_of_try(now).unwrap_or(unbounded);
        if !exchange.pool.as_ref().is_some_and(|known| Rc::ptr_eq(known, &pool)) {
            let old = exchange.pool.replace(Rc::clone(&pool));
            for attempt in &mut exchange.attempts {
                let known = old.as_ref().and_then(|old| old.backend.endpoints.get(attempt.endpoint));
                let now = known.and_then(|known| pool.backend.number_of(known));
                // Who has gone has no name any more.
                attempt.endpoint = now.unwrap_or(usize::MAX);
            }
        }
        exchange.endpoint = endpoint;
        exchange.tries += 1;
        exchange.sent = false;
        exchange.try_began = now;
        exchange.asked_at = if exchange.is_whole() { now } else { 0 };
        exchange.attempt_began = now;
        if let Some(traced) = exchange.traced.as_deref_mut() {
            traced.begin_attempt(&mut self.identities, &mut exchange.replay);
        }
        let member = &pool.members[endpoint];
        member.active.set(member.active.get() + 1);
        let counters = &pool.backend.endpoints[endpoint].counters[self.shared.index];
        counters.requests.add(1);
        counters.active.add(1);
        if shared {
            let Some(u) = ready else { return self.connect(x, &pool, endpoint) };
            if let Some(exchange) = self.exchange(x) {
                exchange.up = Some(u);
                exchange.reused = true;
            }
            return self.send_stream(x);
        }
        let Some(u) = ready else { return self.connect(x, &pool, endpoint) };
        if let Some(up) = self.ups.get_mut(u) {
            up.exchange = Some(x);
            if !Rc::ptr_eq(&up.pool, &pool) {
                // The list of endpoints has changed since.
                up.pool = Rc::clone(&pool);
                up.endpoint = endpoint;
            }
        }
        let Some(exchange) = self.exchange(x) else { return };
        exchange.up = Some(u);
        exchange.reused = true;
        self.send_request(x);
    }

    /// The newest list of the same backend's endpoints.
    fn renew_pool(&mut self, x: u32, old: Rc<Pool>) -> Rc<Pool> {
        let same = |pool: &&Rc<Pool>| Arc::ptr_eq(&pool.backend.common, &old.backend.common);
        let Some(pool) = self.local.pools.iter().find(same).map(Rc::clone) else { return old };
        if let Some(exchange) = self.exchange(x) {
            let avoid = exchange.wish.avoid.and_then(|index| pool.backend.number_of(old.backend.endpoints.get(index)?));
            exchange.wish = Wish { avoid, stuck: None, ..exchange.wish };
        }
        pool
    }

    /// Whether a connection may be made; an idle one of another endpoint, or one without streams, ends for it.
    fn make_room(&mut self, pool: &Rc<Pool>, endpoint: usize) -> bool {
        if pool.backend.may_connect(endpoint) {
            return true;
        }
        let idle = pool.members.iter().find_map(|member| {
            let mut idle = member.idle.borrow_mut();
            // The one that has been idle longest.
            if idle.is_empty() { None } else { Some(idle.remove(0)) }
        });
        let idle = idle.or_else(|| {
            let unused = |token: &Token| {
                let up = self.ups.find(*token).and_then(|u| self.ups.get(u));
                up.and_then(|up| up.h2.as_deref()).is_some_and(Session::is_empty)
            };
            pool.members.iter().find_map(|member| member.shared.borrow().iter().copied().find(unused))
        });
        match idle.and_then(|token| self.ups.find(token)) {
            Some(u) => {
                self.drop_up(u);
                pool.backend.may_connect(endpoint)
            }
            None => false,
        }
    }

    /// A pooled connection that may still be used.
    fn take_idle(&mut self, pool: &Rc<Pool>, endpoint: usize, careful: bool, client: Option<Token>) -> Option<u32> {
        loop {
            let token = match client {
                None => pool.members[endpoint].idle.borrow_mut().pop()?,
                Some(client) => self.take_own(pool, endpoint, client)?,
            };
            let Some(u) = self.ups.find(token) else { continue };
            let Some(up) = self.ups.get_mut(u) else { continue };
            let idle = self.tick.saturating_sub(up.idle_since);
            let bears = pool.backend.endpoints[endpoint].health.bears_idle();
            let dying = idle > up.idle_most || idle < up.idle_least || idle > bears || up.sock.hangup;
            // What must not be sent twice is not sent to somebody who may have just left; and what nobody asked for, if it
            // came behind the last answer, would be read as the next one (RFC 9112 §6.3).
            let silent = self.told_all && up.silent_after < self.round;
            let dying = dying || (careful || !silent) && up.sock.is_closed_now();
            if dying {
                self.drop_up(u);
                continue;
            }
            return Some(u);
        }
    }

    fn connect(&mut self, x: u32, pool: &Rc<Pool>, endpoint: usize) {
        let Some(exchange) = self.exchange(x) else { return };
        exchange.reused = false;
        let shared = exchange.goes_by_stream(pool);
        if shared && self.takes_none(pool, endpoint) {
            return self.try_failed(x, Failure::RefusedStream);
        }
        let counters = &pool.backend.endpoints[endpoint].counters[self.shared.index];
        counters.connects.add(1);
        if let Some(exchange) = self.exchange(x) {
            let now = clock::now();
            exchange.ledger.note(Phase::Pool, now);
            self.tick = now;
        }
        let token = self.ups.next();
        let d = self.exchange(x).map(|exchange| exchange.down);
        let client = d.filter(|_| pool.backend.settings.is_personal()).map(|d| self.downs.token(d));
        let connected = if pool.backend.settings.original {
            let Some(original) = d.and_then(|d| self.downs.get(d)?.original) else {
                return self.fail_with(x, Failure::NoEndpoint, 503, "the connection was not redirected here");
            };
            original::connect(original)
        } else {
            sock::connect(&pool.backend.endpoints[endpoint].address).map(|(fd, done)| (fd, done, None))
        };
        let connected = connected.and_then(|(fd, done, own)| watch(&self.epoll, &fd, token).map(|()| (fd, done, own)));
        let (fd, done, own) = match connected {
            Ok(connected) => connected,
            Err(error) if sock::is_shortage(&error) => {
                if self.shared.shortage_told.allows(1, SHORTAGE_QUIET, self.tick) {
                    daemon::warn!("no connection can be made", backend = pool.backend.name, reason = error);
                }
                return self.try_failed(x, Failure::NoSocket);
            }
            Err(_) => return self.try_failed(x, Failure::Connect),
        };
        pool.backend.count_connection(endpoint, true);
        if let Some(room) = self.local.plan.room {
            sock::bound(&fd, room.socket);
        }
        let up = Up {
            share: Share::of(&self.local.purse),
            sock: Sock::new(fd, Share::of(&self.local.purse)),
            pool: Rc::clone(pool),
            endpoint,
            exchange: Some(x),
            h2: None,
            dirty: false,
            connecting: true,
            deadline: Deadline::default(),
            heard: 0,
            unheard: 0,
            idle_since: 0,
            idle_most: pool.backend.settings.idle_timeout,
            idle_least: 0,
            silent_after: u64::MAX,
            client,
            _own: own,
        };
        self.ups.insert(Box::new(up));
        let u = token.index();
        if let Some(exchange) = self.exchange(x) {
            exchange.up = Some(u);
        }
        let until = self.exchange(x).map_or(u64::MAX, |exchange| exchange.try_until);
        self.up_deadline(u, sooner(pool.backend.settings.connect_timeout, until, self.tick));
        if shared {
            self.share(u);
            self.send_stream(x);
        }
        if done {
            self.connected(u);
        }
    }

    pub(super) fn up_deadline(&mut self, u: u32, after: u64) {
        let token = self.ups.token(u);
        if let Some(up) = self.ups.get_mut(u) {
            set_deadline(&mut self.timers, &mut up.deadline, token, self.tick, after);
        }
    }

    fn connected(&mut self, u: u32) {
        let now = self.now();
        let Some(up) = self.ups.get_mut(u) else { return };
        up.connecting = false;
        let shared = up.h2.is_some();
        if shared {
            up.deadline.clear();
        }
        let x = up.exchange;
        if x.is_none() && !shared {
            return self.drop_up(u);
        }
        if let Some(version) = up.pool.backend.settings.announce
            && !self.announce(u, version)
        {
            return match x {
                Some(x) => self.try_failed(x, Failure::Connect),
                None => self.lose_shared(u, Failure::Connect),
            };
        }
        let Some(up) = self.ups.get_mut(u) else { return };
        if let Some(outward) = &up.pool.backend.settings.tls {
            let http1 = x.is_some_and(|x| self.exchanges.get(x).is_some_and(|exchange| exchange.by_http1));
            if let Err(error) = up.sock.connect_tls(outward, http1) {
                daemon::warn!("failed to begin TLS", backend = up.pool.backend.name, reason = error);
                return match x {
                    Some(x) => self.try_failed(x, Failure::Connect),
                    None => self.lose_shared(u, Failure::Connect),
                };
            }
            if self.cipher.is_empty() {
                self.cipher = vec![0; super::ROOM / 2].into_boxed_slice();
            }
        }
        if shared {
            return self.share_connected(u);
        }
        let Some(x) = x else { return };
        let Some(exchange) = self.exchange(x) else { return };
        exchange.ledger.note(Phase::Connect, now);
        if exchange.is_raw() {
            exchange.sent = true;
            self.tunnel_open(x);
        } else {
            self.send_request(x);
        }
    }

    /// Gives the whole request, as far as it is there, to the kernel.
    fn send_request(&mut self, x: u32) {
        let Some(exchange) = self.exchanges.get_mut(x) else { return };
        let Some(up) = exchange.up.and_then(|u| self.ups.get_mut(u)) else { return };
        if exchange.reused {
            exchange.ledger.note(Phase::Pool, self.tick);
        }
        if up.sock.write(&[&exchange.replay]).is_err() {
            // Of several TLS records the first may have gone out whole; without TLS, and of a single one, nothing arrived.
            exchange.sent = up.sock.tls.is_some() && exchange.replay.len() > TLS_RECORD;
            let failure = if exchange.reused { Failure::Closed } else { Failure::Connect };
            return self.try_failed(x, failure);
        }
        exchange.sent = true;
        let whole = exchange.is_whole();
        let now = clock::now();
        self.tick = now;
        exchange.ledger.note(Phase::Send, now);
        self.await_answer(x);
        if !whole {
            // What has come of the body meanwhile: nobody else will tell of it.
            self.pump_request(x);
        }
    }

    /// How long the answer's head may take.
    pub(super) fn await_answer(&mut self, x: u32) {
        let Some(exchange) = self.exchange(x) else { return };
        let (u, route, done) = (exchange.up, exchange.route, exchange.request.is_done());
        if exchange.answer != Answer::Waiting {
            return self.await_rest(x);
        }
        let (until, shared) = (exchange.try_until, exchange.up_stream != 0);
        if exchange.shadow.is_some() {
            let after = sooner(0, until, self.tick);
            return match u {
                Some(u) if shared => self.answer_by(x, u, after),
                Some(u) => self.up_deadline(u, after),
                None => {}
            };
        }
        if let (Some(u), Some(route)) = (u, route) {
            let (timeout, hedge) = exchange
                .local
                .plan
                .routes
                .get(route)
                .map_or((0, 0), |route| (route.backend_timeout, route.retry.hedge));
            // Before the last byte it is the client that is waited for.
            let after = if done { sooner(timeout, until, self.tick) } else { 0 };
            if hedge != 0 && done {
                self.plan_hedge(x, hedge);
            }
            if shared {
                self.answer_by(x, u, after);
            } else {
                self.up_deadline(u, after);
            }
        }
    }

    pub(super) fn up_event(&mut self, u: u32, flags: EventFlags) {
        let Some(up) = self.ups.get_mut(u) else { return };
        let gone = flags.intersects(EventFlags::HUP | EventFlags::ERR);
        if up.connecting {
            if gone || sock::connected(&up.sock.fd).is_err() {
                match up.exchange {
                    _ if up.h2.is_some() => self.lose_shared(u, Failure::Connect),
                    Some(x) => self.try_failed(x, Failure::Connect),
                    None => self.drop_up(u),
                }
                return;
            }
            if flags.contains(EventFlags::OUT) {
                self.connected(u);
            }
        }
        let Some(up) = self.ups.get_mut(u) else { return };
        if flags.intersects(EventFlags::IN | EventFlags::RDHUP) || gone {
            up.sock.readable = true;
            up.sock.hangup |= gone || flags.contains(EventFlags::RDHUP);
        }
        if up.h2.is_some() {
            if flags.contains(EventFlags::OUT) && up.sock.blocked() {
                match up.sock.flush() {
                    Ok(true) => self.writable_up(u, 0),
                    Ok(false) => {}
                    Err(_) => return self.lose_shared(u, Failure::Closed),
                }
            }
            return self.read_shared(u);
        }
        let Some(x) = up.exchange else {
            if up.sock.readable {
                self.close_idle(u, flags.contains(EventFlags::RDHUP));
            }
            return;
        };
        let (tunnel, over) = self.exchange(x).map_or((false, false), |exchange| {
            let by_stream = exchange.is_stream_tunnel();
            (exchange.tunnel && !by_stream, by_stream && exchange.response.is_done())
        });
        if gone && over {
            return self.finish_tunnel(x);
        }
        let Some(up) = self.ups.get_mut(u) else { return };
        if flags.contains(EventFlags::OUT) && up.sock.blocked() {
            match up.sock.flush() {
                Ok(true) if tunnel => {}
                Ok(true) => self.pump_request(x),
                Ok(false) => {}
                // What it has answered is read below.
                Err(_) => up.sock.readable = true,
            }
        }
        if tunnel {
            return self.pump_tunnel(x);
        }
        if self.ups.get(u).is_some_and(|up| up.sock.readable && up.exchange == Some(x)) {
            self.pump_response(x);
        }
    }

    /// A pooled connection has ended, or says something nobody asked for.
    pub(super) fn close_idle(&mut self, u: u32, by_backend: bool) {
        let Some(up) = self.ups.get(u) else { return };
        let (pool, endpoint) = (Rc::clone(&up.pool), up.endpoint);
        if by_backend {
            let idle = self.tick.saturating_sub(up.idle_since);
            pool.backend.endpoints[endpoint].health.note_idle_close(idle);
        }
        let token = self.ups.token(u);
        pool.members[endpoint].idle.borrow_mut().retain(|other| *other != token);
        self.drop_up(u);
    }

    pub(super) fn up_timeout(&mut self, u: u32) {
        let Some(up) = self.ups.get(u) else { return };
        let connecting = up.connecting;
        if up.h2.is_some() {
            return self.shared_timeout(u);
        }
        match up.exchange {
            None => self.close_idle(u, false),
            Some(x) if connecting => self.try_failed(x, Failure::ConnectTimeout),
            Some(x) => match self.exchange(x).map(|exchange| (exchange.answer, exchange.tunnel)) {
                Some((_, true)) => self.finish_tunnel(x),
                Some((Answer::Waiting, _)) => self.try_failed(x, Failure::AnswerTimeout),
                _ => self.abandon(x, Failure::AnswerTimeout),
            },
        }
    }

    /// No new streams; the connection ends with the last.
    pub(super) fn retire(&mut self, u: u32) {
        if let Some(session) = self.ups.get_mut(u).and_then(|up| up.h2.as_deref_mut()) {
            session.leave();
        }
        self.soil_up(u);
    }

    /// Ends a connection that is one exchange's or nobody's; see [`Worker::lose_shared`].
    pub(super) fn drop_up(&mut self, u: u32) {
        if self.ups.get(u).is_some_and(|up| up.h2.is_some()) {
            return self.lose_shared(u, Failure::Closed);
        }
        // Closing the descriptor takes it out of epoll.
        self.ups.remove(u);
    }

    /// Takes the backend's connection from the exchange: into the pool if it can be used again.
    pub(super) fn release(&mut self, x: u32, reusable: bool) {
        let now = self.tick;
        let goodbye = self.draining
            && !self.stays()
            && self.exchange(x).map(|one| one.down).is_some_and(|d| self.says_goodbye(d));
        if let Some(y) = self.exchange(x).and_then(|exchange| exchange.hedge) {
            self.drop_twin(y);
        }
        let Some(exchange) = self.exchanges.get_mut(x) else { return };
        let Some(pool) = exchange.pool.as_ref() else { return };
        let endpoint = exchange.endpoint;
        let began = exchange.try_began;
        let (unanswered, asked) = (exchange.answer == Answer::Waiting, exchange.asked_at != 0);
        if exchange.tries > 0 && began != 0 {
            let member = &pool.members[endpoint];
            member.active.set(member.active.get().saturating_sub(1));
            pool.backend.endpoints[endpoint].counters[self.shared.index].active.sub(1);
            exchange.try_began = 0;
        }
        let Some(u) = exchange.up.take() else { return };
        // What is left of a request would be taken for the next one.
        let reusable = reusable && exchange.hold.is_empty() && !exchange.ends;
        let stream = std::mem::take(&mut exchange.up_stream);
        // Some applications send a body where none may be.
        let bodiless = exchange.method == Method::Head || exchange.status == 304;
        let pool = Rc::clone(pool);
        let settings = &pool.backend.settings;
        let token = self.ups.token(u);
        let Some(up) = self.ups.get_mut(u) else { return };
        if up.h2.is_some() {
            // A client that withholds its request's rest says nothing about the connection.
            up.unheard += u32::from(unanswered && asked && !up.connecting && up.heard < began);
            if up.unheard >= UNHEARD {
                // Those who asked went away before their time was over, so that nothing else would tell.
                self.retire(u);
            }
            return self.release_stream(u, stream, reusable);
        }
        let mut idle = pool.members[endpoint].idle.borrow_mut();
        let known = !pool.members[endpoint].retired.get();
        let fits = idle.len() < settings.idle_most && !up.sock.hangup && known && !goodbye;
        if reusable && fits && !up.sock.blocked() && up.sock.left.is_empty() {
            up.exchange = None;
            up.idle_since = now;
            up.silent_after = if bodiless || up.sock.readable { u64::MAX } else { self.round };
            idle.push(token);
            let most = up.idle_most;
            drop(idle);
            self.up_deadline(u, most);
        } else {
            drop(idle);
            self.drop_up(u);
        }
    }

    /// One try has failed: the next one, or an answer that says so.
    pub(super) fn try_failed(&mut self, x: u32, failure: Failure) {
        let now = self.tick;
        let index = self.shared.index;
        let Some(exchange) = self.exchanges.get_mut(x) else { return };
        let Some(pool) = exchange.pool.as_ref().map(Rc::clone) else { return };
        let endpoint = exchange.endpoint;
        let counters = &pool.backend.endpoints[endpoint].counters[index];
        let unsent = !exchange.sent;
        // A connection that served before and ended by itself is nobody's failure the first time; a stream that was reset is
        // its backend's.
        let stale = exchange.reused && failure == Failure::Closed && (unsent || !exchange.renewed);
        if matches!(failure, Failure::Connect | Failure::Tls | Failure::ConnectTimeout) {
            counters.connect_failures.add(1);
        }
        // Who refuses a stream is busy, not broken; and who was not asked is neither.
        if !stale && !matches!(failure, Failure::RefusedStream | Failure::NoSocket) {
            counters.failures.add(1);
            if exchange.blames(failure, now) {
                pool.backend.note(endpoint, false, now);
            }
        }
        if exchange.twin_of.is_some() {
            return self.drop_twin(x);
        }
        if exchange.shadow.is_some() {
            return self.end_shadow(x, false);
        }
        exchange.end_attempt(now, 0, Some(failure));
        if exchange.hedge.is_some() {
            return self.adopt(x);
        }
        // What the time went into, up to now.
        let phase = match (unsent, exchange.is_whole()) {
            (true, _) => Phase::Connect,
            (false, true) => Phase::App,
            (false, false) => Phase::Send,
        };
        exchange.ledger.note(phase, now);
        let route = exchange.route.and_then(|route| exchange.local.plan.routes.get(route));
        let times = route.map_or(1, |route| route.retry.times);
        let plain = Retry::default();
        let by_route = stale || route.map_or(&plain, |route| &route.retry).takes(failure);
        let harmless = unsent || exchange.method.is_idempotent();
        let may = exchange.answer == Answer::Waiting && exchange.replayable && harmless && by_route;
        // What was sent may have been done, and may be what has ended the connection: once, and paid for.
        let replaces = may && stale && (unsent && exchange.replaced < UNSEEN || !unsent && pool.withdraw(now));
        let again = replaces || may && exchange.counted_tries() <= times && pool.withdraw(now);
        exchange.replaced += u32::from(replaces);
        exchange.renewed |= stale && !unsent;
        if !stale {
            exchange.wish = Wish { avoid: Some(endpoint), stuck: None, ..exchange.wish };
        }
        // Elsewhere nothing has gone wrong yet, and here nothing has arrived.
        let at_once = replaces || unsent && failure != Failure::RefusedStream && pool.members.len() > 1;
        let counters = route.map(|route| &route.counters[index]);
        if again && let Some(counters) = counters {
            counters.retries.add(1);
        }
        let least = route.map_or(0, |route| route.retry.least);
        self.release(x, false);
        if again {
            return self.try_again(x, at_once.then_some(if replaces { 0 } else { least }));
        }
        let text = match failure {
            Failure::Connect => "the backend cannot be reached",
            Failure::NoSocket => "the proxy has no room for a connection",
            Failure::Tls => "the backend and the proxy cannot agree on TLS",
            Failure::ConnectTimeout => "connecting to the backend took too long",
            Failure::Closed => "the backend closed the connection",
            Failure::RefusedStream => "the backend refused the stream",
            Failure::Reset => "the backend reset the stream",
            Failure::Truncated => "the backend's answer ended early",
            Failure::Malformed => "the backend's answer is malformed",
            Failure::AnswerTimeout => "the backend did not answer in time",
            _ => "the backend failed",
        };
        self.fail_with(x, failure, failure.status(), text);
    }

    /// The next try: after so many nanoseconds, or as long as its route says.
    pub(super) fn try_again(&mut self, x: u32, wait: Option<u64>) {
        let now = self.tick;
        let Some(exchange) = self.exchanges.get_mut(x) else { return };
        let route = exchange.route.and_then(|route| exchange.local.plan.routes.get(route));
        let by_route = || route.map_or(0, |route| route.retry.wait(exchange.counted_tries(), &mut self.dice));
        let wait = wait.unwrap_or_else(by_route);
        if wait == 0 {
            return self.send_out(x);
        }
        let at = now.saturating_add(wait).min(exchange.expires);
        self.wait_until(x, at, Due::Retry);
    }

    /// Ends the exchange with an answer of our own if there is none yet, else by cutting it.
    pub(super) fn fail_with(&mut self, x: u32, failure: Failure, status: u16, text: &str) {
        let Some(exchange) = self.exchange(x) else { return };
        if exchange.answer != Answer::Waiting || exchange.tunnel || exchange.shadow.is_some() {
            return self.abandon(x, failure);
        }
        exchange.failure = Some(failure);
        self.note_waited(x);
        self.release(x, false);
        let mut lines = Vec::new();
        if status >= 500 {
            lines.extend_from_slice(if status == 503 { b"Retry-After: 1\r\n" } else { b"" });
            lines.extend_from_slice(b"X-Outrigger-Failure: ");
            lines.extend_from_slice(failure.name().as_bytes());
            lines.extend_from_slice(b"\r\n");
        }
        self.respond(x, status, text, &lines);
    }

    /// The whole exchange took too long.
    pub(super) fn exchange_timeout(&mut self, x: u32) {
        let now = self.tick;
        let Some(exchange) = self.exchange(x) else { return };
        if exchange.tunnel {
            return self.finish_tunnel(x);
        }
        if exchange.expires <= now && !self.waits_for_body(x) {
            self.doubt(x);
            return self.fail_with(x, Failure::RequestTimeout, 504, "the request took too long");
        }
        if self.exchange(x).is_some_and(|exchange| exchange.request.is_done()) {
            // The client does not read.
            return self.abandon(x, Failure::ClientTimeout);
        }
        self.body_timeout(x);
    }

    /// Nothing of the request's body has been passed on for too long.
    pub(super) fn body_timeout(&mut self, x: u32) {
        let Some(exchange) = self.exchanges.get_mut(x) else { return };
        let waits = exchange.answer == Answer::Waiting && !exchange.gathers();
        let up = exchange.up.and_then(|u| self.ups.get(u));
        match up {
            // What is waited for has its own time, and the client's begins after it.
            _ if waits && (up.is_none() || !exchange.sent) => self.guard(x, false),
            Some(up) if waits && !up.takes(exchange.up_stream) => self.try_failed(x, Failure::AnswerTimeout),
            _ => self.fail_with(x, Failure::ClientTimeout, 408, "the request's body did not come in time"),
        }
    }

    /// What the time since the last note was, for an exchange that ends before its time.
    pub(super) fn note_waited(&mut self, x: u32) {
        let (now, blocked) = (self.tick, self.is_blocked(x));
        let Some(exchange) = self.exchanges.get_mut(x) else { return };
        let up = exchange.up.and_then(|u| self.ups.get(u));
        let phase = match exchange.answer {
            Answer::Begun if !blocked => Phase::Body,
            Answer::Begun | Answer::Read => Phase::Write,
            Answer::Waiting if exchange.gathers() => Phase::Send,
            Answer::Waiting if exchange.parked.is_some() => Phase::Route,
            Answer::Waiting => match up {
                // Between two tries, or there is no room.
                None if exchange.pool.is_some() => Phase::Pool,
                None => return,
                Some(up) if up.connecting => Phase::Connect,
                Some(up) if up.sock.is_handshaking() => Phase::TlsOut,
                Some(_) if !exchange.is_whole() => Phase::Send,
                Some(_) => Phase::App,
            },
        };
        exchange.ledger.note(phase, now);
    }

    /// Whether it is the client that must go on: the backend takes more of the request, and there is nothing to give. A call of
    /// gRPC may be silent.
    pub(super) fn waits_for_body(&mut self, x: u32) -> bool {
        let Some(exchange) = self.exchanges.get_mut(x) else { return false };
        let awaited = exchange.answer == Answer::Waiting && !exchange.request.is_done() && !exchange.patient;
        if exchange.gathers() {
            return awaited;
        }
        let up = exchange.up.and_then(|u| self.ups.get_mut(u));
        awaited && exchange.sent && up.is_some_and(|up| up.takes(exchange.up_stream))
    }
}
