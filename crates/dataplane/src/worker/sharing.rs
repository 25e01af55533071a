//! Backends that speak HTTP/2: many exchanges share a connection, each has its stream.

use std::rc::Rc;

use super::Worker;
use super::upstream::Up;
use crate::body::{Body, last_chunk};
use crate::clock::{self, SECOND};
use crate::exchange::{Answer, Failure};
use crate::h2::frame::Code;
use crate::h2::session::Role;
use crate::h2::{Event, Session};
use crate::head;
use crate::ledger::Phase;
use crate::pool::Pool;
use crate::slab::Token;
use crate::sock::Got;

/// Reads of one connection before others have their turn.
const TURNS: usize = 4;

/// How long a stream that has brought all it declared may take to end: many servers say so in a frame of its own.
pub(super) const ENDING: u64 = SECOND;

impl Worker {
    /// A connection to the endpoint that takes another stream; also one that is still being made. One that is clogged by slow
    /// clients only where there may be no other.
    pub(super) fn take_shared(&mut self, pool: &Rc<Pool>, endpoint: usize) -> Option<u32> {
        let shared = pool.members[endpoint].shared.borrow();
        let find = |clogged: bool| {
            let fits = |session: &Session| session.has_room() && (clogged || !session.is_clogged());
            let room = |u: &u32| {
                let up = self.ups.get(*u);
                up.is_some_and(|up| !up.sock.hangup && up.h2.as_deref().is_some_and(fits))
            };
            shared.iter().rev().filter_map(|token| self.ups.find(*token)).find(room)
        };
        find(false).or_else(|| find(true).filter(|_| !pool.backend.may_connect(endpoint)))
    }

    /// Whether the endpoint has said that it takes no streams (SETTINGS_MAX_CONCURRENT_STREAMS: 0): over another connection
    /// neither. If it never changes its mind, the connection ends when it has been idle too long.
    pub(super) fn takes_none(&self, pool: &Rc<Pool>, endpoint: usize) -> bool {
        let shared = pool.members[endpoint].shared.borrow();
        let mut ups = shared.iter().filter_map(|token| self.ups.get(self.ups.find(*token)?));
        ups.any(|up| !up.sock.hangup && up.h2.as_deref().is_some_and(Session::takes_none))
    }

    /// Makes a new connection one that is shared.
    pub(super) fn share(&mut self, u: u32) {
        let bounds = self.local.plan.settings.bounds;
        let token = self.ups.token(u);
        let Some(up) = self.ups.get_mut(u) else { return };
        up.h2 = Some(Box::new(Session::new(Role::Client, bounds.bytes, false)));
        up.pool.members[up.endpoint].shared.borrow_mut().push(token);
        up.exchange = None;
    }

    /// Begins a stream with the exchange's request, as far as it is there.
    pub(super) fn send_stream(&mut self, x: u32) {
        let Some(exchange) = self.exchanges.get_mut(x) else { return };
        let Some(u) = exchange.up else { return };
        let Some(up) = self.ups.get_mut(u) else { return };
        let connecting = up.connecting;
        let https = up.pool.backend.settings.tls.is_some();
        let Some(session) = up.h2.as_deref_mut() else { return };
        if exchange.reused {
            exchange.ledger.note(Phase::Pool, self.tick);
        }
        if exchange.upgrade && session.takes_tunnels().is_none() {
            return self.keep_place(x, u);
        }
        let (head, body) = exchange.replay.split_at(exchange.head_size);
        // What came while the try before was made is still held, and with it the end.
        let held = !exchange.hold.is_empty() || exchange.ends;
        let done = exchange.request.is_done() && !held;
        let trailers = !exchange.trailers.is_empty();
        let bare = done && body.is_empty() && !trailers;
        let id = if exchange.upgrade {
            session.request_tunnel(x, head, https)
        } else {
            session.request(x, head, https, bare)
        };
        if !exchange.upgrade && !bare {
            session.send(id, [body, b""], done && !trailers);
        }
        if !exchange.upgrade && done && trailers {
            session.send_trailers(id, &exchange.trailers);
        }
        exchange.up_stream = id;
        exchange.sent = !connecting;
        let now = clock::now();
        self.tick = now;
        if !connecting {
            exchange.ledger.note(Phase::Send, now);
        }
        self.soil_up(u);
        self.await_answer(x);
        if !done && !connecting {
            self.pump_request(x);
        }
    }

    /// The connection stands: what waited for it goes on.
    pub(super) fn share_connected(&mut self, u: u32) {
        let now = self.tick;
        let token = self.ups.token(u);
        for stream in self.streams_of(token) {
            let Some(x) = self.owner_of(token, stream) else { continue };
            if let Some(exchange) = self.exchange(x) {
                exchange.ledger.note(Phase::Connect, now);
                exchange.sent = !Session::is_place(stream);
            }
            if Session::is_place(stream) {
                self.await_settings(x, u);
                continue;
            }
            self.await_answer(x);
            self.pump_request(x);
        }
        self.ups.find(token).into_iter().for_each(|u| self.soil_up(u));
    }

    pub(super) fn session_up(&mut self, u: u32) -> Option<&mut Session> {
        self.ups.get_mut(u)?.h2.as_deref_mut()
    }

    pub(super) fn soil_up(&mut self, u: u32) {
        if let Some(up) = self.ups.get_mut(u)
            && !std::mem::replace(&mut up.dirty, true)
        {
            self.dirty.push(self.ups.token(u));
        }
    }

    /// Writes what has gathered for a backend.
    pub(super) fn clean_up(&mut self, u: u32) {
        let Some(up) = self.ups.get_mut(u) else { return };
        up.dirty = false;
        if up.connecting {
            return;
        }
        let Some(session) = up.h2.as_deref_mut() else { return };
        let full = session.is_full();
        let mut result = Ok(());
        // What the kernel has not taken yet is no more added to: here it is known how much waits.
        if !session.out.is_empty() && !up.sock.blocked() {
            result = up.sock.write(&[&session.out]);
            session.out.clear();
        }
        if !up.sock.blocked() {
            session.note_drained();
        }
        up.share.set(session.held());
        let over = session.is_leaving() && session.is_empty();
        let idle = session.is_empty();
        let idle_most = up.idle_most;
        if result.is_err() || over {
            return self.lose_shared(u, Failure::Closed);
        }
        if idle {
            self.up_deadline(u, idle_most);
        }
        if full && !self.ups.get(u).is_some_and(|up| up.sock.blocked()) {
            self.writable_up(u, 0);
        }
    }

    /// The socket, or a window, takes more of requests' bodies.
    pub(super) fn writable_up(&mut self, u: u32, stream: u32) {
        let token = self.ups.token(u);
        let streams = if stream == 0 { self.streams_of(token) } else { vec![stream] };
        for stream in streams {
            if let Some(x) = self.owner_of(token, stream) {
                let moved = self.session_of(token).is_some_and(|session| session.has_moved(stream));
                if moved && self.exchange(x).is_some_and(|exchange| !exchange.request.is_done()) {
                    self.guard(x, false);
                }
                self.pump_request(x);
            }
        }
        self.ups.find(token).into_iter().for_each(|u| self.soil_up(u));
    }

    /// Reads what a backend has sent.
    pub(super) fn read_shared(&mut self, u: u32) {
        if self.input.is_empty() {
            return self.ready.push_back(self.ups.token(u));
        }
        let mut input = std::mem::take(&mut self.input);
        let token = self.ups.token(u);
        let more = (0..TURNS).all(|_| self.read_shared_once(token, &mut input));
        self.input = input;
        if more {
            self.ready.push_back(token);
        }
        self.ups.find(token).into_iter().for_each(|u| self.soil_up(u));
    }

    fn read_shared_once(&mut self, token: Token, input: &mut [u8]) -> bool {
        let Some(u) = self.ups.find(token) else { return false };
        let Some(up) = self.ups.get_mut(u) else { return false };
        let handshaking = up.sock.is_handshaking();
        let length = match up.sock.read_on(input, &mut self.cipher) {
            Ok(Got::Bytes(length)) => length,
            Ok(Got::Nothing) => return false,
            Ok(Got::End | Got::Cut) => {
                self.lose_shared(u, if handshaking { Failure::Tls } else { Failure::Closed });
                return false;
            }
            Err(error) => {
                up.tell_reason(&error, self.tick);
                self.lose_shared(u, if handshaking { Failure::Tls } else { Failure::Closed });
                return false;
            }
        };
        (up.heard, up.unheard) = (self.tick, 0);
        if let Some(session) = up.h2.as_deref_mut() {
            session.note_read();
        }
        let mut at = 0;
        while at < length {
            // What has come belongs to this connection; it may have been lost meanwhile, and its number be another's.
            let Some(session) = self.session_of(token) else { return false };
            match session.feed(&input[at..length]) {
                Ok(Some((used, event))) => {
                    if let Some(event) = event {
                        self.on_answer_event(token, event, &input[at..at + used]);
                    }
                    at += used;
                }
                Ok(None) => break,
                Err(code) => {
                    daemon::debug!("ended a backend's connection of HTTP/2", reason = format_args!("{code:?}"));
                    self.lose_shared(u, Failure::Malformed);
                    return false;
                }
            }
        }
        let Some(up) = self.ups.find(token).and_then(|u| self.ups.get_mut(u)) else { return false };
        up.sock.left.extend_from_slice(&input[at..length]);
        up.sock.count();
        up.sock.readable
    }

    /// The session of a connection that is still the same.
    pub(super) fn session_of(&mut self, token: Token) -> Option<&mut Session> {
        let u = self.ups.find(token)?;
        self.session_up(u)
    }

    /// Whose a stream is now.
    pub(super) fn owner_of(&mut self, token: Token, stream: u32) -> Option<u32> {
        self.session_of(token)?.owner(stream)
    }

    /// The streams a connection has now; each may have ended when it is its turn.
    pub(super) fn streams_of(&mut self, token: Token) -> Vec<u32> {
        self.session_of(token).map(|session| session.owned()).unwrap_or_default()
    }

    fn on_answer_event(&mut self, token: Token, event: Event, frame: &[u8]) {
        match event {
            Event::Head { stream, end, .. } => {
                if let Some(x) = self.owner_of(token, stream) {
                    self.stream_answers(token, stream, x, end);
                }
            }
            Event::Data { stream, range, end } => {
                if let Some(x) = self.owner_of(token, stream) {
                    self.stream_data(token, x, stream, &frame[range], end);
                }
            }
            Event::Trailers { stream } => {
                if let Some(x) = self.owner_of(token, stream) {
                    self.stream_trailers(token, x);
                }
            }
            Event::TooLarge { stream } => {
                if let Some(x) = self.owner_of(token, stream) {
                    self.stream_failed(x, Failure::Malformed, false);
                }
            }
            Event::Reset { owner: Some(x), refused, ours, .. } => {
                // The stream is gone; the connection is not the exchange's to end.
                if let Some(exchange) = self.exchange(x) {
                    (exchange.up, exchange.up_stream) = (None, 0);
                }
                let failure = match (refused, ours) {
                    (true, _) => Failure::RefusedStream,
                    (_, true) => Failure::Malformed,
                    _ => Failure::Reset,
                };
                self.stream_failed(x, failure, refused);
            }
            Event::Reset { owner: None, .. } => {}
            Event::Writable { stream } => {
                if let Some(u) = self.ups.find(token) {
                    self.writable_up(u, stream);
                }
            }
            Event::Settled => self.settled(token),
            Event::Leaving { last } => {
                // What the backend has not looked at is nobody's failure (RFC 9113 §6.8).
                for stream in self.streams_of(token).into_iter().filter(|stream| *stream > last) {
                    if let Some(x) = self.owner_of(token, stream) {
                        self.stream_failed(x, Failure::Closed, true);
                    }
                }
            }
        }
    }

    /// One stream is over before its time. `unseen`: the backend has not looked at it.
    fn stream_failed(&mut self, x: u32, failure: Failure, unseen: bool) {
        let Some(exchange) = self.exchange(x) else { return };
        if exchange.answer == Answer::Waiting {
            exchange.sent &= !unseen;
            exchange.reused |= unseen;
            self.try_failed(x, failure);
        } else if exchange.tunnel && exchange.response.is_done() {
            // It has said all it wanted to say, and listens no more.
            self.finish_tunnel(x);
        } else if exchange.tunnel {
            // Nobody knows where what it says ends, so that it cannot be cut short.
            self.abandon(x, failure);
        } else if exchange.response.is_done() {
            // All that was declared has come.
            self.answer_ended(x, false);
        } else {
            self.abandon(x, Failure::Truncated);
        }
    }

    fn stream_answers(&mut self, token: Token, stream: u32, x: u32, end: bool) {
        let handled = self.tick;
        let x = self.decide_hedge(x);
        let Some(session) = self.session_of(token) else { return };
        let text = std::mem::take(&mut session.text);
        let mut fields = std::mem::take(&mut self.fields);
        let bounds = head::Bounds { bytes: head::LONGEST, fields: self.local.plan.settings.bounds.fields };
        let wake = self.wake;
        if let Some(exchange) = self.exchange(x) {
            exchange.ledger.note(Phase::App, wake.max(exchange.ledger.at()).min(handled));
            exchange.ledger.note(Phase::Queue, handled);
            self.stream_head(x, &text, &mut fields, bounds, end);
        }
        self.fields = fields;
        if let Some(session) = self.session_of(token) {
            session.text = text;
        }
        // It may have been tried once more already, on another stream.
        if end && self.owner_of(token, stream) == Some(x) {
            self.stream_ended(x);
        }
    }

    fn stream_head(&mut self, x: u32, text: &[u8], fields: &mut Vec<head::Field>, bounds: head::Bounds, end: bool) {
        let Some(exchange) = self.exchange(x) else { return };
        if exchange.answer != Answer::Waiting {
            return self.abandon(x, Failure::Malformed);
        }
        let to_head = exchange.method == head::Method::Head;
        match head::response(text, fields, bounds, to_head) {
            Ok(Some(response)) if response.status < 200 => {
                self.pass_interim(x, text, &response, fields);
            }
            Ok(Some(mut response)) => {
                if end {
                    // Nothing follows, and unless the head says so itself only the frame knows.
                    let known = response.length == head::Length::None;
                    response.length = if known { head::Length::None } else { head::Length::Bytes(0) };
                }
                if exchange.upgrade && response.status < 300 {
                    return self.open_by_stream(x, text, &response, fields);
                }
                let status = fields.iter().find(|field| field.name_span.of(text) == b"grpc-status");
                if let Some(status) = status.map(|field| field.value.of(text)) {
                    self.note_grpc(x, status);
                }
                self.answer_final(x, text, &response, fields);
            }
            _ => self.try_failed(x, Failure::Malformed),
        }
    }

    fn stream_data(&mut self, token: Token, x: u32, stream: u32, data: &[u8], end: bool) {
        let now = self.tick;
        let Some(exchange) = self.exchange(x) else { return };
        if exchange.answer != Answer::Begun {
            // Payload of an answer that has none.
            if let Some(session) = self.session_of(token) {
                session.give_back(stream);
            }
            return;
        }
        exchange.ledger.note(Phase::Body, now);
        self.output.clear();
        self.answer_body(x, 0, data);
        self.pay_back(x);
        if end && self.owner_of(token, stream) == Some(x) {
            self.stream_ended(x);
        }
    }

    /// Lets the backend send as much again as the client has taken.
    pub(super) fn pay_back(&mut self, x: u32) {
        if self.is_blocked(x) {
            return;
        }
        let Some((Some(u), stream)) = self.exchange(x).map(|exchange| (exchange.up, exchange.up_stream)) else {
            return;
        };
        if let Some(session) = self.session_up(u) {
            session.give_back(stream);
        }
        self.soil_up(u);
    }

    fn stream_trailers(&mut self, token: Token, x: u32) {
        let Some(session) = self.session_of(token) else { return };
        let lines = std::mem::take(&mut session.text);
        let status = lines.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"grpc-status: "));
        if let Some(status) = status {
            self.note_grpc(x, status.trim_ascii());
        }
        if let Some(exchange) = self.exchange(x) {
            exchange.response = Body::Done;
            exchange.answer = Answer::Read;
            let (by_stream, chunked) = (exchange.stream != 0, exchange.response_chunked);
            self.release(x, true);
            self.output.clear();
            let mut good = true;
            if by_stream {
                self.give_trailers(x, &lines);
            } else if chunked {
                last_chunk(&lines, &mut self.output);
                good = self.give(x, 0, &[], true);
            }
            if good {
                self.settle(x);
            } else {
                self.abandon(x, Failure::ClientGone);
            }
        }
        if let Some(session) = self.session_of(token) {
            session.text = lines;
        }
    }

    /// The answer's stream has ended without trailers.
    fn stream_ended(&mut self, x: u32) {
        let Some(exchange) = self.exchange(x) else { return };
        if exchange.answer == Answer::Begun {
            self.answer_ended(x, false);
        } else if exchange.answer == Answer::Waiting && exchange.up_stream != 0 {
            self.try_failed(x, Failure::Malformed);
        }
    }

    /// A call's outcome: unavailable is what a broken connection would be.
    fn note_grpc(&mut self, x: u32, status: &[u8]) {
        let now = self.tick;
        let index = self.shared.index;
        let Some(exchange) = self.exchange(x) else { return };
        let code = std::str::from_utf8(status).ok().and_then(|status| status.parse::<u8>().ok());
        exchange.grpc = code;
        let Some(pool) = exchange.pool.as_ref().map(Rc::clone) else { return };
        let endpoint = exchange.endpoint;
        // UNAVAILABLE, INTERNAL, UNKNOWN, DATA_LOSS: the server's fault.
        if matches!(code, Some(2 | 13 | 14 | 15)) {
            pool.backend.endpoints[endpoint].counters[index].failures.add(1);
            pool.backend.note(endpoint, code != Some(14), now);
        }
    }

    /// The connection is gone, and with it all that waited for it.
    pub(super) fn lose_shared(&mut self, u: u32, failure: Failure) {
        let token = self.ups.token(u);
        let Some(up) = self.ups.remove(u) else { return };
        up.pool.members[up.endpoint].shared.borrow_mut().retain(|other| *other != token);
        let owners = up.h2.as_deref().map(Session::owners).unwrap_or_default();
        drop(up);
        // All let go of it before the first goes on.
        let mut lost = Vec::with_capacity(owners.len());
        for x in owners {
            if let Some(exchange) = self.exchange(x) {
                (exchange.up, exchange.up_stream) = (None, 0);
                lost.push((exchange.twin_of.is_none(), self.exchanges.token(x)));
            }
        }
        // Twins first: nobody adopts the try of one that is lost, too.
        lost.sort_by_key(|one| one.0);
        for (_, token) in lost {
            if let Some(x) = self.exchanges.find(token) {
                self.stream_failed(x, failure, false);
            }
        }
    }

    /// Takes a stream from its exchange. One that has brought the `whole` answer may still end by itself.
    pub(super) fn release_stream(&mut self, u: u32, stream: u32, whole: bool) {
        let by = self.tick.saturating_add(ENDING);
        let Some(session) = self.session_up(u) else { return };
        if !whole {
            session.close(stream, Code::Cancel);
        } else if session.see_out(stream, by) {
            self.wake_up_by(u, by);
        }
        self.soil_up(u);
    }

    /// An answer has not come in time. If nothing at all has since it was asked for, the connection may be dead, or its backend
    /// stuck: it gets no more streams.
    pub(super) fn doubt(&mut self, x: u32) {
        let Some(exchange) = self.exchange(x) else { return };
        let (began, u) = (exchange.try_began, exchange.up);
        if let Some(u) = u
            && self.ups.get(u).is_some_and(|up| up.h2.is_some() && up.heard < began)
        {
            self.retire(u);
        }
    }

    /// A connection has one timer, for the first of its streams whose time is over.
    fn wake_up_by(&mut self, u: u32, at: u64) {
        let token = self.ups.token(u);
        if let Some(up) = self.ups.get_mut(u).filter(|up| !up.connecting && at < up.deadline.at()) {
            self.timers.set(&mut up.deadline, token, at);
        }
    }

    /// When the answer's head must be there.
    pub(super) fn answer_by(&mut self, x: u32, u: u32, after: u64) {
        let at = if after == 0 { u64::MAX } else { self.tick.saturating_add(after) };
        if let Some(exchange) = self.exchange(x) {
            exchange.answer_by = at;
        }
        self.wake_up_by(u, at);
    }

    pub(super) fn shared_timeout(&mut self, u: u32) {
        let now = self.tick;
        let token = self.ups.token(u);
        let streams = self.streams_of(token);
        let Some(up) = self.ups.get_mut(u) else { return };
        let connecting = up.connecting;
        let Some(session) = up.h2.as_deref_mut() else { return };
        if connecting || session.is_empty() {
            return self.lose_shared(u, Failure::ConnectTimeout);
        }
        let mut next = session.end_late(now);
        self.soil_up(u);
        // Before anybody tries again.
        for stream in &streams {
            if let Some(x) = self.owner_of(token, *stream)
                && self.exchange(x).is_some_and(|exchange| exchange.answer_by <= now)
            {
                self.doubt(x);
            }
        }
        for stream in streams {
            let Some(x) = self.owner_of(token, stream) else { continue };
            let Some(exchange) = self.exchange(x) else { continue };
            if exchange.answer_by > now {
                next = next.min(exchange.answer_by);
                continue;
            }
            match exchange.answer {
                _ if exchange.tunnel => self.finish_tunnel(x),
                Answer::Waiting if Session::is_place(stream) => self.try_failed(x, Failure::ConnectTimeout),
                Answer::Waiting => self.try_failed(x, Failure::AnswerTimeout),
                Answer::Begun if exchange.response.is_done() => self.answer_ended(x, false),
                _ => self.abandon(x, Failure::AnswerTimeout),
            }
        }
        if next != u64::MAX && self.ups.find(token).is_some() {
            self.up_deadline(u, next.saturating_sub(now).max(1));
        }
    }
}

impl Up {
    /// Whether bytes of a request's body are taken now.
    pub(super) fn takes(&self, stream: u32) -> bool {
        let full = self.h2.as_deref().is_some_and(|session| session.is_blocked(stream));
        !self.connecting && !full && !self.sock.blocked()
    }

    /// Takes bytes of a request's body; `end`: nothing follows but these trailers.
    pub(super) fn give(&mut self, stream: u32, bytes: &[u8], end: bool, trailers: &[u8]) -> std::io::Result<()> {
        match self.h2.as_deref_mut() {
            Some(session) => {
                let more = end && !trailers.is_empty();
                session.send(stream, [bytes, b""], end && !more);
                if more {
                    session.send_trailers(stream, trailers);
                }
                self.share.set(session.held());
                Ok(())
            }
            None if bytes.is_empty() => Ok(()),
            None => self.sock.write(&[bytes]),
        }
    }
}
