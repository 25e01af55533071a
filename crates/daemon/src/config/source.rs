//! Where a configuration's text comes from: one file, or several, whose documents are taken as those of one.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::PathBuf;

use super::tree::Mark;

/// Bytes of a file; what has more is no configuration.
const MOST: u64 = 16 << 20;

/// A text and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub text: String,
    /// Names of the files, and how many lines of the text stand before each.
    parts: Vec<(String, usize)>,
}

/// Why there is no text.
#[derive(Debug, thiserror::Error)]
#[error("failed to read {path}")]
pub struct ReadError {
    path: String,
    source: io::Error,
}

impl Source {
    /// Text that is in no file.
    pub fn unnamed(text: String, name: &str) -> Source {
        Source { text, parts: vec![(name.to_owned(), 0)] }
    }

    /// Reads files, or pipes until their end.
    pub fn read(paths: &[PathBuf]) -> Result<Source, ReadError> {
        Source::collect(paths, text)
    }

    /// As [`Source::read`], for a program that runs: nothing is waited for, so nothing but files is read.
    pub fn read_again(paths: &[PathBuf]) -> Result<Source, ReadError> {
        Source::collect(paths, |path| {
            if std::fs::metadata(path)?.is_file() { text(path) } else { Err(io::Error::other("it is no file")) }
        })
    }

    fn collect(paths: &[PathBuf], text: impl Fn(&str) -> io::Result<String>) -> Result<Source, ReadError> {
        let mut source = Source { text: String::new(), parts: Vec::new() };
        for path in paths {
            let path = path.display().to_string();
            let text = text(&path).map_err(|source| ReadError { path: path.clone(), source })?;
            if !source.parts.is_empty() {
                source.text.push_str(if source.text.ends_with('\n') { "---\n" } else { "\n---\n" });
            }
            source.parts.push((path, source.text.lines().count()));
            source.text.push_str(&text);
        }
        Ok(source)
    }

    /// All files.
    pub fn names(&self) -> String {
        let names: Vec<&str> = self.parts.iter().map(|(name, _)| name.as_str()).collect();
        names.join(", ")
    }

    /// `FILE:LINE:COLUMN`.
    pub fn place(&self, mark: Mark) -> String {
        // What stands between two files is the end of the first.
        let part = self.parts.iter().rev().find(|(_, before)| *before < mark.line);
        let (name, before) = part.or(self.parts.first()).map_or(("", 0), |(name, before)| (name, *before));
        format!("{name}:{}:{}", mark.line - before, mark.column)
    }
}

fn text(path: &str) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MOST + 1).read_to_string(&mut text)?;
    let fits = text.len() as u64 <= MOST;
    if fits { Ok(text) } else { Err(io::Error::other(format!("it has more than {} MiB", MOST >> 20))) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tree;

    #[test]
    fn places_are_those_of_the_files() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let root = format!("{}/", directory.path().display());
        let paths = [write("a", "x: 1"), write("b", "---\ny: 1\n---\nz: 1\n"), write("c", ""), write("d", "w: 1\n")];
        let source = Source::read(&paths).unwrap();
        let documents = tree::parse(&source.text).unwrap();
        let places: Vec<String> =
            documents.iter().map(|document| source.place(document.mark).replace(&root, "")).collect();
        assert_eq!(places, ["a:1:1", "b:2:1", "b:4:1", "d:1:1"]);
        // What the first leaves open is not the second's fault.
        let source = Source::read(&[write("e", "x: [\n"), paths[3].clone()]).unwrap();
        let place = source.place(tree::parse(&source.text).unwrap_err().mark);
        assert!(place.replace(&root, "").starts_with("e:2:"), "{place}");
        assert_eq!(source.names().replace(&root, ""), "e, d");
        let missing = Source::read(&[directory.path().join("none")]).unwrap_err();
        assert!(missing.to_string().ends_with("/none"), "{missing}");
    }
    #[test]
    fn what_never_ends_is_not_read_and_pipes_only_once() {
        let endless = Source::read(&[PathBuf::from("/dev/zero")]).unwrap_err();
        assert!(io::Error::to_string(&endless.source).contains("16 MiB"), "{endless:?}");
        let directory = tempfile::tempdir().unwrap();
        let pipe = [directory.path().join("pipe")];
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &pipe[0], rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let path = pipe[0].clone();
        let writer = std::thread::spawn(move || std::fs::write(path, "x: 1"));
        assert_eq!(Source::read(&pipe).unwrap().text, "x: 1");
        writer.join().unwrap().unwrap();
        // Nobody writes; whoever opened it would wait for ever.
        assert_eq!(Source::read_again(&pipe).unwrap_err().source.to_string(), "it is no file");
    }
}
