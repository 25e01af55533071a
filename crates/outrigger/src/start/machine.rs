//! The API server's way to the engine, which lives on another thread: each question is a closure that goes there, and its
//! answer comes back.

use std::future::Future;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use pod_engine::session::{self, SessionError, SessionRequest};
use pod_engine::{Engine, Roots};
use pod_server::machine::{Answer, ContainerRef, ContainerUsage, Ended, Machine, Session, StreamError, StreamRequest};
use tokio::sync::{mpsc, oneshot};

/// What a kernel's counter of jiffies counts (`USER_HZ`, 100 a second).
const NANOSECONDS_A_TICK: u64 = 10_000_000;
/// An engine's thread is busy for milliseconds at most; a client that asks for numbers can do without.
const PATIENCE: Duration = Duration::from_millis(500);

/// Something to do on the engine's thread.
type Errand = Box<dyn FnOnce(&Engine) + Send>;

/// The server's end.
pub(super) struct Link {
    errands: mpsc::UnboundedSender<Errand>,
    roots: Roots,
    since: Instant,
}

/// Takes errands on the engine's thread, until every link is gone.
pub(super) struct Clerk {
    errands: mpsc::UnboundedReceiver<Errand>,
    engine: Engine,
}

/// For so long after the start a pod that ran before may not have been taken over yet.
const TAKEOVER: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(20);

pub(super) fn link(engine: Engine) -> (Link, Clerk) {
    let (sender, errands) = mpsc::unbounded_channel();
    let roots = engine.roots().clone();
    (Link { errands: sender, roots, since: Instant::now() }, Clerk { errands, engine })
}

impl Clerk {
    pub(super) async fn run(mut self) {
        while let Some(errand) = self.errands.recv().await {
            errand(&self.engine);
        }
    }
}

// === impl Link ===

impl Link {
    /// Begins something with the engine and waits for it where it does not hold up the server.
    fn ask<T, F>(&self, begin: impl FnOnce(&Engine) -> F + Send + 'static) -> Answer<Option<T>>
    where
        T: Send + 'static,
        F: Future<Output = T> + 'static,
    {
        let (sender, answer) = oneshot::channel();
        let errand: Errand = Box::new(move |engine| {
            let work = begin(engine);
            tokio::task::spawn_local(async move {
                // Who asked may be gone; then what was opened is closed with the answer.
                let _ = sender.send(work.await);
            });
        });
        let sent = self.errands.send(errand).is_ok();
        Box::pin(async move { if sent { answer.await.ok() } else { None } })
    }

    fn session<F>(&self, begin: impl FnOnce(&Engine) -> F + Send + 'static) -> Answer<Result<Session, StreamError>>
    where
        F: Future<Output = Result<session::Session, SessionError>> + 'static,
    {
        let answer = self.ask(begin);
        Box::pin(async move {
            match answer.await {
                Some(Ok(session)) => Ok(opened(session)),
                Some(Err(SessionError::NotRunning(container))) => Err(StreamError::NotRunning(container)),
                Some(Err(SessionError::Failed(message))) => Err(StreamError::Failed(message)),
                None => Err(StreamError::Failed("the engine is gone".into())),
            }
        })
    }
}

/// A session is with the pod that was asked about: who may be heard in its place is another one of its name.
fn require(engine: &Engine, target: &ContainerRef) -> Result<(), SessionError> {
    if engine.is_running(&target.namespace, &target.pod, &target.uid) {
        return Ok(());
    }
    Err(SessionError::NotRunning(target.container.clone()))
}

/// Asks again while the pod may be one that is just being taken over.
async fn taken_over<T>(since: Instant, ask: impl AsyncFn() -> Result<T, SessionError>) -> Result<T, SessionError> {
    loop {
        match ask().await {
            Err(SessionError::NotRunning(_)) if since.elapsed() < TAKEOVER => tokio::time::sleep(LOOK).await,
            answer => return answer,
        }
    }
}

fn request(asked: StreamRequest) -> SessionRequest {
    let StreamRequest { command, stdin, stdout, stderr, tty } = asked;
    SessionRequest { command, stdin, stdout, stderr, tty }
}

fn opened(session: session::Session) -> Session {
    let session::Session { stdin, stdout, stderr, resize, end } = session;
    let end = Box::pin(async move {
        end.await.map(|ended| match ended {
            session::Ended::Exited(code) => Ended::Exited(code),
            session::Ended::Detached => Ended::Detached,
        })
    });
    Session { stdin, stdout, stderr, resize, end }
}

impl Machine for Link {
    fn exec(&self, target: ContainerRef, asked: StreamRequest) -> Answer<Result<Session, StreamError>> {
        let since = self.since;
        self.session(move |engine| {
            let engine = engine.clone();
            let asked = request(asked);
            async move {
                taken_over(since, async || {
                    require(&engine, &target)?;
                    engine.exec(&target.namespace, &target.pod, &target.container, asked.clone()).await
                })
                .await
            }
        })
    }

    fn attach(&self, target: ContainerRef, asked: StreamRequest) -> Answer<Result<Session, StreamError>> {
        let since = self.since;
        self.session(move |engine| {
            let engine = engine.clone();
            let asked = request(asked);
            async move {
                taken_over(since, async || {
                    require(&engine, &target)?;
                    engine.attach(&target.namespace, &target.pod, &target.container, asked.clone()).await
                })
                .await
            }
        })
    }

    fn dial(
        &self,
        namespace: String,
        pod: String,
        uid: String,
        port: u16,
    ) -> Answer<Result<std::net::TcpStream, String>> {
        let answer = self.ask(move |engine| {
            let engine = engine.clone();
            async move {
                if !engine.is_running(&namespace, &pod, &uid) {
                    return Err(format!("pod {namespace}/{pod} is not running"));
                }
                engine.dial(&namespace, &pod, port).await
            }
        });
        Box::pin(async move { answer.await.unwrap_or_else(|| Err("the engine is gone".into())) })
    }

    fn log(&self, target: &ContainerRef, attempt: u32) -> PathBuf {
        self.roots.pod(&target.namespace, &target.pod).log(&target.uid, &target.container, attempt)
    }

    fn usage(&self, namespace: &str, pod: &str, uid: &str) -> Vec<ContainerUsage> {
        let (sender, answer) = std::sync::mpsc::sync_channel(1);
        let (namespace, pod, uid) = (namespace.to_owned(), pod.to_owned(), uid.to_owned());
        let errand: Errand = Box::new(move |engine| {
            let ours = engine.is_running(&namespace, &pod, &uid);
            let _ = sender.send(if ours { engine.usage(&namespace, &pod) } else { Vec::new() });
        });
        if self.errands.send(errand).is_err() {
            return Vec::new();
        }
        let used = answer.recv_timeout(PATIENCE).unwrap_or_default();
        used.into_iter()
            .map(|(container, cpu_nanoseconds, memory_bytes)| ContainerUsage {
                container,
                cpu_nanoseconds,
                memory_bytes,
            })
            .collect()
    }

    fn node_usage(&self) -> (u64, u64) {
        let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        (busy_ticks(&stat) * NANOSECONDS_A_TICK, working_set(&memory))
    }
}

/// All of the first line but idle and iowait; guests are in user already (proc_stat(5)).
fn busy_ticks(stat: &str) -> u64 {
    let line = stat.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = line.split_whitespace().skip(1).take(8).filter_map(|word| word.parse().ok()).collect();
    let idle: u64 = ticks.iter().skip(3).take(2).sum();
    ticks.iter().sum::<u64>().saturating_sub(idle)
}

/// What is in use and could not be dropped at once, in bytes.
fn working_set(memory: &str) -> u64 {
    let field = |name: &str| -> u64 {
        let line = memory.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.trim_start_matches(':').split_whitespace().next()?.parse().ok()).unwrap_or(0)
    };
    let used = field("MemTotal").saturating_sub(field("MemFree")).saturating_sub(field("Inactive(file)"));
    used * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_numbers() {
        assert_eq!(busy_ticks("cpu  10 1 5 1000 20 2 3 4 0 0\ncpu0 1\n"), 25);
        let memory = "MemTotal:  100 kB\nMemFree:  40 kB\nInactive(file):    10 kB\n";
        assert_eq!(working_set(memory), 50 * 1024);
    }
}
