//! W3C Trace Context, level 2: <https://www.w3.org/TR/trace-context-2/>. Whatever is not exactly as it says is as good as
//! nothing.

use super::{Context, Field, Traced, only, read_hex, values};
use crate::hex;

/// Members of a `tracestate` (§3.3.1.1).
const MEMBERS: usize = 32;

/// `traceparent`: version, trace, parent, flags (§3.2.2). Two are none.
pub(super) fn parent(bytes: &[u8], fields: &[Field]) -> Option<Context> {
    let text = only(bytes, fields, b"traceparent").filter(|text| text.len() >= 55)?;
    let [version] = read_hex::<1>(&text[..2], false)?;
    // Later versions may say more, behind another dash (§4.3 of "Versioning of traceparent").
    let whole = match version {
        0xff => false,
        0 => text.len() == 55,
        _ => text.len() == 55 || text[55] == b'-',
    };
    if !whole || text[2] != b'-' || text[35] != b'-' || text[52] != b'-' {
        return None;
    }
    let trace = read_hex::<16>(&text[3..35], false)?;
    let parent = read_hex::<8>(&text[36..52], false)?;
    let [flags] = read_hex::<1>(&text[53..55], false)?;
    if trace == [0; 16] || parent == [0; 8] {
        return None;
    }
    Some(Context { ids: Some((trace, parent)), sampled: Some(flags & 1 != 0), debug: false, random: flags & 2 != 0 })
}

/// `tracestate`, all fields as one. Without a good `traceparent` it means nothing (§3.3); malformed, neither.
pub(super) fn state(bytes: &[u8], fields: &[Field], has_parent: bool) -> Vec<u8> {
    let mut out = Vec::new();
    if !has_parent {
        return out;
    }
    let mut members = 0;
    for member in values(bytes, fields, b"tracestate").flat_map(|value| value.split(|byte| *byte == b',')) {
        let member = member.trim_ascii();
        if member.is_empty() {
            continue;
        }
        members += 1;
        if members > MEMBERS || !is_member(member) {
            return Vec::new();
        }
        if !out.is_empty() {
            out.push(b',');
        }
        out.extend_from_slice(member);
    }
    out
}

/// `key=value` (§3.3.1.3).
fn is_member(member: &[u8]) -> bool {
    let Some(middle) = member.iter().position(|byte| *byte == b'=') else { return false };
    let (key, value) = (&member[..middle], &member[middle + 1..]);
    let begins = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let good_key = key.len() <= 256
        && key.first().is_some_and(begins)
        && key.iter().all(|byte| begins(byte) || b"_-*/@".contains(byte));
    // The value may have blanks, but not at its end; commas and equals signs nowhere.
    let good = |byte: &u8| matches!(byte, 0x20..=0x7e) && !b",=".contains(byte);
    good_key && (1..=256).contains(&value.len()) && value.iter().all(good) && value.last() != Some(&b' ')
}

/// Appends the lines; where the span stands.
pub(super) fn write(traced: &Traced, out: &mut Vec<u8>) -> usize {
    out.extend_from_slice(b"traceparent: 00-");
    hex::put(&traced.trace, out);
    out.push(b'-');
    let at = out.len();
    hex::put(&traced.span, out);
    out.push(b'-');
    hex::put(&[traced.flags()], out);
    out.extend_from_slice(b"\r\n");
    if !traced.state.is_empty() {
        out.extend_from_slice(b"tracestate: ");
        out.extend_from_slice(&traced.state);
        out.extend_from_slice(b"\r\n");
    }
    at
}
