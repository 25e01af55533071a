//! Clients that speak HTTP/2: every stream is an exchange. What is to be written gathers in the session and goes out once
//! a round, so that many answers cost one system call.

use super::Worker;
use crate::body::{Body, chunk};
use crate::clock;
use crate::exchange::{Answer, Failure};
use crate::h2::frame::{Code, PREFACE};
use crate::h2::session::Role;
use crate::h2::{Event, Session};
use crate::head;
use crate::ledger::Phase;
use crate::slab::Kind;
use crate::sock::Got;

/// Reads of one connection before others have their turn.
const TURNS: usize = 4;

/// Whether a connection begins with HTTP/2: `None` while that cannot be told.
pub(super) fn begins(bytes: &[u8]) -> Option<bool> {
    let length = bytes.len().min(PREFACE.len());
    match bytes[..length] == PREFACE[..length] {
        true if length < PREFACE.len() => None,
        same => Some(same),
    }
}

impl Worker {
    /// From here on the connection speaks HTTP/2.
    pub(super) fn go_multiplex(&mut self, d: u32) {
        let bounds = self.local.plan.settings.bounds;
        if let Some(down) = self.downs.get_mut(d) {
            down.h2 = Some(Box::new(Session::new(Role::Server, bounds.bytes)));
            down.head_began = 0;
        }
        self.soil(d);
        let idle = self.local.plan.settings.idle_timeout;
        self.down_deadline(d, idle);
    }

    /// The session has something to write.
    pub(super) fn soil(&mut self, d: u32) {
        if let Some(down) = self.downs.get_mut(d)
            && !std::mem::replace(&mut down.dirty, true)
        {
            self.dirty.push(self.downs.token(d));
        }
    }

    /// Writes what has gathered.
    pub(super) fn clean(&mut self) {
        while let Some(token) = self.dirty.pop() {
            if token.kind() == Kind::Up {
                if let Some(u) = self.ups.find(token) {
                    self.clean_up(u);
                }
                continue;
            }
            let Some(d) = self.downs.find(token) else { continue };
            let Some(down) = self.downs.get_mut(d) else { continue };
            down.dirty = false;
            let Some(session) = down.h2.as_deref_mut() else { continue };
            let mut result = Ok(());
            let full = session.is_full();
            if !session.out.is_empty() {
                result = down.sock.write(&[&session.out]);
                session.out.clear();
                if session.out.capacity() > super::SPARE_BYTES && session.is_empty() {
                    session.out = Vec::new();
                }
            }
            let over = session.is_leaving() && session.is_empty() && !down.sock.blocked();
            if result.is_err() {
                self.drop_multiplex(d);
            } else if over {
                self.close_down(d);
            } else if full && !self.downs.get(d).is_some_and(|down| down.sock.blocked()) {
                // Answers waited for this.
                self.writable(d, 0);
            }
        }
    }

    pub(super) fn multiplex(&mut self, d: u32) {
        if self.input.is_empty() {
            return self.ready.push_back(self.downs.token(d));
        }
        let mut input = std::mem::take(&mut self.input);
        let more = (0..TURNS).all(|_| self.multiplex_once(d, &mut input));
        self.input = input;
        if more {
            self.ready.push_back(self.downs.token(d));
        }
        self.soil(d);
    }

    /// Reads once; whether there may be more.
    fn multiplex_once(&mut self, d: u32, input: &mut [u8]) -> bool {
        let Some(down) = self.downs.get_mut(d) else { return false };
        let mut length = down.sock.left.len();
        input[..length].copy_from_slice(&down.sock.left);
        if !std::mem::take(&mut down.unread) {
            match down.sock.read(&mut input[length..], &mut self.cipher) {
                Ok(Got::Bytes(more)) => length += more,
                Ok(Got::Nothing) => return false,
                Ok(Got::End) | Err(_) => {
                    self.drop_multiplex(d);
                    return false;
                }
            }
        }
        down.sock.left.clear();
        let mut at = 0;
        while at < length {
            let Some(session) = self.downs.get_mut(d).and_then(|down| down.h2.as_deref_mut()) else { return false };
            match session.feed(&input[at..length]) {
                Ok(Some((used, event))) => {
                    if let Some(event) = event {
                        self.on_event(d, event, &input[at..at + used]);
                    }
                    at += used;
                }
                Ok(None) => break,
                Err(code) => {
                    daemon::debug!("ended a connection of HTTP/2", reason = format_args!("{code:?}"));
                    let owners = session.owners();
                    owners.into_iter().for_each(|x| self.abandon(x, Failure::Refused));
                    return false;
                }
            }
        }
        let Some(down) = self.downs.get_mut(d) else { return false };
        down.sock.left.extend_from_slice(&input[at..length]);
        down.sock.readable
    }

    fn session(&mut self, d: u32) -> Option<&mut Session> {
        self.downs.get_mut(d)?.h2.as_deref_mut()
    }

    fn on_event(&mut self, d: u32, event: Event, frame: &[u8]) {
        match event {
            Event::Head { stream, .. } => self.stream_begins(d, stream),
            Event::TooLarge { stream } => {
                let x = self.stream_exchange(d, stream);
                self.respond(x, 431, &head::Refusal::HeadSize.to_string(), &[]);
            }
            Event::Data { stream, range, end } => self.stream_body(d, stream, &frame[range], end),
            // Nothing a request could say at its end is passed on to HTTP/1.1 applications; the body is whole.
            Event::Trailers { stream } => self.stream_body(d, stream, &[], true),
            Event::Reset { owner, .. } => {
                if let Some(x) = owner {
                    self.abandon(x, Failure::ClientGone);
                }
            }
            Event::Writable { stream } => self.writable(d, stream),
            // A client that leaves still wants its answers.
            Event::Leaving { .. } => {}
        }
    }

    /// An exchange for a stream.
    fn stream_exchange(&mut self, d: u32, stream: u32) -> u32 {
        let at = self.tick;
        let x = self.begin_exchange(d, at);
        if let Some(session) = self.session(d) {
            session.set_owner(stream, x);
        }
        if let Some(exchange) = self.exchange(x) {
            exchange.stream = stream;
            exchange.keep = true;
        }
        self.down_deadline(d, 0);
        x
    }

    fn stream_begins(&mut self, d: u32, stream: u32) {
        let Some(session) = self.session(d) else { return };
        let text = std::mem::take(&mut session.text);
        let mut fields = std::mem::take(&mut self.fields);
        // The list's own bound was kept already; as text it is a little longer.
        let bounds = head::Bounds { bytes: head::LONGEST, fields: self.local.plan.settings.bounds.fields };
        match head::request(&text, &mut fields, bounds) {
            Ok(Some(request)) => self.begin(d, stream, &text, &request, &mut fields),
            Ok(None) => {
                if let Some(session) = self.session(d) {
                    session.close(stream, Code::Protocol);
                }
            }
            Err(refusal) => {
                let x = self.stream_exchange(d, stream);
                if let Some(exchange) = self.exchange(x) {
                    exchange.failure = Some(Failure::Refused);
                }
                self.respond(x, refusal.status(), &refusal.to_string(), &[]);
            }
        }
        self.fields = fields;
        if let Some(session) = self.session(d) {
            session.text = text;
        }
    }

    fn stream_body(&mut self, d: u32, stream: u32, data: &[u8], end: bool) {
        let Some(session) = self.downs.get_mut(d).and_then(|down| down.h2.as_deref_mut()) else { return };
        let Some(x) = session.owner(stream) else { return session.give_back(None, data.len()) };
        let Some(exchange) = self.exchanges.get_mut(x as usize).and_then(Option::as_deref_mut) else { return };
        if exchange.request.is_done() {
            return session.give_back(Some(stream), data.len());
        }
        exchange.bytes_in += data.len() as u64;
        if exchange.bytes_in > exchange.body_most {
            return self.fail_with(x, Failure::Limit, 413, "the body is too large");
        }
        exchange.held += data.len();
        if exchange.request_chunked {
            chunk(data, &mut exchange.hold);
        } else {
            exchange.hold.extend_from_slice(data);
        }
        if end {
            if exchange.request_chunked {
                exchange.hold.extend_from_slice(b"0\r\n\r\n");
            }
            exchange.request = Body::Done;
            exchange.ends = true;
        }
        self.pump_hold(x);
    }

    /// Passes on what is held of a stream's body, if the backend takes it; then the client may send as much again.
    pub(super) fn pump_hold(&mut self, x: u32) {
        let Some(exchange) = self.exchanges.get_mut(x as usize).and_then(Option::as_deref_mut) else { return };
        let ends = exchange.ends;
        if exchange.hold.is_empty() && !ends || !exchange.sent {
            return;
        }
        let Some(u) = exchange.up else { return };
        let Some(up) = self.ups.get_mut(u) else { return };
        if !up.takes(exchange.up_stream) {
            return;
        }
        exchange.replayable = false;
        exchange.ends = false;
        let written = up.give(exchange.up_stream, &exchange.hold, ends);
        exchange.hold.clear();
        let held = std::mem::take(&mut exchange.held);
        let (d, stream, done) = (exchange.down, exchange.stream, exchange.request.is_done());
        let now = clock::now();
        self.tick = now;
        exchange.ledger.note(Phase::Send, now);
        if let Some(session) = self.session(d) {
            session.give_back(Some(stream), held);
        }
        self.soil(d);
        self.soil_up(u);
        if written.is_err() {
            // The answer may be there already, and say why.
            return self.pump_response(x);
        }
        if done {
            self.await_answer(x);
        }
    }

    /// Windows have opened, or the socket takes more.
    pub(super) fn writable(&mut self, d: u32, stream: u32) {
        let Some(session) = self.session(d) else { return };
        let owners = if stream == 0 { session.owners() } else { session.owner(stream).into_iter().collect() };
        self.soil(d);
        for x in owners {
            match self.exchange(x).map(|exchange| exchange.answer) {
                Some(Answer::Read) => self.settle(x),
                Some(Answer::Begun) => self.pump_response(x),
                _ => {}
            }
        }
    }

    /// The connection is gone, and with it all its exchanges.
    pub(super) fn drop_multiplex(&mut self, d: u32) {
        let owners = self.session(d).map(|session| session.owners()).unwrap_or_default();
        owners.into_iter().for_each(|x| self.abandon(x, Failure::ClientGone));
        self.drop_down(d);
    }

    /// A stream's exchange has ended.
    pub(super) fn close_stream(&mut self, d: u32, stream: u32, code: Code) {
        let draining = self.draining;
        let Some(session) = self.session(d) else { return };
        session.close(stream, code);
        if draining {
            session.leave();
        }
        let empty = session.is_empty();
        self.soil(d);
        if empty {
            let idle = self.local.plan.settings.idle_timeout;
            self.down_deadline(d, idle);
        }
    }
}
