//! What happens to a record between its file and the queue. Every stage depends on the record alone: after a crash the
//! same bytes give the same records.

use std::borrow::Cow;

use record::{Flags, Record, Severity};
use regex::bytes::{Captures, Regex};

use crate::config::{Condition, Level, Redact, Secrets, Stage};

#[derive(Debug)]
pub struct Stages {
    steps: Vec<Step>,
}

#[derive(Debug)]
enum Step {
    Filter { condition: Box<Check>, keep: bool },
    Redact { patterns: Vec<Regex>, card: Option<Regex>, replacement: Vec<u8> },
    Sample(u64),
}

#[derive(Debug)]
struct Check {
    matches: Option<Regex>,
    contains: Option<memchr::memmem::Finder<'static>>,
    least: Option<Severity>,
    most: Option<Severity>,
}

impl Stages {
    pub fn new(config: &[Stage]) -> Result<Stages, regex::Error> {
        let steps = config.iter().map(|stage| {
            Ok(match stage {
                Stage::Keep(condition) => Step::Filter { condition: Box::new(check(condition)?), keep: true },
                Stage::Drop(condition) => Step::Filter { condition: Box::new(check(condition)?), keep: false },
                Stage::Redact(redact) => step_of(redact)?,
                Stage::Sample(sample) => Step::Sample(u64::from(sample.one_in.max(1))),
            })
        });
        Ok(Stages { steps: steps.collect::<Result<_, regex::Error>>()? })
    }

    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Shows the record that is left to `emit`; nothing if it is dropped.
    pub fn apply(&self, record: &Record<'_>, emit: impl FnOnce(&Record<'_>)) {
        let mut body = Cow::Borrowed(record.body);
        for step in &self.steps {
            match step {
                Step::Filter { condition, keep } => {
                    if condition.holds(&body, record.severity) != *keep {
                        return;
                    }
                }
                Step::Redact { patterns, card, replacement } => {
                    for pattern in patterns {
                        if let Cow::Owned(changed) = pattern.replace_all(&body, regex::bytes::NoExpand(replacement)) {
                            body = Cow::Owned(changed);
                        }
                    }
                    if let Some(card) = card {
                        let replaced = card.replace_all(&body, |captures: &Captures<'_>| {
                            if is_card(&captures[0]) { replacement.clone() } else { captures[0].to_vec() }
                        });
                        if let Cow::Owned(changed) = replaced {
                            body = Cow::Owned(changed);
                        }
                    }
                }
                Step::Sample(one_in) => {
                    if !crate::checkpoint::hash(&body).is_multiple_of(*one_in) {
                        return;
                    }
                }
            }
        }
        let mut left = Record { body: &body, ..*record };
        // A replacement of one's own may have broken the object.
        if left.flags.has(Flags::OBJECT) && matches!(body, Cow::Owned(_)) && !record::json::object(&body, |_| {}) {
            left.flags = left.flags.without(Flags::OBJECT);
        }
        emit(&left);
    }
}

fn check(condition: &Condition) -> Result<Check, regex::Error> {
    let contains = condition.contains.as_ref();
    Ok(Check {
        matches: condition.matches.as_deref().map(Regex::new).transpose()?,
        contains: contains.map(|text| memchr::memmem::Finder::new(text.as_bytes()).into_owned()),
        least: condition.min_severity.map(severity),
        most: condition.max_severity.map(severity),
    })
}

impl Check {
    fn holds(&self, body: &[u8], severity: Severity) -> bool {
        let known = severity != Severity::Unknown;
        self.matches.as_ref().is_none_or(|regex| regex.is_match(body))
            && self.contains.as_ref().is_none_or(|finder| finder.find(body).is_some())
            && self.least.is_none_or(|least| known && severity >= least)
            && self.most.is_none_or(|most| known && severity <= most)
    }
}

const fn severity(level: Level) -> Severity {
    match level {
        Level::Trace => Severity::Trace,
        Level::Debug => Severity::Debug,
        Level::Info => Severity::Info,
        Level::Warn => Severity::Warn,
        Level::Error => Severity::Error,
        Level::Fatal => Severity::Fatal,
    }
}

const EMAIL: &str = r"(?-u)[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+";
/// JSON Web Tokens; keys of AWS, GitHub, GitLab, Slack and Google; bearer tokens.
const TOKEN: &str = concat!(
    r"(?-u)eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*",
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36,}|\bglpat-[A-Za-z0-9_-]{20,}",
    r"|\bxox[abposr]-[A-Za-z0-9-]{10,}|\bAIza[A-Za-z0-9_-]{35}|(?i:bearer)\s+[A-Za-z0-9._~+/-]{8,}=*",
);
const PASSWORD: &str = concat!(
    r#"(?i-u)\b(?:password|passwd|pwd|secret|api[_-]?key|access[_-]?token)\b["']?\s*[=:]\s*"#,
    r#"(?:"[^"]*"|'[^']*'|[^\s,;&"']+)"#,
);
/// Digits with single blanks or dashes; the check digit decides.
const CARD: &str = r"(?-u)\b[0-9](?:[ -]?[0-9]){12,18}\b";

fn step_of(redact: &Redact) -> Result<Step, regex::Error> {
    let own = redact.patterns.iter().map(String::as_str);
    let ready = redact.presets.iter().filter_map(|preset| match preset {
        Secrets::Email => Some(EMAIL),
        Secrets::Token => Some(TOKEN),
        Secrets::Password => Some(PASSWORD),
        Secrets::Card => None,
    });
    let patterns = own.chain(ready).map(Regex::new).collect::<Result<Vec<_>, _>>()?;
    let card = redact.presets.contains(&Secrets::Card).then(|| Regex::new(CARD)).transpose()?;
    Ok(Step::Redact { patterns, card, replacement: redact.replacement.clone().into_bytes() })
}

/// The check digit of ISO/IEC 7812-1, Annex B.
fn is_card(text: &[u8]) -> bool {
    let digits = text.iter().rev().filter(|byte| byte.is_ascii_digit()).map(|byte| u32::from(byte - b'0'));
    let sum: u32 = digits.enumerate().map(|(i, d)| if i % 2 == 0 { d } else { (d * 2) / 10 + (d * 2) % 10 }).sum();
    sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sample;

    fn run(config: &[Stage], body: &str, severity: Severity) -> Option<String> {
        let record = Record { time: 0, flags: Flags(0), severity, body: body.as_bytes(), fields: b"" };
        let mut left = None;
        Stages::new(config)
            .unwrap()
            .apply(&record, |record| left = Some(String::from_utf8(record.body.to_vec()).unwrap()));
        left
    }

    fn condition() -> Condition {
        Condition { matches: None, contains: None, min_severity: None, max_severity: None }
    }

    #[test]
    fn filters() {
        let health = Stage::Drop(Condition { contains: Some("/healthz".to_owned()), ..condition() });
        assert_eq!(run(std::slice::from_ref(&health), "GET /healthz", Severity::Info), None);
        assert!(run(&[health], "GET /", Severity::Info).is_some());
        let loud = Stage::Keep(Condition { min_severity: Some(Level::Warn), ..condition() });
        assert_eq!(run(std::slice::from_ref(&loud), "x", Severity::Info), None);
        assert!(run(std::slice::from_ref(&loud), "x", Severity::Error).is_some());
        assert_eq!(run(&[loud], "x", Severity::Unknown), None);
    }

    #[test]
    fn secrets() {
        let presets = vec![Secrets::Email, Secrets::Card, Secrets::Token, Secrets::Password];
        let redact =
            [Stage::Redact(Redact { presets, patterns: vec!["id-[0-9]+".to_owned()], replacement: "#".to_owned() })];
        for (body, expected) in [
            ("mail a.b@c.example now", "mail # now"),
            ("card 4111 1111 1111 1111.", "card #."),
            ("no card 4111 1111 1111 1112", "no card 4111 1111 1111 1112"),
            ("t eyJhbGciOiJI.eyJzdWIiOiIx.abc-_d", "t #"),
            ("Authorization: Bearer abcdefgh1234", "Authorization: #"),
            ("password=hunter2 next", "# next"),
            ("see id-77", "see #"),
            ("nothing here", "nothing here"),
        ] {
            assert_eq!(run(&redact, body, Severity::Unknown).unwrap(), expected);
        }
    }

    #[test]
    fn samples_are_chosen_by_their_text() {
        let sample = [Stage::Sample(Sample { one_in: 4 })];
        let kept = |index: u32| run(&sample, &format!("line {index}"), Severity::Unknown).is_some();
        let count = (0..4000).filter(|index| kept(*index)).count();
        assert!((800..1200).contains(&count), "{count}");
        assert_eq!(kept(17), kept(17));
    }
}
