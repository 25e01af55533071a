//! HTTP(S) receivers: NDJSON, JSON arrays, Loki, OTLP, Elasticsearch, S3. One connection, one request at a time; the queue does the rest.
//!
//! The thread has a little runtime of its own, which only runs while a request is under way.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
pub use http::{HeaderName, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;

use super::s3::Bucket;
use super::tls::Tls;
use super::{Failure, Sink, chain};
use crate::batch::Batch;
use crate::encode::{self, Encoder, Encoding};

/// Read of an answer; more is not interesting.
const ANSWER: usize = 64 * 1024;
/// A bulk answer has an item for each record.
const BULK_ANSWER: usize = 8 << 20;
/// Shown of an answer in a message.
const SHOWN: usize = 200;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protocol {
    Json(Encoding),
    Loki {
        labels: Vec<(String, String)>,
    },
    Otlp {
        attributes: Vec<(String, String)>,
    },
    /// `action` is the line before each document.
    Bulk {
        action: Vec<u8>,
    },
    S3(Box<Bucket>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

/// A header's value: written down, or in a file that is read for every request because it may be a token that rotates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Secret {
    Value(String),
    File(PathBuf),
}

impl Secret {
    pub(super) fn read(&self) -> Result<String, Failure> {
        match self {
            Secret::Value(text) => Ok(text.clone()),
            Secret::File(path) => std::fs::read_to_string(path)
                .map(|text| text.trim().to_owned())
                .map_err(|error| Failure::Retry(format!("failed to read {}: {error}", path.display()), None)),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authorization {
    None,
    Bearer(Secret),
    Basic(String, Secret),
}

#[derive(Debug, Clone)]
pub struct HttpOptions {
    pub url: Uri,
    pub protocol: Protocol,
    pub compression: Compression,
    pub headers: Vec<(HeaderName, Secret)>,
    pub authorization: Authorization,
    /// For connecting, and again for the answer.
    pub timeout: Duration,
}

#[derive(Debug)]
pub struct HttpSink {
    options: HttpOptions,
    runtime: Runtime,
    tls: Option<Tls>,
    connection: Option<SendRequest<Full<Bytes>>>,
    encoder: Encoder,
    /// Room for the next body, and the last one, to have its room back once it is sent.
    spare: Vec<u8>,
    sent: Bytes,
}

/// User information in a URL may be a password, and is no part of what is sent or shown (RFC 9110 §4.2.4).
pub(super) fn without_user(url: Uri) -> Uri {
    let mut parts = url.clone().into_parts();
    let host = parts.authority.as_ref().and_then(|authority| authority.as_str().rsplit_once('@')?.1.parse().ok());
    match host {
        Some(host) => {
            parts.authority = Some(host);
            Uri::from_parts(parts).unwrap_or(url)
        }
        None => url,
    }
}

impl HttpSink {
    /// `tls` is wanted when the URL is `https`.
    pub fn new(mut options: HttpOptions, tls: Option<Tls>) -> std::io::Result<HttpSink> {
        options.url = without_user(options.url);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let encoding = match &options.protocol {
            Protocol::Json(encoding) => *encoding,
            _ => Encoding::NdJson,
        };
        Ok(HttpSink {
            options,
            runtime,
            tls,
            connection: None,
            encoder: Encoder::new(encoding),
            spare: Vec::new(),
            sent: Bytes::new(),
        })
    }

    fn body(&mut self, batches: &[Arc<Batch>]) -> Vec<u8> {
        let mut out = std::mem::take(&mut self.spare);
        out.clear();
        match &self.options.protocol {
            Protocol::Json(_) | Protocol::S3(_) => self.encoder.append(&mut out, batches),
            Protocol::Bulk { action } => self.encoder.bulk(&mut out, batches, action),
            Protocol::Loki { labels } => encode::loki(&mut out, batches, labels),
            Protocol::Otlp { attributes } => {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                encode::otlp(&mut out, batches, attributes, i64::try_from(now.as_nanos()).unwrap_or(i64::MAX));
            }
        }
        out
    }

    fn request(&mut self, batches: &[Arc<Batch>]) -> Result<Request<Full<Bytes>>, Failure> {
        let mut headers = self.headers()?;
        let body = self.body(batches);
        let body = match self.options.compression {
            Compression::None => body,
            Compression::Gzip => {
                let mut gzip =
                    flate2::write::GzEncoder::new(Vec::with_capacity(body.len() / 6), flate2::Compression::fast());
                gzip.write_all(&body).and_then(|()| gzip.finish()).map_err(retry("failed to compress"))?
            }
            Compression::Zstd => zstd::bulk::compress(&body, 1).map_err(retry("failed to compress"))?,
        };
        let mut target = self.options.url.path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
        let mut method = http::Method::POST;
        if let Protocol::S3(bucket) = &self.options.protocol {
            let signed = bucket.sign(&self.options.url, &bucket.name(batches), &body, SystemTime::now())?;
            (target, method) = (signed.path, http::Method::PUT);
            for (name, text) in signed.headers {
                headers.insert(name, value(&text)?);
            }
        }
        self.sent = Bytes::from(body);
        let mut request = Request::new(Full::new(self.sent.clone()));
        *request.method_mut() = method;
        *request.uri_mut() = target.parse().map_err(|_| Failure::Refused("the URL's path is unusable".to_owned()))?;
        *request.headers_mut() = headers;
        Ok(request)
    }

    fn headers(&self) -> Result<HeaderMap, Failure> {
        let options = &self.options;
        let mut headers = header_map(options)?;
        headers.insert(header::HOST, value(options.url.authority().map_or("", |authority| authority.as_str()))?);
        let kind = match &options.protocol {
            Protocol::Json(Encoding::Text) => "text/plain; charset=utf-8",
            Protocol::Json(Encoding::NdJson) | Protocol::Bulk { .. } | Protocol::S3(_) => "application/x-ndjson",
            Protocol::Json(Encoding::JsonArray) | Protocol::Loki { .. } => "application/json",
            Protocol::Otlp { .. } => "application/x-protobuf",
        };
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        // An object is stored as it was sent; its name tells.
        let stored = matches!(options.protocol, Protocol::S3(_));
        match options.compression {
            _ if stored => {}
            Compression::None => {}
            Compression::Gzip => {
                headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            }
            Compression::Zstd => {
                headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("zstd"));
            }
        }
        Ok(headers)
    }
}

/// What every request of these options carries: who we are, credentials, and the configured ones.
pub(super) fn header_map(options: &HttpOptions) -> Result<HeaderMap, Failure> {
    let mut headers = HeaderMap::new();
    headers.insert(header::USER_AGENT, HeaderValue::from_static(concat!("outrigger-logs/", env!("CARGO_PKG_VERSION"))));
    let credentials = match &options.authorization {
        Authorization::None => None,
        Authorization::Bearer(token) => Some(format!("Bearer {}", token.read()?)),
        Authorization::Basic(user, password) => {
            let pair = format!("{user}:{}", password.read()?);
            Some(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair)))
        }
    };
    if let Some(credentials) = credentials {
        let mut credentials = value(&credentials)?;
        credentials.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, credentials);
    }
    for (name, secret) in &options.headers {
        headers.insert(name.clone(), value(&secret.read()?)?);
    }
    Ok(headers)
}

impl HttpSink {
    /// Fresh memory for every body costs as much as filling it. After a rush it is given back.
    fn take_back(&mut self) {
        let Ok(mut room) = std::mem::take(&mut self.sent).try_into_mut() else { return };
        let used = room.len();
        room.clear();
        let room = Vec::from(room);
        if self.options.compression == Compression::None && room.capacity() / 8 <= used {
            self.spare = room;
        }
    }
}

impl Sink for HttpSink {
    fn deliver(&mut self, batches: &[Arc<Batch>]) -> Result<(), Failure> {
        let outcome = self.post(batches);
        self.take_back();
        outcome
    }
}

impl HttpSink {
    fn post(&mut self, batches: &[Arc<Batch>]) -> Result<(), Failure> {
        let request = self.request(batches)?;
        let again = self.connection.is_some().then(|| request.clone());
        match (self.call(request), again) {
            // A receiver may close an idle connection at any time; that is not worth a pause.
            (Err(Failure::Retry(..)), Some(request)) if self.connection.is_none() => self.call(request),
            (outcome, _) => outcome,
        }
    }

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
    let mut sender = match connection.take() {
        Some(sender) => sender,
        None => {
            tokio::time::timeout(options.timeout, connect(&options.url, tls.map(Tls::config))).await.map_err(slow)??
        }
    };
    let answer = async {
        sender.ready().await.map_err(retry("connection lost"))?;
        let response = sender.send_request(request).await.map_err(retry("failed to send"))?;
        let (head, body) = response.into_parts();
        // The body must be read to use the connection again.
        let limit = if matches!(options.protocol, Protocol::Bulk { .. }) { BULK_ANSWER } else { ANSWER };
        let body = Limited::new(body, limit).collect().await.map(http_body_util::Collected::to_bytes);
        Ok::<_, Failure>((head, body))
    };
    let (head, body) = tokio::time::timeout(options.timeout, answer).await.map_err(slow)??;
    let bulk = matches!(options.protocol, Protocol::Bulk { .. });
    if let Ok(body) = &body {
        *connection = Some(sender);
        judge(&options.url, head.status, &head.headers, body)?;
        if bulk { judge_items(&options.url, body) } else { Ok(()) }
    } else if bulk && head.status.is_success() {
        // Without the answer nobody knows which were taken.
        Err(Failure::Retry(format!("the answer of {} could not be read", options.url), None))
    } else {
        judge(&options.url, head.status, &head.headers, &[])
    }
}

async fn connect(url: &Uri, tls: Option<Arc<rustls::ClientConfig>>) -> Result<SendRequest<Full<Bytes>>, Failure> {
    handshake(dial(url, tls).await?).await
}

/// A connection, with TLS or without.
pub(super) trait Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send {}
impl<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send> Stream for S {}

/// What is asked for with `https` is never sent without TLS.
pub(super) async fn dial(url: &Uri, tls: Option<Arc<rustls::ClientConfig>>) -> Result<Box<dyn Stream>, Failure> {
    let host = url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let secure = url.scheme() == Some(&http::uri::Scheme::HTTPS);
    let port = url.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let unreachable = format!("failed to connect to {host}:{port}");
    if secure && tls.is_none() {
        return Err(Failure::Retry(format!("{unreachable}: TLS is not set up"), None));
    }
    let stream = TcpStream::connect((host, port)).await.map_err(retry(&unreachable))?;
    // Requests are whole: waiting for more to send helps nobody.
    let _ = stream.set_nodelay(true);
    let Some(config) = tls else { return Ok(Box::new(stream)) };
    let name = ServerName::try_from(host.to_owned()).map_err(retry(&unreachable))?;
    let stream = TlsConnector::from(config).connect(name, stream).await.map_err(retry(&unreachable))?;
    Ok(Box::new(stream))
}

async fn handshake<S>(stream: S) -> Result<SendRequest<Full<Bytes>>, Failure>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, driver) = http1::handshake(TokioIo::new(stream)).await.map_err(retry("HTTP handshake failed"))?;
    // Its error is the same one the sender sees.
    tokio::spawn(async move {
        let _ = driver.await;
    });
    Ok(sender)
}

/// What an answer means for the records (RFC 9110 §15; OTLP and Loki use the same codes).
fn judge(url: &Uri, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Result<(), Failure> {
    if status.is_success() {
        return Ok(());
    }
    let shown = String::from_utf8_lossy(&body[..body.len().min(SHOWN)]);
    let shown = shown.split_whitespace().collect::<Vec<_>>().join(" ");
    let reason = format!("{url} answered {status}{}{shown}", if shown.is_empty() { "" } else { ": " });
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => Err(Failure::TooLarge(reason)),
        StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY | StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            Err(Failure::Refused(reason))
        }
        // 401, 403 and 404 are somebody's mistake elsewhere, and get repaired.
        _ => {
            let after = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
            Err(Failure::Retry(reason, after.map(Duration::from_secs)))
        }
    }
}

/// The items of a bulk answer: 429 and server errors are tried again, a document that is there already is taken.
fn judge_items(url: &Uri, body: &[u8]) -> Result<(), Failure> {
    let mut errors = None;
    let whole = crate::json::object(body, |(key, value)| {
        if key == b"errors" {
            errors = Some(value == b"true");
        }
    });
    match errors.filter(|_| whole) {
        Some(false) => return Ok(()),
        Some(true) => {}
        None => return Err(Failure::Retry(format!("{url} answered something that is no bulk answer"), None)),
    }
    let answer: serde_json::Value = serde_json::from_slice(body).map_err(retry("failed to read a bulk answer"))?;
    let (mut again, mut refused, mut reason) = (Vec::new(), Vec::new(), String::new());
    for (index, item) in answer["items"].as_array().into_iter().flatten().enumerate() {
        let Some(outcome) = item.as_object().and_then(|item| item.values().next()) else { continue };
        let status = outcome["status"].as_u64().unwrap_or(500);
        let telling = match status {
            200..=299 | 409 => continue,
            // A missing index or right is somebody's mistake elsewhere, and gets repaired.
            401 | 403 | 404 | 429 | 500.. => {
                again.push(index);
                reason.is_empty()
            }
            _ => {
                refused.push(index);
                refused.len() == 1
            }
        };
        if telling {
            let error = &outcome["error"];
            let part = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
            reason = format!("{url} answered an item with {status}: {} {}", part("type"), part("reason"));
            reason = reason.trim_end().chars().take(SHOWN * 2).collect();
        }
    }
    if again.is_empty() && refused.is_empty() {
        return Ok(());
    }
    Err(Failure::Items { again, refused, reason })
}

fn value(text: &str) -> Result<HeaderValue, Failure> {
    HeaderValue::from_str(text).map_err(|_| Failure::Retry("a header's value cannot be sent".to_owned(), None))
}

/// A failure to try again, with everything that caused it.
pub(super) fn retry<E: std::error::Error>(what: &str) -> impl FnOnce(E) -> Failure {
    move |error| Failure::Retry(chain(what, &error), None)
}

#[cfg(test)]
mod tests;
