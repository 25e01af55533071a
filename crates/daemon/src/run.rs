//! The story of a program's life.

use std::cell::{Cell, RefCell};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal as ProcessSignal};
use serde_json::{Map, Value};
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, LocalSet};

use crate::admin::{self, Command, Endpoints};
use crate::args::{self, Args, Verb};
use crate::config::schema::{Presence, Schema, Shape};
use crate::config::{Document as _, Loaded, Problem, ReadError, Source, envelope, print};
use crate::drain::{Drain, Trigger};
use crate::exit::{Exit, termination_message};
use crate::hand_over::{self, Inherited, READY};
use crate::log::{self, chain};
use crate::otlp::{self, Exporter};
use crate::program::{Context, Ending, Program};
use crate::reload::Watch;
use crate::sandbox::{self, Sandbox, Walls};
use crate::{budget, error, info, warn};

/// A whole `main`.
pub fn run<P: Program>() -> ExitCode {
    let mut given = std::env::args_os().skip(1);
    if let Some(name) = given.next().and_then(|first| first.into_string().ok())
        && P::COMMANDS.iter().any(|(usage, _)| usage.split(' ').next() == Some(&name))
    {
        return P::command(&name, given.collect());
    }
    let args = match args::parse(std::env::args_os().skip(1), P::FLAGS, P::ADMIN_PORT) {
        Ok(args) => args,
        Err(message) => {
            say(&mut std::io::stderr(), &format!("{}: {message}\n", P::NAME));
            return Exit::Usage.into();
        }
    };
    if args.take_over && !P::HANDS_OVER {
        say(&mut std::io::stderr(), &format!("{}: unknown flag --take-over; see --help\n", P::NAME));
        return Exit::Usage.into();
    }
    let printed = match args.verb {
        Verb::Help => args::help::<P>(),
        Verb::Version => format!("{} {}\n", P::NAME, env!("CARGO_PKG_VERSION")),
        Verb::PrintSchema => format!("{:#}\n", envelope::schema::<P::Spec>(P::KIND)),
        Verb::PrintReference => P::Spec::schema().reference(),
        Verb::PrintDefaults => defaults::<P>(),
        Verb::Check | Verb::PrintConfig | Verb::Run => return with_config::<P>(&args).into(),
    };
    say(&mut std::io::stdout(), &printed);
    Exit::Success.into()
}

/// A reader that went away is no reason to complain.
fn say(out: &mut dyn std::io::Write, text: &str) {
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

/// The configuration's text, as `read` gets it from files.
fn text_of<P: Program>(args: &Args, read: fn(&[PathBuf]) -> Result<Source, ReadError>) -> Result<Source, String> {
    if !args.config.is_empty() {
        return read(&args.config).map_err(|error| chain(&error));
    }
    if args.flags.is_empty() {
        return Err("needs --config FILE or flags; see --help".to_owned());
    }
    let spec = P::spec_of_flags(&args.flags)?;
    let whole = serde_json::json!({ "apiVersion": envelope::API_VERSION, "kind": P::KIND, "spec": spec });
    Ok(Source::unnamed(print::yaml(&whole), "flags"))
}

fn shown(source: &Source, problems: &[Problem]) -> Vec<String> {
    problems.iter().map(|problem| format!("{}: {problem}", source.place(problem.mark))).collect()
}

fn with_config<P: Program>(args: &Args) -> Exit {
    let source = match text_of::<P>(args, Source::read) {
        Ok(found) => found,
        Err(message) => {
            say(&mut std::io::stderr(), &format!("{}: {message}\n", P::NAME));
            return Exit::Usage;
        }
    };
    let loaded = match envelope::load_with::<P::Spec>(&source.text, P::KIND, P::adopt, P::check) {
        Ok(loaded) => loaded,
        Err(problems) => {
            let lines = shown(&source, &problems);
            say(&mut std::io::stderr(), &format!("{}\n{} problem(s)\n", lines.join("\n"), lines.len()));
            if args.verb == Verb::Run {
                termination_message(&args.termination_log, &lines.join("\n"));
            }
            return Exit::Config;
        }
    };
    match args.verb {
        Verb::Check => {
            say(&mut std::io::stdout(), &format!("{}: ok\n", source.names()));
            Exit::Success
        }
        Verb::PrintConfig => {
            say(&mut std::io::stdout(), &print::yaml(&envelope::print(&loaded, P::KIND)));
            Exit::Success
        }
        _ => live::<P>(args, loaded, source),
    }
}

fn live<P: Program>(args: &Args, loaded: Loaded<P::Spec>, source: Source) -> Exit {
    log::start(args.log_level, args.log_json);
    // A program that execs nothing needs no set-user-ID binaries; old kernels may refuse, which changes nothing.
    let _ = rustix::thread::set_no_new_privs(true);
    let (export, refused) = otlp::Settings::from_environment(P::NAME);
    for reason in refused {
        warn!("OpenTelemetry export left out", reason = reason);
    }
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| format!("failed to start the runtime: {error}"))?;
        // Before anything is built: the first process of a container has no default handlers, and a signal that came
        // too early would be lost.
        let signals = runtime.block_on(async { Signals::listen() })?;
        let (inherited, predecessor) = take_over::<P>(args)?;
        let context = Context { memory_limit: budget::memory_limit(), descriptors: budget::descriptors(), inherited };
        // Some parts have threads from the moment they are built.
        let walls = args.sandbox.then(|| P::sandbox(&loaded)).flatten().map(|sandbox| enter(&sandbox, args, P::NAME));
        let program = P::build(&loaded, &context).map_err(|error| chain(&error))?;
        let local = LocalSet::new();
        local.block_on(&runtime, async {
            let mut exporter = None;
            let start = Start { source, context, predecessor, signals, walls, export };
            let ending = serve(Arc::new(program), args, start, &mut exporter).await;
            let exit = last_words(args, ending);
            if let Some(exporter) = exporter {
                // The grace period is nearly over; a collector that hangs does not get the rest of it.
                let _ = tokio::time::timeout(LAST_EXPORT, exporter.finish()).await;
            }
            Ok(exit)
        })
    };
    run().unwrap_or_else(|message| last_words(args, Err(message)))
}

/// For the last export after the drain.
const LAST_EXPORT: Duration = Duration::from_secs(1);

fn last_words(args: &Args, ending: Result<Ending, String>) -> Exit {
    let ending = ending.unwrap_or_else(|message| Ending { exit: Exit::Failure, message });
    match ending.exit {
        Exit::Success => info!(&ending.message),
        _ => error!(&ending.message, code = ending.exit as u8),
    }
    termination_message(&args.termination_log, &ending.message);
    ending.exit
}

/// Asks a running process for its sockets, if that is wanted and there is one.
fn take_over<P: Program>(args: &Args) -> Result<(Inherited, Option<StdUnixStream>), String> {
    if !args.take_over {
        return Ok((Inherited::default(), None));
    }
    let path = socket_of(args, P::NAME);
    match hand_over::take(&path).map_err(|error| chain(&error))? {
        Some(taken) => Ok((taken.inherited, Some(taken.stream))),
        None => {
            info!("nobody to take over from", path = path.display());
            Ok((Inherited::default(), None))
        }
    }
}

/// Before the first thread: it holds for those that are started from now on.
fn enter(sandbox: &Sandbox, args: &Args, name: &str) -> Walls {
    let socket = socket_of(args, name);
    let directory = socket.parent().unwrap_or(Path::new("/"));
    // Where it cannot be made there will be no socket, and that is said.
    let _ = std::fs::create_dir_all(directory);
    let (walls, said) = sandbox::enter(sandbox, &[args.termination_log.clone(), directory.to_owned()]);
    info!("sandboxed", walls = said);
    walls
}

/// Health of the configuration, for the metrics.
#[derive(Debug)]
struct Reloads {
    last_good: AtomicBool,
    count: AtomicU64,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> Result<Signals, String> {
        let listen = |kind| signal(kind).map_err(|error| format!("failed to listen for signals: {error}"));
        Ok(Signals {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }
}

/// What was made before the first await.
struct Start {
    source: Source,
    context: Context,
    /// Waits for the word that this process serves.
    predecessor: Option<StdUnixStream>,
    signals: Signals,
    walls: Option<Walls>,
    export: Option<otlp::Settings>,
}

async fn serve<P: Program>(
    program: Arc<P>,
    args: &Args,
    start: Start,
    exporter: &mut Option<Rc<Exporter>>,
) -> Result<Ending, String> {
    let Start { source, context, predecessor, mut signals, walls, export } = start;
    let (trigger, drain) = Trigger::new();
    let (sender, mut commands) = mpsc::channel(4);
    let reloads = Arc::new(Reloads { last_good: AtomicBool::new(true), count: AtomicU64::new(0) });
    let mut doors = start_admin(&program, args, &drain, sender, &reloads, &context.inherited).await?;
    let endpoints = Rc::clone(&doors.endpoints);
    let mut successor = None;
    if let Some(predecessor) = predecessor {
        let endpoints = Rc::clone(&endpoints);
        tokio::task::spawn_local(async move {
            while !endpoints.is_ready() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            info!("taken over");
            // It may have ended in the meantime, which is what it is to do anyway.
            let _ = std::io::Write::write_all(&mut &predecessor, READY);
        });
    }
    if let Some(settings) = export {
        let started = Rc::new(Exporter::new(settings, P::NAME, Rc::clone(&endpoints)));
        *exporter = Some(Rc::clone(&started));
        tokio::task::spawn_local(async move { started.run().await });
    }

    tokio::task::spawn_local(crate::rest::rest());
    let mut watch = (!args.config.is_empty()).then(|| Watch::new(&args.config, source));
    // The drain has begun without a deadline, because another process has taken over.
    let mut at_leisure = false;
    let mut signalled = false;
    // A reload waits until it is known whether another process takes over.
    let mut held = false;
    let mut work = std::pin::pin!(program.serve(drain.clone()));
    loop {
        let command = tokio::select! {
            // Cancelling any of the others is safe: signals and changes stay pending, commands stay queued.
            ending = &mut work => {
                stay(successor, &mut signals).await;
                return Ok(ending);
            }
            () = either(&mut signals.terminate, &mut signals.interrupt) => {
                // The first after a command to drain is no second one: a pod's preStop hook gives that command, and the
                // signal follows when its turn has come (KEP-753).
                let leisurely = std::mem::take(&mut at_leisure);
                if std::mem::replace(&mut signalled, true) && !leisurely {
                    return Ok(Ending { exit: Exit::Aborted, message: "a second signal ended the drain".to_owned() });
                }
                Command::Drain { at_least: None }
            }
            _ = signals.hangup.recv() => Command::Reload,
            Some(command) = commands.recv() => command,
            () = tokio::time::sleep(HOLD_LOOK), if held && drain.deadline().is_none() => {
                if endpoints.taken.get() {
                    continue;
                }
                held = false;
                Command::Reload
            }
            source = change(&mut watch), if drain.deadline().is_none() => {
                if endpoints.taken.get() {
                    hold(&mut held);
                    continue;
                }
                apply(&*program, &source, &context, &reloads, walls.as_ref());
                continue;
            }
        };
        match command {
            Command::Drain { at_least } => {
                if drain.deadline().is_none() || drain.is_handed_over() {
                    info!("draining", timeout = format_args!("{:?}", args.drain));
                }
                trigger.pull(args.drain, at_least);
            }
            Command::HandedOver(to) => {
                info!("handed over; ending with the last connection", to = to.unwrap_or_default());
                doors.close();
                at_leisure = true;
                successor = to;
                trigger.hand_over();
            }
            Command::Reload if at_leisure => warn!("not reloaded: another process has taken over"),
            // It could open what the end has closed.
            Command::Reload if drain.deadline().is_some() => warn!("not reloaded: this is the end"),
            Command::Reload if endpoints.taken.get() => hold(&mut held),
            Command::Reload => reread(&*program, args, &context, &reloads, walls.as_ref()),
        }
    }
}

/// Between two looks at whether somebody still takes over.
const HOLD_LOOK: Duration = Duration::from_millis(50);

/// The process that takes over reads the same document and would find its new addresses taken, or take them from us.
fn hold(held: &mut bool) {
    if !std::mem::replace(held, true) {
        info!("not reloaded yet: another process is taking over");
    }
}

/// Between two looks at whether the one that took over is still there.
const STAY_LOOK: Duration = Duration::from_millis(100);

/// The first process of a container may not end before the one that has taken over: all others end with it. So it stays,
/// passes signals on, and does nothing else.
async fn stay(successor: Option<i32>, signals: &mut Signals) {
    let first = rustix::process::getpid().as_raw_nonzero().get() == 1;
    let Some(successor) = successor.filter(|_| first).and_then(Pid::from_raw) else { return };
    let Ok(watched) = rustix::process::pidfd_open(successor, PidfdFlags::empty()) else { return };
    info!("drained; staying for the process that took over", successor = successor.as_raw_nonzero());
    loop {
        let signal = tokio::select! {
            () = tokio::time::sleep(STAY_LOOK) => {
                let mut ended = [PollFd::new(&watched, PollFlags::IN)];
                if rustix::event::poll(&mut ended, Some(&Timespec::default())) == Ok(0) {
                    continue;
                }
                return;
            }
            () = either(&mut signals.terminate, &mut signals.interrupt) => ProcessSignal::TERM,
            _ = signals.hangup.recv() => ProcessSignal::HUP,
        };
        // It may just have ended; the next round sees it.
        let _ = rustix::process::pidfd_send_signal(&watched, signal);
    }
}

async fn either(a: &mut Signal, b: &mut Signal) {
    tokio::select! { _ = a.recv() => {}, _ = b.recv() => {} }
}

async fn change(watch: &mut Option<Watch>) -> Source {
    match watch {
        Some(watch) => watch.changed().await,
        None => std::future::pending().await,
    }
}

fn reread<P: Program>(program: &P, args: &Args, context: &Context, reloads: &Reloads, walls: Option<&Walls>) {
    match text_of::<P>(args, Source::read_again) {
        Ok(source) => apply(program, &source, context, reloads, walls),
        Err(message) => {
            reloads.last_good.store(false, Ordering::Relaxed);
            error!("configuration not reloaded; the old one goes on", reason = message);
        }
    }
}

/// Parse, build, swap: whoever refuses, the old parts go on.
fn apply<P: Program>(program: &P, source: &Source, context: &Context, reloads: &Reloads, walls: Option<&Walls>) {
    let outcome = match envelope::load_with::<P::Spec>(&source.text, P::KIND, P::adopt, P::check) {
        Ok(loaded) => match outside::<P>(&loaded, walls) {
            Some(reason) => Err(reason),
            None => program.reload(&loaded, context).map_err(|error| chain(&error)),
        },
        Err(problems) => Err(shown(source, &problems).join("; ")),
    };
    reloads.last_good.store(outcome.is_ok(), Ordering::Relaxed);
    match outcome {
        Ok(()) => {
            reloads.count.fetch_add(1, Ordering::Relaxed);
            info!("configuration reloaded", file = source.names());
        }
        Err(reason) => error!("configuration not reloaded; the old one goes on", reason = reason),
    }
}

/// What a new configuration wants to write and the sandbox, made at the start, does not let it.
fn outside<P: Program>(loaded: &Loaded<P::Spec>, walls: Option<&Walls>) -> Option<String> {
    let refused = walls?.refuses(&P::sandbox(loaded)?);
    let shown: Vec<String> = refused.iter().map(|path| path.display().to_string()).collect();
    let what = shown.join(", ");
    (!shown.is_empty()).then(|| format!("the sandbox made at the start allows no writing below {what}; start anew"))
}

async fn start_admin<P: Program>(
    program: &Arc<P>,
    args: &Args,
    drain: &Drain,
    commands: mpsc::Sender<Command>,
    reloads: &Arc<Reloads>,
    inherited: &Inherited,
) -> Result<Doors, String> {
    let own = Rc::<RefCell<Vec<(String, OwnedFd)>>>::default();
    let (for_sockets, own_sockets) = (Arc::clone(program), Rc::clone(&own));
    let sockets: admin::Sockets = Box::new(move || {
        let own = own_sockets.borrow();
        let own = own.iter().filter_map(|(name, fd)| Some((name.clone(), fd.try_clone().ok()?)));
        own.chain(for_sockets.sockets()).collect()
    });
    let for_streams = Arc::clone(program);
    let (for_ready, for_metrics, for_pages) = (Arc::clone(program), Arc::clone(program), Arc::clone(program));
    let (drain, reloads) = (drain.clone(), Arc::clone(reloads));
    let endpoints = Rc::new(Endpoints {
        ready: Box::new(move |report| {
            report.check("shutdown", drain.deadline().map(|_| "draining"));
            for_ready.ready(report);
        }),
        metrics: Box::new(move |out| {
            let good = u64::from(reloads.last_good.load(Ordering::Relaxed));
            out.gauge("config_last_reload_successful", "Whether the last reload was taken over.").sample(&[], good);
            let count = reloads.count.load(Ordering::Relaxed);
            out.counter("config_reloads", "Reloads taken over.").sample(&[], count);
            for_metrics.metrics(out);
        }),
        pages: Box::new(move |path| for_pages.page(path)),
        streams: Box::new(move |path, query| for_streams.stream(path, query)),
        sockets: P::HANDS_OVER.then_some(sockets),
        taken: Cell::new(false),
        prefix: P::METRICS,
        commands,
    });
    let mut doors = Doors { endpoints: Rc::clone(&endpoints), tasks: Vec::new(), own };
    if let Some(address) = &args.admin {
        let name = format!("admin {address}");
        let listener = match inherited.take(&name) {
            Some(socket) => TcpListener::from_std(socket.into()),
            None => admin::bind(address).await,
        };
        let listener = listener.map_err(|error| format!("failed to listen on {address}: {error}"))?;
        let bound = listener.local_addr().map_err(|error| error.to_string())?;
        info!("serving health and metrics", address = bound);
        doors.keep::<P>(name, listener.as_fd());
        doors.tasks.push(tokio::task::spawn_local(admin::serve(listener, Rc::clone(&endpoints))));
    }
    let path = socket_of(args, P::NAME);
    let name = format!("commands {}", path.display());
    let bound = match inherited.take(&name) {
        Some(socket) => UnixListener::from_std(socket.into()),
        None => admin::bind_socket(&path),
    };
    match bound {
        Ok(listener) => {
            doors.keep::<P>(name, listener.as_fd());
            doors.tasks.push(tokio::task::spawn_local(admin::serve_socket(listener, Rc::clone(&endpoints))));
        }
        Err(error) if args.socket.is_some() => return Err(format!("failed to listen on {}: {error}", path.display())),
        // A read-only root without the directory mounted: signals still work.
        Err(error) => warn!("no command socket", path = path.display(), reason = error),
    }
    Ok(doors)
}

/// Where health, metrics and commands come in.
struct Doors {
    endpoints: Rc<Endpoints>,
    tasks: Vec<JoinHandle<()>>,
    /// The listening sockets, kept to be handed over.
    own: Rc<RefCell<Vec<(String, OwnedFd)>>>,
}

impl Doors {
    fn keep<P: Program>(&self, name: String, socket: BorrowedFd<'_>) {
        if P::HANDS_OVER
            && let Ok(socket) = socket.try_clone_to_owned()
        {
            self.own.borrow_mut().push((name, socket));
        }
    }

    /// Somebody else answers now.
    fn close(&mut self) {
        self.tasks.drain(..).for_each(|task| task.abort());
        self.own.borrow_mut().clear();
    }
}

/// Where a program of this name listens for commands.
fn socket_of(args: &Args, name: &str) -> PathBuf {
    let usual = || PathBuf::from(format!("/run/outrigger/{}.sock", name.trim_start_matches("outrigger-")));
    args.socket.clone().unwrap_or_else(usual)
}

/// A document that has every field: defaults where there are some, what is expected elsewhere.
fn defaults<P: Program>() -> String {
    let whole = serde_json::json!({
        "apiVersion": envelope::API_VERSION,
        "kind": P::KIND,
        "metadata": { "name": "default" },
        "spec": skeleton(&P::Spec::schema()),
    });
    print::yaml(&whole)
}

fn skeleton(schema: &Schema) -> Value {
    match &schema.shape {
        Shape::Scalar(_, what) => Value::from(format!("<{}>", what.trim_start_matches("a "))),
        Shape::Choice(names) => Value::from(names.iter().map(|(name, _)| *name).collect::<Vec<_>>().join("|")),
        Shape::Any => Value::from("<any value>"),
        Shape::List(item) => Value::Array(vec![skeleton(item)]),
        Shape::Map(value) => Value::Object(Map::from_iter([("<name>".to_owned(), skeleton(value))])),
        Shape::Fields { fields, .. } => {
            let show = |presence: &Presence, schema: &Schema| match presence {
                // An empty list says less than what its items look like.
                Presence::Default(value) if value.as_array().is_none_or(|items| !items.is_empty()) => value.clone(),
                _ => skeleton(schema),
            };
            Value::Object(fields.iter().map(|f| (f.name.clone(), show(&f.presence, &f.schema))).collect())
        }
    }
}
