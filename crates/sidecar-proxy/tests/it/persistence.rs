//! What rules of the Gateway API say of further tries (GEP-1731) and of sessions (GEP-1619).

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::harness::{Answer, Does, Upstream, World, ok};

fn get(world: &World, line: &str) -> Answer {
    let mut client = world.client();
    client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{line}\r\n\r\n"));
    client.answer()
}

/// A proxy with these backends by name, and a rule of which `rule` is the rest.
fn spec(backends: &[(&str, &[&Upstream])], rule: &str) -> String {
    let backends: String = backends
        .iter()
        .map(|(name, all)| {
            let all: Vec<_> = all.iter().map(|one| format!("\"{}\"", one.address)).collect();
            format!("- {{name: {name}, endpoints: [{}], retryPercent: 500}}\n", all.join(", "))
        })
        .collect();
    format!(
        "listeners: [{{name: http, address: \"127.0.0.1:0\"}}]
backends:
{backends}workers: 1
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: r}}
spec:
  rules:
  - {rule}
"
    )
}

/// Who has answered, by the pair that was given for it.
fn met(world: &World, field: &str, times: usize) -> HashMap<String, String> {
    let answers = (0..times).map(|_| get(world, "X: y"));
    answers
        .map(|answer| (answer.body.clone(), answer.field(field).unwrap().split(';').next().unwrap().to_owned()))
        .collect()
}

#[test]
fn a_session_holds_across_backends_whatever_their_weights() {
    let all: Vec<Upstream> = (0..4).map(|n| Upstream::start(move |_| ok(&n.to_string()))).collect();
    let rule = |weight: u32, more: &str| {
        format!("backendRefs: [{{name: a, weight: 1}}, {{name: b, weight: {weight}}}]\n    sessionPersistence: {more}")
    };
    let both: [(&str, &[&Upstream]); 2] = [("a", &[&all[0], &all[1]]), ("b", &[&all[2], &all[3]])];
    let own = "{type: Cookie, cookie: {name: way}}";
    let world = World::with(&spec(&both, &rule(1, own)));
    let first = get(&world, "X: y").field("set-cookie").unwrap().to_owned();
    assert!(first.starts_with("way=") && first.ends_with("; Path=/; HttpOnly; SameSite=Lax"), "{first}");
    let cookies = met(&world, "set-cookie", 60);
    assert_eq!(cookies.len(), 4, "{cookies:?}");
    let back = |world: &World, name: &str| get(world, &format!("Cookie: x=y; {}", cookies[name]));
    let stay = |world: &World| {
        for name in ["0", "1", "2", "3", "2"] {
            let answer = back(world, name);
            assert_eq!((answer.body.as_str(), answer.field("set-cookie")), (name, None));
        }
    };
    stay(&world);
    // Whoever is there stays; nobody comes.
    world.reload(&spec(&both, &rule(0, own)));
    stay(&world);
    assert!(met(&world, "set-cookie", 20).keys().all(|name| name < &"2".to_owned()));
    // An endpoint that has gone has no sessions.
    world.reload(&spec(&[("a", &[&all[0]]), ("b", &[&all[2]])], &rule(0, own)));
    let moved = back(&world, "3");
    assert_eq!((moved.body.as_str(), moved.field("set-cookie").is_some()), ("0", true));
    // Both forms of the document, with and without a name.
    for (more, starts, has) in [
        ("{sessionName: old, cookieConfig: {lifetimeType: Session}}", "old=", ""),
        ("{sessionName: old, absoluteTimeout: 1h, cookieConfig: {lifetimeType: Permanent}}", "old=", "; Max-Age=3600"),
        ("{absoluteTimeout: 1h, cookie: {path: /x, lifetimeType: Permanent}}", "session-", "; Path=/x;"),
        ("{}", "session-", "; Path=/;"),
    ] {
        world.reload(&spec(&both, &rule(1, more)));
        let given = get(&world, "X: y").field("set-cookie").unwrap().to_owned();
        assert!(given.starts_with(starts) && given.contains(has), "{more}: {given}");
    }
}

#[test]
fn a_session_may_be_a_field_and_end() {
    let app =
        |n: usize| move |_: &_| Does::Says(format!("HTTP/1.1 200 OK\r\nX-Way: mine\r\nContent-Length: 1\r\n\r\n{n}"));
    let all: Vec<Upstream> = (0..3).map(|n| Upstream::start(app(n))).collect();
    let three: [(&str, &[&Upstream]); 1] = [("a", &[&all[0], &all[1], &all[2]])];
    let rule = |more: &str| format!("backendRefs: [{{name: a}}]\n    sessionPersistence: {{type: Header, {more}}}");
    let world = World::with(&spec(&three, &rule("header: {name: X-Way}")));
    let marks = met(&world, "x-way", 12);
    assert_eq!(marks.len(), 3);
    for (name, mark) in &marks {
        assert!(mark.len() == 16, "{mark}");
        for _ in 0..3 {
            let answer = get(&world, &format!("x-way: {mark}"));
            // What the application says of it is its own again.
            assert_eq!((answer.body.as_str(), answer.field("x-way")), (name.as_str(), Some("mine")));
        }
    }
    world.reload(&spec(&three, &rule("sessionName: X-Old, absoluteTimeout: 1s")));
    let mark = get(&world, "X: y").field("x-old").unwrap().to_owned();
    assert!(mark.as_bytes()[16] == b'-', "{mark}");
    std::thread::sleep(Duration::from_millis(2100));
    let later = get(&world, &format!("X-Old: {mark}"));
    assert!(later.field("x-old").is_some_and(|new| *new != mark), "{later:?}");
}

/// Fails so often, by the target's first query value, in the way its path says; then it answers.
fn failing() -> Upstream {
    let seen: Mutex<HashMap<String, usize>> = Mutex::default();
    Upstream::start(move |request| {
        let target = request.line().split(' ').nth(1).unwrap().to_owned();
        let times: usize = target.rsplit('=').next().unwrap().parse().unwrap();
        let mut seen = seen.lock().unwrap();
        let count = seen.entry(target.clone()).or_default();
        *count += 1;
        match target.split(['/', '?']).nth(2).unwrap() {
            _ if *count > times => ok(&count.to_string()),
            "closed" => Does::SaysAndCloses(String::new()),
            "slow" => Does::Waits(Duration::from_secs(5)),
            status => Does::Says(format!("HTTP/1.1 {status} No\r\nContent-Length: 1\r\n\r\n{count}")),
        }
    })
}

#[test]
fn rules_say_what_is_tried_again() {
    let app = failing();
    let world = World::with(&spec(
        &[("app", &[&app])],
        "name: codes
    matches: [{path: {value: /one}}]
    retry: {codes: [500], attempts: 3, backoff: 10ms}
    backendRefs: [{name: app}]
  - matches: [{path: {value: /all}}]
    retry: {codes: [500, 502, 503, 504], attempts: 2}
    backendRefs: [{name: app}]
  - matches: [{path: {value: /times}}]
    retry: {attempts: 2, backoff: 1ms}
    timeouts: {backendRequest: 1500ms}
    backendRefs: [{name: app}]
  - matches: [{path: {value: /whole}}]
    retry: {codes: [500], attempts: 5, backoff: 1ms}
    timeouts: {request: 2s, backendRequest: 1500ms}
    backendRefs: [{name: app}]
  - matches: [{path: {value: /far}}]
    retry: {codes: [503], attempts: 2, backoff: 400ms}
    backendRefs: [{name: app}]",
    ));
    let mut client = world.client();
    for (target, status, tries) in [
        ("/one/500?n=2", 200, "3"),
        ("/one/500?n=3", 200, "4"),
        ("/one/500?n=9", 500, "4"),
        ("/one/503?n=2", 503, "1"),
        ("/all/502?n=1", 200, "2"),
        ("/all/503?n=2", 200, "3"),
        ("/all/504?n=3", 504, "3"),
        ("/all/501?n=1", 501, "1"),
        ("/times/closed?n=2", 200, "3"),
        ("/times/closed?n=9", 502, ""),
        ("/times/slow?n=2", 200, "3"),
        ("/times/slow?n=5", 504, ""),
        ("/times/500?n=1", 500, "1"),
        ("/whole/500?n=1", 200, "2"),
        ("/whole/slow?n=5", 504, ""),
    ] {
        let answer = client.get(target);
        assert_eq!(answer.status(), status, "{target}");
        assert!(tries.is_empty() || answer.body == tries, "{target}: {answer:?}");
    }
    // The least time passes before each.
    let began = Instant::now();
    assert_eq!(client.get("/far/503?n=2").body, "3");
    assert!(began.elapsed() >= Duration::from_millis(800), "{:?}", began.elapsed());
    // What may not be done twice is not.
    client.send("POST /one/500?n=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(client.answer().status(), 500);
}
