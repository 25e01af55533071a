//! `Start`: from a container of the manifest to the resolved [`ContainerSpec`] that the shim executes.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use k8s_openapi::api::core::v1::{Container, VolumeMount};
use pod_api::resources::ContainerResources;
use pod_api::role::Role;
use pod_api::security::{self, Effective, GroupsPolicy, Seccomp};
use pod_container::cgroup::{Devices, Limits};
use pod_container::seccomp;
use pod_container::spec::{
    Capabilities, ContainerSpec, LogSpec, Mount, MountSource, ProcessSpec, Propagation, Rootfs, User,
};
use pod_plan::Event;
use pod_shim::client::StartError;

use crate::image::ReadyImage;
use crate::running::{Running, report_unapplied};
use crate::volumes::{self, Place};
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

/// `None`: the shim's fact `Started` follows.
pub(crate) async fn start(running: &Rc<Running>, container: String, attempt: u32) -> Option<Event> {
    let Some(shim) = running.shim() else {
        return Some(Event::CreateFailed { container, attempt, message: "the pod's sandbox is gone".into() });
    };
    let spec = match container_spec(running, &container, attempt) {
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

fn container_spec(running: &Rc<Running>, name: &str, attempt: u32) -> Result<ContainerSpec, Unlaunchable> {
    let container = running.container(name).ok_or_else(|| Unlaunchable::Create("it left the manifest".into()))?;
    let image = running.image(name).ok_or_else(|| Unlaunchable::Create("its image is not in the store".into()))?;
    let pod_spec = running.spec();
    let effective = Effective::of(&pod_spec, &container).map_err(|error| Unlaunchable::Config(chain(&error)))?;
    security::check_non_root(&effective, &image.config.user).map_err(|error| Unlaunchable::Config(chain(&error)))?;

    let (env, args) = running
        .with_context(|cx| {
            let env = pod_api::env::resolve(&container, &image_env(&image), &[], cx)?;
            let args = pod_api::env::command(&container, &image.config.entrypoint, &image.config.cmd, &env.declared);
            Ok((env, args))
        })
        .map_err(|error: pod_api::env::ConfigError| Unlaunchable::Config(chain(&error)))?;
    if args.is_empty() {
        return Err(Unlaunchable::Create("no command specified".into()));
    }
    let directory = running.paths.attempt(&running.uid(), name, attempt);
    let cwd = container.working_dir.clone().unwrap_or_else(|| image.config.working_dir.clone());
    Ok(ContainerSpec {
        process: process(running, &effective, &container, &image, env.all, args, cwd)?,
        rootfs: Rootfs {
            lower: image.layers.clone(),
            upper: directory.join("upper"),
            work: directory.join("work"),
            readonly: effective.read_only_root,
        },
        mounts: mounts(running, &container, &image, &effective, &env.declared, attempt)?,
        masked_paths: masked_paths(&effective),
        readonly_paths: effective.readonly_paths.clone(),
        privileged: effective.privileged,
        cgroups: cgroup(running, &container, &effective)?,
        log: LogSpec {
            path: running.paths.log(&running.uid(), name, attempt),
            max_size: LOG_MAX_SIZE,
            max_files: LOG_MAX_FILES,
        },
        tty: container.tty == Some(true),
    })
}

fn process(
    running: &Rc<Running>,
    effective: &Effective,
    container: &Container,
    image: &ReadyImage,
    env: Vec<(String, String)>,
    args: Vec<String>,
    cwd: String,
) -> Result<ProcessSpec, Unlaunchable> {
    let pod_spec = running.spec();
    let sidecar = matches!(pod_api::role::find(&pod_spec, &container.name), Some((Role::Sidecar, _)));
    let memory = running.cx.node.memory_bytes;
    let score = pod_api::qos::oom_score_adj(&pod_spec, container, sidecar, memory);
    Ok(ProcessSpec {
        args,
        env,
        cwd,
        user: user(effective, image),
        capabilities: Capabilities { bounding: effective.bounding, permitted: effective.permitted },
        no_new_privileges: effective.no_new_privileges,
        seccomp: seccomp_programs(running, effective)?,
        rlimits: Vec::new(),
        oom_score_adj: permitted_score(running, score.map_err(|error| Unlaunchable::Create(chain(&error)))?),
    })
}

fn user(effective: &Effective, image: &ReadyImage) -> User {
    let id = |value: i64| u32::try_from(value).ok();
    User {
        user: effective.user.map_or_else(|| image.config.user.clone(), |uid| uid.to_string()),
        group: effective.group.and_then(id),
        additional_groups: effective.additional_groups().into_iter().filter_map(id).collect(),
        merge_image_groups: effective.groups_policy == GroupsPolicy::Merge,
    }
}

fn image_env(image: &ReadyImage) -> Vec<String> {
    image.config.env.iter().map(|(name, value)| format!("{name}={value}")).collect()
}

/// The list of the manifest's defaults, and this machine's per-cpu files.
fn masked_paths(effective: &Effective) -> Vec<String> {
    let mut paths = effective.masked_paths.clone();
    if !paths.is_empty() {
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        paths.extend(security::thermal_throttle_paths(cpus));
    }
    paths
}

/// Lowering the score below the engine's own takes CAP_SYS_RESOURCE (proc_pid_oom_score_adj(5)), which a confined root
/// may lack: then the container keeps the engine's, and that is said once a pod.
fn permitted_score(running: &Rc<Running>, score: i32) -> Option<i32> {
    if running.cx.may_lower_oom_score || score >= 0 {
        return Some(score);
    }
    running.note_trouble_once(format!(
        "oom_score_adj {score} is not set: the engine lacks CAP_SYS_RESOURCE, so containers are killed for memory in the kernel's own order"
    ));
    None
}

/// Compiled here, because the shim is to stay tiny.
fn seccomp_programs(running: &Rc<Running>, effective: &Effective) -> Result<Vec<Vec<u8>>, Unlaunchable> {
    let bounding = effective.bounding;
    let profile = match &effective.seccomp {
        Seccomp::Unconfined => return Ok(Vec::new()),
        Seccomp::RuntimeDefault => return Ok(seccomp::runtime_default(bounding)),
        Seccomp::Localhost(profile) => profile,
    };
    let path = running.cx.config.roots.data.join("seccomp").join(profile);
    let refused =
        |cause: String| Unlaunchable::Create(format!("cannot load seccomp profile \"{}\": {cause}", path.display()));
    let text = std::fs::read(&path).map_err(|error| refused(error.to_string()))?;
    seccomp::from_profile(&text, bounding).map_err(|error| refused(chain(&error)))
}

fn cgroup(running: &Rc<Running>, container: &Container, effective: &Effective) -> Result<Vec<PathBuf>, Unlaunchable> {
    let resources = ContainerResources::of(container).map_err(|error| Unlaunchable::Create(chain(&error)))?;
    let limits = Limits {
        cpu_shares: Some(pod_api::resources::cpu_shares(resources.cpu_request_millis.unwrap_or(0))),
        cpu_quota_us: resources.cpu_limit_millis.and_then(sandbox::quota),
        memory_limit: resources.memory_limit.and_then(|bytes| u64::try_from(bytes).ok()),
        memory_oom_group: true,
        devices: if effective.privileged { Devices::AllowAll } else { Devices::standard() },
        ..Limits::default()
    };
    let group = running.cgroup().join(&container.name);
    let created = sandbox::make_group(running, &group, &limits).map_err(Unlaunchable::Create)?;
    report_unapplied(running, &format!("container {}", container.name), &created.unapplied);
    Ok(created.directories)
}

// === mounts ===

fn mounts(
    running: &Rc<Running>,
    container: &Container,
    image: &ReadyImage,
    effective: &Effective,
    env: &[(String, String)],
    attempt: u32,
) -> Result<Vec<Mount>, Unlaunchable> {
    let mut mounts: Vec<Mount> = image.binds.iter().map(|(host, target)| bind(host.clone(), target, true)).collect();
    let own = |target: &str| container.volume_mounts.iter().flatten().any(|mount| mount.mount_path == target);

    // Edits inside a container do not outlive it: the hosts file is written anew for each start.
    sandbox::write_etc(running, &running.pod_ips()).map_err(Unlaunchable::Create)?;
    let etc = running.paths.etc();
    for (file, target) in [("hosts", "/etc/hosts"), ("hostname", "/etc/hostname"), ("resolv.conf", "/etc/resolv.conf")]
    {
        if !own(target) {
            mounts.push(bind(etc.join(file), target, effective.read_only_root));
        }
    }
    if !own("/dev/shm") {
        let host_ipc = running.spec().host_ipc == Some(true);
        let source = if host_ipc { Path::new("/dev/shm").to_owned() } else { running.paths.shm() };
        mounts.push(bind(source, "/dev/shm", false));
    }
    mounts.extend(volume_mounts(running, container, env)?);
    let termination = termination_mount(running, container, attempt)?;
    mounts.push(termination);
    Ok(mounts)
}

/// Outer paths before inner ones, whatever the manifest's order.
fn volume_mounts(
    running: &Rc<Running>,
    container: &Container,
    env: &[(String, String)],
) -> Result<Vec<Mount>, Unlaunchable> {
    let mut asked: Vec<&VolumeMount> = container.volume_mounts.iter().flatten().collect();
    asked.sort_by_key(|mount| mount.mount_path.trim_end_matches('/').matches('/').count());
    asked.into_iter().map(|mount| volume_mount(running, mount, env)).collect()
}

fn volume_mount(running: &Rc<Running>, mount: &VolumeMount, env: &[(String, String)]) -> Result<Mount, Unlaunchable> {
    let spec = running.spec();
    let volume = spec.volumes.iter().flatten().find(|volume| volume.name == mount.name);
    let volume = volume.ok_or_else(|| Unlaunchable::Create(format!("volume \"{}\" is gone", mount.name)))?;
    let place = volumes::place(running, volume).map_err(Unlaunchable::Create)?;
    let is_image = matches!(place, Place::Layers(_));
    let sub_path = pod_api::env::sub_path(mount, env).map_err(|error| Unlaunchable::Config(chain(&error)))?;
    let source = match (place, sub_path) {
        (Place::Path(root), Some(path)) => MountSource::BindBelow { root, path },
        (Place::Path(path), None) => MountSource::Bind(path),
        (Place::Layers(layers), None) => MountSource::Layers(layers),
        (Place::Layers(_), Some(_)) => {
            return Err(Unlaunchable::Config("subPath of an image volume is not supported".into()));
        }
    };
    let readonly = mount.read_only == Some(true) || is_image || pod_api::content::is_content(volume);
    let recursive = mount.recursive_read_only.as_deref();
    Ok(Mount {
        source,
        target: mount.mount_path.clone(),
        readonly,
        recursive_readonly: readonly && matches!(recursive, Some("Enabled" | "IfPossible")),
        noexec: is_image,
        propagation: match mount.mount_propagation.as_deref() {
            Some("HostToContainer") => Propagation::Slave,
            Some("Bidirectional") => Propagation::Shared,
            _ => Propagation::Private,
        },
    })
}

/// One file per attempt, writable by any user of the container.
fn termination_mount(running: &Rc<Running>, container: &Container, attempt: u32) -> Result<Mount, Unlaunchable> {
    use std::os::unix::fs::PermissionsExt;
    let path = running.paths.termination_log(&container.name, attempt);
    let make = || {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&path, "")?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666))
    };
    make().map_err(|error| Unlaunchable::Create(format!("failed to make {}: {error}", path.display())))?;
    let target = container.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
    Ok(bind(path, target, false))
}

fn bind(source: PathBuf, target: &str, readonly: bool) -> Mount {
    Mount {
        source: MountSource::Bind(source),
        target: target.into(),
        readonly,
        recursive_readonly: false,
        noexec: false,
        propagation: Propagation::Private,
    }
}

// === what hooks, probes and signals need of a started container ===

/// An exec'd process is the container's user with its capabilities, environment and working directory.
pub(crate) fn exec_spec(running: &Rc<Running>, name: &str, command: &[String]) -> Result<ProcessSpec, String> {
    let container = running.container(name).ok_or("the container left the manifest")?;
    let image = running.image(name).ok_or("the container's image is not known")?;
    let effective = Effective::of(&running.spec(), &container).map_err(|error| chain(&error))?;
    let env = running
        .with_context(|cx| pod_api::env::resolve(&container, &image_env(&image), &[], cx))
        .map_err(|error| chain(&error))?;
    let cwd = container.working_dir.clone().unwrap_or_else(|| image.config.working_dir.clone());
    let args = command.to_vec();
    process(running, &effective, &container, &image, env.all, args, cwd).map_err(|error| match error {
        Unlaunchable::Config(message) | Unlaunchable::Create(message) => message,
    })
}

/// `lifecycle.stopSignal`, else the image's STOPSIGNAL, else SIGTERM (pod v1, containerd container_stop.go).
pub(crate) fn stop_signal(running: &Rc<Running>, name: &str) -> i32 {
    let own = running.container(name).and_then(|c| c.lifecycle?.stop_signal);
    let image = running.image(name).and_then(|image| image.config.stop_signal);
    own.or(image).and_then(|text| signal_number(&text)).unwrap_or(rustix::process::Signal::TERM.as_raw())
}

/// `SIGQUIT`, `QUIT`, `3`, `SIGRTMIN+3`.
fn signal_number(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse() {
        return Some(number);
    }
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM",
        "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF",
        "WINCH", "IO", "PWR", "SYS",
    ];
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(index) = NAMES.iter().position(|known| *known == name) {
        return i32::try_from(index).ok().map(|number| number + 1);
    }
    // glibc keeps the first two real-time signals for itself: SIGRTMIN is 34, SIGRTMAX 64 (signal(7)).
    let (base, sign, offset) = if let Some(offset) = name.strip_prefix("RTMIN") {
        (34, 1, offset.strip_prefix('+').unwrap_or("0"))
    } else {
        (64, -1, name.strip_prefix("RTMAX")?.strip_prefix('-').unwrap_or("0"))
    };
    let number = base + sign * offset.parse::<i32>().ok()?;
    (34..=64).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::signal_number;

    #[test]
    fn signals_by_name_and_number() {
        let cases = [("SIGTERM", Some(15)), ("QUIT", Some(3)), ("9", Some(9)), ("SIGRTMIN+3", Some(37))];
        for (text, number) in cases {
            assert_eq!(signal_number(text), number, "{text}");
        }
        assert_eq!(signal_number("SIGRTMAX-1"), Some(63));
        assert_eq!(signal_number("SIGNOPE"), None);
        assert_eq!(signal_number("SIGRTMIN+31"), None);
    }
}
