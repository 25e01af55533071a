//! Lengths of time: whole seconds for arithmetic, and the way Go prints them for messages.

use jiff::SignedDuration;

use crate::Time;

/// `time` plus whole seconds; the far end of time instead of an overflow.
pub(crate) fn after(time: Time, seconds: u64) -> Time {
    later(time, SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX)))
}

pub(crate) fn later(time: Time, duration: SignedDuration) -> Time {
    time.checked_add(duration).unwrap_or(Time::MAX)
}

/// Whole seconds from `start` to `end`, rounded down; 0 if `end` is earlier.
pub(crate) fn whole_seconds(start: Time, end: Time) -> u64 {
    u64::try_from(end.duration_since(start).as_secs()).unwrap_or(0)
}

/// As Go's `time.Duration.String` prints it: `850ms`, `1.5s`, `1m20s`, `5m0s`, `1h0m0s`.
pub(crate) fn go_text(milliseconds: u64) -> String {
    if milliseconds == 0 {
        return "0s".to_owned();
    }
    if milliseconds < 1000 {
        return format!("{milliseconds}ms");
    }
    let (seconds, thousandths) = (milliseconds / 1000, milliseconds % 1000);
    let fraction = match thousandths {
        0 => String::new(),
        _ => format!(".{thousandths:03}").trim_end_matches('0').to_owned(),
    };
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{rest}{fraction}s"),
        (0, _) => format!("{minutes}m{rest}{fraction}s"),
        _ => format!("{hours}h{minutes}m{rest}{fraction}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::go_text;

    #[test]
    fn prints_durations_as_go_does() {
        let cases = [
            (0, "0s"),
            (850, "850ms"),
            (1000, "1s"),
            (1234, "1.234s"),
            (1500, "1.5s"),
            (20_000, "20s"),
            (80_000, "1m20s"),
            (160_000, "2m40s"),
            (300_000, "5m0s"),
            (3_600_000, "1h0m0s"),
            (62_050, "1m2.05s"),
        ];
        for (milliseconds, text) in cases {
            assert_eq!(go_text(milliseconds), text);
        }
    }
}
