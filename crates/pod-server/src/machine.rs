//! What the server needs from the machine that runs the pods: streams into containers and numbers about them. The engine's
//! side is written where the program is put together.

use std::future::Future;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::pin::Pin;

pub type Answer<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A container of one pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerRef {
    pub namespace: String,
    pub pod: String,
    pub uid: String,
    pub container: String,
}

/// Which streams are wanted. With `tty`, output is one stream (stdout).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamRequest {
    /// The argv of an exec; empty for an attach.
    pub command: Vec<String>,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

/// Open streams of an exec or an attach. Dropping all of it is the client's going away.
///
/// Each descriptor is an end of a pipe, a socket or a terminal's master whose *open file description* nobody else reads,
/// writes or expects to block on: the server sets `O_NONBLOCK` on it, which every duplicate would share. (The other end of
/// a pipe is another description.) A terminal that somebody else reads as well is handed out as a socket instead.
///
/// The end of the client's input is told by `shutdown(2)` of a socket's writing side and by closing; a terminal hears
/// nothing. The end of output is end-of-file, or a terminal's `EIO`.
pub struct Session {
    pub stdin: Option<OwnedFd>,
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
    /// Columns and rows to a terminal.
    pub resize: Option<Box<dyn Fn(u16, u16) + Send + Sync>>,
    /// How it ended. For an attach: the container's end. Resolves only after all output is in the pipes.
    pub end: Answer<Result<Ended, String>>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { stdin, stdout, stderr, .. } = self;
        f.debug_struct("Session")
            .field("stdin", stdin)
            .field("stdout", stdout)
            .field("stderr", stderr)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The process's exit code (128 + n after signal n).
    Exited(i32),
    /// The client of an attach was let go while the container lives.
    Detached,
}

/// Why there is no stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// 500, upstream's text: `container not found ("x")`.
    #[error("container not found (\"{0}\")")]
    NotRunning(String),
    #[error("{0}")]
    Failed(String),
}

/// Use of one container, for metrics.k8s.io.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerUsage {
    pub container: String,
    /// CPU time since the container's start, in nanoseconds.
    pub cpu_nanoseconds: u64,
    /// Working set: usage minus inactive file pages, in bytes.
    pub memory_bytes: u64,
}

pub trait Machine: Send + Sync + 'static {
    fn exec(&self, target: ContainerRef, request: StreamRequest) -> Answer<Result<Session, StreamError>>;
    fn attach(&self, target: ContainerRef, request: StreamRequest) -> Answer<Result<Session, StreamError>>;
    /// A TCP connection to the pod's own loopback (127.0.0.1, then ::1).
    fn dial(
        &self,
        namespace: String,
        pod: String,
        uid: String,
        port: u16,
    ) -> Answer<Result<std::net::TcpStream, String>>;
    /// The log file of an attempt (`restartCount`), in the CRI format; rotated neighbours are `<file>.<stamp>`.
    fn log(&self, target: &ContainerRef, attempt: u32) -> PathBuf;
    /// Now; empty for a pod that does not run.
    fn usage(&self, namespace: &str, pod: &str, uid: &str) -> Vec<ContainerUsage>;
    /// CPU nanoseconds since boot and working-set bytes of the whole machine.
    fn node_usage(&self) -> (u64, u64);
}
