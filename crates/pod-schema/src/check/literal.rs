//! Scalars with a form of their own, and what Go says when they do not have it.

use serde_json::{Number, Value};

pub(super) const QUANTITY_FORMAT: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
const QUANTITY_SUFFIX: &str = "unable to parse quantity's suffix";

/// What Go's decoder calls a JSON value.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

pub(super) fn is_integer(number: &Number, small: bool) -> bool {
    number.as_i64().is_some_and(|number| !small || i32::try_from(number).is_ok())
}

/// As upstream's `ParseQuantity`, which takes more than its message says (`Ki` is 0 Ki).
pub(super) fn bad_quantity(text: &str) -> Option<&'static str> {
    let text = text.trim();
    if text.is_empty() {
        return Some(QUANTITY_FORMAT);
    }
    let digits = |text: &str| text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    rest = &rest[digits(rest)..];
    if let Some(fraction) = rest.strip_prefix('.') {
        rest = &fraction[digits(fraction)..];
    }
    let suffix = rest;
    let letters = rest.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let exponent = letters.strip_prefix(['-', '+']).unwrap_or(letters);
    if digits(exponent) != exponent.len() {
        return Some(QUANTITY_FORMAT);
    }
    let known = matches!(
        suffix,
        "" | "n" | "u" | "m" | "k" | "M" | "G" | "T" | "P" | "E" | "Ki" | "Mi" | "Gi" | "Ti" | "Pi" | "Ei"
    );
    let scientific = suffix.strip_prefix(['e', 'E']).is_some_and(|exponent| exponent.parse::<i64>().is_ok());
    (!known && !scientific).then_some(QUANTITY_SUFFIX)
}

/// Offset of the first byte that is not standard base64 with padding; line ends are skipped.
pub(super) fn bad_base64(text: &str) -> Option<usize> {
    let mut in_group = 0;
    let mut group_at = 0;
    let mut padding = 0;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'\r' | b'\n' => continue,
            b'=' if in_group >= 2 => padding += 1,
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'+' | b'/' if padding == 0 => {}
            _ => return Some(at),
        }
        if in_group == 0 {
            group_at = at;
        }
        in_group = (in_group + 1) % 4;
        if in_group == 0 && padding > 0 {
            let rest = &text.as_bytes()[at + 1..];
            return rest.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).map(|more| at + 1 + more);
        }
    }
    match (in_group, padding) {
        (0, _) => None,
        (_, 0) => Some(group_at),
        _ => Some(text.len()),
    }
}

/// Go's `time.Parse` with the layout of RFC 3339; `micro`: with six digits of a second.
pub(super) fn bad_time(text: &str, micro: bool) -> Option<String> {
    let layout = if micro { "2006-01-02T15:04:05.000000Z07:00" } else { "2006-01-02T15:04:05Z07:00" };
    let cannot = |rest: &str, element: &str| {
        Some(format!("parsing time {text:?} as {layout:?}: cannot parse {rest:?} as {element:?}"))
    };
    let mut rest = text;
    let mut numbers = [0_u32; 6];
    let elements = [("2006", 4, "-"), ("01", 2, "-"), ("02", 2, "T"), ("15", 2, ":"), ("04", 2, ":"), ("05", 2, "")];
    for (place, (element, length, separator)) in elements.into_iter().enumerate() {
        match rest.get(..length).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit())) {
            Some(digits) => numbers[place] = digits.parse().unwrap_or_default(),
            None => return cannot(rest, element),
        }
        rest = &rest[length..];
        match rest.strip_prefix(separator) {
            Some(after) => rest = after,
            None => return cannot(rest, separator),
        }
    }
    let fraction =
        rest.strip_prefix(['.', ',']).map(|digits| digits.len() - after_digits(digits).len()).unwrap_or_default();
    match (micro, fraction) {
        (true, 6) => rest = &rest[7..],
        (true, _) => return cannot(rest, ".000000"),
        (false, 0) => {}
        (false, digits) => rest = &rest[1 + digits..],
    }
    let zone = rest;
    if let Some(after) = zone.strip_prefix('Z') {
        rest = after;
    } else {
        let bytes = zone.as_bytes();
        let digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
        let fits = zone.starts_with(['+', '-']) && bytes.get(3) == Some(&b':') && [1, 2, 4, 5].into_iter().all(digit);
        if !fits {
            return cannot(zone, "Z07:00");
        }
        rest = &zone[6..];
    }
    let wrong = |what: &str| Some(format!("parsing time {text:?}: {what}"));
    let [year, month, day, hour, minute, second] = numbers;
    match () {
        () if month == 0 || month > 12 => wrong("month out of range"),
        () if hour > 23 => wrong("hour out of range"),
        () if minute > 59 => wrong("minute out of range"),
        () if second > 59 => wrong("second out of range"),
        () if !rest.is_empty() => wrong(&format!("extra text: {rest:?}")),
        () if day == 0 || day > days(year, month) => wrong("day out of range"),
        () => None,
    }
}

fn after_digits(text: &str) -> &str {
    text.trim_start_matches(|c: char| c.is_ascii_digit())
}

fn days(year: u32, month: u32) -> u32 {
    match month {
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}
