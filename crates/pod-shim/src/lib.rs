//! One tiny process per pod: holds its namespaces and pipes, reaps, writes facts.
//!
//! The program `outrigger-shim` is this package's binary; this library is what the engine shares with it: the
//! [`protocol`], and with the feature `client` the engine's end of it.
#![forbid(unsafe_code)]

#[cfg(feature = "client")]
pub mod client;
pub mod protocol;
