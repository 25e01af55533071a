//! The listener: TLS, HTTP/1.1 or 2 by ALPN, bounds on what clients can hold on to, and an orderly end.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::identity;
use crate::server::Server;

/// Connections at a time, if the process may have that many descriptors; HTTP/1.1 clients need one per watch.
const CONNECTIONS: usize = 2048;
/// Of all connections, what those without a certificate may hold is one in so many: whoever reaches the socket can open
/// one, and they shall not shut out the node's own person.
const STRANGERS: usize = 4;
/// For the TLS handshake, and for a request's head.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// An idle connection is kept for longer than clients keep theirs (Go: 90 s), so that they close and not we.
const HEAD: Duration = Duration::from_secs(100);
/// For open connections to finish what they are at.
const DRAIN: Duration = Duration::from_secs(2);
/// Unsent bytes of one HTTP/2 stream; hyper's default is 400 KiB.
const SEND_BUFFER: usize = 16 << 10;

impl Server {
    /// Serves until `shutdown` resolves; then ends watches and waits shortly for open requests.
    ///
    /// # Errors
    /// None once it listens; kept for what a listener may come to say.
    pub async fn serve(&self, listener: TcpListener, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        let mut shutdown = pin!(shutdown);
        let connections = bound(rustix::process::getrlimit(rustix::process::Resource::Nofile).current);
        let room = Arc::new(Semaphore::new(connections));
        let strangers = Arc::new(Semaphore::new(connections / STRANGERS));
        loop {
            // Both are cancel-safe: a connection is accepted or still in the backlog.
            let permit = tokio::select! {
                permit = Arc::clone(&room).acquire_owned() => permit.map_err(io::Error::other)?,
                () = &mut shutdown => break,
            };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = &mut shutdown => break,
            };
            let Ok((stream, _)) = accepted else {
                // Out of descriptors, most likely; spinning would not bring them back.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let (server, strangers) = (self.clone(), Arc::clone(&strangers));
            tokio::spawn(async move {
                server.connection(stream, &strangers).await;
                drop(permit);
            });
        }
        drop(listener);
        self.0.closing.send_replace(true);
        let all = u32::try_from(connections).unwrap_or(u32::MAX);
        let _ = tokio::time::timeout(DRAIN, room.acquire_many(all)).await;
        Ok(())
    }

    async fn connection(&self, stream: TcpStream, strangers: &Semaphore) {
        // Watch events are small and must not wait for more.
        let _ = stream.set_nodelay(true);
        let acceptor = TlsAcceptor::from(Arc::clone(&self.0.tls));
        let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await else { return };
        let (_, session) = stream.get_ref();
        let second = session.alpn_protocol() == Some(b"h2");
        let certificate = session.peer_certificates().and_then(|chain| chain.first());
        let user = certificate.map(|der| Arc::new(identity::of_certificate(der)));
        let _place = match user {
            Some(_) => None,
            None => match strangers.try_acquire() {
                Ok(place) => Some(place),
                Err(_) => return,
            },
        };
        let service = service_fn(|request| {
            let (server, user) = (self.clone(), user.clone());
            async move { Ok::<_, Infallible>(server.answer(request, user.as_deref()).await) }
        });
        if second { self.second(stream, service).await } else { self.first(stream, service).await }
    }

    async fn first<S>(&self, stream: TlsStream<TcpStream>, service: S)
    where
        S: Service,
        S::Future: Send + 'static,
    {
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .max_buf_size(64 << 10)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        let mut connection = pin!(connection);
        tokio::select! {
            _ = connection.as_mut() => return,
            () = self.closed() => connection.as_mut().graceful_shutdown(),
        }
        let _ = connection.await;
    }

    async fn second<S>(&self, stream: TlsStream<TcpStream>, service: S)
    where
        S: Service,
        S::Future: Send + 'static,
    {
        let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(250)
            .max_send_buf_size(SEND_BUFFER)
            .initial_stream_window_size(256 << 10)
            .initial_connection_window_size(1 << 20)
            .keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(20))
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        tokio::select! {
            _ = connection.as_mut() => return,
            () = self.closed() => connection.as_mut().graceful_shutdown(),
        }
        let _ = connection.await;
    }

    async fn closed(&self) {
        let mut closing = self.closing();
        // The sender lives in the server, which is borrowed here.
        let _ = closing.wait_for(|closing| *closing).await;
    }
}

/// Half of the descriptors: the rest of the process, which runs the pods, needs some as well.
fn bound(descriptors: Option<u64>) -> usize {
    let half = descriptors.map_or(usize::MAX, |most| usize::try_from(most / 2).unwrap_or(usize::MAX));
    half.clamp(STRANGERS, CONNECTIONS)
}

/// What both versions of HTTP are served by.
trait Service:
    hyper::service::Service<
        http::Request<hyper::body::Incoming>,
        Response = http::Response<crate::body::Body>,
        Error = Infallible,
    >
{
}

impl<T> Service for T where
    T: hyper::service::Service<
            http::Request<hyper::body::Incoming>,
            Response = http::Response<crate::body::Body>,
            Error = Infallible,
        >
{
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_to_the_pods() {
        assert_eq!(bound(Some(1024)), 512);
        assert_eq!(bound(Some(1 << 20)), CONNECTIONS);
        assert_eq!((bound(None), bound(Some(0))), (CONNECTIONS, STRANGERS));
    }
}
