//! `outrigger-proxy trace`: asks a running proxy for its slowest requests.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::ExitCode;
use std::time::Duration;

const HELP: &str = "outrigger-proxy trace: the slowest requests of the last minute, by phase

Usage: outrigger-proxy trace [--admin ADDRESS] [--watch]

Flags:
  --admin ADDRESS   where the proxy serves health and metrics (127.0.0.1:7612)
  --watch           again every second
";

/// `None` if the arguments ask for something else.
pub fn run(mut arguments: impl Iterator<Item = String>) -> Option<ExitCode> {
    if arguments.next().as_deref() != Some("trace") {
        return None;
    }
    let (mut address, mut watch) = ("127.0.0.1:7612".to_owned(), false);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--admin" => match arguments.next() {
                Some(value) => address = value,
                None => return Some(usage("--admin needs a value")),
            },
            "--watch" => watch = true,
            "--help" | "-h" => {
                say(HELP);
                return Some(ExitCode::SUCCESS);
            }
            other => return Some(usage(&format!("unknown argument `{other}`; see trace --help"))),
        }
    }
    if address.starts_with(':') {
        address.insert_str(0, "127.0.0.1");
    }
    loop {
        match fetch(&address) {
            Ok(page) => say(&if watch { format!("\x1b[H\x1b[J{page}") } else { page }),
            Err(error) => {
                let _ = writeln!(std::io::stderr(), "outrigger-proxy: failed to ask {address}: {error}");
                return Some(ExitCode::from(1));
            }
        }
        if !watch {
            return Some(ExitCode::SUCCESS);
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn usage(message: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "outrigger-proxy: {message}");
    ExitCode::from(2)
}

/// A reader that went away is no reason to complain.
fn say(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn fetch(address: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET /trace HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200") => Ok(body.to_owned()),
        Some((head, _)) => Err(std::io::Error::other(head.lines().next().unwrap_or_default().to_owned())),
        None => Err(std::io::ErrorKind::UnexpectedEof.into()),
    }
}
