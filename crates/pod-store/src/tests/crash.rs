//! A process that is killed while it writes, and a file system that is full, both real.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::{key, open, put, runtime, value};
use crate::{Change, Durability, Store, WriteError};

const STORE: &str = "POD_STORE_CRASH_TEST";
const ROUNDS: u64 = 8;
const THREADS: usize = 5;

/// Not a test: the process that [`killed_at_any_moment`] starts and kills. Says what was acknowledged, a line each.
#[test]
#[ignore = "started by another test"]
fn writing_process() {
    let Some(path) = std::env::var_os(STORE) else { return };
    let store = open(Path::new(&path));
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let store = &store;
            scope.spawn(move || {
                let key = key("a", &format!("t{thread}"));
                let begin = store.get(&key).map_or(0, |object| number(&object.value()));
                // The last thread's writes are Lazy: their numbers may be lost, but their revisions may not come again.
                let durability = if thread + 1 == THREADS { Durability::Lazy } else { Durability::Synced };
                for n in begin + 1.. {
                    let object = put(store, &key, n, durability);
                    // One write call a line, so that no line is torn when the process dies.
                    let line = format!("{thread} {n} {}\n", object.revision);
                    std::io::stderr().write_all(line.as_bytes()).unwrap();
                    if durability == Durability::Lazy {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                }
            });
        }
    });
}

/// A process that outlives no test, whether it passes or not.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn number(value: &serde_json::Value) -> u64 {
    value["data"]["n"].as_str().unwrap().parse().unwrap()
}

#[test]
fn killed_at_any_moment() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let mut last: BTreeMap<usize, u64> = BTreeMap::new();
    let mut newest = 0;
    let mut acknowledged = 0;
    for round in 0..ROUNDS {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "tests::crash::writing_process", "--ignored", "--nocapture"])
            .env(STORE, &path)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut child = Killed(child);
        let mut lines = BufReader::new(child.0.stderr.take().unwrap()).lines();
        let mut of_this_run = newest;
        let mut hear = |line: String| {
            let words: Vec<u64> = line.split(' ').map(|word| word.parse().expect(&line)).collect();
            let [thread, n, revision] = words[..] else { panic!("{line}") };
            assert!(revision > newest, "revision {revision} was given out before the crash at {newest}");
            of_this_run = of_this_run.max(revision);
            let is_synced = thread as usize + 1 < THREADS;
            if is_synced {
                last.insert(thread as usize, n);
                acknowledged += 1;
            }
            is_synced
        };
        // It is under way at the first write that may not be lost; then another moment in every round.
        while !hear(lines.next().unwrap().unwrap()) {}
        std::thread::sleep(Duration::from_millis(30 + 17 * round));
        child.0.kill().unwrap();
        lines.for_each(|line| {
            hear(line.unwrap());
        });
        drop(child);
        newest = of_this_run;

        let store = open(&path);
        for (thread, n) in &last {
            let stored = number(&store.get(&key("a", &format!("t{thread}"))).unwrap().value());
            assert!(stored >= *n, "thread {thread}: {n} was acknowledged, {stored} is stored");
        }
        assert!(store.revision() >= newest);
    }
    assert!(acknowledged >= ROUNDS, "only {acknowledged} writes were acknowledged");
}

/// A small file system, gone with the value.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Self {
        mount("none", at, "tmpfs", MountFlags::empty(), Some(c"size=6m")).unwrap();
        Self(at.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        unmount(&self.0, UnmountFlags::DETACH).unwrap();
    }
}

#[test]
fn a_full_disk_refuses_and_recovers() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let disk = SmallDisk::mount(directory.path());
    let path = disk.0.join("store");
    let store = open(&path);
    let kept = put(&store, &key("a", "kept"), 1, Durability::Synced);

    let filler = disk.0.join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
    drop(file);
    let mut big = value("big", 0);
    big["data"]["t"] = "x".repeat(600_000).into();
    let mut refused = 0;
    for n in 0..6 {
        let write = store.write(key("a", &format!("big{n}")), Change::Create(big.clone()), Durability::Synced);
        match runtime().block_on(write) {
            Ok(_) => {}
            Err(WriteError::Disk(error)) => {
                assert_eq!(error.kind(), std::io::ErrorKind::StorageFull, "{error}");
                assert!(store.get(&key("a", &format!("big{n}"))).is_none());
                refused += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(refused > 0);
    let lazy = put(&store, &key("a", "lazy"), 1, Durability::Lazy);
    assert_eq!(store.get(&kept.key).unwrap().revision, kept.revision);
    // Still nobody else's, although its file is given up.
    assert!(Store::open(&path).is_err());

    std::fs::remove_file(&filler).unwrap();
    put(&store, &key("a", "after"), 1, Durability::Synced);
    let before = store.list("configmaps", None);
    drop(store);
    let store = open(&path);
    assert_eq!(before, store.list("configmaps", None));
    assert_eq!(store.get(&lazy.key).unwrap().revision, lazy.revision);
    assert!(!disk.0.join("store.new").exists());
}
