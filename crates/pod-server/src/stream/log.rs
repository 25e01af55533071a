//! `pods/NAME/log`: what is asked for, and the ways it is delivered.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use logfile::Stream;
use logfile::follow::Options;
use pod_api::failure::Failure;
use pod_api::validate::FieldError;
use serde_json::Value;

use super::channel::{Protocol, READER};
use super::upgrade::{self, Offer};
use super::{Context, Refusal, container, flag, target, websocket, wire};
use crate::body::{self, Body};
use crate::query::Query;

mod read;

use read::Reader;

/// The parameters, checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Wanted {
    previous: bool,
    follow: bool,
    timestamps: bool,
    tail: Option<u64>,
    /// Nanoseconds since 1970.
    since: Option<i64>,
    limit: Option<u64>,
    stream: Option<Stream>,
}

pub(super) async fn serve(
    cx: Context,
    pod: &Value,
    query: &Query,
    request: Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64);
    let wanted = parse(query, container::name_of(pod), now)?;
    let chosen = container::choose(pod, query.text("container"))?;
    let websocket = upgrade::offered(request.headers()) == Ok(Offer::WebSocket);
    let reader = match pod["spec"]["nodeName"].as_str().unwrap_or_default().is_empty() {
        true => None,
        false => {
            let attempt = container::attempt(pod, &chosen, wanted.previous)?;
            Some(open(&cx, pod, &chosen, attempt, &wanted)?)
        }
    };
    if websocket {
        let protocol = upgrade::choose(request.headers(), READER)?;
        let response = upgrade::to_websocket(request.headers(), protocol.name)?;
        cx.spawn(deliver(request, protocol, reader));
        return Ok(response);
    }
    let body = match reader {
        None => body::full(Bytes::new()),
        Some(reader) => {
            let chunks = futures_util::stream::unfold(reader, |mut reader| async {
                let chunk = reader.next().await.transpose()?;
                Some((chunk.map(Frame::data), reader))
            });
            StreamBody::new(chunks).boxed_unsync()
        }
    };
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}

fn open(cx: &Context, pod: &Value, container: &str, attempt: u32, wanted: &Wanted) -> Result<Reader, Failure> {
    let target = target(pod, container);
    let path = cx.machine.log(&target, attempt);
    if wanted.previous && !path.exists() && logfile::files::rotated(&path).unwrap_or_default().is_empty() {
        let text = format!("previous terminated container {container:?} in pod {:?} not found", target.pod);
        return Err(Failure::bad_request(text));
    }
    let over: Option<read::IsOver> = wanted.follow.then(|| {
        let (current, closing) = (cx.current.clone(), cx.closing.clone());
        // Parsing is only worth it for another version.
        let mut known = (0, false);
        Box::new(move || {
            let (Some(object), false) = (current(), *closing.borrow()) else { return true };
            if known.0 != object.revision {
                let over = serde_json::from_slice::<Value>(&object.json)
                    .is_ok_and(|pod| container::attempt_is_over(&pod, &target.uid, &target.container, attempt));
                known = (object.revision, over);
            }
            known.1
        }) as read::IsOver
    });
    let options = Options { tail: wanted.tail, since: wanted.since, rotated: true, ..Options::default() };
    let form = read::Form {
        timestamps: wanted.timestamps,
        limit: wanted.limit,
        stream: wanted.stream,
        most: wanted.tail.filter(|_| !wanted.follow),
    };
    Ok(Reader::new(&path, attempt, options, form, over))
}

/// The whole log in messages, an empty one first (upstream's sign that the stream is there).
async fn deliver(request: Request<Incoming>, protocol: Protocol, reader: Option<Reader>) {
    let Ok(upgraded) = hyper::upgrade::on(request).await else { return };
    let (receiving, mut sending) = tokio::io::split(TokioIo::new(upgraded));
    let mut client = websocket::Reader::new(receiving);
    let (sender, queue) = wire::queue();
    let answer = sender.clone();
    let writing = queue.drain(&mut sending);
    let telling = async move {
        sender.payload(protocol.plain(b"")).await?;
        if let Some(mut reader) = reader {
            while let Ok(Some(bytes)) = reader.next().await {
                sender.payload(protocol.plain(&bytes)).await?;
            }
        }
        sender.payload(websocket::close(websocket::NORMAL)).await
    };
    let listening = websocket::answer_pings(&mut client, answer);
    wire::converse(writing, telling, listening).await;
}

/// # Errors
/// 400 for what is not a number or a time, 422 for what is none that makes sense (`ValidatePodLogOptions`).
fn parse(query: &Query, pod: &str, now: i64) -> Result<Wanted, Failure> {
    let mut wanted = Wanted {
        previous: flag(query, "previous"),
        follow: flag(query, "follow"),
        timestamps: flag(query, "timestamps"),
        ..Wanted::default()
    };
    let mut errors = Vec::new();
    let mut wrong = |path: &str, message: String| errors.push(FieldError { path: path.into(), message });
    match query.number("tailLines")? {
        Some(lines) if lines < 0 => {
            wrong("tailLines", format!("Invalid value: {lines}: must be greater than or equal to 0"));
        }
        lines => wanted.tail = lines.map(i64::unsigned_abs),
    }
    match query.number("limitBytes")? {
        Some(bytes) if bytes < 1 => wrong("limitBytes", format!("Invalid value: {bytes}: must be greater than 0")),
        bytes => wanted.limit = bytes.map(i64::unsigned_abs),
    }
    match (query.number("sinceSeconds")?, query.text("sinceTime")) {
        (Some(_), Some(_)) => {
            wrong("", "Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified".into());
        }
        (Some(seconds), None) if seconds < 1 => {
            wrong("sinceSeconds", format!("Invalid value: {seconds}: must be greater than 0"));
        }
        (Some(seconds), None) => wanted.since = Some(now.saturating_sub(seconds.saturating_mul(1_000_000_000))),
        (None, Some(time)) => {
            let parsed = logfile::time::parse_rfc3339(time.as_bytes());
            let text = || format!("parsing time {time:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse it");
            wanted.since = Some(parsed.ok_or_else(|| Failure::bad_request(text()))?);
        }
        (None, None) => {}
    }
    match query.text("stream") {
        None | Some("All") => {}
        Some(_) if wanted.tail.is_some() => {
            wrong("tailLines", "Forbidden: `tailLines` and specific `stream` are mutually exclusive for now".into());
        }
        Some("Stdout") => wanted.stream = Some(Stream::Stdout),
        Some("Stderr") => wanted.stream = Some(Stream::Stderr),
        Some(other) => {
            let text = format!("Unsupported value: {other:?}: supported values: \"All\", \"Stderr\", \"Stdout\"");
            wrong("stream", text);
        }
    }
    if errors.is_empty() { Ok(wanted) } else { Err(Failure::invalid("PodLogOptions", "", pod, &errors)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_786_788_000_000_000_000;

    fn parsed(query: &str) -> Result<Wanted, String> {
        parse(&Query::parse(query), "web", NOW).map_err(|failure| format!("{} {}", failure.code, failure.message))
    }

    #[test]
    fn parameters_are_read() {
        let all = parsed("follow=true&previous=1&timestamps=&tailLines=0&limitBytes=9&sinceSeconds=2").unwrap();
        let since = Some(NOW - 2_000_000_000);
        let expected = Wanted {
            previous: true,
            follow: true,
            timestamps: true,
            tail: Some(0),
            since,
            limit: Some(9),
            stream: None,
        };
        assert_eq!(all, expected);
        assert_eq!(parsed("follow=false&timestamps=0").unwrap(), Wanted::default());
        assert_eq!(parsed("sinceTime=2026-08-15T10:00:00Z").unwrap().since, Some(NOW));
        assert_eq!(parsed("stream=Stderr").unwrap().stream, Some(Stream::Stderr));
        assert_eq!(parsed("stream=All").unwrap(), Wanted::default());
    }

    #[test]
    fn senseless_parameters_are_refused_in_upstreams_words() {
        for (query, expected) in [
            (
                "tailLines=-1",
                "422 PodLogOptions \"web\" is invalid: tailLines: Invalid value: -1: must be greater than or equal to 0",
            ),
            (
                "limitBytes=0",
                "422 PodLogOptions \"web\" is invalid: limitBytes: Invalid value: 0: must be greater than 0",
            ),
            (
                "sinceSeconds=0",
                "422 PodLogOptions \"web\" is invalid: sinceSeconds: Invalid value: 0: must be greater than 0",
            ),
            (
                "sinceSeconds=1&sinceTime=2026-08-15T10:00:00Z",
                "422 PodLogOptions \"web\" is invalid: : Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified",
            ),
            (
                "stream=x",
                "422 PodLogOptions \"web\" is invalid: stream: Unsupported value: \"x\": supported values: \"All\", \"Stderr\", \"Stdout\"",
            ),
            ("tailLines=abc", "400 strconv.ParseInt: parsing \"abc\": invalid syntax"),
            ("sinceTime=now", "400 parsing time \"now\" as \"2006-01-02T15:04:05Z07:00\": cannot parse it"),
        ] {
            assert_eq!(parsed(query), Err(expected.to_owned()));
        }
    }
}
