//! Replacing what must not leave the pod.

use std::borrow::Cow;

use regex::bytes::{Captures, NoExpand, Regex};

use crate::config::{Redact, Secrets};

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

#[derive(Debug)]
pub(super) struct Redaction {
    patterns: Vec<Regex>,
    card: Option<Regex>,
    replacement: Vec<u8>,
}

impl Redaction {
    pub(super) fn new(redact: &Redact) -> Result<Redaction, regex::Error> {
        let own = redact.patterns.iter().map(String::as_str);
        let ready = redact.presets.iter().filter_map(|preset| match preset {
            Secrets::Email => Some(EMAIL),
            Secrets::Token => Some(TOKEN),
            Secrets::Password => Some(PASSWORD),
            Secrets::Card => None,
        });
        let patterns = own.chain(ready).map(Regex::new).collect::<Result<Vec<_>, _>>()?;
        let card = redact.presets.contains(&Secrets::Card).then(|| Regex::new(CARD)).transpose()?;
        Ok(Redaction { patterns, card, replacement: redact.replacement.clone().into_bytes() })
    }

    /// The text without secrets; borrowed if there were none.
    pub(super) fn apply<'a>(&self, text: &'a [u8]) -> Cow<'a, [u8]> {
        let mut text = Cow::Borrowed(text);
        for pattern in &self.patterns {
            if let Cow::Owned(changed) = pattern.replace_all(&text, NoExpand(&self.replacement)) {
                text = Cow::Owned(changed);
            }
        }
        if let Some(card) = &self.card {
            let replaced = card.replace_all(&text, |captures: &Captures<'_>| {
                if is_card(&captures[0]) { self.replacement.clone() } else { captures[0].to_vec() }
            });
            if let Cow::Owned(changed) = replaced {
                text = Cow::Owned(changed);
            }
        }
        text
    }
}

/// The check digit of ISO/IEC 7812-1, Annex B.
fn is_card(text: &[u8]) -> bool {
    let digits = text.iter().rev().filter(|byte| byte.is_ascii_digit()).map(|byte| u32::from(byte - b'0'));
    let sum: u32 = digits.enumerate().map(|(i, d)| if i % 2 == 0 { d } else { (d * 2) / 10 + (d * 2) % 10 }).sum();
    sum.is_multiple_of(10)
}
