//! `outrigger exec`, and what it shares with `attach`: this terminal joined with a process in a container.

use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll};

use pod_client::CallError;
use pod_client::query::Query;
use pod_client::stream::remote::{Ended, Remote, Size};
use serde_json::Value;
use tokio::io::AsyncWrite;
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use super::arguments::Exec;
use super::raw::{self, Raw};
use super::value;
use super::{Node, Outcome, Trouble, pod, text};
use crate::cli::Global;
use crate::exit;

pub(crate) fn run(global: &Global, arguments: &Exec) -> anyhow::Result<u8> {
    let node = Node::connect(global, &arguments.server)?;
    super::run(async { exec(&node, arguments).await.map_err(|trouble| vec![trouble]) })
}

async fn exec(node: &Node, arguments: &Exec) -> Outcome<u8> {
    let pod = pod::find(node, &arguments.pod).await?.pod;
    pod::require_alive(&pod, "exec into")?;
    let container = match arguments.container.as_deref() {
        // The server has the last word on names.
        Some(name) if !name.is_empty() => name.to_owned(),
        _ => value::text(pod::container(&pod, None, arguments.quiet)?, "name").to_owned(),
    };
    let tty = wants_terminal(arguments.stdin, arguments.tty, arguments.quiet);
    let mut query = Query::new(pod::path(&pod, "exec"));
    for word in &arguments.command {
        query = query.with("command", word);
    }
    let streams = Streams { stdin: arguments.stdin, tty };
    match streams.join(node, query.with("container", &container), 0).await? {
        Ended::Success => Ok(exit::OK),
        Ended::Code(code, message) => {
            eprintln!("{message}");
            Ok(exit::of_pod(code))
        }
        ended => Err(failed(ended)),
    }
}

/// A terminal is passed on only if there is one.
pub(super) fn wants_terminal(stdin: bool, tty: bool, quiet: bool) -> bool {
    if !tty || !stdin {
        return false;
    }
    let there = io::stdin().is_terminal();
    if !there && !quiet {
        eprintln!("Unable to use a TTY - input is not a terminal or the right kind of file");
    }
    there
}

pub(super) fn failed(ended: Ended) -> Trouble {
    match ended {
        Ended::Success => Trouble::Exit(exit::OK),
        Ended::Code(code, _) => Trouble::Exit(exit::of_pod(code)),
        Ended::Failed(status) => Trouble::Text(status.message),
        Ended::Lost => Trouble::Text("the connection ended before the command did".to_owned()),
    }
}

/// Which of this process' streams are joined. Outputs always are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Streams {
    pub(super) stdin: bool,
    pub(super) tty: bool,
}

impl Streams {
    /// `redraw` grows the first size by that much and takes it back, so that programs draw their screen again.
    pub(super) async fn join(self, node: &Node, query: Query, redraw: u16) -> Outcome<Ended> {
        let flag = |query: Query, name: &str, on: bool| if on { query.with(name, "true") } else { query };
        let query = flag(query, "stdin", self.stdin);
        let query = flag(query, "stdout", true);
        let query = flag(query, "stderr", !self.tty);
        let query = flag(query, "tty", self.tty);
        let remote = open(node, &query.into_string()).await?;
        let raw = if self.tty { Raw::enter()? } else { None };
        let sizes = if raw.is_some() { sizes(redraw) } else { mpsc::unbounded_channel().1 };
        let stdin = if self.stdin { Some(stdin()?) } else { None };
        let carrying = remote.carry(stdin, Plain(io::stdout()), Plain(io::stderr()), sizes);
        let ended = match &raw {
            // A signal would end this process before the terminal is given back.
            Some(_) => tokio::select! {
                ended = carrying => ended,
                signal = raw::asked_to_end() => {
                    drop(raw);
                    return Err(Trouble::Exit(128 + signal));
                }
            },
            None => carrying.await,
        };
        drop(raw);
        Ok(ended?)
    }
}

/// Opens a session; refusals before it are said as kubectl says them.
pub(super) async fn open(node: &Node, path: &str) -> Outcome<Remote> {
    match Remote::open(&node.client, path).await {
        Ok(remote) => Ok(remote),
        Err(CallError::Refused(status)) if status.plain => {
            text(format!("unable to upgrade connection: {}", status.message))
        }
        Err(error) => Err(error.into()),
    }
}

fn sizes(redraw: u16) -> mpsc::UnboundedReceiver<Size> {
    let mut changes = raw::sizes();
    if redraw == 0 {
        return changes;
    }
    let (sender, receiver) = mpsc::unbounded_channel();
    if let Ok((columns, rows)) = changes.try_recv() {
        // The receiver is here.
        let _ = sender.send((columns + redraw, rows + redraw));
        let _ = sender.send((columns, rows));
    }
    tokio::task::spawn_local(async move {
        while let Some(size) = changes.recv().await {
            if sender.send(size).is_err() {
                return;
            }
        }
    });
    receiver
}

/// stdin as something that can be waited for, whatever it is: a thread reads it, as files and some devices cannot be polled.
fn stdin() -> io::Result<UnixStream> {
    let (mut writing, reading) = std::os::unix::net::UnixStream::pair()?;
    reading.set_nonblocking(true)?;
    std::thread::spawn(move || {
        let mut buffer = vec![0; 32 * 1024];
        let mut stdin = io::stdin().lock();
        loop {
            match stdin.read(&mut buffer) {
                Ok(length @ 1..) if writing.write_all(&buffer[..length]).is_ok() => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The end of input, or of whoever reads it here.
                _ => return,
            }
        }
    });
    UnixStream::from_std(reading)
}

/// Writes at once: whoever reads slowly slows the process in the container down, which is what a pipe does too.
pub(super) struct Plain<W>(pub(super) W);

impl<W: io::Write + Unpin> AsyncWrite for Plain<W> {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(self.0.write(bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.flush())
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

/// Runs a command in a container for another verb, with what it says. The first is stdout, the second stderr.
pub(super) async fn capture(
    node: &Node,
    pod: &Value,
    container: &str,
    command: &[&str],
) -> Outcome<(Ended, Vec<u8>, Vec<u8>)> {
    let mut query = Query::new(pod::path(pod, "exec"));
    for word in command {
        query = query.with("command", word);
    }
    let query = query.with("container", container).with("stdout", "true").with("stderr", "true");
    let remote = open(node, &query.into_string()).await?;
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let ended = remote.carry(None::<tokio::io::Empty>, &mut out, &mut err, mpsc::unbounded_channel().1).await?;
    Ok((ended, out, err))
}
