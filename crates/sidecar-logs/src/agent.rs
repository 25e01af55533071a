//! The program: one thread that reads and keeps the books, one per sink, and the runtime's for everybody who asks.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use daemon::config::{Decoder, Loaded};
use daemon::health::Report;
use daemon::metrics::Exposition;
use daemon::program::{Ending, Flag};
use daemon::{BuildError, Context, Drain, Exit, Program, Sandbox, error, info, warn};
use record::Queue;
use record::deliver::{Delivery, Event, Status};
use record::queue::Depth;
use rustix::fs::{FlockOperation, flock};

use crate::checkpoint::{Checkpoint, Store};
use crate::config::{Spec, Spooling, check};
use crate::follow::open::Place;
use crate::follow::{Follower, Start, positions};
use crate::receipt::Receipt;
use crate::stages::Counts;
use crate::tap::{Point, Tap};
use crate::watch::{Waker, Watch};
use crate::wiring::{Parts, SinkParts, build};

/// A turn that brought less than this is followed by a short rest, so that many small writes become one look.
const SMALL: usize = 64 * 1024;
const REST: Duration = Duration::from_millis(4);
/// Between two notes of what was acknowledged, at least; and noting takes no more than a twentieth of the time.
const NOTE: Duration = Duration::from_millis(5);
/// How long a reload waits for the receivers if there is no spool.
const WITHOUT_SPOOL: Duration = Duration::from_secs(5);
/// Between two updates of what others see.
const SHOW: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub struct Logs {
    shared: Arc<Shared>,
}

/// Seen by the reading thread and by whoever asks.
#[derive(Debug)]
struct Shared {
    /// Parts that wait to take over.
    next: Mutex<Option<Parts>>,
    /// What the running parts have open that is no file.
    places: Mutex<Vec<Place>>,
    waker: Mutex<Option<Waker>>,
    deadline: Mutex<Option<Instant>>,
    draining: AtomicBool,
    started: AtomicBool,
    seen: Mutex<Seen>,
    tap: Arc<Tap>,
}

#[derive(Debug, Default)]
struct Seen {
    receipt: Receipt,
    depth: Depth,
    sinks: Vec<(String, Arc<Status>)>,
    save_error: Option<String>,
    counts: Option<Arc<Counts>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn wake(&self) {
        if let Some(waker) = &*lock(&self.waker) {
            waker.wake();
        }
    }
}

impl Program for Logs {
    const NAME: &'static str = "outrigger-logs";
    const METRICS: &'static str = "outrigger_logs";
    const KIND: &'static str = "LogAgent";
    const ABOUT: &'static str = "delivers every line of a pod's log files";
    const ADMIN_PORT: u16 = 7610;
    const FLAGS: &'static [Flag] = &[
        Flag { name: "file", value: "GLOB", help: "follow these files; may be repeated; `-` is standard input" },
        Flag { name: "fifo", value: "PATH", help: "read this named pipe" },
        Flag { name: "format", value: "FORMAT", help: "plain, cri or json (plain)" },
        Flag { name: "to", value: "TARGET", help: "`stdout`, a path, or an http(s) URL; may be repeated" },
        Flag { name: "state", value: "DIRECTORY", help: "positions and spool (/var/lib/outrigger/logs)" },
    ];
    const COMMANDS: &'static [(&'static str, &'static str)] = crate::command::COMMANDS;
    type Spec = Spec;

    fn command(name: &str, arguments: Vec<OsString>) -> ExitCode {
        crate::command::run(name, arguments)
    }

    fn sandbox(loaded: &Loaded<Spec>) -> Option<Sandbox> {
        Some(Sandbox { writes: crate::wiring::writes(&loaded.spec) })
    }

    fn stream(&self, path: &str, query: &str) -> Option<tokio::sync::mpsc::Receiver<bytes::Bytes>> {
        let point = Point::parse(query.strip_prefix("at=").unwrap_or("staged"))?;
        if path == "/-/tap" { self.shared.tap.listen(point) } else { None }
    }

    fn spec_of_flags(flags: &BTreeMap<&'static str, Vec<String>>) -> Result<serde_json::Value, String> {
        use serde_json::json;
        let all = |name: &str| flags.get(name).cloned().unwrap_or_default();
        let last = |name: &str| flags.get(name).and_then(|values| values.last());
        let mut source = match (all("file").as_slice(), last("fifo")) {
            ([], None) => return Err("needs --file GLOB, --fifo PATH or --config FILE; see --help".to_owned()),
            ([only], None) if only == "-" => json!({ "name": "stdin", "stdin": {} }),
            (files, None) => json!({ "name": "files", "files": { "include": files } }),
            ([], Some(path)) => json!({ "name": "fifo", "fifo": { "path": path } }),
            _ => return Err("--file and --fifo exclude each other".to_owned()),
        };
        match last("format").map(String::as_str) {
            None | Some("plain") => {}
            Some("json") => source["parse"] = json!("json"),
            Some("cri") => source["format"] = json!("cri"),
            Some(other) => return Err(format!("--format: `{other}` is not plain, cri or json")),
        }
        let mut targets = all("to");
        if targets.is_empty() {
            targets.push("stdout".to_owned());
        }
        let sinks = targets.iter().enumerate().map(|(index, target)| {
            let to = match target.as_str() {
                "stdout" => json!({ "stdout": {} }),
                url if url.starts_with("http://") || url.starts_with("https://") => json!({ "http": { "url": url } }),
                path => json!({ "file": { "path": path } }),
            };
            json!({ "name": format!("to-{}", index + 1), "to": to })
        });
        let mut spec = json!({ "sources": [source], "sinks": sinks.collect::<Vec<_>>() });
        if let Some(directory) = last("state") {
            spec["state"] = json!({ "directory": directory });
        }
        Ok(spec)
    }

    fn check(spec: &Spec, decoder: &mut Decoder) {
        check(spec, decoder);
    }

    fn build(loaded: &Loaded<Spec>, context: &Context) -> Result<Logs, BuildError> {
        let parts = build(&loaded.spec, context.memory_limit)?;
        Ok(Logs {
            shared: Arc::new(Shared {
                next: Mutex::new(Some(parts)),
                places: Mutex::default(),
                waker: Mutex::new(None),
                deadline: Mutex::new(None),
                draining: AtomicBool::new(false),
                started: AtomicBool::new(false),
                seen: Mutex::default(),
                tap: Arc::default(),
            }),
        })
    }

    fn reload(&self, loaded: &Loaded<Spec>, context: &Context) -> Result<(), BuildError> {
        let shared = &self.shared;
        let swap = || -> Result<(), BuildError> {
            let mut parts = build(&loaded.spec, context.memory_limit)?;
            parts.open_streams(&lock(&shared.places))?;
            *lock(&shared.next) = Some(parts);
            shared.wake();
            Ok(())
        };
        // Sinks bring a runtime of their own, and none may be dropped inside of another: neither by what refuses here
        // nor by parts that never got their turn.
        thread::scope(|scope| scope.spawn(swap).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    async fn serve(&self, mut drain: Drain) -> Ending {
        let (sender, mut receiver) = tokio::sync::oneshot::channel();
        let shared = Arc::clone(&self.shared);
        let spawned = thread::Builder::new().name("reader".to_owned()).spawn(move || {
            // Nobody waits for the answer once the program ends some other way.
            let _ = sender.send(work(&shared));
        });
        if let Err(error) = spawned {
            return Ending { exit: Exit::Failure, message: format!("failed to start the reader: {error}") };
        }
        let lost = || Ending { exit: Exit::Failure, message: "the reader ended unexpectedly".to_owned() };
        tokio::select! {
            ending = &mut receiver => ending.unwrap_or_else(|_| lost()),
            deadline = drain.begun() => {
                *lock(&self.shared.deadline) = Some(deadline);
                self.shared.draining.store(true, Ordering::Release);
                self.shared.wake();
                receiver.await.unwrap_or_else(|_| lost())
            }
        }
    }

    fn ready(&self, report: &mut Report) {
        let started = self.shared.started.load(Ordering::Acquire);
        report.check("following", (!started).then_some("not started yet"));
        let seen = lock(&self.shared.seen);
        report.check("positions", seen.save_error.as_deref());
        report.check("spool", seen.depth.spool_error.as_deref());
        for (name, status) in &seen.sinks {
            // A receiver that is down is no reason to restart or hide this pod: records wait on disk.
            match status.failing() {
                None => report.note(format!("[+]sink {name} ok")),
                Some((time, reason)) => {
                    report.note(format!("[!]sink {name} failing for {}s: {reason}", time.as_secs()))
                }
            }
        }
        for line in &seen.receipt.lines {
            let (path, gone) = (line.path.display(), if line.gone { " (gone)" } else { "" });
            report.note(format!(
                "{path}{gone}: written {} read {} acknowledged {}",
                line.written, line.read, line.acknowledged
            ));
        }
        report.note(seen.receipt.to_string());
    }

    fn metrics(&self, out: &mut Exposition) {
        let seen = lock(&self.shared.seen);
        let receipt = &seen.receipt;
        out.gauge("files", "Files being followed.").sample(&[], receipt.lines.len() as u64);
        out.counter("files_finished", "Files read to their end, acknowledged and let go.")
            .sample(&[], receipt.finished);
        out.counter("written_bytes", "Bytes in the files.").sample(&[], receipt.written());
        out.counter("read_bytes", "Bytes turned into records.").sample(&[], receipt.read());
        out.counter("acknowledged_bytes", "Bytes that every sink has acknowledged.")
            .sample(&[], receipt.acknowledged());
        out.counter("truncated_unseen", "Truncations that took text nobody had read.")
            .sample(&[], receipt.truncated_unseen);
        out.counter("lost_bytes", "Bytes known to be lost at the source.").sample(&[], receipt.lost_bytes);
        let mut each = |name: &str, help: &str, value: fn(&crate::receipt::Line) -> u64| {
            let mut family = out.gauge(name, help);
            for line in &receipt.lines {
                let (path, id) = (line.path.to_string_lossy(), line.id.to_string());
                family.sample(&[("file", &path), ("origin", &id)], value(line));
            }
        };
        each("file_written_bytes", "Bytes in the file.", |line| line.written);
        each("file_read_bytes", "Bytes of the file turned into records.", |line| line.read);
        each("file_acknowledged_bytes", "Bytes of the file that every sink has acknowledged.", |line| {
            line.acknowledged
        });
        out.gauge("queue_memory_bytes", "Records in memory.").sample(&[], seen.depth.memory_bytes);
        out.gauge("spool_bytes", "Records on disk.").sample(&[], seen.depth.spool_bytes);
        out.gauge("queue_batches", "Batches not acknowledged by every sink.").sample(&[], seen.depth.waiting);
        let mut by_sink = |name: &str, help: &str, value: fn(&Status) -> u64| {
            let mut family = out.counter(name, help);
            for (sink, status) in &seen.sinks {
                family.sample(&[("sink", sink)], value(status));
            }
        };
        by_sink("sink_records", "Records delivered.", |status| status.records.load(Ordering::Relaxed));
        by_sink("sink_requests", "Deliveries tried.", |status| status.requests.load(Ordering::Relaxed));
        by_sink("sink_retries", "Deliveries that failed and were tried again.", |s| s.retries.load(Ordering::Relaxed));
        by_sink("sink_dead_records", "Records refused for good.", |status| status.dead.load(Ordering::Relaxed));
        let mut failing = out.gauge("sink_failing", "Whether deliveries fail at present.");
        for (sink, status) in &seen.sinks {
            failing.sample(&[("sink", sink)], u64::from(status.failing().is_some()));
        }
        if let Some(counts) = &seen.counts {
            counts.metrics(out);
        }
    }
}

/// Why one run of the parts ended.
enum Next {
    Swap(Box<Parts>),
    Done(Ending),
}

fn work(shared: &Arc<Shared>) -> Ending {
    let Some(mut parts) = lock(&shared.next).take() else {
        return Ending { exit: Exit::Failure, message: "nothing to run".to_owned() };
    };
    loop {
        let failed = |message: String| Next::Done(Ending { exit: Exit::Failure, message });
        match Run::start(parts, shared).map_or_else(failed, |run| run.go(shared)) {
            Next::Swap(next) => parts = *next,
            Next::Done(ending) => return ending,
        }
    }
}

/// Parts at work.
struct Run {
    follower: Follower,
    queue: Arc<Queue>,
    sinks: Vec<JoinHandle<()>>,
    settings: Settings,
    store: Store,
    /// Held for as long as the state directory is ours.
    _lock: std::fs::File,
    last_save: Instant,
    last_show: Instant,
    saved: Option<Checkpoint>,
    noted: Noted,
}

/// What was written down last without waiting for the disk.
struct Noted {
    through: u64,
    at: Instant,
    /// Until the next one; many files make it longer.
    pause: Duration,
}

struct Settings {
    save_every: Duration,
    settle: Duration,
    reserve: Duration,
}

impl Run {
    fn start(parts: Parts, shared: &Arc<Shared>) -> Result<Run, String> {
        *lock(&shared.places) = parts.places();
        let directory = &parts.directory;
        let guard = claim(directory)?;
        let mut store = Store::new(directory);
        let checkpoint = store.load().map_err(|error| daemon::log::chain(&error))?;
        let names: Vec<String> = parts.sinks.iter().map(|sink| sink.name.clone()).collect();
        let saved = checkpoint.as_ref().map(|checkpoint| positions(checkpoint, &names)).unwrap_or_default();
        // A spool left by an earlier configuration is delivered whatever this one says.
        let spool = directory.join("spool");
        let wanted = parts.spool != Spooling::Off || spool.exists();
        let (queue, recovered) = Queue::open(
            parts.limits,
            names.len(),
            wanted.then_some(spool.as_path()),
            parts.spool == Spooling::Always,
            saved,
        )
        .map_err(|error| format!("failed to open the spool {}: {error}", spool.display()))?;
        let (watch, refused) = Watch::new().map_err(|error| format!("failed to make an event descriptor: {error}"))?;
        if let Some(error) = refused {
            warn!("no file events, polling instead", reason = error);
        }
        *lock(&shared.waker) = Some(watch.waker());
        let statuses = parts.sinks.iter().map(|sink| (sink.name.clone(), Arc::clone(&sink.status))).collect();
        lock(&shared.seen).sinks = statuses;
        let sinks = parts.sinks.into_iter().enumerate().map(|(index, sink)| deliver(sink, index, &queue));
        let sinks = sinks.collect::<Result<Vec<_>, _>>()?;
        lock(&shared.seen).counts = Some(parts.stages.counts());
        let mut stages = parts.stages;
        stages.set_tap(Arc::clone(&shared.tap));
        let start = Start { stages, checkpoint, recovered, sinks: names, scratch: directory.clone() };
        let waker = watch.waker();
        queue.on_progress(move || waker.wake());
        let settings = Settings { save_every: parts.save_every, settle: parts.settle, reserve: parts.reserve };
        let mut follower = Follower::new(parts.sources, Arc::clone(&queue), watch, start);
        follower.open_streams(parts.streams).map_err(|error| daemon::log::chain(&error))?;
        let now = Instant::now();
        Ok(Run {
            follower,
            queue,
            sinks,
            settings,
            store,
            _lock: guard,
            last_save: now,
            last_show: now,
            saved: None,
            noted: Noted { through: 0, at: now, pause: NOTE },
        })
    }

    fn go(mut self, shared: &Shared) -> Next {
        self.follower.scan();
        // From here on no restart can take a file for older than it is.
        self.save(shared);
        shared.started.store(true, Ordering::Release);
        loop {
            self.follower.scan_if_due();
            let (bytes, blocked) = self.follower.read_all(false);
            self.keep_books(shared);
            if shared.draining.load(Ordering::Acquire) || self.follower.is_over() {
                return Next::Done(self.drain(shared));
            }
            if lock(&shared.next).is_some() {
                return self.swap(shared);
            }
            if bytes == 0 && !blocked {
                let mut patience = self.follower.patience().min(self.settings.save_every);
                if self.queue.acknowledged_through() > self.noted.through {
                    patience = patience.min(self.noted.pause);
                }
                self.follower.wait(patience);
            }
            if bytes < SMALL && !blocked {
                thread::sleep(REST);
                self.follower.wait(Duration::ZERO);
            }
        }
    }

    fn keep_books(&mut self, shared: &Shared) {
        if self.last_save.elapsed() >= self.settings.save_every {
            self.save(shared);
        } else {
            self.note();
        }
        if self.last_show.elapsed() >= SHOW {
            self.show(shared);
        }
    }

    fn show(&mut self, shared: &Shared) {
        self.last_show = Instant::now();
        let (receipt, depth) = (self.follower.receipt(), self.queue.depth());
        let mut seen = lock(&shared.seen);
        (seen.receipt, seen.depth) = (receipt, depth);
    }

    /// Writes positions down if they moved, so that a kill repeats little.
    fn note(&mut self) {
        if self.noted.at.elapsed() < self.noted.pause || self.queue.acknowledged_through() <= self.noted.through {
            return;
        }
        let snapshot = self.queue.snapshot();
        let began = Instant::now();
        let checkpoint = self.follower.checkpoint(&snapshot.positions);
        // A full disk is said when saving; here it only means that more comes again.
        let _ = self.store.note(&checkpoint);
        self.noted = Noted { through: snapshot.through, at: Instant::now(), pause: NOTE.max(began.elapsed() * 20) };
    }

    /// Saves positions if they moved, and forgets what they cover.
    fn save(&mut self, shared: &Shared) {
        self.last_save = Instant::now();
        self.follower.let_go();
        let snapshot = self.queue.snapshot();
        let checkpoint = self.follower.checkpoint(&snapshot.positions);
        let moved = !self.saved.as_ref().is_some_and(|saved| saved.is_same(&checkpoint));
        let saved = self.queue.sync().map_err(|error| format!("failed to sync the spool: {error}")).and_then(|()| {
            if !moved {
                return Ok(());
            }
            self.store.save(&checkpoint).map_err(|error| daemon::log::chain(&error))?;
            self.queue.saved(&snapshot).map_err(|error| format!("failed to shorten the spool: {error}"))?;
            self.store.reserve();
            Ok(())
        });
        let mut seen = lock(&shared.seen);
        match saved {
            Ok(()) => {
                self.saved = Some(checkpoint);
                self.noted.through = snapshot.through;
                seen.save_error = None;
            }
            Err(reason) => {
                // Nothing is lost: after a crash more would come again.
                if seen.save_error.is_none() {
                    error!("positions not saved; trying again", reason = reason);
                }
                seen.save_error = Some(reason);
            }
        }
    }

    /// To the real end of every file, then until every sink has everything, within the deadline.
    fn drain(mut self, shared: &Shared) -> Ending {
        let reserve = self.settings.reserve;
        // Without a signal (standard input has ended) there is no deadline, until one comes.
        let in_time = || {
            lock(&shared.deadline)
                .is_none_or(|deadline| Instant::now() < deadline.checked_sub(reserve).unwrap_or(deadline))
        };
        self.queue.drain();
        // Files may still grow: in a pod without native sidecars everybody gets the signal at once.
        while in_time() {
            self.follower.scan();
            self.follower.look_at_all();
            let (bytes, blocked) = self.follower.read_all(false);
            self.keep_books(shared);
            if bytes == 0 && !blocked {
                if self.follower.is_settled(self.settings.settle) {
                    break;
                }
                self.follower.wait(Duration::from_millis(10));
            }
        }
        while in_time() {
            let (bytes, blocked) = self.follower.read_all(true);
            self.keep_books(shared);
            if bytes == 0 && !blocked {
                break;
            }
        }
        while !self.queue.wait_until_empty(Duration::from_millis(20)) && in_time() {
            self.keep_books(shared);
        }
        let delivered = self.queue.wait_until_empty(Duration::ZERO);
        let kept = !delivered && self.queue.spill();
        self.queue.close();
        let receipt = self.follower.receipt();
        self.save(shared);
        self.show(shared);
        let depth = self.queue.depth();
        let mut message = receipt.to_string();
        if !delivered {
            message.push_str(&match kept {
                true => format!("; {} batch(es) kept on the spool for the next start", depth.waiting),
                false => format!("; {} batch(es) not delivered, to be read again at the next start", depth.waiting),
            });
        }
        // A sink that hangs in a request must not hold up the end; its thread goes with the process.
        if delivered {
            self.join();
        }
        let complete = delivered && receipt.balances();
        Ending { exit: if complete { Exit::Success } else { Exit::Incomplete }, message }
    }

    fn swap(mut self, shared: &Shared) -> Next {
        let Some(mut next) = lock(&shared.next).take() else {
            return Next::Done(Ending { exit: Exit::Failure, message: "nothing to run".to_owned() });
        };
        let wanted = next.places();
        self.follower.finish_streams(&wanted);
        if !self.queue.spill() && self.follower.has_streams() {
            // Without a spool, what cannot be read again is in memory alone.
            self.queue.drain();
            self.queue.wait_until_empty(WITHOUT_SPOOL);
        }
        self.queue.close();
        self.join();
        self.save(shared);
        next.streams.take_over(self.follower.hand_over(&wanted));
        Next::Swap(Box::new(next))
    }

    fn join(&mut self) {
        for sink in self.sinks.drain(..) {
            // A panic in there has been printed.
            let _ = sink.join();
        }
    }
}

fn claim(directory: &Path) -> Result<std::fs::File, String> {
    let failed = |error: std::io::Error| format!("failed to use the state directory {}: {error}", directory.display());
    std::fs::create_dir_all(directory).map_err(failed)?;
    let file = std::fs::File::create(directory.join("lock")).map_err(failed)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| format!("the state directory {} is used by another agent", directory.display()))?;
    Ok(file)
}

fn deliver(parts: SinkParts, index: usize, queue: &Arc<Queue>) -> Result<JoinHandle<()>, String> {
    let name = parts.name.clone();
    let report = Box::new(move |event| match event {
        Event::Failed(reason) => warn!("delivery fails; trying again", sink = name, reason = reason),
        Event::Recovered(time) => info!("delivery works again", sink = name, after = format_args!("{time:.1?}")),
        Event::Dead(count, reason) => error!("records refused for good", sink = name, records = count, reason = reason),
    });
    let delivery =
        Delivery { sink: parts.sink, pace: parts.pace, status: parts.status, dead_letters: parts.dead_letters, report };
    let queue = Arc::clone(queue);
    let thread = thread::Builder::new().name(format!("sink-{}", parts.name));
    thread.spawn(move || delivery.run(&queue, index)).map_err(|error| format!("failed to start a sink: {error}"))
}
