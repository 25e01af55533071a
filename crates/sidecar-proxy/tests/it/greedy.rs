//! Clients that ask for much and take nothing, and those that send much to an application that takes nothing, in a real memory
//! cgroup: the proxy must live, and serve others meanwhile.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{PATIENCE, Upstream, World, eventually, ok};
use crate::memory::{MIB, Walls};
use crate::tls::{Authority, Stream, config, connect, get, write_pair};
use crate::wire::{END, HEADERS, PREFACE, WHOLE, frame, request, settings};

/// An application that answers every connection's first request with `length` bytes, as fast as they are taken, or (0) reads
/// nothing at all. One thread for all, since there are thousands.
struct Heavy {
    address: SocketAddr,
    stopped: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Heavy {
    fn start(length: usize) -> Heavy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let stopped = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&stopped);
        let thread = thread::spawn(move || {
            let mut connections = Vec::new();
            while !ends.load(Ordering::Relaxed) {
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true).unwrap();
                    connections.push(Answering { stream, asked: false, left: length });
                }
                if length > 0 {
                    connections.retain_mut(Answering::go_on);
                }
                thread::sleep(Duration::from_millis(10));
            }
        });
        Heavy { address, stopped, thread: Some(thread) }
    }
}

impl Drop for Heavy {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(thread::JoinHandle::join);
    }
}

struct Answering {
    stream: TcpStream,
    asked: bool,
    left: usize,
}

impl Answering {
    /// False when it is over.
    fn go_on(&mut self) -> bool {
        let waits = |result: std::io::Result<usize>| match result {
            Ok(0) => Err(false),
            Ok(length) => Ok(length),
            Err(error) => Err(error.kind() == ErrorKind::WouldBlock),
        };
        if !self.asked {
            // A head without a body comes in one piece.
            if let Err(stays) = waits(self.stream.read(&mut [0; 4096])) {
                return stays;
            }
            self.asked = true;
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", self.left);
            self.stream.write_all(head.as_bytes()).unwrap();
        }
        while self.left > 0 {
            match waits(self.stream.write(&[b'x'; 64 << 10][..self.left.min(64 << 10)])) {
                Ok(length) => self.left -= length,
                Err(stays) => return stays,
            }
        }
        true
    }
}

/// A proxy below 16 MiB with two applications: one that is heavy, one that answers shortly.
struct Scene {
    world: World,
    walls: Walls,
    client: Arc<rustls::ClientConfig>,
    _good: Upstream,
    _heavy: Heavy,
}

impl Scene {
    fn new(name: &str, length: usize) -> Option<Scene> {
        let Some(walls) = Walls::new(name, 16 * MIB) else {
            println!("NOT RUN: there are no memory cgroups (v1) to make");
            return None;
        };
        let authority = Authority::new();
        let (good, heavy) = (Upstream::start(|_| ok("fine.")), Heavy::start(length));
        let mut world = World::new();
        write_pair(&world.path(""), "a", &authority.issue(&["a.test"], None));
        let spec = format!(
            "workers: 1\nlisteners:\n- name: https\n  address: \"127.0.0.1:0\"\n  tls: {{certificates: [{{certFile: ROOT/a.crt, keyFile: ROOT/a.key}}]}}\nroutes:\n- {{name: heavy, matches: [{{path: {{prefix: /heavy}}}}], backends: [{{name: heavy}}]}}\n- {{name: all, backends: [{{name: app}}]}}\nbackends:\n- {{name: app, endpoints: [\"{}\"]}}\n- {{name: heavy, endpoints: [\"{}\"]}}\n",
            good.address, heavy.address
        );
        walls.step_in();
        world.start(&spec);
        walls.step_out();
        let client = config(&authority, None, rustls::ALL_VERSIONS);
        Some(Scene { world, walls, client, _good: good, _heavy: heavy })
    }

    /// A client over HTTP/2.
    fn multiplexed(&self) -> Stream {
        let mut client = (*self.client).clone();
        client.alpn_protocols = vec![b"h2".to_vec()];
        connect(self.world.address(), "a.test", &Arc::new(client))
    }

    /// Everything the proxy and the kernel for its sockets hold, as the cgroup of either version would count it.
    fn show(&self, what: &str) {
        if self.walls.number("memory.oom_control") > 0 {
            return println!("{what}: killed");
        }
        let number = |name| self.walls.number(name) / 1024;
        println!(
            "{what}: {} KiB counted, {} given up, {} refused, {} KiB of user memory, {} KiB in the cgroup (most {}), {} KiB in sockets (most {}), {} times at the limit, {} killed",
            self.world.metric("outrigger_proxy_buffered_bytes") / 1024,
            self.world.metric("outrigger_proxy_connections_given_up_total"),
            self.world.metric("outrigger_proxy_connections_refused_total"),
            self.world.memory() / 1024,
            number("memory.usage_in_bytes"),
            number("memory.max_usage_in_bytes"),
            number("memory.kmem.tcp.usage_in_bytes"),
            number("memory.kmem.tcp.max_usage_in_bytes"),
            self.walls.number("memory.failcnt"),
            self.walls.number("memory.oom_control"),
        );
    }

    /// Others are served: with what latencies.
    fn serve_others(&mut self) {
        // Nobody is let in before the first of the crowd have stood still for half a second.
        eventually("somebody else's answer", || {
            let mut stream = connect(self.world.address(), "a.test", &self.client);
            get(&mut stream, "").is_ok_and(|answer| answer.ends_with("fine."))
        });
        let mut times = Vec::new();
        while times.len() < 200 {
            let mut last = Instant::now();
            let mut stream = connect(self.world.address(), "a.test", &self.client);
            stream.sock.set_read_timeout(Some(PATIENCE)).unwrap();
            for _ in 0..20 {
                let began = Instant::now();
                match get(&mut stream, "") {
                    Ok(answer) => assert!(answer.ends_with("fine."), "{answer}"),
                    // Who was stopped for half a second has stood still as well, and comes again.
                    Err(_) if last.elapsed() >= Duration::from_millis(400) => break,
                    Err(error) => panic!("no answer for somebody who reads: {error}"),
                }
                times.push(began.elapsed());
                last = Instant::now();
            }
        }
        times.sort();
        println!(
            "others: median {:?}, slowest {:?} of {}",
            times[times.len() / 2],
            times[times.len() - 1],
            times.len()
        );
        self.show("with all of them");
        assert!(self.world.is_running());
        assert_eq!(self.walls.number("memory.oom_control"), 0, "the kernel killed it");
    }
}

#[test]
fn answers_that_nobody_takes() {
    let Some(mut scene) = Scene::new("answers", 4 * MIB) else { return };
    scene.show("alone");
    let crowd: Vec<Stream> = (0..600)
        .map(|_| {
            let mut stream = connect(scene.world.address(), "a.test", &scene.client);
            // A connection that was refused or cut is no failure here.
            let _ = stream.write_all(b"GET /heavy HTTP/1.1\r\nHost: a\r\n\r\n");
            stream
        })
        .collect();
    thread::sleep(Duration::from_millis(500));
    scene.serve_others();
    drop(crowd);
}

#[test]
fn streams_that_nobody_takes() {
    let Some(mut scene) = Scene::new("streams", 4 * MIB) else { return };
    scene.show("alone");
    let crowd: Vec<Stream> = (0..60)
        .map(|number| {
            let mut stream = scene.multiplexed();
            // One half opens no window, the other opens all there are and takes nothing of the connection.
            let window = if number % 2 == 0 { 0 } else { 1 << 30 };
            let mut bytes = [PREFACE, &settings(&[(4, window)])].concat();
            let asks = request("GET", "/heavy", &[]);
            (0..50).for_each(|n| bytes.extend(frame(HEADERS, WHOLE | END, 2 * n + 1, &asks)));
            let _ = stream.write_all(&bytes);
            stream
        })
        .collect();
    thread::sleep(Duration::from_millis(500));
    scene.serve_others();
    drop(crowd);
}

#[test]
fn bodies_that_no_application_takes() {
    let Some(mut scene) = Scene::new("bodies", 0) else { return };
    scene.show("alone");
    let crowd: Vec<Stream> = (0..600)
        .map(|_| {
            let mut stream = connect(scene.world.address(), "a.test", &scene.client);
            let _ = stream.write_all(b"POST /heavy HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n");
            push(&mut stream, &[b'x'; 16 << 10]);
            stream
        })
        .collect();
    thread::sleep(Duration::from_millis(500));
    scene.serve_others();
    drop(crowd);
}

/// Sends more than everybody on the way may hold for one, as far as it is taken.
fn push(stream: &mut Stream, piece: &[u8]) {
    stream.sock.set_write_timeout(Some(Duration::from_millis(10))).unwrap();
    let _ = (0..20).all(|_| stream.write_all(piece).is_ok());
}
