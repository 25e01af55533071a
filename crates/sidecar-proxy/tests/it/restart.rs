//! A new process takes over, workers and listeners come and go: nobody notices.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::{Child, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{Client, Does, PATIENCE, Port, Upstream, World, eventually, ok, simple_spec};

/// Clients that ask all the time: some keep their connection, some make a new one each time. Every request must be answered.
struct Load {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    fn on(address: SocketAddr) -> Load {
        let (stop, served) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let threads = (0..4).map(|number| {
            let (stop, served) = (Arc::clone(&stop), Arc::clone(&served));
            std::thread::spawn(move || {
                let keeps = number % 2 == 0;
                let mut client = Client::connect(address);
                while !stop.load(Ordering::Relaxed) {
                    let answer = client.get("/");
                    assert_eq!(answer.status(), 200);
                    served.fetch_add(1, Ordering::Relaxed);
                    if !keeps || answer.field("connection") == Some("close") {
                        client = Client::connect(address);
                    }
                }
            })
        });
        let threads = threads.collect();
        Load { stop, served, threads }
    }

    fn go_on(&self) {
        let before = self.served.load(Ordering::Relaxed);
        eventually("more answers", || self.served.load(Ordering::Relaxed) > before + 100);
    }

    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

fn ended(child: &mut Child) -> ExitStatus {
    let mut status = None;
    eventually("the old process' end", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap()
}

#[test]
fn a_new_process_takes_over_and_no_request_fails() {
    let upstream = Upstream::start(|_| ok("hello"));
    let mut world = World::simple(&[upstream.address]);
    let address = world.address();
    let load = Load::on(address);
    for _ in 0..3 {
        load.go_on();
        let (mut old, log) = world.take_over();
        assert_eq!(world.address(), address);
        load.go_on();
        // Its clients learned with their next answer that they should come anew.
        assert_eq!(ended(&mut old).code(), Some(0));
        let log = std::fs::read_to_string(log).unwrap();
        assert!(log.contains("every connection has ended"), "{log}");
        assert!(world.ask("/readyz").contains("200"));
    }
    load.end();
    world.signal(Signal::TERM);
    assert_eq!(world.wait().code(), Some(0));
}

#[test]
fn what_is_open_stays_with_the_old_process_as_long_as_it_likes() {
    let upstream = Upstream::start(|seen| {
        if seen.field("upgrade").is_some() {
            let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
            Does::Echoes(head.to_owned())
        } else {
            ok("hello")
        }
    });
    let mut world = World::simple(&[upstream.address]);
    let mut tunnel = world.client();
    tunnel.send(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    assert_eq!(tunnel.answer().status(), 101);
    let mut idle = world.client();
    idle.get("/");
    let (mut old, _) = world.take_over();
    let mut echo = |text: &str| {
        tunnel.send(text);
        let mut back = vec![0; text.len()];
        tunnel.stream.read_exact(&mut back).unwrap();
        assert_eq!(back, text.as_bytes());
    };
    echo("after");
    // It has not been closed behind the client's back, and learns with its next answer.
    assert_eq!(idle.get("/").field("connection"), Some("close"));
    assert!(old.try_wait().unwrap().is_none());
    // New connections are the new process' business.
    assert_eq!(world.client().get("/").status(), 200);
    assert_eq!(world.metric("outrigger_proxy_connections_total"), 1);
    echo("again");
    // A signal sets a deadline; a second one would cut.
    kill_process(Pid::from_child(&old), Signal::TERM).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    echo("still");
    tunnel.stream.get_ref().shutdown(Shutdown::Write).unwrap();
    assert_eq!(ended(&mut old).code(), Some(0));
}

#[test]
fn a_successor_that_fails_changes_nothing() {
    let upstream = Upstream::start(|_| ok("hello"));
    let mut world = World::simple(&[upstream.address]);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = port.local_addr().unwrap();
    let load = Load::on(world.address());
    let spec = simple_spec(&[upstream.address], "");
    let more = format!("listeners:\n- {{name: second, address: \"{taken}\"}}\n");
    world.configure(&spec.replace("listeners:\n", &more));
    let (status, said) = world.fail_to_take_over();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("second"), "{said}");
    load.go_on();
    assert!(world.is_running());
    eventually("the word", || world.log().contains("not handed over"));
    // The next one succeeds.
    world.configure(&spec);
    let (mut old, _) = world.take_over();
    load.go_on();
    assert_eq!(ended(&mut old).code(), Some(0));
    load.end();
}

#[test]
fn only_one_takes_over_at_a_time() {
    let upstream = Upstream::start(|_| ok("hello"));
    let mut world = World::simple(&[upstream.address]);
    // It has the sockets, and is not ready yet.
    let mut first = UnixStream::connect(world.path("sock")).unwrap();
    first.set_read_timeout(Some(PATIENCE)).unwrap();
    first.write_all(b"hand-over 1\n").unwrap();
    let mut said = Vec::new();
    while !said.ends_with(b"done\n") {
        let mut piece = [0; 1024];
        let length = first.read(&mut piece).unwrap();
        assert!(length > 0, "{}", world.log());
        said.extend_from_slice(&piece[..length]);
    }
    let (status, log) = world.fail_to_take_over();
    assert!(status.code() == Some(1) && log.contains("another process is taking over"), "{log}");
    assert_eq!(world.client().get("/").status(), 200);
    // What it may want to listen at is left to it.
    world.configure(&simple_spec(&[upstream.address], "zone: elsewhere\n"));
    eventually("the change", || world.log().contains("not reloaded yet"));
    assert!(!world.log().contains("configuration reloaded"));
    // It never became ready: whoever comes next may try.
    drop(first);
    eventually("the end of the first try", || world.log().contains("not handed over"));
    eventually("the reload", || world.log().contains("configuration reloaded"));
    let (mut old, _) = world.take_over();
    assert_eq!(ended(&mut old).code(), Some(0));
    assert_eq!(world.client().get("/").status(), 200);
}

#[test]
fn workers_and_listeners_come_and_go_under_load() {
    let upstream = Upstream::start(|_| ok("hello"));
    let reserved = Port::reserve();
    let port = reserved.address;
    let spec = |workers: usize, more: bool| {
        let spec = simple_spec(&[upstream.address], &format!("workers: {workers}\n"));
        let spec = spec.replace("127.0.0.1:0", &port.to_string());
        let second =
            "listeners:\n- {name: second, address: \"unix:ROOT/second\"}\n- {name: third, address: \"127.0.0.2:0\"}\n";
        if more { spec.replace("listeners:\n", second) } else { spec }
    };
    let mut world = World::with(&spec(1, false));
    let load = Load::on(port);
    let mut before = 0;
    for (workers, more) in [(3, true), (2, false), (7, true), (1, true), (4, false)] {
        world.reload(&spec(workers, more));
        load.go_on();
        let threads = || {
            let tasks = std::fs::read_dir(format!("/proc/{}/task", world.process())).unwrap();
            let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
            names.filter(|name| name.starts_with("worker-")).count()
        };
        // Those that are too many end with their last connection, which ends with its next answer.
        eventually("the right number of workers", || threads() == workers);
        let total = world.metric("outrigger_proxy_connections_total");
        assert!(total >= before);
        before = total;
        if more {
            let third = world.listener("third");
            assert_eq!(Client::connect(third).get("/").status(), 200);
            let mut second = std::os::unix::net::UnixStream::connect(world.path("second")).unwrap();
            second.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
            let mut answer = String::new();
            second.read_to_string(&mut answer).unwrap();
            assert!(answer.ends_with("hello"));
        }
    }
    load.end();
    world.signal(Signal::TERM);
    assert_eq!(world.wait().code(), Some(0));
}

#[test]
fn a_listener_that_is_gone_refuses_although_a_connection_of_it_is_open() {
    let upstream = Upstream::start(|_| ok("hello"));
    let with = simple_spec(&[upstream.address], "");
    let second = with.replace("listeners:\n", "listeners:\n- {name: second, address: \"127.0.0.2:0\"}\n");
    let mut world = World::with(&second);
    let gone = world.listener("second");
    let mut open = Client::connect(gone);
    open.get("/");
    world.reload(&with);
    eventually("the refusal", || TcpStream::connect(gone).is_err());
    assert_eq!(open.get("/").status(), 200);
}

#[test]
fn what_the_application_asks_of_others_is_served_to_the_end() {
    let upstream = Upstream::start(|_| ok("hello"));
    let spec = simple_spec(&[upstream.address], "").replace("127.0.0.1:0\"}", "127.0.0.1:0\", outbound: true}");
    let mut world = World::with(&spec);
    let mut application = world.client();
    application.get("/");
    world.signal(Signal::TERM);
    eventually("the drain", || world.ask("/readyz").contains("503"));
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(application.get("/").field("connection"), None);
        assert_eq!(world.client().get("/").field("connection"), None);
    }
    assert!(world.is_running());
    drop(application);
    assert_eq!(world.wait().code(), Some(0));
}

#[test]
fn an_address_belongs_to_one_listener() {
    let spec = simple_spec(&["127.0.0.1:1".parse().unwrap()], "");
    let second = spec.replace("routes:", "- {name: second, address: \"127.0.0.1:0\"}\nroutes:");
    let said = crate::config::problems(&second);
    assert_eq!(said, ["6:29: spec.listeners[1].address: `http` listens there already"]);
}
