//! What a plain scalar means, as kubectl reads it: YAML 1.1 by the rules of go-yaml v2, which `sigs.k8s.io/yaml` uses.

use serde_json::{Number, Value};

/// A plain (unquoted, untagged) scalar as JSON. `None`: a number JSON cannot hold (`.inf`, `.nan`).
///
/// Timestamps stay strings, base 60 is not a number, `0644` is octal, single `y` and `n` are booleans.
pub(super) fn resolve(text: &str) -> Option<Value> {
    Some(match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" | "y" | "Y" => Value::Bool(true),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" | "n" | "N" => Value::Bool(false),
        ".nan" | ".NaN" | ".NAN" | ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" | "-.inf" | "-.Inf"
        | "-.INF" => return None,
        _ => match text.as_bytes().first() {
            Some(b'0'..=b'9' | b'+' | b'-' | b'.') => number(text).unwrap_or_else(|| Value::from(text)),
            _ => Value::from(text),
        },
    })
}

/// A number as go-yaml understands it, or `None` when the text is a string.
fn number(text: &str) -> Option<Value> {
    let plain: String = if text.starts_with('.') { text.to_owned() } else { text.replace('_', "") };
    integer(&plain).or_else(|| float(&plain))
}

fn integer(text: &str) -> Option<Value> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    // A second sign would be accepted by from_str_radix.
    if !digits.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return None;
    }
    let magnitude = u64::from_str_radix(digits, radix).ok()?;
    if negative { 0i64.checked_sub_unsigned(magnitude).map(Value::from) } else { Some(Value::from(magnitude)) }
}

/// `^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$`; a float without a fraction becomes an integer, as
/// Go's JSON encoder prints it.
fn float(text: &str) -> Option<Value> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['-', '+']).unwrap_or(exponent))),
        None => (unsigned, None),
    };
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let written = all_digits(whole) && all_digits(fraction) && !(whole.is_empty() && fraction.is_empty());
    if !written || exponent.is_some_and(|digits| digits.is_empty() || !all_digits(digits)) {
        return None;
    }
    let value: f64 = text.parse().ok()?;
    // Beyond 2^53 an integer would pretend to a precision the text did not get.
    if value.fract() == 0.0 && value.abs() < 9_007_199_254_740_992.0 {
        return Some(Value::from(value as i64));
    }
    Number::from_f64(value).map(Value::Number)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::resolve;

    #[test]
    fn plain_scalars_are_read_as_kubectl_reads_them() {
        let table: &[(&str, Value)] = &[
            ("", Value::Null),
            ("~", Value::Null),
            ("Null", Value::Null),
            ("nULL", json!("nULL")),
            ("yes", json!(true)),
            ("On", json!(true)),
            ("y", json!(true)),
            ("oN", json!("oN")),
            ("off", json!(false)),
            ("NO", json!(false)),
            ("0644", json!(420)),
            ("0o644", json!(420)),
            ("-0644", json!(-420)),
            ("0888", json!(888)),
            ("0x1F", json!(31)),
            ("0b101", json!(5)),
            ("1_000", json!(1000)),
            ("+12", json!(12)),
            ("--1", json!("--1")),
            ("-", json!("-")),
            ("-9223372036854775808", json!(i64::MIN)),
            ("18446744073709551615", json!(u64::MAX)),
            ("1.5", json!(1.5)),
            ("1.", json!(1)),
            (".5", json!(0.5)),
            ("1e3", json!(1000)),
            ("1e", json!("1e")),
            ("1.2.3", json!("1.2.3")),
            ("12:30", json!("12:30")),
            ("2001-12-14", json!("2001-12-14")),
            ("100m", json!("100m")),
            ("1Gi", json!("1Gi")),
            ("0x", json!("0x")),
            ("+", json!("+")),
            (".", json!(".")),
            ("...x", json!("...x")),
        ];
        for (text, value) in table {
            assert_eq!(resolve(text).as_ref(), Some(value), "{text:?}");
        }
        assert_eq!(resolve(".inf"), None);
        assert_eq!(resolve("-.INF"), None);
    }
}
