//! The access log: one line a request. Workers hand over whole buffers; a thread of its own writes, so that a full pipe stops
//! nobody. What does not fit is dropped and counted. A file that was renamed or removed is made anew.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

mod record;

pub use record::{Key, Record, time};

/// Bytes that may wait for the writer.
const WAITING: usize = 1 << 20;

/// How often the file's name is looked at.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    /// Apache's combined log format.
    Combined,
    /// JSON with OpenTelemetry's attribute names, or with short ones.
    Json {
        short: bool,
    },
}

#[derive(Clone, Debug)]
pub struct AccessLog {
    pub format: Format,
    /// Which fields JSON has, one bit for each [`Key`].
    pub fields: u32,
    /// Of requests by the first digit of their status (0: without), one in so many has a line; 0: none has.
    pub one_in: [u32; 6],
    /// Lines a second of one worker; 0: any number.
    pub rate: u32,
    pub writer: Writer,
}

/// What one worker remembers for [`AccessLog::wants`].
#[derive(Debug, Default)]
pub struct Sampling {
    seen: [u32; 6],
    second: u64,
    lines: u32,
}

impl AccessLog {
    /// Whether fields of the request's head are needed.
    pub fn wants_agent(&self) -> bool {
        self.format == Format::Combined || self.fields & (Key::UserAgent.bit() | Key::Referer.bit()) != 0
    }

    /// Whether a request with this status has a line now.
    pub fn wants(&self, status: u16, now: u64, sampling: &mut Sampling) -> bool {
        let class = usize::from(status / 100).min(5);
        match self.one_in[class] {
            1 => {}
            0 => return false,
            many => {
                let seen = &mut sampling.seen[class];
                *seen = if *seen + 1 >= many { 0 } else { *seen + 1 };
                // The first, and then every so many.
                if *seen != 1 % many {
                    return false;
                }
            }
        }
        if self.rate != 0 {
            let second = now / 1_000_000_000;
            if sampling.second != second {
                (sampling.second, sampling.lines) = (second, 0);
            }
            if sampling.lines >= self.rate {
                return false;
            }
            sampling.lines += 1;
        }
        true
    }
}

/// Where lines go.
#[derive(Debug)]
enum Out {
    Stdout(io::Stdout),
    /// With its name, and when that was last looked at.
    File(File, PathBuf, Instant),
}

fn open(path: &Path) -> io::Result<File> {
    File::options().append(true).create(true).open(path)
}

impl Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Out::Stdout(out) => out.write_all(bytes).and_then(|()| out.flush()),
            Out::File(file, ..) => file.write_all(bytes),
        }
    }

    /// Somebody may have renamed the file (logrotate(8)): lines go where the name is.
    fn look(&mut self, now: bool) {
        let Out::File(file, path, looked) = self else { return };
        if !now && looked.elapsed() < LOOK {
            return;
        }
        *looked = Instant::now();
        let identity = |meta: &std::fs::Metadata| (meta.dev(), meta.ino());
        let same =
            matches!((std::fs::metadata(&*path), file.metadata()), (Ok(a), Ok(b)) if identity(&a) == identity(&b));
        if !same {
            match open(path) {
                Ok(new) => *file = new,
                // The old one goes on: lines are somewhere, at least.
                Err(error) => {
                    daemon::warn!("failed to open the access log anew", path = path.display(), reason = error)
                }
            }
        }
    }
}

/// Hands buffers to the writing thread, which ends with the last of these.
#[derive(Clone, Debug)]
pub struct Writer {
    hand: Arc<Hand>,
}

#[derive(Debug, Default)]
struct Hand(Arc<Shared>);

impl Drop for Hand {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.more.notify_one();
    }
}

#[derive(Debug, Default)]
struct Waiting {
    lines: String,
    closed: bool,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    more: Condvar,
    dropped: AtomicU64,
    writing: AtomicBool,
    reopen: AtomicBool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    /// To a file that is appended to, or to standard output.
    pub fn open(path: Option<&Path>) -> io::Result<Writer> {
        let mut out = match path {
            Some(path) => Out::File(open(path)?, path.to_owned(), Instant::now()),
            None => Out::Stdout(io::stdout()),
        };
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        thread::Builder::new().name("access-log".to_owned()).stack_size(64 << 10).spawn(move || {
            loop {
                let mut waiting = of_thread.lock();
                while waiting.lines.is_empty() && !waiting.closed {
                    waiting = of_thread.more.wait(waiting).unwrap_or_else(PoisonError::into_inner);
                }
                let lines = std::mem::take(&mut waiting.lines);
                let closed = waiting.closed;
                of_thread.writing.store(true, Ordering::Release);
                drop(waiting);
                out.look(of_thread.reopen.swap(false, Ordering::AcqRel));
                if let Err(error) = out.write(lines.as_bytes()) {
                    // Said once, not for every line.
                    if of_thread.dropped.fetch_add(count(&lines), Ordering::Relaxed) == 0 {
                        daemon::warn!("failed to write the access log", reason = error);
                    }
                }
                of_thread.writing.store(false, Ordering::Release);
                if closed {
                    return;
                }
            }
        })?;
        Ok(Writer { hand: Arc::new(Hand(shared)) })
    }

    /// Passes the buffer's lines on and leaves it empty.
    pub fn write(&self, buffer: &mut String) {
        let shared = &self.hand.0;
        let mut waiting = shared.lock();
        if waiting.lines.len() + buffer.len() > WAITING {
            shared.dropped.fetch_add(count(buffer), Ordering::Relaxed);
        } else if waiting.lines.is_empty() {
            std::mem::swap(&mut waiting.lines, buffer);
            shared.more.notify_one();
        } else {
            waiting.lines.push_str(buffer);
        }
        buffer.clear();
    }

    /// Waits until everything has been written, but not for ever.
    pub fn flush(&self) {
        for _ in 0..200 {
            let waiting = self.hand.0.lock();
            if waiting.lines.is_empty() && !self.hand.0.writing.load(Ordering::Acquire) {
                return;
            }
            drop(waiting);
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Before the next line the file's name is looked at.
    pub fn reopen(&self) {
        self.hand.0.reopen.store(true, Ordering::Release);
    }

    pub fn dropped(&self) -> u64 {
        self.hand.0.dropped.load(Ordering::Relaxed)
    }
}

fn count(lines: &str) -> u64 {
    memchr::memchr_iter(b'\n', lines.as_bytes()).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(one_in: [u32; 6], rate: u32) -> AccessLog {
        AccessLog { format: Format::Text, fields: 0, one_in, rate, writer: Writer { hand: Arc::default() } }
    }

    #[test]
    fn lines_are_left_out() {
        let mut sampling = Sampling::default();
        let log_2xx = log([1, 1, 3, 1, 1, 1], 0);
        let wanted: Vec<bool> = (0..7).map(|_| log_2xx.wants(204, 0, &mut sampling)).collect();
        assert_eq!(wanted, [true, false, false, true, false, false, true]);
        assert!((0..7).all(|_| log_2xx.wants(500, 0, &mut sampling)));
        assert!(!log([1, 1, 0, 1, 1, 1], 0).wants(200, 0, &mut sampling));
        let bounded = log([1; 6], 2);
        let at = |second: u64, sampling: &mut Sampling| bounded.wants(200, second * 1_000_000_000, sampling);
        let wanted: Vec<bool> = [5, 5, 5, 6, 6, 6].map(|second| at(second, &mut sampling)).to_vec();
        assert_eq!(wanted, [true, true, false, true, true, false]);
    }

    #[test]
    fn a_renamed_file_is_made_anew() {
        let directory = std::env::temp_dir().join(format!("outrigger-access-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let (path, old) = (directory.join("log"), directory.join("log.1"));
        let writer = Writer::open(Some(&path)).unwrap();
        writer.write(&mut "one\n".to_owned());
        writer.flush();
        std::fs::rename(&path, &old).unwrap();
        writer.reopen();
        writer.write(&mut "two\n".to_owned());
        writer.flush();
        let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
        assert_eq!((read(&old), read(&path)), ("one\n".to_owned(), "two\n".to_owned()));
        // What was handed over last is still written, by a thread that then ends.
        let (last, shared) = (writer.clone(), Arc::downgrade(&writer.hand.0));
        drop(writer);
        last.write(&mut "three\n".to_owned());
        drop(last);
        let deadline = Instant::now() + Duration::from_secs(60);
        while shared.strong_count() > 0 {
            assert!(Instant::now() < deadline, "the thread goes on");
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(read(&path), "two\nthree\n");
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
