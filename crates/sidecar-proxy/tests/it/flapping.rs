//! Endpoints that come and go under load: no request fails for it, who left is let go of, and whoever stuck to him moves once.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::harness::{Upstream, World, eventually, ok, simple_spec};

/// Connections to this port that stand (proc(5), `net/tcp`).
fn connections_to(port: u16) -> usize {
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let remote = format!(":{port:04X}");
    let fields = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    table.lines().map(fields).filter(|line| line[2].ends_with(&remote) && line[3] == "01").count()
}

#[test]
fn endpoints_come_and_go_under_load() {
    let all = ["a", "b", "c"].map(|name| Upstream::start(move |_| ok(name)));
    for balance in ["roundRobin", "leastRequest", "p2cEwma", "maglev"] {
        let mut world = World::new();
        let list = world.path("list.json");
        let put = |which: &[usize]| {
            let addresses: Vec<String> = which.iter().map(|one| format!("\"{}\"", all[*one].address)).collect();
            fs::write(list.with_extension("new"), format!("[{}]", addresses.join(","))).unwrap();
            fs::rename(list.with_extension("new"), &list).unwrap();
        };
        put(&[0, 1, 2]);
        let backend = format!("  discover: [{{file: '{}'}}]\n  balance: {balance}\n", list.display());
        world.start(&simple_spec(&[], "workers: 2\n").replace("  endpoints: []\n", &backend));
        let endpoints = || world.ask("/metrics").matches("outrigger_proxy_backend_endpoint_healthy{").count();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..4)
                .map(|number| {
                    let (world, over) = (&world, &over);
                    scope.spawn(move || {
                        let (mut client, mut served) = (world.client(), 0);
                        while !over.load(Ordering::Relaxed) {
                            let method = if number % 2 == 0 { "GET" } else { "POST" };
                            client.send(format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx"));
                            let answer = client.answer();
                            assert_eq!(answer.status(), 200, "after {served}: {}", answer.head);
                            served += 1;
                            std::thread::sleep(Duration::from_millis(1));
                        }
                    })
                })
                .collect();
            for which in [&[1][..], &[0, 2], &[2, 1, 0], &[0]] {
                put(which);
                eventually("the list", || endpoints() == which.len() || clients.iter().any(|one| one.is_finished()));
            }
            over.store(true, Ordering::Relaxed);
            clients.into_iter().for_each(|client| client.join().unwrap());
        });
        // Who left is not held on to.
        for gone in &all[1..] {
            eventually("the end of connections", || connections_to(gone.address.port()) == 0);
        }
    }
}

#[test]
fn who_stuck_to_one_that_left_moves_once() {
    let all = ["a", "b"].map(|name| Upstream::start(move |_| ok(name)));
    let mut world = World::new();
    let list = world.path("list.json");
    let put = |which: &[usize]| {
        let addresses: Vec<String> = which.iter().map(|one| format!("\"{}\"", all[*one].address)).collect();
        fs::write(list.with_extension("new"), format!("[{}]", addresses.join(","))).unwrap();
        fs::rename(list.with_extension("new"), &list).unwrap();
    };
    put(&[0, 1]);
    let backend = format!("  discover: [{{file: '{}'}}]\n  sticky: {{cookie: s}}\n", list.display());
    world.start(&simple_spec(&[], "workers: 1\n").replace("  endpoints: []\n", &backend));
    let mut client = world.client();
    let mut ask = |cookie: &str| {
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\n\r\n"));
        let answer = client.answer();
        let set = answer.field("set-cookie").map(|text| text.split(';').next().unwrap().to_owned());
        (answer.body, set)
    };
    let (first, cookie) = ask("x=1");
    let cookie = cookie.unwrap();
    assert!((0..6).all(|_| ask(&cookie) == (first.clone(), None)));
    let other = usize::from(first == "a");
    put(&[other]);
    eventually("the other's answer", || ask(&cookie).0 != first);
    let (second, moved) = ask(&cookie);
    let moved = moved.unwrap();
    assert!(second != first && moved != cookie);
    // Back again: who has moved stays, and who has not comes back.
    put(&[0, 1]);
    eventually("the return", || ask(&cookie) == (first.clone(), None));
    assert!((0..6).all(|_| ask(&moved) == (second.clone(), None)));
    // A cookie that nobody has given is nobody's.
    for strange in ["s=", "s=0000000000000000", "s=%00", "s=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"] {
        assert!(ask(strange).1.is_some(), "{strange}");
    }
}
