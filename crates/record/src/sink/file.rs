//! Standard output, and files that are rotated.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Failure, Sink};
use crate::batch::Batch;
use crate::encode::{Encoder, Encoding};

/// A larger buffer is given back after use.
const KEPT: usize = 4 << 20;

#[derive(Debug)]
pub struct Stdout {
    encoder: Encoder,
    buffer: Vec<u8>,
}

impl Stdout {
    pub fn new(encoding: Encoding) -> Stdout {
        Stdout { encoder: Encoder::new(encoding), buffer: Vec::new() }
    }
}

impl Sink for Stdout {
    fn deliver(&mut self, batches: &[Arc<Batch>]) -> Result<(), Failure> {
        self.buffer.clear();
        self.encoder.append(&mut self.buffer, batches);
        let mut out = io::stdout().lock();
        let written = out.write_all(&self.buffer).and_then(|()| out.flush());
        self.buffer.shrink_to(KEPT);
        written.map_err(|error| Failure::Retry(format!("failed to write to standard output: {error}"), None))
    }
}

/// How a file grows.
#[derive(Debug, Clone)]
pub struct FileOptions {
    pub path: PathBuf,
    pub encoding: Encoding,
    /// Rotated when it is larger; 0: never.
    pub max_bytes: u64,
    /// Rotated files kept beside the live one.
    pub keep: u32,
    /// fdatasync(2) before acknowledging.
    pub sync: bool,
}

#[derive(Debug)]
pub struct FileSink {
    options: FileOptions,
    encoder: Encoder,
    buffer: Vec<u8>,
    file: Option<(File, u64)>,
}

impl FileSink {
    pub fn new(options: FileOptions) -> FileSink {
        FileSink { encoder: Encoder::new(options.encoding), options, buffer: Vec::new(), file: None }
    }

    fn write(&mut self, batches: &[Arc<Batch>]) -> io::Result<()> {
        if self.file.as_ref().is_some_and(|(_, size)| self.options.max_bytes > 0 && *size >= self.options.max_bytes) {
            self.file = None;
            rotate(&self.options.path, self.options.keep)?;
        }
        if self.file.is_none() {
            if let Some(directory) = self.options.path.parent() {
                fs::create_dir_all(directory)?;
            }
            let file = OpenOptions::new().append(true).create(true).mode(0o640).open(&self.options.path)?;
            let size = file.metadata()?.len();
            self.file = Some((file, size));
        }
        let Some((file, size)) = &mut self.file else { return Ok(()) };
        let text = self.encoder.encoding == Encoding::Text;
        // Lines that nobody changed are written from where they are.
        let pieces: Option<Vec<&[u8]>> = batches.iter().map(|batch| batch.lines().filter(|_| text)).collect();
        let pieces = pieces.unwrap_or_else(|| {
            self.encoder.append(&mut self.buffer, batches);
            vec![&self.buffer]
        });
        if let Err(error) = pieces.iter().try_for_each(|piece| file.write_all(piece)) {
            // A full disk must not leave half a line in front of the next try.
            file.set_len(*size)?;
            return Err(error);
        }
        *size += pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
        if self.options.sync { file.sync_data() } else { Ok(()) }
    }
}

impl Sink for FileSink {
    fn deliver(&mut self, batches: &[Arc<Batch>]) -> Result<(), Failure> {
        self.buffer.clear();
        let written = self.write(batches);
        self.buffer.shrink_to(KEPT);
        written.map_err(|error| {
            self.file = None;
            Failure::Retry(format!("failed to write {}: {error}", self.options.path.display()), None)
        })
    }
}

/// `a` becomes `a.1`, `a.1` becomes `a.2`, and so on.
fn rotate(path: &Path, keep: u32) -> io::Result<()> {
    let numbered = |number: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    };
    let gone = |result: io::Result<()>| match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    if keep == 0 {
        return gone(fs::remove_file(path));
    }
    for number in (1..keep).rev() {
        gone(fs::rename(numbered(number), numbered(number + 1)))?;
    }
    gone(fs::rename(path, numbered(1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Flags, Record, Severity};

    #[test]
    fn files_rotate_and_lose_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/out.log");
        let options = FileOptions { path: path.clone(), encoding: Encoding::Text, max_bytes: 20, keep: 2, sync: false };
        let mut sink = FileSink::new(options);
        for index in 0..6 {
            let mut batch = Batch::new(Arc::default(), 0);
            let body = format!("line {index} 12");
            let (flags, severity) = (Flags::default(), Severity::Unknown);
            batch.push(&Record { time: 0, flags, severity, body: body.as_bytes(), fields: b"" });
            sink.deliver(&[Arc::new(batch)]).unwrap();
        }
        let read = |suffix: &str| fs::read_to_string(format!("{}{suffix}", path.display())).unwrap();
        assert_eq!(read(".2") + &read(".1") + &read(""), (0..6).map(|i| format!("line {i} 12\n")).collect::<String>());
    }

    #[test]
    fn a_full_disk_is_a_reason_to_try_again() {
        let options = FileOptions {
            path: PathBuf::from("/dev/full"),
            encoding: Encoding::Text,
            max_bytes: 0,
            keep: 0,
            sync: false,
        };
        let mut batch = Batch::new(Arc::default(), 0);
        batch.push(&Record { time: 0, flags: Flags(0), severity: Severity::Unknown, body: b"x", fields: b"" });
        let failure = FileSink::new(options).deliver(&[Arc::new(batch)]).unwrap_err();
        assert!(matches!(failure, Failure::Retry(..)), "{failure:?}");
    }
}
