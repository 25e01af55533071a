//! From the text of manifests to objects that are ready to run, or every reason why not.
//!
//! `text ▶ nodes with places (yaml) ▶ typed and strict (decode) ▶ defaulted ▶ validated ▶ nothing unsupported`.
//! Nothing stops at the first problem, and one problem anywhere means that nothing is returned.

mod kind;
mod read;
mod workload;

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};

use crate::path::Path;
use crate::problem::{Finding, Problem, Problems};
use crate::yaml::{self, Mark, Node, Unreadable};

pub use read::{ReadError, read_sources};

/// One text to load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The file's name as the user gave it, or `<stdin>`; problems begin with it.
    pub name: String,
    pub text: String,
}

/// All objects of one command.
#[derive(Clone, Debug, Default)]
pub struct Manifest {
    pub pods: Vec<LoadedPod>,
    pub config_maps: Vec<ConfigMap>,
    /// `stringData` is already in `data`.
    pub secrets: Vec<Secret>,
    /// What the user should know although it is no problem: `Deployment "web": runs its pod template once; …`.
    pub notes: Vec<String>,
}

/// A pod that may be created.
#[derive(Clone, Debug)]
pub struct LoadedPod {
    /// Defaulted and validated, with a name and a namespace.
    pub pod: Pod,
    /// The same as JSON.
    pub value: serde_json::Value,
    /// The workload whose template this is; `None` for a plain Pod.
    pub origin: Option<Origin>,
    /// Name of the [`Source`].
    pub source: String,
    /// Where the object begins in it, 1-based.
    pub line: usize,
}

/// The object a pod's template came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// `Deployment`
    pub kind: String,
    pub name: String,
}

/// Loads all objects of all sources.
///
/// # Errors
/// Every problem of every object, in the order of the sources and their lines.
pub fn load(sources: &[Source]) -> Result<Manifest, Problems> {
    let mut loader = Loader::default();
    for source in sources {
        loader.source(source);
    }
    if loader.problems.is_empty() { Ok(loader.manifest) } else { Err(Problems(loader.problems)) }
}

/// Collects objects and problems.
#[derive(Default)]
struct Loader {
    manifest: Manifest,
    problems: Vec<Problem>,
    /// Kind, namespace and name of every object, and where it is.
    seen: HashMap<(String, String, String), String>,
}

/// One object in its text.
#[derive(Clone, Copy)]
struct Object<'a> {
    node: &'a Node,
    source: &'a str,
}

impl Loader {
    fn source(&mut self, source: &Source) {
        let (documents, unreadable) = yaml::parse(&source.text);
        let mut found = Vec::new();
        for document in &documents {
            let object = Object { node: &document.root, source: &source.name };
            for (path, mark) in &document.duplicates {
                found.push(problem(&source.name, *mark, path, "duplicate field".to_owned()));
            }
            self.object(object, &mut found);
        }
        if let Some(Unreadable { mark, message }) = unreadable {
            found.push(problem(&source.name, mark, &Path::root(), message));
        }
        let end = yaml::end(&source.text);
        for problem in found.iter_mut().filter(|problem| problem.line > end.line) {
            (problem.line, problem.column) = (end.line, end.column);
        }
        found.sort_by_key(|problem| (problem.line, problem.column));
        found.dedup();
        self.problems.extend(found);
    }

    /// One object, or the items of a list of them.
    fn object(&mut self, object: Object<'_>, found: &mut Vec<Problem>) {
        match kind::split_list(object.node) {
            Some(items) => {
                for node in items {
                    self.object(Object { node, ..object }, found);
                }
            }
            None => {
                let findings = self.load(object);
                found.extend(findings.into_iter().map(|finding| object.place(finding)));
            }
        }
    }
}

impl Object<'_> {
    fn place(&self, finding: Finding) -> Problem {
        let mark = self.node.locate(&finding.path, finding.is_about_the_key());
        problem(self.source, mark, &finding.path, finding.message)
    }
}

fn problem(source: &str, mark: Mark, path: &Path, message: String) -> Problem {
    Problem { source: source.to_owned(), line: mark.line, column: mark.column, path: path.to_string(), message }
}

#[cfg(test)]
mod tests;
