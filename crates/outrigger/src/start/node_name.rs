//! The node's name, chosen at its first start and kept: pods are bound to it, and a machine's host name may change under
//! them (DHCP, a laptop between networks).

use std::io;
use std::path::Path;

use anyhow::Context as _;

use super::certificate::{make_private, write_private};

/// The name this node has had since its first start; at the first start the host's.
pub(crate) fn kept(directory: &Path) -> anyhow::Result<String> {
    let path = directory.join("name");
    match std::fs::read_to_string(&path) {
        // What a power cut has torn to nothing is chosen anew.
        Ok(name) if !name.trim().is_empty() => Ok(name.trim().to_owned()),
        Ok(_) => keep(&path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => keep(&path),
        Err(error) => Err(error).with_context(|| format!("failed to read `{}`", path.display())),
    }
}

fn keep(path: &Path) -> anyhow::Result<String> {
    let name = pod_engine::host_name();
    if let Some(directory) = path.parent() {
        make_private(directory).with_context(|| format!("failed to make `{}`", directory.display()))?;
    }
    write_private(path, &format!("{name}\n"))?;
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_name_stays() {
        let directory = tempfile::tempdir().unwrap();
        let first = kept(&directory.path().join("node")).unwrap();
        assert_eq!(first, pod_engine::host_name());
        std::fs::write(directory.path().join("node/name"), "before\n").unwrap();
        assert_eq!(kept(&directory.path().join("node")).unwrap(), "before");
        std::fs::write(directory.path().join("node/name"), "").unwrap();
        assert_eq!(kept(&directory.path().join("node")).unwrap(), first);
    }
}
