//! A reader that knows when to stop.

use std::{
    cell::Cell,
    io::{self, Read},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// Bytes that headers may take before an entry: long names and extended attributes are held in memory.
const MAX_HEADERS: u64 = 4 << 20;

/// Stops a stream that is too long, whose headers are too long, or that nobody wants any more.
#[derive(Debug)]
pub(crate) struct Guard<R> {
    inner: R,
    left: u64,
    /// Bytes left while headers are being read.
    headers: Rc<Cell<Option<u64>>>,
    cancel: Arc<AtomicBool>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum Stop {
    #[error("too large")]
    TooLarge,
    #[error("the headers of one entry are larger than {MAX_HEADERS} bytes")]
    Headers,
    #[error("cancelled")]
    Cancelled,
}

/// Tells a [`Guard`] that what is read next are headers: the tar library holds them in memory, however long.
#[derive(Debug)]
pub(crate) struct HeaderBudget(Rc<Cell<Option<u64>>>);

impl HeaderBudget {
    pub(crate) fn begin(&self) {
        self.0.set(Some(MAX_HEADERS));
    }

    pub(crate) fn end(&self) {
        self.0.set(None);
    }
}

impl<R> Guard<R> {
    pub(crate) fn new(inner: R, limit: u64, cancel: Arc<AtomicBool>) -> (Guard<R>, HeaderBudget) {
        let headers = Rc::new(Cell::new(None));
        (Guard { inner, left: limit, headers: headers.clone(), cancel }, HeaderBudget(headers))
    }
}

impl<R: io::Seek> io::Seek for Guard<R> {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
}

impl<R: Read> Read for Guard<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cancel.load(Ordering::Relaxed) {
            return Err(io::Error::other(Stop::Cancelled));
        }
        let read = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(read as u64).ok_or_else(|| io::Error::other(Stop::TooLarge))?;
        if let Some(left) = self.headers.get() {
            let left = left.checked_sub(read as u64).ok_or_else(|| io::Error::other(Stop::Headers))?;
            self.headers.set(Some(left));
        }
        Ok(read)
    }
}
