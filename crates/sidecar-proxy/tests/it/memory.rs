//! Memory: what a crowd of clients took comes back, and below a limit no more are let in than there is room for.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::harness::{Upstream, World, eventually, ok};
use crate::tls::{Authority, Stream, config, connect, get, spec, write_pair};

pub(crate) const MIB: usize = 1 << 20;

/// A proxy with TLS, and a way to become its client.
struct Scene {
    world: World,
    client: Arc<rustls::ClientConfig>,
    _upstream: Upstream,
}

impl Scene {
    fn new() -> Scene {
        Scene::within(None)
    }

    /// Only the proxy is within the walls.
    fn within(walls: Option<&Walls>) -> Scene {
        let authority = Authority::new();
        let upstream = Upstream::start(|_| ok("fine."));
        let mut world = World::new();
        write_pair(&world.path(""), "a", &authority.issue(&["a.test"], None));
        let tls = "{certificates: [{certFile: ROOT/a.crt, keyFile: ROOT/a.key}]}";
        if let Some(walls) = walls {
            walls.step_in();
        }
        world.start(&format!("workers: 1\n{}", spec(upstream.address, tls)));
        if let Some(walls) = walls {
            walls.step_out();
        }
        Scene { world, client: config(&authority, None, rustls::ALL_VERSIONS), _upstream: upstream }
    }

    /// A client that has had an answer and stays; `None`: it was not let in.
    fn enter(&self) -> Option<Stream> {
        let mut stream = connect(self.world.address(), "a.test", &self.client);
        get(&mut stream, "").is_ok_and(|answer| answer.ends_with("fine.")).then_some(stream)
    }

    fn leave(&self, crowd: Vec<Stream>) {
        let here = || self.world.metric("outrigger_proxy_connections_active");
        let others = here() - crowd.len() as u64;
        drop(crowd);
        eventually("the end of all", || here() == others);
    }
}

#[test]
fn a_crowd_that_leaves_leaves_no_memory_behind() {
    let scene = Scene::new();
    let few: Vec<Stream> = (0..20).map(|_| scene.enter().unwrap()).collect();
    scene.leave(few);
    let before = scene.world.memory();
    let crowd: Vec<Stream> = (0..600).map(|_| scene.enter().unwrap()).collect();
    let most = scene.world.memory();
    assert!(most > before + 3 * MIB, "{before} before, {most} with all: this test would see nothing");
    scene.leave(crowd);
    let began = Instant::now();
    while scene.world.memory() > before + MIB {
        let now = scene.world.memory();
        assert!(began.elapsed() < Duration::from_secs(10), "{before} before, {most} with all, {now} after");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A memory cgroup (v1), for what a thread starts while it is in it.
pub(crate) struct Walls {
    directory: PathBuf,
}

impl Walls {
    /// `None` where there are no such cgroups, or not for us.
    pub(crate) fn new(name: &str, bytes: usize) -> Option<Walls> {
        let name = format!("outrigger-proxy-test-{}-{name}", std::process::id());
        let directory = Path::new("/sys/fs/cgroup/memory").join(name);
        fs::create_dir(&directory).ok()?;
        let walls = Walls { directory };
        // With a limit, however large, the kernel counts what its sockets hold.
        fs::write(walls.directory.join("memory.kmem.tcp.limit_in_bytes"), (1u64 << 40).to_string()).ok()?;
        fs::write(walls.directory.join("memory.limit_in_bytes"), bytes.to_string()).ok()?;
        Some(walls)
    }

    pub(crate) fn step_in(&self) {
        fs::write(self.directory.join("tasks"), thread()).unwrap();
    }

    pub(crate) fn step_out(&self) {
        fs::write("/sys/fs/cgroup/memory/tasks", thread()).unwrap();
    }

    /// A number the kernel keeps of those within.
    pub(crate) fn number(&self, name: &str) -> u64 {
        let text = fs::read_to_string(self.directory.join(name)).unwrap();
        let number = |text: &str| text.trim().parse().ok();
        // `memory.oom_control` has lines with names.
        number(&text).or_else(|| text.lines().find_map(|line| number(line.strip_prefix("oom_kill ")?))).unwrap()
    }
}

fn thread() -> String {
    rustix::thread::gettid().as_raw_nonzero().to_string()
}

impl Drop for Walls {
    fn drop(&mut self) {
        let _ = fs::write("/sys/fs/cgroup/memory/tasks", thread());
        // It is busy until the last process has left it.
        let gone = |_: &u32| fs::remove_dir(&self.directory).is_ok();
        let _ = (0..200).inspect(|_| std::thread::sleep(Duration::from_millis(5))).find(gone);
    }
}

#[test]
fn as_many_as_fit_below_the_limit() {
    let Some(walls) = Walls::new("fit", 16 * MIB) else {
        println!("NOT RUN: there are no memory cgroups (v1) to make");
        return;
    };
    let mut scene = Scene::within(Some(&walls));
    // (16 MiB - 6 MiB - 256 KiB) / 16 KiB
    let crowd: Vec<Stream> = (0..624).map(|_| scene.enter().unwrap()).collect();
    assert!(scene.enter().is_none() && scene.enter().is_none());
    assert_eq!(scene.world.metric("outrigger_proxy_connections_refused_total"), 2);
    scene.leave(crowd);
    assert!(scene.enter().is_some());
    assert!(scene.world.is_running());
    drop(scene);
    drop(walls);
}
