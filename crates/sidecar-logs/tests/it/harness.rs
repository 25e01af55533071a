//! An agent in its own directory, a receiver that counts, and waiting for conditions.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, Signal, kill_process};

/// Long enough for a machine under load; nothing waits that long when all is well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A directory with `log/`, `state/` and agents in it; ends them when dropped.
pub(crate) struct World {
    directory: tempfile::TempDir,
    children: Vec<Child>,
}

impl World {
    pub(crate) fn new() -> World {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("log")).unwrap();
        World { directory, children: Vec::new() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// A document whose spec is `text`, with the state directory filled in.
    pub(crate) fn configure(&self, text: &str) -> PathBuf {
        let root = self.directory.path().display().to_string();
        let spec: String = text.replace("ROOT", &root).lines().map(|line| format!("  {line}\n")).collect();
        let path = self.path("config.yaml");
        let whole = format!(
            "apiVersion: outrigger.dev/v1alpha1\nkind: LogAgent\nspec:\n{spec}  state:\n    directory: {root}/state\n    saveEvery: 50ms\n"
        );
        fs::write(&path, whole).unwrap();
        path
    }

    /// Starts an agent and waits until it follows.
    pub(crate) fn start(&mut self, config: &Path) -> usize {
        self.start_with(config, Stdio::null())
    }

    /// What was given as `Stdio::piped()`; dropping it is its end.
    pub(crate) fn stdin(&mut self, agent: usize) -> std::process::ChildStdin {
        self.children[agent].stdin.take().unwrap()
    }

    pub(crate) fn start_with(&mut self, config: &Path, stdin: Stdio) -> usize {
        self.start_in(config, stdin, &[])
    }

    pub(crate) fn start_in(&mut self, config: &Path, stdin: Stdio, environment: &[(&str, &str)]) -> usize {
        let agent = self.launch(Command::new(env!("CARGO_BIN_EXE_outrigger-logs")), config, stdin, environment);
        eventually("the agent's start", || self.admin("/readyz").starts_with("HTTP/1.1 200"));
        agent
    }

    /// Starts an agent under a program that becomes it, and does not wait.
    pub(crate) fn launch_under(&mut self, mut program: Command, config: &Path) -> usize {
        program.arg(env!("CARGO_BIN_EXE_outrigger-logs"));
        self.launch(program, config, Stdio::null(), &[])
    }

    fn launch(&mut self, mut program: Command, config: &Path, stdin: Stdio, environment: &[(&str, &str)]) -> usize {
        let log = OpenOptions::new().append(true).create(true).open(self.path("stderr")).unwrap();
        let termination = self.path("termination");
        fs::write(&termination, "").unwrap();
        let child = program
            .arg("--config")
            .arg(config)
            .args(["--admin", "127.0.0.1:0", "--log-format", "json", "--drain-timeout", "20s"])
            .arg("--socket")
            .arg(self.path(&format!("sock{}", self.children.len())))
            .arg("--termination-log")
            .arg(termination)
            .stdin(stdin)
            .envs(environment.iter().copied())
            .stderr(log)
            .spawn()
            .unwrap();
        self.children.push(child);
        self.children.len() - 1
    }

    pub(crate) fn has_ended(&mut self, agent: usize) -> bool {
        self.children[agent].try_wait().unwrap().is_some()
    }

    fn pid(&self, agent: usize) -> Pid {
        Pid::from_child(&self.children[agent])
    }

    /// Of all its threads, so far; in clock ticks of 10 ms (proc_pid_stat(5)).
    pub(crate) fn processor_time(&self, agent: usize) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.children[agent].id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Duration::from_millis(ticks * 10)
    }

    pub(crate) fn signal(&self, agent: usize, signal: Signal) {
        kill_process(self.pid(agent), signal).unwrap();
    }

    pub(crate) fn wait(&mut self, agent: usize) -> ExitStatus {
        let child = &mut self.children[agent];
        let mut status = None;
        eventually("the agent's end", || {
            status = child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    pub(crate) fn terminate(&mut self, agent: usize) -> ExitStatus {
        self.signal(agent, Signal::TERM);
        self.wait(agent)
    }

    pub(crate) fn kill(&mut self, agent: usize) {
        self.signal(agent, Signal::KILL);
        self.wait(agent);
    }

    /// A GET to the agent that was started last.
    pub(crate) fn admin(&self, path: &str) -> String {
        let log = self.read("stderr");
        // Earlier agents' lines stand before.
        let started = log.rfind("serving health and metrics").map_or("", |at| &log[at..]);
        let Some(address) = started.split("\"address\":\"").nth(1).and_then(|rest| rest.split('"').next()) else {
            return String::new();
        };
        let Ok(mut stream) = TcpStream::connect(address) else { return String::new() };
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let mut answer = String::new();
        if stream.write_all(request.as_bytes()).is_ok() {
            // An agent that goes away while answering has not answered.
            let _ = stream.read_to_string(&mut answer);
        }
        answer
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for child in &mut self.children {
            // Most have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Writes `line N` for a range, the way a program does.
pub(crate) fn append(path: &Path, numbers: std::ops::Range<u32>) {
    let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
    let text: String = numbers.map(|number| format!("line {number:08} of the application's log\n")).collect();
    file.write_all(text.as_bytes()).unwrap();
}

/// Counts `line N` in request bodies.
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Arc<Mutex<HashMap<u32, u32>>>,
    /// When each line came first.
    pub(crate) came: Arc<Mutex<HashMap<u32, SystemTime>>>,
    down: Arc<AtomicBool>,
}

impl Receiver {
    pub(crate) fn start() -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, down) = (Arc::<Mutex<HashMap<u32, u32>>>::default(), Arc::new(AtomicBool::new(false)));
        let came = Arc::<Mutex<HashMap<u32, SystemTime>>>::default();
        let (seen_by, came_by, down_by) = (Arc::clone(&seen), Arc::clone(&came), Arc::clone(&down));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (seen, came, down) = (Arc::clone(&seen_by), Arc::clone(&came_by), Arc::clone(&down_by));
                thread::spawn(move || serve(stream, &seen, &came, &down));
            }
        });
        Receiver { address, seen, came, down }
    }

    /// While down it takes bodies and answers 503.
    pub(crate) fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::Relaxed);
    }

    pub(crate) fn unique(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    pub(crate) fn repeated(&self) -> u32 {
        self.seen.lock().unwrap().values().map(|count| count - 1).sum()
    }

    pub(crate) fn missing(&self, numbers: std::ops::Range<u32>) -> Vec<u32> {
        let seen = self.seen.lock().unwrap();
        numbers.filter(|number| !seen.contains_key(number)).collect()
    }
}

fn serve(
    mut stream: TcpStream,
    seen: &Mutex<HashMap<u32, u32>>,
    came: &Mutex<HashMap<u32, SystemTime>>,
    down: &AtomicBool,
) {
    let mut bytes = Vec::new();
    let mut chunk = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = stream.read(&mut chunk) {
        bytes.extend_from_slice(&chunk[..length]);
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        let wanted = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse::<usize>().ok());
        let wanted = wanted.unwrap_or(0) + end + 4;
        if bytes.len() < wanted {
            bytes.reserve(wanted - bytes.len());
            continue;
        }
        let answer = if down.load(Ordering::Relaxed) { "503 Down" } else { "200 OK" };
        if answer.starts_with("200") {
            let body = String::from_utf8_lossy(&bytes[end + 4..wanted]).into_owned();
            let mut seen = seen.lock().unwrap();
            for part in body.split("line ").skip(1) {
                let number = part[..8].parse().unwrap();
                *seen.entry(number).or_default() += 1;
                came.lock().unwrap().entry(number).or_insert_with(SystemTime::now);
            }
        }
        bytes.drain(..wanted);
        if stream.write_all(format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n").as_bytes()).is_err() {
            return;
        }
    }
}

/// One source of `log/*.log` and one HTTP sink.
pub(crate) fn to_http(address: SocketAddr, more: &str) -> String {
    format!(
        "sources:\n- name: app\n  files:\n    include: [ROOT/log/*.log]\n    rotateWait: 300ms\n    poll: 100ms\n\
         sinks:\n- name: out\n  to:\n    http:\n      url: http://{address}/\n  retryCeiling: 100ms\n  batch: {{wait: 10ms}}\n{more}"
    )
}
