//! The log sidecar.
#![forbid(unsafe_code)]
