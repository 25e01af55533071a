//! The documents of the Gateway API, as far as they are understood here; whatever else they have is refused at its place.

use daemon::config::Seconds;
use daemon::{choice, document};

document! {
    /// `HTTPRoute`.
    pub struct HttpRoute {
        /// The proxy and its listeners.
        parent_refs: Vec<ParentRef> = default(Vec::new()),
        /// Hosts.
        hostnames: Vec<String> = default(Vec::new()),
        /// Rules.
        rules: Vec<HttpRule> = required,
    }
}

document! {
    /// `GRPCRoute`.
    pub struct GrpcRoute {
        /// The proxy and its listeners.
        parent_refs: Vec<ParentRef> = default(Vec::new()),
        /// Hosts.
        hostnames: Vec<String> = default(Vec::new()),
        /// Rules.
        rules: Vec<GrpcRule> = required,
    }
}

document! {
    /// `TCPRoute`.
    pub struct TcpRoute {
        /// The proxy and its listeners.
        parent_refs: Vec<ParentRef> = default(Vec::new()),
        /// Rules.
        rules: Vec<TcpRule> = required,
    }
}

document! {
    /// `TLSRoute`.
    pub struct TlsRoute {
        /// The proxy and its listeners.
        parent_refs: Vec<ParentRef> = default(Vec::new()),
        /// Server names.
        hostnames: Vec<String> = default(Vec::new()),
        /// Rules.
        rules: Vec<TcpRule> = required,
        /// Not here: it is a listener's.
        mode: Option<String> = optional,
    }
}

document! {
    /// A proxy's listeners.
    pub struct ParentRef {
        /// `gateway.networking.k8s.io`.
        group: Option<String> = optional,
        /// `Gateway`.
        kind: Option<String> = optional,
        /// Not looked at.
        namespace: Option<String> = optional,
        /// The proxy.
        name: String = required,
        /// The listener; without, all.
        section_name: Option<String> = optional,
        /// Its port; without, all.
        port: Option<u16> = optional,
    }
}

document! {
    /// One rule.
    pub struct HttpRule {
        /// The name.
        name: Option<String> = optional,
        /// Any of these.
        matches: Vec<HttpMatch> = default(Vec::new()),
        /// What happens.
        filters: Vec<RouteFilter> = default(Vec::new()),
        /// Where requests go.
        backend_refs: Vec<BackendRef> = default(Vec::new()),
        /// How long it may take.
        timeouts: Option<RuleTimeouts> = optional,
        /// What is tried again (GEP-1731).
        retry: Option<RuleRetry> = optional,
        /// Who comes back to the same endpoint (GEP-1619).
        session_persistence: Option<SessionPersistence> = optional,
    }
}

document! {
    /// One rule.
    pub struct GrpcRule {
        /// The name.
        name: Option<String> = optional,
        /// Any of these.
        matches: Vec<GrpcMatch> = default(Vec::new()),
        /// What happens.
        filters: Vec<RouteFilter> = default(Vec::new()),
        /// Where requests go.
        backend_refs: Vec<BackendRef> = default(Vec::new()),
        /// Who comes back to the same endpoint (GEP-1619).
        session_persistence: Option<SessionPersistence> = optional,
    }
}

document! {
    /// One rule.
    pub struct TcpRule {
        /// The name.
        name: Option<String> = optional,
        /// Where connections go.
        backend_refs: Vec<BackendRef> = required,
    }
}

document! {
    /// All of it must hold.
    pub struct HttpMatch {
        /// The path.
        path: Option<PathValue> = optional,
        /// The header.
        headers: Vec<NamedValue> = default(Vec::new()),
        /// The query.
        query_params: Vec<NamedValue> = default(Vec::new()),
        /// The method.
        method: Option<String> = optional,
    }
}

document! {
    /// All of it must hold.
    pub struct GrpcMatch {
        /// The method.
        method: Option<GrpcMethod> = optional,
        /// The header.
        headers: Vec<NamedValue> = default(Vec::new()),
    }
}

document! {
    /// A method of gRPC.
    pub struct GrpcMethod {
        /// How it is compared.
        r#type: Comparison = default(Comparison::Exact),
        /// The service.
        service: Option<String> = optional,
        /// The method.
        method: Option<String> = optional,
    }
}

document! {
    /// A path.
    pub struct PathValue {
        /// How it is compared.
        r#type: PathComparison = default(PathComparison::Prefix),
        /// What it is.
        value: String = default("/".to_owned()),
    }
}

choice! {
    /// How a path is compared.
    pub enum PathComparison {
        /// The whole.
        Exact = "Exact",
        /// Its first segments.
        Prefix = "PathPrefix",
        /// An expression.
        Regex = "RegularExpression",
    }
}

choice! {
    /// How a value is compared.
    pub enum Comparison {
        /// The whole.
        Exact = "Exact",
        /// An expression.
        Regex = "RegularExpression",
    }
}

document! {
    /// A value by name.
    pub struct NamedValue {
        /// How it is compared.
        r#type: Comparison = default(Comparison::Exact),
        /// The name.
        name: String = required,
        /// The value.
        value: String = required,
    }
}

document! {
    /// One step.
    pub struct RouteFilter {
        /// Which.
        r#type: FilterType = required,
        /// For `RequestHeaderModifier`.
        request_header_modifier: Option<HeaderModifier> = optional,
        /// For `ResponseHeaderModifier`.
        response_header_modifier: Option<HeaderModifier> = optional,
        /// For `RequestRedirect`.
        request_redirect: Option<RequestRedirect> = optional,
        /// For `URLRewrite`.
        url_rewrite: Option<UrlRewrite> = optional,
        /// For `CORS`.
        cors: Option<Cors> = optional,
        /// For `RequestMirror`.
        request_mirror: Option<RequestMirror> = optional,
        /// For `ExtensionRef`.
        extension_ref: Option<ExtensionRef> = optional,
    }
}

choice! {
    /// Which step.
    pub enum FilterType {
        /// Changes the request's header.
        RequestHeaderModifier = "RequestHeaderModifier",
        /// Changes the answer's header.
        ResponseHeaderModifier = "ResponseHeaderModifier",
        /// Sends the client elsewhere.
        RequestRedirect = "RequestRedirect",
        /// Changes what is asked for.
        UrlRewrite = "URLRewrite",
        /// Lets other sites ask.
        Cors = "CORS",
        /// Sends a copy elsewhere.
        RequestMirror = "RequestMirror",
        /// One of the proxy's own.
        ExtensionRef = "ExtensionRef",
    }
}

document! {
    /// A filter of the proxy.
    pub struct ExtensionRef {
        /// `outrigger.dev`.
        group: String = required,
        /// `Filter`.
        kind: String = required,
        /// Its name there.
        name: String = required,
    }
}

document! {
    /// Changes of a header.
    pub struct HeaderModifier {
        /// In place of what there is.
        set: Vec<HeaderValue> = default(Vec::new()),
        /// Besides what there is.
        add: Vec<HeaderValue> = default(Vec::new()),
        /// Names that go away.
        remove: Vec<String> = default(Vec::new()),
    }
}

document! {
    /// A field.
    pub struct HeaderValue {
        /// The name.
        name: String = required,
        /// The value.
        value: String = required,
    }
}

document! {
    /// Sends the client elsewhere.
    pub struct RequestRedirect {
        /// The scheme.
        scheme: Option<String> = optional,
        /// The host.
        hostname: Option<String> = optional,
        /// The path.
        path: Option<PathModifier> = optional,
        /// The port.
        port: Option<u16> = optional,
        /// The status.
        status_code: u16 = default(302),
    }
}

document! {
    /// Changes what is asked for.
    pub struct UrlRewrite {
        /// The host.
        hostname: Option<String> = optional,
        /// The path.
        path: Option<PathModifier> = optional,
    }
}

document! {
    /// A new path.
    pub struct PathModifier {
        /// How it is made.
        r#type: PathModification = required,
        /// For `ReplaceFullPath`.
        replace_full_path: Option<String> = optional,
        /// For `ReplacePrefixMatch`.
        replace_prefix_match: Option<String> = optional,
    }
}

choice! {
    /// How a new path is made.
    pub enum PathModification {
        /// All of it.
        Full = "ReplaceFullPath",
        /// The matched prefix.
        Prefix = "ReplacePrefixMatch",
    }
}

document! {
    /// Which other sites' pages may ask.
    pub struct Cors {
        /// Origins.
        allow_origins: Vec<String> = default(Vec::new()),
        /// Credentials.
        allow_credentials: bool = default(false),
        /// Methods.
        allow_methods: Vec<String> = default(Vec::new()),
        /// Fields of requests.
        allow_headers: Vec<String> = default(Vec::new()),
        /// Fields of answers.
        expose_headers: Vec<String> = default(Vec::new()),
        /// Seconds.
        max_age: u32 = default(5),
    }
}

document! {
    /// Sends a copy elsewhere.
    pub struct RequestMirror {
        /// Where.
        backend_ref: MirrorRef = required,
        /// The share.
        percent: Option<u32> = optional,
        /// The share, more exactly.
        fraction: Option<Fraction> = optional,
    }
}

document! {
    /// Where copies go.
    pub struct MirrorRef {
        /// Nothing.
        group: Option<String> = optional,
        /// `Service`.
        kind: Option<String> = optional,
        /// The namespace.
        namespace: Option<String> = optional,
        /// A backend of the proxy, or a name.
        name: String = required,
        /// The port.
        port: Option<u16> = optional,
    }
}

document! {
    /// A share.
    pub struct Fraction {
        /// So many…
        numerator: u32 = required,
        /// …of so many.
        denominator: u32 = default(100),
    }
}

document! {
    /// Where requests go.
    pub struct BackendRef : Default {
        /// Nothing.
        group: Option<String> = optional,
        /// `Service`.
        kind: Option<String> = optional,
        /// The namespace.
        namespace: Option<String> = optional,
        /// A backend of the proxy, or a name.
        name: String = required,
        /// The port.
        port: Option<u16> = optional,
        /// The share.
        weight: u32 = default(1),
        /// What happens if it is chosen.
        filters: Vec<RouteFilter> = default(Vec::new()),
    }
}

document! {
    /// How long it may take.
    pub struct RuleTimeouts {
        /// The whole.
        request: Option<Seconds> = optional,
        /// One try.
        backend_request: Option<Seconds> = optional,
    }
}

document! {
    /// What is tried again.
    pub struct RuleRetry {
        /// Answers.
        codes: Vec<u16> = default(Vec::new()),
        /// Tries after the first.
        attempts: Option<u32> = optional,
        /// What passes before each at least.
        backoff: Option<Seconds> = optional,
    }
}

document! {
    /// Who comes back to the same endpoint. Its form was changed once; both are taken.
    pub struct SessionPersistence {
        /// What carries the session.
        r#type: SessionType = default(SessionType::Cookie),
        /// How long it lasts.
        absolute_timeout: Option<Seconds> = optional,
        /// How long it lasts unused.
        idle_timeout: Option<Seconds> = optional,
        /// The cookie's or the field's name, until v1.6.
        session_name: Option<String> = optional,
        /// More of the cookie, until v1.6.
        cookie_config: Option<CookieConfig> = optional,
        /// The cookie.
        cookie: Option<CookieConfig> = optional,
        /// The field.
        header: Option<HeaderConfig> = optional,
    }
}

choice! {
    /// What carries a session.
    pub enum SessionType {
        /// A cookie.
        Cookie = "Cookie",
        /// A field.
        Header = "Header",
    }
}

document! {
    /// A session's cookie.
    pub struct CookieConfig {
        /// Its name.
        name: Option<String> = optional,
        /// For which paths.
        path: String = default("/".to_owned()),
        /// How long the client keeps it.
        lifetime_type: CookieLifetime = default(CookieLifetime::Session),
    }
}

choice! {
    /// How long a client keeps a cookie.
    pub enum CookieLifetime {
        /// Until it ends.
        Session = "Session",
        /// For the absolute timeout.
        Permanent = "Permanent",
    }
}

document! {
    /// A session's field.
    pub struct HeaderConfig {
        /// Its name.
        name: String = required,
    }
}
