//! How many requests may come in a time: a token bucket for each key, kept as the generic cell rate algorithm does, which
//! needs one number a bucket: when it would be full again (ITU-T I.371, annex A; as in ATM, so here).
//!
//! All workers share one table of bounded size. When it is full, the bucket that is nearest to being full gives way: a
//! bucket that is full says no more than one that is not there.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use super::{Asked, Flow, Gate, Notes, NotesSlot, Response};
use crate::clock::SECOND;
use crate::count::Tally;
use crate::exchange::Failure;
use crate::forward::decimal;

/// Who shares a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Per {
    /// Everybody.
    Route,
    /// An address of IPv4, a /64 of IPv6: whoever has one IPv6 address has so many (RFC 6177).
    Client,
    /// Who proved to be the same: the first URI of the certificate, or else the certificate. Without one: everybody.
    Identity,
    /// Who sends the same in this field (lower case). Without it: everybody.
    Header(Vec<u8>),
}

impl Per {
    /// Appends the key of a request.
    pub fn key(&self, asked: &Asked<'_>, out: &mut Vec<u8>) {
        match self {
            Per::Route => {}
            Per::Client => match asked.client() {
                Some(IpAddr::V4(address)) => out.extend_from_slice(&address.octets()),
                Some(IpAddr::V6(address)) => out.extend_from_slice(&address.octets()[..8]),
                None => {}
            },
            Per::Identity => {
                let uri = super::identity::names(asked.identity).find(|name| name.starts_with(b"URI="));
                let name = uri.or_else(|| super::identity::names(asked.identity).next());
                out.extend_from_slice(name.unwrap_or_default());
            }
            Per::Header(name) => out.extend_from_slice(asked.values(name).next().unwrap_or_default()),
        }
    }
}

/// How much is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// So many requests…
    pub requests: u64,
    /// …in so many nanoseconds.
    pub period: u64,
    /// So many at once, after a pause.
    pub burst: u64,
}

/// What a bucket has said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub allowed: bool,
    /// Requests that could follow at once.
    pub remaining: u64,
    /// Nanoseconds until the next request is allowed.
    pub retry: u64,
    /// Nanoseconds until the bucket is full.
    pub reset: u64,
}

impl Allowance {
    /// Takes one from a bucket that would have been full at `full`; the second is when it will be.
    pub fn take(&self, full: u64, now: u64) -> (Verdict, u64) {
        let each = (self.period / self.requests.max(1)).max(1);
        let room = each * self.burst.max(1);
        let debt = full.saturating_sub(now);
        if debt + each > room {
            let verdict = Verdict { allowed: false, remaining: 0, retry: debt + each - room, reset: debt };
            return (verdict, full);
        }
        let debt = debt + each;
        let verdict = Verdict { allowed: true, remaining: (room - debt) / each, retry: 0, reset: debt };
        (verdict, now + debt)
    }

    /// The fields that tell a client how it stands, as the IETF's draft "RateLimit header fields for HTTP" has them.
    pub fn lines(&self, verdict: Verdict, out: &mut Vec<u8>) {
        let seconds = |nanos: u64| nanos.div_ceil(SECOND);
        out.extend_from_slice(b"RateLimit-Policy: \"route\";q=");
        decimal(self.requests, out);
        out.extend_from_slice(b";w=");
        decimal(seconds(self.period), out);
        out.extend_from_slice(b"\r\nRateLimit: \"route\";r=");
        decimal(verdict.remaining, out);
        out.extend_from_slice(b";t=");
        decimal(seconds(verdict.reset), out);
        out.extend_from_slice(b"\r\n");
    }

    /// 429 with when to come again (RFC 6585 §4).
    pub fn refusal(&self, verdict: Verdict) -> Response {
        let mut response = Response::refuse(429, Failure::RateLimited, "too many requests");
        response.lines.extend_from_slice(b"Retry-After: ");
        decimal(verdict.retry.div_ceil(SECOND).max(1), &mut response.lines);
        response.lines.extend_from_slice(b"\r\n");
        response
    }
}

/// Entries that a key may be in.
const WAYS: usize = 8;
/// Locks; a key belongs to one.
const SHARDS: usize = 16;

/// Buckets by key.
#[derive(Debug)]
pub struct Table {
    hasher: RandomState,
    /// In each shard groups of [`WAYS`] entries: the key's hash (0: free), and when the bucket is full.
    shards: Box<[Mutex<Vec<[u64; 2]>>]>,
}

impl Table {
    /// For about so many keys; the memory, 16 bytes a key, is taken page by page as keys come.
    pub fn new(keys: usize) -> Table {
        let entries = (keys.div_ceil(SHARDS)).next_multiple_of(WAYS).max(WAYS);
        Table { hasher: RandomState::new(), shards: (0..SHARDS).map(|_| Mutex::new(vec![[0; 2]; entries])).collect() }
    }

    fn take(&self, key: &[u8], allowance: Allowance, now: u64) -> Verdict {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(key);
        let hash = hasher.finish().max(1);
        let shard = &self.shards[(hash >> 60) as usize % SHARDS];
        let mut entries = shard.lock().unwrap_or_else(PoisonError::into_inner);
        let groups = entries.len() / WAYS;
        let start = hash as usize % groups * WAYS;
        let group = &mut entries[start..start + WAYS];
        let own = group.iter().position(|entry| entry[0] == hash);
        let place = own.or_else(|| (0..WAYS).min_by_key(|index| group[*index][1])).unwrap_or(0);
        let full = if own.is_some() { group[place][1] } else { 0 };
        let (verdict, full) = allowance.take(full, now);
        group[place] = [hash, full];
        verdict
    }
}

/// A limit that this proxy keeps by itself.
#[derive(Debug)]
pub struct RateLimit {
    pub per: Per,
    pub allowance: Allowance,
    pub table: Table,
    /// Answers say how the client stands.
    pub tells: bool,
    pub refused: Tally,
}

impl Gate for RateLimit {
    fn ask(&self, asked: &Asked<'_>, notes: &mut NotesSlot) -> Flow {
        let mut key = Vec::new();
        self.per.key(asked, &mut key);
        let verdict = self.table.take(&key, self.allowance, asked.now);
        if self.tells {
            self.allowance.lines(verdict, &mut Notes::of(notes).lines);
        }
        if verdict.allowed {
            return Flow::Continue;
        }
        self.refused.add();
        Flow::Respond(self.allowance.refusal(verdict))
    }

    fn count(&self, tell: &mut dyn FnMut(&str, &str, u64)) {
        tell("rate", "deny", self.refused.value());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::example::Example;

    fn limit(per: Per, requests: u64, burst: u64, keys: usize) -> RateLimit {
        let allowance = Allowance { requests, period: SECOND, burst };
        RateLimit { per, allowance, table: Table::new(keys), tells: true, refused: Tally::default() }
    }

    #[test]
    fn a_bucket_fills_again() {
        let allowance = Allowance { requests: 10, period: SECOND, burst: 3 };
        let mut full = 0;
        let mut at = |now: u64| {
            let (verdict, then) = allowance.take(full, now);
            full = then;
            (verdict.allowed, verdict.remaining, verdict.retry)
        };
        let start = 5 * SECOND;
        assert_eq!(at(start), (true, 2, 0));
        assert_eq!(at(start), (true, 1, 0));
        assert_eq!(at(start), (true, 0, 0));
        assert_eq!(at(start), (false, 0, SECOND / 10));
        assert_eq!(at(start + SECOND / 20), (false, 0, SECOND / 20));
        assert_eq!(at(start + SECOND / 10), (true, 0, 0));
        assert_eq!(at(start + SECOND), (true, 2, 0));
        // One at once is always allowed.
        let single = Allowance { burst: 0, ..allowance };
        assert!(single.take(0, start).0.allowed);
    }

    #[test]
    fn keys_have_buckets_of_their_own() {
        let gate = limit(Per::Client, 1, 1, 1000);
        let status = |peer: &'static str| Example::from(peer, &["GET /"]).status(&gate);
        assert_eq!((status("192.0.2.1"), status("192.0.2.1"), status("192.0.2.2")), (0, 429, 0));
        assert_eq!((status("2001:db8::1"), status("2001:db8::2"), status("2001:db8:0:1::1")), (0, 429, 0));
        let gate = limit(Per::Header(b"x-key".to_vec()), 1, 1, 1000);
        let status = |line: &str| Example::new(&["GET /", line]).status(&gate);
        assert_eq!((status("X-Key: a"), status("x-key: a"), status("X-Key: b")), (0, 429, 0));
        assert_eq!((status("X-Other: a"), status("X-Other: b")), (0, 429));
        let gate = limit(Per::Identity, 1, 1, 1000);
        let status = |identity: &'static str| {
            let mut example = Example::new(&["GET /"]);
            example.identity = identity;
            example.status(&gate)
        };
        let name = "X-Forwarded-Client-Cert: Hash=1;URI=spiffe://a/b;DNS=x\r\n";
        let same = "X-Forwarded-Client-Cert: Hash=2;URI=spiffe://a/b\r\n";
        assert_eq!((status(name), status(same), status("X-Forwarded-Client-Cert: Hash=2\r\n")), (0, 429, 0));
    }

    #[test]
    fn the_client_is_told() {
        let gate = limit(Per::Route, 100, 10, 1);
        let example = Example::new(&["GET /"]);
        let mut notes = None;
        assert!(matches!(gate.ask(&example.asked(), &mut notes), Flow::Continue));
        let lines = String::from_utf8(notes.unwrap().lines).unwrap();
        assert_eq!(lines, "RateLimit-Policy: \"route\";q=100;w=1\r\nRateLimit: \"route\";r=9;t=1\r\n");
        for _ in 0..9 {
            assert_eq!(example.status(&gate), 0);
        }
        let Flow::Respond(response) = gate.ask(&example.asked(), &mut None) else { panic!("allowed") };
        assert_eq!((response.status, &response.lines[..]), (429, &b"Retry-After: 1\r\n"[..]));
        let mut counted = Vec::new();
        gate.count(&mut |rule, decision, count| counted.push((rule.to_owned(), decision.to_owned(), count)));
        assert_eq!(counted, [("rate".to_owned(), "deny".to_owned(), 1)]);
    }

    #[test]
    fn whoever_takes_anothers_place_begins_with_a_full_bucket() {
        let table = Table::new(1);
        let allowance = Allowance { requests: 1, period: SECOND, burst: 1 };
        assert!((0..1000_u32).all(|key| table.take(&key.to_be_bytes(), allowance, SECOND).allowed));
    }

    /// However many keys come, the table does not grow, and whoever asks all the time is still limited.
    #[test]
    fn the_table_is_bounded() {
        let table = Table::new(1000);
        let allowance = Allowance { requests: 10, period: SECOND, burst: 10 };
        let mut allowed = 0;
        let mut now = SECOND;
        for round in 0..20_000_u32 {
            now += SECOND / 10_000;
            table.take(&round.to_be_bytes(), allowance, now);
            if round % 10 == 0 {
                allowed += u32::from(table.take(b"busy", allowance, now).allowed);
            }
        }
        // Two seconds: the burst, and ten a second.
        assert!((29..=31).contains(&allowed), "{allowed}");
        let entries: usize = table.shards.iter().map(|shard| shard.lock().unwrap().len()).sum();
        assert_eq!(entries, 1024);
    }

    #[test]
    fn many_threads_take_no_more_than_there_is() {
        let table = Table::new(100);
        let allowance = Allowance { requests: 1, period: 3600 * SECOND, burst: 500 };
        let allowed: usize = std::thread::scope(|scope| {
            let one = || (0..1000).filter(|_| table.take(b"k", allowance, SECOND).allowed).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(one)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(allowed, 500);
    }
}
