//! One check of one endpoint: connecting, HTTP/1.1 or HTTP/2, or gRPC's health service (grpc.health.v1), over TLS if the
//! backend has it.

use std::io::{self, Read, Write};
use std::time::Instant;

use dataplane::backend::Settings;
use dataplane::h2::session::Role;
use dataplane::h2::{Event, Session};
use rustls::{ClientConnection, StreamOwned};

use crate::config::ActiveHealth;

/// More than this of an answer is not looked at.
const MOST: usize = 64 << 10;

pub(super) fn ask<S: Read + Write>(
    mut stream: S,
    host: &str,
    health: &ActiveHealth,
    settings: &Settings,
    until: Instant,
) -> io::Result<bool> {
    if let Some(version) = settings.announce {
        let mut header = Vec::new();
        dataplane::announce::write_local(version, &mut header);
        stream.write_all(&header)?;
    }
    match &settings.tls {
        None => speak(stream, host, health, settings, until),
        Some(outward) => {
            let connection = ClientConnection::new(outward.config.clone(), outward.name.clone());
            let mut stream = StreamOwned::new(connection.map_err(io::Error::other)?, stream);
            // The certificate is looked at, too, when nothing is asked.
            while stream.conn.is_handshaking() {
                stream.conn.complete_io(&mut stream.sock)?;
            }
            speak(stream, host, health, settings, until)
        }
    }
}

fn speak<S: Read + Write>(
    mut stream: S,
    host: &str,
    health: &ActiveHealth,
    settings: &Settings,
    until: Instant,
) -> io::Result<bool> {
    let host = health.host.as_deref().unwrap_or(host);
    let https = settings.tls.is_some();
    if let Some(service) = &health.grpc_service {
        let head = format!(
            "POST /grpc.health.v1.Health/Check HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/grpc\r\nTE: trailers\r\nUser-Agent: outrigger-proxy\r\n\r\n"
        );
        let answer = exchange(&mut stream, head.as_bytes(), Some(&message(service)), https, until)?;
        return Ok(answer.is_serving());
    }
    let Some(path) = &health.path else { return Ok(true) };
    if settings.http2 {
        let head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: outrigger-proxy\r\n\r\n");
        let answer = exchange(&mut stream, head.as_bytes(), None, https, until)?;
        return Ok(matches!(answer.status.first(), Some(b'2' | b'3')));
    }
    let text =
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: outrigger-proxy\r\nConnection: close\r\n\r\n");
    stream.write_all(text.as_bytes())?;
    stream.flush()?;
    let mut line = [0; 12];
    stream.read_exact(&mut line)?;
    // The rest is read so that the application can finish; how much there is, is its business.
    let mut rest = [0; 4096];
    let _ = stream.read(&mut rest);
    Ok(line.starts_with(b"HTTP/1.") && matches!(line[9], b'2' | b'3'))
}

/// `HealthCheckRequest { string service = 1 }`, framed (gRPC over HTTP/2, "Length-Prefixed-Message").
fn message(service: &str) -> Vec<u8> {
    let mut body = Vec::new();
    if !service.is_empty() {
        // The check has bounded the name to what one byte can count.
        body.extend_from_slice(&[0x0a, u8::try_from(service.len()).unwrap_or(0x7f)]);
        body.extend_from_slice(service.as_bytes());
    }
    let mut framed = vec![0];
    framed.extend_from_slice(&u32::try_from(body.len()).unwrap_or(0).to_be_bytes());
    framed.extend_from_slice(&body);
    framed
}

#[derive(Debug, Default)]
struct Answer {
    status: Vec<u8>,
    fields: Vec<u8>,
    body: Vec<u8>,
}

impl Answer {
    /// `HealthCheckResponse { ServingStatus status = 1 }` is SERVING, which is 1, and the call has succeeded.
    fn is_serving(&self) -> bool {
        let succeeded = self.fields.split(|byte| *byte == b'\n').any(|line| line.trim_ascii() == b"grpc-status: 0");
        self.status == b"200" && succeeded && self.body.get(..5) == Some(&[0, 0, 0, 0, 2]) && self.body[5..] == [8, 1]
    }
}

/// One request over a new connection of HTTP/2.
fn exchange<S: Read + Write>(
    stream: &mut S,
    head: &[u8],
    body: Option<&[u8]>,
    https: bool,
    until: Instant,
) -> io::Result<Answer> {
    let mut session = Session::new(Role::Client, 16 << 10, false);
    let id = session.request(0, head, https, body.is_none());
    if let Some(body) = body {
        session.send(id, [body, b""], true);
    }
    let mut answer = Answer::default();
    let mut input: Vec<u8> = Vec::new();
    let mut room = [0; 4096];
    loop {
        stream.write_all(&session.out)?;
        stream.flush()?;
        session.out.clear();
        if Instant::now() >= until || input.len() > MOST || answer.body.len() > MOST {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let length = stream.read(&mut room)?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        input.extend_from_slice(&room[..length]);
        let mut at = 0;
        loop {
            let fed = session.feed(&input[at..]).map_err(|code| io::Error::other(format!("{code:?}")))?;
            let Some((used, event)) = fed else { break };
            let frame = at..at + used;
            at += used;
            let ended = match event {
                Some(Event::Head { end, .. }) => {
                    answer.status = session.text.get(9..12).unwrap_or_default().to_vec();
                    answer.fields.extend_from_slice(&session.text);
                    end && answer.status.first() != Some(&b'1')
                }
                Some(Event::Data { range, end, .. }) => {
                    answer.body.extend_from_slice(&input[frame][range]);
                    end
                }
                Some(Event::Trailers { .. }) => {
                    answer.fields.extend_from_slice(&session.text);
                    true
                }
                Some(Event::Reset { .. }) => return Err(io::ErrorKind::ConnectionReset.into()),
                _ => false,
            };
            if ended {
                return Ok(answer);
            }
        }
        input.drain(..at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_answers() {
        assert_eq!(message(""), [0, 0, 0, 0, 0]);
        assert_eq!(message("ab"), [0, 0, 0, 0, 4, 10, 2, b'a', b'b']);
        let answer = |status: &[u8], fields: &[u8], body: &[u8]| Answer {
            status: status.to_vec(),
            fields: fields.to_vec(),
            body: body.to_vec(),
        };
        assert!(answer(b"200", b"grpc-status: 0\r\n", &[0, 0, 0, 0, 2, 8, 1]).is_serving());
        assert!(!answer(b"200", b"grpc-status: 0\r\n", &[0, 0, 0, 0, 2, 8, 2]).is_serving());
        assert!(!answer(b"200", b"grpc-status: 5\r\n", &[]).is_serving());
        assert!(!answer(b"200", b"grpc-status: 0\r\n", &[0, 0, 0, 0, 0]).is_serving());
    }

    /// A server of one connection that says `status` of every service, as gRPC says it.
    fn serve(mut stream: std::os::unix::net::UnixStream, status: u8) {
        let mut session = Session::new(Role::Server, 16 << 10, false);
        let (mut input, mut room) = (Vec::new(), [0; 4096]);
        while let Ok(length @ 1..) = stream.read(&mut room) {
            input.extend_from_slice(&room[..length]);
            let mut at = 0;
            while let Ok(Some((used, event))) = session.feed(&input[at..]) {
                at += used;
                if let Some(Event::Data { stream: id, end: true, .. }) = event {
                    let head = b"HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\n\r\n";
                    session.respond(id, head, false);
                    session.send(id, [&[0, 0, 0, 0, 2, 8, status], b""], false);
                    session.send_trailers(id, b"grpc-status: 0\r\n");
                }
            }
            input.drain(..at);
            let _ = stream.write_all(&session.out);
            session.out.clear();
        }
    }

    #[test]
    fn a_server_of_grpc_is_asked() {
        for (status, wanted) in [(1, true), (2, false)] {
            let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
            let server = std::thread::spawn(move || serve(theirs, status));
            let until = Instant::now() + std::time::Duration::from_secs(60);
            let head =
                b"POST /grpc.health.v1.Health/Check HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc\r\n\r\n";
            let answer = exchange(&mut ours, head, Some(&message("a.B")), false, until).unwrap();
            assert_eq!(answer.is_serving(), wanted, "{answer:?}");
            drop(ours);
            server.join().unwrap();
        }
    }
}
