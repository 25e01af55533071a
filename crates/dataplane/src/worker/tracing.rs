//! Traces of exchanges and their tries: where they begin and end, and the spans made of them.

use daemon::span::{self, Kind, Span, Value};

use super::Worker;
use crate::attempt::Attempt;
use crate::clock;
use crate::exchange::{Exchange, Failure};
use crate::head::{Field, Method};
use crate::ledger::NAMES;
use crate::tracing::Traced;

impl Worker {
    /// Finds out whose work a request is. Called only if there is tracing.
    pub(super) fn begin_trace(&mut self, x: u32, bytes: &[u8], fields: &mut [Field]) {
        let Some(exchange) = self.exchanges.get_mut(x) else { return };
        if let Some(tracing) = &exchange.local.plan.tracing {
            exchange.traced = Some(Box::new(tracing.begin(bytes, fields, &mut self.identities)));
        }
    }

    /// Puts the context into the head as it goes on.
    pub(super) fn write_trace(&mut self, x: u32, out: &mut Vec<u8>) {
        let Some(exchange) = self.exchanges.get_mut(x) else { return };
        if let (Some(traced), Some(tracing)) = (exchange.traced.as_deref_mut(), &exchange.local.plan.tracing) {
            tracing.write(traced, out);
        }
    }

    /// The spans of an exchange that has ended.
    pub(super) fn finish_trace(&mut self, exchange: &Exchange) {
        let Some(traced) = exchange.traced.as_deref().filter(|traced| traced.sampled) else { return };
        let index = self.shared.index;
        let plan = &exchange.local.plan;
        let end = exchange.ledger.at();
        let wall = clock::wall();
        let total = exchange.ledger.total();
        if let Some(route) = exchange.route.and_then(|route| plan.routes.get(route)) {
            route.counters[index].exemplars.note(total, traced.trace, wall);
        }
        if !span::wanted() {
            return;
        }
        let real = wall.wrapping_sub(clock::now());
        let mut spans =
            vec![self.server_span(exchange, traced, real.wrapping_add(end - total.min(end)), real.wrapping_add(end))];
        let last = exchange.open_attempt(end);
        for (number, attempt) in exchange.attempts.iter().chain(&last).enumerate() {
            spans.push(client_span(exchange, traced, attempt, number, real));
        }
        span::keep(spans);
    }

    fn server_span(&self, exchange: &Exchange, traced: &Traced, start: u64, end: u64) -> Span {
        let plan = &exchange.local.plan;
        let route = exchange.route.and_then(|route| plan.routes.get(route));
        let (method, mut attributes) = method_of(exchange);
        let host = text(exchange.host_span.of(&exchange.text));
        let target = exchange.path_span.of(&exchange.text);
        let middle = target.iter().position(|byte| *byte == b'?');
        attributes.push(("url.path", Value::Text(text(&target[..middle.unwrap_or(target.len())]))));
        if let Some(middle) = middle {
            attributes.push(("url.query", Value::Text(text(&target[middle + 1..]))));
        }
        if let Some(down) = self.downs.get(exchange.down) {
            let scheme = if down.sock.tls.is_some() { "https" } else { "http" };
            attributes.push(("url.scheme", Value::Text(scheme.to_owned())));
            attributes.push(("client.address", Value::Text(text(down.client(exchange.behind).text()))));
        }
        put_server(&host, &mut attributes);
        let version = if exchange.stream != 0 {
            "2"
        } else if exchange.minor == 0 {
            "1.0"
        } else {
            "1.1"
        };
        attributes.push(("network.protocol.version", Value::Text(version.to_owned())));
        let mut name = method.to_owned();
        if let Some(route) = route {
            attributes.push(("http.route", Value::Text(route.name.clone())));
            name = format!("{method} {}", route.name);
        }
        put_outcome(exchange.status, exchange.failure, 500, &mut attributes);
        if let Some(code) = exchange.grpc {
            attributes.push(("rpc.grpc.status_code", Value::Number(i64::from(code))));
        }
        attributes.push(("http.request.body.size", number(exchange.bytes_in)));
        attributes.push(("http.response.body.size", number(exchange.bytes_out)));
        for (name, spent) in PHASES.iter().zip(exchange.ledger.spent).filter(|(_, spent)| *spent > 0) {
            attributes.push((name, number(spent)));
        }
        let failed = exchange.status >= 500 || exchange.failure.is_some_and(|failure| failure.status() >= 499);
        Span {
            trace: traced.trace,
            id: traced.span,
            parent: traced.parent,
            remote: traced.parent != [0; 8],
            state: text(&traced.state),
            flags: traced.flags(),
            name,
            kind: Kind::Server,
            start,
            end,
            attributes,
            error: failed.then(|| exchange.failure.map_or("", Failure::name).to_owned()),
        }
    }
}

/// The ledger, as attributes; nanoseconds.
const PHASES: [&str; NAMES.len()] = [
    "outrigger.ledger.accept",
    "outrigger.ledger.tls",
    "outrigger.ledger.queue",
    "outrigger.ledger.parse",
    "outrigger.ledger.route",
    "outrigger.ledger.pool",
    "outrigger.ledger.connect",
    "outrigger.ledger.tls_out",
    "outrigger.ledger.send",
    "outrigger.ledger.app",
    "outrigger.ledger.body",
    "outrigger.ledger.write",
];

/// HTTP client spans of OpenTelemetry's semantic conventions.
fn client_span(exchange: &Exchange, traced: &Traced, attempt: &Attempt, number_of_try: usize, real: u64) -> Span {
    let (method, mut attributes) = method_of(exchange);
    if let Some(pool) = &exchange.pool
        && let Some(endpoint) = pool.backend.endpoints.get(attempt.endpoint)
    {
        put_server(&endpoint.name, &mut attributes);
        let scheme = if pool.backend.settings.tls.is_some() { "https" } else { "http" };
        let path = text(exchange.path_span.of(&exchange.text));
        attributes.push(("url.full", Value::Text(format!("{scheme}://{}{path}", endpoint.name))));
        attributes.push(("outrigger.backend", Value::Text(pool.backend.name.clone())));
    }
    attributes.push(("outrigger.connection.reused", Value::Number(i64::from(attempt.reused))));
    if number_of_try > 0 {
        attributes.push(("http.request.resend_count", number(number_of_try as u64)));
    }
    put_outcome(attempt.status, attempt.failure, 400, &mut attributes);
    let failed = attempt.status >= 400 || attempt.failure.is_some();
    Span {
        trace: traced.trace,
        id: attempt.span,
        parent: traced.span,
        remote: false,
        state: text(&traced.state),
        flags: traced.flags(),
        name: method.to_owned(),
        kind: Kind::Client,
        start: real.wrapping_add(attempt.began),
        end: real.wrapping_add(attempt.ended.max(attempt.began)),
        attributes,
        error: failed.then(|| attempt.failure.map_or("", Failure::name).to_owned()),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn number(value: u64) -> Value {
    Value::Number(i64::try_from(value).unwrap_or(i64::MAX))
}

/// Methods that are not known are one value, so that nobody can make up as many as he likes.
fn method_of(exchange: &Exchange) -> (&str, Vec<(&'static str, Value)>) {
    let sent = std::str::from_utf8(exchange.method_span.of(&exchange.text)).unwrap_or("_OTHER");
    let mut attributes = Vec::with_capacity(24);
    if exchange.method == Method::Other {
        attributes.push(("http.request.method", Value::Text("_OTHER".to_owned())));
        attributes.push(("http.request.method_original", Value::Text(sent.to_owned())));
        return ("HTTP", attributes);
    }
    attributes.push(("http.request.method", Value::Text(sent.to_owned())));
    (sent, attributes)
}

/// `server.address` and `server.port` of an authority or an endpoint's name.
fn put_server(name: &str, attributes: &mut Vec<(&'static str, Value)>) {
    let host = crate::route::without_port(name.as_bytes());
    let port = name.get(host.len() + 1..).and_then(|port| port.parse::<u16>().ok());
    let host = if name.starts_with("unix:") { name } else { &name[..host.len()] };
    if !host.is_empty() {
        attributes.push(("server.address", Value::Text(host.trim_matches(['[', ']']).to_owned())));
    }
    if let Some(port) = port {
        attributes.push(("server.port", Value::Number(i64::from(port))));
    }
}

/// `error.type` is what failed here, else the status from `bad` on.
fn put_outcome(status: u16, failure: Option<Failure>, bad: u16, attributes: &mut Vec<(&'static str, Value)>) {
    if status != 0 {
        attributes.push(("http.response.status_code", Value::Number(i64::from(status))));
    }
    match failure {
        Some(failure) => attributes.push(("error.type", Value::Text(failure.name().to_owned()))),
        None if status >= bad => attributes.push(("error.type", Value::Text(status.to_string()))),
        None => {}
    }
}
