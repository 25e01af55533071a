//! Bodies of requests: read within bounds, JSON or YAML, fitted to their type as `fieldValidation` says.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::header::HeaderValue;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use pod_api::failure::Failure;
use pod_api::resource::Resource;
use pod_schema::{Misfit, Scalar, Shape, Type};
use serde_json::{Map, Value};

use crate::object;
use crate::protobuf;
use crate::route::api_version;
use crate::server::media_type;

/// As upstream's.
const LIMIT: usize = 3 << 20;
/// For the whole of a body.
const PATIENCE: Duration = Duration::from_secs(30);
/// serde_json stops at 128 levels by itself; this is the same bound for what is made of YAML.
const DEPTH: usize = 128;

/// At most so many warnings (hyper's client takes a hundred headers), and characters of one and of all: clients give up on
/// heads that are too long.
const MOST_WARNINGS: usize = 64;
const WARNING: usize = 1024;
const WARNINGS: usize = 4096;

/// Written by typed clients.
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// What is done about unknown and duplicate fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Validation {
    Strict,
    Warn,
    Ignore,
}

/// Warnings for the client, sent as headers.
#[derive(Debug, Default)]
pub(crate) struct Warnings(Vec<String>);

impl Warnings {
    pub(crate) fn add(&mut self, text: impl Into<String>) {
        self.0.push(text.into());
    }

    /// RFC 9111 §5.5: code 299 is kept across hops.
    pub(crate) fn attach(self, headers: &mut HeaderMap) {
        let mut room = WARNINGS;
        for text in self.0.into_iter().take(MOST_WARNINGS) {
            let safe = text.chars().map(|char| if char.is_control() { ' ' } else { char });
            let safe: String = safe.take(WARNING.min(room)).collect();
            room -= safe.chars().count();
            if room == 0 {
                return;
            }
            let quoted = safe.replace('\\', "\\\\").replace('"', "\\\"");
            if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{quoted}\"").as_bytes()) {
                headers.append(http::header::WARNING, value);
            }
        }
    }
}

/// # Errors
/// 413 above the limit, 408 when the client takes too long.
pub(crate) async fn read(body: Incoming) -> Result<Bytes, Failure> {
    let collected = tokio::time::timeout(PATIENCE, Limited::new(body, LIMIT).collect()).await;
    let slow = || Failure::new(408, "Timeout", "Timeout: the request's body did not arrive in time");
    collected.map_err(|_| slow())?.map(http_body_util::Collected::to_bytes).map_err(|error| {
        if error.is::<LengthLimitError>() {
            let message = format!("Request entity too large: limit is {LIMIT}");
            Failure::new(413, "RequestEntityTooLarge", message)
        } else {
            Failure::bad_request(format!("failed to read the request's body: {error}"))
        }
    })
}

/// 415 with what would have been taken.
pub(crate) fn unsupported(accepted: &[&str]) -> Failure {
    let list = accepted.join(", ");
    let message = format!("the body of the request was in an unknown format - accepted media types include: {list}");
    Failure::new(415, "UnsupportedMediaType", message)
}

/// A body as JSON, and what a strict decoder says about keys that are written twice.
#[derive(Debug, Default)]
pub(crate) struct Text {
    pub(crate) value: Value,
    pub(crate) duplicates: Vec<String>,
}

/// A whole object's body.
///
/// # Errors
/// 415 for another content type, 400 for what cannot be read.
pub(crate) fn parse(headers: &HeaderMap, bytes: &[u8], kind: &str) -> Result<Text, Failure> {
    let parsed = match media_type(headers) {
        "" | "application/json" => json(bytes),
        "application/yaml" | "application/x-yaml" | "text/yaml" => yaml(bytes),
        PROTOBUF => protobuf::decode(bytes).map(|value| Text { value, duplicates: Vec::new() }),
        _ => return Err(unsupported(&["application/json", "application/yaml", PROTOBUF])),
    };
    parsed.map_err(|error| {
        let summary = summary(bytes);
        let message = format!("the object provided is unrecognized (must be of type {kind}): {error} ({summary})");
        Failure::bad_request(message)
    })
}

fn summary(bytes: &[u8]) -> String {
    const SHOWN: usize = 30;
    let more = if bytes.len() > SHOWN { " ..." } else { "" };
    let shown = &bytes[..bytes.len().min(SHOWN)];
    match bytes.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => format!("{}{more}", String::from_utf8_lossy(shown)),
        Some(_) => shown.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + more,
    }
}

pub(crate) fn json(bytes: &[u8]) -> Result<Text, String> {
    let value = serde_json::from_slice(bytes);
    let value = value.map_err(|error| format!("couldn't get version/kind; json parse error: {error}"))?;
    let duplicates = pod_schema::duplicates(bytes).into_iter().map(|path| format!("duplicate field {path:?}"));
    Ok(Text { value, duplicates: duplicates.collect() })
}

pub(crate) fn yaml(bytes: &[u8]) -> Result<Text, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| format!("error converting YAML to JSON: {error}"))?;
    let (value, twice) =
        pod_api::yaml_to_json(text).map_err(|error| format!("error converting YAML to JSON: yaml: {error}"))?;
    let duplicates = if twice.is_empty() {
        Vec::new()
    } else {
        let lines: Vec<String> =
            twice.iter().map(|(line, key)| format!("  line {line}: key {key:?} already set in map")).collect();
        vec![format!("yaml: unmarshal errors:\n{}", lines.join("\n"))]
    };
    Ok(Text { value, duplicates })
}

/// Checks a body against the kind that is served here, and clears away what the type does not know.
///
/// # Errors
/// 400 for another kind, for values of the wrong type, and with [`Validation::Strict`] for unknown and duplicate fields.
pub(crate) fn fit(
    resource: &Resource,
    text: Text,
    validation: Validation,
    warnings: &mut Warnings,
) -> Result<Value, Failure> {
    fit_kind((resource.group, resource.version, resource.kind), text, validation, warnings)
}

/// Like [`fit`], for a kind of a subresource.
///
/// # Errors
/// As [`fit`].
pub(crate) fn fit_kind(
    (group, version, kind): (&str, &str, &str),
    Text { mut value, duplicates }: Text,
    validation: Validation,
    warnings: &mut Warnings,
) -> Result<Value, Failure> {
    let (own_kind, own_version) =
        (object::text(&value, "/kind").to_owned(), object::text(&value, "/apiVersion").to_owned());
    // What the body does not say is what the path says.
    let refuse = |why: &str| {
        let (kind_in, version_in) =
            (if own_kind.is_empty() { kind } else { &own_kind }, own_version.rsplit('/').next());
        let version_in = version_in.filter(|version| !version.is_empty()).unwrap_or(version);
        Failure::bad_request(format!("{kind_in} in version {version_in:?} cannot be handled as a {kind}: {why}"))
    };
    if !value.is_object() {
        let why = "couldn't get version/kind; json parse error: the body is not an object";
        return Err(Failure::bad_request(format!(
            "the object provided is unrecognized (must be of type {kind}): {why}"
        )));
    }
    let expected = api_version(group, version);
    if !own_kind.is_empty() && own_kind != kind {
        return Err(refuse(&format!(
            "converting ({own_version}, Kind={own_kind}) to ({expected}, Kind={kind}): unknown conversion"
        )));
    }
    if !own_version.is_empty() && own_version != expected {
        let message =
            format!("the API version in the data ({own_version}) does not match the expected API version ({expected})");
        return Err(Failure::bad_request(message));
    }
    // The type's members may be left out where the path says them.
    if let Some(members) = value.as_object_mut() {
        members.insert("kind".into(), kind.into());
        members.insert("apiVersion".into(), expected.into());
    }
    let Some(ty) = Type::of_kind(group, version, kind) else { return Ok(value) };
    let mut strict = duplicates;
    for misfit in pod_schema::check(ty, &value) {
        match misfit {
            Misfit::Wrong { message, .. } => return Err(refuse(&message)),
            Misfit::Unknown { path } => strict.push(format!("unknown field {path:?}")),
        }
    }
    match validation {
        Validation::Strict if !strict.is_empty() => {
            return Err(refuse(&format!("strict decoding error: {}", strict.join(", "))));
        }
        Validation::Warn => strict.iter().for_each(|text| warn_lines(warnings, text)),
        _ => {}
    }
    prune(ty, &mut value);
    Ok(value)
}

/// A YAML decoder's complaint is one warning a line.
pub(crate) fn warn_lines(warnings: &mut Warnings, text: &str) {
    match text.strip_prefix("yaml: unmarshal errors:\n") {
        Some(lines) => lines.lines().for_each(|line| warnings.add(line.trim())),
        None => warnings.add(text),
    }
}

/// Takes away what a typed decoder would not keep: members that the type does not have, and those that are null. A null where
/// there must be a value (a key's, an item's) is the type's zero, as in Go.
pub(crate) fn prune(ty: Type, value: &mut Value) {
    match (ty.shape(), value) {
        (Shape::Object { .. }, Value::Object(members)) => {
            members.retain(|name, value| match ty.field(name) {
                Some(field) => {
                    prune(field.ty, value);
                    !value.is_null() || field.ty.shape() == Shape::Any
                }
                None => false,
            });
        }
        (Shape::Map { value: inner, .. }, Value::Object(members)) => {
            members.values_mut().for_each(|member| prune_value(inner, member));
        }
        (Shape::List { item, .. }, Value::Array(items)) => items.iter_mut().for_each(|value| prune_value(item, value)),
        _ => {}
    }
}

fn prune_value(ty: Type, value: &mut Value) {
    if !value.is_null() {
        return prune(ty, value);
    }
    *value = match ty.shape() {
        Shape::Scalar(Scalar::String | Scalar::Bytes) => "".into(),
        Shape::Scalar(Scalar::Integer | Scalar::Number | Scalar::IntOrString) => 0.into(),
        Shape::Scalar(Scalar::Boolean) => false.into(),
        Shape::Scalar(Scalar::Quantity) => "0".into(),
        Shape::Object { .. } => Value::Object(Map::new()),
        Shape::Scalar(Scalar::Time) | Shape::Map { .. } | Shape::List { .. } | Shape::Any => return,
    };
}

/// How deep a value is nested; more than a decoder would take is refused where values are put together from parts.
pub(crate) fn is_too_deep(value: &Value) -> bool {
    fn deeper(value: &Value, left: usize) -> bool {
        match value {
            Value::Array(items) => left == 0 || items.iter().any(|item| deeper(item, left - 1)),
            Value::Object(members) => left == 0 || members.values().any(|member| deeper(member, left - 1)),
            _ => false,
        }
    }
    deeper(value, DEPTH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicate_fields_are_noted_with_their_path() {
        let text = json(br#"{"a":1,"b":[{"c":1,"c":2}],"a":3}"#).unwrap();
        assert_eq!(text.value.to_string(), r#"{"a":3,"b":[{"c":2}]}"#);
        assert_eq!(text.duplicates, ["duplicate field \"b[0].c\"", "duplicate field \"a\""]);
        let text = yaml(b"a: 1\nb:\n  c: 1\n  c: 2\n").unwrap();
        assert_eq!(text.duplicates, ["yaml: unmarshal errors:\n  line 4: key \"c\" already set in map"]);
        assert!(json(b"{\"a\":1} x").is_err());
    }

    #[test]
    fn warnings_are_quoted() {
        let mut warnings = Warnings::default();
        warn_lines(&mut warnings, "unknown field \"a\"");
        let mut headers = HeaderMap::new();
        warnings.attach(&mut headers);
        assert_eq!(headers[http::header::WARNING], "299 - \"unknown field \\\"a\\\"\"");
    }

    #[test]
    fn warnings_do_not_flood_the_head() {
        let mut warnings = Warnings::default();
        (0..100_000).for_each(|number| warnings.add(format!("unknown field \"{number}\"")));
        warnings.add("x".repeat(1 << 20));
        let mut headers = HeaderMap::new();
        warnings.attach(&mut headers);
        let bytes: usize = headers.values().map(|value| value.len()).sum();
        assert!(headers.len() > 10 && bytes < 16 << 10, "{} with {bytes} bytes", headers.len());
    }

    #[test]
    fn null_where_a_value_must_be_is_the_zero_of_its_type() {
        let ty = Type::of_kind("", "v1", "ConfigMap").unwrap();
        let mut value = serde_json::json!({"data": {"a": null, "b": "x"}, "immutable": null});
        prune(ty, &mut value);
        assert_eq!(value, serde_json::json!({"data": {"a": "", "b": "x"}}));
        let ty = Type::of_kind("", "v1", "Pod").unwrap();
        let mut value =
            serde_json::json!({"spec": {"containers": [{"args": [null], "resources": {"limits": {"cpu": null}}}]}});
        prune(ty, &mut value);
        assert_eq!(value["spec"]["containers"][0]["args"], serde_json::json!([""]));
        assert_eq!(value["spec"]["containers"][0]["resources"]["limits"]["cpu"], "0");
    }
}
