//! Filters that decide about requests.

use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::harness::{Does, Upstream, World, eventually, ok};

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

#[test]
fn rate_limits_by_client_and_field() {
    let upstream = Upstream::start(|_| ok("app"));
    let filters =
        ["rateLimit: {requests: 3, period: 1h}", "rateLimit: {requests: 1, period: 1h, per: header, header: X-Key}"];
    let world = World::with(&spec_with(upstream.address, &filters, "trustedProxies: [127.0.0.0/8]\nworkers: 2\n"));
    let ask = |client: &str, key: &str| {
        let mut connection = world.client();
        connection.send(format!("GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: {client}\r\nX-Key: {key}\r\n\r\n"));
        connection.answer()
    };
    let first = ask("192.0.2.1", "a");
    assert_eq!(first.status(), 200);
    assert_eq!(first.field("ratelimit-policy"), Some("\"route\";q=3;w=3600"));
    assert_eq!(first.field("ratelimit"), Some("\"route\";r=2;t=1200"));
    assert_eq!(ask("192.0.2.1", "a").status(), 429, "the key is used up");
    assert_eq!(ask("192.0.2.1", "b").status(), 200);
    let refused = ask("192.0.2.1", "c");
    assert_eq!(refused.status(), 429, "the client is");
    let retry: u64 = refused.field("retry-after").unwrap().parse().unwrap();
    assert!((1100..=1200).contains(&retry), "{retry}");
    assert_eq!(ask("192.0.2.2", "d").status(), 200);
    assert_eq!(upstream.count(), 3);
    assert!(world.ask("/metrics").contains("filter=\"2\",rule=\"rate\",decision=\"deny\"} 1"));
}

#[test]
fn concurrency_is_limited_and_given_back() {
    let release = Arc::new(AtomicBool::new(false));
    let go = Arc::clone(&release);
    let upstream = Upstream::start(move |seen| {
        if !seen.line().contains("slow") {
            return ok("app");
        }
        eventually("the word", || go.load(Ordering::Relaxed));
        Does::SaysAndCloses(String::new())
    });
    let world = World::with(&spec_with(upstream.address, &["concurrency: {limit: 2}"], ""));
    let mut slow: Vec<_> = (0..2).map(|_| world.client()).collect();
    for client in &mut slow {
        client.send("POST /slow HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n");
    }
    let active = "outrigger_proxy_concurrency{route=\"all\",filter=\"1\",what=\"active\"}";
    eventually("two requests in flight", || world.metric(active) == 2);
    let refused = world.client().get("/");
    assert_eq!((refused.status(), refused.field("retry-after")), (503, Some("1")));
    // A client that says only that it sends no more may still be waiting.
    let leaves = slow.pop().unwrap();
    rustix::net::sockopt::set_socket_linger(leaves.stream.get_ref(), Some(std::time::Duration::ZERO)).unwrap();
    drop(leaves);
    eventually("the place of the one who left", || world.client().get("/").status() == 200);
    release.store(true, Ordering::Relaxed);
    assert_eq!(slow[0].answer().status(), 502);
    eventually("all places given back", || world.metric(active) == 0);
}

/// A real server, on a socket in the test's directory.
struct RedisServer(std::process::Child);

impl Drop for RedisServer {
    fn drop(&mut self) {
        // It may have been ended by the test.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn redis(world: &World) -> Option<RedisServer> {
    let started = Command::new("redis-server")
        .args(["--port", "0", "--save", "", "--appendonly", "no", "--requirepass", "secret", "--unixsocket"])
        .arg(world.path("redis.sock"))
        .current_dir(world.path(""))
        .stdout(Stdio::null())
        .spawn();
    let server = RedisServer(started.ok()?);
    eventually("the start of redis", || UnixStream::connect(world.path("redis.sock")).is_ok());
    Some(server)
}

#[test]
fn proxies_share_a_limit_through_redis() {
    let upstream = Upstream::start(|seen| ok(&String::from_utf8_lossy(&seen.body)));
    let (mut one, mut two) = (World::new(), World::new());
    let Some(server) = redis(&one) else {
        println!("NOT RUN: redis-server is missing");
        return;
    };
    std::fs::write(one.path("password"), "secret\n").unwrap();
    let root = one.path("").display().to_string();
    let filter = |on_failure: &str| {
        format!(
            "sharedRateLimit: {{requests: 5, period: 1h, per: route, keyPrefix: 'test:', onFailure: {on_failure}, redis: {{address: 'unix:{root}/redis.sock', passwordFile: {root}/password, timeout: 5s}}}}"
        )
    };
    one.start(&spec_with(upstream.address, &[&filter("allow"), "responseHeaders: {set: {X-After: after}}"], ""));
    two.start(&spec_with(upstream.address, &[&filter("deny")], ""));
    let post = |world: &World, body: &str| {
        let mut client = world.client();
        client.send(format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
        client.answer()
    };
    let first = post(&one, "the body");
    assert_eq!((first.status(), first.body.as_str()), (200, "the body"), "{}", one.log());
    assert_eq!(first.field("ratelimit"), Some("\"route\";r=4;t=720"));
    assert_eq!(first.field("x-after"), Some("after"), "filters behind it are asked too");
    // A large body, whose rest comes while the server is asked, and pipelined requests.
    let large = "x".repeat(100_000);
    assert_eq!(post(&two, &large).body.len(), large.len());
    let mut client = one.client();
    client
        .send("GET /a HTTP/1.1\r\nHost: h\r\n\r\nGET /b HTTP/1.1\r\nHost: h\r\n\r\nGET /c HTTP/1.1\r\nHost: h\r\n\r\n");
    let statuses: Vec<u16> = (0..3).map(|_| client.answer().status()).collect();
    assert_eq!(statuses, [200, 200, 200]);
    for world in [&one, &two] {
        let refused = post(world, "");
        assert_eq!(refused.status(), 429);
        assert!(refused.field("retry-after").is_some());
    }
    // Without the server one lets everybody on, the other nobody.
    drop(server);
    assert_eq!((post(&one, "").status(), post(&two, "").status()), (200, 503));
    let _server = redis(&one);
    eventually("the server's return", || post(&one, "").field("ratelimit").is_some());
}

#[test]
fn not_every_site_may_ask_with_credentials() {
    let spec = |cors: &str| {
        format!(
            "listeners: [{{name: l, address: ':80'}}]\nroutes:\n- name: r\n  filters:\n  - cors: {cors}\n  - respond: {{status: 204}}\nbackends: []\n"
        )
    };
    let said = crate::config::problems(&spec("{allowOrigins: ['https://a.example', '*'], allowCredentials: true}"));
    assert_eq!(
        said,
        [
            "8:50: spec.routes[0].filters[0].cors.allowOrigins[1]: with allowCredentials, any site could act as whoever visits \
          it: name the origins, or leave allowCredentials out"
        ]
    );
    assert_eq!(crate::config::problems(&spec("{allowOrigins: ['*']}")), [""; 0]);
    assert_eq!(
        crate::config::problems(&spec("{allowOrigins: ['null', 'https://*.a.example'], allowCredentials: true}")),
        [""; 0]
    );
}

#[test]
fn other_sites_may_ask() {
    let upstream = Upstream::start(|_| {
        Does::Says("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nAccess-Control-Allow-Origin: *\r\n\r\nok".to_owned())
    });
    let filter =
        "cors: {allowOrigins: ['https://*.example.com'], allowMethods: [PUT], allowCredentials: true, maxAge: 10m}";
    let world = World::with(&spec_with(upstream.address, &[filter], ""));
    let mut client = world.client();
    client.send(
        "OPTIONS /x HTTP/1.1\r\nHost: h\r\nOrigin: https://a.example.com\r\nAccess-Control-Request-Method: PUT\r\n\r\n",
    );
    let answer = client.answer();
    assert_eq!((answer.status(), answer.field("access-control-allow-methods")), (204, Some("PUT")));
    assert_eq!(answer.field("access-control-max-age"), Some("600"));
    assert_eq!(upstream.count(), 0);
    client.send("PUT /x HTTP/1.1\r\nHost: h\r\nOrigin: https://a.example.com\r\nContent-Length: 0\r\n\r\n");
    let answer = client.answer();
    assert_eq!(answer.field("access-control-allow-origin"), Some("https://a.example.com"));
    assert_eq!(answer.head.to_lowercase().matches("access-control-allow-origin").count(), 1);
    client.send("PUT /x HTTP/1.1\r\nHost: h\r\nOrigin: https://evil.test\r\nContent-Length: 0\r\n\r\n");
    let answer = client.answer();
    assert_eq!((answer.status(), answer.field("access-control-allow-origin")), (200, None));
}

#[test]
fn attacks_in_bodies_are_denied_before_the_application_sees_them() {
    let upstream = Upstream::start(|seen| ok(&format!("{} bytes", seen.body.len())));
    let world = World::with(&spec_with(upstream.address, &["attacks: {mode: deny, body: 1Ki}"], ""));
    let post = |kind: &str, body: &str| {
        format!(
            "POST /form HTTP/1.1\r\nHost: h\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let (form, json) = ("application/x-www-form-urlencoded", "application/json");
    let mut client = world.client();
    // One connection serves all of them.
    client.send(
        post(form, "q=1+union+select+1,2")
            + &post(json, r#"{"q": "a"}"#)
            + &post(json, r#"{"q": "<script>alert(1)</script>"}"#),
    );
    let answers: Vec<(u16, String)> = (0..3).map(|_| client.answer()).map(|one| (one.status(), one.body)).collect();
    assert_eq!(answers[1], (200, "10 bytes".to_owned()));
    assert_eq!((answers[0].0, answers[2].0, upstream.count()), (403, 403, 1));
    // Behind the bytes that are looked at; nothing is lost of what is long.
    let long = format!("a={}&q=1+union+select+1,2", "x".repeat(100_000));
    client.send(post(form, &long));
    assert_eq!(client.answer().body, format!("{} bytes", long.len()));
    // A client that asks first is told to go on.
    let head = post(form, "q=1+union+select+1,2").replace("\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n");
    let (head, body) = head.split_once("\r\n\r\n").unwrap();
    client.send(format!("{head}\r\n\r\n"));
    assert_eq!(client.answer().status(), 100);
    client.send(body);
    assert_eq!((client.answer().status(), upstream.count()), (403, 2));

    let url = format!("http://{}/form", world.address());
    let options = ["-s", "--http2-prior-knowledge", "-w", "%{http_code}", "-o", "/dev/null", "--max-time", "60"];
    let curl = |body: &str| Command::new("curl").args(options).args(["-d", body, &url]).output().ok();
    let Some(output) = curl("q=1+union+select+1,2") else { return println!("NOT RUN: there is no curl") };
    assert_eq!(output.stdout, b"403");
    assert_eq!(curl("q=two").unwrap().stdout, b"200");
    assert_eq!(curl(&long).unwrap().stdout, b"200");
    assert_eq!(upstream.last().body.len(), long.len());
}
