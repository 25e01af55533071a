//! Heads as they are passed on: what stays is copied in runs of lines, what belongs to one connection is replaced
//! (RFC 9110 §7.6).

use crate::head::{Field, Length, Name};
use crate::plan::Forwarded;

/// Copies the lines that are kept. Neighbours go in one piece.
pub fn kept(bytes: &[u8], fields: &[Field], out: &mut Vec<u8>) {
    let mut run: Option<(usize, usize)> = None;
    for field in fields {
        let (start, end) = (usize::from(field.line.start), usize::from(field.line.end));
        match (&mut run, field.keep) {
            (Some((_, until)), true) => *until = end,
            (None, true) => run = Some((start, end)),
            (Some((from, until)), false) => {
                out.extend_from_slice(&bytes[*from..*until]);
                run = None;
            }
            (None, false) => {}
        }
    }
    if let Some((from, until)) = run {
        out.extend_from_slice(&bytes[from..until]);
    }
}

/// `X-Forwarded-*` of a request. `peer` is the client's address as text, `host` what the request was for.
pub fn forwarded(
    how: Forwarded,
    bytes: &[u8],
    fields: &mut [Field],
    (peer, tls, host): (&[u8], bool, &[u8]),
    out: &mut Vec<u8>,
) {
    if how == Forwarded::Pass {
        return;
    }
    let (mut proto, mut sent_host, mut chain) = (false, false, None);
    for field in fields.iter_mut() {
        match field.name {
            Name::XForwardedFor => {
                field.keep = false;
                // Several are one list; only the last is looked at again, the ones before are kept as they are.
                if how == Forwarded::Append
                    && let Some(before) = chain.replace(field.value)
                {
                    out.extend_from_slice(b"X-Forwarded-For: ");
                    out.extend_from_slice(before.of(bytes));
                    out.extend_from_slice(b"\r\n");
                }
            }
            Name::XForwardedProto if how == Forwarded::Append => proto = true,
            Name::XForwardedHost if how == Forwarded::Append => sent_host = true,
            Name::XForwardedProto | Name::XForwardedHost | Name::Forwarded if how == Forwarded::Replace => {
                field.keep = false;
            }
            Name::LikeForwarded => field.keep = false,
            _ => {}
        }
    }
    out.extend_from_slice(b"X-Forwarded-For: ");
    if let Some(chain) = chain {
        out.extend_from_slice(chain.of(bytes));
        out.extend_from_slice(b", ");
    }
    out.extend_from_slice(peer);
    out.extend_from_slice(b"\r\n");
    if !proto {
        let line: &[u8] = if tls { b"X-Forwarded-Proto: https\r\n" } else { b"X-Forwarded-Proto: http\r\n" };
        out.extend_from_slice(line);
    }
    if !sent_host && !host.is_empty() {
        out.extend_from_slice(b"X-Forwarded-Host: ");
        out.extend_from_slice(host);
        out.extend_from_slice(b"\r\n");
    }
}

/// The field that says how long the body is.
pub fn framing(length: Length, out: &mut Vec<u8>) {
    if length == Length::Chunked {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
}

/// A whole number in decimal.
pub fn decimal(number: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = number;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Reason phrases of what is answered here.
pub const fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        411 => "Length Required",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Unknown",
    }
}

/// `Date` (RFC 9110 §5.6.7), of nanoseconds since 1970.
pub fn date(wall: u64, out: &mut Vec<u8>) {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let seconds = wall / 1_000_000_000;
    let (days, rest) = (seconds / 86400, seconds % 86400);
    let (year, month, day) = civil(days);
    let text = format!(
        "Date: {}, {day:02} {} {year} {:02}:{:02}:{:02} GMT\r\n",
        DAYS[(days % 7) as usize],
        MONTHS[month as usize - 1],
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    );
    out.extend_from_slice(text.as_bytes());
}

/// Days since 1970 as year, month and day of the Gregorian calendar.
pub fn civil(days: u64) -> (u64, u64, u64) {
    // Years from March, so that the day that is not always there is the last (a well-known reckoning).
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::{Bounds, request};

    fn pass(text: &str, how: Forwarded) -> String {
        let mut fields = Vec::new();
        let bounds = Bounds { bytes: 4096, fields: 50 };
        request(text.as_bytes(), &mut fields, bounds).unwrap().unwrap();
        let (mut extra, mut out) = (Vec::new(), Vec::new());
        forwarded(how, text.as_bytes(), &mut fields, (b"10.0.0.9", false, b"h"), &mut extra);
        kept(text.as_bytes(), &fields, &mut out);
        out.extend_from_slice(&extra);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_belongs_to_the_connection_stays_behind() {
        let head = "GET / HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nX-End:  2 \r\nTE: gzip\r\nProxy-Connection: x\r\nTe: trailers\r\n\r\n";
        assert_eq!(pass(head, Forwarded::Pass), "Host: h\r\nX-End:  2 \r\nTe: trailers\r\n");
        // What the way depends on is not taken away.
        let head = "GET / HTTP/1.1\r\nHost: h\r\nConnection: host, x-forwarded-for\r\nX-Forwarded-For: 1.1.1.1\r\n\r\n";
        assert_eq!(pass(head, Forwarded::Pass), "Host: h\r\nX-Forwarded-For: 1.1.1.1\r\n");
    }

    #[test]
    fn forwarded_fields() {
        let plain = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
        let added = "X-Forwarded-For: 10.0.0.9\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: h\r\n";
        assert_eq!(pass(plain, Forwarded::Append), format!("Host: h\r\n{added}"));
        let sent = "GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 1.1.1.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: e\r\nX-Forwarded-For: 2.2.2.2\r\n\r\n";
        assert_eq!(
            pass(sent, Forwarded::Append),
            "Host: h\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: e\r\nX-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 2.2.2.2, 10.0.0.9\r\n"
        );
        assert_eq!(pass(sent, Forwarded::Replace), format!("Host: h\r\n{added}"));
        // What an application may take for one of them, and the field that means all of them.
        let like = "GET / HTTP/1.1\r\nHost: h\r\nX_Forwarded_For: 1.1.1.1\r\nForwarded: for=1.1.1.1\r\n\r\n";
        assert_eq!(pass(like, Forwarded::Replace), format!("Host: h\r\n{added}"));
        assert_eq!(pass(like, Forwarded::Append), format!("Host: h\r\nForwarded: for=1.1.1.1\r\n{added}"));
        let named = "GET / HTTP/1.1\r\nHost: h\r\nConnection: x_forwarded_for\r\nX_Forwarded_For: 1.1.1.1\r\n\r\n";
        assert_eq!(pass(named, Forwarded::Pass), "Host: h\r\n");
    }

    #[test]
    fn dates() {
        for (seconds, text) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (4_102_444_799, "Thu, 31 Dec 2099 23:59:59 GMT"),
        ] {
            let mut out = Vec::new();
            date(seconds * 1_000_000_000, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), format!("Date: {text}\r\n"));
        }
    }
}
