//! One connection's state: streams, windows, tables (RFC 9113 §5, §6). The owner feeds it what was read, one event at a time,
//! and writes what gathers in `out`.
//!
//! ```text
//! idle ─HEADERS─▶ open ─END_STREAM─▶ half-closed (remote) ─answered─▶ closed
//!                   └──RST_STREAM, by either side──────────────────────▶ closed
//! ```

use std::collections::VecDeque;
use std::ops::Range;

use super::flood::Patience;
use super::frame::{self, Code, Frame};
use super::head::{self, Kind, Reading};
use super::hpack::{self, Decoder};
use crate::purse::Purse;

mod control;
mod place;

/// Streams a client may have open at once.
const STREAMS: usize = 100;
/// Every stream's window for us; what is not passed on yet waits here at most.
const WINDOW: i64 = 65_535;
/// The whole connection's.
const ALL_WINDOW: i64 = 256 << 10;
const GREATEST: i64 = 0x7fff_ffff;
/// Pieces of one head: more are a flood (CVE-2024-27316 and its like).
const CONTINUATIONS: u32 = 16;
/// Bytes that wait to be written before no more are made.
const WAITING: usize = 256 << 10;
/// A client's streams end here; their numbers are used up (§5.1.1).
const LAST: u32 = 0x7fff_0000;
/// Streams we have reset lately: what was on its way to them is no error.
const REMEMBERED: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Server,
    Client,
}

/// What a frame means for the owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A head has come; its text is in [`Session::text`]. With `end` nothing follows.
    Head { stream: u32, end: bool, status: u16 },
    /// A head that is larger than is taken.
    TooLarge { stream: u32 },
    /// This range of the input is payload.
    Data { stream: u32, range: Range<usize>, end: bool },
    /// The last fields have come; they are in [`Session::text`].
    Trailers { stream: u32 },
    /// The stream is over before its time. `ours`: because of what the other side sent.
    Reset { stream: u32, owner: Option<u32>, refused: bool, ours: bool },
    /// More may be sent on this stream; 0: on all.
    Writable { stream: u32 },
    /// The other side takes no new streams; those above `last` were not looked at.
    Leaving { last: u32 },
    /// It is known now whether the other side takes tunnels, which some wait for.
    Settled,
}

#[derive(Debug)]
struct Stream {
    id: u32,
    owner: Option<u32>,
    send: i64,
    receive: i64,
    unreturned: u32,
    /// Of what has come on it, what the owner has not given back.
    owed: usize,
    remote_closed: bool,
    local_closed: bool,
    /// Its owner has all it wants: only the end is waited for, until then; 0: it is not so.
    ends_by: u64,
    headed: bool,
    /// What we have asked for is a head alone.
    asks_for_head: bool,
    /// What we have asked for is a tunnel.
    asks_for_tunnel: bool,
    /// Declared, and what has come of it.
    length: Option<u64>,
    received: u64,
    /// Waits for the window.
    pending: Vec<u8>,
    pending_at: usize,
    pending_end: bool,
    pending_trailers: Vec<u8>,
    /// Payload has gone out since the owner asked for it.
    moved: bool,
}

#[derive(Debug)]
struct Block {
    stream: u32,
    end: bool,
    bytes: Vec<u8>,
    pieces: u32,
    /// The stream had never been.
    fresh: bool,
}

#[derive(Debug)]
pub struct Session {
    role: Role,
    decoder: Decoder,
    streams: Vec<Stream>,
    /// The highest stream the client has begun; for a client its next.
    last: u32,
    next: u32,
    preface: usize,
    settled: bool,
    send: i64,
    receive: i64,
    unreturned: u32,
    initial: i64,
    /// The other side takes a smaller table than it did: the next block begins with saying that none is used.
    shrinks: bool,
    largest: usize,
    most_streams: usize,
    /// The other side takes streams that become WebSocket connections.
    tunnels: bool,
    /// Places that have been kept.
    places: u32,
    block: Option<Block>,
    reset: VecDeque<u32>,
    /// The highest of those that had to be forgotten: up to here it is not known which were reset.
    forgotten: u32,
    patience: Patience,
    most_head: usize,
    leaving: bool,
    /// It has been said that the connection will end.
    warned: bool,
    gone: bool,
    /// Bytes of all streams that wait for windows.
    pending: usize,
    /// Bytes that wait to be written before no more are made.
    most: usize,
    /// Bytes to be written.
    pub out: Vec<u8>,
    /// The last head or trailers read.
    pub text: Vec<u8>,
}

/// A PING that no other can be taken for.
const FAREWELL: &[u8; 8] = b"farewell";

impl Session {
    /// `tunnels`: a server takes streams that become WebSocket connections.
    pub fn new(role: Role, most_head: usize, tunnels: bool) -> Session {
        let mut out = Vec::new();
        if role == Role::Client {
            out.extend_from_slice(frame::PREFACE);
        }
        // MAX_CONCURRENT_STREAMS, MAX_HEADER_LIST_SIZE, ENABLE_CONNECT_PROTOCOL (RFC 8441 §3); ENABLE_PUSH for the client.
        let own: &[(u16, u32)] = match role {
            Role::Server if tunnels => &[(3, STREAMS as u32), (6, most_head as u32), (8, 1)],
            Role::Server => &[(3, STREAMS as u32), (6, most_head as u32)],
            Role::Client => &[(2, 0), (6, most_head as u32)],
        };
        frame::begin(own.len() * 6, frame::SETTINGS, 0, 0, &mut out);
        for (name, value) in own {
            out.extend_from_slice(&name.to_be_bytes());
            out.extend_from_slice(&value.to_be_bytes());
        }
        frame::put_window(0, (ALL_WINDOW - WINDOW) as u32, &mut out);
        Session {
            role,
            decoder: Decoder::default(),
            streams: Vec::new(),
            last: 0,
            next: 1,
            preface: if role == Role::Server { frame::PREFACE.len() } else { 0 },
            settled: false,
            send: WINDOW,
            receive: ALL_WINDOW,
            unreturned: 0,
            initial: WINDOW,
            shrinks: false,
            largest: frame::PAYLOAD,
            most_streams: if role == Role::Client { 100 } else { STREAMS },
            tunnels: false,
            places: 0,
            block: None,
            reset: VecDeque::new(),
            forgotten: 0,
            patience: Patience::default(),
            most_head,
            leaving: false,
            warned: false,
            gone: false,
            pending: 0,
            most: WAITING,
            out,
            text: Vec::new(),
        }
    }

    // === reading ===

    /// Reads one frame. `Ok(None)`: it is not whole yet. Else how many bytes it was, and what it means. On an error the
    /// connection is over; what says so is in `out`.
    pub fn feed(&mut self, input: &[u8]) -> Result<Option<(usize, Option<Event>)>, Code> {
        if self.gone {
            return Ok(Some((input.len(), None)));
        }
        let outcome = self.feed_frame(input);
        if let Err(code) = outcome {
            frame::put_goaway(self.last, code, &mut self.out);
            self.gone = true;
        }
        outcome
    }

    fn feed_frame(&mut self, input: &[u8]) -> Result<Option<(usize, Option<Event>)>, Code> {
        if self.preface > 0 {
            let done = frame::PREFACE.len() - self.preface;
            let length = self.preface.min(input.len());
            if input[..length] != frame::PREFACE[done..done + length] {
                return Err(Code::Protocol);
            }
            if length == 0 {
                return Ok(None);
            }
            self.preface -= length;
            return Ok(Some((length, None)));
        }
        let Some(frame) = Frame::read(input) else { return Ok(None) };
        if frame.length > frame::PAYLOAD {
            return Err(Code::FrameSize);
        }
        // The first frame must be SETTINGS, no answer to any (§3.4).
        if !self.settled && (frame.kind != frame::SETTINGS || frame.has(frame::ACK)) {
            return Err(Code::Protocol);
        }
        let whole = frame::HEADER + frame.length;
        let Some(payload) = input.get(frame::HEADER..whole) else { return Ok(None) };
        if self.patience.is_over() {
            return Err(Code::Calm);
        }
        if !matches!(frame.kind, frame::DATA | frame::HEADERS | frame::CONTINUATION | frame::RST_STREAM) {
            self.patience.useless(whole);
        }
        if let Some(block) = &self.block {
            // Nothing may stand between the pieces of a head (§6.10).
            if frame.kind != frame::CONTINUATION || frame.stream != block.stream {
                return Err(Code::Protocol);
            }
        }
        let event = match frame.kind {
            frame::DATA => self.data(frame, payload)?,
            frame::HEADERS => self.headers(frame, payload)?,
            frame::CONTINUATION => self.continuation(frame, payload)?,
            frame::PRIORITY => self.priority(frame, payload)?,
            frame::RST_STREAM => self.reset(frame, payload)?,
            frame::SETTINGS => self.settings(frame, payload)?,
            frame::PING => self.ping(frame, payload)?,
            frame::GOAWAY => {
                if frame.stream != 0 {
                    return Err(Code::Protocol);
                }
                if payload.len() < 8 {
                    return Err(Code::FrameSize);
                }
                self.leaving = true;
                Some(Event::Leaving { last: frame::number(payload) & 0x7fff_ffff })
            }
            frame::WINDOW_UPDATE => self.window(frame, payload)?,
            frame::PUSH_PROMISE => return Err(Code::Protocol),
            // What is not known is let pass (§5.5).
            _ => None,
        };
        Ok(Some((whole, event)))
    }

    fn find(&mut self, id: u32) -> Option<&mut Stream> {
        self.streams.iter_mut().find(|stream| stream.id == id)
    }

    /// A frame for a stream that is closed: it was on its way when we reset it, or is an error (RFC 9113 §5.1).
    fn late(&mut self, id: u32) -> Result<(), Code> {
        self.patience.useless(frame::HEADER);
        let known = id <= self.forgotten || self.reset.contains(&id);
        known.then_some(()).ok_or(Code::StreamClosed)
    }

    /// Whether a stream has never been.
    fn is_idle(&self, id: u32) -> bool {
        match self.role {
            Role::Server => id.is_multiple_of(2) || id > self.last,
            Role::Client => id.is_multiple_of(2) || id >= self.next,
        }
    }

    fn data(&mut self, frame: Frame, payload: &[u8]) -> Result<Option<Event>, Code> {
        let (id, length) = (frame.stream, frame.length as i64);
        if id == 0 || self.is_idle(id) {
            return Err(Code::Protocol);
        }
        let padding =
            if frame.has(frame::PADDED) { 1 + usize::from(*payload.first().ok_or(Code::FrameSize)?) } else { 0 };
        if padding > payload.len() {
            return Err(Code::Protocol);
        }
        self.receive -= length;
        if self.receive < 0 {
            return Err(Code::FlowControl);
        }
        let Some(stream) = self.streams.iter_mut().find(|stream| stream.id == id) else {
            self.credit(frame.length);
            return self.late(id).map(|()| None);
        };
        if stream.remote_closed {
            self.credit(frame.length);
            return Ok(self.break_off(id, Code::StreamClosed));
        }
        stream.receive -= length;
        if stream.receive < 0 {
            return Err(Code::FlowControl);
        }
        stream.owed += frame.length;
        if !stream.headed {
            return Ok(self.break_off(id, Code::Protocol));
        }
        let end = frame.has(frame::END_STREAM);
        let start = if padding == 0 { 0 } else { 1 };
        let size = payload.len() - padding;
        if stream.ends_by != 0 {
            stream.remote_closed = end;
            if end || size > 0 {
                self.close(id, Code::Cancel);
            }
            return Ok(None);
        }
        self.patience.useless(padding);
        if size > 0 {
            self.patience.data();
        } else if !end {
            self.patience.useless(frame::HEADER);
        }
        stream.received += size as u64;
        stream.remote_closed = end;
        // As much as was declared, no more and no less (§8.1.1).
        if stream.length.is_some_and(|length| stream.received > length || end && stream.received != length) {
            return Ok(self.break_off(id, Code::Protocol));
        }
        if padding > 0 {
            self.give_back_some(id, padding);
        }
        let start = frame::HEADER + start;
        Ok(Some(Event::Data { stream: id, range: start..start + size, end }))
    }

    fn headers(&mut self, frame: Frame, payload: &[u8]) -> Result<Option<Event>, Code> {
        let id = frame.stream;
        if id == 0 || id.is_multiple_of(2) || self.role == Role::Client && self.is_idle(id) {
            return Err(Code::Protocol);
        }
        let mut rest = payload;
        let mut padding = 0;
        if frame.has(frame::PADDED) {
            let (first, after) = rest.split_first().ok_or(Code::FrameSize)?;
            (padding, rest) = (usize::from(*first), after);
        }
        let mut depends_on_itself = false;
        if frame.has(frame::PRIORITISED) {
            let (priority, after) = rest.split_at_checked(5).ok_or(Code::FrameSize)?;
            depends_on_itself = frame::number(priority) & 0x7fff_ffff == id;
            rest = after;
        }
        let length = rest.len().checked_sub(padding).ok_or(Code::Protocol)?;
        let fresh = self.is_idle(id);
        if fresh {
            self.last = id;
        } else if self.find(id).is_none() {
            self.late(id)?;
        }
        let end = frame.has(frame::END_STREAM);
        if depends_on_itself {
            return Err(Code::Protocol);
        }
        if frame.has(frame::END_HEADERS) {
            return self.whole_head(id, end, &rest[..length], fresh);
        }
        self.block = Some(Block { stream: id, end, bytes: rest[..length].to_vec(), pieces: 0, fresh });
        Ok(None)
    }

    fn continuation(&mut self, frame: Frame, payload: &[u8]) -> Result<Option<Event>, Code> {
        let Some(mut block) = self.block.take() else { return Err(Code::Protocol) };
        block.bytes.extend_from_slice(payload);
        block.pieces += 1;
        if block.pieces > CONTINUATIONS || block.bytes.len() > 2 * self.most_head + frame::PAYLOAD {
            return Err(Code::Calm);
        }
        if frame.has(frame::END_HEADERS) {
            return self.whole_head(block.stream, block.end, &block.bytes, block.fresh);
        }
        self.block = Some(block);
        Ok(None)
    }

    fn whole_head(&mut self, id: u32, end: bool, block: &[u8], fresh: bool) -> Result<Option<Event>, Code> {
        let known = self.find(id).map(|stream| (stream.remote_closed, stream.headed));
        let kind = match (self.role, known) {
            (_, Some((_, true))) => Kind::Trailers,
            (Role::Server, _) => Kind::Request,
            (Role::Client, _) => Kind::Response,
        };
        let mut text = std::mem::take(&mut self.text);
        let reading = head::read(&mut self.decoder, block, kind, !end, self.most_head, &mut text);
        self.text = text;
        let reading = reading.map_err(|_| Code::Compression)?;
        if fresh || known.is_some() {
            self.patience.head();
        }
        match known {
            None if !fresh => return Ok(None),
            Some((true, _)) => return Ok(self.break_off(id, Code::StreamClosed)),
            None if self.leaving || self.streams.len() >= STREAMS => {
                self.put_reset(id, Code::Refused);
                return Ok(None);
            }
            None => self.streams.push(Stream::new(id, self.initial)),
            Some(_) => {}
        }
        let Some(stream) = self.streams.iter_mut().find(|stream| stream.id == id) else { return Ok(None) };
        let (length, status) = match reading {
            Reading::Good { length, status } => (length, status),
            Reading::Malformed => return Ok(self.break_off(id, Code::Protocol)),
            // There is no answering trailers.
            Reading::TooLarge if kind == Kind::Trailers => return Ok(self.break_off(id, Code::Calm)),
            Reading::TooLarge => {
                // Another head would be trailers: it is answered already.
                (stream.remote_closed, stream.headed) = (end, true);
                return Ok(Some(Event::TooLarge { stream: id }));
            }
        };
        stream.remote_closed = end;
        if kind == Kind::Trailers {
            let short = stream.length.is_some_and(|length| stream.received != length);
            if !end || short {
                return Ok(self.break_off(id, Code::Protocol));
            }
            if stream.ends_by != 0 {
                self.close(id, Code::Cancel);
                return Ok(None);
            }
            return Ok(Some(Event::Trailers { stream: id }));
        }
        // Interim answers are followed by another head (§8.1).
        let interim = kind == Kind::Response && status < 200;
        stream.headed = !interim;
        if interim && end {
            return Ok(self.break_off(id, Code::Protocol));
        }
        // An answer without a body may say how long it would have been (§8.1.1); what a tunnel's says is not heeded (RFC 9110 §9.3.6).
        let tunnel = stream.asks_for_tunnel && (200..300).contains(&status);
        let bodiless = tunnel || stream.asks_for_head || matches!(status, 204 | 304);
        let bodiless = interim || kind == Kind::Response && bodiless;
        if !bodiless {
            stream.length = length;
            if end && length.is_some_and(|length| length != 0) {
                return Ok(self.break_off(id, Code::Protocol));
            }
        }
        Ok(Some(Event::Head { stream: id, end, status }))
    }

    // === streams ===

    /// Ends a stream because of what the other side did.
    fn break_off(&mut self, id: u32, code: Code) -> Option<Event> {
        self.put_reset(id, code);
        if self.role == Role::Server {
            self.patience.reset();
        }
        let stream = self.forget(id)?;
        Some(Event::Reset { stream: id, owner: stream.owner, refused: false, ours: true })
    }

    /// Every stream leaves here. What has come on it keeps nothing of the connection's window any more, whoever holds it.
    fn forget(&mut self, id: u32) -> Option<Stream> {
        let position = self.streams.iter().position(|stream| stream.id == id)?;
        let stream = self.streams.swap_remove(position);
        self.credit(stream.owed);
        self.pending -= stream.pending.len();
        Some(stream)
    }

    fn put_reset(&mut self, id: u32, code: Code) {
        frame::put_reset(id, code, &mut self.out);
        self.patience.answered(frame::HEADER + 4);
        if self.reset.len() == REMEMBERED {
            self.forgotten = self.forgotten.max(self.reset.pop_front().unwrap_or(0));
        }
        self.reset.push_back(id);
    }

    /// The owner has read from the connection once.
    pub fn note_read(&mut self) {
        self.patience.read();
    }

    /// The kernel has taken all that was to be written.
    pub fn note_drained(&mut self) {
        self.patience.drained();
    }

    /// The exchange a stream belongs to.
    pub fn owner(&self, id: u32) -> Option<u32> {
        self.streams.iter().find(|stream| stream.id == id)?.owner
    }

    pub fn set_owner(&mut self, id: u32, owner: u32) {
        if let Some(stream) = self.find(id) {
            stream.owner = Some(owner);
        }
    }

    /// All exchanges with open streams.
    pub fn owners(&self) -> Vec<u32> {
        self.streams.iter().filter_map(|stream| stream.owner).collect()
    }

    /// All open streams that belong to exchanges.
    pub fn owned(&self) -> Vec<u32> {
        self.streams.iter().filter(|stream| stream.owner.is_some()).map(|stream| stream.id).collect()
    }

    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// Open streams.
    pub fn len(&self) -> usize {
        self.streams.len()
    }

    /// Bytes of payload that may be sent on a stream now.
    pub fn room(&self, id: u32) -> usize {
        let own = self.streams.iter().find(|stream| stream.id == id).map_or(0, |stream| stream.send);
        usize::try_from(own.min(self.send)).unwrap_or(0)
    }

    /// Whether another stream may be begun; for a client.
    pub fn has_room(&self) -> bool {
        !self.is_leaving() && self.streams.len() < self.most_streams && !self.is_full()
    }

    /// Most of the connection's window is held by what nobody takes: another stream would wait for it.
    pub fn is_clogged(&self) -> bool {
        ALL_WINDOW - self.receive - i64::from(self.unreturned) >= ALL_WINDOW / 2
    }

    /// The other side takes no streams at all for now.
    pub fn takes_none(&self) -> bool {
        self.most_streams == 0 && !self.is_leaving()
    }

    /// There will be no new streams.
    pub fn is_leaving(&self) -> bool {
        self.leaving || self.gone || self.next >= LAST
    }

    /// The stream is over for its owner. One that is not is reset.
    pub fn close(&mut self, id: u32, code: Code) {
        let Some(stream) = self.forget(id) else { return };
        if Session::is_place(id) {
            return;
        }
        if !stream.remote_closed || !stream.local_closed {
            self.put_reset(id, code);
        }
        if stream.local_closed {
            self.patience.completed();
        }
    }

    /// The owner has all it wants of the stream, which is about to end: it need not be reset if that happens until `by`.
    /// Whether it is waited for.
    pub fn see_out(&mut self, id: u32, by: u64) -> bool {
        self.give_back(id);
        match self.find(id) {
            Some(stream) if stream.local_closed && !stream.remote_closed => {
                (stream.owner, stream.ends_by) = (None, by);
                true
            }
            _ => {
                self.close(id, Code::Cancel);
                false
            }
        }
    }

    /// Resets those that have not ended in time. When the next must have; `u64::MAX`: there is none.
    pub fn end_late(&mut self, now: u64) -> u64 {
        let waits = |stream: &&Stream| stream.ends_by != 0;
        while let Some(id) = self.streams.iter().filter(waits).find(|stream| stream.ends_by <= now).map(|one| one.id) {
            self.close(id, Code::Cancel);
        }
        self.streams.iter().filter(waits).map(|stream| stream.ends_by).min().unwrap_or(u64::MAX)
    }

    /// Whether the other side has not said yet that a stream ends.
    pub fn goes_on(&self, id: u32) -> bool {
        self.streams.iter().any(|stream| stream.id == id && !stream.remote_closed)
    }

    /// Says that the connection will end, and asks for a sign that this has been read: until then streams may still come
    /// that were begun before (RFC 9113 §6.8).
    pub fn leave_soon(&mut self) {
        if !self.leaving && !std::mem::replace(&mut self.warned, true) {
            frame::put_goaway(0x7fff_ffff, Code::None, &mut self.out);
            frame::begin(8, frame::PING, 0, 0, &mut self.out);
            self.out.extend_from_slice(FAREWELL);
        }
    }

    /// No new streams; once.
    pub fn leave(&mut self) {
        if !self.leaving {
            self.leaving = true;
            frame::put_goaway(self.last, Code::None, &mut self.out);
        }
    }

    // === writing ===

    /// Begins a stream with a request's head; for a client.
    pub fn request(&mut self, owner: u32, text: &[u8], https: bool, end: bool) -> u32 {
        self.begin(owner, text, https, false, end)
    }

    /// As [`Session::request`], for a tunnel: `text` asks for an upgrade to WebSocket.
    pub fn request_tunnel(&mut self, owner: u32, text: &[u8], https: bool) -> u32 {
        self.begin(owner, text, https, true, false)
    }

    fn begin(&mut self, owner: u32, text: &[u8], https: bool, upgrade: bool, end: bool) -> u32 {
        let id = self.next;
        self.next += 2;
        let mut stream = Stream::new(id, self.initial);
        stream.owner = Some(owner);
        stream.asks_for_head = text.starts_with(b"HEAD ");
        stream.asks_for_tunnel = upgrade;
        stream.local_closed = end;
        self.streams.push(stream);
        let mut block = Vec::with_capacity(text.len());
        head::write_request(text, https, upgrade, &mut block);
        self.put_block(id, &block, end);
        id
    }

    /// An answer's head; `end`: nothing follows.
    pub fn respond(&mut self, id: u32, text: &[u8], end: bool) {
        let at = self.out.len();
        // The block is written in place; its length is known afterwards.
        frame::begin(0, frame::HEADERS, frame::END_HEADERS | u8::from(end), id, &mut self.out);
        if std::mem::take(&mut self.shrinks) {
            self.out.push(hpack::NO_TABLE);
        }
        head::write_response(text, &mut self.out);
        let length = self.out.len() - at - frame::HEADER;
        if length > frame::PAYLOAD {
            let block = self.out.split_off(at + frame::HEADER);
            self.out.truncate(at);
            self.put_block(id, &block, end);
        } else {
            self.out[at..at + 3].copy_from_slice(&(length as u32).to_be_bytes()[1..]);
        }
        if end {
            self.close_local(id);
        }
    }

    fn close_local(&mut self, id: u32) {
        if let Some(stream) = self.find(id) {
            stream.local_closed = true;
        }
    }

    fn put_block(&mut self, id: u32, block: &[u8], end: bool) {
        if std::mem::take(&mut self.shrinks) {
            return self.put_block(id, &[&[hpack::NO_TABLE], block].concat(), end);
        }
        let mut pieces = block.chunks(frame::PAYLOAD).peekable();
        let mut kind = frame::HEADERS;
        let mut flags = u8::from(end) * frame::END_STREAM;
        if block.is_empty() {
            return frame::begin(0, kind, flags | frame::END_HEADERS, id, &mut self.out);
        }
        while let Some(piece) = pieces.next() {
            let last = if pieces.peek().is_none() { frame::END_HEADERS } else { 0 };
            frame::begin(piece.len(), kind, flags | last, id, &mut self.out);
            self.out.extend_from_slice(piece);
            (kind, flags) = (frame::CONTINUATION, 0);
        }
    }

    /// Payload; what the windows do not let through waits. `end`: nothing follows.
    pub fn send(&mut self, id: u32, parts: [&[u8]; 2], end: bool) {
        let Some(position) = self.streams.iter().position(|stream| stream.id == id) else { return };
        let stream = &mut self.streams[position];
        if stream.local_closed || stream.pending_end {
            return;
        }
        stream.pending_end = end;
        if !stream.pending.is_empty() {
            for part in parts {
                stream.pending.extend_from_slice(part);
                self.pending += part.len();
            }
            return;
        }
        let mut left: usize = parts.iter().map(|part| part.len()).sum();
        if left == 0 && !end {
            return;
        }
        let end_is_here = end && stream.pending_trailers.is_empty();
        for part in parts {
            left -= part.len();
            let mut rest = part;
            while !rest.is_empty() {
                let length = self.put_data(position, rest, end_is_here && left == 0);
                if length == 0 {
                    self.streams[position].pending.extend_from_slice(rest);
                    self.pending += rest.len();
                    break;
                }
                rest = &rest[length..];
            }
        }
        let stream = &mut self.streams[position];
        if end && !stream.local_closed && stream.pending.is_empty() {
            stream.local_closed = true;
            frame::begin(0, frame::DATA, frame::END_STREAM, id, &mut self.out);
        }
    }

    /// Writes one frame of payload, as long as the windows let it be; how much of `rest` it has. If that is all and nothing
    /// follows (`end`), it says so.
    fn put_data(&mut self, position: usize, rest: &[u8], end: bool) -> usize {
        let stream = &mut self.streams[position];
        let room = stream.send.min(self.send).max(0) as usize;
        let length = rest.len().min(room).min(self.largest);
        if length > 0 {
            let last = end && length == rest.len();
            frame::begin(length, frame::DATA, u8::from(last), stream.id, &mut self.out);
            self.out.extend_from_slice(&rest[..length]);
            self.patience.data();
            stream.send -= length as i64;
            self.send -= length as i64;
            stream.local_closed |= last;
            stream.moved = true;
        }
        length
    }

    /// The last fields, after all payload.
    pub fn send_trailers(&mut self, id: u32, lines: &[u8]) {
        let Some(stream) = self.streams.iter_mut().find(|stream| stream.id == id) else { return };
        if stream.local_closed {
            return;
        }
        let mut block = Vec::new();
        head::write_fields(lines, &mut block);
        if stream.pending.is_empty() {
            stream.local_closed = true;
            self.put_block(id, &block, true);
        } else {
            stream.pending_trailers = block;
        }
    }

    /// Sends what has waited, of one stream or (0) of all. What still does not fit is not moved: an update of a window by
    /// one byte must not cost a copy of everything.
    fn push_pending(&mut self, id: u32) {
        for position in 0..self.streams.len() {
            let stream = &mut self.streams[position];
            if id != 0 && stream.id != id || stream.pending.is_empty() {
                continue;
            }
            let (pending, mut at) = (std::mem::take(&mut stream.pending), stream.pending_at);
            let end = stream.pending_end && stream.pending_trailers.is_empty();
            while at < pending.len() {
                match self.put_data(position, &pending[at..], end) {
                    0 => break,
                    length => at += length,
                }
            }
            let stream = &mut self.streams[position];
            if at < pending.len() {
                (stream.pending, stream.pending_at) = (pending, at);
            } else {
                stream.pending_at = 0;
                self.pending -= pending.len();
            }
            if stream.pending.is_empty() && !stream.pending_trailers.is_empty() {
                stream.local_closed = true;
                let (id, trailers) = (stream.id, std::mem::take(&mut stream.pending_trailers));
                self.put_block(id, &trailers, true);
            }
        }
    }

    /// Whether payload waits for a window, or too much for the socket.
    pub fn is_blocked(&self, id: u32) -> bool {
        let pending = |stream: &Stream| stream.id == id && !stream.pending.is_empty();
        self.is_full() || Session::is_place(id) || self.streams.iter().any(pending)
    }

    /// Whether payload of the stream has gone out since this was asked last.
    pub fn has_moved(&mut self, id: u32) -> bool {
        self.find(id).is_some_and(|stream| std::mem::take(&mut stream.moved))
    }

    /// Too much waits to be written.
    pub fn is_full(&self) -> bool {
        self.out.len() > self.most
    }

    /// Bytes that wait here.
    pub fn held(&self) -> usize {
        self.out.len() + self.pending + self.block.as_ref().map_or(0, |block| block.bytes.len())
    }

    /// No more waits to be written than there is room for.
    pub fn set_most(&mut self, purse: &Purse) {
        self.most = purse.piece(WAITING);
    }

    /// All payload that has come on a stream has been passed on: the other side may send as much again.
    pub fn give_back(&mut self, id: u32) {
        if let Some(owed) = self.find(id).map(|stream| stream.owed) {
            self.give_back_some(id, owed);
        }
    }

    fn give_back_some(&mut self, id: u32, length: usize) {
        let Some(stream) = self.streams.iter_mut().find(|stream| stream.id == id) else { return };
        stream.owed -= length;
        stream.unreturned += length as u32;
        if i64::from(stream.unreturned) >= WINDOW / 2 && !stream.remote_closed {
            frame::put_window(id, stream.unreturned, &mut self.out);
            stream.receive += i64::from(std::mem::take(&mut stream.unreturned));
        }
        self.credit(length);
    }

    /// Gives so much of the connection's own window back.
    fn credit(&mut self, length: usize) {
        self.unreturned += length as u32;
        if i64::from(self.unreturned) >= ALL_WINDOW / 2 {
            frame::put_window(0, self.unreturned, &mut self.out);
            self.receive += i64::from(std::mem::take(&mut self.unreturned));
        }
    }
}

impl Stream {
    fn new(id: u32, send: i64) -> Stream {
        Stream {
            id,
            owner: None,
            send,
            receive: WINDOW,
            unreturned: 0,
            owed: 0,
            remote_closed: false,
            local_closed: false,
            ends_by: 0,
            headed: false,
            asks_for_head: false,
            asks_for_tunnel: false,
            length: None,
            received: 0,
            pending: Vec::new(),
            pending_at: 0,
            pending_end: false,
            pending_trailers: Vec::new(),
            moved: false,
        }
    }
}

#[cfg(test)]
mod tests;
