//! Traces as the application and a collector see them, exemplars, and the access log's shapes.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::harness::{Does, Port, Upstream, World, eventually, ok, simple_spec};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// A protobuf message, as the wire format has it (protobuf.dev, "Encoding"), with nothing left over.
#[derive(Clone, Debug, PartialEq)]
enum Wire {
    Varint(u64),
    Fixed64(u64),
    Bytes(Vec<u8>),
    Fixed32(u32),
}

type Message = Vec<(u64, Wire)>;

fn decode(mut bytes: &[u8]) -> Message {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..70).step_by(7) {
            let (byte, rest) = bytes.split_first().expect("a whole number");
            *bytes = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return value;
            }
        }
        panic!("a number without an end");
    }
    let mut message = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        let mut cut = |length: usize| {
            let (value, rest) = bytes.split_at(length);
            bytes = rest;
            value.to_vec()
        };
        let value = match tag & 7 {
            0 => Wire::Varint(varint(&mut bytes)),
            1 => Wire::Fixed64(u64::from_le_bytes(cut(8).try_into().unwrap())),
            2 => {
                let length = varint(&mut bytes);
                let (value, rest) = bytes.split_at(usize::try_from(length).unwrap());
                bytes = rest;
                Wire::Bytes(value.to_vec())
            }
            5 => Wire::Fixed32(u32::from_le_bytes(cut(4).try_into().unwrap())),
            other => panic!("wire type {other}"),
        };
        message.push((tag >> 3, value));
    }
    message
}

fn all(message: &Message, field: u64) -> Vec<Vec<u8>> {
    let bytes = message.iter().filter(|(number, _)| *number == field).map(|(_, value)| match value {
        Wire::Bytes(bytes) => bytes.clone(),
        other => panic!("field {field} is {other:?}"),
    });
    bytes.collect()
}

fn one(message: &Message, field: u64) -> Vec<u8> {
    all(message, field).into_iter().next().unwrap_or_default()
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `Span` of `trace/v1/trace.proto`.
#[derive(Clone, Debug)]
struct Span {
    trace: String,
    id: String,
    parent: String,
    state: String,
    name: String,
    kind: u64,
    start: u64,
    end: u64,
    attributes: Vec<(String, String)>,
    failed: bool,
    flags: u32,
}

impl Span {
    fn read(bytes: &[u8]) -> Span {
        let message = decode(bytes);
        let number = |field: u64| {
            message.iter().find_map(|(number, value)| match value {
                Wire::Varint(value) | Wire::Fixed64(value) if *number == field => Some(*value),
                Wire::Fixed32(value) if *number == field => Some(u64::from(*value)),
                _ => None,
            })
        };
        let attributes = all(&message, 9).into_iter().map(|pair| {
            let pair = decode(&pair);
            let value = match decode(&one(&pair, 2)).remove(0) {
                (1, Wire::Bytes(text)) => String::from_utf8(text).unwrap(),
                (3, Wire::Varint(number)) => number.to_string(),
                other => panic!("value {other:?}"),
            };
            (text(one(&pair, 1)), value)
        });
        Span {
            trace: hex(&one(&message, 1)),
            id: hex(&one(&message, 2)),
            parent: hex(&one(&message, 4)),
            state: text(one(&message, 3)),
            name: text(one(&message, 5)),
            kind: number(6).unwrap(),
            start: number(7).unwrap(),
            end: number(8).unwrap(),
            attributes: attributes.collect(),
            failed: decode(&one(&message, 15)).contains(&(3, Wire::Varint(2))),
            flags: number(16).unwrap() as u32,
        }
    }

    fn attribute(&self, name: &str) -> &str {
        self.attributes.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }
}

/// A collector: takes `/v1/traces`, in HTTP/1.1 with a length.
struct Collector {
    address: SocketAddr,
    bodies: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Collector {
    fn start() -> Collector {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let bodies = Arc::<Mutex<Vec<Vec<u8>>>>::default();
        let kept = Arc::clone(&bodies);
        thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let mut got = Vec::new();
                let mut buffer = [0; 65536];
                let body = loop {
                    let Ok(length @ 1..) = stream.read(&mut buffer) else { break None };
                    got.extend_from_slice(&buffer[..length]);
                    let Some(end) = got.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
                    let head = String::from_utf8_lossy(&got[..end]).to_lowercase();
                    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
                    if got.len() - end - 4 == length.parse::<usize>().unwrap() {
                        assert!(head.contains("application/x-protobuf"), "{head}");
                        break head.starts_with("post /v1/traces ").then(|| got[end + 4..].to_vec());
                    }
                };
                kept.lock().unwrap().extend(body);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            }
        });
        Collector { address, bodies }
    }

    fn spans(&self) -> Vec<Span> {
        let mut spans = Vec::new();
        for body in self.bodies.lock().unwrap().iter() {
            for resource in all(&decode(body), 1) {
                let resource = decode(&resource);
                let about = decode(&one(&resource, 1));
                let name = decode(&all(&about, 1).into_iter().next().unwrap());
                assert_eq!(text(one(&name, 1)), "service.name");
                for scope in all(&resource, 2) {
                    spans.extend(all(&decode(&scope), 2).iter().map(|span| Span::read(span)));
                }
            }
        }
        spans
    }
}

fn world(spec: &str, collector: Option<&Collector>, more: &[(&str, &str)]) -> World {
    let endpoint = collector.map(|collector| format!("http://{}", collector.address));
    let mut variables =
        vec![("OTEL_BSP_SCHEDULE_DELAY", "50"), ("OTEL_METRICS_EXPORTER", "none"), ("OTEL_LOGS_EXPORTER", "none")];
    variables.extend(endpoint.as_deref().map(|endpoint| ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)));
    variables.extend(more);
    let mut world = World::new();
    world.start_with(spec, &variables);
    world
}

#[test]
fn a_trace_goes_through_and_its_spans_arrive() {
    let upstream = Upstream::start(|_| ok("hi"));
    let collector = Collector::start();
    let world = world(&simple_spec(&[upstream.address], "tracing: {}\n"), Some(&collector), &[]);
    let mut client = world.client();
    client.send(format!(
        "GET /a?b=c HTTP/1.1\r\nHost: shop:8080\r\ntraceparent: 00-{TRACE}-{PARENT}-01\r\ntracestate: a=1\r\n\r\n"
    ));
    assert_eq!(client.answer().status(), 200);
    let seen = upstream.last();
    let parent = seen.field("traceparent").unwrap().to_owned();
    assert_eq!(seen.field("tracestate"), Some("a=1"));
    let mut spans = Vec::new();
    eventually("the spans' arrival", || {
        spans = collector.spans();
        spans.len() == 2
    });
    let server = spans.iter().find(|span| span.kind == 2).unwrap();
    let tried = spans.iter().find(|span| span.kind == 3).unwrap();
    assert_eq!((server.trace.as_str(), server.parent.as_str(), server.state.as_str()), (TRACE, PARENT, "a=1"));
    assert_eq!((tried.trace.as_str(), &tried.parent), (TRACE, &server.id));
    assert_eq!(parent, format!("00-{TRACE}-{}-01", tried.id));
    assert_eq!((server.name.as_str(), tried.name.as_str()), ("GET all", "GET"));
    assert_eq!((server.flags, tried.flags), (0x301, 0x101));
    for (name, value) in [
        ("http.request.method", "GET"),
        ("url.path", "/a"),
        ("url.query", "b=c"),
        ("url.scheme", "http"),
        ("server.address", "shop"),
        ("server.port", "8080"),
        ("client.address", "127.0.0.1"),
        ("http.route", "all"),
        ("http.response.status_code", "200"),
        ("network.protocol.version", "1.1"),
        ("http.response.body.size", "2"),
        ("error.type", ""),
    ] {
        assert_eq!(server.attribute(name), value, "{name} in {server:?}");
    }
    assert!(server.attribute("outrigger.ledger.app").parse::<u64>().unwrap() > 0);
    assert_eq!(tried.attribute("server.port"), upstream.address.port().to_string());
    assert_eq!(tried.attribute("url.full"), format!("http://{}/a?b=c", upstream.address));
    assert!(server.start <= tried.start && tried.end <= server.end && tried.start < tried.end && !server.failed);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    assert!(u128::from(server.end) <= now && now - u128::from(server.start) < 120_000_000_000);
    // The exemplar names the same trace; the older format has none.
    let page = world.ask_for("/metrics", "Accept: application/openmetrics-text\r\n");
    let line = page.lines().find(|line| line.contains("# {")).unwrap();
    assert!(
        line.starts_with("outrigger_proxy_request_duration_seconds_bucket{route=\"all\",le=")
            && line.contains(&format!("# {{trace_id=\"{TRACE}\"}} 0.")),
        "{line}"
    );
    assert!(!world.ask("/metrics").contains("trace_id"));
    eventually("the count", || world.metric("outrigger_proxy_spans_exported_total") == 2);
}

#[test]
fn every_try_has_its_span() {
    let bad = TcpListener::bind("127.0.0.1:0").unwrap();
    let dead = bad.local_addr().unwrap();
    drop(bad);
    let upstream = Upstream::start(|_| Does::Says("HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n".to_owned()));
    let collector = Collector::start();
    let spec = simple_spec(&[dead, upstream.address], "tracing: {}\naccessLog: {path: ROOT/log}\n");
    let world = world(&spec, Some(&collector), &[]);
    assert_eq!(world.client().get("/x").status(), 500);
    let mut spans = Vec::new();
    eventually("the spans' arrival", || {
        spans = collector.spans();
        spans.len() == 3
    });
    let server = spans.iter().find(|span| span.kind == 2).unwrap();
    let mut tries: Vec<&Span> = spans.iter().filter(|span| span.kind == 3).collect();
    tries.sort_by_key(|span| span.start);
    assert_eq!(
        (tries[0].attribute("error.type"), tries[0].attribute("http.response.status_code")),
        ("connect_failed", "")
    );
    assert_eq!((tries[1].attribute("error.type"), tries[1].attribute("http.request.resend_count")), ("500", "1"));
    assert!(tries.iter().all(|span| span.failed && span.parent == server.id) && tries[0].id != tries[1].id);
    assert!(server.failed && server.parent.is_empty() && server.attribute("error.type") == "500");
    assert!(upstream.last().field("traceparent").unwrap().contains(&tries[1].id));
    // The same in the log and on the page of the slowest.
    let mut line = serde_json::Value::Null;
    eventually("the line", || {
        line =
            serde_json::from_str(&std::fs::read_to_string(world.path("log")).unwrap_or_default()).unwrap_or_default();
        line.is_object()
    });
    assert_eq!((line["trace_id"].as_str(), line["span_id"].as_str()), (Some(&*server.trace), Some(&*server.id)));
    assert_eq!(
        (line["attempts"][0]["outcome"].as_str(), line["attempts"][1]["outcome"].as_str()),
        (Some("connect_failed"), Some("500"))
    );
    let page = world.ask("/trace");
    assert!(page.contains(&format!("try {dead}: connect_failed after ")) && page.contains(&server.trace), "{page}");
}

#[test]
fn what_is_not_sampled_is_passed_on_and_not_exported() {
    let upstream = Upstream::start(|_| ok("hi"));
    let collector = Collector::start();
    let spec = simple_spec(&[upstream.address], "tracing: {sample: 0, propagation: [b3multi, w3c]}\n");
    let world = world(&spec, Some(&collector), &[]);
    let mut client = world.client();
    assert_eq!(client.get("/").status(), 200);
    let seen = upstream.last();
    assert!(seen.field("traceparent").unwrap().ends_with("-02"), "{}", seen.head);
    assert_eq!(seen.field("x-b3-sampled"), Some("0"));
    // Whoever began it has decided.
    client.send(format!(
        "GET / HTTP/1.1\r\nHost: a\r\nX-B3-TraceId: {TRACE}\r\nX-B3-SpanId: {PARENT}\r\nX-B3-Sampled: 1\r\n\r\n"
    ));
    client.answer();
    eventually("the spans' arrival", || collector.spans().len() == 2);
    assert!(collector.spans().iter().all(|span| span.trace == TRACE));
}

#[test]
fn a_collector_that_is_gone_costs_spans_only() {
    let upstream = Upstream::start(|_| ok("hi"));
    let reserved = Port::reserve();
    let gone = reserved.address;
    let endpoint = format!("http://{gone}");
    let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()), ("OTEL_BSP_MAX_QUEUE_SIZE", "10")];
    let world = world(&simple_spec(&[upstream.address], "tracing: {}\n"), None, &variables);
    let mut client = world.client();
    (0..50).for_each(|_| assert_eq!(client.get("/").status(), 200));
    eventually("the count", || world.metric("outrigger_proxy_spans_dropped_total") >= 90);
    assert_eq!(world.metric("outrigger_proxy_spans_exported_total"), 0);
}

#[test]
fn logs_of_all_shapes() {
    let upstream = Upstream::start(|seen| {
        if seen.line().contains("/bad") {
            Does::Says("HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n".to_owned())
        } else {
            ok("hi")
        }
    });
    let spec = |log: &str| simple_spec(&[upstream.address], &format!("accessLog: {{path: ROOT/log, {log}}}\n"));
    let world = World::with(&spec("format: combined"));
    let read = |lines: usize| {
        let mut text = String::new();
        eventually("the lines", || {
            text = std::fs::read_to_string(world.path("log")).unwrap_or_default();
            text.lines().count() >= lines
        });
        text
    };
    let mut client = world.client();
    client.send("GET /x HTTP/1.1\r\nHost: a\r\nUser-Agent: tester/1\r\nReferer: http://r/\r\n\r\n").answer();
    let line = read(1);
    assert!(
        line.starts_with("127.0.0.1 - - [")
            && line.ends_with("] \"GET /x HTTP/1.1\" 200 2 \"http://r/\" \"tester/1\"\n")
    );
    // Renamed, as logrotate does: a reload takes the new name.
    std::fs::rename(world.path("log"), world.path("log.1")).unwrap();
    world.reload(&spec("names: short, fields: [status, path], oneIn: {2xx: 0}"));
    (0..5).for_each(|_| assert_eq!(client.get("/good").status(), 200));
    assert_eq!(client.get("/bad").status(), 500);
    assert_eq!(read(1), "{\"path\":\"/bad\",\"status\":500}\n");
    assert_eq!(world.metric("outrigger_proxy_access_log_left_out_lines_total"), 5);
    assert_eq!(world.metric("outrigger_proxy_access_log_dropped_lines_total"), 0);
}

#[test]
fn rate_errors_duration_by_route_and_endpoint() {
    let upstream = Upstream::start(|seen| {
        if seen.line().contains("/bad") {
            Does::Says("HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n".to_owned())
        } else {
            ok("hi")
        }
    });
    let spec = simple_spec(&[upstream.address], "").replace(
        "routes:\n",
        "routes:\n- name: other\n  matches: [{path: {prefix: /other}}]\n  backends: [{name: app}]\n",
    );
    let world = World::with(&spec);
    let mut client = world.client();
    (0..3).for_each(|_| assert_eq!(client.get("/").status(), 200));
    (0..2).for_each(|_| assert_eq!(client.get("/other/bad").status(), 503));
    let metric = |line: &str| world.metric(&format!("outrigger_proxy_{line}"));
    assert_eq!(metric("requests_total{route=\"all\",status=\"2xx\"}"), 3);
    assert_eq!(metric("requests_total{route=\"other\",status=\"5xx\"}"), 2);
    assert_eq!(metric("request_duration_seconds_count{route=\"all\"}"), 3);
    assert_eq!(metric("request_duration_seconds_count{route=\"other\"}"), 2);
    assert_eq!(metric("answer_bytes_total{route=\"all\"}"), 6);
    let labels = format!("{{backend=\"app\",endpoint=\"{}\"}}", upstream.address);
    assert_eq!(metric(&format!("backend_requests_total{labels}")), 5);
    assert_eq!(metric(&format!("backend_failures_total{labels}")), 2);
    assert_eq!(metric(&format!("backend_duration_seconds_count{labels}")), 5);
    assert_eq!(metric(&format!("backend_requests_active{labels}")), 0);
}

#[test]
fn no_two_families_of_metrics_have_one_name() {
    let upstream = Upstream::start(|_| ok("hello"));
    let world = World::simple(&[upstream.address]);
    for accept in ["text/plain", "application/openmetrics-text"] {
        let page = world.ask_for("/metrics", &format!("Accept: {accept}\r\n"));
        let mut names: Vec<_> =
            page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
        let all = names.len();
        assert!(all > 20, "{page}");
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all, "{page}");
    }
}

#[test]
fn what_cannot_be_is_refused_with_its_place() {
    let spec = "listeners:\n- {name: a, address: \":1\", tcp: b}\nbackends:\n- {name: b, endpoints: ['h:1']}\naccessLog: {format: text, fields: [status], oneIn: {6xx: 1}}\ntracing: {propagation: [], sample: 2}\n";
    assert_eq!(
        crate::config::problems(spec),
        [
            "8:3: spec.accessLog: `fields` and `names` are of `format: json` only",
            "8:60: spec.accessLog.oneIn.6xx: must be one of 1xx, 2xx, 3xx, 4xx, 5xx, none",
            "9:13: spec.tracing.propagation: needs at least one",
            "9:38: spec.tracing.sample: must be from 0 to 1",
        ]
    );
}

#[test]
fn both_tries_of_a_hedged_request_have_their_spans() {
    let slow = Upstream::start(|_| Does::Waits(std::time::Duration::from_secs(30)));
    let good = Upstream::start(|_| ok("hi"));
    let collector = Collector::start();
    let more = "tracing: {}\naccessLog: {path: ROOT/log, fields: [attempts, status]}\n";
    let spec = simple_spec(&[slow.address, good.address], more)
        .replace("- name: all\n", "- name: all\n  retries: {attempts: 0, hedgeAfter: 3s}\n");
    let world = world(&spec, Some(&collector), &[]);
    // Until the slow one had its turn first.
    let mut client = world.client();
    eventually("a request at the slow one", || {
        assert_eq!(client.get("/").status(), 200);
        slow.count() > 0
    });
    let sent = |upstream: &Upstream| upstream.last().field("traceparent").unwrap()[36..52].to_owned();
    let (lost, won) = (sent(&slow), sent(&good));
    assert_ne!(lost, won);
    eventually("the spans' arrival", || {
        let spans = collector.spans();
        let find = |id: &str| spans.iter().find(|span| span.id == id).cloned();
        let (Some(lost), Some(won)) = (find(&lost), find(&won)) else { return false };
        assert_eq!((&lost.trace, &lost.parent), (&won.trace, &won.parent));
        assert_eq!(
            (lost.attribute("http.response.status_code"), won.attribute("http.response.status_code")),
            ("", "200")
        );
        assert_eq!(lost.attribute("server.port"), slow.address.port().to_string());
        !lost.failed && lost.start < won.start
    });
    eventually("the line", || {
        let text = std::fs::read_to_string(world.path("log")).unwrap_or_default();
        text.contains("\"outcome\":\"given_up\"") && text.contains("\"outcome\":\"200\"")
    });
}
