//! What this process may use: memory up to the smallest limit of its cgroup and the cgroups around it, v2 or v1; and
//! descriptors.

use std::path::{Path, PathBuf};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// No limit is written by v1 as a number near 2^63.
const UNLIMITED: u64 = 1 << 60;

/// Bytes, or `None` without a limit.
pub fn memory_limit() -> Option<u64> {
    limit_under(Path::new("/sys/fs/cgroup"), &std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default())
}

/// Takes as many descriptors as are to be had: the usual limit of 1024 is for programs that use select(2). Returns how many
/// may be open.
pub fn descriptors() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok();
    // `None`: no limit.
    if raised { maximum } else { current }.unwrap_or(u64::MAX)
}

/// `membership` is the text of `/proc/PID/cgroup` (cgroups(7)): `ID:CONTROLLERS:PATH`, controllers empty for v2.
fn limit_under(root: &Path, membership: &str) -> Option<u64> {
    let mut smallest: Option<u64> = None;
    for line in membership.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (bases, file): (&[&str], &str) = match controllers {
            "" => (&["", "unified"], "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => (&["memory"], "memory.limit_in_bytes"),
            _ => continue,
        };
        for base in bases {
            let base = root.join(base);
            for directory in upwards(&base, path) {
                let found = std::fs::read_to_string(directory.join(file)).ok();
                let bytes = found.and_then(|text| text.trim().parse::<u64>().ok()).filter(|bytes| *bytes < UNLIMITED);
                smallest = [smallest, bytes].into_iter().flatten().min();
            }
        }
    }
    smallest
}

/// The cgroup's directory and those around it. In a cgroup namespace the path may not exist below the mount; the mount's
/// root is then our own.
fn upwards(base: &Path, path: &str) -> Vec<PathBuf> {
    let full = base.join(path.trim_start_matches('/'));
    full.ancestors().take_while(|ancestor| ancestor.starts_with(base)).map(Path::to_path_buf).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_smallest_limit_counts() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("memory/a/b/memory.limit_in_bytes", "9223372036854771712\n");
        write("memory/a/memory.limit_in_bytes", "16777216\n");
        write("pod/memory.max", "max\n");
        write("pod/c/memory.max", "33554432\n");
        assert_eq!(limit_under(root.path(), "4:cpu,memory:/a/b\n0::/\n"), Some(16 << 20));
        assert_eq!(limit_under(root.path(), "0::/pod/c\n"), Some(32 << 20));
        assert_eq!(limit_under(root.path(), "0::/pod\n"), None);
        assert_eq!(limit_under(root.path(), ""), None);
    }
}
