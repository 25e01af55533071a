//! An engine with a state root of its own; its pods are gone when a test is over, also a failed one.

use std::fs::File;
use std::future::Future;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{ContainerStatus, PodStatus};
use pod_engine::session::Session;
use pod_engine::{Config, Engine, PodRequest, Roots, record};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) struct World {
    pub(crate) engine: Engine,
    pub(crate) roots: Roots,
}

/// Runs a test on an engine.
pub(crate) fn world<F: Future<Output = ()> + 'static>(test: impl FnOnce(Rc<World>) -> F + 'static) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let directory = tempfile::Builder::new().prefix("outrigger-engine-").tempdir().unwrap();
    let roots = Roots::below(&directory.path().join("root"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let outcome = tokio::task::LocalSet::new().block_on(&runtime, async {
        let config = Config {
            socket: roots.socket(),
            roots: roots.clone(),
            pod_cidr: "10.88.0.0/16".parse().unwrap(),
            node_name: None,
        };
        let world = Rc::new(World { engine: Engine::open(config).unwrap(), roots });
        // On a task of its own, so that what it made goes also when it panics.
        let outcome = tokio::task::spawn_local(test(world.clone())).await;
        world.stop_all().await;
        outcome
    });
    if let Err(error) = outcome {
        std::panic::resume_unwind(error.into_panic());
    }
}

impl World {
    /// Names the pod and lets it end quickly.
    pub(crate) fn run(&self, name: &str, spec: Value) {
        self.run_as(name, spec, false);
    }

    /// One that stays listed, with its logs, when it has ended by itself.
    pub(crate) fn run_detached(&self, name: &str, spec: Value) {
        self.run_as(name, spec, true);
    }

    fn run_as(&self, name: &str, mut spec: Value, detached: bool) {
        spec["terminationGracePeriodSeconds"] = json!(1);
        let mut pod: k8s_openapi::api::core::v1::Pod =
            serde_json::from_value(json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec})).unwrap();
        pod_api::default::pod(&mut pod);
        let request = PodRequest {
            pod,
            objects: Default::default(),
            origin: None,
            offline: true,
            detached,
            recreate: false,
            pids_limit: None,
            of_store: false,
        };
        self.engine.run(request).unwrap();
    }

    pub(crate) fn status(&self, name: &str) -> PodStatus {
        record::find(&self.roots, "default", name).unwrap().map(|listed| listed.status).unwrap_or_default()
    }

    pub(crate) fn container(&self, pod: &str, name: &str) -> ContainerStatus {
        let PodStatus { container_statuses, init_container_statuses, ephemeral_container_statuses, .. } =
            self.status(pod);
        let mut all =
            [container_statuses, init_container_statuses, ephemeral_container_statuses].into_iter().flatten().flatten();
        all.find(|status| status.name == name).unwrap_or_default()
    }

    pub(crate) async fn until(&self, what: &str, mut holds: impl FnMut(&World) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self) {
            assert!(Instant::now() < deadline, "{what} within {PATIENCE:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) async fn until_running(&self, pod: &str, container: &str) {
        let running =
            |world: &World| world.container(pod, container).state.is_some_and(|state| state.running.is_some());
        self.until(&format!("{container} runs"), running).await;
    }

    pub(crate) fn uid(&self, pod: &str) -> String {
        record::find(&self.roots, "default", pod).unwrap().unwrap().record.uid
    }

    /// What a container has printed, without the log's own columns.
    pub(crate) fn log(&self, pod: &str, container: &str) -> String {
        let path = self.engine.log_path("default", pod, &self.uid(pod), container, 0);
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().filter_map(|line| line.splitn(4, ' ').nth(3)).map(|line| format!("{line}\n")).collect()
    }

    async fn stop_all(&self) {
        for (namespace, name) in self.engine.driven() {
            let _ = self.engine.stop(&namespace, &name, Some(0));
        }
        self.until("all pods are gone", |world| world.engine.driven().is_empty()).await;
    }
}

/// Everything until the other end is closed, or the terminal is.
pub(crate) async fn read_all(fd: Option<OwnedFd>) -> String {
    let mut file = File::from(fd.expect("a stream"));
    let read = tokio::task::spawn_blocking(move || {
        let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
        while let Ok(count @ 1..) = file.read(&mut buffer) {
            text.extend_from_slice(&buffer[..count]);
        }
        String::from_utf8(text).unwrap()
    });
    tokio::time::timeout(PATIENCE, read).await.expect("an end of the stream").unwrap()
}

/// Its output and error, and how it ended.
pub(crate) async fn finish(session: Session) -> (String, String, pod_engine::session::Ended) {
    let Session { stdin, stdout, stderr, end, .. } = session;
    drop(stdin);
    let ended = tokio::time::timeout(PATIENCE, end).await.expect("an end").unwrap();
    let stdout = if stdout.is_some() { read_all(stdout).await } else { String::new() };
    let stderr = if stderr.is_some() { read_all(stderr).await } else { String::new() };
    (stdout, stderr, ended)
}
