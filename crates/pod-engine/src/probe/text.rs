//! How Go writes things. Kubernetes' messages are Go's, and people know them by heart.

use std::error::Error;
use std::fmt::Write as _;
use std::io;
use std::time::Duration;

/// An operating system error as Go's `syscall.Errno` says it: lower case, without its number.
pub(super) fn errno(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

/// An error with its causes, in our own words, where Go's do not fit.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text = format!("{text}: {source}");
        cause = source.source();
    }
    text
}

/// `%q`: a double-quoted Go string (strconv.Quote).
pub(super) fn quote(bytes: &[u8]) -> String {
    let mut quoted = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter {
                '"' => quoted.push_str("\\\""),
                '\\' => quoted.push_str("\\\\"),
                '\n' => quoted.push_str("\\n"),
                '\r' => quoted.push_str("\\r"),
                '\t' => quoted.push_str("\\t"),
                '\x07' => quoted.push_str("\\a"),
                '\x08' => quoted.push_str("\\b"),
                '\x0b' => quoted.push_str("\\v"),
                '\x0c' => quoted.push_str("\\f"),
                _ if letter.is_ascii_control() => {
                    let _ = write!(quoted, "\\x{:02x}", u32::from(letter));
                }
                _ if letter.is_control() => {
                    let _ = write!(quoted, "\\u{:04x}", u32::from(letter));
                }
                _ => quoted.push(letter),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(quoted, "\\x{byte:02x}");
        }
    }
    quoted.push('"');
    quoted
}

/// `%v` of a `time.Duration`: `1s`, `1m30s`, `500ms`.
pub(super) fn duration(duration: Duration) -> String {
    let whole = duration.as_secs();
    if whole == 0 {
        return match duration.as_millis() {
            0 => "0s".to_owned(),
            milliseconds => format!("{milliseconds}ms"),
        };
    }
    let (hours, minutes) = (whole / 3600, whole / 60 % 60);
    let fraction = format!("{:03}", duration.subsec_millis());
    let fraction = fraction.trim_end_matches('0');
    let dot = if fraction.is_empty() { "" } else { "." };
    let seconds = format!("{}{dot}{fraction}s", whole % 60);
    match (hours, minutes) {
        (0, 0) => seconds,
        (0, _) => format!("{minutes}m{seconds}"),
        _ => format!("{hours}h{minutes}m{seconds}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted() {
        assert_eq!(quote(b"sh -c \"x\"\n\x15\x03\xff\\ \xc3\xa9"), r#""sh -c \"x\"\n\x15\x03\xff\\ é""#);
    }

    #[test]
    fn durations() {
        for (millis, text) in
            [(0, "0s"), (500, "500ms"), (1000, "1s"), (1500, "1.5s"), (90_000, "1m30s"), (3_600_000, "1h0m0s")]
        {
            assert_eq!(duration(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn system_errors() {
        for (code, text) in [(111, "connection refused"), (113, "no route to host"), (104, "connection reset by peer")]
        {
            assert_eq!(errno(&io::Error::from_raw_os_error(code)), text);
        }
    }
}
