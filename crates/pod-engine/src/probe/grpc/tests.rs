use std::convert::Infallible;
use std::net::Ipv4Addr;

use http::{HeaderValue, Request, Response};
use http_body_util::combinators::BoxBody;
use hyper::body::Incoming;
use hyper::service::service_fn;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

type Reply = Response<BoxBody<Bytes, Infallible>>;

struct Server {
    port: u16,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// `answer` gets the service asked for; `None` never answers.
async fn server(answer: impl Fn(&str) -> Option<Reply> + Clone + Send + Sync + 'static) -> Server {
    let listener = TcpListener::bind((LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = answer.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let answer = answer.clone();
                async move {
                    assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                    assert_eq!(request.headers()["content-type"], "application/grpc");
                    assert_eq!(request.headers()["te"], "trailers");
                    assert_eq!(request.headers()["user-agent"], "kube-probe/1.35");
                    let message = request.into_body().collect().await.unwrap().to_bytes();
                    let service = match message.len() {
                        5 => String::new(),
                        _ => {
                            assert_eq!(message[5], 0x0a);
                            let header = if message[6] < 0x80 { 7 } else { 8 };
                            String::from_utf8(message[header..].to_vec()).unwrap()
                        }
                    };
                    assert_eq!(usize::from(message[4]) + 256 * usize::from(message[3]), message.len() - 5);
                    match answer(&service) {
                        Some(reply) => Ok::<_, Infallible>(reply),
                        None => std::future::pending().await,
                    }
                }
            });
            tokio::spawn(
                hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    Server { port, task }
}

fn health(message: &[u8]) -> Reply {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let body = Full::new(framed(message)).with_trailers(std::future::ready(Some(Ok(trailers))));
    Response::builder().header("content-type", "application/grpc+proto").body(body.boxed()).unwrap()
}

/// "Trailers-Only", as gRPC servers answer errors.
fn status(code: &str, message: &str) -> Reply {
    Response::builder()
        .header("content-type", "application/grpc")
        .header("grpc-status", code)
        .header("grpc-message", message)
        .body(Full::default().boxed())
        .unwrap()
}

async fn ask(port: u16, service: &str, timeout: Duration) -> ProbeOutcome {
    probe(LOCALHOST, port, service, timeout, Instant::now() + timeout).await
}

fn failure(text: impl Into<String>) -> ProbeOutcome {
    ProbeOutcome::Failure(text.into())
}

#[tokio::test]
async fn health_and_its_absence() {
    let long = "x".repeat(300);
    let known = long.clone();
    let server = server(move |service| {
        Some(match service {
            "" => health(&[0x08, 1]),
            "starting" => health(&[]),
            "sick" => health(&[0x08, 2]),
            "watch" => health(&[0x08, 3]),
            "new" => health(&[0x12, 1, b'x', 0x08, 9]),
            "broken" => health(&[0x08]),
            "other" => status("5", "unknown service"),
            "old" => status("12", "unknown service grpc.health.v1.Health"),
            "late" => status("4", "too late"),
            "odd" => status("77", "50%25 %C3%A9"),
            service if service == known => health(&[0x08, 1]),
            _ => unreachable!(),
        })
    })
    .await;
    let unhealthy = |name: &str| failure(format!("service unhealthy (responded with \"{name}\")"));
    for (service, expected) in [
        ("", ProbeOutcome::Success),
        (&long, ProbeOutcome::Success),
        ("starting", unhealthy("UNKNOWN")),
        ("sick", unhealthy("NOT_SERVING")),
        ("watch", unhealthy("SERVICE_UNKNOWN")),
        ("new", unhealthy("9")),
        (
            "broken",
            failure(
                "error: health rpc probe failed: rpc error: code = Internal desc = \
                 failed to unmarshal the received message",
            ),
        ),
        ("other", failure("error: health rpc probe failed: rpc error: code = NotFound desc = unknown service")),
        (
            "old",
            failure(
                "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): \
                 unknown service grpc.health.v1.Health",
            ),
        ),
        ("late", failure("timeout: health rpc did not complete within 1m0s")),
        ("odd", failure("error: health rpc probe failed: rpc error: code = Code(77) desc = 50% é")),
    ] {
        assert_eq!(ask(server.port, service, Duration::from_secs(60)).await, expected, "{service}");
    }
}

#[tokio::test]
async fn an_http_server_without_grpc() {
    let server = server(|_| {
        let page = Response::builder().status(404).header("content-type", "text/html");
        Some(page.body(Full::from("no").boxed()).unwrap())
    })
    .await;
    assert_eq!(
        ask(server.port, "", Duration::from_secs(60)).await,
        failure(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): unexpected HTTP \
             status code received from server: 404 (Not Found); transport: received unexpected content-type \
             \"text/html\""
        )
    );
}

#[tokio::test]
async fn no_answer_in_time() {
    let server = server(|_| None).await;
    assert_eq!(
        ask(server.port, "", Duration::from_secs(3)).await,
        failure("timeout: health rpc did not complete within 3s")
    );
}

#[tokio::test]
async fn nothing_there_or_nothing_that_speaks_http2() {
    let listener = TcpListener::bind((LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let timeout = Duration::from_secs(1);
    let expected = failure(format!(
        "timeout: failed to connect service \"127.0.0.1:{port}\" within 1s: context deadline exceeded"
    ));
    // Accepted by the kernel, never answered.
    assert_eq!(ask(port, "", timeout).await, expected);
    let http1 = super::super::http::tests::Server::start(|_| "HTTP/1.1 400 Bad Request\r\n\r\n".to_owned()).await;
    assert_eq!(
        ask(http1.port, "", Duration::from_millis(250)).await,
        failure(format!(
            "timeout: failed to connect service \"127.0.0.1:{}\" within 250ms: context deadline exceeded",
            http1.port
        ))
    );
    drop(listener);
    assert_eq!(ask(port, "", timeout).await, expected);
}

#[tokio::test]
async fn a_server_that_comes_up_within_the_timeout_is_found() {
    let listener = TcpListener::bind((LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let later = async {
        tokio::time::sleep(Duration::from_millis(150)).await;
        let listener = TcpListener::bind((LOCALHOST, port)).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let service = service_fn(|_| async { Ok::<_, Infallible>(health(&[0x08, 1])) });
        let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service)
            .await;
    };
    let (outcome, ()) = tokio::join!(ask(port, "", Duration::from_secs(60)), later);
    assert_eq!(outcome, ProbeOutcome::Success);
}
