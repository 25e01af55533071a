//! The same request at a second endpoint, because the first takes long. The second try is an exchange of its own, a twin,
//! until either has the first byte of an answer; then the client's exchange has the winner's connection, and the other try
//! is over. Only for requests that may be made twice, and each is paid for like a retry.

use std::rc::Rc;

use super::Worker;
use super::waiting::Due;
use crate::body::Body;
use crate::exchange::Answer;
use crate::pool::Wish;

impl Worker {
    /// The request is with an endpoint: from now on a second may be asked.
    pub(super) fn plan_hedge(&mut self, x: u32, after: u64) {
        let now = self.tick;
        let Some(exchange) = self.exchange(x) else { return };
        let may = exchange.method.is_idempotent() && exchange.replayable && exchange.answer == Answer::Waiting;
        let may = may && !exchange.upgrade && !exchange.is_raw();
        if may
            && exchange.counted_tries() == 1
            && exchange.twin_of.is_none()
            && !std::mem::replace(&mut exchange.hedged, true)
        {
            self.wait_until(x, now.saturating_add(after), Due::Hedge);
        }
    }

    /// No answer has come in time.
    pub(super) fn hedge(&mut self, x: u32) {
        let now = self.tick;
        let Some(exchange) = self.exchanges.get_mut(x) else { return };
        let asked = exchange.answer == Answer::Waiting && exchange.up.is_some() && exchange.hedge.is_none();
        let may = asked && exchange.request.is_done() && exchange.replayable && exchange.hold.is_empty();
        let Some(pool) = exchange.pool.as_ref().map(Rc::clone) else { return };
        if !may || pool.members.len() < 2 || !pool.withdraw(now) {
            return;
        }
        exchange.tries += 1;
        let (down, route, expires) = (exchange.down, exchange.route, exchange.expires);
        let (local, method, minor, head_size) =
            (Rc::clone(&exchange.local), exchange.method, exchange.minor, exchange.head_size);
        let (traced, trailers) = (exchange.traced.clone(), exchange.trailers.clone());
        let wish = Wish { avoid: Some(exchange.endpoint), ..exchange.wish };
        if let Some(route) = route.and_then(|route| local.plan.routes.get(route)) {
            route.counters[self.shared.index].hedges.add(1);
        }
        let y = self.begin_exchange(down, now);
        if let Some(exchange) = self.exchange(x) {
            exchange.hedge = Some(y);
        }
        let replay = self.exchange(x).map(|exchange| std::mem::take(&mut exchange.replay)).unwrap_or_default();
        if let Some(twin) = self.exchange(y) {
            twin.local = local;
            twin.route = route;
            twin.pool = Some(pool);
            twin.traced = traced;
            twin.method = method;
            twin.minor = minor;
            twin.expires = expires;
            twin.wish = wish;
            twin.twin_of = Some(x);
            // The client's exchange has entered already, and leaves.
            twin.entered = true;
            twin.request = Body::Done;
            twin.replayable = true;
            twin.replay.extend_from_slice(&replay);
            twin.head_size = head_size;
            twin.trailers = trailers;
        }
        if let Some(exchange) = self.exchange(x) {
            exchange.replay = replay;
        }
        self.send_out(y);
    }

    /// One of two has the first byte of an answer: the client's exchange, with the winner's connection.
    pub(super) fn decide_hedge(&mut self, winner: u32) -> u32 {
        let Some(exchange) = self.exchange(winner) else { return winner };
        if let Some(y) = exchange.hedge {
            self.drop_twin(y);
            return winner;
        }
        let Some(x) = exchange.twin_of else { return winner };
        let index = self.shared.index;
        if let Some(exchange) = self.exchange(x)
            && let Some(route) = exchange.route.and_then(|route| exchange.local.plan.routes.get(route))
        {
            route.counters[index].hedges_won.add(1);
        }
        self.adopt(x);
        x
    }

    /// The client's exchange goes on with its twin's try; its own is over.
    pub(super) fn adopt(&mut self, x: u32) {
        let Some(y) = self.exchange(x).and_then(|exchange| exchange.hedge.take()) else { return };
        self.release(x, false);
        let now = self.tick;
        let Some(mut twin) = self.end_exchange(y) else { return };
        if let Some(up) = twin.up.and_then(|u| self.ups.get_mut(u)) {
            match up.h2.as_deref_mut() {
                Some(session) => session.set_owner(twin.up_stream, x),
                None => up.exchange = Some(x),
            }
        }
        if let Some(exchange) = self.exchange(x) {
            exchange.end_attempt(now, 0, None);
            exchange.traced = twin.traced.take().or(exchange.traced.take());
            exchange.up = twin.up;
            exchange.up_stream = twin.up_stream;
            exchange.pool = twin.pool.clone();
            exchange.endpoint = twin.endpoint;
            exchange.wish = twin.wish;
            exchange.try_began = twin.try_began;
            exchange.asked_at = twin.asked_at;
            exchange.attempt_began = twin.attempt_began;
            exchange.try_until = twin.try_until;
            exchange.answer_by = twin.answer_by;
            exchange.reused = twin.reused;
            exchange.sent = twin.sent;
        }
        self.keep_spare(twin);
    }

    /// A twin's try is over, and nobody asks for it.
    pub(super) fn drop_twin(&mut self, y: u32) {
        if let Some(x) = self.exchange(y).and_then(|twin| twin.twin_of)
            && let Some(exchange) = self.exchange(x)
            && exchange.hedge == Some(y)
        {
            exchange.hedge = None;
        }
        self.release(y, false);
        let now = self.tick;
        if let Some(twin) = self.end_exchange(y) {
            let last = twin.open_attempt(now);
            if let Some(exchange) = twin.twin_of.and_then(|x| self.exchange(x))
                && exchange.pool.as_ref().zip(twin.pool.as_ref()).is_some_and(|(a, b)| Rc::ptr_eq(a, b))
            {
                exchange.attempts.extend(twin.attempts.iter().copied().chain(last));
            }
            self.keep_spare(twin);
        }
    }
}
