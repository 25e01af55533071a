//! The store's numbers on this disk: `cargo run --release -p pod-store --example store [DIRECTORY]`.
//!
//! Opening and memory are measured in processes of their own: `store open FILE` is one.

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use pod_store::{Change, Durability, Key, Store, Watch};
use serde_json::{Value, json};

const CLIENTS: usize = 16;
const SECONDS: u64 = 3;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let place = match (arguments.next(), arguments.next()) {
        (Some(word), Some(file)) if word == "open" => return open(Path::new(&file)),
        (place, _) => place.unwrap_or_else(|| ".".to_owned()),
    };
    let directory = tempfile::tempdir_in(place)?;
    let path = directory.path().join("store");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;

    let begun = Instant::now();
    let store = Store::open(&path)?;
    println!("create                     {:>9.2} ms", milliseconds(begun));
    drop(store);
    opened("empty", &path)?;
    let store = Store::open(&path)?;
    for n in 0..1000 {
        runtime.block_on(store.write(key(n), Change::Create(config_map(n, 0)), Durability::Lazy))?;
    }
    runtime.block_on(store.write(key(0), Change::Delete { expected: None, last: None }, Durability::Synced))?;
    // As a crash leaves it: the copy is never closed.
    let crashed = directory.path().join("crashed");
    std::fs::copy(&path, &crashed)?;
    opened("1000, crashed", &crashed)?;
    drop(store);
    opened("1000 objects", &path)?;

    let store = Store::open(&path)?;
    let before = memory()?;
    let watches = (0..1000).map(|_| Ok(store.watch("configmaps", Some("default"), None)?));
    let mut watches = watches.collect::<anyhow::Result<Vec<Watch>>>()?;
    let waiting: Vec<_> = watches.iter_mut().map(|watch| Box::pin(watch.next())).collect();
    println!("1000 watches               {:>9} KiB", memory()?.saturating_sub(before));
    drop(waiting);
    drop(watches);
    for clients in [1, CLIENTS] {
        let (writes, seconds, worst) = runtime.block_on(load(&store, clients, Durability::Synced))?;
        println!("synced, {clients:>2} clients         {:>9.0} /s, worst {worst:.1} ms", writes / seconds);
    }
    println!("file                       {:>9} KiB", path.metadata()?.len() >> 10);
    let (writes, seconds, worst) = runtime.block_on(load(&store, CLIENTS, Durability::Lazy))?;
    println!("lazy, {CLIENTS} clients           {:>9.0} /s, worst {worst:.1} ms", writes / seconds);
    println!("event delivery             {:>9.0} us median after a lazy write", runtime.block_on(delivery(&store))?);
    println!("after the load             {:>9} KiB PSS, file {} KiB", memory()?, path.metadata()?.len() >> 10);
    drop(store);
    opened("1600 after the load", &path)
}

fn open(path: &Path) -> anyhow::Result<()> {
    let before = memory()?;
    let begun = Instant::now();
    let store = Store::open(path)?;
    let took = milliseconds(begun);
    let objects = store.list("configmaps", None).items;
    let json: usize = objects.iter().map(|object| object.json.len()).sum();
    let memory = memory()?;
    println!(
        "{:>9.2} ms, {} objects of {} KiB, file {} KiB; {memory} KiB PSS, {} more than without",
        took,
        objects.len(),
        json >> 10,
        path.metadata()?.len() >> 10,
        memory.saturating_sub(before),
    );
    Ok(())
}

fn opened(what: &str, path: &Path) -> anyhow::Result<()> {
    print!("open {what:<22}");
    std::io::stdout().flush()?;
    let status = Command::new(std::env::current_exe()?).arg("open").arg(path).status()?;
    anyhow::ensure!(status.success(), "the measuring process failed: {status}");
    Ok(())
}

async fn load(store: &Store, clients: usize, durability: Durability) -> anyhow::Result<(f64, f64, f64)> {
    let begun = Instant::now();
    let tasks: Vec<_> = (0..clients)
        .map(|client| {
            let store = store.clone();
            tokio::spawn(async move {
                let (mut writes, mut worst) = (0.0, 0.0_f64);
                for n in 0.. {
                    let asked = Instant::now();
                    if begun.elapsed() > Duration::from_secs(SECONDS) {
                        break;
                    }
                    // A hundred names per client.
                    let n_key = key(client * 100 + n % 100);
                    let value = config_map(client * 100 + n % 100, n);
                    let change = match store.get(&n_key) {
                        None => Change::Create(value),
                        Some(_) => Change::Replace { value, expected: None },
                    };
                    store.write(n_key, change, durability).await?;
                    writes += 1.0;
                    worst = worst.max(milliseconds(asked));
                }
                anyhow::Ok((writes, worst))
            })
        })
        .collect();
    let (mut writes, mut worst) = (0.0, 0.0_f64);
    for task in tasks {
        let (of_one, worst_of_one) = task.await??;
        writes += of_one;
        worst = worst.max(worst_of_one);
    }
    Ok((writes, begun.elapsed().as_secs_f64(), worst))
}

async fn delivery(store: &Store) -> anyhow::Result<f64> {
    let mut watch = store.watch("configmaps", None, None)?;
    let (sender, mut times) = tokio::sync::mpsc::unbounded_channel();
    let reader = tokio::spawn(async move {
        while watch.next().await.is_ok() {
            if sender.send(Instant::now()).is_err() {
                return;
            }
        }
    });
    let mut latencies = Vec::new();
    for n in 0..500 {
        let begun = Instant::now();
        let change = Change::Replace { value: config_map(0, 1_000_000 + n), expected: None };
        store.write(key(0), change, Durability::Lazy).await?;
        let seen = times.recv().await.context("the watch ended")?;
        latencies.push(seen.duration_since(begun).as_secs_f64() * 1e6);
    }
    reader.abort();
    latencies.sort_by(f64::total_cmp);
    Ok(latencies[latencies.len() / 2])
}

fn key(n: usize) -> Key {
    Key { resource: Arc::from("configmaps"), namespace: "default".into(), name: format!("config-{n:05}") }
}

/// About two kilobytes, as objects with managed fields are.
fn config_map(n: usize, version: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": format!("config-{n:05}"), "namespace": "default", "uid": format!("00000000-0000-0000-0000-{n:012}"),
            "labels": {"app": "measure", "n": n.to_string()}},
        "data": {"version": version.to_string(), "text": "0123456789abcdef".repeat(110)},
    })
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// KiB.
fn memory() -> anyhow::Result<u64> {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup")?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).context("no Pss in smaps_rollup")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
