//! Whether something holds for a record.

use memchr::memmem::Finder;
use record::Severity;
use regex::bytes::Regex;

use super::Working;
use crate::config::{Condition, Level};

#[derive(Debug)]
pub struct Check {
    matches: Option<Regex>,
    contains: Option<Finder<'static>>,
    fields: Vec<(String, Regex)>,
    least: Option<Severity>,
    most: Option<Severity>,
}

impl Check {
    pub fn new(condition: &Condition) -> Result<Check, regex::Error> {
        let contains = condition.contains.as_ref();
        let fields = condition.fields.iter().map(|(name, pattern)| Ok((name.clone(), Regex::new(pattern)?)));
        Ok(Check {
            matches: condition.matches.as_deref().map(Regex::new).transpose()?,
            contains: contains.map(|text| Finder::new(text.as_bytes()).into_owned()),
            fields: fields.collect::<Result<_, regex::Error>>()?,
            least: condition.min_severity.map(severity),
            most: condition.max_severity.map(severity),
        })
    }

    /// `None` holds always.
    pub fn optional(condition: Option<&Condition>) -> Result<Option<Check>, regex::Error> {
        condition.map(Check::new).transpose()
    }

    pub fn holds(&self, record: &Working<'_>) -> bool {
        let (body, severity) = (&record.body, record.severity);
        let known = severity != Severity::Unknown;
        self.contains.as_ref().is_none_or(|finder| finder.find(body).is_some())
            && self.least.is_none_or(|least| known && severity >= least)
            && self.most.is_none_or(|most| known && severity <= most)
            && self.matches.as_ref().is_none_or(|regex| regex.is_match(body))
            && self.fields.iter().all(|(name, regex)| record.field_text(name).is_some_and(|text| regex.is_match(&text)))
    }
}

pub(super) const fn severity(level: Level) -> Severity {
    match level {
        Level::Trace => Severity::Trace,
        Level::Debug => Severity::Debug,
        Level::Info => Severity::Info,
        Level::Warn => Severity::Warn,
        Level::Error => Severity::Error,
        Level::Fatal => Severity::Fatal,
    }
}
