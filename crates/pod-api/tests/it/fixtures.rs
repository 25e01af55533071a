//! `tests/manifests`: `*.good.yaml` load; of `*.bad.yaml` the problems are in `*.expected` beside it.
//! `UPDATE_EXPECT=1` rewrites what is expected.

use std::fs;
use std::path::{Path, PathBuf};

use pod_api::load::{Source, load};

fn manifests(suffix: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/manifests");
    let mut files: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_str().unwrap().ends_with(suffix))
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

fn source(path: &Path) -> Source {
    Source { name: path.file_name().unwrap().to_str().unwrap().to_owned(), text: fs::read_to_string(path).unwrap() }
}

#[test]
fn good_manifests_load() {
    for path in manifests(".good.yaml") {
        let manifest = load(&[source(&path)]).unwrap_or_else(|problems| panic!("{}:\n{problems}", path.display()));
        for loaded in &manifest.pods {
            let meta = &loaded.pod.metadata;
            assert!(meta.name.is_some() && meta.namespace.as_deref() == Some("default"), "{}", path.display());
            assert_eq!(serde_json::to_value(&loaded.pod).unwrap(), loaded.value);
            // What was loaded is complete: loading it again changes nothing.
            let again =
                load(&[Source { name: "again".to_owned(), text: serde_json::to_string(&loaded.value).unwrap() }]);
            assert_eq!(again.unwrap().pods[0].value, loaded.value);
        }
    }
}

#[test]
fn examples_load() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let mut pods = 0;
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let manifest = load(&[source(&path)]).unwrap_or_else(|problems| panic!("{}:\n{problems}", path.display()));
            pods += manifest.pods.len();
        }
    }
    assert!(pods > 5);
}

#[test]
fn bad_manifests_get_all_their_problems() {
    let update = std::env::var_os("UPDATE_EXPECT").is_some();
    let mut differing = Vec::new();
    for path in manifests(".bad.yaml") {
        let problems = match load(&[source(&path)]) {
            Ok(_) => panic!("{} loads", path.display()),
            Err(problems) => format!("{problems}\n"),
        };
        let expected = path.with_extension("expected");
        if update {
            fs::write(&expected, &problems).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != problems {
            differing.push(format!("--- {}\n{problems}", expected.display()));
        }
    }
    assert!(differing.is_empty(), "{}\nUPDATE_EXPECT=1 accepts this", differing.join("\n"));
}
