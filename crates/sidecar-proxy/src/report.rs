//! What others are shown: readiness, metrics, the slowest requests.

use std::fmt::Write as _;

use daemon::health::Report;
use daemon::metrics::Exposition;
use dataplane::clock;
use dataplane::ledger::NAMES;

use crate::program::{Inner, lock};

mod metrics;

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
        // Before the server is locked: whoever makes a plan locks both in this order.
        let plan = self.plan();
        let server = lock(&self.server);
        let workers: Vec<_> = server.iter().flat_map(|server| &server.workers).map(|worker| &**worker).collect();
        metrics::write(&plan, &workers, out);
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
