//! Pipes and sockets.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::net::{TcpStream, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::harness::{Receiver, World, eventually};

fn spec(source: &str, receiver: &Receiver) -> String {
    let address = receiver.address;
    format!(
        "sources:\n- name: in\n{source}sinks:\n- name: out\n  to: {{http: {{url: 'http://{address}/'}}}}\n  retryCeiling: 100ms\n  batch: {{wait: 10ms}}\n"
    )
}

fn lines(numbers: std::ops::Range<u32>) -> String {
    numbers.map(|number| format!("line {number:08} of a program\n")).collect()
}

#[test]
fn a_named_pipe_survives_kills_of_its_reader() {
    let receiver = Receiver::start();
    let mut world = World::new();
    let config = world.configure(&spec("  fifo: {path: ROOT/pipe}\n", &receiver));
    let mut agent = world.start(&config);
    let total = 20_000;
    // For reading too, so that it has a reader while the agent is away (`3<>pipe` in a shell).
    let mut pipe = OpenOptions::new().read(true).write(true).open(world.path("pipe")).unwrap();
    let writer = thread::spawn(move || {
        for start in (0..total).step_by(50) {
            pipe.write_all(lines(start..start + 50).as_bytes()).unwrap();
            thread::sleep(Duration::from_millis(5));
        }
        pipe
    });
    while !writer.is_finished() {
        thread::sleep(Duration::from_millis(200));
        world.kill(agent);
        agent = world.start(&config);
    }
    let mut pipe = writer.join().unwrap();
    pipe.write_all(b"line 00020000 is not finished").unwrap();
    eventually("every whole line", || receiver.unique() == total as usize);
    let status = world.terminate(agent);
    assert!(receiver.missing(0..total + 1).is_empty(), "{}", world.read("stderr"));
    assert!(status.success(), "{}", world.read("stderr"));
    // At least once, and not much more.
    assert!(receiver.repeated() < total, "{} repeats", receiver.repeated());
}

#[test]
fn standard_input_is_read_to_its_end_and_then_it_is_over() {
    for through_pipe in [true, false] {
        let receiver = Receiver::start();
        let mut world = World::new();
        let config = world.configure(&spec("  stdin: {}\n", &receiver));
        receiver.set_down(true);
        let text = lines(0..5000) + "line 00005000 without an end";
        let agent = if through_pipe {
            let agent = world.start_with(&config, Stdio::piped());
            let mut stdin = world.stdin(agent);
            stdin.write_all(text.as_bytes()).unwrap();
            agent
        } else {
            fs::write(world.path("input"), &text).unwrap();
            world.start_with(&config, fs::File::open(world.path("input")).unwrap().into())
        };
        // There is no hurry without a signal.
        thread::sleep(Duration::from_millis(300));
        receiver.set_down(false);
        let status = world.wait(agent);
        assert!(status.success(), "{}", world.read("stderr"));
        assert_eq!((receiver.missing(0..5001), receiver.repeated()), (Vec::new(), 0));
        assert!(world.read("termination").contains("; balances"), "{}", world.read("termination"));
    }
}

#[test]
fn programs_write_to_a_socket() {
    let receiver = Receiver::start();
    let mut world = World::new();
    let config = world.configure(&spec("  socket: {path: ROOT/in.sock, connections: 3}\n", &receiver));
    let agent = world.start(&config);
    let path = world.path("in.sock");
    let writers: Vec<_> = (0..6u32)
        .map(|index| {
            let path = path.clone();
            thread::spawn(move || {
                let mut stream = UnixStream::connect(path).unwrap();
                for start in (index * 1000..index * 1000 + 1000).step_by(100) {
                    let text = lines(start..start + 100);
                    // In the middle of lines.
                    for piece in text.as_bytes().chunks(777) {
                        stream.write_all(piece).unwrap();
                    }
                }
                stream.write_all(format!("line {:08}", 900_000 + index).as_bytes()).unwrap();
            })
        })
        .collect();
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    eventually("every line", || receiver.unique() == 6006);
    assert!(world.terminate(agent).success(), "{}", world.read("stderr"));
    assert!(receiver.missing(0..6000).is_empty() && receiver.missing(900_000..900_006).is_empty());
    assert!(!path.exists(), "the socket goes with its owner");
}

#[test]
fn connections_that_find_no_descriptor_are_spoken_of() {
    let receiver = Receiver::start();
    let mut world = World::new();
    let config = world.configure(&spec("  socket: {path: ROOT/in.sock, connections: 200}\n", &receiver));
    let mut program = Command::new("sh");
    program.args(["-c", "ulimit -n 40; exec \"$@\"", "sh"]);
    let agent = world.launch_under(program, &config);
    eventually("the agent's start", || world.admin("/readyz").starts_with("HTTP/1.1 200"));
    let _writers: Vec<_> = (0..60).map(|_| UnixStream::connect(world.path("in.sock")).unwrap()).collect();
    eventually("a word about it", || world.read("stderr").contains("cannot take a connection; trying again"));
    world.kill(agent);
    assert_eq!(world.read("stderr").matches("cannot take a connection").count(), 1, "{}", world.read("stderr"));
}

#[test]
fn syslog_by_every_way() {
    let receiver = Receiver::start();
    let mut world = World::new();
    let more = "- name: file\n  to: {file: {path: ROOT/out.jsonl, encoding: json}}\n";
    let source = "  syslog: {udp: '127.0.0.1:0', tcp: '127.0.0.1:0', socket: ROOT/log.sock}\n";
    let config = world.configure(&(spec(source, &receiver) + more));
    let agent = world.start(&config);
    let address = |what: &str| {
        let log = world.read("stderr");
        let line = log.lines().find(|line| line.contains(what)).unwrap().to_owned();
        serde_json::from_str::<serde_json::Value>(&line).unwrap()["address"].as_str().unwrap().to_owned()
    };
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.connect(address("taking datagrams")).unwrap();
    let local = UnixDatagram::unbound().unwrap();
    for number in 0..100 {
        udp.send(format!("<11>1 2026-01-02T03:04:05Z host app 7 - - line {number:08} by UDP").as_bytes()).unwrap();
        let message = format!("<14>Jan  2 03:04:05 app[7]: line {:08} by socket\n", 100 + number);
        local.send_to(message.as_bytes(), world.path("log.sock")).unwrap();
    }
    let mut tcp = TcpStream::connect(address("taking connections")).unwrap();
    for number in 200..300 {
        let message = format!("<13>1 - - app - - - line {number:08}\nin two");
        write!(tcp, "{} {message}", message.len()).unwrap();
        writeln!(tcp, "<13>Jan  2 03:04:05 h app: line {:08} to a newline", 100 + number).unwrap();
    }
    drop(tcp);
    eventually("every message", || receiver.unique() == 400);
    assert!(world.terminate(agent).success(), "{}", world.read("stderr"));
    assert_eq!((receiver.missing(0..400), receiver.repeated()), (Vec::new(), 0));
    let out = world.read("out.jsonl");
    let find = |text: &str| {
        let line = out.lines().find(|line| line.contains(text)).unwrap();
        serde_json::from_str::<serde_json::Value>(line).unwrap()
    };
    let first = find("line 00000000");
    assert_eq!((&first["host"], &first["pid"], &first["source"]), (&"host".into(), &7.into(), &"in".into()));
    assert_eq!(first["time"], "2026-01-02T03:04:05.000000000Z");
    assert_eq!(find("line 00000200")["message"], "line 00000200\nin two");
    assert_eq!(find("line 00000100")["app"], "app");
}

#[test]
fn a_reload_hands_streams_over() {
    let receiver = Receiver::start();
    let mut world = World::new();
    let source = "  socket: {path: ROOT/in.sock}\n- name: log\n  syslog: {udp: '127.0.0.1:0'}\n";
    let config = world.configure(&spec(source, &receiver));
    let agent = world.start(&config);
    let mut connection = std::os::unix::net::UnixStream::connect(world.path("in.sock")).unwrap();
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    let text = world.read("stderr");
    let at = text.split("taking datagrams").nth(1).unwrap().split("\"address\":\"").nth(1).unwrap();
    sender.connect(at.split('"').next().unwrap()).unwrap();
    let good = std::fs::read_to_string(&config).unwrap();
    let reloads = |world: &World| world.read("stderr").matches("configuration reloaded").count();
    for round in 0..3 {
        let start = round * 100;
        // Half a line before the reload, the other half after it.
        let first = lines(start..start + 50);
        let (before, after) = first.split_at(first.len() - 10);
        connection.write_all(before.as_bytes()).unwrap();
        sender.send(format!("<14>1 - - - - - - line {:08} of syslog", start + 50).as_bytes()).unwrap();
        std::fs::write(&config, format!("{good}  fields: {{round: {{value: '{round}'}}}}\n")).unwrap();
        connection.write_all(after.as_bytes()).unwrap();
        sender.send(format!("<14>1 - - - - - - line {:08} of syslog", start + 51).as_bytes()).unwrap();
        eventually("the reload", || reloads(&world) > round as usize);
    }
    // What cannot be opened is refused, and everything goes on.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let more = format!("- name: more\n    syslog: {{tcp: '{}'}}\n  sinks:", taken.local_addr().unwrap());
    std::fs::write(&config, good.replace("sinks:", &more)).unwrap();
    eventually("the refusal", || world.read("stderr").contains("configuration not reloaded"));
    connection.write_all(lines(300..301).as_bytes()).unwrap();
    let wanted = || (0..301).filter(|number| number % 100 < 52).collect::<Vec<u32>>();
    eventually("every line", || wanted().iter().all(|number| receiver.seen.lock().unwrap().contains_key(number)));
    assert!(world.terminate(agent).success(), "{}", world.read("stderr"));
    assert_eq!(receiver.repeated(), 0, "{}", world.read("stderr"));
}
