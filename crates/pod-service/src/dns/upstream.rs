//! The host's own resolvers, for names that are not the cluster's.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};

/// resolv.conf(5): the resolver's own timeout; a pod's resolver gives us five seconds in all.
const TIMEOUT: Duration = Duration::from_millis(1500);
/// resolv.conf(5): `MAXNS`.
const MOST_SERVERS: usize = 3;
const PORT: u16 = 53;

/// The name servers of a resolv.conf(5), without `ours`: a host that asks us must not be asked by us.
pub(crate) fn name_servers(resolv_conf: &str, ours: &[Ipv4Addr]) -> Vec<SocketAddr> {
    let words = resolv_conf.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()).flatten()
    });
    let addresses = words.filter_map(|word| word.parse::<IpAddr>().ok());
    let others = addresses.filter(|address| !matches!(address, IpAddr::V4(address) if ours.contains(address)));
    others.take(MOST_SERVERS).map(|address| SocketAddr::new(address, PORT)).collect()
}

/// One server after the other, the query's bytes unchanged; the first answer counts.
pub(crate) async fn ask(servers: &[SocketAddr], query: &[u8], over_tcp: bool) -> Option<Vec<u8>> {
    for server in servers {
        let asking =
            async { if over_tcp { ask_stream(*server, query).await } else { ask_datagram(*server, query).await } };
        if let Ok(Ok(answer)) = tokio::time::timeout(TIMEOUT, asking).await {
            return Some(answer);
        }
    }
    None
}

async fn ask_datagram(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let any: SocketAddr = if server.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        "[::]:0".parse().map_err(io::Error::other)?
    };
    // A port of its own for each query, so that an answer cannot be guessed (RFC 5452).
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut answer = vec![0; 4096];
    loop {
        let length = socket.recv(&mut answer).await?;
        // Somebody else's answer is no answer.
        if length >= 12 && answer.first_chunk::<2>() == query.first_chunk::<2>() {
            answer.truncate(length);
            return Ok(answer);
        }
    }
}

async fn ask_stream(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(query.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), query].concat()).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; length.into()];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_come_from_resolv_conf_without_ourselves() {
        let text =
            "# x\nsearch a.b\nnameserver 10.96.0.10\nnameserver 192.0.2.1 # y\nnameserver nonsense\nnameserver ::1\n";
        let servers = name_servers(text, &[Ipv4Addr::new(10, 96, 0, 10)]);
        assert_eq!(servers.iter().map(ToString::to_string).collect::<Vec<_>>(), ["192.0.2.1:53", "[::1]:53"]);
    }
}
