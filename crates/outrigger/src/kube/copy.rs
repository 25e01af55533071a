//! `outrigger cp`: files between this machine and a container, through `tar` in it.
//!
//! What a container sends is not trusted: names that lead out of the destination are left out, and so are links.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Component, Path, PathBuf};

use pod_client::query::Query;
use pod_client::stream::remote::Ended;
use serde_json::Value;
use tokio::sync::mpsc;

use super::arguments::Copy;
use super::exec::{Plain, capture, failed, open};
use super::value;
use super::{Node, Outcome, Trouble, pod, text};
use crate::cli::Global;
use crate::exit;

pub(crate) fn run(global: &Global, arguments: &Copy) -> anyhow::Result<u8> {
    let mut node = Node::connect(global, &arguments.server)?;
    super::run(async { copy(&mut node, arguments).await.map_err(|trouble| vec![trouble]) })
}

/// One side of a copy.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    Here(PathBuf),
    There { namespace: Option<String>, pod: String, path: String },
}

async fn copy(node: &mut Node, arguments: &Copy) -> Outcome<u8> {
    match (Place::parse(&arguments.from)?, Place::parse(&arguments.to)?) {
        (Place::There { .. }, Place::There { .. }) => text("one of src or dest must be a local file specification"),
        (Place::Here(_), Place::Here(_)) => text("one of src or dest must be a remote file specification"),
        (Place::There { namespace, pod, path }, Place::Here(to)) => {
            let (pod, container) = target(node, arguments, namespace, &pod).await?;
            from_container(node, &pod, &container, &path, &to).await
        }
        (Place::Here(from), Place::There { namespace, pod, path }) => {
            if !from.exists() {
                return text(format!("{} doesn't exist in local filesystem", from.display()));
            }
            let (pod, container) = target(node, arguments, namespace, &pod).await?;
            to_container(node, &pod, &container, &from, &path, arguments.no_preserve).await
        }
    }
}

async fn target(node: &mut Node, arguments: &Copy, namespace: Option<String>, name: &str) -> Outcome<(Value, String)> {
    if let Some(namespace) = namespace {
        node.namespace = namespace;
    }
    let pod = pod::find(node, name).await?.pod;
    pod::require_alive(&pod, "exec into")?;
    let container = value::text(pod::container(&pod, arguments.container.as_deref(), false)?, "name").to_owned();
    Ok((pod, container))
}

// === to a container ===

async fn to_container(
    node: &Node,
    pod: &Value,
    container: &str,
    from: &Path,
    to: &str,
    no_preserve: bool,
) -> Outcome<u8> {
    let from = fs::canonicalize(from)
        .map_err(|error| Trouble::Text(format!("failed to read `{}`: {error}", from.display())))?;
    let mut to = to.trim_end_matches('/').to_owned();
    let base = from.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let (is_directory, _, _) =
        capture(node, pod, container, &["test", "-d", if to.is_empty() { "/" } else { &to }]).await?;
    if is_directory == Ended::Success {
        to = format!("{to}/{base}");
    }
    let (directory, name) = to.rsplit_once('/').map_or(("", to.as_str()), |(directory, name)| match directory {
        "" => ("/", name),
        directory => (directory, name),
    });
    let mut query = Query::new(pod::path(pod, "exec")).with("command", "tar");
    if no_preserve {
        query = query.with("command", "--no-same-permissions").with("command", "--no-same-owner");
    }
    query = query.with("command", "-xmf").with("command", "-");
    if !directory.is_empty() {
        query = query.with("command", "-C").with("command", directory);
    }
    let query = query.with("container", container).with("stdin", "true").with("stdout", "true").with("stderr", "true");
    let remote = open(node, &query.into_string()).await?;
    let (writing, reading) = UnixStream::pair()?;
    reading.set_nonblocking(true)?;
    let reading = tokio::net::UnixStream::from_std(reading)?;
    let name = name.to_owned();
    let packing = std::thread::spawn(move || pack(&from, &name, writing));
    let ended =
        remote.carry(Some(reading), Plain(io::stdout()), Plain(io::stderr()), mpsc::unbounded_channel().1).await?;
    if ended != Ended::Success {
        return Err(said(ended));
    }
    match packing.join() {
        Ok(Ok(())) => Ok(exit::OK),
        Ok(Err(error)) => text(error.to_string()),
        Err(_) => text("packing the files failed"),
    }
}

fn pack(from: &Path, name: &str, out: UnixStream) -> io::Result<()> {
    let mut archive = tar::Builder::new(io::BufWriter::with_capacity(256 * 1024, out));
    archive.follow_symlinks(false);
    if from.is_dir() {
        archive.append_dir_all(name, from)?;
    } else {
        archive.append_path_with_name(from, name)?;
    }
    archive.into_inner()?.flush()
}

/// How tar in the container ended, where it did not end well.
fn said(ended: Ended) -> Trouble {
    match ended {
        Ended::Code(code, message) => {
            eprintln!("{message}");
            Trouble::Exit(exit::of_pod(code))
        }
        other => failed(other),
    }
}

// === from a container ===

async fn from_container(node: &Node, pod: &Value, container: &str, from: &str, to: &Path) -> Outcome<u8> {
    let query = ["tar", "cf", "-", from]
        .iter()
        .fold(Query::new(pod::path(pod, "exec")), |query, word| query.with("command", word));
    let query = query.with("container", container).with("stdout", "true").with("stderr", "true");
    let remote = open(node, &query.into_string()).await?;
    let (writing, reading) = UnixStream::pair()?;
    let (prefix, to) = (normal(from), to.to_owned());
    let unpacking = std::thread::spawn(move || unpack(reading, &prefix, &to));
    let carrying = remote.carry(
        None::<tokio::io::Empty>,
        Plain(Piped(Some(writing))),
        Plain(io::stderr()),
        mpsc::unbounded_channel().1,
    );
    let ended = carrying.await;
    let unpacked = match unpacking.join() {
        Ok(Ok(warnings)) => warnings,
        Ok(Err(error)) => return text(error.to_string()),
        Err(_) => return text("unpacking the files failed"),
    };
    unpacked.iter().for_each(|warning| eprintln!("warning: {warning}"));
    match ended? {
        Ended::Success => Ok(exit::OK),
        ended => Err(said(ended)),
    }
}

/// Bytes for the thread that unpacks. When it has had enough, the rest goes nowhere: its own error says why.
struct Piped(Option<UnixStream>);

impl io::Write for Piped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(stream) = &mut self.0
            && stream.write_all(bytes).is_err()
        {
            self.0 = None;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A path as tar names it: no slash at the beginning, no `.`, and `..` taken away.
fn normal(path: &str) -> PathBuf {
    let mut out = PathBuf::new();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => {
                out.pop();
            }
            _ => {}
        }
    }
    out
}

fn unpack(mut from: UnixStream, prefix: &Path, to: &Path) -> io::Result<Vec<String>> {
    let mut warnings = Vec::new();
    let mut archive = tar::Archive::new(&mut from);
    let into_directory = to.is_dir();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = entry.path()?.into_owned();
        if name.components().any(|component| component == Component::ParentDir) {
            warnings.push(format!("skipping \"{}\": its name leads out of the destination", name.display()));
            continue;
        }
        let name = normal(&name.to_string_lossy());
        let Ok(rest) = name.strip_prefix(prefix) else {
            let error = format!("tar contents corrupted: \"{}\" is not below \"{}\"", name.display(), prefix.display());
            return Err(io::Error::other(error));
        };
        let kind = entry.header().entry_type();
        let target = match rest.as_os_str().is_empty() {
            // The file itself: into a directory under its own name.
            true if into_directory && !kind.is_dir() => to.join(prefix.file_name().unwrap_or_default()),
            true => to.to_owned(),
            false => to.join(rest),
        };
        if kind.is_dir() {
            fs::create_dir_all(&target)?;
        } else if kind.is_file() {
            if let Some(parent) = target.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                fs::create_dir_all(parent)?;
            }
            // Links that were here before are the user's own.
            let mut file = fs::File::create(&target).map_err(|error| {
                io::Error::new(error.kind(), format!("failed to write `{}`: {error}", target.display()))
            })?;
            io::copy(&mut entry, &mut file)?;
        } else if kind.is_symlink() {
            let link = entry.link_name()?.unwrap_or_default().into_owned();
            warnings.push(format!("skipping symlink: \"{}\" -> \"{}\"", name.display(), link.display()));
        } else {
            warnings.push(format!("skipping \"{}\": it is neither a file nor a directory", name.display()));
        }
    }
    // Padding that tar writes behind the end.
    io::copy(archive.into_inner(), &mut io::sink())?;
    Ok(warnings)
}

// === impl Place ===

impl Place {
    fn parse(word: &str) -> Outcome<Place> {
        let place = match word.split_once(':') {
            None => Place::Here(PathBuf::from(word)),
            // `./a:b` and `/a:b` are files.
            Some((pod, _)) if pod.starts_with(['/', '.']) => Place::Here(PathBuf::from(word)),
            Some(("", _)) => return text("filespec must match the canonical format: [[namespace/]pod:]file/path"),
            Some((pod, path)) => {
                let parts: Vec<&str> = pod.split('/').collect();
                let (namespace, pod) = match parts.as_slice() {
                    [pod] => (None, *pod),
                    [namespace, pod] => (Some((*namespace).to_owned()), *pod),
                    _ => return text("filespec must match the canonical format: [[namespace/]pod:]file/path"),
                };
                Place::There { namespace, pod: pod.to_owned(), path: path.to_owned() }
            }
        };
        match &place {
            Place::Here(path) if path.as_os_str().is_empty() => text("filepath can not be empty"),
            Place::There { path, .. } if path.is_empty() => text("filepath can not be empty"),
            _ => Ok(place),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_kubectls() {
        let there = |namespace: Option<&str>, pod: &str, path: &str| Place::There {
            namespace: namespace.map(str::to_owned),
            pod: pod.to_owned(),
            path: path.to_owned(),
        };
        for (word, place) in [
            ("a", Some(Place::Here("a".into()))),
            ("./a:b", Some(Place::Here("./a:b".into()))),
            ("web:/x", Some(there(None, "web", "/x"))),
            ("ns/web:x:y", Some(there(Some("ns"), "web", "x:y"))),
            ("a/b/c:x", None),
            (":x", None),
            ("web:", None),
            ("", None),
        ] {
            assert_eq!(Place::parse(word).ok(), place, "{word}");
        }
        assert_eq!(normal("/var/./log/../x/"), Path::new("var/x"));
    }

    /// An archive with a name that leads out, a link, and files.
    fn archive(names: &[(&str, tar::EntryType)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, kind) in names {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_size(if kind.is_file() { 2 } else { 0 });
            header.set_mode(0o644);
            header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            builder.append(&header, if kind.is_file() { &b"ok"[..] } else { &[] }).expect("appended");
        }
        builder.into_inner().expect("an archive")
    }

    fn unpacked(names: &[(&str, tar::EntryType)], prefix: &str, to: &Path) -> io::Result<Vec<String>> {
        let bytes = archive(names);
        let (mut writing, reading) = UnixStream::pair().expect("a pair");
        let feeding = std::thread::spawn(move || drop(writing.write_all(&bytes)));
        let outcome = unpack(reading, Path::new(prefix), to);
        feeding.join().expect("fed");
        outcome
    }

    #[test]
    fn nothing_is_written_outside() {
        use tar::EntryType::{Regular, Symlink};
        let directory = tempfile::tempdir().expect("a directory");
        let to = directory.path().join("to");
        let names = [("d/a", Regular), ("d/b/c", Regular), ("d/../../evil", Regular), ("d/link", Symlink)];
        let warnings = unpacked(&names, "d", &to).expect("unpacked");
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert_eq!(fs::read(to.join("b/c")).expect("read"), b"ok");
        assert!(!directory.path().join("evil").exists());
        assert!(!to.join("link").exists());
        assert!(unpacked(&[("other", Regular)], "d", &to).is_err());
        unpacked(&[("d/a", Regular)], "d/a", &to).expect("into the directory");
        assert!(to.join("a").exists());
    }
}
