//! Handing listening sockets to a new process, so that a restart loses no connection: the kernel's queue of connections
//! that nobody has accepted yet belongs to the socket, and the socket goes on.
//!
//! ```text
//! new                      the command socket                      old
//!  "hand-over 1\n"  ──────────────────────────────────────────────▶
//!                   ◀──────────  a name and a descriptor, each (SCM_RIGHTS, unix(7))
//!                   ◀──────────────────────────────────────  "done\n"
//!  builds, serves, becomes ready                        serves as before
//!  "ready\n"        ──────────────────────────────────────────────▶
//!                                 takes no more, ends with its last connection
//! ```
//! If the new one ends before it is ready, nothing has happened.

use std::collections::HashMap;
use std::io::{self, IoSlice, IoSliceMut, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};

/// What a connection to the command socket begins with if it wants the sockets; no HTTP method does.
pub(crate) const ASKING: &[u8] = b"hand-over 1\n";
const DONE: &str = "done";
pub(crate) const READY: &[u8] = b"ready\n";
/// For one side to do its next step.
const PATIENCE: Duration = Duration::from_secs(10);

/// Sockets that another process has handed over, by what they are for. Whoever takes one owns it; the rest is closed.
#[derive(Debug, Default)]
pub struct Inherited {
    sockets: Mutex<HashMap<String, OwnedFd>>,
}

impl Inherited {
    pub fn take(&self, name: &str) -> Option<OwnedFd> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner).remove(name)
    }

    /// All whose name begins with `prefix`, with the rest of their names.
    pub fn take_all(&self, prefix: &str) -> Vec<(String, OwnedFd)> {
        let mut sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        let names: Vec<String> = sockets.keys().filter(|name| name.starts_with(prefix)).cloned().collect();
        names.into_iter().filter_map(|name| Some((name[prefix.len()..].to_owned(), sockets.remove(&name)?))).collect()
    }
}

/// What the old process has given, and the connection on which it waits for the word.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) inherited: Inherited,
    pub(crate) stream: UnixStream,
}

/// Why nothing could be taken over although somebody is there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TakeError {
    #[error("failed to ask for the sockets")]
    Ask(#[source] io::Error),
    #[error("failed to receive the sockets")]
    Receive(#[source] io::Error),
    #[error("the running process does not hand over: {0}")]
    Refused(String),
}

/// Asks whoever listens at `path`; `None` if nobody does.
pub(crate) fn take(path: &Path) -> Result<Option<Taken>, TakeError> {
    let mut stream = match UnixStream::connect(path) {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(TakeError::Ask(error)),
    };
    let patient = stream.set_read_timeout(Some(PATIENCE)).and_then(|()| stream.write_all(ASKING));
    patient.map_err(TakeError::Ask)?;
    let (mut text, mut sockets) = (Vec::new(), Vec::new());
    while !text.ends_with(b"done\n") {
        let length = receive(&stream, &mut text, &mut sockets).map_err(TakeError::Receive)?;
        if length == 0 {
            return Err(TakeError::Refused(String::from_utf8_lossy(&text).trim().to_owned()));
        }
    }
    let text = String::from_utf8_lossy(&text);
    let names: Vec<&str> = text.lines().filter(|line| *line != DONE).collect();
    if names.len() != sockets.len() {
        return Err(TakeError::Refused(format!("{} names for {} sockets", names.len(), sockets.len())));
    }
    let sockets = names.into_iter().map(str::to_owned).zip(sockets).collect();
    Ok(Some(Taken { inherited: Inherited { sockets: Mutex::new(sockets) }, stream }))
}

fn receive(stream: &UnixStream, text: &mut Vec<u8>, sockets: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut bytes = [0; 1024];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let parts = &mut [IoSliceMut::new(&mut bytes)];
    let received = rustix::net::recvmsg(stream, parts, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(more) = message {
            sockets.extend(more);
        }
    }
    text.extend_from_slice(&bytes[..received.bytes]);
    Ok(received.bytes)
}

/// Gives all sockets away; they stay open here, too.
pub(crate) fn give(stream: &UnixStream, sockets: &[(String, OwnedFd)]) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    for (name, socket) in sockets {
        let line = format!("{name}\n");
        let borrowed = [socket.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&borrowed));
        rustix::net::sendmsg(stream, &[IoSlice::new(line.as_bytes())], &mut control, SendFlags::NOSIGNAL)?;
    }
    (&*stream).write_all(format!("{DONE}\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_connection_that_waited_is_accepted_by_the_one_who_took_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sock");
        assert!(take(&path).unwrap().is_none());
        let commands = UnixListener::bind(&path).unwrap();
        let old = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = old.local_addr().unwrap();
        let giver = std::thread::spawn(move || {
            let (stream, _) = commands.accept().unwrap();
            let mut asking = [0; ASKING.len()];
            io::Read::read_exact(&mut &stream, &mut asking).unwrap();
            assert_eq!(asking, ASKING);
            let _waits = TcpStream::connect(address).unwrap();
            let another = || OwnedFd::from(old.try_clone().unwrap());
            let many = (0..20).map(|n| (format!("other {n}"), another()));
            let all: Vec<_> = many.chain([("listener a b".to_owned(), another())]).collect();
            give(&stream, &all).unwrap();
        });
        let taken = take(&path).unwrap().unwrap();
        giver.join().unwrap();
        let listeners = taken.inherited.take_all("listener ");
        assert_eq!(listeners[0].0, "a b");
        let listener = TcpListener::from(listeners.into_iter().next().unwrap().1);
        listener.accept().unwrap();
        assert!(taken.inherited.take("other 19").is_some() && taken.inherited.take("other 20").is_none());
    }

    #[test]
    fn somebody_who_does_not_know_how_refuses() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sock");
        let commands = UnixListener::bind(&path).unwrap();
        let giver = std::thread::spawn(move || {
            let (mut stream, _) = commands.accept().unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n").unwrap();
        });
        assert!(matches!(take(&path), Err(TakeError::Refused(_) | TakeError::Receive(_))));
        giver.join().unwrap();
    }
}
