//! Reload, drain, plain TCP, sockets of the file system, the access log.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::Signal;

use crate::harness::{Client, Does, Port, Upstream, World, eventually, ok, simple_spec};

#[test]
fn a_reload_under_load_loses_nothing() {
    let (a, b) = (Upstream::start(|_| ok("a")), Upstream::start(|_| ok("b")));
    // A port of its own, which stays the same.
    let reserved = Port::reserve();
    let port = reserved.address;
    let spec = |upstream: &Upstream| simple_spec(&[upstream.address], "").replace("127.0.0.1:0", &port.to_string());
    let world = World::with(&spec(&a));
    let stop = Arc::new(AtomicBool::new(false));
    let served = Arc::new(AtomicUsize::new(0));
    let threads: Vec<_> = (0..3)
        .map(|_| {
            let (stop, served) = (Arc::clone(&stop), Arc::clone(&served));
            std::thread::spawn(move || {
                let mut client = Client::connect(port);
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(client.get("/").status(), 200);
                    served.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for round in 0..6 {
        let before = served.load(Ordering::Relaxed);
        eventually("some requests", || served.load(Ordering::Relaxed) > before + 50);
        world.reload(&spec(if round % 2 == 0 { &b } else { &a }));
    }
    stop.store(true, Ordering::Relaxed);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert!(b.count() > 0);

    // What is wrong changes nothing.
    world.configure(&spec(&a).replace("name: all", "nam: all"));
    eventually("the refusal", || world.log().contains("configuration not reloaded"));
    assert_eq!(world.client().get("/").status(), 200);
    assert_eq!(world.metric("outrigger_proxy_config_last_reload_successful"), 0);
}

#[test]
fn an_open_connection_goes_over_to_the_new_routes() {
    let (a, b) = (Upstream::start(|_| ok("a")), Upstream::start(|_| ok("b")));
    let spec = |more: &str, routes: &str| {
        format!(
            "listeners:\n- {{name: http, address: \"127.0.0.1:0\"}}\n{more}routes: {routes}\nbackends:\n- {{name: a, endpoints: [\"{}\"]}}\n- {{name: b, endpoints: [\"{}\"]}}\nworkers: 1\n",
            a.address, b.address
        )
    };
    let other = "- {name: other, address: \"127.0.0.2:0\"}\n";
    let mut world = World::with(&spec(
        other,
        "[{name: one, matches: [{path: {exact: /one}}], backends: [{name: a}]}, {name: rest, backends: [{name: b}]}]",
    ));
    let mut client = world.client();
    let mut elsewhere = Client::connect(world.listener("other"));
    for client in [&mut client, &mut elsewhere] {
        assert_eq!((client.get("/one").body.as_str(), client.get("/").body.as_str()), ("a", "b"));
    }
    // Fewer routes, in another order, and one listener is gone.
    world.reload(&spec("", "[{name: rest, backends: [{name: a}]}]"));
    assert_eq!((client.get("/one").body.as_str(), client.get("/").body.as_str()), ("a", "a"));
    // Whoever came in where nobody listens any more has what there was.
    assert_eq!((elsewhere.get("/one").body.as_str(), elsewhere.get("/").body.as_str()), ("a", "b"));
    world.reload(&spec("", "[{name: rest, backends: [{name: b}], matches: [{path: {prefix: /new}}]}]"));
    assert_eq!((client.get("/new").body.as_str(), client.get("/").status()), ("b", 404));
    assert_eq!((elsewhere.get("/one").body.as_str(), elsewhere.get("/").body.as_str()), ("a", "b"));
}

#[test]
fn a_configuration_may_be_in_several_files() {
    let (one, two) = (Upstream::start(|_| ok("one")), Upstream::start(|_| ok("two")));
    let mut world = World::new();
    let routes = world.path("routes.yaml");
    let new = world.path("new");
    let write = |text: &str| {
        std::fs::write(&new, text).unwrap();
        std::fs::rename(&new, &routes).unwrap();
    };
    let route = |name: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r}}\nspec:\n  rules: [{{backendRefs: [{{name: {name}}}]}}]\n"
        )
    };
    write(&route("one"));
    world.flags = vec!["--config".to_owned(), routes.display().to_string()];
    world.start(&format!(
        "listeners: [{{name: http, address: \"127.0.0.1:0\"}}]\nbackends: [{{name: one, endpoints: [\"{}\"]}}, {{name: two, endpoints: [\"{}\"]}}]\n",
        one.address, two.address
    ));
    assert_eq!(world.client().get("/").body, "one");
    write(&route("two"));
    eventually("the reload", || world.log().contains("configuration reloaded"));
    assert_eq!(world.client().get("/").body, "two");
    write(&route("three"));
    eventually("the refusal", || world.log().contains("configuration not reloaded"));
    let place = format!("{}:5:26: document[2].spec.rules[0].backendRefs[0]", routes.display());
    assert!(world.log().contains(&place), "{}", world.log());
    assert_eq!(world.client().get("/").body, "two");
}

#[test]
fn a_drain_waits_for_what_is_going_on() {
    let release = Arc::new(AtomicBool::new(false));
    let go = Arc::clone(&release);
    let upstream = Upstream::start(move |_| {
        eventually("the word", || go.load(Ordering::Relaxed));
        ok("late")
    });
    let mut world = World::simple(&[upstream.address]);
    let mut busy = world.client();
    busy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the request", || upstream.count() == 1);
    world.signal(Signal::TERM);
    eventually("the drain", || world.ask("/readyz").contains("503"));
    // Whoever comes now is served still, once.
    let mut late = world.client();
    late.send("GET /late HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the late request", || upstream.count() == 2);
    assert!(world.is_running());
    release.store(true, Ordering::Relaxed);
    for client in [&mut busy, &mut late] {
        let answer = client.answer();
        assert_eq!((answer.body.as_str(), answer.field("connection")), ("late", Some("close")));
        assert!(client.is_closed());
    }
    assert_eq!(world.wait().code(), Some(0));
    assert!(world.log().contains("every connection has ended"), "{}", world.log());
}

#[test]
fn a_drain_by_command_serves_newcomers_for_its_time() {
    let upstream = Upstream::start(|_| ok("x"));
    let mut world = World::simple(&[upstream.address]);
    let mut idle = world.client();
    assert_eq!(idle.get("/").status(), 200);
    let begun = std::time::Instant::now();
    let drained = std::process::Command::new(env!("CARGO_BIN_EXE_outrigger-proxy"))
        .args(["drain", "--at-least", "8s", "--socket"])
        .arg(world.path("sock"))
        .output()
        .unwrap();
    assert!(drained.status.success(), "{drained:?}");
    eventually("the drain", || world.ask("/readyz").contains("503"));
    // Nobody is hurried: each connection has one more answer.
    let mut newcomer = world.client();
    for client in [&mut newcomer, &mut idle] {
        let answer = client.get("/");
        assert_eq!((answer.status(), answer.field("connection")), (200, Some("close")));
        assert!(client.is_closed());
    }
    assert!(world.is_running());
    assert_eq!(world.wait().code(), Some(0), "{}", world.log());
    assert!(begun.elapsed() >= Duration::from_secs(8), "{:?}", begun.elapsed());
}

#[test]
fn the_signal_after_the_command_ends_the_wait_and_cuts_nobody() {
    let upstream = Upstream::start(|seen| {
        if seen.line().contains("/slow") {
            std::thread::sleep(Duration::from_millis(800));
        }
        ok("x")
    });
    let mut world = World::simple(&[upstream.address]);
    let mut slow = world.client();
    slow.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the request", || upstream.count() == 1);
    let drain = ["drain", "--at-least", "15s", "--socket"];
    let program = env!("CARGO_BIN_EXE_outrigger-proxy");
    assert!(std::process::Command::new(program).args(drain).arg(world.path("sock")).status().unwrap().success());
    let begun = std::time::Instant::now();
    world.signal(Signal::TERM);
    assert_eq!(slow.answer().body, "x");
    assert_eq!(world.wait().code(), Some(0), "{}", world.log());
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
}

#[test]
fn a_drain_by_command_ends_at_its_deadline_whoever_is_stuck() {
    let upstream = Upstream::start(|seen| {
        match seen.line() {
        line if line.contains("/big") => ok(&"x".repeat(32 << 20)),
        line if line.contains("/tunnel") => Does::Echoes(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n"
                .to_owned(),
        ),
        _ => Does::Waits(Duration::from_secs(600)),
    }
    });
    let listeners =
        "- {name: tcp, address: \"127.0.0.2:0\", tcp: app}\n- {name: out, address: \"127.0.0.3:0\", outbound: true}\n";
    let spec = simple_spec(&[upstream.address], "").replace("routes:\n", &format!("{listeners}routes:\n"));
    let mut world = World::new();
    world.flags = vec!["--drain-timeout=3s".to_owned()];
    world.start(&spec);
    let (http, tcp, out) = (world.listener("http"), world.listener("tcp"), world.listener("out"));
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let stuck: Vec<Client> = [
        (http, "GET /big HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        (http, format!("GET /tunnel HTTP/1.1\r\nHost: a\r\n{upgrade}\r\n")),
        (http, "GET /never HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        (http, "POST /half HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf".to_owned()),
        (http, "GET /half HTTP/1.1\r\nHo".to_owned()),
        (http, String::new()),
        (tcp, "GET /tunnel HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        (out, "GET /big HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        (out, String::new()),
    ]
    .into_iter()
    .map(|(address, bytes)| {
        let mut client = Client::connect(address);
        client.send(bytes);
        client
    })
    .collect();
    eventually("the requests", || upstream.count() == 5);
    let begun = std::time::Instant::now();
    let drain = ["drain", "--at-least", "1s", "--socket"];
    let program = env!("CARGO_BIN_EXE_outrigger-proxy");
    assert!(std::process::Command::new(program).args(drain).arg(world.path("sock")).status().unwrap().success());
    assert_eq!(world.wait().code(), Some(4), "{}", world.log());
    assert!(begun.elapsed() >= Duration::from_millis(2900), "{:?}", begun.elapsed());
    assert!(world.log().contains("the drain's time was over: "), "{}", world.log());
    drop(stuck);
}

#[test]
fn clients_that_never_stop_coming_do_not_keep_it() {
    let upstream = Upstream::start(|_| ok("x"));
    let mut world = World::simple(&[upstream.address]);
    let address = world.address();
    let stop = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    // Refused, once it listens no more.
                    let Ok(stream) = std::net::TcpStream::connect(address) else { continue };
                    let mut client = Client { stream: std::io::BufReader::new(stream) };
                    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
                    let _ = client.try_answer("GET");
                }
            })
        })
        .collect();
    world.signal(Signal::TERM);
    // Half of its time for newcomers, the other half for those that are there.
    assert_eq!(world.wait().code(), Some(0), "{}", world.log());
    stop.store(true, Ordering::Relaxed);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert!(world.log().contains("every connection has ended"), "{}", world.log());
}

#[test]
fn an_idle_proxy_ends_at_once() {
    let upstream = Upstream::start(|_| ok("x"));
    let mut world = World::simple(&[upstream.address]);
    let mut idle = world.client();
    idle.get("/");
    world.signal(Signal::TERM);
    assert!(idle.is_closed());
    assert_eq!(world.wait().code(), Some(0));
}

#[test]
fn what_changes_during_a_drain_starts_nobody_anew() {
    let release = Arc::new(AtomicBool::new(false));
    let go = Arc::clone(&release);
    let upstream = Upstream::start(move |_| {
        eventually("the word", || go.load(Ordering::Relaxed));
        ok("late")
    });
    let other = Upstream::start(|_| ok("other"));
    let mut world = World::new();
    let (new, list) = (world.path("new"), world.path("list"));
    let tell = |address: std::net::SocketAddr| {
        std::fs::write(&new, format!("['{address}']")).unwrap();
        std::fs::rename(&new, &list).unwrap();
    };
    tell(upstream.address);
    world.start(&simple_spec(&[], "").replace("  endpoints: []\n", "  discover: [{file: ROOT/list}]\n"));
    let mut busy = world.client();
    busy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the request", || upstream.count() == 1);
    world.signal(Signal::TERM);
    eventually("the drain", || world.ask("/readyz").contains("503"));
    let before = world.log().len();
    tell(other.address);
    eventually("the other endpoint", || world.log()[before..].contains("endpoints taken over"));
    release.store(true, Ordering::Relaxed);
    assert_eq!(busy.answer().body, "late");
    assert_eq!(world.wait().code(), Some(0));
}

#[test]
fn cpus_that_come_later_count_at_the_next_reload() {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    let all = sched_getaffinity(None).unwrap();
    let Some(first) = (0..CpuSet::MAX_CPU).find(|cpu| all.is_set(*cpu)).filter(|_| all.count() > 1) else {
        println!("NOT RUN: one CPU");
        return;
    };
    let upstream = Upstream::start(|_| ok("x"));
    let mut world = World::new();
    let (new, list) = (world.path("new"), world.path("list"));
    let tell = |weight: u32| {
        std::fs::write(&new, format!("[{{address: '{}', weight: {weight}}}]", upstream.address)).unwrap();
        std::fs::rename(&new, &list).unwrap();
    };
    tell(1);
    let spec = simple_spec(&[], "").replace("  endpoints: []\n", "  discover: [{file: ROOT/list}]\n");
    let mut one = CpuSet::new();
    one.set(first);
    // The proxy is given what this thread has.
    sched_setaffinity(None, &one).unwrap();
    world.start(&spec);
    sched_setaffinity(None, &all).unwrap();
    let tasks = format!("/proc/{}/task", world.process());
    let tasks = || std::fs::read_dir(&tasks).unwrap().map(|task| task.unwrap().path());
    for task in tasks() {
        let id = task.file_name().unwrap().to_str().unwrap().parse().unwrap();
        sched_setaffinity(rustix::process::Pid::from_raw(id), &all).unwrap();
    }
    let workers = || {
        let names = tasks().map(|task| std::fs::read_to_string(task.join("comm")).unwrap_or_default());
        names.filter(|name| name.starts_with("worker-")).count()
    };
    assert_eq!(workers(), 1);
    tell(2);
    eventually("the list", || world.log().contains("endpoints taken over"));
    assert_eq!(workers(), 1);
    assert_eq!(world.client().get("/").status(), 200);
    assert!(!world.log().contains("panicked"), "{}", world.log());
    world.reload(&format!("{spec}zone: a\n"));
    assert_eq!(workers(), all.count() as usize);
    for _ in 0..4 * all.count() {
        assert_eq!(world.client().get("/").status(), 200);
    }
    world.signal(Signal::TERM);
    assert_eq!(world.wait().code(), Some(0), "{}", world.log());
}

#[test]
fn nobody_keeps_the_probes_out() {
    let upstream = Upstream::start(|_| ok("up"));
    let world = World::simple(&[upstream.address]);
    let admin = world.admin.unwrap();
    let held: Vec<_> = (0..200)
        .map(|_| {
            let mut stream = std::net::TcpStream::connect(admin).unwrap();
            stream.write_all(b"GET /re").unwrap();
            stream
        })
        .collect();
    let before = std::time::Instant::now();
    assert!(world.ask("/readyz").starts_with("HTTP/1.1 200"));
    // Held connections are given up after five seconds, 32 at a time: it would be a quarter of a minute after.
    assert!(before.elapsed() < Duration::from_secs(12), "{:?}", before.elapsed());
    drop(held);
    let mode = std::os::unix::fs::PermissionsExt::mode(&world.path("sock").metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn plain_tcp() {
    let upstream = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = upstream.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in upstream.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let (mut reader, mut writer) = (&stream, &stream);
                writer.write_all(b"hello first\n").unwrap();
                let mut all = Vec::new();
                reader.read_to_end(&mut all).unwrap();
                writer.write_all(format!("{} bytes", all.len()).as_bytes()).unwrap();
            });
        }
    });
    let spec = format!(
        "listeners:\n- {{name: tcp, address: \"127.0.0.1:0\", tcp: app}}\nbackends:\n- {{name: app, endpoints: [\"{address}\"]}}\n"
    );
    let mut world = World::with(&spec);
    for size in [0, 5, 5_000_000] {
        let mut client = world.client();
        let mut line = [0; 12];
        client.stream.read_exact(&mut line).unwrap();
        assert_eq!(&line, b"hello first\n");
        client.send(vec![b'x'; size]);
        client.stream.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
        let mut rest = String::new();
        client.stream.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, format!("{size} bytes"));
    }
    world.signal(Signal::TERM);
    assert_eq!(world.wait().code(), Some(0));
}

#[test]
fn sockets_of_the_file_system_both_ways() {
    let world = World::new();
    let app = UnixListener::bind(world.path("app.sock")).unwrap();
    std::thread::spawn(move || {
        for mut stream in app.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut bytes = [0; 4096];
                while let Ok(1..) = stream.read(&mut bytes) {
                    if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nunix").is_err() {
                        return;
                    }
                }
            });
        }
    });
    let mut world = world;
    // Where nothing else is written.
    std::fs::create_dir(world.path("in")).unwrap();
    world.flags = vec!["--socket".to_owned(), world.path("run/sock").display().to_string()];
    world.start(
        "listeners:\n- {name: http, address: \"127.0.0.1:0\"}\n- {name: unix, address: \"unix:ROOT/in/sock\"}\nroutes:\n- {name: all, backends: [{name: app}]}\nbackends:\n- {name: app, endpoints: [\"unix:ROOT/app.sock\"]}\n",
    );
    let mut client = world.client();
    assert_eq!(client.get("/").body, "unix");
    assert_eq!(client.get("/").body, "unix");
    let mut stream = std::os::unix::net::UnixStream::connect(world.path("in/sock")).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("unix"), "{answer}");
}

#[test]
fn every_request_has_its_line() {
    let upstream =
        Upstream::start(
            |seen| if seen.line().contains("/slow") { Does::Waits(Duration::from_secs(30)) } else { ok("hello") },
        );
    let spec = simple_spec(&[upstream.address], "accessLog: {format: json, path: ROOT/access.log}\n").replace(
        "- name: all\n",
        "- name: slow\n  matches: [{path: {prefix: /slow}}]\n  timeouts: {backend: 200ms}\n  retries: {attempts: 0}\n  backends: [{name: app}]\n- name: all\n",
    );
    let mut world = World::with(&spec);
    let mut client = world.client();
    client.get("/a?b=c");
    client.get("/slow");
    client.send("BAD\r\n\r\n");
    client.answer();
    world.signal(Signal::TERM);
    assert_eq!(world.wait().code(), Some(0));
    let log = std::fs::read_to_string(world.path("access.log")).unwrap();
    let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3, "{log}");
    assert_eq!((&lines[0]["url.path"], &lines[0]["url.query"]), (&"/a".into(), &"b=c".into()));
    assert_eq!((&lines[0]["http.response.status_code"], &lines[0]["http.route"]), (&200.into(), &"all".into()));
    assert_eq!(lines[0]["http.response.body.size"], 5);
    assert!(lines[0]["app_us"].as_f64().unwrap() > 0.0);
    assert_eq!(
        (&lines[1]["http.response.status_code"], &lines[1]["error.type"]),
        (&504.into(), &"backend_timeout".into())
    );
    assert!(lines[1]["app_us"].as_f64().unwrap() >= 200_000.0, "{}", lines[1]);
    assert_eq!((&lines[2]["http.response.status_code"], &lines[2]["error.type"]), (&400.into(), &"refused".into()));
}

#[test]
fn it_locks_itself_in_and_a_reload_stays_inside() {
    let upstream = Upstream::start(|_| ok("hi"));
    let spec = |path: &str| simple_spec(&[upstream.address], &format!("accessLog: {{path: {path}}}\n"));
    let world = World::with(&spec("ROOT/log"));
    assert_eq!(world.client().get("/").status(), 200);
    let log = world.log();
    let walls = log.lines().find(|line| line.contains("\"sandboxed\"")).unwrap();
    let status = |task: std::path::PathBuf| std::fs::read_to_string(task.join("status")).unwrap();
    let tasks = std::fs::read_dir(format!("/proc/{}/task", world.process())).unwrap();
    let tasks: Vec<String> = tasks.map(|task| status(task.unwrap().path())).collect();
    // Also those of what is built: the access log's.
    assert!(tasks.iter().any(|task| task.contains("access-log")));
    assert!(tasks.iter().all(|task| task.contains("NoNewPrivs:\t1")), "{tasks:?}");
    if walls.contains("seccomp on") {
        assert!(tasks.iter().all(|task| task.contains("Seccomp:\t2")), "{tasks:?}");
    }
    if walls.contains("landlock on") {
        let elsewhere = tempfile::tempdir().unwrap();
        world.configure(&spec(&elsewhere.path().join("log").display().to_string()));
        eventually("the refusal", || world.log().contains("the sandbox made at the start allows no writing below"));
        assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    } else {
        println!("NOT RUN: {walls}");
    }
    assert_eq!(world.client().get("/").status(), 200);
}
