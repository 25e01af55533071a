//! B3, Zipkin's way to pass on a trace: <https://github.com/openzipkin/b3-propagation>.

use super::{Context, Field, Traced, only, read_hex};
use crate::hex;

pub(super) const MULTI: [&[u8]; 5] =
    [b"x-b3-traceid", b"x-b3-spanid", b"x-b3-parentspanid", b"x-b3-sampled", b"x-b3-flags"];

/// Of 64 or 128 bits; not all zeros.
fn trace(text: &[u8]) -> Option<[u8; 16]> {
    let trace = match text.len() {
        16 => {
            let mut whole = [0; 16];
            whole[8..].copy_from_slice(&read_hex::<8>(text, true)?);
            whole
        }
        _ => read_hex::<16>(text, true)?,
    };
    (trace != [0; 16]).then_some(trace)
}

fn span(text: &[u8]) -> Option<[u8; 8]> {
    read_hex::<8>(text, true).filter(|span| *span != [0; 8])
}

/// `b3: TRACE-SPAN[-SAMPLED[-PARENT]]`, or the decision alone.
pub(super) fn single(bytes: &[u8], fields: &[Field]) -> Option<Context> {
    let text = only(bytes, fields, b"b3")?;
    if let Some((sampled, debug)) = decision(text) {
        return Some(Context { sampled: Some(sampled), debug, ..Context::default() });
    }
    let mut parts = text.split(|byte| *byte == b'-');
    let ids = (trace(parts.next()?)?, span(parts.next()?)?);
    let decided = match parts.next() {
        None => None,
        Some(text) => Some(decision(text)?),
    };
    if let Some(parent) = parts.next() {
        span(parent)?;
    }
    if parts.next().is_some() {
        return None;
    }
    let (sampled, debug) = decided.unzip();
    Some(Context { ids: Some(ids), sampled, debug: debug.unwrap_or(false), random: false })
}

fn decision(text: &[u8]) -> Option<(bool, bool)> {
    match text {
        b"0" => Some((false, false)),
        b"1" => Some((true, false)),
        b"d" => Some((true, true)),
        _ => None,
    }
}

/// `X-B3-TraceId`, `X-B3-SpanId`, `X-B3-Sampled`, `X-B3-Flags`.
pub(super) fn multi(bytes: &[u8], fields: &[Field]) -> Option<Context> {
    let one = |name| only(bytes, fields, name);
    let debug = one(MULTI[4]) == Some(b"1");
    // Old senders write words.
    let sampled = match one(MULTI[3]) {
        _ if debug => Some(true),
        Some(b"1" | b"true") => Some(true),
        Some(b"0" | b"false") => Some(false),
        _ => None,
    };
    let ids = match (one(MULTI[0]).and_then(trace), one(MULTI[1]).and_then(span)) {
        (Some(trace), Some(span)) => Some((trace, span)),
        _ => None,
    };
    (ids.is_some() || sampled.is_some()).then_some(Context { ids, sampled, debug, random: false })
}

fn digit(traced: &Traced) -> u8 {
    match (traced.debug, traced.sampled) {
        (true, _) => b'd',
        (false, true) => b'1',
        (false, false) => b'0',
    }
}

/// Appends the line; where the span stands.
pub(super) fn write_single(traced: &Traced, out: &mut Vec<u8>) -> usize {
    out.extend_from_slice(b"b3: ");
    hex::put(&traced.trace, out);
    out.push(b'-');
    let at = out.len();
    hex::put(&traced.span, out);
    out.extend_from_slice(&[b'-', digit(traced), b'-']);
    hex::put(&traced.span, out);
    out.extend_from_slice(b"\r\n");
    at
}

/// Appends the lines; where the span stands.
pub(super) fn write_multi(traced: &Traced, out: &mut Vec<u8>) -> usize {
    out.extend_from_slice(b"X-B3-TraceId: ");
    hex::put(&traced.trace, out);
    out.extend_from_slice(b"\r\nX-B3-SpanId: ");
    let at = out.len();
    hex::put(&traced.span, out);
    out.extend_from_slice(b"\r\nX-B3-ParentSpanId: ");
    hex::put(&traced.span, out);
    // Debug implies the decision, which is then not sent.
    let decision: &[u8] = match digit(traced) {
        b'd' => b"\r\nX-B3-Flags: 1\r\n",
        b'1' => b"\r\nX-B3-Sampled: 1\r\n",
        _ => b"\r\nX-B3-Sampled: 0\r\n",
    };
    out.extend_from_slice(decision);
    at
}
