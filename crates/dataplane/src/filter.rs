//! The filter chain of a route: steps in the order of the document. A step that asks ([`Gate`]) answers at once or lets
//! the request go on; the others change heads. What a step wants of the answer, or gives back at the end, it leaves in
//! [`Notes`]. A route without filters pays for none of this.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::edit::{Edits, Fixed, PathEdit, Redirect};
use crate::exchange::Failure;
use crate::head::{Field, Name, field};
use crate::route::View;

pub mod attack;
pub mod concurrency;
pub mod cors;
pub mod identity;
pub mod mirror;
pub mod network;
pub mod rate;
pub mod rule;
pub mod shared_rate;
pub mod size;
pub mod wait;

use concurrency::Permit;
use network::Networks;
use wait::Waiting;

/// What is known of a request when its filters are asked.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub view: View<'a>,
    /// As sent, with a port if there was one.
    pub authority: &'a [u8],
    /// Whether there was a `?`.
    pub has_query: bool,
    /// Bytes of the head.
    pub size: usize,
    /// The address the connection came from, as text.
    pub peer: &'a [u8],
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted: &'a Networks,
    /// The client's certificate as [`crate::identity::line`] writes it, or nothing.
    pub identity: &'a [u8],
    pub tls: bool,
    /// Nanoseconds of [`crate::clock::now`].
    pub now: u64,
    /// For gates that ask somebody else; `None`: nobody can be waited for.
    pub waiting: Option<Waiting<'a>>,
    /// The beginning of the body; `None`: nobody has wanted it so far.
    pub body: Option<Seen<'a>>,
}

/// What has been gathered of a request's body, without its framing.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    pub bytes: &'a [u8],
    /// There is no more.
    pub whole: bool,
}

impl Seen<'_> {
    /// Whether it is as much as a gate has wanted, or all there is.
    pub(crate) fn is_enough(&self, most: usize) -> bool {
        self.whole || self.bytes.len() >= most
    }
}

impl Asked<'_> {
    /// The client's address: the peer's, or, if that is a trusted proxy, the last of `X-Forwarded-For` that is not.
    /// `None`: a Unix socket.
    pub fn client(&self) -> Option<IpAddr> {
        client_of(self.peer, self.view.bytes, self.view.fields, self.trusted)
    }

    /// The values of the fields called `name` (lower case).
    pub fn values<'b>(&'b self, name: &'b [u8]) -> impl Iterator<Item = &'b [u8]> {
        field::values(self.view.bytes, self.view.fields, name)
    }
}

/// Who asks, see [`Asked::client`].
pub fn client_of(peer: &[u8], bytes: &[u8], fields: &[Field], trusted: &Networks) -> Option<IpAddr> {
    let peer = network::address(peer)?;
    let lists = fields.iter().rev().filter(|field| field.name == Name::XForwardedFor);
    Some(network::behind(peer, lists.map(|field| field.value.of(bytes)), trusted))
}

/// Bytes of a body that a gate may want: what a stream may send before anybody takes it (RFC 9113 §6.9.2), rounded down.
pub const BODY: usize = 60 << 10;

/// What a gate says.
#[derive(Debug)]
pub enum Flow {
    Continue,
    /// Somebody else is being asked, and will tell the exchange.
    Wait,
    /// The same gate wants to be asked again with so many bytes of the body, or all if it has less. At most [`BODY`].
    Body(usize),
    Respond(Response),
}

/// An answer of a filter's own.
#[derive(Debug, Default)]
pub struct Response {
    pub status: u16,
    /// Whole lines with their ends.
    pub lines: Vec<u8>,
    pub body: Vec<u8>,
    pub content_type: String,
    /// For the log; `None`: the answer is what was wanted.
    pub failure: Option<Failure>,
}

impl Response {
    /// A refusal that says why.
    pub fn refuse(status: u16, failure: Failure, text: &str) -> Response {
        let body = format!("{status} {}: {text}\n", crate::forward::reason(status)).into_bytes();
        let content_type = "text/plain; charset=utf-8".to_owned();
        Response { status, lines: Vec::new(), body, content_type, failure: Some(failure) }
    }
}

/// A step that looks at requests. It is shared by all workers.
pub trait Gate: fmt::Debug + Send + Sync {
    /// May the request go on?
    fn ask(&self, asked: &Asked<'_>, notes: &mut NotesSlot) -> Flow;

    /// How long an exchange waits for what it is told after [`Flow::Wait`].
    fn patience(&self) -> Duration {
        Duration::from_secs(30)
    }

    /// What becomes of an exchange that has waited for so long; what it is told later comes to nothing.
    fn late(&self) -> Flow {
        Flow::Respond(Response::refuse(503, Failure::Limit, "a filter could not answer in time"))
    }

    /// What it has decided so far: `(rule, decision, how often)`, for the metrics.
    fn count(&self, _tell: &mut dyn FnMut(&str, &str, u64)) {}

    /// How it stands now: `(what, how much)`, for the metrics.
    fn gauge(&self, _tell: &mut dyn FnMut(&str, u64)) {}
}

/// What filters leave behind with an exchange.
#[derive(Debug, Default)]
pub struct Notes {
    /// Whole lines for the answer, whoever gives it.
    pub lines: Vec<u8>,
    /// Fields (lower case) that the backend's answer loses, since `lines` says it.
    pub remove: Vec<&'static [u8]>,
    /// Places among the requests in flight.
    pub permits: Vec<Permit>,
    /// Who is to have a copy.
    pub mirrors: Vec<Arc<mirror::Target>>,
}

impl Notes {
    /// Those of a request.
    pub fn of(slot: &mut NotesSlot) -> &mut Notes {
        slot.get_or_insert_default()
    }

    /// Marks what goes away.
    pub fn mark(&self, bytes: &[u8], fields: &mut [Field]) {
        if !self.remove.is_empty() {
            field::leave_out(bytes, fields, |name| self.remove.iter().any(|other| other.eq_ignore_ascii_case(name)));
        }
    }
}

/// Notes are made when the first is taken.
pub type NotesSlot = Option<Box<Notes>>;

/// One step of a route.
#[derive(Clone, Debug)]
pub enum Filter {
    RequestHeaders(Edits),
    ResponseHeaders(Edits),
    Redirect(Redirect),
    Rewrite { host: Option<Vec<u8>>, path: Option<PathEdit> },
    Respond(Fixed),
    Gate(Arc<dyn Gate>),
}

/// What the filters have decided together.
#[derive(Debug)]
pub enum Decision {
    Forward {
        path: Option<Vec<u8>>,
        host: Option<Vec<u8>>,
    },
    Respond(Response),
    /// The filter of this number has asked somebody else.
    Wait {
        at: usize,
    },
    /// The filter of this number wants so much of the body.
    Gather {
        at: usize,
        most: usize,
    },
}

/// Asks the filters one after the other, gates from number `from` on; the first that answers ends it.
pub fn decide(filters: &[Filter], from: usize, asked: &Asked<'_>, notes: &mut NotesSlot) -> Decision {
    let (mut new_path, mut new_host) = (None, None);
    for (at, filter) in filters.iter().enumerate() {
        match filter {
            Filter::RequestHeaders(_) | Filter::ResponseHeaders(_) => {}
            Filter::Redirect(redirect) => {
                let query = asked.has_query.then_some(asked.view.query);
                let mut lines = b"Location: ".to_vec();
                lines.extend_from_slice(&redirect.location(asked.authority, asked.view.path, query, asked.tls));
                lines.extend_from_slice(b"\r\n");
                return Decision::Respond(Response { status: redirect.status, lines, ..Response::default() });
            }
            Filter::Rewrite { host, path } => {
                new_host = host.clone().or(new_host);
                new_path = path.as_ref().map(|edit| edit.apply(asked.view.path)).or(new_path);
            }
            Filter::Respond(fixed) => {
                return Decision::Respond(Response {
                    status: fixed.status,
                    body: fixed.body.clone(),
                    content_type: fixed.content_type.clone(),
                    ..Response::default()
                });
            }
            Filter::Gate(_) if at < from => {}
            Filter::Gate(gate) => match gate.ask(asked, notes) {
                Flow::Continue => {}
                Flow::Respond(response) => return Decision::Respond(response),
                Flow::Wait => return Decision::Wait { at },
                // Who has it and asks again has nothing against it.
                Flow::Body(most) if asked.body.is_some_and(|seen| seen.is_enough(most.min(BODY))) => {}
                Flow::Body(most) => return Decision::Gather { at, most: most.min(BODY) },
            },
        }
    }
    Decision::Forward { path: new_path, host: new_host }
}

/// A request as text, for the tests of filters.
#[cfg(test)]
pub(crate) mod example {
    use super::*;
    use crate::head::{Bounds, request};
    use crate::route::without_port;

    pub(crate) struct Example {
        text: String,
        fields: Vec<Field>,
        pub(crate) peer: &'static str,
        pub(crate) trusted: Networks,
        pub(crate) identity: &'static str,
        pub(crate) now: u64,
        pub(crate) body: &'static [u8],
    }

    impl Example {
        /// `lines` are the request line without its version, then fields.
        pub(crate) fn new(lines: &[&str]) -> Example {
            let mut text = format!("{} HTTP/1.1\r\nHost: example.com:8080\r\n", lines[0]);
            for line in &lines[1..] {
                text.push_str(line);
                text.push_str("\r\n");
            }
            text.push_str("\r\n");
            let mut fields = Vec::new();
            request(text.as_bytes(), &mut fields, Bounds { bytes: 65_000, fields: 100 }).unwrap().unwrap();
            Example { text, fields, peer: "203.0.113.9", trusted: Networks::default(), identity: "", now: 1, body: b"" }
        }

        pub(crate) fn from(peer: &'static str, lines: &[&str]) -> Example {
            Example { peer, ..Example::new(lines) }
        }

        pub(crate) fn asked(&self) -> Asked<'_> {
            let line = self.text.lines().next().unwrap();
            let mut words = line.split(' ');
            let (method, target) = (words.next().unwrap(), words.next().unwrap());
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            let view = View {
                bytes: self.text.as_bytes(),
                fields: &self.fields,
                method: method.as_bytes(),
                host: without_port(b"example.com:8080"),
                port: b"8080",
                path: path.as_bytes(),
                query: query.as_bytes(),
            };
            Asked {
                view,
                authority: b"example.com:8080",
                has_query: target.contains('?'),
                size: self.text.len(),
                peer: self.peer.as_bytes(),
                trusted: &self.trusted,
                identity: self.identity.as_bytes(),
                tls: false,
                now: self.now,
                waiting: None,
                body: Some(Seen { bytes: self.body, whole: true }),
            }
        }

        /// 0: let go on.
        pub(crate) fn status(&self, gate: &dyn Gate) -> u16 {
            match gate.ask(&self.asked(), &mut None) {
                Flow::Continue => 0,
                Flow::Wait => 1,
                Flow::Body(_) => 2,
                Flow::Respond(response) => response.status,
            }
        }
    }
}
