//! Frames about streams and the connection that carry neither heads nor payload: PRIORITY, RST_STREAM, SETTINGS, PING,
//! WINDOW_UPDATE (RFC 9113 §6).

use super::{Event, FAREWELL, GREATEST, Role, Session};
use crate::h2::frame::{self, Code, Frame};
use crate::h2::hpack;

impl Session {
    pub(super) fn priority(&mut self, frame: Frame, payload: &[u8]) -> Result<Option<Event>, Code> {
        if frame.stream == 0 {
            return Err(Code::Protocol);
        }
        let wrong = if payload.len() != 5 {
            Some(Code::FrameSize)
        } else {
            (frame::number(payload) & 0x7fff_ffff == frame.stream).then_some(Code::Protocol)
        };
        match wrong {
            None => Ok(None),
            Some(code) if self.is_idle(frame.stream) => Err(code),
            Some(code) => Ok(self.break_off(frame.stream, code)),
        }
    }

    pub(super) fn reset(&mut self, frame: Frame, payload: &[u8]) -> Result<Option<Event>, Code> {
        if payload.len() != 4 {
            return Err(Code::FrameSize);
        }
        if frame.stream == 0 || self.is_idle(frame.stream) {
            return Err(Code::Protocol);
        }
        // The other side has ended it: from here on nothing is on its way any more (§5.1).
        self.reset.retain(|id| *id != frame.stream);
        let Some(stream) = self.forget(frame.stream) else {
            self.patience.useless(frame::HEADER + payload.len());
            return Ok(None);
        };
        if self.role == Role::Server {
            self.patience.reset();
            if self.patience.is_over() {
                return Err(Code::Calm);
            }
        }
        let refused = frame::number(payload) == Code::Refused as u32;
        Ok(Some(Event::Reset { stream: frame.stream, owner: stream.owner, refused, ours: false }))
    }

    pub(super) fn settings(&mut self, frame: Frame, payload: &[u8]) -> Result<Option<Event>, Code> {
        if frame.stream != 0 {
            return Err(Code::Protocol);
        }
        if !payload.len().is_multiple_of(6) || frame.has(frame::ACK) && !payload.is_empty() {
            return Err(Code::FrameSize);
        }
        if frame.has(frame::ACK) {
            return Ok(None);
        }
        self.settled = true;
        let mut opened = false;
        for setting in payload.chunks_exact(6) {
            let name = u16::from_be_bytes([setting[0], setting[1]]);
            let value = frame::number(&setting[2..]);
            match name {
                1 => self.shrinks |= (value as usize) < hpack::TABLE,
                2 if value > 1 || value == 1 && self.role == Role::Client => return Err(Code::Protocol),
                3 => self.most_streams = value as usize,
                4 => {
                    let value = i64::from(value);
                    if value > GREATEST {
                        return Err(Code::FlowControl);
                    }
                    // Also for streams that are open (§6.9.2); a window may become less than nothing.
                    for stream in &mut self.streams {
                        stream.send += value - self.initial;
                        if stream.send > GREATEST {
                            return Err(Code::FlowControl);
                        }
                    }
                    self.initial = value;
                    opened = true;
                }
                5 if !(16_384..=16_777_215).contains(&value) => return Err(Code::Protocol),
                8 if self.role == Role::Client => {
                    // What has been offered is not taken back (RFC 8441 §3).
                    if value > 1 || value == 0 && self.tunnels {
                        return Err(Code::Protocol);
                    }
                    self.tunnels = value == 1;
                }
                // Larger frames would only let one stream hold up the others.
                _ => {}
            }
        }
        frame::begin(0, frame::SETTINGS, frame::ACK, 0, &mut self.out);
        self.patience.answered(frame::HEADER);
        if opened {
            self.push_pending(0);
        }
        if self.has_places() {
            return Ok(Some(Event::Settled));
        }
        Ok(opened.then_some(Event::Writable { stream: 0 }))
    }

    pub(super) fn ping(&mut self, frame: Frame, payload: &[u8]) -> Result<Option<Event>, Code> {
        if payload.len() != 8 {
            return Err(Code::FrameSize);
        }
        if frame.stream != 0 {
            return Err(Code::Protocol);
        }
        if frame.has(frame::ACK) {
            if self.warned && payload == FAREWELL {
                self.leave();
            }
        } else {
            frame::begin(8, frame::PING, frame::ACK, 0, &mut self.out);
            self.out.extend_from_slice(payload);
            self.patience.answered(frame::HEADER + payload.len());
        }
        Ok(None)
    }

    pub(super) fn window(&mut self, frame: Frame, payload: &[u8]) -> Result<Option<Event>, Code> {
        if payload.len() != 4 {
            return Err(Code::FrameSize);
        }
        let more = i64::from(frame::number(payload) & 0x7fff_ffff);
        if frame.stream == 0 {
            self.send += more;
            if more == 0 {
                return Err(Code::Protocol);
            }
            if self.send > GREATEST {
                return Err(Code::FlowControl);
            }
        } else {
            if self.is_idle(frame.stream) {
                return Err(Code::Protocol);
            }
            let Some(stream) = self.find(frame.stream) else { return Ok(None) };
            stream.send += more;
            let too_much = stream.send > GREATEST;
            if more == 0 || too_much {
                return Ok(self.break_off(frame.stream, if too_much { Code::FlowControl } else { Code::Protocol }));
            }
        }
        self.push_pending(frame.stream);
        Ok(Some(Event::Writable { stream: frame.stream }))
    }
}
