//! A state root of its own for each test, and a check at the end that nothing of it is left on the machine.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{ContainerStatus, PodStatus};
use pod_engine::{Roots, record};
use rustix::process::Pid;

/// Long enough for a machine under load; nothing waits that long when all is well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(150);

pub(crate) struct World {
    dir: tempfile::TempDir,
}

impl World {
    pub(crate) fn new() -> World {
        assert!(rustix::process::geteuid().is_root(), "these tests run pods: run them as root");
        World { dir: tempfile::Builder::new().prefix("outrigger-e2e-").tempdir().unwrap() }
    }

    /// Whose sockets have longer names than an address holds.
    pub(crate) fn deep() -> World {
        assert!(rustix::process::geteuid().is_root(), "these tests run pods: run them as root");
        let prefix = format!("outrigger-e2e-{}", "deep-".repeat(24));
        World { dir: tempfile::Builder::new().prefix(&prefix).tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn roots(&self) -> Roots {
        Roots::below(&self.path("root"))
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_outrigger"));
        command
            .args(arguments)
            .env("OUTRIGGER_ROOT", self.path("root"))
            .env("NO_COLOR", "1")
            .current_dir(self.dir.path());
        command
    }

    /// Runs to its end; what it printed is shown when a later assertion fails.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        let output = self.command(arguments).stdin(Stdio::null()).output().unwrap();
        eprintln!("$ outrigger {}\n{}{}", arguments.join(" "), text(&output.stdout), text(&output.stderr));
        output
    }

    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "outrigger {} ended with {}", arguments.join(" "), output.status);
        text(&output.stdout)
    }

    pub(crate) fn manifest(&self, name: &str, yaml: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, yaml).unwrap();
        path
    }

    /// `run --offline --detach` of a manifest given as text.
    pub(crate) fn detach(&self, yaml: &str) {
        let path = self.manifest("pod.yaml", yaml);
        self.ok(&["run", "--offline", "--detach", path.to_str().unwrap()]);
    }

    /// The same where containers are expected not to come up.
    pub(crate) fn detach_badly(&self, yaml: &str) -> Output {
        let path = self.manifest("pod.yaml", yaml);
        self.run(&["run", "--offline", "--detach", path.to_str().unwrap()])
    }

    pub(crate) fn foreground(&self, arguments: &[&str]) -> Foreground {
        let mut command = self.command(arguments);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Foreground { child: Some(child) }
    }

    pub(crate) fn status(&self, pod: &str) -> Option<PodStatus> {
        record::find(&self.roots(), "default", pod).ok().flatten().map(|listed| listed.status)
    }

    pub(crate) fn uid(&self, pod: &str) -> String {
        record::find(&self.roots(), "default", pod).unwrap().unwrap().record.uid
    }

    pub(crate) fn container(&self, pod: &str, name: &str) -> Option<ContainerStatus> {
        let status = self.status(pod)?;
        let all =
            status.init_container_statuses.into_iter().flatten().chain(status.container_statuses.into_iter().flatten());
        all.into_iter().find(|container| container.name == name)
    }

    pub(crate) fn phase(&self, pod: &str) -> String {
        self.status(pod).and_then(|status| status.phase).unwrap_or_default()
    }

    /// Waits until the phase is reached.
    #[track_caller]
    pub(crate) fn await_phase(&self, pod: &str, phase: &str) {
        eventually(&format!("pod {pod} to be {phase}, it was {}", self.phase(pod)), || self.phase(pod) == phase);
    }

    pub(crate) fn notices(&self, pod: &str) -> Vec<pod_plan::Notice> {
        let path = self.roots().pod("default", pod).notices();
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The container's whole log, without the log's own columns.
    pub(crate) fn log(&self, pod: &str, container: &str, attempt: u32) -> String {
        let path = self.roots().pod("default", pod).log(&self.uid(pod), container, attempt);
        let raw = std::fs::read_to_string(&path).unwrap_or_default();
        raw.lines().map(|line| line.splitn(4, ' ').nth(3).unwrap_or_default().to_owned() + "\n").collect()
    }

    /// The process below the pod's shim whose command line has all of `words`.
    pub(crate) fn process(&self, pod: &str, words: &[&str]) -> Option<Pid> {
        let shim = self.shim_pid(pod);
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
            let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)?.parse::<u32>().ok());
            let line = std::fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
            if parent == Some(shim) && words.iter().all(|word| line.contains(word)) {
                return Pid::from_raw(pid);
            }
        }
        None
    }

    pub(crate) fn shim_pid(&self, pod: &str) -> u32 {
        let path = self.roots().pod("default", pod).run.join("shim.pid");
        std::fs::read_to_string(path).unwrap().trim().parse().unwrap()
    }

    /// Nothing of this root is on the machine any more.
    pub(crate) fn assert_nothing_left(&self) {
        let left = self.leftovers();
        assert!(left.is_empty(), "left behind: {left:#?}");
    }

    fn leftovers(&self) -> Vec<String> {
        let root = self.path("root");
        let needle = root.to_string_lossy().into_owned();
        let mut left = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = text(&line).replace('\0', " ");
            if line.contains(&needle) && line.contains("outrigger-shim") {
                left.push(format!("process {line}"));
            }
        }
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        left.extend(mounts.lines().filter(|line| line.contains(&needle)).map(|line| format!("mount {line}")));
        let roots = self.roots();
        for tree in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
            left.extend(pod_groups(&tree.path().join(roots.cgroup().strip_prefix("/").unwrap())));
        }
        for dir in [roots.pods(), roots.data.join("pods"), roots.logs.clone()] {
            for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
                left.push(format!("file {}", entry.path().display()));
            }
        }
        for entry in std::fs::read_dir(roots.network().join("pods")).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&roots.tag) {
                left.push(format!("network record {}", entry.path().display()));
            }
        }
        left
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Also after a failed assertion: whatever runs is ended, so that one failure does not make others.
        for entry in std::fs::read_dir(self.roots().pods()).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().split_once('_').map(|(_, name)| name.to_owned());
            if let Some(name) = name {
                let _ = self.command(&["down", &name, "--force"]).stdin(Stdio::null()).output();
            }
        }
        let _ = self.command(&["cleanup"]).stdin(Stdio::null()).output();
        let roots = self.roots();
        for tree in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let top = tree.path().join(roots.cgroup().strip_prefix("/").unwrap());
            for group in ["burstable", "besteffort", ""] {
                let _ = std::fs::remove_dir(top.join(group));
            }
        }
    }
}

fn pod_groups(top: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for class in ["", "burstable", "besteffort"] {
        for entry in std::fs::read_dir(top.join(class)).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with("pod") {
                found.push(format!("cgroup {}", entry.path().display()));
            }
        }
    }
    found
}

/// A command that is still running; ended hard if the test forgets it.
pub(crate) struct Foreground {
    child: Option<Child>,
}

impl Foreground {
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(self.pid(), signal).unwrap();
    }

    pub(crate) fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(self.child.as_ref().unwrap())
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> Output {
        let mut child = self.child.take().unwrap();
        let deadline = Instant::now() + PATIENCE;
        // Its output may be more than a pipe holds: read while waiting.
        let out = child.stdout.take().map(read_all);
        let err = child.stderr.take().map(read_all);
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > deadline {
                let _ = child.kill();
                let _ = child.wait();
                panic!("it did not end within {PATIENCE:?}");
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let join =
            |reader: Option<std::thread::JoinHandle<Vec<u8>>>| reader.map(|r| r.join().unwrap()).unwrap_or_default();
        let output = Output { status, stdout: join(out), stderr: join(err) };
        eprintln!("{}{}", text(&output.stdout), text(&output.stderr));
        output
    }
}

impl Drop for Foreground {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn read_all(mut from: impl std::io::Read + Send + 'static) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        bytes
    })
}

/// A port of 127.0.0.1 that the kernel gives to nobody as long as this lives. Whoever asks for it by its number gets it, as far
/// as it sets SO_REUSEADDR, as servers do (socket(7)); until then connections to it are refused.
pub(crate) struct Port {
    pub(crate) number: u16,
    _socket: std::os::fd::OwnedFd,
}

impl Port {
    pub(crate) fn reserve() -> Port {
        use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, socket_with, sockopt};
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        sockopt::set_socket_reuseaddr(&socket, true).unwrap();
        bind(&socket, &std::net::SocketAddrV4::new(std::net::Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let address = std::net::SocketAddr::try_from(getsockname(&socket).unwrap()).unwrap();
        Port { number: address.port(), _socket: socket }
    }
}

/// The sidecar of the package stands beside the engine, as when both are installed.
pub(crate) fn install(package: &str) {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let engine = Path::new(env!("CARGO_BIN_EXE_outrigger"));
    let directory = engine.parent().unwrap();
    // A workspace's tests have built it already.
    if directory.join(package.replace("sidecar-", "outrigger-")).exists() {
        return;
    }
    let target = directory.parent().unwrap();
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--package", package, "--manifest-path", manifest, "--target-dir"]).arg(target);
    assert!(command.status().unwrap().success());
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Polls until true; fails with what was waited for.
#[track_caller]
pub(crate) fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !check() {
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
