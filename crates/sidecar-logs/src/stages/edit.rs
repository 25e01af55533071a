//! Changing fields: an application's object in its text, or what a parser made.

use std::borrow::Cow;

use jiff::fmt::strtime::BrokenDownTime;
use jiff::tz::TimeZone;
use record::{Flags, Severity, json};

use super::condition::severity;
use super::{Check, StageError, Working};
use crate::config::{self, Edit, Type};
use crate::parse::moment;

/// Takes the time from a field.
#[derive(Debug)]
pub(super) struct Clock {
    field: String,
    format: Option<String>,
    zone: TimeZone,
}

impl Clock {
    pub(super) fn new(config: &config::Timestamp) -> Result<Clock, StageError> {
        let failed = |error| StageError::Zone(config.zone.clone(), error);
        Ok(Clock {
            field: config.field.clone(),
            format: config.format.clone(),
            zone: zone(&config.zone).map_err(failed)?,
        })
    }

    pub(super) fn apply(&self, record: &mut Working<'_>) {
        let Some(text) = record.field_text(&self.field) else { return };
        let time = match &self.format {
            None => moment(&text),
            Some(format) => self.read(format, &text),
        };
        record.time = time.unwrap_or(record.time);
    }

    fn read(&self, format: &str, text: &[u8]) -> Option<i64> {
        let broken = BrokenDownTime::parse(format, text).ok()?;
        let time = match broken.to_timestamp() {
            Ok(time) => time,
            // No offset in it.
            Err(_) => self.zone.to_timestamp(broken.to_datetime().ok()?).ok()?,
        };
        i64::try_from(time.as_nanosecond()).ok()
    }
}

/// `UTC`, `+02:00`, or a name from the machine's zone data.
pub(super) fn zone(name: &str) -> Result<TimeZone, jiff::Error> {
    if name == "UTC" {
        return Ok(TimeZone::UTC);
    }
    let fixed = BrokenDownTime::parse("%:z", name).ok().and_then(|time| time.offset());
    fixed.map_or_else(|| TimeZone::get(name), |offset| Ok(TimeZone::fixed(offset)))
}

/// Whether it can be a format at all.
pub fn is_format(format: &str) -> bool {
    let now = jiff::Timestamp::UNIX_EPOCH.to_zoned(TimeZone::UTC);
    jiff::fmt::strtime::format(format, &now).is_ok()
}

#[derive(Debug)]
pub(super) struct Editor {
    when: Option<Check>,
    remove: Vec<String>,
    rename: Vec<(String, String)>,
    convert: Vec<(String, Type)>,
    /// Values as JSON.
    set: Vec<(String, String)>,
    severity: Option<Severity>,
}

impl Editor {
    pub(super) fn new(edit: &Edit) -> Result<Editor, StageError> {
        Ok(Editor {
            when: Check::optional(edit.when.as_ref())?,
            remove: edit.remove.clone(),
            rename: edit.rename.clone().into_iter().collect(),
            convert: edit.convert.clone().into_iter().collect(),
            set: edit.set.iter().map(|(name, value)| (name.clone(), value.to_string())).collect(),
            severity: edit.severity.map(severity),
        })
    }

    pub(super) fn apply(&self, record: &mut Working<'_>) {
        if self.when.as_ref().is_some_and(|check| !check.holds(record)) {
            return;
        }
        record.severity = self.severity.unwrap_or(record.severity);
        if record.flags.has(Flags::OBJECT) {
            let mut out = vec![b'{'];
            let mut changed = false;
            json::object(&record.body, |member| changed |= self.member(&mut out, member));
            if changed {
                out.push(b'}');
                record.body = Cow::Owned(out);
            }
        }
        let mut out = Vec::new();
        let mut changed = false;
        json::members(&record.fields, |member| changed |= self.member(&mut out, member));
        for (name, value) in &self.set {
            add(&mut out, name.as_bytes(), |out| out.extend_from_slice(value.as_bytes()));
            changed = true;
        }
        if changed {
            record.fields = Cow::Owned(out);
        }
    }

    /// Appends what becomes of one member; `true` if that is not the member as it was.
    fn member(&self, out: &mut Vec<u8>, (key, value): (&[u8], &[u8])) -> bool {
        let is = |name: &String| name.as_bytes() == key;
        // Set ones are appended at the end.
        if self.remove.iter().any(is) || self.set.iter().any(|(name, _)| is(name)) {
            return true;
        }
        let renamed = self.rename.iter().find(|(name, _)| is(name));
        let name = renamed.map_or(key, |(_, name)| name.as_bytes());
        let wanted = self.convert.iter().find(|(field, _)| field.as_bytes() == name);
        let converted = wanted.and_then(|(_, kind)| convert(value, *kind));
        let shown = converted.as_deref().unwrap_or(value);
        match renamed {
            Some(_) => add(out, name, |out| out.extend_from_slice(shown)),
            // Keys stand escaped already.
            None => {
                separate(out);
                out.push(b'"');
                out.extend_from_slice(key);
                out.extend_from_slice(b"\":");
                out.extend_from_slice(shown);
            }
        }
        renamed.is_some() || converted.is_some()
    }
}

fn separate(out: &mut Vec<u8>) {
    if !matches!(out.last(), None | Some(b'{')) {
        out.push(b',');
    }
}

pub(super) fn add(out: &mut Vec<u8>, key: &[u8], write: impl FnOnce(&mut Vec<u8>)) {
    separate(out);
    json::string(out, key);
    out.push(b':');
    write(out);
}

/// The value as JSON of another type; `None` if it is that already or cannot be read as it.
fn convert(value: &[u8], kind: Type) -> Option<Vec<u8>> {
    let inner = json::string_value(value);
    let text = std::str::from_utf8(inner.unwrap_or(value)).ok()?.trim();
    match kind {
        Type::Text => {
            let mut out = Vec::new();
            inner.is_none().then(|| json::string(&mut out, value))?;
            Some(out)
        }
        Type::Boolean => {
            inner?;
            match text {
                "true" | "yes" | "1" | "on" => Some(b"true".to_vec()),
                "false" | "no" | "0" | "off" => Some(b"false".to_vec()),
                _ => None,
            }
        }
        Type::Integer => match inner {
            Some(_) => Some(text.parse::<i64>().ok()?.to_string().into_bytes()),
            // 3.0 becomes 3; a fraction is cut.
            None => {
                let number: f64 = text.parse().ok()?;
                let whole = number.trunc();
                (text.contains(['.', 'e', 'E']) && whole.abs() < 9e15).then(|| format!("{whole:.0}").into_bytes())
            }
        },
        Type::Number => {
            inner?;
            let number: f64 = text.parse().ok()?;
            Some(serde_json::Number::from_f64(number)?.to_string().into_bytes())
        }
    }
}
