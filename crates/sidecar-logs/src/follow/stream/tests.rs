use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;

use record::Queue;
use record::queue::{Limits, Positions};

use super::*;
use crate::config::{Spec, check};
use crate::follow::{Start, Watch};

/// A follower without an agent around it; everything it reads is spooled.
struct World {
    follower: Follower,
    queue: Arc<Queue>,
    directory: tempfile::TempDir,
}

impl World {
    /// With these sources; `ROOT` is a directory of their own.
    fn new(sources: &str) -> World {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().display().to_string();
        let sources = sources.replace("ROOT", &root);
        let document = format!(
            "apiVersion: outrigger.dev/v1alpha1\nkind: LogAgent\nspec:\n  sources: [{sources}]\n  \
             sinks: [{{name: o, to: {{stdout: {{}}}}}}]\n  state: {{directory: {root}}}\n"
        );
        let loaded = daemon::config::load::<Spec>(&document, "LogAgent", check).unwrap();
        let parts = crate::wiring::build(&loaded.spec, None).unwrap();
        let limits = Limits { memory: 1 << 20, spool: 8 << 20 };
        let spool = directory.path().join("spool");
        let (queue, recovered) = Queue::open(limits, 1, Some(&spool), true, Positions::new()).unwrap();
        let (sinks, scratch) = (vec!["o".to_owned()], directory.path().to_owned());
        let start = Start { stages: parts.stages, checkpoint: None, recovered, sinks, scratch };
        let mut follower = Follower::new(parts.sources, Arc::clone(&queue), Watch::new().unwrap().0, start);
        follower.open_streams(parts.streams).unwrap();
        follower.scan();
        World { follower, queue, directory }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    /// What is there is on the loopback's other side already.
    fn read(&mut self) {
        while self.follower.read_all(false) != (0, false) {}
    }

    /// One batch, as the sink would.
    fn deliver_one(&mut self) -> Vec<String> {
        let mut sink = self.queue.consumer(0);
        let taken = sink.take(1, Duration::ZERO).unwrap();
        sink.acknowledge(&taken);
        let records = taken.iter().flat_map(|batch| batch.records());
        records.map(|record| String::from_utf8_lossy(record.body).into_owned()).collect()
    }

    /// As the agent does: positions are saved, and then the spool is shortened.
    fn save(&mut self) -> Vec<u64> {
        self.follower.let_go();
        let snapshot = self.queue.snapshot();
        let checkpoint = self.follower.checkpoint(&snapshot.positions);
        self.queue.saved(&snapshot).unwrap();
        checkpoint.files.iter().map(|saved| saved.id).collect()
    }

    fn tcp(&self) -> SocketAddr {
        let mut addresses = self.follower.doors.iter().filter_map(|door| match &door.listener {
            Listener::Tcp(listener) => listener.local_addr().ok(),
            Listener::Unix(..) => None,
        });
        addresses.next().unwrap()
    }
}

fn connect(path: &Path, text: &str) -> UnixStream {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    stream
}

#[test]
fn syslog_messages_are_framed_both_ways() {
    assert_eq!(syslog_message(b"5 <1>ab12", false), Some((2, 5)));
    assert_eq!(syslog_message(b"<1>a\n<2>b", false), Some((0, 5)));
    for unfinished in [&b""[..], b"1", b"12 <1>", b"<1>a"] {
        assert_eq!(syslog_message(unfinished, false), None);
    }
    assert_eq!(syslog_message(b"12 <1>", true), Some((3, 3)));
    assert_eq!(syslog_message(b"<1>a", true), Some((0, 4)));
}

#[test]
fn a_finished_file_is_let_go_though_everything_is_spooled() {
    let mut world =
        World::new("{name: f, files: {include: [ROOT/log/*], rotateWait: 0s}}, {name: p, fifo: {path: ROOT/p}}");
    let path = world.path("log/app.log");
    fs::create_dir(world.path("log")).unwrap();
    fs::write(&path, "one\n").unwrap();
    world.follower.scan();
    world.read();
    fs::remove_file(&path).unwrap();
    world.follower.scan();
    world.read();
    world.save();
    assert_eq!(world.follower.receipt().finished, 0, "nobody has it");
    // What comes behind it keeps the spool from ever being empty.
    fs::write(world.path("log/other.log"), "two\n").unwrap();
    world.follower.scan();
    world.read();
    assert_eq!(world.deliver_one(), ["one"]);
    world.save();
    assert_eq!(world.follower.receipt().finished, 0, "its segment is still there");
    assert_eq!(world.deliver_one(), ["two"]);
    world.save();
    world.save();
    let receipt = world.follower.receipt();
    assert_eq!((receipt.finished, receipt.finished_bytes), (1, 4));
}

/// Without its position, what the spool holds of it would be delivered again after a crash.
#[test]
fn a_closed_connection_is_remembered_while_the_spool_holds_its_records() {
    let mut world = World::new("{name: s, socket: {path: ROOT/s}}");
    drop(connect(&world.path("s"), "one\n"));
    world.read();
    let _second = connect(&world.path("s"), "two\n");
    world.read();
    assert_eq!(world.deliver_one(), ["one"]);
    assert_eq!(world.save(), [1, 2]);
    assert_eq!(world.deliver_one(), ["two"]);
    world.save();
    assert_eq!(world.save(), [2]);
}

#[test]
fn only_connections_count_as_such() {
    let mut world =
        World::new("{name: s, syslog: {udp: '127.0.0.1:0', tcp: '127.0.0.1:0', socket: ROOT/s, connections: 1}}");
    let mut stream = TcpStream::connect(world.tcp()).unwrap();
    stream.write_all(b"<1>one\n").unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while world.queue.depth().waiting == 0 {
        assert!(Instant::now() < deadline, "nobody took the connection");
        world.read();
    }
    assert_eq!(world.deliver_one(), ["one"]);
}

#[test]
fn a_door_that_lets_nobody_in_is_not_waited_at() {
    let mut world = World::new("{name: s, socket: {path: ROOT/s, connections: 1}}");
    let first = connect(&world.path("s"), "one\n");
    let _second = connect(&world.path("s"), "two\n");
    world.read();
    let (began, time) = (Instant::now(), Duration::from_millis(200));
    world.follower.wait(time);
    assert!(began.elapsed() >= time, "woken after {:?}", began.elapsed());
    drop(first);
    // One turn to see that it left, and one to let the next in.
    world.read();
    world.read();
    assert_eq!((world.deliver_one(), world.deliver_one()), (vec!["one".to_owned()], vec!["two".to_owned()]));
}

#[test]
fn what_a_broken_connection_left_waits_for_room() {
    let mut world = World::new("{name: s, syslog: {tcp: '127.0.0.1:0'}}");
    let mut stream = TcpStream::connect(world.tcp()).unwrap();
    stream.write_all(b"<1>half a line").unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    let pending = |world: &World| world.follower.inputs.first().map_or(0, |input| input.pending.len());
    while pending(&world) == 0 {
        assert!(Instant::now() < deadline, "nobody took the connection");
        world.read();
    }
    // The disk refuses, and then the connection is reset.
    fs::remove_dir_all(world.path("spool")).unwrap();
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    drop(stream);
    while world.follower.inputs[0].parked.is_none() {
        assert!(Instant::now() < deadline, "the reset did not come");
        world.follower.read_all(false);
    }
    fs::create_dir(world.path("spool")).unwrap();
    world.read();
    assert!(world.follower.inputs[0].ended);
    assert_eq!(world.queue.depth().waiting, 1, "it is lost");
    assert_eq!(world.deliver_one(), ["half a line"]);
}

/// They are out of the sender's hands, so they count whatever comes behind them.
#[test]
fn datagrams_before_an_error_are_kept() {
    let mut answers = vec![Ok(3), Err(io::ErrorKind::Interrupted), Ok(4), Err(io::ErrorKind::OutOfMemory)].into_iter();
    let mut receive =
        |_: &mut [u8]| answers.next().unwrap_or(Err(io::ErrorKind::NotConnected)).map_err(io::Error::from);
    let mut lengths = Vec::new();
    let total = take_datagrams(&mut receive, &mut [0; 9], |message| lengths.push(message.len()));
    assert_eq!((total.ok(), lengths), (Some(7), vec![3, 4]));
    // One that stays comes again.
    let failed = take_datagrams(&mut receive, &mut [0; 9], |_| {}).unwrap_err();
    assert_eq!(failed.kind(), io::ErrorKind::NotConnected);
}
