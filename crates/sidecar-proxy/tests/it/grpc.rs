//! gRPC through the proxy, with a client and a server we did not write: grpcio, which `.ci/kubectl` brings.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};

use rcgen::CertifiedKey;
use rustix::process::Signal;

use crate::harness::{World, eventually};

/// A Python that has grpcio; `None`: the test cannot run here.
fn python() -> Option<PathBuf> {
    let python = crate::harness::clients().join("python/bin/python3");
    let ready = Command::new(&python).args(["-c", "import grpc"]).output().is_ok_and(|run| run.status.success());
    if !ready {
        println!("NOT RUN: {} with grpcio is missing; .ci/kubectl brings it", python.display());
    }
    ready.then_some(python)
}

/// A peer that runs until it is told to stop.
struct Peer {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Peer {
    fn start(python: &PathBuf, arguments: &[&str]) -> Peer {
        let mut child = Command::new(python)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/grpc/peer.py"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Peer { child, output }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn stop(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }

    /// What it still says until its end, and whether that was a good one.
    fn rest(&mut self) -> (String, bool) {
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).unwrap();
        (rest, self.child.wait().unwrap().success())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Most have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spec(listener: &str, servers: &[&str]) -> String {
    let endpoints: Vec<String> = servers.iter().map(|port| format!("\"127.0.0.1:{port}\"")).collect();
    format!(
        "listeners:\n- {{name: grpc, address: \"127.0.0.1:0\"{listener}}}\nroutes:\n- {{name: all, backends: [{{name: app}}]}}\nbackends:\n- {{name: app, http2: true, endpoints: [{}]}}\n",
        endpoints.join(", ")
    )
}

fn check(python: &PathBuf, arguments: &[&str]) {
    let mut client = Peer::start(python, &[&["check"], arguments].concat());
    let (said, good) = client.rest();
    print!("{said}");
    assert!(good && said.matches("good case_").count() >= 10, "{said}");
}

#[test]
fn a_foreign_client_and_server_see_no_difference() {
    let Some(python) = python() else { return };
    let mut server = Peer::start(&python, &["serve", "a"]);
    let port = server.line();
    // First without us, so that what fails later is ours.
    check(&python, &[&format!("127.0.0.1:{port}")]);
    let world = World::with(&spec("", &[&port]));
    check(&python, &[&world.address().to_string()]);
    assert!(world.metric("outrigger_proxy_requests_total{route=\"all\",status=\"2xx\"}") > 300);
}

#[test]
fn the_same_over_tls() {
    let Some(python) = python() else { return };
    let mut server = Peer::start(&python, &["serve", "a"]);
    let port = server.line();
    let CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let mut world = World::new();
    std::fs::write(world.path("crt"), cert.pem()).unwrap();
    std::fs::write(world.path("key"), signing_key.serialize_pem()).unwrap();
    world.start(&spec(", tls: {certificates: [{certFile: ROOT/crt, keyFile: ROOT/key}]}", &[&port]));
    check(&python, &[&world.address().to_string(), world.path("crt").to_str().unwrap()]);
}

fn calls(world: &World) -> u64 {
    world.metric("outrigger_proxy_requests_total{route=\"all\",status=\"2xx\"}")
}

#[test]
fn calls_go_elsewhere_when_a_server_ends() {
    let Some(python) = python() else { return };
    let mut servers = [Peer::start(&python, &["serve", "a"]), Peer::start(&python, &["serve", "b"])];
    let ports = [servers[0].line(), servers[1].line()];
    let world = World::with(&spec("", &[&ports[0], &ports[1]]));
    let mut load = Peer::start(&python, &["load", &world.address().to_string()]);
    assert_eq!(load.line(), "going");
    // It says GOAWAY and ends what it has begun.
    servers[0].stop();
    assert!(servers[0].rest().1);
    let before = calls(&world);
    eventually("calls to the other server", || calls(&world) > before + 200);
    load.stop();
    let (said, _) = load.rest();
    // A server of grpcio that ends cancels what reaches it in the same moment, also without a proxy between.
    let only_its_own = said.contains("failed ['StatusCode.CANCELLED: CANCELLED']");
    assert!(said.contains(" 0 failed") || only_its_own, "{said}");
}

#[test]
fn no_call_fails_when_a_proxy_ends() {
    let Some(python) = python() else { return };
    let mut server = Peer::start(&python, &["serve", "a"]);
    let port = server.line();
    let mut proxies = [World::with(&spec("", &[&port])), World::with(&spec("", &[&port]))];
    let addresses = format!("{},{}", proxies[0].address(), proxies[1].address());
    let mut load = Peer::start(&python, &["load", &addresses]);
    assert_eq!(load.line(), "going");
    proxies[0].signal(Signal::TERM);
    assert_eq!(proxies[0].wait().code(), Some(0), "{}", proxies[0].log());
    let before = calls(&proxies[1]);
    eventually("calls through the other proxy", || calls(&proxies[1]) > before + 200);
    load.stop();
    let (said, _) = load.rest();
    assert!(said.contains(" 0 failed"), "{said}");
}
