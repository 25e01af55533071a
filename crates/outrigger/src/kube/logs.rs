//! `outrigger logs` for pods of the node: through its API.

use std::io::{self, Write as _};

use http_body_util::BodyExt as _;
use pod_client::query::Query;
use pod_client::{Call, CallError};
use pod_engine::record::find;
use serde_json::Value;
use tokio::task::JoinSet;

use super::value::{self, items, text as text_at};
use super::{Node, Outcome, Trouble, duration, pod, target, text};
use crate::cli::{Global, Logs};
use crate::{exit, host, start};

/// Lines of each pod when several are chosen by their labels.
const SELECTED_LINES: i64 = 10;

/// The exit code, or nothing if the pod is not the node's.
pub(crate) fn run(global: &Global, arguments: &Logs) -> anyhow::Result<Option<u8>> {
    let roots = host::roots(global);
    let server = &arguments.server;
    let asked = server.context.is_some() || server.kubeconfig.is_some() || arguments.selector.is_some();
    if !asked && start::alive(&roots).is_none() {
        return Ok(None);
    }
    let node = match Node::connect(global, server) {
        Ok(node) => node,
        Err(_) if !asked => return Ok(None),
        Err(error) => return Err(error),
    };
    // Told apart from an exit code by a number that is none.
    let mut elsewhere = false;
    let code = super::run(async {
        let pods = match pods(&node, arguments).await {
            Err(trouble) if trouble.is_not_found() && !asked => {
                let name = arguments.pod.as_deref().map(crate::manifest::pod_name).unwrap_or_default();
                if matches!(find(&roots, &node.namespace, name), Ok(Some(_))) {
                    elsewhere = true;
                    return Ok(exit::OK);
                }
                Err(trouble)
            }
            other => other,
        };
        match pods {
            Ok(pods) => logs(&node, arguments, pods).await.map_err(|trouble| vec![trouble]),
            Err(Trouble::Call(CallError::Refused(status))) if status.reason == "NotFound" => {
                let place = &node.namespace;
                Err(vec![Trouble::Text(format!(
                    "error from server (NotFound): {} in namespace \"{place}\"",
                    status.message
                ))])
            }
            Err(trouble) => Err(vec![trouble]),
        }
    })?;
    Ok((!elsewhere).then_some(code))
}

async fn pods(node: &Node, arguments: &Logs) -> Outcome<Vec<Value>> {
    let Some(selector) = &arguments.selector else {
        let word = arguments.pod.as_deref().unwrap_or_default();
        return Ok(vec![pod::find(node, word).await?.pod]);
    };
    let kind = node.kind("pods").await?;
    let path = Query::new(kind.list_path(Some(&node.namespace))).with("labelSelector", selector).into_string();
    let mut list = node.client.json(Call::get(path)).await?;
    Ok(target::take_items(&mut list, kind))
}

/// One container's log.
struct Source {
    path: String,
    prefix: Vec<u8>,
}

async fn logs(node: &Node, arguments: &Logs, pods: Vec<Value>) -> Outcome<u8> {
    if pods.is_empty() {
        eprintln!("No resources found in {} namespace.", node.namespace);
        return Ok(exit::OK);
    }
    let parameters = parameters(arguments)?;
    let mut sources = Vec::new();
    for pod in &pods {
        for container in containers(pod, arguments)? {
            let path = Query::new(pod::path(pod, "log")).with("container", &container).into_string();
            let prefix = match arguments.prefix {
                true => format!("[pod/{}/{container}] ", value::name(pod)).into_bytes(),
                false => Vec::new(),
            };
            sources.push(Source { path: format!("{path}{parameters}"), prefix });
        }
    }
    if !arguments.follow || sources.len() == 1 {
        for source in &sources {
            print(node, source).await?;
        }
        return Ok(exit::OK);
    }
    if sources.len() > arguments.max_log_requests {
        return text(format!(
            "you are attempting to follow {} log streams, but maximum allowed concurrency is {}, use --max-log-requests to \
             increase the limit",
            sources.len(),
            arguments.max_log_requests
        ));
    }
    follow(node, sources).await
}

/// All at once; the first that fails ends them.
async fn follow(node: &Node, sources: Vec<Source>) -> Outcome<u8> {
    let mut bodies = JoinSet::new();
    for source in sources {
        let response = node.client.stream(Call::get(source.path).accept("*/*")).await?;
        bodies.spawn(copy(response.into_body(), source.prefix));
    }
    while let Some(ended) = bodies.join_next().await {
        ended.map_err(|error| Trouble::Text(error.to_string()))??;
    }
    Ok(exit::OK)
}

async fn print(node: &Node, source: &Source) -> Outcome<()> {
    let response = node.client.stream(Call::get(&source.path).accept("*/*")).await?;
    Ok(copy(response.into_body(), source.prefix.clone()).await?)
}

/// Whole lines only, so that several logs do not mix within one.
async fn copy(mut body: hyper::body::Incoming, prefix: Vec<u8>) -> io::Result<()> {
    let mut rest: Vec<u8> = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| io::Error::other(format!("the log broke off: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        rest.extend_from_slice(&data);
        let Some(end) = rest.iter().rposition(|byte| *byte == b'\n') else { continue };
        let lines: Vec<u8> = rest.drain(..=end).collect();
        write(&lines, &prefix)?;
    }
    write(&rest, &prefix)
}

fn write(lines: &[u8], prefix: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if prefix.is_empty() {
        out.write_all(lines)?;
    } else {
        let mut text = Vec::with_capacity(lines.len() * 2);
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            text.extend_from_slice(prefix);
            text.extend_from_slice(line);
        }
        out.write_all(&text)?;
    }
    out.flush()
}

fn containers(pod: &Value, arguments: &Logs) -> Outcome<Vec<String>> {
    if arguments.all_containers {
        let all = ["spec.initContainers", "spec.containers", "spec.ephemeralContainers"];
        let names = all.iter().flat_map(|path| items(pod, path)).map(|one| text_at(one, "name").to_owned());
        return Ok(names.collect());
    }
    let asked = arguments.container.as_deref().or(arguments.positional_container.as_deref());
    match pod::container(pod, asked, false) {
        Ok(container) => Ok(vec![text_at(container, "name").to_owned()]),
        Err(Trouble::Text(_)) if asked.is_some() => {
            text(format!("container {} is not valid for pod {}", asked.unwrap_or_default(), value::name(pod)))
        }
        Err(trouble) => Err(trouble),
    }
}

/// What stands behind the container in the query.
fn parameters(arguments: &Logs) -> Outcome<String> {
    let flag = |query: Query, name: &str, on: bool| if on { query.with(name, "true") } else { query };
    let query = Query::new("?");
    let query = flag(query, "follow", arguments.follow);
    let query = flag(query, "previous", arguments.previous);
    let mut query = flag(query, "timestamps", arguments.timestamps);
    if let Some(since) = &arguments.since {
        let since = duration(since).map_err(Trouble::Text)?;
        if since.is_negative() {
            return text("--since must be greater than 0");
        }
        let seconds = since.as_secs() + i64::from(since.subsec_millis() >= 500);
        query = query.with("sinceSeconds", &seconds.max(1).to_string());
    }
    if let Some(time) = arguments.since_time {
        query = query.with("sinceTime", &time.to_string());
    }
    let lines = match arguments.tail {
        None if arguments.selector.is_some() => Some(SELECTED_LINES),
        None | Some(-1) => None,
        Some(..-1) => return text("--tail must be greater than or equal to -1"),
        Some(lines) => Some(lines),
    };
    if let Some(lines) = lines {
        query = query.with("tailLines", &lines.to_string());
    }
    Ok(query.into_string().trim_start_matches('?').to_owned())
}
