//! From the backend's answer to the client.

use std::rc::Rc;

use super::client::Down;
use super::sharing::ENDING;
use super::upstream::sooner;
use super::{TURNS, Worker};
use crate::backend::Carrier;
use crate::body::{Body, last_chunk};
use crate::clock;
use crate::clock::{MILLISECOND, SECOND};
use crate::exchange::{Answer, Failure};
use crate::filter::Filter;
use crate::forward;
use crate::head::{self, Field, Length, Response};
use crate::ledger::Phase;
use crate::pool::Wish;
use crate::sock::Got;

/// A body of at most this many bytes is copied behind its head, which is cheaper than a vectored write.
const COPIED: usize = 4096;

/// Interim answers to one request; more are a flood.
const INTERIM: u32 = 16;

/// After a head that declares a body which must not come: some applications send it all the same, in a write of its own.
const WITHHELD: u64 = MILLISECOND;

/// What is read for a stream at least, whatever its window; with TLS there must be room for two records.
const LEAST: usize = 16 << 10;
const LEAST_TLS: usize = 36 << 10;

/// What one turn has brought.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    More,
    Waits,
    /// The exchange has ended, or belongs to somebody else now.
    Over,
}

impl Worker {
    /// Passes on what the backend has answered.
    pub(super) fn pump_response(&mut self, x: u32) {
        if self.tunnel_is_over(x) {
            return self.finish_tunnel(x);
        }
        if self.exchange(x).is_some_and(|exchange| exchange.up_stream != 0) {
            return self.pay_back(x);
        }
        if self.input.is_empty() {
            if let Some(u) = self.exchange(x).and_then(|exchange| exchange.up) {
                self.ready.push_back(self.ups.token(u));
            }
            return;
        }
        let mut input = std::mem::take(&mut self.input);
        let mut turn = Turn::More;
        let mut x = x;
        for _ in 0..TURNS {
            turn = self.pump_response_once(&mut x, &mut input);
            if turn != Turn::More {
                break;
            }
        }
        self.input = input;
        if turn == Turn::More
            && let Some(u) = self.exchange(x).and_then(|exchange| exchange.up)
        {
            self.ready.push_back(self.ups.token(u));
        }
    }

    /// The exchange becomes another one if it was the winner of two.
    fn pump_response_once(&mut self, owner: &mut u32, input: &mut [u8]) -> Turn {
        let handled = self.tick;
        let mut x = *owner;
        let Some(exchange) = self.exchanges.get_mut(x) else {
            return Turn::Over;
        };
        let by_stream = exchange.is_stream_tunnel();
        if exchange.answer == Answer::Read || exchange.tunnel && !by_stream || by_stream && exchange.response.is_done()
        {
            return Turn::Over;
        }
        let (down, stream) = (self.downs.get(exchange.down), exchange.stream);
        if exchange.shadow.is_none() && down.is_none_or(|down| is_blocked(down, stream)) {
            return Turn::Waits;
        }
        // No more than the client's window takes: what it does not take would wait here.
        let window = down.and_then(|down| down.h2.as_deref()).map(|session| session.room(stream));
        let Some(up) = exchange.up.and_then(|u| self.ups.get_mut(u)) else { return Turn::Over };
        let handshaking = up.sock.is_handshaking();
        let kept = up.sock.left.len();
        let room = window.map_or(input.len(), |window| {
            let least = if up.sock.tls.is_some() { LEAST_TLS } else { LEAST };
            input.len().min(kept + window.max(least))
        });
        let room = kept + self.local.purse.piece(room - kept);
        let got = up.sock.read_on(&mut input[..room], &mut self.cipher);
        if handshaking && !up.sock.is_handshaking() {
            exchange.ledger.note(Phase::TlsOut, handled);
        }
        let length = match got {
            Ok(Got::Bytes(length)) => length,
            Ok(Got::Nothing) => return Turn::Waits,
            Ok(end @ (Got::End | Got::Cut)) => {
                self.answer_ended(x, end == Got::Cut);
                return Turn::Over;
            }
            Err(error) => {
                let waiting = exchange.answer == Answer::Waiting;
                up.tell_reason(&error, handled);
                if waiting && exchange.by_http1 && crate::handshake::is_no_protocol(&error) {
                    self.refuse_tunnel(x);
                } else if waiting {
                    let failure = if handshaking { Failure::Tls } else { Failure::Closed };
                    self.try_failed(x, failure);
                } else {
                    self.abandon(x, Failure::Truncated);
                }
                return Turn::Over;
            }
        };
        if exchange.hedge.is_some() || exchange.twin_of.is_some() {
            x = self.decide_hedge(x);
            *owner = x;
        }
        let Some(exchange) = self.exchanges.get_mut(x) else {
            return Turn::Over;
        };
        if exchange.answer == Answer::Waiting {
            exchange.ledger.note(Phase::App, self.wake.max(exchange.ledger.at()).min(handled));
            exchange.ledger.note(Phase::Queue, handled);
            let mut fields = std::mem::take(&mut self.fields);
            let turn = self.answer_head(x, &input[..length], &mut fields);
            self.fields = fields;
            return turn;
        }
        // What was waited for has come; handing it over is the client's time.
        exchange.ledger.note(Phase::Body, handled);
        self.output.clear();
        self.answer_body(x, 0, &input[..length])
    }

    /// Reads the head (and those of interim answers before it).
    fn answer_head(&mut self, x: u32, bytes: &[u8], fields: &mut Vec<Field>) -> Turn {
        let mut at = 0;
        loop {
            let bounds = self.local.plan.settings.bounds;
            let Some(exchange) = self.exchange(x) else { return Turn::Over };
            let to_head = exchange.method == head::Method::Head;
            let rest = &bytes[at..];
            let response = match head::response(rest, fields, bounds, to_head) {
                Ok(Some(response)) => response,
                Ok(None) => {
                    let u = exchange.up;
                    if let Some(up) = u.and_then(|u| self.ups.get_mut(u)) {
                        up.sock.left.extend_from_slice(rest);
                    }
                    return Turn::More;
                }
                Err(refusal) => {
                    daemon::debug!("refused an answer", reason = refusal);
                    self.try_failed(x, Failure::Malformed);
                    return Turn::Over;
                }
            };
            if response.status == 101 {
                return self.switch(x, rest, &response, fields);
            }
            // A stream would take it for the tunnel it has asked for (RFC 8441 §4).
            if exchange.upgrade && exchange.stream != 0 && (200..300).contains(&response.status) {
                self.try_failed(x, Failure::Malformed);
                return Turn::Over;
            }
            if response.status >= 200 {
                return self.answer_final(x, rest, &response, fields);
            }
            if !self.pass_interim(x, rest, &response, fields) {
                return Turn::Over;
            }
            at += response.size;
        }
    }

    /// False: the exchange goes on no more.
    pub(super) fn pass_interim(&mut self, x: u32, bytes: &[u8], response: &Response, fields: &[Field]) -> bool {
        let blocked = self.is_blocked(x);
        let Some(exchange) = self.exchange(x) else { return false };
        exchange.interim += 1;
        if exchange.interim > INTERIM {
            self.try_failed(x, Failure::Malformed);
            return false;
        }
        // They are for whoever understands them (RFC 9110 §15.2), and nothing that must wait for whoever does not read.
        if exchange.minor == 0 || blocked {
            return true;
        }
        let mut out = std::mem::take(&mut self.output);
        out.clear();
        status_line(response, bytes, &mut out);
        forward::kept(bytes, fields, &mut out);
        out.extend_from_slice(b"\r\n");
        let head = out.len();
        self.output = out;
        let good = self.give(x, head, &[], false);
        if !good {
            self.abandon(x, Failure::ClientGone);
        }
        good
    }

    pub(super) fn answer_final(&mut self, x: u32, bytes: &[u8], response: &Response, fields: &mut [Field]) -> Turn {
        let goodbye = self.draining && self.exchange(x).map(|one| one.down).is_some_and(|d| self.says_goodbye(d));
        let now = self.tick;
        let index = self.shared.index;
        let Some(exchange) = self.exchanges.get_mut(x) else {
            return Turn::Over;
        };
        let Some(pool) = exchange.pool.as_ref() else { return Turn::Over };
        let endpoint = exchange.endpoint;
        let counters = &pool.backend.endpoints[endpoint].counters[index];
        // An answer that came before the request's end may have waited for the client.
        if exchange.asked_at != 0 {
            let took = now.saturating_sub(exchange.asked_at);
            counters.latency.add(took);
            // The next request may find the connection there: what making it cost says little about how long that will take.
            let made = exchange.ledger.spent[Phase::Connect as usize] + exchange.ledger.spent[Phase::TlsOut as usize];
            if exchange.reused {
                pool.observe(endpoint, took, now);
            } else if exchange.tries == 1 {
                pool.observe(endpoint, took.saturating_sub(made), now);
            }
        }
        let bad = response.status >= 500;
        if bad {
            counters.failures.add(1);
        }
        if !bad || !exchange.is_withheld(now) {
            pool.backend.note(endpoint, !bad, now);
        }
        let local = Rc::clone(&exchange.local);
        let route = exchange.route.and_then(|route| local.plan.routes.get(route));
        if let Some(route) = route {
            let wanted = route.retry.takes_status(response.status);
            let may =
                exchange.replayable && exchange.method.is_idempotent() && exchange.counted_tries() <= route.retry.times;
            if wanted && may && exchange.request.is_done() && pool.withdraw(now) {
                route.counters[index].retries.add(1);
                exchange.end_attempt(now, response.status, None);
                exchange.wish = Wish { avoid: Some(endpoint), stuck: None, ..exchange.wish };
                self.release(x, false);
                self.try_again(x, None);
                return Turn::Over;
            }
        }
        exchange.status = response.status;
        // A 204 may not declare a body (RFC 9110 §8.6): who does may send it, at any time.
        let lies = response.withheld && response.status == 204;
        exchange.keep_up = response.persistence.keep && exchange.request.is_done() && !lies;
        exchange.response = Body::new(response.length);
        let delimited = matches!(response.length, Length::Chunked | Length::Close);
        exchange.response_chunked = delimited && exchange.minor == 1 && exchange.stream == 0;
        exchange.keep &= !goodbye && (!delimited || exchange.minor == 1);
        // What is left of the request is thrown away, and nobody waits for it long.
        exchange.keep &= exchange.request.is_done();
        if let Some(up) = exchange.up.and_then(|u| self.ups.get_mut(u)) {
            up.idle_least = if response.withheld { WITHHELD } else { 0 };
            if let Some(seconds) = response.idle {
                // A second before the backend closes it.
                up.idle_most = up.idle_most.min(u64::from(seconds.saturating_sub(1)) * SECOND);
            }
        }
        let out = &mut self.output;
        out.clear();
        status_line(response, bytes, out);
        self.extra.clear();
        let chosen = route.and_then(|route| route.targets.get(exchange.target));
        let by_target = chosen.and_then(|target| target.changes.as_deref()).map(|changes| &changes.response);
        let by_route = route.iter().flat_map(|route| &route.filters).filter_map(|filter| match filter {
            Filter::ResponseHeaders(edits) => Some(edits),
            _ => None,
        });
        for edits in by_target.into_iter().chain(by_route) {
            edits.mark(bytes, fields);
            edits.add_to(&mut self.extra);
        }
        if let Some(notes) = &exchange.notes {
            notes.mark(bytes, fields);
            self.extra.extend_from_slice(&notes.lines);
        }
        if let Some(pool) = exchange.pool.as_ref().filter(|_| exchange.wish.stuck != Some(endpoint)) {
            match route.and_then(|route| route.session.as_ref()) {
                Some(session) => {
                    if session.carrier == Carrier::Header {
                        head::field::leave_out(bytes, fields, |name| name.eq_ignore_ascii_case(&session.name));
                    }
                    pool.backend.begin_session(session, endpoint, clock::wall(), &mut self.extra);
                }
                None => pool.backend.stick(endpoint, &mut self.extra),
            }
        }
        forward::kept(bytes, fields, out);
        out.extend_from_slice(&self.extra);
        if exchange.response_chunked {
            forward::framing(Length::Chunked, out);
        } else if response.length == Length::Bytes(0) && exchange.stream == 0 {
            // Else the client would wait for the end of the connection (RFC 9112 §6.3).
            out.extend_from_slice(b"Content-Length: 0\r\n");
        }
        super::request::connection_line(exchange, out);
        if exchange.timing {
            exchange.ledger.server_timing(out);
        }
        out.extend_from_slice(b"\r\n");
        exchange.answer = Answer::Begun;
        let head = self.output.len();
        self.answer_body(x, head, &bytes[response.size..])
    }

    /// Gives the client what is in `self.output` (`head` bytes of it are a head), and what of `input` belongs to the body.
    pub(super) fn answer_body(&mut self, x: u32, head: usize, input: &[u8]) -> Turn {
        let Some(exchange) = self.exchanges.get_mut(x) else {
            return Turn::Over;
        };
        let chunked = exchange.response_chunked;
        let Ok(passed) = exchange.response.pass(input, chunked, &mut self.output) else {
            self.abandon(x, Failure::Malformed);
            return Turn::Over;
        };
        exchange.bytes_out += passed.payload;
        let surplus = passed.used < input.len();
        // Behind the last byte that was declared trailers may come, which a stream takes.
        let (u, up_stream) = (exchange.up.filter(|_| exchange.stream != 0), exchange.up_stream);
        let session = u.and_then(|u| self.ups.get(u)?.h2.as_deref());
        let goes_on = !surplus && session.is_some_and(|session| session.goes_on(up_stream));
        let done = exchange.response.is_done() && !goes_on;
        if !passed.trailers.is_empty() {
            self.give(x, head, &input[passed.raw], false);
            self.give_trailers(x, &passed.trailers);
        } else if !self.give(x, head, &input[passed.raw], done) {
            self.abandon(x, Failure::ClientGone);
            return Turn::Over;
        }
        let Some(exchange) = self.exchanges.get_mut(x) else {
            return Turn::Over;
        };
        if done {
            exchange.answer = Answer::Read;
            // Bytes nobody asked for: whatever they are, they are no answer to the next request.
            let reusable = exchange.keep_up && !surplus;
            self.release(x, reusable);
            self.settle(x);
            return Turn::Over;
        }
        let now = clock::now();
        self.tick = now;
        exchange.ledger.note(Phase::Body, now);
        let request_done = exchange.request.is_done();
        let blocked = self.is_blocked(x);
        if blocked && let Some(exchange) = self.exchange(x) {
            exchange.stalled = true;
        }
        self.await_rest(x);
        self.guard(x, request_done);
        if blocked { Turn::Waits } else { Turn::More }
    }

    /// How long the backend may be silent in the middle of its answer.
    pub(super) fn await_rest(&mut self, x: u32) {
        let blocked = self.is_blocked(x);
        let settings = &self.local.plan.settings;
        let Some(exchange) = self.exchanges.get(x) else { return };
        let after = if exchange.tunnel {
            settings.tunnel_timeout
        } else if exchange.response.is_done() {
            ENDING
        } else if blocked {
            // It is the client that is waited for.
            0
        } else {
            let idle = if exchange.patient { settings.tunnel_timeout } else { settings.body_timeout };
            let until = if exchange.shadow.is_some() { exchange.expires } else { u64::MAX };
            sooner(idle, until, self.tick)
        };
        match exchange.up {
            Some(u) if exchange.up_stream != 0 => self.answer_by(x, u, after),
            Some(u) => self.up_deadline(u, after),
            None => {}
        }
    }

    /// Gives the client `self.output`, whose first `head` bytes are a head, then `raw`; false if the client is gone. With `end`
    /// nothing follows.
    pub(super) fn give(&mut self, x: u32, head: usize, raw: &[u8], end: bool) -> bool {
        let Some(exchange) = self.exchanges.get(x) else { return false };
        if exchange.shadow.is_some() {
            // Nobody wants to know.
            return true;
        }
        let (d, stream) = (exchange.down, exchange.stream);
        let Some(down) = self.downs.get_mut(d) else { return false };
        if let Some(session) = down.h2.as_deref_mut() {
            let (text, body) = self.output.split_at(head);
            let bare = end && body.is_empty() && raw.is_empty();
            if head > 0 {
                session.respond(stream, text, bare);
            }
            if !(bare && head > 0) {
                session.send(stream, [body, raw], end);
            }
            down.count();
            self.soil(d);
            return true;
        }
        let written = if raw.is_empty() {
            if self.output.is_empty() { Ok(()) } else { down.sock.write(&[&self.output]) }
        } else if self.output.is_empty() {
            down.sock.write(&[raw])
        } else if raw.len() <= COPIED {
            self.output.extend_from_slice(raw);
            down.sock.write(&[&self.output])
        } else {
            down.sock.write(&[&self.output, raw])
        };
        written.is_ok()
    }

    /// The last fields of a stream.
    pub(super) fn give_trailers(&mut self, x: u32, lines: &[u8]) {
        let Some((d, stream)) = self.exchange(x).map(|exchange| (exchange.down, exchange.stream)) else { return };
        if let Some(session) = self.downs.get_mut(d).and_then(|down| down.h2.as_deref_mut()) {
            session.send_trailers(stream, lines);
        }
        self.soil(d);
    }

    /// Whether the client takes no more now.
    pub(super) fn is_blocked(&self, x: u32) -> bool {
        let Some(exchange) = self.exchanges.get(x) else { return false };
        self.downs.get(exchange.down).is_some_and(|down| is_blocked(down, exchange.stream))
    }

    /// The backend will send no more. With `cut` it has not said so itself.
    pub(super) fn answer_ended(&mut self, x: u32, cut: bool) {
        if self.half_close_stream(x) {
            return;
        }
        let Some(exchange) = self.exchange(x) else { return };
        let partial = exchange.up;
        match (exchange.answer, &exchange.response) {
            // Nobody knows how much is missing (RFC 9112 §9.8).
            (Answer::Begun, Body::Close) if cut && !exchange.tunnel => self.abandon(x, Failure::Truncated),
            (Answer::Begun, Body::Close | Body::Done) => {
                exchange.response = Body::Done;
                exchange.answer = Answer::Read;
                let chunked = exchange.response_chunked;
                self.release(x, false);
                self.output.clear();
                if chunked {
                    last_chunk(b"", &mut self.output);
                }
                if self.give(x, 0, &[], true) {
                    self.settle(x);
                } else {
                    self.abandon(x, Failure::ClientGone);
                }
            }
            (Answer::Begun, _) => self.abandon(x, Failure::Truncated),
            _ => {
                let begun = partial.and_then(|u| self.ups.get(u)).is_some_and(|up| !up.sock.left.is_empty());
                self.try_failed(x, if begun { Failure::Truncated } else { Failure::Closed });
            }
        }
    }

    /// From here on bytes pass both ways (RFC 9110 §7.8).
    pub(super) fn switch(&mut self, x: u32, bytes: &[u8], response: &Response, fields: &mut [Field]) -> Turn {
        let Some(exchange) = self.exchange(x) else { return Turn::Over };
        if !exchange.upgrade {
            self.try_failed(x, Failure::Malformed);
            return Turn::Over;
        }
        exchange.status = 101;
        exchange.answer = Answer::Begun;
        exchange.keep = false;
        exchange.tunnel = true;
        let (d, u, by_stream) = (exchange.down, exchange.up, exchange.stream != 0);
        if by_stream {
            return self.switch_stream(x, bytes, response, fields);
        }
        let mut out = std::mem::take(&mut self.output);
        out.clear();
        status_line(response, bytes, &mut out);
        forward::kept(bytes, fields, &mut out);
        let upgrade = fields.iter().find(|field| field.name == head::Name::Upgrade);
        out.extend_from_slice(b"Connection: Upgrade\r\n");
        if let Some(upgrade) = upgrade {
            out.extend_from_slice(upgrade.line.of(bytes));
        }
        out.extend_from_slice(b"\r\n");
        let written = self.downs.get_mut(d).map(|down| down.sock.write(&[&out]));
        self.output = out;
        if !matches!(written, Some(Ok(()))) {
            self.abandon(x, Failure::ClientGone);
            return Turn::Over;
        }
        if let Some(up) = u.and_then(|u| self.ups.get_mut(u)) {
            up.sock.left.extend_from_slice(&bytes[response.size..]);
        }
        self.tunnel_open(x);
        Turn::Over
    }
}

fn is_blocked(down: &Down, stream: u32) -> bool {
    down.sock.blocked() || down.h2.as_deref().is_some_and(|session| session.is_blocked(stream))
}

pub(super) fn status_line(response: &Response, bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(&bytes[9..12]);
    out.push(b' ');
    out.extend_from_slice(response.reason.of(bytes));
    out.extend_from_slice(b"\r\n");
}
