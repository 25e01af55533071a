//! Whether ports of the host are free to be given to a pod.

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddrV4},
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};

use crate::{HostPort, Protocol, record::Record};

/// Why a host port cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    #[error("host port {port} is already in use by {user}")]
    Taken { port: HostPort, user: String },
    #[error("host port {0} is asked for twice by this pod")]
    Twice(HostPort),
    #[error("host port {0}: SCTP is not supported, only TCP and UDP are")]
    Sctp(HostPort),
    #[error("host port {0}: a port must be between 1 and 65535")]
    Zero(HostPort),
    #[error("host port {0}: this machine has no such address")]
    NoSuchAddress(HostPort),
    #[error("failed to find out whether host port {port} is free")]
    Unknown {
        port: HostPort,
        #[source]
        source: io::Error,
    },
}

/// Looks at the request itself, at the other pods and at the host's sockets.
pub(crate) fn check(ports: &[HostPort], others: &[Record]) -> Result<(), PortError> {
    for (index, port) in ports.iter().enumerate() {
        if port.protocol == Protocol::Sctp {
            return Err(PortError::Sctp(port.clone()));
        }
        if port.host_port == 0 || port.container_port == 0 {
            return Err(PortError::Zero(port.clone()));
        }
        if ports[..index].iter().any(|earlier| collide(earlier, port)) {
            return Err(PortError::Twice(port.clone()));
        }
        let holder = others.iter().find(|record| record.ports.iter().any(|other| collide(other, port)));
        if let Some(record) = holder {
            return Err(PortError::Taken { port: port.clone(), user: format!("pod {}", record.pod_id) });
        }
        check_host(port)?;
    }
    Ok(())
}

/// Two ports collide unless they are at different addresses: "all addresses" leaves none for another.
fn collide(a: &HostPort, b: &HostPort) -> bool {
    let same_address = match (a.address(), b.address()) {
        (Some(a), Some(b)) => a == b,
        _ => true,
    };
    a.protocol == b.protocol && a.host_port == b.host_port && same_address
}

/// A translated port never reaches a socket of the host that listens on it, so there must be none. Binding the port
/// asks the kernel; it also refuses for connections that merely go out from that port, which the translation leaves
/// alone, so the socket tables have the last word.
fn check_host(port: &HostPort) -> Result<(), PortError> {
    let address = port.address().unwrap_or(Ipv4Addr::UNSPECIFIED);
    match try_bind(port.protocol, SocketAddrV4::new(address, port.host_port)) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => match listener(port) {
            Some(inode) => Err(PortError::Taken { port: port.clone(), user: owner(inode) }),
            None => Ok(()),
        },
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => Err(PortError::NoSuchAddress(port.clone())),
        Err(source) => Err(PortError::Unknown { port: port.clone(), source }),
    }
}

fn try_bind(protocol: Protocol, address: SocketAddrV4) -> io::Result<()> {
    let kind = if protocol == Protocol::Udp { SocketType::DGRAM } else { SocketType::STREAM };
    let socket = socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC, None)?;
    if protocol == Protocol::Tcp {
        // Connections of a listener that is gone do not count.
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    Ok(bind(&socket, &address)?)
}

/// The inode of a socket that receives at this port.
fn listener(port: &HostPort) -> Option<u64> {
    // proc_net_tcp(5): TCP_LISTEN for TCP, TCP_CLOSE for a UDP socket without a peer.
    let (names, state) = match port.protocol {
        Protocol::Udp => (["udp", "udp6"], "07"),
        _ => (["tcp", "tcp6"], "0A"),
    };
    names.iter().find_map(|name| {
        let table = fs::read_to_string(format!("/proc/thread-self/net/{name}")).ok()?;
        table.lines().skip(1).find_map(|line| listener_in(line, port.host_port, state))
    })
}

fn listener_in(line: &str, port: u16, state: &str) -> Option<u64> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let (_, local_port) = fields.get(1)?.rsplit_once(':')?;
    let matches = u16::from_str_radix(local_port, 16).ok()? == port && *fields.get(3)? == state;
    if matches { fields.get(9)?.parse().ok() } else { None }
}

/// The process that holds a socket, in words.
fn owner(inode: u64) -> String {
    let wanted = format!("socket:[{inode}]");
    let holds = |process: &fs::DirEntry| {
        fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten().any(|descriptor| {
            fs::read_link(descriptor.path()).is_ok_and(|target| target.as_os_str() == wanted.as_str())
        })
    };
    let numbers = fs::read_dir("/proc").into_iter().flatten().flatten();
    let process =
        numbers.filter(|entry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit)).find(holds);
    match process {
        Some(process) => {
            let command = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            format!("process {} ({})", process.file_name().display(), command.trim())
        }
        None => "a socket of this machine".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(address: Option<[u8; 4]>, number: u16, protocol: Protocol) -> HostPort {
        HostPort { host_ip: address.map(Into::into), host_port: number, container_port: 80, protocol }
    }

    #[test]
    fn ports_collide_unless_address_protocol_or_number_differ() {
        let all = port(None, 8080, Protocol::Tcp);
        let zero = port(Some([0, 0, 0, 0]), 8080, Protocol::Tcp);
        let local = port(Some([127, 0, 0, 1]), 8080, Protocol::Tcp);
        let other = port(Some([10, 0, 0, 1]), 8080, Protocol::Tcp);
        assert!(collide(&all, &zero) && collide(&all, &local) && collide(&local, &local));
        assert!(!collide(&local, &other));
        assert!(!collide(&all, &port(None, 8080, Protocol::Udp)));
        assert!(!collide(&all, &port(None, 8081, Protocol::Tcp)));
        assert_eq!((zero.to_string(), local.to_string()), ("8080/TCP".into(), "127.0.0.1:8080/TCP".into()));
    }

    #[test]
    fn requests_that_cannot_be_met_are_refused_before_the_host_is_asked() {
        let refuse = |ports: &[HostPort]| check(ports, &[]).unwrap_err().to_string();
        let sctp = refuse(&[port(None, 1, Protocol::Sctp)]);
        assert_eq!(sctp, "host port 1/SCTP: SCTP is not supported, only TCP and UDP are");
        assert!(refuse(&[port(None, 0, Protocol::Tcp)]).contains("between 1 and 65535"));
    }

    #[test]
    fn listening_sockets_are_read_from_the_kernels_table() {
        let line =
            "   1: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100";
        assert_eq!(listener_in(line, 8080, "0A"), Some(4711));
        assert_eq!(listener_in(line, 8081, "0A"), None);
        assert_eq!(listener_in(line, 8080, "01"), None);
        assert_eq!(listener_in("", 8080, "0A"), None);
    }
}
