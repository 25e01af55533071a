//! A filter that wants to see the beginning of a body: it is gathered before anybody is asked for an answer, and goes on
//! from here as if it had come with the head. Bytes that a stream's client sends are held there (and its window keeps it
//! from sending more than may be wanted); those of a whole connection are kept behind the head.

use super::filter::{Parked, Target};
use super::{Worker, clock};
use crate::body::Body;
use crate::exchange::Failure;
use crate::filter::Seen;
use crate::head::{Field, Length, Name, Refusal, Request};
use crate::ledger::Phase;

/// A body may take so many times its own length for its framing: chunks of a single byte take six.
const FRAMING: usize = 8;

/// How far the body of a whole connection has come.
#[derive(Debug)]
pub(super) struct Gathered {
    most: usize,
    body: Body,
    /// Of the bytes behind the head.
    used: usize,
    /// The payload, if it does not stand there as it is.
    plain: Vec<u8>,
    chunked: bool,
    payload: u64,
}

impl Gathered {
    fn new(length: Length, most: usize) -> Gathered {
        let chunked = length == Length::Chunked;
        Gathered { most, body: Body::new(length), used: 0, plain: Vec::new(), chunked, payload: 0 }
    }

    /// Looks at what has come since; `bytes` is all behind the head.
    fn take(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let passed = self.body.pass(&bytes[self.used..], false, &mut self.plain)?;
        self.used += passed.used;
        self.payload += passed.payload;
        if self.used > FRAMING * self.most.max(1 << 10) && !self.is_enough() {
            return Err(Refusal::Chunk);
        }
        Ok(())
    }

    fn is_enough(&self) -> bool {
        self.body.is_done() || self.payload >= self.most as u64
    }

    /// Where the body ends behind the head, if it has.
    pub(super) fn end(&self) -> Option<usize> {
        self.body.is_done().then_some(self.used)
    }

    pub(super) fn held(&self) -> usize {
        self.plain.len()
    }

    /// What a filter sees of it; `bytes` is all behind the head.
    pub(super) fn seen<'a>(&'a self, bytes: &'a [u8]) -> Seen<'a> {
        Seen { bytes: if self.chunked { &self.plain } else { &bytes[..self.used] }, whole: self.body.is_done() }
    }
}

impl Worker {
    /// Filter number `at` wants `most` bytes of the body before it decides.
    pub(super) fn gather_body(
        &mut self,
        x: u32,
        bytes: &[u8],
        head: &Request,
        fields: &mut [Field],
        (at, most): (usize, usize),
    ) {
        let Some(exchange) = self.exchange(x) else { return };
        let stream = exchange.stream;
        let mut gathered = Gathered::new(head.length, most);
        let enough = if stream != 0 {
            exchange.ends || exchange.hold.len() >= most
        } else {
            match gathered.take(&bytes[head.size..]) {
                Ok(()) => gathered.is_enough(),
                Err(refusal) => return self.refuse_body(x, &refusal),
            }
        };
        if enough {
            return self.go_on(x, bytes, head, fields, Target::of(head, bytes), at, Some(&gathered));
        }
        let nothing = if stream == 0 { bytes.len() == head.size } else { exchange.hold.is_empty() };
        let expects = fields.iter_mut().find(|field| field.name == Name::Expect);
        if let Some(field) = expects.filter(|_| nothing && exchange.minor > 0) {
            // It would wait for somebody who waits for it (RFC 9110 §10.1.1). Nobody else need say it again.
            field.keep = false;
            if !self.invite(x) {
                return;
            }
        }
        self.park(x, bytes, head, fields, (at, u64::MAX), Some(gathered));
        self.guard(x, false);
        if stream == 0 {
            self.pump_request(x);
        }
    }

    /// Tells the client that its body is wanted.
    fn invite(&mut self, x: u32) -> bool {
        self.output.clear();
        self.output.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        let head = self.output.len();
        let good = self.give(x, head, &[], false);
        if !good {
            self.abandon(x, Failure::ClientGone);
        }
        good
    }

    /// Reads more of the body of a whole connection; whether there may be more still.
    pub(super) fn gather_once(&mut self, x: u32, input: &mut [u8]) -> bool {
        let Some(length) = self.read_body(x, input) else { return false };
        let Some(exchange) = self.exchanges.get_mut(x) else { return false };
        let Some(parked) = exchange.parked.as_deref_mut() else { return false };
        let Some(gathered) = parked.gathered.as_mut() else { return false };
        let now = clock::now();
        self.tick = now;
        parked.bytes.extend_from_slice(&input[..length]);
        let taken = gathered.take(&parked.bytes[parked.head.size..]);
        let (enough, payload) = (gathered.is_enough(), gathered.payload);
        exchange.ledger.note(Phase::Send, now);
        exchange.count();
        let too_large = payload > exchange.body_most;
        match taken {
            Err(refusal) => self.refuse_body(x, &refusal),
            Ok(()) if too_large => self.fail_with(x, Failure::Limit, 413, "the body is too large"),
            Ok(()) if enough => self.have_gathered(x),
            Ok(()) if self.local.purse.is_overdrawn() => {
                self.fail_with(x, Failure::Limit, 503, "there is no room for the body");
            }
            Ok(()) => {
                self.guard(x, false);
                return true;
            }
        }
        false
    }

    /// More of a stream's body is held.
    pub(super) fn gather_stream(&mut self, x: u32) {
        let now = clock::now();
        self.tick = now;
        let Some(exchange) = self.exchange(x) else { return };
        exchange.ledger.note(Phase::Send, now);
        let most = exchange.parked.as_ref().and_then(|parked| parked.gathered.as_ref()).map_or(0, |one| one.most);
        if exchange.ends || exchange.hold.len() >= most {
            self.have_gathered(x);
        } else {
            self.guard(x, false);
        }
    }

    /// The filter is asked again.
    fn have_gathered(&mut self, x: u32) {
        let Some(parked) = self.exchange(x).and_then(|exchange| exchange.parked.take()) else { return };
        let Parked { bytes, head, mut fields, at, gathered, .. } = *parked;
        self.go_on(x, &bytes, &head, &mut fields, Target::of(&head, &bytes), at, gathered.as_ref());
    }

    /// The request has come whole, though nobody will be asked: the next one begins with `rest`.
    pub(super) fn had_whole(&mut self, x: u32, rest: &[u8]) {
        let Some(exchange) = self.exchange(x) else { return };
        exchange.request = Body::Done;
        let d = exchange.down;
        self.keep_rest(d, rest);
    }

    fn refuse_body(&mut self, x: u32, refusal: &Refusal) {
        self.fail_with(x, Failure::Refused, refusal.status(), &refusal.to_string());
    }
}
