//! The shim's binary travels inside the engine's, so that one file is all there is to install.

use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

static SHIM: &[u8] = include_bytes!(env!("OUTRIGGER_SHIM_PATH"));

/// The shim as a file below the run directory, named by its content: an upgraded engine never replaces the file under
/// a running pod.
pub(crate) fn ensure(run: &Path) -> io::Result<PathBuf> {
    let dir = run.join("bin");
    std::fs::create_dir_all(&dir)?;
    let path = dir.join(format!("outrigger-shim-{:016x}", content_tag()));
    if path.exists() {
        return Ok(path);
    }
    let temporary = dir.join(format!(".shim-{}", std::process::id()));
    let mut file = File::create(&temporary)?;
    file.write_all(SHIM)?;
    file.set_permissions(Permissions::from_mode(0o700))?;
    drop(file);
    std::fs::rename(&temporary, &path)?;
    Ok(path)
}

/// FNV-1a over 8-byte words; computed at compile time it would slow the build, and half a megabyte takes 50 µs.
fn content_tag() -> u64 {
    SHIM.chunks(8).fold(0xcbf2_9ce4_8422_2325, |hash, chunk| {
        let mut word = [0u8; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        (hash ^ u64::from_le_bytes(word)).wrapping_mul(0x0100_0000_01b3)
    })
}
