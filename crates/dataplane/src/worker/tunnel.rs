//! Bytes both ways, unread: after an upgrade, and for plain TCP.

use std::rc::Rc;

use super::Worker;
use crate::body::Body;
use crate::exchange::{Answer, Failure};
use crate::ledger::Phase;
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
    /// A connection that is passed through as it is.
    pub(super) fn begin_tunnel(&mut self, d: u32, backend: usize) {
        let accepted = self.tick;
        let x = self.begin_exchange(d, accepted);
        if let Some(down) = self.downs.get_mut(d) {
            down.exchange = Some(x);
            down.deadline.clear();
        }
        let pool = self.local.pools.get(backend).map(Rc::clone);
        if let Some(exchange) = self.exchange(x) {
            exchange.tunnel = true;
            exchange.replayable = true;
            exchange.pool = pool;
        }
        self.send_out(x);
    }

    /// Both sides are there.
    pub(super) fn tunnel_open(&mut self, x: u32) {
        let Some(exchange) = self.exchange(x) else { return };
        exchange.answer = Answer::Begun;
        exchange.request = Body::Close;
        exchange.response = Body::Close;
        let d = exchange.down;
        if let Some(down) = self.downs.get_mut(d) {
            down.unread = false;
        }
        self.pump_tunnel(x);
    }

    pub(super) fn pump_tunnel(&mut self, x: u32) {
        if self.input.is_empty() {
            return self.later(x);
        }
        let mut input = std::mem::take(&mut self.input);
        let over = self.pump_both(x, &mut input);
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
        let exchange = self.exchanges.get_mut(x as usize).and_then(Option::as_deref_mut)?;
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
        match from.read(room, cipher) {
            Ok(Got::Nothing) => return Way::Waits,
            Ok(Got::Bytes(length)) => {
                *moved += length as u64;
                if to.write(&[&room[..length]]).is_err() {
                    return Way::Broken;
                }
            }
            Ok(Got::End) => {
                to.finish_when_flushed();
                return Way::Ended;
            }
            Err(_) => return Way::Broken,
        }
    }
    Way::More
}
