//! Streams into running containers: commands beside the first process, and the first process's own streams.
//!
//! A session is plain descriptors and a future that can go to any thread; who moves the bytes is the caller's business.
//! A client that leaves drops all of it: an exec'd process then reads the end of its input, and is hung up on where it had
//! a terminal, but is not killed (as CRI runtimes leave it). It ends at the latest with its container, whose cgroup and
//! namespaces it shares.

use std::fs::File;
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;

use pod_shim::client::{AttachPipes, Exec, RequestError};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::sync::oneshot;

use crate::chain;
use crate::engine::Engine;
use crate::running::Running;

mod dial;

/// Which streams are wanted. With `tty`, output is one stream (stdout).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionRequest {
    /// The argv of an exec; ignored by an attach.
    pub command: Vec<String>,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

/// Columns and rows to the session's terminal.
pub type Resize = Box<dyn Fn(u16, u16) + Send + Sync>;

/// Open streams. Each descriptor is the caller's end of a pipe, or a duplicate of a terminal's master that nobody else
/// reads or writes, so that making it non-blocking disturbs nobody. A terminal's output ends with `EIO`, a pipe's with
/// end of file.
pub struct Session {
    pub stdin: Option<OwnedFd>,
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
    /// With a terminal.
    pub resize: Option<Resize>,
    /// How it ended. All that the process wrote is in the streams by then; what is left in them may be read later. A
    /// process that it left behind may hold them open for longer.
    pub end: Pin<Box<dyn Future<Output = Result<Ended, String>> + Send>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The process's exit code, 128 + n after signal n. For an attach: the container's.
    Exited(i32),
    /// The client of an attach was let go while the container lives: its input came to its end where the container keeps
    /// its own open, or it did not read what it was sent.
    Detached,
}

/// Why there is no session.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// The words of a kubelet, which clients know.
    #[error("container not found (\"{0}\")")]
    NotRunning(String),
    #[error("{0}")]
    Failed(String),
}

impl std::fmt::Debug for Session {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Session { stdin, stdout, stderr, resize, end: _ } = self;
        let mut shown = formatter.debug_struct("Session");
        shown.field("stdin", stdin).field("stdout", stdout).field("stderr", stderr);
        shown.field("resize", &resize.is_some()).finish_non_exhaustive()
    }
}

// === impl Engine ===

impl Engine {
    /// Runs a command in a running container, as the container's user with its environment, working directory, privileges
    /// and cgroup. To be polled on the engine's thread; the session may leave it.
    pub fn exec(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        request: SessionRequest,
    ) -> impl Future<Output = Result<Session, SessionError>> + 'static {
        let running = self.running(namespace, pod);
        let container = container.to_owned();
        async move {
            let running = running.ok_or_else(|| SessionError::NotRunning(container.clone()))?;
            exec(&running, container, request).await
        }
    }
}

impl Engine {
    /// Joins the first process of a running container: its output from now on, and its standard input where the manifest
    /// gives it one (`stdin: true`); the request's `stdin` is else ignored, as is its `command`, and `tty` is the
    /// container's own. `kubectl` clients of one container do not disturb each other. A client that does not read for a
    /// second while its buffer is full is let go; one whose input ends is let go unless the manifest says `stdinOnce`
    /// without `tty`: then the container's input ends. To be polled on the engine's thread.
    pub fn attach(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        request: SessionRequest,
    ) -> impl Future<Output = Result<Session, SessionError>> + 'static {
        let running = self.running(namespace, pod);
        let container = container.to_owned();
        async move {
            let running = running.ok_or_else(|| SessionError::NotRunning(container.clone()))?;
            attach(&running, container, request).await
        }
    }
}

/// Of each stream to an attached client, in bytes: what a container may print in one go before the client's pace is its
/// own. The kernel uses only what is filled.
const ATTACH_BUFFER: usize = 1 << 20;

async fn attach(running: &Rc<Running>, container: String, request: SessionRequest) -> Result<Session, SessionError> {
    let absent = || SessionError::NotRunning(container.clone());
    let attempt = running.alive(&container).ok_or_else(absent)?;
    let shim = running.shim().ok_or_else(absent)?;
    let launched = running.launched(&container, attempt).ok_or_else(absent)?;
    let tty = launched.container.tty == Some(true);
    let wanted = SessionRequest {
        command: Vec::new(),
        stdin: request.stdin && launched.container.stdin == Some(true),
        stdout: request.stdout || (tty && request.stderr),
        stderr: request.stderr && !tty,
        tty,
    };
    let failed = |error: &dyn std::error::Error| SessionError::Failed(chain(error));
    let (ours, theirs) = attach_pipes(&wanted).map_err(|error| failed(&error))?;
    let attached = shim.attach(&container, attempt, theirs).await.map_err(|error| match error {
        RequestError::Refused(_) => absent(),
        error => failed(&error),
    })?;
    let resize: Option<Resize> = tty.then(|| {
        let name = container.clone();
        Box::new(move |columns, rows| shim.resize(&name, attempt, columns, rows)) as Resize
    });
    let end = Box::pin(async move {
        match attached.wait().await {
            Ok(Some(exit)) => Ok(Ended::Exited(exit.code)),
            Ok(None) => Ok(Ended::Detached),
            Err(error) => Err(chain(&error)),
        }
    });
    Ok(Session { stdin: ours.stdin, stdout: ours.stdout, stderr: ours.stderr, resize, end })
}

fn attach_pipes(wanted: &SessionRequest) -> io::Result<(Streams, AttachPipes)> {
    let pipe = || pipe_with(PipeFlags::CLOEXEC);
    let (mut ours, mut theirs) = (Streams::default(), AttachPipes::default());
    if wanted.stdin {
        let (read, write) = pipe()?;
        (theirs.stdin, ours.stdin) = (Some(read), Some(write));
    }
    let outs =
        [(wanted.stdout, &mut ours.stdout, &mut theirs.stdout), (wanted.stderr, &mut ours.stderr, &mut theirs.stderr)];
    for (wanted, ours, theirs) in outs {
        if wanted {
            let (read, write) = pipe()?;
            // Refused to those who have many; a smaller one does as well.
            let _ = rustix::pipe::fcntl_setpipe_size(&write, ATTACH_BUFFER);
            (*ours, *theirs) = (Some(read), Some(write));
        }
    }
    Ok((ours, theirs))
}

async fn exec(running: &Rc<Running>, container: String, request: SessionRequest) -> Result<Session, SessionError> {
    let absent = || SessionError::NotRunning(container.clone());
    let attempt = running.alive(&container).ok_or_else(absent)?;
    let shim = running.shim().ok_or_else(absent)?;
    let launched = running.launched(&container, attempt).ok_or_else(absent)?;
    let failed = |error: &dyn std::error::Error| SessionError::Failed(chain(error));
    if request.tty {
        let process = launched.exec_in_terminal(&request.command);
        let (exec, master) =
            shim.exec_in_terminal(&container, attempt, &process).await.map_err(|error| failed(&error))?;
        return terminal_session(&request, exec, master).map_err(|error| failed(&error));
    }
    let process = launched.exec(&request.command);
    let (ours, theirs) = Streams::open(&request).map_err(|error| failed(&error))?;
    let exec = shim.exec(&container, attempt, &process, theirs).await.map_err(|error| failed(&error))?;
    Ok(Session { stdin: ours.stdin, stdout: ours.stdout, stderr: ours.stderr, resize: None, end: end_of(exec) })
}

fn terminal_session(request: &SessionRequest, exec: Exec, master: OwnedFd) -> io::Result<Session> {
    let stdin = request.stdin.then(|| master.try_clone()).transpose()?;
    let stdout = Some(master.try_clone()?);
    let resize: Resize = Box::new(move |columns, rows| {
        let size = Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
        // A terminal that nobody has open any more needs no size.
        let _ = tcsetwinsize(&master, size);
    });
    Ok(Session { stdin, stdout, stderr: None, resize: Some(resize), end: end_of(exec) })
}

/// The caller's ends.
#[derive(Default)]
struct Streams {
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
}

impl Streams {
    /// And the command's stdin, stdout and stderr.
    fn open(request: &SessionRequest) -> io::Result<(Streams, [OwnedFd; 3])> {
        let pipe = |wanted: bool, for_reading: bool| -> io::Result<(Option<OwnedFd>, OwnedFd)> {
            if !wanted {
                return Ok((None, File::options().read(true).write(true).open("/dev/null")?.into()));
            }
            let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
            Ok(if for_reading { (Some(write), read) } else { (Some(read), write) })
        };
        let (stdin, their_stdin) = pipe(request.stdin, true)?;
        let (stdout, their_stdout) = pipe(request.stdout, false)?;
        let (stderr, their_stderr) = pipe(request.stderr, false)?;
        Ok((Streams { stdin, stdout, stderr }, [their_stdin, their_stdout, their_stderr]))
    }
}

/// Waits for the process whether or not anybody still wants to know: dropping an [`Exec`] would kill it.
fn end_of(mut exec: Exec) -> Pin<Box<dyn Future<Output = Result<Ended, String>> + Send>> {
    let (sender, receiver) = oneshot::channel();
    tokio::task::spawn_local(async move {
        let ended = exec.wait().await.map(|exit| Ended::Exited(exit.code)).map_err(|error| chain(&error));
        // The client may have left.
        let _ = sender.send(ended);
    });
    Box::pin(async move { receiver.await.unwrap_or_else(|_| Err("the engine has ended".into())) })
}
