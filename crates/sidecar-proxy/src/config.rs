//! The document `Proxy`.

use std::collections::BTreeMap;

use daemon::config::{Seconds, Size};
use daemon::{choice, document, one_of};

mod check;
pub mod filter;
pub mod telemetry;
pub use check::check;
pub use telemetry::{AccessLog, LogField, LogFormat, LogNames, Propagation, Tracing};

document! {
    /// Where requests come from, where they go, and what happens to them in between.
    pub struct Spec {
        /// Where to listen.
        listeners: Vec<Listener> = required,
        /// Which requests go where. The more specific host wins, then path, method, headers, query; then the order here.
        routes: Vec<Route> = default(Vec::new()),
        /// Groups of endpoints.
        backends: Vec<Backend> = required,
        /// Bounds of what clients may send.
        limits: Limits = default(Limits::default()),
        /// How long clients may take.
        timeouts: Timeouts = default(Timeouts::default()),
        /// What the application learns about the client (`X-Forwarded-For`, `-Proto`, `-Host`).
        forwarded: Forwarded = default(Forwarded::Append),
        /// Proxies in front of this one, as addresses and networks. Who the client is, is read from their `X-Forwarded-For`: its last
        /// address that is not one of these.
        trusted_proxies: Vec<String> = default(Vec::new()),
        /// Whether WebSocket connections may be made (RFC 6455). Other upgrades are not passed on.
        web_socket: bool = default(true),
        /// What becomes of paths with `.` or `..` segments, plain or encoded.
        dot_segments: DotSegments = default(DotSegments::Refuse),
        /// A line for every request. Without, there is none.
        access_log: Option<AccessLog> = optional,
        /// Traces: read from requests or begun here, passed on, and sent to the collector that `OTEL_EXPORTER_OTLP_ENDPOINT` names.
        /// Without, trace fields are passed on as they are.
        tracing: Option<Tracing> = optional,
        /// Threads, each with its own connections; 0: as many as CPUs may be used. Threads that a reload makes superfluous end
        /// with their last connection.
        workers: u16 = default(0),
    }
}

document! {
    /// One place to listen.
    pub struct Listener {
        /// The name, as routes and metrics call it.
        name: String = required,
        /// `:8080`, `127.0.0.1:8080`, `[::1]:8080` or `unix:/path`. Without a host: every address.
        address: String = required,
        /// Whether HTTP/1 is spoken. Without it every connection must be HTTP/2 from its first byte.
        http1: bool = default(true),
        /// Whether HTTP/2 is spoken, too: over TLS if the client asks for it, without TLS if it begins with it.
        http2: bool = default(true),
        /// Everything goes to this backend as it comes, TCP without HTTP.
        tcp: Option<String> = optional,
        /// Whether every connection begins with a PROXY protocol header, version 1 or 2, that says where it came from. One
        /// without is cut; whoever can reach such a listener is believed.
        proxy_protocol: bool = default(false),
        /// Whether it is the application that connects here, to reach others. When the proxy ends, such connections are not asked
        /// to end: it waits until the application has closed them, or for the deadline.
        outbound: bool = default(false),
        /// Encryption.
        tls: Option<ServerTls> = optional,
    }
}

document! {
    /// TLS for clients; 1.2 and 1.3. Files are read again when they change, also by Kubernetes' swap of a secret's link.
    pub struct ServerTls {
        /// Chains with their keys. The client's server name chooses; the first is for everybody else.
        certificates: Vec<Certificate> = required,
        /// Certificates that clients must be signed by.
        client_ca_file: Option<String> = optional,
        /// Whether clients must have a certificate, if there is a `clientCaFile`.
        client_certificate: ClientCertificate = default(ClientCertificate::Required),
        /// The oldest version.
        min_version: TlsVersion = default(TlsVersion::Tls12),
    }
}

choice! {
    /// Whether clients must have a certificate.
    pub enum ClientCertificate {
        /// No connection without.
        Required = "required",
        /// One that is given must be good.
        Optional = "optional",
    }
}

choice! {
    /// Versions of TLS.
    pub enum TlsVersion {
        /// TLS 1.2.
        Tls12 = "1.2",
        /// TLS 1.3.
        Tls13 = "1.3",
    }
}

document! {
    /// A chain with its key.
    pub struct Certificate {
        /// PEM, the server's first.
        cert_file: String = required,
        /// PEM: PKCS#8, PKCS#1 or SEC 1; ECDSA, RSA or Ed25519.
        key_file: String = required,
    }
}

document! {
    /// Which requests, and where they go.
    pub struct Route {
        /// The name, as metrics and the log call it.
        name: String = required,
        /// Listeners it is for; empty: all that speak HTTP.
        listeners: Vec<String> = default(Vec::new()),
        /// `example.com` or `*.example.com`; empty: any.
        hosts: Vec<String> = default(Vec::new()),
        /// Any of these; empty: everything.
        matches: Vec<Match> = default(Vec::new()),
        /// What happens to the request and its answer, in this order.
        filters: Vec<Filter> = default(Vec::new()),
        /// Where requests go, by weight.
        backends: Vec<Target> = default(Vec::new()),
        /// How long it may take.
        timeouts: RouteTimeouts = default(RouteTimeouts::default()),
        /// What is tried again.
        retries: Retries = default(Retries::default()),
        /// A request's body may have this many bytes; 0: any number.
        max_body: Size = default(Size(0)),
        /// Takes `CONNECT`, and nothing else: a request for one of `hosts`, whatever the port, becomes a tunnel to a backend.
        connect: bool = default(false),
        /// `Server-Timing` in every answer; else only if the request has `X-Outrigger-Timing`.
        server_timing: bool = default(false),
    }
}

document! {
    /// All that is given must hold.
    pub struct Match {
        /// The path, without the query.
        path: Option<PathMatch> = optional,
        /// The method, as it is sent.
        method: Option<String> = optional,
        /// Header fields by name.
        headers: BTreeMap<String, TextMatch> = default(BTreeMap::new()),
        /// Query parameters by name.
        query: BTreeMap<String, TextMatch> = default(BTreeMap::new()),
    }
}

one_of! {
    /// A path.
    pub enum PathMatch {
        /// This path and no other.
        Exact(Text) = "exact",
        /// Whole segments at its beginning: `/a` takes `/a` and `/a/b`, not `/ab`.
        Prefix(Text) = "prefix",
        /// A regular expression; anchor it with `^` and `$`.
        Regex(Text) = "regex",
    }
}

one_of! {
    /// A value.
    pub enum TextMatch {
        /// This value.
        Exact(Text) = "exact",
        /// A regular expression; anchor it with `^` and `$`.
        Regex(Text) = "regex",
    }
}

/// A single text where a map of fields could stand.
#[derive(Clone, Debug, PartialEq)]
pub struct Text(pub String);

impl daemon::config::Document for Text {
    fn decode(node: &daemon::config::tree::Node, decoder: &mut daemon::config::Decoder) -> Option<Text> {
        String::decode(node, decoder).map(Text)
    }
    fn schema() -> daemon::config::Schema {
        String::schema()
    }
    fn print(&self) -> daemon::config::print::Value {
        self.0.print()
    }
}

one_of! {
    /// One step.
    pub enum Filter {
        /// Changes the request's header.
        RequestHeaders(Headers) = "requestHeaders",
        /// Changes the answer's header.
        ResponseHeaders(Headers) = "responseHeaders",
        /// Sends the client elsewhere.
        Redirect(Redirect) = "redirect",
        /// Changes what the application is asked for.
        Rewrite(Rewrite) = "rewrite",
        /// Answers at once.
        Respond(Respond) = "respond",
        /// Allows, denies and logs by address, method, path, fields and query.
        Rules(Vec<filter::Rule>) = "rules",
        /// A starter rule set against common attacks.
        Attacks(filter::Attacks) = "attacks",
        /// Bounds of the request's head.
        Sizes(filter::Sizes) = "sizes",
    }
}

document! {
    /// Changes of a header: first `remove`, then `set`, then `add`.
    pub struct Headers {
        /// In place of whatever had this name.
        set: BTreeMap<String, String> = default(BTreeMap::new()),
        /// Besides whatever has this name.
        add: BTreeMap<String, String> = default(BTreeMap::new()),
        /// Names that go away.
        remove: Vec<String> = default(Vec::new()),
    }
}

one_of! {
    /// A new path.
    pub enum PathEdit {
        /// In place of the matched prefix.
        ReplacePrefix(Text) = "replacePrefix",
        /// In place of the whole path.
        Replace(Text) = "replace",
    }
}

document! {
    /// Sends the client elsewhere; what is not given stays as it was. The query is kept.
    pub struct Redirect {
        /// `http` or `https`.
        scheme: Option<String> = optional,
        /// The host.
        host: Option<String> = optional,
        /// The port.
        port: Option<u16> = optional,
        /// The path.
        path: Option<PathEdit> = optional,
        /// 301, 302, 303, 307 or 308.
        status: u16 = default(302),
    }
}

document! {
    /// Changes what the application is asked for.
    pub struct Rewrite {
        /// The host.
        host: Option<String> = optional,
        /// The path.
        path: Option<PathEdit> = optional,
    }
}

document! {
    /// An answer without any backend.
    pub struct Respond {
        /// From 200 to 599.
        status: u16 = required,
        /// The body.
        body: String = default(String::new()),
        /// What the body is.
        content_type: String = default("text/plain; charset=utf-8".to_owned()),
    }
}

document! {
    /// A share of the requests.
    pub struct Target {
        /// The backend.
        name: String = required,
        /// Its share is this of the sum of all weights.
        weight: u32 = default(1),
    }
}

document! {
    /// How long it may take.
    pub struct RouteTimeouts {
        /// The whole exchange, tries included; 0s: no bound.
        request: Seconds = default(Seconds::new(0)),
        /// From the request's end to the answer's head, each try; 0s: no bound.
        backend: Seconds = default(Seconds::new(60)),
    }
}

impl Default for RouteTimeouts {
    fn default() -> RouteTimeouts {
        RouteTimeouts { request: Seconds::new(0), backend: Seconds::new(60) }
    }
}

document! {
    /// What is tried again, at another endpoint if there is one. A request is tried again only if no byte of it was sent, or if
    /// doing it twice does no harm (GET, HEAD, OPTIONS, TRACE, PUT, DELETE); never when its body is gone already. A
    /// pooled connection that turns out to be closed is replaced besides.
    pub struct Retries {
        /// Tries after the first.
        attempts: u32 = default(2),
        /// Answers that are tried again: 500, 502, 503, 504. 504 is also an answer that takes too long.
        statuses: Vec<u16> = default(Vec::new()),
    }
}

impl Default for Retries {
    fn default() -> Retries {
        Retries { attempts: 2, statuses: Vec::new() }
    }
}

document! {
    /// A group of endpoints.
    pub struct Backend {
        /// The name.
        name: String = required,
        /// `host:port` or `unix:/path`. Every address of a name is an endpoint; names are looked up again every `resolveEvery`.
        endpoints: Vec<String> = required,
        /// Whether HTTP/2 is spoken: over TLS, or without from the first byte (h2c). gRPC needs it.
        http2: bool = default(false),
        /// Whose turn it is.
        balance: Balance = default(Balance::RoundRobin),
        /// How often names are looked up.
        resolve_every: Seconds = default(Seconds::new(30)),
        /// For connecting.
        connect_timeout: Seconds = default(Seconds::new(5)),
        /// Idle connections are closed after this time, or sooner if the backend says or shows that it closes them sooner.
        idle_timeout: Seconds = default(Seconds::new(60)),
        /// Idle connections kept, for each endpoint and worker.
        idle_connections: u32 = default(256),
        /// Requests in flight; more are refused with 503. 0: any number.
        max_requests: u32 = default(0),
        /// Retries per hundred requests, besides ten a second.
        retry_percent: u32 = default(20),
        /// Asks endpoints whether they are well.
        active_health: Option<ActiveHealth> = optional,
        /// Leaves endpoints out that fail.
        passive_health: PassiveHealth = default(PassiveHealth::default()),
        /// Every connection begins with a PROXY protocol header of this version, before TLS; such a connection serves one
        /// client only.
        proxy_protocol: Option<ProxyProtocol> = optional,
        /// Encryption.
        tls: Option<ClientTls> = optional,
    }
}

choice! {
    /// Versions of the PROXY protocol.
    pub enum ProxyProtocol {
        /// A line of text.
        V1 = "v1",
        /// Binary.
        V2 = "v2",
    }
}

choice! {
    /// Whose turn it is.
    pub enum Balance {
        /// One after the other.
        RoundRobin = "roundRobin",
        /// The one with the fewest requests in flight.
        LeastRequest = "leastRequest",
        /// Of two taken by chance, the one that is expected to answer sooner.
        P2cEwma = "p2cEwma",
    }
}

document! {
    /// Asks endpoints whether they are well. An endpoint that is not gets no requests, unless all are not.
    pub struct ActiveHealth {
        /// A path that must answer 2xx or 3xx; without, connecting is enough.
        path: Option<String> = optional,
        /// The host that is asked for.
        host: Option<String> = optional,
        /// Between two questions.
        interval: Seconds = default(Seconds::new(5)),
        /// For an answer.
        timeout: Seconds = default(Seconds::new(2)),
        /// Failures in a row after which an endpoint is not well.
        failures: u32 = default(2),
        /// Successes in a row after which it is well again.
        successes: u32 = default(1),
    }
}

document! {
    /// Leaves endpoints out that fail to connect, close, time out or answer 5xx.
    pub struct PassiveHealth {
        /// Failures in a row; 0: never.
        failures: u32 = default(5),
        /// For how long; the n-th time in a row n times as long, up to ten.
        ejection: Seconds = default(Seconds::new(10)),
        /// Never are more endpoints left out, of a hundred.
        max_ejected_percent: u32 = default(50),
    }
}

impl Default for PassiveHealth {
    fn default() -> PassiveHealth {
        PassiveHealth { failures: 5, ejection: Seconds::new(10), max_ejected_percent: 50 }
    }
}

document! {
    /// TLS towards a backend.
    pub struct ClientTls {
        /// The name that must be in its certificate, and that is sent as SNI; without, the endpoint's host.
        server_name: Option<String> = optional,
        /// PEM certificates to trust instead of the machine's.
        ca_file: Option<String> = optional,
        /// A PEM chain to present.
        cert_file: Option<String> = optional,
        /// Its PEM key.
        key_file: Option<String> = optional,
    }
}

document! {
    /// Bounds of what clients may send.
    pub struct Limits {
        /// Bytes of a head; up to 32Ki.
        head: Size = default(Size(16 << 10)),
        /// Fields of a head.
        fields: u32 = default(100),
        /// Connections of one worker; 0: as many as descriptors allow.
        connections: u32 = default(0),
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { head: Size(16 << 10), fields: 100, connections: 0 }
    }
}

document! {
    /// How long clients may take. 0s: no bound.
    pub struct Timeouts {
        /// For a head, from its first byte.
        head: Seconds = default(Seconds::new(15)),
        /// Between two pieces of a body, in either direction.
        body: Seconds = default(Seconds::new(60)),
        /// Between two requests of a connection.
        idle: Seconds = default(Seconds::new(75)),
        /// Without a byte, of a WebSocket or TCP connection.
        tunnel: Seconds = default(Seconds::new(3600)),
    }
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts { head: Seconds::new(15), body: Seconds::new(60), idle: Seconds::new(75), tunnel: Seconds::new(3600) }
    }
}

choice! {
    /// What happens to `X-Forwarded-*`.
    pub enum Forwarded {
        /// The client's address is added to what it sent.
        Append = "append",
        /// What the client sent is thrown away: right where clients are not trusted.
        Replace = "replace",
        /// What the client sent is passed on, nothing is added.
        Pass = "pass",
    }
}

choice! {
    /// What becomes of paths with dot segments.
    pub enum DotSegments {
        /// 400: who asks for them wants to get past a rule.
        Refuse = "refuse",
        /// Passed on as they are.
        Pass = "pass",
    }
}
