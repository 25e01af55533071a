//! One engine: the machine's mechanisms opened once, and a task per pod it owns.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use pod_api::context::{NodeInfo, Objects};
use pod_container::cgroup::Hierarchy;
use pod_network::Network;
use pod_plan::Lifecycle;
use tokio::sync::mpsc;

use crate::clock::Clock;
use crate::feed::{Feed, News};
use crate::paths::Roots;
use crate::record::{self, Ownership, Record};
use crate::task::{Command, PodTask};
use crate::teardown::Forgotten;

/// How an engine is set up; everything has a default that fits one machine.
#[derive(Debug, Clone)]
pub struct Config {
    pub roots: Roots,
    /// Pods' addresses.
    pub pod_cidr: ipnet::Ipv4Net,
    /// The socket under which other commands find this engine.
    pub socket: PathBuf,
    /// The node's name; without one, the host's name.
    pub node_name: Option<String>,
}

/// What every pod's task may use.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) config: Config,
    pub(crate) clock: Clock,
    pub(crate) node: NodeInfo,
    pub(crate) store: pod_image::Store,
    pub(crate) network: Network,
    pub(crate) cgroups: Hierarchy,
    pub(crate) shim: PathBuf,
    pub(crate) may_lower_oom_score: bool,
    /// One pull at a time of one image; the others wait for its result.
    pub(crate) pulls: RefCell<BTreeMap<String, Rc<tokio::sync::Mutex<()>>>>,
    /// What stands in for images that are not here, once it was asked for.
    pub(crate) host_userland: RefCell<Option<pod_image::HostUserland>>,
    pub(crate) feed: Feed,
    /// Who still reads pods' logs.
    pub(crate) holds: crate::hold::Holds,
    /// The pods driven here, for sessions into them.
    pub(crate) live: RefCell<BTreeMap<(String, String), std::rc::Weak<crate::running::Running>>>,
}

/// Why an engine could not be opened. The message says what; the source says why.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("failed to prepare the state directory `{0}`")]
    Directory(PathBuf, #[source] io::Error),
    #[error("failed to open the image store")]
    Store(#[source] pod_image::OpenError),
    #[error("failed to prepare the pod network")]
    Network(#[source] pod_network::OpenError),
    #[error("failed to find the cgroup hierarchies")]
    Cgroups(#[source] pod_container::cgroup::DetectError),
    #[error("failed to unpack the pod shim")]
    Shim(#[source] io::Error),
}

/// Why a pod was not taken on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("pod `{0}` is driven by another engine")]
    Owned(String),
    #[error("pod `{0}` is not known here")]
    Unknown(String),
    #[error(
        "pod `{0}` lives, and {1} cannot change while it does; replace the pod with --recreate, or take it down first"
    )]
    Differs(String, String),
    #[error("the state of pod `{0}` cannot be read (another version of outrigger wrote it?); take it down first")]
    Ledger(String, #[source] io::Error),
    #[error("failed to write down pod `{0}`")]
    Record(String, #[source] io::Error),
    #[error("pod `{0}` is an object of this root's API; change or delete it there (kubectl), or choose another name")]
    OfStore(String),
}

/// A request to run one pod.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct PodRequest {
    pub pod: Pod,
    pub objects: Objects,
    pub origin: Option<String>,
    pub offline: bool,
    pub detached: bool,
    /// Replace every container of a live pod, not only those that differ.
    pub recreate: bool,
    /// Processes and threads of the whole pod; counted from its start.
    pub pids_limit: Option<u64>,
    /// The pod is an object of an API server: its uid and creationTimestamp are its own, and a pod of another uid is
    /// another pod.
    #[serde(default)]
    pub of_store: bool,
}

impl PodRequest {
    pub fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or("default")
    }
    pub fn name(&self) -> &str {
        self.pod.metadata.name.as_deref().unwrap_or_default()
    }

    /// Whether it is about the very object that `record` was made of.
    pub(crate) fn is_same_object(&self, record: &Record) -> bool {
        self.of_store && record.of_store && self.pod.metadata.uid.as_deref() == Some(&record.uid)
    }
}

/// Lives on one thread, inside a [`tokio::task::LocalSet`].
#[derive(Debug, Clone)]
pub struct Engine {
    cx: Rc<Context>,
    pods: Rc<RefCell<Driven>>,
}

/// The pods driven here, by namespace and name, with the way to their tasks.
type Driven = BTreeMap<(String, String), mpsc::UnboundedSender<Command>>;

// === impl Engine ===

impl Engine {
    pub fn open(config: Config) -> Result<Self, OpenError> {
        config.roots.make_run().map_err(|e| OpenError::Directory(config.roots.run.clone(), e))?;
        for dir in [config.roots.pods(), config.roots.data.join("pods"), config.roots.logs.clone()] {
            create_private(&dir).map_err(|e| OpenError::Directory(dir, e))?;
        }
        let store = pod_image::Store::open(&config.roots.images()).map_err(OpenError::Store)?;
        let network = Network::open(&config.roots.network(), pod_network::Config { cidr: config.pod_cidr, mtu: None })
            .map_err(OpenError::Network)?;
        let cgroups = Hierarchy::detect().map_err(OpenError::Cgroups)?;
        let shim = crate::shim_binary::ensure(&config.roots.run).map_err(OpenError::Shim)?;
        let cx = Context {
            node: crate::node::observe(config.node_name.clone()),
            may_lower_oom_score: crate::node::may_lower_oom_score(),
            clock: Clock::start(),
            pulls: RefCell::default(),
            host_userland: RefCell::default(),
            feed: Feed::default(),
            holds: crate::hold::Holds::default(),
            live: RefCell::default(),
            config,
            store,
            network,
            cgroups,
            shim,
        };
        Ok(Self { cx: Rc::new(cx), pods: Rc::default() })
    }

    pub fn feed(&self) -> &Feed {
        &self.cx.feed
    }

    /// Keeps the logs of a pod of this engine until the hold is dropped: [`News::Ended`] says when to read the rest and do
    /// so. A stop without grace does not wait.
    pub fn hold(&self, namespace: &str, name: &str) -> crate::Hold {
        self.cx.holds.hold(namespace, name)
    }

    pub fn store(&self) -> &pod_image::Store {
        &self.cx.store
    }

    pub fn roots(&self) -> &Roots {
        &self.cx.config.roots
    }

    /// The machine as pods see it.
    pub fn node(&self) -> &NodeInfo {
        &self.cx.node
    }

    pub fn clock(&self) -> Clock {
        self.cx.clock
    }

    pub(crate) fn context(&self) -> &Context {
        &self.cx
    }

    pub(crate) fn running(&self, namespace: &str, name: &str) -> Option<Rc<crate::running::Running>> {
        self.cx.live.borrow().get(&(namespace.to_owned(), name.to_owned())).and_then(std::rc::Weak::upgrade)
    }

    /// Whether the pod of this name that is running is the one of this uid, and not one made anew under the name.
    pub fn is_running(&self, namespace: &str, name: &str, uid: &str) -> bool {
        self.running(namespace, name).is_some_and(|running| running.uid() == uid)
    }

    pub fn drives(&self, namespace: &str, name: &str) -> bool {
        self.pods.borrow().contains_key(&(namespace.to_owned(), name.to_owned()))
    }

    /// Names of the pods this engine drives.
    pub fn driven(&self) -> Vec<(String, String)> {
        self.pods.borrow().keys().cloned().collect()
    }

    /// Runs a new pod, applies a changed manifest to one driven here, or adopts an orphan of the same name and then
    /// applies the manifest. A pod that is on its way to its end is followed by a new one.
    pub fn run(&self, request: PodRequest) -> Result<(), RunError> {
        let key = (request.namespace().to_owned(), request.name().to_owned());
        let full = format!("{}/{}", key.0, key.1);
        let paths = self.cx.config.roots.pod(&key.0, &key.1);
        let failed = |error| RunError::Record(full.clone(), error);
        if !request.of_store && record::load::<Record>(&paths.record()).is_ok_and(|record| record.of_store) {
            return Err(RunError::OfStore(full));
        }
        if self.drives(&key.0, &key.1) {
            check_update(&full, &paths, &request)?;
        }
        if let Some(commands) = self.pods.borrow().get(&key) {
            // A closed channel is a pod in its last instant; the name is free the moment it is gone.
            if commands.send(Command::Update(Box::new(request.clone()))).is_ok() {
                return Ok(());
            }
        }
        create_private(&paths.run).map_err(failed)?;
        let ownership = Ownership::try_take(&paths).map_err(failed)?.ok_or_else(|| RunError::Owned(full.clone()))?;
        match record::load::<Lifecycle>(&paths.ledger()) {
            Ok(lifecycle) if lifecycle.is_finished() => self.put_away(&full, &paths)?,
            Ok(_) => {
                check_update(&full, &paths, &request)?;
                self.adopt_owned(&key, ownership)?;
                if let Some(commands) = self.pods.borrow().get(&key) {
                    let _ = commands.send(Command::Update(Box::new(request)));
                }
                return Ok(());
            }
            // Nothing was begun yet.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // Not ours to guess about: it may run.
            Err(error) => return Err(RunError::Ledger(full, error)),
        }
        create_private(&paths.run).map_err(failed)?;
        let record = self.new_record(request).map_err(failed)?;
        record::save(&paths.record(), &record).map_err(failed)?;
        self.sign(&paths).map_err(failed)?;
        self.start_task(&key, PodTask::new(self.cx.clone(), paths, record, ownership));
        Ok(())
    }

    /// A pod of which only its last status is known: the machine went down under it. What ran then is lost, and its
    /// containers are started again by policy, with restart counts that go on.
    ///
    /// # Errors
    /// As [`Self::run`], and [`RunError::Owned`] where there still is a pod of the name.
    pub fn restore(&self, request: PodRequest, status: &PodStatus) -> Result<(), RunError> {
        let key = (request.namespace().to_owned(), request.name().to_owned());
        let full = format!("{}/{}", key.0, key.1);
        let paths = self.cx.config.roots.pod(&key.0, &key.1);
        let failed = |error| RunError::Record(full.clone(), error);
        if self.drives(&key.0, &key.1) || paths.record().exists() {
            return Err(RunError::Owned(full));
        }
        create_private(&paths.run).map_err(failed)?;
        let ownership = Ownership::try_take(&paths).map_err(failed)?.ok_or_else(|| RunError::Owned(full.clone()))?;
        let record = self.new_record(request).map_err(failed)?;
        let mut lifecycle = Lifecycle::restored(&record.pod, &record.uid, status, self.cx.clock.now());
        crate::attempts::go_on(&mut lifecycle, &paths, &record.uid);
        record::save(&paths.record(), &record).map_err(failed)?;
        record::save(&paths.ledger(), &lifecycle).map_err(failed)?;
        self.sign(&paths).map_err(failed)?;
        self.start_task(&key, PodTask::adopted(self.cx.clone(), paths, record, lifecycle, ownership));
        Ok(())
    }

    fn new_record(&self, request: PodRequest) -> io::Result<Record> {
        let mut pod = request.pod;
        let created = self.cx.clock.now();
        let own = pod.metadata.uid.clone().filter(|uid| request.of_store && !uid.is_empty());
        let uid = match own {
            Some(uid) => uid,
            None => record::new_uid()?,
        };
        pod.metadata.uid = Some(uid.clone());
        if !request.of_store || pod.metadata.creation_timestamp.is_none() {
            pod.metadata.creation_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(created));
        }
        Ok(Record {
            cgroup: crate::running::cgroup_of(&self.cx.config.roots, &pod, &uid),
            uid,
            pod,
            objects: request.objects,
            origin: request.origin,
            created,
            offline: request.offline,
            detached: request.detached,
            pids_limit: request.pids_limit,
            of_store: request.of_store,
        })
    }

    /// A pod that ended earlier and was only kept to be looked at makes room; its files go in the background.
    fn put_away(&self, full: &str, paths: &crate::PodPaths) -> Result<(), RunError> {
        let failed = |error| RunError::Record(full.to_owned(), error);
        let record: Record = record::load(&paths.record()).map_err(failed)?;
        let forgotten = Forgotten::of(&self.cx, paths, &record).map_err(|message| failed(io::Error::other(message)))?;
        tokio::task::spawn_blocking(move || forgotten.remove());
        Ok(())
    }

    /// Takes an orphaned pod (its engine died) from where it stands.
    pub fn adopt(&self, namespace: &str, name: &str) -> Result<(), RunError> {
        let key = (namespace.to_owned(), name.to_owned());
        let full = format!("{namespace}/{name}");
        let paths = self.cx.config.roots.pod(namespace, name);
        if !paths.record().exists() {
            return Err(RunError::Unknown(full));
        }
        let ownership =
            Ownership::try_take(&paths).map_err(|e| RunError::Record(full.clone(), e))?.ok_or(RunError::Owned(full))?;
        self.adopt_owned(&key, ownership)
    }

    fn adopt_owned(&self, key: &(String, String), ownership: Ownership) -> Result<(), RunError> {
        let paths = self.cx.config.roots.pod(&key.0, &key.1);
        let failed = |e| RunError::Record(format!("{}/{}", key.0, key.1), e);
        self.sign(&paths).map_err(failed)?;
        let record: Record = record::load(&paths.record()).map_err(failed)?;
        let lifecycle = match record::load(&paths.ledger()) {
            Ok(lifecycle) => Some(lifecycle),
            // Killed between the two files: nothing was begun yet.
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(failed(e)),
        };
        let task = match lifecycle {
            Some(lifecycle) => PodTask::adopted(self.cx.clone(), paths, record, lifecycle, ownership),
            None => PodTask::new(self.cx.clone(), paths, record, ownership),
        };
        self.start_task(key, task);
        Ok(())
    }

    /// Stops a pod and forgets it. `grace` in seconds; `None` is the pod's own.
    pub fn stop(&self, namespace: &str, name: &str, grace: Option<u64>) -> Result<(), RunError> {
        let key = (namespace.to_owned(), name.to_owned());
        match self.pods.borrow().get(&key) {
            Some(commands) if commands.send(Command::Stop { grace }).is_ok() => Ok(()),
            _ => Err(RunError::Unknown(format!("{namespace}/{name}"))),
        }
    }

    /// A condition that is a client's fact (readiness gates): `status` is `True`, `False` or `Unknown`, or empty when the
    /// client has taken it away.
    pub fn set_condition(&self, namespace: &str, name: &str, kind: &str, status: &str) -> Result<(), RunError> {
        let key = (namespace.to_owned(), name.to_owned());
        let command = Command::Condition { kind: kind.into(), status: status.into() };
        match self.pods.borrow().get(&key) {
            Some(commands) if commands.send(command).is_ok() => Ok(()),
            _ => Err(RunError::Unknown(format!("{namespace}/{name}"))),
        }
    }

    fn start_task(&self, key: &(String, String), (task, commands): (PodTask, mpsc::UnboundedSender<Command>)) {
        self.pods.borrow_mut().insert(key.clone(), commands.clone());
        self.cx.live.borrow_mut().insert(key.clone(), Rc::downgrade(task.running()));
        let engine = self.clone();
        let key = key.clone();
        tokio::task::spawn_local(async move {
            let successor = task.drive().await;
            // Another pod of the same name may have taken the place.
            if engine.pods.borrow().get(&key).is_some_and(|current| current.same_channel(&commands)) {
                engine.pods.borrow_mut().remove(&key);
                engine.cx.live.borrow_mut().remove(&key);
            }
            if let Some(request) = successor
                && let Err(error) = engine.run(*request)
            {
                engine.trouble(&key.0, &key.1, crate::chain(&error));
            }
        });
    }

    /// Says where the pod's engine listens.
    fn sign(&self, paths: &crate::PodPaths) -> io::Result<()> {
        std::fs::write(paths.owner(), self.cx.config.socket.as_os_str().as_encoded_bytes())
    }

    /// A message that is about no step of the plan.
    pub fn trouble(&self, namespace: &str, name: &str, text: String) {
        self.cx.feed.send(namespace, name, News::Trouble(text));
    }
}

/// Refuses before anything is changed what a live pod cannot take over.
fn check_update(full: &str, paths: &crate::PodPaths, request: &PodRequest) -> Result<(), RunError> {
    let stopping = record::load::<Lifecycle>(&paths.ledger()).is_ok_and(|lifecycle| lifecycle.is_stopping());
    let Ok(record) = record::load::<Record>(&paths.record()) else { return Ok(()) };
    if request.of_store && !request.is_same_object(&record) {
        return Ok(());
    }
    let differing = crate::update::sandbox_differences(&record.pod, &request.pod);
    if request.recreate || stopping || differing.is_empty() {
        return Ok(());
    }
    Err(RunError::Differs(full.to_owned(), differing.join(", ")))
}

fn create_private(dir: &std::path::Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}
