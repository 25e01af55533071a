//! Rules over address, method, path, fields and query: the first that holds decides.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::net::IpAddr;

use super::network::Networks;
use super::{Asked, Flow, Gate, NotesSlot, Response};
use crate::clock::SECOND;
use crate::count::{Tally, Throttle};
use crate::exchange::Failure;
use crate::hex;
use crate::route::{Match, View};
use crate::spelling::plain_path;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Allow,
    /// With this status.
    Deny(u16),
    /// A line in the program's log; the next rules are asked.
    Log,
}

#[derive(Debug)]
pub struct Rule {
    pub name: String,
    /// Empty: any, unless `listed`.
    pub networks: Networks,
    /// Networks were given, so that an empty list (a file with nothing in it) is nobody.
    pub listed: bool,
    /// Empty: any.
    pub methods: Vec<Vec<u8>>,
    /// Path, fields and query; the host and the method are not looked at.
    pub wanted: Match,
    /// The rule holds for everybody else.
    pub not: bool,
    pub action: Action,
    pub hits: Tally,
}

#[derive(Debug)]
pub struct Rules {
    pub rules: Vec<Rule>,
    pub log: Throttle,
}

/// Lines of one filter in the program's log, a second.
const LINES: u64 = 10;

/// What all rules ask of a request.
#[derive(Debug)]
struct Meant<'a> {
    /// As an application may understand it, if that is not how it was sent.
    path: Cow<'a, [u8]>,
    query: Cow<'a, [u8]>,
    /// Found out when the first rule asks.
    client: OnceCell<Option<IpAddr>>,
}

impl Rule {
    fn holds(&self, asked: &Asked<'_>, meant: &Meant<'_>) -> bool {
        (self.from(asked, meant) && self.by_method(asked) && self.by_head(asked, meant)) != self.not
    }

    fn from(&self, asked: &Asked<'_>, meant: &Meant<'_>) -> bool {
        let client = || *meant.client.get_or_init(|| asked.client());
        !self.listed || client().is_some_and(|client| self.networks.contains(client))
    }

    fn by_method(&self, asked: &Asked<'_>) -> bool {
        self.methods.is_empty() || self.methods.iter().any(|method| method == asked.view.method)
    }

    fn by_head(&self, asked: &Asked<'_>, meant: &Meant<'_>) -> bool {
        let as_sent = self.wanted.matches(&asked.view);
        if self.wanted.path.is_none() && self.wanted.query.is_empty() {
            return as_sent;
        }
        let as_meant = self.wanted.matches(&View { path: &meant.path, query: &meant.query, ..asked.view });
        // What lets in must hold for every reading of the request, what keeps out for one.
        if (self.action == Action::Allow) != self.not { as_sent && as_meant } else { as_sent || as_meant }
    }
}

impl Gate for Rules {
    fn ask(&self, asked: &Asked<'_>, _: &mut NotesSlot) -> Flow {
        let (path, query) = (plain_path(asked.view.path), plain_query(asked.view.query));
        let meant = Meant { path, query, client: OnceCell::new() };
        for rule in &self.rules {
            if !rule.holds(asked, &meant) {
                continue;
            }
            rule.hits.add();
            match rule.action {
                Action::Allow => return Flow::Continue,
                Action::Deny(status) => {
                    return Flow::Respond(Response::refuse(status, Failure::Denied, "a rule forbids this request"));
                }
                Action::Log => {
                    if self.log.allows(LINES, SECOND, asked.now) {
                        let path = String::from_utf8_lossy(&asked.view.path[..asked.view.path.len().min(200)]);
                        let method = String::from_utf8_lossy(asked.view.method);
                        let peer = String::from_utf8_lossy(asked.peer);
                        daemon::info!("a rule holds", rule = rule.name, peer = peer, method = method, path = path);
                    }
                }
            }
        }
        Flow::Continue
    }

    fn count(&self, tell: &mut dyn FnMut(&str, &str, u64)) {
        for rule in &self.rules {
            let decision = match rule.action {
                Action::Allow => "allow",
                Action::Deny(_) => "deny",
                Action::Log => "log",
            };
            tell(&rule.name, decision, rule.hits.value());
        }
    }
}

/// A query with percent-encoding undone once, but for what separates parameters.
fn plain_query(query: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr2(b'%', b'+', query).is_none() {
        return Cow::Borrowed(query);
    }
    let mut plain = Vec::with_capacity(query.len());
    let mut rest = query;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        let meant = if *first == b'%' { hex::pair(after) } else { None };
        match (first, meant) {
            (_, Some(byte)) if !b"&=".contains(&byte) => {
                plain.push(byte);
                rest = &after[2..];
            }
            (b'+', _) => plain.push(b' '),
            (byte, _) => plain.push(*byte),
        }
    }
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::example::Example;
    use crate::filter::network::range;
    use crate::route::{Path, Text};
    use regex::bytes::Regex;

    fn rule(name: &str, action: Action) -> Rule {
        Rule {
            name: name.to_owned(),
            networks: Networks::default(),
            listed: false,
            methods: Vec::new(),
            wanted: Match::default(),
            not: false,
            action,
            hits: Tally::default(),
        }
    }

    fn from(networks: &[&str], rule: Rule) -> Rule {
        let ranges = networks.iter().map(|text| range(text).unwrap()).collect();
        Rule { networks: Networks::new(ranges), listed: true, ..rule }
    }

    fn below(path: &str, rule: Rule) -> Rule {
        Rule { wanted: Match { path: Some(Path::Prefix(path.into())), ..Match::default() }, ..rule }
    }

    #[test]
    fn the_first_that_holds_decides() {
        let query = (b"debug".to_vec(), Text::Exact(b"1".to_vec()));
        let agent = (b"user-agent".to_vec(), Text::Regex(Regex::new("(?-u)^curl/").unwrap()));
        let gate = Rules {
            rules: vec![
                from(&["10.9.0.0/16"], rule("banned", Action::Deny(418))),
                from(&["10.0.0.0/8", "::1"], below("/admin", rule("office", Action::Allow))),
                below("/admin", rule("admin", Action::Deny(404))),
                Rule { wanted: Match { query: vec![query], ..Match::default() }, ..rule("debug", Action::Deny(403)) },
                Rule { wanted: Match { headers: vec![agent], ..Match::default() }, ..rule("curl", Action::Log) },
                Rule { methods: vec![b"GET".to_vec(), b"HEAD".to_vec()], not: true, ..rule("read", Action::Deny(405)) },
            ],
            log: Throttle::default(),
        };
        let cases: [(&'static str, &[&str], u16); 13] = [
            ("203.0.113.9", &["GET /"], 0),
            ("10.9.1.1", &["GET /"], 418),
            ("10.1.1.1", &["GET /admin/x"], 0),
            ("::1", &["POST /admin"], 0),
            ("203.0.113.9", &["GET /admin"], 404),
            ("203.0.113.9", &["GET /administrator"], 0),
            ("203.0.113.9", &["GET /%61dmin/x"], 404),
            ("203.0.113.9", &["GET //admin;v=1/x"], 404),
            ("203.0.113.9", &["GET /x/?a=1&debug=1"], 403),
            ("203.0.113.9", &["GET /x/?%64ebug=%31"], 403),
            ("203.0.113.9", &["GET /", "User-Agent: curl/8"], 0),
            ("203.0.113.9", &["POST /", "User-Agent: curl/8"], 405),
            ("unix:", &["GET /admin"], 404),
        ];
        for (peer, lines, status) in cases {
            assert_eq!(Example::from(peer, lines).status(&gate), status, "{peer} {lines:?}");
        }
        let mut counted = Vec::new();
        gate.count(&mut |rule, decision, count| counted.push(format!("{rule} {decision} {count}")));
        assert_eq!(
            counted,
            ["banned deny 1", "office allow 2", "admin deny 4", "debug deny 2", "curl log 2", "read deny 1"]
        );
    }

    #[test]
    fn queries_are_read_as_applications_read_them() {
        let wanted = |name: &[u8], value: &[u8]| Match {
            query: vec![(name.to_vec(), Text::Exact(value.to_vec()))],
            ..Match::default()
        };
        let denied = |wanted: Match, query: &str| {
            let rules = vec![Rule { wanted, ..rule("a", Action::Deny(403)) }];
            let gate = Rules { rules, log: Throttle::default() };
            Example::new(&[&format!("GET /?{query}")]).status(&gate) == 403
        };
        assert!(denied(wanted(b"q", b"a b"), "q=a+b") && denied(wanted(b"q", b"a b"), "q=a%20b"));
        assert!(denied(wanted(b"q", b"a%"), "q=a%25") && denied(wanted(b"q", b"a%"), "q=a%"));
        // What is encoded separates nothing.
        assert!(!denied(wanted(b"x", b"1"), "q=a%26x=1") && !denied(wanted(b"x", b"1"), "x%3D1"));
    }

    #[test]
    fn what_lets_in_must_hold_for_every_reading() {
        let gate = Rules {
            rules: vec![below("/public", rule("public", Action::Allow)), rule("rest", Action::Deny(403))],
            log: Throttle::default(),
        };
        assert_eq!(Example::new(&["GET /public/x"]).status(&gate), 0);
        assert_eq!(Example::new(&["GET /public%2f..%2fadmin"]).status(&gate), 403);
        assert_eq!(Example::new(&["GET /%70ublic/x"]).status(&gate), 403);
        // Whoever is let in because something does not hold: it must not hold in any reading.
        let elsewhere = Rule { not: true, ..below("/admin", rule("elsewhere", Action::Allow)) };
        let gate = Rules { rules: vec![elsewhere, rule("rest", Action::Deny(403))], log: Throttle::default() };
        assert_eq!(Example::new(&["GET /x"]).status(&gate), 0);
        assert_eq!(Example::new(&["GET /admin"]).status(&gate), 403);
        assert_eq!(Example::new(&["GET /%61dmin"]).status(&gate), 403);
        // A list with nothing in it is nobody, not everybody.
        let gate = Rules {
            rules: vec![from(&[], rule("list", Action::Allow)), rule("rest", Action::Deny(403))],
            log: Throttle::default(),
        };
        assert_eq!(Example::new(&["GET /"]).status(&gate), 403);
    }
}
