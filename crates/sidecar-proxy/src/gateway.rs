//! Documents of the Gateway API beside the `Proxy`: `HTTPRoute`, `GRPCRoute`, `TLSRoute` and `TCPRoute`, taken into it as routes,
//! backends and listeners' targets. What they say is what the API says (gateway-api.sigs.k8s.io, v1); what is not understood is refused.

use std::collections::BTreeMap;

use daemon::config::envelope::{Metadata, kind_of, refuse_kind};
use daemon::config::tree::{Mark, Node};
use daemon::config::{Decoder, Document, Loaded, Seconds};
use dataplane::backend::Address;

use crate::build;
use crate::config::{self, Backend, Filter, PathEdit, PathMatch, Route, RouteTimeouts, Spec, Text, TextMatch};

mod document;
mod passage;
mod persistence;

use document::{
    BackendRef, Comparison, ExtensionRef, FilterType, GrpcMatch, GrpcRoute, HeaderModifier, HttpMatch, HttpRoute,
    MirrorRef, NamedValue, ParentRef, PathComparison, PathModification, PathModifier, RequestMirror, RouteFilter,
    RuleTimeouts,
};

const GROUP: &str = "gateway.networking.k8s.io";
/// Of the `Proxy`, and of what it has that routes may refer to.
const OURS: &str = "outrigger.dev";

/// A route's document, decoded.
#[derive(Debug)]
struct Found<T> {
    /// `NAMESPACE/NAME`.
    name: String,
    namespace: Option<String>,
    /// Where the document's fields are remembered.
    at: String,
    mark: Mark,
    spec: T,
}

/// Takes all of them into the proxy's specification.
pub(crate) fn adopt(loaded: &mut Loaded<Spec>, others: &[Node], decoder: &mut Decoder) {
    let (mut http, mut grpc, mut tls, mut tcp) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (number, document) in others.iter().enumerate() {
        // Paths of further documents begin with their number, so that they do not mix.
        let at = format!("document[{}]", number + 2);
        decoder.within(&at.clone(), document.mark, |decoder| match kind_of(document) {
            Some("HTTPRoute") => http.extend(decode(document, &at, &["v1", "v1beta1"], decoder)),
            Some("GRPCRoute") => grpc.extend(decode(document, &at, &["v1"], decoder)),
            Some("TCPRoute") => tcp.extend(decode(document, &at, &["v1", "v1alpha2"], decoder)),
            Some("TLSRoute") => tls.extend(decode(document, &at, &["v1", "v1alpha3", "v1alpha2"], decoder)),
            _ => refuse_kind(document, "Proxy, HTTPRoute, GRPCRoute, TLSRoute, TCPRoute", decoder),
        });
    }
    if !decoder.is_clean() {
        return;
    }
    // Between rules that are equally specific, the name of the document decides, then the rule's place in it.
    http.sort_by(|a: &Found<HttpRoute>, b| a.name.cmp(&b.name));
    grpc.sort_by(|a: &Found<GrpcRoute>, b| a.name.cmp(&b.name));
    let mut taking = Taking { name: &loaded.name, spec: &mut loaded.spec, decoder };
    http.iter().for_each(|found| taking.http(found));
    grpc.iter().for_each(|found| taking.grpc(found));
    tls.iter().for_each(|found| taking.tls(found));
    tcp.iter().for_each(|found| taking.tcp(found));
}

fn decode<T: Document>(document: &Node, at: &str, versions: &[&str], decoder: &mut Decoder) -> Option<Found<T>> {
    let mut members = daemon::config::decode::Members::new(document, decoder)?;
    members.take::<String>("kind", decoder);
    let version = members.take::<String>("apiVersion", decoder).flatten().unwrap_or_default();
    let known: Vec<String> = versions.iter().map(|version| format!("{GROUP}/{version}")).collect();
    if !known.contains(&version) {
        let mark = document.member("apiVersion").map_or(document.mark, |member| member.node.mark);
        decoder.refuse(mark, format!("apiVersion must be {}, not `{version}`", known.join(" or ")));
    }
    let metadata = members.take::<Metadata>("metadata", decoder).flatten();
    let spec = members.take::<T>("spec", decoder);
    members.finish(decoder);
    if spec.is_none() {
        decoder.refuse(document.mark, "the field `spec` is required");
    }
    let metadata = metadata.or_else(|| {
        decoder.refuse(document.mark, "the field `metadata` with a `name` is required");
        None
    })?;
    let namespace = metadata.namespace;
    let name = format!("{}/{}", namespace.as_deref().unwrap_or("default"), metadata.name);
    Some(Found { name, namespace, at: at.to_owned(), mark: document.mark, spec: spec.flatten()? })
}

struct Taking<'a> {
    name: &'a str,
    spec: &'a mut Spec,
    decoder: &'a mut Decoder,
}

impl Taking<'_> {
    fn refuse(&mut self, path: &str, message: &str) {
        self.decoder.refuse_at(path, message);
    }

    fn http(&mut self, found: &Found<HttpRoute>) {
        let Some(listeners) = self.listeners(&found.at, &found.spec.parent_refs) else { return };
        for (index, rule) in found.spec.rules.iter().enumerate() {
            let at = format!("{}.spec.rules[{index}]", found.at);
            let name = rule.name.clone().unwrap_or_else(|| index.to_string());
            let all = [HttpMatch { path: None, headers: Vec::new(), query_params: Vec::new(), method: None }];
            let matches = if rule.matches.is_empty() { &all[..] } else { &rule.matches[..] };
            let matches: Vec<config::Match> = matches.iter().map(http_match).collect();
            let mut filters = self.filters(&at, &rule.filters, found.namespace.as_deref(), false);
            filters.extend(without_backends(&rule.backend_refs, &filters, 500));
            let targets = self.targets(&at, &rule.backend_refs, found.namespace.as_deref(), false);
            let retries = rule.retry.as_ref().map(|one| self.retry(&format!("{at}.retry"), one));
            let whole = format!("{}/{name}", found.name);
            let session = rule.session_persistence.as_ref();
            let session = session.and_then(|one| self.session(&format!("{at}.sessionPersistence"), one, &whole));
            // What replaces a prefix must know which: then every match is a route.
            let mut all = filters.iter().cloned().chain(targets.iter().flat_map(config::Target::filters));
            let parted = matches.len() > 1 && all.any(|filter| replaces_prefix(&filter));
            let size = if parted { 1 } else { matches.len() };
            for (part, matches) in matches.chunks(size).enumerate() {
                let mut route = Route {
                    name: if parted { format!("{whole}/{part}") } else { whole.clone() },
                    listeners: listeners.clone(),
                    hosts: found.spec.hostnames.clone(),
                    matches: matches.to_vec(),
                    filters: filters.clone(),
                    backends: targets.clone(),
                    retries: retries.clone().unwrap_or_default(),
                    session: session.clone(),
                    ..Route::default()
                };
                if let Some(timeouts) = &rule.timeouts {
                    self.timeouts(&format!("{at}.timeouts"), timeouts);
                    route.timeouts.request = timeouts.request.unwrap_or(route.timeouts.request);
                    route.timeouts.backend = timeouts.backend_request.unwrap_or(route.timeouts.backend);
                }
                self.put(route, &at, found.mark);
            }
        }
    }

    fn grpc(&mut self, found: &Found<GrpcRoute>) {
        let Some(listeners) = self.listeners(&found.at, &found.spec.parent_refs) else { return };
        for (index, rule) in found.spec.rules.iter().enumerate() {
            let at = format!("{}.spec.rules[{index}]", found.at);
            let name = rule.name.clone().unwrap_or_else(|| index.to_string());
            let matches: Vec<config::Match> = rule.matches.iter().map(grpc_match).collect();
            for (number, one) in rule.matches.iter().enumerate() {
                if one.method.as_ref().is_some_and(|method| method.service.is_none() && method.method.is_none()) {
                    self.refuse(&format!("{at}.matches[{number}].method"), "needs a service, a method, or both");
                }
            }
            let mut filters = self.filters(&at, &rule.filters, found.namespace.as_deref(), true);
            for (number, filter) in filters.iter().enumerate() {
                if matches!(filter, Filter::Redirect(_) | Filter::Rewrite(_) | Filter::Cors(_)) {
                    self.refuse(&format!("{at}.filters[{number}].type"), "is no filter of a GRPCRoute");
                }
            }
            // Clients of gRPC take it for UNAVAILABLE.
            filters.extend(without_backends(&rule.backend_refs, &filters, 503));
            let targets = self.targets(&at, &rule.backend_refs, found.namespace.as_deref(), true);
            let whole = format!("{}/{name}", found.name);
            let session = rule.session_persistence.as_ref();
            let session = session.and_then(|one| self.session(&format!("{at}.sessionPersistence"), one, &whole));
            let route = Route {
                name: whole,
                listeners: listeners.clone(),
                hosts: found.spec.hostnames.clone(),
                matches,
                filters,
                backends: targets,
                session,
                // A stream may last as long as it likes.
                timeouts: RouteTimeouts { backend: Seconds::new(0), ..RouteTimeouts::default() },
                ..Route::default()
            };
            self.put(route, &at, found.mark);
        }
    }

    /// What the route's check says about it later is said at the rule.
    fn put(&mut self, route: Route, at: &str, mark: Mark) {
        let mark = self.decoder.mark_of(at).unwrap_or(mark);
        self.decoder.place(format!("spec.routes[{}]", self.spec.routes.len()), mark);
        self.spec.routes.push(route);
    }

    /// The listeners' names; empty: all that speak HTTP.
    fn listeners(&mut self, at: &str, parents: &[ParentRef]) -> Option<Vec<String>> {
        let mut names = Vec::new();
        for (index, parent) in parents.iter().enumerate() {
            let at = format!("{at}.spec.parentRefs[{index}]");
            if parent.group.as_deref().is_some_and(|group| group != GROUP)
                || parent.kind.as_deref().is_some_and(|kind| kind != "Gateway")
            {
                self.refuse(&at, "must be a Gateway");
                return None;
            }
            if parent.name != self.name {
                let message = format!("must be the name of the Proxy, `{}`", self.name);
                self.refuse(&format!("{at}.name"), &message);
                return None;
            }
            if parent.section_name.is_none() && parent.port.is_none() {
                return Some(Vec::new());
            }
            let wanted = |listener: &&config::Listener| {
                let port = match build::listen_address(&listener.address) {
                    Ok(Address::Tcp(address)) => Some(address.port()),
                    _ => None,
                };
                parent.section_name.as_ref().is_none_or(|name| *name == listener.name)
                    && (parent.port.is_none() || parent.port == port)
            };
            let found: Vec<String> =
                self.spec.listeners.iter().filter(wanted).map(|listener| listener.name.clone()).collect();
            if found.is_empty() {
                self.refuse(&at, "the Proxy has no such listener");
                return None;
            }
            names.extend(found);
        }
        names.sort();
        names.dedup();
        Some(names)
    }

    fn targets(
        &mut self,
        at: &str,
        references: &[BackendRef],
        namespace: Option<&str>,
        http2: bool,
    ) -> Vec<config::Target> {
        let mut targets = Vec::new();
        for (index, one) in references.iter().enumerate() {
            let at = format!("{at}.backendRefs[{index}]");
            let Some(name) = self.backend(&at, one, namespace, http2) else { continue };
            let mut target = config::Target { name, weight: one.weight, ..config::Target::default() };
            self.changes(&at, &one.filters, (namespace, http2), &mut target);
            targets.push(target);
        }
        targets
    }

    /// What is changed for one backend only.
    fn changes(
        &mut self,
        at: &str,
        filters: &[RouteFilter],
        (namespace, http2): (Option<&str>, bool),
        target: &mut config::Target,
    ) {
        for (index, filter) in filters.iter().enumerate() {
            let at = format!("{at}.filters[{index}]");
            if let FilterType::Cors | FilterType::ExtensionRef = filter.r#type {
                let message = "is no filter of a single backendRef here: it belongs to the rule";
                self.refuse(&format!("{at}.type"), message);
                continue;
            }
            if http2 && matches!(filter.r#type, FilterType::RequestRedirect | FilterType::UrlRewrite) {
                self.refuse(&format!("{at}.type"), "is no filter of a GRPCRoute");
                continue;
            }
            let made = self.filter(&at, filter, namespace, http2);
            let there = match made {
                Some(Filter::RequestHeaders(one)) => target.request_headers.replace(one).is_some(),
                Some(Filter::ResponseHeaders(one)) => target.response_headers.replace(one).is_some(),
                Some(Filter::Redirect(one)) => target.redirect.replace(one).is_some(),
                Some(Filter::Rewrite(one)) => target.rewrite.replace(one).is_some(),
                Some(Filter::Mirror(one)) => {
                    target.mirrors.push(one);
                    false
                }
                // What is wrong with it has been said.
                _ => continue,
            };
            if there {
                self.refuse(&at, "is there twice");
            }
        }
        if target.redirect.is_some() && target.rewrite.is_some() {
            self.refuse(&format!("{at}.filters"), "URLRewrite and RequestRedirect exclude each other");
        }
    }

    /// A backend of the proxy by `name:port` or `name`, or a new one with the name as its endpoint.
    fn backend(&mut self, at: &str, one: &BackendRef, namespace: Option<&str>, http2: bool) -> Option<String> {
        if one.group.as_deref().is_some_and(|group| !group.is_empty())
            || one.kind.as_deref().is_some_and(|kind| kind != "Service")
        {
            self.refuse(at, "must be a Service, or a backend of the Proxy");
            return None;
        }
        let with_port = one.port.map(|port| format!("{}:{port}", one.name));
        let known = |spec: &Spec, name: &str| spec.backends.iter().position(|backend| backend.name == name);
        let found =
            with_port.as_deref().and_then(|name| known(self.spec, name)).or_else(|| known(self.spec, &one.name));
        if let Some(number) = found {
            if http2 && !self.spec.backends[number].http2 {
                self.refuse(at, "a GRPCRoute needs a backend with `http2: true`");
            }
            return Some(self.spec.backends[number].name.clone());
        }
        let Some(port) = one.port else {
            self.refuse(at, "the Proxy has no backend of this name; a Service needs a port");
            return None;
        };
        // As a cluster's DNS resolves it, relative to the pod's own namespace if none is given.
        let host = match one.namespace.as_deref().or(namespace) {
            Some(namespace) => format!("{}.{namespace}", one.name),
            None => one.name.clone(),
        };
        let (endpoint, name) =
            (format!("{host}:{port}"), format!("{host}:{port}{}", if http2 { " (gRPC)" } else { "" }));
        if known(self.spec, &name).is_none() {
            let backend = Backend { name: name.clone(), endpoints: vec![endpoint], http2, ..Backend::default() };
            if let Some(mark) = self.decoder.mark_of(at) {
                self.decoder.place(format!("spec.backends[{}]", self.spec.backends.len()), mark);
            }
            self.spec.backends.push(backend);
        }
        Some(name)
    }

    fn timeouts(&mut self, at: &str, one: &RuleTimeouts) {
        if let (Some(request), Some(backend)) = (one.request, one.backend_request)
            && !request.0.is_zero()
            && backend.0 > request.0
        {
            self.refuse(&format!("{at}.backendRequest"), "must not be longer than request");
        }
    }

    /// The share of requests that are copied.
    fn percent(&mut self, at: &str, one: &RequestMirror) -> f64 {
        match (one.percent, &one.fraction) {
            (None, None) => 100.0,
            (Some(percent @ 0..=100), None) => f64::from(percent),
            (None, Some(part)) if part.numerator <= part.denominator && part.denominator > 0 => {
                f64::from(part.numerator) / f64::from(part.denominator) * 100.0
            }
            (Some(_), Some(_)) => {
                self.refuse(at, "has either a percent or a fraction");
                0.0
            }
            _ => {
                self.refuse(at, "must be a share of at most the whole");
                0.0
            }
        }
    }

    fn mirror(&mut self, at: &str, one: &RequestMirror, namespace: Option<&str>, http2: bool) -> Filter {
        let MirrorRef { group, kind, namespace: own, name, port } = one.backend_ref.clone();
        let to = BackendRef { group, kind, namespace: own, name, port, ..BackendRef::default() };
        let percent = self.percent(at, one);
        // What is wrong with the backend has been said.
        let backend = self.backend(&format!("{at}.backendRef"), &to, namespace, http2).unwrap_or_default();
        Filter::Mirror(config::filter::Mirror { backend, percent, ..config::filter::Mirror::default() })
    }

    /// One of the proxy's own filters.
    fn extension(&mut self, at: &str, one: &ExtensionRef) -> Option<Filter> {
        if one.group != OURS || one.kind != "Filter" {
            self.refuse(at, &format!("must be of the group {OURS} and the kind Filter"));
            return None;
        }
        let found = self.spec.filters.get(&one.name).cloned();
        if found.is_none() {
            self.refuse(&format!("{at}.name"), &format!("the Proxy has no filter `{}`", one.name));
        }
        found
    }

    fn filters(&mut self, at: &str, filters: &[RouteFilter], namespace: Option<&str>, http2: bool) -> Vec<Filter> {
        let places = (0..filters.len()).map(|index| format!("{at}.filters[{index}]"));
        filters.iter().zip(places).filter_map(|(one, at)| self.filter(&at, one, namespace, http2)).collect()
    }

    fn filter(&mut self, at: &str, filter: &RouteFilter, namespace: Option<&str>, http2: bool) -> Option<Filter> {
        let made = match filter.r#type {
            FilterType::RequestHeaderModifier => {
                filter.request_header_modifier.as_ref().and_then(headers).map(Filter::RequestHeaders)
            }
            FilterType::ResponseHeaderModifier => {
                filter.response_header_modifier.as_ref().and_then(headers).map(Filter::ResponseHeaders)
            }
            FilterType::RequestRedirect => filter.request_redirect.as_ref().map(|one| {
                Filter::Redirect(config::Redirect {
                    scheme: one.scheme.clone(),
                    host: one.hostname.clone(),
                    port: one.port,
                    path: one.path.as_ref().and_then(path_edit),
                    status: one.status_code,
                })
            }),
            FilterType::UrlRewrite => filter.url_rewrite.as_ref().map(|one| {
                let path = one.path.as_ref().and_then(path_edit);
                Filter::Rewrite(config::Rewrite { host: one.hostname.clone(), path })
            }),
            FilterType::RequestMirror => {
                let at = format!("{at}.requestMirror");
                filter.request_mirror.as_ref().map(|one| self.mirror(&at, one, namespace, http2))
            }
            FilterType::ExtensionRef => match &filter.extension_ref {
                Some(one) => match self.extension(&format!("{at}.extensionRef"), one) {
                    Some(found) => Some(found),
                    // What is wrong with it has been said.
                    None => return None,
                },
                None => None,
            },
            FilterType::Cors => filter.cors.as_ref().map(|one| {
                Filter::Cors(config::filter::Cors {
                    allow_origins: one.allow_origins.clone(),
                    allow_methods: one.allow_methods.clone(),
                    allow_headers: one.allow_headers.clone(),
                    expose_headers: one.expose_headers.clone(),
                    allow_credentials: one.allow_credentials,
                    max_age: Seconds::new(u64::from(one.max_age)),
                })
            }),
        };
        if made.is_none() {
            self.refuse(at, "has not what its type needs");
        }
        made
    }
}

/// What a rule without backends answers, if none of its filters does.
fn without_backends(references: &[BackendRef], filters: &[Filter], status: u16) -> Option<Filter> {
    let answers = filters.iter().any(|filter| matches!(filter, Filter::Redirect(_) | Filter::Respond(_)));
    (references.is_empty() && !answers).then(|| {
        let body = format!("{status} {}: the rule has no backends\n", dataplane::forward::reason(status));
        Filter::Respond(config::Respond { status, body, content_type: "text/plain; charset=utf-8".to_owned() })
    })
}

fn replaces_prefix(filter: &Filter) -> bool {
    let path = match filter {
        Filter::Redirect(redirect) => redirect.path.as_ref(),
        Filter::Rewrite(rewrite) => rewrite.path.as_ref(),
        _ => None,
    };
    matches!(path, Some(PathEdit::ReplacePrefix(_)))
}

fn path_edit(one: &PathModifier) -> Option<PathEdit> {
    match one.r#type {
        PathModification::Full => one.replace_full_path.clone().map(|path| PathEdit::Replace(Text(path))),
        // Nothing in place of the prefix is the root.
        PathModification::Prefix => one
            .replace_prefix_match
            .clone()
            .map(|path| PathEdit::ReplacePrefix(Text(if path.is_empty() { "/".to_owned() } else { path }))),
    }
}

fn headers(one: &HeaderModifier) -> Option<config::Headers> {
    let map = |list: &[document::HeaderValue]| -> BTreeMap<String, String> {
        list.iter().map(|one| (one.name.clone(), one.value.clone())).collect()
    };
    Some(config::Headers { set: map(&one.set), add: map(&one.add), remove: one.remove.clone() })
}

fn text(kind: Comparison, value: &str) -> TextMatch {
    match kind {
        Comparison::Exact => TextMatch::Exact(Text(value.to_owned())),
        // The whole value must be what the expression says.
        Comparison::Regex => TextMatch::Regex(Text(format!("^(?:{value})$"))),
    }
}

/// Of equal names the first counts.
fn values(list: &[NamedValue], fold: bool) -> BTreeMap<String, TextMatch> {
    let mut map = BTreeMap::new();
    for one in list {
        let name = if fold { one.name.to_ascii_lowercase() } else { one.name.clone() };
        map.entry(name).or_insert_with(|| text(one.r#type, &one.value));
    }
    map
}

fn http_match(one: &HttpMatch) -> config::Match {
    let path = one.path.as_ref().map_or(PathMatch::Prefix(Text("/".to_owned())), |path| match path.r#type {
        PathComparison::Exact => PathMatch::Exact(Text(path.value.clone())),
        PathComparison::Prefix => PathMatch::Prefix(Text(path.value.clone())),
        PathComparison::Regex => PathMatch::Regex(Text(format!("^(?:{})$", path.value))),
    });
    config::Match {
        path: Some(path),
        method: one.method.clone(),
        headers: values(&one.headers, true),
        query: values(&one.query_params, false),
    }
}

fn grpc_match(one: &GrpcMatch) -> config::Match {
    let path = one.method.as_ref().map(|method| match (method.r#type, &method.service, &method.method) {
        (Comparison::Exact, Some(service), Some(name)) => PathMatch::Exact(Text(format!("/{service}/{name}"))),
        (Comparison::Exact, None, Some(name)) => PathMatch::Call(Text(name.clone())),
        (Comparison::Exact, service, None) => {
            PathMatch::Prefix(Text(format!("/{}", service.as_deref().unwrap_or_default())))
        }
        (Comparison::Regex, service, name) => {
            let (service, name) = (service.as_deref().unwrap_or("[^/]+"), name.as_deref().unwrap_or("[^/]+"));
            PathMatch::Regex(Text(format!("^/(?:{service})/(?:{name})$")))
        }
    });
    config::Match { path, method: None, headers: values(&one.headers, true), query: BTreeMap::new() }
}
