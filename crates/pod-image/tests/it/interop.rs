//! skopeo reads what we write and we read what skopeo writes.

use std::{fs::File, process::Command};

use pod_image::{Compression, export};

use crate::{
    registry::Registry,
    world::{World, noise, reference},
};

pub(crate) fn skopeo(arguments: &[&str]) -> String {
    let output = Command::new("skopeo")
        .arg("--insecure-policy")
        .args(arguments)
        .output()
        .expect("skopeo is needed: apt-get install skopeo");
    assert!(output.status.success(), "skopeo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn skopeo_reads_what_we_push_and_save() {
    let (world, registry) = (World::new(), Registry::start());
    let name = registry.name("team/app:1");
    let image = world.pack(&name, &noise(50_000), Compression::Gzip);
    world.push(&name);
    let inspect = |source: &str| -> serde_json::Value {
        serde_json::from_str(&skopeo(&["inspect", "--tls-verify=false", source])).unwrap()
    };
    let seen = inspect(&format!("docker://{name}"));
    assert_eq!(seen["Digest"], image.digest.to_string());
    assert_eq!(seen["Architecture"], pod_image::Platform::host().architecture);

    let saved = world.path("saved.tar");
    export(&world.store, &[reference(&name)], File::create(&saved).unwrap()).unwrap();
    // As an OCI layout and as a Docker archive.
    let path = saved.display();
    assert_eq!(inspect(&format!("oci-archive:{path}"))["Digest"], image.digest.to_string());
    assert_eq!(inspect(&format!("docker-archive:{path}:{name}"))["Layers"].as_array().unwrap().len(), 1);
}

#[test]
fn we_read_what_skopeo_copies() {
    let (world, registry) = (World::new(), Registry::start());
    let name = registry.name("team/app:1");
    let image = world.pack(&name, &noise(50_000), Compression::Gzip);
    world.push(&name);
    let source = format!("docker://{name}");
    let copy = |destination: &str| skopeo(&["copy", "--src-tls-verify=false", &source, destination]);

    copy(&format!("docker-archive:{}:quay.io/team/app:2", world.path("docker.tar").display()));
    let target = World::new();
    let imported = target.import(&world.path("docker.tar"), None).remove(0);
    assert_eq!(imported.names, ["quay.io/team/app:2"]);
    // skopeo rewrites the config for Docker's format; the files are the same.
    let diff_id = |image: &pod_image::Image| image.layers[0].parent().unwrap().file_name().unwrap().to_owned();
    assert_eq!(diff_id(&imported), diff_id(&image));
    assert_eq!(std::fs::read(imported.layers[0].join("data")).unwrap(), noise(50_000));

    copy(&format!("oci:{}:v1", world.path("layout").display()));
    let target = World::new();
    assert_eq!(target.import(&world.path("layout"), Some("app:v1"))[0].digest, image.digest);

    copy(&format!("oci-archive:{}:quay.io/team/app:3", world.path("oci.tar").display()));
    let imported = target.import(&world.path("oci.tar"), None).remove(0);
    assert_eq!(imported.digest, image.digest);
    assert!(imported.names.contains(&"quay.io/team/app:3".to_owned()));
}
