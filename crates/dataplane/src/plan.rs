//! What the workers do, as checked data: listeners, routes, backends, bounds. A reload makes a new plan; whoever is in the
//! middle of something ends it by the old one.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

use rustls::ServerConfig;

use crate::backend::Backend;
use crate::crowd::Crowd;
use crate::filter::network::Networks;
use crate::head::Bounds;
use crate::log::AccessLog;
use crate::passage::Passages;
use crate::route::{Route, Table};
use crate::tracing::Tracing;

/// Everything.
#[derive(Clone, Debug)]
pub struct Plan {
    pub listeners: Vec<Arc<Listener>>,
    pub routes: Vec<Arc<Route>>,
    pub backends: Vec<Arc<Backend>>,
    pub settings: Settings,
    /// Who is let in, of all clients; `None`: as many as descriptors and [`Settings::connections_most`] allow.
    pub crowd: Option<Crowd>,
    /// What one worker may hold, if there is a bound.
    pub room: Option<Room>,
    pub log: Option<AccessLog>,
    pub tracing: Option<Tracing>,
    /// Some backend has connections that serve one client only.
    pub personal: bool,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted: Networks,
}

/// Bytes a worker may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// All it holds, see [`crate::purse`].
    pub all: usize,
    /// What a client is counted as.
    pub client: usize,
    /// What the kernel may hold of what is written to a connection (`SO_SNDBUF`, socket(7)).
    pub socket: usize,
}

/// What happens to `X-Forwarded-For`, `-Proto` and `-Host`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarded {
    /// The client's address is added behind what it sent.
    Append,
    /// What the client sent is thrown away.
    Replace,
    /// Nothing is added; what came is passed on.
    Pass,
}

/// Bounds of clients; times in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub bounds: Bounds,
    /// Clients' connections of one worker; 0: as many as descriptors allow.
    pub connections_most: usize,
    /// From the first byte of a head to its last.
    pub head_timeout: u64,
    /// Between two pieces of a body, in either direction.
    pub body_timeout: u64,
    /// Between two requests of a connection.
    pub idle_timeout: u64,
    /// Without a byte in either direction, after an upgrade and for plain TCP.
    pub tunnel_timeout: u64,
    pub forwarded: Forwarded,
    pub upgrade: bool,
    /// `.` and `..` in a path, plain or encoded: 400.
    pub refuse_dots: bool,
    /// A path that is another route's with its encoding undone: 400.
    pub refuse_ambiguous: bool,
}

#[derive(Debug)]
pub enum Serves {
    Http(Table),
    Tcp(Passages),
}

#[derive(Debug)]
pub struct Listener {
    pub name: String,
    pub address: String,
    /// Whoever accepts keeps it open, and nobody else: connections outlive it.
    pub socket: Weak<OwnedFd>,
    /// For what the application itself asks of others: at a drain its connections are left alone.
    pub outbound: bool,
    pub tls: Option<Arc<ServerConfig>>,
    pub serves: Serves,
    pub http1: bool,
    pub http2: bool,
    /// Every connection begins with an announcement (see [`crate::announce`]); one without is cut.
    pub announced: bool,
    /// Every connection has been redirected here; one that has not is cut.
    pub transparent: bool,
}
