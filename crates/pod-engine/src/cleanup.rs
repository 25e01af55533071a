//! `outrigger cleanup`: what a power cut or a killed engine left, and nothing that lives.

use std::collections::BTreeSet;
use std::fs;

use crate::engine::{Config, Engine, OpenError};
use crate::record::{self, Ownership};
use crate::{chain, teardown};

/// What was done.
#[derive(Debug, Default)]
pub struct Report {
    /// One line a thing removed.
    pub removed: Vec<String>,
    /// One line a thing that could not be.
    pub complaints: Vec<String>,
}

/// Removes dead pods' files, data of pods that no record knows, cgroups, and links, addresses and rules of pods that
/// are not there. Pods that run, with or without an engine, are left alone.
///
/// # Errors
/// When the engine's mechanisms cannot be opened at all.
pub fn sweep(config: Config) -> Result<Report, OpenError> {
    let roots = config.roots.clone();
    let engine = Engine::open(config)?;
    let cx = engine.context();
    let mut report = Report::default();
    let mut live = BTreeSet::new();

    for entry in fs::read_dir(roots.pods()).into_iter().flatten().flatten() {
        let paths = crate::PodPaths::at(entry.path(), &roots);
        let name = entry.file_name().to_string_lossy().replacen('_', "/", 1);
        let uid = record::load::<record::Record>(&paths.record()).map(|record| record.uid).ok();
        let Ok(Some(_ownership)) = Ownership::try_take(&paths) else {
            live.extend(uid);
            continue;
        };
        // Kept on purpose: a pod that ended and is still listed, or one whose shim outlived its engine.
        let finished = record::load::<pod_plan::Lifecycle>(&paths.ledger()).is_ok_and(|l| l.is_finished());
        let orphan =
            std::os::unix::net::UnixStream::connect(paths.run.join("shim.sock")).is_ok() || shim_answers(&paths);
        if uid.is_some() && (finished || orphan) {
            live.extend(uid);
            continue;
        }
        report.complaints.extend(teardown::forget_files(cx, &paths));
        report.removed.push(format!("pod {name}"));
    }
    for (dir, what) in [(roots.data.join("pods"), "data of pod"), (roots.logs.clone(), "logs of pod")] {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let uid = name.rsplit('_').next().unwrap_or(&name);
            if !live.contains(uid) {
                match pod_volume::remove_tree(&entry.path()) {
                    Ok(()) => report.removed.push(format!("{what} {name}")),
                    Err(error) => report.complaints.push(chain(&error)),
                }
            }
        }
    }
    remove_cgroups(cx, &live, &mut report);
    sweep_network(cx, &live, &mut report);
    Ok(report)
}

fn shim_answers(paths: &crate::PodPaths) -> bool {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, connect, socket};
    let Ok(address) = SocketAddrUnix::new(paths.run.join("shim.sock")) else { return false };
    socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).is_ok_and(|socket| connect(&socket, &address).is_ok())
}

fn remove_cgroups(cx: &crate::engine::Context, live: &BTreeSet<String>, report: &mut Report) {
    let top = cx.config.roots.cgroup();
    for class in ["", "burstable", "besteffort"] {
        let parent = if class.is_empty() { top.clone() } else { top.join(class) };
        for group in groups_in(cx, &parent) {
            let path = parent.join(&group);
            if group.strip_prefix("pod").is_none_or(|uid| live.contains(uid)) {
                continue;
            }
            match cx.cgroups.kill(&path).and_then(|()| cx.cgroups.remove(&path)) {
                Ok(()) => report.removed.push(format!("cgroup {}", path.display())),
                Err(error) => report.complaints.push(chain(&error)),
            }
        }
    }
}

/// Names of the groups right below `parent`, in whichever tree they are.
fn groups_in(cx: &crate::engine::Context, parent: &std::path::Path) -> BTreeSet<String> {
    let directories = cx.cgroups.directories(parent).unwrap_or_default();
    let entries = directories.iter().filter_map(|dir| fs::read_dir(dir).ok()).flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// The network's register is the machine's: pods of other roots in it are not ours to judge.
fn sweep_network(cx: &crate::engine::Context, live: &BTreeSet<String>, report: &mut Report) {
    let roots = &cx.config.roots;
    let keep: BTreeSet<String> = live.iter().map(|uid| roots.network_id(uid)).collect();
    let swept = cx.network.sweep_if(|id| roots.is_ours(id) && !keep.contains(id));
    let (swept, failures) = match swept {
        Ok(swept) => (swept, Vec::new()),
        Err(error) => (*error.swept, error.failures),
    };
    report.removed.extend(swept.removed.into_iter().map(|pod| format!("network of pod {pod}")));
    report.removed.extend(swept.links.into_iter().map(|link| format!("link {link}")));
    report.removed.extend(swept.tables.into_iter().map(|table| format!("nftables table {table}")));
    report.complaints.extend(failures);
}
