//! The synthetic root: this machine's own programs stand in for an image that is not here (`--offline`).
//!
//! `/usr` and `/bin /sbin /lib*` are the host's, to be bound read-only; everything else is made up. Of the host's `/etc`
//! only what programs need to start is copied, and nothing that says who lives here: no `passwd`, no `hosts`, no keys.
//! `/root`, `/home` and `/var` are empty.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    digest::Hasher,
    pack::CA_BUNDLE,
    store::{Temporary, unique},
};

/// Top-level directories with programs. On merged systems they are symlinks into `/usr`.
const PROGRAMS: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];
const EMPTY: [(&str, u32); 15] = [
    ("dev", 0o755),
    ("etc", 0o755),
    ("home", 0o755),
    ("mnt", 0o755),
    ("opt", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("srv", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("usr", 0o755),
    ("var", 0o755),
    ("var/tmp", 0o1777),
    ("run/lock", 0o1777),
];
/// Debian's `nobody` and Fedora's agree on the number.
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";
/// `nogroup` is Debian's word, `nobody` everybody else's.
const GROUP: &str = "root:x:0:\ntty:x:5:\nnogroup:x:65534:\nnobody:x:65534:\n";
const NSSWITCH: &str = "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\nprotocols: files\nservices: files\n";
const PROFILE: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nexport PATH\n";
/// Facts about protocols and the dynamic linker, not about this machine's people. Absent ones are left out.
const COPIED: [&str; 7] = [
    "etc/ld.so.cache",
    "etc/ld.so.conf",
    "etc/ssl/openssl.cnf",
    "etc/services",
    "etc/protocols",
    "etc/mime.types",
    "etc/shells",
];
/// Where the systems keep their bundle: Debian and Alpine, Fedora, openSUSE, RHEL, BSDs.
const CA_BUNDLES: [&str; 5] = [
    CA_BUNDLE,
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Nothing that is copied is anywhere near this size; what is, is not what we think.
const MAX_COPY: u64 = 8 << 20;

/// A root file system made of the host's programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostUserland {
    /// An overlay lower layer.
    pub lower: PathBuf,
    /// To be mounted over it, read-only and with their submounts: path here, path in the container.
    pub binds: Vec<(PathBuf, String)>,
    /// `host://debian-12`
    pub id: String,
}

/// Why there is no synthetic root.
#[derive(Debug, thiserror::Error)]
pub enum HostUserlandError {
    #[error("failed to read `{path}` of the host")]
    Read { path: PathBuf, source: io::Error },
    #[error("failed to make the synthetic root in `{path}`")]
    Make { path: PathBuf, source: io::Error },
}

#[derive(Debug)]
enum Node {
    Directory(u32),
    File(Vec<u8>),
    Symlink(PathBuf),
}

/// Makes the synthetic root below `dir`, or finds it there from last time. Safe to call from several processes. An
/// older one stays when the host has changed: containers may be running on it.
pub fn host_userland(dir: &Path) -> Result<HostUserland, HostUserlandError> {
    from_root(Path::new("/"), dir)
}

/// The host's bundle of CA certificates.
pub(crate) fn find_ca_bundle() -> Option<PathBuf> {
    CA_BUNDLES.iter().map(PathBuf::from).find(|path| path.is_file())
}

fn from_root(host: &Path, dir: &Path) -> Result<HostUserland, HostUserlandError> {
    let (skeleton, binds) = plan(host)?;
    let make = |path: &Path| {
        let path = path.to_owned();
        move |source| HostUserlandError::Make { path, source }
    };
    fs::create_dir_all(dir).map_err(make(dir))?;
    let dir = fs::canonicalize(dir).map_err(make(dir))?;
    // Named by its content, so that a change of the host gives a new one and the same host the same.
    let lower = dir.join(stamp(&skeleton));
    if !lower.exists() {
        let temporary = Temporary(dir.join(format!("new-{}", unique())));
        write(&temporary.0, &skeleton).map_err(make(&temporary.0))?;
        match fs::rename(&temporary.0, &lower) {
            // Somebody else was quicker, with the same.
            Err(_) if lower.exists() => {}
            other => other.map_err(make(&lower))?,
        }
    }
    Ok(HostUserland { lower, binds, id: identify(host) })
}

type Plan = (BTreeMap<PathBuf, Node>, Vec<(PathBuf, String)>);

fn plan(host: &Path) -> Result<Plan, HostUserlandError> {
    let mut nodes = BTreeMap::new();
    let mut binds = vec![(host.join("usr"), "/usr".to_owned())];
    for (path, mode) in EMPTY {
        nodes.insert(PathBuf::from(path), Node::Directory(mode));
    }
    for name in PROGRAMS {
        let path = host.join(name);
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_symlink() => {
                let target = fs::read_link(&path).map_err(|source| HostUserlandError::Read { path, source })?;
                nodes.insert(name.into(), Node::Symlink(target));
            }
            Ok(metadata) if metadata.is_dir() => {
                nodes.insert(name.into(), Node::Directory(0o755));
                binds.push((path, format!("/{name}")));
            }
            _ => {}
        }
    }

    let texts = [
        ("etc/passwd", PASSWD),
        ("etc/group", GROUP),
        ("etc/nsswitch.conf", NSSWITCH),
        ("etc/profile", PROFILE),
        // Filled, or mounted over, by whoever knows the pod.
        ("etc/hosts", ""),
        ("etc/hostname", ""),
        ("etc/resolv.conf", ""),
    ];
    for (path, text) in texts {
        nodes.insert(path.into(), Node::File(text.as_bytes().to_vec()));
    }
    for path in COPIED {
        copy_file(host, Path::new(path), Path::new(path), &mut nodes)?;
    }
    copy_entries(host, Path::new("etc/ld.so.conf.d"), &mut nodes, |kind| kind.is_file())?;
    copy_entries(host, Path::new("etc/alternatives"), &mut nodes, |kind| kind.is_symlink())?;
    for bundle in CA_BUNDLES {
        // Under Debian's name too, and only the first: the others are links to it or the same.
        let found = Path::new(bundle.trim_start_matches('/'));
        if copy_file(host, found, Path::new(CA_BUNDLE.trim_start_matches('/')), &mut nodes)? {
            copy_file(host, found, found, &mut nodes)?;
            break;
        }
    }
    if host.join("usr/lib/os-release").exists() {
        nodes.insert("etc/os-release".into(), Node::Symlink("../usr/lib/os-release".into()));
    } else {
        copy_file(host, Path::new("etc/os-release"), Path::new("etc/os-release"), &mut nodes)?;
    }
    Ok((nodes, binds))
}

/// Whether there was a file to copy.
fn copy_file(
    host: &Path,
    from: &Path,
    to: &Path,
    nodes: &mut BTreeMap<PathBuf, Node>,
) -> Result<bool, HostUserlandError> {
    let path = host.join(from);
    // Follows links: a copy of what they lead to is what is wanted.
    match fs::metadata(&path) {
        Ok(metadata) if metadata.is_file() && metadata.len() <= MAX_COPY => {}
        _ => return Ok(false),
    }
    let bytes = fs::read(&path).map_err(|source| HostUserlandError::Read { path, source })?;
    for parent in to.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()) {
        nodes.entry(parent.to_owned()).or_insert(Node::Directory(0o755));
    }
    nodes.insert(to.to_owned(), Node::File(bytes));
    Ok(true)
}

/// The entries of one directory that are of the wanted kind, links as links.
fn copy_entries(
    host: &Path,
    directory: &Path,
    nodes: &mut BTreeMap<PathBuf, Node>,
    wanted: impl Fn(&fs::FileType) -> bool,
) -> Result<(), HostUserlandError> {
    let path = host.join(directory);
    let Ok(entries) = fs::read_dir(&path) else { return Ok(()) };
    nodes.insert(directory.to_owned(), Node::Directory(0o755));
    let fail = |source| HostUserlandError::Read { path: path.clone(), source };
    for entry in entries {
        let entry = entry.map_err(fail)?;
        let kind = entry.file_type().map_err(fail)?;
        let to = directory.join(entry.file_name());
        if !wanted(&kind) {
            continue;
        }
        if kind.is_symlink() {
            nodes.insert(to, Node::Symlink(fs::read_link(entry.path()).map_err(fail)?));
        } else {
            copy_file(host, &to, &to, nodes)?;
        }
    }
    Ok(())
}

fn stamp(nodes: &BTreeMap<PathBuf, Node>) -> String {
    let mut hasher = Hasher::default();
    let mut field = |kind: &str, bytes: &[u8]| {
        hasher.update(format!("{kind} {}\n", bytes.len()).as_bytes());
        hasher.update(bytes);
    };
    for (path, node) in nodes {
        field("path", path.as_os_str().as_encoded_bytes());
        match node {
            Node::Directory(mode) => field("directory", &mode.to_be_bytes()),
            Node::File(bytes) => field("file", bytes),
            Node::Symlink(target) => field("symlink", target.as_os_str().as_encoded_bytes()),
        }
    }
    hasher.finish().hex()[..16].to_owned()
}

fn write(root: &Path, nodes: &BTreeMap<PathBuf, Node>) -> io::Result<()> {
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
    fs::create_dir(root)?;
    mode(root, 0o755)?;
    for (path, node) in nodes {
        let path = root.join(path);
        match node {
            Node::Directory(bits) => {
                fs::create_dir(&path)?;
                mode(&path, *bits)?;
            }
            Node::File(bytes) => {
                fs::write(&path, bytes)?;
                mode(&path, 0o644)?;
            }
            Node::Symlink(target) => std::os::unix::fs::symlink(target, &path)?,
        }
    }
    Ok(())
}

/// `host://ID-VERSION_ID` by os-release(5).
fn identify(host: &Path) -> String {
    let text = ["etc/os-release", "usr/lib/os-release"]
        .iter()
        .find_map(|path| fs::read_to_string(host.join(path)).ok())
        .unwrap_or_default();
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
        let value = line.trim().trim_matches(['"', '\'']);
        (!value.is_empty()).then(|| value.to_owned())
    };
    match (value("ID"), value("VERSION_ID")) {
        (Some(id), Some(version)) => format!("host://{id}-{version}"),
        (Some(id), None) => format!("host://{id}"),
        (None, _) => "host://linux".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn this_machine_has_one_and_it_is_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let first = host_userland(directory.path()).unwrap();
        assert_eq!(host_userland(directory.path()).unwrap(), first);
        assert!(first.id.starts_with("host://"));
        assert!(first.binds.contains(&("/usr".into(), "/usr".into())));
        let tmp = fs::metadata(first.lower.join("tmp")).unwrap();
        assert_eq!(tmp.permissions().mode() & 0o7777, 0o1777);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn links_stay_links_and_directories_are_bound() {
        let host = tempfile::tempdir().unwrap();
        let root = host.path();
        for directory in ["usr/lib", "lib64", "etc/alternatives", "etc/ssl/certs", "etc/ssl/private", "root", "var"] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        symlink("usr/bin", root.join("bin")).unwrap();
        symlink("/usr/bin/mawk", root.join("etc/alternatives/awk")).unwrap();
        fs::write(root.join("etc/alternatives/secret"), "not a link").unwrap();
        fs::write(root.join("etc/passwd"), "alice:x:1000:1000::/home/alice:/bin/sh\n").unwrap();
        fs::write(root.join("etc/hosts"), "10.0.0.1 internal\n").unwrap();
        fs::write(root.join("etc/ssl/private/key.pem"), "key").unwrap();
        fs::write(root.join("etc/ssl/certs/ca-certificates.crt"), "CERT").unwrap();
        fs::write(root.join("etc/os-release"), "ID=\"alma\"\nVERSION_ID='9.4'\n").unwrap();

        let directory = tempfile::tempdir().unwrap();
        let made = from_root(root, directory.path()).unwrap();
        assert_eq!(made.id, "host://alma-9.4");
        assert_eq!(made.binds, [(root.join("usr"), "/usr".into()), (root.join("lib64"), "/lib64".into())]);
        let read = |path: &str| fs::read_to_string(made.lower.join(path));
        assert_eq!(fs::read_link(made.lower.join("bin")).unwrap(), Path::new("usr/bin"));
        assert_eq!(fs::read_link(made.lower.join("etc/alternatives/awk")).unwrap(), Path::new("/usr/bin/mawk"));
        assert!(read("etc/alternatives/secret").is_err());
        assert!(!read("etc/passwd").unwrap().contains("alice"));
        assert_eq!(read("etc/hosts").unwrap(), "");
        assert_eq!(read("etc/ssl/certs/ca-certificates.crt").unwrap(), "CERT");
        assert!(!made.lower.join("etc/ssl/private").exists());

        fs::write(root.join("etc/ssl/certs/ca-certificates.crt"), "NEW").unwrap();
        let changed = from_root(root, directory.path()).unwrap();
        assert_ne!(changed.lower, made.lower);
        assert_eq!(read("etc/ssl/certs/ca-certificates.crt").unwrap(), "CERT");
    }
}
