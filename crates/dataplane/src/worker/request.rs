//! From a client's head to the request as it goes on: route, filters, the new head, the body.

use std::rc::Rc;

use super::Worker;
use super::filter::Target;
use super::mirror::gather;
use crate::body::{Body, Passed};
use crate::clock;
use crate::edit::Edits;
use crate::exchange::{Answer, Exchange, Failure};
use crate::filter::{Filter, client_of};
use crate::forward;
use crate::head::{Field, Length, Method, Name, Refusal, Request, field};
use crate::ledger::Phase;
use crate::log::AccessLog;
use crate::plan::{Plan, Serves};
use crate::route::{Route, View, port_of, without_port};
use crate::sock::Got;
use crate::spelling::{Spelling, has_dots, write_plain};
use crate::websocket;

/// Pieces of a body that one connection may pass on before others have their turn.
const PIECES: usize = 16;

impl Worker {
    /// Begins an exchange with the head that stands at the beginning of `bytes`.
    pub(super) fn begin(&mut self, d: u32, stream: u32, bytes: &[u8], head: &Request, fields: &mut [Field]) {
        let parsed = clock::now();
        let handled = self.tick;
        self.tick = parsed;
        let Some(down) = self.downs.get_mut(d) else { return };
        let began =
            if stream == 0 { std::mem::take(&mut down.head_began) } else { self.wake.max(down.accepted).min(handled) };
        let (accepted, secured) = (down.accepted, down.secured);
        let first = down.requests == 0;
        down.requests = down.requests.saturating_add(1);
        let door = Rc::clone(&down.door);
        let x = self.begin_exchange(d, if first { accepted } else { began });
        if let Some(down) = self.downs.get_mut(d) {
            match down.h2.as_deref_mut() {
                Some(session) => session.set_owner(stream, x),
                None => down.exchange = Some(x),
            }
        }
        if stream != 0 {
            self.busy(d);
        } else if head.length == Length::None {
            // The next request, whatever becomes of this one.
            self.keep_rest(d, &bytes[head.size..]);
        }
        let wake = self.wake;
        let Some(exchange) = self.exchange(x) else { return };
        let local = Rc::clone(&exchange.local);
        if first {
            if secured != 0 {
                exchange.ledger.note(Phase::Tls, secured);
            }
            exchange.ledger.note(Phase::Accept, began.max(secured));
        }
        // A head that came in pieces: until its last was there, the client was waited for.
        exchange.ledger.note(Phase::Parse, wake.max(began).min(handled));
        exchange.ledger.note(Phase::Queue, handled);
        exchange.ledger.note(Phase::Parse, parsed);
        exchange.method = head.method;
        exchange.count();
        exchange.minor = head.minor;
        exchange.keep = head.persistence.keep;
        exchange.stream = stream;
        exchange.request = match head.length {
            // Frames say where a stream's body ends.
            Length::Bytes(_) | Length::Chunked if stream != 0 => Body::Close,
            length => Body::new(length),
        };
        exchange.request_chunked = head.length == Length::Chunked;

        let target = Target::of(head, bytes);
        let (path, host) = (target.path, target.host);
        exchange.describe(head.method_span.of(bytes), host, target.whole);
        if !local.plan.trusted.is_empty() {
            let behind = self.downs.get(d).and_then(|down| client_of(down.peer(), bytes, fields, &local.plan.trusted));
            let Some(exchange) = self.exchange(x) else { return };
            exchange.behind = behind;
        }
        let Some(exchange) = self.exchange(x) else { return };
        if local.plan.log.as_ref().is_some_and(AccessLog::wants_agent) {
            exchange.describe_client(bytes, fields);
        }
        if local.plan.tracing.is_some() {
            self.begin_trace(x, bytes, fields);
        }
        let Some(exchange) = self.exchange(x) else { return };

        exchange.patient = stream != 0 && is_call(bytes, fields);
        // What no route may be asked about.
        if stream != 0
            && head.persistence.upgrade
            && !(local.plan.settings.upgrade && upgrades(head, bytes, fields).is_some())
        {
            exchange.failure = Some(Failure::Refused);
            return self.respond(x, 501, "the protocol is not supported", &[]);
        }
        let spelling = Spelling::of(path);
        if local.plan.settings.refuse_dots && spelling.may_have_dots && has_dots(path) {
            exchange.failure = Some(Failure::Refused);
            return self.respond(x, 400, "the path has dot segments or a NUL", &[]);
        }
        let Serves::Http(table) = &door.listener.serves else { return };
        let method = head.method_span.of(bytes);
        let query = target.query.unwrap_or_default();
        let view = View { bytes, fields, method, host: without_port(host), port: port_of(host), path, query };
        let connect = head.method == Method::Connect;
        // What follows it may be anything but another request.
        exchange.keep &= !connect;
        let number = table.find(&view);
        if spelling.odd && local.plan.settings.refuse_ambiguous {
            let mut plain = std::mem::take(&mut self.extra);
            plain.clear();
            write_plain(path, &mut plain);
            let as_meant = table.find(&View { path: &plain, ..view });
            self.extra = plain;
            if as_meant != number {
                // The filters of one would be asked, and the application do what the other is for.
                if let Some(exchange) = self.exchange(x) {
                    exchange.failure = Some(Failure::Refused);
                }
                return self.respond(x, 400, "the path may be meant for another route", &[]);
            }
        }
        let Some(exchange) = self.exchange(x) else { return };
        if connect && !number.is_some_and(|number| local.plan.routes[number].connect) {
            exchange.failure = Some(Failure::Refused);
            let allow = b"Allow: GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH\r\n";
            return self.respond(x, 405, &Refusal::Method.to_string(), allow);
        }
        if connect && without_port(host).len() == host.len() {
            // There is no port to assume (RFC 9110 §9.3.6).
            exchange.failure = Some(Failure::Refused);
            return self.respond(x, 400, &Refusal::Target.to_string(), &[]);
        }
        let Some(number) = number else {
            exchange.failure = Some(Failure::NoRoute);
            return self.respond(x, 404, "no route takes this request", &[]);
        };
        let route = &local.plan.routes[number];
        exchange.route = Some(number);
        exchange.body_most = route.body_most;
        route.counters[self.shared.index].active.add(1);
        let Some(exchange) = self.exchange(x) else { return };
        if route.request_timeout != 0 {
            exchange.expires = parsed + route.request_timeout;
        }
        exchange.timing = route.always_timing || fields.iter().any(|field| asks_for_timing(field, bytes));
        if matches!(head.length, Length::Bytes(length) if length > route.body_most) {
            exchange.failure = Some(Failure::Limit);
            return self.respond(x, 413, "the body is too large", &[]);
        }
        self.go_on(x, bytes, head, fields, target, 0, None);
    }

    /// Writes the head as it goes on.
    #[allow(clippy::too_many_arguments, reason = "one call; a struct for it would only repeat the names")]
    pub(super) fn write_head(
        &mut self,
        d: u32,
        (route, chosen): (&Route, &crate::route::Target),
        head: &Request,
        bytes: &[u8],
        fields: &mut [Field],
        (target, host): (&[u8], Option<&[u8]>),
        out: &mut Vec<u8>,
    ) {
        let settings = &self.local.plan.settings;
        out.extend_from_slice(head.method_span.of(bytes));
        out.push(b' ');
        out.extend_from_slice(target);
        out.extend_from_slice(b" HTTP/1.1\r\n");
        if let Some(host) = host {
            for field in fields.iter_mut().filter(|field| field.name == Name::Host) {
                field.keep = false;
            }
            out.extend_from_slice(b"Host: ");
            out.extend_from_slice(host);
            out.extend_from_slice(b"\r\n");
        }
        self.extra.clear();
        // Only what was proved on this connection: whoever else says it, lies.
        let own = |field: &&mut Field| matches!(field.name, Name::XForwardedClientCert | Name::LikeOwn);
        for field in fields.iter_mut().filter(own) {
            field.keep = false;
        }
        if let Some(down) = self.downs.get(d) {
            self.extra.extend_from_slice(&down.identity);
            let tls = down.sock.tls.is_some();
            let from = (down.peer(), tls, head.host.of(bytes));
            forward::forwarded(settings.forwarded, bytes, fields, from, &mut self.extra);
        }
        for edits in edits(route, chosen) {
            edits.mark_like(bytes, fields);
            edits.add_to(&mut self.extra);
        }
        let protocol = if settings.upgrade { upgrades(head, bytes, fields) } else { None };
        let by_stream = self.downs.get(d).is_some_and(|down| down.h2.is_some());
        if protocol.is_some() && by_stream {
            field::leave_out(bytes, fields, websocket::is_of_handshake);
        }
        forward::kept(bytes, fields, out);
        out.extend_from_slice(&self.extra);
        forward::framing(head.length, out);
        if let Some(protocol) = protocol {
            out.extend_from_slice(b"Connection: Upgrade\r\nUpgrade: ");
            out.extend_from_slice(protocol);
            out.extend_from_slice(b"\r\n");
            if by_stream {
                // A stream needs none (RFC 8441 §5), the application's side of it does.
                websocket::put_key(&mut self.dice, out);
            }
        }
        out.extend_from_slice(b"\r\n");
    }

    /// Takes what there is of the body, keeps what follows it, and sends.
    pub(super) fn launch(&mut self, x: u32, pool: Rc<crate::pool::Pool>, bytes: &[u8], size: usize, upgrade: bool) {
        let head = std::mem::take(&mut self.output);
        let Some(exchange) = self.exchange(x) else { return };
        exchange.upgrade = upgrade;
        // Frames say where a body ends.
        exchange.request_chunked &= !pool.backend.settings.http2;
        exchange.head_size = head.len();
        exchange.replay.extend_from_slice(&head);
        exchange.replayable = true;
        exchange.copy_head(&head);
        let rest = &bytes[size..];
        let (route, target) = (exchange.route, exchange.target);
        let mut used = 0;
        let mut refused = None;
        let had_body = !exchange.request.is_done();
        if had_body && !rest.is_empty() {
            let chunked = exchange.request_chunked;
            match exchange.request.pass(rest, chunked, &mut exchange.replay) {
                Ok(mut passed) => {
                    exchange.replay.extend_from_slice(&rest[passed.raw.clone()]);
                    trim(&exchange.local.plan, (route, target), &mut passed, &mut exchange.replay);
                    exchange.trailers = passed.trailers;
                    exchange.bytes_in += passed.payload;
                    used = passed.used;
                    if exchange.bytes_in > exchange.body_most {
                        refused = Some(Failure::Limit);
                    }
                }
                Err(_) => refused = Some(Failure::Refused),
            }
        }
        let d = exchange.down;
        let done = exchange.request.is_done();
        gather(&mut exchange.copy, &exchange.replay[head.len()..], &exchange.local.purse);
        exchange.count();
        // What has come while a filter waited is still held, and gathered when it goes out.
        let held = !exchange.hold.is_empty() || exchange.ends;
        let copy = if done && !held { exchange.copy.take() } else { None };
        exchange.pool = Some(pool);
        let routed = clock::now();
        exchange.ledger.note(Phase::Route, routed);
        self.tick = routed;
        self.output = head;
        if had_body {
            self.keep_rest(d, &rest[used..]);
        }
        match refused {
            Some(Failure::Limit) => return self.fail_with(x, Failure::Limit, 413, "the body is too large"),
            Some(failure) => return self.fail_with(x, failure, 400, "the chunked body is malformed"),
            None => {}
        }
        self.guard(x, done);
        self.send_out(x);
        if let Some(copy) = copy {
            self.mirror(*copy);
        }
    }

    /// Keeps what has been read behind a request.
    pub(super) fn keep_rest(&mut self, d: u32, rest: &[u8]) {
        if let Some(down) = self.downs.get_mut(d)
            && !rest.is_empty()
        {
            down.sock.left.extend_from_slice(rest);
            down.unread = true;
        }
    }

    /// The client's deadline while its exchange goes on.
    pub(super) fn guard(&mut self, x: u32, request_done: bool) {
        let Some(exchange) = self.exchange(x).filter(|exchange| exchange.shadow.is_none()) else { return };
        if exchange.stream != 0 {
            return self.guard_stream(x, request_done);
        }
        if exchange.tunnel {
            // Its bound is that of both sides.
            return;
        }
        let (d, expires) = (exchange.down, exchange.expires);
        let blocked = self.downs.get(d).is_some_and(|down| down.sock.blocked());
        let body = self.local.plan.settings.body_timeout;
        let waits_for_client = (!request_done || blocked) && body != 0;
        let by_body = if waits_for_client { self.tick + body } else { u64::MAX };
        let at = expires.min(by_body);
        let token = self.downs.token(d);
        if let Some(down) = self.downs.get_mut(d) {
            if at == u64::MAX {
                down.deadline.clear();
            } else {
                self.timers.set(&mut down.deadline, token, at);
            }
        }
    }

    /// Passes on more of the request's body.
    pub(super) fn pump_request(&mut self, x: u32) {
        match self.exchange(x).map(|exchange| (exchange.stream, exchange.is_stream_tunnel())) {
            Some((1.., _)) => return self.pump_hold(x),
            Some((0, true)) => return self.pump_tunnel(x),
            _ => {}
        }
        if self.input.is_empty() {
            return self.later(x);
        }
        let mut input = std::mem::take(&mut self.input);
        let more = (0..PIECES).all(|_| self.pump_request_once(x, &mut input));
        self.input = input;
        if more {
            self.later(x);
        }
    }

    fn pump_request_once(&mut self, x: u32, input: &mut [u8]) -> bool {
        let Some(exchange) = self.exchanges.get_mut(x) else { return false };
        if exchange.request.is_done() || exchange.tunnel {
            return false;
        }
        if exchange.gathers() {
            return self.gather_once(x, input);
        }
        let d = exchange.down;
        // Without a backend's connection that takes more, the client waits.
        let Some(u) = exchange.up else { return false };
        let Some(up) = self.ups.get_mut(u) else { return false };
        if !up.takes(exchange.up_stream) || !exchange.sent {
            return false;
        }
        let Some(length) = self.read_body(x, input) else { return false };
        let Some(exchange) = self.exchanges.get_mut(x) else { return false };
        let (Some(down), Some(up)) = (self.downs.get_mut(d), self.ups.get_mut(u)) else { return false };
        self.output.clear();
        let chunked = exchange.request_chunked;
        let mut passed = match exchange.request.pass(&input[..length], chunked, &mut self.output) {
            Ok(passed) => passed,
            Err(refusal) => {
                self.fail_with(x, Failure::Refused, refusal.status(), &refusal.to_string());
                return false;
            }
        };
        trim(&exchange.local.plan, (exchange.route, exchange.target), &mut passed, &mut self.output);
        exchange.bytes_in += passed.payload;
        if exchange.bytes_in > exchange.body_most {
            self.fail_with(x, Failure::Limit, 413, "the body is too large");
            return false;
        }
        if passed.used < length {
            down.sock.left.extend_from_slice(&input[passed.used..length]);
            down.unread = true;
        }
        let raw = &input[passed.raw];
        let done = exchange.request.is_done();
        let bytes = if raw.is_empty() { &self.output[..] } else { raw };
        // A short body is kept: a backend that has not looked at it (RFC 9113 §6.8) is no reason to fail.
        exchange.replayable &= exchange.replay.len() + bytes.len() <= self.local.purse.piece(super::SPARE_BYTES);
        if exchange.replayable {
            exchange.replay.extend_from_slice(bytes);
            exchange.trailers.extend_from_slice(&passed.trailers);
        }
        let written = up.give(exchange.up_stream, bytes, done, &passed.trailers);
        gather(&mut exchange.copy, bytes, &self.local.purse);
        exchange.count();
        let copy = if done { exchange.copy.take() } else { None };
        let now = clock::now();
        self.tick = now;
        exchange.ledger.note(Phase::Send, now);
        if done {
            exchange.note_asked(now);
        }
        self.soil_up(u);
        if written.is_err() {
            // The answer may be there already, and say why.
            self.pump_response(x);
            return false;
        }
        self.guard(x, done);
        if done {
            self.await_answer(x);
        }
        if let Some(copy) = copy {
            self.mirror(*copy);
        }
        !done
    }

    /// Reads what has come of the body of a whole connection; `None`: nothing, and if the client is gone, so is the exchange.
    pub(super) fn read_body(&mut self, x: u32, input: &mut [u8]) -> Option<usize> {
        let down = self.downs.get_mut(self.exchanges.get(x)?.down)?;
        // Whoever it is for may take nothing of it.
        let piece = self.local.purse.piece(input.len());
        match down.sock.read(&mut input[..piece], &mut self.cipher) {
            Ok(Got::Bytes(length)) => Some(length),
            Ok(Got::Nothing) => None,
            Ok(Got::End | Got::Cut) | Err(_) => {
                self.abandon(x, Failure::ClientGone);
                None
            }
        }
    }

    /// A short answer of our own; the client's connection goes on if it can.
    pub(super) fn respond(&mut self, x: u32, status: u16, text: &str, lines: &[u8]) {
        let body = format!("{status} {}: {text}\n", forward::reason(status));
        self.answer(x, status, lines, body.as_bytes(), "text/plain; charset=utf-8");
    }

    /// An answer of our own, whole; `lines` are further fields.
    pub(super) fn answer(&mut self, x: u32, status: u16, lines: &[u8], body: &[u8], content_type: &str) {
        // Whatever it has waited for must not happen any more: the client may take long to read this.
        self.unqueue(x);
        let goodbye = self.draining && self.exchange(x).map(|one| one.down).is_some_and(|d| self.says_goodbye(d));
        let mut out = std::mem::take(&mut self.output);
        out.clear();
        let Some(exchange) = self.exchange(x) else { return };
        // After a refusal nobody knows where the next request would begin.
        exchange.keep &= exchange.request.is_done() && !goodbye;
        exchange.status = status;
        exchange.answer = Answer::Read;
        exchange.parked = None;
        // It may just be over; whoever is told so has a body's time to read it.
        exchange.expires = u64::MAX;
        let bodiless = status == 204 || status == 304 || status < 200;
        out.extend_from_slice(b"HTTP/1.1 ");
        forward::decimal(u64::from(status), &mut out);
        out.push(b' ');
        out.extend_from_slice(forward::reason(status).as_bytes());
        out.extend_from_slice(b"\r\n");
        forward::date(clock::wall(), &mut out);
        out.extend_from_slice(lines);
        if let Some(notes) = &exchange.notes {
            out.extend_from_slice(&notes.lines);
        }
        if !bodiless {
            if !body.is_empty() {
                out.extend_from_slice(b"Content-Type: ");
                out.extend_from_slice(content_type.as_bytes());
                out.extend_from_slice(b"\r\n");
            }
            out.extend_from_slice(b"Content-Length: ");
            forward::decimal(body.len() as u64, &mut out);
            out.extend_from_slice(b"\r\n");
        }
        connection_line(exchange, &mut out);
        if exchange.timing {
            exchange.ledger.server_timing(&mut out);
        }
        out.extend_from_slice(b"\r\n");
        let head = out.len();
        if !bodiless && exchange.method != Method::Head {
            out.extend_from_slice(body);
            exchange.bytes_out = body.len() as u64;
        }
        self.output = out;
        if !self.give(x, head, &[], true) {
            return self.abandon(x, Failure::ClientGone);
        }
        self.settle(x);
    }

    /// The answer has been handed over whole: the exchange ends when the kernel has taken it.
    pub(super) fn settle(&mut self, x: u32) {
        if self.is_blocked(x) {
            self.guard(x, true);
        } else {
            self.finish(x);
        }
    }
}

/// `Connection` as the client must know it (RFC 9112 §9.3).
pub(super) fn connection_line(exchange: &Exchange, out: &mut Vec<u8>) {
    if !exchange.keep {
        out.extend_from_slice(b"Connection: close\r\n");
    } else if exchange.minor == 0 {
        out.extend_from_slice(b"Connection: keep-alive\r\n");
    }
}

/// The changes of a request's fields, in their order.
fn edits<'a>(route: &'a Route, chosen: &'a crate::route::Target) -> impl Iterator<Item = &'a Edits> {
    let by_route = route.filters.iter().filter_map(|filter| match filter {
        Filter::RequestHeaders(edits) => Some(edits),
        _ => None,
    });
    by_route.chain(chosen.changes.as_deref().map(|changes| &changes.request))
}

/// Takes from trailers what is taken from the head.
pub(super) fn trim_trailers(plan: &Plan, (route, target): (Option<usize>, usize), lines: &mut Vec<u8>) {
    let Some(route) = route.and_then(|number| plan.routes.get(number)) else { return };
    let Some(chosen) = route.targets.get(target) else { return };
    edits(route, chosen).for_each(|edits| edits.trim(lines));
}

/// The same where they may be written already.
fn trim(plan: &Plan, by: (Option<usize>, usize), passed: &mut Passed, out: &mut Vec<u8>) {
    if !passed.trailers.is_empty() {
        trim_trailers(plan, by, &mut passed.trailers);
    }
    if passed.trailed > 0 {
        let empty_line = 2;
        let mut lines = out.split_off(out.len() - passed.trailed - empty_line);
        trim_trailers(plan, by, &mut lines);
        out.extend_from_slice(&lines);
    }
}

/// A call of gRPC: messages come when there is something to say (gRPC over HTTP/2, "Requests").
fn is_call(bytes: &[u8], fields: &[Field]) -> bool {
    let grpc = |field: &Field| {
        let (name, value) = (field.name_span.of(bytes), field.value.of(bytes));
        name.eq_ignore_ascii_case(b"content-type") && value.starts_with(b"application/grpc")
    };
    let trailers = |field: &Field| field.name == Name::Te && field.keep;
    fields.iter().any(trailers) && fields.iter().any(grpc)
}

fn asks_for_timing(field: &Field, bytes: &[u8]) -> bool {
    field.name == Name::Other && field.name_span.of(bytes).eq_ignore_ascii_case(b"x-outrigger-timing")
}

/// The protocol a request wants to go over to. Only WebSocket: an upgrade to HTTP/2 would carry requests past the routes.
pub(super) fn upgrades<'a>(head: &Request, bytes: &'a [u8], fields: &[Field]) -> Option<&'a [u8]> {
    if !head.persistence.upgrade || head.length != Length::None {
        return None;
    }
    let mut protocols = fields.iter().filter(|field| field.name == Name::Upgrade);
    let protocol = protocols.next()?.value.of(bytes);
    (protocols.next().is_none() && protocol.eq_ignore_ascii_case(b"websocket")).then_some(protocol)
}
