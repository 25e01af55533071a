//! What goes where, and what becomes of it on the way.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::harness::{World, eventually};

#[test]
fn parsed_staged_and_routed() {
    let mut world = World::new();
    let config = world.configure(
        "sources:
- name: web
  files: {include: [ROOT/log/access.log], poll: 100ms}
  parse: access
- name: app
  files: {include: [ROOT/log/utf16.log], poll: 100ms}
stages:
- drop: {fields: {path: ^/healthz}}
- metric: {name: web_requests, labels: {status: status}}
- metric: {name: web_bytes, kind: histogram, value: bytes, buckets: [100, 1000]}
- edit: {when: {fields: {status: '^5'}}, set: {team: web}, remove: [agent], severity: error}
sinks:
- name: errors
  to: {file: {path: ROOT/errors.jsonl, encoding: json}}
  when: {minSeverity: error}
- name: all
  to: {file: {path: ROOT/all.jsonl, encoding: json}}
",
    );
    let agent = world.start(&config);
    let line = |path: &str, status: u32, bytes: u32| {
        format!("10.0.0.1 - - [10/Oct/2025:13:55:36 +0000] \"GET {path} HTTP/1.1\" {status} {bytes} \"-\" \"curl\"\n")
    };
    let text: String = [("/healthz", 200, 2), ("/a", 200, 50), ("/b", 503, 500), ("/c", 503, 5000)]
        .map(|(path, status, bytes)| line(path, status, bytes))
        .concat();
    fs::write(world.path("log/access.log"), text).unwrap();
    let wide: Vec<u8> = "\u{feff}gr\u{fc}n\r\nlast".encode_utf16().flat_map(u16::to_le_bytes).collect();
    fs::write(world.path("log/utf16.log"), wide).unwrap();
    eventually("records", || world.read("all.jsonl").lines().count() == 4);
    eventually("errors", || world.read("errors.jsonl").lines().count() == 2);
    let metrics = world.admin("/metrics");
    for line in ["web_requests_total{status=\"503\"} 2", "web_bytes_bucket{le=\"100\"} 1", "web_bytes_count 3"] {
        assert!(metrics.contains(line), "{metrics}");
    }
    assert!(world.terminate(agent).success(), "{}", world.read("stderr"));
    let records = |name: &str| -> Vec<serde_json::Value> {
        world.read(name).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let errors = records("errors.jsonl");
    assert_eq!((&errors[0]["path"], &errors[0]["team"], errors[0].get("agent")), (&"/b".into(), &"web".into(), None));
    assert_eq!(errors[1]["time"], "2025-10-10T13:55:36.000000000Z");
    let all = records("all.jsonl");
    assert!(all.iter().any(|record| record["message"] == "gr\u{fc}n"));
    assert!(all.iter().any(|record| record["message"] == "last"), "half a line at the end");
    assert!(all.iter().any(|record| record["agent"] == "curl"));
}

/// As Elasticsearch answers: documents with `busy` once with 429, those with `broken` with 400, the others with 201.
fn search_engine() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let stored = Arc::<Mutex<Vec<String>>>::default();
    let kept = Arc::clone(&stored);
    thread::spawn(move || {
        let mut busy = true;
        for stream in listener.incoming().map_while(Result::ok) {
            answer_bulk(stream, &kept, &mut busy);
        }
    });
    (address, stored)
}

fn answer_bulk(mut stream: TcpStream, stored: &Mutex<Vec<String>>, busy: &mut bool) {
    let mut bytes = Vec::new();
    let mut chunk = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = stream.read(&mut chunk) {
        bytes.extend_from_slice(&chunk[..length]);
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        let wanted = head.split("content-length: ").nth(1).unwrap().lines().next().unwrap().parse::<usize>().unwrap();
        if bytes.len() < end + 4 + wanted {
            continue;
        }
        assert!(head.starts_with("post /_bulk http/1.1"), "{head}");
        let body = String::from_utf8(bytes[end + 4..end + 4 + wanted].to_vec()).unwrap();
        bytes.drain(..end + 4 + wanted);
        let lines: Vec<&str> = body.lines().collect();
        let mut items = Vec::new();
        for pair in lines.chunks(2) {
            assert_eq!(pair[0], r#"{"create":{"_index":"logs-web"}}"#);
            let document: serde_json::Value = serde_json::from_str(pair[1]).unwrap();
            assert!(document["@timestamp"].is_string());
            let message = document["message"].as_str().unwrap();
            let status = match message {
                text if text.contains("busy") && std::mem::take(busy) => 429,
                text if text.contains("broken") => 400,
                text => {
                    stored.lock().unwrap().push(text.to_owned());
                    201
                }
            };
            items.push(serde_json::json!({ "create": { "status": status, "error": { "type": "t" } } }));
        }
        let errors = items.iter().any(|item| item["create"]["status"] != 201);
        let answer = serde_json::json!({ "errors": errors, "items": items }).to_string();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", answer.len());
        stream.write_all((head + &answer).as_bytes()).unwrap();
    }
}

#[test]
fn a_search_engine_takes_what_it_can_and_the_rest_is_buried() {
    let (address, stored) = search_engine();
    let mut world = World::new();
    let config = world.configure(&format!(
        "sources:
- name: app
  files: {{include: [ROOT/log/app.log], poll: 100ms}}
sinks:
- name: search
  to: {{elasticsearch: {{url: 'http://{address}', index: logs-web}}}}
  when: {{contains: line}}
  deadLetters: ROOT/dead.jsonl
  retryCeiling: 100ms
"
    ));
    let agent = world.start(&config);
    fs::write(world.path("log/app.log"), "line a\nnoise\nline broken\nline busy\nline b\n").unwrap();
    eventually("three documents", || stored.lock().unwrap().len() == 3);
    eventually("a dead letter", || world.read("dead.jsonl").lines().count() == 1);
    assert!(world.terminate(agent).success(), "{}", world.read("stderr"));
    assert_eq!(*stored.lock().unwrap(), ["line a", "line b", "line busy"]);
    assert!(world.read("dead.jsonl").contains("line broken"));
}
