//! The process of `outrigger start`: engine, node and control socket on one thread, the API server on another.
//!
//! It holds the root's engine lock, so that there is one engine for detached pods and for those of the API. SIGTERM stops
//! the pods with it; SIGUSR1 leaves them running for the next one to adopt.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use pod_engine::{Config, Roots, control};
use pod_node::Node;
use pod_node::service::{self, Addresses};
use pod_server::{Server, Version};
use pod_store::Store;
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};

use super::certificate::{self, Identity};
use super::{machine, network, node_name, port, token};
use crate::background;
use crate::cli::Node as Arguments;
use crate::exit::report;
use crate::host;

/// Of the API; ours is behind the plus.
pub(crate) const VERSION: &str = concat!("v1.35.0+outrigger-", env!("CARGO_PKG_VERSION"));

/// What a running daemon says of itself, for `status`, `stop` and the next `start`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Card {
    pub(crate) pid: u32,
    pub(crate) address: SocketAddr,
    pub(crate) version: String,
    pub(crate) since: Timestamp,
    pub(crate) offline: bool,
}

/// Files of a root's node.
pub(crate) fn directory(roots: &Roots) -> PathBuf {
    roots.data.join("node")
}

pub(crate) fn card_path(roots: &Roots) -> PathBuf {
    roots.run.join("node.json")
}

/// Whom certificates are made for.
pub(crate) fn names(address: SocketAddr, host: &str) -> Vec<String> {
    let mut names: Vec<String> = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
        .iter()
        .map(|name| (*name).to_owned())
        .chain(["kubernetes.default.svc.cluster.local", "127.0.0.1", "::1", "10.96.0.1"].map(str::to_owned))
        .collect();
    let plain = !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte));
    for name in [plain.then(|| host.to_owned()), Some(address.ip().to_string())].into_iter().flatten() {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// `outrigger __node`: serves until told to stop. Its starter reads one line from stdout.
pub(crate) fn serve(roots: &Roots, arguments: &Arguments) -> anyhow::Result<u8> {
    // A session of its own: neither the terminal's Ctrl-C nor its end is meant for it.
    let _ = rustix::process::setsid();
    // Whoever starts it may let others write to all they make; this process makes files for years.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let lock = match background::await_lock(roots) {
        Ok(lock) => lock,
        Err(error) => {
            background::tell(&format!("failed {error:#}"));
            return Err(error);
        }
    };
    let served = background::block_on(live(roots, arguments))?;
    if let Err(error) = &served {
        let text = report(error).0;
        background::tell(&format!("failed {}", text.lines().next().unwrap_or_default().trim_start_matches("error: ")));
    }
    // While the lock is still held nobody else can be listening: what is removed is ours.
    let _ = std::fs::remove_file(card_path(roots));
    let _ = std::fs::remove_file(roots.socket());
    drop(lock);
    served.map(|()| 0)
}

async fn live(roots: &Roots, arguments: &Arguments) -> anyhow::Result<()> {
    // First of all, so that no signal finds the default answer.
    let mut stop = signal(SignalKind::terminate())?;
    let mut leave = signal(SignalKind::user_defined1())?;
    let listener = TcpListener::bind(arguments.api.listen)
        .map_err(|error| anyhow::anyhow!("{}", port::refused(arguments.api.listen, &error)))?;
    let address = listener.local_addr()?;
    let socket = roots.socket();
    let directory = directory(roots);
    let config = Config {
        roots: roots.clone(),
        pod_cidr: arguments.network.pod_cidr,
        socket: socket.clone(),
        node_name: Some(node_name::kept(&directory)?),
    };
    let engine = host::open(config)?;
    let control_socket =
        control::bind(&socket).with_context(|| format!("failed to listen on `{}`", socket.display()))?;
    let identity = certificate::ensure(&directory, &names(address, &engine.node().name), Timestamp::now())?;
    let store = Store::open(&directory.join("objects.redb"))?;
    let services = network::of_services(roots, &arguments.api, arguments.network.pod_cidr)?;
    let node = pod_node::Config {
        version: VERSION.into(),
        root_ca: identity.authority.clone(),
        offline: arguments.api.offline,
        pids_limit: arguments.api.pids_limit,
        pod_cidr: arguments.network.pod_cidr.to_string(),
        services: Some(services.clone()),
        port: address.port(),
    };
    let node = Node::open(engine.clone(), store.clone(), node).await?;
    let handle = node.handle();
    let (link, clerk) = machine::link(engine.clone());
    let (shutdown, ended) =
        serve_api(listener, &identity, store.clone(), link, Addresses::new(store.clone(), services))?;
    tokio::task::spawn_local(clerk.run());
    let serving = tokio::task::spawn_local(node.run());
    let controlling = tokio::task::spawn_local(control::serve(engine.clone(), control_socket));
    let card = Card {
        pid: std::process::id(),
        address,
        version: VERSION.into(),
        since: Timestamp::now(),
        offline: arguments.api.offline,
    };
    write_card(&card_path(roots), &card)?;
    background::tell(&format!("ready {address}"));
    background::let_go_of_stdout();
    tokio::task::spawn_local(rest());

    // A signal that comes while pods are being stopped changes nothing any more but one: to leave them.
    let pods_run_on = tokio::select! {
        _ = stop.recv() => {
            tokio::select! {
                () = handle.stop_pods() => false,
                _ = leave.recv() => true,
            }
        }
        _ = leave.recv() => true,
    };
    serving.abort();
    controlling.abort();
    let _ = shutdown.send(());
    let _ = tokio::task::spawn_blocking(move || ended.join()).await;
    let _ = tokio::task::spawn_blocking(move || store.close()).await;
    // Pods that run on keep reaching services.
    if !pods_run_on {
        service::remove_table(&roots.tag)?;
    }
    Ok(())
}

/// Gives memory back whenever the daemon has been busy and then was quiet for a while: at first its start's.
async fn rest() {
    /// Less often than the node's heartbeat, which wakes it anyway.
    const LOOK: Duration = Duration::from_secs(20);
    /// Page faults. A heartbeat has a few; fewer than these in all are not worth the trouble.
    const QUIET: u64 = 64;
    let mut pause = Duration::from_secs(2);
    let (mut at_shed, mut before) = (0, footprint::faults());
    loop {
        tokio::time::sleep(pause).await;
        pause = LOOK;
        let now = footprint::faults();
        if now - before < QUIET && now - at_shed > QUIET {
            if let Err(error) = footprint::shed() {
                eprintln!("daemon: failed to give memory back: {error}");
                return;
            }
            at_shed = footprint::faults();
        }
        before = footprint::faults();
    }
}

type Running = (tokio::sync::oneshot::Sender<()>, std::thread::JoinHandle<()>);

/// The API on a thread of its own: what it works out for one client never holds up a pod.
fn serve_api(
    listener: TcpListener,
    identity: &Identity,
    store: Store,
    link: machine::Link,
    addresses: Addresses,
) -> anyhow::Result<Running> {
    let server = Server::new(pod_server::Config {
        tokens: token::tokens(&identity.token, identity.token_key.as_bytes(), store.clone()),
        store,
        machine: Arc::new(link),
        tls: identity.tls()?,
        version: Version {
            major: "1".into(),
            minor: "35".into(),
            git_version: VERSION.into(),
            git_commit: String::new(),
            build_date: "1970-01-01T00:00:00Z".into(),
        },
        now: Timestamp::now,
        cluster_address: Some(Arc::new(move |asked, keep| addresses.take(asked, keep))),
    });
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_keep_alive(std::time::Duration::from_secs(1))
        .build()
        .context("failed to set up the API's event loop")?;
    let (shutdown, told) = tokio::sync::oneshot::channel::<()>();
    let thread = std::thread::Builder::new().name("api".into()).spawn(move || {
        let served = runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            server.serve(listener, async { drop(told.await) }).await
        });
        if let Err(error) = served {
            eprintln!("api: {error}");
        }
    });
    Ok((shutdown, thread.context("failed to start the API's thread")?))
}

fn write_card(path: &Path, card: &Card) -> anyhow::Result<()> {
    let temporary = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        std::fs::write(&temporary, serde_json::to_vec(card)?)?;
        std::fs::rename(&temporary, path)
    };
    write().with_context(|| format!("failed to write `{}`", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_for_every_way_to_say_it() {
        let names = names("127.0.0.1:6550".parse().unwrap(), "box");
        assert!(names.contains(&"box".to_owned()) && names.contains(&"localhost".to_owned()));
        assert_eq!(names.iter().filter(|name| *name == "127.0.0.1").count(), 1);
        assert!(!super::names("10.1.1.1:1".parse().unwrap(), "no_name").contains(&"no_name".to_owned()));
    }
}
