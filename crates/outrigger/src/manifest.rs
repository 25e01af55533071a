//! Manifests as people name them on the command line, as requests to an engine.

use std::path::PathBuf;

use anyhow::Context as _;
use pod_api::context::Objects;
use pod_api::load::{Manifest, Source, load, read_sources};
use pod_engine::PodRequest;

use crate::exit::{Coded, USAGE, usage};
use crate::terminal::label::PodKey;

/// How the pods of one command are to run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wishes {
    pub(crate) offline: bool,
    pub(crate) detached: bool,
    pub(crate) recreate: bool,
    pub(crate) pids_limit: Option<u64>,
}

/// Manifests with nothing wrong in them.
#[derive(Debug)]
pub(crate) struct Loaded {
    manifest: Manifest,
    /// Names of the files.
    from: Vec<String>,
}

/// Reads and checks everything the command names. Problems are printed as they are, one a line; the error only counts.
pub(crate) fn read(files: &[PathBuf], filenames: &[PathBuf], namespace: &str) -> anyhow::Result<Loaded> {
    let files: Vec<PathBuf> = files.iter().chain(filenames).cloned().collect();
    if files.is_empty() {
        return Err(usage("no manifest was named (a FILE, a directory, or `-` for stdin)"));
    }
    let sources = read_sources(&files).map_err(|error| Coded::new(USAGE, error))?;
    let mut manifest = check(&sources)?;
    place(&mut manifest, namespace)?;
    Ok(Loaded { manifest, from: sources.into_iter().map(|source| source.name).collect() })
}

fn check(sources: &[Source]) -> anyhow::Result<Manifest> {
    load(sources).map_err(|problems| {
        eprintln!("{problems}");
        let count = problems.0.len();
        usage(format!("{count} problem{} in the manifest; nothing was created", if count == 1 { "" } else { "s" }))
    })
}

/// Objects without a namespace go into the command's; one that names another is refused, as kubectl does.
fn place(manifest: &mut Manifest, namespace: &str) -> anyhow::Result<()> {
    if namespace == "default" {
        return Ok(());
    }
    let pods = manifest.pods.iter_mut().map(|loaded| &mut loaded.pod.metadata.namespace);
    let config_maps = manifest.config_maps.iter_mut().map(|object| &mut object.metadata.namespace);
    let secrets = manifest.secrets.iter_mut().map(|object| &mut object.metadata.namespace);
    for place in pods.chain(config_maps).chain(secrets) {
        match place.as_deref() {
            None | Some("" | "default") => *place = Some(namespace.to_owned()),
            Some(other) if other == namespace => {}
            Some(other) => {
                return Err(usage(format!(
                    "the namespace from the provided object \"{other}\" does not match the namespace \"{namespace}\""
                )));
            }
        }
    }
    Ok(())
}

// === impl Loaded ===

impl Loaded {
    /// What the person should know although it is no problem.
    pub(crate) fn notes(&self) -> &[String] {
        &self.manifest.notes
    }

    pub(crate) fn pods(&self) -> impl Iterator<Item = &k8s_openapi::api::core::v1::Pod> {
        self.manifest.pods.iter().map(|loaded| &loaded.pod)
    }

    pub(crate) fn keys(&self) -> Vec<PodKey> {
        self.pods().map(key).collect()
    }

    /// No pod is an error: the command would do nothing.
    pub(crate) fn requests(self, wishes: Wishes) -> anyhow::Result<Vec<PodRequest>> {
        if self.manifest.pods.is_empty() {
            return Err(usage(format!("there is no pod in {}", self.from.join(", "))));
        }
        let Manifest { pods, config_maps, secrets, .. } = self.manifest;
        let objects = Objects::new(config_maps, secrets);
        let request = |loaded: pod_api::load::LoadedPod| PodRequest {
            origin: loaded.origin.map(|origin| format!("{}/{}", origin.kind, origin.name)),
            pod: loaded.pod,
            objects: objects.clone(),
            offline: wishes.offline,
            detached: wishes.detached,
            recreate: wishes.recreate,
            pids_limit: wishes.pids_limit,
            of_store: false,
        };
        Ok(pods.into_iter().map(request).collect())
    }
}

/// Namespace and name.
pub(crate) fn key(pod: &k8s_openapi::api::core::v1::Pod) -> PodKey {
    let namespace = pod.metadata.namespace.clone().unwrap_or_else(|| "default".into());
    (namespace, pod.metadata.name.clone().unwrap_or_default())
}

/// Names of containers in the order of the manifest, as labels show them.
pub(crate) fn containers(pod: &k8s_openapi::api::core::v1::Pod) -> Vec<String> {
    let names = |spec| pod_api::role::containers(spec).map(|(_, container)| container.name.clone()).collect();
    pod.spec.as_ref().map(names).unwrap_or_default()
}

/// A word on the command line that is a file rather than a pod's name.
pub(crate) fn looks_like_file(word: &str) -> bool {
    word == "-" || word.contains('/') && !is_typed(word) || has_extension(word) || std::path::Path::new(word).exists()
}

fn is_typed(word: &str) -> bool {
    ["pod/", "pods/", "po/"].iter().any(|kind| word.starts_with(kind))
}

fn has_extension(word: &str) -> bool {
    [".yaml", ".yml", ".json"].iter().any(|extension| word.ends_with(extension))
}

/// `web` from `pod/web`, as kubectl writes it.
pub(crate) fn pod_name(word: &str) -> &str {
    match word.split_once('/') {
        Some((_, name)) if is_typed(word) => name,
        _ => word,
    }
}

/// All pods that a root knows, with a hint for who may not look.
pub(crate) fn known(roots: &pod_engine::Roots) -> anyhow::Result<Vec<pod_engine::record::Listed>> {
    pod_engine::record::list(roots).with_context(|| format!("failed to list the pods in `{}`", roots.pods().display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source { name: "test.yaml".into(), text: text.into() }
    }

    #[test]
    fn a_word_is_a_file_or_a_name() {
        assert!(looks_like_file("-"));
        assert!(looks_like_file("web.yaml"));
        assert!(looks_like_file("./web"));
        assert!(!looks_like_file("web"));
        assert!(!looks_like_file("pod/web"));
        assert_eq!(pod_name("pod/web"), "web");
        assert_eq!(pod_name("web"), "web");
    }

    #[test]
    fn objects_go_into_the_namespace_of_the_command() {
        let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: a, image: b}]}\n";
        let mut manifest = check(&[source(pod)]).expect("it is valid");
        place(&mut manifest, "test").expect("it names none");
        assert_eq!(key(&manifest.pods[0].pod), ("test".into(), "web".into()));
        let error = place(&mut manifest, "other").unwrap_err();
        let expected = "the namespace from the provided object \"test\" does not match the namespace \"other\"";
        assert_eq!(error.to_string(), expected);
    }
}
