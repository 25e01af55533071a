//! `outrigger stop`: the node goes down, with its pods or without them.

use std::time::Duration;

use anyhow::Context as _;
use pod_engine::{News, Roots, record};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::background;
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
    match (stopped, arguments.keep_pods) {
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

/// As if the node had never been: its pods, objects, certificates and kubeconfig entries.
fn clean(roots: &Roots, arguments: &Stop) -> anyhow::Result<u8> {
    let mut code = exit::OK;
    let left = record::list(roots)?;
    let left: Vec<_> = left.into_iter().filter(|pod| pod.record.of_store).collect();
    if !left.is_empty() {
        host::block_on(remove_pods(roots, arguments, &left))??;
    }
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
    match std::fs::remove_dir_all(&directory) {
        Ok(()) => print("removed every object of the node\n")?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("failed to remove `{}`", directory.display())),
    }
    let _ = std::fs::remove_file(daemon::card_path(roots));
    let _ = std::fs::remove_file(roots.run.join("node.log"));
    Ok(code)
}

/// Pods that still run (the node died or left them) and those that ended and were kept.
async fn remove_pods(roots: &Roots, arguments: &Stop, pods: &[record::Listed]) -> anyhow::Result<()> {
    let own = OwnEngine::open(roots, arguments.network.pod_cidr)?;
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
