//! `outrigger run`: pods in the foreground, or handed to the background engine.

mod detach;
mod foreground;
mod grace;
mod outlook;

use pod_engine::{PodRequest, Roots, record};

use crate::cli::{Global, Run};
use crate::exit::{Coded, ENGINE, FAILED, usage};
use crate::host;
use crate::manifest::{self, Wishes};
use crate::orphans;
use crate::terminal::label::PodKey;

/// What one `run` is to do.
#[derive(Debug)]
enum Work {
    Run(Vec<PodRequest>),
    /// Take over pods whose engine died, as they stand.
    Adopt(Vec<record::Listed>),
}

pub(crate) fn run(global: &Global, arguments: Run) -> anyhow::Result<u8> {
    let roots = host::roots(global);
    let (work, notes) = if arguments.adopt.is_empty() {
        let loaded = manifest::read(&arguments.files, &arguments.filenames, &arguments.namespace.namespace)?;
        let notes = loaded.notes().to_vec();
        let wishes = Wishes {
            offline: arguments.offline,
            detached: arguments.detach,
            recreate: arguments.recreate,
            pids_limit: arguments.pids_limit,
        };
        (Work::Run(loaded.requests(wishes)?), notes)
    } else {
        (Work::Adopt(adoptable(&roots, &arguments.namespace.namespace, &arguments.adopt)?), Vec::new())
    };
    orphans::tell(&roots, &work.keys());
    if arguments.detach {
        detach::run(&roots, arguments.network.pod_cidr, work, &notes)
    } else {
        foreground::run(&roots, arguments.network.pod_cidr, work, notes)
    }
}

fn adoptable(roots: &Roots, namespace: &str, names: &[String]) -> anyhow::Result<Vec<record::Listed>> {
    let mut found = Vec::new();
    for name in names {
        let name = manifest::pod_name(name);
        let listed = record::find(roots, namespace, name).map_err(|error| Coded::new(ENGINE, error))?;
        let listed = listed.ok_or_else(|| Coded::new(FAILED, anyhow::anyhow!("pods \"{name}\" not found")))?;
        if listed.owned {
            let hint = format!("follow it with: outrigger logs -f {name}");
            return Err(Coded::new(FAILED, anyhow::anyhow!("pod \"{name}\" has an engine that drives it"))
                .hint(hint)
                .into());
        }
        if let Some(phase @ ("Succeeded" | "Failed")) = listed.status.phase.as_deref() {
            return Err(usage(format!("pod \"{name}\" has ended ({phase}): there is nothing to take over")));
        }
        found.push(listed);
    }
    Ok(found)
}

impl Work {
    fn keys(&self) -> Vec<PodKey> {
        match self {
            Work::Run(requests) => requests.iter().map(|request| manifest::key(&request.pod)).collect(),
            Work::Adopt(pods) => pods.iter().map(|pod| manifest::key(&pod.record.pod)).collect(),
        }
    }
}
