//! What containers use, for those who ask, and where their logs are.

use std::path::PathBuf;

use crate::engine::Engine;

impl Engine {
    /// Name, nanoseconds of CPU time since its start, and bytes of working set of each container of a pod that runs.
    /// Reads a few files of the kernel a container.
    pub fn usage(&self, namespace: &str, pod: &str) -> Vec<(String, u64, u64)> {
        let Some(running) = self.running(namespace, pod) else { return Vec::new() };
        let group = running.cgroup();
        let containers = running.all_alive().into_iter();
        containers
            .filter_map(|name| {
                // A group that is gone is one whose container has just ended.
                let stats = running.cx.cgroups.stats(&group.join(&name)).ok()?;
                Some((name, stats.cpu_usage_ns?, stats.memory_working_set?))
            })
            .collect()
    }

    /// The log file of an attempt (its number is the `restartCount` of its time), in the CRI format; rotated neighbours are
    /// `FILE.STAMP`. Whether it exists is another question.
    pub fn log_path(&self, namespace: &str, name: &str, uid: &str, container: &str, attempt: u32) -> PathBuf {
        self.context().config.roots.pod(namespace, name).log(uid, container, attempt)
    }
}
