//! What the types of filters cannot say.

use daemon::config::{Decoder, Seconds};
use dataplane::filter::cors::Origin;
use dataplane::filter::{BODY, attack, network};

use super::{check_match, check_path, is_token};
use crate::config::filter::{Attacks, Concurrency, Cors, Identities, Mirror, Per, Rule};
use crate::config::{Filter, Match};

/// Checks one of the filters that decide; `at` is its place.
pub(super) fn check(at: &str, filter: &Filter, decoder: &mut Decoder) {
    match filter {
        Filter::Rules(rules) => check_rules(&format!("{at}.rules"), rules, decoder),
        Filter::Attacks(attacks) => check_attacks(&format!("{at}.attacks"), attacks, decoder),
        Filter::RateLimit(limit) => {
            let at = format!("{at}.rateLimit");
            check_rate(&at, limit.requests, limit.period, decoder);
            check_per(&at, limit.per, limit.header.as_deref(), decoder);
            if !(1..=10_000_000).contains(&limit.keys) {
                decoder.refuse_at(&format!("{at}.keys"), "must be from 1 to 10000000");
            }
        }
        Filter::SharedRateLimit(limit) => {
            let at = format!("{at}.sharedRateLimit");
            check_rate(&at, limit.requests, limit.period, decoder);
            check_per(&at, limit.per, limit.header.as_deref(), decoder);
            if let Err(message) = limit.redis.place() {
                decoder.refuse_at(&format!("{at}.redis.address"), message);
            }
            if let Some(tls) = &limit.redis.tls {
                super::check_client_tls(&format!("{at}.redis.tls"), tls, decoder);
            }
            if limit.redis.user.is_some() && limit.redis.password_file.is_none() {
                decoder.refuse_at(&format!("{at}.redis.user"), "needs a passwordFile");
            }
            if limit.redis.timeout.0.is_zero() || limit.redis.timeout.0.as_secs() > 10 {
                decoder.refuse_at(&format!("{at}.redis.timeout"), "must be longer than 0s and at most 10s");
            }
            if limit.key_prefix.is_empty() {
                decoder.refuse_at(&format!("{at}.keyPrefix"), "must not be empty");
            }
        }
        Filter::Concurrency(concurrency) => check_concurrency(&format!("{at}.concurrency"), concurrency, decoder),
        Filter::Identities(identities) => check_identities(&format!("{at}.identities"), identities, decoder),
        Filter::Cors(cors) => check_cors(&format!("{at}.cors"), cors, decoder),
        // Its backend has been looked at.
        Filter::Mirror(one) => mirror(&format!("{at}.mirror"), one, decoder),
        Filter::Sizes(_)
        | Filter::RequestHeaders(_)
        | Filter::ResponseHeaders(_)
        | Filter::Redirect(_)
        | Filter::Rewrite(_)
        | Filter::Respond(_) => {}
    }
}

/// A copy whose backend has been looked at.
pub(super) fn mirror(at: &str, mirror: &Mirror, decoder: &mut Decoder) {
    if !(0.0..=100.0).contains(&mirror.percent) {
        decoder.refuse_at(&format!("{at}.percent"), "must be from 0 to 100");
    }
    if mirror.max_body.0 > 16 << 20 {
        decoder.refuse_at(&format!("{at}.maxBody"), "must be at most 16Mi");
    }
    if mirror.in_flight == 0 {
        decoder.refuse_at(&format!("{at}.inFlight"), "must be at least 1");
    }
    if mirror.timeout.0.is_zero() || mirror.timeout.0.as_secs() > 3600 {
        decoder.refuse_at(&format!("{at}.timeout"), "must be longer than 0s and at most 1h");
    }
}

fn check_rules(at: &str, rules: &[Rule], decoder: &mut Decoder) {
    if rules.is_empty() {
        decoder.refuse_at(at, "needs at least one rule");
    }
    super::names(at, rules.iter().map(|one| one.name.as_str()), decoder);
    for (index, rule) in rules.iter().enumerate() {
        let at = format!("{at}[{index}]");
        networks(&format!("{at}.networks"), &rule.networks, decoder);
        methods(&format!("{at}.methods"), &rule.methods, decoder);
        let one =
            Match { path: rule.path.clone(), method: None, headers: rule.headers.clone(), query: rule.query.clone() };
        check_match(&at, &one, decoder);
        if !(400..=599).contains(&rule.status) {
            decoder.refuse_at(&format!("{at}.status"), "must be from 400 to 599");
        }
    }
}

fn check_rate(at: &str, requests: u32, period: Seconds, decoder: &mut Decoder) {
    if requests == 0 {
        decoder.refuse_at(&format!("{at}.requests"), "must be at least 1; to let nobody in, use a rule");
    }
    if period.0.is_zero() || period.0.as_secs() > 86_400 {
        decoder.refuse_at(&format!("{at}.period"), "must be longer than 0s and at most 24h");
    } else if period.0.as_micros() < u128::from(requests) {
        decoder.refuse_at(&format!("{at}.requests"), "is more than one request a microsecond");
    }
}

fn check_per(at: &str, per: Per, header: Option<&str>, decoder: &mut Decoder) {
    match (per, header) {
        (Per::Header, None) => decoder.refuse_at(&format!("{at}.per"), "needs a `header`"),
        (Per::Header, Some(name)) if !is_token(name) => {
            decoder.refuse_at(&format!("{at}.header"), "is no field name");
        }
        (Per::Client | Per::Route | Per::Identity, Some(_)) => {
            decoder.refuse_at(&format!("{at}.header"), "is for `per: header` only");
        }
        _ => {}
    }
}

fn check_concurrency(at: &str, concurrency: &Concurrency, decoder: &mut Decoder) {
    if concurrency.limit == 0 {
        decoder.refuse_at(&format!("{at}.limit"), "must be at least 1");
    }
    if let Some(adaptive) = &concurrency.adaptive {
        if adaptive.min == 0 || adaptive.min > adaptive.max {
            decoder.refuse_at(&format!("{at}.adaptive.min"), "must be at least 1 and not more than max");
        } else if !(adaptive.min..=adaptive.max).contains(&concurrency.limit) {
            decoder.refuse_at(&format!("{at}.limit"), "must be between adaptive.min and adaptive.max");
        }
        if !(1.0..=100.0).contains(&adaptive.tolerance) {
            decoder.refuse_at(&format!("{at}.adaptive.tolerance"), "must be from 1 to 100");
        }
    }
}

pub(super) fn check_identities(at: &str, identities: &Identities, decoder: &mut Decoder) {
    let Identities { uris, dns_names, hashes, trust_domains } = identities;
    if uris.is_empty() && dns_names.is_empty() && hashes.is_empty() && trust_domains.is_empty() {
        decoder.refuse_at(at, "lets nobody in: name somebody");
    }
    let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic() && !b";,=\"".contains(&byte));
    for (index, uri) in uris.iter().enumerate() {
        let start = uri.strip_suffix("/*").unwrap_or(uri);
        if !plain(uri) || !start.contains("://") || start.contains('*') {
            decoder.refuse_at(&format!("{at}.uris[{index}]"), "must be a URI, or one with `/*` at its end");
        }
    }
    for (index, name) in dns_names.iter().enumerate() {
        if name.is_empty() || !plain(name) || name.contains('*') {
            decoder.refuse_at(&format!("{at}.dnsNames[{index}]"), "must be a DNS name");
        }
    }
    for (index, hash) in hashes.iter().enumerate() {
        if hash.len() != 64 || !hash.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            decoder.refuse_at(&format!("{at}.hashes[{index}]"), "must be 64 hexadecimal digits");
        }
    }
    for (index, domain) in trust_domains.iter().enumerate() {
        let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._".contains(&byte);
        if domain.is_empty() || !domain.bytes().all(good) {
            decoder.refuse_at(
                &format!("{at}.trustDomains[{index}]"),
                "must be a SPIFFE trust domain like example.org, without spiffe://",
            );
        }
    }
}

fn check_cors(at: &str, cors: &Cors, decoder: &mut Decoder) {
    for (index, origin) in cors.allow_origins.iter().enumerate() {
        let problem = match Origin::parse(origin) {
            None => "must be like https://a.example or https://*.example.com in lower case, or `*`, or `null`",
            // Browsers refuse `*` with credentials (Fetch, "CORS protocol and credentials"); naming whoever asks instead would undo that.
            Some(Origin::Any) if cors.allow_credentials => {
                "with allowCredentials, any site could act as whoever visits it: name the origins, or leave allowCredentials out"
            }
            Some(_) => continue,
        };
        decoder.refuse_at(&format!("{at}.allowOrigins[{index}]"), problem);
    }
    let lists = [
        ("allowMethods", &cors.allow_methods),
        ("allowHeaders", &cors.allow_headers),
        ("exposeHeaders", &cors.expose_headers),
    ];
    for (field, names) in lists {
        for (index, name) in names.iter().enumerate() {
            if !is_token(name) {
                decoder.refuse_at(&format!("{at}.{field}[{index}]"), "is no name");
            }
        }
    }
}

fn check_attacks(at: &str, attacks: &Attacks, decoder: &mut Decoder) {
    if attacks.threshold == 0 {
        decoder.refuse_at(&format!("{at}.threshold"), "must be at least 1");
    }
    if attacks.body.0 > BODY as u64 {
        decoder.refuse_at(&format!("{at}.body"), "must be at most 60Ki");
    }
    for (index, exclusion) in attacks.exclude.iter().enumerate() {
        let at = format!("{at}.exclude[{index}]");
        check_path(&format!("{at}.path"), exclusion.path.as_ref(), decoder);
        for (index, name) in exclusion.rules.iter().enumerate() {
            if !attack::is_known(name) {
                decoder.refuse_at(&format!("{at}.rules[{index}]"), format!("there is no rule and no group `{name}`"));
            }
        }
        if exclusion.path.is_none() && exclusion.rules.is_empty() && exclusion.parameters.is_empty() {
            decoder.refuse_at(&at, "excludes everything: use `mode: \"off\"` for that");
        }
    }
}

pub(super) fn networks(at: &str, networks: &[String], decoder: &mut Decoder) {
    for (index, text) in networks.iter().enumerate() {
        if let Err(reason) = network::range(text) {
            decoder.refuse_at(&format!("{at}[{index}]"), reason);
        }
    }
}

fn methods(at: &str, methods: &[String], decoder: &mut Decoder) {
    for (index, method) in methods.iter().enumerate() {
        if !is_token(method) {
            decoder.refuse_at(&format!("{at}[{index}]"), "is no method");
        }
    }
}
