//! Sizes and durations as people write them.

use std::fmt;
use std::time::Duration;

/// Bytes: `512`, `64Ki`, `16Mi`, `1Gi`, or decimal `k`, `M`, `G` (Kubernetes quantities without fractions).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// A time span: `500ms`, `5s`, `1m30s`, `24h` (Go's notation, as everywhere in Kubernetes).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seconds(pub Duration);

const UNITS: [(&str, u64); 9] = [
    ("Ti", 1 << 40),
    ("Gi", 1 << 30),
    ("Mi", 1 << 20),
    ("Ki", 1 << 10),
    ("T", 1_000_000_000_000),
    ("G", 1_000_000_000),
    ("M", 1_000_000),
    ("k", 1000),
    ("", 1),
];

const SPANS: [(&str, u128); 6] =
    [("ms", 1_000_000), ("us", 1000), ("ns", 1), ("h", 3_600_000_000_000), ("m", 60_000_000_000), ("s", 1_000_000_000)];

impl Size {
    pub fn parse(text: &str) -> Option<Size> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = UNITS.iter().find(|(name, _)| *name == &text[digits.len()..])?.1;
        let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| digits.parse::<u64>().ok()?.checked_mul(unit)).flatten().map(Size)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |(_, unit): &&(&str, u64)| self.0 != 0 && self.0.is_multiple_of(*unit);
        let (name, unit) = UNITS[..4].iter().find(fits).unwrap_or(&("", 1));
        write!(f, "{}{name}", self.0 / unit)
    }
}

impl Seconds {
    pub const fn new(seconds: u64) -> Seconds {
        Seconds(Duration::from_secs(seconds))
    }

    pub const fn millis(millis: u64) -> Seconds {
        Seconds(Duration::from_millis(millis))
    }

    pub fn parse(text: &str) -> Option<Seconds> {
        if text == "0" {
            return Some(Seconds(Duration::ZERO));
        }
        let mut rest = text;
        let mut nanos = 0u128;
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let value: u64 = rest[..digits].parse().ok()?;
            rest = &rest[digits..];
            // `ms` stands before `m` in the table.
            let (name, unit) = SPANS.iter().find(|(name, _)| rest.starts_with(name))?;
            rest = &rest[name.len()..];
            nanos = nanos.checked_add(u128::from(value) * unit)?;
        }
        (!text.is_empty()).then_some(nanos)?.try_into().ok().map(Duration::from_nanos).map(Seconds)
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos();
        if nanos == 0 {
            return f.write_str("0s");
        }
        let fits = |(_, unit): &&(&str, u128)| nanos.is_multiple_of(*unit);
        let order = [SPANS[3], SPANS[4], SPANS[5], SPANS[0], SPANS[1], SPANS[2]];
        let (name, unit) = order.iter().find(fits).copied().unwrap_or(SPANS[2]);
        write!(f, "{}{name}", nanos / unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes, shown) in [
            ("0", 0, "0"),
            ("512", 512, "512"),
            ("64Ki", 65536, "64Ki"),
            ("1Gi", 1 << 30, "1Gi"),
            ("2M", 2_000_000, "2000000"),
        ] {
            assert_eq!(Size::parse(text), Some(Size(bytes)), "{text}");
            assert_eq!(Size(bytes).to_string(), shown);
        }
        for text in ["", "Ki", "-1", "1.5Mi", "1KB", "1 Ki", "99999999Ti"] {
            assert_eq!(Size::parse(text), None, "{text}");
        }
    }

    #[test]
    fn spans() {
        for (text, millis, shown) in [
            ("0", 0, "0s"),
            ("500ms", 500, "500ms"),
            ("1m30s", 90_000, "90s"),
            ("24h", 86_400_000, "24h"),
            ("2m", 120_000, "2m"),
        ] {
            assert_eq!(Seconds::parse(text), Some(Seconds::millis(millis)), "{text}");
            assert_eq!(Seconds::millis(millis).to_string(), shown);
        }
        for text in ["", "5", "s", "-1s", "1d", "99999999999999999999h", "9999999999999h"] {
            assert_eq!(Seconds::parse(text), None, "{text}");
        }
    }
}
