use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use http_body_util::Full;
use hyper::service::service_fn;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use super::*;
use crate::probe::run_probe;
use crate::probe::tests::Scripted;

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Answers each connection's first request, and remembers its head.
pub(crate) struct Server {
    pub(crate) port: u16,
    requests: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub(crate) async fn start(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        Self::start_with(None, answer).await
    }

    pub(crate) async fn start_tls(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        Self::start_with(Some(acceptor(&[])), answer).await
    }

    async fn start_with(tls: Option<TlsAcceptor>, answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = requests.clone();
        let answer = Arc::new(answer);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answer, seen, tls) = (answer.clone(), seen.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => respond(stream, &*answer, &seen).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                respond(stream, &*answer, &seen).await;
                            }
                        }
                    }
                });
            }
        });
        Self { port, requests, task }
    }

    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

async fn respond(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    answer: &(impl Fn(&str) -> String + ?Sized),
    seen: &Mutex<Vec<String>>,
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let response = answer(&head);
    seen.lock().unwrap().push(head);
    if response == "hang" {
        std::future::pending::<()>().await;
    }
    let (now, later) = response.split_once("[hang]").map_or((response.as_str(), None), |(now, _)| (now, Some(())));
    let _ = stream.write_all(now.as_bytes()).await;
    if later.is_some() {
        std::future::pending::<()>().await;
    }
    let _ = stream.shutdown().await;
}

fn acceptor(protocols: &[&str]) -> TlsAcceptor {
    let made = rcgen::generate_simple_self_signed(vec!["some.pod".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

pub(crate) fn handler(scheme: Scheme, port: u16, path: &str, headers: &[(&str, &str)]) -> Handler {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Handler::Http { scheme, host: None, port, path: path.to_owned(), headers }
}

pub(crate) fn no_exec() -> Scripted {
    Scripted(Box::new(|_| panic!("nothing to run")))
}

fn status(line: &str) -> String {
    format!("HTTP/1.1 {line}\r\nContent-Length: 2\r\n\r\nhi")
}

async fn outcome(handler: &Handler) -> ProbeOutcome {
    run_probe(handler, LOCALHOST, Duration::from_secs(60), &no_exec()).await
}

fn failure(text: impl Into<String>) -> ProbeOutcome {
    ProbeOutcome::Failure(text.into())
}

#[tokio::test]
async fn the_status_decides() {
    let server = Server::start(|head| {
        let code = head.split_whitespace().nth(1).unwrap().trim_start_matches('/').to_owned();
        status(&format!("{code} Whatever"))
    })
    .await;
    for (code, expected) in [
        (200, ProbeOutcome::Success),
        (204, ProbeOutcome::Success),
        (299, ProbeOutcome::Success),
        (304, ProbeOutcome::Warning("Probe terminated redirects, Response body: ".into())),
        (300, ProbeOutcome::Warning("Probe terminated redirects, Response body: hi".into())),
        (302, ProbeOutcome::Warning("Probe terminated redirects, Response body: hi".into())),
        (400, failure("HTTP probe failed with statuscode: 400")),
        (404, failure("HTTP probe failed with statuscode: 404")),
        (500, failure("HTTP probe failed with statuscode: 500")),
        (599, failure("HTTP probe failed with statuscode: 599")),
    ] {
        let got = outcome(&handler(Scheme::Http, server.port, &format!("/{code}"), &[])).await;
        assert_eq!(got, expected, "{code}");
    }
}

#[tokio::test]
async fn the_request_is_the_kubelets() {
    let server = Server::start(|_| status("200 OK")).await;
    let port = server.port;
    let ask = async |headers: &[(&str, &str)]| {
        assert_eq!(outcome(&handler(Scheme::Http, port, "live?a=b", headers)).await, ProbeOutcome::Success);
        server.requests().pop().unwrap()
    };
    let plain = ask(&[]).await;
    assert_eq!(
        plain,
        format!(
            "GET /live?a=b HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUser-Agent: kube-probe/1.35\r\nAccept: */*\r\n\
             Connection: close\r\n\r\n"
        )
    );
    let custom = ask(&[
        ("host", "example.org"),
        ("User-Agent", "mine"),
        ("accept", "text/plain"),
        ("X-Twice", "1"),
        ("X-Twice", "2"),
        ("X-Empty", ""),
        ("Content-Length", "5"),
    ])
    .await;
    assert!(custom.contains("Host: example.org\r\n"), "{custom}");
    assert!(custom.contains("User-Agent: mine\r\n") && custom.contains("Accept: text/plain\r\n"), "{custom}");
    assert!(custom.contains("X-Twice: 1\r\nX-Twice: 2\r\n") && custom.contains("X-Empty: \r\n"), "{custom}");
    assert!(!custom.contains("Content-Length") && !custom.contains("kube-probe"), "{custom}");
    let removed = ask(&[("user-agent", ""), ("Accept", ""), ("Host", "")]).await;
    assert!(!removed.contains("User-Agent") && !removed.contains("Accept"), "{removed}");
    assert!(removed.contains(&format!("Host: 127.0.0.1:{port}\r\n")), "{removed}");

    let bad = outcome(&handler(Scheme::Http, port, "/", &[("a b", "c")])).await;
    let url = format!("http://127.0.0.1:{port}/");
    assert_eq!(bad, failure(format!("Get \"{url}\": net/http: invalid header field name \"a b\"")));
    let bad = outcome(&handler(Scheme::Http, port, "/", &[("X", "a\nb")])).await;
    assert_eq!(bad, failure(format!("Get \"{url}\": net/http: invalid header field value for \"X\"")));
}

#[tokio::test]
async fn redirects_within_the_host_are_followed() {
    let other = Server::start(|_| status("200 OK")).await;
    let port = other.port;
    let server = Server::start(move |head| {
        let path = head.split_whitespace().nth(1).unwrap();
        let location = match path {
            "/a" => "/b?x".to_owned(),
            "/b?x" => format!("http://127.0.0.1:{port}/other-port"),
            "/away" => "http://elsewhere.example/".to_owned(),
            "/loop" => "/loop".to_owned(),
            "/nowhere" => return "HTTP/1.1 302 Found\r\nContent-Length: 5\r\n\r\nhello".to_owned(),
            _ => return status("404 Not Found"),
        };
        format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 5\r\n\r\nhello")
    })
    .await;
    let host = [("Host", "my.app")];
    let at = |path| handler(Scheme::Http, server.port, path, &host);
    assert_eq!(outcome(&at("/a")).await, ProbeOutcome::Success);
    assert!(server.requests()[1].contains("Host: my.app"), "a relative redirect keeps the manifest's Host");
    assert!(other.requests()[0].contains(&format!("Host: 127.0.0.1:{port}\r\n")), "{:?}", other.requests());
    let warning = ProbeOutcome::Warning("Probe terminated redirects, Response body: hello".into());
    assert_eq!(outcome(&at("/away")).await, warning);
    assert_eq!(outcome(&at("/nowhere")).await, warning);
    let before = server.requests().len();
    assert_eq!(outcome(&at("/loop")).await, failure("Get \"/loop\": stopped after 10 redirects"));
    assert_eq!(server.requests().len() - before, 10);
}

#[tokio::test]
async fn a_body_is_read_to_ten_kibibytes() {
    let server = Server::start(|_| {
        let body = "x".repeat(11 << 10);
        // Longer than it is: who reads on would wait for ever.
        format!("HTTP/1.1 302 Found\r\nContent-Length: 99999999\r\n\r\n{body}[hang]")
    })
    .await;
    let body = "x".repeat(10 << 10);
    assert_eq!(
        outcome(&handler(Scheme::Http, server.port, "/", &[])).await,
        ProbeOutcome::Warning(format!("Probe terminated redirects, Response body: {body}"))
    );
}

#[tokio::test]
async fn connections_that_fail() {
    let listener = TcpListener::bind((LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let url = format!("http://127.0.0.1:{port}/");
    assert_eq!(
        outcome(&handler(Scheme::Http, port, "/", &[])).await,
        failure(format!("Get \"{url}\": dial tcp 127.0.0.1:{port}: connect: connection refused"))
    );
    let named = Handler::Http {
        scheme: Scheme::Http,
        host: Some("no..such..host".into()),
        port: 80,
        path: "/".into(),
        headers: vec![],
    };
    assert_eq!(
        run_probe(&named, LOCALHOST, Duration::from_secs(20), &no_exec()).await,
        failure("Get \"http://no..such..host:80/\": dial tcp: lookup no..such..host: no such host")
    );
}

#[tokio::test]
async fn servers_that_say_nothing_or_nonsense() {
    for (answer, text) in [
        ("hang", "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"),
        ("HTTP/1.1 200[hang]", "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"),
        ("", "EOF"),
        ("HTTP/1.1 200 O", "unexpected EOF"),
        (
            "SSH-2.0-OpenSSH_9.2\r\nmore",
            "net/http: HTTP/1.x transport connection broken: malformed HTTP response \"SSH-2.0-OpenSSH_9.2\"",
        ),
    ] {
        let server = Server::start(move |_| answer.to_owned()).await;
        let handler = handler(Scheme::Http, server.port, "/", &[]);
        // Only where the timeout is what is tested, is it short.
        let timeout = if answer.contains("hang") { Duration::from_secs(3) } else { Duration::from_secs(60) };
        let got = run_probe(&handler, LOCALHOST, timeout, &no_exec()).await;
        assert_eq!(got, failure(format!("Get \"http://127.0.0.1:{}/\": {text}", server.port)));
        assert_eq!(server.requests().len(), 1, "a failure is a verdict and not tried again");
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_says_nothing_about_the_server() {
    for (answer, text) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", "unexpected EOF"),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf[hang]",
            "context deadline exceeded (Client.Timeout or context cancellation while reading body)",
        ),
    ] {
        let server = Server::start(move |_| answer.to_owned()).await;
        let handler = handler(Scheme::Http, server.port, "/", &[]);
        let timeout = if answer.contains("hang") { Duration::from_secs(3) } else { Duration::from_secs(60) };
        let got = run_probe(&handler, LOCALHOST, timeout, &no_exec()).await;
        assert_eq!(got, ProbeOutcome::Unknown(text.to_owned()));
        assert_eq!(server.requests().len(), 3);
    }
}

#[tokio::test]
async fn a_connection_reset_names_both_ends() {
    let listener = TcpListener::bind((LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        // Closing with the rest of the request unread resets the connection.
        let _ = stream.read_u8().await;
    });
    let ProbeOutcome::Failure(text) = outcome(&handler(Scheme::Http, port, "/", &[])).await else { panic!() };
    assert!(text.starts_with(&format!("Get \"http://127.0.0.1:{port}/\": read tcp 127.0.0.1:")), "{text}");
    assert!(text.ends_with(&format!("->127.0.0.1:{port}: read: connection reset by peer")), "{text}");
    server.await.unwrap();
}

#[tokio::test]
async fn https_without_looking_at_the_certificate() {
    let server = Server::start_tls(|_| status("200 OK")).await;
    assert_eq!(outcome(&handler(Scheme::Https, server.port, "/", &[])).await, ProbeOutcome::Success);
    assert!(server.requests()[0].starts_with("GET / HTTP/1.1\r\n"));
    let sick = Server::start_tls(|_| status("503 Sick")).await;
    assert_eq!(
        outcome(&handler(Scheme::Https, sick.port, "/", &[])).await,
        failure("HTTP probe failed with statuscode: 503")
    );
}

#[tokio::test]
async fn https_to_a_server_that_only_speaks_http2() {
    let listener = TcpListener::bind((LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let stream = acceptor(&["h2"]).accept(stream).await.unwrap();
        let service = service_fn(|request: http::Request<Incoming>| async move {
            assert_eq!(request.uri().authority().unwrap().as_str(), "my.app");
            assert_eq!(request.headers()["user-agent"], "kube-probe/1.35");
            Ok::<_, std::convert::Infallible>(http::Response::new(Full::new(Bytes::from("ok"))))
        });
        let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service);
        let _ = connection.await;
    });
    let handler = handler(Scheme::Https, port, "/", &[("Host", "my.app")]);
    assert_eq!(outcome(&handler).await, ProbeOutcome::Success);
    server.await.unwrap();
}

#[tokio::test]
async fn https_to_what_is_not_tls() {
    let listener = TcpListener::bind((LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = async |bytes: &'static [u8]| {
        let (mut stream, _): (TcpStream, _) = listener.accept().await.unwrap();
        let mut hello = [0; 4096];
        let _ = stream.read(&mut hello).await;
        let _ = stream.write_all(bytes).await;
    };
    for (bytes, text) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], "http: server gave HTTP response to HTTPS client"),
        (b"SSH-2.0-OpenSSH\r\n", "tls: first record does not look like a TLS handshake"),
        (b"\x15\x03\x03\x00\x02\x02\x28", "remote error: tls: handshake failure"),
        (b"", "EOF"),
    ] {
        let probed = handler(Scheme::Https, port, "/", &[]);
        let (got, ()) = tokio::join!(outcome(&probed), answer(bytes));
        assert_eq!(got, failure(format!("Get \"https://127.0.0.1:{port}/\": {text}")));
    }
}
