//! Clients that speak HTTP/2: every stream is an exchange. What is to be written gathers in the session and goes out once
//! a round, so that many answers cost one system call.

use super::Worker;
use super::mirror::gather;
use super::request::trim_trailers;
use crate::body::{Body, chunk, last_chunk};
use crate::clock::{self, SECOND};
use crate::exchange::{Answer, Failure};
use crate::h2::frame::{Code, PREFACE};
use crate::h2::session::Role;
use crate::h2::{Event, Session};
use crate::head;
use crate::ledger::Phase;
use crate::purse::LEAST;
use crate::slab::{Kind, Token};
use crate::sock::Got;

/// Reads of one connection before others have their turn.
const TURNS: usize = 4;
/// Bytes of a request, head and body, that are kept to be sent once more.
const KEPT: usize = super::SPARE_BYTES;

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
        let (bounds, tunnels) = (self.local.plan.settings.bounds, self.local.plan.settings.upgrade);
        if let Some(down) = self.downs.get_mut(d) {
            down.h2 = Some(Box::new(Session::new(Role::Server, bounds.bytes, tunnels)));
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
            // Whoever found it full may have done so when there was less room.
            let full = session.is_full() || session.out.len() > LEAST && self.local.purse.is_bounded();
            if !session.out.is_empty() {
                result = down.sock.write(&[&session.out]);
                session.out.clear();
                if session.out.capacity() > super::SPARE_BYTES && session.is_empty() {
                    session.out = Vec::new();
                }
            }
            if !down.sock.blocked() {
                session.note_drained();
            }
            down.count();
            let Some(session) = down.h2.as_deref() else { continue };
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
        let token = self.downs.token(d);
        let more = (0..TURNS).all(|_| self.multiplex_once(token, &mut input));
        self.input = input;
        if more {
            self.ready.push_back(token);
        }
        self.downs.find(token).into_iter().for_each(|d| self.soil(d));
    }

    /// Reads once; whether there may be more.
    fn multiplex_once(&mut self, token: Token, input: &mut [u8]) -> bool {
        let Some(d) = self.downs.find(token) else { return false };
        let Some(down) = self.downs.get_mut(d) else { return false };
        let length = match down.read_on(input, &mut self.cipher) {
            Ok(Got::Bytes(length)) => length,
            Ok(Got::Nothing) => return false,
            Ok(Got::End | Got::Cut) | Err(_) => {
                self.drop_multiplex(d);
                return false;
            }
        };
        if let Some(session) = down.h2.as_deref_mut() {
            session.note_read();
        }
        let mut at = 0;
        while at < length {
            // What has come belongs to this connection; it may have been ended meanwhile, and its number be another's.
            let Some(d) = self.downs.find(token) else { return false };
            let Some(session) = self.session(d) else { return false };
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
        let Some(down) = self.downs.find(token).and_then(|d| self.downs.get_mut(d)) else { return false };
        down.sock.left.extend_from_slice(&input[at..length]);
        down.sock.count();
        if down.sock.held() > LEAST && self.local.purse.is_overdrawn() {
            self.drop_multiplex(d);
            return false;
        }
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
            Event::Data { stream, range, end } => self.stream_body(d, stream, &frame[range], end, &[]),
            Event::Trailers { stream } => {
                let Some(lines) = self.session(d).map(|session| std::mem::take(&mut session.text)) else { return };
                self.stream_body(d, stream, &[], true, &lines);
                if let Some(session) = self.session(d) {
                    session.text = lines;
                }
            }
            Event::Reset { owner, .. } => {
                if let Some(x) = owner {
                    self.abandon(x, Failure::ClientGone);
                }
            }
            Event::Writable { stream } => self.writable(d, stream),
            // A client that leaves still wants its answers; what a client takes matters to nobody (RFC 8441 §3).
            Event::Leaving { .. } | Event::Settled => {}
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
        self.busy(d);
        x
    }

    /// A stream has begun: the time for being idle is over.
    pub(super) fn busy(&mut self, d: u32) {
        if self.session(d).is_some_and(|session| session.len() == 1) {
            self.down_deadline(d, 0);
        }
    }

    fn stream_begins(&mut self, d: u32, stream: u32) {
        let empty = self.local.purse.is_empty();
        let Some(session) = self.session(d) else { return };
        if empty && session.len() > 1 {
            // The client may ask again (RFC 9113 §8.7). One stream of a connection is always taken.
            session.close(stream, Code::Refused);
            return self.soil(d);
        }
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

    fn stream_body(&mut self, d: u32, stream: u32, data: &[u8], end: bool, trailers: &[u8]) {
        let Some(session) = self.downs.get_mut(d).and_then(|down| down.h2.as_deref_mut()) else { return };
        let Some(x) = session.owner(stream) else { return session.give_back(stream) };
        let Some(exchange) = self.exchanges.get_mut(x) else { return };
        // What is to become a tunnel may be filled before it stands.
        if exchange.request.is_done() && !exchange.upgrade && !exchange.connect {
            return session.give_back(stream);
        }
        exchange.bytes_in += data.len() as u64;
        if exchange.bytes_in > exchange.body_most {
            return self.fail_with(x, Failure::Limit, 413, "the body is too large");
        }
        exchange.hold.extend_from_slice(data);
        if end {
            exchange.trailers.extend_from_slice(trailers);
            exchange.request = Body::Done;
            exchange.ends = true;
        }
        exchange.count();
        if exchange.gathers() {
            self.gather_stream(x);
        } else {
            self.pump_hold(x);
        }
        let Some(exchange) = self.exchange(x) else { return };
        if exchange.hold.len() > LEAST && self.local.purse.is_overdrawn() {
            self.fail_with(x, Failure::Limit, 503, "there is no room for the body");
        }
    }

    /// Passes on what is held of a stream's body, if the backend takes it; then the client may send as much again.
    pub(super) fn pump_hold(&mut self, x: u32) {
        if self.tunnel_is_over(x) {
            return self.finish_tunnel(x);
        }
        let Some(exchange) = self.exchanges.get_mut(x) else { return };
        let ends = exchange.ends;
        if exchange.hold.is_empty() && !ends || !exchange.sent {
            return;
        }
        let (tunnel, patient) = (exchange.tunnel, exchange.patient);
        if !tunnel && (exchange.upgrade || exchange.connect) {
            return;
        }
        let Some(u) = exchange.up else { return };
        let Some(up) = self.ups.get_mut(u) else { return };
        if !up.takes(exchange.up_stream) {
            return;
        }
        // Only now it is known who reads it, and how.
        if ends && !exchange.trailers.is_empty() {
            trim_trailers(&exchange.local.plan, (exchange.route, exchange.target), &mut exchange.trailers);
        }
        let mut bytes = &exchange.hold;
        if exchange.request_chunked {
            self.output.clear();
            chunk(&exchange.hold, &mut self.output);
            if ends {
                last_chunk(&exchange.trailers, &mut self.output);
            }
            bytes = &self.output;
        }
        // Short bodies are kept until the answer begins: a backend that is about to end says which streams it has not looked
        // at (RFC 9113 §6.8), and those are begun again elsewhere.
        let fits = exchange.replay.len() + bytes.len() <= self.local.purse.piece(KEPT);
        if exchange.replayable && !tunnel && fits {
            exchange.replay.extend_from_slice(bytes);
        } else {
            exchange.replayable = false;
        }
        exchange.ends = false;
        let written = up.give(exchange.up_stream, bytes, ends, &exchange.trailers);
        if ends && tunnel && up.h2.is_none() {
            up.sock.finish_when_flushed();
        }
        gather(&mut exchange.copy, bytes, &self.local.purse);
        exchange.hold.clear();
        exchange.count();
        let copy = if ends { exchange.copy.take() } else { None };
        let (d, stream, done) = (exchange.down, exchange.stream, exchange.request.is_done());
        let now = clock::now();
        self.tick = now;
        exchange.ledger.note(Phase::Send, now);
        if ends {
            exchange.note_asked(now);
        }
        if let Some(session) = self.session(d) {
            session.give_back(stream);
        }
        self.soil(d);
        self.soil_up(u);
        if written.is_err() {
            // The answer may be there already, and say why.
            return self.pump_response(x);
        }
        if tunnel {
            self.await_rest(x);
            if self.tunnel_is_over(x) {
                self.finish_tunnel(x);
            }
        } else {
            self.guard(x, done);
            if done || patient {
                self.await_answer(x);
            }
        }
        if let Some(copy) = copy {
            self.mirror(*copy);
        }
    }

    /// When a stream's client must go on: reading what it has asked for, or sending what it has begun; or when all must be
    /// over. A connection has one timer, for the first of its streams whose time is over.
    pub(super) fn guard_stream(&mut self, x: u32, request_done: bool) {
        let (now, blocked) = (self.tick, self.is_blocked(x));
        let settings = &self.local.plan.settings;
        let (reads, sends) = (settings.body_timeout, settings.tunnel_timeout);
        let Some(exchange) = self.exchange(x) else { return };
        let sends = if exchange.patient { sends } else { reads };
        let timeout = match request_done || exchange.answer != Answer::Waiting {
            _ if blocked => reads,
            true => 0,
            false => sends,
        };
        let at = if timeout == 0 { u64::MAX } else { now + timeout }.min(exchange.expires);
        exchange.client_by = at;
        let d = exchange.down;
        let token = self.downs.token(d);
        if let Some(down) = self.downs.get_mut(d).filter(|down| at < down.deadline.at()) {
            self.timers.set(&mut down.deadline, token, at);
        }
    }

    /// The connection's timer: it has been idle, or a stream's client has not gone on.
    pub(super) fn multiplex_timeout(&mut self, d: u32) {
        let now = self.tick;
        let Some(session) = self.session(d) else { return };
        let owners = session.owners();
        if session.is_empty() {
            if session.is_leaving() {
                // It was told so, and does not even read.
                return self.drop_multiplex(d);
            }
            session.leave();
            self.soil(d);
            return self.down_deadline(d, super::client::LINGER);
        }
        let mut next = u64::MAX;
        for x in owners {
            let blocked = self.is_blocked(x);
            let Some(exchange) = self.exchange(x) else { continue };
            if exchange.client_by > now {
                next = next.min(exchange.client_by);
            } else if exchange.expires <= now && !self.waits_for_body(x) {
                self.fail_with(x, Failure::RequestTimeout, 504, "the request took too long");
            } else if blocked || self.exchange(x).is_some_and(|exchange| exchange.answer != Answer::Waiting) {
                self.abandon(x, Failure::ClientTimeout);
            } else {
                self.body_timeout(x);
                let client_by = self.exchange(x).map_or(u64::MAX, |exchange| exchange.client_by);
                next = next.min(if client_by > now { client_by } else { u64::MAX });
            }
        }
        if next != u64::MAX {
            self.down_deadline(d, next.saturating_sub(now).max(1));
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
                Some(Answer::Begun) => {
                    self.note_stall(x);
                    self.pump_response(x);
                }
                _ => {}
            }
        }
    }

    /// If it was the client that was waited for, and it takes more now, the time was its own.
    fn note_stall(&mut self, x: u32) {
        if self.is_blocked(x) {
            let Some(exchange) = self.exchange(x) else { return };
            let (d, stream, request_done) = (exchange.down, exchange.stream, exchange.request.is_done());
            // Whoever takes little does not take nothing.
            if self.session(d).is_some_and(|session| session.has_moved(stream)) {
                self.guard(x, request_done);
            }
            return;
        }
        let now = self.tick;
        if let Some(exchange) = self.exchange(x)
            && std::mem::take(&mut exchange.stalled)
        {
            exchange.ledger.note(Phase::Write, now);
            let request_done = exchange.request.is_done();
            self.guard(x, request_done);
            self.await_rest(x);
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
        let goodbye = self.says_goodbye(d);
        let Some(session) = self.session(d) else { return };
        session.close(stream, code);
        if goodbye {
            session.leave_soon();
        }
        let empty = session.is_empty();
        self.soil(d);
        if empty {
            let idle = if goodbye { SECOND } else { self.local.plan.settings.idle_timeout };
            self.down_deadline(d, idle);
        }
    }
}
