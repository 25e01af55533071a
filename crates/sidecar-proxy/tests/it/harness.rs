//! A proxy in its own directory, upstreams, clients, and waiting for conditions.

use std::fs::{self, File};
use std::io::{BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Long enough for a machine under load; nothing waits that long when all is well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What `.ci/kubectl` brings.
pub(crate) fn clients() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target")), PathBuf::from);
    target.join("clients")
}

pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A port of 127.0.0.1 that the kernel gives to nobody as long as this lives: connections to it are refused. Whoever asks for
/// it by its number gets it, as far as it sets SO_REUSEADDR, as servers do (socket(7)).
pub(crate) struct Port {
    pub(crate) address: SocketAddr,
    _socket: std::os::fd::OwnedFd,
}

impl Port {
    pub(crate) fn reserve() -> Port {
        use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, socket_with, sockopt};
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        sockopt::set_socket_reuseaddr(&socket, true).unwrap();
        bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        Port { address: getsockname(&socket).unwrap().try_into().unwrap(), _socket: socket }
    }
}

/// A directory with a proxy in it; ends it when dropped.
pub(crate) struct World {
    directory: tempfile::TempDir,
    /// Whom the proxy runs as, if not as the test.
    pub(crate) user: Option<u32>,
    /// Further flags.
    pub(crate) flags: Vec<String>,
    /// A command with arguments that runs the proxy; without, it runs as it is.
    pub(crate) through: Vec<String>,
    child: Option<Child>,
    pub(crate) admin: Option<SocketAddr>,
    listeners: Vec<(String, SocketAddr)>,
}

impl World {
    pub(crate) fn new() -> World {
        World {
            user: None,
            flags: Vec::new(),
            through: Vec::new(),
            directory: tempfile::tempdir().unwrap(),
            child: None,
            admin: None,
            listeners: Vec::new(),
        }
    }

    /// One listener, one route to one backend with these endpoints.
    pub(crate) fn simple(upstreams: &[SocketAddr]) -> World {
        World::with(&simple_spec(upstreams, ""))
    }

    pub(crate) fn with(spec: &str) -> World {
        let mut world = World::new();
        world.start(spec);
        world
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn configure(&self, spec: &str) -> PathBuf {
        let root = self.directory.path().display().to_string();
        // Documents of other kinds may follow.
        let (spec, more) = spec.split_once("\n---\n").unwrap_or((spec, ""));
        let more = if more.is_empty() { String::new() } else { format!("---\n{more}") };
        let spec: String = spec.replace("ROOT", &root).lines().map(|line| format!("  {line}\n")).collect();
        let path = self.path("proxy.yaml");
        fs::write(&path, format!("apiVersion: outrigger.dev/v1alpha1\nkind: Proxy\nspec:\n{spec}{more}")).unwrap();
        path
    }

    fn launch(&self, more: &[&str]) -> Child {
        self.launch_with(more, &[])
    }

    fn launch_with(&self, more: &[&str], variables: &[(&str, &str)]) -> Child {
        let proxy = env!("CARGO_BIN_EXE_outrigger-proxy").to_owned();
        let mut words = self.through.iter().chain([&proxy]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words);
        if let Some(user) = self.user {
            let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o777);
            fs::set_permissions(self.directory.path(), everybody).unwrap();
            std::os::unix::process::CommandExt::uid(&mut command, user);
        }
        command
            .arg("--config")
            .arg(self.path("proxy.yaml"))
            .args(["--admin", "127.0.0.1:0", "--log-format", "json", "--drain-timeout", "20s", "--socket"])
            .arg(self.path("sock"))
            .args(&self.flags)
            .args(more)
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(File::create(self.path("stdout")).unwrap())
            .stderr(File::create(self.path("stderr")).unwrap())
            .spawn()
            .unwrap()
    }

    pub(crate) fn start(&mut self, spec: &str) {
        self.start_with(spec, &[]);
    }

    /// With these environment variables.
    pub(crate) fn start_with(&mut self, spec: &str, variables: &[(&str, &str)]) {
        self.configure(spec);
        self.child = Some(self.launch_with(&[], variables));
        self.await_start();
    }

    /// Starts a second process that takes over from the first, which is returned, with a copy of its log.
    pub(crate) fn take_over(&mut self) -> (Child, PathBuf) {
        let before = self.path(&format!("stderr-{}", self.child.as_ref().unwrap().id()));
        fs::rename(self.path("stderr"), &before).unwrap();
        let old = self.child.replace(self.launch(&["--take-over"])).unwrap();
        self.await_start();
        // Until the old one has been told, it accepts, too.
        eventually("the hand-over", || fs::read_to_string(&before).unwrap().contains("handed over; ending"));
        (old, before)
    }

    /// As [`World::take_over`], when it is expected to fail: how the second process ended, and what it said.
    pub(crate) fn fail_to_take_over(&mut self) -> (ExitStatus, String) {
        let (log, aside) = (self.path("stderr"), self.path("stderr-aside"));
        fs::rename(&log, &aside).unwrap();
        let status = self.launch(&["--take-over"]).wait().unwrap();
        let said = fs::read_to_string(&log).unwrap();
        fs::rename(&aside, &log).unwrap();
        (status, said)
    }

    fn await_start(&mut self) {
        self.listeners.clear();
        eventually("the proxy's start", || {
            if let Some(status) = self.child.as_mut().unwrap().try_wait().unwrap() {
                panic!("the proxy ended with {status}: {}", self.log());
            }
            self.look();
            self.admin.is_some() && !self.listeners.is_empty() && self.ask("/readyz").starts_with("HTTP/1.1 200")
        });
    }

    /// Reads addresses from the log.
    fn look(&mut self) {
        let field = |line: &str, name: &str| {
            let rest = line.split(&format!("\"{name}\":\"")).nth(1)?;
            rest.split('"').next().map(str::to_owned)
        };
        for line in self.log().lines() {
            if line.contains("serving health") {
                self.admin = field(line, "address").and_then(|address| address.parse().ok());
            }
            if line.contains("\"listening\"")
                && let (Some(name), Some(Ok(address))) =
                    (field(line, "listener"), field(line, "at").map(|at| at.parse()))
            {
                match self.listeners.iter_mut().find(|(known, _)| *known == name) {
                    // It has come back elsewhere.
                    Some((_, before)) => *before = address,
                    None => self.listeners.push((name, address)),
                }
            }
        }
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("stderr")).unwrap_or_default()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.listeners[0].1
    }

    /// The address of a listener by its name; waits until it listens.
    pub(crate) fn listener(&mut self, name: &str) -> SocketAddr {
        let mut found = None;
        eventually("the listener", || {
            self.look();
            found = self.listeners.iter().find(|(known, _)| known == name).map(|(_, address)| *address);
            found.is_some()
        });
        found.unwrap()
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.address())
    }

    pub(crate) fn ask(&self, path: &str) -> String {
        self.ask_for(path, "")
    }

    /// With these header lines.
    pub(crate) fn ask_for(&self, path: &str, lines: &str) -> String {
        let Some(Ok(mut stream)) = self.admin.map(TcpStream::connect) else { return String::new() };
        let _ = write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n{lines}Connection: close\r\n\r\n");
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    }

    pub(crate) fn metric(&self, line: &str) -> u64 {
        let page = self.ask("/metrics");
        let found = page.lines().find_map(|one| one.strip_prefix(line)?.trim().parse().ok());
        found.unwrap_or_else(|| panic!("no {line} in\n{page}"))
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(self.child.as_ref().unwrap()), signal).unwrap();
    }

    /// The time that it has spent on the processor (proc_pid_stat(5)).
    pub(crate) fn processor_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process())).unwrap();
        let fields = stat.rsplit(')').next().unwrap().split_whitespace().skip(11).take(2);
        let ticks: u64 = fields.map(|ticks| ticks.parse::<u64>().unwrap()).sum();
        // A hundred a second on every machine that Linux knows today.
        Duration::from_millis(ticks * 10)
    }

    pub(crate) fn process(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the proxy's end", || {
            status = self.child.as_mut().unwrap().try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// Bytes of its own in memory: PSS without what is shared (proc(5)).
    pub(crate) fn memory(&self) -> usize {
        let id = self.child.as_ref().unwrap().id();
        let text = fs::read_to_string(format!("/proc/{id}/smaps_rollup")).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("Pss_Anon:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.as_mut().unwrap().try_wait().unwrap().is_none()
    }

    pub(crate) fn reload(&self, spec: &str) {
        let before = self.log().matches("configuration reloaded").count();
        self.configure(spec);
        eventually("the reload", || self.log().matches("configuration reloaded").count() > before);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // Most have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub(crate) fn simple_spec(upstreams: &[SocketAddr], more: &str) -> String {
    let endpoints: Vec<String> = upstreams.iter().map(|address| format!("\"{address}\"")).collect();
    format!(
        "listeners:\n- {{name: http, address: \"127.0.0.1:0\"}}\nroutes:\n- name: all\n  backends: [{{name: app}}]\nbackends:\n- name: app\n  endpoints: [{}]\n{more}",
        endpoints.join(", ")
    )
}

/// A request as an upstream has seen it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Seen {
    pub(crate) fn line(&self) -> &str {
        self.head.lines().next().unwrap()
    }

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// What an upstream does with a request.
pub(crate) enum Does {
    /// These bytes, and the connection goes on.
    Says(String),
    /// These bytes, and the connection ends.
    SaysAndCloses(String),
    /// Nothing, for this long; then the connection ends.
    Waits(Duration),
    /// What was received comes back, for ever.
    Echoes(String),
}

pub(crate) fn ok(body: &str) -> Does {
    Does::Says(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
}

/// An upstream on its own port.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Arc<Mutex<Vec<Seen>>>,
    pub(crate) connections: Arc<AtomicUsize>,
    stopped: Arc<AtomicBool>,
}

impl Upstream {
    pub(crate) fn start(answer: impl Fn(&Seen) -> Does + Send + Sync + 'static) -> Upstream {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Upstream::on(listener, answer)
    }

    pub(crate) fn on(listener: TcpListener, answer: impl Fn(&Seen) -> Does + Send + Sync + 'static) -> Upstream {
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let (connections, stopped) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let upstream = Upstream {
            address,
            seen: Arc::clone(&seen),
            connections: Arc::clone(&connections),
            stopped: Arc::clone(&stopped),
        };
        let answer = Arc::new(answer);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                connections.fetch_add(1, Ordering::Relaxed);
                let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                thread::spawn(move || serve(&stream, &seen, &*answer));
            }
        });
        upstream
    }

    pub(crate) fn last(&self) -> Seen {
        self.seen.lock().unwrap().last().unwrap().clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        // Wakes the thread, which then sees that it is to end.
        let _ = TcpStream::connect(self.address);
    }
}

fn read_line(reader: &mut impl std::io::BufRead, into: &mut String) -> bool {
    matches!(reader.read_line(into), Ok(1..))
}

fn serve(stream: &TcpStream, seen: &Mutex<Vec<Seen>>, answer: &dyn Fn(&Seen) -> Does) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut writer = stream;
    loop {
        let mut head = String::new();
        loop {
            let before = head.len();
            if !read_line(&mut reader, &mut head) {
                return;
            }
            if &head[before..] == "\r\n" {
                break;
            }
        }
        let mut request = Seen { head, body: Vec::new() };
        if request.field("expect").is_some() {
            writer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
        }
        if let Some(length) = request.field("content-length").and_then(|length| length.parse().ok()) {
            request.body = vec![0; length];
            if reader.read_exact(&mut request.body).is_err() {
                return;
            }
        } else if request.field("transfer-encoding").is_some() {
            loop {
                let mut line = String::new();
                if !read_line(&mut reader, &mut line) {
                    return;
                }
                let size = usize::from_str_radix(line.trim_end(), 16).unwrap();
                let mut chunk = vec![0; size + 2];
                if size == 0 {
                    while line != "\r\n" {
                        line.clear();
                        if !read_line(&mut reader, &mut line) {
                            return;
                        }
                        request.head.push_str(line.trim_end());
                    }
                    break;
                }
                if reader.read_exact(&mut chunk).is_err() {
                    return;
                }
                request.body.extend_from_slice(&chunk[..size]);
            }
        }
        seen.lock().unwrap().push(request.clone());
        match answer(&request) {
            Does::Says(text) => {
                if writer.write_all(text.as_bytes()).is_err() {
                    return;
                }
            }
            Does::SaysAndCloses(text) => {
                let _ = writer.write_all(text.as_bytes());
                let _ = stream.shutdown(std::net::Shutdown::Both);
                return;
            }
            Does::Waits(time) => {
                thread::sleep(time);
                let _ = stream.shutdown(std::net::Shutdown::Both);
                return;
            }
            Does::Echoes(text) => {
                writer.write_all(text.as_bytes()).unwrap();
                let mut bytes = [0; 4096];
                while let Ok(length @ 1..) = reader.read(&mut bytes) {
                    if writer.write_all(&bytes[..length]).is_err() {
                        return;
                    }
                }
                let _ = stream.shutdown(std::net::Shutdown::Write);
                return;
            }
        }
    }
}

/// A client that sends bytes and reads answers.
pub(crate) struct Client {
    pub(crate) stream: BufReader<TcpStream>,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        self.head[9..12].parse().unwrap()
    }
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Client { stream: BufReader::new(stream) }
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Client {
        // A peer that has closed already shows in what is read.
        let _ = self.stream.get_mut().write_all(bytes.as_ref());
        self
    }

    pub(crate) fn get(&mut self, path: &str) -> Answer {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"));
        self.answer()
    }

    pub(crate) fn answer(&mut self) -> Answer {
        self.answer_to("GET")
    }

    /// Reads one answer; panics if there is none.
    pub(crate) fn answer_to(&mut self, method: &str) -> Answer {
        self.try_answer(method).expect("an answer")
    }

    pub(crate) fn try_answer(&mut self, method: &str) -> Option<Answer> {
        let mut head = String::new();
        loop {
            let before = head.len();
            if !read_line(&mut self.stream, &mut head) {
                return None;
            }
            if &head[before..] == "\r\n" {
                break;
            }
        }
        let mut answer = Answer { head, body: String::new() };
        let status = answer.status();
        if method == "HEAD" || status < 200 || status == 204 || status == 304 {
            return Some(answer);
        }
        let mut body = Vec::new();
        if let Some(length) = answer.field("content-length").and_then(|length| length.parse().ok()) {
            body = vec![0; length];
            self.stream.read_exact(&mut body).ok()?;
        } else if answer.field("transfer-encoding").is_some() {
            loop {
                let mut line = String::new();
                if !read_line(&mut self.stream, &mut line) {
                    return None;
                }
                let size = usize::from_str_radix(line.trim_end(), 16).unwrap();
                if size == 0 {
                    loop {
                        line.clear();
                        if !read_line(&mut self.stream, &mut line) {
                            return None;
                        }
                        if line == "\r\n" {
                            break;
                        }
                        answer.head.push_str(&line);
                    }
                    break;
                }
                let mut chunk = vec![0; size + 2];
                self.stream.read_exact(&mut chunk).ok()?;
                body.extend_from_slice(&chunk[..size]);
            }
        } else {
            self.stream.read_to_end(&mut body).ok()?;
        }
        answer.body = String::from_utf8_lossy(&body).into_owned();
        Some(answer)
    }

    /// Whether the proxy has closed the connection; waits for it.
    pub(crate) fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).is_err() || rest.is_empty()
    }
}
