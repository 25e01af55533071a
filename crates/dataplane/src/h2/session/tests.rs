use super::*;
use crate::h2::frame::begin;

mod properties;
mod rules;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    begin(payload.len(), kind, flags, stream, &mut out);
    out.extend_from_slice(payload);
    out
}

/// GET / on http://h, in the static table and one literal.
const GET: &[u8] = &[0x82, 0x86, 0x84, 0x01, 1, b'h'];
const POST: &[u8] = &[0x83, 0x86, 0x84, 0x01, 1, b'h'];

fn settings(pairs: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> = pairs.iter().flat_map(|(n, v)| [&n.to_be_bytes()[..], &v.to_be_bytes()].concat()).collect();
    frame(frame::SETTINGS, 0, 0, &payload)
}

fn server() -> Session {
    let mut session = Session::new(Role::Server, 4096, true);
    assert_eq!(feed(&mut session, &[frame::PREFACE, &settings(&[])].concat()), Ok(vec![]));
    session.out.clear();
    session
}

fn feed(session: &mut Session, mut bytes: &[u8]) -> Result<Vec<Event>, Code> {
    let mut events = Vec::new();
    while let Some((used, event)) = session.feed(bytes)? {
        events.extend(event);
        bytes = &bytes[used..];
        if bytes.is_empty() {
            break;
        }
    }
    Ok(events)
}

/// Kind, flags and stream of everything to be written.
fn written(session: &mut Session) -> Vec<(u8, u8, u32, usize)> {
    let out = std::mem::take(&mut session.out);
    let (mut at, mut frames) = (0, Vec::new());
    while let Some(frame) = Frame::read(&out[at..]) {
        frames.push((frame.kind, frame.flags, frame.stream, frame.length));
        at += frame::HEADER + frame.length;
    }
    frames
}

#[test]
fn a_request_and_its_answer() {
    let mut session = server();
    let events = feed(&mut session, &frame(frame::HEADERS, 5, 1, GET)).unwrap();
    assert_eq!(events, [Event::Head { stream: 1, end: true, status: 0 }]);
    assert_eq!(session.text, b"GET / HTTP/1.1\r\nhost: h\r\n\r\n");
    session.respond(1, b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n", false);
    session.send(1, [b"hello", b" you"], true);
    assert_eq!(written(&mut session), [(1, 4, 1, 6), (0, 0, 1, 5), (0, 1, 1, 4)]);
    session.close(1, Code::None);
    assert!(session.is_empty() && session.out.is_empty());
}

#[test]
fn windows_hold_back_and_let_go() {
    let mut session = server();
    feed(&mut session, &settings(&[(4, 10)])).unwrap();
    feed(&mut session, &frame(frame::HEADERS, 5, 1, GET)).unwrap();
    session.out.clear();
    session.respond(1, b"HTTP/1.1 200 OK\r\n\r\n", false);
    session.send(1, [&[b'x'; 25], b""], false);
    session.send_trailers(1, b"grpc-status: 0\r\n");
    assert!(session.is_blocked(1));
    assert_eq!(written(&mut session), [(1, 4, 1, 1), (0, 0, 1, 10)]);
    assert_eq!(feed(&mut session, &frame(8, 0, 1, &12u32.to_be_bytes())), Ok(vec![Event::Writable { stream: 1 }]));
    assert_eq!(written(&mut session), [(0, 0, 1, 12)]);
    feed(&mut session, &settings(&[(4, 100)])).unwrap();
    let frames = written(&mut session);
    assert_eq!(frames[..2], [(4, 1, 0, 0), (0, 0, 1, 3)]);
    assert_eq!((frames[2].0, frames[2].1), (1, 5));
    assert!(!session.is_blocked(1));
}

#[test]
fn a_smaller_table_is_said_to_be_used() {
    let mut session = server();
    let mut decoder = Decoder::default();
    let mut blocks = Vec::new();
    for (stream, own) in
        [(1, None), (3, Some(&[(1, 65_536)][..])), (5, Some(&[(1, 100)])), (7, None), (9, Some(&[(1, 0)]))]
    {
        feed(&mut session, &frame(frame::HEADERS, 5, stream, GET)).unwrap();
        if let Some(own) = own {
            feed(&mut session, &settings(own)).unwrap();
        }
        session.out.clear();
        session.respond(stream, b"HTTP/1.1 200 OK\r\n\r\n", stream != 5);
        // What was made ready before goes out behind it.
        session.send_trailers(stream, b"a: b\r\n");
        let out = std::mem::take(&mut session.out);
        let first = Frame::read(&out).unwrap();
        blocks.push(out[frame::HEADER..frame::HEADER + first.length].to_vec());
        let rest = &out[frame::HEADER + first.length..];
        assert!(decoder.read(blocks.last().unwrap(), |_, _| ()).is_ok());
        assert!(rest.is_empty() || rest[frame::HEADER] == 0);
        session.close(stream, Code::None);
    }
    // A table of no bytes: nothing is ever put into it.
    assert_eq!(blocks, [&[0x88][..], &[0x88], &[0x20, 0x88], &[0x88], &[0x20, 0x88]]);
    // Trailers that had to wait are the first head of all behind the settings.
    let mut session = server();
    feed(&mut session, &settings(&[(4, 0)])).unwrap();
    feed(&mut session, &frame(frame::HEADERS, 5, 1, GET)).unwrap();
    session.respond(1, b"HTTP/1.1 200 OK\r\n\r\n", false);
    session.send(1, [b"x", b""], true);
    session.send_trailers(1, b"a: b\r\n");
    session.out.clear();
    feed(&mut session, &settings(&[(1, 0)])).unwrap();
    session.out.clear();
    feed(&mut session, &frame(8, 0, 1, &9u32.to_be_bytes())).unwrap();
    assert_eq!(session.out[frame::HEADER + 1 + frame::HEADER], 0x20);
    // Of a client, too.
    let mut session = Session::new(Role::Client, 4096, false);
    feed(&mut session, &settings(&[(1, 0)])).unwrap();
    session.out.clear();
    session.request(0, b"GET / HTTP/1.1\r\nhost: h\r\n\r\n", false, true);
    assert_eq!(session.out[frame::HEADER..][..2], [0x20, 0x82]);
}

#[test]
fn a_stream_has_one_head_however_large() {
    let mut large = GET.to_vec();
    for _ in 0..5 {
        large.extend_from_slice(&[0, 1, b'x', 0x7f, 0xa1, 0x06]);
        large.extend_from_slice(&[b'v'; 928]);
    }
    for (again, expected) in [
        (frame(frame::HEADERS, 4, 1, GET), Event::Reset { stream: 1, owner: Some(7), refused: false, ours: true }),
        (frame(frame::HEADERS, 5, 1, GET), Event::Reset { stream: 1, owner: Some(7), refused: false, ours: true }),
        (frame(frame::HEADERS, 5, 1, &[0, 1, b'a', 1, b'b']), Event::Trailers { stream: 1 }),
        (frame(frame::DATA, 0, 1, b"x"), Event::Data { stream: 1, range: 9..10, end: false }),
    ] {
        let mut session = server();
        let events = feed(&mut session, &frame(frame::HEADERS, 4, 1, &large)).unwrap();
        assert_eq!(events, [Event::TooLarge { stream: 1 }]);
        session.set_owner(1, 7);
        // A second owner would be one that nobody ends.
        assert_eq!(feed(&mut session, &again), Ok(vec![expected]));
    }
}

#[test]
fn what_is_received_is_given_back() {
    let mut session = server();
    feed(&mut session, &frame(frame::HEADERS, 4, 1, POST)).unwrap();
    let piece = [0; 16384];
    for _ in 0..3 {
        assert_eq!(feed(&mut session, &frame(0, 0, 1, &piece)).unwrap().len(), 1);
    }
    // A client that sends more than it may.
    let mut greedy = server();
    feed(&mut greedy, &frame(frame::HEADERS, 4, 1, POST)).unwrap();
    let outcome = (0..5).map(|_| feed(&mut greedy, &frame(0, 0, 1, &piece))).find(Result::is_err);
    assert_eq!(outcome, Some(Err(Code::FlowControl)));
    session.give_back(1);
    assert_eq!(written(&mut session), [(8, 0, 1, 4)]);
    assert!(feed(&mut session, &frame(0, 0, 1, &piece)).is_ok() && feed(&mut session, &frame(0, 0, 1, &piece)).is_ok());
}

#[test]
fn errors_of_the_connection() {
    let reset = |id: u32| frame(3, 0, id, &[0; 4]);
    for (bytes, code) in [
        (frame(0, 0, 0, b"x"), Code::Protocol),
        (frame(0, 0, 1, b"x"), Code::Protocol),
        (frame(1, 5, 0, GET), Code::Protocol),
        (frame(1, 5, 2, GET), Code::Protocol),
        (frame(1, 0x0d, 1, &[200, 0x82]), Code::Protocol),
        (frame(1, 0x25, 1, &[&[0, 0, 0, 1, 0], GET].concat()), Code::Protocol),
        (frame(1, 5, 1, &[0x80]), Code::Compression),
        (frame(3, 0, 1, &[0; 4]), Code::Protocol),
        (frame(3, 0, 0, &[0; 4]), Code::Protocol),
        (frame(3, 0, 1, &[0; 3]), Code::FrameSize),
        (frame(4, 0, 1, &[]), Code::Protocol),
        (frame(4, 1, 0, &[0; 6]), Code::FrameSize),
        (frame(4, 0, 0, &[0; 5]), Code::FrameSize),
        (settings(&[(2, 2)]), Code::Protocol),
        (settings(&[(4, 0x8000_0000)]), Code::FlowControl),
        (settings(&[(5, 16_383)]), Code::Protocol),
        (settings(&[(5, 16_777_216)]), Code::Protocol),
        (frame(5, 4, 1, &[0; 4]), Code::Protocol),
        (frame(6, 0, 0, &[0; 7]), Code::FrameSize),
        (frame(6, 0, 1, &[0; 8]), Code::Protocol),
        (frame(7, 0, 1, &[0; 8]), Code::Protocol),
        (frame(8, 0, 0, &[0; 4]), Code::Protocol),
        (frame(8, 0, 0, &[0; 3]), Code::FrameSize),
        (frame(8, 0, 0, &0x7fff_ffffu32.to_be_bytes()), Code::FlowControl),
        (frame(8, 0, 1, &[0, 0, 0, 1]), Code::Protocol),
        (frame(9, 4, 1, GET), Code::Protocol),
        (frame(2, 0, 0, &[0; 5]), Code::Protocol),
        (frame(2, 0, 1, &[0; 4]), Code::FrameSize),
        (frame(0, 0, 1, &[0; 16_385]), Code::FrameSize),
        ([frame(1, 1, 1, GET), frame(6, 0, 0, &[0; 8])].concat(), Code::Protocol),
        ([frame(1, 1, 1, GET), frame(9, 4, 3, &[])].concat(), Code::Protocol),
        ([frame(1, 5, 5, GET), frame(1, 5, 3, GET)].concat(), Code::StreamClosed),
        ([frame(1, 4, 1, POST), frame(0, 8, 1, &[5, 0])].concat(), Code::Protocol),
    ] {
        let mut session = server();
        assert_eq!(feed(&mut session, &bytes).err(), Some(code), "{bytes:?}");
        assert_eq!(written(&mut session).last().map(|frame| frame.0), Some(frame::GOAWAY));
        // It stays over.
        assert_eq!(feed(&mut session, &reset(1)), Ok(vec![]));
    }
    let mut session = Session::new(Role::Server, 4096, true);
    assert_eq!(feed(&mut session, b"GET / HTTP/1.1\r\n").err(), Some(Code::Protocol));
    let mut session = Session::new(Role::Server, 4096, true);
    assert_eq!(feed(&mut session, &[frame::PREFACE, &frame(6, 0, 0, &[0; 8])].concat()).err(), Some(Code::Protocol));
}

#[test]
fn errors_of_a_stream() {
    for (bytes, code) in [
        ([frame(1, 5, 1, GET), frame(0, 0, 1, b"x")].concat(), Code::StreamClosed),
        ([frame(1, 5, 1, GET), frame(1, 5, 1, GET)].concat(), Code::StreamClosed),
        ([frame(1, 4, 1, POST), frame(1, 4, 1, &[0, 1, b'a', 0])].concat(), Code::Protocol),
        ([frame(1, 4, 1, POST), frame(8, 0, 1, &[0; 4])].concat(), Code::Protocol),
        ([frame(1, 4, 1, POST), frame(8, 0, 1, &0x7fff_ffffu32.to_be_bytes())].concat(), Code::FlowControl),
        ([frame(1, 4, 1, &[POST, &[0x0f, 13, 1, b'3']].concat()), frame(0, 1, 1, b"ab")].concat(), Code::Protocol),
        ([frame(1, 4, 1, &[POST, &[0x0f, 13, 1, b'3']].concat()), frame(0, 0, 1, b"abcd")].concat(), Code::Protocol),
        (frame(1, 5, 1, &[0x82, 0x86, 0x01, 1, b'h']), Code::Protocol),
    ] {
        let mut session = server();
        let events = feed(&mut session, &bytes).unwrap();
        assert!(matches!(events.last(), Some(Event::Reset { stream: 1, .. })), "{bytes:?} {events:?}");
        let reset = frame(3, 0, 1, &(code as u32).to_be_bytes());
        assert!(session.out.ends_with(&reset), "{bytes:?}");
        // What was on its way is no error.
        assert!(feed(&mut session, &frame(0, 0, 1, b"late")).is_ok());
        assert_eq!(feed(&mut session, &frame(1, 5, 3, GET)).unwrap().len(), 1);
    }
}

#[test]
fn floods_are_cut_off() {
    let mut session = server();
    let mut outcome = Ok(vec![]);
    for n in 0..1000 {
        outcome = feed(&mut session, &[frame(1, 5, 2 * n + 1, GET), frame(3, 0, 2 * n + 1, &[0; 4])].concat());
        if outcome.is_err() {
            break;
        }
    }
    assert_eq!(outcome.err(), Some(Code::Calm));

    let mut session = server();
    feed(&mut session, &frame(1, 1, 1, GET)).unwrap();
    let outcome = (0..100).map(|_| feed(&mut session, &frame(9, 0, 1, &[]))).find(Result::is_err);
    assert_eq!(outcome, Some(Err(Code::Calm)));

    let mut session = server();
    let outcome = (0..10_000).map(|_| feed(&mut session, &frame(6, 0, 0, &[0; 8]))).find(Result::is_err);
    assert_eq!(outcome, Some(Err(Code::Calm)));

    let mut session = server();
    for n in 0..120 {
        feed(&mut session, &frame(1, 4, 2 * n + 1, POST)).unwrap();
    }
    let refused = frame(3, 0, 201, &(Code::Refused as u32).to_be_bytes());
    assert!(session.out.windows(refused.len()).any(|bytes| bytes == refused));
    assert_eq!(session.streams.len(), 100);
}

#[test]
fn a_client_asks_a_server() {
    let (mut client, mut server) = (Session::new(Role::Client, 4096, false), Session::new(Role::Server, 4096, true));
    let id = client.request(7, b"POST /x HTTP/1.1\r\nHost: h\r\nA: b\r\n\r\n", false, false);
    client.send(id, [b"body", b""], true);
    let sent = std::mem::take(&mut client.out);
    let events = feed(&mut server, &sent).unwrap();
    assert!(matches!(events[0], Event::Writable { .. }));
    assert_eq!(events[1], Event::Head { stream: 1, end: false, status: 0 });
    assert_eq!(server.text, b"POST /x HTTP/1.1\r\nhost: h\r\na: b\r\ntransfer-encoding: chunked\r\n\r\n");
    server.respond(1, b"HTTP/1.1 103 Early Hints\r\n\r\n", false);
    server.respond(1, b"HTTP/1.1 200 OK\r\n\r\n", false);
    server.send(1, [b"ok", b""], false);
    server.send_trailers(1, b"grpc-status: 0\r\n");
    let sent = std::mem::take(&mut server.out);
    let events = feed(&mut client, &sent).unwrap();
    let heads = events.iter().filter(|event| matches!(event, Event::Head { .. })).count();
    assert_eq!((heads, events.last()), (2, Some(&Event::Trailers { stream: 1 })));
    assert_eq!((client.text.as_slice(), client.owner(1)), (&b"grpc-status: 0\r\n"[..], Some(7)));
    client.close(1, Code::None);
    assert!(client.out.len() <= 2 * 9, "only answers to SETTINGS");
}

/// A client that has reset more streams than can be remembered is still not in error when they are answered.
#[test]
fn what_is_late_is_no_error_however_much_was_reset() {
    let mut client = Session::new(Role::Client, 4096, false);
    feed(&mut client, &settings(&[(3, 10_000)])).unwrap();
    let ask = |client: &mut Session| client.request(7, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", false, true);
    let cancelled: Vec<u32> = (0..2 * REMEMBERED).map(|_| ask(&mut client)).collect();
    let waiting = ask(&mut client);
    cancelled.iter().for_each(|id| client.close(*id, Code::Cancel));
    for id in &cancelled {
        assert_eq!(feed(&mut client, &[frame(1, 4, *id, &[0x88]), frame(0, 1, *id, b"late")].concat()), Ok(vec![]));
    }
    assert_eq!(feed(&mut client, &frame(1, 5, waiting, &[0x88])).unwrap().len(), 1);
    client.close(waiting, Code::None);
    // What ended well is closed for good.
    assert_eq!(feed(&mut client, &frame(0, 1, waiting, b"late")), Err(Code::StreamClosed));
}

/// An answer that is whole by its length may end in a frame of its own.
#[test]
fn streams_are_seen_out() {
    let begun = || {
        let mut client = Session::new(Role::Client, 4096, false);
        feed(&mut client, &settings(&[])).unwrap();
        let id = client.request(7, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", false, true);
        feed(&mut client, &[frame(1, 4, id, &[0x88]), frame(0, 0, id, b"abc")].concat()).unwrap();
        assert!(client.see_out(id, 1000) && !client.is_empty() && client.owners().is_empty());
        client.out.clear();
        (client, id)
    };
    for last in [frame(0, 1, 1, b""), frame(1, 5, 1, &[0, 1, b'a', 0])] {
        let (mut client, _) = begun();
        assert_eq!(feed(&mut client, &last), Ok(vec![]));
        assert!(client.is_empty() && client.out.is_empty());
        assert_eq!(client.receive + i64::from(client.unreturned), ALL_WINDOW);
    }
    // More than that, or nothing at all.
    let (mut client, id) = begun();
    assert_eq!(feed(&mut client, &frame(0, 0, id, b"more")), Ok(vec![]));
    assert!(client.is_empty() && written(&mut client) == [(3, 0, id, 4)]);
    let (mut client, id) = begun();
    assert_eq!((client.end_late(999), client.out.len()), (1000, 0));
    assert_eq!(client.end_late(1000), u64::MAX);
    assert!(client.is_empty() && written(&mut client) == [(3, 0, id, 4)]);
}

#[test]
fn tunnels_are_asked_for_when_it_is_known_that_they_are_taken() {
    let mut client = Session::new(Role::Client, 4096, false);
    assert_eq!(client.takes_tunnels(), None);
    let place = client.keep_place(7);
    assert!(Session::is_place(place) && client.is_blocked(place) && client.owner(place) == Some(7));
    client.out.clear();
    assert_eq!(feed(&mut client, &settings(&[(8, 1)])), Ok(vec![Event::Settled]));
    assert_eq!(client.takes_tunnels(), Some(true));
    client.close(place, Code::Cancel);
    assert!(client.is_empty());
    let text = b"GET /x HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let id = client.request_tunnel(7, text, false);
    assert_eq!(id, 1);
    // The answer to SETTINGS and a head that does not end the stream; nothing of the place.
    let kinds: Vec<_> =
        written(&mut client).into_iter().map(|(kind, flags, stream, _)| (kind, flags, stream)).collect();
    assert_eq!(kinds, [(frame::SETTINGS, frame::ACK, 0), (frame::HEADERS, frame::END_HEADERS, 1)]);
    // Nobody waits: nobody needs to know.
    assert_eq!(feed(&mut client, &settings(&[(8, 1)])), Ok(vec![]));
    // What was offered is not taken back (RFC 8441 §3).
    assert_eq!(feed(&mut client, &settings(&[(8, 0)])), Err(Code::Protocol));
    let mut client = Session::new(Role::Client, 4096, false);
    assert_eq!(feed(&mut client, &settings(&[(8, 2)])), Err(Code::Protocol));
    let mut client = Session::new(Role::Client, 4096, false);
    assert_eq!(feed(&mut client, &settings(&[(8, 0)])), Ok(vec![]));
    assert_eq!(client.takes_tunnels(), Some(false));
}
