//! `outrigger cleanup`: prints what was removed.

use std::collections::BTreeSet;

use pod_engine::{Config, Roots, cleanup, record};
use pod_store::Store;

use crate::cli::{Cleanup, Global};
use crate::exit::{self, FAILED};
use crate::host;
use crate::orphans;
use crate::start::daemon;
use crate::stdout::print;

pub(crate) fn run(global: &Global, arguments: &Cleanup) -> anyhow::Result<u8> {
    host::require_root()?;
    let roots = host::roots(global);
    orphans::tell(&roots, &[]);
    host::remove_dead_sockets(&roots);
    let socket = roots.run.join(format!("engine-{}.sock", std::process::id()));
    let config = Config { roots, pod_cidr: arguments.network.pod_cidr, socket, node_name: None };
    let tag = config.roots.tag.clone();
    let roots = config.roots.clone();
    let known = known(&roots);
    let comes_back = |uid: &str| known.as_ref().is_none_or(|known| known.contains(uid));
    let mut report = cleanup::sweep_but(config, comes_back).map_err(host::refused)?;
    // A node that was killed leaves its services. Pods that run on without it keep them.
    if crate::start::alive(&roots).is_none() && !record::list(&roots)?.iter().any(|pod| pod.record.of_store) {
        match pod_node::service::remove_table(&tag) {
            Ok(true) => report.removed.push("the table of services".into()),
            Ok(false) => {}
            Err(error) => report.complaints.push(pod_engine::chain(&error)),
        }
    }
    for thing in &report.removed {
        print(format!("removed {thing}\n"))?;
    }
    for complaint in &report.complaints {
        eprintln!("error: {complaint}");
    }
    if report.removed.is_empty() && report.complaints.is_empty() {
        eprintln!("nothing to clean up");
    }
    Ok(if report.complaints.is_empty() { exit::OK } else { FAILED })
}

/// Uids of the pods in the node's store: after the machine went down under them only the store knows them, and the next
/// node goes on with their volumes and logs. `None`: nobody can tell (a node has the store open, or it cannot be read).
pub(crate) fn known(roots: &Roots) -> Option<BTreeSet<String>> {
    let file = daemon::directory(roots).join("objects.redb");
    if !file.exists() {
        return Some(BTreeSet::new());
    }
    let store = Store::open(&file).ok()?;
    let uids = store.list("pods", None).items.iter().map(|pod| pod.uid.clone()).collect();
    store.close();
    Some(uids)
}
