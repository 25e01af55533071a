//! The filters of a route that decide about requests.

use std::collections::BTreeMap;

use daemon::config::Size;
use daemon::{choice, document};

use super::{PathMatch, TextMatch};

document! {
    /// A rule holds if all that is given holds. The first that allows or denies decides; if none does, the request goes on.
    /// Paths and queries are looked at as they were sent and with percent-encoding undone: a rule that denies holds if it holds
    /// for either, one that allows only for both.
    pub struct Rule {
        /// The name, as metrics and the log call it.
        name: String = required,
        /// Addresses and networks (`10.0.0.0/8`, `2001:db8::/32`) of which the client's must be in one.
        networks: Vec<String> = default(Vec::new()),
        /// A file with more of them, one a line, `#` begins a comment. Read again when it changes; if it cannot be read then, the last
        /// list goes on.
        networks_file: Option<String> = optional,
        /// Methods, of which the request's must be one.
        methods: Vec<String> = default(Vec::new()),
        /// The path, without the query.
        path: Option<PathMatch> = optional,
        /// Header fields by name.
        headers: BTreeMap<String, TextMatch> = default(BTreeMap::new()),
        /// Query parameters by name.
        query: BTreeMap<String, TextMatch> = default(BTreeMap::new()),
        /// The rule holds for every request for which the above does not.
        not: bool = default(false),
        /// What happens.
        action: RuleAction = required,
        /// The status of a denied request, from 400 to 599.
        status: u16 = default(403),
    }
}

choice! {
    /// What happens if a rule holds.
    pub enum RuleAction {
        /// The request goes on to the next filter.
        Allow = "allow",
        /// It is answered with `status`.
        Deny = "deny",
        /// A line in the program's log (ten a second at most); the next rule is asked.
        Log = "log",
    }
}

document! {
    /// Bounds of a request's head, below `limits` and `maxBody`. 0: no bound.
    pub struct Sizes {
        /// Bytes of the path; more is answered with 414.
        path: Size = default(Size(0)),
        /// Bytes of the query; more is answered with 414.
        query: Size = default(Size(0)),
        /// Parameters of the query; more is answered with 400.
        parameters: u32 = default(0),
        /// Bytes of the head; more is answered with 431.
        head: Size = default(Size(0)),
        /// Fields of the head; more is answered with 431.
        fields: u32 = default(0),
        /// Bytes of one field's value; more is answered with 431.
        value: Size = default(Size(0)),
    }
}

document! {
    /// A starter rule set against common attacks: the plain forms of SQL injection (`sql`), cross-site scripting (`xss`), path
    /// traversal (`path`), command and code injection (`command`) and known scanners (`scanner`), in the path, the query, cookies and
    /// other fields. It is a first net, no web application firewall: bodies are not looked at, and who takes pains gets through. Begin
    /// with `report`, look at `filter_decisions_total` and the log, exclude what is right for the application, then `deny`.
    pub struct Attacks {
        /// What happens to attacks.
        mode: AttackMode = required,
        /// A request is an attack if the scores of the rules that hold add up to this; a rule that is sure by itself scores 5, others
        /// 3 or 4.
        threshold: u32 = default(5),
        /// What is not looked at.
        exclude: Vec<Exclusion> = default(Vec::new()),
    }
}

choice! {
    /// What happens to attacks.
    pub enum AttackMode {
        /// Nothing is looked at.
        Off = "off",
        /// They are counted and logged (ten a second at most), and go on.
        Report = "report",
        /// They are answered with 403 besides.
        Deny = "deny",
    }
}

document! {
    /// What is not looked at. Without rules and parameters: nothing is, at that path.
    pub struct Exclusion {
        /// Only for this path.
        path: Option<PathMatch> = optional,
        /// Rules (as the log calls them, such as `sql-union`) or groups (`sql`) that do not count.
        rules: Vec<String> = default(Vec::new()),
        /// Query parameters and cookies whose text is not looked at.
        parameters: Vec<String> = default(Vec::new()),
    }
}
