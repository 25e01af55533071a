//! The engine's end: start a shim, tell it what to do, hear what happened.
//!
//! Every packet of the `SOCK_SEQPACKET` socket is one whole message, so any task may send without a lock, and one task
//! reads. A shim has no state that a lost connection could lose: connecting again replays every fact from the first.

use std::collections::HashMap;
use std::io::{self, IoSlice, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pod_container::spec::{ContainerSpec, ExecSpec, Exit, Identity, ProcessSpec, SandboxSpec};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::protocol::{Answer, Fact, MAX_PACKET, Message, PID_FILE, Request, SOCKET, Stage, Streams};

/// How long a shim lets the making of one container or exec take before it kills the attempt and reports it: mounting
/// is milliseconds, but a path on a dead network file system hangs for ever.
pub const CREATE_DEADLINE: Duration = Duration::from_secs(30);

/// A connection to one shim. Clones share it; it closes when the last clone and the fact receiver are gone. Closing
/// kills this connection's execs and nothing else.
#[derive(Debug, Clone)]
pub struct Client {
    handle: Arc<Handle>,
}

/// A container that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// As the host sees it.
    pub pid: u32,
    /// Wall time, nanoseconds since 1970.
    pub at_nanos: u64,
    pub identity: Identity,
}

/// A process that runs beside a container's first one. Dropping it kills it.
#[derive(Debug)]
pub struct Exec {
    id: u64,
    /// As the host sees it.
    pub pid: u32,
    pub identity: Identity,
    exit: oneshot::Receiver<Exit>,
    handle: Arc<Handle>,
    ended: bool,
}

/// The shim's ends of an attached client's pipes: the reading one of `stdin`, the writing ones of the others.
#[derive(Debug, Default)]
pub struct AttachPipes {
    pub stdin: Option<OwnedFd>,
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
}

/// A client attached to a container. Dropping it changes nothing; closing its ends of the pipes does.
#[derive(Debug)]
pub struct Attach {
    end: oneshot::Receiver<Option<Exit>>,
    /// Without a connection nobody would be told.
    handle: Arc<Handle>,
}

#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    #[error("failed to run shim `{path}`")]
    Run { path: String, source: io::Error },
    /// The shim's own words; nothing of it is left.
    #[error("failed to make the sandbox: {0}")]
    Sandbox(String),
}

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("failed to connect to the shim in `{directory}`")]
    Connect { directory: String, source: io::Error },
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Kubernetes' `CreateContainerError`.
    #[error("failed to create container \"{container}\": {message}")]
    Create { container: String, message: String },
    /// Kubernetes' `StartError`, exit code 128.
    #[error("failed to start container \"{container}\": {message}")]
    Start { container: String, message: String },
    #[error(transparent)]
    Request(#[from] RequestError),
}

#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The process could not be made inside the container.
    #[error("failed to exec in container \"{container}\": {message}")]
    Create { container: String, message: String },
    /// The program could not be executed: not found, not executable.
    #[error("failed to exec in container \"{container}\": {message}")]
    Start { container: String, message: String },
    #[error(transparent)]
    Request(#[from] RequestError),
}

#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The shim's words: no such container, already started, not running.
    #[error("the shim refused: {0}")]
    Refused(String),
    #[error("failed to send to the shim")]
    Send(#[source] io::Error),
    /// It died, and every process of its pod with it.
    #[error("the shim is gone")]
    Gone,
}

/// Makes a sandbox: runs `shim_binary` until it says that namespaces, mounts and socket stand. Blocks for some
/// milliseconds. Returns the shim's PID as the host sees it.
///
/// # Errors
/// When the program cannot be run, or cannot make what `sandbox` asks for; then nothing is left behind.
pub fn spawn(shim_binary: &Path, directory: &Path, sandbox: &SandboxSpec) -> Result<u32, SpawnError> {
    let failed = |source| SpawnError::Run { path: shim_binary.display().to_string(), source };
    let spec = spec_file(&serde_json::to_vec(sandbox).map_err(|error| failed(error.into()))?).map_err(failed)?;
    let output = Command::new(shim_binary)
        .arg(directory)
        .stdin(Stdio::from(spec))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .env_clear()
        .output()
        .map_err(failed)?;
    let said = String::from_utf8_lossy(&output.stdout);
    match said.trim().strip_prefix("ready ").and_then(|pid| pid.parse().ok()) {
        Some(pid) if output.status.success() => Ok(pid),
        _ => {
            let complaint = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(SpawnError::Sandbox(if complaint.is_empty() { output.status.to_string() } else { complaint }))
        }
    }
}

/// The PID a shim wrote to its directory, as the host sees it. It may be long dead and its number another's: only a
/// successful [`Client::connect`] proves life.
pub fn read_pid(directory: &Path) -> io::Result<u32> {
    let text = std::fs::read_to_string(directory.join(PID_FILE))?;
    text.trim().parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, text))
}

/// Whether a shim lives in `directory`, for callers without an event loop. Does not block.
///
/// # Errors
/// When that cannot be told: only a refused connection and a missing socket are a dead shim.
pub fn is_alive(directory: &Path) -> io::Result<bool> {
    match connect_socket(directory) {
        Ok(_) => Ok(true),
        // Its backlog is full, so it has one.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
        Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => Ok(false),
        Err(error) => Err(error),
    }
}

/// What the last [`Client`] to go closes.
#[derive(Debug)]
struct Handle {
    connection: Arc<Connection>,
    /// Wakes the reading task when the last client is gone.
    dropped: Arc<Notify>,
}

#[derive(Debug)]
struct Connection {
    socket: UnixStream,
    waiting: Mutex<Waiting>,
}

/// Who waits for which words of the shim.
#[derive(Debug, Default)]
struct Waiting {
    last_id: u64,
    gone: bool,
    answers: HashMap<u64, oneshot::Sender<Answer>>,
    starts: HashMap<(String, u32), oneshot::Sender<Fact>>,
    exits: HashMap<u64, oneshot::Sender<Exit>>,
    attaches: HashMap<u64, oneshot::Sender<Option<Exit>>>,
}

// === impl Client ===

impl Client {
    /// Connects to the shim in `directory`. The receiver yields every fact since the shim began, then new ones as they
    /// happen; it ends when the shim is gone.
    ///
    /// # Errors
    /// `ConnectionRefused` or `NotFound` inside when no shim lives there.
    pub async fn connect(directory: &Path) -> Result<(Client, mpsc::UnboundedReceiver<Fact>), ConnectError> {
        let failed = |source| ConnectError::Connect { directory: directory.display().to_string(), source };
        let socket = connect_socket(directory).map_err(failed)?;
        // tokio has no type for SEQPACKET; this one only lends its readiness, every packet goes through `async_io`.
        let socket = UnixStream::from_std(socket.into()).map_err(failed)?;
        let connection = Arc::new(Connection { socket, waiting: Mutex::default() });
        let dropped = Arc::new(Notify::new());
        let (facts, receiver) = mpsc::unbounded_channel();
        tokio::spawn(read(Arc::clone(&connection), facts, Arc::clone(&dropped)));
        Ok((Client { handle: Arc::new(Handle { connection, dropped }) }, receiver))
    }

    /// Starts an attempt of a container, within [`CREATE_DEADLINE`]. The same outcome also arrives as a fact, in any
    /// order with this answer.
    ///
    /// # Errors
    /// See [`StartError`]. The same attempt can never be started twice.
    pub async fn start(&self, container: &str, attempt: u32, spec: &ContainerSpec) -> Result<Started, StartError> {
        self.start_within(container, attempt, spec, CREATE_DEADLINE).await
    }

    /// [`Client::start`] with a deadline of its own for making the container.
    ///
    /// # Errors
    /// As [`Client::start`].
    pub async fn start_within(
        &self,
        container: &str,
        attempt: u32,
        spec: &ContainerSpec,
        deadline: Duration,
    ) -> Result<Started, StartError> {
        let connection = &self.handle.connection;
        let text = serde_json::to_vec(spec).map_err(|error| RequestError::Send(error.into()))?;
        let spec_fd = spec_file(&text).map_err(RequestError::Send)?;
        let key = (container.to_owned(), attempt);
        let (sender, fact) = oneshot::channel();
        {
            let mut waiting = connection.waiting();
            if waiting.gone {
                return Err(RequestError::Gone.into());
            }
            // A second caller for the same attempt must not take the first one's fact away: the shim would refuse it.
            if waiting.starts.get(&key).is_some_and(|first| !first.is_closed()) {
                return Err(RequestError::Refused(format!("{container} {attempt} is being started")).into());
            }
            waiting.starts.insert(key.clone(), sender);
        }
        let request = Request::Start {
            container: container.as_bytes(),
            attempt,
            deadline_ms: deadline.as_millis().try_into().unwrap_or(u64::MAX),
            tty: spec.tty,
            stdin: spec.stdin,
            processes_of: spec.processes_of.as_deref().unwrap_or_default().as_bytes(),
            log: &spec.log,
            cgroups: &spec.cgroups,
        };
        if let Err(error) = connection.ask(&request, &[spec_fd.as_fd()]).await {
            connection.waiting().starts.remove(&key);
            return Err(error.into());
        }
        match fact.await {
            Ok(Fact::Started { pid, at_nanos, identity, .. }) => Ok(Started { pid, at_nanos, identity }),
            Ok(Fact::StartFailed { stage: Stage::Create, message, container, .. }) => {
                Err(StartError::Create { container, message })
            }
            Ok(Fact::StartFailed { stage: Stage::Start, message, container, .. }) => {
                Err(StartError::Start { container, message })
            }
            Ok(Fact::Exited { .. }) | Err(_) => Err(RequestError::Gone.into()),
        }
    }

    /// Sends signal `signo` to the first process of a running attempt.
    ///
    /// # Errors
    /// [`RequestError::Refused`] when it does not run.
    pub async fn signal(&self, container: &str, attempt: u32, signo: i32) -> Result<(), RequestError> {
        let request = Request::Signal { container: container.as_bytes(), attempt, signo };
        self.handle.connection.ask(&request, &[]).await.map(drop)
    }

    /// Runs one more process in a running container, within [`CREATE_DEADLINE`]. `stdio` becomes its file descriptors
    /// 0, 1 and 2.
    ///
    /// # Errors
    /// See [`ExecError`].
    pub async fn exec(
        &self,
        container: &str,
        attempt: u32,
        process: &ProcessSpec,
        stdio: [OwnedFd; 3],
    ) -> Result<Exec, ExecError> {
        let spec = ExecSpec { process: process.clone(), terminal: false };
        self.exec_spec(container, attempt, &spec, stdio).await
    }

    /// The same with a terminal of the container's own as its stdin, stdout, stderr and controlling terminal; also returns
    /// the terminal's master side. When its last copy is closed the process is hung up on.
    ///
    /// # Errors
    /// See [`ExecError`].
    pub async fn exec_in_terminal(
        &self,
        container: &str,
        attempt: u32,
        process: &ProcessSpec,
    ) -> Result<(Exec, OwnedFd), ExecError> {
        let (ours, theirs) = terminal_pair().map_err(RequestError::Send)?;
        let null = || std::fs::File::options().read(true).write(true).open("/dev/null").map(OwnedFd::from);
        let stdio = [theirs, null().map_err(RequestError::Send)?, null().map_err(RequestError::Send)?];
        let spec = ExecSpec { process: process.clone(), terminal: true };
        let exec = self.exec_spec(container, attempt, &spec, stdio).await?;
        // Sent before the program began, of which we have just heard.
        let master = receive_fd(&ours).map_err(RequestError::Send)?;
        Ok((exec, master))
    }

    async fn exec_spec(
        &self,
        container: &str,
        attempt: u32,
        spec: &ExecSpec,
        stdio: [OwnedFd; 3],
    ) -> Result<Exec, ExecError> {
        let connection = &self.handle.connection;
        let text = serde_json::to_vec(spec).map_err(|error| RequestError::Send(error.into()))?;
        let spec_fd = spec_file(&text).map_err(RequestError::Send)?;
        let request = Request::Exec {
            container: container.as_bytes(),
            attempt,
            deadline_ms: CREATE_DEADLINE.as_millis().try_into().unwrap_or(u64::MAX),
        };
        let [stdin, stdout, stderr] = &stdio;
        let fds = [spec_fd.as_fd(), stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
        let (id, answer) = connection.register()?;
        let (sender, exit) = oneshot::channel();
        connection.waiting().exits.insert(id, sender);
        // From here on a caller that loses interest drops this, and the process ends.
        let mut exec =
            Exec { id, pid: 0, identity: Identity::default(), exit, handle: Arc::clone(&self.handle), ended: false };
        let answer = match connection.finish_ask(id, &request, &fds, answer).await {
            Ok(Answer::ExecStarted { pid, identity }) => {
                (exec.pid, exec.identity) = (pid, identity);
                return Ok(exec);
            }
            answer => answer,
        };
        exec.ended = true;
        connection.waiting().exits.remove(&id);
        let container = container.to_owned();
        match answer? {
            Answer::ExecFailed { stage: Stage::Create, message } => Err(ExecError::Create { container, message }),
            Answer::ExecFailed { stage: Stage::Start, message } => Err(ExecError::Start { container, message }),
            Answer::Refused(message) => Err(RequestError::Refused(message).into()),
            Answer::Done | Answer::ExecStarted { .. } => Err(RequestError::Gone.into()),
        }
    }

    /// Joins a running attempt: its output from now on goes also to these pipes, and what comes from `stdin` goes to its
    /// standard input if that is open. A client leaves by closing its ends. One that does not read for a second while its
    /// pipe is full is let go.
    ///
    /// # Errors
    /// [`RequestError::Refused`] when it does not run.
    pub async fn attach(&self, container: &str, attempt: u32, pipes: AttachPipes) -> Result<Attach, RequestError> {
        let connection = &self.handle.connection;
        let AttachPipes { stdin, stdout, stderr } = &pipes;
        let streams = Streams { stdin: stdin.is_some(), stdout: stdout.is_some(), stderr: stderr.is_some() };
        let request = Request::Attach { container: container.as_bytes(), attempt, streams };
        let fds: Vec<BorrowedFd<'_>> = [stdin, stdout, stderr].into_iter().flatten().map(OwnedFd::as_fd).collect();
        let (id, answer) = connection.register()?;
        let (sender, end) = oneshot::channel();
        connection.waiting().attaches.insert(id, sender);
        if let Err(error) = connection.finish_ask(id, &request, &fds, answer).await {
            connection.waiting().attaches.remove(&id);
            return Err(error);
        }
        Ok(Attach { end, handle: Arc::clone(&self.handle) })
    }

    /// Sets the size of a running attempt's terminal. Does not wait: a size that cannot be sent just now is lost, and so is
    /// one for a container without a terminal.
    pub fn resize(&self, container: &str, attempt: u32, columns: u16, rows: u16) {
        let request = Request::Resize { container: container.as_bytes(), attempt, columns, rows };
        let _ = send(&self.handle.connection.socket, &request.encode(0), &[]);
    }

    /// Kills everything in the pod, waits for it, and lets the shim end; the fact receiver then ends too.
    ///
    /// # Errors
    /// [`RequestError::Gone`] when it was gone already.
    pub async fn shutdown(&self) -> Result<(), RequestError> {
        self.handle.connection.ask(&Request::Shutdown, &[]).await.map(drop)
    }
}

// === impl Exec ===

impl Exec {
    /// Waits for its end. May be cancelled and called again until it has answered.
    ///
    /// # Errors
    /// [`RequestError::Gone`] when the shim went, and this process with it.
    pub async fn wait(&mut self) -> Result<Exit, RequestError> {
        let exit = (&mut self.exit).await.map_err(|_| RequestError::Gone);
        self.ended = true;
        exit
    }

    /// SIGKILL; [`Exec::wait`] then answers. Fine when it has ended already.
    ///
    /// # Errors
    /// [`RequestError::Gone`] when the shim went, and this process with it.
    pub async fn kill(&self) -> Result<(), RequestError> {
        self.handle.connection.ask(&Request::KillExec { exec: self.id }, &[]).await.map(drop)
    }
}

impl Attach {
    /// Waits for the container's end, which is told when all its output is in the pipes. `None`: the client was let go
    /// before.
    ///
    /// # Errors
    /// [`RequestError::Gone`] when the shim went, and the container with it.
    pub async fn wait(self) -> Result<Option<Exit>, RequestError> {
        let Attach { end, handle: _handle } = self;
        end.await.map_err(|_| RequestError::Gone)
    }
}

impl Drop for Exec {
    fn drop(&mut self) {
        if !self.ended {
            // Without waiting: if the socket is full just now, the exec ends at the latest with the connection.
            let packet = Request::KillExec { exec: self.id }.encode(0);
            let _ = send(&self.handle.connection.socket, &packet, &[]);
            self.handle.connection.waiting().exits.remove(&self.id);
        }
    }
}

// === impl Handle ===

impl Drop for Handle {
    fn drop(&mut self) {
        self.dropped.notify_one();
    }
}

// === impl Connection ===

impl Connection {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a request and waits for its answer; a refusal is an error.
    async fn ask(&self, request: &Request<'_>, fds: &[BorrowedFd<'_>]) -> Result<Answer, RequestError> {
        let (id, answer) = self.register()?;
        self.finish_ask(id, request, fds, answer).await
    }

    fn register(&self) -> Result<(u64, oneshot::Receiver<Answer>), RequestError> {
        let (sender, answer) = oneshot::channel();
        let mut waiting = self.waiting();
        if waiting.gone {
            return Err(RequestError::Gone);
        }
        waiting.last_id += 1;
        let id = waiting.last_id;
        waiting.answers.insert(id, sender);
        Ok((id, answer))
    }

    async fn finish_ask(
        &self,
        id: u64,
        request: &Request<'_>,
        fds: &[BorrowedFd<'_>],
        answer: oneshot::Receiver<Answer>,
    ) -> Result<Answer, RequestError> {
        let packet = request.encode(id);
        if packet.len() > MAX_PACKET {
            self.waiting().answers.remove(&id);
            return Err(RequestError::Refused("the request is too long".into()));
        }
        let sent = self.socket.async_io(Interest::WRITABLE, || send(&self.socket, &packet, fds)).await;
        if let Err(error) = sent {
            self.waiting().answers.remove(&id);
            return Err(match error.kind() {
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => RequestError::Gone,
                _ => RequestError::Send(error),
            });
        }
        match answer.await {
            Ok(Answer::Refused(message)) => Err(RequestError::Refused(message)),
            Ok(answer) => Ok(answer),
            Err(_) => Err(RequestError::Gone),
        }
    }

    /// Hands one packet of the shim to whoever waits for it.
    fn dispatch(&self, message: Message, facts: &mpsc::UnboundedSender<Fact>) {
        match message {
            Message::Answer { id, answer } => {
                if let Some(sender) = self.waiting().answers.remove(&id) {
                    let _ = sender.send(answer);
                }
            }
            Message::Exited { id, exit } => {
                let mut waiting = self.waiting();
                if let Some(sender) = waiting.exits.remove(&id) {
                    let _ = sender.send(exit);
                } else if let Some(sender) = waiting.attaches.remove(&id) {
                    let _ = sender.send(Some(exit));
                }
            }
            Message::Detached { id } => {
                if let Some(sender) = self.waiting().attaches.remove(&id) {
                    let _ = sender.send(None);
                }
            }
            Message::Fact(fact) => {
                if let Fact::Started { container, attempt, .. } | Fact::StartFailed { container, attempt, .. } = &fact
                    && let Some(sender) = self.waiting().starts.remove(&(container.clone(), *attempt))
                {
                    let _ = sender.send(fact.clone());
                }
                let _ = facts.send(fact);
            }
        }
    }
}

/// The one task that reads a connection, until the shim closes it or nobody is left to hear.
async fn read(connection: Arc<Connection>, facts: mpsc::UnboundedSender<Fact>, dropped: Arc<Notify>) {
    let mut packet = vec![0; MAX_PACKET];
    let mut clients_gone = false;
    loop {
        // Cancel safe, all three: async_io reads a packet only when it completes, the others carry no data.
        let length = tokio::select! {
            length = connection.socket.async_io(Interest::READABLE, || receive(&connection.socket, &mut packet)) => length,
            () = dropped.notified(), if !clients_gone => {
                clients_gone = true;
                continue;
            }
            () = facts.closed(), if clients_gone => break,
        };
        match length {
            Ok(0) | Err(_) => break,
            Ok(length) => {
                if let Some(message) = packet.get(..length).and_then(Message::parse) {
                    connection.dispatch(message, &facts);
                }
            }
        }
    }
    let mut waiting = connection.waiting();
    *waiting = Waiting { gone: true, last_id: waiting.last_id, ..Waiting::default() };
}

/// A sealed-off copy of `text` that the far end can read from its beginning.
fn spec_file(text: &[u8]) -> io::Result<OwnedFd> {
    let fd = rustix::fs::memfd_create("spec", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = std::fs::File::from(fd);
    file.write_all(text)?;
    let fd = OwnedFd::from(file);
    rustix::fs::seek(&fd, rustix::fs::SeekFrom::Start(0))?;
    Ok(fd)
}

fn connect_socket(directory: &Path) -> io::Result<OwnedFd> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    // An address holds 107 bytes; a pod's directory may be longer, so go through a descriptor of it.
    use rustix::fs::{Mode, OFlags, open};
    let directory = open(directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let number = std::os::fd::AsRawFd::as_raw_fd(&directory);
    let address = SocketAddrUnix::new(format!("/proc/self/fd/{number}/{SOCKET}"))?;
    connect(&socket, &address)?;
    Ok(socket)
}

fn send(socket: &UnixStream, packet: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(fds));
    }
    Ok(rustix::net::sendmsg(socket, &[IoSlice::new(packet)], &mut ancillary, SendFlags::NOSIGNAL)?)
}

fn receive(socket: &UnixStream, packet: &mut [u8]) -> io::Result<usize> {
    let (length, _) = rustix::net::recv(socket, packet, RecvFlags::empty())?;
    Ok(length)
}

/// Over which the master side of a terminal comes.
fn terminal_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

fn receive_fd(socket: &OwnedFd) -> io::Result<OwnedFd> {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, recvmsg};
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    recvmsg(socket, &mut [io::IoSliceMut::new(&mut [0])], &mut ancillary, flags)?;
    let fds = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    fds.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no terminal came"))
}
