//! `grpc`: the Check call of the gRPC health protocol (`grpc.health.v1.Health`), in the clear over HTTP/2, its two tiny
//! messages encoded by hand.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, TE, USER_AGENT};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use pod_plan::ProbeOutcome;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::dial::{FirstBytes, Watched};
use super::http::PROBE_AGENT;
use super::text;

#[cfg(test)]
mod tests;

/// grpc-go also keeps trying to connect until the deadline (after a second, so with the usual timeout once). Trying
/// more often finds a server that is just coming up.
const BETWEEN_TRIES: Duration = Duration::from_millis(100);
/// More than any health answer has.
const ANSWER_BYTES: usize = 64 << 10;
/// `frame length (3 bytes), type, …`: the first thing an HTTP/2 server says is SETTINGS, type 4 (RFC 9113 §3.4).
const SETTINGS: u8 = 4;

pub(super) async fn probe(
    target: IpAddr,
    port: u16,
    service: &str,
    timeout: Duration,
    deadline: Instant,
) -> ProbeOutcome {
    let address = SocketAddr::new(target, port);
    let mut reached = FirstBytes::default();
    let checked = tokio::time::timeout_at(deadline, async {
        loop {
            match check(address, service, timeout, &mut reached).await {
                Ok(answer) => return answer,
                // Nothing there that speaks HTTP/2.
                Err(_) if !is_http2(&reached) => tokio::time::sleep(BETWEEN_TRIES).await,
                Err(error) => return Answer::Status { code: UNAVAILABLE, message: text::chain(&error) },
            }
        }
    });
    match checked.await {
        Ok(answer) => verdict(answer, timeout),
        Err(_) if is_http2(&reached) => late(timeout),
        Err(_) => ProbeOutcome::Failure(format!(
            "timeout: failed to connect service \"{address}\" within {}: context deadline exceeded",
            text::duration(timeout)
        )),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// `HealthCheckResponse.status`.
    Health(u64),
    /// Any status but OK.
    Status { code: u32, message: String },
}

const UNKNOWN: u32 = 2;
const DEADLINE_EXCEEDED: u32 = 4;
const PERMISSION_DENIED: u32 = 7;
const UNIMPLEMENTED: u32 = 12;
const INTERNAL: u32 = 13;
const UNAVAILABLE: u32 = 14;
const UNAUTHENTICATED: u32 = 16;

fn verdict(answer: Answer, timeout: Duration) -> ProbeOutcome {
    ProbeOutcome::Failure(match answer {
        Answer::Health(1) => return ProbeOutcome::Success,
        Answer::Health(status) => format!("service unhealthy (responded with \"{}\")", health_name(status)),
        Answer::Status { code: UNIMPLEMENTED, message } => {
            format!("error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {message}")
        }
        Answer::Status { code: DEADLINE_EXCEEDED, .. } => return late(timeout),
        Answer::Status { code, message } => {
            format!("error: health rpc probe failed: rpc error: code = {} desc = {message}", code_name(code))
        }
    })
}

fn late(timeout: Duration) -> ProbeOutcome {
    ProbeOutcome::Failure(format!("timeout: health rpc did not complete within {}", text::duration(timeout)))
}

fn is_http2(reached: &FirstBytes) -> bool {
    reached.get().is_some_and(|first| first.get(3) == Some(&SETTINGS) && first[0] == 0)
}

#[derive(Debug, thiserror::Error)]
enum CheckError {
    #[error(transparent)]
    Connect(#[from] std::io::Error),
    #[error(transparent)]
    Build(#[from] http::Error),
    #[error(transparent)]
    Hyper(#[from] hyper::Error),
}

/// `reached` becomes this attempt's first bytes.
async fn check(
    address: SocketAddr,
    service: &str,
    timeout: Duration,
    reached: &mut FirstBytes,
) -> Result<Answer, CheckError> {
    let stream = TcpStream::connect(address).await?;
    let _ = stream.set_nodelay(true);
    let (stream, first) = Watched::new(stream);
    *reached = first;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    let request = http::Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
        .header(USER_AGENT, PROBE_AGENT)
        .header("grpc-timeout", format!("{}m", timeout.as_millis()))
        .body(Full::new(framed(&encode_request(service))))?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        read_answer(response).await
    };
    // Both in this task: whatever ends the probe ends the connection.
    tokio::select! {
        // First, because a server may answer and close at once.
        biased;
        answer = exchange => answer,
        Err(error) = connection => Err(error.into()),
    }
}

async fn read_answer(response: http::Response<hyper::body::Incoming>) -> Result<Answer, CheckError> {
    let (head, mut body) = response.into_parts();
    if let Some(status) = grpc_status(&head.headers) {
        return Ok(status);
    }
    let content_type = head.headers.get(CONTENT_TYPE).map(|value| String::from_utf8_lossy(value.as_bytes()));
    if head.status != http::StatusCode::OK || !content_type.as_ref().is_some_and(|t| t.starts_with("application/grpc"))
    {
        return Ok(not_grpc(head.status, content_type.as_deref()));
    }
    let mut message = Vec::new();
    let mut trailers = HeaderMap::new();
    while let Some(frame) = body.frame().await {
        match frame?.into_data() {
            Ok(data) if message.len() + data.len() > ANSWER_BYTES => {
                return Ok(Answer::Status { code: INTERNAL, message: "the answer is too long".to_owned() });
            }
            Ok(data) => message.extend_from_slice(&data),
            Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
        }
    }
    if let Some(status) = grpc_status(&trailers) {
        return Ok(status);
    }
    if !trailers.contains_key("grpc-status") {
        let message = "server closed the stream without sending trailers".to_owned();
        return Ok(Answer::Status { code: INTERNAL, message });
    }
    // A frame: one byte for compression (none was offered), four of length.
    Ok(match message.get(5..).and_then(decode_status) {
        Some(status) if message[0] == 0 => Answer::Health(status),
        _ => Answer::Status { code: INTERNAL, message: "failed to unmarshal the received message".to_owned() },
    })
}

/// `None` for OK and for headers that do not tell.
fn grpc_status(headers: &HeaderMap) -> Option<Answer> {
    let status = headers.get("grpc-status")?;
    let code = status.to_str().ok().and_then(|code| code.parse().ok()).unwrap_or(UNKNOWN);
    let message = headers.get("grpc-message").map(|message| unescape(message.as_bytes())).unwrap_or_default();
    (code != 0).then_some(Answer::Status { code, message })
}

/// An HTTP server, but not for gRPC (gRPC's "HTTP to gRPC Status Code Mapping").
fn not_grpc(status: http::StatusCode, content_type: Option<&str>) -> Answer {
    let code = match status.as_u16() {
        400 => INTERNAL,
        401 => UNAUTHENTICATED,
        403 => PERMISSION_DENIED,
        404 => UNIMPLEMENTED,
        429 | 502..=504 => UNAVAILABLE,
        _ => UNKNOWN,
    };
    let reason = status.canonical_reason().unwrap_or_default();
    let status = status.as_u16();
    let mut message = format!("unexpected HTTP status code received from server: {status} ({reason})");
    match content_type {
        None => message.push_str("; malformed header: missing HTTP content-type"),
        Some(other) if !other.starts_with("application/grpc") => {
            message.push_str(&format!("; transport: received unexpected content-type \"{other}\""));
        }
        Some(_) => {}
    }
    Answer::Status { code, message }
}

/// `message HealthCheckRequest { string service = 1; }`
fn encode_request(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if service.is_empty() {
        return message;
    }
    message.push(1 << 3 | 2);
    let mut length = service.len();
    while length >= 0x80 {
        message.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    message.push(length as u8);
    message.extend_from_slice(service.as_bytes());
    message
}

fn framed(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    [&[0], length.to_be_bytes().as_slice(), message].concat().into()
}

/// `message HealthCheckResponse { ServingStatus status = 1; }`: the last value of field 1, else 0. `None` if this is no
/// such message.
fn decode_status(mut message: &[u8]) -> Option<u64> {
    let mut status = 0;
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        match (tag >> 3, tag & 7) {
            (1, 0) => status = varint(&mut message)?,
            (_, 0) => drop(varint(&mut message)?),
            (_, 1) => message = message.get(8..)?,
            (_, 2) => {
                let length = usize::try_from(varint(&mut message)?).ok()?;
                message = message.get(length..)?;
            }
            (_, 5) => message = message.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// `grpc-message` is percent-encoded UTF-8.
fn unescape(text: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = after.get(..2).filter(|_| byte == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        match escaped.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(decoded) => {
                bytes.push(decoded);
                rest = &after[2..];
            }
            None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn health_name(status: u64) -> String {
    match status {
        0 => "UNKNOWN".to_owned(),
        1 => "SERVING".to_owned(),
        2 => "NOT_SERVING".to_owned(),
        3 => "SERVICE_UNKNOWN".to_owned(),
        other => other.to_string(),
    }
}

fn code_name(code: u32) -> String {
    const NAMES: [&str; 17] = [
        "OK",
        "Canceled",
        "Unknown",
        "InvalidArgument",
        "DeadlineExceeded",
        "NotFound",
        "AlreadyExists",
        "PermissionDenied",
        "ResourceExhausted",
        "FailedPrecondition",
        "Aborted",
        "OutOfRange",
        "Unimplemented",
        "Internal",
        "Unavailable",
        "DataLoss",
        "Unauthenticated",
    ];
    usize::try_from(code).ok().and_then(|code| NAMES.get(code)).map_or_else(|| format!("Code({code})"), |n| (*n).into())
}
