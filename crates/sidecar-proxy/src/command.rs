//! Commands beside running. Two ask a running proxy: `trace` its slowest requests, `drain` to end gently; `redirect` has
//! a module of its own.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;

use daemon::Exit;
use daemon::config::Seconds;

pub(crate) const COMMANDS: &[(&str, &str)] = &[
    crate::redirect::USAGE,
    ("trace [--watch] [--admin ADDRESS]", "the slowest requests of the last minute, by phase"),
    (
        "drain [--at-least TIME] [--socket PATH]",
        "a preStop hook: not ready any more, but whoever comes within TIME (5s) is served still",
    ),
];

const TRACE: &str = "outrigger-proxy trace: the slowest requests of the last minute, by phase

Usage: outrigger-proxy trace [--admin ADDRESS] [--watch]

Flags:
  --admin ADDRESS   where the proxy serves health and metrics (127.0.0.1:7612)
  --watch           again every second
";
const DRAIN: &str = "outrigger-proxy drain: tells a running proxy to end gently, and returns at once

The proxy is not ready any more. Whoever comes within the time is served still, with the word that this was a
connection's last answer; then the proxy ends with its last connection, at the latest when its --drain-timeout is over,
counted from now. As a pod's preStop hook it runs at the same time as the hooks of the other containers, before anybody
gets SIGTERM.

Usage: outrigger-proxy drain [--at-least TIME] [--socket PATH]

Flags:
  --at-least TIME   serve whoever comes for this long (5s)
  --socket PATH     the proxy's Unix socket (/run/outrigger/proxy.sock)
";
/// Longer than a load balancer needs to see that a pod is not ready (Kubernetes probes every ten seconds, but takes a pod
/// that is deleted out at once).
const AT_LEAST: &str = "5s";
/// A proxy that answers at all answers soon.
const PATIENCE: Duration = Duration::from_secs(5);

/// A sentence for whoever called it wrongly.
pub(crate) type Usage = String;

pub(crate) fn run(name: &str, arguments: Vec<OsString>) -> ExitCode {
    let outcome = match name {
        "redirect" => crate::redirect::redirect(arguments),
        "trace" => trace(arguments),
        _ => drain(arguments),
    };
    outcome.map_or_else(
        |usage| {
            complain(&format!("{name}: {usage}; see {name} --help"));
            Exit::Usage.into()
        },
        Exit::into,
    )
}

/// A command's flags in their order: those in `names`, and those in `switches`, which have no value. `None`: help was asked
/// for.
pub(crate) fn flags(
    arguments: Vec<OsString>,
    names: &[&'static str],
    switches: &[&'static str],
) -> Result<Option<Vec<(&'static str, String)>>, Usage> {
    use lexopt::Arg::{Long, Short};
    let mut parser = lexopt::Parser::from_args(arguments);
    let mut found = Vec::new();
    while let Some(argument) = parser.next().map_err(|error| error.to_string())? {
        let known = |name: &str, list: &[&'static str]| list.iter().copied().find(|other| *other == name);
        match argument {
            Long("help") | Short('h') => return Ok(None),
            Long(name) if let Some(name) = known(name, names) => {
                let value = parser.value().ok().and_then(|value| value.into_string().ok());
                found.push((name, value.ok_or_else(|| format!("--{name} needs a value"))?));
            }
            Long(name) if let Some(name) = known(name, switches) => found.push((name, String::new())),
            Long(name) => return Err(format!("unknown flag --{name}")),
            other => return Err(other.unexpected().to_string()),
        }
    }
    Ok(Some(found))
}

fn trace(arguments: Vec<OsString>) -> Result<Exit, Usage> {
    let Some(flags) = flags(arguments, &["admin"], &["watch"])? else {
        say(TRACE);
        return Ok(Exit::Success);
    };
    let (mut address, mut watch) = ("127.0.0.1:7612".to_owned(), false);
    for (name, value) in flags {
        match name {
            "admin" if value.starts_with(':') => address = format!("127.0.0.1{value}"),
            "admin" => address = value,
            _ => watch = true,
        }
    }
    loop {
        match TcpStream::connect(&address).and_then(|stream| ask(stream, "GET /trace")) {
            Ok(page) => say(&if watch { format!("\x1b[H\x1b[J{page}") } else { page }),
            Err(error) => {
                complain(&format!("failed to ask {address}: {error}"));
                return Ok(Exit::Failure);
            }
        }
        if !watch {
            return Ok(Exit::Success);
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn drain(arguments: Vec<OsString>) -> Result<Exit, Usage> {
    let Some(flags) = flags(arguments, &["at-least", "socket"], &[])? else {
        say(DRAIN);
        return Ok(Exit::Success);
    };
    let (mut at_least, mut socket) = (AT_LEAST.to_owned(), "/run/outrigger/proxy.sock".to_owned());
    for (name, value) in flags {
        match name {
            "socket" => socket = value,
            _ => at_least = value,
        }
    }
    if Seconds::parse(&at_least).is_none() {
        return Err(format!("--at-least: `{at_least}` is no duration"));
    }
    let asked = UnixStream::connect(&socket);
    match asked.and_then(|stream| ask(stream, &format!("POST /-/drain?atLeast={at_least}"))) {
        Ok(_) => Ok(Exit::Success),
        Err(error) => {
            complain(&format!("failed to ask {socket}: {error}"));
            Ok(Exit::Failure)
        }
    }
}

/// One exchange; the answer's body if it was a good one.
fn ask(mut stream: impl Read + Write + Patient, request: &str) -> std::io::Result<String> {
    stream.be_patient()?;
    stream.write_all(
        format!("{request} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 2") => Ok(body.to_owned()),
        Some((head, _)) => Err(std::io::Error::other(head.lines().next().unwrap_or_default().to_owned())),
        None => Err(std::io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Both kinds of stream have it, but no trait says so.
trait Patient {
    fn be_patient(&self) -> std::io::Result<()>;
}

impl Patient for TcpStream {
    fn be_patient(&self) -> std::io::Result<()> {
        self.set_read_timeout(Some(PATIENCE))
    }
}

impl Patient for UnixStream {
    fn be_patient(&self) -> std::io::Result<()> {
        self.set_read_timeout(Some(PATIENCE))
    }
}

pub(crate) fn complain(message: &str) {
    let _ = writeln!(std::io::stderr(), "outrigger-proxy: {message}");
}

/// A reader that went away is no reason to complain.
pub(crate) fn say(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}
