//! OTLP over gRPC: one HTTP/2 connection, one unary call at a time (opentelemetry.io, OTLP specification §OTLP/gRPC; the
//! framing is gRPC's "HTTP2 protocol mapping").

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::runtime::Runtime;

use super::http::{HttpOptions, dial, header_map, retry, without_user};
use super::tls::Tls;
use super::{Failure, Sink};
use crate::batch::Batch;
use crate::encode;

const METHOD: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
/// In front of a message.
const PREFIX: usize = 5;
/// Read of an answer.
const ANSWER: usize = 64 * 1024;

#[derive(Debug)]
pub struct GrpcSink {
    options: HttpOptions,
    attributes: Vec<(String, String)>,
    runtime: Runtime,
    tls: Option<Tls>,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl GrpcSink {
    /// Of the options, protocol and compression are not looked at.
    pub fn new(
        mut options: HttpOptions,
        attributes: Vec<(String, String)>,
        tls: Option<Tls>,
    ) -> std::io::Result<GrpcSink> {
        options.url = without_user(options.url);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(GrpcSink { options, attributes, runtime, tls, connection: None })
    }

    fn request(&self, batches: &[Arc<Batch>]) -> Result<Request<Full<Bytes>>, Failure> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        // Not compressed, and the length.
        let mut body = vec![0; PREFIX];
        encode::otlp(&mut body, batches, &self.attributes, i64::try_from(now.as_nanos()).unwrap_or(i64::MAX));
        let length = u32::try_from(body.len() - PREFIX).map_err(|_| Failure::TooLarge("4 GiB at once".to_owned()))?;
        body[1..PREFIX].copy_from_slice(&length.to_be_bytes());
        let scheme = self.options.url.scheme_str().unwrap_or("http");
        let authority = self.options.url.authority().map_or("", |authority| authority.as_str());
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = http::Method::POST;
        let unusable = |_| Failure::Refused("the URL is unusable".to_owned());
        *request.uri_mut() = format!("{scheme}://{authority}{METHOD}").parse().map_err(unusable)?;
        let mut headers = header_map(&self.options)?;
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        *request.headers_mut() = headers;
        Ok(request)
    }
}

impl Sink for GrpcSink {
    fn deliver(&mut self, batches: &[Arc<Batch>]) -> Result<(), Failure> {
        let request = self.request(batches)?;
        self.connection.take_if(|connection| connection.is_closed());
        let again = self.connection.is_some().then(|| request.clone());
        match (self.call(request), again) {
            // A collector may close an idle connection at any time.
            (Err(Failure::Retry(..)), Some(request)) if self.connection.is_none() => self.call(request),
            (outcome, _) => outcome,
        }
    }
}

impl GrpcSink {
    fn call(&mut self, request: Request<Full<Bytes>>) -> Result<(), Failure> {
        self.runtime.block_on(exchange(&self.options, &mut self.connection, self.tls.as_mut(), request))
    }
}

/// Over the connection that is open, or a new one: only where that is made is it decided whether it has TLS.
async fn exchange(
    options: &HttpOptions,
    connection: &mut Option<SendRequest<Full<Bytes>>>,
    tls: Option<&mut Tls>,
    request: Request<Full<Bytes>>,
) -> Result<(), Failure> {
    let slow = |_| Failure::Retry(format!("no answer from {} within {:?}", options.url, options.timeout), None);
    let connect = async {
        let stream = dial(&options.url, tls.map(Tls::alpn_h2)).await?;
        let shaken = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (sender, driver) = shaken.map_err(retry("HTTP/2 handshake failed"))?;
        // Its error is the same one the sender sees.
        tokio::spawn(async move {
            let _ = driver.await;
        });
        Ok::<_, Failure>(sender)
    };
    let mut sender = match connection.take() {
        Some(sender) => sender,
        None => tokio::time::timeout(options.timeout, connect).await.map_err(slow)??,
    };
    let call = async {
        sender.ready().await.map_err(retry("connection lost"))?;
        let response = sender.send_request(request).await.map_err(retry("failed to send"))?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER)
            .collect()
            .await
            .map_err(|error| Failure::Retry(format!("failed to read the answer of {}: {error}", options.url), None))?;
        Ok::<_, Failure>((head, body.trailers().cloned()))
    };
    let (head, trailers) = tokio::time::timeout(options.timeout, call).await.map_err(slow)??;
    *connection = Some(sender);
    // A call that fails at once has its status in the head.
    let trailers = if head.headers.contains_key("grpc-status") { Some(head.headers) } else { trailers };
    judge(&options.url, head.status, trailers.as_ref())
}

/// What may be tried again is listed by the OTLP specification ("Failures").
fn judge(url: &http::Uri, status: StatusCode, trailers: Option<&HeaderMap>) -> Result<(), Failure> {
    let text = |name: &str| trailers.and_then(|map| map.get(name)?.to_str().ok()).unwrap_or_default();
    let code = text("grpc-status");
    if status.is_success() && code == "0" {
        return Ok(());
    }
    let message = text("grpc-message");
    let shown = if code.is_empty() { status.to_string() } else { format!("gRPC status {code}") };
    let reason = format!("{url} answered {shown}{}{message}", if message.is_empty() { "" } else { ": " });
    match code {
        // INVALID_ARGUMENT.
        "3" => Err(Failure::Refused(reason)),
        // RESOURCE_EXHAUSTED also stands for a message that is too large; smaller ones help then, and do no harm else.
        "8" if message.contains("larger than max") => Err(Failure::TooLarge(reason)),
        _ => Err(Failure::Retry(reason, retry_delay(text("retry-after")))),
    }
}

fn retry_delay(text: &str) -> Option<Duration> {
    text.parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests;
