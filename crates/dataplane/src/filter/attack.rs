//! A starter rule set against common attacks. It knows the plain forms of SQL injection, cross-site scripting, path
//! traversal, command injection and well-known scanners, in the request's head and the beginning of a body that is text. It is
//! a first net, not a web application firewall: whoever takes pains gets through. Begin with `report`, look at what is counted,
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

mod body;
pub mod set;
#[cfg(test)]
mod tests;

use body::{Kind as BodyKind, pairs};
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
    /// Query parameters, cookies, and values of a body.
    pub parameters: Vec<Vec<u8>>,
}

#[derive(Debug)]
pub struct Attacks {
    mode: Mode,
    threshold: u32,
    /// Each with the rules it names, as bits.
    exclusions: Vec<(Exclusion, u64)>,
    /// So many bytes of a body are looked at.
    body: usize,
    hits: Box<[Tally]>,
    attacks: Tally,
    log: Throttle,
}

impl Attacks {
    /// `body` bytes of a body are looked at, at most [`BODY`](super::BODY).
    pub fn new(mode: Mode, threshold: u32, exclusions: Vec<Exclusion>, body: usize) -> Attacks {
        let hits = RULES.iter().map(|_| Tally::default()).collect();
        let exclusions = exclusions.into_iter().map(|one| (one.bits(), one)).map(|(bits, one)| (one, bits)).collect();
        Attacks { mode, threshold, exclusions, body, hits, attacks: Tally::default(), log: Throttle::default() }
    }

    /// What counts here.
    fn scope(&self, asked: &Asked<'_>) -> Scope<'_> {
        let plain = plain_path(asked.view.path);
        let here = |(one, _): &&(Exclusion, u64)| one.path.as_ref().is_none_or(|path| path.matches(&plain));
        let mut scope = Scope { rules: ALL, excluded: Vec::new() };
        for (exclusion, bits) in self.exclusions.iter().filter(here) {
            scope.rules &= !bits;
            scope.excluded.extend(exclusion.parameters.iter().map(|name| &name[..]));
        }
        scope
    }

    /// The rules that hold for the head, as bits by their place in [`RULES`].
    fn found(&self, asked: &Asked<'_>, scope: &Scope<'_>) -> u64 {
        if scope.rules == 0 {
            return 0;
        }
        let view = &asked.view;
        let mut found = 0;
        let mut text = Vec::with_capacity(view.path.len() + view.query.len());
        decode(view.path, false, &mut text);
        found |= look(&text, PATH);
        if !view.query.is_empty() {
            text.clear();
            pairs(view.query, &scope.excluded, &mut text);
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
                        if !left_out(pair.split(|byte| *byte == b'=').next().unwrap_or_default(), &scope.excluded) {
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
        found & scope.rules
    }

    /// The rules that hold for a body.
    fn found_in(&self, kind: BodyKind<'_>, body: &[u8], scope: &Scope<'_>) -> u64 {
        let mut text = Vec::with_capacity(body.len());
        kind.texts(&body[..body.len().min(self.body)], &scope.excluded, &mut text);
        look(&text, QUERY) & scope.rules
    }
}

/// What counts at a path.
struct Scope<'a> {
    rules: u64,
    /// Parameters that do not.
    excluded: Vec<&'a [u8]>,
}

fn left_out(name: &[u8], excluded: &[&[u8]]) -> bool {
    excluded.contains(&name)
}

fn score(found: u64) -> u32 {
    held(found).map(|(_, rule)| rule.score).sum()
}

/// The rules of these bits, with their places.
fn held(found: u64) -> impl Iterator<Item = (usize, &'static set::Rule)> {
    RULES.iter().enumerate().filter(move |(index, _)| found >> index & 1 == 1)
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
    drop_comments(out, start);
}

/// A comment of SQL is a space.
fn drop_comments(out: &mut Vec<u8>, start: usize) {
    let (mut read, mut written) = (start, start);
    while let Some(from) = memchr::memmem::find(&out[read..], b"/*").map(|at| read + at) {
        let Some(end) = memchr::memmem::find(&out[from + 2..], b"*/").map(|at| from + 2 + at + 2) else { break };
        out.copy_within(read..from, written);
        written += from - read;
        out[written] = b' ';
        written += 1;
        read = end;
    }
    if read > written {
        out.copy_within(read.., written);
        out.truncate(out.len() - (read - written));
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
        let scope = self.scope(asked);
        let mut found = self.found(asked, &scope);
        let decided = self.mode == Mode::Deny && score(found) >= self.threshold;
        if self.body != 0
            && !decided
            && scope.rules != 0
            && let Some(kind) = BodyKind::of(asked)
        {
            match asked.body {
                Some(seen) if seen.is_enough(self.body) => found |= self.found_in(kind, seen.bytes, &scope),
                _ => return Flow::Body(self.body),
            }
        }
        if found == 0 {
            return Flow::Continue;
        }
        let score = score(found);
        held(found).for_each(|(index, _)| self.hits[index].add());
        if score < self.threshold {
            return Flow::Continue;
        }
        self.attacks.add();
        if self.log.allows(LINES, SECOND, asked.now) {
            let names: Vec<&str> = held(found).map(|(_, rule)| rule.name).collect();
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
