//! Cross-origin requests, as the Fetch standard has them (§3.3): which other sites' pages may ask, and what they may see. A
//! preflight is answered here; the fields the backend itself would say about it are taken away, so that there is one voice.

use super::{Asked, Flow, Gate, Notes, NotesSlot, Response};
use crate::count::Tally;
use crate::exchange::Failure;
use crate::forward::decimal;

/// Which origins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Any,
    /// Scheme, host and port as a browser sends them; or `null`.
    Exact(Vec<u8>),
    /// What stands before and behind a `*` in the host, which is one or more labels.
    Below(Vec<u8>, Vec<u8>),
}

impl Origin {
    /// Reads `*`, `null`, `https://a.example`, `https://*.example:8443`.
    pub fn parse(text: &str) -> Option<Origin> {
        match text {
            "*" => return Some(Origin::Any),
            "null" => return Some(Origin::Exact(b"null".to_vec())),
            _ => {}
        }
        let (scheme, host) = text.split_once("://")?;
        let plain = |text: &str, more: &[u8]| {
            text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || more.contains(&byte))
        };
        if scheme.is_empty() || host.is_empty() || !plain(scheme, b"+-.") {
            return None;
        }
        match host.strip_prefix("*.") {
            Some(rest) if !rest.is_empty() && plain(rest, b"-._:") => {
                Some(Origin::Below(format!("{scheme}://").into_bytes(), format!(".{rest}").into_bytes()))
            }
            None if plain(host, b"-._:[]") => Some(Origin::Exact(text.as_bytes().to_vec())),
            _ => None,
        }
    }

    fn holds(&self, origin: &[u8], credentials: bool) -> bool {
        match self {
            // Every sandboxed page is `null`: with credentials it must be named.
            Origin::Any => !(credentials && origin == b"null"),
            Origin::Exact(exact) => exact == origin,
            Origin::Below(before, behind) => {
                let labels = origin.strip_prefix(&before[..]).and_then(|rest| rest.strip_suffix(&behind[..]));
                labels.is_some_and(|labels| {
                    !labels.is_empty()
                        && labels.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(byte))
                })
            }
        }
    }
}

/// What is allowed. A list that has `*` allows whatever is asked for.
#[derive(Debug, Default)]
pub struct Cors {
    pub origins: Vec<Origin>,
    pub methods: Vec<String>,
    pub headers: Vec<String>,
    /// Fields of answers that pages may read.
    pub exposed: Vec<String>,
    pub credentials: bool,
    /// Seconds for which a preflight's answer holds.
    pub max_age: u64,
    pub refused: Tally,
}

/// What the backend says about it is taken away.
static THEIRS: [&[u8]; 6] = [
    b"access-control-allow-origin",
    b"access-control-allow-credentials",
    b"access-control-allow-methods",
    b"access-control-allow-headers",
    b"access-control-expose-headers",
    b"access-control-max-age",
];

fn line(name: &str, value: &[u8], out: &mut Vec<u8>) {
    if !value.is_empty() {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    }
}

/// The list, or, if it has `*`, what was asked for: with credentials `*` is no wildcard, and never for `Authorization`.
fn granted(list: &[String], asked: &[u8]) -> Vec<u8> {
    if list.iter().any(|name| name == "*") { asked.to_vec() } else { list.join(", ").into_bytes() }
}

impl Cors {
    /// The same for everybody, so that caches need not tell origins apart.
    fn is_open(&self) -> bool {
        !self.credentials && self.origins.contains(&Origin::Any)
    }

    fn origin_lines(&self, origin: &[u8], out: &mut Vec<u8>) {
        line("Access-Control-Allow-Origin", if self.is_open() { b"*" } else { origin }, out);
        if self.credentials {
            out.extend_from_slice(b"Access-Control-Allow-Credentials: true\r\n");
        }
    }

    fn exposed_line(&self, out: &mut Vec<u8>) {
        let all = self.exposed.iter().any(|name| name == "*");
        // With credentials `*` would be a name.
        if !(all && self.credentials) {
            line("Access-Control-Expose-Headers", self.exposed.join(", ").as_bytes(), out);
        }
    }

    fn preflight(&self, asked: &Asked<'_>, origin: &[u8], method: &[u8]) -> Response {
        let mut response = Response { status: 204, ..Response::default() };
        let out = &mut response.lines;
        self.origin_lines(origin, out);
        line("Access-Control-Allow-Methods", &granted(&self.methods, method), out);
        let wanted: Vec<&[u8]> = asked.values(b"access-control-request-headers").collect();
        if !wanted.is_empty() {
            line("Access-Control-Allow-Headers", &granted(&self.headers, &wanted.join(&b", "[..])), out);
        }
        self.exposed_line(out);
        out.extend_from_slice(b"Access-Control-Max-Age: ");
        decimal(self.max_age, out);
        out.extend_from_slice(b"\r\nVary: Origin, Access-Control-Request-Method, Access-Control-Request-Headers\r\n");
        response
    }
}

impl Gate for Cors {
    fn ask(&self, asked: &Asked<'_>, notes: &mut NotesSlot) -> Flow {
        let origin = asked.values(b"origin").next();
        let allowed = origin.filter(|origin| self.origins.iter().any(|one| one.holds(origin, self.credentials)));
        let method = asked.values(b"access-control-request-method").next();
        if let (Some(_), Some(method), b"OPTIONS") = (origin, method, asked.view.method) {
            return Flow::Respond(match allowed {
                Some(origin) => self.preflight(asked, origin, method),
                None => {
                    self.refused.add();
                    Response::refuse(403, Failure::Denied, "this origin is not allowed")
                }
            });
        }
        let notes = Notes::of(notes);
        notes.remove.extend(THEIRS);
        if let Some(origin) = allowed {
            self.origin_lines(origin, &mut notes.lines);
            self.exposed_line(&mut notes.lines);
        }
        if !self.is_open() {
            notes.lines.extend_from_slice(b"Vary: Origin\r\n");
        }
        Flow::Continue
    }

    fn count(&self, tell: &mut dyn FnMut(&str, &str, u64)) {
        tell("cors", "deny", self.refused.value());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::example::Example;

    fn cors(origins: &[&str], credentials: bool) -> Cors {
        let all = || vec!["*".to_owned()];
        Cors {
            origins: origins.iter().map(|text| Origin::parse(text).unwrap()).collect(),
            methods: all(),
            headers: all(),
            exposed: all(),
            credentials,
            max_age: 60,
            refused: Tally::default(),
        }
    }

    fn said(gate: &Cors, lines: &[&str]) -> String {
        let mut notes = None;
        match gate.ask(&Example::new(lines).asked(), &mut notes) {
            Flow::Respond(response) => {
                format!("{}\n{}", response.status, String::from_utf8(response.lines).unwrap().replace('\r', ""))
            }
            _ => String::from_utf8(notes.unwrap_or_default().lines).unwrap().replace('\r', ""),
        }
    }

    #[test]
    fn origins() {
        let allows = |origins: &[&str], credentials: bool, origin: &str| {
            said(&cors(origins, credentials), &["GET /", &format!("Origin: {origin}")])
                .contains("Access-Control-Allow-Origin")
        };
        assert!(allows(&["https://a.example"], true, "https://a.example"));
        assert!(!allows(&["https://a.example"], true, "http://a.example"));
        assert!(!allows(&["https://a.example"], true, "https://a.example.evil"));
        assert!(!allows(&["https://a.example"], true, "https://a.example:8443"));
        assert!(allows(&["https://*.example"], true, "https://a.b.example"));
        assert!(!allows(&["https://*.example"], true, "https://example"));
        assert!(!allows(&["https://*.example"], true, "https://.example"));
        assert!(!allows(&["https://*.example"], true, "https://evil.test/.example"));
        assert!(!allows(&["https://*.example"], true, "https://a@evil.example:1"));
        assert!(allows(&["*"], false, "null") && !allows(&["*"], true, "null") && allows(&["null"], true, "null"));
        for text in ["a.example", "https://", "https://*", "https://a*.example", "https://a.example/", "HTTPS://A"] {
            assert_eq!(Origin::parse(text), None, "{text}");
        }
    }

    #[test]
    fn requests() {
        let open = cors(&["*"], false);
        assert_eq!(
            said(&open, &["GET /", "Origin: https://a.example"]),
            "Access-Control-Allow-Origin: *\nAccess-Control-Expose-Headers: *\n"
        );
        assert_eq!(said(&open, &["GET /"]), "");
        let strict = Cors { exposed: vec!["X-A".to_owned(), "X-B".to_owned()], ..cors(&["https://a.example"], true) };
        assert_eq!(
            said(&strict, &["GET /", "Origin: https://a.example"]),
            "Access-Control-Allow-Origin: https://a.example\nAccess-Control-Allow-Credentials: true\n\
             Access-Control-Expose-Headers: X-A, X-B\nVary: Origin\n"
        );
        assert_eq!(said(&strict, &["GET /", "Origin: https://b.example"]), "Vary: Origin\n");
        // With credentials `*` would be the name of a field.
        let all = cors(&["https://a.example"], true);
        assert!(!said(&all, &["GET /", "Origin: https://a.example"]).contains("Expose"));
        // What the backend says of it is taken away, whoever asks.
        let mut notes = None;
        all.ask(&Example::new(&["GET /"]).asked(), &mut notes);
        assert_eq!(notes.unwrap().remove, THEIRS);
        // An OPTIONS request that is no preflight is the application's.
        assert_eq!(said(&strict, &["OPTIONS /"]), "Vary: Origin\n");
    }

    #[test]
    fn preflights() {
        let ask = [
            "OPTIONS /",
            "Origin: https://a.example",
            "Access-Control-Request-Method: PUT",
            "Access-Control-Request-Headers: authorization, x-a",
        ];
        let vary = "Vary: Origin, Access-Control-Request-Method, Access-Control-Request-Headers\n";
        assert_eq!(
            said(&cors(&["*"], true), &ask),
            format!(
                "204\nAccess-Control-Allow-Origin: https://a.example\nAccess-Control-Allow-Credentials: true\n\
                 Access-Control-Allow-Methods: PUT\nAccess-Control-Allow-Headers: authorization, x-a\n\
                 Access-Control-Max-Age: 60\n{vary}"
            )
        );
        let listed = Cors {
            methods: vec!["GET".to_owned(), "PUT".to_owned()],
            headers: vec!["X-A".to_owned()],
            ..cors(&["*"], false)
        };
        assert_eq!(
            said(&listed, &ask),
            format!(
                "204\nAccess-Control-Allow-Origin: *\nAccess-Control-Allow-Methods: GET, PUT\n\
                 Access-Control-Allow-Headers: X-A\nAccess-Control-Expose-Headers: *\n\
                 Access-Control-Max-Age: 60\n{vary}"
            )
        );
        assert!(said(&cors(&["https://b.example"], false), &ask).starts_with("403\n"));
    }
}
