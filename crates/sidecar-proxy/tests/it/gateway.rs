//! Documents of the Gateway API: what they become, what is refused, and one of each at work.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;

use crate::harness::{Port, Upstream, World, ok};

const PROXY: &str = "apiVersion: outrigger.dev/v1alpha1
kind: Proxy
metadata: {name: edge}
spec:
  listeners:
  - {name: http, address: ':8080'}
  - {name: raw, address: ':5432'}
  backends:
  - {name: app, endpoints: ['127.0.0.1:3000']}
";

/// What `--print-config` or, if it is refused, `--check` says of the proxy with these documents.
fn print(documents: &str) -> String {
    print_of(&format!("{PROXY}{documents}"))
}

fn print_of(documents: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("F");
    std::fs::write(&path, documents).unwrap();
    let output =
        Command::new(env!("CARGO_BIN_EXE_outrigger-proxy")).arg("--print-config").arg("--config").arg(&path).output();
    let output = output.unwrap();
    let text = if output.status.success() { output.stdout } else { output.stderr };
    String::from_utf8(text).unwrap().replace(path.to_str().unwrap(), "F")
}

fn contains_in_order(text: &str, parts: &[&str]) {
    let mut rest = text;
    for part in parts {
        let Some((_, after)) = rest.split_once(part) else { panic!("no `{part}` in the rest of\n{text}") };
        rest = after;
    }
}

#[test]
fn http_routes_become_routes() {
    let printed = print(
        "---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop, namespace: web}
spec:
  parentRefs: [{name: edge, sectionName: http}]
  hostnames: [shop.example]
  rules:
  - name: api
    matches:
    - path: {value: /a}
      method: POST
      headers: [{name: X-V, value: '2'}, {name: x-v, value: '3'}]
      queryParams: [{type: RegularExpression, name: q, value: a|b}]
    - path: {type: PathPrefix, value: /b}
    filters:
    - {type: URLRewrite, urlRewrite: {hostname: inner.example, path: {type: ReplacePrefixMatch, replacePrefixMatch: ''}}}
    - {type: RequestMirror, requestMirror: {backendRef: {name: copies, port: 81}, fraction: {numerator: 1, denominator: 8}}}
    backendRefs: [{name: app, weight: 9}, {name: next, port: 80}]
    timeouts: {request: 10s, backendRequest: 500ms}
  - filters:
    - {type: RequestRedirect, requestRedirect: {scheme: https, statusCode: 301, path: {type: ReplaceFullPath, replaceFullPath: /x}}}
",
    );
    let parts = [
        "name: app\n",
        "name: \"next.web:80\"",
        "- \"next.web:80\"",
        "hosts:",
        "- shop.example",
        "listeners:",
        "- http",
        "x-v:\n",
        "exact: \"2\"",
        "method: POST",
        "prefix: /a",
        "regex: \"^(?:a|b)$\"",
        "backend: \"copies.web:81\"",
        "percent: 12.5",
        "name: web/shop/api/0",
        "backend: \"500ms\"",
        "request: \"10s\"",
        "prefix: /b",
        "name: web/shop/api/1",
        "redirect:",
        "replace: /x",
        "status: 301",
        "name: web/shop/1",
    ];
    for part in parts {
        assert!(printed.contains(part), "{part}\n{printed}");
    }
    contains_in_order(&printed, &["host: inner.example", "replacePrefix: /", "name: web/shop/api/0"]);
}

#[test]
fn grpc_and_tcp_routes_become_routes_and_targets() {
    let printed = print(
        "---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: greeter}
spec:
  rules:
  - matches:
    - method: {service: a.B, method: C}
    - method: {service: a.D}
    - method: {type: RegularExpression, service: 'a\\.[EF]'}
    backendRefs: [{name: greeter, port: 50051}]
---
apiVersion: gateway.networking.k8s.io/v1alpha2
kind: TCPRoute
metadata: {name: db}
spec:
  parentRefs: [{name: edge, port: 5432}]
  rules: [{backendRefs: [{name: db, port: 5432, weight: 3}, {name: app}]}]
",
    );
    contains_in_order(
        &printed,
        &["name: raw\n", "tcpRoutes:\n", "name: \"db:5432\"\n", "weight: 3\n", "name: app\n", "weight: 1\n"],
    );
    for part in ["exact: /a.B/C", "prefix: /a.D", "name: default/greeter/0", "greeter:50051 (gRPC)", "http2: true"] {
        assert!(printed.contains(part), "{part}\n{printed}");
    }
}

#[test]
fn what_is_not_understood_is_refused_at_its_place() {
    let route = |spec: &str| {
        print(&format!(
            "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r}}\nspec:\n{spec}"
        ))
    };
    for (text, expected) in [
        ("  rules: [{else: {}}]\n", "F:15:12: document[2].spec.rules[0]: unknown field `else`"),
        (
            "  rules:\n  - retry: {codes: [503, 429, 200], attempts: 0}\n    backendRefs: [{name: app}]\n",
            "F:16:26: document[2].spec.rules[0].retry.codes[1]: is the client's fault, and would be the next time: only 5xx is tried again\nF:16:31: document[2].spec.rules[0].retry.codes[2]: must be from 500 to 599\nF:16:47: document[2].spec.rules[0].retry.attempts: must be from 1 to 10",
        ),
        (
            "  rules:\n  - sessionPersistence: {idleTimeout: 1h, absoluteTimeout: 10ms}\n    backendRefs: [{name: app}]\n",
            "F:16:39: document[2].spec.rules[0].sessionPersistence.idleTimeout: is not supported: nobody keeps count of when a session was last used\nF:16:60: document[2].spec.rules[0].sessionPersistence.absoluteTimeout: must be whole seconds, at least one",
        ),
        (
            "  rules:\n  - sessionPersistence: {type: Header, cookie: {name: x}}\n    backendRefs: [{name: app}]\n",
            "F:16:40: document[2].spec.rules[0].sessionPersistence.cookie: is not for this type of session",
        ),
        (
            "  rules:\n  - timeouts: {request: 1s, backendRequest: 2s}\n    backendRefs: [{name: app}]\n",
            "F:16:45: document[2].spec.rules[0].timeouts.backendRequest: must not be longer than request",
        ),
        (
            "  rules:\n  - sessionPersistence: {header: {name: x}}\n    backendRefs: [{name: app}]\n",
            "F:16:26: document[2].spec.rules[0].sessionPersistence.header: is not for this type of session",
        ),
        (
            "  rules:\n  - sessionPersistence: {sessionName: a, cookie: {name: x}}\n    backendRefs: [{name: app}]\n",
            "F:16:42: document[2].spec.rules[0].sessionPersistence.cookie: excludes sessionName and cookieConfig, which it has replaced",
        ),
        (
            "  rules:\n  - sessionPersistence: {cookieConfig: {lifetimeType: Permanent}}\n    backendRefs: [{name: app}]\n",
            "F:16:55: document[2].spec.rules[0].sessionPersistence.cookieConfig.lifetimeType: needs an absoluteTimeout",
        ),
        (
            "  rules:\n  - sessionPersistence: {type: Header, header: {name: Host}}\n    backendRefs: [{name: app}]\n",
            "F:16:5: spec.routes[0].session.header.name: belongs to the connection and cannot be set",
        ),
        (
            "  rules:\n  - sessionPersistence: {cookie: {name: 'a b', path: x}}\n    backendRefs: [{name: app}]\n",
            "F:16:5: spec.routes[0].session.cookie.name: is no name\nF:16:5: spec.routes[0].session.cookie.path: must begin with `/`",
        ),
        (
            "  rules:\n  - filters: [{type: ExtensionRef}]\n",
            "F:16:15: document[2].spec.rules[0].filters[0]: has not what its type needs",
        ),
        (
            "  rules:\n  - filters: [{type: Else}]\n",
            "F:16:22: document[2].spec.rules[0].filters[0].type: must be one of RequestHeaderModifier",
        ),
        (
            "  rules:\n  - filters: [{type: ExtensionRef, extensionRef: {group: outrigger.dev, kind: Filter, name: gone}}]\n",
            "document[2].spec.rules[0].filters[0].extensionRef.name: the Proxy has no filter `gone`",
        ),
        (
            "  rules:\n  - filters: [{type: ExtensionRef, extensionRef: {group: other.dev, kind: Filter, name: gone}}]\n",
            "document[2].spec.rules[0].filters[0].extensionRef: must be of the group outrigger.dev and the kind Filter",
        ),
        (
            "  rules:\n  - filters: [{type: RequestMirror, requestMirror: {backendRef: {name: app}, percent: 1, fraction: {numerator: 1}}}]\n    backendRefs: [{name: app}]\n",
            "F:16:37: document[2].spec.rules[0].filters[0].requestMirror: has either a percent or a fraction",
        ),
        (
            "  rules:\n  - filters: [{type: RequestMirror, requestMirror: {backendRef: {name: gone}}}]\n",
            ": document[2].spec.rules[0].filters[0].requestMirror.backendRef: the Proxy has no backend of this name",
        ),
        (
            "  rules:\n  - backendRefs: [{name: app, filters: [{type: CORS, cors: {}}]}]\n",
            "F:16:48: document[2].spec.rules[0].backendRefs[0].filters[0].type: is no filter of a single backendRef here",
        ),
        (
            "  rules:\n  - backendRefs: [{name: app, filters: [{type: URLRewrite, urlRewrite: {}}, {type: RequestRedirect, requestRedirect: {}}]}]\n",
            "F:16:31: document[2].spec.rules[0].backendRefs[0].filters: URLRewrite and RequestRedirect exclude each other",
        ),
        (
            "  rules:\n  - backendRefs: [{name: app, filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: x}}}]}]\n    matches: [{path: {type: Exact, value: /a}}]\n",
            "F:16:5: spec.routes[0].backends[0].rewrite.path: must begin with `/` and have no blanks",
        ),
        (
            "  rules:\n  - backendRefs: [{name: app, filters: [{type: RequestMirror, requestMirror: {backendRef: {name: gone}}}]}]\n",
            ": document[2].spec.rules[0].backendRefs[0].filters[0].requestMirror.backendRef: the Proxy has no backend of this name",
        ),
        (
            "  rules:\n  - backendRefs: [{name: app, filters: [{type: RequestHeaderModifier, requestHeaderModifier: {}}, {type: RequestHeaderModifier, requestHeaderModifier: {}}]}]\n",
            "document[2].spec.rules[0].backendRefs[0].filters[1]: is there twice",
        ),
        (
            "  rules:\n  - backendRefs: [{name: app, filters: [{type: ResponseHeaderModifier}]}]\n",
            "document[2].spec.rules[0].backendRefs[0].filters[0]: has not what its type needs",
        ),
        (
            "  rules:\n  - backendRefs: [{name: app, filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {remove: [Connection]}}]}]\n",
            ": spec.routes[0].backends[0].responseHeaders.remove[0]: belongs to the connection",
        ),
        (
            "  rules:\n  - filters: [{type: CORS, cors: {allowOrigins: ['*'], allowCredentials: true}}]\n    backendRefs: [{name: app}]\n",
            "F:16:5: spec.routes[0].filters[0].cors.allowOrigins[0]: with allowCredentials, any site could act",
        ),
        (
            "  parentRefs: [{name: other}]\n  rules: [{}]\n",
            "F:15:23: document[2].spec.parentRefs[0].name: must be the name of the Proxy, `edge`",
        ),
        (
            "  parentRefs: [{name: edge, port: 1}]\n  rules: [{}]\n",
            "F:15:16: document[2].spec.parentRefs[0]: the Proxy has no such listener",
        ),
        (
            "  rules:\n  - backendRefs:\n    - {name: gone}\n",
            "F:17:7: document[2].spec.rules[0].backendRefs[0]: the Proxy has no backend of this name",
        ),
        (
            "  rules:\n  - matches: [{path: {value: x}}]\n    backendRefs: [{name: app}]\n",
            "F:16:5: spec.routes[0].matches[0].path.prefix: must begin with `/`",
        ),
    ] {
        let said = route(text);
        assert!(said.contains(expected), "{expected}\n{said}");
    }
    for version in ["v1", "v1alpha2"] {
        let said = print(&format!(
            "---\napiVersion: gateway.networking.k8s.io/{version}\nkind: TCPRoute\nmetadata: {{name: t}}\nspec:\n  parentRefs: [{{name: edge, sectionName: raw}}, {{name: edge}}]\n  rules: [{{backendRefs: [{{name: app}}]}}]\n"
        ));
        let expected = "F:15:48: document[2].spec.parentRefs[1]: needs a sectionName or a port";
        assert!(said.contains(expected), "{said}");
    }
    let said = print("---\napiVersion: gateway.networking.k8s.io/v1alpha2\nkind: UDPRoute\nspec: {}\n");
    assert!(said.contains("F:12:7: document[2]: documents of kind `UDPRoute` are not understood here"), "{said}");
}

#[test]
fn tls_routes_become_names_of_a_listener() {
    let route = |version: &str, name: &str, spec: &str| {
        format!(
            "---\napiVersion: gateway.networking.k8s.io/{version}\nkind: TLSRoute\nmetadata: {{name: {name}}}\nspec:\n  parentRefs: [{{name: edge, sectionName: raw}}]\n{spec}"
        )
    };
    let rules = "  rules: [{backendRefs: [{name: app, weight: 9}, {name: next, port: 443}]}]\n";
    let http = "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r}\nspec: {rules: [{backendRefs: [{name: app}]}]}\n";
    for version in ["v1", "v1alpha3", "v1alpha2"] {
        let both = route(version, "z", &format!("  hostnames: [a.test, '*.b.test']\n{rules}"))
            + &route(version, "x", "  hostnames: [c.test]\n  rules: [{backendRefs: [{name: app}]}]\n");
        let printed = print(&format!("{both}{http}"));
        let parts = ["name: raw\n", "tcpRoutes:\n", "c.test\n", "name: \"next:443\"\n", "a.test\n", "*.b.test\""];
        for part in parts {
            assert!(printed.contains(part), "{part}\n{printed}");
        }
    }
    for (text, expected) in [
        (
            route("v1", "a", &format!("  hostnames: [UPPER]\n{rules}")),
            "F:14:1: spec.listeners[1].tcpRoutes[0].hosts[0]: must be a lower-case host name",
        ),
        (
            route("v1", "a", &format!("  hostnames: [a.test]\n{rules}"))
                + &route("v1", "b", &format!("  hostnames: [a.test]\n{rules}")),
            "F:22:1: spec.listeners[1].tcpRoutes[1].hosts[0]: another route of the listener `raw` has this host",
        ),
        (
            route("v1", "a", "  hostnames: [a.test]\n  rules: []\n"),
            ": document[2].spec: must have exactly one rule, and parentRefs",
        ),
        (
            route("v1", "a", "  hostnames: [a.test]\n  rules: [{backendRefs: [{name: app, weight: 0}]}]\n"),
            "F:14:1: spec.listeners[1].tcpRoutes[0].backends: needs a backend whose weight is not 0",
        ),
        (
            route("v1", "a", &format!("  hostnames: [a.test]\n{rules}")).replace(", sectionName: raw", ""),
            "F:15:16: document[2].spec.parentRefs[0]: needs a sectionName or a port",
        ),
        (
            route("v1", "a", &format!("  hostnames: [a.test]\n{rules}"))
                + &route("v1alpha2", "b", rules).replace("TLSRoute", "TCPRoute"),
            "document[3].spec.parentRefs: the listener `raw` goes to a backend already",
        ),
        (
            route("v1", "a", &format!("  hostnames: [a.test]\n{rules}")).replace("sectionName: raw", "port: 8080")
                + http,
            "F:15:3: document[2].spec.parentRefs: the listener `http` ends TLS (a Gateway's mode Terminate), and a TLSRoute passes it on",
        ),
        (
            route("v1", "a", &format!("  mode: Terminate\n  hostnames: [a.test]\n{rules}")),
            "F:16:9: document[2].spec.mode: is no field of a TLSRoute but of a listener: one of the Proxy with `tls` ends TLS",
        ),
    ] {
        let text = if expected.contains("`http` ends TLS") {
            let tls = "address: ':8080', tls: {certificates: [{certFile: c, keyFile: k}]}";
            print_of(&format!("{}{text}", PROXY.replace("address: ':8080'", tls)))
        } else {
            print(&format!("{text}{http}"))
        };
        assert!(text.contains(expected), "{expected}\n{text}");
    }
}

#[test]
fn what_belongs_to_one_backend_is_done_for_it_alone() {
    let (one, two) = (Upstream::start(|_| ok("one")), Upstream::start(|_| ok("two")));
    // Nobody listens there, so that the first try fails.
    let reserved = Port::reserve();
    let gone = reserved.address;
    let world = World::with(&format!(
        "listeners: [{{name: http, address: \"127.0.0.1:0\"}}]
backends:
- {{name: one, endpoints: [\"{gone}\", \"{}\"], retryPercent: 100, passiveHealth: {{failures: 0}}}}
- {{name: two, endpoints: [\"{}\"]}}
workers: 1
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: r}}
spec:
  rules:
  - filters:
    - {{type: RequestHeaderModifier, requestHeaderModifier: {{set: [{{name: X-Who, value: rule}}, {{name: X-Rule, value: \"1\"}}]}}}}
    - {{type: ResponseHeaderModifier, responseHeaderModifier: {{set: [{{name: X-Answer, value: rule}}]}}}}
    backendRefs:
    - name: one
      filters:
      - {{type: RequestHeaderModifier, requestHeaderModifier: {{set: [{{name: x-who, value: one}}], remove: [X-Gone, X-Forwarded-Host]}}}}
      - {{type: ResponseHeaderModifier, responseHeaderModifier: {{set: [{{name: X-From, value: one}}, {{name: x-answer, value: one}}]}}}}
    - {{name: two}}
",
        one.address, two.address
    ));
    let mut client = world.client();
    let mut came = [0, 0];
    for _ in 0..60 {
        client.send("GET / HTTP/1.1\r\nHost: a\r\nX-Who: client\r\nX-Gone: 1\r\n\r\n");
        let answer = client.answer();
        assert_eq!(answer.status(), 200);
        let whose = usize::from(answer.body == "two");
        came[whose] += 1;
        let seen = [&one, &two][whose].last();
        let count = |name: &str| seen.head.lines().filter(|line| line.to_lowercase().starts_with(name)).count();
        assert_eq!((count("x-who:"), seen.field("x-rule")), (1, Some("1")), "{}", seen.head);
        // The rule has the last word about answers, the backend about requests.
        assert_eq!(answer.field("x-answer"), Some("rule"));
        assert_eq!(answer.head.to_lowercase().matches("x-answer").count(), 1);
        let of_two = (seen.field("x-gone").is_some(), seen.field("x-forwarded-host").is_some(), answer.field("x-from"));
        if whose == 0 {
            assert_eq!((seen.field("x-who"), of_two), (Some("one"), (false, false, Some("one"))), "{}", seen.head);
        } else {
            assert_eq!((seen.field("x-who"), of_two), (Some("rule"), (true, true, None)), "{}", seen.head);
        }
    }
    assert!(came[0] > 5 && came[1] > 5, "{came:?}");
    assert!(world.metric("outrigger_proxy_retries_total{route=\"default/r/0\"} ") > 0);
}

#[test]
fn rules_refer_to_filters_of_the_proxy() {
    let upstream = Upstream::start(|_| ok("here"));
    let world = World::with(&format!(
        "listeners: [{{name: http, address: \"127.0.0.1:0\"}}]
backends: [{{name: app, endpoints: [\"{}\"]}}]
filters:
  scan: {{attacks: {{mode: deny}}}}
  twice: {{rateLimit: {{requests: 2, period: 1h, per: route}}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: r}}
spec:
  rules:
  - matches: [{{path: {{value: /a}}}}]
    filters:
    - {{type: ExtensionRef, extensionRef: {{group: outrigger.dev, kind: Filter, name: scan}}}}
    - {{type: ExtensionRef, extensionRef: {{group: outrigger.dev, kind: Filter, name: twice}}}}
    backendRefs: [{{name: app}}]
  - filters: [{{type: ExtensionRef, extensionRef: {{group: outrigger.dev, kind: Filter, name: twice}}}}]
    backendRefs: [{{name: app}}]
",
        upstream.address
    ));
    let mut client = world.client();
    let mut status = |path: &str| client.get(path).status();
    assert_eq!(status("/a?q=1%27%20union%20select%20password%20from%20users--"), 403);
    // Each rule has it for itself.
    for path in ["/a", "/b"] {
        assert_eq!([status(path), status(path), status(path)], [200, 200, 429], "{path}");
    }
    let refused = "outrigger_proxy_filter_decisions_total{route=\"default/r/0\",filter=\"2\"";
    assert!(world.ask("/metrics").contains(refused));
}

#[test]
fn one_of_each_at_work() {
    let (one, two) = (Upstream::start(|_| ok("one")), Upstream::start(|_| ok("two")));
    let documents = format!(
        "listeners:
- {{name: http, address: \"127.0.0.1:0\"}}
- {{name: raw, address: \"127.0.0.2:0\"}}
backends:
- {{name: one, endpoints: [\"{}\"]}}
- {{name: two, endpoints: [\"{}\"]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: r}}
spec:
  parentRefs: [{{name: default, sectionName: http}}]
  rules:
  - matches: [{{path: {{value: /two}}}}]
    filters:
    - {{type: URLRewrite, urlRewrite: {{path: {{type: ReplacePrefixMatch, replacePrefixMatch: /}}}}}}
    - {{type: RequestHeaderModifier, requestHeaderModifier: {{add: [{{name: X-Added, value: \"1\"}}]}}}}
    backendRefs: [{{name: two}}]
  - matches: [{{path: {{value: /gone}}}}]
    filters: [{{type: RequestRedirect, requestRedirect: {{hostname: new.example, statusCode: 301}}}}]
  - backendRefs: [{{name: one}}]
---
apiVersion: gateway.networking.k8s.io/v1alpha2
kind: TCPRoute
metadata: {{name: t}}
spec:
  parentRefs: [{{name: default, sectionName: raw}}]
  rules: [{{backendRefs: [{{name: two}}]}}]
",
        one.address, two.address
    );
    let mut world = World::with(&documents);
    let mut client = world.client();
    assert_eq!(client.get("/two/x?q=1").body, "two");
    let seen = two.last();
    assert_eq!((seen.line(), seen.field("x-added")), ("GET /x?q=1 HTTP/1.1", Some("1")));
    assert_eq!(client.get("/other").body, "one");
    let answer = client.get("/gone/y");
    assert_eq!((answer.status(), answer.field("location")), (301, Some("http://new.example/gone/y")));
    drop(client);
    let raw = world.listener("raw");
    let mut stream = TcpStream::connect(raw).unwrap();
    stream.write_all(b"GET /raw HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    let mut answer = [0; 15];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!((&answer, two.last().line()), (b"HTTP/1.1 200 OK", "GET /raw HTTP/1.1"));
}

#[test]
fn a_backend_of_its_own_kind_is_rewritten_redirected_and_copied() {
    let (one, two) = (Upstream::start(|_| ok("one")), Upstream::start(|_| ok("two")));
    let copies = Upstream::start(|_| ok("copy"));
    let world = World::with(&format!(
        "listeners: [{{name: http, address: \"127.0.0.1:0\"}}]
backends:
- {{name: one, endpoints: [\"{}\"]}}
- {{name: two, endpoints: [\"{}\"]}}
- {{name: copies, endpoints: [\"{}\"]}}
workers: 1
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: r}}
spec:
  rules:
  - matches: [{{path: {{value: /a}}}}, {{path: {{value: /b}}}}]
    filters: [{{type: URLRewrite, urlRewrite: {{hostname: rule.test, path: {{type: ReplaceFullPath, replaceFullPath: /rule}}}}}}]
    backendRefs:
    - name: one
      filters:
      - {{type: URLRewrite, urlRewrite: {{path: {{type: ReplacePrefixMatch, replacePrefixMatch: /new}}}}}}
      - {{type: RequestMirror, requestMirror: {{backendRef: {{name: copies}}}}}}
    - name: two
      filters: [{{type: URLRewrite, urlRewrite: {{hostname: two.test}}}}]
  - matches: [{{path: {{value: /c}}}}]
    backendRefs:
    - name: one
      filters: [{{type: RequestRedirect, requestRedirect: {{hostname: new.test, port: 80, path: {{type: ReplacePrefixMatch, replacePrefixMatch: /d}}}}}}]
    - name: two
",
        one.address, two.address, copies.address
    ));
    let mut client = world.client();
    let mut came = [0, 0];
    for n in 0..40 {
        let path = ["/a/x?q=1", "/b/x?q=1"][n % 2];
        let answer = client.get(path);
        let whose = usize::from(answer.body == "two");
        came[whose] += 1;
        let seen = [&one, &two][whose].last();
        let expected = [("GET /new/x?q=1 HTTP/1.1", "rule.test"), ("GET /rule?q=1 HTTP/1.1", "two.test")][whose];
        assert_eq!((seen.line(), seen.field("host").unwrap()), expected);
    }
    assert!(came.iter().all(|count| *count > 5), "{came:?}");
    crate::harness::eventually("the copies", || copies.count() == came[0]);
    assert_eq!(copies.last().line(), "GET /new/x?q=1 HTTP/1.1");
    let counted = "outrigger_proxy_filter_decisions_total{route=\"default/r/0/0\",filter=\"3\",rule=\"mirror\",decision=\"answered\"}";
    crate::harness::eventually("the count", || world.ask("/metrics").contains(counted));
    let mut came = [0, 0];
    for _ in 0..40 {
        let answer = client.get("/c/x?q=1");
        if answer.status() == 302 {
            assert_eq!(answer.field("location"), Some("http://new.test/d/x?q=1"));
            came[0] += 1;
        } else {
            assert_eq!((answer.body.as_str(), two.last().line()), ("two", "GET /c/x?q=1 HTTP/1.1"));
            came[1] += 1;
        }
    }
    assert!(came.iter().all(|count| *count > 5), "{came:?}");
    // A request's body is read to its end before the next request.
    client.send("POST /c/x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
    assert!(matches!(client.answer().status(), 200 | 302));
}
