//! A host with a neighbour and pods, each a network namespace held by a process that ends with the test.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, SocketAddrV4, TcpListener, TcpStream},
    os::fd::AsFd,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::{Config, HostPort, Network, Protocol};

/// A network namespace.
pub(super) struct Space {
    holder: Child,
}

impl Space {
    pub(super) fn new() -> Self {
        let mut holder = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo ready; read _"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self { holder }
    }

    pub(super) fn path(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.holder.id()).into()
    }

    /// Runs on a thread inside.
    pub(super) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let path = self.path();
        let outcome = std::thread::scope(|scope| {
            let enter = move || {
                let namespace = File::open(path).unwrap();
                let kind = Some(rustix::thread::LinkNameSpaceType::Network);
                rustix::thread::move_into_link_name_space(namespace.as_fd(), kind).unwrap();
                work()
            };
            scope.spawn(enter).join()
        });
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    pub(super) fn run(&self, command: &str) -> String {
        self.inside(|| run(command))
    }

    /// Listens inside and tells everyone who connects where they come from.
    pub(super) fn serve(&self, address: &str) {
        let listener = self.inside(|| TcpListener::bind(address).unwrap());
        std::thread::spawn(move || {
            while let Ok((mut stream, peer)) = listener.accept() {
                let _ = write!(stream, "{}", peer.ip());
            }
        });
    }

    /// Connects from inside; what the server said.
    pub(super) fn call(&self, address: &str) -> std::io::Result<String> {
        self.call_within(address, Duration::from_secs(60))
    }

    /// Nobody answers there, at least not at once.
    pub(super) fn is_cut_off(&self, address: &str) -> bool {
        self.call_within(address, Duration::from_millis(500)).is_err()
    }

    fn call_within(&self, address: &str, time: Duration) -> std::io::Result<String> {
        let address: SocketAddr = address.parse().unwrap();
        self.inside(|| {
            let mut stream = TcpStream::connect_timeout(&address, time)?;
            stream.set_read_timeout(Some(time))?;
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

/// Runs a shell command in the thread's namespace; it must succeed.
pub(super) fn run(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    assert!(output.status.success(), "`{command}`: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The machine under test.
pub(super) struct World {
    pub(super) host: Space,
    pub(super) outside: Space,
    pub(super) network: Network,
    pub(super) directory: tempfile::TempDir,
}

impl World {
    pub(super) fn new() -> Self {
        let (host, outside) = (Space::new(), Space::new());
        outside.run("ip link set lo up");
        host.run(&format!(
            "ip link set lo up; \
             ip link add uplink mtu 1400 type veth peer name eth0 netns {}; \
             ip addr add 203.0.113.1/24 dev uplink; ip link set uplink up",
            outside.holder.id()
        ));
        outside.run("ip addr add 203.0.113.2/24 dev eth0; ip link set eth0 up");
        host.run("ip route add default via 203.0.113.2; echo 0 > /proc/sys/net/ipv4/ip_forward");
        outside.serve("0.0.0.0:79");
        // In memory, as the real one: /run/outrigger/network.
        let directory = tempfile::tempdir_in("/dev/shm").unwrap();
        let network = Network::open(directory.path(), Config::default()).unwrap();
        Self { host, outside, network, directory }
    }

    /// Attaches a new pod; its address.
    pub(super) fn pod(&self, id: &str, ports: &[HostPort]) -> (Space, String) {
        let pod = Space::new();
        let attachment = self.host.inside(|| self.network.attach(id, &pod.path(), ports)).unwrap();
        (pod, attachment.ip.to_string())
    }

    pub(super) fn detach(&self, id: &str) {
        self.host.inside(|| self.network.detach(id)).unwrap();
    }

    /// Whether the pod gets out, masqueraded.
    pub(super) fn gets_out(&self, pod: &Space) -> bool {
        pod.call("203.0.113.2:79").is_ok_and(|seen| seen == "203.0.113.1")
    }

    /// Waits for the links of dead namespaces to vanish.
    pub(super) fn settle(&self, links: usize) {
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while self.host.run("ip -br link").lines().count() != links {
            assert!(std::time::Instant::now() < deadline, "{}", self.host.run("ip -br link"));
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Everything about the host a pod could leave something in. Whether a link is up is not among it: the kernel notices
    /// that when it has time.
    pub(super) fn traces(&self) -> String {
        let kernel = self.host.run(
            "ip -br link | cut -d' ' -f1; ip -4 route show table all | sed 's/ linkdown//'; \
             ip -br -4 addr | sed -E 's/^([^ ]+) +[^ ]+/\\1/'; \
             nft list ruleset; cat /proc/sys/net/ipv4/ip_forward",
        );
        let register = run(&format!("cd {} && find . -type f -o -type l | sort", self.directory.path().display()));
        kernel + &register.replace("./lock\n", "")
    }
}

pub(super) fn tcp(host_port: u16, container_port: u16) -> HostPort {
    HostPort { host_ip: None, host_port, container_port, protocol: Protocol::Tcp }
}

pub(super) fn udp(host_port: u16, container_port: u16) -> HostPort {
    HostPort { protocol: Protocol::Udp, ..tcp(host_port, container_port) }
}

pub(super) fn at(address: &str, port: HostPort) -> HostPort {
    HostPort {
        host_ip: Some(address.parse::<SocketAddrV4>().map_or_else(|_| address.parse().unwrap(), |a| *a.ip())),
        ..port
    }
}
