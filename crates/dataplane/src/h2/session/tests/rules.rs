//! Rules that no exchange of well-behaved programs shows: each is broken once, by itself.

use super::*;
use crate::h2::hpack;

fn client() -> Session {
    let mut session = Session::new(Role::Client, 4096, false);
    feed(&mut session, &settings(&[])).unwrap();
    session.out.clear();
    session
}

/// A client with a request whose answer is awaited, and more of them.
fn asked(requests: u32) -> Session {
    let mut session = client();
    for owner in 0..requests {
        session.request(owner, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", false, true);
    }
    session.out.clear();
    session
}

/// A server with requests whose bodies are still to come.
fn posted(streams: u32) -> Session {
    let mut session = server();
    for number in 0..streams {
        feed(&mut session, &frame(frame::HEADERS, 4, 2 * number + 1, POST)).unwrap();
    }
    session.out.clear();
    session
}

fn answer(flags: u8, fields: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        match *name {
            b":status" => hpack::put_status(value, &mut block),
            name => hpack::put(name, value, &mut block),
        }
    }
    frame(frame::HEADERS, 4 | flags, 1, &block)
}

fn data(stream: u32, flags: u8, length: usize) -> Vec<u8> {
    frame(frame::DATA, flags, stream, &vec![b'x'; length])
}

fn reset(stream: u32, code: Code) -> Vec<u8> {
    frame(frame::RST_STREAM, 0, stream, &(code as u32).to_be_bytes())
}

/// The one stream that was reset by what was fed, and why.
fn broken(session: &mut Session, bytes: &[u8]) -> Option<(Vec<Event>, u32)> {
    let events = feed(session, bytes).ok()?;
    let out = std::mem::take(&mut session.out);
    let frame = Frame::read(&out)?;
    (frame.kind == frame::RST_STREAM).then(|| (events, frame::number(&out[frame::HEADER..])))
}

#[test]
fn nobody_sends_more_than_the_connections_window() {
    let mut session = posted(5);
    // Of each stream less than its own.
    let all: Vec<u8> = (0..5).flat_map(|n| data(2 * n + 1, 0, 16_384).repeat(3)).collect();
    assert!(feed(&mut session, &all).is_ok());
    assert_eq!(
        feed(&mut session, &data(1, 0, 16_000)),
        Ok(vec![Event::Data { stream: 1, range: 9..16_009, end: false }])
    );
    assert_eq!(feed(&mut session, &data(3, 0, 16_000)), Err(Code::FlowControl));
}

#[test]
fn what_comes_for_streams_that_are_over_takes_no_room() {
    let given_back = |session: &mut Session| written(session).iter().any(|frame| (frame.0, frame.2) == (8, 0));
    // They were reset, and the other side did not know yet.
    let mut session = posted(1);
    session.close(1, Code::Cancel);
    feed(&mut session, &data(1, 0, 16_384).repeat(9)).unwrap();
    assert!(given_back(&mut session));
    // The other side has ended them, and goes on.
    let mut session = server();
    for stream in (0..9).map(|n| 2 * n + 1) {
        feed(&mut session, &frame(frame::HEADERS, 5, stream, GET)).unwrap();
        feed(&mut session, &data(stream, 0, 16_384)).unwrap();
    }
    assert!(given_back(&mut session));
    // They have ended here, and nobody has taken what had come.
    let mut session = posted(3);
    for stream in [1, 3, 5] {
        feed(&mut session, &data(stream, 0, 16_384).repeat(3)).unwrap();
        session.close(stream, Code::Cancel);
    }
    assert!(given_back(&mut session) && session.held() == session.out.len());
}

#[test]
fn padding_is_given_back_and_not_for_ever_free() {
    let mut session = posted(1);
    // A byte of payload with 255 of padding.
    let padded = frame(frame::DATA, 8, 1, &[&[255][..], &[b'x'; 1], &[0; 255]].concat());
    let taken = (0..10_000).take_while(|_| feed(&mut session, &padded).is_ok()).count();
    assert!((5000..6000).contains(&taken), "{taken}");
    assert_eq!(feed(&mut session, &padded).ok(), Some(vec![]), "the connection is over");
    // And nothing at all.
    let mut session = posted(1);
    assert!((0..200_000).any(|_| feed(&mut session, &data(1, 0, 0)) == Err(Code::Calm)));
}

#[test]
fn a_head_in_pieces_is_bounded() {
    let mut session = server();
    let mut bytes = frame(frame::HEADERS, 0, 1, &[0; 16_384]);
    bytes.extend(frame(frame::CONTINUATION, 0, 1, &[0; 16_384]).repeat(2));
    assert_eq!(feed(&mut session, &bytes), Err(Code::Calm));
    // One that is written in pieces is whole.
    let mut session = server();
    feed(&mut session, &frame(frame::HEADERS, 5, 1, GET)).unwrap();
    session.respond(1, format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "b".repeat(20_000)).as_bytes(), true);
    let frames = written(&mut session);
    assert_eq!(frames.iter().map(|frame| (frame.0, frame.1)).collect::<Vec<_>>(), [(1, 1), (9, 4)]);
}

#[test]
fn who_leaves_takes_nobody_new() {
    let mut session = server();
    session.leave_soon();
    session.leave_soon();
    assert_eq!(written(&mut session).iter().map(|frame| frame.0).collect::<Vec<_>>(), [7, 6], "said once");
    feed(&mut session, &frame(frame::HEADERS, 5, 1, GET)).unwrap();
    assert_eq!(session.len(), 1, "it may have been on its way");
    session.leave();
    session.out.clear();
    assert_eq!(broken(&mut session, &frame(frame::HEADERS, 5, 3, GET)), Some((vec![], 7)));
    // What looks like the answer to a farewell, when there was none.
    let mut session = server();
    feed(&mut session, &frame(frame::PING, frame::ACK, 0, FAREWELL)).unwrap();
    assert!(!session.is_leaving());
}

#[test]
fn heads_of_answers() {
    for (end, fields) in [
        (1, &[(&b":status"[..], &b"304"[..]), (b"content-length", b"5")][..]),
        (1, &[(b":status", b"204")]),
        (1, &[(b":status", b"200"), (b"content-length", b"0")]),
        (0, &[(b":status", b"103")]),
    ] {
        let mut session = asked(1);
        assert_eq!(feed(&mut session, &answer(end, fields)).map(|events| events.len()), Ok(1), "{fields:?}");
        assert!(session.out.is_empty(), "{fields:?}");
    }
    for (end, fields) in [
        (1, &[(&b":status"[..], &b"103"[..])][..]),
        (0, &[(b":status", b"101")]),
        (1, &[(b":status", b"200"), (b"content-length", b"5")]),
    ] {
        let mut session = asked(1);
        let lost = Event::Reset { stream: 1, owner: Some(0), refused: false, ours: true };
        assert_eq!(broken(&mut session, &answer(end, fields)), Some((vec![lost], 1)), "{fields:?}");
    }
    // Payload before any head.
    assert_eq!(broken(&mut asked(1), &data(1, 0, 3)).map(|(_, code)| code), Some(1));
    // An answer to what nobody has asked.
    assert_eq!(feed(&mut client(), &answer(1, &[(b":status", b"200")])), Err(Code::Protocol));
}

#[test]
fn trailers_end_what_was_declared() {
    let mut long = Vec::new();
    hpack::put(b"a", &[b'b'; 8000], &mut long);
    let mut good = Vec::new();
    hpack::put(b"a", b"b", &mut good);
    // It would have been believed in the head.
    hpack::put(b"x-forwarded-for", b"192.0.2.1", &mut good);
    for (sent, trailers, code) in [(3, &good, Some(1)), (5, &good, None), (5, &long, Some(11))] {
        let mut session = server();
        let declared = [POST, &[0x0f, 13, 1, b'5']].concat();
        feed(&mut session, &frame(frame::HEADERS, 4, 1, &declared)).unwrap();
        feed(&mut session, &data(1, 0, sent)).unwrap();
        session.out.clear();
        let broken = broken(&mut session, &frame(frame::HEADERS, 5, 1, trailers));
        assert_eq!(broken.map(|(_, code)| code), code, "{sent}");
        assert!(code.is_some() || session.text == b"a: b\r\n");
    }
}

#[test]
fn streams_that_come_to_nothing_are_counted() {
    // Reset as soon as they were begun: the frame that is too many ends it.
    let mut session = server();
    for stream in (0..200).map(|n| 2 * n + 1) {
        feed(&mut session, &frame(frame::HEADERS, 5, stream, GET)).unwrap();
        feed(&mut session, &reset(stream, Code::Cancel)).unwrap();
    }
    feed(&mut session, &frame(frame::HEADERS, 5, 401, GET)).unwrap();
    assert_eq!(feed(&mut session, &reset(401, Code::Cancel)), Err(Code::Calm));
    // Broken, so that we must reset them; others that we end unanswered make up for nothing.
    let mut session = server();
    let broken = |n: u32| frame(frame::HEADERS, 5, 4 * n + 1, &[0x82]);
    let (mut n, mut ended) = (0, false);
    while !ended && n < 300 {
        ended = feed(&mut session, &broken(n)).is_err();
        ended |= feed(&mut session, &frame(frame::HEADERS, 5, 4 * n + 3, GET)).is_err();
        session.close(4 * n + 3, Code::Refused);
        session.note_drained();
        n += 1;
    }
    assert!((200..203).contains(&n), "{n}");
    // Those that are answered do.
    let mut session = server();
    for n in 0..600 {
        feed(&mut session, &broken(n)).unwrap();
        feed(&mut session, &frame(frame::HEADERS, 5, 4 * n + 3, GET)).unwrap();
        session.respond(4 * n + 3, b"HTTP/1.1 204 X\r\n\r\n", true);
        session.close(4 * n + 3, Code::None);
        session.note_drained();
    }
}

#[test]
fn answers_to_errors_are_not_piled_up() {
    let mut session = client();
    for owner in 0..10_000 {
        let stream = session.request(owner, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", false, true);
        if feed(&mut session, &data(stream, 0, 1)).is_err() {
            assert!((4900..5100).contains(&owner), "{owner}");
            return;
        }
    }
    panic!("any number of resets waits to be read");
}

#[test]
fn what_the_other_side_takes_is_kept_to() {
    let mut session = client();
    feed(&mut session, &settings(&[(3, 1)])).unwrap();
    assert!(session.has_room());
    session.request(0, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", false, true);
    assert!(!session.has_room() && !session.takes_none());
    feed(&mut session, &settings(&[(3, 0)])).unwrap();
    assert!(session.takes_none());
    feed(&mut session, &frame(frame::GOAWAY, 0, 0, &[0; 8])).unwrap();
    assert!(!session.takes_none() && session.is_leaving());
    assert_eq!(feed(&mut client(), &frame(frame::GOAWAY, 0, 0, &[0; 7])), Err(Code::FrameSize));
    // Nobody may push to a client, and nobody may say that a client would be pushed to.
    assert_eq!(feed(&mut client(), &settings(&[(2, 1)])), Err(Code::Protocol));
    assert!(feed(&mut server(), &settings(&[(2, 1)])).is_ok());
    // The numbers of streams are used up.
    let mut session = client();
    session.next = LAST;
    assert!(session.is_leaving());
}

#[test]
fn resets_say_whether_anything_was_seen() {
    let mut session = asked(2);
    for (stream, code, refused) in [(1, Code::Refused, true), (3, Code::Cancel, false)] {
        let event = Event::Reset { stream, owner: Some(stream / 2), refused, ours: false };
        assert_eq!(feed(&mut session, &reset(stream, code)), Ok(vec![event]));
    }
    // Whoever has reset a stream sends nothing more on it, also if we had reset it before.
    let mut session = posted(1);
    session.close(1, Code::Cancel);
    assert_eq!(feed(&mut session, &data(1, 0, 1)), Ok(vec![]));
    feed(&mut session, &reset(1, Code::Cancel)).unwrap();
    assert_eq!(feed(&mut session, &data(1, 0, 1)), Err(Code::StreamClosed));
}

#[test]
fn payload_waits_for_both_windows_and_ends_once() {
    let mut session = server();
    feed(&mut session, &frame(frame::HEADERS, 5, 1, GET)).unwrap();
    feed(&mut session, &frame(frame::HEADERS, 5, 3, GET)).unwrap();
    session.out.clear();
    session.send(1, [&[b'x'; 40_000], b""], true);
    session.send(3, [&[b'x'; 40_000], b""], true);
    let sent: usize = written(&mut session).iter().map(|frame| frame.3).sum();
    assert_eq!((sent, session.held()), (65_535, 80_000 - 65_535));
    // Behind the end nothing comes.
    session.send(3, [b"more", b""], false);
    feed(&mut session, &frame(8, 0, 0, &100_000u32.to_be_bytes())).unwrap();
    let frames = written(&mut session);
    assert_eq!(frames.iter().map(|frame| frame.3).sum::<usize>(), 80_000 - 65_535);
    assert_eq!((frames.last().unwrap().1, session.held()), (1, 0));
    // A stream that goes away keeps nothing waiting.
    feed(&mut session, &[settings(&[(4, 0)]), frame(frame::HEADERS, 5, 5, GET)].concat()).unwrap();
    session.send(5, [b"waits", b""], true);
    session.out.clear();
    assert_eq!(session.held(), 5);
    session.close(5, Code::Cancel);
    assert_eq!(session.held(), session.out.len());
}

#[test]
fn no_window_is_larger_than_it_can_be() {
    let raised = |more: u32| {
        let mut session = server();
        feed(&mut session, &frame(frame::HEADERS, 5, 1, GET)).unwrap();
        feed(&mut session, &frame(8, 0, 1, &more.to_be_bytes())).unwrap();
        feed(&mut session, &settings(&[(4, 65_536)]))
    };
    assert_eq!(raised(0x7fff_ffff - 65_536), Ok(vec![Event::Writable { stream: 0 }]));
    assert_eq!(raised(0x7fff_ffff - 65_535), Err(Code::FlowControl));
}

#[test]
fn no_stream_that_has_ended_gets_a_window() {
    let mut session = posted(1);
    feed(&mut session, &data(1, 0, 16_384).repeat(2)).unwrap();
    feed(&mut session, &data(1, 1, 16_384)).unwrap();
    session.give_back(1);
    assert_eq!(written(&mut session), []);
    // What has been taken clogs nothing, whether or not it has been said yet.
    let mut session = asked(4);
    for stream in [1, 3, 5, 7] {
        feed(&mut session, &frame(frame::HEADERS, 4, stream, &[0x88])).unwrap();
        feed(&mut session, &data(stream, 0, 16_384).repeat(3)).unwrap();
        if stream < 5 {
            session.give_back(stream);
        }
    }
    assert!(!session.is_clogged());
}

#[test]
fn a_request_that_is_not_whole_is_not_seen_out() {
    let mut session = client();
    let stream = session.request(0, b"POST / HTTP/1.1\r\nHost: h\r\n\r\n", false, false);
    feed(&mut session, &answer(0, &[(b":status", b"200")])).unwrap();
    session.out.clear();
    assert!(!session.see_out(stream, 7) && session.is_empty());
    assert_eq!(written(&mut session), [(3, 0, 1, 4)]);
}
