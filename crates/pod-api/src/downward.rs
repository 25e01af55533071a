//! The downward API: a pod's own fields and resources as text, for variables and for files.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, ObjectFieldSelector, ResourceFieldSelector};

use crate::context::PodContext;
use crate::quantity::{self, Amount, QuantityError};
use crate::resources::{ContainerResources, ResourceError, pod_level};
use crate::role;

/// Messages are upstream's, because they end up in a container's status or a pod's events.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DownwardError {
    #[error("unsupported pod version: {0}")]
    Version(String),
    #[error("field label not supported: {0}")]
    Field(String),
    #[error("field label does not support subscript: {0}")]
    Subscript(String),
    #[error("unsupported fieldPath: {0}")]
    FieldPath(String),
    #[error("unsupported container resource : {0}")]
    Resource(String),
    #[error("container {0} not found")]
    Container(String),
    #[error("unreadable divisor \"{divisor}\"")]
    Divisor {
        divisor: String,
        #[source]
        source: QuantityError,
    },
    #[error(transparent)]
    Quantity(#[from] ResourceError),
}

/// The value of a variable's `fieldRef`.
pub fn variable(selector: &ObjectFieldSelector, cx: &PodContext<'_>) -> Result<String, DownwardError> {
    if let Some(version) = selector.api_version.as_deref().filter(|version| !matches!(*version, "" | "v1")) {
        return Err(DownwardError::Version(version.to_owned()));
    }
    let spec = cx.spec();
    match selector.field_path.as_str() {
        "spec.nodeName" | "spec.host" => {
            // A pod that nobody scheduled runs on this node all the same.
            let assigned = spec.and_then(|spec| spec.node_name.as_deref()).filter(|name| !name.is_empty());
            Ok(assigned.unwrap_or(&cx.node.name).to_owned())
        }
        "spec.serviceAccountName" => Ok(spec.and_then(|spec| spec.service_account_name.clone()).unwrap_or_default()),
        "status.hostIP" => Ok(cx.node.host_ips.first().map(IpAddr::to_string).unwrap_or_default()),
        "status.hostIPs" => Ok(joined(&cx.node.host_ips)),
        "status.podIP" => Ok(cx.pod_ips.first().map(IpAddr::to_string).unwrap_or_default()),
        "status.podIPs" => Ok(joined(cx.pod_ips)),
        path => metadata(path, cx).map_err(|error| match error {
            DownwardError::FieldPath(path) => DownwardError::Field(path),
            other => other,
        }),
    }
}

/// The content of a volume's `fieldRef` file.
pub fn file(selector: &ObjectFieldSelector, cx: &PodContext<'_>) -> Result<String, DownwardError> {
    metadata(&selector.field_path, cx)
}

fn metadata(path: &str, cx: &PodContext<'_>) -> Result<String, DownwardError> {
    let metadata = &cx.pod.metadata;
    if let Some((field, key)) = path.strip_suffix("']").and_then(|path| path.split_once("['")) {
        let map = match field {
            "metadata.labels" => &metadata.labels,
            "metadata.annotations" => &metadata.annotations,
            _ => return Err(DownwardError::Subscript(field.to_owned())),
        };
        // A missing key is an empty value, not an error.
        return Ok(map.as_ref().and_then(|map| map.get(key)).cloned().unwrap_or_default());
    }
    match path {
        "metadata.name" => Ok(cx.name().to_owned()),
        "metadata.namespace" => Ok(cx.namespace().to_owned()),
        "metadata.uid" => Ok(cx.uid.to_owned()),
        "metadata.labels" => Ok(format_map(metadata.labels.as_ref())),
        "metadata.annotations" => Ok(format_map(metadata.annotations.as_ref())),
        _ => Err(DownwardError::FieldPath(path.to_owned())),
    }
}

/// The value of a `resourceFieldRef`, in units of its divisor, rounded up. `own` is the container whose variable it is;
/// a volume has none and must name one. A limit that is not set is the pod's, else the node's.
pub fn resource(
    selector: &ResourceFieldSelector,
    own: Option<&Container>,
    cx: &PodContext<'_>,
) -> Result<String, DownwardError> {
    let name = selector.container_name.as_deref().unwrap_or_default();
    let container = match (own, name) {
        (Some(own), "") => own,
        _ => {
            let named = cx.spec().and_then(|spec| role::find(spec, name));
            named.ok_or_else(|| DownwardError::Container(name.to_owned()))?.1
        }
    };
    let resources = ContainerResources::of(container)?;
    let pod = cx.spec().map(pod_level).transpose()?.flatten().unwrap_or_default();
    let set = |limit: Option<i64>| limit.filter(|limit| *limit != 0);
    let divisor = divisor(selector)?;

    let whole = |value: i64| divide(value, divisor.whole());
    let cpu = |millis: i64| divide(millis, divisor.millis());
    let value = match selector.resource.as_str() {
        "limits.cpu" => {
            cpu(set(resources.cpu_limit_millis).or(set(pod.cpu_limit_millis)).unwrap_or(cx.node.cpu_millis))
        }
        "requests.cpu" => cpu(resources.cpu_request_millis.unwrap_or(0)),
        "limits.memory" => whole(set(resources.memory_limit).or(set(pod.memory_limit)).unwrap_or(cx.node.memory_bytes)),
        "requests.memory" => whole(resources.memory_request.unwrap_or(0)),
        "limits.ephemeral-storage" => whole(set(resources.ephemeral_storage_limit).unwrap_or(cx.node.ephemeral_bytes)),
        "requests.ephemeral-storage" => whole(resources.ephemeral_storage_request.unwrap_or(0)),
        other => {
            let size = other.strip_prefix("limits.hugepages-").or_else(|| other.strip_prefix("requests.hugepages-"));
            let size = size.ok_or_else(|| DownwardError::Resource(other.to_owned()))?;
            // Requests of huge pages always equal their limits.
            whole(resources.hugepage_limits.get(size).copied().unwrap_or(0))
        }
    };
    Ok(value.to_string())
}

fn divisor(selector: &ResourceFieldSelector) -> Result<Amount, DownwardError> {
    let Some(written) = &selector.divisor else { return Ok(Amount::from_whole(1)) };
    let parsed = quantity::parse(&written.0);
    let (amount, _) = parsed.map_err(|source| DownwardError::Divisor { divisor: written.0.clone(), source })?;
    Ok(if amount.is_zero() { Amount::from_whole(1) } else { amount })
}

fn divide(value: i64, divisor: i64) -> i64 {
    let (value, divisor) = (i128::from(value.max(0)), i128::from(divisor.max(1)));
    ((value + divisor - 1) / divisor) as i64
}

fn joined(ips: &[IpAddr]) -> String {
    ips.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(",")
}

/// Sorted `key="value"` lines without a final newline; the values are Go string literals.
fn format_map(map: Option<&BTreeMap<String, String>>) -> String {
    let lines = map.into_iter().flatten().map(|(key, value)| format!("{key}={}", quoted(value)));
    lines.collect::<Vec<_>>().join("\n")
}

fn quoted(text: &str) -> String {
    let mut literal = String::with_capacity(text.len() + 2);
    literal.push('"');
    for c in text.chars() {
        match c {
            '"' => literal.push_str("\\\""),
            '\\' => literal.push_str("\\\\"),
            '\u{7}' => literal.push_str("\\a"),
            '\u{8}' => literal.push_str("\\b"),
            '\u{c}' => literal.push_str("\\f"),
            '\n' => literal.push_str("\\n"),
            '\r' => literal.push_str("\\r"),
            '\t' => literal.push_str("\\t"),
            '\u{b}' => literal.push_str("\\v"),
            ' '..='~' => literal.push(c),
            '\0'..='\u{7f}' => push_hex(&mut literal, "\\x", u32::from(c), 2),
            _ if is_printable(c) => literal.push(c),
            '\u{80}'..='\u{ffff}' => push_hex(&mut literal, "\\u", u32::from(c), 4),
            _ => push_hex(&mut literal, "\\U", u32::from(c), 8),
        }
    }
    literal.push('"');
    literal
}

fn push_hex(literal: &mut String, prefix: &str, value: u32, width: usize) {
    // Writing to a String cannot fail.
    let _ = write!(literal, "{prefix}{value:0width$x}");
}

/// The standard library's own idea of printable, which it only shows by escaping. Not in first place, where it would
/// also escape combining marks.
fn is_printable(c: char) -> bool {
    let mut buffer = [b'a', 0, 0, 0, 0];
    let length = 1 + c.encode_utf8(&mut buffer[1..]).len();
    std::str::from_utf8(&buffer[..length]).is_ok_and(|text| text.escape_debug().count() == 2)
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn values_are_quoted_as_go_does() {
        for (text, expected) in [
            ("", r#""""#),
            ("plain", r#""plain""#),
            ("a\"b\\c", r#""a\"b\\c""#),
            ("l1\nl2\t", r#""l1\nl2\t""#),
            ("\u{0}\u{1b}\u{7f}", r#""\x00\x1b\x7f""#),
            ("\u{7}\u{8}\u{b}\u{c}\r", r#""\a\b\v\f\r""#),
            ("grüße 日本 😀 e\u{301}", "\"grüße 日本 😀 e\u{301}\""),
            ("\u{301}'", "\"\u{301}'\""),
            ("\u{a0}\u{200b}\u{feff}", r#""\u00a0\u200b\ufeff""#),
            ("\u{e0001}", r#""\U000e0001""#),
        ] {
            assert_eq!(quoted(text), expected);
        }
    }
}
