//! What the API server costs: lists, watch latency, memory of watches, durable writes. Prints; judges nothing.
//!
//! `cargo run --release -p pod-server --example server`

#![allow(dead_code, clippy::unwrap_used)]

#[path = "../tests/it/world.rs"]
mod world;

use std::time::{Duration, Instant};

use http::Method;
use http_body_util::BodyExt;
use serde_json::json;
use world::World;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";
const TABLE: (&str, &str) = ("accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json");

/// Private resident memory of this process, in KiB.
fn memory() -> i64 {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    text.lines()
        .filter(|line| line.starts_with("Private_"))
        .filter_map(|line| line.split_whitespace().nth(1)?.parse::<i64>().ok())
        .sum()
}

fn timed(what: &str, repeat: u32, mut act: impl FnMut()) {
    act();
    let mut times: Vec<Duration> = (0..repeat)
        .map(|_| {
            let start = Instant::now();
            act();
            start.elapsed()
        })
        .collect();
    times.sort();
    println!("{what}: median {:?}, worst {:?}", times[times.len() / 2], times[times.len() - 1]);
}

fn main() {
    let world = World::new();
    for at in 0..100 {
        let containers: Vec<_> = ["app", "helper"].map(|name| json!({"name": name, "image": "app:1"})).into();
        let pod = json!({"metadata": {"name": format!("p{at}"), "labels": {"app": "web"}}, "spec": {"containers": containers}});
        assert_eq!(world.post(PODS, &pod).status, 201);
    }
    println!("a list of 100 pods has {} KiB", world.get(PODS).bytes.len() / 1024);
    timed("connect and /readyz", 20, || drop(world.get("/readyz")));
    timed("connect and list 100 pods", 20, || drop(world.get(PODS)));
    timed("connect and list 100 pods, label selector", 20, || {
        drop(world.get(&format!("{PODS}?labelSelector=app%3Dweb")))
    });
    timed("connect and list 100 pods, field selector", 20, || {
        drop(world.get(&format!("{PODS}?fieldSelector=status.phase%3DPending")));
    });
    timed("connect and list 100 pods as a table", 20, || drop(world.call(Method::GET, PODS, &[TABLE], "")));
    timed("connect and create a ConfigMap", 50, {
        let mut at = 0;
        let world = &world;
        move || {
            at += 1;
            assert_eq!(world.config_map(&format!("m{at}"), &json!({"a": "1"})).status, 201);
        }
    });

    let open = |second: bool| {
        let request = world.request(
            Method::GET,
            &format!("{MAPS}?watch=true&resourceVersion={}", world.store.revision()),
            &[],
            "",
        );
        world.block_on(world.send(second, request))
    };
    // Both ends are in this process; the client's half is in the number, too.
    for second in [false, true] {
        let before = memory();
        let held: Vec<_> = (0..50).map(|_| open(second)).collect();
        let version = if second { "HTTP/2" } else { "HTTP/1.1" };
        println!("50 watches over {version}, server and client: {} KiB each", (memory() - before) / 50);
        drop(held);
    }
    let mut latencies = Vec::new();
    let mut body = open(true).into_body();
    let writer = world.store.clone();
    for at in 0..50 {
        let key = pod_store::Key { resource: "configmaps".into(), namespace: "default".into(), name: format!("w{at}") };
        let value = json!({"metadata": {"name": key.name, "namespace": "default"}});
        let change = pod_store::Change::Create(value);
        let start = world.block_on(async {
            writer.write(key, change, pod_store::Durability::Synced).await.unwrap();
            Instant::now()
        });
        world.block_on(async { body.frame().await.unwrap().unwrap() });
        latencies.push(start.elapsed());
    }
    latencies.sort();
    println!("a watch event after the write: median {:?}, worst {:?}", latencies[25], latencies[49]);
}
