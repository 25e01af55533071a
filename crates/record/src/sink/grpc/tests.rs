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

type Seen = Arc<Mutex<Vec<(HeaderMap, Bytes)>>>;

/// An HTTP/2 server that answers calls with these statuses, in order; the rest with 0.
fn collector(statuses: Vec<(&'static str, &'static str)>) -> (SocketAddr, Seen) {
    let seen = Seen::default();
    let statuses = Arc::new(Mutex::new(std::collections::VecDeque::from(statuses)));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let calls = Arc::clone(&seen);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            listener.set_nonblocking(true).unwrap();
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let (calls, statuses) = (Arc::clone(&calls), Arc::clone(&statuses));
                let service = service_fn(move |request: Request<Incoming>| {
                    let (calls, statuses) = (Arc::clone(&calls), Arc::clone(&statuses));
                    async move {
                        let (head, body) = request.into_parts();
                        assert_eq!(head.uri.path(), METHOD);
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
                        Ok::<_, Infallible>(http::Response::new(StreamBody::new(Steps(frames.into_iter()))))
                    }
                });
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                tokio::spawn(async move {
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
    });
    (address, seen)
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

#[test]
fn calls_are_framed_and_statuses_decide() {
    let (address, seen) =
        collector(vec![("0", ""), ("14", "restarting"), ("3", "bad"), ("8", "received message larger than max")]);
    let options = HttpOptions {
        url: format!("http://{address}").parse().unwrap(),
        protocol: Protocol::Otlp { attributes: Vec::new() },
        compression: Compression::None,
        headers: Vec::new(),
        authorization: Authorization::None,
        timeout: Duration::from_secs(20),
    };
    let mut sink = GrpcSink::new(options, vec![("service.name".to_owned(), "web".to_owned())], None).unwrap();
    let mut batch = Batch::new(Arc::default(), 0);
    let (flags, severity) = (Default::default(), Default::default());
    batch.push(&Record { time: 7, flags, severity, body: b"hello", fields: b"" });
    let batch = [Arc::new(batch)];
    sink.deliver(&batch).unwrap();
    let failure = sink.deliver(&batch).unwrap_err();
    assert!(matches!(&failure, Failure::Retry(text, _) if text.ends_with("gRPC status 14: restarting")), "{failure:?}");
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
