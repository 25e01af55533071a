//! A node of its own for each test: its root, its port, its kubeconfig, and the clients that talk to it. It ends with
//! `stop --clean`, and then nothing of it may be left on the machine.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::world::{PATIENCE, World, eventually, text};

/// The clients of `.ci/kubectl`, brought once if they are not there. A missing client is a failure, never a skip.
static CLIENTS: LazyLock<PathBuf> = LazyLock::new(|| {
    let target = Path::new(env!("CARGO_BIN_EXE_outrigger")).ancestors().nth(2).unwrap().to_owned();
    let clients = target.join("clients");
    let wanted = ["kubectl-1.33", "kubectl-1.35", "python/bin/python3"];
    if wanted.iter().all(|name| clients.join(name).exists()) {
        return clients;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.ci/kubectl");
    let brought = Command::new(&script).env("CARGO_TARGET_DIR", &target).output().unwrap();
    assert!(
        brought.status.success(),
        "`.ci/kubectl` brought no clients (it needs network, python3, python3-pip and python3-venv): {}",
        text(&brought.stderr)
    );
    clients
});

/// Makes two tests of each scenario, a function of a node: one with each kubectl.
#[macro_export]
macro_rules! with_both {
    ($($name:ident),* $(,)?) => {$(
        mod $name {
            #[test]
            fn kubectl_1_33() {
                super::$name(&$crate::node::Node::start("1.33"));
            }

            #[test]
            fn kubectl_1_35() {
                super::$name(&$crate::node::Node::start("1.35"));
            }
        }
    )*};
}

pub(crate) struct Node {
    pub(crate) world: World,
    pub(crate) version: &'static str,
    /// Whether it asks no registry.
    offline: bool,
}

impl Node {
    /// A node that answers, for the kubectl of this version.
    pub(crate) fn start(version: &'static str) -> Node {
        let node = Node::prepared(version);
        node.come();
        node
    }

    /// The same, not started yet.
    pub(crate) fn prepared(version: &'static str) -> Node {
        Node { world: World::new(), version, offline: true }
    }

    /// A node that pulls what it has not got.
    pub(crate) fn online(version: &'static str) -> Node {
        let mut node = Node::prepared(version);
        node.offline = false;
        node.come();
        node
    }

    /// Starts it, or starts it again, then at the address it had: clients know no other.
    pub(crate) fn come(&self) {
        self.come_from(self.world.command(&[]));
    }

    /// The same on a machine whose name has changed (in a UTS namespace of its own).
    pub(crate) fn come_renamed(&self, host: &str) {
        let program = self.world.command(&[]);
        let mut command = Command::new("unshare");
        command.args(["--uts", "sh", "-c", &format!("hostname {host} && exec \"$@\""), "sh"]);
        command.arg(program.get_program()).args(program.get_args());
        command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
        self.come_from(command);
    }

    fn come_from(&self, mut command: Command) {
        let config = std::fs::read_to_string(self.kubeconfig()).unwrap_or_default();
        let before = config.split("server: https://127.0.0.1:").nth(1);
        let port = before.and_then(|rest| rest.split_whitespace().next()).map(|port| port.trim_matches('"').to_owned());
        command.args(["start", "--port", port.as_deref().unwrap_or("0")]);
        command.args(self.offline.then_some("--offline"));
        self.environment(&mut command);
        let said = finish(command, "outrigger start", "");
        assert_eq!(said.code, Some(0), "the node did not start: {}", said.err);
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.world.path("kubeconfig")
    }

    pub(crate) fn pid(&self) -> Pid {
        let card = std::fs::read(self.world.roots().run.join("node.json")).unwrap();
        let card: serde_json::Value = serde_json::from_slice(&card).unwrap();
        Pid::from_raw(i32::try_from(card["pid"].as_i64().unwrap()).unwrap()).unwrap()
    }

    /// The daemon dies as from a power cut, and is gone when this returns.
    pub(crate) fn kill(&self) {
        let pid = self.pid();
        kill_process(pid, Signal::KILL).unwrap();
        eventually("the daemon to be gone", || rustix::process::test_kill_process(pid).is_err());
    }

    /// `outrigger` with this node's root and kubeconfig.
    pub(crate) fn outrigger(&self, arguments: &[&str]) -> Said {
        let mut command = self.world.command(arguments);
        self.environment(&mut command);
        finish(command, &format!("outrigger {}", arguments.join(" ")), "")
    }

    // === kubectl ===

    /// A kubectl line as it would be typed (words, single quotes); its output whatever its end.
    pub(crate) fn kubectl(&self, line: &str) -> Said {
        self.kubectl_with(line, "")
    }

    /// The same with something on its standard input.
    pub(crate) fn kubectl_with(&self, line: &str, input: &str) -> Said {
        finish(self.command(line), &format!("kubectl {line}"), input)
    }

    /// What it printed; it must have succeeded.
    #[track_caller]
    pub(crate) fn ok(&self, line: &str) -> String {
        self.ok_with(line, "")
    }

    #[track_caller]
    pub(crate) fn ok_with(&self, line: &str, input: &str) -> String {
        let said = self.kubectl_with(line, input);
        assert_eq!(said.code, Some(0), "kubectl {line}: {}", said.err);
        said.out
    }

    /// What it complained of; it must have failed.
    #[track_caller]
    pub(crate) fn refused(&self, line: &str) -> String {
        self.refused_with(line, "")
    }

    #[track_caller]
    pub(crate) fn refused_with(&self, line: &str, input: &str) -> String {
        let said = self.kubectl_with(line, input);
        assert_eq!(said.code, Some(1), "kubectl {line}: {}{}", said.out, said.err);
        said.err
    }

    #[track_caller]
    pub(crate) fn apply(&self, yaml: &str) -> String {
        self.ok_with("apply -f -", yaml)
    }

    /// Applies a pod and waits until it is ready.
    #[track_caller]
    pub(crate) fn ready(&self, name: &str, yaml: &str) {
        self.apply(yaml);
        self.ok(&format!("wait --for=condition=Ready pod/{name} --timeout=120s"));
    }

    /// One value of an object by JSONPath.
    #[track_caller]
    pub(crate) fn value(&self, object: &str, path: &str) -> String {
        self.ok(&format!("get {object} -o 'jsonpath={path}'"))
    }

    /// One value of its kubeconfig.
    #[track_caller]
    pub(crate) fn value_of_config(&self, path: &str) -> String {
        self.ok(&format!("config view --raw --minify -o 'jsonpath={path}'"))
    }

    /// Polls a kubectl line until its output says it.
    #[track_caller]
    pub(crate) fn until(&self, line: &str, check: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let said = self.kubectl(line);
            if said.code == Some(0) && check(&said.out) {
                return said.out;
            }
            assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain; kubectl {line}: {}{}", said.out, said.err);
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Kubectl on a terminal of its own (33 rows, 77 columns), with this typed.
    pub(crate) fn typed(&self, line: &str, input: &str) -> Said {
        let program = self.program().display().to_string();
        let mut command = Command::new("script");
        command.args(["-qec", &format!("stty rows 33 cols 77; {program} {line}"), "/dev/null"]);
        self.environment(&mut command);
        finish(command, &format!("kubectl {line} (typed)"), input)
    }

    /// A kubectl that goes on: its lines are read as they come.
    pub(crate) fn spawn(&self, line: &str) -> Going {
        Going::new(self.command(line), &format!("kubectl {line}"))
    }

    /// A watch of this, which has its list: every change from now on will be shown.
    pub(crate) fn watch(&self, line: &str) -> Going {
        let watch = self.spawn(&format!("{line} --watch --v=6"));
        eventually("the list", || watch.errors().contains("200 OK"));
        watch
    }

    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = Command::new(self.program());
        command.args(words(line));
        self.environment(&mut command);
        command
    }

    fn program(&self) -> PathBuf {
        CLIENTS.join(format!("kubectl-{}", self.version))
    }

    fn environment(&self, command: &mut Command) {
        command.env("KUBECONFIG", self.kubeconfig());
        // Kubectl keeps what it discovered below it.
        command.env("HOME", self.world.path("")).current_dir(self.world.path(""));
        command.env("TERM", "xterm");
    }

    // === The Python clients ===

    fn python_command(&self, script: &str, arguments: &[&str]) -> Command {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/node/clients");
        let mut command = Command::new(CLIENTS.join("python/bin/python3"));
        command.arg(scripts.join(script)).args(arguments).env("PYTHONDONTWRITEBYTECODE", "1");
        self.environment(&mut command);
        command
    }

    /// Runs a script of `clients/` to its end; it must succeed.
    #[track_caller]
    pub(crate) fn python(&self, script: &str, arguments: &[&str]) -> String {
        let said = finish(self.python_command(script, arguments), script, "");
        assert_eq!(said.code, Some(0), "{script}: {}{}", said.out, said.err);
        said.out
    }

    pub(crate) fn python_going(&self, script: &str, arguments: &[&str]) -> Going {
        Going::new(self.python_command(script, arguments), script)
    }

    /// A file for a client.
    pub(crate) fn write(&self, name: &str, content: &str) -> String {
        let path = self.world.path(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Pods of a failed test may take their whole grace period: not with a daemon that is dead, and dead pods.
        if std::thread::panicking() {
            let log = self.world.roots().run.join("node.log");
            eprintln!("--- node.log\n{}---", std::fs::read_to_string(log).unwrap_or_default());
            if self.world.roots().run.join("node.json").exists() {
                let pid = self.pid();
                let _ = kill_process(pid, Signal::KILL);
                while rustix::process::test_kill_process(pid).is_ok() {
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
            for entry in std::fs::read_dir(self.world.roots().pods()).into_iter().flatten().flatten() {
                let pid = std::fs::read_to_string(entry.path().join("shim.pid")).unwrap_or_default();
                if let Some(pid) = pid.trim().parse().ok().and_then(Pid::from_raw) {
                    let _ = kill_process(pid, Signal::KILL);
                }
            }
        }
        let stopped = self.outrigger(&["stop", "--clean"]);
        if !std::thread::panicking() {
            assert_eq!(stopped.code, Some(0), "{}", stopped.err);
            self.world.assert_nothing_left();
        }
    }
}

/// What a client that ended had said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// A client that is still running; ended hard when it is forgotten.
pub(crate) struct Going {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
    errors: Arc<Mutex<String>>,
    name: String,
}

impl Going {
    fn new(mut command: Command, name: &str) -> Going {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (sender, lines) = channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let errors = Arc::new(Mutex::new(String::new()));
        let (into, err) = (errors.clone(), BufReader::new(child.stderr.take().unwrap()));
        std::thread::spawn(move || {
            for line in err.lines().map_while(Result::ok) {
                *into.lock().unwrap() += &(line + "\n");
            }
        });
        Going { child, lines, seen: Vec::new(), errors, name: name.to_owned() }
    }

    /// A command that goes on, and what is first read of it.
    pub(crate) fn start<T>(command: Command, name: &str, first: impl FnOnce(&mut Going) -> T) -> (Going, T) {
        let mut going = Going::new(command, name);
        let first = first(&mut going);
        (going, first)
    }

    pub(crate) fn ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// The next line that holds this; what comes before is kept in [`Going::seen`].
    #[track_caller]
    pub(crate) fn line(&mut self, wanted: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.contains(wanted) {
                        return line;
                    }
                }
                Err(why) => panic!(
                    "{}: no line with {wanted:?} ({why}); it said {:#?} {}",
                    self.name,
                    self.seen,
                    self.errors.lock().unwrap()
                ),
            }
        }
    }

    /// Whether another line comes within this time.
    pub(crate) fn hears(&mut self, time: Duration) -> bool {
        let line = self.lines.recv_timeout(time);
        self.seen.extend(line.iter().cloned());
        line.is_ok()
    }

    /// Every line until now.
    pub(crate) fn seen(&mut self) -> &[String] {
        self.seen.extend(self.lines.try_iter());
        &self.seen
    }

    pub(crate) fn errors(&self) -> String {
        self.errors.lock().unwrap().clone()
    }

    pub(crate) fn type_in(&mut self, text: &str) {
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin.write_all(text.as_bytes()).unwrap();
        stdin.flush().unwrap();
    }

    pub(crate) fn end_of_input(&mut self) {
        self.child.stdin = None;
    }

    pub(crate) fn interrupt(&self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::INT);
    }

    /// Its end by itself: the exit code and all it printed.
    #[track_caller]
    pub(crate) fn end(&mut self) -> (Option<i32>, String) {
        let deadline = Instant::now() + PATIENCE;
        let code = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status.code(),
                None if Instant::now() > deadline => {
                    let (seen, errors) = (self.seen().to_vec(), self.errors());
                    panic!("{} did not end within {PATIENCE:?}: {seen:#?} {errors}", self.name);
                }
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        };
        // Whoever inherited its standard output may go on.
        while let Ok(line) = self.lines.recv_timeout(Duration::from_secs(20)) {
            self.seen.push(line);
        }
        (code, self.seen.join("\n"))
    }
}

impl Drop for Going {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a client to its end; what it said is shown when a later assertion fails.
fn finish(mut command: Command, name: &str, input: &str) -> Said {
    let began = Instant::now();
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    // Nobody may be reading it.
    std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let pid = Pid::from_child(&child);
    let (done, ended) = channel::<()>();
    let watchdog = std::thread::spawn(move || {
        // Longer than it may be told to wait itself.
        if ended.recv_timeout(PATIENCE * 2) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            let _ = kill_process(pid, Signal::KILL);
        }
    });
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    drop(done);
    watchdog.join().unwrap();
    let said = Said { code: status.code(), out: text(&stdout), err: text(&stderr) };
    eprintln!("$ {name}   [{:?} after {:?}]\n{}{}", said.code, began.elapsed(), said.out, said.err);
    said
}

/// A line's words as a shell has them, with single quotes only.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let (mut word, mut quoted, mut begun) = (String::new(), false, false);
    for letter in line.chars() {
        match letter {
            '\'' => {
                quoted = !quoted;
                begun = true;
            }
            ' ' if !quoted => {
                if begun {
                    words.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            letter => {
                word.push(letter);
                begun = true;
            }
        }
    }
    if begun {
        words.push(word);
    }
    words
}
