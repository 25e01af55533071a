//! Opening what cannot be read twice: standard input, named pipes, sockets.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use daemon::info;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with};

/// Wanted of a pipe; the most an unprivileged process gets by default (pipe(7)).
const PIPE: usize = 1 << 20;

/// What to open, ready to be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamKind {
    Stdin,
    Fifo(PathBuf),
    Socket { path: PathBuf, connections: usize },
    Syslog { udp: Option<String>, tcp: Option<String>, socket: Option<PathBuf>, connections: usize },
}

/// One thing to open. What two configurations have in common is handed over from one to the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Stdin,
    Fifo(PathBuf),
    Connections(PathBuf),
    Datagrams(PathBuf),
    Udp(String),
    Tcp(String),
}

/// A [`Place`], open.
#[derive(Debug)]
pub enum Opened {
    Door(Listener),
    Stream { name: String, reader: Reader, framing: Framing },
}

impl StreamKind {
    pub fn places(&self) -> Vec<Place> {
        match self {
            StreamKind::Stdin => vec![Place::Stdin],
            StreamKind::Fifo(path) => vec![Place::Fifo(path.clone())],
            StreamKind::Socket { path, .. } => vec![Place::Connections(path.clone())],
            StreamKind::Syslog { udp, tcp, socket, .. } => {
                let udp = udp.iter().cloned().map(Place::Udp);
                let socket = socket.iter().cloned().map(Place::Datagrams);
                udp.chain(socket).chain(tcp.iter().cloned().map(Place::Tcp)).collect()
            }
        }
    }

    pub(super) fn connections(&self) -> usize {
        match self {
            StreamKind::Socket { connections, .. } | StreamKind::Syslog { connections, .. } => *connections,
            StreamKind::Stdin | StreamKind::Fifo(_) => 0,
        }
    }
}

/// Where bytes come from.
#[derive(Debug)]
pub enum Reader {
    /// The pipe, and one of our own that its content is copied to.
    Pipe {
        pipe: OwnedFd,
        copy: (OwnedFd, OwnedFd),
        capacity: usize,
    },
    Plain(File),
    Unix(UnixStream),
    Tcp(TcpStream),
    Udp(UdpSocket),
    Datagram(UnixDatagram),
    /// A connection that ended. What came of it may wait long for its receiver, and others need the descriptor.
    Closed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    Lines,
    /// One message each.
    Datagrams,
    /// RFC 6587: a length, or up to a newline.
    Syslog,
}

#[derive(Debug)]
pub enum Listener {
    Unix(UnixListener, PathBuf),
    Tcp(TcpListener),
}

#[derive(Debug, thiserror::Error)]
#[error("failed to open source `{name}` ({what})")]
pub struct OpenError {
    name: String,
    what: String,
    #[source]
    source: io::Error,
}

impl Reader {
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(match self {
            Reader::Pipe { pipe, .. } => pipe.as_fd(),
            Reader::Plain(file) => file.as_fd(),
            Reader::Unix(stream) => stream.as_fd(),
            Reader::Tcp(stream) => stream.as_fd(),
            Reader::Udp(socket) => socket.as_fd(),
            Reader::Datagram(socket) => socket.as_fd(),
            Reader::Closed => return None,
        })
    }

    /// A pipe, with as much room as it gets.
    fn pipe(pipe: OwnedFd) -> io::Result<Reader> {
        let copy = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // Both are requests; what comes of them is asked.
        let _ = fcntl_setpipe_size(&pipe, PIPE);
        let _ = fcntl_setpipe_size(&copy.1, PIPE);
        let capacity = fcntl_getpipe_size(&pipe)?.min(fcntl_getpipe_size(&copy.1)?);
        Ok(Reader::Pipe { pipe, copy, capacity })
    }

    /// Readable, and whether the other side is gone.
    pub(super) fn state(&self) -> (bool, bool) {
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let Some(fd) = self.fd() else { return (false, true) };
        let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
        let _ = poll(&mut fds, Some(&zero));
        let events = fds[0].revents();
        (events.intersects(PollFlags::IN), events.intersects(PollFlags::HUP | PollFlags::ERR))
    }
}

/// Opens a place; `source` is its source's name.
pub fn open(place: &Place, source: &str) -> Result<Opened, OpenError> {
    let failed = |what: String| move |error| OpenError { name: source.to_owned(), what, source: error };
    let lines = |name: String, reader| Opened::Stream { name, reader, framing: Framing::Lines };
    let datagrams = |name: String, reader| Opened::Stream { name, reader, framing: Framing::Datagrams };
    Ok(match place {
        Place::Stdin => lines("stdin".to_owned(), stdin().map_err(failed("standard input".to_owned()))?),
        Place::Fifo(path) => {
            let name = path.display().to_string();
            lines(name.clone(), fifo(path).map_err(failed(name))?)
        }
        Place::Connections(path) => {
            let listener = listen_unix(path).map_err(failed(path.display().to_string()))?;
            Opened::Door(Listener::Unix(listener, path.clone()))
        }
        Place::Datagrams(path) => {
            let name = path.display().to_string();
            datagrams(name.clone(), Reader::Datagram(listen_datagrams(path).map_err(failed(name))?))
        }
        Place::Udp(address) => {
            let bound = UdpSocket::bind(with_host(address)).and_then(|socket| {
                socket.set_nonblocking(true)?;
                Ok(socket)
            });
            let bound = bound.map_err(failed(format!("UDP {address}")))?;
            let at = bound.local_addr().map_or_else(|_| address.clone(), |at| at.to_string());
            info!("taking datagrams", source = source, address = at);
            datagrams(format!("udp://{at}"), Reader::Udp(bound))
        }
        Place::Tcp(address) => {
            let listener = TcpListener::bind(with_host(address)).and_then(|listener| {
                listener.set_nonblocking(true)?;
                Ok(listener)
            });
            let listener = listener.map_err(failed(format!("TCP {address}")))?;
            let at = listener.local_addr().map_or_else(|_| address.clone(), |at| at.to_string());
            info!("taking connections", source = source, address = at);
            Opened::Door(Listener::Tcp(listener))
        }
    })
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Listener::Unix(_, path) = self {
            // It may be gone already.
            let _ = fs::remove_file(path);
        }
    }
}

/// `:514` means every address.
fn with_host(address: &str) -> String {
    if address.starts_with(':') { format!("0.0.0.0{address}") } else { address.to_owned() }
}

fn stdin() -> io::Result<Reader> {
    let fd = io::stdin().as_fd().try_clone_to_owned()?;
    let file = File::from(fd);
    if file.metadata()?.file_type().is_fifo() { Reader::pipe(file.into()) } else { Ok(Reader::Plain(file)) }
}

fn fifo(path: &Path) -> io::Result<Reader> {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    if !path.exists() {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::WGRP;
        mknodat(CWD, path, FileType::Fifo, mode, 0)?;
    }
    // For writing too: without it every writer that leaves would be the end, and a writer that comes while nobody reads
    // would be killed or block.
    let file = OpenOptions::new().read(true).write(true).custom_flags(libc_nonblock()).open(path)?;
    if !file.metadata()?.file_type().is_fifo() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "is no named pipe"));
    }
    Reader::pipe(file.into())
}

fn libc_nonblock() -> i32 {
    i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0)
}

fn listen_unix(path: &Path) -> io::Result<UnixListener> {
    make_way(path, || UnixStream::connect(path).map(drop))?;
    let listener = UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn listen_datagrams(path: &Path) -> io::Result<UnixDatagram> {
    make_way(path, || UnixDatagram::unbound()?.connect(path))?;
    let socket = UnixDatagram::bind(path)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Removes a socket that nobody listens to.
fn make_way(path: &Path, connect: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    match connect() {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        _ => Ok(()),
    }
}
