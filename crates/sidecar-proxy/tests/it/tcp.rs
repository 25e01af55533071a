//! Plain TCP: much and little, each direction ends by itself, what is idle ends.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::harness::{World, eventually};

fn spec(address: SocketAddr, more: &str) -> String {
    format!(
        "listeners:\n- {{name: tcp, address: \"127.0.0.1:0\", tcp: app}}\nbackends:\n- {{name: app, endpoints: [\"{address}\"]}}\n{more}"
    )
}

fn serve(each: impl Fn(TcpStream) + Send + Sync + Copy + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || each(stream));
        }
    });
    address
}

/// Bytes that show when some are missing or changed places.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at / 251 + at * 7) as u8).collect()
}

#[test]
fn much_goes_both_ways_at_once_and_nothing_is_lost() {
    const SIZE: usize = 40 << 20;
    let address = serve(|stream| {
        let mut out = stream.try_clone().unwrap();
        let writer = std::thread::spawn(move || {
            out.write_all(&pattern(SIZE)).unwrap();
            out.shutdown(Shutdown::Write).unwrap();
        });
        let mut all = Vec::new();
        // A slow reader: the pipe fills, and what it holds must wait for its turn.
        let mut stream = stream;
        let mut piece = vec![0; 1 << 20];
        loop {
            match stream.read(&mut piece).unwrap() {
                0 => break,
                length => all.extend_from_slice(&piece[..length]),
            }
            if all.len() < 4 << 20 {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        assert!(all == pattern(SIZE));
        writer.join().unwrap();
    });
    let world = World::with(&spec(address, ""));
    let client = world.client().stream.into_inner();
    let mut out = client.try_clone().unwrap();
    let writer = std::thread::spawn(move || {
        let all = pattern(SIZE);
        // Little, much, little: from copying to the pipe and back.
        out.write_all(&all[..10]).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        out.write_all(&all[10..30 << 20]).unwrap();
        for piece in all[30 << 20..(30 << 20) + 2000].chunks(20) {
            out.write_all(piece).unwrap();
            std::thread::sleep(Duration::from_millis(1));
        }
        out.write_all(&all[(30 << 20) + 2000..]).unwrap();
        out.shutdown(Shutdown::Write).unwrap();
    });
    let mut all = Vec::new();
    { client }.read_to_end(&mut all).unwrap();
    assert!(all == pattern(SIZE));
    writer.join().unwrap();
    eventually("the end", || world.metric("outrigger_proxy_connections_active") == 0);
}

#[test]
fn who_is_silent_at_first_is_not_cut() {
    let address = serve(|mut stream| {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        stream.write_all(&byte).unwrap();
    });
    let spec = spec(address, "").replace(&format!("[\"{address}\"]"), &format!("[\"{address}\"], connectTimeout: 2s"));
    let world = World::with(&spec);
    let mut client = world.client().stream.into_inner();
    std::thread::sleep(Duration::from_millis(2500));
    client.write_all(b"x").unwrap();
    let mut byte = [0];
    client.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"x");
}

#[test]
fn a_backend_that_has_said_all_still_hears_all() {
    let address = serve(|mut stream| {
        stream.write_all(b"done").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        std::thread::sleep(Duration::from_millis(200));
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        assert!(all == pattern(3 << 20));
        HEARD.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    static HEARD: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);
    let world = World::with(&spec(address, ""));
    let mut client = world.client().stream.into_inner();
    let mut said = String::new();
    client.read_to_string(&mut said).unwrap();
    assert_eq!(said, "done");
    client.write_all(&pattern(3 << 20)).unwrap();
    drop(client);
    eventually("the rest", || HEARD.load(std::sync::atomic::Ordering::Relaxed));
}

#[test]
fn what_is_idle_ends() {
    let address = serve(|mut stream| {
        let mut piece = [0; 100];
        while let Ok(length @ 1..) = stream.read(&mut piece) {
            let _ = stream.write_all(&piece[..length]);
        }
    });
    let world = World::with(&spec(address, "timeouts: {tunnel: 4s}\n"));
    let mut client = world.client();
    let begun = Instant::now();
    // Bytes keep it alive.
    for _ in 0..5 {
        std::thread::sleep(Duration::from_secs(1));
        client.send("x");
        let mut back = [0];
        client.stream.read_exact(&mut back).unwrap();
    }
    assert!(client.is_closed());
    assert!(begun.elapsed() >= Duration::from_secs(9), "{:?}", begun.elapsed());
}
