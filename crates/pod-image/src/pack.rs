//! Packing: files of this machine become an image, without Docker and byte for byte the same each time: entries are
//! sorted, owned by root, of two modes, and dated 1970.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use crate::{
    compression::Compression,
    digest::{Digest, Hashing},
    host_userland::find_ca_bundle,
    manifest::{ConfigFile, Descriptor, Manifest, OCI_CONFIG, OCI_MANIFEST, RawConfig, layer_type, oci_layer_type},
    platform::Platform,
    reference::Reference,
    store::{Image, Lease, NewBlob, Store, StoreError},
    unpack::normalise,
};

/// Where programs look for CA certificates first (Debian's place; Go, OpenSSL and rustls know it on every system).
pub(crate) const CA_BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";
pub(crate) const PASSWD: &str = "root:x:0:0:root:/root:/sbin/nologin\n\
                      nonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n\
                      nobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin\n";
pub(crate) const GROUP: &str = "root:x:0:\nnonroot:x:65532:\nnobody:x:65534:\n";
pub(crate) const NSSWITCH: &str = "passwd: files\ngroup: files\nhosts: files dns\n";

/// What to pack.
#[derive(Debug, Clone)]
pub struct PackSpec {
    pub name: Reference,
    /// Path here, path in the image. Directories come with all that is in them; what is executable here is 0755 there,
    /// all else 0644.
    pub files: Vec<(PathBuf, String)>,
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    /// Added to the base's, replacing variables of the same name.
    pub env: Vec<(String, String)>,
    pub user: String,
    pub working_dir: String,
    pub labels: BTreeMap<String, String>,
    /// `8080/tcp`; without a protocol, tcp.
    pub exposed_ports: Vec<String>,
    /// An image in the store to build upon.
    pub base: Option<Reference>,
    /// This machine's CA certificates, so that TLS clients work.
    pub ca_bundle: bool,
    /// `/etc/passwd`, `/etc/group`, `/etc/nsswitch.conf` with root, nonroot (65532) and nobody, and an empty `/tmp`.
    pub users: bool,
    pub platform: Platform,
    pub compression: Compression,
}

impl PackSpec {
    pub fn new(name: Reference) -> PackSpec {
        PackSpec {
            name,
            files: Vec::new(),
            entrypoint: Vec::new(),
            cmd: Vec::new(),
            env: Vec::new(),
            user: String::new(),
            working_dir: String::new(),
            labels: BTreeMap::new(),
            exposed_ports: Vec::new(),
            base: None,
            ca_bundle: false,
            users: false,
            platform: Platform::host(),
            compression: Compression::default(),
        }
    }
}

/// Why an image could not be packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    #[error("nothing to pack: neither files nor a base image")]
    Empty,
    #[error("base image `{0}` is not in the store")]
    NoBase(String),
    #[error("`{0}` is no path in an image: it must be absolute, not the root and without `..`")]
    Target(String),
    #[error("`{path}` is {what}, which cannot be packed")]
    Kind { path: PathBuf, what: &'static str },
    #[error("no CA certificates found on this machine")]
    NoCaBundle,
    #[error("image would have a directory and a file at `{0}`")]
    Conflict(PathBuf),
    #[error("failed to read `{path}`")]
    Read { path: PathBuf, source: io::Error },
    #[error("failed to write the image's layer")]
    Layer { source: io::Error },
    #[error("image's config cannot be written as JSON")]
    Json { source: serde_json::Error },
    #[error("failed to store the image")]
    Store { source: StoreError },
}

impl From<StoreError> for PackError {
    fn from(source: StoreError) -> Self {
        PackError::Store { source }
    }
}

#[derive(Debug)]
enum Node {
    Directory { mode: u32 },
    File { path: PathBuf, executable: bool },
    Text(&'static str),
    Symlink(PathBuf),
}

/// Packs an image into the store under its name. Blocks.
pub fn pack(store: &Store, spec: &PackSpec) -> Result<Image, PackError> {
    let nodes = gather(spec)?;
    if nodes.is_empty() && spec.base.is_none() {
        return Err(PackError::Empty);
    }
    let lease = store.lease()?;
    let (mut layers, mut diff_ids, mut config) = base(store, spec)?;
    if !nodes.is_empty() {
        let (layer, diff_id) = write_layer(store, &lease, &nodes, spec.compression)?;
        layers.push(layer);
        diff_ids.push(diff_id);
    }
    apply(spec, &mut config);
    let config = ConfigFile::new(&spec.platform, config, diff_ids);
    let digest = put_manifest(store, &lease, &config, layers)?;
    Ok(store.commit(&lease, &digest, &digest, std::slice::from_ref(&spec.name), Vec::new())?)
}

/// Writes config and manifest; returns the manifest's digest.
pub(crate) fn put_manifest(
    store: &Store,
    lease: &Lease,
    config: &ConfigFile,
    layers: Vec<Descriptor>,
) -> Result<Digest, PackError> {
    let json = |source| PackError::Json { source };
    let bytes = serde_json::to_vec(config).map_err(json)?;
    let config = Descriptor::new(OCI_CONFIG, store.put_blob(lease, &bytes)?, bytes.len() as u64);
    let manifest = Manifest { schema_version: 2, media_type: OCI_MANIFEST.to_owned(), config, layers };
    Ok(store.put_blob(lease, &serde_json::to_vec(&manifest).map_err(json)?)?)
}

fn base(store: &Store, spec: &PackSpec) -> Result<(Vec<Descriptor>, Vec<Digest>, RawConfig), PackError> {
    let Some(base) = &spec.base else { return Ok(Default::default()) };
    let image = store.lookup(base)?.ok_or_else(|| PackError::NoBase(base.to_string()))?;
    let (manifest, config) = store.read_manifest(&image.digest)?;
    let rename = |mut layer: Descriptor| {
        layer.media_type = oci_layer_type(&layer.media_type).to_owned();
        layer
    };
    Ok((manifest.layers.into_iter().map(rename).collect(), config.rootfs.diff_ids, config.config))
}

fn apply(spec: &PackSpec, config: &mut RawConfig) {
    let empty = || serde_json::Value::Object(Default::default());
    if !spec.entrypoint.is_empty() {
        config.entrypoint = spec.entrypoint.clone();
        // The base's arguments were for the base's program.
        config.cmd.clear();
    }
    if !spec.cmd.is_empty() {
        config.cmd = spec.cmd.clone();
    }
    for (key, value) in &spec.env {
        let prefix = format!("{key}=");
        config.env.retain(|known| !known.starts_with(&prefix) && known != key);
        config.env.push(format!("{key}={value}"));
    }
    if !spec.user.is_empty() {
        config.user = spec.user.clone();
    }
    if !spec.working_dir.is_empty() {
        config.working_dir = spec.working_dir.clone();
    }
    config.labels.extend(spec.labels.clone());
    for port in &spec.exposed_ports {
        let port = if port.contains('/') { port.clone() } else { format!("{port}/tcp") };
        config.exposed_ports.insert(port, empty());
    }
}

/// All entries of the layer by their path, parents before children.
fn gather(spec: &PackSpec) -> Result<BTreeMap<PathBuf, Node>, PackError> {
    let mut nodes = BTreeMap::new();
    for (host, target) in &spec.files {
        let path = normalise(target.as_bytes()).filter(|path| target.starts_with('/') && path.file_name().is_some());
        let path = path.ok_or_else(|| PackError::Target(target.clone()))?;
        // What is named is followed; what is found below is kept as it is.
        let host = fs::canonicalize(host).map_err(|source| PackError::Read { path: host.clone(), source })?;
        add(&mut nodes, &host, path)?;
    }
    if spec.ca_bundle {
        let path = find_ca_bundle().ok_or(PackError::NoCaBundle)?;
        insert(&mut nodes, relative(CA_BUNDLE), Node::File { path, executable: false })?;
    }
    if spec.users {
        insert(&mut nodes, relative("/etc/passwd"), Node::Text(PASSWD))?;
        insert(&mut nodes, relative("/etc/group"), Node::Text(GROUP))?;
        insert(&mut nodes, relative("/etc/nsswitch.conf"), Node::Text(NSSWITCH))?;
        nodes.insert(relative("/tmp"), Node::Directory { mode: 0o1777 });
    }
    let parents: Vec<PathBuf> = nodes.keys().flat_map(|path| path.ancestors().skip(1)).map(Path::to_owned).collect();
    for parent in parents.into_iter().filter(|parent| !parent.as_os_str().is_empty()) {
        match nodes.get(&parent) {
            Some(Node::Directory { .. }) => {}
            Some(_) => return Err(PackError::Conflict(parent)),
            // On a base, directories that are only passed through keep the attributes they have there.
            None if spec.base.is_some() => {}
            None => drop(nodes.insert(parent, Node::Directory { mode: 0o755 })),
        }
    }
    Ok(nodes)
}

fn add(nodes: &mut BTreeMap<PathBuf, Node>, host: &Path, path: PathBuf) -> Result<(), PackError> {
    let fail = |source| PackError::Read { path: host.to_owned(), source };
    let metadata = fs::symlink_metadata(host).map_err(fail)?;
    let kind = metadata.file_type();
    if kind.is_dir() {
        insert(nodes, path.clone(), Node::Directory { mode: 0o755 })?;
        for entry in fs::read_dir(host).map_err(fail)? {
            let name = entry.map_err(fail)?.file_name();
            add(nodes, &host.join(&name), path.join(&name))?;
        }
        Ok(())
    } else if kind.is_file() {
        let executable = metadata.permissions().mode() & 0o111 != 0;
        insert(nodes, path, Node::File { path: host.to_owned(), executable })
    } else if kind.is_symlink() {
        let target = fs::read_link(host).map_err(fail)?;
        insert(nodes, path, Node::Symlink(target))
    } else {
        Err(PackError::Kind { path: host.to_owned(), what: "neither file, directory nor symlink" })
    }
}

/// Later files replace earlier ones; a directory and a file cannot be at the same place.
fn insert(nodes: &mut BTreeMap<PathBuf, Node>, path: PathBuf, node: Node) -> Result<(), PackError> {
    let is_directory = |node: &Node| matches!(node, Node::Directory { .. });
    match nodes.get(&path) {
        Some(known) if is_directory(known) != is_directory(&node) => Err(PackError::Conflict(path)),
        _ => {
            nodes.insert(path, node);
            Ok(())
        }
    }
}

fn relative(path: &str) -> PathBuf {
    PathBuf::from(path.trim_start_matches('/'))
}

// === the layer ===

enum Encoder {
    None(NewBlob),
    Gzip(flate2::write::GzEncoder<NewBlob>),
    Zstd(zstd::stream::write::Encoder<'static, NewBlob>),
}

impl Encoder {
    fn new(blob: NewBlob, compression: Compression) -> io::Result<Encoder> {
        Ok(match compression {
            Compression::None => Encoder::None(blob),
            // Neither time nor system in the header.
            Compression::Gzip => Encoder::Gzip(
                flate2::GzBuilder::new().mtime(0).operating_system(255).write(blob, flate2::Compression::default()),
            ),
            Compression::Zstd => Encoder::Zstd(zstd::stream::write::Encoder::new(blob, 3)?),
        })
    }

    fn finish(self) -> io::Result<NewBlob> {
        match self {
            Encoder::None(blob) => Ok(blob),
            Encoder::Gzip(encoder) => encoder.finish(),
            Encoder::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl Write for Encoder {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Encoder::None(blob) => blob.write(bytes),
            Encoder::Gzip(encoder) => encoder.write(bytes),
            Encoder::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_layer(
    store: &Store,
    lease: &Lease,
    nodes: &BTreeMap<PathBuf, Node>,
    compression: Compression,
) -> Result<(Descriptor, Digest), PackError> {
    let fail = |source| PackError::Layer { source };
    let encoder = Encoder::new(store.stage_blob(lease)?, compression).map_err(fail)?;
    let mut tar = tar::Builder::new(Hashing::new(encoder));
    for (path, node) in nodes {
        append(&mut tar, path, node)?;
    }
    let (encoder, diff_id, _) = tar.into_inner().map_err(fail)?.finish();
    let (digest, size) = encoder.finish().map_err(fail)?.keep()?;
    Ok((Descriptor::new(layer_type(compression), digest, size), diff_id))
}

fn append(tar: &mut tar::Builder<impl Write>, path: &Path, node: &Node) -> Result<(), PackError> {
    let fail = |source| PackError::Layer { source };
    match node {
        Node::Directory { mode } => {
            let mut header = header(tar::EntryType::Directory, *mode, 0);
            // The slash is what tools look for, besides the type.
            tar.append_data(&mut header, path.join(""), io::empty()).map_err(fail)
        }
        Node::Text(text) => {
            let mut header = header(tar::EntryType::Regular, 0o644, text.len() as u64);
            tar.append_data(&mut header, path, text.as_bytes()).map_err(fail)
        }
        Node::Symlink(target) => {
            let mut header = header(tar::EntryType::Symlink, 0o777, 0);
            tar.append_link(&mut header, path, target).map_err(fail)
        }
        Node::File { path: host, executable } => {
            let read = |source| PackError::Read { path: host.clone(), source };
            let file = File::open(host).map_err(read)?;
            let size = file.metadata().map_err(read)?.len();
            let mode = if *executable { 0o755 } else { 0o644 };
            // Exactly as many bytes as announced, or the archive would be broken.
            let mut file = Exactly { inner: file, left: size };
            tar.append_data(&mut header(tar::EntryType::Regular, mode, size), path, &mut file).map_err(read)
        }
    }
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

/// A file that changes its length while it is packed is an error.
struct Exactly<R> {
    inner: R,
    left: u64,
}

impl<R: io::Read> io::Read for Exactly<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        if read as u64 > self.left || (read == 0 && self.left > 0 && !buffer.is_empty()) {
            return Err(io::Error::other("the file changed while it was read"));
        }
        self.left -= read as u64;
        Ok(read)
    }
}
