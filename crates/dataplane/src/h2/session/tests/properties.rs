//! What holds for any bytes, in any pieces (RFC 9113 §5.1, §5.4, §6.9). `PROPTEST_CASES` makes the search longer.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// A frame that is often good and sometimes anything.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let stream = prop_oneof![8 => prop::sample::select(vec![0u32, 1, 3, 5, 7, 9, 11, 2, 101]), 1 => any::<u32>()];
    let block = prop_oneof![
        4 => Just(GET.to_vec()),
        4 => Just(POST.to_vec()),
        1 => Just([POST, &[0x0f, 13, 1, b'3']].concat()),
        1 => Just(vec![0x40, 1, b'x', 3, b'a', b'b', b'c']),
        1 => Just(vec![0xbe, 0xbe]),
        1 => vec(any::<u8>(), 0..40),
    ];
    let number = prop_oneof![any::<u32>(), 0u32..3, Just(0x7fff_ffff), Just(100_000)];
    let pairs = vec((prop_oneof![1u16..9, any::<u16>()], prop_oneof![any::<u32>(), 0u32..70_000]), 0..4);
    let kind = (any::<u8>(), vec(any::<u8>(), 0..40));
    let flags = prop_oneof![Just(0u8), Just(1), Just(4), Just(5), Just(8), Just(0x25), any::<u8>()];
    prop_oneof![
        6 => (flags.clone(), stream.clone(), block).prop_map(|(flags, stream, block)| frame(frame::HEADERS, flags, stream, &block)),
        4 => (flags.clone(), stream.clone(), vec(any::<u8>(), 0..60)).prop_map(|(flags, stream, data)| frame(frame::DATA, flags, stream, &data)),
        1 => (stream.clone(), 10_000usize..16_384).prop_map(|(stream, length)| frame(frame::DATA, 0, stream, &vec![7; length])),
        2 => (stream.clone(), number.clone()).prop_map(|(stream, number)| frame(frame::WINDOW_UPDATE, 0, stream, &number.to_be_bytes())),
        2 => (stream.clone(), number).prop_map(|(stream, number)| frame(frame::RST_STREAM, 0, stream, &number.to_be_bytes())),
        2 => pairs.prop_map(|pairs| settings(&pairs)),
        1 => (flags.clone(), stream.clone(), vec(any::<u8>(), 0..20)).prop_map(|(flags, stream, block)| frame(frame::CONTINUATION, flags, stream, &block)),
        1 => (flags, stream, kind).prop_map(|(flags, stream, (kind, payload))| frame(kind, flags, stream, &payload)),
        1 => Just(frame(frame::PING, 0, 0, &[3; 8])),
    ]
}

fn size() -> impl Strategy<Value = usize> {
    prop_oneof![6 => 0usize..3000, 1 => 60_000usize..90_000]
}

/// How far a stream's other side has come.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Life {
    Open,
    Over,
}

/// An owner that does what a worker does, and looks at what it is told.
struct Owner {
    session: Session,
    lives: BTreeMap<u32, Life>,
    told: Vec<Event>,
}

impl Owner {
    fn new(role: Role) -> Owner {
        Owner { session: Session::new(role, 4096, true), lives: BTreeMap::new(), told: Vec::new() }
    }

    /// Everything up to the first error; the rest is for later.
    fn feed(&mut self, left: &mut Vec<u8>) -> Result<(), Code> {
        let mut at = 0;
        let mut outcome = Ok(());
        while at < left.len() {
            match self.session.feed(&left[at..]) {
                Ok(None) => break,
                Ok(Some((used, event))) => {
                    assert!(used > 0 && used <= left.len() - at, "it goes on");
                    at += used;
                    if let Some(event) = event {
                        self.on(event);
                    }
                }
                Err(code) => {
                    outcome = Err(code);
                    at = left.len();
                }
            }
            self.bounds();
        }
        left.drain(..at);
        outcome
    }

    fn bounds(&self) {
        let session = &self.session;
        assert!(session.streams.len() <= STREAMS && session.reset.len() <= REMEMBERED);
        assert!(session.text.len() <= crate::head::LONGEST);
        assert!(session.gone || session.receive <= ALL_WINDOW && session.send <= GREATEST);
        let fits = |stream: &Stream| stream.receive <= WINDOW && stream.send <= GREATEST;
        assert!(session.gone || session.streams.iter().all(fits));
        // Everything that has come is either given back or held by a stream that is open.
        let held: usize = session.streams.iter().map(|stream| stream.owed).sum();
        assert!(session.gone || session.receive + i64::from(session.unreturned) + held as i64 == ALL_WINDOW);
        let own = |stream: &Stream| stream.receive + i64::from(stream.unreturned) + stream.owed as i64 == WINDOW;
        assert!(session.gone || session.streams.iter().all(|stream| stream.remote_closed || own(stream)));
        assert!(session.block.as_ref().is_none_or(|block| block.bytes.len() <= 2 * 4096 + 2 * frame::PAYLOAD));
    }

    fn on(&mut self, event: Event) {
        match &event {
            Event::Head { stream, end, .. } => {
                let life = if *end { Life::Over } else { Life::Open };
                assert_eq!(self.lives.insert(*stream, life), None, "one head for each stream");
                self.session.set_owner(*stream, *stream);
                match stream % 3 {
                    0 => self.session.respond(*stream, b"HTTP/1.1 204 No Content\r\n\r\n", true),
                    1 => {
                        self.session.respond(*stream, b"HTTP/1.1 200 OK\r\n\r\n", false);
                        self.session.send(*stream, [&[b'x'; 3000], b"y"], stream % 2 == 1);
                    }
                    _ => {}
                }
                if stream % 3 == 0 {
                    self.session.close(*stream, Code::None);
                    self.lives.insert(*stream, Life::Over);
                }
            }
            Event::TooLarge { stream } => {
                assert_eq!(self.lives.insert(*stream, Life::Over), None);
                self.session.close(*stream, Code::None);
            }
            Event::Data { stream, range, end } => {
                assert_eq!(self.lives.get(stream), Some(&Life::Open), "no payload before the head or behind the end");
                // Not all of it gets so far.
                if range.len() % 2 == 0 {
                    self.session.give_back(*stream);
                }
                if *end {
                    self.lives.insert(*stream, Life::Over);
                }
            }
            Event::Trailers { stream } => {
                assert_eq!(self.lives.insert(*stream, Life::Over), Some(Life::Open));
            }
            Event::Reset { stream, .. } => {
                assert!(self.session.owner(*stream).is_none());
                self.lives.insert(*stream, Life::Over);
            }
            Event::Writable { .. } | Event::Leaving { .. } | Event::Settled => {}
        }
        self.told.push(event);
    }
}

/// What is fed at once does not matter: neither for what is told nor for what is answered.
fn pieces(bytes: &[u8], cuts: &[usize], role: Role) -> (Vec<Event>, Vec<u8>, Result<(), Code>) {
    let mut owner = Owner::new(role);
    let (mut left, mut rest, mut outcome) = (Vec::new(), bytes, Ok(()));
    let mut cuts = cuts.iter().cycle();
    while !rest.is_empty() && outcome.is_ok() {
        let length = cuts.next().map_or(rest.len(), |cut| (*cut).max(1)).min(rest.len());
        let (piece, after) = rest.split_at(length);
        left.extend_from_slice(piece);
        rest = after;
        outcome = owner.feed(&mut left);
        assert!(left.len() < frame::HEADER + frame::PAYLOAD + length, "what is kept is less than a frame and a read");
    }
    // When the last stream has gone nothing is held any more, whatever became of them.
    let streams: Vec<u32> = owner.session.streams.iter().map(|stream| stream.id).collect();
    let out = owner.session.out.clone();
    streams.into_iter().for_each(|id| owner.session.close(id, Code::Cancel));
    owner.bounds();
    (owner.told, out, outcome)
}

proptest! {
    #[test]
    fn any_frames_in_any_pieces(
        frames in vec(any_frame(), 0..40),
        tail in vec(any::<u8>(), 0..20),
        cuts in vec(1usize..3000, 1..6),
        begun in prop::bool::weighted(0.9),
        as_client in prop::bool::weighted(0.2),
    ) {
        let role = if as_client { Role::Client } else { Role::Server };
        let first = match (begun, as_client) {
            (false, _) => Vec::new(),
            (true, false) => [frame::PREFACE, &settings(&[])].concat(),
            (true, true) => settings(&[]),
        };
        let bytes = [first, frames.concat(), tail].concat();
        let whole = pieces(&bytes, &[], role);
        let split = pieces(&bytes, &cuts, role);
        prop_assert_eq!(&whole.0, &split.0);
        prop_assert_eq!(whole.2, split.2);
        prop_assert!(whole.1 == split.1, "the same answers");
        prop_assert!(whole.1.len() < bytes.len() * 20 + 400_000, "answers are bounded");
    }

    /// Two sessions and a wire between them that gives bytes in any pieces: every request arrives once and whole, with its
    /// trailers, whatever the windows, and so does every answer.
    #[test]
    fn what_is_sent_arrives(
        requests in vec((size(), size(), any::<bool>(), any::<bool>()), 1..6),
        window in prop_oneof![Just(1u32), 1u32..2000, 60_000u32..65_536],
        cuts in vec(1usize..20_000, 1..8),
        orders in vec(any::<bool>(), 1..8),
    ) {
        let mut client = Session::new(Role::Client, 4096, false);
        let mut server = Session::new(Role::Server, 4096, false);
        // Each side opens its streams' windows late, so that windows of every size are met.
        let late = |id: u32, out: &mut Vec<u8>| {
            let (first, second) = ((65_535 - window) / 2, (65_535 - window).div_ceil(2));
            [first, second].into_iter().filter(|more| *more > 0).for_each(|more| frame::put_window(id, more, out));
        };
        client.out.extend_from_slice(&settings(&[(4, window)]));
        server.out.extend_from_slice(&settings(&[(4, window)]));
        let byte = |id: u32, n: usize| (id as usize * 31 + n) as u8;
        let body = |id: u32, length: usize| (0..length).map(|n| byte(id, n)).collect::<Vec<u8>>();
        let mut wanted = BTreeMap::new();
        for (number, (asks, gets, trailers, back)) in requests.iter().enumerate() {
            let id = client.request(number as u32, b"POST / HTTP/1.1\r\nHost: h\r\n\r\n", false, false);
            client.send(id, [&body(id, *asks), b""], !trailers);
            late(id, &mut client.out);
            if *trailers {
                client.send_trailers(id, b"x-a: 1\r\n");
            }
            wanted.insert(id, (*asks, *gets, *trailers, *back));
        }
        let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
        let (mut at_server, mut at_client) = (BTreeMap::<u32, Vec<u8>>::new(), BTreeMap::<u32, Vec<u8>>::new());
        let (mut asked, mut answered) = (Vec::new(), Vec::new());
        let mut cut = cuts.iter().cycle();
        let mut order = orders.iter().cycle();
        let mut quiet = 0;
        while quiet < 6 {
            quiet += 1;
            // By chance; both sides when nothing has come of it.
            let towards_server = if quiet == 1 { *order.next().unwrap_or(&true) } else { quiet % 2 == 0 };
            let (from, to, wire) =
                if towards_server { (&mut client, &mut server, &mut to_server) } else { (&mut server, &mut client, &mut to_client) };
            wire.append(&mut from.out);
            from.note_drained();
            let length = (*cut.next().unwrap_or(&1)).min(wire.len());
            let mut piece: Vec<u8> = wire.clone();
            piece.truncate(length.max(wire.len().min(frame::HEADER + frame::PAYLOAD)));
            let mut at = 0;
            while at < piece.len() {
                let Some((used, event)) = to.feed(&piece[at..]).expect("no error") else { break };
                let input = &piece[at..at + used];
                at += used;
                quiet = 0;
                let Some(event) = event else { continue };
                let (bodies, ended) = if towards_server { (&mut at_server, &mut asked) } else { (&mut at_client, &mut answered) };
                match event {
                    Event::Head { stream, end, .. } => {
                        prop_assert!(bodies.insert(stream, Vec::new()).is_none() && !end);
                        if towards_server {
                            late(stream, &mut to.out);
                        }
                    }
                    Event::Data { stream, range, end } => {
                        bodies.get_mut(&stream).expect("a head first").extend_from_slice(&input[range.clone()]);
                        to.give_back(stream);
                        if end { ended.push((stream, false)); }
                    }
                    Event::Trailers { stream } => {
                        prop_assert_eq!(&to.text, b"x-a: 1\r\n");
                        ended.push((stream, true));
                    }
                    Event::Writable { .. } => {}
                    other => prop_assert!(false, "{:?}", other),
                }
                if towards_server && let Some((stream, _)) = asked.last().copied() && !at_client.contains_key(&(stream | 1 << 31)) {
                    at_client.insert(stream | 1 << 31, Vec::new());
                    let (_, gets, _, back) = wanted[&stream];
                    to.respond(stream, b"HTTP/1.1 200 OK\r\n\r\n", false);
                    to.send(stream, [&body(stream, gets), b""], !back);
                    if back {
                        to.send_trailers(stream, b"x-a: 1\r\n");
                    }
                }
            }
            wire.drain(..at);
        }
        asked.sort_unstable();
        answered.sort_unstable();
        let expected: Vec<(u32, bool)> = wanted.iter().map(|(id, one)| (*id, one.2)).collect();
        prop_assert_eq!(asked, expected);
        let expected: Vec<(u32, bool)> = wanted.iter().map(|(id, one)| (*id, one.3)).collect();
        prop_assert_eq!(answered, expected);
        for (id, (asks, gets, ..)) in &wanted {
            prop_assert!(at_server[id] == body(*id, *asks) && at_client[id] == body(*id, *gets));
            client.close(*id, Code::None);
            server.close(*id, Code::None);
        }
        prop_assert!(client.is_empty() && server.is_empty());
    }
}
