//! One request's life: its head as it goes on, its bodies, its route, its times. Exchanges are used again with their
//! buffers, so that a request costs no allocation.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use crate::attempt::Attempt;
use crate::body::Body;
use crate::clock::SECOND;
use crate::filter::NotesSlot;
use crate::filter::mirror::Flight;
use crate::head::{Field, Method, Name, Span};
use crate::ledger::Ledger;
use crate::plan::Plan;
use crate::pool::{Pool, Wish};
use crate::purse::{LEAST, Purse, REQUEST, Share};
use crate::tracing::Traced;
use crate::worker::{Copy, Parked};

/// Nanoseconds after which a request that is not whole is its client's delay.
const WITHHOLDING: u64 = SECOND;

/// A plan with what one worker knows of its backends.
#[derive(Debug)]
pub struct Local {
    pub plan: Arc<Plan>,
    pub pools: Vec<Rc<Pool>>,
    pub purse: Rc<Purse>,
}

/// Why an exchange failed here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The client's message was refused.
    Refused,
    NoRoute,
    NoEndpoint,
    /// A bound of the configuration.
    Limit,
    /// A filter said no.
    Denied,
    /// The backend has no room, and no more requests may wait for it.
    Overflow,
    /// It waited for room at the backend in vain.
    PendingTimeout,
    /// Too many requests in a time.
    RateLimited,
    Connect,
    /// There was no descriptor, or no memory of the kernel's, for a connection: nobody was asked.
    NoSocket,
    /// TLS could not be agreed on with the backend: no byte of the request was sent.
    Tls,
    ConnectTimeout,
    /// The backend closed the connection before it answered.
    Closed,
    /// The backend refused the stream unseen (RFC 9113 §8.7).
    RefusedStream,
    /// The backend reset the stream before it answered, and may have done what was asked.
    Reset,
    /// The backend's answer ended early.
    Truncated,
    /// The backend's answer was no HTTP.
    Malformed,
    AnswerTimeout,
    RequestTimeout,
    ClientTimeout,
    ClientGone,
    Shutdown,
}

impl Failure {
    pub const fn name(self) -> &'static str {
        match self {
            Failure::Refused => "refused",
            Failure::NoRoute => "no_route",
            Failure::NoEndpoint => "no_endpoint",
            Failure::Limit => "limit",
            Failure::Denied => "denied",
            Failure::Overflow => "overflow",
            Failure::PendingTimeout => "pending_timeout",
            Failure::RateLimited => "rate_limited",
            Failure::Connect => "connect_failed",
            Failure::NoSocket => "no_socket",
            Failure::Tls => "tls_failed",
            Failure::ConnectTimeout => "connect_timeout",
            Failure::Closed => "backend_closed",
            Failure::RefusedStream => "stream_refused",
            Failure::Reset => "stream_reset",
            Failure::Truncated => "answer_truncated",
            Failure::Malformed => "answer_malformed",
            Failure::AnswerTimeout => "backend_timeout",
            Failure::RequestTimeout => "request_timeout",
            Failure::ClientTimeout => "client_timeout",
            Failure::ClientGone => "client_gone",
            Failure::Shutdown => "shutdown",
        }
    }

    /// Whether it is the backend that has failed: it gave no answer, or none that could be passed on.
    pub const fn is_backends(self) -> bool {
        match self {
            Failure::Connect | Failure::Tls | Failure::ConnectTimeout => true,
            Failure::Closed | Failure::RefusedStream | Failure::Reset => true,
            Failure::Truncated | Failure::Malformed | Failure::AnswerTimeout => true,
            Failure::Refused | Failure::NoRoute | Failure::NoEndpoint | Failure::Limit | Failure::Denied => false,
            Failure::Overflow | Failure::PendingTimeout | Failure::RateLimited | Failure::NoSocket => false,
            Failure::RequestTimeout | Failure::ClientTimeout | Failure::ClientGone | Failure::Shutdown => false,
        }
    }

    pub const fn status(self) -> u16 {
        match self {
            Failure::Refused => 400,
            Failure::Denied => 403,
            Failure::RateLimited => 429,
            Failure::NoRoute => 404,
            Failure::Limit | Failure::NoEndpoint | Failure::NoSocket | Failure::Shutdown => 503,
            Failure::Overflow | Failure::PendingTimeout | Failure::RefusedStream => 503,
            Failure::Connect | Failure::Tls | Failure::Closed | Failure::Reset => 502,
            Failure::Truncated | Failure::Malformed => 502,
            Failure::ConnectTimeout | Failure::AnswerTimeout | Failure::RequestTimeout => 504,
            Failure::ClientTimeout => 408,
            Failure::ClientGone => 499,
        }
    }
}

/// How far the answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// No byte of its head has been given to the client.
    Waiting,
    /// Its head has been given to the client.
    Begun,
    /// All of it has been read from the backend.
    Read,
}

#[derive(Debug)]
pub struct Exchange {
    pub down: u32,
    /// The client's stream; 0: the whole connection.
    pub stream: u32,
    /// Of a stream's body, what the backend has not taken yet.
    pub hold: Vec<u8>,
    /// Of a stream's body, the end has come and not been passed on.
    pub ends: bool,
    pub up: Option<u32>,
    /// The stream of the backend's connection; 0: all of it.
    pub up_stream: u32,
    /// When the answer must go on, if the backend's connection is shared.
    pub answer_by: u64,
    /// `grpc-status`.
    pub grpc: Option<u8>,
    pub local: Rc<Local>,
    /// Who asks, where trusted proxies stand in between; `None`: whoever is connected.
    pub behind: Option<IpAddr>,
    pub route: Option<usize>,
    /// Which of the route's targets was chosen.
    pub target: usize,
    pub pool: Option<Rc<Pool>>,
    pub endpoint: usize,
    pub method: Method,
    pub minor: u8,
    /// The client's connection is used again afterwards.
    pub keep: bool,
    /// The client wants to go over to WebSocket.
    pub upgrade: bool,
    /// The endpoint speaks HTTP/2 and takes no tunnels that way.
    pub by_http1: bool,
    /// A CONNECT: answered as soon as the backend's connection stands.
    pub connect: bool,
    /// Bytes pass both ways, unread.
    pub tunnel: bool,
    pub request: Body,
    pub request_chunked: bool,
    pub body_most: u64,
    /// Trailer lines of the request for a backend that takes them apart from the body (HTTP/2).
    pub trailers: Vec<u8>,
    /// A stream may be silent for as long as a tunnel: a call of gRPC.
    pub patient: bool,
    /// When a stream's client must have gone on.
    pub client_by: u64,
    pub response: Body,
    pub response_chunked: bool,
    /// The backend's connection is used again afterwards.
    pub keep_up: bool,
    pub answer: Answer,
    /// Interim answers that have come.
    pub interim: u32,
    pub tries: u32,
    /// Tries whose connection had served before and turned out to have ended: they are made up for besides the route's
    /// retries.
    pub replaced: u32,
    /// One of them may have arrived: it goes over a new connection, and the next is a try like others.
    pub renewed: bool,
    /// Where it should go.
    pub wish: Wish,
    /// It waits for room at the backend, until then; 0: it does not.
    pub queued_until: u64,
    /// When this try must have an answer, if the whole request is with the backend; until then, a connection.
    pub try_until: u64,
    /// The exchange that tries the same elsewhere.
    pub hedge: Option<u32>,
    /// A second endpoint will be asked, or has been.
    pub hedged: bool,
    /// The exchange this one tries for.
    pub twin_of: Option<u32>,
    /// On a connection that served before.
    pub reused: bool,
    /// Bytes of this try have been given to the kernel.
    pub sent: bool,
    /// The request's head as it goes on, with what there was of the body.
    pub replay: Vec<u8>,
    /// Bytes of the head in `replay`.
    pub head_size: usize,
    /// `replay` is the whole request so far.
    pub replayable: bool,
    pub status: u16,
    pub ledger: Ledger,
    /// When the present try began; 0: there is none.
    pub try_began: u64,
    /// From when on the endpoint is waited for: this try's beginning, or when the request's last byte was passed on; 0: it is
    /// the client that must go on.
    pub asked_at: u64,
    /// For the log: method, host, path one after the other.
    pub text: Vec<u8>,
    pub method_span: Span,
    pub host_span: Span,
    pub path_span: Span,
    /// `User-Agent` and `Referer`, if the log wants them.
    pub agent_span: Span,
    pub referer_span: Span,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub failure: Option<Failure>,
    pub timing: bool,
    /// A stream's client takes no more for now.
    pub stalled: bool,
    /// Whose work this is, if there is tracing.
    pub traced: Option<Box<Traced>>,
    /// Tries that have ended.
    pub attempts: Vec<Attempt>,
    /// When the present try began; 0: there is none.
    pub attempt_began: u64,
    pub expires: u64,
    /// The backend was entered and must be left.
    pub entered: bool,
    /// What filters have left behind.
    pub notes: NotesSlot,
    /// Waits for what a filter has asked.
    pub(crate) parked: Option<Box<Parked>>,
    /// Of the request, for others.
    pub(crate) copy: Option<Box<Copy>>,
    /// It is such a copy: there is no client.
    pub shadow: Option<Flight>,
    share: Share,
}

impl Exchange {
    /// One that has not begun.
    pub fn new(local: Rc<Local>) -> Exchange {
        Exchange {
            share: Share::of(&local.purse),
            down: 0,
            stream: 0,
            hold: Vec::new(),
            ends: false,
            up: None,
            up_stream: 0,
            answer_by: u64::MAX,
            grpc: None,
            local,
            behind: None,
            route: None,
            target: 0,
            pool: None,
            endpoint: 0,
            method: Method::Other,
            minor: 1,
            keep: false,
            upgrade: false,
            by_http1: false,
            connect: false,
            tunnel: false,
            request: Body::Done,
            request_chunked: false,
            body_most: u64::MAX,
            trailers: Vec::new(),
            patient: false,
            client_by: u64::MAX,
            response: Body::Done,
            response_chunked: false,
            keep_up: false,
            answer: Answer::Waiting,
            interim: 0,
            tries: 0,
            replaced: 0,
            renewed: false,
            wish: Wish::default(),
            queued_until: 0,
            try_until: u64::MAX,
            hedge: None,
            hedged: false,
            twin_of: None,
            reused: false,
            sent: false,
            replay: Vec::new(),
            head_size: 0,
            replayable: false,
            status: 0,
            ledger: Ledger::begin(0),
            try_began: 0,
            asked_at: 0,
            text: Vec::new(),
            method_span: Span::default(),
            host_span: Span::default(),
            path_span: Span::default(),
            agent_span: Span::default(),
            referer_span: Span::default(),
            bytes_in: 0,
            bytes_out: 0,
            failure: None,
            timing: false,
            stalled: false,
            traced: None,
            attempts: Vec::new(),
            attempt_began: 0,
            expires: u64::MAX,
            entered: false,
            notes: None,
            parked: None,
            copy: None,
            shadow: None,
        }
    }

    /// As new, but with its buffers.
    pub fn renew(&mut self, local: Rc<Local>) {
        let (mut replay, mut text) = (std::mem::take(&mut self.replay), std::mem::take(&mut self.text));
        replay.clear();
        text.clear();
        *self = Exchange { replay, text, ..Exchange::new(local) };
    }

    /// It is this client's from now on.
    pub fn begin(&mut self, down: u32, local: Rc<Local>, at: u64) {
        (self.down, self.local, self.ledger) = (down, local, Ledger::begin(at));
    }

    /// Counts what is held here.
    pub fn count(&mut self) {
        let copied = self.copy.as_deref().map_or(0, Copy::held);
        let gathered = self.parked.as_deref().map_or(0, Parked::held);
        let held = self.replay.len() + self.hold.len() + copied + gathered;
        self.share.set(REQUEST + if held > LEAST { held } else { 0 });
    }

    /// Tries as the route counts them.
    pub fn counted_tries(&self) -> u32 {
        self.tries.saturating_sub(self.replaced)
    }

    /// The backend's connection is for bytes alone: not pooled, not shared.
    pub fn is_raw(&self) -> bool {
        self.tunnel || self.connect
    }

    /// Bytes pass both ways, but those of one side, or of both, are a stream's.
    pub fn is_stream_tunnel(&self) -> bool {
        self.tunnel && (self.stream != 0 || self.up_stream != 0)
    }

    /// It has, or will have, a stream of a connection to this backend that others share.
    pub fn goes_by_stream(&self, pool: &Pool) -> bool {
        pool.backend.settings.http2 && !self.is_raw() && !self.by_http1
    }

    /// A filter wants to see the body before anybody else does.
    pub(crate) fn gathers(&self) -> bool {
        self.parked.as_deref().is_some_and(Parked::gathers)
    }

    /// Nothing of the request is still to come, or held.
    pub fn is_whole(&self) -> bool {
        self.request.is_done() && self.hold.is_empty() && !self.ends
    }

    /// The last byte of the request is passed on: what follows is the endpoint's time.
    pub fn note_asked(&mut self, now: u64) {
        self.asked_at = now;
        if let Some(until) = self.bound_of_try(now) {
            self.try_until = until;
        }
    }

    /// When a try that begins now is over, if the route bounds it.
    pub fn bound_of_try(&self, now: u64) -> Option<u64> {
        let route = self.route.and_then(|route| self.local.plan.routes.get(route))?;
        (route.retry.per_try != 0).then(|| now.saturating_add(route.retry.per_try))
    }

    /// Whether it is the client that has let the present try wait: he withholds the rest of his request.
    pub fn is_withheld(&self, now: u64) -> bool {
        self.asked_at == 0 && now.saturating_sub(self.attempt_began) >= WITHHOLDING
    }

    /// Whether a failure of the present try is the endpoint's. One that gives up a client who withholds has not failed.
    pub fn blames(&self, failure: Failure, now: u64) -> bool {
        match failure {
            Failure::Closed | Failure::Reset | Failure::Truncated => !self.is_withheld(now),
            Failure::RequestTimeout => self.asked_at != 0,
            failure => failure.is_backends(),
        }
    }

    /// Whether the backend has failed, as far as this exchange can tell. A 503 of our own has a failure, or nobody was asked.
    pub fn is_backends_failure(&self, now: u64) -> bool {
        match self.failure {
            Some(failure) => self.blames(failure, now),
            None => self.tries > 0 && matches!(self.status, 503 | 504) && !self.is_withheld(now),
        }
    }

    /// The present try as it would be if it ended at `at`, with what the exchange knows of its answer.
    pub fn open_attempt(&self, at: u64) -> Option<Attempt> {
        (self.attempt_began != 0).then(|| Attempt {
            endpoint: self.endpoint,
            began: self.attempt_began,
            ended: at,
            status: self.status,
            failure: self.failure,
            reused: self.reused,
            span: self.traced.as_ref().map_or([0; 8], |traced| traced.attempt),
        })
    }

    /// A try has ended and is not the last, or has failed.
    pub fn end_attempt(&mut self, at: u64, status: u16, failure: Option<Failure>) {
        if let Some(attempt) = self.open_attempt(at) {
            self.attempts.push(Attempt { status, failure, ..attempt });
            self.attempt_began = 0;
        }
    }

    fn put(&mut self, part: &[u8]) -> Span {
        let start = self.text.len();
        self.text.extend_from_slice(part);
        Span { start: start as u16, end: self.text.len() as u16 }
    }

    /// Notes what the request was, for the log.
    pub fn describe(&mut self, method: &[u8], host: &[u8], path: &[u8]) {
        (self.method_span, self.host_span, self.path_span) = (self.put(method), self.put(host), self.put(path));
    }

    /// Notes who asks and from where, for the log.
    pub fn describe_client(&mut self, bytes: &[u8], fields: &[Field]) {
        for field in fields.iter().filter(|field| field.name == Name::Other) {
            let name = field.name_span.of(bytes);
            if name.eq_ignore_ascii_case(b"user-agent") {
                self.agent_span = self.put(field.value.of(bytes));
            } else if name.eq_ignore_ascii_case(b"referer") {
                self.referer_span = self.put(field.value.of(bytes));
            }
        }
    }
}
