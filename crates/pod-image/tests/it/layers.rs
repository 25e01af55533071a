//! What layers mean, from the archive through a registry to a mounted overlay.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    process::Command,
};

use pod_image::{Compression, Image, Platform};

use crate::{
    registry::Registry,
    world::{Layout, World},
};

fn file(tar: &mut tar::Builder<Vec<u8>>, path: &str, mode: u32, text: &str) {
    let mut header = header(tar::EntryType::Regular, mode);
    header.set_size(text.len() as u64);
    tar.append_data(&mut header, path, text.as_bytes()).unwrap();
}

fn header(kind: tar::EntryType, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(1000);
    header.set_gid(1000);
    header.set_mtime(1_600_000_000);
    header.set_size(0);
    header
}

fn directory(tar: &mut tar::Builder<Vec<u8>>, path: &str, mode: u32) {
    tar.append_data(&mut header(tar::EntryType::Directory, mode), path, io::empty()).unwrap();
}

/// What a container on this image sees: runs `script` in the mounted root. The mount goes with its namespace.
fn look(world: &World, image: &Image, script: &str) -> String {
    let lower: Vec<String> = image.layers.iter().map(|layer| layer.display().to_string()).collect();
    for name in ["upper", "work", "merged"] {
        fs::create_dir_all(world.path(name)).unwrap();
    }
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.join(":"),
        world.path("upper").display(),
        world.path("work").display()
    );
    let command = format!("mount -t overlay overlay -o '{options}' \"$1\" && cd \"$1\" && {script}");
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "sh", "-ec", &command, "sh"]).arg(world.path("merged"));
    let output = unshare.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_kind_of_entry_and_compression_arrives_in_the_overlay() {
    let (source, target, registry) = (World::new(), World::new(), Registry::start());
    let mut base = tar::Builder::new(Vec::new());
    directory(&mut base, "keep/", 0o755);
    file(&mut base, "keep/gone", 0o644, "lower");
    file(&mut base, "keep/stays", 0o644, "lower");
    directory(&mut base, "hidden/", 0o755);
    file(&mut base, "hidden/old", 0o644, "lower");
    directory(&mut base, "tmp/", 0o1777);
    file(&mut base, "su", 0o4755, "setuid");
    let mut link = header(tar::EntryType::Link, 0o4755);
    base.append_link(&mut link, "su2", "su").unwrap();
    let base = base.into_inner().unwrap();

    let mut middle = tar::Builder::new(Vec::new());
    file(&mut middle, "keep/.wh.gone", 0o644, "");
    directory(&mut middle, "hidden/", 0o755);
    file(&mut middle, "hidden/.wh..wh..opq", 0o644, "");
    file(&mut middle, "hidden/new", 0o644, "middle");
    let middle = middle.into_inner().unwrap();

    // Without its directory: `/tmp` must stay what it was.
    let mut top = tar::Builder::new(Vec::new());
    file(&mut top, "tmp/cache", 0o644, "top");
    let top = top.into_inner().unwrap();

    let layout = Layout::new(source.path("layout"));
    let layers = [(&base[..], Compression::Gzip), (&middle[..], Compression::Zstd), (&top[..], Compression::None)];
    let image = layout.image(&layers, &Platform::host());
    layout.index(image, "latest");
    let name = registry.name("team/app:1");
    let made = source.import(&layout.0, Some(&name)).remove(0);
    assert_eq!(source.push(&name), made.digest);
    let image = target.pull(&name).unwrap();
    assert_eq!((&image.id, &image.digest, image.size), (&made.id, &made.digest, made.size));
    assert_eq!(image.layers.len(), 3);

    let bottom = &image.layers[2];
    let su = fs::metadata(bottom.join("su")).unwrap();
    assert_eq!((su.permissions().mode() & 0o7777, su.nlink(), su.uid(), su.mtime()), (0o4755, 2, 1000, 1_600_000_000));
    let seen = look(&target, &image, "find . -mindepth 1 | LC_ALL=C sort; stat -c '%a %u' tmp; cat hidden/new");
    let expected = "./hidden\n./hidden/new\n./keep\n./keep/stays\n./su\n./su2\n./tmp\n./tmp/cache\n1777 1000\nmiddle";
    assert_eq!(seen, expected);
}

#[test]
fn the_platform_is_selected_from_an_index() {
    let (source, target, registry) = (World::new(), World::new(), Registry::start());
    let host = Platform::host();
    let other = Platform { architecture: "s390x".into(), variant: None, ..host.clone() };
    let mut tar = tar::Builder::new(Vec::new());
    file(&mut tar, "f", 0o644, "host");
    let tar = tar.into_inner().unwrap();
    let layout = Layout::new(source.path("layout"));
    let entries = [other.clone(), host].map(|platform| layout.image(&[(&tar, Compression::Gzip)], &platform));
    let media_type = "application/vnd.oci.image.index.v1+json";
    let index = serde_json::json!({"schemaVersion": 2, "mediaType": media_type, "manifests": entries}).to_string();
    let index = layout.blob(media_type, index.as_bytes());
    layout.index(index.clone(), "multi");

    let name = registry.name("team/multi");
    crate::interop::skopeo(&[
        "copy",
        "--all",
        "--dest-tls-verify=false",
        &format!("oci:{}:multi", layout.0.display()),
        &format!("docker://{name}"),
    ]);
    let image = target.pull(&name).unwrap();
    assert_eq!(image.digest.to_string(), entries[1]["digest"]);
    // What Kubernetes shows as imageID is the index.
    assert_eq!(image.repo_digests, [format!("{name}@{}", index["digest"].as_str().unwrap())]);
    let by_digest = crate::world::reference(&image.repo_digests[0]);
    assert_eq!(target.store.lookup(&by_digest).unwrap().unwrap().id, image.id);
    // And by that digest it can be pulled.
    assert_eq!(World::new().pull(&image.repo_digests[0]).unwrap().id, image.id);

    let options =
        pod_image::PullOptions { platform: Platform { architecture: "riscv64".into(), ..other }, ..Default::default() };
    let error = World::new().pull_with(&name, &options).unwrap_err();
    assert!(error.to_string().contains("no image for linux/riscv64, only for linux/s390x, linux/"), "{error}");
    // The same from the directory.
    assert_eq!(source.import(&layout.0, Some("x"))[0].id, image.id);
}
