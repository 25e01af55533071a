use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use http_body_util::StreamBody;
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;

use super::*;
use crate::batch::Record;
use crate::sink::http::{Authorization, Compression, Protocol};
use crate::sink::tls::tests::{World, config};

/// The first byte of a TLS connection (RFC 8446 §5.1).
const HANDSHAKE: u8 = 22;

type Seen = Arc<Mutex<Vec<(HeaderMap, Bytes)>>>;

/// An HTTP/2 server that answers calls with these statuses, in order; the rest with 0. With TLS it closes the connection
/// behind each answer.
fn collector(
    statuses: Vec<(&'static str, &'static str)>,
    tls: Option<Arc<rustls::ServerConfig>>,
) -> (SocketAddr, Seen, Arc<Mutex<Vec<u8>>>) {
    let (seen, firsts) = (Seen::default(), Arc::<Mutex<Vec<u8>>>::default());
    let statuses = Arc::new(Mutex::new(std::collections::VecDeque::from(statuses)));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (calls, begun) = (Arc::clone(&seen), Arc::clone(&firsts));
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            listener.set_nonblocking(true).unwrap();
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let mut first = [0];
                stream.peek(&mut first).await.unwrap();
                begun.lock().unwrap().push(first[0]);
                let (calls, statuses) = (Arc::clone(&calls), Arc::clone(&statuses));
                let answered = Arc::new(tokio::sync::Notify::new());
                let done = Arc::clone(&answered);
                let service = service_fn(move |request: Request<Incoming>| {
                    let (calls, statuses) = (Arc::clone(&calls), Arc::clone(&statuses));
                    let done = Arc::clone(&done);
                    async move {
                        let (head, body) = request.into_parts();
                        assert_eq!(head.uri.path(), METHOD);
                        let authority = head.uri.authority().map_or("", |authority| authority.as_str());
                        assert!(!authority.contains('@'), "{authority}");
                        let body = body.collect().await.unwrap().to_bytes();
                        calls.lock().unwrap().push((head.headers, body));
                        let (code, message) = statuses.lock().unwrap().pop_front().unwrap_or(("0", ""));
                        let mut trailers = HeaderMap::new();
                        trailers.insert("grpc-status", HeaderValue::from_static(code));
                        trailers.insert("grpc-message", HeaderValue::from_static(message));
                        let frames = [
                            Ok::<_, Infallible>(Frame::data(Bytes::from_static(&[0; 5]))),
                            Ok(Frame::trailers(trailers)),
                        ];
                        done.notify_one();
                        Ok::<_, Infallible>(http::Response::new(StreamBody::new(Steps(frames.into_iter()))))
                    }
                });
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let tls = tls.clone().map(tokio_rustls::TlsAcceptor::from);
                tokio::spawn(async move {
                    let Some(tls) = tls else {
                        let _ = server.serve_connection(TokioIo::new(stream), service).await;
                        return;
                    };
                    let Ok(stream) = tls.accept(stream).await else { return };
                    let mut connection = std::pin::pin!(server.serve_connection(TokioIo::new(stream), service));
                    // Cancelling is safe: the connection is polled on.
                    tokio::select! {
                        _ = &mut connection => return,
                        () = answered.notified() => connection.as_mut().graceful_shutdown(),
                    }
                    let _ = connection.await;
                });
            }
        });
    });
    (address, seen, firsts)
}

/// A stream that is always ready.
struct Steps<I>(I);

impl<I: Iterator + Unpin> futures_util::Stream for Steps<I> {
    type Item = I::Item;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<I::Item>> {
        std::task::Poll::Ready(self.0.next())
    }
}

fn options(url: String) -> HttpOptions {
    HttpOptions {
        url: url.parse().unwrap(),
        protocol: Protocol::Otlp { attributes: Vec::new() },
        compression: Compression::None,
        headers: Vec::new(),
        authorization: Authorization::None,
        timeout: Duration::from_secs(20),
    }
}

fn batch() -> [Arc<Batch>; 1] {
    let mut batch = Batch::new(Arc::default(), 0);
    let (flags, severity) = (Default::default(), Default::default());
    batch.push(&Record { time: 7, flags, severity, body: b"hello", fields: b"" });
    [Arc::new(batch)]
}

#[test]
fn calls_are_framed_and_statuses_decide() {
    let statuses = vec![("0", ""), ("14", "restarting"), ("3", "bad"), ("8", "received message larger than max")];
    let (address, seen, _) = collector(statuses, None);
    let attributes = vec![("service.name".to_owned(), "web".to_owned())];
    let mut sink = GrpcSink::new(options(format!("http://u:secret@{address}")), attributes, None).unwrap();
    let batch = batch();
    sink.deliver(&batch).unwrap();
    let failure = sink.deliver(&batch).unwrap_err();
    assert!(matches!(&failure, Failure::Retry(text, _) if text.ends_with("gRPC status 14: restarting")), "{failure:?}");
    assert!(!format!("{failure:?}").contains("secret"), "{failure:?}");
    assert!(matches!(sink.deliver(&batch), Err(Failure::Refused(_))));
    assert!(matches!(sink.deliver(&batch), Err(Failure::TooLarge(_))));
    sink.deliver(&batch).unwrap();
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 5);
    let (headers, body) = &seen[0];
    assert_eq!(
        (&headers["content-type"], &headers["te"]),
        (&"application/grpc".parse().unwrap(), &"trailers".parse().unwrap())
    );
    assert_eq!(body[0], 0);
    assert_eq!(u32::from_be_bytes([body[1], body[2], body[3], body[4]]) as usize, body.len() - 5);
    assert!(body.windows(5).any(|five| five == b"hello"));
}

/// What begins in the clear would show the token and the lines to everybody on the way.
#[test]
fn a_connection_that_was_closed_is_replaced_by_one_with_tls() {
    let world = World::new();
    let (address, seen, firsts) = collector(Vec::new(), Some(config(&world.servers, &world.clients)));
    let options = options(format!("https://localhost:{}", address.port()));
    let mut sink = GrpcSink::new(options, Vec::new(), Some(world.tls(true))).unwrap();
    for _ in 0..3 {
        // The collector is gone before the next call, and this is known.
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while sink.connection.as_ref().is_some_and(|connection| !connection.is_closed()) {
            assert!(std::time::Instant::now() < deadline, "the connection stays");
            sink.runtime.block_on(async { tokio::time::sleep(Duration::from_millis(1)).await });
        }
        let outcome = sink.deliver(&batch());
        let firsts = firsts.lock().unwrap();
        assert!(firsts.iter().all(|first| *first == HANDSHAKE), "{firsts:?}, {outcome:?}");
        outcome.unwrap();
    }
    assert_eq!((seen.lock().unwrap().len(), firsts.lock().unwrap().len()), (3, 3));
}
