use super::*;
use crate::head::{Bounds, request};

fn prefix(path: &str) -> Match {
    Match { path: Some(Path::Prefix(path.into())), ..Match::default() }
}

fn host(host: &str) -> Match {
    Match { host: host.into(), ..prefix("/") }
}

fn found(table: &Table, text: &str) -> Option<usize> {
    let mut fields = Vec::new();
    let bounds = Bounds { bytes: 4096, fields: 50 };
    let head = request(text.as_bytes(), &mut fields, bounds).unwrap().unwrap();
    let bytes = text.as_bytes();
    let target = head.path.of(bytes);
    let end = target.iter().position(|byte| *byte == b'?').unwrap_or(target.len());
    table.find(&View {
        bytes,
        fields: &fields,
        method: head.method_span.of(bytes),
        host: without_port(head.host.of(bytes)),
        port: port_of(head.host.of(bytes)),
        path: &target[..end],
        query: target.get(end + 1..).unwrap_or_default(),
    })
}

#[test]
fn a_call_is_a_method_of_any_service() {
    let call = |method: &str| Match { path: Some(Path::Call(method.into())), ..Match::default() };
    let table = Table::new(vec![(call("Get"), 0), (prefix("/a.B"), 1), (call("GetAll"), 2)]);
    for (path, expected) in [
        ("/a.C/Get", Some(0)),
        // The service counts more.
        ("/a.B/Get", Some(1)),
        ("/x/GetAll", Some(2)),
        ("/Get", None),
        ("//Get", None),
        ("/a.C/Get/", None),
        ("/a.C/x/Get", None),
        ("/a.C/get", None),
    ] {
        assert_eq!(found(&table, &format!("POST {path} HTTP/1.1\r\nHost: h\r\n\r\n")), expected, "{path}");
    }
}

#[test]
fn a_name_with_a_dot_at_its_end_is_the_same_name() {
    for (wanted, asked, matches) in [
        ("a.example", "a.example.", true),
        ("*.example", "A.example.", true),
        ("*.example", "b.a.example.:80", true),
        ("*.example", ".example.", false),
        ("*.example", "example.", false),
        ("a.example", "a.example..", false),
    ] {
        let table = Table::new(vec![(host(wanted), 0)]);
        assert_eq!(get(&table, asked, "/").is_some(), matches, "{wanted} {asked}");
    }
}

fn get(table: &Table, host: &str, path: &str) -> Option<usize> {
    found(table, &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nX-Env: blue\r\n\r\n"))
}

#[test]
fn the_more_specific_wins() {
    let exact = Match { path: Some(Path::Exact(b"/api/v1".into())), ..Match::default() };
    let header = Match { headers: vec![(b"x-env".into(), Text::Exact(b"blue".into()))], ..prefix("/h") };
    let regex = Match { path: Some(Path::Regex(Regex::new("^/u/[0-9]+$").unwrap())), ..Match::default() };
    let query = Match { query: vec![(b"v".into(), Text::Exact(b"2".into()))], ..prefix("/q") };
    let method = Match { method: Some(b"POST".into()), ..prefix("/") };
    let all = [prefix("/"), prefix("/api"), exact, prefix("/h"), header, regex, prefix("/q"), query, method];
    let table = Table::new(all.into_iter().enumerate().map(|(index, one)| (one, index)).collect());
    for (path, route) in [
        ("/", 0),
        ("/apix", 0),
        ("/api", 1),
        ("/api/", 1),
        ("/api/v2", 1),
        ("/api/v1", 2),
        ("/api/v1?x=1", 2),
        ("/h/x", 4),
        ("/u/12", 5),
        ("/u/a", 0),
        ("/q?v=1", 6),
        ("/q?a&v=2", 7),
        ("/q?w=2", 6),
        ("/q?v=2x", 6),
        ("http://h/api", 1),
    ] {
        assert_eq!(get(&table, "h", path), Some(route), "{path}");
    }
    assert_eq!(found(&table, "POST /x HTTP/1.1\r\nHost: h\r\n\r\n"), Some(8));
}

#[test]
fn hosts() {
    let all = [host("example.com"), host("*.example.com"), host("*.a.example.com")];
    let table = Table::new(all.into_iter().enumerate().map(|(index, one)| (one, index)).collect());
    for (host, route) in [
        ("example.com", Some(0)),
        ("EXAMPLE.com:8080", Some(0)),
        ("example.com.", Some(0)),
        ("x.example.com", Some(1)),
        ("x.y.example.com", Some(1)),
        ("x.a.example.com", Some(2)),
        ("badexample.com", None),
        (".example.com", None),
        ("[::1]:80", None),
    ] {
        assert_eq!(get(&table, host, "/"), route, "{host}");
    }
}

#[test]
fn a_name_comes_before_a_pattern_of_the_same_length() {
    let table = Table::new(vec![(host("*.example.com"), 0), (host("a.example.com"), 1)]);
    assert_eq!(get(&table, "a.example.com", "/"), Some(1));
    assert_eq!(get(&table, "b.example.com", "/"), Some(0));
}

#[test]
fn weights_split_as_told() {
    let targets = Targets::plain([(4, 90), (5, 10)]);
    let mut dice = crate::pool::Dice::new(99);
    let second = (0..10_000).filter(|_| targets.draw(&mut dice) == Some(1)).count();
    assert!((850..1150).contains(&second), "{second}");
    for weights in [&[][..], &[(4, 0)], &[(4, 0), (5, 0)]] {
        assert_eq!(Targets::plain(weights.iter().copied()).draw(&mut dice), None, "{weights:?}");
    }
}

#[test]
fn a_port_that_is_named_must_be_there() {
    let host = |host: &[u8], port: &[u8]| Match { host: host.to_vec(), port: port.to_vec(), ..Match::default() };
    let table = Table::new(vec![
        (host(b"db.test", b""), 0),
        (host(b"db.test", b"5432"), 1),
        (host(b"[::1]", b"80"), 2),
        (host(b"*.db.test", b"5432"), 3),
    ]);
    for (authority, route) in [
        ("db.test:5432", Some(1)),
        ("DB.test:5433", Some(0)),
        ("db.test", Some(0)),
        ("[::1]:80", Some(2)),
        ("[::1]:8", None),
        ("[::1]", None),
        ("a.db.test:5432", Some(3)),
        ("a.db.test:543", None),
    ] {
        assert_eq!(get(&table, authority, "/"), route, "{authority}");
    }
}
