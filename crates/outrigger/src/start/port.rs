//! A port that cannot be had: whose is it?

use std::io;
use std::net::SocketAddr;

/// What is said when an address cannot be listened on.
pub(super) fn refused(address: SocketAddr, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => match holder(address.port()) {
            Some((pid, name)) => {
                format!(
                    "{address} is taken by `{name}` (process {pid}); stop it, or choose another with --port N (0 picks one)"
                )
            }
            None => format!("{address} is taken; choose another with --port N (0 picks one)"),
        },
        io::ErrorKind::AddrNotAvailable => format!("this machine has no address {}", address.ip()),
        _ => format!("failed to listen on {address}: {error}"),
    }
}

/// The process that listens on a TCP port.
fn holder(port: u16) -> Option<(u32, String)> {
    let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .flat_map(|table| listening(&std::fs::read_to_string(table).unwrap_or_default(), port))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    for process in std::fs::read_dir("/proc").ok()?.flatten() {
        let Ok(pid) = process.file_name().to_string_lossy().parse::<u32>() else { continue };
        let descriptors = std::fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        let links = descriptors.filter_map(|descriptor| std::fs::read_link(descriptor.path()).ok());
        if links.into_iter().any(|link| inodes.iter().any(|inode| link.as_os_str() == inode.as_str())) {
            let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some((pid, name.trim().to_owned()));
        }
    }
    None
}

/// Inodes of sockets that listen on the port (proc_net_tcp.txt).
fn listening(table: &str, port: u16) -> Vec<String> {
    const LISTEN: &str = "0A";
    let wanted = format!(":{port:04X}");
    let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row.len() > 9 && row[3] == LISTEN && row[1].ends_with(&wanted))
        .map(|row| row[9].to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read() {
        let table = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1996 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0
   1: 0100007F:1996 0100007F:8080 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 100 0 0 10 0
";
        assert_eq!(listening(table, 6550), ["4711"]);
    }

    #[test]
    fn a_listener_of_this_process_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let error = std::net::TcpListener::bind(address).unwrap_err();
        assert!(refused(address, &error).contains(&format!("(process {})", std::process::id())));
    }
}
