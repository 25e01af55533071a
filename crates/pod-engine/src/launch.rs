//! `Start`: from a container of the manifest to the resolved [`ContainerSpec`] that the shim executes.

mod etc;
mod files;
mod mounts;
mod process;
mod signal;
mod snapshot;

use std::path::PathBuf;
use std::rc::Rc;

use k8s_openapi::api::core::v1::{Container, PodSpec};
use pod_api::resources::{ContainerResources, ResourceError};
use pod_api::security::{self, Effective};
use pod_container::cgroup::{Devices, Limits};
use pod_container::spec::{ContainerSpec, LogSpec, Rootfs, Stdin};
use pod_plan::Event;
use pod_shim::client::StartError;

pub(crate) use self::snapshot::{Snapshot, stop_signal};
use crate::image::{self, ReadyImage};
use crate::running::{self, Running, report_unapplied};
use crate::{chain, sandbox};

/// A live log is rotated at 10 MiB, five files are kept (the kubelet's `containerLogMaxSize`, `containerLogMaxFiles`).
const LOG_MAX_SIZE: u64 = 10 << 20;
const LOG_MAX_FILES: u32 = 5;

/// Why a container could not be described to the shim.
enum Unlaunchable {
    /// `CreateContainerConfigError`.
    Config(String),
    /// `CreateContainerError`.
    Create(String),
}

/// One attempt to be, while it is described.
struct Launch<'a> {
    running: &'a Rc<Running>,
    pod: &'a PodSpec,
    container: &'a Container,
    image: &'a ReadyImage,
    effective: &'a Effective,
    attempt: u32,
}

/// `None`: the shim's fact `Started` follows.
pub(crate) async fn start(running: &Rc<Running>, container: String, attempt: u32) -> Option<Event> {
    let Some(shim) = running.shim() else {
        return Some(Event::CreateFailed { container, attempt, message: "the pod's sandbox is gone".into() });
    };
    // Held until the shim has mounted it: its lease keeps the layers.
    let image = match ready_image(running, &container).await {
        Ok(image) => image,
        Err(message) => return Some(Event::CreateFailed { container, attempt, message }),
    };
    let spec = match describe(running, &container, &image, attempt) {
        Ok(spec) => spec,
        Err(Unlaunchable::Config(message)) => return Some(Event::ConfigFailed { container, attempt, message }),
        Err(Unlaunchable::Create(message)) => return Some(Event::CreateFailed { container, attempt, message }),
    };
    match shim.start(&container, attempt, &spec).await {
        // The fact comes over the same socket, in order with the exit that may already be behind it.
        Ok(_) => None,
        Err(StartError::Create { message, .. }) => Some(Event::CreateFailed { container, attempt, message }),
        Err(error @ StartError::Start { .. }) => {
            let message = error.to_string();
            Some(Event::StartFailed { container, attempt, at: running.now(), message })
        }
        Err(StartError::Request(error)) => Some(Event::CreateFailed { container, attempt, message: chain(&error) }),
    }
}

/// What `EnsureImage` left for this start. An engine that died in between took it along; then the store is asked again,
/// and nothing is pulled.
async fn ready_image(running: &Rc<Running>, container: &str) -> Result<ReadyImage, String> {
    match running.take_image(container) {
        Some(image) => Ok(image),
        None => image::recall(running, container).await,
    }
}

/// Also writes down what later operations on the attempt will need.
fn describe(
    running: &Rc<Running>,
    name: &str,
    image: &ReadyImage,
    attempt: u32,
) -> Result<ContainerSpec, Unlaunchable> {
    let record = running.record();
    let gone = || Unlaunchable::Create("it left the manifest".into());
    let pod = record.pod.spec.as_ref().ok_or_else(gone)?;
    let container = &running::find_container(pod, name).ok_or_else(gone)?;
    let effective = Effective::of(pod, container).map_err(|error| Unlaunchable::Config(chain(&error)))?;
    let launch = Launch { running, pod, container, image, effective: &effective, attempt };
    let spec = launch.spec()?;
    Snapshot::of(&launch, &spec).keep(running, attempt).map_err(Unlaunchable::Create)?;
    Ok(spec)
}

// === impl Launch ===

impl Launch<'_> {
    fn spec(&self) -> Result<ContainerSpec, Unlaunchable> {
        let Self { running, container, image, effective, attempt, .. } = *self;
        security::check_non_root(effective, &image.config.user).map_err(|error| Unlaunchable::Config(chain(&error)))?;
        let image_env: Vec<String> = image.config.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let env = running
            .with_context(|cx| pod_api::env::resolve(container, &image_env, &cx.objects.service_variables, cx))
            .map_err(|error| Unlaunchable::Config(chain(&error)))?;
        let args = pod_api::env::command(container, &image.config.entrypoint, &image.config.cmd, &env.declared);
        if args.is_empty() {
            return Err(Unlaunchable::Create("no command specified".into()));
        }
        let uid = running.uid();
        let directory = running.paths.attempt(&uid, &container.name, attempt);
        Ok(ContainerSpec {
            process: self.process(env.all, args)?,
            rootfs: Rootfs {
                lower: image.layers.clone(),
                upper: directory.join("upper"),
                work: directory.join("work"),
                readonly: effective.read_only_root,
            },
            mounts: self.mounts(&env.declared)?,
            masked_paths: self.masked_paths(),
            readonly_paths: effective.readonly_paths.clone(),
            privileged: effective.privileged,
            cgroups: self.cgroup()?,
            log: LogSpec {
                path: running.paths.log(&uid, &container.name, attempt),
                max_size: LOG_MAX_SIZE,
                max_files: LOG_MAX_FILES,
            },
            tty: container.tty == Some(true),
            stdin: match (container.stdin, container.stdin_once) {
                (Some(true), Some(true)) => Stdin::Once,
                (Some(true), _) => Stdin::Open,
                _ => Stdin::Null,
            },
            processes_of: self.target(),
        })
    }

    /// The list of the manifest's defaults, and this machine's per-cpu files.
    fn masked_paths(&self) -> Vec<String> {
        let mut paths = self.effective.masked_paths.clone();
        if !paths.is_empty() {
            let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
            paths.extend(security::thermal_throttle_paths(cpus));
        }
        paths
    }

    /// Of an ephemeral container: whose processes it is to see.
    fn target(&self) -> Option<String> {
        let mut ephemerals = self.pod.ephemeral_containers.iter().flatten();
        let own = ephemerals.find(|ephemeral| ephemeral.name == self.container.name)?;
        own.target_container_name.clone().filter(|name| !name.is_empty())
    }

    fn cgroup(&self) -> Result<Vec<PathBuf>, Unlaunchable> {
        let Self { running, container, effective, .. } = *self;
        let size = size_limits(container).map_err(|error| Unlaunchable::Create(chain(&error)))?;
        let devices = if effective.privileged { Devices::AllowAll } else { Devices::standard() };
        let limits = Limits { devices, ..size };
        let group = running.cgroup().join(&container.name);
        let created = sandbox::make_group(running, &group, &limits).map_err(Unlaunchable::Create)?;
        report_unapplied(running, &format!("container {}", container.name), &created.unapplied);
        Ok(created.directories)
    }
}

/// What can change while it runs.
pub(crate) fn size_limits(container: &Container) -> Result<Limits, ResourceError> {
    let resources = ContainerResources::of(container)?;
    Ok(Limits {
        cpu_shares: Some(pod_api::resources::cpu_shares(resources.cpu_request_millis.unwrap_or(0))),
        cpu_quota_us: resources.cpu_limit_millis.and_then(sandbox::quota),
        memory_limit: resources.memory_limit.and_then(|bytes| u64::try_from(bytes).ok()),
        memory_oom_group: true,
        ..Limits::default()
    })
}
