//! What others are shown: readiness, metrics, the slowest requests.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use daemon::health::Report;
use daemon::metrics::{Exemplar, Exposition};
use dataplane::clock;
use dataplane::count::{BUCKETS, Exemplars, Histogram, Seen, bound};
use dataplane::ledger::NAMES;

use crate::program::{Inner, lock};

/// The histograms of all workers together: upper bounds in seconds, counts, and the sum in seconds.
fn total<'a>(histograms: impl Iterator<Item = &'a Histogram>) -> (Vec<f64>, Vec<u64>, f64) {
    let mut counts = [0; BUCKETS];
    let mut sum = 0;
    for histogram in histograms {
        let (more, more_sum) = histogram.read();
        counts.iter_mut().zip(more).for_each(|(count, more)| *count += more);
        sum += more_sum;
    }
    let bounds = (0..BUCKETS - 1).map(|bucket| bound(bucket) as f64 / 1e9);
    (bounds.collect(), counts.to_vec(), sum as f64 / 1e9)
}

/// Of each bucket the latest of all workers.
fn exemplars<'a>(all: impl Iterator<Item = &'a Exemplars>) -> Vec<Option<Exemplar>> {
    let mut latest: [Option<Seen>; BUCKETS] = [None; BUCKETS];
    for seen in all.filter_map(Exemplars::read) {
        for (latest, seen) in latest.iter_mut().zip(seen) {
            if seen.map(|seen| seen.wall) > latest.map(|latest| latest.wall) {
                *latest = seen;
            }
        }
    }
    let shown = |seen: Seen| Exemplar {
        labels: vec![("trace_id", dataplane::hex::text(&seen.trace))],
        value: seen.nanos as f64 / 1e9,
        time: seen.wall as f64 / 1e9,
    };
    latest.into_iter().map(|seen| seen.map(shown)).collect()
}

const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

impl Inner {
    pub(crate) fn ready(&self, report: &mut Report) {
        let running = lock(&self.server).as_ref().is_some_and(dataplane::server::Server::is_running);
        report.check("workers", (!running).then_some("not running"));
        let now = clock::now();
        for backend in &self.plan().backends {
            for endpoint in &backend.endpoints {
                let state = endpoint.health.state(now).name();
                report.note(format!("backend {} endpoint {}: {state}", backend.name, endpoint.name));
            }
        }
    }

    pub(crate) fn metrics(&self, out: &mut Exposition) {
        let plan = self.plan();
        let server = lock(&self.server);
        let workers = server.as_ref().map(|server| server.workers.as_slice()).unwrap_or_default();
        let sum = |read: &dyn Fn(&dataplane::worker::Shared) -> u64| workers.iter().map(|worker| read(worker)).sum();
        out.gauge("connections", "Clients' connections now.").sample(&[], sum(&|worker| worker.connections.value()));
        out.counter("connections", "Clients' connections taken.").sample(&[], sum(&|worker| worker.accepted.value()));
        out.counter("connections_refused", "Clients' connections closed because there were too many.")
            .sample(&[], sum(&|worker| worker.refused.value()));
        out.gauge("buffered_bytes", "Bytes counted for clients, requests, and what nobody has taken yet.")
            .sample(&[], sum(&|worker| worker.held.value()));
        out.counter("connections_given_up", "Connections that took nothing, ended because there was no room.")
            .sample(&[], sum(&|worker| worker.given_up.value()));
        out.counter("buffer_shortages", "Times that less was read, or something refused, because there was no room.")
            .sample(&[], sum(&|worker| worker.shortages.value()));
        out.counter("tls_handshake_failures", "Clients' TLS handshakes that failed.")
            .sample(&[], sum(&|worker| worker.handshake_failures.value()));
        out.counter(
            "proxy_protocol_failures",
            "Connections cut because their PROXY protocol header was missing or wrong.",
        )
        .sample(&[], sum(&|worker| worker.announcement_failures.value()));
        if let Some(log) = &plan.log {
            out.counter("access_log_dropped_lines", "Lines the log's reader was too slow for.")
                .sample(&[], log.writer.dropped());
            out.counter("access_log_left_out_lines", "Lines left out by `oneIn` and `linesPerSecond`.")
                .sample(&[], sum(&|worker| worker.unlogged.value()));
        }
        if plan.tracing.is_some() {
            out.counter("spans_exported", "Spans the collector has taken.").sample(&[], daemon::span::exported());
            out.counter("spans_dropped", "Spans given up: the queue was full, or the collector did not take them.")
                .sample(&[], daemon::span::dropped());
        }
        let mut requests = out.counter("requests", "Answered requests by route and class of status.");
        for route in &plan.routes {
            for (class, name) in CLASSES.iter().enumerate() {
                let value: u64 = route.counters.iter().map(|one| one.answers[class].value()).sum();
                if value > 0 || *name == "2xx" {
                    requests.sample(&[("route", &route.name), ("status", name)], value);
                }
            }
        }
        type Read<T> = fn(&T) -> u64;
        let by_route: [(bool, &str, &str, Read<dataplane::route::RouteCounters>); 6] = [
            (true, "requests_active", "Requests that are being answered now.", |one| one.active.value()),
            (false, "retries", "Tries after the first.", |one| one.retries.value()),
            (false, "hedges", "Second endpoints asked because the first took long.", |one| one.hedges.value()),
            (false, "hedges_won", "Second endpoints that answered first.", |one| one.hedges_won.value()),
            (false, "request_bytes", "Bytes of requests' bodies.", |one| one.bytes_in.value()),
            (false, "answer_bytes", "Bytes of answers' bodies.", |one| one.bytes_out.value()),
        ];
        for (gauge, name, help, read) in by_route {
            let mut family = if gauge { out.gauge(name, help) } else { out.counter(name, help) };
            for route in &plan.routes {
                family.sample(&[("route", &route.name)], route.counters.iter().map(read).sum());
            }
        }
        let mut decided = Vec::new();
        for (route, place, gate) in crate::build::filter::gates(&plan.routes) {
            gate.count(&mut |rule, decision, count| {
                decided.push((route, place.to_string(), rule.to_owned(), decision.to_owned(), count));
            });
        }
        let mut standing = Vec::new();
        for (route, place, gate) in crate::build::filter::gates(&plan.routes) {
            gate.gauge(&mut |what, value| standing.push((route, place.to_string(), what.to_owned(), value)));
        }
        if !standing.is_empty() {
            let mut family = out.gauge("concurrency", "Requests in flight, and how many may be, by filter.");
            for (route, place, what, value) in &standing {
                family.sample(&[("route", route), ("filter", place), ("what", what)], *value);
            }
        }
        if !decided.is_empty() {
            let mut family = out.counter("filter_decisions", "What filters decided, by rule.");
            for (route, place, rule, decision, count) in &decided {
                family.sample(&[("route", route), ("filter", place), ("rule", rule), ("decision", decision)], *count);
            }
        }
        let mut latency =
            out.histogram("request_duration_seconds", "From a request's first byte to its answer's last.");
        for route in &plan.routes {
            let (bounds, counts, sum) = total(route.counters.iter().map(|one| &one.latency));
            let exemplars = exemplars(route.counters.iter().map(|one| &one.exemplars));
            latency.histogram_with(&[("route", &route.name)], &bounds, &counts, sum, &exemplars);
        }
        let mut phases =
            out.histogram("phase_duration_seconds", "The latency ledger: where the time of requests went.");
        for (index, name) in NAMES.iter().enumerate() {
            let (bounds, counts, sum) = total(workers.iter().map(|worker| &worker.phases.histograms[index]));
            phases.histogram(&[("phase", name)], &bounds, &counts, sum);
        }
        type Counters = dataplane::backend::EndpointCounters;
        let by_endpoint: [(bool, &str, &str, Read<Counters>); 5] = [
            (false, "backend_requests", "Tries by endpoint.", |one| one.requests.value()),
            (true, "backend_requests_active", "Tries that wait for an endpoint's answer now.", |one| {
                one.active.value()
            }),
            (false, "backend_connects", "Connections begun.", |one| one.connects.value()),
            (false, "backend_connect_failures", "Connections that failed.", |one| one.connect_failures.value()),
            (false, "backend_failures", "Failed tries and answers with 5xx.", |one| one.failures.value()),
        ];
        for (gauge, name, help, read) in by_endpoint {
            let mut family = if gauge { out.gauge(name, help) } else { out.counter(name, help) };
            for backend in &plan.backends {
                for endpoint in &backend.endpoints {
                    let labels = [("backend", backend.name.as_str()), ("endpoint", endpoint.name.as_str())];
                    family.sample(&labels, endpoint.counters.iter().map(read).sum());
                }
            }
        }
        type Load = fn(&dataplane::backend::Backend) -> u64;
        let by_backend: [(bool, &str, &str, Load); 4] = [
            (true, "backend_pending", "Requests that wait for room.", |one| one.common.pending.load(Ordering::Relaxed)),
            (false, "backend_overflows", "Requests refused for want of room.", |one| {
                one.common.overflows.load(Ordering::Relaxed)
            }),
            (false, "backend_pending_timeouts", "Requests that waited for room in vain.", |one| {
                one.common.pending_timeouts.load(Ordering::Relaxed)
            }),
            (true, "backend_panic", "Whether so few endpoints are well that health is not believed.", |one| {
                u64::from(one.panics(clock::now()))
            }),
        ];
        for (gauge, name, help, read) in by_backend {
            let mut family = if gauge { out.gauge(name, help) } else { out.counter(name, help) };
            for backend in &plan.backends {
                family.sample(&[("backend", backend.name.as_str())], read(backend));
            }
        }
        type One = fn(&dataplane::backend::Endpoint) -> u64;
        let by_one: [(bool, &str, &str, One); 2] = [
            (true, "backend_connections", "Connections to an endpoint now.", |one| {
                one.connections.load(Ordering::Relaxed)
            }),
            (false, "backend_ejections", "How often an endpoint was left out after failures.", |one| {
                one.health.ejected()
            }),
        ];
        for (gauge, name, help, read) in by_one {
            let mut family = if gauge { out.gauge(name, help) } else { out.counter(name, help) };
            for backend in &plan.backends {
                for endpoint in &backend.endpoints {
                    let labels = [("backend", backend.name.as_str()), ("endpoint", endpoint.name.as_str())];
                    family.sample(&labels, read(endpoint));
                }
            }
        }
        let now = clock::now();
        let mut good = out.gauge("backend_endpoint_healthy", "Whether an endpoint gets requests.");
        for backend in &plan.backends {
            for endpoint in &backend.endpoints {
                let labels = [("backend", backend.name.as_str()), ("endpoint", endpoint.name.as_str())];
                good.sample(&labels, u64::from(endpoint.health.is_good(now)));
            }
        }
        let mut answers = out.histogram(
            "backend_duration_seconds",
            "From a try's beginning, or the request's last byte if that comes later, to the answer's head.",
        );
        for backend in &plan.backends {
            for endpoint in &backend.endpoints {
                let labels = [("backend", backend.name.as_str()), ("endpoint", endpoint.name.as_str())];
                let (bounds, counts, sum) = total(endpoint.counters.iter().map(|one| &one.latency));
                answers.histogram(&labels, &bounds, &counts, sum);
            }
        }
    }

    /// The slowest requests of the last minute, as a table.
    pub(crate) fn trace(&self) -> String {
        let server = lock(&self.server);
        let workers = server.as_ref().map(|server| server.workers.as_slice()).unwrap_or_default();
        let now = clock::now();
        let mut all: Vec<_> = workers.iter().flat_map(|worker| worker.slowest.list(now)).collect();
        all.sort_by_key(|slow| std::cmp::Reverse(slow.ledger.total()));
        all.truncate(20);
        let mut out = String::from("TIME          STATUS     TOTAL  WHERE THE TIME WENT\n");
        for slow in all {
            let mut time = String::new();
            dataplane::log::time(slow.wall, &mut time);
            let millis = |nanos: u64| format!("{}.{:03}ms", nanos / 1_000_000, nanos / 1000 % 1000);
            let total = slow.ledger.total();
            let mut phases: Vec<(u64, &str)> =
                slow.ledger.spent.into_iter().zip(NAMES).filter(|(spent, _)| *spent > 0).collect();
            phases.sort_by_key(|(spent, _)| std::cmp::Reverse(*spent));
            let shown = phases
                .iter()
                .take(4)
                .map(|(spent, name)| format!("{name} {} ({}%)", millis(*spent), spent * 100 / total.max(1)));
            let shown: Vec<String> = shown.collect();
            let path = slow.path.split('?').next().unwrap_or_default();
            let _ = writeln!(out, "{:13} {:>6} {:>9}  {}", &time[11..], slow.status, millis(total), shown.join(", "));
            let _ = write!(
                out,
                "              {} {}{path} route={} to={}",
                slow.method, slow.host, slow.route, slow.endpoint
            );
            if slow.tries > 1 {
                let _ = write!(out, " tries={}", slow.tries);
            }
            if let Some(failure) = slow.failure {
                let _ = write!(out, " failure={failure}");
            }
            if let Some(trace) = slow.trace {
                let _ = write!(out, " trace={}", dataplane::hex::text(&trace));
            }
            out.push('\n');
            for (endpoint, outcome, spent) in &slow.attempts {
                let _ = writeln!(out, "              try {endpoint}: {outcome} after {}", millis(*spent));
            }
        }
        out
    }
}
