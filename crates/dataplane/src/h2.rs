//! HTTP/2 (RFC 9113) as bytes in, events out: no sockets, no clock. A head comes out as the text of an HTTP/1.1 head, and
//! goes in as one, so that routes, filters and checks exist once.

mod flood;
pub mod frame;
pub mod head;
pub mod hpack;
mod huffman;
pub mod session;

pub use session::{Event, Session};
