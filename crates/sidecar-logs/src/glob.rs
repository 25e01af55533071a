//! Patterns of paths: `*` and `?` within a name, `[a-z]`, and `**` for any number of directories.

use std::fs;
use std::path::{Path, PathBuf};

/// Whether a name matches one component of a pattern.
pub fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star = None;
    while n < name.len() {
        let step = match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
                continue;
            }
            Some(b'?') => Some(1),
            Some(b'[') => class(&pattern[p..], name[n]),
            Some(byte) if *byte == name[n] => Some(1),
            _ => None,
        };
        match (step, star) {
            (Some(step), _) => (p, n) = (p + step, n + 1),
            // The last star takes one more byte.
            (None, Some((at, from))) => {
                star = Some((at, from + 1));
                (p, n) = (at + 1, from + 1);
            }
            (None, None) => return false,
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// How long the class is if the byte is in it. A `[` that is never closed stands for itself.
fn class(pattern: &[u8], byte: u8) -> Option<usize> {
    let negated = matches!(pattern.get(1), Some(b'!' | b'^'));
    let start = if negated { 2 } else { 1 };
    let Some(length) = pattern.get(start + 1..).and_then(|rest| rest.iter().position(|byte| *byte == b']')) else {
        return (byte == b'[').then_some(1);
    };
    let end = start + 1 + length;
    let mut inside = false;
    let mut at = start;
    while at < end {
        if at + 2 < end && pattern[at + 1] == b'-' {
            inside |= (pattern[at]..=pattern[at + 2]).contains(&byte);
            at += 3;
        } else {
            inside |= pattern[at] == byte;
            at += 1;
        }
    }
    (inside != negated).then_some(end + 1)
}

/// What a source reads.
#[derive(Debug, Clone)]
pub struct Selection {
    pub include: Vec<String>,
    pub exclude: Vec<String>,
}

/// What a look at the file system found.
#[derive(Debug, Default)]
pub struct Found {
    pub files: Vec<PathBuf>,
    /// Directories in which more may appear.
    pub directories: Vec<PathBuf>,
}

impl Selection {
    pub fn find(&self) -> Found {
        let mut found = Found::default();
        for pattern in &self.include {
            let parts: Vec<&str> = pattern.split('/').filter(|part| !part.is_empty()).collect();
            self.walk(Path::new("/"), &parts, &mut found);
        }
        found.files.sort_unstable();
        found.files.dedup();
        found.directories.sort_unstable();
        found.directories.dedup();
        found
    }

    /// Whether [`Selection::find`] leads to this path if it is there.
    pub fn names(&self, path: &Path) -> bool {
        let bytes = path.as_os_str().as_encoded_bytes();
        self.include.iter().any(|pattern| matches_path(pattern, bytes)) && !self.is_excluded(path)
    }

    fn is_excluded(&self, path: &Path) -> bool {
        let bytes = |path: &Path| path.as_os_str().as_encoded_bytes().to_vec();
        let name = path.file_name().map(|name| name.as_encoded_bytes()).unwrap_or_default();
        self.exclude.iter().any(|pattern| {
            let whole = pattern.contains('/');
            if whole { matches_path(pattern, &bytes(path)) } else { matches(pattern.as_bytes(), name) }
        })
    }

    fn walk(&self, base: &Path, parts: &[&str], found: &mut Found) {
        let Some((part, rest)) = parts.split_first() else { return };
        let wild = part.contains(['*', '?', '[']);
        if !wild && !rest.is_empty() {
            return self.walk(&base.join(part), rest, found);
        }
        if base.is_dir() {
            found.directories.push(base.to_owned());
        }
        if !wild {
            let path = base.join(part);
            if path.is_file() && !self.is_excluded(&path) {
                found.files.push(path);
            }
            return;
        }
        if *part == "**" {
            self.walk(base, rest, found);
        }
        let Ok(entries) = fs::read_dir(base) else { return };
        for entry in entries.flatten() {
            let path = entry.path();
            let is_real_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if *part == "**" {
                // Links are not followed here: they may lead in circles.
                if is_real_directory {
                    self.walk(&path, parts, found);
                }
            } else if matches(part.as_bytes(), entry.file_name().as_encoded_bytes()) {
                if !rest.is_empty() {
                    self.walk(&path, rest, found);
                } else if path.is_file() && !self.is_excluded(&path) {
                    found.files.push(path);
                }
            }
        }
    }
}

/// Whole paths; `**` as a component takes any number of them.
pub fn matches_path(pattern: &str, path: &[u8]) -> bool {
    fn parts(pattern: &[&[u8]], path: &[&[u8]]) -> bool {
        match (pattern.split_first(), path.split_first()) {
            (None, None) => true,
            (Some((first, rest)), _) if *first == b"**" => {
                parts(rest, path) || path.split_first().is_some_and(|(_, shorter)| parts(pattern, shorter))
            }
            (Some((first, rest)), Some((name, names))) => matches(first, name) && parts(rest, names),
            _ => false,
        }
    }
    let split = |text: &[u8]| -> Vec<Vec<u8>> {
        text.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).map(<[u8]>::to_vec).collect()
    };
    let (pattern, path) = (split(pattern.as_bytes()), split(path));
    let pattern: Vec<&[u8]> = pattern.iter().map(Vec::as_slice).collect();
    let path: Vec<&[u8]> = path.iter().map(Vec::as_slice).collect();
    parts(&pattern, &path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (pattern, name, expected) in [
            ("*.log", "app.log", true),
            ("*.log", "app.log.1", false),
            ("a?c*", "abcd", true),
            ("*a*b*c*", "xxaxxbxxc", true),
            ("*a*b*c*", "xxaxxcxxb", false),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[!a-c]x", "dx", true),
            ("[", "[", true),
            ("*", "", true),
            ("?", "", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
        assert!(matches_path("/a/**/c.log", b"/a/b/b/c.log") && matches_path("/a/**/c.log", b"/a/c.log"));
        assert!(!matches_path("/a/*/c.log", b"/a/b/b/c.log"));
    }

    #[test]
    fn files_and_where_more_may_appear() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        for name in ["a.log", "a.log.gz", "d/b.log", "d/e/c.log", "d/skip/x.log"] {
            fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
            fs::write(root.join(name), "").unwrap();
        }
        let find = |include: &str| {
            let selection = Selection {
                include: vec![format!("{}/{include}", root.display())],
                exclude: vec!["*.gz".to_owned(), "/**/skip/*".to_owned()],
            };
            let found = selection.find();
            let short = |path: &PathBuf| path.strip_prefix(root).unwrap().display().to_string();
            (found.files.iter().map(short).collect::<Vec<_>>(), found.directories.len())
        };
        assert_eq!(find("*.log*"), (vec!["a.log".to_owned()], 1));
        assert_eq!(find("**/*.log").0, ["a.log", "d/b.log", "d/e/c.log"]);
        assert_eq!(find("d/?.log").0, ["d/b.log"]);
        assert_eq!(find("missing/*.log"), (Vec::new(), 0));
    }
}
