//! Attempt numbers that go on although nothing else is known of the attempts before: from the names of their logs, which
//! outlive a lost ledger (`kubernetes/kubernetes pkg/kubelet/kuberuntime/kuberuntime_container.go`
//! calcRestartCountByLogDir).

use std::path::Path;

use pod_plan::Lifecycle;

use crate::paths::PodPaths;

/// No attempt of `lifecycle` gets a number whose log is there already.
pub(crate) fn go_on(lifecycle: &mut Lifecycle, paths: &PodPaths, uid: &str) {
    let logs = paths.logs(uid);
    if !logs.exists() {
        return;
    }
    let names: Vec<String> = lifecycle.containers().map(|container| container.name.to_owned()).collect();
    for name in names {
        if let Some(highest) = highest(&logs.join(&name)) {
            lifecycle.go_on_from(&name, highest.saturating_add(1));
        }
    }
}

/// Of `N.log` and its rotated neighbours `N.log.STAMP`.
fn highest(directory: &Path) -> Option<u32> {
    let entries = std::fs::read_dir(directory).ok()?.flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.split_once(".log")?.0.parse().ok()).max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Roots;

    #[test]
    fn numbers_go_on_after_the_last_log() {
        let directory = tempfile::tempdir().unwrap();
        let paths = Roots::below(directory.path()).pod("default", "web");
        for file in
            ["app/0.log", "app/11.log", "app/9.log.20260101-000000", "app/notes.txt", "side/2.log.20260101-000000"]
        {
            let path = paths.logs("u").join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let pod = serde_json::json!({"spec": {"containers": [{"name": "app"}, {"name": "side"}, {"name": "new"}]}});
        let mut lifecycle =
            Lifecycle::new(&serde_json::from_value(pod).unwrap(), "u", "2025-01-01T00:00:00Z".parse().unwrap());
        go_on(&mut lifecycle, &paths, "u");
        let next = ["app", "side", "new"].map(|name| lifecycle.next_attempt(name).unwrap());
        assert_eq!(next, [12, 3, 0]);
    }
}
