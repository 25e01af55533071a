//! The background engine of `run --detach`: found or started by whoever needs it, gone a few seconds after its last pod.

use std::fs::{File, Permissions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use pod_engine::{Config, Engine, Roots, control};
use rustix::fs::{FlockOperation, flock};

use crate::exit::{Coded, ENGINE, report};
use crate::host;

/// How long an engine without pods waits for the next one: long enough for a script's next command.
const IDLE: Duration = Duration::from_secs(3);
/// For so long after a pod's end, and while there is none, it is looked [`OFTEN`] whether that was the last one.
const AFTERMATH: Duration = Duration::from_secs(10);
const OFTEN: Duration = Duration::from_millis(250);
const SELDOM: Duration = Duration::from_secs(60);
/// Opening an engine takes milliseconds; a machine in trouble gets more.
const START: Duration = Duration::from_secs(20);

/// Makes sure that an engine listens on the root's socket.
pub(crate) fn ensure(roots: &Roots, pod_cidr: ipnet::Ipv4Net) -> anyhow::Result<()> {
    if control::answers(&roots.socket()) {
        return Ok(());
    }
    host::require_root()?;
    start(roots, pod_cidr).map_err(|error| Coded::new(ENGINE, error).into())
}

fn start(roots: &Roots, pod_cidr: ipnet::Ipv4Net) -> anyhow::Result<()> {
    launch(roots, &["__engine".into(), "--pod-cidr".into(), pod_cidr.to_string()], "engine.log").map(|_| ())
}

/// Starts this program in the background and returns what its first line says behind `ready`.
pub(crate) fn launch(roots: &Roots, arguments: &[String], log: &str) -> anyhow::Result<String> {
    roots.make_run().with_context(|| format!("failed to make `{}`", roots.run.display()))?;
    let log_path = roots.run.join(log);
    let log = open_log(&log_path).with_context(|| format!("failed to open `{}`", log_path.display()))?;
    // The running program itself, also when its file was replaced meanwhile.
    let mut command = Command::new("/proc/self/exe");
    command.arg0("outrigger").args(arguments);
    match roots_argument(roots) {
        Some(root) => command.arg("--root").arg(root),
        None => command.env_remove("OUTRIGGER_ROOT"),
    };
    let mut child = command
        // Its memory is counted in megabytes: blocking threads share two arenas instead of leaving one each behind
        // (mallopt(3), M_ARENA_MAX).
        .env("MALLOC_ARENA_MAX", "2")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .context("failed to start the background engine")?;
    // Its first line says whether it listens. It is not waited for: it outlives this process.
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line).context("failed to hear from the background engine")?;
    }
    match line.trim_end().split_once(' ') {
        Some(("ready", what)) => Ok(what.to_owned()),
        Some(("failed", why)) => bail!("{why}"),
        _ => bail!("the background engine died at start; `{}` may say why", log_path.display()),
    }
}

/// The root as the child is to be told it. Engine roots are made of it in one way only.
fn roots_argument(roots: &Roots) -> Option<&Path> {
    if *roots == Roots::system() { None } else { roots.run.parent() }
}

/// Root's alone, whatever the umask and whoever made it first.
fn open_log(path: &Path) -> io::Result<File> {
    let log = File::options().create(true).append(true).mode(0o600).open(path)?;
    log.set_permissions(Permissions::from_mode(0o600))?;
    Ok(log)
}

/// `outrigger __engine`: serves until idle. Its starter reads one line from stdout.
pub(crate) fn serve(roots: &Roots, pod_cidr: ipnet::Ipv4Net) -> anyhow::Result<u8> {
    // A session of its own: neither the terminal's Ctrl-C nor its end is meant for it.
    let _ = rustix::process::setsid();
    let deadline = Instant::now() + START;
    let lock = loop {
        if let Some(lock) = take_lock(roots)? {
            break lock;
        }
        // Someone else was faster and listens already; or someone is on the way out and the lock comes free.
        if control::answers(&roots.socket()) {
            tell("ready elsewhere");
            return Ok(0);
        }
        if Instant::now() > deadline {
            tell("failed another engine holds the lock but does not answer");
            bail!("another engine holds the lock but does not answer");
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    let served = block_on(serve_until_idle(roots, pod_cidr))?;
    if let Err(error) = &served {
        tell(&format!("failed {}", report(error).0.lines().next().unwrap_or_default().trim_start_matches("error: ")));
    }
    // While the lock is still held nobody else can be listening: what is removed is ours.
    let _ = std::fs::remove_file(roots.socket());
    drop(lock);
    served.map(|()| 0)
}

/// As [`host::block_on`], for a process that mostly sleeps: an idle blocking thread ends at once.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_keep_alive(Duration::from_secs(1))
        .build()
        .context("failed to set up the event loop")?;
    Ok(tokio::task::LocalSet::new().block_on(&runtime, future))
}

async fn serve_until_idle(roots: &Roots, pod_cidr: ipnet::Ipv4Net) -> anyhow::Result<()> {
    let socket = roots.socket();
    let engine = host::open(Config { roots: roots.clone(), pod_cidr, socket: socket.clone(), node_name: None })?;
    let listener = control::bind(&socket).with_context(|| format!("failed to listen on `{}`", socket.display()))?;
    let serving = tokio::task::spawn_local(control::serve(engine.clone(), listener));
    tell("ready here");
    let_go_of_stdout();
    until_idle(&engine).await;
    serving.abort();
    Ok(())
}

/// Now that there is time: unpacked images need not be made again after the next boot.
async fn settle(engine: &Engine) {
    let store = engine.store().clone();
    let synced = tokio::task::spawn_blocking(move || store.sync()).await;
    if let Ok(Err(error)) = synced {
        // The engine's log. Nothing is lost but time.
        eprintln!("{}", pod_engine::chain(&error));
    }
}

/// Returns when the engine has had nothing to drive for [`IDLE`]. While pods run it is woken by their ends, and, since
/// taking down what is left of a pod may take long, [`SELDOM`] without one.
async fn until_idle(engine: &Engine) {
    let mut ends = engine.feed().subscribe_ends();
    let (mut idle_since, mut last_end) = (Instant::now(), Instant::now());
    let mut settled = false;
    loop {
        let soon = last_end.elapsed() < AFTERMATH || engine.driven().is_empty();
        let wait = if soon { OFTEN } else { SELDOM };
        match tokio::time::timeout(wait, ends.recv()).await {
            Ok(None) => return,
            Ok(Some(_)) => (idle_since, last_end, settled) = (Instant::now(), Instant::now(), false),
            Err(_) if !engine.driven().is_empty() => (idle_since, settled) = (Instant::now(), false),
            Err(_) if idle_since.elapsed() < IDLE => {}
            Err(_) if settled => return,
            // What begins meanwhile is seen by the next look.
            Err(_) => {
                settle(engine).await;
                settled = true;
            }
        }
    }
}

/// Waits for an engine that is on its way out.
pub(crate) fn await_lock(roots: &Roots) -> anyhow::Result<File> {
    let deadline = Instant::now() + START;
    loop {
        if let Some(lock) = take_lock(roots)? {
            return Ok(lock);
        }
        if Instant::now() > deadline {
            bail!("another engine holds the lock of this root");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn take_lock(roots: &Roots) -> anyhow::Result<Option<File>> {
    let path = roots.run.join("engine.lock");
    let open = || -> io::Result<Option<File>> {
        let file = File::options().create(true).truncate(false).write(true).open(&path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    };
    open().with_context(|| format!("failed to lock `{}`", path.display()))
}

pub(crate) fn tell(line: &str) {
    let mut out = io::stdout().lock();
    // A starter that is gone needs no answer.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// The pipe to the starter is closed, so that whoever reads the starter's output sees its end.
pub(crate) fn let_go_of_stdout() {
    if let Ok(null) = File::options().write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdout(&null);
    }
}
