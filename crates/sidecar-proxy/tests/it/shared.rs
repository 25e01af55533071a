//! A limit that proxies keep together in a real Redis server: over TLS, counted by many at once, and while the server is away.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::harness::{PATIENCE, Upstream, World, eventually, ok};
use crate::tls::{Authority, write_pair};

/// A real server, with a socket in the directory of a test.
struct Redis {
    child: Child,
    socket: std::path::PathBuf,
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Redis {
    /// `None`: there is no such program, or it does not know these arguments.
    fn start(world: &World, arguments: &[&str]) -> Option<Redis> {
        let socket = world.path("redis.sock");
        let child = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"])
            .arg(&socket)
            .args(arguments)
            .current_dir(world.path(""))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(child) = child else {
            println!("NOT RUN: redis-server is missing");
            return None;
        };
        let mut redis = Redis { child, socket };
        let mut ended = false;
        eventually("the start of redis", || {
            ended = redis.child.try_wait().unwrap().is_some();
            ended || UnixStream::connect(&redis.socket).is_ok()
        });
        if ended {
            println!("NOT RUN: redis-server does not take {arguments:?}");
            return None;
        }
        Some(redis)
    }

    /// Its answers to these commands, as they come.
    fn ask(&self, commands: &str) -> String {
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(format!("{commands}\r\nQUIT\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

/// A route with this limit, in front of an application.
fn spec(upstream: SocketAddr, limit: &str, more: &str) -> String {
    format!(
        "listeners:\n- {{name: http, address: \"127.0.0.1:0\"}}\nroutes:\n- name: all\n  filters:\n  - sharedRateLimit: {{per: route, keyPrefix: 'test:', {limit}}}\n  backends: [{{name: app}}]\nbackends:\n- {{name: app, endpoints: [\"{upstream}\"]}}\n{more}"
    )
}

/// A port that nobody had a moment ago.
fn free() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn the_server_is_asked_over_tls() {
    let upstream = Upstream::start(|_| ok(""));
    let place = World::new();
    let (authority, other) = (Authority::new(), Authority::new());
    std::fs::write(place.path("ca.crt"), authority.pem()).unwrap();
    std::fs::write(place.path("other.crt"), other.pem()).unwrap();
    write_pair(&place.path(""), "redis", &authority.issue(&["redis.test", "127.0.0.1"], None));
    write_pair(&place.path(""), "proxy", &authority.issue(&["proxy.test"], None));
    write_pair(&place.path(""), "stranger", &other.issue(&["proxy.test"], None));
    for (name, text) in [("good", "sesame\n"), ("bad", "barley\n")] {
        std::fs::write(place.path(name), text).unwrap();
    }
    let port = free();
    let tls = ["--tls-cert-file", "redis.crt", "--tls-key-file", "redis.key", "--tls-ca-cert-file", "ca.crt"];
    // The user may do what the limit needs, with its own keys alone.
    let user = "--user limiter on >sesame ~test:* -@all +eval +evalsha +script|load +ping +get +set +time +select";
    let user: Vec<&str> = user.split(' ').collect();
    let port_text = port.to_string();
    let arguments = [&["--tls-port", &port_text][..], &tls, &user].concat();
    let Some(redis) = Redis::start(&place, &arguments) else { return };
    let root = place.path("").display().to_string();
    let (ca, pair) =
        (format!("caFile: {root}/ca.crt"), format!("certFile: {root}/proxy.crt, keyFile: {root}/proxy.key"));
    let stranger = format!("certFile: {root}/stranger.crt, keyFile: {root}/stranger.key");
    let named = "serverName: redis.test";
    let mut left = 5;
    for (address, tls, password, wrong) in [
        (format!("rediss://127.0.0.1:{port}"), format!("{ca}, {pair}"), "good", ""),
        (format!("127.0.0.1:{port}"), format!("{named}, {ca}, {pair}"), "good", ""),
        (format!("rediss://127.0.0.1:{port}"), format!("{ca}, {pair}"), "bad", "WRONGPASS"),
        (format!("rediss://127.0.0.1:{port}"), format!("serverName: other.test, {ca}, {pair}"), "good", "certificate"),
        (format!("rediss://127.0.0.1:{port}"), format!("caFile: {root}/other.crt, {pair}"), "good", "certificate"),
        (format!("rediss://127.0.0.1:{port}"), ca.clone(), "good", "CertificateRequired"),
        (format!("rediss://127.0.0.1:{port}"), format!("{ca}, {stranger}"), "good", "fatal alert"),
    ] {
        let limit = format!(
            "requests: 6, period: 1h, onFailure: deny, redis: {{address: '{address}', tls: {{{tls}}}, user: limiter, passwordFile: {root}/{password}, timeout: 5s}}"
        );
        let world = World::with(&spec(upstream.address, &limit, ""));
        let answer = world.client().get("/");
        if wrong.is_empty() {
            assert_eq!(answer.status(), 200, "{}", world.log());
            assert_eq!(answer.field("ratelimit").unwrap().split(';').nth(1).unwrap(), format!("r={left}"));
            left -= 1;
        } else {
            assert_eq!(answer.status(), 503);
            let log = world.log();
            let said = log.lines().find(|line| line.contains("failed to ask the shared rate limit"));
            assert!(said.is_some_and(|line| line.contains(wrong)), "{wrong}: {log}");
        }
    }
    drop(redis);
}

#[test]
fn a_certificate_that_is_swapped_is_used() {
    let upstream = Upstream::start(|_| ok(""));
    let place = World::new();
    let (authority, other) = (Authority::new(), Authority::new());
    std::fs::write(place.path("ca.crt"), authority.pem()).unwrap();
    std::fs::write(place.path("trusted.crt"), other.pem()).unwrap();
    write_pair(&place.path(""), "redis", &authority.issue(&["127.0.0.1"], None));
    let port = free();
    let port_text = port.to_string();
    let tls = ["--tls-cert-file", "redis.crt", "--tls-key-file", "redis.key", "--tls-ca-cert-file", "ca.crt"];
    let arguments = [&["--tls-port", &port_text, "--tls-auth-clients", "no"][..], &tls].concat();
    let Some(_redis) = Redis::start(&place, &arguments) else { return };
    let root = place.path("").display().to_string();
    let limit = format!(
        "requests: 6, period: 1h, onFailure: deny, redis: {{address: 'rediss://127.0.0.1:{port}', tls: {{caFile: {root}/trusted.crt}}, timeout: 5s}}"
    );
    let world = World::with(&spec(upstream.address, &limit, ""));
    assert_eq!(world.client().get("/").status(), 503);
    std::fs::write(place.path("new.crt"), authority.pem()).unwrap();
    std::fs::rename(place.path("new.crt"), place.path("trusted.crt")).unwrap();
    eventually("the new authority's being trusted", || world.client().get("/").status() == 200);
}

#[test]
fn many_count_at_once_and_nothing_is_left_behind() {
    let upstream = Upstream::start(|_| ok(""));
    let (mut one, mut two) = (World::new(), World::new());
    let Some(redis) = Redis::start(&one, &[]) else { return };
    let root = one.path("").display().to_string();
    let limit = |rest: &str| {
        let limit = format!("onFailure: deny, redis: {{address: 'unix:{root}/redis.sock', timeout: 10s}}, {rest}");
        spec(upstream.address, &limit, "workers: 2\n")
    };
    let hourly = limit("requests: 50, period: 1h");
    one.start(&hourly);
    two.start(&hourly);
    let (allowed, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for number in 0..8 {
            let (world, allowed, refused) = (if number % 2 == 0 { &one } else { &two }, &allowed, &refused);
            scope.spawn(move || {
                let mut client = world.client();
                for _ in 0..25 {
                    match client.get("/").status() {
                        200 => allowed.fetch_add(1, Ordering::Relaxed),
                        429 => refused.fetch_add(1, Ordering::Relaxed),
                        other => panic!("{other}: {}", world.log()),
                    };
                }
            });
        }
    });
    assert_eq!((allowed.into_inner(), refused.into_inner()), (50, 150));
    let left = redis.ask("PTTL test:");
    let left: i64 = left.lines().next().unwrap().strip_prefix(':').unwrap().parse().unwrap();
    assert!((1..=3_600_000).contains(&left), "{left} ms");
    // A smaller bucket, and a clock that was set back, are no longer in debt than their bucket is deep.
    let ahead =
        "EVAL \"local t = redis.call('TIME') redis.call('SET', KEYS[1], t[1] * 1000000 + 86400000000)\" 1 test:";
    redis.ask(ahead);
    one.reload(&limit("requests: 2, period: 1s"));
    eventually("the end of the debt", || one.client().get("/").status() == 200);
    eventually("the end of all keys", || redis.ask("DBSIZE").starts_with(":0"));
}

#[test]
fn a_connection_that_ended_costs_no_request() {
    let upstream = Upstream::start(|_| ok(""));
    let mut world = World::new();
    let Some(redis) = Redis::start(&world, &[]) else { return };
    world.start(&spec(
        upstream.address,
        "requests: 50, period: 1h, onFailure: deny, redis: {address: 'unix:ROOT/redis.sock', timeout: 10s}",
        "",
    ));
    assert_eq!(world.client().get("/").status(), 200);
    for trouble in ["CLIENT KILL TYPE normal", "SCRIPT FLUSH"] {
        redis.ask(trouble);
        assert_eq!(world.client().get("/").status(), 200, "{trouble}");
    }
    assert!(!world.log().contains("failed to ask"), "{}", world.log());
}

#[test]
fn nobody_waits_for_a_server_that_is_away() {
    let upstream = Upstream::start(|_| ok(""));
    // One that takes connections and says nothing, and one whose name nobody answers for.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let names = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let more = format!("nameServers: ['{}']\n", names.local_addr().unwrap());
    for address in [format!("redis://{address}"), format!("rediss://{address}"), "redis.test:6379".to_owned()] {
        for (on_failure, status) in [("allow", 200), ("deny", 503)] {
            let limit = format!(
                "requests: 50, period: 1h, onFailure: {on_failure}, redis: {{address: '{address}', timeout: 500ms}}"
            );
            let world = World::with(&spec(upstream.address, &limit, &more));
            let mut client = world.client();
            assert_eq!(client.get("/").status(), status);
            // The server is looked for several times meanwhile, and that takes two seconds each.
            let mut longest = || {
                let begun = Instant::now();
                let mut longest = Duration::ZERO;
                while begun.elapsed() < Duration::from_millis(1500) {
                    let asked = Instant::now();
                    assert_eq!(client.get("/").status(), status);
                    longest = longest.max(asked.elapsed());
                    std::thread::sleep(Duration::from_millis(5));
                }
                longest
            };
            // The machine may stand still, too, but not always.
            let least = (0..8).map(|_| longest()).find(|longest| *longest < Duration::from_millis(400));
            assert!(least.is_some(), "{address}: somebody waits every time");
        }
    }
}

#[test]
fn where_a_server_is_is_written_in_one_way() {
    for (redis, problem) in [
        (
            "{address: 'rediss://user:secret@h:1'}",
            "address: must not say who asks or which database: that is in user, passwordFile and database",
        ),
        (
            "{address: 'redis://h:1/2'}",
            "address: must not say who asks or which database: that is in user, passwordFile and database",
        ),
        ("{address: 'redis://h:1', tls: {}}", "address: is without TLS: say `rediss://`, or leave tls out"),
        ("{address: 'unix:/a', tls: {}}", "address: a socket on the same machine is without TLS: leave tls out"),
        ("{address: 'h'}", "address: must be `HOST:PORT` or `unix:/PATH`"),
        ("{address: 'rediss://h', tls: {certFile: a}}", "tls: certFile and keyFile belong together"),
        ("{address: 'rediss://h'}", ""),
        ("{address: 'rediss://[fd00::1]'}", ""),
        ("{address: 'redis://[fd00::1]:7/'}", ""),
    ] {
        let limit = format!("requests: 1, redis: {redis}");
        let said = crate::config::problems(&spec("127.0.0.1:1".parse().unwrap(), &limit, ""));
        let wanted = (!problem.is_empty()).then(|| format!("sharedRateLimit.redis.{problem}"));
        assert_eq!(said.len(), usize::from(wanted.is_some()), "{redis}: {said:?}");
        assert!(wanted.is_none_or(|wanted| said[0].ends_with(&wanted)), "{redis}: {said:?}");
    }
}
