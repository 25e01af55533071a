//! Data for whoever reads stdout. Someone who stops reading (`| head`) is no error.

use std::io::{self, Write as _};

pub(crate) fn print(text: impl AsRef<[u8]>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    forgive(out.write_all(text.as_ref()).and_then(|()| out.flush()))
}

/// As [`print()`], but a reader who has stopped is told as the error it is: whoever writes on and on must end.
pub(crate) fn write(text: impl AsRef<[u8]>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_ref()).and_then(|()| out.flush())
}

/// Whether writing may go on is told by `Err(BrokenPipe)` elsewhere; at the end of a command it no longer matters.
fn forgive(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
