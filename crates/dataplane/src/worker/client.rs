//! Clients' connections: accepting, reading heads, closing.

use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::event::epoll::EventFlags;

use super::upstream::SHORTAGE_QUIET;
use super::{Door, TURNS, Worker, multiplex, set_deadline, watch};
use crate::clock::SECOND;
use crate::crowd::{Crowd, Seat};
use crate::exchange::{Answer, Failure};
use crate::h2::Session;
use crate::head::{self, Refusal};
use crate::identity;
use crate::ledger::Phase;
use crate::original;
use crate::plan::Serves;
use crate::purse::{LEAST, Share};
use crate::slab::Token;
use crate::sock::{self, Got, Sock};
use crate::timer::Deadline;

/// Connections taken at one knock.
const KNOCKS: usize = 64;
/// How long a client may take to read the last answer before its connection is cut (RFC 9112 §9.6).
pub(super) const LINGER: u64 = 2 * SECOND;
/// Bytes of such a client that are thrown away.
const LINGER_BYTES: usize = 1 << 20;
/// Empty lines let pass before a request: the one that some clients put behind a body, and few more.
const EMPTY_LINES: u8 = 4;
/// For the TLS handshake.
const HANDSHAKE: u64 = 10 * SECOND;
/// Read of a head at once when there is little room: most are shorter.
const HEAD_PIECE: usize = 8 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Where it comes from has not been said yet.
    Announcing,
    /// Which server its TLS is for has not been said yet.
    Greeting,
    Open,
    /// Everything is said; what still comes is thrown away.
    Lingering,
}

#[derive(Debug)]
pub(super) struct Down {
    pub(super) sock: Sock,
    pub(super) door: Rc<Door>,
    pub(super) exchange: Option<u32>,
    pub(super) h2: Option<Box<Session>>,
    /// Among those whose session has something to write.
    pub(super) dirty: bool,
    pub(super) stage: Stage,
    pub(super) deadline: Deadline,
    /// `sock.left` has not been looked at yet.
    pub(super) unread: bool,
    pub(super) accepted: u64,
    pub(super) requests: u32,
    /// When the first byte of the present head came; 0: none has.
    pub(super) head_began: u64,
    /// Let pass since the last request.
    empty_lines: u8,
    /// When the TLS handshake was over.
    pub(super) secured: u64,
    /// Who the client is, as it is passed on: a whole line.
    pub(super) identity: Box<[u8]>,
    /// Where it comes from and went to, if somebody in front has said so.
    pub(super) from: Option<SocketAddr>,
    pub(super) to: Option<SocketAddr>,
    /// Where it wanted to go before it was redirected here.
    pub(super) original: Option<SocketAddr>,
    /// When its last answer was given.
    pub(super) idle_since: u64,
    /// Of an announcement, bytes that are still to be skipped.
    pub(super) skip: usize,
    lingered: usize,
    _seat: Option<Seat>,
    /// What the client is counted as.
    _counted: Share,
    /// What waits in its session.
    pub(super) share: Share,
    peer: [u8; 46],
    peer_length: u8,
}

impl Down {
    /// Counts what waits in its session, and bounds what may.
    pub(super) fn count(&mut self) {
        let Some(session) = self.h2.as_deref_mut() else { return };
        self.share.set(session.held());
        session.set_most(self.share.purse());
    }

    pub(super) fn set_from(&mut self, from: Option<SocketAddr>) {
        self.from = from;
        (self.peer, self.peer_length) = text_of(from.map(|from| from.ip()));
    }

    /// As [`Sock::read_on`], unless what was left has not been looked at: then that alone.
    pub(super) fn read_on(&mut self, buffer: &mut [u8], cipher: &mut [u8]) -> io::Result<Got> {
        if !std::mem::take(&mut self.unread) {
            return self.sock.read_on(buffer, cipher);
        }
        let length = self.sock.left.len();
        buffer[..length].copy_from_slice(&self.sock.left);
        self.sock.left.clear();
        Ok(Got::Bytes(length))
    }

    pub(super) fn peer(&self) -> &[u8] {
        &self.peer[..usize::from(self.peer_length)]
    }

    /// The client of an exchange, which may stand behind trusted proxies.
    pub(super) fn client(&self, behind: Option<IpAddr>) -> Client {
        let (text, length) = behind.map_or((self.peer, self.peer_length), |client| text_of(Some(client)));
        Client { text, length }
    }
}

/// An address as text.
pub(super) struct Client {
    text: [u8; 46],
    length: u8,
}

impl Client {
    pub(super) fn text(&self) -> &[u8] {
        &self.text[..usize::from(self.length)]
    }
}

fn text_of(address: Option<IpAddr>) -> ([u8; 46], u8) {
    let mut text = [0; 46];
    let room = text.len();
    let mut rest = &mut text[..];
    // The longest address has 45 characters.
    let _ = match address {
        Some(address) => write!(rest, "{}", address.to_canonical()),
        None => write!(rest, "unix:"),
    };
    let length = room - rest.len();
    (text, length as u8)
}

impl Worker {
    /// Somebody waits at a listener.
    pub(super) fn knock(&mut self, token: Token) {
        let Some(index) = self.doors.find(token) else { return };
        for _ in 0..KNOCKS {
            let Some(entrance) = self.doors.get(index) else { return };
            let (accepted, door) = (sock::accept(&entrance.socket), Rc::clone(&entrance.door));
            match accepted {
                Ok(Some((fd, address))) => self.admit(fd, address, door),
                Ok(None) => return,
                Err(error) => {
                    // Out of descriptors, most likely: those waiting go on waiting.
                    if self.shared.shortage_told.allows(1, SHORTAGE_QUIET, self.tick) {
                        daemon::warn!("failed to accept", listener = door.listener.name, reason = error);
                    }
                    std::thread::sleep(std::time::Duration::from_millis(10));
                    return;
                }
            }
        }
    }

    fn admit(&mut self, fd: OwnedFd, address: Option<SocketAddr>, door: Rc<Door>) {
        let most = self.local.plan.settings.connections_most;
        if most != 0 && self.downs.len() >= most {
            self.shared.refused.add(1);
            return;
        }
        let seat = match self.local.plan.crowd.as_ref().map(Crowd::enter) {
            Some(None) => return self.shared.refused.add(1),
            Some(seat) => seat,
            None => None,
        };
        if self.local.purse.is_overdrawn() {
            self.make_way();
            if self.local.purse.is_overdrawn() {
                return self.shared.refused.add(1);
            }
        }
        let mut original = None;
        if door.listener.transparent {
            match original::destination(&fd, address) {
                Ok(destination) => original = Some(destination),
                Err(reason) => {
                    daemon::debug!("cut a connection", listener = door.listener.name, reason = reason);
                    self.shared.refused.add(1);
                    return;
                }
            }
        }
        let token = self.downs.next();
        if let Err(error) = watch(&self.epoll, &fd, token) {
            daemon::warn!("failed to watch a connection", reason = error);
            return;
        }
        let announced = door.listener.announced;
        let mut counted = Share::of(&self.local.purse);
        counted.set(self.local.plan.room.map_or(0, |room| room.client));
        let (peer, peer_length) = text_of(address.map(|address| address.ip()));
        let accepted = self.now();
        let down = Down {
            sock: Sock::new(fd, Share::of(&self.local.purse)),
            share: Share::of(&self.local.purse),
            _counted: counted,
            door,
            exchange: None,
            h2: None,
            dirty: false,
            stage: if announced { Stage::Announcing } else { Stage::Open },
            deadline: Deadline::default(),
            unread: false,
            accepted,
            requests: 0,
            head_began: 0,
            empty_lines: 0,
            secured: 0,
            identity: Box::default(),
            from: address,
            to: original,
            original,
            idle_since: 0,
            skip: 0,
            lingered: 0,
            _seat: seat,
            peer,
            peer_length,
        };
        self.downs.insert(Box::new(down));
        self.shared.accepted.add(1);
        self.shared.connections.add(1);
        let d = token.index();
        if announced {
            self.down_deadline(d, HANDSHAKE);
        } else {
            self.welcome(d);
        }
    }

    /// The connection's own bytes begin.
    pub(super) fn welcome(&mut self, d: u32) {
        let Some(down) = self.downs.get_mut(d) else { return };
        down.stage = Stage::Open;
        let door = Rc::clone(&down.door);
        let mut first = self.local.plan.settings.head_timeout;
        if let Some(tls) = &door.listener.tls {
            first = HANDSHAKE;
            if let Err(error) = down.sock.serve_tls(tls.clone()) {
                daemon::warn!("failed to begin TLS", listener = door.listener.name, reason = error);
                return self.drop_down(d);
            }
            if self.cipher.is_empty() {
                self.cipher = vec![0; super::ROOM / 2].into_boxed_slice();
            }
        }
        self.down_deadline(d, first);
        match &door.listener.serves {
            Serves::Http(_) => {}
            Serves::Tcp(passages) if passages.is_by_name() => {
                if let Some(down) = self.downs.get_mut(d) {
                    down.stage = Stage::Greeting;
                }
            }
            Serves::Tcp(passages) => self.pass_on(d, passages, None),
        }
    }

    pub(super) fn down_deadline(&mut self, d: u32, after: u64) {
        let token = self.downs.token(d);
        if let Some(down) = self.downs.get_mut(d) {
            set_deadline(&mut self.timers, &mut down.deadline, token, self.tick, after);
        }
    }

    pub(super) fn down_event(&mut self, d: u32, flags: EventFlags) {
        let Some(down) = self.downs.get_mut(d) else { return };
        let gone = flags.intersects(EventFlags::HUP | EventFlags::ERR);
        if flags.intersects(EventFlags::IN | EventFlags::RDHUP) || gone {
            down.sock.readable = true;
            down.sock.hangup |= flags.contains(EventFlags::RDHUP) || gone;
        }
        if gone {
            let tunnel = down.exchange.filter(|_| !flags.contains(EventFlags::ERR));
            return match tunnel.filter(|x| self.exchange(*x).is_some_and(|exchange| exchange.tunnel)) {
                // What it has sent before it ended is still the backend's.
                Some(x) => self.pump_tunnel(x),
                // Both directions are closed: nobody reads an answer any more.
                None => self.lost(d),
            };
        }
        if flags.contains(EventFlags::OUT) && down.sock.blocked() {
            match down.sock.flush() {
                Ok(true) => self.drained(d),
                Ok(false) => {}
                Err(_) => return self.lost(d),
            }
        }
        if flags.intersects(EventFlags::IN | EventFlags::RDHUP) {
            self.client(d);
        }
    }

    /// The client is gone.
    fn lost(&mut self, d: u32) {
        match self.downs.get(d).map(|down| (down.exchange, down.h2.is_some())) {
            Some((_, true)) => self.drop_multiplex(d),
            Some((Some(x), _)) => self.abandon(x, Failure::ClientGone),
            _ => self.drop_down(d),
        }
    }

    /// The kernel has taken everything that was kept for the client.
    fn drained(&mut self, d: u32) {
        let Some(down) = self.downs.get_mut(d) else { return };
        if down.h2.is_some() {
            return self.writable(d, 0);
        }
        let Some(x) = down.exchange else { return };
        let now = self.tick;
        let Some(exchange) = self.exchange(x) else { return };
        // It was the client that was waited for.
        exchange.ledger.note(Phase::Write, now);
        if exchange.tunnel {
            self.pump_tunnel(x);
        } else if exchange.answer == Answer::Read {
            self.finish(x);
        } else {
            if exchange.answer == Answer::Begun {
                self.await_rest(x);
            }
            self.pump_response(x);
        }
    }

    /// Goes on with whatever the client may have sent.
    pub(super) fn client(&mut self, d: u32) {
        for _ in 0..TURNS {
            let Some(down) = self.downs.get_mut(d) else { return };
            match down.stage {
                Stage::Open => {}
                Stage::Lingering => return self.linger_on(d),
                Stage::Announcing => {
                    if self.listen_to_announcement(d) {
                        continue;
                    }
                    return;
                }
                Stage::Greeting => return self.listen_to_hello(d),
            }
            if down.h2.is_some() {
                return self.multiplex(d);
            }
            if let Some(x) = down.exchange {
                if self.exchange(x).is_some_and(|exchange| exchange.tunnel) {
                    self.pump_tunnel(x);
                } else {
                    self.pump_request(x);
                }
                return;
            }
            if !self.read_head(d) {
                return;
            }
        }
        self.ready.push_back(self.downs.token(d));
    }

    /// Reads one head, if there is one; true if the connection may go on at once.
    fn read_head(&mut self, d: u32) -> bool {
        let mut input = std::mem::take(&mut self.input);
        let more = self.read_head_into(d, &mut input);
        self.input = input;
        more
    }

    fn read_head_into(&mut self, d: u32, input: &mut [u8]) -> bool {
        let began = self.tick;
        let bounds = self.local.plan.settings.bounds;
        let Some(down) = self.downs.get_mut(d) else { return false };
        let purse = &self.local.purse;
        // All of it may have to be kept: for a backend that is not there yet, or to be sent once more.
        let kept = down.sock.left.len();
        let piece = purse.piece(input.len() - kept).max(HEAD_PIECE.min(input.len() - kept));
        let length = match down.read_on(&mut input[..kept + piece], &mut self.cipher) {
            Ok(Got::Bytes(length)) => length,
            Ok(Got::Nothing) => {
                // Pieces of records, or of a handshake.
                if down.sock.held() > LEAST && purse.is_overdrawn() {
                    self.drop_down(d);
                }
                return false;
            }
            Ok(Got::End | Got::Cut) => {
                self.drop_down(d);
                return false;
            }
            Err(_) => {
                if down.sock.is_handshaking() {
                    self.shared.handshake_failures.add(1);
                }
                self.drop_down(d);
                return false;
            }
        };
        if down.sock.tls.is_some() && down.secured == 0 {
            down.secured = began;
            if let Some(certificate) = down.sock.peer_certificate() {
                down.identity = identity::line(certificate);
            }
        }
        // A few empty lines before a request are let pass (RFC 9112 §2.2).
        let mut bytes = &input[..length];
        while down.empty_lines < EMPTY_LINES
            && let Some(rest) = bytes.strip_prefix(b"\r\n")
        {
            bytes = rest;
            down.empty_lines += 1;
        }
        if bytes.is_empty() || bytes == b"\r" && down.empty_lines < EMPTY_LINES {
            // No request has begun.
            down.sock.left.extend_from_slice(bytes);
            return down.sock.readable;
        }
        let first = down.head_began == 0;
        if first {
            down.head_began = self.wake.max(down.accepted).min(began);
        }
        if down.requests == 0 && down.door.listener.http2 {
            // Said by the TLS handshake, or, without, by the first bytes (RFC 9113 §3).
            let begins = match down.sock.protocol() {
                _ if !down.door.listener.http1 => Some(true),
                Some(protocol) => Some(protocol == b"h2"),
                None => multiplex::begins(bytes),
            };
            if begins != Some(false) {
                down.sock.left.extend_from_slice(bytes);
                down.unread = begins.is_some();
                if begins.is_some() {
                    self.go_multiplex(d);
                } else if first {
                    let timeout = self.local.plan.settings.head_timeout;
                    self.down_deadline(d, timeout);
                }
                return self.downs.get(d).is_some_and(|down| down.unread || down.sock.readable);
            }
        }
        let mut fields = std::mem::take(&mut self.fields);
        let outcome = head::request(bytes, &mut fields, bounds);
        let more = match outcome {
            Ok(Some(request)) => {
                down.empty_lines = 0;
                self.begin(d, 0, bytes, &request, &mut fields);
                true
            }
            Ok(None) => {
                down.sock.left.extend_from_slice(bytes);
                down.sock.count();
                if first {
                    let timeout = self.local.plan.settings.head_timeout;
                    self.down_deadline(d, timeout);
                }
                let Some(down) = self.downs.get(d) else { return false };
                if down.sock.held() > LEAST && self.local.purse.is_overdrawn() {
                    self.drop_down(d);
                    false
                } else {
                    down.sock.readable
                }
            }
            Err(refusal) => {
                self.refuse(d, refusal);
                false
            }
        };
        self.fields = fields;
        more
    }

    /// Answers what is no good request, and ends the connection.
    fn refuse(&mut self, d: u32, refusal: Refusal) {
        let Some(down) = self.downs.get_mut(d) else { return };
        let at = down.head_began;
        let x = self.begin_exchange(d, at);
        if let Some(down) = self.downs.get_mut(d) {
            down.exchange = Some(x);
            down.sock.left = Vec::new();
            down.head_began = 0;
        }
        let now = self.now();
        if let Some(exchange) = self.exchange(x) {
            exchange.ledger.note(Phase::Parse, now);
            exchange.failure = Some(Failure::Refused);
        }
        self.respond(x, refusal.status(), &refusal.to_string(), &[]);
    }

    pub(super) fn down_timeout(&mut self, d: u32) {
        let Some(down) = self.downs.get_mut(d) else { return };
        match (down.stage, down.exchange) {
            (Stage::Open, Some(x)) => self.exchange_timeout(x),
            (Stage::Open, None) if down.head_began != 0 && !down.sock.left.is_empty() => {
                let at = down.head_began;
                let x = self.begin_exchange(d, at);
                if let Some(down) = self.downs.get_mut(d) {
                    down.exchange = Some(x);
                }
                let now = self.tick;
                if let Some(exchange) = self.exchange(x) {
                    exchange.ledger.note(Phase::Parse, now);
                    exchange.failure = Some(Failure::ClientTimeout);
                }
                self.respond(x, 408, "the request's head did not come in time", &[]);
            }
            (Stage::Greeting, _) if !down.sock.left.is_empty() => {
                self.refuse_connection(d, Failure::ClientTimeout, None);
            }
            _ if down.h2.is_some() => self.multiplex_timeout(d),
            _ => self.drop_down(d),
        }
    }

    /// Says goodbye: everything written arrives before the connection ends.
    pub(super) fn close_down(&mut self, d: u32) {
        let Some(down) = self.downs.get_mut(d) else { return };
        down.sock.finish();
        if down.sock.readable || !down.sock.left.is_empty() || down.sock.blocked() || down.unread {
            down.stage = Stage::Lingering;
            down.sock.left = Vec::new();
            down.unread = false;
            self.down_deadline(d, LINGER);
            self.linger_on(d);
        } else {
            self.drop_down(d);
        }
    }

    /// As [`Worker::close_down`], for a client that is still sending.
    pub(super) fn linger(&mut self, d: u32) {
        let Some(down) = self.downs.get_mut(d) else { return };
        down.sock.finish();
        down.stage = Stage::Lingering;
        down.sock.left = Vec::new();
        down.unread = false;
        self.down_deadline(d, LINGER);
        self.linger_on(d);
    }

    fn linger_on(&mut self, d: u32) {
        if self.input.is_empty() {
            return self.ready.push_back(self.downs.token(d));
        }
        loop {
            let Some(down) = self.downs.get_mut(d) else { return };
            match down.sock.read(&mut self.input, &mut self.cipher) {
                Ok(Got::Bytes(length)) if down.lingered < LINGER_BYTES => down.lingered += length,
                Ok(Got::Nothing) => return,
                Ok(Got::Bytes(_) | Got::End | Got::Cut) | Err(_) => return self.drop_down(d),
            }
        }
    }

    pub(super) fn drop_down(&mut self, d: u32) {
        let token = self.downs.get(d).map(|_| self.downs.token(d));
        // Closing the descriptor takes it out of epoll.
        if self.downs.remove(d).is_some() {
            self.shared.connections.sub(1);
        }
        if let Some(token) = token
            && self.local.plan.personal
        {
            self.forget_client(token);
        }
    }
}
