//! The page of metrics: what workers, routes, filters and backends have counted, added up over all workers.

use std::sync::atomic::Ordering;

use daemon::metrics::{Exemplar, Exposition, Family};
use dataplane::backend::{Backend, Endpoint, EndpointCounters};
use dataplane::clock;
use dataplane::count::{BUCKETS, Exemplars, Histogram, Seen, bound};
use dataplane::ledger::NAMES;
use dataplane::plan::Plan;
use dataplane::route::RouteCounters;
use dataplane::worker::Shared;

/// A family whose samples are read from things of one kind.
struct Row<T> {
    kind: Kind,
    name: &'static str,
    help: &'static str,
    read: fn(&T) -> u64,
}

#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
}
use Kind::{Counter, Gauge};

const fn row<T>(kind: Kind, name: &'static str, help: &'static str, read: fn(&T) -> u64) -> Row<T> {
    Row { kind, name, help, read }
}

impl<T> Row<T> {
    fn family<'a>(&self, out: &'a mut Exposition) -> Family<'a> {
        match self.kind {
            Counter => out.counter(self.name, self.help),
            Gauge => out.gauge(self.name, self.help),
        }
    }
}

/// The labels of a sample, and what is added up for it.
type Sample<'a, T> = (Vec<(&'a str, &'a str)>, Vec<&'a T>);

fn tell<T>(rows: &[Row<T>], samples: &[Sample<'_, T>], out: &mut Exposition) {
    for row in rows {
        let mut family = row.family(out);
        for (labels, parts) in samples {
            family.sample(labels, parts.iter().map(|part| (row.read)(part)).sum());
        }
    }
}

const OF_WORKERS: [Row<Shared>; 8] = [
    row(Gauge, "connections_active", "Clients' connections now.", |one| one.connections.value()),
    row(Counter, "connections", "Clients' connections taken.", |one| one.accepted.value()),
    row(Counter, "connections_refused", "Clients' connections closed because there were too many.", |one| {
        one.refused.value()
    }),
    row(Gauge, "buffered_bytes", "Bytes counted for clients, requests, and what nobody has taken yet.", |one| {
        one.held.value()
    }),
    row(Counter, "connections_given_up", "Connections that took nothing, ended because there was no room.", |one| {
        one.given_up.value()
    }),
    row(
        Counter,
        "buffer_shortages",
        "Times that less was read, or something refused, because there was no room.",
        |one| one.shortages.value(),
    ),
    row(Counter, "tls_handshake_failures", "Clients' TLS handshakes that failed.", |one| {
        one.handshake_failures.value()
    }),
    row(
        Counter,
        "proxy_protocol_failures",
        "Connections cut because their PROXY protocol header was missing or wrong.",
        |one| one.announcement_failures.value(),
    ),
];

const OF_ROUTES: [Row<RouteCounters>; 6] = [
    row(Gauge, "requests_active", "Requests that are being answered now.", |one| one.active.value()),
    row(Counter, "retries", "Tries after the first.", |one| one.retries.value()),
    row(Counter, "hedges", "Second endpoints asked because the first took long.", |one| one.hedges.value()),
    row(Counter, "hedges_won", "Second endpoints that answered first.", |one| one.hedges_won.value()),
    row(Counter, "request_bytes", "Bytes of requests' bodies.", |one| one.bytes_in.value()),
    row(Counter, "answer_bytes", "Bytes of answers' bodies.", |one| one.bytes_out.value()),
];

const OF_TRIES: [Row<EndpointCounters>; 5] = [
    row(Counter, "backend_requests", "Tries by endpoint.", |one| one.requests.value()),
    row(Gauge, "backend_requests_active", "Tries that wait for an endpoint's answer now.", |one| one.active.value()),
    row(Counter, "backend_connects", "Connections begun.", |one| one.connects.value()),
    row(Counter, "backend_connect_failures", "Connections that failed.", |one| one.connect_failures.value()),
    row(Counter, "backend_failures", "Failed tries and answers with 5xx.", |one| one.failures.value()),
];

const OF_BACKENDS: [Row<Backend>; 4] = [
    row(Gauge, "backend_pending", "Requests that wait for room.", |one| one.common.pending.load(Ordering::Relaxed)),
    row(Counter, "backend_overflows", "Requests refused for want of room.", |one| {
        one.common.overflows.load(Ordering::Relaxed)
    }),
    row(Counter, "backend_pending_timeouts", "Requests that waited for room in vain.", |one| {
        one.common.pending_timeouts.load(Ordering::Relaxed)
    }),
    row(Gauge, "backend_panic", "Whether so few endpoints are well that health is not believed.", |one| {
        u64::from(one.panics(clock::now()))
    }),
];

const OF_ENDPOINTS: [Row<Endpoint>; 3] = [
    row(Gauge, "backend_connections", "Connections to an endpoint now.", |one| one.connections.load(Ordering::Relaxed)),
    row(Counter, "backend_ejections", "How often an endpoint was left out after failures.", |one| one.health.ejected()),
    row(Gauge, "backend_endpoint_healthy", "Whether an endpoint gets requests.", |one| {
        u64::from(one.health.is_good(clock::now()))
    }),
];

/// Writes the page.
pub(super) fn write(plan: &Plan, workers: &[&Shared], out: &mut Exposition) {
    of_workers(plan, workers, out);
    of_routes(plan, out);
    of_filters(plan, out);
    let mut latency = out.histogram("request_duration_seconds", "From a request's first byte to its answer's last.");
    for route in &plan.routes {
        let (bounds, counts, sum) = total(route.counters.iter().map(|one| &one.latency));
        let exemplars = exemplars(route.counters.iter().map(|one| &one.exemplars));
        latency.histogram_with(&[("route", &route.name)], &bounds, &counts, sum, &exemplars);
    }
    let mut phases = out.histogram("phase_duration_seconds", "The latency ledger: where the time of requests went.");
    for (index, name) in NAMES.iter().enumerate() {
        let (bounds, counts, sum) = total(workers.iter().map(|worker| &worker.phases.histograms[index]));
        phases.histogram(&[("phase", name)], &bounds, &counts, sum);
    }
    of_backends(plan, out);
}

fn of_workers(plan: &Plan, workers: &[&Shared], out: &mut Exposition) {
    tell(&OF_WORKERS, &[(Vec::new(), workers.to_vec())], out);
    if let Some(log) = &plan.log {
        out.counter("access_log_dropped_lines", "Lines the log's reader was too slow for.")
            .sample(&[], log.writer.dropped());
        out.counter("access_log_left_out_lines", "Lines left out by `oneIn` and `linesPerSecond`.")
            .sample(&[], workers.iter().map(|worker| worker.unlogged.value()).sum());
    }
    if plan.tracing.is_some() {
        out.counter("spans_exported", "Spans the collector has taken.").sample(&[], daemon::span::exported());
        out.counter("spans_dropped", "Spans given up: the queue was full, or the collector did not take them.")
            .sample(&[], daemon::span::dropped());
    }
}

/// By the first digit of the status.
const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

fn of_routes(plan: &Plan, out: &mut Exposition) {
    let mut requests = out.counter("requests", "Answered requests by route and class of status.");
    for route in &plan.routes {
        for (class, name) in CLASSES.iter().enumerate() {
            let value: u64 = route.counters.iter().map(|one| one.answers[class].value()).sum();
            // What there is most of is shown from the beginning, so that rates can be computed.
            if value > 0 || *name == "2xx" {
                requests.sample(&[("route", &route.name), ("status", name)], value);
            }
        }
    }
    let by_route = plan.routes.iter().map(|route| (vec![("route", &*route.name)], route.counters.iter().collect()));
    tell(&OF_ROUTES, &by_route.collect::<Vec<_>>(), out);
}

fn of_filters(plan: &Plan, out: &mut Exposition) {
    let (mut standing, mut decided) = (Vec::new(), Vec::new());
    for (route, place, gate) in crate::build::filter::gates(&plan.routes) {
        let place = place.to_string();
        gate.gauge(&mut |what, value| standing.push((route, place.clone(), what.to_owned(), value)));
        gate.count(&mut |rule, decision, count| {
            decided.push((route, place.clone(), rule.to_owned(), decision.to_owned(), count));
        });
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
}

fn names<'a>((backend, endpoint): (&'a Backend, &'a Endpoint)) -> Vec<(&'a str, &'a str)> {
    vec![("backend", &backend.name), ("endpoint", &endpoint.name)]
}

fn of_backends(plan: &Plan, out: &mut Exposition) {
    let endpoints: Vec<(&Backend, &Endpoint)> =
        plan.backends.iter().flat_map(|backend| backend.endpoints.iter().map(|one| (&**backend, &**one))).collect();
    let tries = endpoints.iter().map(|one| (names(*one), one.1.counters.iter().collect()));
    tell(&OF_TRIES, &tries.collect::<Vec<_>>(), out);
    let backends = plan.backends.iter().map(|one| (vec![("backend", &*one.name)], vec![&**one]));
    tell(&OF_BACKENDS, &backends.collect::<Vec<_>>(), out);
    let each = endpoints.iter().map(|one| (names(*one), vec![one.1]));
    tell(&OF_ENDPOINTS, &each.collect::<Vec<_>>(), out);
    let mut answers = out.histogram(
        "backend_duration_seconds",
        "From a try's beginning, or the request's last byte if that comes later, to the answer's head.",
    );
    for one in &endpoints {
        let (bounds, counts, sum) = total(one.1.counters.iter().map(|one| &one.latency));
        answers.histogram(&names(*one), &bounds, &counts, sum);
    }
}

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
