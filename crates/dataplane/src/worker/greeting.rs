//! Connections of plain TCP until it is known where they go: at once, or when their TLS has said which server it is for.
//! What has been read of it stays in front of what follows, and is given to the backend as it came.

use std::rc::Rc;

use super::Worker;
use crate::exchange::Failure;
use crate::hello::{self, LONGEST, Refused};
use crate::ledger::Phase;
use crate::passage::Passages;
use crate::plan::Serves;
use crate::sock::Got;

impl Worker {
    /// Reads the first message of a connection that is passed on by the name it asks for.
    pub(super) fn listen_to_hello(&mut self, d: u32) {
        let mut input = std::mem::take(&mut self.input);
        let read = self.read_hello(d, &mut input);
        self.input = input;
        let door = self.downs.get(d).map(|down| Rc::clone(&down.door));
        let Some(Serves::Tcp(passages)) = door.as_deref().map(|door| &door.listener.serves) else { return };
        match read {
            Some(Ok(name)) => self.pass_on(d, passages, name.as_deref()),
            Some(Err(refused)) => self.refuse_hello(d, refused, None),
            None => {}
        }
    }

    /// The name, which there may be none of; `None`: not yet, or never.
    fn read_hello(&mut self, d: u32, input: &mut [u8]) -> Option<Result<Option<Vec<u8>>, Refused>> {
        loop {
            let began = self.tick;
            let down = self.downs.get_mut(d)?;
            let room = LONGEST.saturating_sub(down.sock.left.len());
            match down.sock.read(&mut input[..room], &mut self.cipher) {
                Ok(Got::Bytes(length)) => {
                    if down.head_began == 0 {
                        down.head_began = began;
                    }
                    down.sock.left.extend_from_slice(&input[..length]);
                }
                Ok(Got::Nothing) => return None,
                Ok(Got::End | Got::Cut) | Err(_) => {
                    self.drop_down(d);
                    return None;
                }
            }
            match hello::read(&down.sock.left) {
                Ok(None) => {}
                Ok(Some(hello)) => return Some(Ok(hello.name)),
                Err(refused) => return Some(Err(refused)),
            }
        }
    }

    /// Chooses a backend for a connection that asks for `name`, if it does.
    pub(super) fn pass_on(&mut self, d: u32, passages: &Passages, name: Option<&[u8]>) {
        match passages.draw(name, &mut self.dice) {
            Some(backend) => self.begin_tunnel(d, backend, name),
            None => self.refuse_hello(d, Refused::Unknown, name),
        }
    }

    fn refuse_hello(&mut self, d: u32, refused: Refused, name: Option<&[u8]>) {
        self.shared.handshake_failures.add(1);
        if let Some(down) = self.downs.get_mut(d) {
            daemon::debug!("cut a connection", listener = down.door.listener.name, reason = refused);
            // Nothing has been written yet, so there is room for it; who is gone needs none.
            let _ = down.sock.write(&[&refused.alert()]);
        }
        let failure = if refused == Refused::Unknown { Failure::NoRoute } else { Failure::Refused };
        self.refuse_connection(d, failure, name);
    }

    /// Ends a connection that is not passed on.
    pub(super) fn refuse_connection(&mut self, d: u32, failure: Failure, name: Option<&[u8]>) {
        let Some(x) = self.begin_connection(d, name) else { return };
        if let Some(exchange) = self.exchange(x) {
            exchange.failure = Some(failure);
        }
        self.finish(x);
    }

    /// The one exchange of a connection that is not HTTP.
    pub(super) fn begin_connection(&mut self, d: u32, name: Option<&[u8]>) -> Option<u32> {
        let now = self.now();
        let down = self.downs.get_mut(d)?;
        let (accepted, said) = (down.accepted, down.head_began);
        down.stage = super::client::Stage::Open;
        let x = self.begin_exchange(d, if said == 0 { now } else { accepted });
        self.downs.get_mut(d)?.exchange = Some(x);
        let exchange = self.exchange(x)?;
        exchange.tunnel = true;
        if said != 0 {
            exchange.ledger.note(Phase::Accept, said);
            exchange.ledger.note(Phase::Parse, now);
        }
        if let Some(name) = name {
            exchange.describe(&[], name, &[]);
        }
        Some(x)
    }
}
