//! Configuration documents: CRD-shaped YAML, strict, every problem at once with its place.
//!
//! One declaration ([`crate::document!`], [`crate::choice!`], [`crate::one_of!`]) gives a type its decoding, its JSON
//! Schema, its page in the reference and its defaults, so that none of them can lag behind.

mod declare;
pub mod decode;
pub mod envelope;
pub mod print;
pub mod quantity;
pub mod schema;
pub mod source;
pub mod tree;

pub use decode::{Decoder, Document, Problem};
pub use envelope::{Loaded, load};
pub use quantity::{Seconds, Size};
pub use schema::Schema;
pub use source::{ReadError, Source};
