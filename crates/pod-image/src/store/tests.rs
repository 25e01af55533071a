use std::{
    fs::File,
    io::Write as _,
    os::unix::fs::{MetadataExt, PermissionsExt},
};

use super::*;
use crate::{
    compression::Compression,
    export::export,
    import::{ImportError, ImportOptions, ImportSource, import},
    pack::{PackSpec, pack},
    platform::Platform,
};

pub(super) struct World {
    pub directory: tempfile::TempDir,
    pub store: Store,
}

impl World {
    fn new() -> World {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store")).unwrap();
        World { directory, store }
    }

    fn file(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn spec(&self, name: &str, text: &str) -> PackSpec {
        let mut spec = PackSpec::new(reference(name));
        spec.files = vec![(self.file(&format!("in/{}", name.len()), text, 0o755), "/app".to_owned())];
        spec
    }

    fn pack(&self, name: &str, text: &str) -> Image {
        pack(&self.store, &self.spec(name, text)).unwrap()
    }

    fn count(&self, directory: &str) -> usize {
        fs::read_dir(self.store.path(directory)).unwrap().count()
    }

    /// Blobs, layers, downloads, half-made things.
    fn counts(&self) -> [usize; 4] {
        [BLOBS, LAYERS, INGEST, STAGING].map(|directory| self.count(directory))
    }
}

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, path, *bytes).unwrap();
    }
    tar.into_inner().unwrap()
}

fn import_bytes(store: &Store, bytes: &[u8], name: Option<&str>) -> Result<Vec<Image>, ImportError> {
    let options = ImportOptions { name: name.map(reference), ..ImportOptions::default() };
    import(store, ImportSource::Stream(Box::new(bytes)), &options)
}

// === packing ===

#[test]
fn a_packed_image_says_how_to_run_it() {
    let world = World::new();
    let mut spec = world.spec("quay.io/me/app:1", "#!/bin/sh\n");
    spec.entrypoint = vec!["/app".into()];
    spec.cmd = vec!["--serve".into()];
    spec.env = vec![("A".into(), "1".into())];
    spec.user = "65532".into();
    spec.working_dir = "/tmp".into();
    spec.labels.insert("k".into(), "v".into());
    spec.exposed_ports = vec!["8080".into(), "53/udp".into()];
    spec.users = true;
    let image = pack(&world.store, &spec).unwrap();
    assert_eq!(image.names, ["quay.io/me/app:1"]);
    assert_eq!(image.repo_digests, [format!("quay.io/me/app@{}", image.digest)]);
    assert_eq!(image.config.entrypoint, ["/app"]);
    assert_eq!(image.config.exposed_ports, ["53/udp", "8080/tcp"]);
    assert_eq!(image.config.env, [("A".to_owned(), "1".to_owned())]);
    let [layer] = image.layers.as_slice() else { panic!("{:?}", image.layers) };
    assert_eq!(fs::metadata(layer.join("app")).unwrap().permissions().mode() & 0o7777, 0o755);
    assert_eq!(fs::metadata(layer.join("app")).unwrap().mtime(), 0);
    assert_eq!(fs::metadata(layer.join("tmp")).unwrap().permissions().mode() & 0o7777, 0o1777);
    assert!(fs::read_to_string(layer.join("etc/passwd")).unwrap().contains("nonroot"));
    assert_eq!(world.store.lookup(&reference("quay.io/me/app:1")).unwrap(), Some(image));
}

#[test]
fn the_same_files_make_the_same_image() {
    let digests = [Compression::None, Compression::Gzip, Compression::Zstd].map(|compression| {
        let (one, two) = (World::new(), World::new());
        let image = |world: &World, mode| {
            world.file("tree/b/z", "z", mode);
            world.file("tree/a", "a", 0o600);
            let mut spec = PackSpec::new(reference("x"));
            spec.files = vec![(world.directory.path().join("tree"), "/opt/x".into())];
            spec.compression = compression;
            pack(&world.store, &spec).unwrap()
        };
        let (first, second) = (image(&one, 0o600), image(&two, 0o644));
        assert_eq!(first.digest, second.digest, "{compression:?}");
        assert_eq!(fs::read_to_string(first.layers[0].join("opt/x/b/z")).unwrap(), "z");
        first.digest
    });
    assert!(digests[0] != digests[1] && digests[1] != digests[2]);
}

#[test]
fn a_base_image_keeps_its_directories_as_they_are() {
    let world = World::new();
    let mut base = world.spec("base", "base");
    base.users = true;
    base.env = vec![("PATH".into(), "/bin".into()), ("X".into(), "1".into())];
    base.cmd = vec!["base".into()];
    let base = pack(&world.store, &base).unwrap();

    let mut spec = PackSpec::new(reference("upper"));
    spec.base = Some(reference("base"));
    spec.files = vec![(world.file("in/data", "d", 0o644), "/tmp/data".into())];
    spec.env = vec![("X".into(), "2".into())];
    let image = pack(&world.store, &spec).unwrap();
    assert_eq!(image.layers.len(), 2);
    assert_eq!(image.layers[1], base.layers[0]);
    // Only passed through: overlayfs would show the upper layer's mode.
    let tmp = fs::metadata(image.layers[0].join("tmp")).unwrap();
    assert_eq!((tmp.permissions().mode() & 0o7777, tmp.mtime()), (0o1777, 0));
    assert_eq!(image.config.cmd, ["base"]);
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert_eq!(image.config.env, [pair("PATH", "/bin"), pair("X", "2")]);
}

#[test]
fn what_cannot_be_packed_is_refused() {
    let world = World::new();
    let message = |files: Vec<(PathBuf, String)>| {
        let spec = PackSpec { files, ..PackSpec::new(reference("x")) };
        pack(&world.store, &spec).unwrap_err().to_string()
    };
    assert!(message(vec![]).contains("nothing to pack"));
    let file = world.file("f", "x", 0o644);
    assert!(message(vec![(file.clone(), "app".into())]).contains("must be absolute"));
    assert!(message(vec![(file.clone(), "/../app".into())]).contains("must be absolute"));
    assert!(message(vec![(file.clone(), "/a".into()), (file, "/a/b".into())]).contains("directory and a file"));
    assert!(message(vec![("/dev/null".into(), "/null".into())]).contains("neither file"));
    assert_eq!(world.counts(), [0, 0, 0, 0]);
}

// === names ===

#[test]
fn images_are_found_by_tag_digest_and_id() {
    let world = World::new();
    let image = world.pack("quay.io/me/app:1", "one");
    let find = |text: &str| world.store.lookup(&reference(text)).unwrap().map(|image| image.id);
    assert_eq!(find("quay.io/me/app:1"), Some(image.id.clone()));
    assert_eq!(find(&format!("quay.io/me/app@{}", image.digest)), Some(image.id.clone()));
    assert_eq!(find(&format!("quay.io/me/app:other@{}", image.digest)), Some(image.id.clone()));
    assert_eq!(find(&format!("quay.io/me/application@{}", image.digest)), None);
    assert_eq!(find("quay.io/me/app:2"), None);
    let by_id = |id: &str| world.store.lookup_id(id).unwrap().map(|image| image.id);
    assert_eq!(by_id(&image.id), Some(image.id.clone()));
    assert_eq!(by_id(&image.id["sha256:".len()..][..12]), Some(image.id.clone()));
    assert_eq!(by_id("0123456789ab"), None);
    assert_eq!(by_id("short"), None);
}

#[test]
fn removing_forgets_names_and_gc_takes_the_rest() {
    let world = World::new();
    let store = &world.store;
    let (one, two) = (world.pack("one", "1"), world.pack("second", "2"));
    store.tag(&reference("one"), &reference("alias:v1")).unwrap();
    assert_eq!(store.lookup(&reference("one")).unwrap().unwrap().names.len(), 2);
    assert!(matches!(store.remove("missing").unwrap_err(), StoreError::NotFound(_)));
    assert_eq!(store.remove("one").unwrap(), ["docker.io/library/one:latest"]);
    assert_eq!(store.gc(&[]).unwrap(), GcReport::default());

    // Nameless, but running.
    assert_eq!(store.remove(&one.id).unwrap(), ["docker.io/library/alias:v1"]);
    let report = store.gc(&one.layers).unwrap();
    assert_eq!((report.layers, report.blobs), (0, 3));
    assert!(one.layers[0].exists());
    let report = store.gc(&[]).unwrap();
    assert_eq!((report.layers, report.blobs), (1, 0));
    assert!(report.freed > 0);
    assert!(!one.layers[0].exists());
    assert_eq!(store.list().unwrap(), [two]);
    assert_eq!(world.counts(), [3, 1, 0, 0]);
    assert!(store.size().unwrap().layers >= 4096);
}

#[test]
fn nothing_is_collected_while_somebody_adds() {
    let world = World::new();
    let lease = world.store.lease().unwrap();
    assert!(world.store.gc(&[]).unwrap().busy);
    // Another process has the store open and is adding; opening must not clean up under its feet.
    fs::write(world.store.path("staging/half"), "x").unwrap();
    let again = Store::open(world.store.root()).unwrap();
    assert!(again.path("staging/half").exists());
    drop(lease);
    Store::open(world.store.root()).unwrap();
    assert!(!again.path("staging/half").exists());
}

#[test]
fn many_writers_lose_no_name() {
    let world = World::new();
    let image = world.pack("base", "x");
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let store = Store::open(world.store.root()).unwrap();
            scope.spawn(move || {
                for number in 0..5 {
                    let name = reference(&format!("copy-{thread}:{number}"));
                    store.tag(&reference("base"), &name).unwrap();
                }
            });
        }
    });
    assert_eq!(world.store.lookup(&reference("base")).unwrap().unwrap().names.len(), 21);
    assert_eq!(world.store.list().unwrap().len(), 1);
    assert_eq!(world.store.lookup_id(&image.id).unwrap().unwrap().digest, image.digest);
}

// === crashes ===

#[test]
fn layers_of_another_boot_are_unpacked_again() {
    let world = World::new();
    let image = world.pack("app", "text");
    let mark = image.layers[0].with_file_name("unsynced");
    // As if the machine had lost power: the mark is of an earlier boot, the file's content never reached the disk.
    fs::write(&mark, "another boot").unwrap();
    File::create(image.layers[0].join("app")).unwrap();
    let store = Store::open(world.store.root()).unwrap();
    assert!(!image.layers[0].exists());
    assert_eq!(store.lookup(&reference("app")).unwrap().as_ref(), Some(&image));
    assert_eq!(fs::read_to_string(image.layers[0].join("app")).unwrap(), "text");

    store.sync().unwrap();
    assert!(!mark.exists());
    Store::open(world.store.root()).unwrap();
    assert!(image.layers[0].exists());
}

#[test]
fn a_damaged_blob_makes_the_image_absent_and_goes() {
    let world = World::new();
    let image = world.pack("app", "text");
    let (manifest, _) = world.store.read_manifest(&image.digest).unwrap();
    let blob = world.store.blob_path(&manifest.layers[0].digest);
    fs::remove_dir_all(image.layers[0].parent().unwrap()).unwrap();
    let mut file = fs::OpenOptions::new().write(true).open(&blob).unwrap();
    file.write_all(b"damage").unwrap();
    assert_eq!(world.store.lookup(&reference("app")).unwrap(), None);
    assert!(!blob.exists());
    assert_eq!(world.store.list().unwrap(), []);
    // Packed again, it is whole again.
    assert_eq!(world.pack("app", "text").id, image.id);
    assert!(world.store.lookup(&reference("app")).unwrap().is_some());
}

#[test]
fn a_store_of_another_format_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("version"), "7\n").unwrap();
    let error = Store::open(directory.path()).unwrap_err().to_string();
    assert!(error.contains("format `7`"), "{error}");
}

// === import and export ===

#[test]
fn an_exported_image_is_the_same_when_imported() {
    let (from, to) = (World::new(), World::new());
    let image = from.pack("quay.io/me/app:1", "text");
    let mut bytes = Vec::new();
    export(&from.store, &[reference("quay.io/me/app:1")], &mut bytes).unwrap();
    let mut again = Vec::new();
    export(&from.store, &[reference("quay.io/me/app:1")], &mut again).unwrap();
    assert_eq!(bytes, again);

    let imported = import_bytes(&to.store, &bytes, None).unwrap();
    assert_eq!(imported.len(), 1);
    assert_eq!((&imported[0].digest, &imported[0].names), (&image.digest, &image.names));
    assert_eq!(to.counts(), [3, 1, 0, 0]);

    // Compressed, under another name.
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&bytes).unwrap();
    let renamed = import_bytes(&to.store, &gzip.finish().unwrap(), Some("other:2")).unwrap();
    assert!(renamed[0].names.contains(&"docker.io/library/other:2".to_owned()));
    assert_eq!(
        export(&to.store, &[reference("absent")], Vec::new()).unwrap_err().to_string(),
        "image `docker.io/library/absent:latest` is not in the store"
    );
}

#[test]
fn a_root_file_system_becomes_an_image() {
    let world = World::new();
    let tar = tar_of(&[("etc/os-release", b"ID=x"), ("bin/sh", b"elf")]);
    assert!(matches!(import_bytes(&world.store, &tar, None).unwrap_err(), ImportError::Nameless));
    let images = import_bytes(&world.store, &tar, Some("mine")).unwrap();
    assert_eq!(fs::read_to_string(images[0].layers[0].join("bin/sh")).unwrap(), "elf");
    let path = world.directory.path().join("rootfs.tar");
    fs::write(&path, &tar).unwrap();
    let options = ImportOptions { name: Some(reference("mine:file")), ..ImportOptions::default() };
    let same = import(&world.store, ImportSource::Path(&path), &options).unwrap();
    assert_eq!(same[0].id, images[0].id);
    assert_eq!(world.counts(), [3, 1, 0, 0]);
}

#[test]
fn a_docker_archive_with_linked_layers_is_imported() {
    let world = World::new();
    let layer = tar_of(&[("f", b"text")]);
    let config = |user: &str| {
        let host = Platform::host();
        serde_json::json!({
            "os": host.os, "architecture": host.architecture, "config": {"User": user},
            "rootfs": {"type": "layers", "diff_ids": [Digest::of(&layer), Digest::of(&layer)]}
        })
        .to_string()
    };
    let manifest = serde_json::json!([
        {"Config": "a.json", "RepoTags": ["a:1", "a:2"], "Layers": ["one/layer.tar", "two/layer.tar"]},
        {"Config": "b.json", "RepoTags": ["b:1"], "Layers": ["one/layer.tar", "one/layer.tar"]},
    ])
    .to_string();
    let (a, b) = (config("a"), config("b"));
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    tar.append_link(&mut header, "two/layer.tar", "../one/layer.tar").unwrap();
    let files = [
        ("one/layer.tar", &layer[..]),
        ("a.json", a.as_bytes()),
        ("b.json", b.as_bytes()),
        ("manifest.json", manifest.as_bytes()),
    ];
    for (path, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, path, bytes).unwrap();
    }
    let bytes = tar.into_inner().unwrap();
    let images = import_bytes(&world.store, &bytes, None).unwrap();
    let names: Vec<_> = images.iter().map(|image| image.names.len()).collect();
    assert_eq!(names, [2, 1]);
    // The same layer twice is mounted once.
    assert_eq!(images[0].layers.len(), 1);
    assert!(matches!(import_bytes(&world.store, &bytes, Some("one")).unwrap_err(), ImportError::SeveralImages(2)));
}

#[test]
fn broken_archives_leave_nothing() {
    let world = World::new();
    let layer = tar_of(&[("f", b"text")]);
    let host = Platform::host();
    let config = |architecture: &str, diff_id: &Digest| {
        serde_json::json!({
            "os": "linux", "architecture": architecture, "rootfs": {"type": "layers", "diff_ids": [diff_id]}
        })
        .to_string()
    };
    let good = config(&host.architecture, &Digest::of(&layer));
    let lying = config(&host.architecture, &Digest::of(b"other"));
    let foreign = config("s390x", &Digest::of(&layer));
    let manifest = br#"[{"Config": "c", "RepoTags": ["a:1"], "Layers": ["l"]}]"#;
    let builtin = br#"[{"Config": "c", "RepoTags": ["localhost/outrigger/logs:1"], "Layers": ["l"]}]"#;
    let climbing = tar_of(&[]).len();
    assert!(climbing >= 1024);
    for (files, expected) in [
        (vec![("manifest.json", &b"[{]"[..])], "`manifest.json` is not valid JSON"),
        (vec![("manifest.json", &b"[]"[..])], "archive is empty"),
        (vec![("manifest.json", manifest)], "archive has no `c`"),
        (vec![("manifest.json", manifest), ("c", good.as_bytes())], "archive has no `l`"),
        (vec![("manifest.json", manifest), ("c", lying.as_bytes()), ("l", &layer)], "failed to store"),
        (vec![("manifest.json", manifest), ("c", good.as_bytes()), ("l", b"no tar")], "failed to store"),
        (vec![("manifest.json", manifest), ("c", foreign.as_bytes()), ("l", &layer)], "only for linux/s390x"),
        (vec![("manifest.json", builtin), ("c", good.as_bytes()), ("l", &layer)], "built-in image name"),
        (vec![("oci-layout", b"{}"), ("index.json", b"{}")], "index.json cannot be used"),
    ] {
        let error = import_bytes(&world.store, &tar_of(&files), None).unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
        assert_eq!(world.counts(), [0, 0, 0, 0], "{expected}");
    }
    let mut cut = tar_of(&[("manifest.json", manifest), ("c", good.as_bytes()), ("l", &layer)]);
    cut.truncate(2600);
    for bytes in [&cut[..], b"some text that is no archive", b"", &[0x1f, 0x8b, 8, 0, 1, 2]] {
        assert!(import_bytes(&world.store, bytes, Some("x")).is_err());
        assert_eq!(world.counts(), [0, 0, 0, 0]);
    }
}
