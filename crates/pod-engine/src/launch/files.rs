//! The files that one attempt of a container has to itself and may write: `/etc/hosts`, `/etc/hostname`,
//! `/etc/resolv.conf` and the termination message.
//!
//! They lie beside the attempt's writable layer: on disk, so that a container cannot fill `/run`, and therefore memory;
//! counted and removed with that layer; and a message outlives the shim. One set per attempt, so that a container's edits
//! neither reach its siblings nor its own next attempt.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::etc;
use crate::running::Running;

#[derive(Debug)]
pub(super) struct Files {
    /// Path in the container, file on the host.
    pub(super) etc: [(&'static str, PathBuf); 3],
    pub(super) termination: PathBuf,
}

// === impl Files ===

impl Files {
    pub(super) fn make(running: &Running, container: &str, attempt: u32) -> Result<Files, String> {
        let texts = etc::Texts::of(running)?;
        let termination = running.paths.termination_log(&running.uid(), container, attempt);
        let directory = termination.parent().unwrap_or(&termination).to_owned();
        let failed = |path: &Path| {
            let path = path.display().to_string();
            move |error: io::Error| format!("failed to make {path}: {error}")
        };
        fs::create_dir_all(&directory).map_err(failed(&directory))?;
        let file = |name: &str, text: &str, mode: u32| {
            let path = directory.join(name);
            write(&path, text, mode).map_err(failed(&path))?;
            Ok::<PathBuf, String>(path)
        };
        Ok(Files {
            etc: [
                ("/etc/hosts", file("hosts", &texts.hosts, 0o644)?),
                ("/etc/hostname", file("hostname", &texts.hostname, 0o644)?),
                ("/etc/resolv.conf", file("resolv.conf", &texts.resolv_conf, 0o644)?),
            ],
            // Any user of the container may have last words.
            termination: {
                write(&termination, "", 0o666).map_err(failed(&termination))?;
                termination
            },
        })
    }
}

/// With that mode whatever the umask.
fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(text.as_bytes())
}
