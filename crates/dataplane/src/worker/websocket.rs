//! WebSocket where a stream is on either side (RFC 8441): which way an endpoint is asked, and how the client is told.
//!
//! ```text
//! HTTP/2 backend ─▶ has announced tunnels ─────────────▶ a stream
//!                ├▶ has announced none ─▶ speaks HTTP/1.1 ▶ a connection of its own
//!                │                       └▶ 501
//!                └▶ has said nothing yet ▶ a place, until its SETTINGS come
//! ```

use std::rc::Rc;

use super::Worker;
use super::response::{Turn, status_line};
use super::upstream::{UNSEEN, sooner};
use crate::exchange::{Answer, Failure};
use crate::forward;
use crate::h2::Session;
use crate::h2::frame::Code;
use crate::head::{Field, Name, Response, field};
use crate::pool::Pool;
use crate::slab::Token;
use crate::websocket;

impl Worker {
    /// Decides how a WebSocket gets to an endpoint that speaks HTTP/2; false if there is no way, which the client has been told.
    pub(super) fn find_way(&mut self, x: u32, pool: &Rc<Pool>, endpoint: usize) -> bool {
        let shared = pool.members[endpoint].shared.borrow();
        let mut ups = shared.iter().filter_map(|token| self.ups.get(self.ups.find(*token)?));
        // Only as long as a connection lasts it is true what was said on it.
        let none = ups.any(|up| {
            !up.sock.hangup && up.h2.as_deref().is_some_and(|session| session.takes_tunnels() == Some(false))
        });
        drop(shared);
        if none && !pool.backend.settings.may_speak_http1() {
            self.refuse_tunnel(x);
            return false;
        }
        if let Some(exchange) = self.exchange(x) {
            exchange.by_http1 = none;
        }
        true
    }

    /// There is no way to the backend for a WebSocket.
    pub(super) fn refuse_tunnel(&mut self, x: u32) {
        self.fail_with(x, Failure::Refused, 501, "the backend takes no WebSocket over HTTP/2");
    }

    /// Whether the connection takes tunnels is not known yet.
    pub(super) fn keep_place(&mut self, x: u32, u: u32) {
        let Some(session) = self.session_up(u) else { return };
        let place = session.keep_place(x);
        let connecting = self.ups.get(u).is_some_and(|up| up.connecting);
        if let Some(exchange) = self.exchange(x) {
            exchange.up_stream = place;
            exchange.sent = false;
        }
        if !connecting {
            self.await_settings(x, u);
        }
    }

    /// What is the first thing an endpoint says comes in the time for connecting.
    pub(super) fn await_settings(&mut self, x: u32, u: u32) {
        let Some(exchange) = self.exchange(x) else { return };
        let until = exchange.try_until;
        let after = self.ups.get(u).map_or(0, |up| up.pool.backend.settings.connect_timeout);
        self.answer_by(x, u, sooner(after, until, self.tick));
    }

    /// It is known now: those who have places go on, here or elsewhere.
    pub(super) fn settled(&mut self, token: Token) {
        for place in self.streams_of(token).into_iter().filter(|stream| Session::is_place(*stream)) {
            let Some(x) = self.owner_of(token, place) else { continue };
            let Some(session) = self.session_of(token) else { return };
            session.close(place, Code::None);
            let goes_here = session.takes_tunnels() == Some(true) && session.has_room();
            if let Some(exchange) = self.exchange(x) {
                exchange.up_stream = 0;
            }
            if goes_here {
                self.send_stream(x);
            } else {
                self.look_elsewhere(x);
            }
        }
        if let Some(u) = self.ups.find(token) {
            self.writable_up(u, 0);
        }
    }

    /// Nothing was asked yet, and this connection is not the way.
    fn look_elsewhere(&mut self, x: u32) {
        let Some(exchange) = self.exchange(x) else { return };
        exchange.replaced += 1;
        // Endpoints that change their minds with each connection are not asked for ever.
        let again = exchange.replaced < UNSEEN;
        self.release(x, false);
        if again {
            self.send_out(x);
        } else {
            self.refuse_tunnel(x);
        }
    }

    /// The endpoint has opened the tunnel. A client of HTTP/1.1 is told so as if it had switched (RFC 6455 §4.2.2).
    pub(super) fn open_by_stream(&mut self, x: u32, bytes: &[u8], response: &Response, fields: &mut [Field]) {
        let Some(exchange) = self.exchanges.get_mut(x) else { return };
        let by_stream = exchange.stream != 0;
        exchange.status = if by_stream { response.status } else { 101 };
        exchange.keep = false;
        exchange.replayable = false;
        exchange.answer = Answer::Begun;
        field::leave_out(bytes, fields, websocket::is_of_handshake);
        fields.iter_mut().filter(|field| field.name == Name::ContentLength).for_each(|field| field.keep = false);
        let out = &mut self.output;
        out.clear();
        if by_stream {
            status_line(response, bytes, out);
            forward::kept(bytes, fields, out);
        } else {
            out.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\n");
            forward::kept(bytes, fields, out);
            out.extend_from_slice(b"Connection: Upgrade\r\nUpgrade: websocket\r\n");
            let head = &exchange.replay[..exchange.head_size];
            websocket::put_accept(websocket::key_of(head).unwrap_or_default(), out);
        }
        out.extend_from_slice(b"\r\n");
        let head = out.len();
        if !self.give(x, head, &[], false) {
            return self.abandon(x, Failure::ClientGone);
        }
        self.open_stream_tunnel(x);
    }

    /// As [`Worker::switch`], for a client's stream (RFC 8441 §5).
    pub(super) fn switch_stream(&mut self, x: u32, bytes: &[u8], response: &Response, fields: &mut [Field]) -> Turn {
        let u = self.exchange(x).and_then(|exchange| {
            exchange.status = 200;
            exchange.up
        });
        field::leave_out(bytes, fields, websocket::is_of_handshake);
        self.output.clear();
        self.output.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
        forward::kept(bytes, fields, &mut self.output);
        self.output.extend_from_slice(b"\r\n");
        let head = self.output.len();
        self.give(x, head, &[], false);
        if let Some(up) = u.and_then(|u| self.ups.get_mut(u)) {
            up.sock.left.extend_from_slice(&bytes[response.size..]);
        }
        self.open_stream_tunnel(x);
        Turn::Over
    }
}
