//! The shim proper: one loop that waits for clients, children and what containers print.
//!
//! Between two turns it holds no more than the tables below; there is no timer, thread or queue elsewhere.

use std::ffi::{CString, OsString};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::process::ExitCode;

use pod_container::spec::PidMode;
use pod_shim::protocol::{MAX_PACKET, PID_FILE, SOCKET};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::SocketFlags;
use rustix::time::{ClockId, clock_gettime};

use crate::audience::Client;
use crate::container::{Container, fact, oom_kills};
use crate::exec::Exec;
use crate::facts::Facts;
use crate::peer::Peer;
use crate::request::{Fields, Packet};
use crate::spawn::{Spaces, open_log};
use crate::text::{Decimal, Line, parse_number};
use crate::{launch, sys};

/// The first argument that makes a shim of this program; the second is [`Settings`].
pub(crate) const WORD: &str = "--serve";

/// What the loop must know of the sandbox.
pub(crate) struct Settings {
    pub(crate) pid: PidMode,
    pub(crate) oom_score_adj: i32,
}

/// The descriptors that the exec'ing half hands over, in the order of their numbers from [`FIRST`] on.
pub(crate) struct Inherited<'a> {
    pub(crate) socket: BorrowedFd<'a>,
    pub(crate) facts: BorrowedFd<'a>,
    /// The shim's directory.
    pub(crate) home: BorrowedFd<'a>,
    pub(crate) host_mounts: BorrowedFd<'a>,
    /// Takes the word `ready PID`.
    pub(crate) status: BorrowedFd<'a>,
}

const FIRST: i32 = 3;
/// One for all reading: requests, reports and output.
const BUFFER: usize = MAX_PACKET;
const RETRY_MS: u64 = 1_000;
/// Without news for so long, the shim gives its memory back.
const QUIET_MS: u64 = 100;
const ENDING_POLL_MS: u64 = 2;
/// How long a shutdown waits for processes and full disks.
const SHUTDOWN_MS: u64 = 10_000;

struct Shim {
    socket: OwnedFd,
    signals: OwnedFd,
    home: OwnedFd,
    spaces: Spaces,
    facts: Facts,
    peers: Vec<Peer>,
    peer_count: u64,
    containers: Vec<Container>,
    execs: Vec<Exec>,
    stopping: Option<Stopping>,
    retry_at: u64,
}

struct Stopping {
    peer: u64,
    id: u64,
    until: u64,
}

/// Whose descriptor has news; indices into the tables, which only shrink at the end of a turn.
#[derive(Clone, Copy)]
enum Source {
    Signals,
    Socket,
    Peer(usize),
    Report(usize),
    Output(usize, usize),
    /// The container's standard input takes more.
    Input(usize),
    /// An attached client has typed.
    Stdin(usize, usize),
    /// An attached client takes more of a stream, or has left.
    Audience(usize, usize, usize),
    ExecReport(usize),
}

/// Nanoseconds since 1970.
pub(crate) fn now() -> i64 {
    let now = clock_gettime(ClockId::Realtime);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

/// For deadlines.
pub(crate) fn monotonic_ms() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.cast_unsigned() * 1_000 + now.tv_nsec.cast_unsigned() / 1_000_000
}

impl Settings {
    pub(crate) fn to_text(&self) -> String {
        let pid = match self.pid {
            PidMode::Container => 'c',
            PidMode::Pod => 'p',
            PidMode::Host => 'h',
        };
        format!("{pid}{}", self.oom_score_adj)
    }

    fn parse(text: &[u8]) -> Option<Settings> {
        let (pid, number) = text.split_first()?;
        let pid = match pid {
            b'c' => PidMode::Container,
            b'p' => PidMode::Pod,
            b'h' => PidMode::Host,
            _ => return None,
        };
        let digits = number.strip_prefix(b"-");
        let value = i32::try_from(parse_number(digits.unwrap_or(number))?).ok()?;
        Some(Settings { pid, oom_score_adj: if digits.is_some() { -value } else { value } })
    }
}

/// Places the descriptors and executes the program again as [`run`]. Only its failure returns.
pub(crate) fn hand_over(
    null: &OwnedFd,
    inherited: Inherited<'_>,
    program: BorrowedFd<'_>,
    arguments: &[CString],
) -> Result<std::convert::Infallible, Errno> {
    let Inherited { socket, facts, home, host_mounts, status } = inherited;
    let null = null.as_fd();
    let mut safe = Vec::new();
    for fd in [null, null, null, socket, facts, home, host_mounts, status] {
        safe.push(launch::out_of_the_way(fd)?);
    }
    let program = launch::out_of_the_way(program)?;
    for (number, fd) in (0..).zip(&safe) {
        sys::place(fd.as_fd(), number)?;
    }
    // Also what the engine was started with by a shell: nobody shall wait for a pod to close it.
    sys::close_on_exec_from(FIRST.unsigned_abs() + 5);
    Err(sys::execute(program.as_fd(), arguments))
}

/// The exec'd half: the long life.
pub(crate) fn run(settings: OsString) -> ExitCode {
    let numbers = [FIRST, FIRST + 1, FIRST + 2, FIRST + 3, FIRST + 4].map(sys::inherited);
    let [Ok(socket), Ok(facts), Ok(home), Ok(host_mounts), Ok(status)] = numbers else {
        return launch::usage();
    };
    let Some(settings) = Settings::parse(settings.as_bytes()) else { return launch::usage() };
    match Shim::new(settings, socket, facts, home, host_mounts) {
        Err(errno) => {
            let mut words = b"failed to make the shim's own surroundings: errno ".to_vec();
            words.extend_from_slice(Decimal::new(errno.raw_os_error().cast_unsigned().into()).as_bytes());
            let _ = rustix::io::write(&status, &words);
            ExitCode::FAILURE
        }
        Ok((mut shim, pid)) => {
            // Whoever asked for the pod is gone: so is the pod.
            let ready = Line::new("ready").word(&pid).end();
            if rustix::io::write(&status, &ready).is_err() {
                shim.remove_files();
                return ExitCode::FAILURE;
            }
            drop((status, ready, pid));
            shim.serve();
            ExitCode::SUCCESS
        }
    }
}

impl Shim {
    /// With the shim's own PID as the host sees it.
    fn new(
        settings: Settings,
        socket: OwnedFd,
        facts: OwnedFd,
        home: OwnedFd,
        host_mounts: OwnedFd,
    ) -> Result<(Shim, Vec<u8>), Errno> {
        sys::set_name(c"outrigger-shim");
        let signals = sys::take_signals()?;
        if settings.pid == PidMode::Host {
            // No init of a namespace: orphans of its containers come to it only by this.
            rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        }
        let spaces = Spaces::new(settings.pid, settings.oom_score_adj, host_mounts)?;
        // `/proc` still is the host's.
        let pid = rustix::fs::readlink("/proc/self", Vec::new())?.into_bytes();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&home, PID_FILE, flags, Mode::from_raw_mode(0o644))?;
        rustix::io::write(&file, &pid)?;
        let shim = Shim {
            socket,
            signals,
            home,
            spaces,
            facts: Facts::new(facts),
            peers: Vec::new(),
            peer_count: 0,
            containers: Vec::new(),
            execs: Vec::new(),
            stopping: None,
            retry_at: 0,
        };
        Ok((shim, pid))
    }

    fn serve(&mut self) {
        let mut buffer = Vec::new();
        // Has anything happened since memory was last given back?
        let mut warm = true;
        loop {
            let news = self.wait(warm);
            if news.is_empty() && warm && self.next_alarm().is_none_or(|ms| ms >= QUIET_MS) {
                warm = false;
                drop((news, std::mem::take(&mut buffer)));
                sys::release_memory();
                continue;
            }
            warm = true;
            buffer.resize(BUFFER, 0);
            for source in news {
                self.handle(source, &mut buffer);
            }
            self.keep_time(&mut buffer);
            self.tidy();
            if self.stopping.is_some() && self.has_stopped() {
                self.say_goodbye();
                return;
            }
        }
    }

    // === waiting ===

    fn wait(&mut self, warm: bool) -> Vec<Source> {
        let mut sources = Vec::with_capacity(16);
        let mut fds = Vec::with_capacity(16);
        let mut watch = |source: Source, fd, flags| {
            sources.push(source);
            fds.push(PollFd::from_borrowed_fd(fd, flags));
        };
        watch(Source::Signals, self.signals.as_fd(), PollFlags::IN);
        watch(Source::Socket, self.socket.as_fd(), PollFlags::IN);
        for (index, peer) in self.peers.iter().enumerate() {
            let flags = if peer.is_blocked() { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
            watch(Source::Peer(index), peer.socket(), flags);
        }
        for (index, container) in self.containers.iter().enumerate() {
            if let Some(report) = container.child.report() {
                watch(Source::Report(index), report, PollFlags::IN);
            }
            for (stream, fd) in container.output.readable() {
                watch(Source::Output(index, stream), fd, PollFlags::IN);
            }
            if let Some(sink) = container.input.blocked() {
                watch(Source::Input(index), sink, PollFlags::OUT);
            }
            for (number, client) in container.output.audience.iter().enumerate() {
                if let Some(stdin) = client.stdin.as_ref().filter(|_| container.input.is_ready()) {
                    watch(Source::Stdin(index, number), stdin.as_fd(), PollFlags::IN);
                }
                for (stream, fd, full) in client.outs() {
                    // That nobody reads any more is told without asking.
                    let flags = if full { PollFlags::OUT } else { PollFlags::empty() };
                    watch(Source::Audience(index, number, stream), fd, flags);
                }
            }
        }
        for (index, exec) in self.execs.iter().enumerate() {
            if let Some(report) = exec.child.report() {
                watch(Source::ExecReport(index), report, PollFlags::IN);
            }
        }
        let mut alarm = self.next_alarm();
        if warm {
            alarm = Some(alarm.map_or(QUIET_MS, |alarm| alarm.min(QUIET_MS)));
        }
        let timeout = alarm.map(|ms| Timespec {
            tv_sec: i64::try_from(ms / 1_000).unwrap_or(i64::MAX),
            tv_nsec: (ms % 1_000 * 1_000_000).cast_signed(),
        });
        let _ = poll(&mut fds, timeout.as_ref());
        let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
        sources.retain(|_| ready.next().unwrap_or(false));
        sources
    }

    /// Milliseconds until something must be done without news.
    fn next_alarm(&self) -> Option<u64> {
        let now = monotonic_ms();
        let containers = self.containers.iter().filter(|container| container.is_making());
        let execs = self.execs.iter().filter(|exec| exec.is_making());
        let children = containers.map(|container| &container.child).chain(execs.map(|exec| &exec.child));
        let clients = self.containers.iter().flat_map(|container| &container.output.audience);
        let deadlines = children.map(|child| child.deadline).chain(clients.filter_map(Client::patience_ends));
        let mut alarm = deadlines.map(|deadline| deadline.saturating_sub(now)).min();
        let mut within = |ms| alarm = Some(alarm.map_or(ms, |alarm: u64| alarm.min(ms)));
        if self.facts.is_behind() || self.containers.iter().any(|container| container.output.is_stalled()) {
            within(RETRY_MS);
        }
        if self.stopping.is_some() || self.containers.iter().any(Container::is_ending) {
            within(ENDING_POLL_MS);
        }
        alarm
    }

    fn handle(&mut self, source: Source, buffer: &mut [u8]) {
        match source {
            Source::Signals => self.reap(buffer),
            Source::Socket => self.accept(),
            Source::Peer(index) => self.receive(index, buffer),
            Source::Report(index) => self.containers[index].hear(self.spaces.pid, &mut self.facts, buffer),
            Source::Output(index, stream) => self.containers[index].output.pump(stream, buffer),
            Source::Input(index) => self.containers[index].input.push(),
            Source::Stdin(index, client) => self.containers[index].listen(client, buffer),
            Source::Audience(index, client, stream) => self.containers[index].output.audience[client].hear(stream),
            Source::ExecReport(index) => self.hear_exec(index, buffer),
        }
    }

    fn hear_exec(&mut self, index: usize, buffer: &mut [u8]) {
        let exec = &mut self.execs[index];
        for line in exec.hear(buffer).into_iter().flatten() {
            answer(&mut self.peers, exec.peer, line);
        }
    }

    fn keep_time(&mut self, buffer: &mut [u8]) {
        let now = monotonic_ms();
        for container in &mut self.containers {
            container.expire(&mut self.facts, now);
            container.finish_ending(&mut self.facts, buffer);
        }
        for exec in &mut self.execs {
            if let Some(line) = exec.expire(now) {
                answer(&mut self.peers, exec.peer, line);
            }
        }
        if now >= self.retry_at {
            self.retry_at = now + RETRY_MS;
            self.facts.retry();
            self.containers.iter_mut().for_each(|container| container.output.retry());
        }
    }

    /// Tells the news, and forgets what is over.
    fn tidy(&mut self) {
        for peer in &mut self.peers {
            peer.push(&self.facts);
        }
        for gone in self.peers.iter().filter(|peer| peer.gone) {
            self.execs.iter_mut().filter(|exec| exec.peer == gone.serial).for_each(|exec| exec.child.kill());
        }
        for container in &mut self.containers {
            let peers = &mut self.peers;
            container.dismiss(|peer, line| answer(peers, peer, line));
        }
        self.peers.retain(|peer| !peer.gone);
        self.containers.retain(|container| !container.is_done());
        self.execs.retain(|exec| !exec.is_done());
    }

    // === children ===

    fn reap(&mut self, buffer: &mut [u8]) {
        // The siginfo itself says nothing that waitpid does not, and several signals may be one.
        while rustix::io::read(&self.signals, &mut buffer[..128]).is_ok() {}
        while let Some(pid) = sys::ended_child() {
            // Its first words may still wait to be heard, and tell whose it is; it has its number until it is reaped.
            for container in self.containers.iter_mut().filter(|container| container.child.report().is_some()) {
                container.hear(self.spaces.pid, &mut self.facts, buffer);
            }
            (0..self.execs.len()).for_each(|index| self.hear_exec(index, buffer));
            let Some(status) = sys::reap(pid) else { return };
            if let Some(container) = self.containers.iter_mut().find(|container| container.child.has_pid(pid)) {
                container.reap(pid, status, self.spaces.pid, &mut self.facts, buffer);
            } else if let Some(exec) = self.execs.iter_mut().find(|exec| exec.child.has_pid(pid)) {
                for line in exec.reap(pid, status).into_iter().flatten() {
                    answer(&mut self.peers, exec.peer, line);
                }
            }
            // Anyone else was an orphan, or the keeper of the shared namespace.
        }
    }

    // === clients ===

    fn accept(&mut self) {
        while let Ok(socket) = rustix::net::accept_with(&self.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            self.peer_count += 1;
            self.peers.push(Peer::new(self.peer_count, socket));
        }
    }

    fn receive(&mut self, index: usize, buffer: &mut [u8]) {
        let peer = &mut self.peers[index];
        peer.unblock();
        let serial = peer.serial;
        let Some((bytes, fds)) = peer.receive(buffer) else { return };
        let Some(packet) = Packet::parse(bytes, fds) else {
            // Not of this build: nothing it says can be trusted to mean what we think.
            peer.gone = true;
            return;
        };
        let id = packet.id;
        let line = match self.obey(serial, packet) {
            Ok(true) => Line::new("done").number(id),
            Ok(false) => return,
            Err(reason) => Line::new("refused").number(id).message(reason),
        };
        answer(&mut self.peers, serial, line);
    }

    /// Does what a client asks. `Ok(false)`: the answer comes later.
    fn obey(&mut self, peer: u64, packet: Packet<'_>) -> Result<bool, &'static [u8]> {
        let Packet { verb, id, mut fields, fds } = packet;
        match verb {
            b"start" => self.start(fields, fds).map(|()| true),
            b"signal" => self.signal(fields).map(|()| true),
            b"exec" => self.exec(peer, id, fields, fds).map(|()| false),
            b"kill-exec" => {
                let exec = fields.number().ok_or(MALFORMED)?;
                let execs = self.execs.iter_mut().filter(|known| known.peer == peer && known.id == exec);
                execs.for_each(|exec| exec.child.kill());
                Ok(true)
            }
            b"attach" => self.attach(peer, id, fields, fds).map(|()| true),
            b"resize" => self.resize(fields).map(|()| true),
            b"shutdown" => {
                self.stop(peer, id);
                Ok(false)
            }
            _ => Err(b"unknown request"),
        }
    }

    fn start(&mut self, mut fields: Fields<'_>, fds: Vec<OwnedFd>) -> Result<(), &'static [u8]> {
        let start = fields.start().ok_or(MALFORMED)?;
        let spec = fds.into_iter().next().ok_or(MALFORMED)?;
        if self.stopping.is_some() {
            return Err(b"the pod is being stopped");
        }
        let key = start.key;
        let known = self.containers.iter().any(|container| container.is(key));
        if known || self.facts.knows(key.container, key.attempt) {
            return Err(b"this attempt has been started before");
        }
        let deadline = monotonic_ms().saturating_add(start.deadline_ms);
        let oom_kills = oom_kills(&start.cgroups);
        // Whose processes it joins; with the pod's or the host's there is nothing to join.
        let wanted = !start.processes_of.is_empty() && self.spaces.pid == PidMode::Container;
        let host = self.containers.iter().rev().find(|container| wanted && container.is_named(start.processes_of));
        let host = host.and_then(Container::running);
        if wanted && host.is_none() {
            let message = b"the container whose processes it is to join is not running";
            let line = fact("start-failed", key.container, key.attempt).word(b"create").message(message);
            self.facts.append(line.end());
            return Ok(());
        }
        let spawned = open_log(start.log, start.max_size, start.max_files)
            .map_err(|error| ("failed to open the log: ", error.raw_os_error().unwrap_or(0)))
            .and_then(|log| {
                self.spaces
                    .container(spec, start.streams, host, log, &start.cgroups, deadline)
                    .map_err(|errno| ("failed to fork: ", errno.raw_os_error()))
            });
        match spawned {
            Ok(spawned) => self.containers.push(Container::new(key, start.cgroups, spawned, host.is_some(), oom_kills)),
            Err((what, errno)) => {
                let mut message = what.as_bytes().to_vec();
                message.extend_from_slice(std::io::Error::from_raw_os_error(errno).to_string().as_bytes());
                let line = fact("start-failed", key.container, key.attempt).word(b"create").message(&message);
                self.facts.append(line.end());
            }
        }
        Ok(())
    }

    fn signal(&mut self, mut fields: Fields<'_>) -> Result<(), &'static [u8]> {
        let key = fields.key().ok_or(MALFORMED)?;
        let signal = fields.number().and_then(|signal| i32::try_from(signal).ok()).ok_or(MALFORMED)?;
        let container = self.containers.iter_mut().find(|container| container.is(key)).ok_or(NOT_RUNNING)?;
        match container.running() {
            Some(pid) => sys::kill(pid, signal).map_err(|_| &b"no such signal"[..]),
            // Whoever kills it while it is made gets a failed start.
            None if container.is_making() && signal == libc::SIGKILL => {
                container.child.kill();
                Ok(())
            }
            None => Err(NOT_RUNNING),
        }
    }

    fn exec(&mut self, peer: u64, id: u64, mut fields: Fields<'_>, fds: Vec<OwnedFd>) -> Result<(), &'static [u8]> {
        let key = fields.key().ok_or(MALFORMED)?;
        let deadline = monotonic_ms().saturating_add(fields.number().ok_or(MALFORMED)?);
        let Ok([spec, stdin, stdout, stderr]) = <[OwnedFd; 4]>::try_from(fds) else { return Err(MALFORMED) };
        let container = self.containers.iter().find(|container| container.is(key)).ok_or(NOT_RUNNING)?;
        let pid = container.running().ok_or(NOT_RUNNING)?;
        let spawned = self
            .spaces
            .exec(pid, container.cgroups(), spec, [stdin, stdout, stderr], deadline)
            // The PID namespace of a first process that has just died takes no more.
            .map_err(|_| NOT_RUNNING)?;
        self.execs.push(Exec::new(peer, id, spawned));
        Ok(())
    }

    fn attach(&mut self, peer: u64, id: u64, mut fields: Fields<'_>, fds: Vec<OwnedFd>) -> Result<(), &'static [u8]> {
        let key = fields.key().ok_or(MALFORMED)?;
        let mut fds = fds.into_iter();
        let mut streams = [None, None, None];
        for stream in &mut streams {
            if fields.number().ok_or(MALFORMED)? != 0 {
                *stream = Some(fds.next().ok_or(MALFORMED)?);
            }
        }
        let container = self.containers.iter_mut().find(|container| container.is(key)).ok_or(NOT_RUNNING)?;
        container.running().ok_or(NOT_RUNNING)?;
        if !container.input.is_open() {
            streams[0] = None;
        }
        container.output.audience.push(Client::new(peer, id, streams));
        Ok(())
    }

    fn resize(&mut self, mut fields: Fields<'_>) -> Result<(), &'static [u8]> {
        let key = fields.key().ok_or(MALFORMED)?;
        let mut size = || fields.number().and_then(|number| u16::try_from(number).ok()).ok_or(MALFORMED);
        let (columns, rows) = (size()?, size()?);
        let container = self.containers.iter().find(|container| container.is(key)).ok_or(NOT_RUNNING)?;
        container.output.resize(columns, rows).map_err(|_| &b"the container has no terminal"[..])
    }

    // === the end ===

    fn stop(&mut self, peer: u64, id: u64) {
        if self.stopping.is_none() {
            self.stopping = Some(Stopping { peer, id, until: monotonic_ms() + SHUTDOWN_MS });
        }
        self.kill_everything();
    }

    fn kill_everything(&mut self) {
        if self.spaces.pid != PidMode::Host {
            sys::kill_namespace();
        }
        let mut pids = [0; 4096];
        self.containers.iter_mut().for_each(|container| container.kill_all(&mut pids));
        self.execs.iter_mut().for_each(|exec| exec.child.kill());
    }

    /// Nobody left, or no more patience.
    fn has_stopped(&mut self) -> bool {
        let late = self.stopping.as_ref().is_some_and(|stopping| monotonic_ms() >= stopping.until);
        if late {
            return true;
        }
        if sys::has_children() {
            // What was being forked a moment ago may have missed the first blow.
            self.kill_everything();
            return false;
        }
        !self.containers.iter().any(Container::is_ending)
            && !self.facts.is_behind()
            && !self.containers.iter().any(|container| container.output.is_stalled())
            && !self.containers.iter().any(|container| !container.output.audience.is_empty())
    }

    fn say_goodbye(&mut self) {
        self.remove_files();
        let Some(stopping) = self.stopping.take() else { return };
        answer(&mut self.peers, stopping.peer, Line::new("done").number(stopping.id));
        // A client that does not read for a second will find the facts in their file.
        for _ in 0..100 {
            self.peers.iter_mut().for_each(|peer| {
                peer.unblock();
                peer.push(&self.facts);
            });
            if !self.peers.iter().any(|peer| peer.is_behind(&self.facts)) {
                return;
            }
            let _ = poll(&mut [], Some(&Timespec { tv_sec: 0, tv_nsec: 10_000_000 }));
        }
    }

    fn remove_files(&self) {
        for name in [SOCKET, PID_FILE] {
            let _ = rustix::fs::unlinkat(&self.home, name, AtFlags::empty());
        }
    }
}

const MALFORMED: &[u8] = b"malformed request";
const NOT_RUNNING: &[u8] = b"the container is not running";

fn answer(peers: &mut [Peer], serial: u64, line: Line) {
    if let Some(peer) = peers.iter_mut().find(|peer| peer.serial == serial) {
        peer.answer(line);
    }
}
