//! `outrigger start`: a node in the background, and a kubeconfig that knows it.

mod certificate;
pub(crate) mod daemon;
pub(crate) mod file;
mod kubeconfig;
mod machine;
pub(crate) mod network;
mod node_name;
mod port;
pub(crate) mod takeover;
mod token;

use std::net::SocketAddr;
use std::time::Instant;

use anyhow::Context as _;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use pod_engine::Roots;

use crate::background;
use crate::cli::{Global, Start};
use crate::exit::{self, Coded, ENGINE, FAILED, usage};
use crate::host;
use crate::stdout::print;
use daemon::Card;
use file::Kubeconfig;
use kubeconfig::Entry;

pub(crate) fn run(global: &Global, arguments: &Start) -> anyhow::Result<u8> {
    let began = Instant::now();
    let listen = SocketAddr::new(arguments.api.listen.ip(), arguments.port.unwrap_or(arguments.api.listen.port()));
    if !listen.ip().is_loopback() {
        let text = format!("the API is served on the loopback only, and {} is no loopback address", listen.ip());
        return Err(usage(text));
    }
    host::require_root()?;
    let roots = host::roots(global);
    // One start at a time: the second one finds what the first one has started.
    let _turn = turn(&roots)?;
    if let Some(card) = alive(&roots) {
        print(format!("the node is running already at https://{} (process {})\n", card.address, card.pid))?;
        if listen.port() != 0 && listen != card.address && (arguments.port.is_some() || listen.port() != 6550) {
            eprintln!("note: to have it at {listen}, stop it first: outrigger stop --keep-pods");
        }
        return introduce(&roots, arguments, card.address);
    }
    let taken = takeover::background_engine(&roots)?;
    let mut child: Vec<String> = vec!["__node".into(), "--listen".into(), listen.to_string()];
    child.extend(["--pod-cidr".into(), arguments.network.pod_cidr.to_string()]);
    child.extend(arguments.api.offline.then(|| "--offline".to_owned()));
    let services = network::of_services(&roots, &arguments.api, arguments.network.pod_cidr)?;
    child.extend(["--service-cidr".into(), services.cidr.to_string()]);
    child.extend(arguments.api.pids_limit.map(|limit| format!("--pids-limit={limit}")));
    let said = background::launch(&roots, &child, "node.log").map_err(|error| Coded::new(ENGINE, error))?;
    let address: SocketAddr = said.parse()?;
    let took = began.elapsed().as_millis();
    print(format!("the node is ready at https://{address} ({}) after {took} ms\n", daemon::VERSION))?;
    match takeover::adopt(&roots, taken)? {
        0 => {}
        count => eprintln!("note: the node took over what `run --detach` has running ({count})"),
    }
    introduce(&roots, arguments, address)
}

/// Waits for other starts of this root to come to their end.
fn turn(roots: &Roots) -> anyhow::Result<std::fs::File> {
    roots.make_run().with_context(|| format!("failed to make `{}`", roots.run.display()))?;
    let path = roots.run.join("start.lock");
    let mut options = std::fs::File::options();
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.create(true).truncate(false).write(true).open(&path);
    let file = file.with_context(|| format!("failed to open `{}`", path.display()))?;
    // Closed on exec, so that it is not the daemon's.
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)
        .with_context(|| format!("failed to lock `{}`", path.display()))?;
    Ok(file)
}

/// The daemon of this root, if it lives.
pub(crate) fn alive(roots: &Roots) -> Option<Card> {
    let card: Card = serde_json::from_slice(&std::fs::read(daemon::card_path(roots)).ok()?).ok()?;
    let line = std::fs::read(format!("/proc/{}/cmdline", card.pid)).ok()?;
    // A number that has become another process's says something else.
    line.split(|byte| *byte == 0).any(|word| word == b"__node").then_some(card)
}

/// `outrigger`, or with a root of its own that root's.
pub(crate) fn context_name(roots: &Roots) -> String {
    if roots.tag.is_empty() { "outrigger".into() } else { format!("outrigger-{}", roots.tag) }
}

/// Puts the node into the kubeconfig, and says so.
fn introduce(roots: &Roots, arguments: &Start, address: SocketAddr) -> anyhow::Result<u8> {
    if arguments.no_kubeconfig {
        return Ok(exit::OK);
    }
    let directory = daemon::directory(roots);
    let name = node_name::kept(&directory)?;
    let identity = certificate::ensure(&directory, &daemon::names(address, &name), Timestamp::now())?;
    let entry = Entry {
        name: context_name(roots),
        server: format!("https://{address}"),
        authority: BASE64_STANDARD.encode(&identity.authority),
        certificate: BASE64_STANDARD.encode(&identity.client),
        key: BASE64_STANDARD.encode(&identity.client_key),
    };
    let file = match &arguments.kubeconfig {
        Some(path) => Kubeconfig::at(path)?,
        None => Kubeconfig::of_environment()?,
    };
    let edited = file.edit(|text| kubeconfig::with(text, &entry, !arguments.keep_context));
    let before = edited.map_err(|error| {
        let path = file.path().display();
        Coded::new(FAILED, anyhow::Error::new(error).context(format!("the node runs, but `{path}` was not changed")))
            .hint("repair the file, or: outrigger start --kubeconfig FILE, and kubectl --kubeconfig FILE")
    })?;
    file.remember(&directory);
    let name = &entry.name;
    print(format!("kubectl knows it as context \"{name}\" in {}\n", file.path().display()))?;
    let was = kubeconfig::current(&before).filter(|was| was != name);
    match was {
        Some(was) if arguments.keep_context => print(format!("the current context is still \"{was}\"\n"))?,
        Some(was) => {
            print(format!("the current context was \"{was}\"; back with: kubectl config use-context {was}\n"))?
        }
        None => {}
    }
    Ok(exit::OK)
}

/// Takes the node's entries out of the kubeconfigs they were put into. Returns the files that were changed.
pub(crate) fn forget(roots: &Roots) -> Vec<Result<std::path::PathBuf, anyhow::Error>> {
    let name = context_name(roots);
    let mut done = Vec::new();
    for file in Kubeconfig::remembered(&daemon::directory(roots)) {
        match file.edit(|text| kubeconfig::without(text, &name)) {
            Ok(before) if kubeconfig::without(&before, &name).is_ok_and(|after| after != before) => {
                done.push(Ok(file.path().to_owned()));
            }
            Ok(_) => {}
            Err(error) => {
                let path = file.path().display();
                done.push(Err(anyhow::Error::new(error).context(format!("`{path}` was not changed"))));
            }
        }
    }
    done
}
