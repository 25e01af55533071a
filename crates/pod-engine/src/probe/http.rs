//! `httpGet`: a GET as Go's `net/http` client would make it, redirects within the same host included. Hooks use it, too.

use std::error::Error as _;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONNECTION, HOST, LOCATION, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use pod_plan::ProbeOutcome;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::dial::{FirstBytes, Watched, dial, within};
use super::tls::{self, TlsError};
use super::url::Url;
use super::{Handler, OUTPUT_BYTES, Scheme, text};

#[cfg(test)]
pub(crate) mod tests;

pub(crate) const PROBE_AGENT: &str = "kube-probe/1.35";
pub(crate) const HOOK_AGENT: &str = "kube-lifecycle/1.35";
/// Go's client gives up when it would send the eleventh request.
const REQUESTS: usize = 10;
/// Go has no limit on header lines, hyper's default is 100.
const HEADER_LINES: usize = 512;

const LATE_HEAD: &str = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
const LATE_BODY: &str = "context deadline exceeded (Client.Timeout or context cancellation while reading body)";

#[derive(Debug, Clone)]
pub(crate) struct Request {
    url: Url,
    headers: Vec<(String, String)>,
    agent: &'static str,
}

#[derive(Debug)]
pub(crate) enum GetError {
    /// Plain HTTP came back from what should be TLS.
    PlainHttp(String),
    Failed(String),
}

/// A response whose body has not been read. Dropping it closes the connection.
#[derive(Debug)]
pub(crate) struct Reply {
    status: u16,
    location: Option<String>,
    body: Incoming,
    place: String,
    _connection: Connection,
}

/// The task that moves a connection's bytes.
#[derive(Debug)]
struct Connection(JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// `Err` when the body could not be read: no verdict.
pub(super) async fn probe(request: &Request, deadline: Instant) -> Result<ProbeOutcome, String> {
    let reply = match get(request, Some(deadline)).await {
        Ok(reply) => reply,
        Err(error) => return Ok(ProbeOutcome::Failure(error.into_text())),
    };
    let status = reply.status;
    let body = match tokio::time::timeout_at(deadline, reply.read()).await {
        Ok(read) => read?,
        Err(_) => return Err(LATE_BODY.to_owned()),
    };
    Ok(match status {
        200..300 => ProbeOutcome::Success,
        // Only what leads to another host (or nowhere) gets here.
        300..400 => {
            let body = String::from_utf8_lossy(&body);
            ProbeOutcome::Warning(format!("Probe terminated redirects, Response body: {body}"))
        }
        // Without the body: it may hold what events should not.
        _ => ProbeOutcome::Failure(format!("HTTP probe failed with statuscode: {status}")),
    })
}

/// Sends a GET and follows redirects that stay on the same host name, whatever their port and scheme.
pub(crate) async fn get(request: &Request, deadline: Option<Instant>) -> Result<Reply, GetError> {
    let (headers, own_host) = request.headers()?;
    let mut url = request.url.clone();
    let mut host = own_host;
    for sent in 1.. {
        let reply = match within(deadline, exchange(&url, host.as_deref(), &headers)).await {
            Some(result) => result?,
            None => return Err(failed(&url, LATE_HEAD)),
        };
        let Some(location) = reply.redirect() else { return Ok(reply) };
        let next = url.join(location).map_err(|cause| failed(&location, &cause))?;
        if next.host != request.url.host {
            return Ok(reply);
        }
        if sent >= REQUESTS {
            return Err(failed(&location, "stopped after 10 redirects"));
        }
        // A Host header of the manifest's own goes along only where the redirect names no host.
        if location.contains("//") {
            host = None;
        }
        url = next;
    }
    Err(failed(&url, "stopped after 10 redirects"))
}

impl GetError {
    pub(crate) fn into_text(self) -> String {
        match self {
            GetError::PlainHttp(text) | GetError::Failed(text) => text,
        }
    }
}

impl Request {
    /// `None` if the handler is no `httpGet`.
    pub(crate) fn of(handler: &Handler, target: IpAddr, agent: &'static str) -> Option<Self> {
        let Handler::Http { scheme, host, port, path, headers } = handler else { return None };
        let host = host.clone().unwrap_or_else(|| target.to_string());
        Some(Self { url: Url::new(*scheme, &host, *port, path), headers: headers.clone(), agent })
    }

    /// The same in the clear, and so without credentials.
    pub(crate) fn in_the_clear(&self) -> Self {
        let mut plain = self.clone();
        plain.url.scheme = Scheme::Http;
        plain.headers.retain(|(name, _)| !name.eq_ignore_ascii_case(AUTHORIZATION.as_str()));
        plain
    }

    pub(crate) fn authority(&self) -> String {
        self.url.authority()
    }

    /// The header lines, and the manifest's `Host` if it has one. `User-Agent` and `Accept` get defaults; given with an
    /// empty value they are left out.
    fn headers(&self) -> Result<(HeaderMap, Option<String>), GetError> {
        let mut map = HeaderMap::new();
        let mut host = None;
        for (name, value) in &self.headers {
            let refuse = |problem: String| failed(&self.url, &format!("net/http: invalid header field {problem}"));
            let Ok(parsed) = HeaderName::from_bytes(name.as_bytes()) else {
                return Err(refuse(format!("name {}", text::quote(name.as_bytes()))));
            };
            let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) else {
                return Err(refuse(format!("value for {}", text::quote(name.as_bytes()))));
            };
            match parsed.as_str() {
                "host" => {
                    host = host.or_else(|| value.to_str().ok().filter(|host| !host.is_empty()).map(str::to_owned))
                }
                // They describe a body, and there is none.
                "content-length" | "transfer-encoding" | "trailer" => {}
                _ => {
                    map.append(parsed, value);
                }
            }
        }
        for (name, default) in [(USER_AGENT, self.agent), (ACCEPT, "*/*")] {
            match map.get(&name) {
                None => {
                    map.insert(name, HeaderValue::from_static(default));
                }
                Some(value) if value.is_empty() => {
                    map.remove(name);
                }
                Some(_) => {}
            }
        }
        Ok((map, host))
    }
}

impl Reply {
    /// Where to go on, if this response says so. Others of the 3xx family are answers in themselves.
    fn redirect(&self) -> Option<&str> {
        match self.status {
            301 | 302 | 303 | 307 | 308 => self.location.as_deref().filter(|location| !location.is_empty()),
            _ => None,
        }
    }

    /// The beginning of the body.
    async fn read(mut self) -> Result<Vec<u8>, String> {
        let mut kept = Vec::new();
        while kept.len() < OUTPUT_BYTES
            && let Some(frame) = self.body.frame().await
        {
            let frame = frame.map_err(|error| broken(&error, None, &self.place))?;
            if let Some(data) = frame.data_ref() {
                kept.extend_from_slice(&data[..data.len().min(OUTPUT_BYTES - kept.len())]);
            }
        }
        Ok(kept)
    }

    /// Reads the body so that the server can finish, but not for long.
    pub(crate) async fn discard(self) {
        let _ = tokio::time::timeout(Duration::from_secs(1), self.read()).await;
    }
}

fn failed(url: &dyn std::fmt::Display, cause: &str) -> GetError {
    GetError::Failed(format!("Get \"{url}\": {cause}"))
}

/// One request on a connection of its own.
async fn exchange(url: &Url, host: Option<&str>, headers: &HeaderMap) -> Result<Reply, GetError> {
    let stream = match dial(&url.host, url.port_number(), None).await {
        Ok(stream) => stream,
        Err(error) => return Err(failed(url, &error.into_text())),
    };
    // One small write each way: waiting for more would only cost time.
    let _ = stream.set_nodelay(true);
    let (stream, first) = Watched::new(stream);
    let place = stream.place();
    let authority = host.map_or_else(|| url.authority(), str::to_owned);
    let sent = match url.scheme {
        Scheme::Http => send(stream, false, url, &authority, headers).await,
        Scheme::Https => {
            let stream = match tls::connect(&url.host, stream, &first).await {
                Ok(stream) => stream,
                Err(TlsError::Failed(cause)) => return Err(failed(url, &cause)),
                Err(TlsError::PlainHttp) => {
                    let text = format!("Get \"{url}\": http: server gave HTTP response to HTTPS client");
                    return Err(GetError::PlainHttp(text));
                }
            };
            let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            send(stream, http2, url, &authority, headers).await
        }
    };
    let (response, connection) = sent.map_err(|error| {
        let cause = match error {
            SendError::Build(error) => error.to_string(),
            SendError::Hyper(error) => broken(&error, (url.scheme == Scheme::Http).then_some(&first), &place),
        };
        failed(url, &cause)
    })?;
    let (head, body) = response.into_parts();
    let location = head.headers.get(LOCATION).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    Ok(Reply { status: head.status.as_u16(), location, body, place, _connection: connection })
}

#[derive(Debug)]
enum SendError {
    Build(http::Error),
    Hyper(hyper::Error),
}

impl From<hyper::Error> for SendError {
    fn from(error: hyper::Error) -> Self {
        SendError::Hyper(error)
    }
}

async fn send<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    http2: bool,
    url: &Url,
    authority: &str,
    headers: &HeaderMap,
) -> Result<(http::Response<Incoming>, Connection), SendError> {
    let mut request = http::Request::builder().method(Method::GET);
    if http2 {
        request = request.version(Version::HTTP_2).uri(format!("{}://{authority}{}", url.scheme, url.target()));
    } else {
        request = request.uri(url.target()).header(HOST, authority);
    }
    let mut request = request.body(Empty::<Bytes>::new()).map_err(SendError::Build)?;
    request.headers_mut().extend(headers.clone());
    if http2 {
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        let connection = Connection(tokio::spawn(async { drop(connection.await) }));
        return Ok((sender.send_request(request).await?, connection));
    }
    request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .title_case_headers(true)
        .allow_obsolete_multiline_headers_in_responses(true)
        .max_headers(HEADER_LINES)
        .handshake(TokioIo::new(stream))
        .await?;
    let connection = Connection(tokio::spawn(async { drop(connection.await) }));
    Ok((sender.send_request(request).await?, connection))
}

/// What Go would say of a connection that broke. `first`: what came back, where it was in the clear.
fn broken(error: &hyper::Error, first: Option<&FirstBytes>, place: &str) -> String {
    let first = first.and_then(|first| first.get());
    let mut cause = error.source();
    while let Some(source) = cause {
        if let Some(error) = source.downcast_ref::<io::Error>() {
            if error.raw_os_error().is_some() {
                return format!("{place}: read: {}", text::errno(error));
            }
            if error.kind() == io::ErrorKind::UnexpectedEof {
                return "unexpected EOF".to_owned();
            }
        }
        cause = source.source();
    }
    if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
        return if first.is_none() { "EOF" } else { "unexpected EOF" }.to_owned();
    }
    if error.is_parse() {
        let why = match first {
            Some(first) if !first.starts_with(b"HTTP/1") => {
                let line = first.split(|byte| *byte == b'\n').next().unwrap_or_default();
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                format!("malformed HTTP response {}", text::quote(line))
            }
            _ => text::chain(error),
        };
        return format!("net/http: HTTP/1.x transport connection broken: {why}");
    }
    text::chain(error)
}
