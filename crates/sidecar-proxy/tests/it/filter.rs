//! Filters that decide about requests.

use std::net::SocketAddr;

use crate::harness::{Upstream, World, eventually, ok};

/// A document with one route, whose filters these are (a flow sequence's items, one a line).
pub(crate) fn spec_with(upstream: SocketAddr, filters: &[&str], more: &str) -> String {
    let filters: String = filters.iter().map(|filter| format!("  - {filter}\n")).collect();
    format!(
        "listeners:\n- {{name: http, address: \"127.0.0.1:0\"}}\nroutes:\n- name: all\n  filters:\n{filters}  backends: [{{name: app}}]\nbackends:\n- name: app\n  endpoints: [\"{upstream}\"]\n{more}"
    )
}

#[test]
fn rules_by_address_path_and_field() {
    let upstream = Upstream::start(|_| ok("app"));
    let world = World::new();
    std::fs::write(world.path("banned"), "# nobody yet\n").unwrap();
    let filters = [
        "rules: [{name: banned, networksFile: ROOT/banned, action: deny}, {name: office, networks: [192.0.2.0/24], path: {prefix: /admin}, action: allow}, {name: admin, path: {prefix: /admin}, action: deny, status: 404}, {name: robots, headers: {User-Agent: {regex: '(?i)robot'}}, action: log}, {name: methods, methods: [GET, POST], not: true, action: deny, status: 405}]",
        "sizes: {query: 100}",
    ];
    let mut world = world;
    world.start(&spec_with(upstream.address, &filters, "trustedProxies: [127.0.0.0/8]\n"));
    let status = |line: &str, fields: &str| {
        let mut client = world.client();
        client.send(format!("{line} HTTP/1.1\r\nHost: h\r\n{fields}\r\n"));
        client.answer_to(line.split(' ').next().unwrap()).status()
    };
    assert_eq!(status("GET /", ""), 200);
    assert_eq!(status("GET /admin", ""), 404);
    assert_eq!(status("GET /admin", "X-Forwarded-For: 192.0.2.9\r\n"), 200);
    assert_eq!(status("GET /admin", "X-Forwarded-For: 192.0.2.9, 203.0.113.1\r\n"), 404);
    assert_eq!(status("DELETE /", ""), 405);
    assert_eq!(status("GET /", "User-Agent: Robot/1\r\n"), 200);
    assert!(world.log().contains("\"rule\":\"robots\""), "{}", world.log());
    assert_eq!(status(&format!("GET /?{}", "a".repeat(101)), ""), 414);
    let count = world
        .metric("outrigger_proxy_filter_decisions_total{route=\"all\",filter=\"1\",rule=\"admin\",decision=\"deny\"}");
    assert_eq!(count, 2);
    // A list that changes is taken over; one that cannot be read changes nothing.
    std::fs::write(world.path("banned"), "203.0.113.0/24\n").unwrap();
    eventually("the new list", || status("GET /", "X-Forwarded-For: 203.0.113.7\r\n") == 403);
    assert_eq!(status("GET /", "X-Forwarded-For: 192.0.2.1\r\n"), 200);
    std::fs::write(world.path("banned"), "203.0.113.0/24\nnonsense\n").unwrap();
    eventually("the refusal", || world.log().contains("line 2: `nonsense`"));
    assert_eq!(status("GET /", "X-Forwarded-For: 203.0.113.7\r\n"), 403);
}

#[test]
fn requests_behind_an_answer_of_our_own_are_not_lost() {
    let upstream = Upstream::start(|_| ok("app"));
    let world =
        World::with(&spec_with(upstream.address, &["rules: [{name: never, path: {prefix: /no}, action: deny}]"], ""));
    let mut client = world.client();
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n");
    client.send([get("/no"), get("/yes"), get("/no"), get("/yes")].concat());
    let statuses: Vec<u16> = (0..4).map(|_| client.answer().status()).collect();
    assert_eq!(statuses, [403, 200, 403, 200]);
}

#[test]
fn attacks_are_reported_or_denied() {
    let upstream = Upstream::start(|_| ok("app"));
    let filters = |mode: &str| {
        format!(
            "attacks: {{mode: {mode}, exclude: [{{path: {{prefix: /sql}}, rules: [sql]}}, {{parameters: [code]}}]}}"
        )
    };
    let mut world = World::new();
    let spec = |mode: &str| spec_with(upstream.address, &[&filters(mode)], "");
    world.start(&spec("report"));
    let status = |world: &World, path: &str| world.client().get(path).status();
    let union = "/?q=1+union+select+1,2";
    assert_eq!(status(&world, union), 200);
    assert!(world.log().contains("\"rules\":\"sql-union\""), "{}", world.log());
    world.reload(&spec("deny"));
    assert_eq!(status(&world, union), 403);
    assert_eq!(status(&world, "/sql?q=1+union+select+1,2"), 200);
    assert_eq!(status(&world, "/?code=1+union+select+1,2"), 200);
    assert_eq!(status(&world, "/?q=credit+union"), 200);
    world.reload(&spec("\"off\""));
    assert_eq!(status(&world, union), 200);
}
