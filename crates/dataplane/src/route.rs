//! Which route a request takes. Precedence is that of Gateway API's HTTPRoute: the more specific host, then path, method,
//! more headers, more query parameters; at last the order in the document.

use std::sync::Arc;

use regex::bytes::Regex;

use crate::backend::Session;
use crate::count::{Counter, Exemplars, Histogram};
use crate::edit::Edits;
use crate::filter::Filter;
use crate::head::{Field, Method, field};

#[derive(Clone, Debug)]
pub enum Text {
    Exact(Vec<u8>),
    Regex(Regex),
}

impl Text {
    fn matches(&self, text: &[u8]) -> bool {
        match self {
            Text::Exact(exact) => exact == text,
            Text::Regex(regex) => regex.is_match(text),
        }
    }
}

#[derive(Clone, Debug)]
pub enum Path {
    Exact(Vec<u8>),
    /// Whole segments: `/a` takes `/a` and `/a/b`, not `/ab`.
    Prefix(Vec<u8>),
    Regex(Regex),
    /// A method of gRPC, whatever its service: `/SERVICE/METHOD` (gRPC over HTTP/2, "Requests").
    Call(Vec<u8>),
}

impl Path {
    pub fn matches(&self, path: &[u8]) -> bool {
        match self {
            Path::Exact(exact) => exact == path,
            Path::Prefix(prefix) => {
                let prefix = prefix.strip_suffix(b"/").unwrap_or(prefix);
                path.strip_prefix(prefix).is_some_and(|rest| matches!(rest.first(), None | Some(b'/')))
            }
            Path::Regex(regex) => regex.is_match(path),
            Path::Call(method) => {
                let mut parts = path.split(|byte| *byte == b'/');
                let is_call = parts.next() == Some(b"") && parts.next().is_some_and(|service| !service.is_empty());
                is_call && parts.next() == Some(method) && parts.next().is_none()
            }
        }
    }

    fn rank(&self) -> (u8, usize) {
        match self {
            Path::Exact(exact) => (3, exact.len()),
            Path::Regex(regex) => (2, regex.as_str().len()),
            Path::Prefix(prefix) => (1, prefix.len()),
            Path::Call(method) => (0, method.len()),
        }
    }
}

/// What a request must be. All that is given must hold.
#[derive(Clone, Debug, Default)]
pub struct Match {
    /// Lower case, or beginning with `*.`; empty: any.
    pub host: Vec<u8>,
    /// Digits; empty: any.
    pub port: Vec<u8>,
    pub path: Option<Path>,
    pub method: Option<Vec<u8>>,
    /// Lower-case names.
    pub headers: Vec<(Vec<u8>, Text)>,
    pub query: Vec<(Vec<u8>, Text)>,
}

/// What is asked about.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    pub bytes: &'a [u8],
    pub fields: &'a [Field],
    pub method: &'a [u8],
    /// Without a port, as sent.
    pub host: &'a [u8],
    /// Digits as sent; empty: none.
    pub port: &'a [u8],
    pub path: &'a [u8],
    pub query: &'a [u8],
}

impl Match {
    pub fn matches(&self, view: &View<'_>) -> bool {
        host_matches(&self.host, view.host)
            && (self.port.is_empty() || self.port == view.port)
            && self.path.as_ref().is_none_or(|path| path.matches(view.path))
            && self.method.as_ref().is_none_or(|method| method == view.method)
            && self
                .headers
                .iter()
                .all(|(name, text)| field::values(view.bytes, view.fields, name).any(|value| text.matches(value)))
            && self.query.iter().all(|(name, text)| {
                let mut pairs = view.query.split(|byte| *byte == b'&').map(|pair| {
                    let end = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
                    (&pair[..end], pair.get(end + 1..).unwrap_or_default())
                });
                pairs.any(|(found, value)| found == name && text.matches(value))
            })
    }

    fn rank(&self) -> impl Ord + use<> {
        let host = (!self.host.is_empty(), !self.host.starts_with(b"*"), self.host.len(), !self.port.is_empty());
        let path = self.path.as_ref().map(Path::rank);
        (host, path, self.method.is_some(), self.headers.len(), self.query.len())
    }
}

/// `wanted` as in [`Match::host`].
pub(crate) fn host_matches(wanted: &[u8], host: &[u8]) -> bool {
    // The dot that ends a name says that nothing is to be appended to it (RFC 1034 §3.1); it is the same name.
    let host = host.strip_suffix(b".").unwrap_or(host);
    match wanted {
        [] => true,
        [b'*', suffix @ ..] => {
            host.len() > suffix.len() && host[host.len() - suffix.len()..].eq_ignore_ascii_case(suffix)
        }
        exact => host.eq_ignore_ascii_case(exact),
    }
}

#[derive(Debug)]
pub struct Route {
    pub name: String,
    pub filters: Vec<Filter>,
    pub targets: Targets,
    /// Nanoseconds for the whole exchange; 0: no bound.
    pub request_timeout: u64,
    /// Nanoseconds from the request's end to the answer's head, for each try; 0: no bound.
    pub backend_timeout: u64,
    pub retry: crate::retry::Retry,
    /// Whether clients come back to their endpoint, whatever the backends' own cookies and weights say.
    pub session: Option<Session>,
    /// Bytes of a request's body; `u64::MAX`: no bound.
    pub body_most: u64,
    /// CONNECT becomes a tunnel to one of the backends; else it is refused.
    pub connect: bool,
    /// `Server-Timing` in every answer, not only when the request asks for it.
    pub always_timing: bool,
    pub counters: Arc<[RouteCounters]>,
}

#[derive(Debug, Default)]
#[repr(align(64))]
pub struct RouteCounters {
    /// By the first digit of the status, from 1 to 5; 0: no answer was given.
    pub answers: [Counter; 6],
    pub retries: Counter,
    /// Second tries made because the first took long, and how many of them answered first.
    pub hedges: Counter,
    pub hedges_won: Counter,
    pub active: Counter,
    pub bytes_in: Counter,
    pub bytes_out: Counter,
    pub latency: Histogram,
    pub exemplars: Exemplars,
}

/// A backend with its share of what a route takes.
#[derive(Debug)]
pub struct Target {
    /// Its number.
    pub backend: usize,
    pub weight: usize,
    /// What is changed only if it is chosen.
    pub changes: Option<Box<Changes>>,
}

/// Changes of a request's head and of its answer's.
#[derive(Debug, Default)]
pub struct Changes {
    pub request: Edits,
    pub response: Edits,
    /// Asked after the route's: such as answer at once, whatever they say.
    pub filters: Vec<Filter>,
}

impl Target {
    /// Those that are asked only if it is chosen.
    pub fn filters(&self) -> &[Filter] {
        self.changes.as_deref().map_or(&[], |changes| &changes.filters)
    }
}

/// Backends, each with its share.
#[derive(Debug, Default)]
pub struct Targets {
    list: Vec<Target>,
    /// The sum of weights up to and including each.
    sums: Vec<usize>,
    /// Some have filters of their own.
    filtered: bool,
}

impl Targets {
    pub fn new(list: Vec<Target>) -> Targets {
        let mut sum = 0;
        let sums = list.iter().map(|target| {
            sum += target.weight;
            sum
        });
        let filtered = list.iter().any(|target| !target.filters().is_empty());
        Targets { sums: sums.collect(), list, filtered }
    }

    /// Of backends' numbers with their weights.
    pub fn plain(weighted: impl IntoIterator<Item = (usize, usize)>) -> Targets {
        let list = weighted.into_iter().map(|(backend, weight)| Target { backend, weight, changes: None });
        Targets::new(list.collect())
    }

    /// The place in the list of one of them, by weight.
    pub fn draw(&self, dice: &mut crate::pool::Dice) -> Option<usize> {
        match self.sums.as_slice() {
            [] => None,
            [sum] if *sum > 0 => Some(0),
            sums => {
                let total = *sums.last()?;
                let drawn = if total == 0 { return None } else { dice.below(total) };
                sums.iter().position(|sum| drawn < *sum)
            }
        }
    }

    /// Whether some have filters of their own.
    pub fn are_filtered(&self) -> bool {
        self.filtered
    }

    /// All of them.
    pub fn all(&self) -> &[Target] {
        &self.list
    }

    /// The one at this place.
    pub fn get(&self, place: usize) -> Option<&Target> {
        self.list.get(place)
    }
}

/// Routes of one listener in the order in which they are asked.
#[derive(Debug, Default)]
pub struct Table {
    entries: Vec<(Match, usize)>,
}

impl Table {
    /// Of matches with the number of their route, in the order of the document.
    pub fn new(mut entries: Vec<(Match, usize)>) -> Table {
        entries.sort_by_key(|(wanted, _)| std::cmp::Reverse(wanted.rank()));
        Table { entries }
    }

    pub fn find(&self, view: &View<'_>) -> Option<usize> {
        self.entries.iter().find(|(wanted, _)| wanted.matches(view)).map(|(_, route)| *route)
    }
}

/// The host without its port.
pub fn without_port(authority: &[u8]) -> &[u8] {
    if authority.first() == Some(&b'[') {
        let end = authority.iter().position(|byte| *byte == b']').map_or(authority.len(), |end| end + 1);
        return &authority[..end];
    }
    let end = authority.iter().position(|byte| *byte == b':').unwrap_or(authority.len());
    &authority[..end]
}

/// The port behind the host; empty if there is none.
pub fn port_of(authority: &[u8]) -> &[u8] {
    authority[without_port(authority).len()..].strip_prefix(b":").unwrap_or_default()
}

/// Whether a route may ask for this method: a token (RFC 9110 §9.1), and not CONNECT, which a route allows with
/// [`Route::connect`].
pub fn is_method(text: &[u8]) -> bool {
    !text.is_empty()
        && text.iter().all(|byte| crate::head::TOKEN[usize::from(*byte)])
        && Method::of(text) != Method::Connect
}

#[cfg(test)]
mod tests;
