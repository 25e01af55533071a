//! Bare WebSocket clients: the protocols that kubectl does not speak, and clients that behave badly.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::world::World;

struct Client(TcpStream);

#[derive(Debug, PartialEq, Eq)]
struct Message {
    opcode: u8,
    payload: Vec<u8>,
}

impl Client {
    fn open(world: &World, path: &str, protocol: &str) -> Self {
        let (client, head) = Self::ask(world, path, protocol);
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        let told = head.lines().find_map(|line| line.strip_prefix("sec-websocket-protocol: ")).unwrap_or_default();
        assert_eq!(told, protocol);
        client
    }

    fn ask(world: &World, path: &str, protocol: &str) -> (Self, String) {
        let mut stream = TcpStream::connect(world.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let protocol =
            if protocol.is_empty() { String::new() } else { format!("Sec-WebSocket-Protocol: {protocol}\r\n") };
        // As far as these tests need it.
        let path: String = path
            .chars()
            .map(|c| match c {
                ' ' | ';' | '$' | '>' | '/' => format!("%{:02X}", u32::from(c)),
                other => other.into(),
            })
            .collect();
        let request = format!(
            "GET /api/v1/namespaces/default/pods/web/{path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{protocol}\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        (Self(stream), String::from_utf8(head).unwrap())
    }

    fn say(&mut self, opcode: u8, payload: &[u8]) {
        let mut frame = vec![0x80 | opcode, 0x80 | 127];
        frame.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        if payload.len() < 126 {
            frame = vec![0x80 | opcode, 0x80 | payload.len() as u8];
        }
        let mask = [1, 2, 3, 4];
        frame.extend_from_slice(&mask);
        frame.extend(payload.iter().enumerate().map(|(index, byte)| byte ^ mask[index % 4]));
        self.0.write_all(&frame).unwrap();
    }

    fn hear(&mut self) -> Message {
        let mut head = [0; 2];
        self.0.read_exact(&mut head).unwrap();
        assert_eq!(head[0] & 0xf0, 0x80);
        let length = match head[1] {
            126 => {
                let mut bytes = [0; 2];
                self.0.read_exact(&mut bytes).unwrap();
                u64::from(u16::from_be_bytes(bytes))
            }
            127 => {
                let mut bytes = [0; 8];
                self.0.read_exact(&mut bytes).unwrap();
                u64::from_be_bytes(bytes)
            }
            length => u64::from(length),
        };
        let mut payload = vec![0; length as usize];
        self.0.read_exact(&mut payload).unwrap();
        Message { opcode: head[0] & 0x0f, payload }
    }

    /// All messages before the server's close.
    fn all(mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        loop {
            let message = self.hear();
            if message.opcode == 8 {
                assert_eq!(message.payload, 1000u16.to_be_bytes());
                self.say(8, &1000u16.to_be_bytes());
                assert_eq!(self.0.read(&mut [0]).unwrap(), 0);
                return messages;
            }
            messages.push(message);
        }
    }
}

fn binary(payload: &[u8]) -> Message {
    Message { opcode: 2, payload: payload.to_vec() }
}

/// The conformance test's way, and the other versions.
#[test]
fn exec_in_every_version() {
    let world = World::new();
    let path = "exec?container=app&stdout=1&stderr=1&command=echo&command=hi";
    for protocol in ["channel.k8s.io", ""] {
        assert_eq!(Client::open(&world, path, protocol).all(), [binary(b"\x01"), binary(b"\x01hi\n")]);
    }
    let success = b"\x03{\"metadata\":{},\"status\":\"Success\"}";
    for protocol in ["v4.channel.k8s.io", "v5.channel.k8s.io"] {
        assert_eq!(Client::open(&world, path, protocol).all(), [binary(b"\x01"), binary(b"\x01hi\n"), binary(success)]);
    }
    let text = |channel: char, bytes: &[u8]| Message {
        opcode: 1,
        payload: format!("{channel}{}", STANDARD.encode(bytes)).into_bytes(),
    };
    assert_eq!(Client::open(&world, path, "base64.channel.k8s.io").all(), [text('1', b""), text('1', b"hi\n")]);
    let all = Client::open(&world, path, "v4.base64.channel.k8s.io").all();
    assert_eq!(all, [text('1', b""), text('1', b"hi\n"), text('3', &success[1..])]);
    let (_, head) = Client::ask(&world, path, "v9.channel.k8s.io");
    assert!(head.starts_with("HTTP/1.1 403"), "{head}");
    let failing = Client::open(&world, "exec?container=app&stderr=1&command=false", "channel.k8s.io").all();
    assert_eq!(failing, [binary(b"\x02"), binary(b"\x03command terminated with exit code 1")]);
}

#[test]
fn input_can_be_closed_in_version_5_and_comes_as_base64() {
    let world = World::new();
    let path = "exec?container=app&stdin=1&stdout=1&command=cat";
    let mut client = Client::open(&world, path, "v5.channel.k8s.io");
    client.say(2, b"\0hello");
    client.say(2, &[255, 0]);
    let heard = client.all();
    assert_eq!(heard[1], binary(b"\x01hello"));
    let mut client = Client::open(
        &world,
        "exec?container=app&stdin=1&stdout=1&command=head&command=-c5",
        "v4.base64.channel.k8s.io",
    );
    client.say(1, format!("0{}", STANDARD.encode("hello")).as_bytes());
    assert_eq!(client.all()[1].payload, format!("1{}", STANDARD.encode("hello")).into_bytes());
}

/// Nothing is read from a process whose client does not read, and pings are answered all the same.
#[test]
fn a_slow_client_slows_the_process() {
    let world = World::new();
    let counted = world.file("counted");
    let script = format!("for i in $(seq 300); do head -c 1000000 /dev/zero; echo $i > {}; done", counted.display());
    let mut client = Client::open(
        &world,
        &format!("exec?container=app&stdout=1&stdin=1&command=sh&command=-c&command={script}"),
        "v5.channel.k8s.io",
    );
    std::thread::sleep(Duration::from_millis(1500));
    let before: u32 = std::fs::read_to_string(&counted).unwrap_or_default().trim().parse().unwrap_or(0);
    // What the kernel keeps for two ends of a loopback connection is several MB.
    assert!(before < 40, "{before} MB were taken from the process");
    client.say(9, b"are you there?");
    let begun = Instant::now();
    let mut taken = 0;
    loop {
        let message = client.hear();
        if message.opcode == 10 {
            assert_eq!(message.payload, b"are you there?");
            break;
        }
        taken += message.payload.len();
    }
    assert!(begun.elapsed() < Duration::from_secs(20) && taken < 40_000_000, "{taken}");
}

/// A process that takes no input does not keep its output from coming.
#[test]
fn output_comes_while_input_is_stuck() {
    let world = World::new();
    let mut client = Client::open(
        &world,
        "exec?container=app&stdout=1&stdin=1&command=sh&command=-c&command=sleep 1; echo out; sleep 1",
        "v5.channel.k8s.io",
    );
    let mut writing = Client(client.0.try_clone().unwrap());
    let writer = std::thread::spawn(move || {
        let mut payload = vec![b'x'; 200_000];
        payload[0] = 0;
        writing.say(2, &payload);
    });
    assert_eq!(client.hear(), binary(b"\x01"));
    assert_eq!(client.hear(), binary(b"\x01out\n"));
    assert_eq!(client.hear().payload[0], 3);
    writer.join().unwrap();
}

/// kubectl gives up a minute after the last pong; its pings are not read while the process takes no input.
#[test]
fn a_client_whose_input_is_stuck_hears_pongs() {
    let world = World::new();
    let mut client =
        Client::open(&world, "exec?container=app&stdout=1&stdin=1&command=sleep&command=60", "v5.channel.k8s.io");
    client.say(2, &[0; 150_000]);
    assert_eq!(client.hear(), binary(b"\x01"));
    assert_eq!(client.hear(), Message { opcode: 10, payload: Vec::new() });
}

/// The process of a client that goes away is let go.
#[test]
fn a_client_that_is_gone_ends_the_session() {
    let world = World::new();
    let alive = world.file("alive");
    let command = format!("while sleep 0.05; do date > {}; done", alive.display());
    let mut client = Client::open(
        &world,
        &format!("exec?container=app&stdout=1&command=sh&command=-c&command={command}"),
        "v5.channel.k8s.io",
    );
    client.hear();
    let changed = || std::fs::metadata(&alive).and_then(|metadata| metadata.modified()).ok();
    while changed().is_none() {
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(client);
    let begun = Instant::now();
    loop {
        let before = changed();
        std::thread::sleep(Duration::from_millis(500));
        if changed() == before {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "it still runs");
    }
}

#[test]
fn logs_come_in_messages() {
    let world = World::new();
    std::fs::write(world.log("app", 2), "2026-08-15T10:00:00.000000000Z stdout F one\n").unwrap();
    assert_eq!(Client::open(&world, "log?container=app", "binary.k8s.io").all(), [binary(b""), binary(b"one\n")]);
    let heard = Client::open(&world, "log?container=app", "base64.binary.k8s.io").all();
    assert_eq!(heard[1], Message { opcode: 1, payload: STANDARD.encode("one\n").into_bytes() });
}

#[test]
fn ports_of_the_url_are_channels() {
    let world = World::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let open = listener.local_addr().unwrap().port();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut client = Client::open(&world, &format!("portforward?ports={open},{closed}"), "v4.channel.k8s.io");
    client.say(2, b"\0ping");
    let (mut connection, _) = listener.accept().unwrap();
    let mut heard = [0; 4];
    connection.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"ping");
    connection.write_all(b"pong").unwrap();
    drop(connection);
    let all = client.all();
    let of = |channel: u8| -> Vec<u8> {
        all.iter()
            .filter(|message| message.payload[0] == channel)
            .flat_map(|message| message.payload[1..].to_vec())
            .collect()
    };
    assert_eq!(of(0), [&open.to_le_bytes()[..], b"pong"].concat());
    assert_eq!(of(1), open.to_le_bytes());
    assert_eq!(of(2), closed.to_le_bytes());
    assert_eq!(of(3)[..2], closed.to_le_bytes());
    assert!(String::from_utf8_lossy(&of(3)[2..]).contains("Connection refused"));
}
