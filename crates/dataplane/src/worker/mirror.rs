//! Copies of requests for other backends: gathered while the request goes by, sent when it is whole. A copy is an exchange
//! without a client. It never waits for room, is tried once, and whatever is answered is read and thrown away; so the request
//! it was made of learns nothing of it.

use std::rc::Rc;
use std::sync::Arc;

use super::Worker;
use crate::body::Body;
use crate::exchange::Exchange;
use crate::filter::mirror::Target;
use crate::head::{Length, Method};
use crate::pool::Pool;
use crate::purse::Purse;
use crate::tracing::Traced;

/// The number of a client that nobody has.
const NOBODY: u32 = u32::MAX;
/// What chunks may cost besides their payload.
const FRAMING: usize = 4 << 10;

const CHUNKED: &[u8] = b"\r\nTransfer-Encoding: chunked\r\n";

/// A request as far as it has gone by.
#[derive(Debug)]
pub(crate) struct Copy {
    targets: Vec<(Arc<Target>, Rc<Pool>)>,
    head: Vec<u8>,
    /// As it was written for the request's own backend.
    body: Vec<u8>,
    /// Written as chunks.
    chunked: bool,
    most: usize,
    /// What the head says of the body's length.
    length: Length,
    method: Method,
    traced: Option<Box<Traced>>,
}

impl Copy {
    /// Takes more of the body. False: it has become too long, also for the `room` there is, and the copy is over.
    fn take(&mut self, bytes: &[u8], room: usize) -> bool {
        let room = room.min(if self.chunked { self.most + self.most / 4 + FRAMING } else { self.most });
        let fits = self.body.len() + bytes.len() <= room;
        if fits {
            self.body.extend_from_slice(bytes);
        } else {
            self.targets.iter().for_each(|(target, _)| target.skip());
        }
        fits
    }

    /// Bytes gathered.
    pub(crate) fn held(&self) -> usize {
        self.head.len() + self.body.len()
    }

    /// Head and payload, with the length in the head, unless another was declared: what follows on the connection would be
    /// taken for the rest. The head stays as long as it was: places in it are known.
    fn finish(&mut self) -> Option<()> {
        if self.chunked {
            let mut payload = Vec::new();
            let mut body = Body::new(Length::Chunked);
            body.pass(&self.body, false, &mut payload).ok()?;
            if !body.is_done() {
                return None;
            }
            self.body = payload;
        }
        let declared = match self.length {
            Length::None => Some(0),
            Length::Bytes(bytes) => Some(bytes),
            Length::Chunked | Length::Close => None,
        };
        if declared.is_some_and(|declared| declared != self.body.len() as u64) {
            return None;
        }
        if let Some(at) = memchr::memmem::find(&self.head, CHUNKED) {
            let line = format!("\r\nContent-Length: {:>10}\r\n", self.body.len());
            self.head.get_mut(at..at + CHUNKED.len())?.copy_from_slice(line.as_bytes());
        }
        Some(())
    }
}

impl Worker {
    /// Begins to gather a copy if a filter has asked for one.
    pub(super) fn begin_copy(&mut self, x: u32, length: Length) {
        let Some(exchange) = self.exchange(x) else { return };
        let Some(notes) = exchange.notes.as_deref_mut().filter(|notes| !notes.mirrors.is_empty()) else { return };
        let declared = if let Length::Bytes(length) = length { length } else { 0 };
        let mut targets = Vec::new();
        for target in std::mem::take(&mut notes.mirrors) {
            match exchange.local.pools.get(target.backend) {
                Some(pool) if declared <= target.body_most as u64 && !pool.backend.settings.is_personal() => {
                    targets.push((target, Rc::clone(pool)));
                }
                _ => target.skip(),
            }
        }
        let Some(most) = targets.iter().map(|(target, _)| target.body_most).max() else { return };
        exchange.copy = Some(Box::new(Copy {
            targets,
            head: Vec::new(),
            body: Vec::new(),
            chunked: false,
            most,
            length,
            method: exchange.method,
            traced: exchange.traced.clone(),
        }));
    }

    /// Sends the copy to everybody who is to have one.
    pub(super) fn mirror(&mut self, mut copy: Copy) {
        let good = copy.finish().is_some();
        for (target, pool) in std::mem::take(&mut copy.targets) {
            let fits = good && copy.body.len() <= target.body_most;
            let Some(flight) = fits.then(|| target.take_off()).flatten() else {
                target.skip();
                continue;
            };
            let now = self.tick;
            let y = self.begin_exchange(NOBODY, now);
            let Some(exchange) = self.exchange(y) else { return };
            exchange.shadow = Some(flight);
            exchange.pool = Some(pool);
            exchange.method = copy.method;
            exchange.traced.clone_from(&copy.traced);
            exchange.expires = now.saturating_add(target.timeout);
            exchange.head_size = copy.head.len();
            exchange.replay.extend_from_slice(&copy.head);
            exchange.replay.extend_from_slice(&copy.body);
            exchange.count();
            self.send_out(y);
        }
    }

    /// A copy's life is over.
    pub(super) fn end_shadow(&mut self, x: u32, answered: bool) {
        self.release(x, false);
        let Some(mut exchange) = self.end_exchange(x) else { return };
        if exchange.entered
            && let Some(pool) = &exchange.pool
        {
            pool.backend.leave();
        }
        if let Some(flight) = &mut exchange.shadow {
            flight.answered = answered;
        }
        self.keep_spare(exchange);
    }
}

/// Keeps what goes on to the backend for the copy, if there is to be one.
pub(super) fn gather(copy: &mut Option<Box<Copy>>, bytes: &[u8], purse: &Purse) {
    let Some(whole) = copy.as_deref_mut() else { return };
    let room = if purse.is_empty() { 0 } else { usize::MAX };
    if !whole.take(bytes, room) {
        *copy = None;
    }
}

impl Exchange {
    /// The head as it goes on, and how its body is written.
    pub(super) fn copy_head(&mut self, head: &[u8]) {
        if let Some(copy) = self.copy.as_deref_mut() {
            copy.head.extend_from_slice(head);
            copy.chunked = self.request_chunked;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(head: &[u8], body: &[u8], chunked: bool, length: Length) -> Copy {
        Copy {
            targets: Vec::new(),
            head: head.to_vec(),
            body: body.to_vec(),
            chunked,
            most: 8,
            length,
            method: Method::Post,
            traced: None,
        }
    }

    #[test]
    fn a_copy_says_how_long_it_is() {
        let head = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nX: 1\r\n\r\n";
        for (body, chunked) in [(&b"3\r\nabc\r\n2\r\nde\r\n0\r\nT: 1\r\n\r\n"[..], true), (b"abcde", false)] {
            let mut copy = copy(head, body, chunked, Length::Chunked);
            assert!(copy.finish().is_some());
            let text = String::from_utf8(copy.head).unwrap();
            assert_eq!(text, "POST / HTTP/1.1\r\nContent-Length:          5\r\nX: 1\r\n\r\n");
            assert_eq!((copy.body, text.len()), (b"abcde".to_vec(), head.len()));
        }
        assert!(copy(head, b"3\r\nab", true, Length::Chunked).finish().is_none());
        for (body, good) in [(&b"abcde"[..], true), (b"", false), (b"abcdef", false)] {
            let head = b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n";
            assert_eq!(copy(head, body, false, Length::Bytes(5)).finish().is_some(), good);
        }
        let mut plain = copy(b"GET / HTTP/1.1\r\n\r\n", b"", false, Length::None);
        assert!(plain.finish().is_some());
        assert_eq!(plain.head, b"GET / HTTP/1.1\r\n\r\n");
    }

    #[test]
    fn a_long_body_is_no_more_gathered() {
        let mut copy = copy(b"", b"", false, Length::Chunked);
        assert!(copy.take(b"12345678", 100));
        assert!(!copy.take(b"9", 100));
    }
}
