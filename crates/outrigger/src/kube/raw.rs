//! The terminal handed over to a process in a container: no line editing, no echo, no signals of its own; and its size.
//!
//! Given back on every way out that is not a SIGKILL: when this is dropped, and before a signal ends the program.

use std::io::{self, IsTerminal as _};

use pod_client::stream::remote::Size;
use rustix::termios::{self, OptionalActions, Termios};
use tokio::sync::mpsc;

/// The terminal of stdin in raw mode.
pub(crate) struct Raw {
    before: Termios,
}

impl Raw {
    /// Nothing if stdin is no terminal.
    pub(crate) fn enter() -> io::Result<Option<Raw>> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let before = termios::tcgetattr(&stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(&stdin, OptionalActions::Drain, &raw)?;
        Ok(Some(Raw { before }))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // There is nobody left to tell.
        let _ = termios::tcsetattr(io::stdin(), OptionalActions::Drain, &self.before);
    }
}

/// The size of the terminal that stdout is, now and whenever it changes. The first is there when this returns; the task
/// ends with the receiver.
pub(crate) fn sizes() -> mpsc::UnboundedReceiver<Size> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let Ok(mut changes) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::window_change()) else {
        return receiver;
    };
    let mut last = None;
    let mut look = move || {
        let size = termios::tcgetwinsize(io::stdout()).ok().map(|size| (size.ws_col, size.ws_row));
        let size = size.filter(|size| Some(*size) != last && *size != (0, 0))?;
        last = Some(size);
        Some(size)
    };
    if let Some(size) = look() {
        // The receiver is here.
        let _ = sender.send(size);
    }
    tokio::task::spawn_local(async move {
        loop {
            tokio::select! {
                change = changes.recv() => if change.is_none() { return },
                () = sender.closed() => return,
            }
            if look().is_some_and(|size| sender.send(size).is_err()) {
                return;
            }
        }
    });
    receiver
}

/// Resolves with the number of a signal that asks this program to end.
pub(crate) async fn asked_to_end() -> u8 {
    use tokio::signal::unix::{SignalKind, signal};
    let wait = async |kind: SignalKind| match signal(kind) {
        Ok(mut signal) => signal.recv().await,
        Err(_) => std::future::pending().await,
    };
    tokio::select! {
        _ = wait(SignalKind::interrupt()) => 2,
        _ = wait(SignalKind::hangup()) => 1,
        _ = wait(SignalKind::terminate()) => 15,
        _ = wait(SignalKind::quit()) => 3,
    }
}
