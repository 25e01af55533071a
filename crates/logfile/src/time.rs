//! Timestamps as text, in integers only: nanoseconds since 1970-01-01T00:00:00Z to RFC 3339 and back. The shim cannot
//! afford a calendar library.

const NANOS: i64 = 1_000_000_000;
const DAY: i64 = 86_400;

/// Bytes of [`rfc3339`].
pub const WIDTH: usize = 30;

/// `2026-08-15T10:00:00.123456789Z`: always UTC and nine digits, so that text order is time order. Times before 1970
/// are shown as 1970.
pub fn rfc3339(unix_nanos: i64) -> [u8; WIDTH] {
    let nanos = unix_nanos.max(0);
    let (seconds, fraction) = (nanos / NANOS, nanos % NANOS);
    let (year, month, day) = date(seconds / DAY);
    let clock = seconds % DAY;
    let mut text = *b"0000-00-00T00:00:00.000000000Z";
    put(&mut text[0..4], year);
    put(&mut text[5..7], month);
    put(&mut text[8..10], day);
    put(&mut text[11..13], clock / 3600);
    put(&mut text[14..16], clock / 60 % 60);
    put(&mut text[17..19], clock % 60);
    put(&mut text[20..29], fraction);
    text
}

/// The suffix of a rotated file: `YYYYMMDD-HHMMSS`, UTC.
pub fn rotation_suffix(unix_seconds: i64) -> [u8; 15] {
    let seconds = unix_seconds.max(0);
    let (year, month, day) = date(seconds / DAY);
    let clock = seconds % DAY;
    let mut text = *b"00000000-000000";
    put(&mut text[0..4], year);
    put(&mut text[4..6], month);
    put(&mut text[6..8], day);
    put(&mut text[9..11], clock / 3600);
    put(&mut text[11..13], clock / 60 % 60);
    put(&mut text[13..15], clock % 60);
    text
}

/// Seconds since 1970 of a rotated file's suffix.
pub fn parse_rotation_suffix(text: &[u8]) -> Option<i64> {
    if text.len() != 15 || text[8] != b'-' {
        return None;
    }
    let day = days(number(&text[0..4])?, number(&text[4..6])?, number(&text[6..8])?)?;
    Some(day * DAY + clock(&text[9..11], &text[11..13], &text[13..15])?)
}

/// Nanoseconds since 1970 of any RFC 3339 time: other runtimes write local offsets and drop trailing zeros. Digits
/// beyond the ninth are cut off.
pub fn parse_rfc3339(text: &[u8]) -> Option<i64> {
    let (head, tail) = text.split_at_checked(19)?;
    if head[4] != b'-'
        || head[7] != b'-'
        || !matches!(head[10], b'T' | b't' | b' ')
        || head[13] != b':'
        || head[16] != b':'
    {
        return None;
    }
    let day = days(number(&head[0..4])?, number(&head[5..7])?, number(&head[8..10])?)?;
    let seconds = day * DAY + clock(&head[11..13], &head[14..16], &head[17..19])?;
    let (fraction, zone) = match tail.strip_prefix(b".") {
        Some(rest) => {
            let end = rest.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
            let (digits, zone) = rest.split_at(end);
            let kept = &digits[..digits.len().min(9)];
            (number(kept)? * 10i64.pow(9 - kept.len() as u32), zone)
        }
        None => (0, tail),
    };
    let offset = match zone {
        b"Z" | b"z" => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let minutes = number(&[*h1, *h2])? * 60 + number(&[*m1, *m2])?;
            if *sign == b'-' { -minutes * 60 } else { minutes * 60 }
        }
        _ => return None,
    };
    (seconds - offset).checked_mul(NANOS)?.checked_add(fraction)
}

fn put(field: &mut [u8], value: i64) {
    let mut rest = value;
    for digit in field.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
}

fn number(digits: &[u8]) -> Option<i64> {
    if digits.is_empty() || digits.len() > 9 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0, |value, digit| value * 10 + i64::from(digit - b'0')))
}

fn clock(hours: &[u8], minutes: &[u8], seconds: &[u8]) -> Option<i64> {
    let (hours, minutes, seconds) = (number(hours)?, number(minutes)?, number(seconds)?);
    // 60 is a leap second.
    (hours < 24 && minutes < 60 && seconds <= 60).then_some(hours * 3600 + minutes * 60 + seconds)
}

/// Year, month and day of a day since 1970, in the proleptic Gregorian calendar. Years are counted from March, which
/// puts the leap day last, and in eras of 400 years, which all have the same length.
fn date(day: i64) -> (i64, i64, i64) {
    let shifted = day + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day_of_year - (153 * from_march + 2) / 5 + 1)
}

/// The day since 1970 of a date; the inverse of [`date`].
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted.div_euclid(400);
    let year_of_era = shifted.rem_euclid(400);
    let from_march = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(unix_nanos: i64) -> String {
        String::from_utf8(rfc3339(unix_nanos).to_vec()).unwrap()
    }

    #[test]
    fn known_times() {
        assert_eq!(text(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(text(-5), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(text(951_782_400_000_000_000), "2000-02-29T00:00:00.000000000Z");
        assert_eq!(text(1_786_788_000_123_456_789), "2026-08-15T10:00:00.123456789Z");
        assert_eq!(text(4_107_542_399_000_000_001), "2100-02-28T23:59:59.000000001Z");
        assert_eq!(&rotation_suffix(1_786_788_000), b"20260815-100000");
    }

    #[test]
    fn other_spellings() {
        let base = 1_786_788_000_000_000_000;
        for (text, expected) in [
            ("2026-08-15T10:00:00Z", base),
            ("2026-08-15T12:00:00+02:00", base),
            ("2026-08-15T04:30:00.5-05:30", base + 500_000_000),
            ("2026-08-15t10:00:00.1234567899z", base + 123_456_789),
        ] {
            assert_eq!(parse_rfc3339(text.as_bytes()), Some(expected), "{text}");
        }
        for text in [
            "",
            "2026-08-15",
            "2026-08-15T10:00:00",
            "2026-08-15T10:00:00.Z",
            "2026-08-15T24:00:00Z",
            "2026-13-15T10:00:00Z",
            "2026-08-15T10:00:00+0200",
            "2026-08-15X10:00:00Z",
            "+026-08-15T10:00:00Z",
            "2026-08-15T10:00:00Zx",
        ] {
            assert_eq!(parse_rfc3339(text.as_bytes()), None, "{text}");
        }
        assert_eq!(parse_rotation_suffix(b"20260815-100000.gz"), None);
    }

    proptest! {
        #[test]
        fn times_survive_the_trip(unix_nanos in 0i64..=i64::MAX) {
            prop_assert_eq!(parse_rfc3339(&rfc3339(unix_nanos)), Some(unix_nanos));
            let seconds = unix_nanos / NANOS;
            prop_assert_eq!(parse_rotation_suffix(&rotation_suffix(seconds)), Some(seconds));
        }

        #[test]
        fn text_order_is_time_order(a in 0i64..=i64::MAX, b in 0i64..=i64::MAX) {
            prop_assert_eq!(rfc3339(a).cmp(&rfc3339(b)), a.cmp(&b));
        }
    }
}
