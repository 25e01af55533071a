//! A node of its own for each test, and the removal of all it made.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pod_engine::{Config, Engine, Roots, record};
use pod_node::{Handle, Node};
use pod_store::{Change, Durability, Key, Store};
use serde_json::{Value, json};

pub(crate) struct World {
    dir: tempfile::TempDir,
}

/// One life of the daemon: dropped, it is killed.
pub(crate) struct Life {
    pub(crate) engine: Engine,
    pub(crate) store: Store,
    pub(crate) handle: Handle,
}

impl World {
    pub(crate) fn new() -> Self {
        assert!(rustix::process::geteuid().is_root(), "these tests run pods: run them as root");
        Self { dir: tempfile::Builder::new().prefix("outrigger-node-").tempdir().unwrap() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn roots(&self) -> Roots {
        Roots::below(&self.dir.path().join("root"))
    }

    pub(crate) fn store_path(&self) -> PathBuf {
        self.roots().data.join("node/objects.redb")
    }

    /// Runs `story` beside a node. Its end is the daemon's: tasks are dropped as a kill would.
    pub(crate) fn live<T, F: Future<Output = T>>(&self, story: impl FnOnce(Life) -> F) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let local = tokio::task::LocalSet::new();
        let result = local.block_on(&runtime, async {
            let life = self.start().await;
            tokio::time::timeout(Duration::from_secs(300), story(life)).await.expect("the test hangs")
        });
        drop(local);
        runtime.shutdown_timeout(Duration::from_secs(30));
        result
    }

    async fn start(&self) -> Life {
        let roots = self.roots();
        let config = Config {
            roots: roots.clone(),
            pod_cidr: "10.89.0.0/16".parse().unwrap(),
            socket: roots.run.join("engine.sock"),
            node_name: None,
        };
        let engine = Engine::open(config).unwrap();
        std::fs::create_dir_all(self.store_path().parent().unwrap()).unwrap();
        let store = self.open_store().await;
        let node = pod_node::Config {
            version: "v1.35.0+test".into(),
            root_ca: "CA".into(),
            offline: true,
            pids_limit: None,
            pod_cidr: "10.89.0.0/16".into(),
            services: None,
            port: 6550,
        };
        let node = Node::open(engine.clone(), store.clone(), node).await.unwrap();
        let handle = node.handle();
        tokio::task::spawn_local(node.run());
        Life { engine, store, handle }
    }

    /// The life before may be still at its last sync.
    async fn open_store(&self) -> Store {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            match Store::open(&self.store_path()) {
                Ok(store) => return store,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Kills the machine under the pods: their processes, and all that is in /run.
    pub(crate) fn reboot(&self) {
        self.sweep();
        let _ = std::fs::remove_dir_all(self.roots().run);
    }

    pub(crate) fn pod_directories(&self) -> usize {
        record::list(&self.roots()).unwrap().len()
    }

    /// Everything of this root on the machine goes.
    fn sweep(&self) {
        for listed in record::list(&self.roots()).unwrap_or_default() {
            let pid = std::fs::read_to_string(listed.paths.run.join("shim.pid")).ok();
            let pid = pid.and_then(|text| rustix::process::Pid::from_raw(text.trim().parse().ok()?));
            if let Some(pid) = pid {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let config = Config {
                roots: self.roots(),
                pod_cidr: "10.89.0.0/16".parse().unwrap(),
                socket: self.roots().run.join("sweep.sock"),
                node_name: None,
            };
            for listed in record::list(&self.roots()).unwrap_or_default() {
                let _ = std::fs::remove_file(listed.paths.ledger());
            }
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let swept = tokio::task::LocalSet::new().block_on(&runtime, async { pod_engine::cleanup::sweep(config) });
            if swept.is_ok_and(|report| report.complaints.is_empty()) || Instant::now() > deadline {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.sweep();
        let roots = self.roots();
        for tree in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let top = tree.path().join(roots.cgroup().strip_prefix("/").unwrap());
            for group in ["burstable", "besteffort", ""] {
                let _ = std::fs::remove_dir(top.join(group));
            }
        }
    }
}

// === impl Life ===

pub(crate) fn key(resource: &str, name: &str) -> Key {
    Key { resource: resource.into(), namespace: "default".into(), name: name.into() }
}

impl Life {
    /// As the server stores it: defaulted, with a uid.
    pub(crate) async fn create_pod(&self, name: &str, spec: Value) {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}, "spec": spec});
        let mut typed: k8s_openapi::api::core::v1::Pod = serde_json::from_value(pod).unwrap();
        pod_api::default::pod(&mut typed);
        let mut pod = serde_json::to_value(typed).unwrap();
        pod["metadata"]["uid"] = record::new_uid().unwrap().into();
        pod["metadata"]["generation"] = 1.into();
        pod["metadata"]["creationTimestamp"] = "2025-01-01T00:00:00Z".into();
        pod["status"] = json!({"phase": "Pending"});
        self.create("pods", name, pod).await;
    }

    pub(crate) async fn create(&self, resource: &str, name: &str, mut value: Value) {
        if value["metadata"]["uid"].is_null() {
            value["metadata"]["name"] = name.into();
            value["metadata"]["namespace"] = "default".into();
            value["metadata"]["uid"] = record::new_uid().unwrap().into();
        }
        self.store.write(key(resource, name), Change::Create(value), Durability::Synced).await.unwrap();
    }

    pub(crate) fn read(&self, resource: &str, name: &str) -> Option<Value> {
        let object = self.store.get(&key(resource, name))?;
        Some(serde_json::from_slice(&object.json).unwrap())
    }

    pub(crate) fn pod(&self, name: &str) -> Value {
        self.read("pods", name).unwrap_or_default()
    }

    pub(crate) async fn change(&self, resource: &str, name: &str, change: impl Fn(&mut Value)) {
        loop {
            let object = self.store.get(&key(resource, name)).unwrap();
            let mut value = serde_json::from_slice(&object.json).unwrap();
            change(&mut value);
            let replace = Change::Replace { value, expected: Some(object.revision) };
            if self.store.write(key(resource, name), replace, Durability::Synced).await.is_ok() {
                return;
            }
        }
    }

    /// As a client's DELETE.
    pub(crate) async fn delete_pod(&self, name: &str, grace: i64) {
        if grace == 0 {
            let change = Change::Delete { expected: None, last: None };
            self.store.write(key("pods", name), change, Durability::Synced).await.unwrap();
            return;
        }
        let at = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(grace);
        self.change("pods", name, |pod| {
            pod["metadata"]["deletionTimestamp"] = at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into();
            pod["metadata"]["deletionGracePeriodSeconds"] = grace.into();
        })
        .await;
    }

    pub(crate) fn phase(&self, name: &str) -> String {
        self.pod(name)["status"]["phase"].as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn condition(&self, name: &str, kind: &str) -> Value {
        let pod = self.pod(name);
        let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.into_iter().find(|condition| condition["type"] == kind).unwrap_or_default()
    }

    pub(crate) fn is_ready(&self, name: &str) -> bool {
        self.condition(name, "Ready")["status"] == "True"
    }

    /// Reasons of the events about a pod, in the order they were made.
    pub(crate) fn events(&self, name: &str) -> Vec<Value> {
        let list = self.store.list("events", Some("default"));
        let values = list.items.iter().map(|item| serde_json::from_slice::<Value>(&item.json).unwrap());
        values.filter(|event| event["involvedObject"]["name"] == name).collect()
    }

    pub(crate) fn reasons(&self, name: &str) -> Vec<String> {
        self.events(name).iter().map(|event| event["reason"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// The whole log of an attempt, without the log's own columns.
    pub(crate) fn log(&self, name: &str, container: &str, attempt: u32) -> String {
        let uid = self.pod(name)["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        let path = self.engine.roots().pod("default", name).log(&uid, container, attempt);
        let raw = std::fs::read_to_string(path).unwrap_or_default();
        raw.lines().map(|line| line.splitn(4, ' ').nth(3).unwrap_or_default().to_owned() + "\n").collect()
    }
}

/// Polls until true.
#[track_caller]
pub(crate) fn eventually<'a>(what: &'a str, mut check: impl FnMut() -> bool + 'a) -> impl Future<Output = ()> + 'a {
    let caller = std::panic::Location::caller();
    async move {
        let deadline = Instant::now() + Duration::from_secs(120);
        while !check() {
            assert!(Instant::now() < deadline, "{caller}: waited in vain for {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// A container that runs until it is told to end.
pub(crate) fn sleeper(name: &str) -> Value {
    shell(name, "trap 'exit 0' TERM; echo up; while :; do sleep 0.05; done")
}

pub(crate) fn shell(name: &str, script: &str) -> Value {
    json!({"name": name, "image": "busybox", "command": ["sh", "-c", script]})
}
