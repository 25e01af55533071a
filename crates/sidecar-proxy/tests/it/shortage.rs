//! Descriptors that run out: clients do not take all of them, and nobody is blamed for those that are missing.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;

use crate::harness::{PATIENCE, Upstream, World, eventually, ok, simple_spec};

#[test]
fn crowds_leave_descriptors_to_others() {
    let upstream = Upstream::start(|_| ok("hello"));
    let mut world = World::new();
    world.through = ["prlimit", "--nofile=80:128"].map(str::to_owned).to_vec();
    world.start(&format!("{}workers: 1\n", simple_spec(&[upstream.address], "")));
    let crowd: Vec<_> = (0..150).map(|_| TcpStream::connect(world.address()).unwrap()).collect();
    // Half of what the hard limit leaves beside the program's own.
    let room = (128 - 53) / 2;
    eventually("the last one's turn", || world.metric("outrigger_proxy_connections_refused_total") == 150 - room);
    assert!(world.ask("/readyz").contains("200"));
    let served = crowd.into_iter().filter_map(|mut stream| {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").ok()?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).ok()?;
        assert_eq!(&answer, b"HTTP/1.1 200");
        // All of them stay.
        Some(stream)
    });
    assert_eq!(served.collect::<Vec<_>>().len() as u64, room);
}

#[test]
fn no_endpoint_is_blamed_for_descriptors_that_are_missing() {
    let upstream = Upstream::start(|_| ok("hello"));
    let world = World::with(&simple_spec(&[upstream.address], "  idleConnections: 0\nworkers: 1\n"));
    let mut client = world.client();
    assert_eq!(client.get("/").status(), 200);
    // What is open stays open; nothing more is to be had.
    let limit = |number: u32| {
        let mut command = Command::new("prlimit");
        command.args(["--pid", &world.process().to_string(), &format!("--nofile={number}:")]);
        assert!(command.status().unwrap().success());
    };
    limit(3);
    for _ in 0..3 {
        let answer = client.get("/");
        assert_eq!((answer.status(), answer.field("x-outrigger-failure")), (503, Some("no_socket")));
    }
    limit(512);
    assert_eq!(client.get("/").status(), 200);
    assert_eq!(world.log().matches("no connection can be made").count(), 1, "{}", world.log());
    let of = format!("{{backend=\"app\",endpoint=\"{}\"}}", upstream.address);
    for counter in ["failures", "connect_failures"] {
        assert_eq!(world.metric(&format!("outrigger_proxy_backend_{counter}_total{of}")), 0, "{counter}");
    }
}
