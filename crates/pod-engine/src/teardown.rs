//! Taking things away: every function is idempotent, keeps going past a failure, and says what it could not do.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid};

use crate::engine::Context;
use crate::feed::News;
use crate::paths::PodPaths;
use crate::record::Record;
use crate::running::Running;
use crate::{blocking, chain};

/// The shim and all its processes, mounts and namespaces; then the pod's address and cgroups. Says what it could not
/// remove.
pub(crate) async fn remove_sandbox(running: &Rc<Running>) -> Vec<String> {
    if let Some((_, client)) = running.detach_shim() {
        // Refused or gone: the kill below is the answer.
        let _ = tokio::time::timeout(Duration::from_secs(2), client.shutdown()).await;
    }
    let leftovers = Leftovers::of(&running.cx, &running.paths, &running.record());
    blocking(move || Ok(leftovers.remove())).await.unwrap_or_else(|panic| vec![panic])
}

/// The same until nothing is left: a pod whose processes or address remain must not be forgotten.
pub(crate) async fn remove_sandbox_for_good(running: &Rc<Running>) {
    let mut pause = Duration::from_millis(200);
    loop {
        let complaints = remove_sandbox(running).await;
        if complaints.is_empty() {
            return;
        }
        for complaint in complaints {
            running.news(News::Trouble(complaint));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(30));
    }
}

/// An old attempt's writable layer and log.
pub(crate) async fn remove_attempt(running: &Rc<Running>, container: &str, attempt: u32) {
    running.forget_launch(container, attempt);
    let uid = running.uid();
    let layer = running.paths.attempt(&uid, container, attempt);
    let log = running.paths.log(&uid, container, attempt);
    let run = running.paths.launch(container, attempt);
    let removed = blocking(move || {
        remove_log(&log);
        if let Some(dir) = run.parent() {
            let _ = fs::remove_dir_all(dir);
        }
        pod_volume::remove_tree(&layer).map_err(|e| chain(&e))
    });
    if let Err(complaint) = removed.await {
        running.news(News::Trouble(complaint));
    }
}

/// The live file and its rotated predecessors.
fn remove_log(log: &Path) {
    let (Some(dir), Some(name)) = (log.parent(), log.file_name()) else { return };
    let name = name.to_string_lossy().into_owned();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let other = entry.file_name().to_string_lossy().into_owned();
        if other == name || other.strip_prefix(&name).is_some_and(|rest| rest.starts_with('.')) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Volumes and writable layers of a pod that ended; its logs and record stay.
pub(crate) async fn remove_data(running: &Rc<Running>) {
    let data = running.paths.data(&running.uid());
    if let Err(complaint) = blocking(move || pod_volume::remove_tree(&data).map_err(|e| chain(&e))).await {
        running.news(News::Trouble(complaint));
    }
}

/// Everything about the pod.
pub(crate) async fn forget(running: &Rc<Running>) {
    let forgotten = Forgotten::of(&running.cx, &running.paths, &running.record());
    let complaints = match forgotten {
        Ok(forgotten) => blocking(move || Ok(forgotten.remove())).await.unwrap_or_else(|panic| vec![panic]),
        Err(complaint) => vec![complaint],
    };
    for complaint in complaints {
        running.news(News::Trouble(complaint));
    }
}

/// The files of a pod that no longer runs, here and now.
pub(crate) fn forget_files(cx: &Context, paths: &PodPaths) -> Vec<String> {
    match crate::record::load::<Record>(&paths.record()) {
        Ok(record) => match Forgotten::of(cx, paths, &record) {
            Ok(forgotten) => forgotten.remove(),
            Err(complaint) => vec![complaint],
        },
        Err(_) => pod_volume::remove_tree(&paths.run).err().map(|e| chain(&e)).into_iter().collect(),
    }
}

/// A pod whose directory has its last name: nobody finds it any more, and removing it can be taken up again after a
/// crash.
#[derive(Debug)]
pub(crate) struct Forgotten {
    leftovers: Leftovers,
    trees: Vec<PathBuf>,
}

// === impl Forgotten ===

impl Forgotten {
    pub(crate) fn of(cx: &Context, paths: &PodPaths, record: &Record) -> Result<Self, String> {
        let gone = paths.gone(&record.uid);
        let mut leftovers = Leftovers::of(cx, paths, record);
        if paths.run != gone {
            fs::rename(&paths.run, &gone)
                .map_err(|error| format!("failed to put {} away: {error}", paths.run.display()))?;
        }
        leftovers.run.clone_from(&gone);
        // Named by the pod, whatever its directory is called by now.
        let logs = cx.config.roots.pod(record.namespace(), record.name()).logs(&record.uid);
        // The record goes last: it says what else there is.
        Ok(Self { leftovers, trees: vec![paths.data(&record.uid), logs, gone] })
    }

    pub(crate) fn remove(self) -> Vec<String> {
        let mut complaints = self.leftovers.remove();
        for tree in self.trees {
            complaints.extend(pod_volume::remove_tree(&tree).err().map(|e| chain(&e)));
        }
        complaints
    }
}

/// What to remove of a sandbox, as plain data, so that a blocking thread can do it.
#[derive(Debug)]
struct Leftovers {
    run: PathBuf,
    cgroup: PathBuf,
    network_id: String,
    network: pod_network::Network,
    cgroups: pod_container::cgroup::Hierarchy,
}

// === impl Leftovers ===

impl Leftovers {
    fn of(cx: &Context, paths: &PodPaths, record: &Record) -> Self {
        Self {
            run: paths.run.clone(),
            cgroup: record.cgroup.clone(),
            network_id: cx.config.roots.network_id(&record.uid),
            network: cx.network.clone(),
            cgroups: cx.cgroups.clone(),
        }
    }

    fn remove(self) -> Vec<String> {
        let mut complaints = Vec::new();
        complaints.extend(kill_shim(&self.run, &self.cgroup).err());
        complaints.extend(self.cgroups.kill(&self.cgroup).err().map(|e| chain(&e)));
        complaints.extend(self.network.detach(&self.network_id).err().map(|e| chain(&e)));
        complaints.extend(self.cgroups.remove(&self.cgroup).err().map(|e| chain(&e)));
        remove_empty_parents(&self.cgroups, &self.cgroup);
        for file in ["shim.sock", "shim.pid", "facts"] {
            let _ = fs::remove_file(self.run.join(file));
        }
        // Mount points of the shim's tmpfs; the mounts went with it.
        for dir in ["memory", "empty", "shm"] {
            complaints.extend(pod_volume::remove_tree(&self.run.join(dir)).err().map(|e| chain(&e)));
        }
        complaints
    }
}

/// The class's group and the root's own, when this was their last pod. Another engine may be making its first one at
/// this moment: it makes the parents again (see `sandbox::make_group`).
fn remove_empty_parents(cgroups: &pod_container::cgroup::Hierarchy, pod: &Path) {
    for parent in pod.ancestors().skip(1).filter(|parent| parent.file_name().is_some()) {
        for directory in cgroups.directories(parent).unwrap_or_default() {
            let _ = fs::remove_dir(directory);
        }
    }
}

/// Kills a shim by its pid file, if that process still is this pod's shim, and waits until it is gone.
fn kill_shim(run: &Path, cgroup: &Path) -> Result<(), String> {
    let Ok(pid) = pod_shim::client::read_pid(run) else { return Ok(()) };
    let Some(raw) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(()) };
    // Pinned before it is looked at: the number cannot become another process meanwhile.
    let Ok(process) = pidfd_open(raw, PidfdFlags::empty()) else { return Ok(()) };
    if !has_ended(&process, 0) {
        if !is_shim_of(pid, cgroup) {
            return Ok(());
        }
        let _ = pidfd_send_signal(&process, Signal::KILL);
        if !has_ended(&process, 5) {
            return Err(format!("shim {pid} does not die"));
        }
    }
    // Its launcher has gone, so it may be this process's child; another engine's shim is not, and init reaps it.
    let _ = waitid(WaitId::PidFd(process.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
    Ok(())
}

fn has_ended(process: &OwnedFd, seconds: i64) -> bool {
    let mut fds = [rustix::event::PollFd::new(process, rustix::event::PollFlags::IN)];
    let timeout = rustix::event::Timespec { tv_sec: seconds, tv_nsec: 0 };
    rustix::event::poll(&mut fds, Some(&timeout)).is_ok_and(|ready| ready > 0)
}

/// By the pod's cgroup, which it joined first of all, and its name, unless it is past having one. (Its program is a
/// detached mount, so the link `exe` tells nothing.)
fn is_shim_of(pid: u32, cgroup: &Path) -> bool {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    groups.contains(&*cgroup.to_string_lossy()) && (line.is_empty() || line.starts_with(b"outrigger-shim"))
}
