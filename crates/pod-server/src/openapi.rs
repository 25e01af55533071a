//! The OpenAPI documents: made and compressed by `pod-schema`, sent as they are to whoever reads gzip.

use std::io::Read;

use bytes::Bytes;
use flate2::read::GzDecoder;
use http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_ENCODING, ETAG, EXPIRES, HeaderValue, IF_NONE_MATCH, LOCATION, VARY,
};
use http::{HeaderMap, Response, StatusCode};
use pod_api::failure::Failure;

use crate::body::{self, Body, JSON};
use crate::negotiate;
use crate::query::Query;
use crate::render;

/// `/openapi/v3`
pub(crate) fn index() -> Result<Response<Body>, Failure> {
    Ok(body::answer(StatusCode::OK, JSON, pod_schema::openapi_v3_index()))
}

/// `/openapi/v3/api/v1?hash=…`: with the right hash it may be kept for ever, another hash is sent to the right one.
pub(crate) fn v3(path: &str, query: &Query, headers: &HeaderMap) -> Result<Response<Body>, Failure> {
    let (document, hash) =
        pod_schema::openapi_v3(path).zip(pod_schema::openapi_v3_hash(path)).ok_or_else(Failure::unknown_path)?;
    negotiate::json(headers.get(ACCEPT))?;
    let asked = query.text("hash");
    if let Some(asked) = asked
        && asked != hash
    {
        let mut response = Response::new(body::full(Bytes::new()));
        *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
        if let Ok(to) = HeaderValue::from_str(&format!("/openapi/v3/{path}?hash={hash}")) {
            response.headers_mut().insert(LOCATION, to);
        }
        return Ok(response);
    }
    let mut response = packed(JSON, document, hash, headers)?;
    if asked.is_some() {
        let immutable = HeaderValue::from_static("public, immutable");
        response.headers_mut().insert(CACHE_CONTROL, immutable);
        // A year from now would need a clock; a date far away does as well.
        response.headers_mut().insert(EXPIRES, HeaderValue::from_static("Fri, 31 Dec 2099 23:59:59 GMT"));
    }
    Ok(response)
}

/// `/openapi/v2`, in the form of protobuf that older clients ask for, or as JSON.
pub(crate) fn v2(headers: &HeaderMap) -> Result<Response<Body>, Failure> {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let named = [pod_schema::OPENAPI_V2_PROTOBUF_ACCEPT, pod_schema::OPENAPI_V2_PROTOBUF_TYPE];
    let protobuf = accept.split(',').any(|clause| named.contains(&clause.split(';').next().unwrap_or_default().trim()));
    if !protobuf {
        negotiate::json(headers.get(ACCEPT))?;
        return packed(JSON, pod_schema::openapi_v2(), pod_schema::openapi_v2_hash(), headers);
    }
    let kind = HeaderValue::from_static(pod_schema::OPENAPI_V2_PROTOBUF_TYPE);
    packed(kind, pod_schema::openapi_v2_protobuf(), pod_schema::openapi_v2_hash(), headers)
}

/// A document that is there in gzip only.
fn packed(kind: HeaderValue, gzip: &'static [u8], hash: &str, headers: &HeaderMap) -> Result<Response<Body>, Failure> {
    let tag = format!("\"{}\"", hash.trim_matches('"'));
    let known = headers.get(IF_NONE_MATCH).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut response = if known.split(',').any(|one| one.trim() == tag) {
        let mut response = Response::new(body::full(Bytes::new()));
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else if render::takes_gzip(headers) {
        let mut response = body::answer(StatusCode::OK, kind, Bytes::from_static(gzip));
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        response
    } else {
        let mut plain = Vec::new();
        GzDecoder::new(gzip).read_to_end(&mut plain).map_err(Failure::internal)?;
        body::answer(StatusCode::OK, kind, plain)
    };
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(ETAG, tag);
    }
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept-Encoding, Accept"));
    Ok(response)
}
