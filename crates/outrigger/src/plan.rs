//! `outrigger plan`: what would happen, as the pure crate tells it.

use crate::cli::Plan;
use crate::exit;
use crate::manifest::{self, Wishes};
use crate::stdout::print;

pub(crate) fn run(arguments: &Plan) -> anyhow::Result<u8> {
    let loaded = manifest::read(&arguments.files, &arguments.filenames, &arguments.namespace.namespace)?;
    for note in loaded.notes() {
        eprintln!("{note}");
    }
    let requests = loaded.requests(Wishes { offline: false, detached: false, recreate: false, pids_limit: None })?;
    let texts: Vec<String> = requests.iter().map(|request| pod_plan::describe(&request.pod)).collect();
    print(texts.join("\n"))?;
    Ok(exit::OK)
}
