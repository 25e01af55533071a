//! From HTTP to a stream: what the client offers, and the `101` that takes it up.

use http::header::{
    CONNECTION, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
};
use http::header::{SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderMap, Response, StatusCode};
use pod_api::failure::Failure;

use super::channel::Protocol;
use super::{Refusal, websocket};
use crate::body::{self, Body};

const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const ACCEPTED_PROTOCOL: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");

/// What a client wants instead of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offer {
    WebSocket,
    Spdy,
}

/// # Errors
/// 400 for a request that asks for no upgrade, or for another one.
pub(super) fn offered(headers: &HeaderMap) -> Result<Offer, Failure> {
    let wanted = words(headers, &CONNECTION).any(|word| word.eq_ignore_ascii_case("upgrade"));
    let to = headers.get(UPGRADE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match wanted {
        true if to.eq_ignore_ascii_case("websocket") => Ok(Offer::WebSocket),
        true if to.eq_ignore_ascii_case("SPDY/3.1") => Ok(Offer::Spdy),
        _ => Err(Failure::bad_request("Upgrade request required")),
    }
}

/// The subprotocols the client names, best first; one empty name if it names none.
pub(super) fn subprotocols(headers: &HeaderMap) -> Vec<&str> {
    let named: Vec<&str> = words(headers, &SEC_WEBSOCKET_PROTOCOL).collect();
    if named.is_empty() { vec![""] } else { named }
}

/// The client's first subprotocol that is also ours.
///
/// # Errors
/// 403 if there is none.
pub(super) fn choose(headers: &HeaderMap, ours: &[Protocol]) -> Result<Protocol, Refusal> {
    let theirs = subprotocols(headers);
    let chosen = theirs.iter().find_map(|name| ours.iter().find(|protocol| protocol.name == *name));
    chosen.copied().ok_or_else(|| {
        let supported: Vec<&str> = ours.iter().map(|protocol| protocol.name).filter(|name| !name.is_empty()).collect();
        let text = format!(
            "requested protocol(s) are not supported: [{}]; supports [{}]",
            theirs.join(" "),
            supported.join(" ")
        );
        Refusal::text(StatusCode::FORBIDDEN, text)
    })
}

/// The answer that begins a WebSocket.
///
/// # Errors
/// 400 for a handshake that is none (RFC 6455 §4.2.1).
pub(super) fn to_websocket(headers: &HeaderMap, subprotocol: &str) -> Result<Response<Body>, Refusal> {
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        let mut refusal = body::answer(
            StatusCode::UPGRADE_REQUIRED,
            HeaderValue::from_static("text/plain; charset=utf-8"),
            "only version 13 of WebSocket is spoken here",
        );
        refusal.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return Err(Refusal::Plain(Box::new(refusal)));
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).and_then(websocket::accept);
    let key = key.ok_or_else(|| Failure::bad_request("a WebSocket handshake needs a Sec-WebSocket-Key"))?;
    let mut response = switching("websocket");
    response.headers_mut().insert(SEC_WEBSOCKET_ACCEPT, key);
    if let Ok(name) = HeaderValue::from_str(subprotocol)
        && !name.is_empty()
    {
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, name);
    }
    Ok(response)
}

/// The answer that begins SPDY, and the chosen one of `ours`.
///
/// # Errors
/// 403 with the list of ours if the client speaks none of them, 400 if it does not say (`httpstream.Handshake`).
pub(super) fn to_spdy(headers: &HeaderMap, ours: &[&'static str]) -> Result<(Response<Body>, &'static str), Refusal> {
    let theirs: Vec<&str> = words(headers, &STREAM_PROTOCOL).collect();
    if theirs.is_empty() {
        return Err(Failure::bad_request("unable to upgrade: X-Stream-Protocol-Version is required").into());
    }
    let Some(chosen) = theirs.iter().find_map(|name| ours.iter().find(|one| *one == name)) else {
        let text = format!(
            "unable to upgrade: unable to negotiate protocol: client supports [{}], server accepts [{}]",
            theirs.join(" "),
            ours.join(" ")
        );
        let mut refusal =
            body::answer(StatusCode::FORBIDDEN, HeaderValue::from_static("text/plain; charset=utf-8"), text);
        for name in ours {
            refusal.headers_mut().append(ACCEPTED_PROTOCOL, HeaderValue::from_static(name));
        }
        return Err(Refusal::Plain(Box::new(refusal)));
    };
    let mut response = switching("SPDY/3.1");
    response.headers_mut().insert(STREAM_PROTOCOL, HeaderValue::from_static(chosen));
    Ok((response, chosen))
}

fn switching(to: &'static str) -> Response<Body> {
    let mut response = Response::new(body::full(bytes::Bytes::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static(to));
    response
}

/// The comma-separated words of all headers of that name.
fn words<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::super::channel::REMOTE;
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn offers_are_told_apart() {
        assert_eq!(
            offered(&headers(&[("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")])),
            Ok(Offer::WebSocket)
        );
        assert_eq!(offered(&headers(&[("connection", "Upgrade"), ("upgrade", "SPDY/3.1")])), Ok(Offer::Spdy));
        assert!(offered(&headers(&[("upgrade", "websocket")])).is_err());
        assert!(offered(&headers(&[("connection", "upgrade"), ("upgrade", "h2c")])).is_err());
    }

    #[test]
    fn the_clients_first_common_protocol_is_chosen() {
        let choice =
            |value: &'static str| choose(&headers(&[("sec-websocket-protocol", value)]), REMOTE).map(|p| p.name).ok();
        assert_eq!(choice("v9.channel.k8s.io, v4.channel.k8s.io, v5.channel.k8s.io"), Some("v4.channel.k8s.io"));
        assert_eq!(choice("other"), None);
        assert_eq!(choose(&HeaderMap::new(), REMOTE).map(|p| p.name).ok(), Some(""));
        let spdy =
            headers(&[("x-stream-protocol-version", "v5.x"), ("x-stream-protocol-version", "v4.channel.k8s.io")]);
        let (response, chosen) = to_spdy(&spdy, &["v4.channel.k8s.io"]).ok().unwrap();
        assert_eq!((response.status(), chosen), (StatusCode::SWITCHING_PROTOCOLS, "v4.channel.k8s.io"));
        let Err(Refusal::Plain(refused)) = to_spdy(&spdy, &["a", "b"]) else {
            panic!("it was not refused in plain text")
        };
        assert_eq!(refused.headers().get_all(ACCEPTED_PROTOCOL).iter().collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn a_handshake_needs_its_parts() {
        let good = headers(&[("sec-websocket-version", "13"), ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")]);
        let response = to_websocket(&good, "v5.channel.k8s.io").ok().unwrap();
        assert_eq!(response.headers()["sec-websocket-protocol"], "v5.channel.k8s.io");
        assert!(to_websocket(&headers(&[("sec-websocket-version", "8")]), "").is_err());
        assert!(to_websocket(&headers(&[("sec-websocket-version", "13")]), "").is_err());
    }
}
