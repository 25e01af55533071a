//! Requests that belong to an endpoint: by a cookie, by what they say, by where they come from.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::harness::{Answer, Does, Upstream, World, eventually, ok, simple_spec};

fn named(count: usize) -> Vec<Upstream> {
    (0..count).map(|n| Upstream::start(move |_| ok(&n.to_string()))).collect()
}

fn spec(all: &[&Upstream], backend: &str) -> String {
    let addresses: Vec<_> = all.iter().map(|upstream| upstream.address).collect();
    simple_spec(&addresses, "").replace("  endpoints:", &format!("{backend}  endpoints:"))
}

fn get(world: &World, line: &str) -> Answer {
    let mut client = world.client();
    client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{line}\r\n\r\n"));
    client.answer()
}

#[test]
fn a_cookie_brings_clients_back() {
    let all = named(3);
    let sticky = "  sticky: {cookie: way, path: /, maxAge: 1h}\n";
    let world = World::with(&spec(&all.iter().collect::<Vec<_>>(), sticky));
    let mut cookies = HashMap::new();
    for _ in 0..9 {
        let answer = get(&world, "X: y");
        let cookie = answer.field("set-cookie").unwrap().to_owned();
        let (pair, attributes) = cookie.split_once(';').unwrap();
        assert!(pair.starts_with("way=") && attributes.contains("Path=/") && attributes.contains("Max-Age=3600"));
        cookies.insert(answer.body, pair.to_owned());
    }
    assert_eq!(cookies.len(), 3, "clients without one are spread");
    let back = |world: &World, name: &str| get(world, &format!("Cookie: a=b; {}; c=d", cookies[name]));
    for _ in 0..5 {
        for name in cookies.keys() {
            let answer = back(&world, name);
            assert_eq!((answer.body.as_str(), answer.field("set-cookie")), (name.as_str(), None));
        }
    }
    // Another order, and one is gone: its clients are given another cookie, the others' stays.
    world.reload(&spec(&[&all[2], &all[0]], sticky));
    assert_eq!((back(&world, "0").body, back(&world, "2").body), ("0".to_owned(), "2".to_owned()));
    let moved = back(&world, "1");
    let given = moved.field("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    assert_eq!(given, cookies[&moved.body]);
}

#[test]
fn clients_behind_a_trusted_proxy_are_told_apart() {
    let all = named(4);
    let more = "  balance: maglev\nworkers: 1\ntrustedProxies: [127.0.0.0/8]\naccessLog: {fields: [client]}\n";
    let addresses: Vec<_> = all.iter().map(|upstream| upstream.address).collect();
    let world = World::with(&simple_spec(&addresses, more));
    let by = |n: usize| get(&world, &format!("X-Forwarded-For: 192.0.2.1, 203.0.113.{n}, 127.0.0.7")).body;
    let first: Vec<_> = (0..40).map(by).collect();
    assert!(first.iter().any(|one| *one != first[0]), "{first:?}");
    assert_eq!(first, (0..40).map(by).collect::<Vec<_>>());
    // Whoever is not named by it is the one who is connected.
    get(&world, "X-Forwarded-For: unknown");
    let log = || std::fs::read_to_string(world.path("stdout")).unwrap();
    eventually("all lines", || log().lines().count() == 81);
    assert_eq!(log().lines().next(), Some("{\"client.address\":\"203.0.113.0\"}"));
    assert_eq!(log().lines().last(), Some("{\"client.address\":\"127.0.0.1\"}"));
}

#[test]
fn a_header_decides() {
    let all = named(4);
    let balance = |name: &str| format!("  balance: {name}\n  hashOn: {{header: X-User}}\n");
    for name in ["ringHash", "maglev"] {
        let world = World::with(&spec(&all.iter().collect::<Vec<_>>(), &balance(name)));
        let users = || (0..40).map(|user| get(&world, &format!("X-User: user-{user}")).body).collect::<Vec<_>>();
        let first = users();
        assert_eq!(first, users(), "{name}");
        let of = |wanted: &str, all: &[String]| all.iter().filter(|body| *body == wanted).count();
        assert!((0..4).all(|n| of(&n.to_string(), &first) > 0), "{name}: {first:?}");
        // One is gone: its users are spread, and hardly any other moves; none on a ring.
        world.reload(&spec(&[&all[0], &all[1], &all[3]], &balance(name)));
        let then = users();
        assert_eq!(of("2", &then), 0);
        let moved = first.iter().zip(&then).filter(|(before, after)| *before != "2" && before != after).count();
        assert!(moved <= if name == "ringHash" { 0 } else { 10 }, "{name}: {first:?} {then:?}");
    }
}

#[test]
fn requests_stay_in_their_zone_as_long_as_it_is_well() {
    let well = Arc::new(AtomicBool::new(true));
    let is_well = Arc::clone(&well);
    let near = Upstream::start(move |seen| {
        let sick = seen.line().contains("/healthz") && !is_well.load(Ordering::Relaxed);
        if sick { Does::Says("HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n".to_owned()) } else { ok("near") }
    });
    let far = Upstream::start(|_| ok("far"));
    let members = format!(
        "  activeHealth: {{path: /healthz, interval: 50ms, timeout: 10s}}\n  members: [{{address: '{}', zone: a}}, {{address: '{}', zone: b}}]\n",
        near.address, far.address
    );
    let world = World::with(&simple_spec(&[], "zone: a\n").replace("  endpoints: []\n", &members));
    let mut client = world.client();
    (0..10).for_each(|_| assert_eq!(client.get("/").body, "near"));
    well.store(false, Ordering::Relaxed);
    eventually("the other zone", || client.get("/").body == "far");
    (0..10).for_each(|_| assert_eq!(client.get("/").body, "far"));
    well.store(true, Ordering::Relaxed);
    eventually("the own zone", || client.get("/").body == "near");
    (0..10).for_each(|_| assert_eq!(client.get("/").body, "near"));
}
