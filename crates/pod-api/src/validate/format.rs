//! Formats of names and values, each with the complaints apimachinery's `util/validation` makes. An empty list: fine.

/// DNS-1123 label: container, volume and namespace names.
pub(crate) fn dns_label(value: &str) -> Vec<String> {
    let mut complaints = longer_than(value, 63);
    if !is_dns_label(value) {
        complaints.push(
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and \
             end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
             '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
                .to_owned(),
        );
    }
    complaints
}

/// DNS-1035 label: names of services.
pub(crate) fn dns_label_1035(value: &str) -> Vec<String> {
    let mut complaints = longer_than(value, 63);
    if !is_dns_label(value) || !value.starts_with(|c: char| c.is_ascii_lowercase()) {
        complaints.push(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
             character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for \
             validation is '[a-z]([-a-z0-9]*[a-z0-9])?')"
                .to_owned(),
        );
    }
    complaints
}

/// DNS-1123 subdomain: names of objects.
pub(crate) fn dns_subdomain(value: &str) -> Vec<String> {
    let mut complaints = longer_than(value, 253);
    if !value.split('.').all(is_dns_label) {
        complaints.push(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
             start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
             '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
                .to_owned(),
        );
    }
    complaints
}

/// A DNS-1123 subdomain whose labels may also have and begin with underscores: DNS search domains.
pub(crate) fn dns_subdomain_with_underscore(value: &str) -> Vec<String> {
    let mut complaints = longer_than(value, 253);
    let inner = |byte: u8| is_lower_alphanumeric(byte) || byte == b'-' || byte == b'_';
    let edge = |byte: Option<&u8>| byte.is_some_and(|byte| is_lower_alphanumeric(*byte));
    let label = |label: &str| {
        let bytes = label.as_bytes();
        (edge(bytes.first()) || bytes.first() == Some(&b'_')) && edge(bytes.last()) && bytes.iter().copied().all(inner)
    };
    if !value.split('.').all(label) {
        complaints.push(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-', '_' or '.', and \
             must start and end with an alphanumeric character (e.g. 'example.com')"
                .to_owned(),
        );
    }
    complaints
}

/// `name` or `example.com/name`: label and annotation keys, readiness gates.
pub(crate) fn qualified_name(value: &str) -> Vec<String> {
    let (prefix, name) = match value.split_once('/') {
        None => (None, value),
        Some((_, name)) if name.contains('/') => {
            return vec![format!(
                "a qualified name {QUALIFIED_NAME} with an optional DNS subdomain prefix and '/' (e.g. \
                 'example.com/MyName')"
            )];
        }
        Some((prefix, name)) => (Some(prefix), name),
    };
    let mut complaints = match prefix {
        None => Vec::new(),
        Some("") => vec!["prefix part must be non-empty".to_owned()],
        Some(prefix) => dns_subdomain(prefix).into_iter().map(|complaint| format!("prefix part {complaint}")).collect(),
    };
    if name.is_empty() {
        complaints.push("name part must be non-empty".to_owned());
    } else {
        complaints.extend(longer_than(name, 63).into_iter().map(|complaint| format!("name part {complaint}")));
    }
    if !is_qualified(name) {
        complaints.push(format!("name part {QUALIFIED_NAME}"));
    }
    complaints
}

const QUALIFIED_NAME: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
     alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
     '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

pub(crate) fn label_value(value: &str) -> Vec<String> {
    let mut complaints = longer_than(value, 63);
    if !value.is_empty() && !is_qualified(value) {
        complaints.push(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must \
             start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used \
             for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
                .to_owned(),
        );
    }
    complaints
}

/// A key of a ConfigMap or Secret: it becomes a file name.
pub(crate) fn config_key(value: &str) -> Vec<String> {
    let mut complaints = longer_than(value, 253);
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if value.is_empty() || !value.bytes().all(allowed) {
        complaints.push(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or \
             'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
                .to_owned(),
        );
    }
    match value {
        "." => complaints.push("must not be '.'".to_owned()),
        ".." => complaints.push("must not be '..'".to_owned()),
        _ if value.starts_with("..") => complaints.push("must not start with '..'".to_owned()),
        _ => {}
    }
    complaints
}

/// RelaxedEnvironmentVariableValidation, on by default since 1.32.
pub(crate) fn environment_name(value: &str) -> Vec<String> {
    if value.is_empty() {
        return vec!["environment variable name must be non-empty".to_owned()];
    }
    if value.chars().any(|c| !(' '..='~').contains(&c) || c == '=') {
        return vec![
            "a valid environment variable name must consist only of printable ASCII characters other than '='"
                .to_owned(),
        ];
    }
    Vec::new()
}

pub(crate) fn port_number(port: i64) -> Option<String> {
    (!(1..=65535).contains(&port)).then(|| inclusive_range(1, 65535))
}

/// RFC 6335 service name.
pub(crate) fn port_name(value: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if value.len() > 15 {
        complaints.push("must be no more than 15 characters".to_owned());
    }
    if value.is_empty() || !value.bytes().all(|byte| is_lower_alphanumeric(byte) || byte == b'-') {
        complaints.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !value.bytes().any(|byte| byte.is_ascii_lowercase()) {
        complaints.push("must contain at least one letter (a-z)".to_owned());
    }
    if value.contains("--") {
        complaints.push("must not contain consecutive hyphens".to_owned());
    }
    if value.starts_with('-') || value.ends_with('-') {
        complaints.push("must not begin or end with a hyphen".to_owned());
    }
    complaints
}

pub(crate) fn header_name(value: &str) -> Vec<String> {
    if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return vec![
            "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for \
             validation is '[-A-Za-z0-9]+')"
                .to_owned(),
        ];
    }
    Vec::new()
}

pub(crate) fn ip_address(value: &str) -> Option<&'static str> {
    value
        .parse::<std::net::IpAddr>()
        .is_err()
        .then_some("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)")
}

/// Segments of `[a-z0-9]([-_a-z0-9]*[a-z0-9])?` separated by dots or slashes, 253 bytes at most.
pub(crate) fn is_sysctl_name(value: &str) -> bool {
    let segment = |segment: &str| {
        let bytes = segment.as_bytes();
        let edge = |byte: Option<&u8>| byte.is_some_and(|byte| is_lower_alphanumeric(*byte));
        edge(bytes.first())
            && edge(bytes.last())
            && bytes.iter().all(|byte| is_lower_alphanumeric(*byte) || b"-_".contains(byte))
    };
    value.len() <= 253 && value.split(['.', '/']).all(segment)
}

pub(crate) fn inclusive_range(least: i64, most: i64) -> String {
    format!("must be between {least} and {most}, inclusive")
}

fn longer_than(value: &str, bytes: usize) -> Vec<String> {
    if value.len() > bytes { vec![format!("must be no more than {bytes} bytes")] } else { Vec::new() }
}

fn is_lower_alphanumeric(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

/// `[a-z0-9]([-a-z0-9]*[a-z0-9])?`
fn is_dns_label(value: &str) -> bool {
    let bytes = value.as_bytes();
    let edge = |byte: Option<&u8>| byte.is_some_and(|byte| is_lower_alphanumeric(*byte));
    edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(|byte| is_lower_alphanumeric(*byte) || *byte == b'-')
}

/// `([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]`
fn is_qualified(value: &str) -> bool {
    let bytes = value.as_bytes();
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
}
