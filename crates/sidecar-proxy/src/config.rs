//! The document `Proxy`.

use std::collections::BTreeMap;
use std::time::Duration;

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
        /// Filters by name, for routes of the Gateway API (`ExtensionRef`). Each rule that refers to one has it for itself: limits
        /// are not shared.
        filters: BTreeMap<String, Filter> = default(BTreeMap::new()),
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
        /// What becomes of paths with `.` or `..` segments, plain or encoded, also between encoded slashes, and with an encoded NUL.
        dot_segments: DotSegments = default(DotSegments::Refuse),
        /// What becomes of paths that another route would take, or none, with percent-encoding undone, several slashes as one,
        /// `\` as a slash and `;parameters` cut off, as many applications read them.
        ambiguous_paths: AmbiguousPaths = default(AmbiguousPaths::Refuse),
        /// Name servers, `ADDRESS` or `ADDRESS:PORT`; without, those of `/etc/resolv.conf`, whose other settings count in any case.
        name_servers: Vec<String> = default(Vec::new()),
        /// Where this proxy is; endpoints in the same zone are preferred.
        zone: Option<String> = optional,
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
        /// As `tcp`, but by weight, and by the server name that the client's TLS asks for, which is passed on as it is.
        tcp_routes: Vec<TcpRoute> = default(Vec::new()),
        /// Whether every connection begins with a PROXY protocol header, version 1 or 2, that says where it came from. One
        /// without is cut; whoever can reach such a listener is believed.
        proxy_protocol: bool = default(false),
        /// Whether connections are redirected here by a rule of the kernel (`outrigger-proxy redirect`); one that is not is cut, and so
        /// is one of the proxy itself. Needs an address of one family: `0.0.0.0:PORT` or `[::]:PORT`.
        transparent: bool = default(false),
        /// Whether it is the application that connects here, to reach others. When the proxy ends, such connections are not asked
        /// to end: it waits until the application has closed them, or for the deadline.
        outbound: bool = default(false),
        /// Encryption.
        tls: Option<ServerTls> = optional,
    }
}

impl Listener {
    /// Not plain TCP.
    pub fn speaks_http(&self) -> bool {
        self.tcp.is_none() && self.tcp_routes.is_empty()
    }
}

document! {
    /// Which connections, and where they go. If any route of the listener has `hosts`, every connection must begin with TLS, whose
    /// first message is read for the name (RFC 6066 §3). One that no route takes gets the alert `unrecognized_name`.
    pub struct TcpRoute {
        /// `example.com`, or `*.example.com` for all names below it; the more specific wins. Empty: whatever no other route takes.
        hosts: Vec<String> = default(Vec::new()),
        /// Where connections go, by weight.
        backends: Vec<Target> = required,
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
        /// An OCSP response in DER that clients are given with the certificate if they ask for it (RFC 6066 §8).
        ocsp_file: Option<String> = optional,
    }
}

document! {
    /// Which requests, and where they go.
    pub struct Route : Default {
        /// The name, as metrics and the log call it.
        name: String = required,
        /// Listeners it is for; empty: all that speak HTTP.
        listeners: Vec<String> = default(Vec::new()),
        /// `example.com` or `*.example.com`; empty: any. With `connect`, `example.com:5432` is for this port alone.
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
        /// What brings a client back to its endpoint as long as that is well and there, whichever of `backends` has it: before
        /// weights, also one of 0, and in place of the backends' `sticky`.
        session: Option<Session> = optional,
        /// A request's body may have this many bytes; 0: any number.
        max_body: Size = default(Size(0)),
        /// Takes `CONNECT`, and nothing else: a request for one of `hosts`, of any port if it names none, becomes a tunnel
        /// to a backend.
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
        /// A method of gRPC, whatever its service: `/SERVICE/METHOD`. Less specific than a prefix.
        Call(Text) = "call",
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
        /// How many requests may come in a time.
        RateLimit(filter::RateLimit) = "rateLimit",
        /// How many requests may come in a time, for many proxies together.
        SharedRateLimit(filter::SharedRateLimit) = "sharedRateLimit",
        /// How many requests may be in flight.
        Concurrency(filter::Concurrency) = "concurrency",
        /// Which other sites' pages may ask.
        Cors(filter::Cors) = "cors",
        /// A copy of the request for another backend.
        Mirror(filter::Mirror) = "mirror",
        /// Who is let in, by certificate.
        Identities(filter::Identities) = "identities",
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
        /// The port. Without: the one of `scheme`, or, if there is none either, the one the client has asked at (its `Host`).
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
    pub struct Target : Default {
        /// The backend.
        name: String = required,
        /// Its share is this of the sum of all weights.
        weight: u32 = default(1),
        /// Changes the header of requests that go there, after the route's filters.
        request_headers: Option<Headers> = optional,
        /// Changes the header of its answers, before the route's filters.
        response_headers: Option<Headers> = optional,
        /// Changes what it is asked for, in place of what the route's filters say.
        rewrite: Option<Rewrite> = optional,
        /// Sends those clients elsewhere who would go there; it gets no requests.
        redirect: Option<Redirect> = optional,
        /// Copies of requests that go there, for other backends.
        mirrors: Vec<filter::Mirror> = default(Vec::new()),
    }
}

impl Target {
    /// What is asked if it is chosen, in this order.
    pub fn filters(&self) -> impl Iterator<Item = Filter> {
        let redirect = self.redirect.iter().cloned().map(Filter::Redirect);
        let rewrite = self.rewrite.iter().cloned().map(Filter::Rewrite);
        redirect.chain(rewrite).chain(self.mirrors.iter().cloned().map(Filter::Mirror))
    }
}

document! {
    /// How long it may take.
    pub struct RouteTimeouts : Default {
        /// The whole exchange, tries included; 0s: no bound. 504 is the answer, or 408 if the request's body has not come.
        request: Seconds = default(Seconds::new(0)),
        /// From the request's end to the answer's head, each try; 0s: no bound.
        backend: Seconds = default(Seconds::new(60)),
    }
}

document! {
    /// What is tried again, at another endpoint if there is one. A request is tried again only if no byte of it was sent, or if
    /// doing it twice does no harm (GET, HEAD, OPTIONS, TRACE, PUT, DELETE); never when its body is gone already. A
    /// pooled connection that turns out to be closed is replaced besides.
    pub struct Retries : Default {
        /// Tries after the first.
        attempts: u32 = default(2),
        /// Failures that are tried again.
        on: Vec<RetryOn> = default(vec![RetryOn::Connect, RetryOn::Refused, RetryOn::Reset]),
        /// Answers that are tried again, from 500 to 599. 504 is also an answer that takes too long.
        statuses: Vec<u16> = default(Vec::new()),
        /// Before every further try at least this passes.
        min_backoff: Seconds = default(Seconds::new(0)),
        /// Beyond that, any time up to this passes before the second try, twice as much before each further one. Where no byte was
        /// sent, another endpoint is tried without it. 0s: none.
        backoff: Seconds = default(Seconds(Duration::from_millis(25))),
        /// The longest such time.
        max_backoff: Seconds = default(Seconds(Duration::from_millis(500))),
        /// For each try, from choosing the endpoint, or from the request's last byte if that comes later, to the answer's head;
        /// 0s: no bound.
        per_try_timeout: Seconds = default(Seconds::new(0)),
        /// After this time without an answer a second endpoint is asked, too; the first answer is taken, the other given up. Only
        /// what may be done twice, and paid for like a retry. 0s: never.
        hedge_after: Seconds = default(Seconds::new(0)),
    }
}

one_of! {
    /// What carries a session.
    pub enum Session {
        /// A cookie.
        Cookie(SessionCookie) = "cookie",
        /// A field of the answer, which the client must put into its next requests.
        Header(SessionHeader) = "header",
    }
}

document! {
    /// A cookie. Its value is a digest of the endpoint's address, with the time at which the session ends if it does.
    pub struct SessionCookie {
        /// The cookie's name.
        name: String = required,
        /// For which paths.
        path: String = default("/".to_owned()),
        /// Whole seconds after which the client is anybody again, by this proxy's clock; 0s: never.
        lifetime: Seconds = default(Seconds::new(0)),
        /// Whether the client keeps it for its `lifetime` (`Max-Age`); else until the client ends.
        permanent: bool = default(false),
        /// Only over TLS.
        secure: bool = default(false),
    }
}

document! {
    /// A field. Its value is that of a cookie.
    pub struct SessionHeader {
        /// The field's name.
        name: String = required,
        /// As a cookie's.
        lifetime: Seconds = default(Seconds::new(0)),
    }
}

choice! {
    /// A failure that is tried again.
    pub enum RetryOn {
        /// No connection: no byte was sent.
        Connect = "connect",
        /// The backend refused the stream unseen (HTTP/2).
        Refused = "refused",
        /// The connection or the stream ended before the answer's head.
        Reset = "reset",
        /// The try took too long.
        Timeout = "timeout",
    }
}

document! {
    /// A group of endpoints.
    pub struct Backend : Default {
        /// The name.
        name: String = required,
        /// `host:port` or `unix:/path`. Every address of a name is an endpoint; names are looked up again when their time to live is over, at the latest after `resolveEvery`.
        endpoints: Vec<String> = default(Vec::new()),
        /// Whether HTTP/2 is spoken: over TLS, or without from the first byte (h2c). gRPC needs it.
        http2: bool = default(false),
        /// Whether endpoints with `http2` and without `tls` speak HTTP/1.1, too. A WebSocket goes that way to one that has not announced
        /// that it takes them over HTTP/2 (RFC 8441 §3); over TLS the handshake (ALPN) tells whether it can.
        http1: bool = default(false),
        /// Endpoints of which there is more to say than where they are.
        members: Vec<Member> = default(Vec::new()),
        /// Endpoints that are found elsewhere.
        discover: Vec<Discover> = default(Vec::new()),
        /// Whose turn it is.
        balance: Balance = default(Balance::RoundRobin),
        /// What `ringHash` and `maglev` go by; without, the client's address.
        hash_on: Option<HashOn> = optional,
        /// A cookie that brings a client back to its endpoint as long as that is well and there.
        sticky: Option<Sticky> = optional,
        /// In this time a new endpoint, or one that was not well, comes to its full share, from a tenth; 0s: at once.
        slow_start: Seconds = default(Seconds::new(0)),
        /// Only some of the endpoints.
        subset: Option<Subset> = optional,
        /// While this many of a hundred endpoints in the own `zone` are well, no request leaves it; below that, in proportion.
        zone_overflow_percent: u32 = default(70),
        /// When fewer of a hundred endpoints are well, health is not believed and all are used; 0: only when none is.
        panic_percent: u32 = default(0),
        /// How often names are looked up at least.
        resolve_every: Seconds = default(Seconds::new(30)),
        /// For connecting.
        connect_timeout: Seconds = default(Seconds::new(5)),
        /// Idle connections are closed after this time, or sooner if the backend says or shows that it closes them sooner.
        idle_timeout: Seconds = default(Seconds::new(60)),
        /// Idle connections kept, for each endpoint and worker.
        idle_connections: u32 = default(256),
        /// Requests in flight; more wait (`limits.pending`) or are refused with 503. 0: any number.
        max_requests: u32 = default(0),
        /// What it may be burdened with besides.
        limits: BackendLimits = default(BackendLimits::default()),
        /// Retries per hundred requests, besides ten a second.
        retry_percent: u32 = default(20),
        /// Asks endpoints whether they are well.
        active_health: Option<ActiveHealth> = optional,
        /// Leaves endpoints out that fail.
        passive_health: PassiveHealth = default(PassiveHealth::default()),
        /// Whether connections go where the client wanted to go before it was redirected to a `transparent` listener; then
        /// `endpoints`, `members` and `discover` must be `[]`.
        original_destination: bool = default(false),
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
        /// Of two taken by chance, the one that is expected to answer sooner, by what its answers took without the making of
        /// connections; one that has never answered is asked by one request of a worker until it has.
        P2cEwma = "p2cEwma",
        /// The same key goes to the same endpoint; who comes or goes moves no other's keys.
        RingHash = "ringHash",
        /// The same key goes to the same endpoint; more even than a ring, moving a little more.
        Maglev = "maglev",
    }
}

document! {
    /// An endpoint of which there is more to say.
    pub struct Member {
        /// `host:port` or `unix:/path`.
        address: String = required,
        /// Its share, compared with others; 0: only what sticks to it, or when there is no other.
        weight: u32 = default(1),
        /// Where it is.
        zone: Option<String> = optional,
        /// What `subset` chooses by.
        labels: BTreeMap<String, String> = default(BTreeMap::new()),
    }
}

one_of! {
    /// Where endpoints are found. A source that fails leaves what it said last.
    pub enum Discover {
        /// A file with a list, YAML or JSON, of texts (`ADDRESS:PORT`) or maps like `members`; read again when it changes.
        File(Text) = "file",
        /// SRV records of this name, such as `_http._tcp.app.default.svc.cluster.local`: the best priority, with its weights.
        Srv(Text) = "srv",
        /// A service's EndpointSlices, watched.
        Kubernetes(KubernetesService) = "kubernetes",
        /// A service in Consul: the instances whose checks pass.
        Consul(ConsulService) = "consul",
    }
}

document! {
    /// A service's EndpointSlices. Its pods that are ready; if there is none, those that end but still serve. Zones are those of
    /// the slices; labels are `pod` and `node`. The service account needs `list` and `watch` of `endpointslices`.
    pub struct KubernetesService {
        /// The service.
        service: String = required,
        /// Its namespace; without, the pod's.
        namespace: Option<String> = optional,
        /// The port's name or number; without, the first.
        port: Option<String> = optional,
        /// The API, such as `https://10.96.0.1:443`; without, the one the pod is told.
        api: Option<String> = optional,
        /// Without, the pod's service account's.
        token_file: Option<String> = optional,
        /// PEM certificates to trust; without, the pod's service account's.
        ca_file: Option<String> = optional,
    }
}

document! {
    /// A service in Consul; its instances' `Meta` are labels, their weights count.
    pub struct ConsulService {
        /// The service.
        service: String = required,
        /// The agent.
        address: String = default("http://127.0.0.1:8500".to_owned()),
        /// Only instances with this tag.
        tag: Option<String> = optional,
        /// Without, the agent's.
        datacenter: Option<String> = optional,
        /// A file with the token.
        token_file: Option<String> = optional,
        /// PEM certificates to trust instead of the machine's.
        ca_file: Option<String> = optional,
    }
}

document! {
    /// What of a request decides where it goes: the first of these, in this order, that is given and that the request has.
    pub struct HashOn {
        /// A header field.
        header: Option<String> = optional,
        /// A cookie.
        cookie: Option<String> = optional,
        /// The path, without the query.
        path: bool = default(false),
        /// The client's address.
        client_address: bool = default(true),
    }
}

document! {
    /// A cookie that brings a client back to its endpoint. Its value is a digest of the endpoint's address: it survives restarts
    /// and changes of the list, and tells nobody the address.
    pub struct Sticky {
        /// The cookie's name.
        cookie: String = required,
        /// For how long; 0s: until the client ends.
        max_age: Seconds = default(Seconds::new(0)),
        /// For which paths.
        path: String = default("/".to_owned()),
        /// Only over TLS.
        secure: bool = default(false),
        /// A file whose content makes values unguessable; the same for all replicas.
        secret_file: Option<String> = optional,
    }
}

document! {
    /// Only some of the endpoints: those with these labels, and of them a few.
    pub struct Subset {
        /// Labels an endpoint must have.
        labels: BTreeMap<String, String> = default(BTreeMap::new()),
        /// How many; the same ones as long as they are there, others for other proxies. 0: all.
        size: u32 = default(0),
        /// Which proxy this is; without, the host's name, which is the pod's.
        identity: Option<String> = optional,
    }
}

/// Below half of the 28,232 ports Linux has for one address unless told otherwise: connect(2) looks through every second
/// one first. Clients with HTTP/2 may ask for a hundred times as many as they are.
const ENDPOINT_CONNECTIONS: u32 = 10_000;

document! {
    /// Bounds over all workers; 0: none. A request that finds no room waits, if it may, and then gets 503; its
    /// `X-Outrigger-Failure`, and the log, say `overflow` or `pending_timeout`.
    pub struct BackendLimits : Default {
        /// Connections to all endpoints together.
        connections: u32 = default(0),
        /// Connections to each endpoint. The kernel finds a port for a new one quickly while fewer than half of its ports
        /// (`ip_local_port_range`) are taken, and needs milliseconds beyond that, in which nobody is served.
        endpoint_connections: u32 = default(ENDPOINT_CONNECTIONS),
        /// Requests in flight at each endpoint.
        endpoint_requests: u32 = default(0),
        /// Requests that wait for room.
        pending: u32 = default(0),
        /// How long they wait.
        pending_timeout: Seconds = default(Seconds::new(5)),
    }
}

document! {
    /// Asks endpoints whether they are well. An endpoint that is not gets no requests, unless all are not.
    pub struct ActiveHealth {
        /// A path that must answer 2xx or 3xx; without, connecting is enough.
        path: Option<String> = optional,
        /// A service that gRPC's health service (grpc.health.v1) must say is serving; empty: the server as a whole. Needs `http2`.
        grpc_service: Option<String> = optional,
        /// The host that is asked for.
        host: Option<String> = optional,
        /// Between two questions, a tenth more or less.
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
    pub struct PassiveHealth : Default {
        /// Failures in a row; 0: never.
        failures: u32 = default(5),
        /// For how long; the n-th time in a row n times as long, up to ten.
        ejection: Seconds = default(Seconds::new(10)),
        /// Never are more endpoints left out, of a hundred.
        max_ejected_percent: u32 = default(50),
    }
}

document! {
    /// TLS towards others.
    pub struct ClientTls : Default {
        /// The name that must be in the certificate, and that is sent as SNI; without, the host of the endpoints, which must all have
        /// the same one.
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
    pub struct Limits : Default {
        /// Bytes of a head; up to 32Ki.
        head: Size = default(Size(16 << 10)),
        /// Fields of a head.
        fields: u32 = default(100),
        /// Connections of one worker; more are closed at once. 0: any number, but in a cgroup with a memory limit all workers
        /// together as many as it has room for: 6Mi for the program and 256Ki for each worker taken off, 16Ki for each connection
        /// if a listener has TLS or `tcpRoutes` with hosts, else 4Ki. In any case all workers together at most half of the
        /// descriptors that may be open (`ulimit -Hn`), so that as many are left for backends.
        connections: u32 = default(0),
    }
}

document! {
    /// How long clients may take. 0s: no bound.
    pub struct Timeouts : Default {
        /// For a head, from its first byte; for TLS' first message where it is read for its server name, from the connection.
        head: Seconds = default(Seconds::new(15)),
        /// Between two pieces of a body, in either direction; and for a client to take what has come.
        body: Seconds = default(Seconds::new(60)),
        /// Between two requests of a connection.
        idle: Seconds = default(Seconds::new(75)),
        /// Without a byte, of a WebSocket or TCP connection, or a call of gRPC over HTTP/2 (`te: trailers` and a `content-type` of
        /// `application/grpc`).
        tunnel: Seconds = default(Seconds::new(3600)),
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
    /// What becomes of paths with dot segments (also between encoded slashes) or an encoded NUL.
    pub enum DotSegments {
        /// 400: who asks for them wants to get past a rule.
        Refuse = "refuse",
        /// Passed on as they are.
        Pass = "pass",
    }
}

choice! {
    /// What becomes of paths that are one route's as sent and another's as applications may read them.
    pub enum AmbiguousPaths {
        /// 400: the filters of one route would not be asked.
        Refuse = "refuse",
        /// The route is chosen by the path as sent.
        Pass = "pass",
    }
}
