//! `outrigger stop`: the node goes down, with its pods or without them.

use std::time::Duration;

use anyhow::Context as _;
use pod_engine::{News, Roots, record};
use pod_node::service;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::background;
use crate::cleanup;
use crate::cli::{Global, Stop};
use crate::exit::{self, FAILED};
use crate::host::{self, OwnEngine};
use crate::start::{self, daemon, takeover};
use crate::stdout::print;

/// After so long it is said what is waited for.
const SOON: Duration = Duration::from_millis(500);

pub(crate) fn run(global: &Global, arguments: &Stop) -> anyhow::Result<u8> {
    host::require_root()?;
    let roots = host::roots(global);
    let guests = start::alive(&roots).map(|_| takeover::guests(&roots)).unwrap_or_default();
    let stopped = end_daemon(&roots, arguments.keep_pods)?;
    if !guests.is_empty() {
        background::ensure(&roots, arguments.network.pod_cidr)?;
        let count = takeover::adopt(&roots, guests)?;
        eprintln!("note: what `run --detach` has running ({count}) goes on in the background");
    }
    let orphans = if stopped || arguments.keep_pods || arguments.clean { Vec::new() } else { orphans(&roots)? };
    match (stopped, arguments.keep_pods) {
        (false, _) if !orphans.is_empty() => {
            print("the node is not running; its pods, which ran on without it, are being stopped\n")?;
            host::block_on(remove_pods(&roots, arguments, &orphans))??;
            service::remove_table(&roots.tag)?;
        }
        (false, _) => print("the node is not running\n")?,
        (true, true) => print("the node is stopped; its pods run on\n")?,
        (true, false) if arguments.clean => print("the node and its pods are stopped\n")?,
        (true, false) => print("the node and its pods are stopped; `outrigger start` brings them back\n")?,
    }
    if arguments.clean { clean(&roots, arguments) } else { Ok(exit::OK) }
}

/// Tells the daemon to end and waits until it has. False: there is none.
fn end_daemon(roots: &Roots, keep_pods: bool) -> anyhow::Result<bool> {
    let Some(card) = start::alive(roots) else { return Ok(false) };
    let pid = i32::try_from(card.pid).ok().and_then(Pid::from_raw).context("the node's process number is none")?;
    // Pinned, and then looked at again: the number cannot become another process from here on.
    let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { return Ok(false) };
    if start::alive(roots).is_none_or(|now| now.pid != card.pid) {
        return Ok(false);
    }
    let signal = if keep_pods { Signal::USR1 } else { Signal::TERM };
    pidfd_send_signal(&process, signal).with_context(|| format!("failed to tell the node (process {})", card.pid))?;
    let ended = |time: Option<&Timespec>| {
        let mut descriptors = [PollFd::new(&process, PollFlags::IN)];
        poll(&mut descriptors, time).is_ok_and(|ready| ready > 0)
    };
    let soon = Timespec { tv_sec: 0, tv_nsec: i64::from(SOON.subsec_nanos()) };
    if !ended(Some(&soon)) {
        eprintln!("waiting for pods to end, each within its grace period (stop --keep-pods leaves them running)");
        while !ended(None) {}
    }
    Ok(true)
}

/// Pods of a node that was killed. Their objects stay, as with any stop.
fn orphans(roots: &Roots) -> anyhow::Result<Vec<record::Listed>> {
    let mut pods = record::list(roots)?;
    pods.retain(|pod| pod.record.of_store && crate::orphans::is_orphan(pod));
    Ok(pods)
}

/// As if the node had never been: its pods, objects, certificates and kubeconfig entries.
fn clean(roots: &Roots, arguments: &Stop) -> anyhow::Result<u8> {
    let mut code = exit::OK;
    let left = record::list(roots)?;
    let left: Vec<_> = left.into_iter().filter(|pod| pod.record.of_store).collect();
    host::block_on(remove_pods(roots, arguments, &left))??;
    // A daemon that ended well has removed it.
    service::remove_table(&roots.tag)?;
    for done in start::forget(roots) {
        match done {
            Ok(path) => print(format!("removed context \"{}\" from {}\n", start::context_name(roots), path.display()))?,
            Err(error) => {
                eprintln!("error: {error:#}");
                code = FAILED;
            }
        }
    }
    let directory = daemon::directory(roots);
    for uid in cleanup::known(roots).unwrap_or_default() {
        remove_remains(roots, &uid)?;
    }
    match std::fs::remove_dir_all(&directory) {
        Ok(()) => print("removed every object of the node\n")?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("failed to remove `{}`", directory.display())),
    }
    let _ = std::fs::remove_file(daemon::card_path(roots));
    let _ = std::fs::remove_file(roots.run.join("node.log"));
    Ok(code)
}

/// Of a pod that had ended before the machine went down only its logs and data are left.
fn remove_remains(roots: &Roots, uid: &str) -> anyhow::Result<()> {
    let of_pod = |name: &std::ffi::OsStr| name.to_string_lossy().rsplit('_').next() == Some(uid);
    for directory in [roots.logs.clone(), roots.data.join("pods")] {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            if of_pod(&entry.file_name()) {
                let path = entry.path();
                std::fs::remove_dir_all(&path).with_context(|| format!("failed to remove `{}`", path.display()))?;
            }
        }
    }
    Ok(())
}

/// Pods that still run (the node died or left them) and those that ended and were kept.
async fn remove_pods(roots: &Roots, arguments: &Stop, pods: &[record::Listed]) -> anyhow::Result<()> {
    let own = OwnEngine::open(roots, arguments.network.pod_cidr)?;
    // Of one that was killed over it.
    let _ = pod_engine::cleanup::finish_forgetting(&own.engine).await;
    let mut feed = own.engine.feed().subscribe();
    let mut left = Vec::new();
    for pod in pods {
        let (namespace, name) = (pod.record.namespace(), pod.record.name());
        own.engine.adopt(namespace, name)?;
        own.engine.stop(namespace, name, None)?;
        left.push((namespace.to_owned(), name.to_owned()));
    }
    while !left.is_empty() {
        let Some(message) = feed.recv().await else { break };
        if matches!(message.news, News::Removed) {
            left.retain(|(namespace, name)| *namespace != message.namespace || *name != message.name);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_a_pod_is_found_by_its_uid() {
        let directory = tempfile::tempdir().expect("a directory");
        let roots = Roots::below(directory.path());
        let theirs = [roots.logs.join("default_web_u1"), roots.data.join("pods/u1")];
        let others = [roots.logs.join("default_web_u2"), roots.data.join("pods/u2")];
        for path in theirs.iter().chain(&others) {
            std::fs::create_dir_all(path).expect("a directory");
        }
        remove_remains(&roots, "u1").expect("the removal");
        assert!(theirs.iter().all(|path| !path.exists()) && others.iter().all(|path| path.exists()));
    }
}
