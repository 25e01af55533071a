//! Pods that run without an engine are named at the start of every command that touches state.

use pod_engine::record::{Listed, Ownership, find};
use pod_engine::{PodPaths, Roots};

use crate::terminal::label::PodKey;
use crate::terminal::style::Style;

/// Says on stderr which pods lost their engine, except those the command is about to take over.
pub(crate) fn tell(roots: &Roots, taken: &[PodKey]) {
    let style = Style::of(&std::io::stderr());
    for pod in unowned(roots) {
        let key = (pod.record.namespace().to_owned(), pod.record.name().to_owned());
        if is_orphan(&pod) && !taken.contains(&key) {
            eprintln!("{}", style.notable(&notice(&key.0, &key.1)));
        }
    }
}

/// Nobody drives it although it has not come to its end.
pub(crate) fn is_orphan(pod: &Listed) -> bool {
    !pod.owned && !matches!(pod.status.phase.as_deref(), Some("Succeeded" | "Failed"))
}

/// Asks each pod's lock first: with many pods that are driven well, nothing else of them is read.
fn unowned(roots: &Roots) -> impl Iterator<Item = Listed> {
    let entries = std::fs::read_dir(roots.pods()).into_iter().flatten().flatten();
    entries.filter_map(move |entry| {
        let paths = PodPaths::at(entry.path(), roots);
        if Ownership::is_taken(&paths).unwrap_or(true) {
            return None;
        }
        // Neither a namespace nor a name holds an underscore.
        let name = entry.file_name().into_string().ok()?;
        let (namespace, name) = name.split_once('_')?;
        find(roots, namespace, name).ok().flatten()
    })
}

fn notice(namespace: &str, name: &str) -> String {
    let scope = if namespace == "default" { String::new() } else { format!(" -n {namespace}") };
    format!(
        "pod {namespace}/{name} is running without an engine (its engine died); take it with: \
         outrigger run --adopt {name}{scope}, or stop it: outrigger down {name}{scope}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_can_be_pasted() {
        assert_eq!(
            notice("default", "web"),
            "pod default/web is running without an engine (its engine died); take it with: outrigger run --adopt web, \
             or stop it: outrigger down web"
        );
        assert!(notice("test", "web").ends_with("outrigger down web -n test"));
    }
}
