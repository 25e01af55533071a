//! The binary with real sockets: small upstreams that answer as a test wants, clients that send bytes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod affinity;
mod announce;
mod balance;
mod config;
mod conformance;
mod differential;
mod discovery;
mod exchange;
mod filter;
mod flapping;
mod floods;
mod gateway;
mod greedy;
mod grpc;
mod harness;
mod ipv6;
mod killed;
mod ledger;
mod lengths;
mod memory;
mod mirror;
mod multiplex;
mod operate;
mod passage;
mod persistence;
mod redirect;
mod restart;
mod retry;
mod sections;
mod shared;
mod shortage;
mod silence;
mod smuggling;
mod spelling;
mod streams;
mod tcp;
mod telemetry;
mod tls;
mod tls_peers;
mod websocket;
mod windows;
mod wire;
mod withheld;
