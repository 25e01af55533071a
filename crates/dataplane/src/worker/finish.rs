//! The end of an exchange: books, log, and what becomes of the client's connection.

use std::rc::Rc;

use super::Worker;
use crate::attempt::Attempt;
use crate::clock;
use crate::exchange::{Exchange, Failure};
use crate::h2::frame::Code;
use crate::ledger::Phase;
use crate::log::Record;
use crate::slowest::Slow;

impl Worker {
    /// The answer has been taken whole by the kernel.
    pub(super) fn finish(&mut self, x: u32) {
        if self.exchange(x).is_some_and(|exchange| exchange.shadow.is_some()) {
            return self.end_shadow(x, true);
        }
        self.release(x, false);
        let now = self.now();
        let Some(mut exchange) = self.end_exchange(x) else { return };
        exchange.ledger.note(Phase::Write, now);
        self.book(&exchange);
        let (d, stream) = (exchange.down, exchange.stream);
        if stream != 0 {
            self.keep_spare(exchange);
            return self.close_stream(d, stream, Code::None);
        }
        let (keep, request_done) = (exchange.keep, exchange.request.is_done());
        self.keep_spare(exchange);
        let Some(down) = self.downs.get_mut(d) else { return };
        down.exchange = None;
        down.idle_since = now;
        if !request_done {
            return self.linger(d);
        }
        if !keep {
            return self.close_down(d);
        }
        let more = down.unread || down.sock.readable;
        let timeout = self.local.plan.settings.idle_timeout;
        self.down_deadline(d, timeout);
        if more {
            self.ready.push_back(self.downs.token(d));
        } else if self.draining {
            self.let_go_if_idle(d);
        }
    }

    /// Ends an exchange that cannot be ended well: the client's connection is cut, which is how it learns of it
    /// (RFC 9112 §8).
    pub(super) fn abandon(&mut self, x: u32, failure: Failure) {
        if self.exchange(x).is_some_and(|exchange| exchange.shadow.is_some()) {
            return self.end_shadow(x, false);
        }
        self.note_waited(x);
        self.release(x, false);
        let now = self.now();
        let Some(mut exchange) = self.end_exchange(x) else { return };
        exchange.failure = exchange.failure.or(Some(failure));
        exchange.ledger.note(Phase::Write, now);
        if failure == Failure::ClientGone && exchange.status == 0 {
            exchange.status = failure.status();
        }
        self.book(&exchange);
        let (d, stream) = (exchange.down, exchange.stream);
        // What RST is to TCP, CANCEL is to a tunnel (RFC 8441 §5).
        let cancels = exchange.tunnel || matches!(failure, Failure::ClientGone | Failure::ClientTimeout);
        self.keep_spare(exchange);
        if stream != 0 {
            let code = if cancels { Code::Cancel } else { Code::Internal };
            return self.close_stream(d, stream, code);
        }
        self.drop_down(d);
    }

    fn book(&mut self, exchange: &Exchange) {
        let index = self.shared.index;
        let plan = &exchange.local.plan;
        let total = exchange.ledger.total();
        let route = exchange.route.and_then(|route| plan.routes.get(route));
        if let Some(route) = route {
            let counters = &route.counters[index];
            let class = usize::from(exchange.status / 100).min(5);
            counters.answers[class].add(1);
            counters.active.sub(1);
            counters.bytes_in.add(exchange.bytes_in);
            counters.bytes_out.add(exchange.bytes_out);
            counters.latency.add(total);
        }
        if exchange.entered
            && let Some(pool) = &exchange.pool
        {
            pool.backend.leave();
        }
        if exchange.traced.is_some() {
            self.finish_trace(exchange);
        }
        if let Some(notes) = &exchange.notes {
            let failed = exchange.is_backends_failure(self.tick);
            // How long the answer would have taken nobody knows if its client did not wait for it.
            let unheard =
                exchange.failure == Some(Failure::ClientGone) && exchange.status == Failure::ClientGone.status();
            let took = if unheard { 0 } else { exchange.ledger.spent[Phase::App as usize] };
            notes.permits.iter().for_each(|permit| permit.learn(took, failed, self.tick));
        }
        // A tunnel lasts as long as its users like: that says nothing about where time is lost.
        if exchange.tunnel {
            return self.log_line(exchange);
        }
        self.shared.phases.add(&exchange.ledger);
        if self.shared.slowest.wants(total, self.tick) {
            let text = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
            let endpoint = exchange.pool.as_ref().filter(|_| exchange.tries > 0);
            let slow = Slow {
                wall: clock::wall(),
                method: text(exchange.method_span.of(&exchange.text)),
                host: text(exchange.host_span.of(&exchange.text)),
                path: text(exchange.path_span.of(&exchange.text)),
                status: exchange.status,
                route: route.map_or_else(String::new, |route| route.name.clone()),
                endpoint: endpoint
                    .map_or_else(String::new, |pool| pool.backend.endpoints[exchange.endpoint].name.clone()),
                tries: exchange.tries,
                failure: exchange.failure.map(Failure::name),
                attempts: named_attempts(exchange)
                    .into_iter()
                    .map(|(attempt, name)| {
                        (name.to_owned(), attempt.outcome(), attempt.ended.saturating_sub(attempt.began))
                    })
                    .collect(),
                trace: exchange.traced.as_ref().map(|traced| traced.trace),
                ledger: exchange.ledger,
            };
            self.shared.slowest.add(slow, self.tick);
        }
        self.log_line(exchange);
    }

    fn log_line(&mut self, exchange: &Exchange) {
        let local = Rc::clone(&self.local);
        let Some(log) = &local.plan.log else { return };
        if !log.wants(exchange.status, self.tick, &mut self.sampling) {
            return self.shared.unlogged.add(1);
        }
        let Some(down) = self.downs.get(exchange.down) else { return };
        let plan = &exchange.local.plan;
        let client = down.client(exchange.behind);
        let attempts = named_attempts(exchange);
        let route = exchange.route.and_then(|route| plan.routes.get(route));
        let pool = exchange.pool.as_ref().filter(|_| exchange.tries > 0);
        let record = Record {
            wall: clock::wall(),
            client: client.text(),
            method: exchange.method_span.of(&exchange.text),
            host: exchange.host_span.of(&exchange.text),
            path: exchange.path_span.of(&exchange.text),
            protocol: match (exchange.method_span.of(&exchange.text).is_empty(), exchange.minor) {
                _ if exchange.stream != 0 => "HTTP/2",
                (true, _) => "-",
                (false, 0) => "HTTP/1.0",
                (false, _) => "HTTP/1.1",
            },
            status: exchange.status,
            bytes_in: exchange.bytes_in,
            bytes_out: exchange.bytes_out,
            listener: &down.door.listener.name,
            route: route.map_or("", |route| &route.name),
            backend: pool.map_or("", |pool| &pool.backend.name),
            endpoint: pool.map_or("", |pool| &pool.backend.endpoints[exchange.endpoint].name),
            tries: exchange.tries,
            failure: exchange.failure.map(Failure::name),
            grpc: exchange.grpc,
            attempts: &attempts,
            traced: exchange.traced.as_deref(),
            agent: exchange.agent_span.of(&exchange.text),
            referer: exchange.referer_span.of(&exchange.text),
            ledger: &exchange.ledger,
        };
        if self.log.is_empty() {
            self.log_since = self.tick;
        }
        record.render(log.format, log.fields, &mut self.log);
    }
}

/// All tries with their endpoints' names, if there was more than one or one that failed.
fn named_attempts(exchange: &Exchange) -> Vec<(Attempt, &str)> {
    if exchange.attempts.is_empty() {
        return Vec::new();
    }
    let Some(pool) = &exchange.pool else { return Vec::new() };
    let last = exchange.open_attempt(exchange.ledger.at());
    let name =
        |attempt: Attempt| (attempt, pool.backend.endpoints.get(attempt.endpoint).map_or("", |one| one.name.as_str()));
    exchange.attempts.iter().copied().chain(last).map(name).collect()
}
