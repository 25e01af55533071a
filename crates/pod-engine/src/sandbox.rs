//! `CreateSandbox`: the pod's cgroup, its shim with the namespaces, its network.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use k8s_openapi::api::core::v1::PodSpec;
use pod_api::names::Names;
use pod_container::cgroup::{Created, Limits};
use pod_container::spec::{PidMode, SandboxSpec, Tmpfs};
use pod_network::{HostPort, Protocol};
use pod_plan::Event;
use pod_shim::client::{self, Client};

use crate::feed::News;
use crate::running::{Attached, CLUSTER_DOMAIN, Running, report_unapplied};
use crate::{blocking, chain, teardown, volumes};

/// No container can have this name: it is no DNS label.
const SHIM_GROUP: &str = "_shim";

const SPAWN_DEADLINE: Duration = Duration::from_secs(30);

/// What containers of one pod share in `/dev/shm`, as container runtimes give it.
const SHM_BYTES: u64 = 64 << 20;

pub(crate) async fn create(running: &Rc<Running>) -> Event {
    match try_create(running).await {
        Ok(ips) => Event::SandboxReady { ips, host_ip: running.cx.node.host_ips.first().copied() },
        Err(message) => {
            report(running, teardown::remove_sandbox(running).await);
            Event::SandboxFailed { message }
        }
    }
}

async fn try_create(running: &Rc<Running>) -> Result<Vec<IpAddr>, String> {
    // A crash between making and telling leaves a shim nobody knows: never two.
    if !running.pristine.replace(false) {
        let left = teardown::remove_sandbox(running).await;
        if let Some(first) = left.first() {
            return Err(format!("what an earlier sandbox left cannot be removed: {first}"));
        }
    }
    let directories = first_attempts(running);
    let spec = running.spec();
    let sandbox = sandbox_spec(running, &spec)?;
    let (shim, dir) = (running.cx.shim.clone(), running.paths.run.clone());
    // On the other core, while the kernel makes namespaces on this one.
    let made = blocking(move || {
        directories
            .iter()
            .try_for_each(|dir| make_readable(dir))
            .map_err(|error| format!("failed to make the pod's directories: {error}"))
    });
    let made = tokio::task::spawn_local(made);
    let spawned = blocking(move || client::spawn(&shim, &dir, &sandbox).map_err(|e| chain(&e)));
    let pid = tokio::time::timeout(SPAWN_DEADLINE, spawned)
        .await
        .map_err(|_| format!("the sandbox did not stand within {} s", SPAWN_DEADLINE.as_secs()))??;

    let ips = if spec.host_network == Some(true) {
        running.cx.node.host_ips.clone()
    } else {
        let ports = host_ports(&spec)?;
        let id = running.cx.config.roots.network_id(&running.uid());
        let cx = running.cx.network.clone();
        let netns = PathBuf::from(format!("/proc/{pid}/ns/net"));
        let attachment = blocking(move || cx.attach(&id, &netns, &ports).map_err(|e| chain(&e))).await?;
        vec![IpAddr::V4(attachment.ip)]
    };
    made.await.map_err(|panic| panic.to_string())??;
    let (client, facts) = Client::connect(&running.paths.run).await.map_err(|e| chain(&e))?;
    running.attach_shim(Attached { pid, client, facts, replayed: 0 })?;
    Ok(ips)
}

fn report(running: &Running, complaints: Vec<String>) {
    for complaint in complaints {
        running.news(News::Trouble(complaint));
    }
}

/// Directories that the first attempt of each container will want: making one on a disk takes longer than most of what
/// starting a container takes. Whoever comes later makes what is missing.
fn first_attempts(running: &Rc<Running>) -> Vec<PathBuf> {
    let spec = running.spec();
    let uid = running.uid();
    let names = spec.init_containers.iter().flatten().chain(&spec.containers).map(|container| &container.name);
    names
        .flat_map(|name| {
            let attempt = running.paths.attempt(&uid, name, 0);
            [attempt.join("upper"), running.paths.logs(&uid).join(name)]
        })
        .collect()
}

/// Mode 0755 whatever the umask: the container's root directory gets its mode from here.
fn make_readable(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::create_dir_all(dir)?;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755))
}

/// After adoption: takes the living shim, or tells the plan that it is gone. Only a refused or missing socket is a dead
/// shim; anything else (no descriptors left, a full backlog) passes.
pub(crate) async fn recall(running: &Rc<Running>) {
    let replayed = running.old_events().len();
    loop {
        match Client::connect(&running.paths.run).await {
            Ok((client, facts)) => {
                let pid = client::read_pid(&running.paths.run).unwrap_or(0);
                match running.attach_shim(Attached { pid, client, facts, replayed }) {
                    Ok(()) => return,
                    Err(message) => running.news(News::Trouble(message)),
                }
            }
            Err(client::ConnectError::Connect { source, .. })
                if matches!(source.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) =>
            {
                running.tell(Event::SandboxLost);
                return;
            }
            Err(error) => running.note_trouble_once(chain(&error)),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn sandbox_spec(running: &Rc<Running>, spec: &PodSpec) -> Result<SandboxSpec, String> {
    let host_network = spec.host_network == Some(true);
    let host_ipc = spec.host_ipc == Some(true);
    let names = Names::of(&running.pod(), CLUSTER_DOMAIN).map_err(|e| chain(&e))?;
    let hostname = (!host_network).then_some(names.kernel_hostname);
    let pid = match (spec.host_pid == Some(true), spec.share_process_namespace == Some(true)) {
        (true, _) => PidMode::Host,
        (_, true) => PidMode::Pod,
        _ => PidMode::Container,
    };
    let mut tmpfs = volumes::memory_mounts(running, spec);
    if !host_ipc {
        tmpfs.push(Tmpfs { path: running.paths.shm(), size: Some(SHM_BYTES), mode: 0o1777 });
    }
    Ok(SandboxSpec {
        hostname,
        new_network: !host_network,
        new_ipc: !host_ipc,
        pid,
        sysctls: pod_api::security::sysctls(spec),
        tmpfs,
        user_namespace: None,
        cgroups: pod_cgroup(running, spec)?,
    })
}

/// The pod's own group with its effective limits, and a leaf in it for the shim.
fn pod_cgroup(running: &Rc<Running>, spec: &PodSpec) -> Result<Vec<PathBuf>, String> {
    let group = running.cgroup();
    let limits = pod_limits(running, spec)?;
    let made = make_group(running, &group, &limits)?;
    report_unapplied(running, "pod", &made.unapplied);
    Ok(make_group(running, &group.join(SHIM_GROUP), &Limits::default())?.directories)
}

pub(crate) fn pod_limits(running: &Running, spec: &PodSpec) -> Result<Limits, String> {
    let effective = pod_api::resources::pod_effective(spec).map_err(|e| chain(&e))?;
    Ok(Limits {
        cpu_shares: Some(pod_api::resources::cpu_shares(effective.cpu_request_millis)),
        cpu_quota_us: effective.cgroup_cpu_limit_millis().and_then(quota),
        memory_limit: effective.cgroup_memory_limit().and_then(|bytes| u64::try_from(bytes).ok()),
        pids_max: running.record().pids_limit,
        ..Limits::default()
    })
}

/// Makes a group, again if its parents were removed in between by an engine whose last pod just went.
pub(crate) fn make_group(running: &Running, group: &Path, limits: &Limits) -> Result<Created, String> {
    let cgroups = &running.cx.cgroups;
    cgroups.create(group, limits).or_else(|_| cgroups.create(group, limits)).map_err(|e| chain(&e))
}

/// Microseconds of cpu per period of 100 ms; a limit of zero is none.
pub(crate) fn quota(millis: i64) -> Option<u64> {
    u64::try_from(pod_api::resources::cpu_quota_us(millis)).ok().filter(|_| millis > 0)
}

/// `hostPort` of mains and of sidecars: upstream forgets the latter (kuberuntime generatePodSandboxConfig).
fn host_ports(spec: &PodSpec) -> Result<Vec<HostPort>, String> {
    let mut ports = Vec::new();
    for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
        for port in container.ports.iter().flatten() {
            let Some(host_port) = port.host_port.filter(|port| *port != 0) else { continue };
            let protocol = match port.protocol.as_deref() {
                Some("UDP") => Protocol::Udp,
                Some("SCTP") => return Err(format!("hostPort {host_port}/SCTP: SCTP is not published")),
                _ => Protocol::Tcp,
            };
            let host_ip = match port.host_ip.as_deref() {
                None | Some("" | "0.0.0.0") => None,
                Some(text) => Some(text.parse::<Ipv4Addr>().map_err(|e| format!("hostIP {text}: {e}"))?),
            };
            ports.push(HostPort {
                host_ip,
                host_port: u16::try_from(host_port).map_err(|e| format!("hostPort {host_port}: {e}"))?,
                container_port: u16::try_from(port.container_port)
                    .map_err(|e| format!("containerPort {}: {e}", port.container_port))?,
                protocol,
            });
        }
    }
    Ok(ports)
}
