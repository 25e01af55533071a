//! A starter rule set against common attacks. It knows the plain forms of SQL injection, cross-site scripting, path
//! traversal, command injection and well-known scanners, in the request's head. It is a first net, not a web application
//! firewall: bodies are not looked at, and whoever takes pains gets through. Begin with `report`, look at what is counted,
//! exclude what is right for the application, then `deny`.
//!
//! Every rule has a score; a request whose rules add up to the threshold is an attack. All expressions are one
//! [`RegexSet`], which looks at a text once, in time linear in its length, and is made when it is first needed.

use std::sync::OnceLock;

use regex::bytes::{RegexSet, RegexSetBuilder};

use super::{Asked, Flow, Gate, NotesSlot, Response};
use crate::clock::SECOND;
use crate::count::{Tally, Throttle};
use crate::exchange::Failure;
use crate::head::{Field, Name};
use crate::hex;
use crate::route::Path;
use crate::spelling::plain_path;

pub mod set;
#[cfg(test)]
mod tests;

use set::{AGENT, COOKIES, FIELDS, PATH, QUERY, RULES};

/// Lines of one filter in the program's log, a second.
const LINES: u64 = 10;
/// Between two texts that do not belong together; no request has it after decoding, since it is replaced.
const BREAK: u8 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Counted and logged.
    Report,
    /// Answered with 403 besides.
    Deny,
}

/// What is not looked at.
#[derive(Debug)]
pub struct Exclusion {
    /// Where; `None`: everywhere.
    pub path: Option<Path>,
    /// Rules or groups of rules by name; empty, if there are `parameters`: none, else all.
    pub rules: Vec<String>,
    /// Query parameters and cookies.
    pub parameters: Vec<Vec<u8>>,
}

#[derive(Debug)]
pub struct Attacks {
    mode: Mode,
    threshold: u32,
    /// Each with the rules it names, as bits.
    exclusions: Vec<(Exclusion, u64)>,
    hits: Box<[Tally]>,
    attacks: Tally,
    log: Throttle,
}

impl Attacks {
    pub fn new(mode: Mode, threshold: u32, exclusions: Vec<Exclusion>) -> Attacks {
        let hits = RULES.iter().map(|_| Tally::default()).collect();
        let exclusions = exclusions.into_iter().map(|one| (one.bits(), one)).map(|(bits, one)| (one, bits)).collect();
        Attacks { mode, threshold, exclusions, hits, attacks: Tally::default(), log: Throttle::default() }
    }

    /// The rules that hold, as bits by their place in [`RULES`].
    fn found(&self, asked: &Asked<'_>) -> u64 {
        let view = &asked.view;
        let plain = plain_path(view.path);
        let here = |(one, _): &&(Exclusion, u64)| one.path.as_ref().is_none_or(|path| path.matches(&plain));
        let exclusions: Vec<_> = self.exclusions.iter().filter(here).collect();
        let excluded = exclusions.iter().fold(0, |all, (_, bits)| all | bits);
        if excluded == ALL {
            return 0;
        }
        let left_out = |name: &[u8]| exclusions.iter().any(|(one, _)| one.parameters.iter().any(|other| other == name));
        let mut found = 0;
        let mut text = Vec::with_capacity(view.path.len() + view.query.len());
        decode(view.path, false, &mut text);
        found |= look(&text, PATH);
        if !view.query.is_empty() {
            text.clear();
            for pair in view.query.split(|byte| *byte == b'&') {
                if !left_out(pair.split(|byte| *byte == b'=').next().unwrap_or_default()) {
                    decode(pair, true, &mut text);
                    text.push(BREAK);
                }
            }
            found |= look(&text, QUERY);
        }
        let mut rest = Vec::new();
        for field in view.fields {
            let value = field.value.of(view.bytes);
            match kind(field, view.bytes) {
                Kind::Agent => found |= look(value, AGENT),
                Kind::Cookie => {
                    text.clear();
                    for pair in value.split(|byte| *byte == b';') {
                        let pair = pair.trim_ascii();
                        if !left_out(pair.split(|byte| *byte == b'=').next().unwrap_or_default()) {
                            decode(pair, false, &mut text);
                            text.push(BREAK);
                        }
                    }
                    found |= look(&text, COOKIES);
                }
                Kind::Other => {
                    rest.extend_from_slice(value);
                    rest.push(BREAK);
                }
                Kind::Known => {}
            }
        }
        if !rest.is_empty() {
            found |= look(&rest, FIELDS);
        }
        found & !excluded
    }
}

const ALL: u64 = u64::MAX;

impl Exclusion {
    fn bits(&self) -> u64 {
        if self.rules.is_empty() {
            return if self.parameters.is_empty() { ALL } else { 0 };
        }
        let named = |rule: &set::Rule| self.rules.iter().any(|name| name == rule.name || name == rule.group());
        RULES.iter().enumerate().filter(|(_, rule)| named(rule)).fold(0, |bits, (index, _)| bits | 1 << index)
    }
}

/// Whether a rule or a group has this name.
pub fn is_known(name: &str) -> bool {
    RULES.iter().any(|rule| rule.name == name || rule.group() == name)
}

enum Kind {
    Agent,
    Cookie,
    /// Says nothing an application would take for a text.
    Known,
    Other,
}

fn kind(field: &Field, bytes: &[u8]) -> Kind {
    if field.name != Name::Other {
        let text = matches!(field.name, Name::XForwardedFor | Name::LikeOwn | Name::LikeForwarded);
        return if text { Kind::Other } else { Kind::Known };
    }
    let name = field.name_span.of(bytes);
    let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
    match name.len() {
        6 if is(b"cookie") => Kind::Cookie,
        6 if is(b"accept") => Kind::Known,
        10 if is(b"user-agent") => Kind::Agent,
        13 if is(b"authorization") || is(b"if-none-match") => Kind::Known,
        _ => Kind::Other,
    }
}

/// The rules for `target` that hold for the text.
fn look(text: &[u8], target: u8) -> u64 {
    static SET: OnceLock<Option<RegexSet>> = OnceLock::new();
    let set = SET.get_or_init(|| {
        let mut builder = RegexSetBuilder::new(RULES.iter().map(|rule| rule.pattern));
        // Their table of states is made while looking, and thrown away when it is larger than this.
        builder.unicode(false).case_insensitive(true).dfa_size_limit(1 << 20).build().ok()
    });
    let Some(set) = set else { return 0 };
    let matches = set.matches(text);
    let wanted = matches.iter().filter(|index| RULES[*index].targets & target != 0);
    wanted.fold(0, |bits, index| bits | 1 << index)
}

/// Undoes percent-encoding, twice if need be, and what else hides a text from an expression: comments of SQL, control
/// characters.
fn decode(text: &[u8], plus: bool, out: &mut Vec<u8>) {
    let start = out.len();
    once(text, plus, out);
    if memchr::memchr(b'%', &out[start..]).is_some() {
        let first = out.split_off(start);
        once(&first, false, out);
    }
    for byte in &mut out[start..] {
        if matches!(byte, 1..=0x1f) {
            *byte = b' ';
        }
    }
    while let Some(from) = memchr::memmem::find(&out[start..], b"/*").map(|from| from + start) {
        let Some(length) = memchr::memmem::find(&out[from + 2..], b"*/") else { break };
        out.splice(from..from + length + 4, [b' ']);
    }
}

fn once(text: &[u8], plus: bool, out: &mut Vec<u8>) {
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        let digits = |at: usize| hex::pair(after.get(at..)?);
        match first {
            b'%' if matches!(after, [b'u' | b'U', b'0', b'0', ..]) && digits(3).is_some() => {
                out.extend(digits(3));
                rest = &after[5..];
            }
            b'%' if digits(0).is_some() => {
                out.extend(digits(0));
                rest = &after[2..];
            }
            b'+' if plus => out.push(b' '),
            byte => out.push(*byte),
        }
    }
}

impl Gate for Attacks {
    fn ask(&self, asked: &Asked<'_>, _: &mut NotesSlot) -> Flow {
        let found = self.found(asked);
        if found == 0 {
            return Flow::Continue;
        }
        let rules = || RULES.iter().zip(&self.hits).enumerate().filter(|(index, _)| found >> index & 1 == 1);
        let score: u32 = rules().map(|(_, (rule, _))| rule.score).sum();
        rules().for_each(|(_, (_, hits))| hits.add());
        if score < self.threshold {
            return Flow::Continue;
        }
        self.attacks.add();
        if self.log.allows(LINES, SECOND, asked.now) {
            let names: Vec<&str> = rules().map(|(_, (rule, _))| rule.name).collect();
            let path = String::from_utf8_lossy(&asked.view.path[..asked.view.path.len().min(200)]);
            let peer = String::from_utf8_lossy(asked.peer);
            let denied = self.mode == Mode::Deny;
            daemon::warn!(
                "a request looks like an attack",
                rules = names.join(","),
                score = score,
                denied = denied,
                peer = peer,
                path = path
            );
        }
        match self.mode {
            Mode::Report => Flow::Continue,
            Mode::Deny => Flow::Respond(Response::refuse(403, Failure::Denied, "the request looks like an attack")),
        }
    }

    fn count(&self, tell: &mut dyn FnMut(&str, &str, u64)) {
        for (rule, hits) in RULES.iter().zip(&self.hits).filter(|(_, hits)| hits.value() > 0) {
            tell(rule.name, "hold", hits.value());
        }
        let decision = if self.mode == Mode::Deny { "deny" } else { "report" };
        tell("attack", decision, self.attacks.value());
    }
}
