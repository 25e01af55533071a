//! A route's filters are asked, and what they say is done. A filter that asks somebody else first parks the exchange: its
//! head is kept until the answer is there.

use std::rc::Rc;
use std::time::Duration;

use super::Worker;
use super::client::Client;
use super::gather::Gathered;
use super::request::upgrades;
use super::waiting::Due;
use crate::clock;
use crate::exchange::{Failure, Local};
use crate::filter::wait::{Told, Waiting};
use crate::filter::{Asked, Decision, Filter, Flow, Notes, Response, Seen, decide};
use crate::head::{Field, Length, Method, Request};
use crate::pool::Dice;
use crate::route::{self, Route, View, port_of, without_port};
use crate::websocket;

/// An exchange that waits for what a filter has asked, or for the body that it wants to see.
#[derive(Debug)]
pub(crate) struct Parked {
    /// The head, and what of the body was read with it, or since.
    pub(super) bytes: Vec<u8>,
    pub(super) head: Request,
    /// As they were read, and marked since.
    pub(super) fields: Vec<Field>,
    /// The filter that asked.
    pub(super) at: usize,
    ticket: u64,
    /// Then the filter decides without what it waits for.
    until: u64,
    /// The body it waits for.
    pub(super) gathered: Option<Gathered>,
}

impl Parked {
    /// It is the client that is waited for.
    pub(crate) fn gathers(&self) -> bool {
        self.gathered.is_some()
    }

    /// Bytes that are held here and were not when the head came.
    pub(crate) fn held(&self) -> usize {
        self.gathered.as_ref().map_or(0, |gathered| self.bytes.len() + gathered.held())
    }
}

/// A request's target in pieces.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    /// As it goes on.
    pub(super) whole: &'a [u8],
    pub(super) path: &'a [u8],
    pub(super) query: Option<&'a [u8]>,
    /// With a port if there was one.
    pub(super) host: &'a [u8],
}

impl<'a> Target<'a> {
    pub(super) fn of(head: &Request, bytes: &'a [u8]) -> Target<'a> {
        let target = head.path.of(bytes);
        let end = target.iter().position(|byte| *byte == b'?').unwrap_or(target.len());
        Target {
            whole: if target.is_empty() { b"/" } else { target },
            path: if end == 0 { b"/" } else { &target[..end] },
            query: target.get(end + 1..),
            host: head.host.of(bytes),
        }
    }
}

impl Worker {
    /// Asks the filters from number `from` on, with what has been gathered of the body, and sends, answers or waits.
    #[allow(clippy::too_many_arguments, reason = "a request in pieces that are borrowed apart")]
    pub(super) fn go_on(
        &mut self,
        x: u32,
        bytes: &[u8],
        head: &Request,
        fields: &mut [Field],
        target: Target<'_>,
        from: usize,
        gathered: Option<&Gathered>,
    ) {
        let Some(exchange) = self.exchange(x) else { return };
        let (d, stream, local) = (exchange.down, exchange.stream, Rc::clone(&exchange.local));
        let Some(route) = exchange.route.map(|number| &local.plan.routes[number]) else { return };
        let mut chosen = None;
        let decision = if route.filters.is_empty() && !route.targets.are_filtered() {
            Decision::Forward { path: None, host: None }
        } else {
            let mut notes = exchange.notes.take();
            let (hold, ends) = (std::mem::take(&mut exchange.hold), exchange.ends);
            let ticket = self.ticket;
            let Some(down) = self.downs.get(d) else { return };
            let asked = Asked {
                view: View {
                    bytes,
                    fields,
                    method: head.method_span.of(bytes),
                    host: without_port(target.host),
                    port: port_of(target.host),
                    path: target.path,
                    query: target.query.unwrap_or_default(),
                },
                authority: target.host,
                has_query: target.query.is_some(),
                size: head.size,
                peer: down.peer(),
                trusted: &local.plan.trusted,
                identity: &down.identity,
                tls: down.sock.tls.is_some(),
                now: self.tick,
                waiting: Some(Waiting { worker: &self.shared, x, ticket }),
                body: match (head.length, gathered) {
                    (Length::None, _) => Some(Seen { bytes: &[], whole: true }),
                    (_, Some(_)) if stream != 0 => Some(Seen { bytes: &hold, whole: ends }),
                    (_, gathered) => gathered.map(|gathered| gathered.seen(&bytes[head.size..])),
                },
            };
            let mut decision = decide(&route.filters, from, &asked, &mut notes);
            if route.targets.are_filtered()
                && let Decision::Forward { path, host } = decision
            {
                chosen = choose(route, &local, (bytes, fields), asked.now, &mut self.dice);
                let own = chosen.map_or(&[][..], |(_, target, _)| target.filters());
                decision = match decide(own, 0, &asked, &mut notes) {
                    Decision::Respond(response) => Decision::Respond(response),
                    Decision::Forward { path: new_path, host: new_host } => {
                        Decision::Forward { path: new_path.or(path), host: new_host.or(host) }
                    }
                    // None of them asks anybody else.
                    Decision::Wait { .. } | Decision::Gather { .. } => Decision::Forward { path, host },
                };
            }
            if let Some(exchange) = self.exchange(x) {
                (exchange.notes, exchange.hold) = (notes, hold);
            }
            decision
        };
        match decision {
            Decision::Wait { at } => {
                let kept = if head.length == Length::None { &bytes[..head.size] } else { bytes };
                let patience = match route.filters.get(at) {
                    Some(Filter::Gate(gate)) => gate.patience(),
                    _ => Duration::ZERO,
                };
                let until = self.tick.saturating_add(u64::try_from(patience.as_nanos()).unwrap_or(u64::MAX));
                self.park(x, kept, head, fields, (at, until), None);
                self.wait_until(x, until, Due::Filter);
                // It is not the client that is waited for.
                self.guard(x, true);
            }
            Decision::Gather { at, most } => self.gather_body(x, bytes, head, fields, (at, most)),
            Decision::Respond(response) => {
                if let Some(end) = gathered.and_then(Gathered::end).filter(|_| stream == 0) {
                    self.had_whole(x, &bytes[head.size + end..]);
                }
                self.answer_by_filter(x, response);
            }
            Decision::Forward { path: new_path, host: new_host } => {
                let chosen = chosen.or_else(|| choose(route, &local, (bytes, fields), self.tick, &mut self.dice));
                let Some((place, chosen, stuck)) = chosen else {
                    if let Some(exchange) = self.exchange(x) {
                        exchange.failure = Some(Failure::NoEndpoint);
                    }
                    return self.respond(x, 503, "the route has no backend", &[]);
                };
                if let Some(exchange) = self.exchange(x) {
                    exchange.target = place;
                }
                let pool = Rc::clone(&local.pools[chosen.backend]);
                if pool.backend.wishes() {
                    let behind = self.exchange(x).and_then(|exchange| exchange.behind);
                    let client = self.downs.get(d).map(|down| down.client(behind));
                    let client = client.as_ref().map(Client::text).unwrap_or_default();
                    let wish = pool.backend.wish(bytes, fields, target.path, client);
                    if let Some(exchange) = self.exchange(x) {
                        exchange.wish = wish;
                    }
                }
                if let Some(exchange) = self.exchange(x).filter(|_| route.session.is_some()) {
                    exchange.wish.stuck = stuck;
                }
                if head.method == Method::Connect {
                    return self.launch_connect(x, pool);
                }
                let http2 = pool.backend.settings.http2;
                let upgrade = self.local.plan.settings.upgrade && upgrades(head, bytes, fields).is_some();
                // Over HTTP/2 nothing else can be asked for (RFC 6455 §4.1).
                let upgrade = upgrade && (!http2 || head.method == Method::Get);
                if upgrade && stream == 0 && http2 && websocket::key(bytes, fields).is_none() {
                    // The handshake may have to be answered here (RFC 6455 §4.2.1).
                    return self.fail_with(x, Failure::Refused, 400, "the WebSocket handshake has no good key");
                }
                let new_target = new_path.map(|path| match target.query {
                    Some(query) => [&path[..], b"?", query].concat(),
                    None => path,
                });
                let absolute = head.path != head.target;
                let host_line = match (&new_host, absolute, head.host.is_empty()) {
                    (Some(host), _, _) => Some(&host[..]),
                    (None, true, _) => Some(target.host),
                    (None, false, true) => pool.backend.host().map(str::as_bytes),
                    (None, false, false) => None,
                };
                let mut out = std::mem::take(&mut self.output);
                out.clear();
                let goes_to = (new_target.as_deref().unwrap_or(target.whole), host_line);
                self.write_head(d, (route, chosen), head, bytes, fields, goes_to, &mut out);
                if local.plan.tracing.is_some() {
                    self.write_trace(x, &mut out);
                }
                self.output = out;
                if !upgrade {
                    self.begin_copy(x, head.length);
                }
                self.launch(x, pool, bytes, head.size, upgrade);
            }
        }
    }

    /// Keeps the request until filter number `at` is answered, or has its body.
    pub(super) fn park(
        &mut self,
        x: u32,
        bytes: &[u8],
        head: &Request,
        fields: &[Field],
        (at, until): (usize, u64),
        gathered: Option<Gathered>,
    ) {
        let ticket = self.ticket;
        self.ticket += 1;
        let Some(exchange) = self.exchange(x) else { return };
        let (bytes, fields) = (bytes.to_vec(), fields.to_vec());
        exchange.parked = Some(Box::new(Parked { bytes, head: *head, fields, at, ticket, until, gathered }));
        exchange.count();
    }

    fn answer_by_filter(&mut self, x: u32, response: Response) {
        if let Some(exchange) = self.exchange(x) {
            exchange.failure = response.failure;
        }
        self.answer(x, response.status, &response.lines, &response.body, &response.content_type);
    }

    /// What parked exchanges have waited for.
    pub(super) fn told(&mut self) {
        for told in self.shared.take_told() {
            self.unpark(told);
        }
    }

    /// Whoever has the answer may never give it, so the time is kept here.
    pub(super) fn wait_no_longer(&mut self, x: u32) {
        let now = self.tick;
        let Some(exchange) = self.exchange(x) else { return };
        // By now it may wait for another filter, which has more time.
        let Some(parked) = exchange.parked.as_ref().filter(|parked| parked.until <= now) else { return };
        let (at, ticket) = (parked.at, parked.ticket);
        let route = exchange.route.and_then(|number| exchange.local.plan.routes.get(number));
        let Some(Filter::Gate(gate)) = route.and_then(|route| route.filters.get(at)) else { return };
        let flow = gate.late();
        self.unpark(Told { x, ticket, flow, lines: Vec::new() });
    }

    fn unpark(&mut self, told: Told) {
        let Some(exchange) = self.exchange(told.x) else { return };
        // The exchange may be another's by now.
        let Some(parked) = exchange.parked.take_if(|parked| parked.ticket == told.ticket) else { return };
        if !told.lines.is_empty() {
            Notes::of(&mut exchange.notes).lines.extend_from_slice(&told.lines);
        }
        match told.flow {
            Flow::Respond(response) => self.answer_by_filter(told.x, response),
            Flow::Continue | Flow::Wait | Flow::Body(_) => {
                let Parked { bytes, head, mut fields, at, .. } = *parked;
                self.go_on(told.x, &bytes, &head, &mut fields, Target::of(&head, &bytes), at + 1, None);
            }
        }
    }
}

/// Which of a route's targets a request goes to, with its place, and the endpoint there if it has a session with one that
/// is well: that counts more than any weight.
fn choose<'a>(
    route: &'a Route,
    local: &Local,
    (bytes, fields): (&[u8], &[Field]),
    now: u64,
    dice: &mut Dice,
) -> Option<(usize, &'a route::Target, Option<usize>)> {
    let mark = route.session.as_ref().and_then(|session| session.mark_of(bytes, fields, clock::wall()));
    let of_session = mark.and_then(|mark| {
        route.targets.all().iter().enumerate().find_map(|(place, target)| {
            let backend = &local.pools.get(target.backend)?.backend;
            let endpoint = backend.session_at(mark)?;
            (backend.endpoints[endpoint].health.is_good(now)).then_some((place, target, Some(endpoint)))
        })
    });
    of_session.or_else(|| {
        let place = route.targets.draw(dice)?;
        Some((place, route.targets.get(place)?, None))
    })
}
