//! Places: streams that cannot be begun yet. Whether the other side takes tunnels is known when its SETTINGS have come
//! (RFC 8441 §3); until then an exchange that asks for one has a place, which is counted, ends and is lost like a stream, but of
//! which the other side knows nothing.

use super::{Session, Stream};

/// No stream has so high a number (RFC 9113 §4.1).
const FIRST: u32 = 1 << 31;

impl Session {
    /// Whether the other side takes tunnels; `None`: that is not known yet.
    pub fn takes_tunnels(&self) -> Option<bool> {
        self.settled.then_some(self.tunnels)
    }

    /// A place for a stream of this owner; [`Session::close`] ends it.
    pub fn keep_place(&mut self, owner: u32) -> u32 {
        let id = FIRST | self.places;
        self.places = (self.places + 1) % FIRST;
        let mut place = Stream::new(id, 0);
        place.owner = Some(owner);
        self.streams.push(place);
        id
    }

    pub const fn is_place(id: u32) -> bool {
        id >= FIRST
    }

    pub(super) fn has_places(&self) -> bool {
        self.streams.iter().any(|stream| Session::is_place(stream.id))
    }
}
