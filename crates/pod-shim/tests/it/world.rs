//! One pod's world: a directory, a shim, cgroups; gone when dropped, also after a failed assertion.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use pod_container::capability;
use pod_container::cgroup::{Hierarchy, Limits};
use pod_container::spec::*;
use pod_shim::client::{self, Client};
use pod_shim::protocol::Fact;
use tempfile::TempDir;
use tokio::sync::mpsc::UnboundedReceiver;

pub(crate) struct World {
    pub(crate) directory: TempDir,
    pub(crate) shim: u32,
    pub(crate) client: Option<Client>,
    pub(crate) facts: UnboundedReceiver<Fact>,
    pub(crate) cgroup: PathBuf,
    pub(crate) hierarchy: Hierarchy,
    pod_cgroups: Vec<PathBuf>,
}

/// `None`, with a word why, where these tests cannot run.
macro_rules! world {
    ($($sandbox:expr)?) => {{
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return;
        }
        #[allow(unused_mut, unused_assignments)]
        let mut sandbox = $crate::world::sandbox();
        $(sandbox = $sandbox;)?
        $crate::world::World::new(sandbox).await
    }};
}
pub(crate) use world;

pub(crate) fn sandbox() -> SandboxSpec {
    SandboxSpec {
        hostname: Some("pod".into()),
        new_network: true,
        new_ipc: true,
        pid: PidMode::Container,
        sysctls: Vec::new(),
        tmpfs: Vec::new(),
        user_namespace: None,
        cgroups: Vec::new(),
    }
}

/// `OUTRIGGER_SHIM` may name another build of it.
pub(crate) fn shim_binary() -> PathBuf {
    std::env::var_os("OUTRIGGER_SHIM").map_or_else(|| env!("CARGO_BIN_EXE_outrigger-shim").into(), Into::into)
}

impl World {
    pub(crate) async fn new(mut sandbox: SandboxSpec) -> World {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let cgroup = PathBuf::from(format!("/outrigger-test-{}-{number}", std::process::id()));
        let hierarchy = Hierarchy::detect().expect("cgroups");
        let pod = hierarchy.create(&cgroup.join("shim"), &Limits::default()).expect("pod cgroup");
        sandbox.cgroups.clone_from(&pod.directories);
        let directory = tempfile::tempdir().expect("temporary directory");
        let home = directory.path().join("shim");
        let shim = match client::spawn(&shim_binary(), &home, &sandbox) {
            Ok(shim) => shim,
            Err(error) => {
                let _ = hierarchy.remove(&cgroup);
                panic!("{error}");
            }
        };
        let (client, facts) = Client::connect(&home).await.expect("connect");
        World { directory, shim, client: Some(client), facts, cgroup, hierarchy, pod_cgroups: pod.directories }
    }

    pub(crate) fn client(&self) -> &Client {
        self.client.as_ref().expect("connected")
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.directory.path().join("shim")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A container that runs `script` in busybox's shell.
    pub(crate) fn spec(&self, name: &str, script: &str) -> ContainerSpec {
        self.spec_of(name, &["sh", "-c", script])
    }

    pub(crate) fn spec_of(&self, name: &str, args: &[&str]) -> ContainerSpec {
        self.spec_with_limits(name, args, &Limits::default())
    }

    pub(crate) fn spec_with_limits(&self, name: &str, args: &[&str], limits: &Limits) -> ContainerSpec {
        let group = self.hierarchy.create(&self.cgroup.join(name), limits).expect("container cgroup");
        assert_eq!(group.unapplied, [], "limits that do not hold");
        let defaults = Capabilities { bounding: capability::DEFAULT, permitted: capability::DEFAULT };
        ContainerSpec {
            process: process(args, defaults),
            rootfs: Rootfs {
                lower: vec![busybox().to_owned()],
                upper: self.path(&format!("{name}-upper")),
                work: self.path(&format!("{name}-work")),
                readonly: false,
            },
            mounts: Vec::new(),
            masked_paths: ["/proc/kcore", "/proc/timer_list", "/sys/firmware", "/proc/nothing"].map(Into::into).into(),
            readonly_paths: ["/proc/sys", "/proc/sysrq-trigger"].map(Into::into).into(),
            privileged: false,
            cgroups: group.directories,
            log: LogSpec { path: self.log_path(name), max_size: 100 << 20, max_files: 2 },
            tty: false,
            stdin: Stdin::Null,
            processes_of: None,
        }
    }

    fn log_path(&self, name: &str) -> PathBuf {
        self.path("logs").join(name).join("0.log")
    }

    /// What it printed: the messages of its log, whole.
    pub(crate) fn log(&self, name: &str) -> String {
        let text = std::fs::read_to_string(self.log_path(name)).expect("log");
        let mut plain = String::new();
        for line in text.lines() {
            let mut fields = line.splitn(4, ' ');
            let (tag, message) = (fields.nth(2).expect("tag"), fields.next().expect("message"));
            plain.push_str(message);
            if tag == "F" {
                plain.push('\n');
            }
        }
        plain
    }

    /// Runs it to its end.
    pub(crate) async fn run(&mut self, name: &str, spec: &ContainerSpec) -> Exit {
        self.client().start(name, 0, spec).await.expect("start");
        self.exit_of(name).await
    }

    /// Runs a script to its end and returns what it printed.
    pub(crate) async fn output_of(&mut self, name: &str, spec: &ContainerSpec) -> String {
        let exit = self.run(name, spec).await;
        let output = self.log(name);
        assert_eq!(exit.code, 0, "{output}");
        output
    }

    pub(crate) async fn exit_of(&mut self, name: &str) -> Exit {
        loop {
            match self.next_fact().await {
                Fact::Exited { container, exit, .. } if container == name => return exit,
                _ => {}
            }
        }
    }

    pub(crate) async fn next_fact(&mut self) -> Fact {
        let fact = tokio::time::timeout(Duration::from_secs(120), self.facts.recv()).await;
        fact.expect("a fact within 20 s").expect("the shim lives")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        kill(self.shim);
        for _ in 0..2 {
            let _ = self.hierarchy.kill(&self.cgroup);
        }
        let removed = self.hierarchy.remove(&self.cgroup);
        if !std::thread::panicking() {
            removed.expect("cgroups removed");
            assert!(!self.pod_cgroups[0].exists());
        }
    }
}

pub(crate) fn process(args: &[&str], capabilities: Capabilities) -> ProcessSpec {
    ProcessSpec {
        args: args.iter().map(|&arg| arg.to_owned()).collect(),
        env: vec![("PATH".into(), "/usr/bin:/bin".into())],
        cwd: String::new(),
        user: User::default(),
        capabilities,
        no_new_privileges: false,
        seccomp: Vec::new(),
        rlimits: Vec::new(),
        oom_score_adj: None,
    }
}

/// Kills a shim and waits until it is gone, and with it its PID namespace.
pub(crate) fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).expect("a pid");
    let Ok(pidfd) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) else { return };
    let _ = rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL);
    wait_for_end(&pidfd);
}

fn wait_for_end(pidfd: &OwnedFd) {
    let mut fds = [rustix::event::PollFd::new(pidfd, rustix::event::PollFlags::IN)];
    let timeout = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
    let _ = rustix::event::poll(&mut fds, Some(&timeout));
}

pub(crate) fn is_alive(pid: u32) -> bool {
    // A zombie whose parent has not looked yet is dead.
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().trim_start().starts_with(['Z', 'X']))
}

/// Waits for what has no event to wait for.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !condition() {
        assert!(Instant::now() < deadline, "{what} within two minutes");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A root directory with a shell and small tools, made once.
pub(crate) fn busybox() -> &'static Path {
    use std::sync::OnceLock;
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("busybox-root");
        let unfinished = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("temporary directory");
        make_root(unfinished.path());
        // Two test programs may do this at once; any of the results is good.
        if !root.exists() {
            let _ = std::fs::rename(unfinished.keep(), &root);
        }
        root
    })
}

fn make_root(root: &Path) {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    std::fs::set_permissions(root, std::fs::Permissions::from_mode(0o755)).expect("permissions");
    for directory in ["bin", "etc", "tmp", "usr/bin", "data", "proc", "sys", "dev"] {
        std::fs::create_dir_all(root.join(directory)).expect("directory");
    }
    std::fs::set_permissions(root.join("tmp"), std::fs::Permissions::from_mode(0o1777)).expect("permissions");
    let busybox = root.join("bin/busybox");
    std::fs::copy("/bin/busybox", &busybox)
        .expect("these tests need a static /bin/busybox (Debian: apt-get install busybox-static)");
    for tool in [
        "sh", "cat", "echo", "sleep", "id", "ls", "touch", "grep", "seq", "head", "mkdir", "dd", "ps", "kill", "stat",
        "readlink", "pwd", "true", "hostname", "mount", "awk", "wc", "tty", "test", "env", "yes", "chmod", "rm",
        "tail", "ping", "ip", "mknod", "sysctl", "printf",
    ] {
        symlink("busybox", root.join("bin").join(tool)).expect("link");
    }
    std::fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n")
        .expect("passwd");
    std::fs::write(root.join("etc/group"), "root:x:0:\napp:x:1001:\nextra:x:2000:app\n").expect("group");
    std::fs::write(root.join("bin/not-executable"), "#!/bin/sh\n").expect("file");
    let script = root.join("bin/lost-interpreter");
    std::fs::write(&script, "#!/no/such/interpreter\n").expect("file");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("permissions");
}

/// The null device three times.
pub(crate) fn null_stdio() -> [std::os::fd::OwnedFd; 3] {
    std::array::from_fn(|_| {
        let file = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null").expect("/dev/null");
        file.into()
    })
}
