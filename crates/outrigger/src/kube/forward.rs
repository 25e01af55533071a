//! `outrigger port-forward`: ports of this machine that lead into a pod.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;

use pod_client::stream::forward::{Ended, Forward};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::arguments::PortForward;
use super::target::Named;
use super::value::{self, items, text as text_at};
use super::{Node, Outcome, Trouble, pod, text};
use crate::cli::Global;
use crate::stdout;

pub(crate) fn run(global: &Global, arguments: &PortForward) -> anyhow::Result<u8> {
    let node = Rc::new(Node::connect(global, &arguments.server)?);
    super::run(async { forward(node, arguments).await.map_err(|trouble| vec![trouble]) })
}

/// A port here and the one it leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pair {
    here: u16,
    there: u16,
}

async fn forward(node: Rc<Node>, arguments: &PortForward) -> Outcome<u8> {
    let found = pod::find(&node, &arguments.pod).await?;
    let phase = text_at(&found.pod, "status.phase");
    if phase != "Running" {
        return text(format!("unable to forward port because pod is not running. Current status={phase}"));
    }
    let is_service = found.kind.kind == "Service" && found.kind.group.is_empty();
    let service = is_service.then_some(&found.object);
    let pairs = arguments.ports.iter().map(|port| pair(port, service, &found.pod)).collect::<Outcome<Vec<_>>>()?;
    let addresses = addresses(&arguments.address)?;
    let mut listeners = Vec::new();
    for wanted in &pairs {
        match listen(*wanted, &addresses).await {
            Ok(listening) => {
                for (listener, pair) in listening {
                    stdout::print(format!("Forwarding from {} -> {}\n", listener.local_addr()?, pair.there))?;
                    listeners.push((listener, pair));
                }
            }
            Err(error) => eprintln!("Unable to listen on port {}: {error}", wanted.here),
        }
    }
    if listeners.is_empty() {
        let asked: Vec<String> = pairs.iter().map(|pair| format!("{{{} {}}}", pair.here, pair.there)).collect();
        return text(format!("unable to listen on any of the requested ports: [{}]", asked.join(" ")));
    }
    let path = pod::path(&found.pod, "portforward");
    let (lost, mut losses) = mpsc::channel::<()>(1);
    for (listener, pair) in listeners {
        tokio::task::spawn_local(serve(node.clone(), listener, pair, path.clone(), lost.clone()));
    }
    tokio::select! {
        _ = losses.recv() => {}
        () = gone(&node, &found.pod) => {}
    }
    text("lost connection to pod")
}

async fn serve(node: Rc<Node>, listener: TcpListener, pair: Pair, path: String, lost: mpsc::Sender<()>) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Too many open files, usually: some will be closed.
                eprintln!("error: accepting a connection on port {}: {error}", pair.here);
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            }
        };
        // Nobody listening to this is no reason to stop.
        let _ = stdout::print(format!("Handling connection for {}\n", pair.here));
        let (node, path, lost) = (node.clone(), path.clone(), lost.clone());
        tokio::task::spawn_local(async move {
            if let Err(trouble) = carry(&node, stream, pair, &path).await {
                let missing = trouble.is_not_found();
                eprintln!("error: an error occurred forwarding {} -> {}: {}", pair.here, pair.there, trouble.line());
                if missing {
                    let _ = lost.send(()).await;
                }
            }
        });
    }
}

async fn carry(node: &Node, mut stream: TcpStream, pair: Pair, path: &str) -> Outcome<()> {
    let _ = stream.set_nodelay(true);
    let forward = Forward::open(&node.client, path, pair.there).await?;
    let (reading, writing) = stream.split();
    match forward.carry(reading, writing).await {
        Ok(Ended::Done) => Ok(()),
        Ok(Ended::Refused(reason)) => text(reason),
        // The client here has gone.
        Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => Ok(()),
        Err(error) => text(error.to_string()),
    }
}

/// Resolves when the pod runs no more.
async fn gone(node: &Node, pod: &Value) {
    let Ok(kind) = node.kind("pods").await else { return std::future::pending().await };
    let target = Named {
        kind,
        namespace: value::namespace(pod).to_owned(),
        name: value::name(pod).to_owned(),
        source: String::new(),
    };
    let uid = text_at(pod, "metadata.uid");
    let over = |object: &Value| {
        matches!(text_at(object, "status.phase"), "Succeeded" | "Failed") || text_at(object, "metadata.uid") != uid
    };
    loop {
        let version = match node.client.json(pod_client::Call::get(target.path())).await {
            Ok(object) if over(&object) => return,
            Ok(object) => text_at(&object, "metadata.resourceVersion").to_owned(),
            Err(_) => return,
        };
        let check =
            |event: pod_client::watch::Event| Ok((event.kind == "DELETED" || over(&event.object)).then_some(()));
        if let Ok(Some(())) = super::wait::follow(node, &target, &version, check).await {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
}

// === ports and addresses ===

fn pair(word: &str, service: Option<&Value>, pod: &Value) -> Outcome<Pair> {
    let (here, there) = match word.split_once(':') {
        Some(("", there)) => (Some("0"), there),
        Some((here, there)) => (Some(here), there),
        None => (None, word),
    };
    let wrong = |text: &str| Trouble::Text(format!("error parsing port \"{text}\": it is no port's number or name"));
    let (asked, there) = match service {
        Some(service) => service_port(service, pod, there)?,
        None => {
            let port = there.parse().ok().or_else(|| container_port(pod, there)).ok_or_else(|| wrong(there))?;
            (port, port)
        }
    };
    if there == 0 {
        return text("remote port must be > 0");
    }
    let here = match here {
        Some(text) => text.parse().map_err(|_| wrong(text))?,
        None => asked,
    };
    Ok(Pair { here, there })
}

fn port(value: &Value) -> Option<u16> {
    value.as_u64().and_then(|port| u16::try_from(port).ok())
}

fn container_port(pod: &Value, name: &str) -> Option<u16> {
    let containers = items(pod, "spec.containers").iter().chain(items(pod, "spec.initContainers"));
    containers
        .flat_map(|container| items(container, "ports"))
        .find(|one| one["name"] == name)
        .and_then(|one| port(&one["containerPort"]))
}

/// A Service's port, and the pod's port behind it.
fn service_port(service: &Value, pod: &Value, word: &str) -> Outcome<(u16, u16)> {
    let number: Option<u16> = word.parse().ok();
    let fits = |one: &&Value| match number {
        Some(number) => port(&one["port"]) == Some(number),
        None => one["name"] == word,
    };
    let name = value::name(service);
    let Some(found) = items(service, "spec.ports").iter().find(fits) else {
        return text(format!("Service {name} does not have a service port {word}"));
    };
    let own = port(&found["port"]).unwrap_or(0);
    if text_at(service, "spec.clusterIP") == "None" {
        return Ok((own, own));
    }
    let target = match &found["targetPort"] {
        Value::String(name) => container_port(pod, name),
        target => port(target).filter(|port| *port != 0).or(Some(own)),
    };
    match target {
        Some(target) => Ok((own, target)),
        None => {
            text(format!("Pod '{}' does not have a named port '{}'", value::name(pod), text_at(found, "targetPort")))
        }
    }
}

/// One of several addresses may be missing if its fellow is there: machines without IPv6.
fn addresses(words: &[String]) -> Outcome<Vec<(IpAddr, bool)>> {
    let mut addresses = Vec::new();
    for word in words {
        match word.as_str() {
            "localhost" => addresses.extend([(Ipv4Addr::LOCALHOST.into(), true), (Ipv6Addr::LOCALHOST.into(), true)]),
            word => match word.parse() {
                Ok(address) => addresses.push((address, false)),
                Err(_) => return text(format!("{word} is not a valid IP")),
            },
        }
    }
    Ok(addresses)
}

async fn listen(mut pair: Pair, addresses: &[(IpAddr, bool)]) -> Result<Vec<(TcpListener, Pair)>, String> {
    let (mut listening, mut failures) = (Vec::new(), Vec::new());
    for (address, optional) in addresses {
        match TcpListener::bind(SocketAddr::new(*address, pair.here)).await {
            Ok(listener) => {
                // A free port is the same one on all addresses.
                pair.here = listener.local_addr().map_or(pair.here, |address| address.port());
                listening.push((listener, pair));
            }
            Err(error) => failures.push((*optional, format!("{}: {error}", SocketAddr::new(*address, pair.here)))),
        }
    }
    let told: Vec<&str> = failures.iter().map(|(_, text)| text.as_str()).collect();
    match listening.is_empty() || failures.iter().any(|(optional, _)| !optional) {
        true => Err(told.join("; ")),
        false => Ok(listening),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ports_by_number_name_and_service() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"ports": [{"name": "http", "containerPort": 8080}]}]}});
        let service = json!({"spec": {"clusterIP": "10.0.0.1", "ports": [
            {"name": "web", "port": 80, "targetPort": "http"}, {"name": "x", "port": 81}]}});
        let headless = json!({"spec": {"clusterIP": "None", "ports": [{"port": 80, "targetPort": 9}]}});
        for (word, service, expected) in [
            ("80", None, Some((80, 80))),
            ("8000:80", None, Some((8000, 80))),
            (":80", None, Some((0, 80))),
            ("http", None, Some((8080, 8080))),
            ("80", Some(&service), Some((80, 8080))),
            ("9000:web", Some(&service), Some((9000, 8080))),
            ("81", Some(&service), Some((81, 81))),
            ("80", Some(&headless), Some((80, 80))),
            ("82", Some(&service), None),
            ("0", None, None),
            ("x", None, None),
            ("99999", None, None),
        ] {
            let seen = pair(word, service, &pod).ok().map(|pair| (pair.here, pair.there));
            assert_eq!(seen, expected, "{word}");
        }
    }
}
