//! Asking endpoints whether they are well. A thread for each backend that wants it; it ends when its backend is gone.

use std::collections::HashMap;
use std::io;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use dataplane::announce::Version;
use dataplane::backend::{Address, Backend, Common};

use crate::config::ActiveHealth;

pub fn start(backend: &Arc<Backend>, health: &ActiveHealth) -> io::Result<()> {
    let (name, announce) = (backend.name.clone(), backend.settings.announce);
    let (common, health) = (Arc::downgrade(&backend.common), health.clone());
    let builder = thread::Builder::new().name("health".to_owned()).stack_size(64 << 10);
    builder.spawn(move || watch(&name, announce, &common, &health)).map(drop)
}

fn watch(backend: &str, announce: Option<Version>, common: &Weak<Common>, health: &ActiveHealth) {
    let mut runs: HashMap<Address, (bool, u32)> = HashMap::new();
    loop {
        let Some(endpoints) = common.upgrade().map(|common| common.endpoints()) else { return };
        runs.retain(|address, _| endpoints.iter().any(|endpoint| endpoint.address == *address));
        for endpoint in endpoints {
            let now_good = ask(&endpoint.address, health, announce).is_ok_and(|good| good);
            let now = dataplane::clock::now();
            let (good, length) = runs.entry(endpoint.address.clone()).or_insert((true, 0));
            *length = if now_good == *good { length.saturating_add(1) } else { 1 };
            *good = now_good;
            let down = endpoint.health.is_down();
            if down && now_good && *length >= health.successes {
                endpoint.health.set_down(false, now);
                daemon::info!("an endpoint is well again", backend = backend, endpoint = endpoint.name);
            } else if !down && !now_good && *length >= health.failures {
                endpoint.health.set_down(true, now);
                daemon::warn!("an endpoint is not well", backend = backend, endpoint = endpoint.name);
            }
        }
        thread::sleep(health.interval.0);
    }
}

fn ask(address: &Address, health: &ActiveHealth, announce: Option<Version>) -> io::Result<bool> {
    let timeout = health.timeout.0;
    match address {
        Address::Tcp(address) => {
            let stream = TcpStream::connect_timeout(address, timeout)?;
            stream.set_read_timeout(Some(timeout))?;
            stream.set_write_timeout(Some(timeout))?;
            question(stream, &address.to_string(), health, announce)
        }
        Address::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(timeout))?;
            stream.set_write_timeout(Some(timeout))?;
            question(stream, "localhost", health, announce)
        }
    }
}

fn question<S: io::Read + io::Write>(
    mut stream: S,
    host: &str,
    health: &ActiveHealth,
    announce: Option<Version>,
) -> io::Result<bool> {
    if let Some(version) = announce {
        let mut header = Vec::new();
        dataplane::announce::write_local(version, &mut header);
        stream.write_all(&header)?;
    }
    let Some(path) = &health.path else { return Ok(true) };
    let host = health.host.as_deref().unwrap_or(host);
    let text =
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: outrigger-proxy\r\nConnection: close\r\n\r\n");
    stream.write_all(text.as_bytes())?;
    let mut line = [0; 12];
    stream.read_exact(&mut line)?;
    // The rest is read so that the application can finish; how much there is, is its business.
    let mut rest = [0; 4096];
    let _ = stream.read(&mut rest);
    Ok(line.starts_with(b"HTTP/1.") && matches!(line[9], b'2' | b'3'))
}

/// Between two looks at files and names.
pub const LOOK: Duration = Duration::from_secs(1);
