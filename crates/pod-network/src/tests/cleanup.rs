//! Nothing is left, whoever leaves in whatever order.

use std::{collections::BTreeSet, time::Instant};

use super::world::{Space, World, tcp, udp};
use crate::{Config, Network};

#[test]
fn detaching_leaves_the_host_as_it_was() {
    let world = World::new();
    let before = world.traces();
    let (a, _) = world.pod("a", &[tcp(8080, 80), udp(5353, 53)]);
    let (_b, _) = world.pod("b", &[tcp(8081, 80)]);
    assert_eq!(world.host.run("cat /proc/sys/net/ipv4/ip_forward"), "1\n");
    world.detach("a");
    let ruleset = world.host.run("nft list ruleset");
    assert!(ruleset.contains("tcp . 8081 : 10.89.0.3 . 80"), "{ruleset}");
    assert!(!ruleset.contains("8080") && !ruleset.contains("5353") && !ruleset.contains("10.89.0.2"), "{ruleset}");
    assert_eq!(a.run("ip -br link | wc -l"), "1\n", "the pod's end is gone too");
    world.detach("b");
    assert_eq!(world.traces(), before);
    world.detach("b");
    world.detach("never seen");
    world.detach("../../etc/passwd");
    assert_eq!(world.traces(), before);
}

#[test]
fn forwarding_that_was_on_stays_on() {
    let world = World::new();
    world.host.run("echo 1 > /proc/sys/net/ipv4/ip_forward");
    let (_a, _) = world.pod("a", &[]);
    world.detach("a");
    assert_eq!(world.host.run("cat /proc/sys/net/ipv4/ip_forward"), "1\n");
}

#[test]
fn attaching_again_answers_the_same() {
    let world = World::new();
    let pod = Space::new();
    let attach = |ports: &[_]| world.host.inside(|| world.network.attach("a", &pod.path(), ports)).unwrap();
    let first = attach(&[tcp(8080, 80)]);
    let traces = world.traces();
    assert_eq!(attach(&[tcp(8080, 80)]), first);
    assert_eq!(world.traces(), traces);
    // Other ports, or another namespace (the pod's sandbox was made anew): what was there is replaced.
    attach(&[tcp(8081, 80)]);
    assert!(!world.traces().contains("8080"));
    let next = Space::new();
    let second = world.host.inside(|| world.network.attach("a", &next.path(), &[])).unwrap();
    assert_eq!(second.ip, first.ip);
    assert_eq!(world.network.known(), ["a"]);
}

#[test]
fn a_pod_whose_namespace_died_is_detached_and_its_address_given_out_again() {
    let world = World::new();
    let before = world.traces();
    let (a, _) = world.pod("a", &[tcp(8080, 80)]);
    drop(a);
    world.detach("a");
    // The address is free at once, even if the old link is not quite gone.
    let (_b, ip) = world.pod("b", &[]);
    assert_eq!(ip, "10.89.0.2");
    assert!(world.gets_out(&_b));
    world.detach("b");
    world.settle(2);
    assert_eq!(world.traces(), before);
    let (_b, ip) = world.pod("b", &[]);
    assert_eq!(ip, "10.89.0.2");
}

#[test]
fn a_namespace_that_outlives_its_processes_loses_its_link() {
    let world = World::new();
    let before = world.traces();
    let (a, _) = world.pod("a", &[]);
    let kept = std::fs::File::open(a.path()).unwrap();
    drop(a);
    world.detach("a");
    assert!(world.host.run("ip -4 addr; ip -4 route").lines().all(|line| !line.contains("10.89.")), "at once");
    world.settle(2);
    assert_eq!(world.traces(), before);
    drop(kept);
}

#[test]
fn two_networks_share_the_register_without_harming_each_other() {
    let world = World::new();
    let before = world.traces();
    let other = Config { cidr: "10.91.0.0/24".parse().unwrap(), mtu: Some(1300) };
    let other = Network::open(world.directory.path(), other).unwrap();
    let (a, _) = world.pod("a", &[tcp(8080, 80)]);
    let b = Space::new();
    let attachment = world.host.inside(|| other.attach("b", &b.path(), &[tcp(8081, 80)])).unwrap();
    assert_eq!(attachment.ip.to_string(), "10.91.0.2");
    assert!(b.run("ip link show dev eth0").contains("mtu 1300"));
    let conflict = Space::new();
    let error = world.host.inside(|| other.attach("c", &conflict.path(), &[tcp(8080, 80)])).unwrap_err();
    assert_eq!(error.to_string(), "host port 8080/TCP is already in use by pod a");
    a.serve("0.0.0.0:80");
    b.serve("0.0.0.0:80");
    assert_eq!(world.outside.call("203.0.113.1:8081").unwrap(), "203.0.113.2");
    world.host.inside(|| other.detach("b")).unwrap();
    assert_eq!(world.outside.call("203.0.113.1:8080").unwrap(), "203.0.113.2", "still forwarded");
    world.detach("a");
    assert_eq!(world.traces(), before);
}

#[test]
fn engines_attaching_at_once_get_different_addresses() {
    let world = World::new();
    let before = world.traces();
    let pods: Vec<_> = (0..8).map(|_| Space::new()).collect();
    let addresses: BTreeSet<_> = std::thread::scope(|scope| {
        let attach = |(number, pod): (usize, &Space)| {
            let path = pod.path();
            let world = &world;
            scope.spawn(move || {
                // A register of its own: what two processes share is the directory, the lock between them is per open file.
                let network = Network::open(world.directory.path(), Config::default()).unwrap();
                world.host.inside(|| network.attach(&format!("pod-{number}"), &path, &[]).unwrap().ip)
            })
        };
        let threads: Vec<_> = pods.iter().enumerate().map(attach).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(addresses.len(), 8);
    world.host.inside(|| world.network.sweep(&BTreeSet::new())).unwrap();
    assert_eq!(world.traces(), before);
}

#[test]
fn two_hundred_rounds_leave_nothing() {
    let world = World::new();
    let before = world.traces();
    let (_resident, _) = world.pod("resident", &[]);
    let resident = world.traces();
    let kinds =
        [("no ports", vec![]), ("a TCP port", vec![tcp(8080, 80)]), ("TCP and UDP", vec![tcp(8080, 80), udp(53, 53)])];
    let mut times = vec![(Vec::new(), Vec::new()); kinds.len()];
    world.host.inside(|| {
        for round in 0..200 {
            let pod = Space::new();
            let (attach, detach) = &mut times[round % kinds.len()];
            let start = Instant::now();
            world.network.attach("a", &pod.path(), &kinds[round % kinds.len()].1).unwrap();
            attach.push(start.elapsed());
            // At once: a first packet that is lost would cost the pod a second.
            assert!(world.gets_out(&pod), "round {round}");
            drop(pod);
            let start = Instant::now();
            world.network.detach("a").unwrap();
            detach.push(start.elapsed());
        }
    });
    for ((kind, _), (attach, detach)) in kinds.iter().zip(&mut times) {
        for (what, times) in [("attach", attach), ("detach", detach)] {
            times.sort();
            println!("{what}, {kind}: p10 {:?} p50 {:?} p90 {:?}", times[6], times[33], times[59]);
        }
    }
    world.settle(3);
    assert_eq!(world.traces(), resident);
    world.detach("resident");
    assert_eq!(world.traces(), before);
}
