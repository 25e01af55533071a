//! Sources that cannot be read twice: standard input, named pipes, sockets.
//!
//! A pipe is looked at with tee(2) first: its bytes are framed and queued (which means written to the spool) before they
//! are taken out, so that a killed agent leaves in the pipe what it had not stored. What a socket has delivered is out of
//! the sender's hands: it can only be stored as soon as it is read.

use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use daemon::warn;
use record::queue::Position;
use record::{Batch, Origin};
use rustix::pipe::{SpliceFlags, tee};

use super::Follower;
use super::open::{Framing, Listener, OpenError, Opened, Place, Reader, StreamKind, open};
use super::read::{BLOCKED, now};
use crate::encoding::Encoding;
use crate::frame::End;
use crate::receipt::Line;

/// Read at once.
const CHUNK: usize = 256 * 1024;
/// Datagrams in one batch.
const DATAGRAMS: usize = 256;
/// Without news of a pipe whose last line is not finished, it is looked at again after this long.
const GLANCE: Duration = Duration::from_millis(25);
/// Before another try to take a connection that the kernel refused: there were no descriptors left, or no memory.
const REFUSED: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Input {
    source: usize,
    place: Place,
    origin: Arc<Origin>,
    reader: Reader,
    framing: Framing,
    /// Bytes taken out and queued, and those taken out only (never of a pipe).
    position: u64,
    pending: Vec<u8>,
    /// Bytes that were looked at and are not finished.
    waiting: usize,
    parked: Option<Batch>,
    /// Bytes that are still in the pipe though they are in a batch.
    stored: usize,
    grown: Instant,
    /// When it was looked at without finding a whole line.
    glanced: Option<Instant>,
    idled: bool,
    ended: bool,
}

impl Input {
    /// Closed, and everything of it is queued.
    fn is_over(&self) -> bool {
        self.ended && self.parked.is_none()
    }

    fn is_connection(&self) -> bool {
        matches!(self.place, Place::Connections(_) | Place::Tcp(_))
    }
}

/// What is open when a run begins: handed over by the one before it, or opened for it.
#[derive(Debug, Default)]
pub struct Streams {
    doors: Vec<Door>,
    inputs: Vec<Input>,
    pub(crate) opened: Vec<(Place, Opened)>,
}

impl Streams {
    pub(crate) fn take_over(&mut self, others: Streams) {
        self.doors.extend(others.doors);
        self.inputs.extend(others.inputs);
    }
}

#[derive(Debug)]
pub(super) struct Door {
    source: usize,
    place: Place,
    listener: Listener,
    connections: usize,
    /// When the kernel last refused a connection that waits.
    refused: Option<Instant>,
}

impl Door {
    /// Whether somebody may come in now.
    fn is_open(&self, inputs: &[Input]) -> bool {
        let inside = inputs.iter().filter(|input| input.place == self.place && !input.ended).count();
        inside < self.connections && self.refused.is_none_or(|at| at.elapsed() >= REFUSED)
    }
}

impl Follower {
    /// Opens the sources that are no files, as far as they are not handed over.
    pub fn open_streams(&mut self, mut streams: Streams) -> Result<(), OpenError> {
        for index in 0..self.sources.len() {
            let Some(kind) = &self.sources[index].stream else { continue };
            let (places, connections) = (kind.places(), kind.connections());
            for place in places {
                self.adopt(index, &place, &mut streams);
                let is_open = match place {
                    Place::Connections(_) | Place::Tcp(_) => self.doors.iter().any(|door| door.place == place),
                    _ => self.inputs.iter().any(|input| input.place == place),
                };
                if is_open {
                    continue;
                }
                let at = streams.opened.iter().position(|(opened, _)| *opened == place);
                let opened = match at {
                    Some(at) => streams.opened.remove(at).1,
                    None => open(&place, &self.sources[index].name)?,
                };
                match opened {
                    Opened::Door(listener) => {
                        self.doors.push(Door { source: index, place, listener, connections, refused: None });
                    }
                    Opened::Stream { name, reader, framing } => self.add_stream(index, place, name, reader, framing),
                }
            }
        }
        Ok(())
    }

    /// Goes on with what an earlier run had open.
    fn adopt(&mut self, source: usize, place: &Place, streams: &mut Streams) {
        let connections = self.sources[source].stream.as_ref().map_or(0, StreamKind::connections);
        for door in streams.doors.extract_if(.., |door| door.place == *place) {
            self.doors.push(Door { source, connections, ..door });
        }
        for mut input in streams.inputs.extract_if(.., |input| input.place == *place) {
            (input.source, input.origin) = (source, self.stream_origin(source, input.origin.id, &input.origin.name));
            self.past.retain(|saved| saved.id != input.origin.id);
            self.queue.register(input.origin.id, Position::default());
            self.next_id = self.next_id.max(input.origin.id + 1);
            self.inputs.push(input);
        }
    }

    /// Queues what is left of streams that nobody goes on with.
    pub fn finish_streams(&mut self, wanted: &[Place]) {
        for index in 0..self.inputs.len() {
            let input = &mut self.inputs[index];
            if let Some(batch) = input.parked.take() {
                input.parked = self.queue.push(batch).err();
            }
            if !wanted.contains(&input.place) && !input.ended && input.parked.is_none() && !input.pending.is_empty() {
                self.queue_pending(index, End::Final);
            }
        }
    }

    /// The streams that somebody goes on with. What found no room yet goes along.
    pub fn hand_over(&mut self, wanted: &[Place]) -> Streams {
        let is_wanted = |place: &Place| wanted.contains(place);
        let doors = self.doors.extract_if(.., |door| is_wanted(&door.place)).collect();
        let inputs = self.inputs.extract_if(.., |input| is_wanted(&input.place)).collect();
        Streams { doors, inputs, opened: Vec::new() }
    }

    pub fn has_streams(&self) -> bool {
        !self.inputs.is_empty()
    }

    fn stream_origin(&self, source: usize, id: u64, name: &str) -> Arc<Origin> {
        let mut fields = self.sources[source].fields.clone();
        fields.add("source", &self.sources[source].name);
        let name = name.to_owned();
        Arc::new(Origin { id, name, fields: fields.json, labels: fields.labels, identity: Vec::new() })
    }

    fn add_stream(&mut self, source: usize, place: Place, name: String, reader: Reader, framing: Framing) {
        let id = self.next_id;
        self.next_id += 1;
        let origin = self.stream_origin(source, id, &name);
        self.queue.register(id, Position::default());
        self.inputs.push(Input {
            source,
            place,
            origin,
            reader,
            framing,
            position: 0,
            pending: Vec::new(),
            waiting: 0,
            parked: None,
            stored: 0,
            grown: Instant::now(),
            glanced: None,
            idled: false,
            ended: false,
        });
    }

    fn accept(&mut self) {
        for index in 0..self.doors.len() {
            while self.doors[index].is_open(&self.inputs) {
                let door = &mut self.doors[index];
                let accepted = match &door.listener {
                    Listener::Unix(listener, path) => listener.accept().and_then(|(stream, _)| {
                        stream.set_nonblocking(true)?;
                        Ok((path.display().to_string(), Reader::Unix(stream), Framing::Lines))
                    }),
                    Listener::Tcp(listener) => listener.accept().and_then(|(stream, peer)| {
                        stream.set_nonblocking(true)?;
                        Ok((format!("tcp://{peer}"), Reader::Tcp(stream), Framing::Syslog))
                    }),
                };
                match accepted {
                    Ok((name, reader, framing)) => {
                        let (source, place) = (door.source, door.place.clone());
                        door.refused = None;
                        self.add_stream(source, place, name, reader, framing);
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    // It left while it waited (accept(2)).
                    Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                    Err(error) => {
                        if door.refused.is_none() {
                            let source = &self.sources[door.source].name;
                            warn!("cannot take a connection; trying again", source = source, reason = error);
                        }
                        door.refused = Some(Instant::now());
                    }
                }
            }
        }
    }

    /// Gives every stream a turn. Returns the bytes queued, and whether the queue was full.
    pub(super) fn read_streams(&mut self, last: bool) -> (usize, bool) {
        self.accept();
        let mut total = 0;
        for index in 0..self.inputs.len() {
            if self.inputs[index].is_over() {
                continue;
            }
            match self.stream_turn(index, last) {
                Ok(Some(bytes)) => total += bytes,
                Ok(None) => return (total, true),
                Err(error) => {
                    let input = &mut self.inputs[index];
                    warn!("failed to read; the stream is closed", stream = input.origin.name, reason = error);
                    input.ended = true;
                    // What is there is delivered.
                    if !input.pending.is_empty() {
                        self.queue_pending(index, End::Final);
                    }
                }
            }
            let input = &mut self.inputs[index];
            if input.ended && input.is_connection() {
                input.reader = Reader::Closed;
            }
        }
        (total, false)
    }

    /// `None` when there is no room.
    fn stream_turn(&mut self, index: usize, last: bool) -> io::Result<Option<usize>> {
        if let Some(batch) = self.inputs[index].parked.take() {
            if let Err(batch) = self.queue.push(batch) {
                self.inputs[index].parked = Some(batch);
                self.queue.pause(BLOCKED);
                return Ok(None);
            }
            self.take_out(index)?;
        }
        if self.inputs[index].ended {
            return Ok(Some(0));
        }
        if !self.queue.wait_for_room(BLOCKED, true) {
            return Ok(None);
        }
        match (&self.inputs[index].reader, self.inputs[index].framing) {
            (Reader::Pipe { .. }, _) => self.pipe_turn(index, last),
            (_, Framing::Datagrams) => self.datagram_turn(index),
            _ => self.plain_turn(index, last),
        }
    }

    fn pipe_turn(&mut self, index: usize, last: bool) -> io::Result<Option<usize>> {
        let input = &mut self.inputs[index];
        let idle = self.sources[input.source].idle;
        let max_line = self.sources[input.source].framer.max_line;
        let Reader::Pipe { pipe, copy, capacity } = &input.reader else { return Ok(Some(0)) };
        let (_, gone) = input.reader.state();
        let there = usize::try_from(rustix::io::ioctl_fionread(pipe)?).unwrap_or(0);
        if there > input.waiting {
            input.grown = Instant::now();
            input.idled = false;
        }
        if there == 0 {
            input.ended = gone;
            input.glanced = None;
            return Ok(Some(0));
        }
        let length = there.min(*capacity).min(CHUNK.max(max_line + 4096));
        let full = length == there && there + 4096 >= *capacity || length < there;
        let end = match () {
            () if (last || gone) && length == there => End::Final,
            () if full => End::Full,
            () if input.grown.elapsed() >= idle => End::Idle,
            () => End::Open,
        };
        if there == input.waiting && (end == End::Open || (end == End::Idle && input.idled)) {
            input.glanced = Some(Instant::now());
            return Ok(Some(0));
        }
        self.buffer.resize(self.buffer.len().max(length), 0);
        let copied = tee(pipe, &copy.1, length, SpliceFlags::NONBLOCK)?;
        let mut filled = 0;
        while filled < copied {
            filled += rustix::io::read(&copy.0, &mut self.buffer[filled..copied])?;
        }
        let source = &self.sources[input.source];
        let mut batch = Batch::new(Arc::clone(&input.origin), input.position);
        let encoding = Encoding::given(source.encoding);
        let used = source.framer.frame(encoding, &self.buffer[..copied], end, now(), &mut batch);
        input.idled |= end == End::Idle;
        input.waiting = there - used;
        input.glanced = (used == 0).then(Instant::now);
        if used == 0 {
            return Ok(Some(0));
        }
        batch.end += used as u64;
        input.position += used as u64;
        input.stored = used;
        if let Err(batch) = self.queue.push(self.stages.run(batch)) {
            // Not taken out of the pipe before it is stored. The stages must not see it twice, so the batch is kept.
            input.parked = Some(batch);
            return Ok(None);
        }
        self.take_out(index)?;
        Ok(Some(used))
    }

    /// Takes what is stored out of its pipe.
    fn take_out(&mut self, index: usize) -> io::Result<()> {
        let input = &mut self.inputs[index];
        let Reader::Pipe { pipe, .. } = &input.reader else { return Ok(()) };
        self.buffer.resize(self.buffer.len().max(input.stored), 0);
        while input.stored > 0 {
            match rustix::io::read(pipe, &mut self.buffer[..input.stored])? {
                0 => break,
                length => input.stored -= length,
            }
        }
        Ok(())
    }

    fn plain_turn(&mut self, index: usize, last: bool) -> io::Result<Option<usize>> {
        let input = &mut self.inputs[index];
        let idle = self.sources[input.source].idle;
        let mut over = false;
        // A readiness that is asked for keeps a shared standard input blocking, as others expect it.
        let (readable, gone) = input.reader.state();
        if readable || gone {
            let held = input.pending.len();
            input.pending.resize(held + CHUNK, 0);
            let room = &mut input.pending[held..];
            let read = match &mut input.reader {
                Reader::Plain(file) => file.read(room),
                Reader::Unix(stream) => stream.read(room),
                Reader::Tcp(stream) => stream.read(room),
                _ => Ok(0),
            };
            let length = match read {
                Ok(length) => {
                    over = length == 0;
                    length
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => 0,
                Err(error) => {
                    input.pending.truncate(held);
                    return Err(error);
                }
            };
            input.pending.truncate(held + length);
            if length > 0 {
                input.grown = Instant::now();
                input.idled = false;
            }
        }
        let end = match () {
            () if over || last => End::Final,
            () if input.pending.len() >= CHUNK.max(self.sources[input.source].framer.max_line + 4096) => End::Full,
            () if input.grown.elapsed() >= idle => End::Idle,
            () => End::Open,
        };
        let seen = input.pending.len() == input.waiting && (end == End::Open || (end == End::Idle && input.idled));
        if seen && !over {
            return Ok(Some(0));
        }
        let used = self.queue_pending(index, end);
        let input = &mut self.inputs[index];
        input.idled |= end == End::Idle;
        if over && input.parked.is_none() {
            input.ended = true;
        }
        Ok(if input.parked.is_some() { None } else { Some(used) })
    }

    /// Frames and queues what was read.
    fn queue_pending(&mut self, index: usize, end: End) -> usize {
        let input = &mut self.inputs[index];
        let source = &self.sources[input.source];
        let mut batch = Batch::new(Arc::clone(&input.origin), input.position);
        let used = match input.framing {
            Framing::Syslog => {
                let mut at = 0;
                while let Some((start, length)) = syslog_message(&input.pending[at..], end == End::Final) {
                    source.framer.message(&input.pending[at + start..at + start + length], now(), &mut batch);
                    at += start + length;
                }
                // Too long to wait for its end.
                if at == 0 && end == End::Full {
                    source.framer.message(&input.pending, now(), &mut batch);
                    at = input.pending.len();
                }
                at
            }
            _ => source.framer.frame(Encoding::given(source.encoding), &input.pending, end, now(), &mut batch),
        };
        if used > 0 {
            batch.end += used as u64;
            input.position += used as u64;
            input.pending.drain(..used);
            input.pending.shrink_to(CHUNK);
            input.parked = self.queue.push(self.stages.run(batch)).err();
        }
        input.waiting = input.pending.len();
        used
    }

    fn datagram_turn(&mut self, index: usize) -> io::Result<Option<usize>> {
        let input = &mut self.inputs[index];
        let source = &self.sources[input.source];
        let mut batch = Batch::new(Arc::clone(&input.origin), input.position);
        self.buffer.resize(self.buffer.len().max(CHUNK), 0);
        let receive = |buffer: &mut [u8]| match &input.reader {
            Reader::Udp(socket) => socket.recv(buffer),
            Reader::Datagram(socket) => socket.recv(buffer),
            _ => Err(io::ErrorKind::WouldBlock.into()),
        };
        let total = take_datagrams(receive, &mut self.buffer, |message| {
            source.framer.message(message, now(), &mut batch);
        })?;
        if total > 0 {
            input.grown = Instant::now();
            input.position += total as u64;
            batch.end += total as u64;
            input.parked = self.queue.push(self.stages.run(batch)).err();
        }
        Ok(if input.parked.is_some() { None } else { Some(total) })
    }

    /// How long streams need not be looked at without an event.
    pub(super) fn stream_patience(&self) -> Duration {
        let open = self.inputs.iter().filter(|input| !input.ended);
        let times = open.filter_map(|input| {
            let glance = input.glanced.map(|_| GLANCE);
            let idle = (input.waiting > 0 && !input.idled)
                .then(|| self.sources[input.source].idle.saturating_sub(input.grown.elapsed()));
            [glance, idle].into_iter().flatten().min()
        });
        let refused = self.doors.iter().filter_map(|door| REFUSED.checked_sub(door.refused?.elapsed()));
        times.chain(refused).min().unwrap_or(Duration::MAX)
    }

    pub(super) fn streams_settled(&self, settle: Duration) -> bool {
        let quiet = |input: &Input| input.is_over() || (input.parked.is_none() && input.grown.elapsed() >= settle);
        self.inputs.iter().all(quiet)
    }

    /// There is nothing left to wait for: every source was a standard input, and it ended.
    pub fn is_over(&self) -> bool {
        !self.sources.is_empty()
            && self.sources.iter().all(|source| source.stream == Some(StreamKind::Stdin))
            && self.inputs.iter().all(Input::is_over)
    }

    /// Closed streams whose last record every sink has are forgotten.
    pub(super) fn let_streams_go(&mut self) {
        let (queue, finished) = (&self.queue, &mut self.finished);
        self.inputs.retain(|input| {
            let acknowledged = queue.acknowledged(input.origin.id).unwrap_or_default().end;
            let over = input.is_over() && acknowledged >= input.position && !queue.is_spooled(input.origin.id);
            // Standard input stays in the receipt; connections would fill it.
            let over = over && input.is_connection();
            if over {
                queue.forget(input.origin.id);
                finished.0 += 1;
                finished.1 += input.position;
            }
            !over
        });
    }

    pub(super) fn stream_lines(&self) -> impl Iterator<Item = Line> + '_ {
        self.inputs.iter().map(|input| Line {
            path: PathBuf::from(&input.origin.name),
            id: input.origin.id,
            written: input.position + input.pending.len().max(input.waiting) as u64,
            read: input.position,
            acknowledged: self.queue.acknowledged(input.origin.id).unwrap_or_default().end,
            gone: input.ended,
        })
    }

    /// Origins to be remembered, so that a spool knows what was delivered.
    pub(super) fn stream_origins(&self) -> impl Iterator<Item = (u64, &str, u64)> {
        self.inputs.iter().map(|input| (input.origin.id, input.origin.name.as_str(), input.position))
    }
}

/// Shows every datagram that is there to `take`, up to as many as a batch gets. Returns their bytes.
fn take_datagrams(
    mut receive: impl FnMut(&mut [u8]) -> io::Result<usize>,
    buffer: &mut [u8],
    mut take: impl FnMut(&[u8]),
) -> io::Result<usize> {
    let mut total = 0;
    for _ in 0..DATAGRAMS {
        match receive(buffer) {
            Ok(length) => {
                take(&buffer[..length]);
                total += length;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // What was taken is out of the sender's hands. An error that stays comes again.
            Err(_) if total > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(total)
}

/// What to wait for besides files: streams with something new in them, and doors.
pub(super) fn fds<'a>(inputs: &'a [Input], doors: &'a [Door]) -> impl Iterator<Item = BorrowedFd<'a>> {
    let new = inputs.iter().filter(|input| !input.ended && input.glanced.is_none());
    // At a door that lets nobody in now there would always be something new.
    let doors = doors.iter().filter(|door| door.is_open(inputs));
    let doors = doors.map(|door| match &door.listener {
        Listener::Unix(listener, _) => listener.as_fd(),
        Listener::Tcp(listener) => listener.as_fd(),
    });
    new.filter_map(|input| input.reader.fd()).chain(doors)
}

/// Where the first message begins and how long it is, with its end mark; RFC 6587 §3.4.
fn syslog_message(bytes: &[u8], last: bool) -> Option<(usize, usize)> {
    if bytes.first().is_some_and(|byte| (b'1'..=b'9').contains(byte)) {
        let digits = bytes.iter().take(8).position(|byte| !byte.is_ascii_digit());
        if let Some(end) = digits.filter(|end| bytes[*end] == b' ') {
            let length: usize = std::str::from_utf8(&bytes[..end]).ok()?.parse().ok()?;
            let start = end + 1;
            let whole = bytes.len() >= start + length;
            return match (whole, last) {
                (true, _) => Some((start, length)),
                (false, true) if bytes.len() > start => Some((start, bytes.len() - start)),
                _ => None,
            };
        }
        if digits.is_none() && bytes.len() < 8 && !last {
            return None;
        }
    }
    match memchr::memchr(b'\n', bytes) {
        Some(newline) => Some((0, newline + 1)),
        None => (last && !bytes.is_empty()).then_some((0, bytes.len())),
    }
}

#[cfg(test)]
mod tests;
