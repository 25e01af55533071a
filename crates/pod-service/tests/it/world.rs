//! A host with pods on links of their own, as the pod network makes them: each a network namespace that ends with the test.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub(crate) const GATEWAY: &str = "10.89.0.1";

pub(crate) struct Space {
    holder: Child,
}

impl Space {
    pub(crate) fn new() -> Self {
        let mut holder = Command::new("unshare")
            .args(["--net", "sh", "-c", "ip link set lo up; echo ready; read _"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self { holder }
    }

    /// Runs on a thread inside.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let path = format!("/proc/{}/ns/net", self.holder.id());
        let enter = move || {
            let namespace = File::open(path).unwrap();
            let kind = Some(rustix::thread::LinkNameSpaceType::Network);
            rustix::thread::move_into_link_name_space(namespace.as_fd(), kind).unwrap();
            work()
        };
        let outcome = std::thread::scope(|scope| scope.spawn(enter).join());
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    pub(crate) fn run(&self, command: &str) {
        self.inside(|| assert!(Command::new("sh").args(["-ec", command]).status().unwrap().success(), "{command}"));
    }

    /// Says its own name to whoever connects.
    pub(crate) fn serve(&self, name: &'static str) {
        let listener = self.inside(|| TcpListener::bind("0.0.0.0:8080").unwrap());
        std::thread::spawn(move || {
            while let Ok((mut stream, peer)) = listener.accept() {
                let _ = write!(stream, "{name} {}", peer.ip());
            }
        });
        let socket = self.inside(|| UdpSocket::bind("0.0.0.0:8080").unwrap());
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(name.as_bytes(), peer);
            }
        });
    }

    /// What the server said.
    pub(crate) fn call(&self, address: &str) -> std::io::Result<String> {
        let address: SocketAddr = address.parse().unwrap();
        self.inside(|| {
            let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
            stream.set_read_timeout(Some(Duration::from_secs(2)))?;
            let mut said = String::new();
            stream.read_to_string(&mut said)?;
            Ok(said)
        })
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}

/// A host, and pods at 10.89.0.2, .3, …
pub(crate) fn host_with(pods: &[&Space]) -> Space {
    let host = Space::new();
    host.run("echo 1 > /proc/sys/net/ipv4/ip_forward; ip link add lan type veth peer name wan; ip link set wan up; ip addr add 192.0.2.1/24 dev lan; ip link set lan up; ip route add default dev lan");
    for (last, pod) in (2..).zip(pods) {
        let holder = pod.holder.id();
        host.run(&format!(
            "ip link add pod{last} type veth peer name eth0 netns {holder}; ip link set pod{last} up; \
             ip addr add {GATEWAY}/32 dev pod{last}; ip route add 10.89.0.{last}/32 dev pod{last}"
        ));
        pod.run(&format!(
            "ip addr add 10.89.0.{last}/32 dev eth0; ip link set eth0 up; ip route add {GATEWAY} dev eth0; ip route add default via {GATEWAY}"
        ));
    }
    host
}
