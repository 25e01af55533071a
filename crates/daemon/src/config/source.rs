//! Where a configuration's text comes from: one file, or several, whose documents are taken as those of one.

use std::path::PathBuf;

use super::tree::Mark;

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
    source: std::io::Error,
}

impl Source {
    /// Text that is in no file.
    pub fn unnamed(text: String, name: &str) -> Source {
        Source { text, parts: vec![(name.to_owned(), 0)] }
    }

    pub fn read(paths: &[PathBuf]) -> Result<Source, ReadError> {
        let mut source = Source { text: String::new(), parts: Vec::new() };
        for path in paths {
            let path = path.display().to_string();
            let text = std::fs::read_to_string(&path).map_err(|source| ReadError { path: path.clone(), source })?;
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
}
