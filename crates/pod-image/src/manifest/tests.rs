use proptest::prelude::*;
use serde_json::json;

use super::*;

const A: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const B: &str = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

fn parse(value: serde_json::Value) -> Result<Document, ManifestError> {
    Document::parse(value.to_string().as_bytes())
}

fn entry(digest: &str, platform: Option<(&str, &str, Option<&str>)>) -> serde_json::Value {
    let mut entry = json!({"mediaType": OCI_MANIFEST, "digest": digest, "size": 2});
    if let Some((os, architecture, variant)) = platform {
        entry["platform"] = json!({"os": os, "architecture": architecture, "variant": variant});
    }
    entry
}

fn select(entries: Vec<serde_json::Value>, variant: Option<&str>) -> Option<String> {
    let Document::Index(index) = parse(json!({"schemaVersion": 2, "manifests": entries})).unwrap() else { panic!() };
    let host = Platform { os: "linux".into(), architecture: "amd64".into(), variant: variant.map(str::to_owned) };
    index.select(&host).map(|entry| entry.digest.to_string())
}

#[test]
fn the_best_platform_is_selected() {
    let plain = entry(A, Some(("linux", "amd64", None)));
    let v3 = entry(B, Some(("linux", "amd64", Some("v3"))));
    assert_eq!(select(vec![plain.clone(), v3.clone()], Some("v3")).as_deref(), Some(B));
    assert_eq!(select(vec![v3.clone(), plain.clone()], Some("v2")).as_deref(), Some(A));
    assert_eq!(select(vec![v3, plain], None).as_deref(), Some(A));
    let attestation = entry(B, Some(("unknown", "unknown", None)));
    assert_eq!(select(vec![attestation, entry(A, Some(("linux", "arm64", None)))], None), None);
    assert_eq!(select(vec![entry(A, None)], None).as_deref(), Some(A));
    assert_eq!(select(vec![entry(A, None), entry(B, None)], None), None);
}

#[test]
fn documents_that_are_no_image_are_refused_by_name() {
    let config = json!({"mediaType": OCI_CONFIG, "digest": A, "size": 2});
    let layer = |media_type: &str| json!({"mediaType": media_type, "digest": B, "size": 2});
    for (document, expected) in [
        (json!({"schemaVersion": 1, "fsLayers": []}), "schema version 1"),
        (json!({"schemaVersion": 2}), "media type ``"),
        (json!({"schemaVersion": 2, "config": config, "layers": [], "manifests": []}), "at once"),
        (json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "config": config, "layers": []}), "media type"),
        (json!({"schemaVersion": 2, "config": config, "layers": [layer("application/x")]}), "`application/x`"),
        (
            json!({"schemaVersion": 2, "config": config, "layers": [layer("application/vnd.oci.image.layer.v1.tar+gzip+encrypted")]}),
            "+encrypted`",
        ),
        (
            json!({"schemaVersion": 2, "config": {"mediaType": "application/vnd.cncf.helm.config.v1+json", "digest": A, "size": 1}, "layers": []}),
            "no container image",
        ),
        (json!({"schemaVersion": 2, "config": {"digest": "sha256:../x", "size": 1}}), "not valid JSON"),
    ] {
        let error = parse(document).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_docker_config_with_nulls_is_read() {
    let text = json!({
        "architecture": "amd64", "os": "linux",
        "config": {
            "User": "app:www", "Env": ["PATH=/bin", "EMPTY", "A=b=c"], "Entrypoint": null, "Cmd": ["sh"],
            "ExposedPorts": {"80/tcp": {}}, "Volumes": null, "WorkingDir": "/srv", "Labels": null, "StopSignal": "SIGINT",
            "OnBuild": null
        },
        "rootfs": {"type": "layers", "diff_ids": [A]}
    });
    let file = ConfigFile::parse(text.to_string().as_bytes(), 1).unwrap();
    let config = ImageConfig::from(file.config);
    assert_eq!(config.user, "app:www");
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert_eq!(config.env, [pair("PATH", "/bin"), pair("EMPTY", ""), pair("A", "b=c")]);
    assert!(config.entrypoint.is_empty());
    assert_eq!(config.exposed_ports, ["80/tcp"]);
    assert_eq!(config.stop_signal.as_deref(), Some("SIGINT"));
    assert!(ConfigFile::parse(text.to_string().as_bytes(), 2).unwrap_err().to_string().contains("1 layers"));
}

proptest! {
    #[test]
    fn any_bytes_parse_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Document::parse(&bytes);
        let _ = ConfigFile::parse(&bytes, 1);
    }

    #[test]
    fn any_json_of_about_the_right_shape_parses_or_is_refused(
        version in 0u64..4, media in "[a-z/+.]{0,20}", digest in "(sha256:)?[0-9a-f]{0,65}", size in any::<i64>(), which in 0u8..8,
    ) {
        let mut document = json!({"schemaVersion": version, "mediaType": media});
        let descriptor = json!({"digest": digest, "size": size, "mediaType": media, "platform": null});
        if which & 1 != 0 { document["config"] = descriptor.clone(); }
        if which & 2 != 0 { document["layers"] = json!([descriptor]); }
        if which & 4 != 0 { document["manifests"] = json!([descriptor]); }
        let _ = Document::parse(document.to_string().as_bytes());
    }
}
