//! The sockets: UDP and TCP on one address.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;

use super::answer::{Outcome, Transport, answer, refusal};
use super::upstream;
use super::zone::Zone;

/// Queries that wait for the host's resolvers; what comes beyond is told to try again.
const MOST_FORWARDED: usize = 256;
const MOST_CONNECTIONS: usize = 64;
/// RFC 7766 §6.2.3: an idle client is let go after a few seconds.
const IDLE: Duration = Duration::from_secs(10);
const BACKLOG: i32 = 64;

#[derive(Debug, thiserror::Error)]
#[error("failed to listen for DNS on {address}")]
pub struct BindError {
    address: SocketAddrV4,
    #[source]
    source: io::Error,
}

/// Answers queries from a zone that can be exchanged while it does.
#[derive(Debug, Clone)]
pub struct Resolver {
    zone: Arc<RwLock<Arc<Zone>>>,
    /// resolv.conf(5) of the host, read for each query that goes there: it changes while we run, and forwarding costs a
    /// hundred times more than reading it.
    resolv_conf: Arc<Path>,
    /// Never forwarded to.
    ours: Arc<[Ipv4Addr]>,
}

impl Resolver {
    /// Names outside the zone go to the name servers of the file `resolv_conf`, except those at `ours`: a host that asks
    /// us is not asked by us.
    pub fn new(zone: Zone, resolv_conf: &Path, ours: &[Ipv4Addr]) -> Self {
        Self { zone: Arc::new(RwLock::new(Arc::new(zone))), resolv_conf: resolv_conf.into(), ours: ours.into() }
    }

    /// From the next query on.
    pub fn set_zone(&self, zone: Zone) {
        *self.zone.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(zone);
    }

    fn zone(&self) -> Arc<Zone> {
        self.zone.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Binds UDP and TCP and serves from a task of the current `LocalSet` until the returned handle is aborted. The address
    /// need not exist yet (`IP_FREEBIND`, ip(7)): a pod gateway appears with the first pod. Where somebody else has the
    /// port (a resolver of the host on all its addresses), another one is taken; the one in use is returned.
    pub fn serve(&self, address: SocketAddrV4) -> Result<(u16, tokio::task::JoinHandle<()>), BindError> {
        let fail = |source: io::Error| BindError { address, source };
        let (port, datagrams, streams) = bind_both(address).map_err(fail)?;
        let datagrams = UdpSocket::from_std(datagrams.into()).map_err(fail)?;
        let streams = TcpListener::from_std(streams.into()).map_err(fail)?;
        let this = self.clone();
        let task = tokio::task::spawn_local(async move {
            let (forwards, datagrams) = (Arc::new(Semaphore::new(MOST_FORWARDED)), Rc::new(datagrams));
            tokio::join!(this.serve_datagrams(datagrams, &forwards), this.serve_streams(streams, &forwards));
        });
        Ok((port, task))
    }

    async fn serve_datagrams(&self, socket: Rc<UdpSocket>, forwards: &Arc<Semaphore>) {
        let mut buffer = vec![0; 4096];
        loop {
            let Ok((length, client)) = socket.recv_from(&mut buffer).await else {
                // An ICMP error of an earlier answer; nothing to do about it.
                tokio::task::yield_now().await;
                continue;
            };
            let query = &buffer[..length];
            match answer(&self.zone(), query, Transport::Udp) {
                Outcome::Answer(bytes) => drop(socket.send_to(&bytes, client).await),
                Outcome::Ignore => {}
                Outcome::Forward(message) => {
                    let Ok(permit) = forwards.clone().try_acquire_owned() else {
                        drop(socket.send_to(&refusal(&message, ResponseCode::ServFail, Transport::Udp), client).await);
                        continue;
                    };
                    let (this, query, socket) = (self.clone(), query.to_vec(), socket.clone());
                    tokio::task::spawn_local(async move {
                        let answer = this.forward(&query, Transport::Udp).await;
                        let answer =
                            answer.unwrap_or_else(|| refusal(&message, ResponseCode::ServFail, Transport::Udp));
                        drop(socket.send_to(&answer, client).await);
                        drop(permit);
                    });
                }
            }
        }
    }

    async fn serve_streams(&self, listener: TcpListener, forwards: &Arc<Semaphore>) {
        let connections = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        loop {
            let Ok(permit) = connections.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let (this, forwards) = (self.clone(), forwards.clone());
                    tokio::task::spawn_local(async move {
                        // A client that breaks off has said enough.
                        let _ = this.converse(stream, &forwards).await;
                        drop(permit);
                    });
                }
                // Out of descriptors: wait for some to be given back rather than spin.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    async fn converse(&self, mut stream: TcpStream, forwards: &Semaphore) -> io::Result<()> {
        loop {
            let query = tokio::time::timeout(IDLE, async {
                let mut query = vec![0; stream.read_u16().await?.into()];
                stream.read_exact(&mut query).await?;
                io::Result::Ok(query)
            });
            let Ok(query) = query.await else { return Ok(()) };
            let query = query?;
            let reply = match answer(&self.zone(), &query, Transport::Tcp) {
                Outcome::Answer(bytes) => bytes,
                Outcome::Ignore => return Ok(()),
                Outcome::Forward(message) => {
                    let forwarded = match forwards.try_acquire() {
                        Ok(_permit) => self.forward(&query, Transport::Tcp).await,
                        Err(_) => None,
                    };
                    forwarded.unwrap_or_else(|| refusal(&message, ResponseCode::ServFail, Transport::Tcp))
                }
            };
            let length = u16::try_from(reply.len()).map_err(io::Error::other)?;
            let bytes = [&length.to_be_bytes()[..], &reply].concat();
            tokio::time::timeout(IDLE, stream.write_all(&bytes)).await.map_err(io::Error::from)??;
        }
    }

    async fn forward(&self, query: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let text = std::fs::read_to_string(&*self.resolv_conf).unwrap_or_default();
        let servers = upstream::name_servers(&text, &self.ours);
        upstream::ask(&servers, query, transport == Transport::Tcp).await
    }
}

/// One port for both; the wanted one, or any that is free for both.
fn bind_both(address: SocketAddrV4) -> io::Result<(u16, OwnedFd, OwnedFd)> {
    const ATTEMPTS: u32 = 16;
    let pair = |address: SocketAddrV4| -> io::Result<(u16, OwnedFd, OwnedFd)> {
        let datagrams = bind(address, SocketType::DGRAM)?;
        let bound = SocketAddrV4::try_from(rustix::net::getsockname(&datagrams)?)?;
        Ok((bound.port(), datagrams, bind(bound, SocketType::STREAM)?))
    };
    let mut tried = pair(address);
    for _ in 0..ATTEMPTS {
        match &tried {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => tried = pair(SocketAddrV4::new(*address.ip(), 0)),
            _ => break,
        }
    }
    tried
}

fn bind(address: SocketAddrV4, kind: SocketType) -> io::Result<OwnedFd> {
    let socket =
        rustix::net::socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    sockopt::set_ip_freebind(&socket, true)?;
    if kind == SocketType::STREAM {
        // A daemon that was killed comes back at once, whatever connections it had.
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    rustix::net::bind(&socket, &SocketAddr::V4(address))?;
    if kind == SocketType::STREAM {
        rustix::net::listen(&socket, BACKLOG)?;
    }
    Ok(socket)
}
