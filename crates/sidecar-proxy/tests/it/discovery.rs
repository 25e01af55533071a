//! Endpoints that are found elsewhere. The name server, the Kubernetes API and Consul are small ones of our own that answer
//! as the real ones are documented to, so that they can fail when they are told; a real Consul is asked too where there is one,
//! and the node's tests ask a real node for EndpointSlices.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{Client, Does, Upstream, World, eventually, ok, simple_spec};

/// A spec without endpoints but with a source.
fn spec(source: &str, more: &str) -> String {
    simple_spec(&[], more).replace("  endpoints: []\n", &format!("  discover: [{source}]\n  connectTimeout: 60s\n"))
}

fn body(world: &World) -> String {
    world.client().get("/").body
}

#[test]
fn a_file_is_followed() {
    let (a, b) = (Upstream::start(|_| ok("a")), Upstream::start(|_| ok("b")));
    let mut world = World::new();
    let volume = world.path("volume");
    // As Kubernetes swaps a config map: the link `..data` goes to another directory.
    let put = |version: &str, text: &str| {
        fs::create_dir_all(volume.join(version)).unwrap();
        fs::write(volume.join(version).join("list.yaml"), text).unwrap();
        std::os::unix::fs::symlink(version, volume.join("..new")).unwrap();
        fs::rename(volume.join("..new"), volume.join("..data")).unwrap();
    };
    put("..1", &format!("- {}\n", a.address));
    std::os::unix::fs::symlink("..data/list.yaml", volume.join("list.yaml")).unwrap();
    world.start(&spec(&format!("{{file: '{}'}}", volume.join("list.yaml").display()), ""));
    assert_eq!(body(&world), "a");
    // What is under way goes on.
    put("..2", &format!("[{{\"address\": \"{}\", \"weight\": 2}}]", b.address));
    let mut client = world.client();
    eventually("the other endpoint", || client.get("/").body == "b");
    put("..3", "- nowhere\n");
    eventually("the complaint", || world.log().contains("failed to find endpoints"));
    assert_eq!(body(&world), "b");
    put("..4", "[]\n");
    eventually("the empty list", || world.client().get("/").status() == 503);
}

/// Answers every question for addresses with these, which may be used for a second; nothing: it fails.
fn name_server(addresses: Arc<Mutex<Vec<Ipv4Addr>>>) -> std::net::SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut room = [0; 1024];
        while let Ok((length, from)) = socket.recv_from(&mut room) {
            let mut answer = room[..length].to_vec();
            let addresses = addresses.lock().unwrap().clone();
            let is_v4 = answer[length - 3] == 1;
            answer[2] = 0x81;
            answer[3] = if addresses.is_empty() { 0x82 } else { 0x80 };
            if is_v4 {
                answer[7] = addresses.len() as u8;
                for address in addresses {
                    answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
                    answer.extend_from_slice(&address.octets());
                }
            }
            let _ = socket.send_to(&answer, from);
        }
    });
    at
}

#[test]
fn names_are_looked_up_when_their_time_is_over() {
    let first = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = first.local_addr().unwrap().port();
    let a = Upstream::on(first, |seen| {
        if seen.line().contains("slow") {
            thread::sleep(Duration::from_secs(4));
        }
        ok("a")
    });
    let Ok(second) = TcpListener::bind(("127.0.0.2", port)) else {
        println!("NOT RUN: 127.0.0.2 has no such port free");
        return;
    };
    let _b = Upstream::on(second, |_| ok("b"));
    let addresses = Arc::new(Mutex::new(vec![Ipv4Addr::LOCALHOST]));
    let server = name_server(Arc::clone(&addresses));
    let spec = simple_spec(&[], &format!("nameServers: ['{server}']\n"))
        .replace("endpoints: []", &format!("endpoints: ['app.test.:{port}']"));
    let world = World::with(&spec);
    assert_eq!(body(&world), "a");
    let mut slow = world.client();
    slow.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the slow one", || a.count() == 2);
    *addresses.lock().unwrap() = vec![Ipv4Addr::new(127, 0, 0, 2)];
    eventually("the new address", || body(&world) == "b");
    assert_eq!(slow.answer().body, "a", "who was there goes on to the end");
    // A name server that fails takes nothing away.
    addresses.lock().unwrap().clear();
    eventually("the complaint", || world.log().contains("failed to find endpoints"));
    assert_eq!(body(&world), "b");
    *addresses.lock().unwrap() = vec![Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 2)];
    eventually("both", || {
        let mut client = world.client();
        let mut bodies = [client.get("/").body, client.get("/").body];
        bodies.sort();
        bodies == ["a", "b"]
    });
}

fn slice(address: std::net::SocketAddr, version: u32) -> String {
    format!(
        r#"{{"metadata":{{"name":"app-1","resourceVersion":"{version}"}},"addressType":"IPv4","ports":[{{"name":"http","port":{}}}],"endpoints":[{{"addresses":["{}"],"conditions":{{"ready":true}},"targetRef":{{"kind":"Pod","name":"app-x"}}}}]}}"#,
        address.port(),
        address.ip()
    )
}

fn json(text: &str) -> Does {
    Does::SaysAndCloses(format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{text}"))
}

#[test]
fn endpoint_slices_are_watched() {
    let (a, b) = (Upstream::start(|_| ok("a")), Upstream::start(|_| ok("b")));
    let (first, second) = (a.address, b.address);
    let (changes, gone) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (change, go) = (Arc::clone(&changes), Arc::clone(&gone));
    let lists = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&lists);
    let api = Upstream::start(move |seen| {
        if seen.field("authorization") != Some("Bearer secret") {
            return Does::SaysAndCloses("HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n".to_owned());
        }
        let line = seen.line();
        assert!(line.starts_with(
            "GET /apis/discovery.k8s.io/v1/namespaces/ns/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3Dapp"
        ));
        if !line.contains("watch=true") {
            let list = counter.fetch_add(1, Ordering::Relaxed);
            let items = if list == 0 { slice(first, 5) } else { slice(first, 50) };
            let version = if list == 0 { 5 } else { 50 };
            return json(&format!(r#"{{"metadata":{{"resourceVersion":"{version}"}},"items":[{items}]}}"#));
        }
        let wait = |flag: &AtomicBool| {
            (0..6000)
                .take_while(|_| !flag.load(Ordering::Relaxed))
                .for_each(|_| thread::sleep(Duration::from_millis(10)))
        };
        if line.contains("resourceVersion=5 ") || line.contains("resourceVersion=5&") {
            wait(&change);
            // In chunks, as the API sends them, and cut in the middle of an event.
            let event = format!("{{\"type\":\"MODIFIED\",\"object\":{}}}\n", slice(second, 7));
            let (one, other) = event.split_at(20);
            return Does::SaysAndCloses(format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{one}\r\n{:x}\r\n{other}\r\n0\r\n\r\n",
                one.len(),
                other.len()
            ));
        }
        if line.contains("resourceVersion=7") {
            wait(&go);
            return json("{\"type\":\"ERROR\",\"object\":{\"kind\":\"Status\",\"code\":410,\"reason\":\"Expired\"}}\n");
        }
        Does::Waits(Duration::from_secs(60))
    });
    let mut world = World::new();
    fs::write(world.path("token"), "secret\n").unwrap();
    let source = format!(
        "{{kubernetes: {{service: app, namespace: ns, port: http, api: 'http://{}', tokenFile: ROOT/token}}}}",
        api.address
    );
    world.start(&spec(&source, ""));
    assert_eq!(body(&world), "a");
    changes.store(true, Ordering::Relaxed);
    eventually("the change", || body(&world) == "b");
    assert!(world.ask("/healthz?verbose").contains("app-x ("));
    // The version is too old: everything is listed again.
    gone.store(true, Ordering::Relaxed);
    eventually("the new list", || body(&world) == "a");
    assert_eq!(lists.load(Ordering::Relaxed), 2);
}

/// An API that never lets a watch begin is not asked as fast as it answers.
#[test]
fn a_watch_that_is_refused_each_time_is_no_flood() {
    let app = Upstream::start(|_| ok("app"));
    let address = app.address;
    let lists = Arc::new(Mutex::new(Vec::new()));
    let times = Arc::clone(&lists);
    let api = Upstream::start(move |seen| {
        if seen.line().contains("watch=true") {
            let gone = json("{\"type\":\"ERROR\",\"object\":{\"kind\":\"Status\",\"code\":410}}\n");
            let count = times.lock().unwrap().len();
            return if count % 2 == 0 {
                gone
            } else {
                Does::SaysAndCloses("HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n".to_owned())
            };
        }
        times.lock().unwrap().push(Instant::now());
        json(&format!(r#"{{"metadata":{{"resourceVersion":"5"}},"items":[{}]}}"#, slice(address, 5)))
    });
    let source = format!("{{kubernetes: {{service: app, namespace: ns, port: http, api: 'http://{}'}}}}", api.address);
    let world = World::with(&spec(&source, ""));
    assert_eq!(body(&world), "app");
    eventually("many lists", || lists.lock().unwrap().len() >= 6);
    let lists = lists.lock().unwrap();
    assert!(lists[5] - lists[0] >= Duration::from_millis(900), "{:?}", lists[5] - lists[0]);
}

#[test]
fn consul_is_asked_again_when_something_changes() {
    let (a, b) = (Upstream::start(|_| ok("a")), Upstream::start(|_| ok("b")));
    let (first, second) = (a.address, b.address);
    let index = Arc::new(AtomicUsize::new(10));
    let now = Arc::clone(&index);
    let consul = Upstream::start(move |seen| {
        let line = seen.line();
        assert!(line.starts_with("GET /v1/health/service/app?passing=1&tag=blue"), "{line}");
        let known = line.split("index=").nth(1).and_then(|rest| rest.split(['&', ' ']).next()?.parse().ok());
        // A blocking query: until something changes, or its time is over.
        for _ in 0..200 {
            if known != Some(now.load(Ordering::Relaxed)) {
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        let index = now.load(Ordering::Relaxed);
        if index == 0 {
            return Does::SaysAndCloses("HTTP/1.1 500 No leader\r\nContent-Length: 0\r\n\r\n".to_owned());
        }
        let address = if index == 10 { first } else { second };
        let body = format!(
            r#"[{{"Node":{{"Address":"{}"}},"Service":{{"ID":"app-1","Address":"","Port":{},"Meta":{{}},"Weights":{{"Passing":1}}}},"Checks":[]}}]"#,
            address.ip(),
            address.port()
        );
        Does::SaysAndCloses(format!(
            "HTTP/1.1 200 OK\r\nX-Consul-Index: {index}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ))
    });
    let source = format!("{{consul: {{service: app, tag: blue, address: 'http://{}'}}}}", consul.address);
    let world = World::with(&spec(&source, ""));
    assert_eq!(body(&world), "a");
    index.store(11, Ordering::Relaxed);
    eventually("the change", || body(&world) == "b");
    index.store(0, Ordering::Relaxed);
    eventually("the complaint", || world.log().contains("failed to find endpoints"));
    assert_eq!(body(&world), "b");
}

struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_real_consul_is_followed() {
    let (a, b) = (Upstream::start(|_| ok("a")), Upstream::start(|_| ok("b")));
    // Three ports nobody has; held until all are known, so that they differ.
    let held: Vec<TcpListener> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let ports: Vec<u16> = held.iter().map(|one| one.local_addr().unwrap().port()).collect();
    drop(held);
    let mut command = Command::new("consul");
    command.args(["agent", "-dev", "-bind=127.0.0.1", "-client=127.0.0.1", "-dns-port=-1", "-grpc-port=-1"]);
    command.args([format!("-http-port={}", ports[0]), format!("-server-port={}", ports[1])]);
    command.args([format!("-serf-lan-port={}", ports[2]), "-hcl=ports { serf_wan = -1 }".to_owned()]);
    let Ok(agent) = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn() else {
        println!("NOT RUN: consul is missing");
        return;
    };
    let _agent = Agent(agent);
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], ports[0]));
    let ask = |method: &str, path: &str, body: &str| {
        let mut client = Client::connect(address);
        let length = body.len();
        client.send(format!("{method} {path} HTTP/1.1\r\nHost: c\r\nContent-Length: {length}\r\n\r\n{body}"));
        client.answer()
    };
    eventually("the agent", || std::net::TcpStream::connect(address).is_ok());
    eventually("a leader", || ask("GET", "/v1/status/leader", "").body.contains(':'));
    let register = |id: &str, at: std::net::SocketAddr, tag: &str| {
        let (host, port) = (at.ip(), at.port());
        let body = format!(
            r#"{{"ID":"{id}","Name":"app","Tags":["{tag}"],"Address":"{host}","Port":{port},"Check":{{"CheckID":"{id}","TTL":"1h","Status":"passing"}}}}"#
        );
        eventually("the registration", || ask("PUT", "/v1/agent/service/register", &body).status() == 200);
    };
    register("app-a", a.address, "blue");
    register("app-green", "127.0.0.1:1".parse().unwrap(), "green");
    eventually("the catalogue", || ask("GET", "/v1/health/service/app?passing=1&tag=blue", "").body.contains("app-a"));
    let world =
        World::with(&spec(&format!("{{consul: {{service: app, tag: blue, address: 'http://{address}'}}}}"), ""));
    assert_eq!(body(&world), "a");
    register("app-b", b.address, "blue");
    eventually("the second instance", || body(&world) == "b");
    assert_eq!(ask("PUT", "/v1/agent/check/fail/app-b", "").status(), 200);
    eventually("it to be left out", || (0..4).all(|_| body(&world) == "a"));
    assert_eq!(ask("PUT", "/v1/agent/check/pass/app-b", "").status(), 200);
    assert_eq!(ask("PUT", "/v1/agent/service/deregister/app-a", "").status(), 200);
    eventually("only the second", || (0..4).all(|_| body(&world) == "b"));
}
