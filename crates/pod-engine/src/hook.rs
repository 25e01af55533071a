//! `postStart` and `preStop`: what a container asks to be done beside it at its start and before its end.
//!
//! A hook has no timeout of its own; whoever runs it bounds it (a preStop ends with its grace period) by dropping the
//! future.

use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler};

use crate::probe::http::{GetError, HOOK_AGENT, Request, get};
use crate::probe::{Exec, ExecError, Handler, http_handler, shown};

/// A hook that succeeded, and what people should be told about it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HookDone {
    /// The message of an event `LifecycleHTTPFallback` (Warning): a hook with scheme HTTPS found a server that speaks
    /// plain HTTP, and plain HTTP worked.
    pub http_fallback: Option<String>,
}

/// Runs a hook to its end. `target` is the pod's address. The error is for logs: upstream's events on purpose say no
/// more than that the hook failed.
pub async fn run_hook<E: Exec + ?Sized>(handler: &Handler, target: IpAddr, exec: &E) -> Result<(), String> {
    run_hook_told(handler, target, exec).await.map(drop)
}

/// The same, telling whether a fallback was needed.
pub async fn run_hook_told<E: Exec + ?Sized>(handler: &Handler, target: IpAddr, exec: &E) -> Result<HookDone, String> {
    match handler {
        Handler::Exec { command } => run_command(command, exec).await.map(|()| HookDone::default()),
        Handler::Http { .. } => match Request::of(handler, target, HOOK_AGENT) {
            Some(request) => run_get(&request).await,
            None => Err("invalid handler".to_owned()),
        },
        Handler::Sleep { seconds } => {
            tokio::time::sleep(Duration::from_secs(*seconds)).await;
            Ok(HookDone::default())
        }
        // The API accepts tcpSocket for the sake of old manifests; upstream then fails at run time, too.
        Handler::Tcp { .. } => Err("invalid handler: tcpSocket is not supported in lifecycle hooks".to_owned()),
        Handler::Grpc { .. } => Err("invalid handler: grpc is not supported in lifecycle hooks".to_owned()),
    }
}

/// The handler of a hook of `container`. Unlike a probe's, its command is taken as it is written.
pub fn handler_of_hook(handler: &LifecycleHandler, container: &Container) -> Result<Handler, String> {
    if let Some(action) = &handler.exec {
        return Ok(Handler::Exec { command: action.command.clone().unwrap_or_default() });
    }
    if let Some(action) = &handler.http_get {
        return http_handler(action, container);
    }
    if let Some(action) = &handler.sleep {
        let seconds = action.seconds;
        let seconds = u64::try_from(seconds).map_err(|_| format!("invalid sleep of {seconds} seconds"))?;
        return Ok(Handler::Sleep { seconds });
    }
    if handler.tcp_socket.is_some() {
        return Err("invalid handler: tcpSocket is not supported in lifecycle hooks".to_owned());
    }
    Err(format!("invalid handler: no action in a lifecycle hook of container {}", container.name))
}

async fn run_command<E: Exec + ?Sized>(command: &[String], exec: &E) -> Result<(), String> {
    let line = command.join(" ");
    match exec.exec(command, None).await {
        Ok(result) if result.exit_code == 0 => Ok(()),
        Ok(result) => {
            Err(format!("command '{line}' exited with {}: {}", result.exit_code, shown(&result.output).trim_end()))
        }
        Err(ExecError::TimedOut) => Err(format!("command '{line}' timed out")),
        Err(ExecError::Broken(message)) => Err(message),
    }
}

/// Any answer is a success, whatever its status.
async fn run_get(request: &Request) -> Result<HookDone, String> {
    match get(request, None).await {
        Ok(reply) => {
            reply.discard().await;
            Ok(HookDone::default())
        }
        Err(GetError::PlainHttp(text)) => {
            let Ok(reply) = get(&request.in_the_clear(), None).await else { return Err(text) };
            reply.discard().await;
            let message = format!(
                "request to HTTPS lifecycle hook {} got HTTP response, retry with HTTP succeeded",
                request.authority()
            );
            Ok(HookDone { http_fallback: Some(message) })
        }
        Err(GetError::Failed(text)) => Err(text),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use serde_json::json;

    use super::*;
    use crate::probe::http::tests::{Server, handler, no_exec};
    use crate::probe::tests::Scripted;
    use crate::probe::{ExecResult, Scheme};

    const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn parsed(hook: serde_json::Value) -> Result<Handler, String> {
        let container = json!({
            "name": "app", "ports": [{"name": "web", "containerPort": 80}], "env": [{"name": "A", "value": "1"}],
        });
        handler_of_hook(&serde_json::from_value(hook).unwrap(), &serde_json::from_value(container).unwrap())
    }

    #[test]
    fn handlers_of_manifests() {
        let command = vec!["echo".to_owned(), "$(A)".to_owned()];
        assert_eq!(parsed(json!({"exec": {"command": command}})), Ok(Handler::Exec { command }), "as written");
        assert_eq!(parsed(json!({"httpGet": {"port": "web", "path": "/x"}})), Ok(handler(Scheme::Http, 80, "/x", &[])));
        assert_eq!(parsed(json!({"sleep": {"seconds": 0}})), Ok(Handler::Sleep { seconds: 0 }));
        for (hook, text) in [
            (json!({"tcpSocket": {"port": 1}}), "invalid handler: tcpSocket is not supported in lifecycle hooks"),
            (json!({}), "invalid handler: no action in a lifecycle hook of container app"),
            (json!({"sleep": {"seconds": -1}}), "invalid sleep of -1 seconds"),
        ] {
            assert_eq!(parsed(hook), Err(text.to_owned()));
        }
    }

    #[tokio::test]
    async fn any_answer_is_a_success() {
        let server = Server::start(|_| "HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n".to_owned()).await;
        let hook = handler(Scheme::Http, server.port, "drain", &[("X-A", "b")]);
        assert_eq!(run_hook(&hook, LOCALHOST, &no_exec()).await, Ok(()));
        let request = server.requests().pop().unwrap();
        assert!(request.starts_with("GET /drain HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("User-Agent: kube-lifecycle/1.35\r\n") && request.contains("X-A: b\r\n"), "{request}");
    }

    #[tokio::test]
    async fn no_answer_is_a_failure() {
        let server = Server::start(|_| String::new()).await;
        let port = server.port;
        let hook = handler(Scheme::Http, port, "/", &[]);
        let text = format!("Get \"http://127.0.0.1:{port}/\": EOF");
        assert_eq!(run_hook(&hook, LOCALHOST, &no_exec()).await, Err(text));
    }

    #[tokio::test]
    async fn https_falls_back_to_http_and_leaves_credentials_behind() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind((LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        // A plain HTTP server to which the ClientHello is a bad request.
        let server = tokio::spawn(async move {
            let mut heads = Vec::new();
            for _ in 0..2 {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = vec![0; 4096];
                let length = stream.read(&mut head).await.unwrap();
                heads.push(String::from_utf8_lossy(&head[..length]).into_owned());
                stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await.unwrap();
            }
            heads
        });
        let hook = handler(Scheme::Https, port, "/", &[("Authorization", "secret"), ("X-A", "b")]);
        let done = run_hook_told(&hook, LOCALHOST, &no_exec()).await.unwrap();
        let text =
            format!("request to HTTPS lifecycle hook 127.0.0.1:{port} got HTTP response, retry with HTTP succeeded");
        assert_eq!(done.http_fallback, Some(text));
        let heads = server.await.unwrap();
        assert!(heads[1].contains("X-A: b") && !heads[1].to_lowercase().contains("authorization"), "{heads:?}");
    }

    #[tokio::test]
    async fn https_stays_https_where_it_can() {
        let server = Server::start_tls(|_| "HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n".to_owned()).await;
        let hook = handler(Scheme::Https, server.port, "/", &[]);
        assert_eq!(run_hook_told(&hook, LOCALHOST, &no_exec()).await, Ok(HookDone::default()));
    }

    #[tokio::test]
    async fn commands() {
        let hook = Handler::Exec { command: vec!["sh".into(), "-c".into(), "exit 3".into()] };
        for (answer, expected) in [
            (Ok((0, "")), Ok(())),
            (Ok((3, "no\n")), Err("command 'sh -c exit 3' exited with 3: no")),
            (Err(ExecError::TimedOut), Err("command 'sh -c exit 3' timed out")),
            (Err(ExecError::Broken("gone".into())), Err("gone")),
        ] {
            let exec = Scripted(Box::new(move |_| {
                let (exit_code, output) = answer.clone()?;
                Ok(ExecResult { exit_code, output: output.into() })
            }));
            assert_eq!(run_hook(&hook, LOCALHOST, &exec).await, expected.map_err(str::to_owned));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn sleeping_and_what_no_hook_can() {
        let started = tokio::time::Instant::now();
        assert_eq!(run_hook(&Handler::Sleep { seconds: 7 }, LOCALHOST, &no_exec()).await, Ok(()));
        assert_eq!(started.elapsed(), Duration::from_secs(7));
        let tcp = Handler::Tcp { host: None, port: 1 };
        let text = "invalid handler: tcpSocket is not supported in lifecycle hooks";
        assert_eq!(run_hook(&tcp, LOCALHOST, &no_exec()).await, Err(text.to_owned()));
    }
}
