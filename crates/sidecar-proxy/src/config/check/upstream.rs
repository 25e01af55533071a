//! What the types cannot say of backends.

use daemon::config::Decoder;

use super::is_token;
use crate::build;
use crate::config::{ActiveHealth, Backend, Balance, Discover, Text};

pub(super) fn check(at: &str, one: &Backend, decoder: &mut Decoder) {
    if one.endpoints.is_empty() && one.members.is_empty() && one.discover.is_empty() {
        decoder.refuse_at(&format!("{at}.endpoints"), "needs at least one endpoint, or discover");
    }
    if one.tls.as_ref().is_some_and(|tls| tls.server_name.is_none()) {
        check_nameless(&format!("{at}.tls"), one, decoder);
    }
    for (index, source) in one.discover.iter().enumerate() {
        check_source(&format!("{at}.discover[{index}]"), source, decoder);
    }
    for (index, member) in one.members.iter().enumerate() {
        if let Err(message) = build::endpoint_name(&member.address) {
            decoder.refuse_at(&format!("{at}.members[{index}].address"), message);
        }
        if member.weight > 1000 {
            decoder.refuse_at(&format!("{at}.members[{index}].weight"), "must be at most 1000");
        }
    }
    let hashes = matches!(one.balance, Balance::RingHash | Balance::Maglev);
    if let Some(hash_on) = &one.hash_on {
        if !hashes {
            decoder.refuse_at(&format!("{at}.hashOn"), "needs balance ringHash or maglev");
        }
        for (field, name) in [("header", &hash_on.header), ("cookie", &hash_on.cookie)] {
            if name.as_ref().is_some_and(|name| !is_token(name)) {
                decoder.refuse_at(&format!("{at}.hashOn.{field}"), "is no name");
            }
        }
    }
    if let Some(sticky) = &one.sticky {
        if !is_token(&sticky.cookie) {
            decoder.refuse_at(&format!("{at}.sticky.cookie"), "is no name");
        }
        super::check_cookie_path(&format!("{at}.sticky.path"), &sticky.path, decoder);
    }
    for (field, percent) in [("zoneOverflowPercent", one.zone_overflow_percent), ("panicPercent", one.panic_percent)] {
        if percent > 100 {
            decoder.refuse_at(&format!("{at}.{field}"), "must be at most 100");
        }
    }
    if one.limits.pending > 0 && one.limits.pending_timeout.0.is_zero() {
        decoder.refuse_at(&format!("{at}.limits.pendingTimeout"), "must be longer than 0s");
    }
}

/// All endpoints of a backend are asked for one name.
fn check_nameless(at: &str, one: &Backend, decoder: &mut Decoder) {
    let hosts: Vec<_> =
        build::hosts(one).into_iter().map(|address| build::host_of(&address).map(str::to_owned)).collect();
    if !one.discover.is_empty() {
        decoder.refuse_at(at, "needs a serverName, since endpoints are discovered");
    } else if hosts.iter().any(Option::is_none) {
        decoder.refuse_at(at, "needs a serverName, since a socket has none");
    } else if hosts.windows(2).any(|pair| pair[0] != pair[1]) {
        decoder.refuse_at(at, "needs a serverName, since the endpoints have different hosts");
    }
}

pub(super) fn check_health(at: &str, one: &Backend, health: &ActiveHealth, decoder: &mut Decoder) {
    let Some(service) = &health.grpc_service else { return };
    let at = format!("{at}.activeHealth.grpcService");
    if !one.http2 {
        decoder.refuse_at(&at, "needs a backend with http2");
    }
    if health.path.is_some() {
        decoder.refuse_at(&at, "cannot be asked besides a path");
    }
    if service.len() > 127 {
        decoder.refuse_at(&at, "must have at most 127 bytes");
    }
}

fn check_source(at: &str, source: &Discover, decoder: &mut Decoder) {
    let url = |url: &str| crate::discovery::is_url(url);
    match source {
        Discover::File(Text(path)) if !path.starts_with('/') => {
            decoder.refuse_at(&format!("{at}.file"), "must be an absolute path");
        }
        Discover::Srv(Text(name)) if name.is_empty() || name.split('.').any(|label| label.len() > 63) => {
            decoder.refuse_at(&format!("{at}.srv"), "is no name");
        }
        Discover::Kubernetes(from) if from.service.is_empty() => {
            decoder.refuse_at(&format!("{at}.kubernetes.service"), "must not be empty");
        }
        Discover::Consul(from) if from.service.is_empty() => {
            decoder.refuse_at(&format!("{at}.consul.service"), "must not be empty");
        }
        Discover::Kubernetes(from) if from.api.as_ref().is_some_and(|api| !url(api)) => {
            decoder.refuse_at(&format!("{at}.kubernetes.api"), "must be `http://HOST:PORT` or `https://HOST:PORT`");
        }
        Discover::Consul(from) if !url(&from.address) => {
            decoder.refuse_at(&format!("{at}.consul.address"), "must be `http://HOST:PORT` or `https://HOST:PORT`");
        }
        _ => {}
    }
}
