//! Living with it: several sinks, reload, many files, signals.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Command, Stdio};

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
    for index in 0..2000u32 {
        append(&world.path(&format!("log/{index}.log")), index * 3..index * 3 + 3);
    }
    let status = world.terminate(agent);
    assert!(receiver.missing(0..6000).is_empty());
    assert!(status.success(), "{}", world.read("stderr"));
    assert!(world.read("termination").contains("2000 file(s)"));
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

#[test]
fn records_are_shown_live_before_and_after_the_stages() {
    let receiver = Receiver::start();
    let mut world = World::new();
    let more = "stages:\n- drop: {contains: '7 of'}\n- redact: {patterns: [application]}\n";
    let config = world.configure(&to_http(receiver.address, more));
    let agent = world.start(&config);
    let tap = |at: &str| {
        let mut child = Command::new(env!("CARGO_BIN_EXE_outrigger-logs"))
            .args(["tap", "--limit", "3", "--contains", "line", "--at", at, "--socket"])
            .arg(world.path("sock0"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        (child, lines)
    };
    let (mut parsed, parsed_lines) = tap("parsed");
    let (mut staged, staged_lines) = tap("staged");
    // Nobody is told when a tap has connected: lines come until both have seen theirs.
    let mut number = 0;
    let mut ended = 0;
    eventually("both taps' lines", || {
        append(&world.path("log/app.log"), number..number + 10);
        number += 10;
        ended =
            [&mut parsed, &mut staged].map(|child| child.try_wait().unwrap().is_some()).iter().filter(|e| **e).count();
        ended == 2
    });
    let parsed: Vec<String> = parsed_lines.map(Result::unwrap).collect();
    let staged: Vec<String> = staged_lines.map(Result::unwrap).collect();
    assert!(parsed.len() == 3 && parsed.iter().all(|line| line.contains("application's log")), "{parsed:?}");
    assert!(staged.len() == 3 && staged.iter().all(|line| line.contains("[redacted]'s log")), "{staged:?}");
    assert!(staged.iter().all(|line| !line.contains("7 of")));
    assert!(world.terminate(agent).success());
}

#[test]
fn the_agents_own_metrics_and_lines_are_exported_and_a_reload_stays_inside_the_sandbox() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, received) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut bytes = Vec::new();
            let mut chunk = [0; 65536];
            while let Ok(length @ 1..) = stream.read(&mut chunk) {
                bytes.extend_from_slice(&chunk[..length]);
                let text = String::from_utf8_lossy(&bytes).into_owned();
                let Some((head, _)) = text.split_once("\r\n\r\n") else { continue };
                let wanted = head
                    .to_lowercase()
                    .split("content-length: ")
                    .nth(1)
                    .unwrap()
                    .lines()
                    .next()
                    .unwrap()
                    .parse::<usize>();
                if bytes.len() >= head.len() + 4 + wanted.unwrap() {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
                    let _ = sender.send(text);
                    break;
                }
            }
        }
    });
    let receiver = Receiver::start();
    let mut world = World::new();
    let config = world.configure(&to_http(receiver.address, ""));
    let endpoint = format!("http://{address}");
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_METRIC_EXPORT_INTERVAL", "100"),
        ("OTEL_SERVICE_NAME", "mine"),
    ];
    let agent = world.start_in(&config, Stdio::null(), &variables);
    let mut seen = String::new();
    let mut saw = |what: &str| {
        eventually(what, || {
            seen.extend(received.try_iter());
            seen.contains(what)
        });
    };
    saw("outrigger_logs_written_bytes");
    saw("POST /v1/logs");
    let text = fs::read_to_string(&config).unwrap();
    if world.read("stderr").contains("landlock on") {
        let elsewhere = tempfile::tempdir().unwrap();
        let file = elsewhere.path().join("out.log");
        let sink = format!("  sinks:\n  - name: more\n    to: {{file: {{path: {}}}}}\n", file.display());
        fs::write(&config, text.replace("  sinks:\n", &sink)).unwrap();
        eventually("the refusal", || {
            world.read("stderr").contains("the sandbox made at the start allows no writing below")
        });
        fs::write(&config, text).unwrap();
    }
    assert!(world.terminate(agent).success(), "{}", world.read("stderr"));
    saw("receipt: 0 file(s)");
    saw("mine");
}
