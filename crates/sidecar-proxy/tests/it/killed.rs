//! Upstreams that go without a word, under load. The upstreams are processes of their own.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::harness::{Client, World, eventually, simple_spec};

/// A process that answers everything by itself.
fn upstream(name: &str) -> World {
    World::with(&format!(
        "listeners:\n- {{name: http, address: \"127.0.0.1:0\"}}\nroutes:\n- name: all\n  filters: [{{respond: {{status: 200, body: {name}}}}}]\nbackends:\n- {{name: none, endpoints: ['127.0.0.1:1']}}\n"
    ))
}

#[test]
fn one_of_two_is_killed_and_no_request_fails() {
    for (http2, balance) in [(false, "roundRobin"), (false, "p2cEwma"), (true, "leastRequest")] {
        let (mut dies, stays) = (upstream("dies"), upstream("stays"));
        let spec = simple_spec(&[dies.address(), stays.address()], "")
            .replace("  endpoints:", &format!("  http2: {http2}\n  balance: {balance}\n  endpoints:"));
        let world = World::with(&spec);
        let (over, served, by_first) =
            (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let load: Vec<_> = (0..8)
            .map(|_| {
                let (over, served, by_first) = (Arc::clone(&over), Arc::clone(&served), Arc::clone(&by_first));
                let address = world.address();
                thread::spawn(move || {
                    let mut client = Client::connect(address);
                    while !over.load(Ordering::Relaxed) {
                        let answer = client.get("/");
                        assert_eq!(answer.status(), 200, "{}{}", answer.head, answer.body);
                        served.fetch_add(1, Ordering::Relaxed);
                        by_first.fetch_add(usize::from(answer.body == "dies"), Ordering::Relaxed);
                    }
                })
            })
            .collect();
        eventually("both", || by_first.load(Ordering::Relaxed) > 200 && served.load(Ordering::Relaxed) > 500);
        dies.signal(Signal::KILL);
        dies.wait();
        let before = served.load(Ordering::Relaxed);
        eventually("many more", || served.load(Ordering::Relaxed) > before + 1000);
        over.store(true, Ordering::Relaxed);
        for client in load {
            client.join().expect("no request has failed");
        }
        // Counted when the answer is on its way.
        let all = served.load(Ordering::Relaxed) as u64;
        eventually("the count", || world.metric("outrigger_proxy_requests_total{route=\"all\",status=\"2xx\"}") == all);
    }
}

#[test]
fn connections_that_end_just_when_they_are_wanted() {
    // Closes every connection that has been idle for five milliseconds since its last answer.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answered = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&answered);
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let answered = Arc::clone(&counter);
            thread::spawn(move || serve_briefly(&mut stream, &answered));
        }
    });
    let world = World::with(&simple_spec(&[address], ""));
    let clients: Vec<_> = (0..4_u64)
        .map(|number| {
            let to = world.address();
            thread::spawn(move || {
                let mut client = Client::connect(to);
                for n in 0..150_u64 {
                    assert_eq!(client.get("/").status(), 200, "{number} {n}");
                    // Around the time at which the connection ends.
                    thread::sleep(Duration::from_micros(4000 + (n * 7 + number * 3) % 20 * 100));
                }
            })
        })
        .collect();
    for client in clients {
        client.join().expect("no request has failed");
    }
    assert_eq!(answered.load(Ordering::Relaxed), 600, "none was answered twice");
}

fn serve_briefly(stream: &mut TcpStream, answered: &AtomicUsize) {
    let (mut head, mut room) = (Vec::new(), [0; 1024]);
    while let Ok(length @ 1..) = stream.read(&mut room) {
        head.extend_from_slice(&room[..length]);
        if head.ends_with(b"\r\n\r\n") {
            head.clear();
            answered.fetch_add(1, Ordering::Relaxed);
            if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_err() {
                return;
            }
            stream.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        }
    }
}
