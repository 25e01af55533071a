//! The system calls for which rustix has no safe door. The only unsafe code of the crate.
#![allow(unsafe_code)]

pub(crate) mod bpf;
pub(crate) mod mount;
pub(crate) mod process;
