//! Built-in images: `localhost/outrigger/logs:VERSION` is the program `outrigger-logs` beside the engine's own, with CA
//! certificates, `/etc/passwd` and `/tmp`. Nothing is asked of a registry or put into the store.
//!
//! Released programs are static. One that is not (a build during development) brings the libraries its loader names.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    digest::Hasher,
    host_userland::find_ca_bundle,
    manifest::ImageConfig,
    pack::{CA_BUNDLE, GROUP, NSSWITCH, PASSWD},
    reference::Reference,
    store::{Temporary, unique},
};

/// Who the programs run as unless the pod says otherwise: `nonroot` of the image's `/etc/passwd`.
const USER: &str = "65532:65532";
const DIRECTORIES: [(&str, u32); 10] = [
    ("dev", 0o755),
    ("etc", 0o755),
    ("home", 0o755),
    ("home/nonroot", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("var", 0o755),
];

/// An image that is a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Builtin {
    /// An overlay lower layer.
    pub layer: PathBuf,
    pub config: ImageConfig,
    /// `builtin://logs@DIGEST`
    pub id: String,
}

/// Why there is no built-in image.
#[derive(Debug, thiserror::Error)]
pub enum BuiltinError {
    #[error("`{0}` is no built-in image")]
    Name(String),
    #[error("`{reference}` is not this engine's version: it has `{version}`")]
    Version { reference: String, version: &'static str },
    #[error("the program `{0}` of this built-in image is not installed beside the engine")]
    Missing(PathBuf),
    #[error("failed to read `{path}`")]
    Read { path: PathBuf, source: io::Error },
    #[error("failed to find the libraries of `{path}`: {reason}")]
    Libraries { path: PathBuf, reason: String },
    #[error("failed to make the built-in image in `{path}`")]
    Make { path: PathBuf, source: io::Error },
}

/// Makes the image below `dir` from the program in `programs`, or finds it there from last time. Without a tag, or with
/// `latest`, the version is this one. Blocks; safe to call from several processes. An older one stays when the program
/// has changed: containers may be running on it.
pub fn builtin(dir: &Path, programs: &Path, reference: &Reference) -> Result<Builtin, BuiltinError> {
    let name = reference.builtin_name().ok_or_else(|| BuiltinError::Name(reference.to_string()))?;
    let version = env!("CARGO_PKG_VERSION");
    let tag = reference.tag().unwrap_or("latest");
    if (tag != version && tag != "latest") || reference.digest().is_some() {
        return Err(BuiltinError::Version { reference: reference.to_string(), version });
    }
    let program = programs.join(format!("outrigger-{name}"));
    let metadata = fs::metadata(&program).map_err(|_| BuiltinError::Missing(program.clone()))?;
    if !metadata.is_file() {
        return Err(BuiltinError::Missing(program));
    }
    // Path here, path in the image.
    let mut files = vec![(program.clone(), PathBuf::from(format!("usr/bin/outrigger-{name}")))];
    files.extend(libraries(&program)?.into_iter().map(|path| {
        let inside = path.strip_prefix("/").unwrap_or(&path).to_owned();
        (path, inside)
    }));
    files.extend(find_ca_bundle().map(|path| (path, PathBuf::from(CA_BUNDLE.trim_start_matches('/')))));
    let stamp = stamp(&files)?;
    let make = |path: &Path| {
        let path = path.to_owned();
        move |source| BuiltinError::Make { path, source }
    };
    fs::create_dir_all(dir).map_err(make(dir))?;
    let dir = fs::canonicalize(dir).map_err(make(dir))?;
    let layer = dir.join(format!("{name}-{stamp}"));
    if !layer.exists() {
        let temporary = Temporary(dir.join(format!("new-{}", unique())));
        write(&temporary.0, &files).map_err(make(&temporary.0))?;
        match fs::rename(&temporary.0, &layer) {
            // Somebody else was quicker, with the same.
            Err(_) if layer.exists() => {}
            other => other.map_err(make(&layer))?,
        }
    }
    let config = ImageConfig {
        entrypoint: vec![format!("/usr/bin/outrigger-{name}")],
        env: vec![("PATH".to_owned(), "/usr/bin".to_owned())],
        user: USER.to_owned(),
        labels: BTreeMap::from([("org.opencontainers.image.version".to_owned(), version.to_owned())]),
        ..ImageConfig::default()
    };
    Ok(Builtin { layer, config, id: format!("builtin://{name}@{stamp}") })
}

/// By what the file system says of each file: a program that was built again has another time.
fn stamp(files: &[(PathBuf, PathBuf)]) -> Result<String, BuiltinError> {
    let mut hasher = Hasher::default();
    for (path, inside) in files {
        let read = |source| BuiltinError::Read { path: path.clone(), source };
        let metadata = fs::metadata(path).map_err(read)?;
        let facts = (metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec());
        hasher.update(format!("{}\0{facts:?}\n", inside.display()).as_bytes());
    }
    Ok(hasher.finish().hex().chars().take(24).collect())
}

fn write(root: &Path, files: &[(PathBuf, PathBuf)]) -> io::Result<()> {
    fs::create_dir(root)?;
    for (path, mode) in DIRECTORIES {
        let path = root.join(path);
        fs::create_dir(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
    }
    // Filled, or mounted over, by whoever knows the pod.
    for (path, text) in [
        ("etc/passwd", PASSWD),
        ("etc/group", GROUP),
        ("etc/nsswitch.conf", NSSWITCH),
        ("etc/hosts", ""),
        ("etc/hostname", ""),
        ("etc/resolv.conf", ""),
    ] {
        put(&root.join(path), text.as_bytes(), 0o644)?;
    }
    for (path, inside) in files {
        let target = root.join(inside);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        let executable = fs::metadata(path)?.permissions().mode() & 0o111 != 0;
        put(&target, &fs::read(path)?, if executable { 0o755 } else { 0o644 })?;
    }
    fs::set_permissions(root, fs::Permissions::from_mode(0o755))
}

fn put(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    fs::write(path, bytes)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// What a program that is not static needs: its loader, and what that finds (`--list`, ld.so(8)).
fn libraries(program: &Path) -> Result<Vec<PathBuf>, BuiltinError> {
    let read = |source| BuiltinError::Read { path: program.to_owned(), source };
    let Some(loader) = interpreter(program).map_err(read)? else { return Ok(Vec::new()) };
    let failed = |reason: String| BuiltinError::Libraries { path: program.to_owned(), reason };
    let output = Command::new(&loader).arg("--list").arg(program).output();
    let output = output.map_err(|error| failed(format!("{}: {error}", loader.display())))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let found =
        text.lines().filter_map(|line| Some(PathBuf::from(line.split_once("=> ")?.1.split_whitespace().next()?)));
    let found = found.filter(|path| path.is_absolute() && *path != loader);
    Ok(std::iter::once(loader.clone()).chain(found).collect())
}

/// The loader an ELF program names (elf(5), `PT_INTERP`); `None` for a static one.
fn interpreter(program: &Path) -> io::Result<Option<PathBuf>> {
    const PT_INTERP: u32 = 3;
    let mut file = fs::File::open(program)?;
    let mut header = [0; 64];
    file.read_exact(&mut header)?;
    // 64 bits, little endian: the machines we build for.
    if header[..6] != [0x7f, b'E', b'L', b'F', 2, 1] {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "is no program for this machine"));
    }
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |sum, byte| (sum << 8) | u64::from(*byte));
    let (table, size, count) = (number(&header[32..40]), number(&header[54..56]), number(&header[56..58]));
    for index in 0..count {
        let mut entry = [0; 56];
        file.seek(SeekFrom::Start(table + index * size))?;
        file.read_exact(&mut entry)?;
        if number(&entry[..4]) == u64::from(PT_INTERP) {
            let (offset, length) = (number(&entry[8..16]), number(&entry[32..40]));
            let mut path = vec![0; usize::try_from(length.min(4096)).unwrap_or(0)];
            file.seek(SeekFrom::Start(offset))?;
            file.read_exact(&mut path)?;
            let end = path.iter().position(|byte| *byte == 0).unwrap_or(path.len());
            return Ok(Some(PathBuf::from(String::from_utf8_lossy(&path[..end]).into_owned())));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(text: &str) -> Reference {
        text.parse().unwrap()
    }

    #[test]
    fn a_program_becomes_an_image_that_runs() {
        let world = tempfile::tempdir().unwrap();
        let (dir, programs) = (world.path().join("images"), world.path().join("bin"));
        fs::create_dir(&programs).unwrap();
        let missing = builtin(&dir, &programs, &reference("localhost/outrigger/logs"));
        assert!(matches!(missing, Err(BuiltinError::Missing(_))));
        fs::copy("/bin/true", programs.join("outrigger-logs")).unwrap();
        let image = builtin(&dir, &programs, &reference("localhost/outrigger/logs")).unwrap();
        assert_eq!(image.config.entrypoint, ["/usr/bin/outrigger-logs"]);
        assert_eq!(fs::metadata(image.layer.join("tmp")).unwrap().permissions().mode() & 0o7777, 0o1777);
        assert!(fs::read_to_string(image.layer.join("etc/passwd")).unwrap().contains("nonroot:x:65532"));
        // Its libraries came along: the loader inside finds them there.
        let loader = interpreter(&programs.join("outrigger-logs")).unwrap().unwrap();
        assert!(image.layer.join(loader.strip_prefix("/").unwrap()).is_file());
        let again =
            builtin(&dir, &programs, &reference(&format!("localhost/outrigger/logs:{}", env!("CARGO_PKG_VERSION"))));
        assert_eq!(again.unwrap(), image);
        fs::copy("/bin/false", programs.join("outrigger-logs")).unwrap();
        let other = builtin(&dir, &programs, &reference("localhost/outrigger/logs:latest")).unwrap();
        assert_ne!(other.layer, image.layer);
        assert!(image.layer.exists(), "containers may be running on it");
        let wrong = builtin(&dir, &programs, &reference("localhost/outrigger/logs:99"));
        assert!(matches!(wrong, Err(BuiltinError::Version { .. })));
        assert!(matches!(builtin(&dir, &programs, &reference("alpine")), Err(BuiltinError::Name(_))));
    }
}
