//! The program's life: build, serve, reload, drain.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use daemon::config::{Decoder, Loaded};
use daemon::health::Report;
use daemon::metrics::Exposition;
use daemon::program::{Ending, Flag};
use daemon::{BuildError, Context, Drain, Exit, Program, Sandbox, error, info, warn};
use dataplane::clock;
use dataplane::plan::Plan;
use dataplane::server::Server;
use tokio::sync::Notify;

use crate::build::{self, Kept};
use crate::command;
use crate::config::{Spec, check};
use crate::probe::LOOK;

/// What a listener's socket is called when it is handed over, before its address.
const LISTENER: &str = "listener ";

#[derive(Debug)]
pub struct Proxy {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    state: Mutex<State>,
    pub(crate) server: Mutex<Option<Server>>,
    /// Addresses that have been announced in the log.
    listening: Mutex<Vec<String>>,
    /// The sockets are closed, or another process has them.
    handed_over: AtomicBool,
}

#[derive(Debug)]
pub(crate) struct State {
    spec: Arc<Spec>,
    /// As counted when the document was read: there may be more CPUs now, but counters have no room for them.
    workers: usize,
    kept: Kept,
    /// What the plan's files were before it was built from them: whatever has changed since then is seen.
    files: Arc<Files>,
    pub(crate) plan: Arc<Plan>,
}

/// What a new plan is for.
#[derive(Clone, Copy, Debug)]
enum Why<'a> {
    /// Another document.
    Document(&'a Spec),
    /// The document's files have changed.
    Files,
    /// Endpoints have been found.
    Endpoints,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    fn build(spec: Spec, mut kept: Kept) -> Result<Inner, BuildError> {
        let workers = build::workers(&spec);
        let files = Arc::new(Files::default().now(&spec));
        let plan = Arc::new(build::build(&spec, workers, &mut kept)?);
        let spec = Arc::new(spec);
        let state = Mutex::new(State { spec, workers, kept, files, plan });
        let (server, listening, handed_over) = (Mutex::default(), Mutex::default(), AtomicBool::new(false));
        Ok(Inner { state, server, listening, handed_over })
    }

    /// Builds a plan and goes over to it; on an error nothing has changed.
    fn renew(&self, why: Why<'_>) -> Result<(), BuildError> {
        self.renew_by(why, |workers, plan| match &mut *lock(&self.server) {
            Some(server) => server.apply(workers, plan),
            None => Ok(()),
        })?;
        self.announce();
        Ok(())
    }

    /// As [`Inner::renew`]. `apply` tells the workers before anybody can make another plan, so that none overtakes a newer one.
    fn renew_by(
        &self,
        why: Why<'_>,
        apply: impl FnOnce(usize, &Arc<Plan>) -> std::io::Result<()>,
    ) -> Result<(), BuildError> {
        let mut guard = lock(&self.state);
        if self.handed_over.load(Ordering::Relaxed) {
            // It would listen again.
            return Ok(());
        }
        let state = &mut *guard;
        let (spec, workers) = match why {
            Why::Document(spec) => (spec, build::workers(spec)),
            Why::Files | Why::Endpoints => (&*state.spec, state.workers),
        };
        let files = match why {
            Why::Endpoints => Arc::clone(&state.files),
            // What is missing cannot be built from, and is a change when it is back.
            Why::Document(_) | Why::Files => Arc::new(Files::default().now(spec)),
        };
        let built = match why {
            Why::Endpoints => build::refresh(spec, &state.plan, &mut state.kept),
            Why::Document(_) | Why::Files => build::build(spec, workers, &mut state.kept),
        };
        if let Why::Files = why {
            // Also if they are no good: that is said once.
            state.files = Arc::clone(&files);
        }
        let plan = Arc::new(built?);
        if let Why::Document(spec) = why {
            (state.spec, state.workers, state.files) = (Arc::new(spec.clone()), workers, files);
        }
        state.plan = Arc::clone(&plan);
        apply(workers, &plan).map_err(|error| BuildError::new("the workers; some have gone over", error))
    }

    /// Says where new listeners are.
    fn announce(&self) {
        let plan = self.plan();
        let mut known = lock(&self.listening);
        known.retain(|address| plan.listeners.iter().any(|one| one.address == *address));
        for listener in &plan.listeners {
            if known.contains(&listener.address) {
                continue;
            }
            known.push(listener.address.clone());
            let bound = listener.socket.upgrade().and_then(|socket| dataplane::sock::local_address(&socket));
            let address = bound.map_or_else(|| listener.address.clone(), |address| address.to_string());
            info!("listening", listener = listener.name, at = address, tls = listener.tls.is_some());
        }
    }

    fn begin_to_end(&self, deadline: Instant, stays: bool, handed_over: bool) {
        if handed_over {
            self.handed_over.store(true, Ordering::Relaxed);
            lock(&self.state).kept.forget_sockets();
        }
        if let Some(server) = &mut *lock(&self.server) {
            let left = deadline.saturating_duration_since(Instant::now());
            let at = clock::now() + u64::try_from(left.as_nanos()).unwrap_or(u64::MAX / 2);
            if handed_over { server.retire() } else { server.drain(at, stays) }
        }
    }

    /// Nobody new is let in; what is there goes on to its end.
    fn close(&self) {
        // First of all here: then the sockets are closed by the workers, when each has let in who was waiting.
        let mut state = lock(&self.state);
        self.handed_over.store(true, Ordering::Relaxed);
        state.kept.forget_sockets();
        drop(state);
        if let Some(server) = &*lock(&self.server) {
            server.close();
        }
    }

    pub(crate) fn plan(&self) -> Arc<Plan> {
        Arc::clone(&lock(&self.state).plan)
    }

    /// Whether any of the plan's files is another than the plan was built from.
    fn have_files_changed(&self) -> bool {
        let state = lock(&self.state);
        let (spec, files) = (Arc::clone(&state.spec), Arc::clone(&state.files));
        drop(state);
        files.now(&spec) != *files
    }
}

impl Program for Proxy {
    const NAME: &'static str = "outrigger-proxy";
    const METRICS: &'static str = "outrigger_proxy";
    const KIND: &'static str = "Proxy";
    const ABOUT: &'static str =
        "routes, balances, terminates TLS, and says where the time went (`outrigger-proxy trace`)";
    const ADMIN_PORT: u16 = 7612;
    const FLAGS: &'static [Flag] = &[
        Flag { name: "listen", value: "ADDRESS", help: "listen here, such as :8080 (:7602); may be repeated" },
        Flag { name: "to", value: "ENDPOINT", help: "host:port or unix:/path of the application; may be repeated" },
        Flag { name: "tls-cert", value: "FILE", help: "serve TLS with this PEM chain" },
        Flag { name: "tls-key", value: "FILE", help: "and this PEM key" },
        Flag { name: "access-log", value: "FORMAT", help: "text or json, to standard output (none)" },
    ];
    const COMMANDS: &'static [(&'static str, &'static str)] = command::COMMANDS;
    const HANDS_OVER: bool = true;
    type Spec = Spec;

    fn spec_of_flags(flags: &BTreeMap<&'static str, Vec<String>>) -> Result<serde_json::Value, String> {
        use serde_json::json;
        let all = |name: &str| flags.get(name).cloned().unwrap_or_default();
        let last = |name: &str| flags.get(name).and_then(|values| values.last());
        if all("to").is_empty() {
            return Err("needs --to ENDPOINT or --config FILE; see --help".to_owned());
        }
        let mut addresses = all("listen");
        if addresses.is_empty() {
            addresses.push(":7602".to_owned());
        }
        let tls = match (last("tls-cert"), last("tls-key")) {
            (Some(cert), Some(key)) => Some(json!({ "certificates": [{ "certFile": cert, "keyFile": key }] })),
            (None, None) => None,
            _ => return Err("--tls-cert and --tls-key belong together".to_owned()),
        };
        let listeners = addresses.iter().enumerate().map(|(index, address)| {
            let name = if index == 0 { "http".to_owned() } else { format!("http-{}", index + 1) };
            let mut listener = json!({ "name": name, "address": address });
            if let Some(tls) = &tls {
                listener["tls"] = tls.clone();
            }
            listener
        });
        let mut spec = json!({
            "listeners": listeners.collect::<Vec<_>>(),
            "routes": [{ "name": "all", "backends": [{ "name": "app" }] }],
            "backends": [{ "name": "app", "endpoints": all("to") }],
        });
        match last("access-log").map(String::as_str) {
            None => {}
            Some(format @ ("text" | "json")) => spec["accessLog"] = json!({ "format": format }),
            Some(other) => return Err(format!("--access-log: `{other}` is not text or json")),
        }
        Ok(spec)
    }

    fn check(spec: &Spec, decoder: &mut Decoder) {
        check(spec, decoder);
    }

    fn adopt(loaded: &mut Loaded<Spec>, others: &[daemon::config::tree::Node], decoder: &mut Decoder) {
        crate::gateway::adopt(loaded, others, decoder);
    }

    fn sandbox(loaded: &Loaded<Spec>) -> Option<Sandbox> {
        Some(Sandbox { writes: build::writes(&loaded.spec) })
    }

    fn build(loaded: &Loaded<Spec>, context: &Context) -> Result<Proxy, BuildError> {
        let spec = loaded.spec.clone();
        let kept = Kept::new(context.memory_limit, context.descriptors, context.inherited.take_all(LISTENER));
        Ok(Proxy { inner: Arc::new(Inner::build(spec, kept)?) })
    }

    fn reload(&self, loaded: &Loaded<Spec>, _: &Context) -> Result<(), BuildError> {
        self.inner.renew(Why::Document(&loaded.spec))
    }

    fn sockets(&self) -> Vec<(String, OwnedFd)> {
        let state = lock(&self.inner.state);
        let cloned = state.kept.sockets().filter_map(|(address, socket)| {
            let clone = socket.try_clone().inspect_err(|error| {
                warn!("a listener is not handed over", address = address, reason = error);
            });
            Some((format!("{LISTENER}{address}"), clone.ok()?))
        });
        cloned.collect()
    }

    async fn serve(&self, mut drain: Drain) -> Ending {
        let ended = Arc::new(Notify::new());
        let for_workers = Arc::clone(&ended);
        let (workers, plan) = {
            let state = lock(&self.inner.state);
            (state.workers, Arc::clone(&state.plan))
        };
        let started = Server::start(workers, &plan, move || for_workers.notify_one());
        match started {
            Ok(server) => *lock(&self.inner.server) = Some(server),
            Err(error) => {
                return Ending { exit: Exit::Failure, message: format!("failed to start the workers: {error}") };
            }
        }
        self.inner.announce();
        self.keep_up();
        let mut begun = false;
        // When the last may come, once the drain has begun.
        let mut open_until = None;
        loop {
            let last_call = async {
                match open_until {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            // Cancelling any of these is safe: they only say that there is something to look at.
            let deadline = tokio::select! {
                deadline = drain.next() => Some(deadline),
                () = ended.notified() => None,
                () = last_call => {
                    open_until = None;
                    self.inner.close();
                    continue;
                }
            };
            if let Some(deadline) = deadline {
                self.inner.begin_to_end(deadline, drain.open_until().is_some(), !begun && drain.is_handed_over());
                begun = true;
                if !drain.is_handed_over() {
                    let now = Instant::now();
                    // Clients that never stop coming must leave time for those that are there.
                    let half = now + deadline.saturating_duration_since(now) / 2;
                    open_until = Some(drain.open_until().unwrap_or(half).into());
                }
            }
            let server = lock(&self.inner.server);
            let Some(server) = &*server else { break };
            // A worker never ends by itself.
            if server.has_failed() || begun && !server.is_running() {
                break;
            }
        }
        let Some(server) = lock(&self.inner.server).take() else {
            return Ending { exit: Exit::Failure, message: "the workers are gone".to_owned() };
        };
        if server.is_running() {
            // The others would go on for ever; the process ends without them.
            return Ending { exit: Exit::Failure, message: "a worker ended".to_owned() };
        }
        let joined = server.join();
        if let Some(log) = &self.inner.plan().log {
            log.writer.flush();
        }
        match joined {
            Ok(0) => Ending { exit: Exit::Success, message: "drained: every connection has ended".to_owned() },
            Ok(cut) => Ending {
                exit: Exit::Incomplete,
                message: format!("the drain's time was over: {cut} connection(s) cut"),
            },
            Err(error) => Ending { exit: Exit::Failure, message: format!("a worker failed: {error}") },
        }
    }

    fn ready(&self, report: &mut Report) {
        self.inner.ready(report);
    }

    fn metrics(&self, out: &mut Exposition) {
        self.inner.metrics(out);
    }

    fn command(name: &str, arguments: Vec<OsString>) -> ExitCode {
        command::run(name, arguments)
    }

    fn page(&self, path: &str) -> Option<String> {
        (path == "/trace").then(|| self.inner.trace())
    }
}

impl Proxy {
    /// Looks at certificates from time to time, and takes over endpoints that have been found.
    fn keep_up(&self) {
        let inner = Arc::downgrade(&self.inner);
        let builder = thread::Builder::new().name("keeper".to_owned()).stack_size(128 << 10);
        let spawned = builder.spawn(move || {
            let mut found = false;
            loop {
                let Some(inner) = inner.upgrade().filter(|inner| !inner.handed_over.load(Ordering::Relaxed)) else {
                    return;
                };
                let files = inner.have_files_changed();
                // One does not hold the other back.
                if found {
                    match inner.renew(Why::Endpoints) {
                        Ok(()) => info!("endpoints taken over"),
                        Err(error) => {
                            error!("endpoints not taken over; the old ones go on", reason = daemon::log::chain(&error));
                        }
                    }
                }
                if files {
                    match inner.renew(Why::Files) {
                        Ok(()) => info!("certificates or addresses taken over"),
                        Err(error) => {
                            error!(
                                "certificates or addresses not taken over; the old ones go on",
                                reason = daemon::log::chain(&error)
                            );
                        }
                    }
                }
                let state = lock(&inner.state);
                let bell = Arc::clone(&state.kept.watches.bell);
                // Without files only a reload can change that, and it reads everything itself.
                let pause = if build::files(&state.spec).is_empty() { 10 * LOOK } else { LOOK };
                drop(state);
                drop(inner);
                found = bell.wait(pause);
            }
        });
        if let Err(error) = spawned {
            error!("certificates and names are not looked at again", reason = error);
        }
    }
}

/// What files say.
#[derive(Debug, Default, PartialEq, Eq)]
struct Files(HashMap<PathBuf, Vec<u8>>);

impl Files {
    /// The document's files as they are now. One that is missing for a moment, in the middle of a swap, is what it was.
    fn now(&self, spec: &Spec) -> Files {
        let text = |path: &PathBuf| std::fs::read(path).ok().or_else(|| self.0.get(path).cloned());
        Files(build::files(spec).into_iter().filter_map(|path| text(&path).map(|text| (path, text))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_changes_behind_the_plan_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let list = directory.path().join("list");
        std::fs::write(&list, "192.0.2.0/24").unwrap();
        let text = format!(
            "apiVersion: outrigger.dev/v1alpha1
kind: Proxy
spec:
  listeners: [{{name: http, address: '127.0.0.1:0'}}]
  routes:
  - name: all
    backends: [{{name: app}}]
    filters: [{{rules: [{{name: a, action: deny, networksFile: {}}}]}}]
  backends: [{{name: app, endpoints: ['127.0.0.1:1']}}]
",
            list.display()
        );
        let spec = daemon::config::load::<Spec>(&text, "Proxy", check).unwrap().spec;
        let inner = Inner::build(spec.clone(), Kept::new(None, u64::MAX, Vec::new())).unwrap();
        let changed = |list: &PathBuf, text: &str| {
            std::fs::write(list, text).unwrap();
            inner.have_files_changed()
        };
        assert!(!inner.have_files_changed() && changed(&list, "198.51.100.0/24"));
        inner.renew_by(Why::Document(&spec), |_, _| Ok(())).unwrap();
        assert!(!inner.have_files_changed() && changed(&list, "192.0.2.0/24"));
        inner.renew_by(Why::Endpoints, |_, _| Ok(())).unwrap();
        assert!(inner.have_files_changed(), "nothing was read again");
        inner.renew_by(Why::Files, |_, _| Ok(())).unwrap();
        assert!(!inner.have_files_changed());
        // What is no good is said once, and what is not there is what it was.
        assert!(changed(&list, "nobody"));
        let _ = inner.renew_by(Why::Files, |_, _| Ok(()));
        assert!(!inner.have_files_changed());
        std::fs::remove_file(&list).unwrap();
        assert!(!inner.have_files_changed());
    }

    #[test]
    fn no_plan_is_made_before_the_last_has_been_applied() {
        let text = "apiVersion: outrigger.dev/v1alpha1
kind: Proxy
spec:
  listeners: [{name: http, address: '127.0.0.1:0'}]
  routes: [{name: all, backends: [{name: app}]}]
  backends: [{name: app, endpoints: ['127.0.0.1:1']}]
";
        let loaded = daemon::config::load::<Spec>(text, "Proxy", check).unwrap();
        let inner = Inner::build(loaded.spec.clone(), Kept::new(None, u64::MAX, Vec::new())).unwrap();
        for why in [Why::Document(&loaded.spec), Why::Files, Why::Endpoints] {
            let mut applied = false;
            let apply = |_, _: &Arc<Plan>| {
                applied = true;
                assert!(inner.state.try_lock().is_err());
                Ok(())
            };
            inner.renew_by(why, apply).unwrap();
            assert!(applied);
        }
    }
}
