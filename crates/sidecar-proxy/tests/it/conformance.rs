//! What the Gateway API asks of every implementation, as far as a proxy with documents in files can keep it: one row for each
//! case of its conformance tests (kubernetes-sigs/gateway-api, `conformance/tests`; a section names the test), and for what its
//! reference says besides. Where ours differs, the row says so.

use std::sync::Arc;
use std::time::Duration;

use crate::harness::{Answer, Client, Does, Upstream, World, simple_spec};
use crate::wire::{Came, DATA, END, HEADERS, WHOLE, Wire, frame, request};

/// A request, `[METHOD ][HOST]/PATH [name=value]…`, and what must come of it: `STATUS [name=value]… [!name]…` of an answer of the
/// proxy's, or `BACKEND [/PATH] [name=value]… [!name]… [>name=value]… [>!name]…`: who is asked for what, and of the answer.
type Row = (&'static str, &'static str);

/// Answers with its name, and with the fields that the request's `Give` lists (`name:value;…`); `Wait` are milliseconds.
fn echo(name: &'static str) -> Upstream {
    Upstream::start(move |seen| {
        if let Some(wait) = seen.field("wait") {
            std::thread::sleep(Duration::from_millis(wait.parse().unwrap()));
        }
        let given = seen.field("give").unwrap_or_default();
        let lines: String =
            given.split_terminator(';').map(|line| format!("{}\r\n", line.replacen(':', ": ", 1))).collect();
        Does::Says(format!("HTTP/1.1 200 OK\r\n{lines}Content-Length: {}\r\n\r\n{name}", name.len()))
    })
}

struct Three {
    all: [Upstream; 3],
    world: World,
}

/// The proxy `p` before the backends `one`, `two` and `three`, with these documents' `spec`s: rules, or more before them.
fn three(routes: &[&str]) -> Three {
    let all = [echo("one"), echo("two"), echo("three")];
    let backend = |(name, one): (&str, &Upstream)| format!("- {{name: {name}, endpoints: [\"{}\"]}}\n", one.address);
    let backends: String = ["one", "two", "three"].into_iter().zip(&all).map(backend).collect();
    let documents: String = routes
        .iter()
        .enumerate()
        .map(|(number, text)| {
            let text = if text.contains("rules:") { (*text).to_owned() } else { format!("  rules:\n{text}") };
            format!("---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r{number}}}\nspec:\n{text}")
        })
        .collect();
    let listeners = "listeners: [{name: http, address: \"127.0.0.1:0\"}]";
    let world = World::with(&format!("{listeners}\nbackends:\n{backends}workers: 1\n{documents}"));
    Three { all, world }
}

/// All values of a field in a head, as one list.
fn values(head: &str, name: &str) -> Option<String> {
    let lines = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    let all: Vec<_> =
        lines.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).collect();
    (!all.is_empty()).then(|| all.join(","))
}

fn holds(head: &str, wanted: &str, row: Row) {
    if let Some(name) = wanted.strip_prefix('!') {
        return assert_eq!(values(head, name), None, "{row:?}\n{head}");
    }
    let (name, value) = wanted.split_once('=').unwrap();
    let plain = |text: &str| text.replace(' ', "").to_ascii_lowercase();
    assert_eq!(values(head, name).as_deref().map(plain), Some(plain(&value.replace('+', " "))), "{row:?}\n{head}");
}

fn ask(client: &mut Client, text: &str) -> (String, Answer) {
    let mut words = text.split(' ').peekable();
    let method = words.next_if(|word| word.bytes().all(|byte| byte.is_ascii_uppercase())).unwrap_or("GET");
    let target = words.next().unwrap();
    let (host, path) = target.split_at(target.find('/').unwrap());
    let host = if host.is_empty() { "any.test" } else { host };
    let fields: String =
        words.map(|field| field.split_once('=').unwrap()).map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    client.send(format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n"));
    (path.to_owned(), client.answer_to(method))
}

fn check(three: &Three, rows: &[Row]) {
    let mut client = three.world.client();
    for row in rows {
        let before: usize = three.all.iter().map(Upstream::count).sum();
        let (path, answer) = ask(&mut client, row.0);
        let asked = three.all.iter().map(Upstream::count).sum::<usize>() > before;
        let mut words = row.1.split(' ');
        let first = words.next().unwrap();
        if let Ok(status) = first.parse::<u16>() {
            assert_eq!(answer.status(), status, "{row:?}\n{}", answer.head);
            assert!(!asked || status == 504, "{row:?}");
            words.for_each(|wanted| holds(&answer.head, wanted, *row));
            continue;
        }
        assert_eq!((answer.status(), answer.body.as_str()), (200, first), "{row:?}\n{}", answer.head);
        let place = ["one", "two", "three"].iter().position(|name| *name == first).unwrap();
        let seen = three.all[place].last();
        let mut goes_to = path;
        for wanted in words {
            if wanted.starts_with('/') {
                wanted.clone_into(&mut goes_to);
            } else if let Some(wanted) = wanted.strip_prefix('>') {
                holds(&answer.head, wanted, *row);
            } else {
                holds(&seen.head, wanted, *row);
            }
        }
        assert_eq!(seen.line().split(' ').nth(1), Some(goes_to.as_str()), "{row:?}");
    }
}

#[test]
fn matches() {
    // httproute-matching
    let rules = "  - matches: [{path: {type: PathPrefix, value: /}}, {headers: [{name: version, value: one}]}]
    backendRefs: [{name: one}]
  - matches: [{path: {type: PathPrefix, value: /v2}}, {headers: [{name: version, value: two}]}]
    backendRefs: [{name: two}]
";
    check(
        &three(&[rules]),
        &[
            ("/", "one"),
            ("/example", "one"),
            ("/ Version=one", "one"),
            ("/v2", "two"),
            ("/v2/example", "two"),
            ("/ Version=two", "two"),
            ("/v2/", "two"),
            ("/v2example", "one"),
            ("/foo/v2/example", "one"),
        ],
    );
    // httproute-matching-across-routes
    let first = format!(
        "  hostnames: [example.com, example.net]\n  rules:\n{}",
        rules.split_inclusive("one}]\n").next().unwrap()
    );
    let second = format!(
        "  hostnames: [example.com]\n  rules:\n{}",
        &rules[rules.find("  - matches: [{path: {type: PathPrefix, value: /v2").unwrap()..]
    );
    check(
        &three(&[&first, &second]),
        &[
            ("example.com/", "one"),
            ("example.com/example", "one"),
            ("example.net/example", "one"),
            ("example.com/example Version=one", "one"),
            ("example.com/v2", "two"),
            ("example.net/v2", "one"),
            ("example.com/v2/example", "two"),
            ("example.com/ Version=two", "two"),
            ("example.org/", "404"),
        ],
    );
    // httproute-exact-path-matching, httproute-path-match-order
    let order = "  - {matches: [{path: {type: Exact, value: /match}}], backendRefs: [{name: one}]}
  - {matches: [{path: {type: Exact, value: /match/exact}}], backendRefs: [{name: two}]}
  - {matches: [{path: {type: Exact, value: /match/exact/one}}], backendRefs: [{name: three}]}
  - {matches: [{path: {type: PathPrefix, value: /match/}}], backendRefs: [{name: three}]}
  - {matches: [{path: {type: PathPrefix, value: /match/prefix/}}], backendRefs: [{name: one}]}
  - {matches: [{path: {type: PathPrefix, value: /match/prefix/one}}], backendRefs: [{name: two}]}
  - {matches: [{path: {type: Exact, value: /two}}], backendRefs: [{name: two}]}
";
    check(
        &three(&[order]),
        &[
            ("/match/exact/one", "three"),
            ("/match/exact", "two"),
            ("/match", "one"),
            ("/match/prefix/one/any", "two"),
            ("/match/prefix/any", "one"),
            ("/match/any", "three"),
            ("/two", "two"),
            ("/", "404"),
            ("/two/example", "404"),
            ("/two/", "404"),
            ("/Two", "404"),
        ],
    );
    // httproute-header-matching
    let headers = "  - {matches: [{headers: [{name: version, value: one}]}], backendRefs: [{name: one}]}
  - {matches: [{headers: [{name: version, value: two}]}], backendRefs: [{name: two}]}
  - {matches: [{headers: [{name: version, value: two}, {name: color, value: orange}]}], backendRefs: [{name: one}]}
  - {matches: [{headers: [{name: color, value: blue}]}, {headers: [{name: color, value: green}]}], backendRefs: [{name: one}]}
  - {matches: [{headers: [{name: color, value: red}]}, {headers: [{name: color, value: yellow}]}], backendRefs: [{name: two}]}
";
    check(
        &three(&[headers]),
        &[
            ("/ Version=one", "one"),
            ("/ Version=two", "two"),
            ("/ Version=two Color=orange", "one"),
            ("/ Version=two Color=blue", "two"),
            ("/ Color=orange", "404"),
            ("/ Some-Other-Header=one", "404"),
            ("/ Color=blue", "one"),
            ("/ Color=green", "one"),
            ("/ Color=red", "two"),
            ("/ Color=yellow", "two"),
            ("/ Color=purple", "404"),
        ],
    );
}

#[test]
fn methods_and_queries() {
    // httproute-method-matching
    let methods = "  - {matches: [{method: POST}], backendRefs: [{name: one}]}
  - {matches: [{method: GET}], backendRefs: [{name: two}]}
  - {matches: [{path: {value: /path1}, method: GET}], backendRefs: [{name: one}]}
  - {matches: [{headers: [{name: version, value: one}], method: PUT}], backendRefs: [{name: two}]}
  - {matches: [{path: {value: /path2}, headers: [{name: version, value: two}], method: POST}], backendRefs: [{name: three}]}
  - matches:
    - {path: {value: /path3}, method: PATCH}
    - {path: {value: /path4}, headers: [{name: version, value: three}], method: DELETE}
    backendRefs: [{name: one}]
  - {matches: [{path: {value: /path5}}], backendRefs: [{name: one}]}
  - {matches: [{method: PATCH}], backendRefs: [{name: two}]}
  - {matches: [{headers: [{name: version, value: four}]}], backendRefs: [{name: three}]}
";
    check(
        &three(&[methods]),
        &[
            ("POST /", "one"),
            ("GET /", "two"),
            ("HEAD /", "404"),
            ("GET /path1", "one"),
            ("PUT / version=one", "two"),
            ("POST /path2 version=two", "three"),
            ("PATCH /path3", "one"),
            ("DELETE /path4 version=three", "one"),
            ("PUT /", "404"),
            ("DELETE /path4", "404"),
            ("PATCH /path5", "one"),
            ("PATCH / version=four", "two"),
        ],
    );
    // httproute-query-param-matching
    let queries = "  - {matches: [{queryParams: [{name: animal, value: whale}]}], backendRefs: [{name: one}]}
  - {matches: [{queryParams: [{name: animal, value: dolphin}]}], backendRefs: [{name: two}]}
  - matches:
    - {queryParams: [{name: animal, value: dolphin}, {name: color, value: blue}]}
    - {queryParams: [{name: ANIMAL, value: Whale}]}
    backendRefs: [{name: three}]
  - {matches: [{path: {value: /path1}, queryParams: [{name: animal, value: whale}]}], backendRefs: [{name: one}]}
  - {matches: [{headers: [{name: version, value: one}], queryParams: [{name: animal, value: whale}]}], backendRefs: [{name: two}]}
  - matches:
    - {path: {value: /path3}, queryParams: [{name: animal, value: shark}]}
    - {path: {value: /path4}, headers: [{name: version, value: three}], queryParams: [{name: animal, value: kraken}]}
    backendRefs: [{name: one}]
  - {matches: [{path: {value: /path5}}], backendRefs: [{name: one}]}
  - {matches: [{queryParams: [{name: animal, value: hydra}]}], backendRefs: [{name: two}]}
  - {matches: [{headers: [{name: version, value: four}]}], backendRefs: [{name: three}]}
";
    check(
        &three(&[queries]),
        &[
            ("/?animal=whale", "one"),
            ("/?animal=dolphin", "two"),
            ("/?animal=dolphin&color=blue", "three"),
            ("/?ANIMAL=Whale", "three"),
            ("/?animal=whale&otherparam=irrelevant", "one"),
            ("/?animal=dolphin&color=yellow", "two"),
            ("/?color=blue", "404"),
            ("/?animal=dog", "404"),
            ("/?animal=whaledolphin", "404"),
            ("/", "404"),
            ("/path1?animal=whale", "one"),
            ("/?animal=whale version=one", "two"),
            ("/path3?animal=shark", "one"),
            ("/path4?animal=kraken version=three", "one"),
            ("/?animal=shark", "404"),
            ("/path4?animal=kraken", "404"),
            ("/path5?animal=hydra", "one"),
            ("/?animal=hydra version=four", "three"),
        ],
    );
}

#[test]
fn hosts_and_rules_without_backends() {
    // httproute-hostname-intersection: our listeners have no names, so that what routes say is all there is.
    check(
        &three(&[
            "  hostnames: [first.com, sub.first.com, '*.wild.io']\n  rules: [{backendRefs: [{name: one}]}]\n",
            "  hostnames: ['*.first.com', very.wild.io]\n  rules: [{backendRefs: [{name: two}]}]\n",
        ]),
        &[
            ("first.com/", "one"),
            ("first.com:8080/", "one"),
            ("sub.first.com/", "one"),
            ("other.first.com/", "two"),
            ("wild.io/", "404"),
            ("foo.wild.io/", "one"),
            ("foo.bar.wild.io/", "one"),
            ("very.wild.io/", "two"),
            ("third.com/", "404"),
        ],
    );
    // httproute-omitted-backendrefs
    check(
        &three(&["  - matches: [{path: {type: Exact, value: /omitted}}]
  - {matches: [{path: {type: Exact, value: /empty}}], backendRefs: []}
  - {matches: [{path: {value: /}}], backendRefs: [{name: one}]}
"]),
        &[("/forward", "one"), ("/omitted", "500"), ("/empty", "500")],
    );
    // httproute-timeout-request, httproute-timeout-backend-request
    check(
        &three(&["  - {matches: [{path: {value: /request}}], timeouts: {request: 2s}, backendRefs: [{name: one}]}
  - {matches: [{path: {value: /request-never}}], timeouts: {request: 0s}, backendRefs: [{name: one}]}
  - {matches: [{path: {value: /backend}}], timeouts: {backendRequest: 2s}, backendRefs: [{name: one}]}
  - {matches: [{path: {value: /backend-never}}], timeouts: {backendRequest: 0s}, backendRefs: [{name: one}]}
"]),
        &[
            ("/request", "one"),
            ("/request wait=6000", "504"),
            ("/request-never wait=600", "one"),
            ("/backend", "one"),
            ("/backend wait=6000", "504"),
            ("/backend-never wait=600", "one"),
        ],
    );
}

#[test]
fn redirects() {
    let redirect = |path: &str, what: &str| {
        format!(
            "  - matches: [{{path: {{value: {path}}}}}]\n    filters: [{{type: RequestRedirect, requestRedirect: {{{what}}}}}]\n"
        )
    };
    let prefix = "path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}";
    let full = "path: {type: ReplaceFullPath, replaceFullPath: /whole}";
    let rules: String = [
        ("/host", "hostname: example.org"),
        ("/host-status", "hostname: example.org, statusCode: 301"),
        ("/prefix", prefix),
        ("/full", full),
        ("/prefix-host", &format!("hostname: example.org, {prefix}")),
        ("/full-status", &format!("statusCode: 301, {full}")),
        ("/port", "port: 8083"),
        ("/port-host", "port: 8083, hostname: example.org"),
        ("/port-80", "port: 80, hostname: example.org"),
        ("/scheme", "scheme: https"),
        ("/scheme-host", "scheme: https, hostname: example.org"),
        ("/scheme-443", "scheme: https, port: 443, hostname: example.org"),
        ("/scheme-8443", "scheme: https, port: 8443, hostname: example.org"),
        ("/303", "statusCode: 303"),
        ("/307", "statusCode: 307"),
        ("/308", "statusCode: 308"),
    ]
    .iter()
    .map(|(path, what)| redirect(path, what))
    .collect();
    let backend = "  - matches: [{path: {value: /backend-full}}]
    backendRefs: [{name: one, filters: [{type: RequestRedirect, requestRedirect: {path: {type: ReplaceFullPath, replaceFullPath: /gone}}}]}]
  - matches: [{path: {value: /backend-prefix}}]
    backendRefs: [{name: one, filters: [{type: RequestRedirect, requestRedirect: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /gone}}}]}]
";
    check(
        &three(&[&format!("{rules}{backend}")]),
        &[
            // httproute-redirect-host-and-status
            ("/host", "302 location=http://example.org/host"),
            ("/host-status", "301 location=http://example.org/host-status"),
            // httproute-redirect-path
            ("/prefix/lemon", "302 location=http://any.test/new/lemon"),
            ("/full/path/original", "302 location=http://any.test/whole"),
            ("/prefix-host", "302 location=http://example.org/new"),
            ("/full-status", "301 location=http://any.test/whole"),
            ("/prefix?a=b", "302 location=http://any.test/new?a=b"),
            // httproute-redirect-port, -scheme, -port-and-scheme. Without a port and a scheme it is the listener's there; here
            // the one that the client has asked at: in a pod it may well be another.
            ("/port", "302 location=http://any.test:8083/port"),
            ("/port-host", "302 location=http://example.org:8083/port-host"),
            ("/port-80", "302 location=http://example.org/port-80"),
            ("any.test:8080/port-80", "302 location=http://example.org/port-80"),
            ("any.test:8080/host", "302 location=http://example.org:8080/host"),
            ("/scheme", "302 location=https://any.test/scheme"),
            ("any.test:8080/scheme-host", "302 location=https://example.org/scheme-host"),
            ("any.test:8080/scheme-443", "302 location=https://example.org/scheme-443"),
            ("/scheme-8443", "302 location=https://example.org:8443/scheme-8443"),
            // httproute-303-redirect, -307-, -308-
            ("POST /303", "303 location=http://any.test/303"),
            ("POST /307", "307 location=http://any.test/307"),
            ("POST /308", "308 location=http://any.test/308"),
            // httproute-backend-request-redirect
            ("/backend-full/original", "302 location=http://any.test/gone"),
            ("/backend-prefix/original", "302 location=http://any.test/gone/original"),
        ],
    );
}

#[test]
fn rewrites() {
    let prefix = |path: &str, with: &str| {
        format!(
            "  - matches: [{{path: {{value: {path}}}}}]\n    backendRefs: [{{name: one}}]\n    filters: [{{type: URLRewrite, urlRewrite: {{path: {{type: ReplacePrefixMatch, replacePrefixMatch: '{with}'}}}}}}]\n"
        )
    };
    let modify = "{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-Set, value: s}], add: [{name: X-Add, value: a}, {name: X-Append, value: b}], remove: [X-Remove]}}";
    let rules: String = [
        ("/prefix/one", "/one"),
        ("/strip", "/"),
        ("/empty", ""),
        ("/a", "/xyz"),
        ("/b/", "/xyz"),
        ("/c", "/xyz/"),
        ("/d/", "/xyz/"),
    ]
    .iter()
    .map(|(path, with)| prefix(path, with))
    .collect();
    let more = format!(
        "  - matches: [{{path: {{value: /full/one}}}}]
    backendRefs: [{{name: one}}]
    filters: [{{type: URLRewrite, urlRewrite: {{path: {{type: ReplaceFullPath, replaceFullPath: /one}}}}}}]
  - matches: [{{path: {{value: /full/fields}}}}]
    backendRefs: [{{name: one}}]
    filters: [{{type: URLRewrite, urlRewrite: {{path: {{type: ReplaceFullPath, replaceFullPath: /test}}}}}}, {modify}]
  - matches: [{{path: {{value: /host}}}}]
    backendRefs: [{{name: two}}]
    filters: [{{type: URLRewrite, urlRewrite: {{hostname: one.example.org}}}}, {modify}]
  - matches: [{{path: {{value: /backend-full}}}}]
    backendRefs: [{{name: one, filters: [{{type: URLRewrite, urlRewrite: {{path: {{type: ReplaceFullPath, replaceFullPath: /new}}}}}}]}}]
  - matches: [{{path: {{value: /backend-prefix}}}}]
    backendRefs: [{{name: one, filters: [{{type: URLRewrite, urlRewrite: {{path: {{type: ReplacePrefixMatch, replacePrefixMatch: /new}}}}}}]}}]
"
    );
    check(
        &three(&[&format!("{rules}{more}")]),
        &[
            // httproute-rewrite-path
            ("/prefix/one/two", "one /one/two"),
            ("/strip/three", "one /three"),
            ("/strip", "one /"),
            ("/strip/", "one /"),
            ("/full/one/two", "one /one"),
            ("/full/fields/test X-Remove=r X-Append=a X-Set=t", "one /test x-add=a x-append=a,b x-set=s !x-remove"),
            // The reference's table for ReplacePrefixMatch.
            ("/a/bar", "one /xyz/bar"),
            ("/a", "one /xyz"),
            ("/a/", "one /xyz/"),
            ("/b/bar", "one /xyz/bar"),
            ("/c/bar", "one /xyz/bar"),
            ("/d/bar", "one /xyz/bar"),
            ("/empty/bar", "one /bar"),
            ("/empty/", "one /"),
            ("/empty", "one /"),
            ("/a/bar?q=/a", "one /xyz/bar?q=/a"),
            // httproute-rewrite-host
            ("rewrite.test/host", "two host=one.example.org x-add=a"),
            // httproute-backend-url-rewrite
            ("/backend-full/original", "one /new"),
            ("/backend-prefix/original", "one /new/original"),
        ],
    );
}

#[test]
fn fields() {
    let edits = "{set: [{name: X-Set-1, value: s1}, {name: X-Set-2, value: s2}], add: [{name: X-Add-1, value: a1}, {name: X-Add-2, value: a2}], remove: [X-Remove-1, X-Remove-2]}";
    let rules = format!(
        "  - matches: [{{path: {{value: /set}}}}]
    backendRefs: [{{name: one}}]
    filters: [{{type: RequestHeaderModifier, requestHeaderModifier: {{set: [{{name: X-Set, value: new}}]}}}}]
  - matches: [{{path: {{value: /add}}}}]
    backendRefs: [{{name: one}}]
    filters: [{{type: RequestHeaderModifier, requestHeaderModifier: {{add: [{{name: X-Add, value: more}}]}}}}]
  - matches: [{{path: {{value: /remove}}}}]
    backendRefs: [{{name: one}}]
    filters: [{{type: RequestHeaderModifier, requestHeaderModifier: {{remove: [X-Remove]}}}}]
  - matches: [{{path: {{value: /request}}}}]
    backendRefs: [{{name: one}}]
    filters: [{{type: RequestHeaderModifier, requestHeaderModifier: {edits}}}]
  - matches: [{{path: {{value: /answer}}}}]
    backendRefs: [{{name: one}}]
    filters: [{{type: ResponseHeaderModifier, responseHeaderModifier: {edits}}}]
  - matches: [{{path: {{value: /both}}}}]
    backendRefs: [{{name: one, filters: [{{type: RequestHeaderModifier, requestHeaderModifier: {{set: [{{name: Backend, value: one}}]}}}}]}}]
    filters: [{{type: ResponseHeaderModifier, responseHeaderModifier: {edits}}}, {{type: RequestHeaderModifier, requestHeaderModifier: {edits}}}]
"
    );
    check(
        &three(&[&rules]),
        &[
            // httproute-request-header-modifier
            ("/set Other=val", "one other=val x-set=new"),
            ("/set Other=val X-Set=old", "one other=val x-set=new"),
            ("/add Other=val", "one other=val x-add=more"),
            ("/add X-Add=old", "one x-add=old,more"),
            ("/remove X-Remove=val", "one !x-remove"),
            (
                "/request X-Set-2=o X-Add-2=o X-Remove-2=o Another=val",
                "one x-set-1=s1 x-set-2=s2 x-add-1=a1 x-add-2=o,a2 !x-remove-1 !x-remove-2 another=val",
            ),
            ("/request x-set-1=o x-add-1=o x-remove-1=o", "one x-set-1=s1 x-add-1=o,a1 !x-remove-1"),
            // httproute-response-header-modifier
            ("/answer give=Some-Other:val", "one >some-other=val >x-set-1=s1"),
            (
                "/answer give=X-Set-2:o;X-Add-2:o;X-Remove-2:o;Another:val;X-Remove-1:o",
                "one >x-set-1=s1 >x-set-2=s2 >x-add-1=a1 >x-add-2=o,a2 >!x-remove-1 >!x-remove-2 >another=val",
            ),
            ("/answer give=x-set-1:o;x-add-1:o;x-remove-1:o", "one >x-set-1=s1 >x-add-1=o,a1 >!x-remove-1"),
            // The same with both, and httproute-request-header-modifier-backend-weights
            (
                "/both X-Remove-1=o X-Add-1=o give=X-Add-2:o;X-Remove-1:o;X-Echo:e",
                "one x-add-1=o,a1 !x-remove-1 backend=one >x-add-2=o,a2 >!x-remove-1 >x-echo=e",
            ),
        ],
    );
}

#[test]
fn other_sites() {
    // httproute-cors
    let cors = |path: &str, what: &str| {
        format!(
            "  - matches: [{{path: {{value: {path}}}}}]\n    backendRefs: [{{name: one}}]\n    filters: [{{type: CORS, cors: {{{what}}}}}]\n"
        )
    };
    let rules: String = [
        ("/one", "allowOrigins: ['https://www.foo.com', 'https://*.bar.com'], allowMethods: [GET, OPTIONS], allowHeaders: [x-1, x-2], exposeHeaders: [x-3, x-4], allowCredentials: true, maxAge: 3600"),
        ("/two", "allowOrigins: ['https://www.foo.com'], allowMethods: ['*']"),
        ("/any", "allowOrigins: ['*'], allowMethods: [PUT]"),
        ("/open", "allowOrigins: ['*'], allowMethods: ['*'], allowHeaders: ['*']"),
    ]
    .iter()
    .map(|(path, what)| cors(path, what))
    .collect();
    let all = "access-control-allow-methods=GET,OPTIONS access-control-allow-headers=x-1,x-2 access-control-expose-headers=x-3,x-4 access-control-max-age=3600 access-control-allow-credentials=true";
    let expect = |origin: &str| -> &'static str { format!("204 access-control-allow-origin={origin} {all}").leak() };
    check(
        &three(&[&rules]),
        &[
            (
                "OPTIONS /one Origin=https://www.foo.com access-control-request-method=GET access-control-request-headers=x-1,x-2",
                expect("https://www.foo.com"),
            ),
            (
                "OPTIONS /one Origin=https://www.bar.com access-control-request-method=GET access-control-request-headers=x-1,x-2",
                expect("https://www.bar.com"),
            ),
            (
                "OPTIONS /one Origin=https://xpto.www.bar.com access-control-request-method=GET access-control-request-headers=x-1,x-2",
                expect("https://xpto.www.bar.com"),
            ),
            (
                "OPTIONS /one Origin=https://foobar.com access-control-request-method=GET",
                "403 !access-control-allow-origin",
            ),
            ("/one Origin=https://www.foo.com", "one >access-control-allow-origin=https://www.foo.com"),
            ("/one Origin=https://www.bar.com", "one >access-control-allow-origin=https://www.bar.com"),
            ("/one Origin=https://foobar.com", "one >!access-control-allow-origin"),
            (
                "OPTIONS /two Origin=https://www.foo.com access-control-request-method=POST",
                "204 access-control-allow-methods=POST access-control-allow-origin=https://www.foo.com !access-control-allow-credentials",
            ),
            (
                "OPTIONS /any Origin=https://foobar.com access-control-request-method=PUT",
                "204 access-control-allow-origin=* access-control-allow-methods=PUT !access-control-allow-credentials",
            ),
            (
                "OPTIONS /any Origin=https://foobar.com:12345 access-control-request-method=PUT",
                "204 access-control-allow-origin=* access-control-allow-methods=PUT",
            ),
            (
                "PUT /any Origin=https://foobar.com:12345",
                "one >access-control-allow-origin=* >!access-control-allow-credentials",
            ),
            (
                "OPTIONS /open Origin=https://other.foo.com access-control-request-method=PUT access-control-request-headers=x-1,x-2",
                "204 access-control-allow-origin=* access-control-allow-methods=PUT access-control-allow-headers=x-1,x-2 !access-control-allow-credentials",
            ),
            (
                "/open Origin=https://other.foo.com",
                "one >access-control-allow-origin=* >!access-control-allow-credentials",
            ),
            // `*` with credentials is refused when the document is read: any site could act as its visitors.
        ],
    );
}

/// Of each call: `/SERVICE/METHOD`, a field, and who answers; or the status, which clients of gRPC take for a code of theirs: 404
/// for UNIMPLEMENTED, 503 for UNAVAILABLE.
#[test]
fn calls() {
    let names = ["one", "two"];
    let upstreams: Vec<Arc<Upstream>> = names.iter().map(|name| Arc::new(echo(name))).collect();
    // They speak HTTP/2 through proxies of their own.
    let inner: Vec<World> =
        upstreams.iter().map(|one| World::with(&simple_spec(&[one.address], "workers: 1\n"))).collect();
    let backends: String = names
        .iter()
        .zip(&inner)
        .map(|(name, world)| format!("- {{name: {name}, http2: true, endpoints: [\"{}\"]}}\n", world.address()))
        .collect();
    let world = World::with(&format!(
        "listeners: [{{name: http, address: \"127.0.0.1:0\"}}]
backends:
{backends}workers: 1
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {{name: a}}
spec:
  rules:
  - {{matches: [{{method: {{service: a.Echo, method: Echo}}}}], backendRefs: [{{name: one}}]}}
  - {{matches: [{{method: {{service: a.Echo, method: EchoTwo}}}}], backendRefs: [{{name: two}}]}}
  - {{matches: [{{method: {{service: a.Whole}}}}], backendRefs: [{{name: two}}]}}
  - {{matches: [{{method: {{method: Any}}}}], backendRefs: [{{name: one}}]}}
  - {{matches: [{{method: {{type: RegularExpression, method: 'Reg[a-z]+'}}}}], backendRefs: [{{name: one}}]}}
  - matches: [{{method: {{service: a.Nobody}}}}]
  - matches: [{{headers: [{{name: version, value: one}}]}}]
    backendRefs: [{{name: one}}]
    filters: [{{type: RequestHeaderModifier, requestHeaderModifier: {{set: [{{name: X-Set, value: s}}], add: [{{name: X-Add, value: a}}], remove: [X-Remove]}}}}]
  - {{matches: [{{headers: [{{name: version, value: two}}]}}], backendRefs: [{{name: two}}]}}
  - {{matches: [{{headers: [{{name: version, value: two}}, {{name: color, value: orange}}]}}], backendRefs: [{{name: one}}]}}
"
    ));
    let mut wire = Wire::connect(world.address(), &[]);
    for (number, (path, fields, expected)) in [
        // grpcroute-exact-method-matching
        ("/a.Echo/Echo", "x=y", "one"),
        ("/a.Echo/EchoTwo", "x=y", "two"),
        ("/a.Echo/EchoThree", "x=y", "404"),
        // The reference: a service alone, a method alone; characters of the service count first.
        ("/a.Whole/Anything", "x=y", "two"),
        ("/a.Wholesome/Anything", "x=y", "404"),
        ("/b.Other/Any", "x=y", "one"),
        ("/a.Whole/Any", "x=y", "two"),
        ("/b.Other/Regular", "x=y", "one"),
        ("/b.Other/Reg", "x=y", "404"),
        ("/a.Nobody/Echo", "x=y", "503"),
        // grpcroute-header-matching, grpcroute-request-header-modifier
        ("/b.C/D", "version=one", "one"),
        ("/b.C/D", "version=two", "two"),
        ("/b.C/D", "version=two color=orange", "one"),
        ("/b.C/D", "color=orange", "404"),
        ("/b.C/D", "version=one x-add=o x-set=o x-remove=o", "one"),
    ]
    .into_iter()
    .enumerate()
    {
        let stream = number as u32 * 2 + 1;
        let mut more = vec![("te", "trailers"), ("content-type", "application/grpc")];
        more.extend(fields.split(' ').map(|field| field.split_once('=').unwrap()));
        let head = frame(HEADERS, WHOLE, stream, &request("POST", path, &more));
        wire.send(&[head, frame(DATA, END, stream, &[0; 5])].concat());
        let (head, body, _) = wire.answer(stream);
        match expected.parse::<u16>() {
            Ok(status) => assert_eq!(Came::Head(stream, head, true).status(), Some(status), "{path} {fields}"),
            Err(_) => assert_eq!(String::from_utf8(body).unwrap(), expected, "{path} {fields}: {head}"),
        }
    }
    let last = upstreams[0].last();
    for wanted in ["x-set=s", "x-add=o,a", "!x-remove", "te=trailers"] {
        holds(&last.head, wanted, ("the last call", wanted));
    }
}
