//! `outrigger cleanup`: prints what was removed.

use pod_engine::{Config, cleanup, record};

use crate::cli::{Cleanup, Global};
use crate::exit::{self, FAILED};
use crate::host;
use crate::orphans;
use crate::stdout::print;

pub(crate) fn run(global: &Global, arguments: &Cleanup) -> anyhow::Result<u8> {
    host::require_root()?;
    let roots = host::roots(global);
    orphans::tell(&roots, &[]);
    host::remove_dead_sockets(&roots);
    let socket = roots.run.join(format!("engine-{}.sock", std::process::id()));
    let config = Config { roots, pod_cidr: arguments.network.pod_cidr, socket };
    let tag = config.roots.tag.clone();
    let roots = config.roots.clone();
    let mut report = cleanup::sweep(config).map_err(host::refused)?;
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
