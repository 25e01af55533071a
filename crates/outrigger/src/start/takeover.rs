//! Pods of `run --detach` when a node starts: there is one engine in the background, and from now on it is the node's. The
//! one that has them is told to go, which leaves its pods as they are, and the node takes them.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use pod_engine::control::{Request, ask};
use pod_engine::{Roots, record};
use rustix::process::{Pid, Signal, kill_process};

use crate::exit::{Coded, ENGINE};
use crate::host;
use crate::terminal::label::PodKey;

const PATIENCE: Duration = Duration::from_secs(10);

/// Ends the background engine of this root, if there is one. Returns the pods that are without an engine then.
pub(super) fn background_engine(roots: &Roots) -> anyhow::Result<Vec<PodKey>> {
    let Some((peer, name)) = listener(&roots.socket())? else { return Ok(Vec::new()) };
    if !name.split(|byte| *byte == 0).any(|word| word == b"__engine") {
        let text = format!("process {} has the engine's socket of this root", peer.as_raw_nonzero());
        return Err(Coded::new(ENGINE, anyhow::anyhow!(text)).hint("stop it first").into());
    }
    let pods = guests(roots);
    end(peer)?;
    Ok(pods)
}

/// Who listens on a socket: the process and its command line. One that is being killed has no command line any more, and
/// listens until the last of its threads is gone: that is waited for.
fn listener(socket: &Path) -> anyhow::Result<Option<(Pid, Vec<u8>)>> {
    let command_line = |pid: Pid| std::fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
    listener_named(socket, command_line)
}

fn listener_named(socket: &Path, name: impl Fn(Pid) -> Vec<u8>) -> anyhow::Result<Option<(Pid, Vec<u8>)>> {
    let deadline = Instant::now() + PATIENCE;
    while let Ok(stream) = UnixStream::connect(socket) {
        let peer =
            rustix::net::sockopt::socket_peercred(&stream).context("failed to ask whose the engine's socket is")?;
        drop(stream);
        let name = name(peer.pid);
        if !name.is_empty() || Instant::now() > deadline {
            return Ok(Some((peer.pid, name)));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(None)
}

/// Pods of `run --detach` that the engine in the background drives, whoever that is.
pub(crate) fn guests(roots: &Roots) -> Vec<PodKey> {
    let listed = record::list(roots).unwrap_or_default();
    let socket = roots.socket();
    let theirs = listed.iter().filter(|pod| pod.owned && !pod.record.of_store && pod.owner.as_ref() == Some(&socket));
    theirs.map(|pod| (pod.record.namespace().to_owned(), pod.record.name().to_owned())).collect()
}

fn end(pid: Pid) -> anyhow::Result<()> {
    // It has gone by itself, or goes now.
    let _ = kill_process(pid, Signal::TERM);
    let deadline = Instant::now() + PATIENCE;
    while rustix::process::test_kill_process(pid).is_ok() {
        if Instant::now() > deadline {
            bail!("the background engine (process {}) does not go", pid.as_raw_nonzero());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Hands the pods to the engine that listens now. Says how many; an engine that is to have nothing is not asked.
pub(crate) fn adopt(roots: &Roots, pods: Vec<PodKey>) -> anyhow::Result<usize> {
    let count = pods.len();
    if count > 0 {
        // Its first answer says that it has begun; the last comes only when the pods are over.
        let begun = host::block_on(async {
            let mut replies = ask(&roots.socket(), &Request::Adopt { pods }).await?;
            replies.next().await.map(drop)
        });
        begun?.context("failed to hand over the pods of `run --detach`")?;
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_listener_is_named_and_a_dead_socket_has_none() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("engine.sock");
        let socket = UnixListener::bind(&path).expect("a socket");
        let (pid, name) = listener(&path).expect("an answer").expect("this process");
        assert_eq!(pid, rustix::process::getpid());
        assert!(!name.is_empty());
        drop(socket);
        assert!(listener(&path).expect("an answer").is_none());
    }

    #[test]
    fn one_that_is_being_killed_is_waited_for() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("engine.sock");
        let socket = UnixListener::bind(&path).expect("a socket");
        let closer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            drop(socket);
        });
        let found = listener_named(&path, |_| Vec::new()).expect("an answer");
        assert!(found.is_none(), "it was gone in the end");
        closer.join().expect("the thread");
    }
}
