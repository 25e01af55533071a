//! The filters of a route that decide about requests.

use std::collections::BTreeMap;

use daemon::config::{Seconds, Size};
use daemon::{choice, document};

use super::{ClientTls, PathMatch, TextMatch};

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
    /// traversal (`path`), command and code injection (`command`) and known scanners (`scanner`), in the path, the query, cookies,
    /// other fields, and the beginning of a body: forms, JSON, XML, other text, and what does not say what it is, but nothing that is
    /// compressed. It is a first net, no web application firewall: who takes pains gets through. Begin with `report`, look at
    /// `filter_decisions_total` and the log, exclude what is right for the application, then `deny`.
    pub struct Attacks {
        /// What happens to attacks.
        mode: AttackMode = required,
        /// A request is an attack if the scores of the rules that hold add up to this; a rule that is sure by itself scores 5, others
        /// 3 or 4.
        threshold: u32 = default(5),
        /// Bytes of a body that are looked at, up to 60Ki; the request waits until they have come. 0: none.
        body: Size = default(Size(32 << 10)),
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
        /// Query parameters, cookies, and names in a form or in JSON, whose text is not looked at.
        parameters: Vec<String> = default(Vec::new()),
    }
}

document! {
    /// How many requests may come in a time; more are answered with 429 and `Retry-After`. Kept by this proxy alone, for all its
    /// workers together.
    pub struct RateLimit {
        /// So many requests…
        requests: u32 = required,
        /// …in so much time.
        period: Seconds = default(Seconds::new(1)),
        /// So many at once after a pause; 0: `requests`.
        burst: u32 = default(0),
        /// Who shares a limit.
        per: Per = default(Per::Client),
        /// The field, for `per: header`.
        header: Option<String> = optional,
        /// Limits that are remembered, 16 bytes each; beyond, those that are least used up are forgotten.
        keys: u32 = default(10_000),
        /// Answers say how the client stands (`RateLimit`, `RateLimit-Policy`).
        headers: bool = default(true),
    }
}

choice! {
    /// Who shares a limit.
    pub enum Per {
        /// An address of IPv4, a /64 network of IPv6.
        Client = "client",
        /// Everybody.
        Route = "route",
        /// Who has the same client certificate: by its first URI, or else by the whole. Those without share one.
        Identity = "identity",
        /// Who sends the same in the field `header`. Those without it share one.
        Header = "header",
    }
}

document! {
    /// As `rateLimit`, but kept in a Redis server, for all proxies that use the same key together. It costs a request one round trip;
    /// the proxy goes on with others meanwhile.
    pub struct SharedRateLimit {
        /// So many requests…
        requests: u32 = required,
        /// …in so much time.
        period: Seconds = default(Seconds::new(1)),
        /// So many at once after a pause; 0: `requests`.
        burst: u32 = default(0),
        /// Who shares a limit.
        per: Per = default(Per::Client),
        /// The field, for `per: header`.
        header: Option<String> = optional,
        /// Answers say how the client stands (`RateLimit`, `RateLimit-Policy`).
        headers: bool = default(true),
        /// The server.
        redis: Redis = required,
        /// The beginning of every key; proxies and routes that use the same share their limits.
        key_prefix: String = required,
        /// What happens to a request if the server does not answer in time.
        on_failure: OnFailure = default(OnFailure::Allow),
    }
}

document! {
    /// A Redis server, version 5 or later, which may not be one of a Redis Cluster.
    pub struct Redis {
        /// `host:port`, `unix:/path`, `redis://host:port`, or `rediss://host:port`, which is with TLS; in the last two the port may be
        /// left out (6379).
        address: String = required,
        /// TLS, and what it goes by; without, `rediss://` trusts the machine's certificates.
        tls: Option<ClientTls> = optional,
        /// The ACL user; without, the default one.
        user: Option<String> = optional,
        /// A file with the password. Read again when it changes.
        password_file: Option<String> = optional,
        /// The database.
        database: u32 = default(0),
        /// For an answer. After a failure no request waits: the server is looked for beside them, twice a second while somebody
        /// would ask it, with two seconds for connecting.
        timeout: Seconds = default(Seconds(std::time::Duration::from_millis(50))),
    }
}

impl Redis {
    /// Where it is, as an endpoint is written, and whether it speaks TLS.
    pub fn place(&self) -> Result<(String, bool), String> {
        let whole = |rest: &str| {
            let rest = rest.strip_suffix('/').unwrap_or(rest);
            if rest.contains(['@', '/', '?']) {
                return Err(
                    "must not say who asks or which database: that is in user, passwordFile and database".to_owned()
                );
            }
            let has_port = rest.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
            Ok(if has_port { rest.to_owned() } else { format!("{rest}:6379") })
        };
        let (place, secure) = match (self.address.strip_prefix("rediss://"), self.address.strip_prefix("redis://")) {
            (Some(rest), _) => (whole(rest)?, true),
            (_, Some(_)) if self.tls.is_some() => {
                return Err("is without TLS: say `rediss://`, or leave tls out".to_owned());
            }
            (_, Some(rest)) => (whole(rest)?, false),
            _ if self.address.starts_with("unix:") && self.tls.is_some() => {
                return Err("a socket on the same machine is without TLS: leave tls out".to_owned());
            }
            _ => (self.address.clone(), self.tls.is_some()),
        };
        crate::build::endpoint_name(&place)?;
        Ok((place, secure))
    }
}

choice! {
    /// What happens if the server does not answer.
    pub enum OnFailure {
        /// The request goes on.
        Allow = "allow",
        /// It is answered with 503.
        Deny = "deny",
    }
}

document! {
    /// How many requests of the route may be in flight; more are answered with 503 and `Retry-After`.
    pub struct Concurrency {
        /// So many; an adaptive limit begins with it.
        limit: u32 = required,
        /// The limit is found: it grows while the backend is as fast as without a queue, falls as it gets slower, and is halved when it
        /// fails (no answer, 503 or 504).
        adaptive: Option<Adaptive> = optional,
    }
}

document! {
    /// How a limit is found.
    pub struct Adaptive {
        /// Never less.
        min: u32 = default(5),
        /// Never more.
        max: u32 = default(1000),
        /// The average latency may be so many times the least of the last minute before the limit falls.
        tolerance: f64 = default(2.0),
    }
}

document! {
    /// Who is let in, by the names in the client's certificate; everybody else gets 403. One of these is enough. The listener must have
    /// a `clientCaFile`.
    pub struct Identities {
        /// URIs, such as SPIFFE IDs; one that ends with `/*` is every URI below it.
        uris: Vec<String> = default(Vec::new()),
        /// DNS names.
        dns_names: Vec<String> = default(Vec::new()),
        /// SHA-256 of certificates, in hexadecimal.
        hashes: Vec<String> = default(Vec::new()),
        /// SPIFFE trust domains, all of whose IDs are let in.
        trust_domains: Vec<String> = default(Vec::new()),
    }
}

document! {
    /// Which other sites' pages may ask (the Fetch standard's CORS). Preflights are answered here; what the application says about it is
    /// taken away.
    pub struct Cors {
        /// `https://a.example`, `https://*.example.com`, `null`, or, without `allowCredentials`, `*`.
        allow_origins: Vec<String> = required,
        /// Methods besides GET, HEAD and POST; `*`: any.
        allow_methods: Vec<String> = default(Vec::new()),
        /// Fields of requests; `*`: any.
        allow_headers: Vec<String> = default(Vec::new()),
        /// Fields of answers that pages may read; `*`: any, but not with credentials.
        expose_headers: Vec<String> = default(Vec::new()),
        /// Whether cookies and the like may be sent along.
        allow_credentials: bool = default(false),
        /// How long a preflight's answer holds.
        max_age: Seconds = default(Seconds::new(5)),
    }
}

document! {
    /// A copy of each request that comes this far goes to another backend too, once the request has gone on whole; what that answers
    /// is thrown away. The request itself does not wait for it and does not fail with it. A copy has a `Content-Length` and no
    /// trailers, is tried once, and is not logged.
    pub struct Mirror : Default {
        /// The backend.
        backend: String = required,
        /// The share of requests that are copied, from 0 to 100.
        percent: f64 = default(100.0),
        /// A request with a longer body is not copied. At most 16Mi.
        max_body: Size = default(Size(64 << 10)),
        /// Copies in flight; a request that finds so many is not copied.
        in_flight: u32 = default(100),
        /// How long a copy may take, with its answer.
        timeout: Seconds = default(Seconds::new(10)),
    }
}
