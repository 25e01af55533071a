//! Bytes both ways, unread: after an upgrade, and for plain TCP.

use std::rc::Rc;

use super::Worker;
use crate::body::Body;
use crate::exchange::{Answer, Failure};
use crate::ledger::Phase;
use crate::pool::{Pool, Wish};
use crate::sock::{Got, Sock};

/// Turns of one direction before others have theirs.
const TURNS: usize = 16;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Waits,
    More,
    Ended,
    Broken,
}

impl Worker {
    /// A connection that is passed through as it is; `name`: the server it asks for, if that has been read.
    pub(super) fn begin_tunnel(&mut self, d: u32, backend: usize, name: Option<&[u8]>) {
        let Some(x) = self.begin_connection(d, name) else { return };
        if let Some(down) = self.downs.get_mut(d) {
            down.deadline.clear();
        }
        let pool = self.exchange(x).and_then(|exchange| exchange.local.pools.get(backend).map(Rc::clone));
        let wish = match (&pool, self.downs.get(d)) {
            (Some(pool), Some(down)) if pool.backend.wishes() => pool.backend.wish(&[], &[], &[], down.peer()),
            _ => Wish::default(),
        };
        if let Some(exchange) = self.exchange(x) {
            exchange.tunnel = true;
            exchange.replayable = true;
            exchange.pool = pool;
            exchange.wish = wish;
            exchange.count();
        }
        self.send_out(x);
    }

    /// A CONNECT that its route allows: the backend's connection is all that is asked for (RFC 9110 §9.3.6). What the client
    /// has sent behind its head already waits until that stands.
    pub(super) fn launch_connect(&mut self, x: u32, pool: Rc<Pool>) {
        let now = self.now();
        let Some(exchange) = self.exchange(x) else { return };
        exchange.ledger.note(Phase::Route, now);
        exchange.connect = true;
        exchange.replayable = true;
        exchange.pool = Some(pool);
        self.guard(x, true);
        self.send_out(x);
    }

    /// Tells the client that its CONNECT has succeeded. Neither of the fields that frame a body may be there.
    fn answer_connect(&mut self, x: u32) -> bool {
        let Some(exchange) = self.exchange(x) else { return false };
        exchange.status = 200;
        exchange.keep = false;
        exchange.tunnel = true;
        self.output.clear();
        self.output.extend_from_slice(b"HTTP/1.1 200 OK\r\n\r\n");
        let head = self.output.len();
        self.give(x, head, &[], false)
    }

    /// From here on a stream is bytes both ways; each direction goes the way of a body without end.
    pub(super) fn open_stream_tunnel(&mut self, x: u32) {
        let Some(exchange) = self.exchange(x) else { return };
        exchange.tunnel = true;
        exchange.answer = Answer::Begun;
        exchange.request = if exchange.ends { Body::Done } else { Body::Close };
        exchange.response = Body::Close;
        (exchange.request_chunked, exchange.response_chunked) = (false, false);
        exchange.body_most = u64::MAX;
        (exchange.expires, exchange.client_by) = (u64::MAX, u64::MAX);
        let (d, by_stream) = (exchange.down, exchange.stream != 0);
        if let Some(down) = self.downs.get_mut(d).filter(|_| !by_stream) {
            down.deadline.clear();
        }
        self.await_rest(x);
        self.pump_request(x);
        // Behind the head there may be bytes already, unless they are frames.
        let own = self.exchange(x).filter(|exchange| exchange.up_stream == 0);
        let left = own.and_then(|exchange| exchange.up).and_then(|u| self.ups.get_mut(u));
        if let Some(left) = left.map(|up| std::mem::take(&mut up.sock.left)).filter(|left| !left.is_empty()) {
            self.output.clear();
            self.answer_body(x, 0, &left);
        }
        self.pump_response(x);
    }

    /// The backend has ended its direction of a stream's tunnel; true if the client's goes on.
    pub(super) fn half_close_stream(&mut self, x: u32) -> bool {
        let Some(exchange) = self.exchange(x) else { return false };
        if !exchange.is_stream_tunnel() || exchange.request.is_done() && !self.withholds(x) {
            return false;
        }
        let Some(exchange) = self.exchange(x) else { return false };
        exchange.response = Body::Done;
        let (d, by_stream) = (exchange.down, exchange.stream != 0);
        self.output.clear();
        self.give(x, 0, &[], true);
        if let Some(down) = self.downs.get_mut(d).filter(|_| !by_stream) {
            down.sock.finish_when_flushed();
        }
        self.await_rest(x);
        true
    }

    /// Whether bytes for the backend wait for the window of its stream.
    fn withholds(&self, x: u32) -> bool {
        let Some(exchange) = self.exchanges.get(x) else { return false };
        let session = exchange.up.and_then(|u| self.ups.get(u)?.h2.as_deref());
        session.is_some_and(|session| session.is_blocked(exchange.up_stream))
    }

    /// Whether both directions of a tunnel with a stream have ended, and nothing of either waits here any more.
    pub(super) fn tunnel_is_over(&self, x: u32) -> bool {
        let Some(exchange) = self.exchanges.get(x).filter(|exchange| exchange.is_stream_tunnel()) else { return false };
        exchange.is_whole() && exchange.response.is_done() && !self.withholds(x) && !self.is_blocked(x)
    }

    /// Both sides are there.
    pub(super) fn tunnel_open(&mut self, x: u32) {
        let asked = self.exchange(x).is_some_and(|exchange| exchange.connect && !exchange.tunnel);
        if asked && !self.answer_connect(x) {
            return self.abandon(x, Failure::ClientGone);
        }
        if self.exchange(x).is_some_and(|exchange| exchange.is_stream_tunnel()) {
            return self.open_stream_tunnel(x);
        }
        let timeout = self.local.plan.settings.tunnel_timeout;
        let Some(exchange) = self.exchange(x) else { return };
        exchange.answer = Answer::Begun;
        exchange.expires = u64::MAX;
        exchange.request = Body::Close;
        exchange.response = Body::Close;
        let d = exchange.down;
        // Instead of the time for connecting: both sides may be silent at first.
        if let Some(u) = exchange.up {
            self.up_deadline(u, timeout);
        }
        if let Some(down) = self.downs.get_mut(d) {
            down.unread = false;
            down.deadline.clear();
        }
        self.pump_tunnel(x);
    }

    pub(super) fn pump_tunnel(&mut self, x: u32) {
        if self.tunnel_is_over(x) {
            return self.finish_tunnel(x);
        }
        if self.input.is_empty() {
            return self.later(x);
        }
        let mut input = std::mem::take(&mut self.input);
        let by_stream = self.exchange(x).is_some_and(|exchange| exchange.up_stream != 0);
        let over = if by_stream { self.pump_into_stream(x, &mut input) } else { self.pump_both(x, &mut input) };
        self.input = input;
        match over {
            Some(Way::Ended) => self.finish_tunnel(x),
            Some(_) => self.abandon(x, Failure::ClientGone),
            None => {}
        }
    }

    /// `Some` when it is over.
    fn pump_both(&mut self, x: u32, input: &mut [u8]) -> Option<Way> {
        let timeout = self.local.plan.settings.tunnel_timeout;
        let exchange = self.exchanges.get_mut(x)?;
        let d = exchange.down;
        let down = self.downs.get_mut(d)?;
        let u = exchange.up?;
        let up = self.ups.get_mut(u)?;
        if up.connecting {
            return None;
        }
        let (mut there, mut back) = (Way::Waits, Way::Waits);
        let mut moved = 0;
        if !exchange.request.is_done() {
            there = pass(&mut down.sock, &mut up.sock, input, &mut self.cipher, &mut moved);
            exchange.bytes_in += moved;
        }
        let before = moved;
        if !exchange.response.is_done() {
            back = pass(&mut up.sock, &mut down.sock, input, &mut self.cipher, &mut moved);
            exchange.bytes_out += moved - before;
        }
        // Each direction ends by itself; the other may go on (RFC 9293 §3.6).
        if there == Way::Ended {
            exchange.request = Body::Done;
        }
        if back == Way::Ended {
            exchange.response = Body::Done;
        }
        let done = exchange.request.is_done() && exchange.response.is_done();
        if there == Way::Broken || back == Way::Broken {
            return Some(Way::Broken);
        }
        if done && !down.sock.blocked() && !up.sock.blocked() {
            return Some(Way::Ended);
        }
        if moved > 0 {
            self.up_deadline(u, timeout);
        }
        if there == Way::More || back == Way::More {
            self.ready.push_back(self.downs.token(d));
        }
        None
    }

    /// What a client of HTTP/1.1 says, for the backend's stream; what that says comes by itself. `Some` when it is over.
    fn pump_into_stream(&mut self, x: u32, input: &mut [u8]) -> Option<Way> {
        self.pay_back(x);
        for _ in 0..TURNS {
            let exchange = self.exchanges.get_mut(x)?;
            if exchange.request.is_done() {
                return None;
            }
            let (d, stream) = (exchange.down, exchange.up_stream);
            let u = exchange.up?;
            let (up, down) = (self.ups.get_mut(u)?, self.downs.get_mut(d)?);
            if !up.takes(stream) {
                return None;
            }
            // What came with the head is there whole.
            let piece = if down.unread { input.len() } else { self.local.purse.piece(input.len()) };
            let given = match down.read_on(&mut input[..piece], &mut self.cipher) {
                Ok(Got::Nothing) => return None,
                Ok(Got::Bytes(length)) => {
                    exchange.bytes_in += length as u64;
                    up.give(stream, &input[..length], false, &[])
                }
                Ok(Got::End | Got::Cut) => {
                    exchange.request = Body::Done;
                    up.give(stream, &[], true, &[])
                }
                Err(_) => return Some(Way::Broken),
            };
            self.soil_up(u);
            if given.is_err() {
                return Some(Way::Broken);
            }
            self.await_rest(x);
            if self.tunnel_is_over(x) {
                return Some(Way::Ended);
            }
        }
        self.later(x);
        None
    }

    pub(super) fn finish_tunnel(&mut self, x: u32) {
        self.release(x, false);
        let now = self.now();
        let Some(exchange) = self.exchange(x) else { return };
        exchange.ledger.note(Phase::Body, now);
        exchange.answer = Answer::Read;
        exchange.request = Body::Done;
        exchange.keep = false;
        self.finish(x);
    }
}

/// Moves what there is from one side to the other.
fn pass(from: &mut Sock, to: &mut Sock, room: &mut [u8], cipher: &mut [u8], moved: &mut u64) -> Way {
    if !from.left.is_empty() {
        let left = std::mem::take(&mut from.left);
        *moved += left.len() as u64;
        if to.write(&[&left]).is_err() {
            return Way::Broken;
        }
    }
    for _ in 0..TURNS {
        if to.blocked() {
            return Way::Waits;
        }
        match from.pass_to(to, room, cipher) {
            // Said of the socket, unless it is to be read another way from now on.
            Ok(Got::Nothing) if from.readable => {}
            Ok(Got::Nothing) => return Way::Waits,
            Ok(Got::Bytes(length)) => *moved += length as u64,
            Ok(Got::End | Got::Cut) => {
                to.finish_when_flushed();
                return Way::Ended;
            }
            Err(_) => return Way::Broken,
        }
    }
    Way::More
}
