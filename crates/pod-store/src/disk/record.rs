//! How an object lies in the file.
//!
//! The key is `resource NUL namespace NUL name`: no part contains a NUL, so the order of bytes is the order of lists. The
//! value repeats what is read out of the JSON (revision, uid, labels), so that opening parses no JSON:
//! `revision:u64 uid labels:u32 (name value)* json`, a text as `length:u32` and its bytes, numbers little-endian.

use std::sync::Arc;

use crate::object::{Key, Object};

pub(super) fn place(key: &Key) -> Vec<u8> {
    [key.resource.as_bytes(), key.namespace.as_bytes(), key.name.as_bytes()].join(&0)
}

pub(super) fn encode(object: &Object, bytes: &mut Vec<u8>) {
    bytes.clear();
    bytes.extend_from_slice(&object.revision.to_le_bytes());
    text(bytes, &object.uid);
    bytes.extend_from_slice(&length(object.labels.len()));
    for (name, value) in &object.labels {
        text(bytes, name);
        text(bytes, value);
    }
    bytes.extend_from_slice(&object.json);
}

fn text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend_from_slice(&length(text.len()));
    bytes.extend_from_slice(text.as_bytes());
}

/// redb takes no value of 4 GiB, so a length that does not fit is refused there.
fn length(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes()
}

/// `None` if the bytes are none of ours. `resource`: the name of the record before, shared if it is the same.
pub(super) fn decode(place: &[u8], bytes: &[u8], resource: &mut Arc<str>) -> Option<Object> {
    let mut parts = std::str::from_utf8(place).ok()?.split('\0');
    let (name, namespace, object) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    if **resource != *name {
        *resource = name.into();
    }
    let key = Key { resource: resource.clone(), namespace: namespace.to_owned(), name: object.to_owned() };
    let mut rest = bytes;
    let revision = u64::from_le_bytes(*take::<8>(&mut rest)?);
    let uid = take_text(&mut rest)?;
    let count = u32::from_le_bytes(*take::<4>(&mut rest)?);
    let labels = (0..count).map(|_| Some((take_text(&mut rest)?, take_text(&mut rest)?))).collect::<Option<_>>()?;
    Some(Object { key, revision, uid, labels, json: rest.into() })
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (head, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(head)
}

fn take_text(rest: &mut &[u8]) -> Option<String> {
    let length = usize::try_from(u32::from_le_bytes(*take::<4>(rest)?)).ok()?;
    let (head, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    String::from_utf8(head.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_comes_back_as_it_was() {
        let key = Key { resource: "pods".into(), namespace: String::new(), name: "a".into() };
        let mut value = json!({"metadata": {"uid": "u-1", "labels": {"app": "x", "b": ""}}});
        let object = Object::render(key, &mut value, 42).unwrap();
        let mut bytes = Vec::new();
        encode(&object, &mut bytes);
        let mut resource = "".into();
        let back = decode(&place(&object.key), &bytes, &mut resource).unwrap();
        assert!(object == back);
        assert_eq!(&*resource, "pods");
        for cut in 0..bytes.len() - object.json.len() {
            assert!(decode(&place(&object.key), &bytes[..cut], &mut resource).is_none());
        }
    }

    #[test]
    fn the_order_of_places_is_the_order_of_keys() {
        let key = |resource: &str, namespace: &str, name: &str| Key {
            resource: resource.into(),
            namespace: namespace.into(),
            name: name.into(),
        };
        let mut keys = [
            key("pods", "a", "b"),
            key("pods", "", "z"),
            key("pods", "a-b", "a"),
            key("pods", "a", "b-c"),
            key("pod", "z", "z"),
            key("pods.metrics", "a", "a"),
        ];
        keys.sort();
        assert!(keys.is_sorted_by_key(place));
    }
}
