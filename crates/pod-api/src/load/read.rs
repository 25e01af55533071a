//! The files a command names, as text.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::Source;

/// No manifest is this long; a device or a wrong file may be.
const SIZE_LIMIT: u64 = 32 << 20;

/// Why a file could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("failed to read `{name}`")]
    Read { name: String, source: io::Error },
    #[error("`{name}` is not UTF-8 text")]
    NotText { name: String },
    #[error("`{name}` is longer than {} MiB", SIZE_LIMIT >> 20)]
    TooLong { name: String },
    #[error("no *.yaml, *.yml or *.json file in `{name}`")]
    Empty { name: String },
}

/// Reads files, all `*.yaml`, `*.yml` and `*.json` files of directories (by name, not of directories inside), and
/// standard input for `-`.
///
/// # Errors
/// The first file that cannot be read, and a directory without manifests.
pub fn read_sources(paths: &[PathBuf]) -> Result<Vec<Source>, ReadError> {
    let mut sources = Vec::new();
    for path in paths {
        if path.as_os_str() == "-" {
            sources.push(read(io::stdin().lock(), "<stdin>".to_owned())?);
        } else if path.is_dir() {
            for file in manifests_in(path)? {
                sources.push(read_file(&file)?);
            }
        } else {
            sources.push(read_file(path)?);
        }
    }
    Ok(sources)
}

fn manifests_in(directory: &Path) -> Result<Vec<PathBuf>, ReadError> {
    let name = directory.display().to_string();
    let failed = |source| ReadError::Read { name: name.clone(), source };
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let file = entry.map_err(failed)?.path();
        let extension = file.extension().and_then(|extension| extension.to_str());
        if matches!(extension, Some("yaml" | "yml" | "json")) && file.is_file() {
            files.push(file);
        }
    }
    files.sort();
    if files.is_empty() { Err(ReadError::Empty { name }) } else { Ok(files) }
}

fn read_file(path: &Path) -> Result<Source, ReadError> {
    let name = path.display().to_string();
    let file = fs::File::open(path).map_err(|source| ReadError::Read { name: name.clone(), source })?;
    read(file, name)
}

fn read(from: impl Read, name: String) -> Result<Source, ReadError> {
    let mut bytes = Vec::new();
    from.take(SIZE_LIMIT + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| ReadError::Read { name: name.clone(), source })?;
    if bytes.len() as u64 > SIZE_LIMIT {
        return Err(ReadError::TooLong { name });
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Source { name, text }),
        Err(_) => Err(ReadError::NotText { name }),
    }
}
