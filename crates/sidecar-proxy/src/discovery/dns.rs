//! A resolver of our own, for the times to live that the system's does not tell: A, AAAA and SRV (RFC 1035, 3596, 2782), with
//! the search list of resolv.conf(5) as pods have it, and the hosts file first.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use dataplane::backend::Address;
use dataplane::timed::{self, Names, Timed};

use super::Instance;
use super::watch::{Said, Source};
use super::way::reachable;

pub(super) mod message;

use message::{Data, Reply};

const A: u16 = 1;
const AAAA: u16 = 28;
const SRV: u16 = 33;
/// No name is asked more often, whatever its time to live.
const SELDOM: Duration = Duration::from_secs(1);

/// Whom to ask and how: resolv.conf(5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resolver {
    servers: Vec<SocketAddr>,
    search: Vec<String>,
    ndots: usize,
    timeout: Duration,
    attempts: u32,
    /// Whatever is asked, nothing is waited for beyond this.
    until: Option<Instant>,
}

impl Resolver {
    /// What resolv.conf(5) says now, which is small, and may change; other servers in place of those there, if there are any.
    pub(super) fn now(servers: &[SocketAddr]) -> Resolver {
        let mut resolver = Resolver::parse(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default());
        if !servers.is_empty() {
            resolver.servers = servers.to_vec();
        }
        resolver
    }

    /// The same, with an end.
    pub(super) fn until(self, until: Instant) -> Resolver {
        Resolver { until: Some(until), ..self }
    }

    pub(super) fn parse(text: &str) -> Resolver {
        let mut resolver = Resolver {
            servers: Vec::new(),
            search: Vec::new(),
            ndots: 1,
            timeout: Duration::from_secs(2),
            attempts: 2,
            until: None,
        };
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let address = words.next().and_then(|word| word.parse::<IpAddr>().ok());
                    resolver.servers.extend(address.map(|address| SocketAddr::new(address, 53)));
                }
                Some("search" | "domain") => resolver.search = words.map(str::to_owned).collect(),
                Some("options") => words.for_each(|word| match word.split_once(':') {
                    Some(("ndots", value)) => resolver.ndots = value.parse().unwrap_or(1).min(15),
                    Some(("timeout", value)) => {
                        resolver.timeout = Duration::from_secs(value.parse().unwrap_or(2).clamp(1, 10));
                    }
                    Some(("attempts", value)) => resolver.attempts = value.parse().unwrap_or(2).clamp(1, 5),
                    _ => {}
                }),
                _ => {}
            }
        }
        resolver
    }

    /// Names in the order in which they are asked about.
    fn candidates(&self, name: &str) -> Vec<String> {
        if let Some(absolute) = name.strip_suffix('.') {
            return vec![absolute.to_owned()];
        }
        let within = self.search.iter().map(|domain| format!("{name}.{}", domain.trim_end_matches('.')));
        // What is no name with a search domain, being too long, may be one without; `search .` adds nothing.
        let mut all: Vec<String> = within.filter(|candidate| message::query(0, candidate, A).is_some()).collect();
        let at = if name.matches('.').count() >= self.ndots { 0 } else { all.len() };
        all.insert(at, name.to_owned());
        all
    }

    /// The first candidate that has any of these records, with the shortest time to live on the way to them. Name servers
    /// that do not answer for one kind are common (RFC 4074): what another kind has brought is enough.
    fn look_up(&self, name: &str, kinds: &[u16]) -> io::Result<(Vec<Data>, Duration)> {
        for candidate in self.candidates(name) {
            let (mut found, mut ttl, mut failed) = (Vec::new(), u32::MAX, None);
            for kind in kinds {
                // What is there already need not wait long for more.
                let attempts = if found.is_empty() { self.attempts } else { 1 };
                let reply = match self.query(&candidate, *kind, attempts) {
                    Ok(reply) => reply,
                    Err(error) => {
                        failed = Some(error);
                        continue;
                    }
                };
                let (data, shortest) = reply.answers(&candidate, *kind);
                if !data.is_empty() {
                    ttl = ttl.min(shortest);
                }
                found.extend(data);
            }
            if !found.is_empty() {
                return Ok((found, Duration::from_secs(u64::from(ttl))));
            }
            if let Some(error) = failed {
                // It may have them: going on could find another name's.
                return Err(error);
            }
        }
        Err(io::Error::new(io::ErrorKind::NotFound, format!("the name `{name}` has no such record")))
    }

    /// Asks one server after the other; a name that does not exist is an answer.
    fn query(&self, name: &str, kind: u16, attempts: u32) -> io::Result<Reply> {
        let mut last = io::Error::other("there is no name server");
        for _ in 0..attempts {
            for server in &self.servers {
                if self.until.is_some_and(|until| until <= Instant::now()) {
                    return Err(timed::late());
                }
                match self.ask(*server, name, kind) {
                    Ok(reply) if matches!(reply.code, 0 | 3) => return Ok(reply),
                    Ok(reply) => last = io::Error::other(format!("{server} answered with code {}", reply.code)),
                    Err(error) => last = error,
                }
            }
        }
        Err(last)
    }

    fn ask(&self, server: SocketAddr, name: &str, kind: u16) -> io::Result<Reply> {
        let mut id = [0; 2];
        rustls::crypto::ring::default_provider()
            .secure_random
            .fill(&mut id)
            .map_err(|_| io::Error::other("no random numbers"))?;
        let id = u16::from_be_bytes(id);
        let query = message::query(id, name, kind).ok_or_else(|| io::Error::other(format!("`{name}` is no name")))?;
        let any: SocketAddr =
            if server.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
        let socket = UdpSocket::bind(any)?;
        socket.connect(server)?;
        socket.send(&query)?;
        let until = self.bound();
        let mut room = vec![0; 4096];
        loop {
            socket.set_read_timeout(Some(timed::left(until)?))?;
            let length = socket.recv(&mut room)?;
            // Whatever does not answer this question was not meant for us.
            match message::reply(&room[..length], id, name, kind) {
                Some(reply) if reply.truncated => return self.ask_by_tcp(server, &query, id, name, kind),
                Some(reply) => return Ok(reply),
                None => {}
            }
        }
    }

    /// When one question must have its answer.
    fn bound(&self) -> Instant {
        let until = Instant::now() + self.timeout;
        self.until.map_or(until, |end| end.min(until))
    }

    fn ask_by_tcp(&self, server: SocketAddr, query: &[u8], id: u16, name: &str, kind: u16) -> io::Result<Reply> {
        use std::io::{Read as _, Write as _};
        let mut stream = Timed::connect(server, self.timeout, self.bound())?;
        let length = u16::try_from(query.len()).map_err(io::Error::other)?;
        stream.write_all(&[&length.to_be_bytes()[..], query].concat())?;
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut answer)?;
        message::reply(&answer, id, name, kind).ok_or_else(|| io::Error::other("the name server's answer is malformed"))
    }

    /// A name's addresses, in order.
    pub(super) fn addresses(&self, name: &str) -> io::Result<(Vec<IpAddr>, Duration)> {
        let known = hosts(&std::fs::read_to_string("/etc/hosts").unwrap_or_default(), name);
        if !known.is_empty() {
            return Ok((reachable(known, |ip| Some(*ip)), Duration::MAX));
        }
        if name.eq_ignore_ascii_case("localhost") {
            let both = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
            return Ok((reachable(both, |ip| Some(*ip)), Duration::MAX));
        }
        let (found, ttl) = self.look_up(name, &[A, AAAA])?;
        let mut addresses: Vec<IpAddr> = found.into_iter().filter_map(|data| data.address()).collect();
        addresses.sort_unstable();
        addresses.dedup();
        Ok((reachable(addresses, |ip| Some(*ip)), ttl))
    }
}

/// Addresses of a name in hosts(5).
fn hosts(text: &str, name: &str) -> Vec<IpAddr> {
    let lines = text.lines().filter_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        let address = words.next()?.parse::<IpAddr>().ok()?;
        words.any(|word| word.eq_ignore_ascii_case(name)).then_some(address)
    });
    let mut found: Vec<IpAddr> = lines.collect();
    found.dedup();
    found
}

/// Names as the machine knows them, within a time.
#[derive(Debug)]
pub struct Machine {
    /// In place of those of resolv.conf(5), if there are any.
    pub servers: Vec<SocketAddr>,
}

impl Names for Machine {
    fn addresses(&self, host: &str, until: Instant) -> io::Result<Vec<IpAddr>> {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        match bare.parse() {
            Ok(address) => Ok(vec![address]),
            Err(_) => Ok(Resolver::now(&self.servers).until(until).addresses(host)?.0),
        }
    }
}

/// A host's addresses, or a service's instances.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) servers: Vec<SocketAddr>,
    pub(super) what: What,
    /// However long the time to live is.
    pub(super) every: Duration,
}

#[derive(Debug)]
pub(super) enum What {
    Host { host: String, port: u16 },
    Service(String),
}

impl Source for Asked {
    fn ask(&mut self) -> io::Result<Said> {
        let resolver = Resolver::now(&self.servers);
        let (list, ttl) = match &self.what {
            What::Host { host, port } => {
                let (found, ttl) = resolver.addresses(host)?;
                let list = found.into_iter().map(|ip| instance(&format!("{host}:{port}"), SocketAddr::new(ip, *port)));
                (list.collect(), ttl)
            }
            What::Service(name) => service(&resolver, name)?,
        };
        Ok(Said { list: Some(list), wait: ttl.min(self.every).max(SELDOM) })
    }
}

fn instance(name: &str, address: SocketAddr) -> Instance {
    Instance::new(Address::Tcp(address), format!("{name} ({address})"))
}

/// The targets of the best priority, with their weights.
fn service(resolver: &Resolver, name: &str) -> io::Result<(Vec<Instance>, Duration)> {
    let (found, mut ttl) = resolver.look_up(name, &[SRV])?;
    let targets: Vec<_> = found.into_iter().filter_map(Data::service).collect();
    let best = targets.iter().map(|(priority, ..)| *priority).min();
    let mut list = Vec::new();
    let mut failed = None;
    for (_, weight, port, target) in targets.iter().filter(|(priority, ..)| Some(*priority) == best) {
        match resolver.addresses(&format!("{target}.")) {
            Ok((addresses, own)) => {
                ttl = ttl.min(own);
                list.extend(addresses.into_iter().map(|ip| {
                    // RFC 2782: weight 0 is for where there is nothing to choose.
                    let weight = u32::from(*weight).max(1);
                    Instance { weight, ..instance(&format!("{target}:{port}"), SocketAddr::new(ip, *port)) }
                }));
            }
            Err(error) => failed = Some(error),
        }
    }
    match failed {
        Some(error) if list.is_empty() => Err(error),
        _ => Ok((list, ttl)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_as_pods_have_it() {
        let resolver = Resolver::parse(
            "# of the cluster\nsearch ns.svc.cluster.local svc.cluster.local\nnameserver 10.96.0.10\nnameserver ::1\noptions ndots:5 timeout:1 edns0\n",
        );
        assert_eq!(resolver.servers, ["10.96.0.10:53".parse().unwrap(), "[::1]:53".parse().unwrap()]);
        assert_eq!((resolver.ndots, resolver.timeout), (5, Duration::from_secs(1)));
        assert_eq!(resolver.candidates("app"), ["app.ns.svc.cluster.local", "app.svc.cluster.local", "app"]);
        assert_eq!(resolver.candidates("a.b.c.d.e.f")[0], "a.b.c.d.e.f");
        assert_eq!(resolver.candidates("app.example."), ["app.example"]);
    }

    /// What a name server does with a question.
    #[derive(Clone, Copy, PartialEq)]
    enum Does {
        Has,
        HasNone,
        Fails,
        IsSilent,
    }

    fn name_server(v4: Does, v6: Does) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let at = socket.local_addr().unwrap();
        std::thread::spawn(move || {
            let mut room = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut room) {
                let mut answer = room[..length].to_vec();
                let is_v4 = answer[length - 3] == A as u8;
                let does = if is_v4 { v4 } else { v6 };
                answer[2] = 0x81;
                answer[3] = if does == Does::Fails { 0x82 } else { 0x80 };
                if does == Does::Has {
                    answer[7] = 1;
                    let (kind, address) = if is_v4 { (A, &[10; 4][..]) } else { (AAAA, &[0xfd; 16][..]) };
                    answer.extend_from_slice(&[0xc0, 12, 0, kind as u8, 0, 1, 0, 0, 0, 7, 0, address.len() as u8]);
                    answer.extend_from_slice(address);
                }
                if does != Does::IsSilent {
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        at
    }

    #[test]
    fn one_kind_of_address_is_enough() {
        let (v4, v6) = (IpAddr::from([10; 4]), IpAddr::from([0xfd; 16]));
        for (first, second, expected) in [
            (Does::Has, Does::Has, Some(reachable(vec![v4, v6], |ip| Some(*ip)))),
            (Does::Has, Does::HasNone, Some(vec![v4])),
            (Does::Has, Does::Fails, Some(vec![v4])),
            (Does::Has, Does::IsSilent, Some(vec![v4])),
            (Does::Fails, Does::Has, Some(vec![v6])),
            (Does::IsSilent, Does::Has, Some(vec![v6])),
            // Nothing was found, but something may be there: what was known last goes on.
            (Does::HasNone, Does::Fails, None),
            (Does::Fails, Does::HasNone, None),
        ] {
            let mut resolver = Resolver::parse("options timeout:1 attempts:2\n");
            resolver.servers.push(name_server(first, second));
            let found = resolver.addresses("app.test.");
            match (found, expected) {
                (Ok((addresses, ttl)), Some(expected)) => {
                    assert_eq!((addresses, ttl), (expected, Duration::from_secs(7)));
                }
                (Err(error), None) => assert_ne!(error.kind(), io::ErrorKind::NotFound),
                (found, expected) => panic!("{found:?}, not {expected:?}"),
            }
        }
        let mut resolver = Resolver::parse("");
        resolver.servers.push(name_server(Does::HasNone, Does::HasNone));
        assert_eq!(resolver.addresses("app.test.").unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_silent_name_server_is_not_waited_for_beyond_the_end() {
        let names = Machine { servers: vec![name_server(Does::IsSilent, Does::IsSilent)] };
        let begun = Instant::now();
        let error = names.addresses("app.test.", begun + Duration::from_millis(100)).unwrap_err();
        assert!(matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock), "{error:?}");
        // resolv.conf(5) allows for some seconds, again and again.
        assert!(begun.elapsed() < Duration::from_millis(900), "{:?}", begun.elapsed());
        assert_eq!(names.addresses("[fd00::1]", begun).unwrap(), [IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 1])]);
    }

    #[test]
    fn a_name_too_long_for_a_search_domain_is_found_without() {
        let mut resolver = Resolver::parse("search ns.svc.cluster.local cluster.local\noptions ndots:5\n");
        resolver.servers.push(name_server(Does::Has, Does::Has));
        // With the first domain 255 bytes, with the second 248; RFC 1035 §2.3.4 allows 253 as text.
        let name = ["a".repeat(58), "b".repeat(58), "c".repeat(58), "d".repeat(57)].join(".");
        assert_eq!(
            (name.len(), resolver.candidates(&name)),
            (234, vec![format!("{name}.cluster.local"), name.clone()])
        );
        assert_eq!(resolver.addresses(&name).unwrap().0.len(), 2);
    }

    #[test]
    fn a_server_that_drips_does_not_hold_the_asker() {
        use std::io::Write as _;
        // The same port for both: what does not fit into a datagram is asked for again.
        let (socket, listener) = loop {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            if let Ok(listener) = std::net::TcpListener::bind(socket.local_addr().unwrap()) {
                break (socket, listener);
            }
        };
        let at = socket.local_addr().unwrap();
        std::thread::spawn(move || {
            let mut room = [0; 512];
            let (length, from) = socket.recv_from(&mut room).unwrap();
            (room[2], room[3]) = (0x83, 0x80);
            socket.send_to(&room[..length], from).unwrap();
            let (mut stream, _) = listener.accept().unwrap();
            while stream.write_all(&[0xff]).is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let resolver = Resolver::parse("options timeout:1 attempts:1\n");
        assert!(resolver.ask(at, "app.test", A).is_err());
    }

    #[test]
    fn the_hosts_file() {
        let text = "127.0.0.1 localhost lo # here\n# 1.2.3.4 app\n10.0.0.1 App app.local\n::1 localhost\n";
        assert_eq!(hosts(text, "app"), ["10.0.0.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(hosts(text, "localhost").len(), 2);
        assert!(hosts(text, "here").is_empty());
    }
}
