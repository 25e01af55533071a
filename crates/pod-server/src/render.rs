//! Objects as the bytes of an answer. Stored bytes are passed on without being parsed.

use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::stream;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, VARY};
use http::{HeaderMap, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use pod_api::resource::Resource;
use pod_store::Object;
use serde_json::Value;

use crate::body::{self, Body, JSON};
use crate::negotiate::Wanted;
use crate::object;
use crate::route::api_version;
use crate::table;

/// Answers are made in pieces of about this size.
const PIECE: usize = 64 << 10;
/// Smaller answers are not worth compressing (upstream's threshold).
const COMPRESS_FROM: usize = 128 << 10;

/// `"kind":"Pod","apiVersion":"v1"`
pub(crate) fn type_members(resource: &Resource) -> String {
    format!(r#""kind":"{}","apiVersion":"{}""#, resource.kind, api_version(resource.group, resource.version))
}

/// Appends an object with these type members (none: without), instead of those it is stored with.
pub(crate) fn append(out: &mut Vec<u8>, resource: &Resource, stored: &Object, type_members: &str) {
    if object::is_view(resource) {
        splice(out, object::served(resource, stored).to_string().as_bytes(), type_members);
    } else {
        splice(out, &stored.json, type_members);
    }
}

/// Copies a compact JSON object, with other type members. It is read only as far as they may be.
fn splice(out: &mut Vec<u8>, json: &[u8], type_members: &str) {
    out.push(b'{');
    out.extend_from_slice(type_members.as_bytes());
    let mut comma = !type_members.is_empty();
    let mut found = 0;
    let mut at = 1;
    while at < json.len() && json[at] != b'}' {
        if json[at] == b',' {
            at += 1;
            continue;
        }
        let key_end = string_end(json, at);
        let is_type = matches!(&json[at..key_end], br#""apiVersion""# | br#""kind""#);
        let end = match (is_type, found) {
            // Both were met: the rest goes as it is.
            (_, 2) => json.len() - 1,
            _ => value_end(json, key_end + 1),
        };
        if is_type && found < 2 {
            found += 1;
        } else {
            if comma {
                out.push(b',');
            }
            comma = true;
            out.extend_from_slice(&json[at..end]);
        }
        at = end;
    }
    out.push(b'}');
}

/// Behind the string that begins here.
fn string_end(json: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < json.len() {
        match json[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    json.len()
}

/// Behind the value that begins here.
fn value_end(json: &[u8], start: usize) -> usize {
    let mut depth = 0usize;
    let mut at = start;
    while at < json.len() {
        match json[at] {
            b'"' => {
                at = string_end(json, at);
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth == 0 => return at,
            b'}' | b']' => depth -= 1,
            b',' if depth == 0 => return at,
            _ => {}
        }
        at += 1;
    }
    json.len()
}

/// One object in the form that is wanted.
pub(crate) fn one(
    resource: &'static Resource,
    value: &Value,
    wanted: Wanted,
    status: StatusCode,
    now: jiff::Timestamp,
    include: table::Include,
) -> Response<Body> {
    match wanted {
        Wanted::Json => body::json(status, value),
        Wanted::Yaml => body::answer(status, YAML, value.to_string()),
        Wanted::Metadata(version) => body::json(status, &object::partial(value, version)),
        Wanted::Table(version) => {
            let metadata = serde_json::json!({"resourceVersion": object::text(value, "/metadata/resourceVersion")});
            let rows = vec![table::row(resource, value, now, include, version)];
            body::json(status, &table::whole(resource, version, metadata, rows))
        }
    }
}

/// One stored object, not parsed when that can be helped.
pub(crate) fn stored(
    resource: &'static Resource,
    stored: &Object,
    wanted: Wanted,
    now: jiff::Timestamp,
    include: table::Include,
) -> Response<Body> {
    let kind = match wanted {
        Wanted::Json => JSON,
        Wanted::Yaml => YAML,
        _ => return one(resource, &object::served(resource, stored), wanted, StatusCode::OK, now, include),
    };
    let mut out = Vec::with_capacity(stored.json.len() + 64);
    append(&mut out, resource, stored, &type_members(resource));
    body::answer(StatusCode::OK, kind, out)
}

const YAML: HeaderValue = HeaderValue::from_static("application/yaml");

/// A list of stored objects, made while it is sent.
pub(crate) fn list(
    resource: &'static Resource,
    items: Vec<Arc<Object>>,
    metadata: &Value,
    wanted: Wanted,
    headers: &HeaderMap,
) -> Response<Body> {
    let (kind, api, metadata_version) = match wanted {
        Wanted::Metadata(version) => {
            ("PartialObjectMetadataList".to_owned(), format!("meta.k8s.io/{version}"), Some(version))
        }
        _ => (format!("{}List", resource.kind), api_version(resource.group, resource.version), None),
    };
    let head = format!(r#"{{"kind":"{kind}","apiVersion":"{api}","metadata":{metadata},"items":["#);
    let size: usize = items.iter().map(|item| item.json.len()).sum();
    let compressed = size >= COMPRESS_FROM && takes_gzip(headers);
    let pieces = Pieces {
        resource,
        head: Some(head),
        items: items.into_iter(),
        metadata_version,
        first: true,
        ended: false,
        encoder: compressed.then(|| GzEncoder::new(Vec::new(), Compression::fast())),
    };
    let content = if size < PIECE {
        body::full(pieces.fold(Vec::with_capacity(size), |mut all: Vec<u8>, piece| {
            all.extend_from_slice(&piece);
            all
        }))
    } else {
        StreamBody::new(stream::iter(pieces.map(|piece| Ok(Frame::data(piece))))).boxed_unsync()
    };
    let mut response = Response::new(content);
    response.headers_mut().insert(CONTENT_TYPE, if wanted == Wanted::Yaml { YAML } else { JSON });
    if compressed {
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        response.headers_mut().insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    }
    response
}

/// A document that is there as a whole, compressed if it is long and the client can read that.
pub(crate) fn document(kind: HeaderValue, bytes: Bytes, headers: &HeaderMap) -> Response<Body> {
    if bytes.len() < COMPRESS_FROM || !takes_gzip(headers) {
        return body::answer(StatusCode::OK, kind, bytes);
    }
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 6), Compression::fast());
    // Writing to memory does not fail.
    let packed = encoder.write_all(&bytes).and_then(|()| encoder.finish());
    let Ok(packed) = packed else { return body::answer(StatusCode::OK, kind, bytes) };
    let mut response = body::answer(StatusCode::OK, kind, packed);
    response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    response
}

pub(crate) fn takes_gzip(headers: &HeaderMap) -> bool {
    let accepted = headers.get(ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    accepted.split(',').any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        name.trim().eq_ignore_ascii_case("gzip") && !matches!(weight.trim(), "q=0" | "q=0.0")
    })
}

/// The bytes of a list, piece by piece.
struct Pieces {
    resource: &'static Resource,
    head: Option<String>,
    items: std::vec::IntoIter<Arc<Object>>,
    metadata_version: Option<&'static str>,
    first: bool,
    ended: bool,
    encoder: Option<GzEncoder<Vec<u8>>>,
}

impl Pieces {
    fn plain(&mut self) -> Option<Vec<u8>> {
        if self.ended {
            return None;
        }
        let mut out = self.head.take().unwrap_or_default().into_bytes();
        while out.len() < PIECE {
            let Some(item) = self.items.next() else {
                out.extend_from_slice(b"]}");
                self.ended = true;
                break;
            };
            if !std::mem::take(&mut self.first) {
                out.push(b',');
            }
            match self.metadata_version {
                None => append(&mut out, self.resource, &item, ""),
                Some(version) => {
                    let value = object::served(self.resource, &item);
                    out.extend_from_slice(object::partial(&value, version).to_string().as_bytes());
                }
            }
        }
        Some(out)
    }
}

impl Iterator for Pieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        loop {
            let Some(plain) = self.plain() else {
                let packed = self.encoder.take()?.finish().ok()?;
                return Some(packed.into());
            };
            let Some(encoder) = &mut self.encoder else { return Some(plain.into()) };
            encoder.write_all(&plain).ok()?;
            let packed = std::mem::take(encoder.get_mut());
            if !packed.is_empty() {
                return Some(packed.into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spliced(json: &str, members: &str) -> String {
        let mut out = Vec::new();
        splice(&mut out, json.as_bytes(), members);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn type_members_are_replaced_without_parsing() {
        let pod = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"kind":"x"}}"#;
        assert_eq!(spliced(pod, ""), r#"{"metadata":{"kind":"x"}}"#);
        assert_eq!(spliced(pod, r#""kind":"Pod""#), r#"{"kind":"Pod","metadata":{"kind":"x"}}"#);
        let map = r#"{"apiVersion":"v1","data":{"a\"}":"{,\\"},"immutable":true,"kind":"ConfigMap","metadata":{},"x":[1,{"y":2}]}"#;
        assert_eq!(spliced(map, ""), r#"{"data":{"a\"}":"{,\\"},"immutable":true,"metadata":{},"x":[1,{"y":2}]}"#);
        assert_eq!(spliced(r#"{"metadata":{},"z":1}"#, "\"k\":1"), r#"{"k":1,"metadata":{},"z":1}"#);
        assert_eq!(spliced("{}", ""), "{}");
        assert_eq!(spliced("{}", "\"k\":1"), "{\"k\":1}");
        // Broken text must not read out of bounds.
        spliced(r#"{"a\"#, "");
        spliced(r#"{"a":{"#, "");
    }

    proptest::proptest! {
        #[test]
        fn splicing_is_what_parsing_would_do(
            members in proptest::collection::btree_map("\\PC{0,6}", proptest::collection::vec("\\PC{0,6}", 0..3), 0..5),
            odd in proptest::collection::vec(proptest::sample::select(&b"{}[],:\"\\akind"[..]), 0..24),
        ) {
            let mut value = serde_json::json!(members);
            value["kind"] = "A\"}".into();
            value["apiVersion"] = serde_json::json!({"kind": 1});
            let spliced = spliced(&value.to_string(), "");
            let mut parsed: Value = serde_json::from_str(&spliced).unwrap();
            value["kind"] = Value::Null;
            value["apiVersion"] = Value::Null;
            parsed["kind"] = Value::Null;
            parsed["apiVersion"] = Value::Null;
            proptest::prop_assert_eq!(parsed, value);
            splice(&mut Vec::new(), &odd, "");
        }
    }
}
