//! Where connections of plain TCP may go.

use daemon::config::Decoder;

use crate::config::{Listener, Spec};

pub(super) fn check(at: &str, listener: &Listener, spec: &Spec, decoder: &mut Decoder) {
    let original = |name: &str| spec.backends.iter().any(|one| one.name == name && one.original_destination);
    if let Some(name) = &listener.tcp {
        if !spec.backends.iter().any(|one| one.name == *name) {
            decoder.refuse_at(&format!("{at}.tcp"), format!("there is no backend `{name}`"));
        }
        if !listener.transparent && original(name) {
            decoder
                .refuse_at(&format!("{at}.tcp"), "goes to original destinations, so the listener must be transparent");
        }
    }
    if listener.tcp.is_some() && !listener.tcp_routes.is_empty() {
        decoder.refuse_at(&format!("{at}.tcpRoutes"), "excludes tcp, which takes every connection");
    }
    let mut seen = Vec::new();
    for (index, route) in listener.tcp_routes.iter().enumerate() {
        let at = format!("{at}.tcpRoutes[{index}]");
        if !route.hosts.is_empty() && listener.tls.is_some() {
            decoder.refuse_at(&format!("{at}.hosts"), "excludes tls: the client's own is passed on as it is");
        }
        let places = (0..route.hosts.len()).map(|position| format!("{at}.hosts[{position}]"));
        for (at, host) in places.zip(&route.hosts) {
            if !is_name(host.strip_prefix("*.").unwrap_or(host)) {
                decoder.refuse_at(&at, "must be a lower-case host name, or `*.` and one");
            } else if seen.contains(&host.as_str()) {
                decoder.refuse_at(&at, format!("another route of the listener `{}` has this host", listener.name));
            }
            seen.push(host);
        }
        if route.hosts.is_empty() {
            if seen.contains(&"") {
                decoder.refuse_at(&at, format!("another route of the listener `{}` has no hosts", listener.name));
            }
            seen.push("");
        }
        if route.backends.iter().all(|one| one.weight == 0) {
            decoder.refuse_at(&format!("{at}.backends"), "needs a backend whose weight is not 0");
        }
        super::check_targets(&at, (&route.backends, false), spec, decoder);
        for (position, one) in route.backends.iter().enumerate() {
            if !listener.transparent && original(&one.name) {
                decoder.refuse_at(
                    &format!("{at}.backends[{position}].name"),
                    "goes to original destinations, so the listener must be transparent",
                );
            }
        }
    }
}

/// As a server name is sent (RFC 6066 §3).
fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
    !name.is_empty() && !name.ends_with('.') && name.chars().all(plain)
}
