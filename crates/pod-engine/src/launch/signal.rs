//! Which signal asks a container to end.

use rustix::process::Signal;

/// The kernel's `_NSIG` on every architecture we build for (signal(7)).
const HIGHEST: i32 = 64;

const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
];

/// `lifecycle.stopSignal`, else the image's STOPSIGNAL, else SIGTERM (pod v1, containerd container_stop.go). One that is
/// no signal counts as not given.
pub(super) fn stop_signal(own: Option<&str>, image: Option<&str>) -> i32 {
    own.or(image).and_then(number).unwrap_or(Signal::TERM.as_raw())
}

/// `SIGQUIT`, `QUIT`, `3`, `SIGRTMIN+3`.
fn number(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse() {
        return (1..=HIGHEST).contains(&number).then_some(number);
    }
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(index) = NAMES.iter().position(|known| *known == name) {
        return i32::try_from(index).ok().map(|number| number + 1);
    }
    // glibc keeps the first two real-time signals for itself: SIGRTMIN is 34, SIGRTMAX 64 (signal(7)).
    let (base, sign, offset) = if let Some(offset) = name.strip_prefix("RTMIN") {
        (34, 1, offset.strip_prefix('+').unwrap_or("0"))
    } else {
        (HIGHEST, -1, name.strip_prefix("RTMAX")?.strip_prefix('-').unwrap_or("0"))
    };
    let number = offset.parse::<i32>().ok()?.checked_mul(sign)?.checked_add(base)?;
    (34..=HIGHEST).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::{number, stop_signal};

    #[test]
    fn signals_by_name_and_number() {
        let cases = [
            ("SIGTERM", Some(15)),
            ("QUIT", Some(3)),
            ("9", Some(9)),
            ("64", Some(64)),
            ("65", None),
            ("0", None),
            ("-9", None),
            ("SIGRTMIN+3", Some(37)),
            ("SIGRTMAX-1", Some(63)),
            ("SIGNOPE", None),
            ("SIGRTMIN+31", None),
            ("SIGRTMIN+2147483647", None),
        ];
        for (text, expected) in cases {
            assert_eq!(number(text), expected, "{text}");
        }
    }

    #[test]
    fn the_manifest_goes_before_the_image() {
        assert_eq!(stop_signal(Some("SIGUSR1"), Some("SIGQUIT")), 10);
        assert_eq!(stop_signal(None, Some("SIGQUIT")), 3);
        assert_eq!(stop_signal(None, Some("99")), 15);
        assert_eq!(stop_signal(None, None), 15);
    }
}
