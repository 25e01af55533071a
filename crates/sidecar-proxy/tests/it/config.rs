//! The command line, the examples, and the reference page, which is generated.

use std::path::Path;
use std::process::{Command, Output};

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_outrigger-proxy")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// Documents of the kind in a file: those that stand by themselves and those in a ConfigMap.
fn documents(file: &str) -> Vec<String> {
    if file.contains("\napiVersion: gateway.networking.k8s.io/") {
        // They belong together.
        return vec![file.to_owned()];
    }
    let mut found = Vec::new();
    for document in file.split("\n---\n") {
        if document.lines().any(|line| line == "kind: Proxy") {
            found.push(document.to_owned());
        }
        let mut lines = document.lines().skip_while(|line| !line.ends_with(".yaml: |")).skip(1).peekable();
        let indent = lines.peek().map_or(0, |line| line.len() - line.trim_start().len());
        let inside = |line: &&str| line.trim().is_empty() || line.starts_with(&" ".repeat(indent));
        let text: String =
            lines.take_while(inside).map(|line| format!("{}\n", line.get(indent..).unwrap_or(""))).collect();
        if indent > 0 && text.contains("kind: Proxy") {
            found.push(text);
        }
    }
    found
}

#[test]
fn the_examples_are_good() {
    let directory = tempfile::tempdir().unwrap();
    let mut checked = 0;
    for entry in std::fs::read_dir(root().join("examples/sidecars")).unwrap() {
        let path = entry.unwrap().path();
        if !path.to_string_lossy().ends_with(".yaml") {
            continue;
        }
        for document in documents(&std::fs::read_to_string(&path).unwrap()) {
            let copy = directory.path().join("proxy.yaml");
            std::fs::write(&copy, document).unwrap();
            let output = run(&["--check", "--config", copy.to_str().unwrap()]);
            assert!(output.status.success(), "{}: {}", path.display(), text(&output.stderr));
            checked += 1;
        }
    }
    assert!(checked >= 6, "{checked}");
}

#[test]
fn the_reference_is_up_to_date() {
    let path = root().join("docs/reference/proxy.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (head, _) = page.split_once("<!-- generated -->\n").unwrap();
    let fresh = format!("{head}<!-- generated -->\n{}", text(&run(&["--print-reference"]).stdout));
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, &fresh).unwrap();
        return;
    }
    assert!(page == fresh, "docs/reference/proxy.md is stale; run with UPDATE_EXPECT=1");
}

#[test]
fn every_problem_is_reported_at_its_place() {
    let bad = "apiVersion: outrigger.dev/v1alpha1
kind: Proxy
spec:
  listeners:
  - {name: a, address: 'here'}
  - {name: a, address: ':80', tcp: nobody}
  routes:
  - name: r
    listeners: [b]
    hosts: [UPPER, 'a:80', 'b:0', '[::1]']
    matches:
    - path: {prefix: api}
      method: CONNECT
      headers: {'a b': {exact: x}}
    - path: {regex: '('}
    filters:
    - requestHeaders: {set: {Host: x}, add: {X: \"a\\nb\"}, remove: [Connection]}
    - redirect: {status: 200, scheme: ftp}
    retries: {statuses: [404], attempts: 11}
    backends: [{name: gone}]
  backends:
  - {name: b, endpoints: ['nowhere', 'h:0', 'unix:x']}
  - {name: c, endpoints: ['h:1'], http1: true}
  - {name: d, endpoints: ['h:1'], http1: true, http2: true, tls: {}}
  limits: {head: 1Mi}
  filters: {unused: {respond: {status: 99}}}
";
    let (code, said) = checked(bad);
    assert_eq!(code, Some(3));
    assert_eq!(
        said,
        "F:5:24: spec.listeners[0].address: must be `:PORT`, `ADDRESS:PORT` or `unix:/PATH`
F:6:12: spec.listeners[1].name: the name `a` is taken already
F:6:36: spec.listeners[1].tcp: there is no backend `nobody`
F:9:17: spec.routes[0].listeners[0]: there is no listener `b`
F:10:13: spec.routes[0].hosts[0]: must be a lower-case host name, or `*.` and one
F:10:20: spec.routes[0].hosts[1]: a port is only for routes with connect: true
F:10:28: spec.routes[0].hosts[2]: a port is only for routes with connect: true
F:12:14: spec.routes[0].matches[0].path.prefix: must begin with `/` and have neither blanks nor a query
F:13:15: spec.routes[0].matches[0].method: must be a method other than CONNECT
F:14:24: spec.routes[0].matches[0].headers.a b: is no field name
F:15:14: spec.routes[0].matches[1].path.regex: not a regular expression: unclosed group
F:17:36: spec.routes[0].filters[0].requestHeaders.set.Host: belongs to the connection and cannot be set
F:17:49: spec.routes[0].filters[0].requestHeaders.add.X: is no field value
F:17:67: spec.routes[0].filters[0].requestHeaders.remove[0]: belongs to the connection and cannot be removed
F:18:26: spec.routes[0].filters[1].redirect.status: must be 301, 302, 303, 307 or 308
F:18:39: spec.routes[0].filters[1].redirect.scheme: must be http or https
F:19:26: spec.routes[0].retries.statuses[0]: must be from 500 to 599
F:19:42: spec.routes[0].retries.attempts: must be at most 10
F:20:23: spec.routes[0].backends[0].name: there is no backend `gone`
F:22:27: spec.backends[0].endpoints[0]: must be `HOST:PORT` or `unix:/PATH`
F:22:38: spec.backends[0].endpoints[1]: must be `HOST:PORT` or `unix:/PATH`
F:22:45: spec.backends[0].endpoints[2]: a socket's path must be absolute
F:23:42: spec.backends[1].http1: needs http2: without, nothing else is spoken
F:24:42: spec.backends[2].http1: is of no use with tls: the handshake tells what is spoken (ALPN)
F:25:18: spec.limits.head: must be between 1Ki and 32Ki
F:26:40: spec.filters.unused.respond.status: must be from 200 to 599
26 problem(s)
"
    );
}

/// How `--check` ends and what it says of a document, whose path is `F`.
fn checked(document: &str) -> (Option<i32>, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bad.yaml");
    std::fs::write(&path, document).unwrap();
    let output = run(&["--check", "--config", path.to_str().unwrap()]);
    (output.status.code(), text(&output.stderr).replace(path.to_str().unwrap(), "F"))
}

/// What is said of a document with this spec, each with its place.
pub(crate) fn problems(spec: &str) -> Vec<String> {
    let spec: String = spec.lines().map(|line| format!("  {line}\n")).collect();
    let (_, said) = checked(&format!("apiVersion: outrigger.dev/v1alpha1\nkind: Proxy\nspec:\n{spec}"));
    let lines = said.lines().filter(|line| !line.ends_with("problem(s)"));
    lines.map(|line| line.strip_prefix("F:").unwrap_or(line).to_owned()).collect()
}

#[test]
fn what_could_never_hold_is_refused() {
    let bad = "apiVersion: outrigger.dev/v1alpha1
kind: Proxy
spec:
  listeners:
  - {name: a, address: ':80'}
  routes:
  - name: r
    hosts: [a.example., a..example, '*.example.', .example]
    matches:
    - path: {exact: '/a?b'}
    - path: {prefix: '/a?b'}
    filters:
    - redirect: {port: 0}
  backends:
  - {name: a, endpoints: ['h:1'], activeHealth: {failures: 0}}
  - {name: b, endpoints: ['h:1'], activeHealth: {successes: 0}}
  - {name: c, discover: [{kubernetes: {service: ''}}, {consul: {service: ''}}]}
";
    assert_eq!(
        checked(bad).1,
        "F:8:13: spec.routes[0].hosts[0]: must be a lower-case host name, or `*.` and one
F:8:25: spec.routes[0].hosts[1]: must be a lower-case host name, or `*.` and one
F:8:37: spec.routes[0].hosts[2]: must be a lower-case host name, or `*.` and one
F:8:51: spec.routes[0].hosts[3]: must be a lower-case host name, or `*.` and one
F:10:14: spec.routes[0].matches[0].path.exact: must begin with `/` and have neither blanks nor a query
F:11:14: spec.routes[0].matches[1].path.prefix: must begin with `/` and have neither blanks nor a query
F:13:24: spec.routes[0].filters[0].redirect.port: must be from 1 to 65535
F:15:35: spec.backends[0].activeHealth: failures and successes must be at least 1
F:16:35: spec.backends[1].activeHealth: failures and successes must be at least 1
F:17:49: spec.backends[2].discover[0].kubernetes.service: must not be empty
F:17:74: spec.backends[2].discover[1].consul.service: must not be empty
11 problem(s)
"
    );
}

#[test]
fn where_endpoints_have_not_one_host_a_server_name_is_needed() {
    let bad = "apiVersion: outrigger.dev/v1alpha1
kind: Proxy
spec:
  listeners: [{name: a, address: ':80', tcp: a}]
  backends:
  - {name: a, endpoints: ['h:1', 'h:2'], members: [{address: 'h:3'}], tls: {}}
  - {name: b, endpoints: ['h:1'], members: [{address: 'g:1'}], tls: {}}
  - {name: c, endpoints: ['unix:/h'], tls: {}}
  - {name: d, endpoints: ['h:1'], discover: [{srv: h}], tls: {}}
  - {name: e, endpoints: ['h:1', 'g:1'], tls: {serverName: h}}
";
    assert_eq!(
        checked(bad).1,
        "F:7:64: spec.backends[1].tls: needs a serverName, since the endpoints have different hosts
F:8:39: spec.backends[2].tls: needs a serverName, since a socket has none
F:9:57: spec.backends[3].tls: needs a serverName, since endpoints are discovered
3 problem(s)
"
    );
}

#[test]
fn hosts_of_tunnels_may_name_ports() {
    let spec = |host: &str| {
        format!(
            "listeners: [{{name: a, address: ':80'}}]\nroutes: [{{name: r, hosts: ['{host}'], connect: true, backends: [{{name: b}}]}}]\nbackends: [{{name: b, endpoints: ['127.0.0.1:1']}}]"
        )
    };
    for host in ["a", "a:1", "*.a:65535", "[::1]", "[::1]:80"] {
        assert!(problems(&spec(host)).is_empty(), "{host}");
    }
    for host in ["a:", "a:0", "a:080", "a:65536", "[::1]:x", "*.a:b"] {
        assert_eq!(
            problems(&spec(host)),
            ["5:30: spec.routes[0].hosts[0]: the port must be from 1 to 65535"],
            "{host}"
        );
    }
}

#[test]
fn flags_stand_for_a_document() {
    let printed = run(&["--print-config", "--listen", ":8080", "--to", "127.0.0.1:3000", "--access-log", "json"]);
    let document = text(&printed.stdout);
    for part in ["kind: Proxy", "address: \":8080\"", "- \"127.0.0.1:3000\"", "balance: roundRobin", "format: json"] {
        assert!(document.contains(part), "{part}\n{document}");
    }
    // Without a bound, 500 clients of HTTP/2 make the kernel look for ports for seconds, and nobody is served.
    assert!(document.contains("endpointConnections: 10000"), "{document}");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("printed.yaml");
    std::fs::write(&path, &document).unwrap();
    let again = run(&["--print-config", "--config", path.to_str().unwrap()]);
    assert_eq!(text(&again.stdout), document, "{}", text(&again.stderr));
    for (arguments, message) in [
        (&["--listen", ":1"][..], "needs --to ENDPOINT or --config FILE; see --help"),
        (&["--to", "a:1", "--tls-cert", "x"], "--tls-cert and --tls-key belong together"),
        (&["--to", "a:1", "--access-log", "xml"], "--access-log: `xml` is not text or json"),
    ] {
        let output = run(arguments);
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(2), format!("outrigger-proxy: {message}\n")));
    }
    assert!(text(&run(&["--help"]).stdout).contains("outrigger-proxy trace"));
    assert!(text(&run(&["trace", "--help"]).stdout).contains("--watch"));
    assert_eq!(run(&["trace", "--admin", "127.0.0.1:1"]).status.code(), Some(1));
}

#[test]
fn an_unknown_choice_is_refused_at_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bad.yaml");
    std::fs::write(&path, "apiVersion: outrigger.dev/v1alpha1\nkind: Proxy\nspec:\n  listeners: []\n  backends: []\n  ambiguousPaths: maybe\n").unwrap();
    let output = run(&["--check", "--config", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(3));
    let told = text(&output.stderr).replace(path.to_str().unwrap(), "F");
    assert!(told.starts_with("F:6:19: spec.ambiguousPaths: "), "{told}");
}
