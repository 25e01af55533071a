//! Living with it: several sinks, reload, many files, signals.

use std::fs;

use rustix::process::Signal;

use crate::harness::{Receiver, World, append, eventually, to_http};

#[test]
fn sinks_go_their_own_pace_and_formats() {
    let receiver = Receiver::start();
    let mut world = World::new();
    let more = "- name: copy\n  to:\n    file:\n      path: ROOT/out.jsonl\n      encoding: json\nfields:\n  team: {value: blue}\n";
    let config = world.configure(&to_http(receiver.address, more));
    receiver.set_down(true);
    let agent = world.start(&config);
    append(&world.path("log/app.log"), 0..50);
    eventually("the file's lines", || world.read("out.jsonl").lines().count() == 50);
    let first: serde_json::Value = serde_json::from_str(world.read("out.jsonl").lines().next().unwrap()).unwrap();
    assert_eq!(first["team"], "blue");
    assert!(first["file"].as_str().unwrap().ends_with("/log/app.log"));
    assert_eq!(receiver.unique(), 0);
    receiver.set_down(false);
    eventually("the receiver's lines", || receiver.unique() == 50);
    assert!(world.terminate(agent).success());
    assert_eq!(world.read("out.jsonl").lines().count(), 50);
}

#[test]
fn a_reload_keeps_positions_and_a_bad_one_changes_nothing() {
    let (one, two) = (Receiver::start(), Receiver::start());
    let mut world = World::new();
    let config = world.configure(&to_http(one.address, ""));
    let agent = world.start(&config);
    let log = world.path("log/app.log");
    append(&log, 0..100);
    eventually("the first lines", || one.unique() == 100);

    let good = fs::read_to_string(&config).unwrap();
    fs::write(&config, good.replace("sinks:", "sinkz:")).unwrap();
    eventually("the refusal", || world.read("stderr").contains("configuration not reloaded"));
    assert!(world.admin("/metrics").contains("outrigger_logs_config_last_reload_successful 0"));
    append(&log, 100..200);
    eventually("lines after the refusal", || one.unique() == 200);

    fs::write(&config, good.replace(&one.address.to_string(), &two.address.to_string())).unwrap();
    eventually("the reload", || world.read("stderr").contains("configuration reloaded"));
    append(&log, 200..300);
    eventually("lines at the new receiver", || two.missing(200..300).is_empty());
    world.signal(agent, Signal::HUP);
    append(&log, 300..400);
    eventually("lines after SIGHUP", || two.missing(300..400).is_empty());
    assert!(world.terminate(agent).success());
    assert_eq!((two.missing(200..400), one.repeated(), two.repeated()), (Vec::new(), 0, 0));
}

#[test]
fn many_files_come_and_are_drained() {
    let receiver = Receiver::start();
    let mut world = World::new();
    let config = world.configure(&to_http(receiver.address, ""));
    let agent = world.start(&config);
    for index in 0..500u32 {
        append(&world.path(&format!("log/{index}.log")), index * 3..index * 3 + 3);
    }
    let status = world.terminate(agent);
    assert!(receiver.missing(0..1500).is_empty());
    assert!(status.success(), "{}", world.read("stderr"));
    assert!(world.read("termination").contains("500 file(s)"));
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let receiver = Receiver::start();
    receiver.set_down(true);
    let mut world = World::new();
    let config = world.configure(&to_http(receiver.address, ""));
    let agent = world.start(&config);
    append(&world.path("log/app.log"), 0..10);
    world.signal(agent, Signal::TERM);
    eventually("the drain", || world.read("stderr").contains("draining"));
    world.signal(agent, Signal::TERM);
    assert_eq!(world.wait(agent).code(), Some(5));
}
