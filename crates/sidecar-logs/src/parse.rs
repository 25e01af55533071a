//! What the text of a line means: its time, its severity, its fields. A line that is not what was expected stays text.

use logfile::time;
use record::{Flags, Record, Severity, json};
use regex::bytes::{Regex, RegexBuilder};

use crate::config;

#[derive(Debug)]
pub enum Parser {
    None,
    Json,
    Logfmt,
    /// Named groups become fields; `message`, `time` and `level` become what they say.
    Regex(Regex),
    Access,
    Syslog,
}

impl Parser {
    /// `pattern` is there when `parse` is `regex`; the document was checked.
    pub fn new(parse: config::Parse, pattern: Option<&str>) -> Result<Parser, regex::Error> {
        Ok(match parse {
            config::Parse::None => Parser::None,
            config::Parse::Json => Parser::Json,
            config::Parse::Logfmt => Parser::Logfmt,
            config::Parse::Regex => {
                // A record may have several lines.
                let mut builder = RegexBuilder::new(pattern.unwrap_or_default());
                Parser::Regex(builder.dot_matches_new_line(true).build()?)
            }
            config::Parse::Access => Parser::Access,
            config::Parse::Syslog => Parser::Syslog,
        })
    }

    /// Shows the record with what was understood of it to `emit`; `fields` is room for fields. `record.time` is the time of
    /// reading, or of the container runtime.
    pub fn understand(&self, mut record: Record<'_>, fields: &mut Vec<u8>, emit: impl FnOnce(&Record<'_>)) {
        fields.clear();
        match self {
            _ if record.flags.has(Flags::PARTIAL) => {}
            Parser::None => {}
            Parser::Json => understand_json(&mut record),
            Parser::Logfmt => understand_logfmt(&mut record, fields),
            Parser::Regex(regex) => understand_groups(regex, &mut record, fields),
            Parser::Access => access(&mut record, fields),
            Parser::Syslog => syslog(&mut record, fields),
        }
        emit(&Record { fields, ..record });
    }
}

/// Appends a member; `raw` is JSON already.
fn member(fields: &mut Vec<u8>, key: &[u8], write: impl FnOnce(&mut Vec<u8>)) {
    if !fields.is_empty() {
        fields.push(b',');
    }
    json::string(fields, key);
    fields.push(b':');
    write(fields);
}

fn text_member(fields: &mut Vec<u8>, key: &[u8], text: &[u8]) {
    member(fields, key, |out| json::string(out, text));
}

/// A number if it is one as JSON writes it, otherwise text.
fn number_member(fields: &mut Vec<u8>, key: &[u8], text: &[u8]) {
    let plain = !text.is_empty() && text.iter().all(u8::is_ascii_digit) && (text.len() == 1 || text[0] != b'0');
    if plain { member(fields, key, |out| out.extend_from_slice(text)) } else { text_member(fields, key, text) }
}

fn understand_json(record: &mut Record<'_>) {
    if !record.body.trim_ascii_start().starts_with(b"{") {
        return;
    }
    let (mut when, mut severity) = (None, Severity::Unknown);
    let whole = json::object(record.body, |(key, value)| match key {
        b"time" | b"timestamp" | b"ts" | b"@timestamp" => when = when.or_else(|| moment(value)),
        b"level" | b"severity" | b"lvl" | b"levelname" => {
            severity = Severity::parse(json::string_value(value).unwrap_or(value));
        }
        _ => {}
    });
    if whole {
        record.flags = record.flags.with(Flags::OBJECT);
        record.time = when.unwrap_or(record.time);
        record.severity = severity;
    }
}

/// RFC 3339, or seconds, milliseconds, microseconds or nanoseconds since 1970: told apart by their size.
pub fn moment(value: &[u8]) -> Option<i64> {
    let text = json::string_value(value).unwrap_or(value);
    if let Some(nanos) = time::parse_rfc3339(text) {
        return Some(nanos);
    }
    let number: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    let scale = match number.abs() {
        size if size < 1e11 => 1e9,
        size if size < 1e14 => 1e6,
        size if size < 1e17 => 1e3,
        _ => 1.0,
    };
    (number.is_finite() && number > 0.0).then_some((number * scale) as i64)
}

fn understand_logfmt(record: &mut Record<'_>, fields: &mut Vec<u8>) {
    let mut rest = record.body;
    while !rest.is_empty() {
        rest = rest.trim_ascii_start();
        let end = rest.iter().position(|byte| matches!(byte, b'=' | b' ')).unwrap_or(rest.len());
        let (key, tail) = rest.split_at(end);
        let Some(tail) = tail.strip_prefix(b"=") else {
            rest = tail;
            continue;
        };
        let (value, tail) = match tail.strip_prefix(b"\"") {
            Some(quoted) => {
                let mut at = 0;
                while at < quoted.len() && quoted[at] != b'"' {
                    at += if quoted[at] == b'\\' { 2 } else { 1 };
                }
                let at = at.min(quoted.len());
                (&quoted[..at], quoted.get(at + 1..).unwrap_or_default())
            }
            None => tail.split_at(tail.iter().position(|byte| *byte == b' ').unwrap_or(tail.len())),
        };
        rest = tail;
        match key {
            b"" => continue,
            b"level" | b"severity" | b"lvl" => record.severity = Severity::parse(value),
            b"time" | b"ts" | b"timestamp" => record.time = time::parse_rfc3339(value).unwrap_or(record.time),
            _ => {}
        }
        // Ours has these names already.
        if matches!(key, b"time" | b"message" | b"stream" | b"partial") {
            continue;
        }
        let mut plain = Vec::new();
        json::unescape(&mut plain, value);
        text_member(fields, key, &plain);
    }
}

fn understand_groups<'a>(regex: &Regex, record: &mut Record<'a>, fields: &mut Vec<u8>) {
    let text: &'a [u8] = record.body;
    let Some(captures) = regex.captures(text) else { return };
    for (index, name) in regex.capture_names().enumerate() {
        let (Some(name), Some(found)) = (name, captures.get(index)) else { continue };
        let found = found.as_bytes();
        match name {
            "message" => record.body = found,
            "time" => record.time = moment(found).unwrap_or(record.time),
            "level" => {
                record.severity = Severity::parse(found);
                text_member(fields, b"level", found);
            }
            _ => number_member(fields, name.as_bytes(), found),
        }
    }
}

/// `CLIENT IDENT USER [TIME] "REQUEST" STATUS BYTES`, and optionally `"REFERER" "AGENT"`: Apache's common and combined
/// formats (mod_log_config), nginx's `combined`. The text stays.
fn access(record: &mut Record<'_>, fields: &mut Vec<u8>) {
    let Some(parts) = access_parts(record.body) else { return };
    let mut add = |key: &str, value: &[u8]| {
        if value != b"-" && !value.is_empty() {
            text_member(fields, key.as_bytes(), value);
        }
    };
    add("client", parts.client);
    add("user", parts.user);
    let mut words = parts.request.splitn(3, |byte| *byte == b' ');
    match (words.next(), words.next(), words.next()) {
        (Some(method), Some(path), Some(protocol)) => {
            add("method", method);
            add("path", path);
            add("protocol", protocol);
        }
        // What some scanner sent instead of a request.
        _ => add("request", parts.request),
    }
    add("referer", parts.referer);
    add("agent", parts.agent);
    number_member(fields, b"status", parts.status);
    number_member(fields, b"bytes", if parts.bytes == b"-" { b"0" } else { parts.bytes });
    record.time = access_time(parts.time).unwrap_or(record.time);
}

struct AccessParts<'a> {
    client: &'a [u8],
    user: &'a [u8],
    time: &'a [u8],
    request: &'a [u8],
    status: &'a [u8],
    bytes: &'a [u8],
    referer: &'a [u8],
    agent: &'a [u8],
}

fn access_parts(line: &[u8]) -> Option<AccessParts<'_>> {
    let mut rest = line;
    let client = word(&mut rest)?;
    let _ident = word(&mut rest)?;
    // A user's name may hold blanks; the bracket ends it.
    let open = memchr::memmem::find(rest, b" [")?;
    let user = &rest[..open];
    rest = &rest[open + 2..];
    let close = memchr::memchr(b']', rest)?;
    let time = &rest[..close];
    rest = rest[close + 1..].strip_prefix(b" ")?;
    let request = quoted(&mut rest)?;
    rest = rest.strip_prefix(b" ")?;
    let status = word(&mut rest)?;
    let bytes = word(&mut rest)?;
    if status.len() != 3 || !status.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let referer = quoted(&mut rest).unwrap_or_default();
    rest = rest.strip_prefix(b" ").unwrap_or(rest);
    let agent = quoted(&mut rest).unwrap_or_default();
    Some(AccessParts { client, user, time, request, status, bytes, referer, agent })
}

/// Up to the next blank, which is taken too.
fn word<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = memchr::memchr(b' ', rest).unwrap_or(rest.len());
    let (word, tail) = rest.split_at(end);
    *rest = tail.get(1..).unwrap_or_default();
    (!word.is_empty()).then_some(word)
}

/// The inside of quotes; a backslash protects the byte behind it.
fn quoted<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let inner = rest.strip_prefix(b"\"")?;
    let mut at = 0;
    while *inner.get(at)? != b'"' {
        at += if inner[at] == b'\\' { 2 } else { 1 };
    }
    *rest = &inner[at + 1..];
    Some(&inner[..at])
}

const MONTHS: [&[u8; 3]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];

fn month(name: &[u8]) -> Option<i8> {
    let index = MONTHS.iter().position(|month| *month == name)?;
    i8::try_from(index + 1).ok()
}

fn digits<T: TryFrom<u32>>(text: &[u8]) -> Option<T> {
    let value = text.iter().try_fold(0u32, |sum, byte| {
        let digit = byte.is_ascii_digit().then(|| u32::from(byte - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    });
    T::try_from(value.filter(|_| !text.is_empty())?).ok()
}

/// Nanoseconds since 1970 of a civil time `offset` seconds east of UTC.
fn civil(date: (i16, i8, i8), clock: &[u8], offset: i32) -> Option<i64> {
    let [h1, h2, b':', m1, m2, b':', s1, s2] = *clock.first_chunk::<8>()? else { return None };
    let (hour, minute, second) = (digits(&[h1, h2])?, digits(&[m1, m2])?, digits(&[s1, s2])?);
    let time = jiff::civil::DateTime::new(date.0, date.1, date.2, hour, minute, second, 0).ok()?;
    let zone = jiff::tz::Offset::from_seconds(offset).ok()?;
    i64::try_from(zone.to_timestamp(time).ok()?.as_nanosecond()).ok()
}

/// `10/Oct/2000:13:55:36 -0700`.
fn access_time(text: &[u8]) -> Option<i64> {
    let (date, rest) = text.split_at_checked(12)?;
    let (clock, zone) = rest.split_at_checked(8)?;
    let date = (digits(&date[7..11])?, month(&date[3..6])?, digits(&date[..2])?);
    let [b' ', sign @ (b'+' | b'-'), h1, h2, m1, m2] = *zone else { return None };
    let seconds = digits::<i32>(&[h1, h2])? * 3600 + digits::<i32>(&[m1, m2])? * 60;
    civil(date, clock, if sign == b'-' { -seconds } else { seconds })
}

/// RFC 5424 §6.2.1, numerical order.
const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "ntp",
    "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
];

const fn syslog_severity(number: u8) -> Severity {
    match number & 7 {
        0 | 1 => Severity::Fatal,
        2 => Severity::Fatal,
        3 => Severity::Error,
        4 => Severity::Warn,
        5 | 6 => Severity::Info,
        _ => Severity::Debug,
    }
}

/// RFC 5424 with its version number, otherwise RFC 3164 as programs really write it, also without a priority as syslog
/// daemons write files. The record's text is the message.
pub fn syslog(record: &mut Record<'_>, fields: &mut Vec<u8>) {
    let mut rest = record.body;
    let priority = priority(&mut rest);
    if let Some(number) = priority {
        record.severity = syslog_severity(number);
        if let Some(name) = FACILITIES.get(usize::from(number >> 3)) {
            text_member(fields, b"facility", name.as_bytes());
        }
    }
    let outcome = match (priority, rest.strip_prefix(b"1 ")) {
        (Some(_), Some(rest)) => rfc5424(rest, record, fields),
        _ => rfc3164(rest, record, fields),
    };
    if outcome.is_none() && priority.is_some() {
        record.body = rest;
    }
}

fn priority(rest: &mut &[u8]) -> Option<u8> {
    let inner = rest.strip_prefix(b"<")?;
    let close = inner.iter().take(4).position(|byte| *byte == b'>')?;
    let number: u8 = digits(&inner[..close])?;
    if number > 191 {
        return None;
    }
    *rest = &inner[close + 1..];
    Some(number)
}

fn rfc5424<'a>(text: &'a [u8], record: &mut Record<'a>, fields: &mut Vec<u8>) -> Option<()> {
    let mut rest = text;
    let when = word(&mut rest)?;
    let header = [&b"host"[..], b"app", b"pid", b"msgid"];
    let mut values = [&b""[..]; 4];
    for value in &mut values {
        *value = word(&mut rest)?;
    }
    let (data, tail) = structured(rest)?;
    record.time = time::parse_rfc3339(when).unwrap_or(record.time);
    for (key, value) in header.into_iter().zip(values) {
        if value != b"-" {
            number_or_text(fields, key, value);
        }
    }
    if let Some(data) = data {
        member(fields, b"data", |out| out.extend_from_slice(&data));
    }
    let message = tail.strip_prefix(b" ").unwrap_or(tail);
    record.body = message.strip_prefix("\u{feff}".as_bytes()).unwrap_or(message);
    Some(())
}

fn number_or_text(fields: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    if key == b"pid" { number_member(fields, key, value) } else { text_member(fields, key, value) }
}

/// `[id name="value" …][…]` as a JSON object of objects, and what follows; `None` where it is broken.
fn structured(text: &[u8]) -> Option<(Option<Vec<u8>>, &[u8])> {
    if let Some(rest) = text.strip_prefix(b"-") {
        return Some((None, rest));
    }
    let mut out = vec![b'{'];
    let mut rest = text;
    while let Some(inner) = rest.strip_prefix(b"[") {
        let end = inner.iter().position(|byte| matches!(byte, b' ' | b']'))?;
        if out.len() > 1 {
            out.push(b',');
        }
        json::string(&mut out, &inner[..end]);
        out.extend_from_slice(b":{");
        rest = &inner[end..];
        let mut first = true;
        while let Some(pair) = rest.strip_prefix(b" ") {
            let equals = memchr::memchr(b'=', pair)?;
            let mut tail = &pair[equals + 1..];
            let raw = quoted(&mut tail)?;
            if !std::mem::take(&mut first) {
                out.push(b',');
            }
            json::string(&mut out, &pair[..equals]);
            out.push(b':');
            json::string(&mut out, &unprotected(raw));
            rest = tail;
        }
        out.push(b'}');
        rest = rest.strip_prefix(b"]")?;
    }
    out.push(b'}');
    (out.len() > 2).then_some((Some(out), rest))
}

/// RFC 5424 §6.3.3: a backslash protects a quote, a bracket and itself, and is itself before anything else.
fn unprotected(raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len());
    let mut bytes = raw.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        match (byte, bytes.peek()) {
            (b'\\', Some(b'"' | b'\\' | b']')) => out.extend(bytes.next()),
            _ => out.push(byte),
        }
    }
    out
}

/// `Mmm dd hh:mm:ss HOST TAG[PID]: MESSAGE`; the host may be missing, as from local programs, and the time may be RFC 3339,
/// as rsyslog writes files.
fn rfc3164<'a>(text: &'a [u8], record: &mut Record<'a>, fields: &mut Vec<u8>) -> Option<()> {
    let (when, mut rest) = match time::parse_rfc3339(text.split(|byte| *byte == b' ').next()?) {
        Some(when) => {
            let mut rest = text;
            word(&mut rest)?;
            (when, rest)
        }
        None => {
            let (head, rest) = text.split_at_checked(16)?;
            (bsd_time(head, record.time)?, rest)
        }
    };
    record.time = when;
    let first = memchr::memchr(b' ', rest).unwrap_or(rest.len());
    // A tag ends with a colon; a host does not.
    if first < rest.len() && rest[first - usize::from(first > 0)] != b':' {
        text_member(fields, b"host", &rest[..first]);
        rest = &rest[first + 1..];
    }
    if let Some(colon) = memchr::memchr(b':', rest) {
        let tag = &rest[..colon];
        if !tag.contains(&b' ') && colon <= 64 {
            let (app, pid) = match memchr::memchr(b'[', tag) {
                Some(open) if tag.ends_with(b"]") => (&tag[..open], Some(&tag[open + 1..tag.len() - 1])),
                _ => (tag, None),
            };
            text_member(fields, b"app", app);
            if let Some(pid) = pid {
                number_member(fields, b"pid", pid);
            }
            rest = &rest[colon + 1..];
            rest = rest.strip_prefix(b" ").unwrap_or(rest);
        }
    }
    record.body = rest;
    Some(())
}

/// `Oct 11 22:14:15 `, in UTC, of the year that makes it the nearest to `now`: RFC 3164 has none.
fn bsd_time(text: &[u8], now: i64) -> Option<i64> {
    let day = text[4..6].trim_ascii_start();
    let (month, day) = (month(&text[..3])?, digits(day)?);
    if text[3] != b' ' || text[15] != b' ' {
        return None;
    }
    let this = jiff::Timestamp::from_nanosecond(i128::from(now)).ok()?.to_zoned(jiff::tz::TimeZone::UTC).year();
    let years = [this - 1, this, this + 1].into_iter();
    let candidates = years.filter_map(|year| civil((year, month, day), &text[7..15], 0));
    candidates.min_by_key(|when| when.abs_diff(now))
}

#[cfg(test)]
mod tests;
