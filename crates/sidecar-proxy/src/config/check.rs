//! What the types cannot say.

use daemon::config::Decoder;
use regex::Regex;

use super::{
    AccessLog, Backend, ClientTls, Filter, Headers, Listener, LogFormat, LogNames, Match, PathEdit, PathMatch,
    Redirect, Rewrite, Route, Session, Spec, Target, Text, TextMatch,
};
use crate::build;

mod filter;
mod passage;
mod upstream;

pub fn check(spec: &Spec, decoder: &mut Decoder) {
    if spec.listeners.is_empty() {
        decoder.refuse_at("spec.listeners", "needs at least one listener");
    }
    names("spec.listeners", spec.listeners.iter().map(|one| one.name.as_str()), decoder);
    names("spec.routes", spec.routes.iter().map(|one| one.name.as_str()), decoder);
    names("spec.backends", spec.backends.iter().map(|one| one.name.as_str()), decoder);
    for (index, listener) in spec.listeners.iter().enumerate() {
        let at = format!("spec.listeners[{index}]");
        if let Err(message) = build::listen_address(&listener.address) {
            decoder.refuse_at(&format!("{at}.address"), message);
        }
        if listener.transparent && (listener.address.starts_with(':') || listener.address.starts_with("unix:")) {
            decoder.refuse_at(&format!("{at}.address"), "must be of one family: `0.0.0.0:PORT` or `[::]:PORT`");
        }
        if listener.transparent && listener.proxy_protocol {
            decoder.refuse_at(&format!("{at}.proxyProtocol"), "excludes transparent: clients connect directly");
        }
        passage::check(&at, listener, spec, decoder);
        if let Some(other) = spec.listeners[..index].iter().find(|other| other.address == listener.address) {
            decoder.refuse_at(&format!("{at}.address"), format!("`{}` listens there already", other.name));
        }
        if listener.speaks_http() && !listener.http1 && !listener.http2 {
            decoder.refuse_at(&at, "speaks neither HTTP/1 nor HTTP/2");
        }
        if listener.tls.as_ref().is_some_and(|tls| tls.certificates.is_empty()) {
            decoder.refuse_at(&format!("{at}.tls.certificates"), "needs at least one certificate");
        }
    }
    if spec.listeners.iter().any(Listener::speaks_http) && spec.routes.is_empty() {
        decoder.refuse_at("spec", "needs at least one route, since a listener speaks HTTP");
    }
    for (index, route) in spec.routes.iter().enumerate() {
        check_route(&format!("spec.routes[{index}]"), route, spec, decoder);
    }
    for (name, filter) in &spec.filters {
        // Whose prefix it would replace, the routes say that refer to it.
        let prefix = Match {
            path: Some(PathMatch::Prefix(Text("/".to_owned()))),
            method: None,
            headers: [].into(),
            query: [].into(),
        };
        check_filter(&format!("spec.filters.{name}"), filter, &[prefix], spec, decoder);
    }
    for (index, one) in spec.backends.iter().enumerate() {
        let at = format!("spec.backends[{index}]");
        if one.original_destination {
            check_original(&at, one, decoder);
        } else {
            upstream::check(&at, one, decoder);
        }
        for (position, endpoint) in one.endpoints.iter().enumerate() {
            if let Err(message) = build::endpoint_name(endpoint) {
                decoder.refuse_at(&format!("{at}.endpoints[{position}]"), message);
            }
        }
        if one.passive_health.max_ejected_percent > 100 {
            decoder.refuse_at(&format!("{at}.passiveHealth.maxEjectedPercent"), "must be at most 100");
        }
        if let Some(health) = &one.active_health {
            if health.interval.0.is_zero() || health.timeout.0.is_zero() {
                decoder.refuse_at(&format!("{at}.activeHealth"), "interval and timeout must be longer than 0s");
            }
            if health.path.as_ref().is_some_and(|path| !is_path(path)) {
                decoder.refuse_at(&format!("{at}.activeHealth.path"), "must begin with `/` and have no blanks");
            }
            if health.failures == 0 || health.successes == 0 {
                decoder.refuse_at(&format!("{at}.activeHealth"), "failures and successes must be at least 1");
            }
            upstream::check_health(&at, one, health, decoder);
        }
        if let Some(tls) = &one.tls {
            check_client_tls(&format!("{at}.tls"), tls, decoder);
        }
        if one.proxy_protocol.is_some() && one.http2 {
            decoder.refuse_at(
                &format!("{at}.proxyProtocol"),
                "is not supported with http2: clients share such connections, and it names only one",
            );
        }
        if one.http1 && !one.http2 {
            decoder.refuse_at(&format!("{at}.http1"), "needs http2: without, nothing else is spoken");
        } else if one.http1 && one.tls.is_some() {
            decoder
                .refuse_at(&format!("{at}.http1"), "is of no use with tls: the handshake tells what is spoken (ALPN)");
        }
        if one.resolve_every.0.is_zero() {
            decoder.refuse_at(&format!("{at}.resolveEvery"), "must be longer than 0s");
        }
    }
    for (index, server) in spec.name_servers.iter().enumerate() {
        if crate::discovery::name_server(server).is_none() {
            decoder.refuse_at(&format!("spec.nameServers[{index}]"), "must be `ADDRESS` or `ADDRESS:PORT`");
        }
    }
    if !(1024..=32 << 10).contains(&spec.limits.head.0) {
        decoder.refuse_at("spec.limits.head", "must be between 1Ki and 32Ki");
    }
    if !(1..=1000).contains(&spec.limits.fields) {
        decoder.refuse_at("spec.limits.fields", "must be between 1 and 1000");
    }
    filter::networks("spec.trustedProxies", &spec.trusted_proxies, decoder);
    if let Some(log) = &spec.access_log {
        check_log(log, decoder);
    }
    if let Some(tracing) = &spec.tracing {
        if tracing.propagation.is_empty() {
            decoder.refuse_at("spec.tracing.propagation", "needs at least one");
        }
        if tracing.sample.is_some_and(|share| !(0.0..=1.0).contains(&share)) {
            decoder.refuse_at("spec.tracing.sample", "must be from 0 to 1");
        }
    }
    if spec.workers > 256 {
        decoder.refuse_at("spec.workers", "must be at most 256");
    }
}

fn check_client_tls(at: &str, tls: &ClientTls, decoder: &mut Decoder) {
    if tls.cert_file.is_some() != tls.key_file.is_some() {
        decoder.refuse_at(at, "certFile and keyFile belong together");
    }
}

fn check_log(log: &AccessLog, decoder: &mut Decoder) {
    for class in log.one_in.keys().filter(|class| build::status_class(class).is_none()) {
        decoder.refuse_at(&format!("spec.accessLog.oneIn.{class}"), "must be one of 1xx, 2xx, 3xx, 4xx, 5xx, none");
    }
    if log.format != LogFormat::Json && (!log.fields.is_empty() || log.names != LogNames::Otel) {
        decoder.refuse_at("spec.accessLog", "`fields` and `names` are of `format: json` only");
    }
}

fn check_original(at: &str, one: &Backend, decoder: &mut Decoder) {
    if !one.endpoints.is_empty() || !one.members.is_empty() {
        decoder.refuse_at(&format!("{at}.endpoints"), "must be [] with originalDestination");
    }
    if !one.discover.is_empty() {
        decoder.refuse_at(&format!("{at}.discover"), "must be [] with originalDestination");
    }
    if one.http2 {
        decoder.refuse_at(&format!("{at}.http2"), "is not supported with originalDestination");
    }
    if one.active_health.is_some() {
        decoder.refuse_at(&format!("{at}.activeHealth"), "has nobody to ask with originalDestination");
    }
    if one.tls.as_ref().is_some_and(|tls| tls.server_name.is_none()) {
        decoder.refuse_at(&format!("{at}.tls"), "needs serverName with originalDestination");
    }
}

fn check_route(at: &str, route: &Route, spec: &Spec, decoder: &mut Decoder) {
    for (index, name) in route.listeners.iter().enumerate() {
        let at = format!("{at}.listeners[{index}]");
        match spec.listeners.iter().find(|listener| listener.name == *name) {
            None => decoder.refuse_at(&at, format!("there is no listener `{name}`")),
            Some(listener) if !listener.speaks_http() => {
                decoder.refuse_at(&at, format!("`{name}` does not speak HTTP"))
            }
            Some(_) => {}
        }
    }
    for (index, host) in route.hosts.iter().enumerate() {
        let name = host.strip_prefix("*.").unwrap_or(host);
        let labels = dataplane::route::without_port(name.as_bytes());
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-._:[]".contains(c);
        // The dot that ends a name is not there when names are compared.
        let empty = labels.is_empty() || labels.split(|byte| *byte == b'.').any(<[u8]>::is_empty);
        if empty || !name.chars().all(plain) {
            decoder.refuse_at(&format!("{at}.hosts[{index}]"), "must be a lower-case host name, or `*.` and one");
            continue;
        }
        let port = &name[labels.len()..];
        let number = port.strip_prefix(':').and_then(|digits| digits.parse::<u16>().ok().filter(|port| *port != 0));
        if !port.is_empty() && !route.connect {
            decoder.refuse_at(&format!("{at}.hosts[{index}]"), "a port is only for routes with connect: true");
        } else if !port.is_empty() && number.is_none_or(|number| port != format!(":{number}")) {
            decoder.refuse_at(&format!("{at}.hosts[{index}]"), "the port must be from 1 to 65535");
        }
    }
    if route.connect {
        if route.hosts.is_empty() {
            decoder.refuse_at(&format!("{at}.connect"), "needs hosts: those that tunnels may be asked for");
        }
        for (index, one) in route.matches.iter().enumerate() {
            if one.path.is_some() || one.method.is_some() || !one.query.is_empty() {
                let at = format!("{at}.matches[{index}]");
                decoder.refuse_at(&at, "CONNECT has neither path nor query, and no other method");
            }
        }
    }
    for (index, one) in route.matches.iter().enumerate() {
        check_match(&format!("{at}.matches[{index}]"), one, decoder);
    }
    let answers = |filter: &Filter| matches!(filter, Filter::Redirect(_) | Filter::Respond(_));
    let answered = route.filters.iter().any(answers);
    if !answered && route.backends.is_empty() {
        decoder.refuse_at(at, "needs backends, or a filter that answers");
    }
    if !route.backends.is_empty() && route.backends.iter().all(|target| target.weight == 0) {
        decoder.refuse_at(&format!("{at}.backends"), "all weights are 0");
    }
    check_targets(at, (&route.backends, !route.connect), spec, decoder);
    for (index, target) in route.backends.iter().enumerate() {
        let at = format!("{at}.backends[{index}]");
        if let Some(redirect) = &target.redirect {
            check_redirect(&format!("{at}.redirect"), redirect, &route.matches, decoder);
        }
        if let Some(rewrite) = &target.rewrite {
            check_rewrite(&format!("{at}.rewrite"), rewrite, &route.matches, decoder);
        }
        for (number, mirror) in target.mirrors.iter().enumerate() {
            let at = format!("{at}.mirrors[{number}]");
            check_mirrored(&format!("{at}.backend"), &mirror.backend, spec, decoder);
            filter::mirror(&at, mirror, decoder);
        }
    }
    for (index, status) in route.retries.statuses.iter().enumerate() {
        if !(500..=599).contains(status) {
            decoder.refuse_at(&format!("{at}.retries.statuses[{index}]"), "must be from 500 to 599");
        }
    }
    if route.retries.attempts > 10 {
        decoder.refuse_at(&format!("{at}.retries.attempts"), "must be at most 10");
    }
    if let Some(session) = &route.session {
        check_session(&format!("{at}.session"), session, route, decoder);
    }
    for (index, filter) in route.filters.iter().enumerate() {
        check_filter(&format!("{at}.filters[{index}]"), filter, &route.matches, spec, decoder);
    }
}

fn check_session(at: &str, session: &Session, route: &Route, decoder: &mut Decoder) {
    if route.connect {
        decoder.refuse_at(at, "is of no use with connect: true");
    }
    let (at, name, lifetime) = match session {
        Session::Cookie(cookie) => (format!("{at}.cookie"), &cookie.name, cookie.lifetime),
        Session::Header(header) => (format!("{at}.header"), &header.name, header.lifetime),
    };
    if !is_token(name) {
        decoder.refuse_at(&format!("{at}.name"), "is no name");
    }
    if lifetime.0.subsec_nanos() != 0 {
        decoder.refuse_at(&format!("{at}.lifetime"), "must be whole seconds");
    }
    match session {
        Session::Cookie(cookie) => {
            check_cookie_path(&format!("{at}.path"), &cookie.path, decoder);
            if cookie.permanent && cookie.lifetime.0.is_zero() {
                decoder.refuse_at(&format!("{at}.permanent"), "needs a lifetime");
            }
        }
        Session::Header(header) if OURS.contains(&header.name.to_ascii_lowercase().as_str()) => {
            decoder.refuse_at(&format!("{at}.name"), "belongs to the connection and cannot be set");
        }
        Session::Header(_) => {}
    }
}

/// The attribute of a cookie.
fn check_cookie_path(at: &str, path: &str, decoder: &mut Decoder) {
    let plain = path.bytes().all(|byte| (0x21..0x7f).contains(&byte) && byte != b';');
    if !plain || !path.starts_with('/') {
        decoder.refuse_at(at, "must begin with `/` and have no blanks or semicolons");
    }
}

/// A filter of a route with these matches.
fn check_filter(at: &str, filter: &Filter, matches: &[Match], spec: &Spec, decoder: &mut Decoder) {
    match filter {
        Filter::RequestHeaders(headers) => check_headers(&format!("{at}.requestHeaders"), headers, decoder),
        Filter::ResponseHeaders(headers) => check_headers(&format!("{at}.responseHeaders"), headers, decoder),
        Filter::Redirect(redirect) => check_redirect(&format!("{at}.redirect"), redirect, matches, decoder),
        Filter::Rewrite(rewrite) => check_rewrite(&format!("{at}.rewrite"), rewrite, matches, decoder),
        Filter::Respond(respond) => {
            if !(200..=599).contains(&respond.status) {
                decoder.refuse_at(&format!("{at}.respond.status"), "must be from 200 to 599");
            }
            if !dataplane::head::is_value(respond.content_type.as_bytes()) {
                decoder.refuse_at(&format!("{at}.respond.contentType"), "must be a field value");
            }
        }
        other => {
            if let Filter::Mirror(mirror) = other {
                check_mirrored(&format!("{at}.mirror.backend"), &mirror.backend, spec, decoder);
            }
            filter::check(at, other, decoder);
        }
    }
}

/// The `backends` of a route; `with_heads`: it has requests and answers.
fn check_targets(at: &str, (targets, with_heads): (&[Target], bool), spec: &Spec, decoder: &mut Decoder) {
    for (index, target) in targets.iter().enumerate() {
        if !spec.backends.iter().any(|one| one.name == target.name) {
            decoder
                .refuse_at(&format!("{at}.backends[{index}].name"), format!("there is no backend `{}`", target.name));
        }
        if target.weight > 1_000_000 {
            decoder.refuse_at(&format!("{at}.backends[{index}].weight"), "must be at most 1000000");
        }
        for (field, headers) in
            [("requestHeaders", &target.request_headers), ("responseHeaders", &target.response_headers)]
        {
            let at = format!("{at}.backends[{index}].{field}");
            match headers {
                Some(_) if !with_heads => decoder.refuse_at(&at, "is of no use here: what is passed on is not HTTP"),
                Some(headers) => check_headers(&at, headers, decoder),
                None => {}
            }
        }
        for (field, is_there) in [
            ("rewrite", target.rewrite.is_some()),
            ("redirect", target.redirect.is_some()),
            ("mirrors", !target.mirrors.is_empty()),
        ] {
            if is_there && !with_heads {
                let at = format!("{at}.backends[{index}].{field}");
                decoder.refuse_at(&at, "is of no use here: what is passed on is not HTTP");
            }
        }
    }
}

fn check_mirrored(at: &str, name: &str, spec: &Spec, decoder: &mut Decoder) {
    match spec.backends.iter().find(|one| one.name == name) {
        None => decoder.refuse_at(at, format!("there is no backend `{name}`")),
        Some(one) if one.original_destination || one.proxy_protocol.is_some() => {
            decoder
                .refuse_at(at, "must be a backend without originalDestination and proxyProtocol: a copy has no client");
        }
        Some(_) => {}
    }
}

fn check_path(at: &str, path: Option<&PathMatch>, decoder: &mut Decoder) {
    match path {
        Some(PathMatch::Exact(Text(path))) if !is_path(path) || path.contains('?') => {
            decoder.refuse_at(&format!("{at}.exact"), "must begin with `/` and have neither blanks nor a query");
        }
        Some(PathMatch::Prefix(Text(path))) if !is_path(path) || path.contains('?') => {
            decoder.refuse_at(&format!("{at}.prefix"), "must begin with `/` and have neither blanks nor a query");
        }
        Some(PathMatch::Regex(Text(pattern))) => regex(&format!("{at}.regex"), pattern, decoder),
        Some(PathMatch::Call(Text(method))) if method.is_empty() || !is_path(&format!("/{method}")) => {
            decoder.refuse_at(&format!("{at}.call"), "must be the name of a method, without blanks");
        }
        Some(PathMatch::Call(Text(method))) if method.contains('/') => {
            decoder
                .refuse_at(&format!("{at}.call"), "must be the name of a method alone: with its service it is a path");
        }
        _ => {}
    }
}

fn check_match(at: &str, one: &Match, decoder: &mut Decoder) {
    check_path(&format!("{at}.path"), one.path.as_ref(), decoder);
    if one.method.as_ref().is_some_and(|method| !dataplane::route::is_method(method.as_bytes())) {
        decoder.refuse_at(&format!("{at}.method"), "must be a method other than CONNECT");
    }
    for (field, map) in [("headers", &one.headers), ("query", &one.query)] {
        for (name, text) in map {
            if field == "headers" && !is_token(name) {
                decoder.refuse_at(&format!("{at}.headers.{name}"), "is no field name");
            }
            if let TextMatch::Regex(Text(pattern)) = text {
                regex(&format!("{at}.{field}.{name}.regex"), pattern, decoder);
            }
        }
    }
}

/// Fields that belong to the connection or the framing: whoever sets them breaks the message.
const OURS: [&str; 8] =
    ["connection", "content-length", "transfer-encoding", "upgrade", "host", "keep-alive", "te", "proxy-connection"];

fn check_headers(at: &str, headers: &Headers, decoder: &mut Decoder) {
    for (field, map) in [("set", &headers.set), ("add", &headers.add)] {
        for (name, value) in map {
            if !is_token(name) {
                decoder.refuse_at(&format!("{at}.{field}.{name}"), "is no field name");
            } else if OURS.contains(&name.to_ascii_lowercase().as_str()) {
                decoder.refuse_at(&format!("{at}.{field}.{name}"), "belongs to the connection and cannot be set");
            }
            if !dataplane::head::is_value(value.as_bytes()) {
                decoder.refuse_at(&format!("{at}.{field}.{name}"), "is no field value");
            }
        }
    }
    for (index, name) in headers.remove.iter().enumerate() {
        if !is_token(name) {
            decoder.refuse_at(&format!("{at}.remove[{index}]"), "is no field name");
        } else if OURS.contains(&name.to_ascii_lowercase().as_str()) {
            decoder.refuse_at(&format!("{at}.remove[{index}]"), "belongs to the connection and cannot be removed");
        }
    }
}

fn check_redirect(at: &str, redirect: &Redirect, matches: &[Match], decoder: &mut Decoder) {
    if !matches!(redirect.status, 301 | 302 | 303 | 307 | 308) {
        decoder.refuse_at(&format!("{at}.status"), "must be 301, 302, 303, 307 or 308");
    }
    if redirect.scheme.as_ref().is_some_and(|scheme| !matches!(scheme.as_str(), "http" | "https")) {
        decoder.refuse_at(&format!("{at}.scheme"), "must be http or https");
    }
    if redirect.port == Some(0) {
        decoder.refuse_at(&format!("{at}.port"), "must be from 1 to 65535");
    }
    if redirect.host.as_ref().is_some_and(|host| !is_host(host)) {
        decoder.refuse_at(&format!("{at}.host"), "must be a host");
    }
    check_edit(at, redirect.path.as_ref(), matches, decoder);
}

fn check_rewrite(at: &str, rewrite: &Rewrite, matches: &[Match], decoder: &mut Decoder) {
    check_edit(at, rewrite.path.as_ref(), matches, decoder);
    if rewrite.host.as_ref().is_some_and(|host| !is_host(host)) {
        decoder.refuse_at(&format!("{at}.host"), "must be a host");
    }
}

fn check_edit(at: &str, edit: Option<&PathEdit>, matches: &[Match], decoder: &mut Decoder) {
    match edit {
        Some(PathEdit::Replace(Text(path)) | PathEdit::ReplacePrefix(Text(path))) if !is_path(path) => {
            decoder.refuse_at(&format!("{at}.path"), "must begin with `/` and have no blanks");
        }
        Some(PathEdit::ReplacePrefix(_)) => {
            let prefixes = matches.iter().filter(|one| matches!(one.path, Some(PathMatch::Prefix(_)))).count();
            if prefixes != matches.len() || matches.len() > 1 {
                decoder.refuse_at(
                    &format!("{at}.path.replacePrefix"),
                    "needs a route with exactly one match, of a path prefix",
                );
            }
        }
        _ => {}
    }
}

fn is_path(path: &str) -> bool {
    path.starts_with('/') && path.bytes().all(|byte| byte > 0x20 && byte < 0x7f && byte != b'#')
}

fn is_host(host: &str) -> bool {
    !host.is_empty() && dataplane::head::is_authority(host.as_bytes())
}

fn is_token(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| dataplane::head::TOKEN[usize::from(byte)])
}

fn names<'a>(at: &str, names: impl Iterator<Item = &'a str>, decoder: &mut Decoder) {
    let mut seen = Vec::new();
    for (index, name) in names.enumerate() {
        if name.is_empty() {
            decoder.refuse_at(&format!("{at}[{index}].name"), "must not be empty");
        } else if seen.contains(&name) {
            decoder.refuse_at(&format!("{at}[{index}].name"), format!("the name `{name}` is taken already"));
        }
        seen.push(name);
    }
}

fn regex(at: &str, pattern: &str, decoder: &mut Decoder) {
    if let Err(error) = Regex::new(pattern) {
        let message = error.to_string();
        let last = message.lines().last().unwrap_or("not a regular expression");
        decoder.refuse_at(at, format!("not a regular expression: {}", last.trim_start_matches("error: ")));
    }
}
