//! Connections to a pod's own loopback, as port forwarding needs them.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::sync::oneshot;

use crate::engine::Engine;

/// Nothing on a loopback takes longer unless it does not want to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// The thread makes two system calls.
const STACK: usize = 64 << 10;

impl Engine {
    /// A TCP connection to `port` of the pod's own loopback: 127.0.0.1, then ::1. With `hostNetwork` that is the host's.
    /// The error is for people.
    pub fn dial(
        &self,
        namespace: &str,
        pod: &str,
        port: u16,
    ) -> impl Future<Output = Result<TcpStream, String>> + Send + 'static {
        let network = match self.running(namespace, pod) {
            Some(running) => running.network_namespace(),
            None => Err(format!("pod {namespace}/{pod} is not running")),
        };
        async move {
            let network = network?;
            let (sender, receiver) = oneshot::channel();
            // Its own thread, because a thread that has changed its namespace is good for nothing else.
            std::thread::Builder::new()
                .name("dial".into())
                .stack_size(STACK)
                .spawn(move || sender.send(connect(&network, port)))
                .map_err(|error| format!("failed to start a thread: {error}"))?;
            receiver.await.unwrap_or_else(|_| Err("the thread that connects has died".into()))
        }
    }
}

fn connect(network: &OwnedFd, port: u16) -> Result<TcpStream, String> {
    move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(|errno| format!("failed to enter the pod's network: {}", io::Error::from(errno)))?;
    let attempt = |address: SocketAddr| TcpStream::connect_timeout(&address, PATIENCE);
    attempt((Ipv4Addr::LOCALHOST, port).into()).or_else(|first| {
        attempt((Ipv6Addr::LOCALHOST, port).into()).map_err(|second| {
            format!("failed to connect to localhost:{port} inside the pod, IPv4: {first}, IPv6: {second}")
        })
    })
}
