//! Killed at any system call, and power cuts at any write: what the agent does to the disk is watched with strace(1).
//!
//! Between two system calls nothing that outlives the process changes, so killing it at every one of them is killing it at
//! every instruction. For a power cut the calls are replayed into a model of a disk that forgets what was not synced, or
//! tears it; an agent that starts from what is left must still deliver every line that had not arrived by then.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::Signal;

use crate::harness::{PATIENCE, Receiver, World, append, to_http};

/// Calls by which something outside of the process changes.
const CHANGING: &str = "openat,write,pwrite64,writev,sendto,rename,renameat,renameat2,unlink,unlinkat,ftruncate,fsync,fdatasync,mkdir,mkdirat";

fn is_traceable() -> bool {
    let traced = Command::new("strace").args(["-qq", "-D", "-o", "/dev/null", "true"]).status();
    let works = traced.is_ok_and(|status| status.success());
    if !works {
        println!("NOT RUN: strace(1) is missing or may not trace");
    }
    works
}

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Waits for something, or for the agent's end.
fn unless_dead(world: &mut World, agent: usize, mut condition: impl FnMut(&World) -> bool) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while !world.has_ended(agent) {
        if condition(world) {
            return true;
        }
        assert!(Instant::now() < deadline, "nothing happens: {}", world.read("stderr"));
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}

/// Everything there is has been turned into records.
fn has_read_all(world: &World, bytes: u64) -> bool {
    let text = world.admin("/metrics");
    let read = text.lines().find_map(|line| line.strip_prefix("outrigger_logs_read_bytes_total "));
    read.and_then(|value| value.parse::<u64>().ok()).is_some_and(|read| read >= bytes)
}

/// One life that ends at the n-th call: outage, rotation by rename or a deleted file, recovery, end.
fn killed_at(call: usize, always: bool) {
    let receiver = Receiver::start();
    receiver.set_down(true);
    let mut world = World::new();
    let config = world.configure(&to_http(receiver.address, ""));
    let spool = if always { "always" } else { "overflow" };
    fs::write(&config, fs::read_to_string(&config).unwrap() + &format!("    spool: {spool}\n")).unwrap();
    let log = world.path("log/app.log");
    append(&log, 0..100);
    let size = fs::metadata(&log).unwrap().len();
    let mut strace = Command::new("strace");
    strace.args(["-qq", "-D", "-f", "-o", "/dev/null", "-e", &format!("trace={CHANGING}"), "-e"]);
    strace.arg(format!("inject={CHANGING}:signal=SIGKILL:when={call}"));
    let agent = world.launch_under(strace, &config);
    let mut written = 100;
    let life = |world: &mut World, written: &mut u32| -> bool {
        if !unless_dead(world, agent, |world| has_read_all(world, size)) {
            return false;
        }
        // With a spool that holds everything the file may go; without, it is only renamed.
        if always {
            fs::remove_file(&log).unwrap();
        } else {
            fs::rename(&log, log.with_extension("log.1")).unwrap();
        }
        append(&log, 100..200);
        *written = 200;
        unless_dead(world, agent, |world| has_read_all(world, 2 * size)) && {
            receiver.set_down(false);
            unless_dead(world, agent, |_| receiver.unique() == 200)
        }
    };
    let lived = life(&mut world, &mut written);
    if lived {
        world.signal(agent, Signal::TERM);
        world.wait(agent);
    }
    receiver.set_down(false);
    let again = world.start(&config);
    let deadline = Instant::now() + PATIENCE;
    while receiver.unique() < written as usize && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    let missing = receiver.missing(0..written);
    assert!(missing.is_empty(), "call {call}, always {always}: {missing:?}\n{}", world.read("stderr"));
    let status = world.terminate(again);
    assert!(status.success(), "call {call}, always {always}: {status}\n{}", world.read("stderr"));
}

/// `CRASH_STEP=1` takes every call instead of some, from `CRASH_FIRST` to `CRASH_LAST`.
#[test]
fn killed_at_any_system_call_it_loses_nothing() {
    if !is_traceable() {
        return;
    }
    let (step, last) = (number("CRASH_STEP", 23), number("CRASH_LAST", 185));
    let first = number("CRASH_FIRST", 1);
    for (round, call) in (first..=last).step_by(step).enumerate() {
        killed_at(call, round % 2 == 0);
        if step == 1 {
            killed_at(call, round % 2 == 1);
        }
    }
}

#[test]
fn a_power_cut_at_any_write_loses_nothing() {
    if !is_traceable() {
        return;
    }
    let receiver = Receiver::start();
    receiver.set_down(true);
    let mut world = World::new();

    let config = world.configure(&to_http(receiver.address, ""));
    // Little memory, so that there is much on the spool.
    fs::write(&config, fs::read_to_string(&config).unwrap() + "    memory: 1Ki\n").unwrap();
    let log = world.path("log/app.log");
    let kept = world.path("kept");
    append(&log, 0..200);
    fs::hard_link(&log, &kept).unwrap();
    let mut strace = Command::new("strace");
    strace.args(["-qq", "-D", "-ff", "-ttt", "-y", "-xx", "-s", "10000000", "-e", &format!("trace={CHANGING}"), "-o"]);
    fs::create_dir(world.path("trace")).unwrap();
    strace.arg(world.path("trace/t"));
    let agent = world.launch_under(strace, &config);
    let life = |world: &mut World| -> Option<SystemTime> {
        let size = fs::metadata(&kept).unwrap().len();
        unless_dead(world, agent, |world| has_read_all(world, size)).then_some(())?;
        append(&log, 200..220);
        let size = fs::metadata(&kept).unwrap().len();
        unless_dead(world, agent, |world| has_read_all(world, size)).then_some(())?;
        // Deleted when it has been on the spool for longer than between two syncs.
        std::thread::sleep(Duration::from_millis(1500));
        let deleted = SystemTime::now();
        fs::remove_file(&log).unwrap();
        append(&log, 220..400);
        receiver.set_down(false);
        unless_dead(world, agent, |_| receiver.unique() == 400).then_some(())?;
        world.signal(agent, Signal::TERM);
        world.wait(agent);
        Some(deleted)
    };
    let deleted = life(&mut world).unwrap_or_else(|| panic!("{}", world.read("stderr")));
    let state = world.path("state");
    let calls = Call::read_all(&world.path("trace"), &state);
    assert!(calls.len() > 20, "{calls:?}");
    let came = receiver.came.lock().unwrap().clone();
    let later = world.path("later");
    fs::hard_link(&log, &later).unwrap();
    let step = number("CRASH_STEP", 9);
    for cut in (1..=calls.len()).step_by(step) {
        for seed in [0, 1 + cut as u64] {
            let mut disk = Disk::default();
            calls[..cut].iter().for_each(|call| disk.apply(call));
            let left = disk.after_a_cut(seed);
            let _ = fs::remove_dir_all(&state);
            fs::create_dir_all(state.join("spool")).unwrap();
            for (name, bytes) in &left {
                fs::write(state.join(name), bytes).unwrap();
            }
            let now = calls.get(cut).map_or(SystemTime::now(), |call| call.time);
            // The files as they were then, and what their writers add after the reboot.
            let _ = fs::remove_file(&log);
            fs::hard_link(if now < deleted { &kept } else { &later }, &log).unwrap();
            let arrived: HashSet<u32> = came.iter().filter(|(_, time)| **time < now).map(|(line, _)| *line).collect();
            let upto = if now < deleted { 220 } else { 400 };
            receiver.seen.lock().unwrap().clear();
            let again = world.start(&config);
            let missing =
                || receiver.missing(0..upto).into_iter().filter(|line| !arrived.contains(line)).collect::<Vec<_>>();
            let deadline = Instant::now() + PATIENCE / 3;
            while !missing().is_empty() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
            let lost = missing();
            assert!(
                lost.is_empty(),
                "cut {cut} of {}, seed {seed}: {lost:?}\nbefore it {:?}\nleft {:?}\n{}",
                calls.len(),
                calls[..cut].iter().rev().take(12).map(|call| call.kind.name()).collect::<Vec<_>>(),
                left.keys().collect::<Vec<_>>(),
                world.read("stderr"),
            );
            world.kill(again);
        }
    }
}

/// Both limits of inotify(7): no instance left, no watch left.
#[test]
fn where_the_kernel_gives_no_watches_it_polls_and_says_so() {
    if !is_traceable() {
        return;
    }
    for refusal in ["inotify_init1:error=EMFILE", "inotify_add_watch:error=ENOSPC"] {
        let receiver = Receiver::start();
        let mut world = World::new();
        let config = world.configure(&to_http(receiver.address, ""));
        append(&world.path("log/app.log"), 0..10);
        let mut strace = Command::new("strace");
        strace.args(["-qq", "-D", "-f", "-o", "/dev/null", "-e", "trace=inotify_init1,inotify_add_watch", "-e"]);
        strace.arg(format!("inject={refusal}"));
        let agent = world.launch_under(strace, &config);
        assert!(unless_dead(&mut world, agent, |_| receiver.unique() == 10), "{}", world.read("stderr"));
        append(&world.path("log/app.log"), 10..20);
        append(&world.path("log/new.log"), 20..30);
        assert!(unless_dead(&mut world, agent, |_| receiver.unique() == 30), "{}", world.read("stderr"));
        assert!(world.read("stderr").contains("no file events, polling instead"), "{}", world.read("stderr"));
        assert!(world.terminate(agent).success(), "{}", world.read("stderr"));
    }
}

/// What was done to the state directory.
#[derive(Debug, Clone)]
struct Call {
    time: SystemTime,
    kind: Kind,
}

/// Paths are relative to the state directory; the directory itself is empty.
#[derive(Debug, Clone)]
enum Kind {
    Open { path: String, create: bool, truncate: bool },
    Write { path: String, bytes: Vec<u8> },
    Truncate { path: String, length: usize },
    Sync(String),
    Rename(String, String),
    Unlink(String),
}

impl Kind {
    fn name(&self) -> String {
        match self {
            Kind::Write { path, bytes } => format!("write {path} {}", bytes.len()),
            other => format!("{other:?}"),
        }
    }
}

impl Call {
    fn read_all(directory: &Path, state: &Path) -> Vec<Call> {
        let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        let texts: Vec<String> = files.map(|path: PathBuf| fs::read_to_string(path).unwrap()).collect();
        let mut calls: Vec<Call> =
            texts.iter().flat_map(|text| text.lines()).filter_map(|line| Call::read(line, state)).collect();
        calls.sort_by_key(|call| call.time);
        calls
    }

    /// `1763798400.123456 write(5</state/lock>, "\x61", 1) = 1`, every string and path in hexadecimal.
    fn read(line: &str, state: &Path) -> Option<Call> {
        let (time, rest) = line.split_once(' ')?;
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs_f64(time.parse().ok()?);
        let (name, rest) = rest.split_once('(')?;
        let (arguments, result) = rest.rsplit_once(") = ")?;
        let result: i64 = result.split(['<', ' ']).next()?.parse().ok()?;
        if result < 0 {
            return None;
        }
        let inside = |path: &[u8]| {
            let path = String::from_utf8_lossy(path).into_owned();
            let rest = path.strip_prefix(state.to_str()?)?;
            (!rest.ends_with(" (deleted)")).then(|| rest.trim_start_matches('/').to_owned())
        };
        let of_descriptor = || inside(&unescape(arguments.split_once('<')?.1.split_once('>')?.0));
        let strings: Vec<Vec<u8>> = arguments.split('"').skip(1).step_by(2).map(unescape).collect();
        let path = |index: usize| strings.get(index).and_then(|path| inside(path));
        let kind = match name {
            "openat" => Kind::Open {
                path: path(0)?,
                create: arguments.contains("O_CREAT"),
                truncate: arguments.contains("O_TRUNC"),
            },
            "write" => {
                let mut bytes = strings.first()?.clone();
                bytes.truncate(usize::try_from(result).ok()?);
                Kind::Write { path: of_descriptor()?, bytes }
            }
            "ftruncate" => {
                Kind::Truncate { path: of_descriptor()?, length: arguments.rsplit(' ').next()?.parse().ok()? }
            }
            "fsync" | "fdatasync" => Kind::Sync(of_descriptor()?),
            "rename" | "renameat" | "renameat2" => Kind::Rename(path(0)?, path(1)?),
            "unlink" | "unlinkat" => Kind::Unlink(path(0)?),
            "mkdir" | "mkdirat" => return None,
            other => {
                of_descriptor()?;
                panic!("{other} is not understood: {line}")
            }
        };
        Some(Call { time, kind })
    }
}

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if let Some(byte) = rest.strip_prefix("\\x").and_then(|rest| u8::from_str_radix(rest.get(..2)?, 16).ok()) {
            bytes.push(byte);
            rest = &rest[4..];
        } else {
            bytes.extend_from_slice(first.to_string().as_bytes());
            rest = &rest[first.len_utf8()..];
        }
    }
    bytes
}

/// Files and names as processes see them, and as they were last synced. A name is durable once its directory was synced;
/// changes of names reach the disk in their order, as on every journaling file system.
#[derive(Debug, Default)]
struct Disk {
    now: Vec<Vec<u8>>,
    synced: Vec<Vec<u8>>,
    names: BTreeMap<String, usize>,
    durable: BTreeMap<String, usize>,
    pending: Vec<(String, BTreeMap<String, usize>)>,
}

impl Disk {
    fn apply(&mut self, call: &Call) {
        let directory = |path: &str| path.rsplit_once('/').map_or("", |(directory, _)| directory).to_owned();
        match &call.kind {
            Kind::Open { path, create, truncate } => {
                if *create && !self.names.contains_key(path) {
                    self.names.insert(path.clone(), self.now.len());
                    self.now.push(Vec::new());
                    self.synced.push(Vec::new());
                    self.pending.push((directory(path), self.names.clone()));
                }
                if let (true, Some(file)) = (*truncate, self.names.get(path)) {
                    self.now[*file].clear();
                }
            }
            Kind::Write { path, bytes } => {
                let file = *self.names.get(path).unwrap_or_else(|| panic!("write to unknown {path}"));
                self.now[file].extend_from_slice(bytes);
            }
            Kind::Truncate { path, length } => {
                if let Some(file) = self.names.get(path) {
                    self.now[*file].truncate(*length);
                }
            }
            Kind::Sync(path) => match self.names.get(path) {
                Some(file) => self.synced[*file].clone_from(&self.now[*file]),
                None => self.sync_directory(path),
            },
            Kind::Rename(from, to) => {
                if let Some(file) = self.names.remove(from) {
                    self.names.insert(to.clone(), file);
                    self.pending.push((directory(to), self.names.clone()));
                }
            }
            Kind::Unlink(path) => {
                self.names.remove(path);
                self.pending.push((directory(path), self.names.clone()));
            }
        }
    }

    /// Only the names in this very directory.
    fn sync_directory(&mut self, path: &str) {
        let within = |name: &str| name.rsplit_once('/').map_or("", |(directory, _)| directory) == path;
        self.durable.retain(|name, _| !within(name));
        let synced = self.names.iter().filter(|(name, _)| within(name));
        self.durable.extend(synced.map(|(name, file)| (name.clone(), *file)));
        self.pending.retain(|(directory, _)| directory != path);
    }

    /// What is found after the reboot. Seed 0 is the worst that may happen to what was not synced: it is gone. Others keep
    /// some, tear some, and leave room that was never filled.
    fn after_a_cut(&self, seed: u64) -> BTreeMap<String, Vec<u8>> {
        let mut random = seed.max(1);
        let mut below = |limit: usize| {
            random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            usize::try_from(random >> 33).unwrap() % limit.max(1)
        };
        let kept = if seed == 0 { 0 } else { below(self.pending.len() + 1) };
        let mut names = self.durable.clone();
        if let Some((_, later)) = self.pending[..kept].last() {
            // What that state does not say of other directories was synced anyway.
            let directories: BTreeSet<&String> = self.pending[..kept].iter().map(|(directory, _)| directory).collect();
            let within = |name: &str| {
                directories.contains(&name.rsplit_once('/').map_or("", |(directory, _)| directory).to_owned())
            };
            names.retain(|name, _| !within(name));
            names.extend(later.iter().filter(|(name, _)| within(name)).map(|(name, file)| (name.clone(), *file)));
        }
        let contents = names.into_iter().map(|(name, file)| {
            let (now, synced) = (&self.now[file], &self.synced[file]);
            let grown = now.starts_with(synced);
            let mut bytes = match (seed, grown) {
                (0, _) => synced.clone(),
                (_, true) => now[..synced.len() + below(now.len() - synced.len() + 1)].to_vec(),
                (_, false) => now[..below(now.len() + 1)].to_vec(),
            };
            if seed != 0 && below(2) == 0 && bytes.len() < now.len() {
                bytes.resize(now.len(), 0);
            }
            // The machine has another boot id now.
            if name == "positions.now.json" {
                let text = String::from_utf8_lossy(&bytes).replace("\"boot\":\"", "\"boot\":\"earlier-");
                bytes = text.into_bytes();
            }
            (name, bytes)
        });
        contents.collect()
    }
}
