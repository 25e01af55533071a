//! Protobuf bodies (`application/vnd.kubernetes.protobuf`) as JSON, because kubectl's typed commands (`create configmap`,
//! `create namespace`, `create token`) send nothing else. Answers are JSON, which they read.
//!
//! A body is the four bytes `k8s\0` and a `runtime.Unknown` with the object inside. Go writes zero values of fields that are
//! no pointers; the table says which ones JSON would leave out.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

const MAGIC: &[u8] = b"k8s\0";
const MESSAGES: &str = include_str!("protobuf/messages.txt");
/// Messages within messages; CRD schemas aside, nothing comes near.
const DEPTH: usize = 64;

/// An object with its kind and apiVersion, as it came.
pub(crate) fn decode(bytes: &[u8]) -> Result<Value, String> {
    let unknown = bytes.strip_prefix(MAGIC).ok_or("provided data does not appear to be a protobuf message")?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    for field in Fields(unknown) {
        match field? {
            (1, Wire::Bytes(type_meta)) => {
                for field in Fields(type_meta) {
                    match field? {
                        (1, Wire::Bytes(text)) => api_version = string(text)?,
                        (2, Wire::Bytes(text)) => kind = string(text)?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(content)) => raw = content,
            _ => {}
        }
    }
    let name = message_name(&api_version, &kind)
        .ok_or_else(|| format!("no kind {kind:?} is registered for {api_version:?}"))?;
    let mut object = Map::new();
    message(&name, raw, &mut object, DEPTH)?;
    object.insert("kind".into(), kind.into());
    object.insert("apiVersion".into(), api_version.into());
    Ok(Value::Object(object))
}

fn message_name(api_version: &str, kind: &str) -> Option<String> {
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    let package = match (group, version) {
        // Every group has a kind of this name; all are the same message.
        _ if kind == "DeleteOptions" => "meta",
        ("", "v1") => "core",
        ("apps" | "batch" | "policy", "v1") => group,
        ("autoscaling", "v1") => "scale",
        ("events.k8s.io", "v1") => "events",
        ("coordination.k8s.io", "v1") => "lease",
        ("discovery.k8s.io", "v1") => "slice",
        ("authentication.k8s.io", "v1") => "authn",
        ("authorization.k8s.io", "v1") => "authz",
        _ => return None,
    };
    let name = format!("{package}.{kind}");
    fields_of(&name).map(|_| name)
}

/// The line of the table.
fn fields_of(name: &str) -> Option<&'static str> {
    MESSAGES.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// Number, JSON name and type.
fn field_of(fields: &'static str, number: u32) -> Option<(&'static str, &'static str)> {
    fields.split(", ").find_map(|field| {
        let mut parts = field.split(' ');
        let found = parts.next()?.parse() == Ok(number);
        found.then_some((parts.next()?, parts.next()?))
    })
}

fn message(name: &str, bytes: &[u8], into: &mut Map<String, Value>, depth: usize) -> Result<(), String> {
    let depth = depth.checked_sub(1).ok_or("the message is nested too deeply")?;
    let fields = fields_of(name).ok_or_else(|| format!("the message {name} is not known"))?;
    for field in Fields(bytes) {
        let (number, wire) = field?;
        // What a newer client has and we do not is dropped, as upstream drops it.
        let Some((member, kind)) = field_of(fields, number) else { continue };
        if member == "^" {
            let Wire::Bytes(inner) = wire else { return Err(format!("{name}: field {number} is not a message")) };
            message(&kind[1..], inner, into, depth)?;
        } else if let Some(kind) = kind.strip_prefix('*') {
            let item = value(kind, wire, depth)?;
            if let Value::Array(items) = into.entry(member).or_insert_with(|| json!([])) {
                items.push(item);
            }
        } else if let Some(kind) = kind.strip_prefix('%') {
            let (key, item) = entry(kind, wire, depth)?;
            if let Value::Object(members) = into.entry(member).or_insert_with(|| json!({})) {
                members.insert(key, item);
            }
        } else {
            let (kind, may_go) = kind.strip_suffix('?').map_or((kind, false), |kind| (kind, true));
            let value = value(kind, wire, depth)?;
            if !(value.is_null() || may_go && is_zero(&value)) {
                into.insert(member.to_owned(), value);
            }
        }
    }
    Ok(())
}

fn is_zero(value: &Value) -> bool {
    *value == json!("") || *value == json!(0) || *value == json!(false) || *value == json!(0.0)
}

/// A map's entry: key 1, value 2.
fn entry(kind: &str, wire: Wire<'_>, depth: usize) -> Result<(String, Value), String> {
    let Wire::Bytes(bytes) = wire else { return Err("a map's entry is not a message".to_owned()) };
    let (mut key, mut item) = (String::new(), None);
    for field in Fields(bytes) {
        match field? {
            (1, Wire::Bytes(text)) => key = string(text)?,
            (2, wire) => item = Some(value(kind, wire, depth)?),
            _ => {}
        }
    }
    let empty = || if kind.starts_with('m') { value(kind, Wire::Bytes(&[]), depth) } else { Ok(json!("")) };
    Ok((key, item.map_or_else(empty, Ok)?))
}

fn value(kind: &str, wire: Wire<'_>, depth: usize) -> Result<Value, String> {
    match (kind.split_at_checked(1).unwrap_or((kind, "")), wire) {
        (("s", _), Wire::Bytes(text)) => string(text).map(Value::String),
        (("y", _), Wire::Bytes(bytes)) => Ok(STANDARD.encode(bytes).into()),
        // Negative numbers of 32 bits are written with 64, too.
        (("i", _), Wire::Number(number)) => Ok((number as i64).into()),
        (("b", _), Wire::Number(number)) => Ok((number != 0).into()),
        (("d", _), Wire::Fixed(bits)) => Ok(f64::from_bits(bits).into()),
        (("m", name), Wire::Bytes(bytes)) => special(name, bytes, depth),
        _ => Err(format!("a field of type {kind} is written in another way")),
    }
}

/// Messages that are no objects in JSON.
fn special(name: &str, bytes: &[u8], depth: usize) -> Result<Value, String> {
    let mut numbers = [0i64; 3];
    let mut texts: Vec<&[u8]> = Vec::new();
    match name {
        "Quantity" | "Time" | "MicroTime" | "IntOrString" | "FieldsV1" | "Raw" | "Items" | "Duration" => {
            for field in Fields(bytes) {
                match field? {
                    (number @ 1..=2, Wire::Number(value)) => numbers[number as usize] = value as i64,
                    (_, Wire::Bytes(text)) => texts.push(text),
                    _ => {}
                }
            }
        }
        _ => {
            let mut members = Map::new();
            message(name, bytes, &mut members, depth)?;
            return Ok(members.into());
        }
    }
    let first = texts.first().copied().unwrap_or_default();
    match name {
        "Quantity" => string(first).map(|text| if text.is_empty() { json!("0") } else { text.into() }),
        // A zero time is an empty message.
        "Time" | "MicroTime" if bytes.is_empty() => Ok(Value::Null),
        "Time" | "MicroTime" => {
            let nanoseconds = i32::try_from(numbers[2]).unwrap_or(0);
            let time = jiff::Timestamp::new(numbers[1], nanoseconds).map_err(|error| error.to_string())?;
            let form = if name == "Time" { "%Y-%m-%dT%H:%M:%SZ" } else { "%Y-%m-%dT%H:%M:%S.%6fZ" };
            Ok(time.strftime(form).to_string().into())
        }
        // Type 1 is a string; the number is there in any case.
        "IntOrString" if numbers[1] == 1 => string(first).map(Value::String),
        "IntOrString" => Ok((numbers[2] as i32).into()),
        "FieldsV1" | "Raw" if first.is_empty() => Ok(Value::Null),
        "FieldsV1" | "Raw" => serde_json::from_slice(first).map_err(|error| error.to_string()),
        "Duration" => Ok(numbers[1].into()),
        _ => texts.into_iter().map(|text| string(text).map(Value::String)).collect(),
    }
}

fn string(bytes: &[u8]) -> Result<String, String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| "a string is not UTF-8".to_owned())
}

/// A field's value before its type is known.
#[derive(Debug, Clone, Copy)]
enum Wire<'a> {
    Number(u64),
    Fixed(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message in their order.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut number = 0;
        for (at, byte) in self.0.iter().enumerate().take(10) {
            number |= u64::from(byte & 0x7f).checked_shl(7 * u32::try_from(at).ok()?)?;
            if byte & 0x80 == 0 {
                self.0 = &self.0[at + 1..];
                return Some(number);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn field(&mut self) -> Option<(u32, Wire<'a>)> {
        let tag = self.varint()?;
        let wire = match tag & 7 {
            0 => Wire::Number(self.varint()?),
            1 => Wire::Fixed(u64::from_le_bytes(self.take(8)?.try_into().ok()?)),
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Wire::Bytes(self.take(length)?)
            }
            5 => Wire::Fixed(u32::from_le_bytes(self.take(4)?.try_into().ok()?).into()),
            _ => return None,
        };
        Some((u32::try_from(tag >> 3).ok()?, wire))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Wire<'a>), String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field().ok_or_else(|| "unexpected EOF".to_owned());
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(number: u8, content: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, u8::try_from(content.len()).unwrap()], content].concat()
    }

    fn body(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let type_meta = [bytes(1, api_version.as_bytes()), bytes(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), bytes(1, &type_meta), bytes(2, raw), bytes(3, b""), bytes(4, b"")].concat()
    }

    #[test]
    fn a_config_map_without_what_json_leaves_out() {
        let metadata = [bytes(1, b"one"), bytes(2, b""), bytes(5, b""), vec![7 << 3, 0], bytes(8, b"")].concat();
        let data = [bytes(1, b"a"), bytes(2, b"1")].concat();
        let binary = [bytes(1, b"b"), bytes(2, &[0, 255])].concat();
        let raw = [bytes(1, &metadata), bytes(2, &data), bytes(3, &binary), vec![4 << 3, 0]].concat();
        let decoded = decode(&body("v1", "ConfigMap", &raw)).unwrap();
        assert_eq!(
            decoded,
            json!({
                "kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "one"}, "data": {"a": "1"},
                // A pointer: false is said.
                "binaryData": {"b": "AP8="}, "immutable": false,
            })
        );
    }

    #[test]
    fn messages_that_are_scalars_and_members_of_their_parents() {
        let claim = bytes(15, &bytes(1, b"c"));
        let volume = [bytes(1, b"v"), bytes(2, &claim)].concat();
        let mut found = Map::new();
        message("core.Volume", &volume, &mut found, DEPTH).unwrap();
        assert!(found.len() > 1 && found["name"] == "v", "{found:?}");
        let port = [vec![8, 1, 16, 0], bytes(3, b"http")].concat();
        assert_eq!(special("IntOrString", &port, DEPTH).unwrap(), "http");
        assert_eq!(special("IntOrString", &[8, 0, 16, 80], DEPTH).unwrap(), 80);
        assert_eq!(special("Time", &[8, 60], DEPTH).unwrap(), "1970-01-01T00:01:00Z");
    }

    #[test]
    fn broken_bodies_are_refused() {
        assert!(decode(b"{}").is_err());
        assert!(decode(&body("v9", "ConfigMap", &[])).is_err());
        assert!(decode(&body("v1", "ConfigMap", &[10, 200, 1])).is_err());
        assert!(decode(&body("v1", "ConfigMap", &[8 << 3 | 7])).is_err());
        assert!(decode(&body("v1", "ConfigMap", &[0xff; 12])).is_err());
    }

    #[test]
    fn the_table_names_only_what_it_has() {
        for line in MESSAGES.lines().filter(|line| !line.starts_with('#')) {
            let (name, fields) = line.split_once(": ").unwrap();
            for field in fields.split(", ").filter(|field| !field.is_empty()) {
                let parts: Vec<&str> = field.split(' ').collect();
                assert_eq!(parts.len(), 3, "{name}: {field}");
                let kind = parts[2].trim_start_matches(['*', '%']).trim_end_matches('?');
                let known = match kind.strip_prefix('m') {
                    None => matches!(kind, "s" | "y" | "i" | "b" | "d"),
                    Some(message) => !message.contains('.') || fields_of(message).is_some(),
                };
                assert!(known, "{name}: {field}");
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_stop_the_decoder(raw: Vec<u8>) {
            let _ = decode(&raw);
            for name in ["core.Pod", "core.Event", "meta.DeleteOptions"] {
                let _ = message(name, &raw, &mut Map::new(), DEPTH);
            }
        }
    }
}
