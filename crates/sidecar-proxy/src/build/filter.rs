//! From a route's filters to the chain the workers ask. A gate whose part of the document did not change goes on, with
//! what it has counted.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use daemon::BuildError;
use daemon::config::Seconds;
use dataplane::count::{Tally, Throttle};
use dataplane::edit::{self, Edits, Fixed};
use dataplane::filter::BODY;
use dataplane::filter::attack::{self, Attacks, Exclusion};
use dataplane::filter::concurrency::{self, Concurrency};
use dataplane::filter::cors::{Cors, Origin};
use dataplane::filter::identity::{self, Identities};
use dataplane::filter::mirror::Mirror;
use dataplane::filter::network::{self, Networks};
use dataplane::filter::rate::{self, Allowance, Per, RateLimit};
use dataplane::filter::rule::{self, Rules};
use dataplane::filter::shared_rate::redis::{Place, Server};
use dataplane::filter::shared_rate::{self, SharedRate};
use dataplane::filter::size::Sizes;
use dataplane::filter::{Filter, Gate};
use dataplane::route;

use crate::config::filter::{AttackMode, OnFailure, Rule, RuleAction, SharedRateLimit};
use crate::config::{self, Spec, Text};
use crate::discovery;

/// Gates by where they stand and what made them.
pub(super) type Gates = HashMap<String, Arc<dyn Gate>>;

/// Why a filter cannot be built.
#[derive(Debug, thiserror::Error)]
enum FilterError {
    #[error("failed to read {path}")]
    Read { path: String, source: io::Error },
    #[error("{path} is no list of networks: {reason}")]
    List { path: String, reason: String },
    #[error("{0}")]
    Address(String),
    #[error(transparent)]
    Tls(#[from] super::tls::TlsError),
    #[error("failed to start the thread that asks for limits")]
    Start(#[source] io::Error),
}

/// The filters of one route, and those of each of its targets; gates come from `before` if they have not changed, and are put
/// into `now`.
pub(super) fn build(
    spec: &Spec,
    route: &config::Route,
    before: &Gates,
    now: &mut Gates,
) -> Result<(Vec<Filter>, Vec<Vec<Filter>>), BuildError> {
    let mut index = 0;
    let mut next = |filter: &config::Filter| {
        let part = || format!("filter {} of the route `{}`", index + 1, route.name);
        let built = one(spec, filter, index, route, before, now).map_err(|error| BuildError::new(part(), error));
        index += 1;
        built
    };
    let filters = route.filters.iter().map(&mut next).collect::<Result<_, _>>()?;
    // They are numbered on.
    let by_target = route.backends.iter().map(|target| target.filters().map(|filter| next(&filter)).collect());
    Ok((filters, by_target.collect::<Result<_, _>>()?))
}

fn one(
    spec: &Spec,
    filter: &config::Filter,
    index: usize,
    route: &config::Route,
    before: &Gates,
    now: &mut Gates,
) -> Result<Filter, FilterError> {
    let mut gate = |made_of: &str, make: &dyn Fn() -> Arc<dyn Gate>| {
        let key = format!("{}\n{index}\n{filter:?}\n{made_of}", route.name);
        let gate = before.get(&key).map_or_else(make, Arc::clone);
        now.insert(key, Arc::clone(&gate));
        Filter::Gate(gate)
    };
    Ok(match filter {
        config::Filter::Rules(rules) => {
            let mut lists = Vec::new();
            for rule in rules {
                lists.push(networks(&rule.networks, rule.networks_file.as_deref())?);
            }
            gate(&format!("{lists:?}"), &|| Arc::new(build_rules(rules, &lists)))
        }
        config::Filter::Sizes(sizes) => gate("", &|| {
            Arc::new(Sizes {
                path: sizes.path.0 as usize,
                query: sizes.query.0 as usize,
                parameters: sizes.parameters as usize,
                head: sizes.head.0 as usize,
                fields: sizes.fields as usize,
                value: sizes.value.0 as usize,
                refused: Tally::default(),
            })
        }),
        config::Filter::Attacks(attacks) => match attacks.mode {
            AttackMode::Off => Filter::RequestHeaders(Edits::default()),
            AttackMode::Report => gate("", &|| Arc::new(build_attacks(attacks, attack::Mode::Report))),
            AttackMode::Deny => gate("", &|| Arc::new(build_attacks(attacks, attack::Mode::Deny))),
        },
        config::Filter::RateLimit(limit) => gate("", &|| {
            Arc::new(RateLimit {
                per: per(limit.per, limit.header.as_deref()),
                allowance: allowance(limit.requests, limit.period, limit.burst),
                table: rate::Table::new(if limit.per == config::filter::Per::Route { 1 } else { limit.keys as usize }),
                tells: limit.headers,
                refused: Tally::default(),
            })
        }),
        config::Filter::SharedRateLimit(limit) => {
            let (settings, files) = shared_settings(spec, limit)?;
            // The thread is started before the plan is known to be good; it ends with the gate.
            let key = format!("{}\n{index}\n{settings:?}\n{files}", route.name);
            let gate = match before.get(&key) {
                Some(same) => Arc::clone(same),
                None => Arc::new(SharedRate::start(settings).map_err(FilterError::Start)?),
            };
            now.insert(key, Arc::clone(&gate));
            Filter::Gate(gate)
        }
        config::Filter::Concurrency(concurrency) => gate("", &|| {
            let adaptive = concurrency.adaptive.as_ref().map(|adaptive| concurrency::Adaptive {
                least: adaptive.min,
                most: adaptive.max,
                tolerance: adaptive.tolerance,
            });
            Arc::new(Concurrency::new(concurrency.limit, adaptive))
        }),
        config::Filter::Cors(cors) => gate("", &|| {
            Arc::new(Cors {
                origins: cors.allow_origins.iter().filter_map(|text| Origin::parse(text)).collect(),
                methods: cors.allow_methods.clone(),
                headers: cors.allow_headers.clone(),
                exposed: cors.expose_headers.clone(),
                credentials: cors.allow_credentials,
                max_age: cors.max_age.0.as_secs(),
                refused: Tally::default(),
            })
        }),
        config::Filter::Mirror(mirror) => {
            let backend = super::number(spec, &mirror.backend);
            let (most, flights) = (mirror.max_body.0 as usize, u64::from(mirror.in_flight));
            let terms = (backend, most, flights, super::nanos(mirror.timeout));
            gate(&backend.to_string(), &|| Arc::new(Mirror::new(mirror.percent, terms)))
        }
        config::Filter::Identities(one) => gate("", &|| Arc::new(identities(one))),
        edit => build_edit(edit, route),
    })
}

/// Networks from the document, which have been checked, and from a file, which has not.
fn networks(texts: &[String], file: Option<&str>) -> Result<Networks, FilterError> {
    let mut ranges: Vec<_> = texts.iter().filter_map(|text| network::range(text).ok()).collect();
    if let Some(path) = file {
        let text =
            std::fs::read_to_string(path).map_err(|source| FilterError::Read { path: path.to_owned(), source })?;
        let more = network::list(&text).map_err(|reason| FilterError::List { path: path.to_owned(), reason })?;
        ranges.extend(more);
    }
    Ok(Networks::new(ranges))
}

/// The networks of a checked list.
pub(super) fn checked_networks(texts: &[String]) -> Networks {
    Networks::new(texts.iter().filter_map(|text| network::range(text).ok()).collect())
}

fn build_rules(rules: &[Rule], lists: &[Networks]) -> Rules {
    let rules = rules.iter().zip(lists).map(|(one, networks)| {
        let wanted = config::Match {
            path: one.path.clone(),
            method: None,
            headers: one.headers.clone(),
            query: one.query.clone(),
        };
        rule::Rule {
            name: one.name.clone(),
            networks: networks.clone(),
            listed: !one.networks.is_empty() || one.networks_file.is_some(),
            methods: one.methods.iter().map(|method| method.as_bytes().to_vec()).collect(),
            wanted: super::build_match(&wanted),
            not: one.not,
            action: match one.action {
                RuleAction::Allow => rule::Action::Allow,
                RuleAction::Deny => rule::Action::Deny(one.status),
                RuleAction::Log => rule::Action::Log,
            },
            hits: Tally::default(),
        }
    });
    Rules { rules: rules.collect(), log: Throttle::default() }
}

fn per(per: config::filter::Per, header: Option<&str>) -> Per {
    match per {
        config::filter::Per::Client => Per::Client,
        config::filter::Per::Route => Per::Route,
        config::filter::Per::Identity => Per::Identity,
        config::filter::Per::Header => Per::Header(header.unwrap_or_default().to_ascii_lowercase().into_bytes()),
    }
}

fn allowance(requests: u32, period: Seconds, burst: u32) -> Allowance {
    let burst = if burst == 0 { requests } else { burst };
    Allowance { requests: u64::from(requests), period: super::nanos(period), burst: u64::from(burst) }
}

/// With a text that changes when the files of TLS do.
fn shared_settings(spec: &Spec, limit: &SharedRateLimit) -> Result<(shared_rate::Settings, String), FilterError> {
    let read = |path: &String| {
        let text = std::fs::read_to_string(path);
        let text = text.map_err(|source| FilterError::Read { path: path.clone(), source })?;
        Ok::<_, FilterError>(text.trim_end_matches(['\r', '\n']).to_owned())
    };
    let redis = &limit.redis;
    let (address, secure) = redis.place().map_err(FilterError::Address)?;
    let (mut tls, mut files) = (None, String::new());
    if secure {
        let settings = redis.tls.clone().unwrap_or_default();
        let (mut outward, fingerprint) = super::tls::client(&settings, std::slice::from_ref(&address), false)?;
        // It is not HTTP that is spoken.
        Arc::make_mut(&mut outward.config).alpn_protocols.clear();
        (tls, files) = (Some(outward), fingerprint);
    }
    let place = match (address.strip_prefix("unix:"), address.rsplit_once(':')) {
        (None, Some((host, port))) => {
            // It has been checked.
            Place::Tcp { host: host.to_owned(), port: port.parse().unwrap_or_default(), tls }
        }
        (path, _) => Place::Unix(path.unwrap_or_default().to_owned()),
    };
    let settings = shared_rate::Settings {
        server: Server {
            name: redis.address.clone(),
            place,
            user: redis.user.clone(),
            password: redis.password_file.as_ref().map(read).transpose()?,
            database: redis.database,
            names: Arc::new(discovery::Machine { servers: discovery::name_servers(spec) }),
        },
        per: per(limit.per, limit.header.as_deref()),
        allowance: allowance(limit.requests, limit.period, limit.burst),
        tells: limit.headers,
        open: limit.on_failure == OnFailure::Allow,
        timeout: limit.redis.timeout.0,
        prefix: limit.key_prefix.clone(),
    };
    Ok((settings, files))
}

/// The checked identities of the document.
pub(super) fn identities(one: &config::filter::Identities) -> Identities {
    let uris = one.uris.iter().map(|uri| match uri.strip_suffix("/*") {
        Some(start) => identity::Name::UriBelow(start.as_bytes().to_vec()),
        None => identity::Name::Uri(uri.as_bytes().to_vec()),
    });
    let dns = one.dns_names.iter().map(|name| identity::Name::Dns(name.as_bytes().to_vec()));
    let hashes = one.hashes.iter().map(|hash| identity::Name::Hash(hash.to_ascii_lowercase().into_bytes()));
    Identities {
        names: uris.chain(dns).chain(hashes).collect(),
        domains: one.trust_domains.iter().map(|domain| domain.as_bytes().to_vec()).collect(),
        refused: Tally::default(),
    }
}

fn build_attacks(attacks: &config::filter::Attacks, mode: attack::Mode) -> Attacks {
    let exclusions = attacks.exclude.iter().map(|one| Exclusion {
        path: one.path.as_ref().and_then(super::build_path),
        rules: one.rules.clone(),
        parameters: one.parameters.iter().map(|name| name.as_bytes().to_vec()).collect(),
    });
    let body = usize::try_from(attacks.body.0).unwrap_or(BODY).min(BODY);
    Attacks::new(mode, attacks.threshold, exclusions.collect(), body)
}

/// Changes of a header.
pub(super) fn edits(headers: &config::Headers) -> Edits {
    let list = |map: &BTreeMap<String, String>| -> Vec<(String, String)> {
        map.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
    };
    Edits::new(&list(&headers.set), &list(&headers.add), &headers.remove)
}

fn build_edit(filter: &config::Filter, route: &config::Route) -> Filter {
    let prefix = route.matches.iter().find_map(|one| match &one.path {
        Some(config::PathMatch::Prefix(Text(prefix))) => Some(prefix.as_bytes().to_vec()),
        _ => None,
    });
    let path = |edit: &config::PathEdit| match edit {
        config::PathEdit::Replace(Text(with)) => edit::PathEdit::Full(with.as_bytes().to_vec()),
        config::PathEdit::ReplacePrefix(Text(with)) => {
            let matched = prefix.clone().unwrap_or_else(|| b"/".to_vec());
            edit::PathEdit::Prefix { matched, with: with.as_bytes().to_vec() }
        }
    };
    match filter {
        config::Filter::RequestHeaders(headers) => Filter::RequestHeaders(edits(headers)),
        config::Filter::ResponseHeaders(headers) => Filter::ResponseHeaders(edits(headers)),
        config::Filter::Redirect(redirect) => Filter::Redirect(edit::Redirect {
            scheme: redirect.scheme.clone(),
            host: redirect.host.clone(),
            port: redirect.port,
            path: redirect.path.as_ref().map(path),
            status: redirect.status,
        }),
        config::Filter::Rewrite(rewrite) => Filter::Rewrite {
            host: rewrite.host.as_ref().map(|host| host.as_bytes().to_vec()),
            path: rewrite.path.as_ref().map(path),
        },
        config::Filter::Respond(respond) => Filter::Respond(Fixed {
            status: respond.status,
            body: respond.body.as_bytes().to_vec(),
            content_type: respond.content_type.clone(),
        }),
        // The caller makes gates.
        config::Filter::Rules(_)
        | config::Filter::Attacks(_)
        | config::Filter::Sizes(_)
        | config::Filter::RateLimit(_)
        | config::Filter::SharedRateLimit(_)
        | config::Filter::Concurrency(_)
        | config::Filter::Cors(_)
        | config::Filter::Mirror(_)
        | config::Filter::Identities(_) => Filter::RequestHeaders(Edits::default()),
    }
}

/// Files that filters are made from.
pub(super) fn files(spec: &Spec) -> impl Iterator<Item = PathBuf> {
    let filters = spec.routes.iter().flat_map(|route| &route.filters);
    let files = filters.flat_map(|filter| match filter {
        config::Filter::Rules(rules) => rules.iter().filter_map(|rule| rule.networks_file.clone()).collect(),
        config::Filter::SharedRateLimit(limit) => {
            let tls = limit.redis.tls.iter().flat_map(|tls| [&tls.ca_file, &tls.cert_file, &tls.key_file]);
            tls.flatten().chain(&limit.redis.password_file).cloned().collect()
        }
        _ => Vec::new(),
    });
    files.map(PathBuf::from)
}

/// Every gate of a plan with its route and its place there, counted from 1, for the metrics. Those of targets are counted on.
pub(crate) fn gates(routes: &[Arc<route::Route>]) -> impl Iterator<Item = (&str, usize, &Arc<dyn Gate>)> {
    routes.iter().flat_map(|route| {
        let of_targets = route.targets.all().iter().flat_map(route::Target::filters);
        route.filters.iter().chain(of_targets).enumerate().filter_map(|(index, filter)| match filter {
            Filter::Gate(gate) => Some((route.name.as_str(), index + 1, gate)),
            _ => None,
        })
    })
}
