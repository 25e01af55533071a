//! Probes: is this container alive, ready, started? Asked from the host, at the pod's address, as the kubelet asks.
//!
//! One call is one attempt; periods and thresholds are the plan's. The texts are those of Kubernetes 1.35 (and of the
//! Go libraries under it), because people search for them and tools match them.

mod dial;
mod exec;
mod grpc;
pub(crate) mod http;
mod tcp;
mod text;
mod tls;
mod url;

use std::future::Future;
use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use pod_plan::ProbeOutcome;
use tokio::time::Instant;

pub(crate) use exec::shown;

/// A probe that broke (no verdict either way) is tried this often before its result is thrown away.
const TRIES: usize = 3;
/// What is kept of a body or a command's output, in bytes.
pub const OUTPUT_BYTES: usize = 10 << 10;

/// What a probe or hook does, with every default and name resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Handler {
    Exec {
        command: Vec<String>,
    },
    Http {
        scheme: Scheme,
        /// `None` is the pod.
        host: Option<String>,
        port: u16,
        /// May carry a query.
        path: String,
        /// In the manifest's order; a name may repeat.
        headers: Vec<(String, String)>,
    },
    Tcp {
        host: Option<String>,
        port: u16,
    },
    Grpc {
        port: u16,
        service: String,
    },
    /// Hooks only.
    Sleep {
        seconds: u64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
}

/// Runs a command inside the container that is probed.
pub trait Exec {
    /// When `timeout` has passed, the implementation kills the command and answers [`ExecError::TimedOut`].
    fn exec(
        &self,
        command: &[String],
        timeout: Option<Duration>,
    ) -> impl Future<Output = Result<ExecResult, ExecError>>;
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecResult {
    pub exit_code: i32,
    /// Standard output and error as they came; of more than [`OUTPUT_BYTES`], the beginning is used.
    pub output: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExecError {
    #[error("the command timed out")]
    TimedOut,
    /// The command could not be run: nothing is known about the container.
    #[error("{0}")]
    Broken(String),
}

/// Asks once. `target` is the pod's address. An attempt that breaks (its result would say nothing about the container)
/// is repeated at once, up to three in all; then the outcome is `Unknown`.
pub async fn run_probe<E: Exec + ?Sized>(
    handler: &Handler,
    target: IpAddr,
    timeout: Duration,
    exec: &E,
) -> ProbeOutcome {
    let mut broken = String::new();
    for _ in 0..TRIES {
        match attempt(handler, target, timeout, exec).await {
            Ok(outcome) => return outcome,
            Err(message) => broken = message,
        }
    }
    ProbeOutcome::Unknown(broken)
}

/// The handler of a probe of `container`: named ports looked up in its `ports`, `$(NAME)` in a command replaced from
/// the literal values of its `env`.
pub fn handler_of_probe(probe: &Probe, container: &Container) -> Result<Handler, String> {
    if let Some(action) = &probe.exec {
        let command = action.command.iter().flatten().map(|word| expand(word, container)).collect();
        return Ok(Handler::Exec { command });
    }
    if let Some(action) = &probe.http_get {
        return http_handler(action, container);
    }
    if let Some(action) = &probe.tcp_socket {
        return Ok(Handler::Tcp { host: given(action.host.as_ref()), port: port_of(&action.port, container)? });
    }
    if let Some(action) = &probe.grpc {
        let service = action.service.clone().unwrap_or_default();
        return Ok(Handler::Grpc { port: port_number(action.port)?, service });
    }
    Err(format!("missing probe handler for container {}", container.name))
}

/// Shared with hooks, whose `httpGet` is the same object.
pub(crate) fn http_handler(action: &HTTPGetAction, container: &Container) -> Result<Handler, String> {
    let scheme = match action.scheme.as_deref() {
        None | Some("") => Scheme::Http,
        Some(scheme) if scheme.eq_ignore_ascii_case("http") => Scheme::Http,
        Some(scheme) if scheme.eq_ignore_ascii_case("https") => Scheme::Https,
        Some(scheme) => return Err(format!("unsupported protocol scheme {:?}", scheme.to_lowercase())),
    };
    let headers = action.http_headers.iter().flatten().map(|header| (header.name.clone(), header.value.clone()));
    Ok(Handler::Http {
        scheme,
        host: given(action.host.as_ref()),
        port: port_of(&action.port, container)?,
        path: action.path.clone().unwrap_or_default(),
        headers: headers.collect(),
    })
}

/// `Err` is a broken attempt.
async fn attempt<E: Exec + ?Sized>(
    handler: &Handler,
    target: IpAddr,
    timeout: Duration,
    exec: &E,
) -> Result<ProbeOutcome, String> {
    let deadline = Instant::now() + timeout;
    match handler {
        Handler::Exec { command } => exec::probe(command, timeout, exec).await,
        Handler::Http { .. } => match http::Request::of(handler, target, http::PROBE_AGENT) {
            Some(request) => http::probe(&request, deadline).await,
            None => Err("not an HTTP handler".to_owned()),
        },
        Handler::Tcp { host, port } => {
            let host = host.clone().unwrap_or_else(|| target.to_string());
            Ok(tcp::probe(&host, *port, deadline).await)
        }
        Handler::Grpc { port, service } => Ok(grpc::probe(target, *port, service, timeout, deadline).await),
        Handler::Sleep { .. } => Err("missing probe handler: sleep is for hooks".to_owned()),
    }
}

fn given(host: Option<&String>) -> Option<String> {
    host.filter(|host| !host.is_empty()).cloned()
}

fn port_of(reference: &IntOrString, container: &Container) -> Result<u16, String> {
    match reference {
        IntOrString::Int(number) => port_number(*number),
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|port| port.name.as_deref() == Some(name));
            match (named, name.parse()) {
                (Some(port), _) => port_number(port.container_port),
                // A number in quotes is still a number.
                (None, Ok(number)) => port_number(number),
                (None, Err(_)) => Err(format!("no port named {name:?} in container {}", container.name)),
            }
        }
    }
}

fn port_number(number: i32) -> Result<u16, String> {
    u16::try_from(number).ok().filter(|port| *port > 0).ok_or_else(|| format!("invalid port number: {number}"))
}

/// The last of several variables of one name counts; one with `valueFrom` has no literal value, which upstream takes
/// for an empty one.
fn expand(word: &str, container: &Container) -> String {
    let variables = container.env.as_deref().unwrap_or_default();
    pod_api::expansion::expand(word, |name| {
        let variable = variables.iter().rev().find(|variable| variable.name == name)?;
        Some(variable.value.as_deref().unwrap_or_default())
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use std::cell::Cell;
    use std::net::Ipv4Addr;

    use serde_json::json;

    use super::*;

    /// Answers every command with what the test says.
    pub(crate) struct Scripted(pub(crate) Box<Script>);

    type Script = dyn Fn(&[String]) -> Result<ExecResult, ExecError>;

    impl Exec for Scripted {
        async fn exec(&self, command: &[String], _: Option<Duration>) -> Result<ExecResult, ExecError> {
            self.0(command)
        }
    }

    fn parsed(probe: serde_json::Value, container: serde_json::Value) -> Result<Handler, String> {
        let mut whole = json!({"name": "app"});
        whole.as_object_mut().unwrap().extend(container.as_object().unwrap().clone());
        handler_of_probe(&serde_json::from_value(probe).unwrap(), &serde_json::from_value(whole).unwrap())
    }

    #[test]
    fn handlers_of_manifests() {
        let ports = json!({"ports": [{"name": "web", "containerPort": 8080}, {"containerPort": 1}]});
        assert_eq!(
            parsed(
                json!({"httpGet": {"port": "web", "path": "/live?x=1", "httpHeaders": [{"name": "A", "value": "b"}]}}),
                ports.clone()
            ),
            Ok(Handler::Http {
                scheme: Scheme::Http,
                host: None,
                port: 8080,
                path: "/live?x=1".into(),
                headers: vec![("A".into(), "b".into())],
            })
        );
        assert_eq!(
            parsed(json!({"httpGet": {"port": 443, "scheme": "HTTPS", "host": "example.org"}}), json!({})),
            Ok(Handler::Http {
                scheme: Scheme::Https,
                host: Some("example.org".into()),
                port: 443,
                path: String::new(),
                headers: vec![],
            })
        );
        assert_eq!(
            parsed(json!({"tcpSocket": {"port": "9000", "host": ""}}), json!({})),
            Ok(Handler::Tcp { host: None, port: 9000 })
        );
        assert_eq!(
            parsed(json!({"grpc": {"port": 5, "service": null}}), json!({})),
            Ok(Handler::Grpc { port: 5, service: String::new() })
        );
        for (probe, text) in [
            (json!({"tcpSocket": {"port": "nope"}}), "no port named \"nope\" in container app"),
            (json!({"tcpSocket": {"port": 0}}), "invalid port number: 0"),
            (json!({"grpc": {"port": 70000}}), "invalid port number: 70000"),
            (json!({"httpGet": {"port": "0"}}), "invalid port number: 0"),
            (json!({}), "missing probe handler for container app"),
        ] {
            assert_eq!(parsed(probe, ports.clone()), Err(text.to_owned()));
        }
    }

    #[test]
    fn commands_see_literal_variables_only() {
        let env = json!({"env": [
            {"name": "A", "value": "old"}, {"name": "A", "value": "1"}, {"name": "B", "value": "$(A)"},
            {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
        ]});
        let probe = json!({"exec": {"command": ["echo", "$(A)", "$(B)", "[$(SECRET)]", "$(NOPE)", "$$(A)"]}});
        let Ok(Handler::Exec { command }) = parsed(probe, env) else { panic!() };
        assert_eq!(command, ["echo", "1", "$(A)", "[]", "$(NOPE)", "$(A)"]);
    }

    #[tokio::test]
    async fn a_broken_probe_is_tried_three_times() {
        let handler = Handler::Exec { command: vec!["x".into()] };
        let target = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let tries = std::rc::Rc::new(Cell::new(0));
        let count = tries.clone();
        let mends_at = |mends_at: usize| {
            let count = count.clone();
            Scripted(Box::new(move |_| {
                count.set(count.get() + 1);
                if count.get() >= mends_at {
                    return Ok(ExecResult { exit_code: 0, output: vec![] });
                }
                Err(ExecError::Broken(format!("no such container, {}", count.get())))
            }))
        };
        let outcome = run_probe(&handler, target, Duration::from_secs(1), &mends_at(9)).await;
        assert_eq!(outcome, ProbeOutcome::Unknown("no such container, 3".into()));
        assert_eq!(tries.replace(0), 3);
        let outcome = run_probe(&handler, target, Duration::from_secs(1), &mends_at(3)).await;
        assert_eq!(outcome, ProbeOutcome::Success);
    }

    #[test]
    fn a_probes_future_can_be_sent_if_its_exec_can() {
        struct Plain;
        impl Exec for Plain {
            async fn exec(&self, _: &[String], _: Option<Duration>) -> Result<ExecResult, ExecError> {
                Err(ExecError::TimedOut)
            }
        }
        fn sendable(_: impl Send) {}
        let handler = Handler::Tcp { host: None, port: 1 };
        sendable(
            async move { run_probe(&handler, IpAddr::V4(Ipv4Addr::LOCALHOST), Duration::from_secs(1), &Plain).await },
        );
    }
}
