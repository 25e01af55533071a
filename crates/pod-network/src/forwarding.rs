//! `net.ipv4.ip_forward`: on while there are pods, as it was afterwards.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

pub(crate) const SETTING: &str = "/proc/sys/net/ipv4/ip_forward";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Switches forwarding on, after writing down durably that it was off.
pub(crate) fn ensure(directory: &Path) -> io::Result<()> {
    if fs::read_to_string(SETTING)?.trim() != "0" {
        return Ok(());
    }
    // Which boot the value is from: after a restart of the machine the setting is the administrator's again.
    let note = format!("0 {}", fs::read_to_string(BOOT_ID)?.trim());
    let path = note_path(directory);
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(note.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, &path)?;
    File::open(directory)?.sync_all()?;
    crate::checkpoint::pass("forwarding noted");
    fs::write(SETTING, "1")
}

/// Puts back what was written down, if anything was in this boot.
pub(crate) fn restore(directory: &Path) -> io::Result<()> {
    let path = note_path(directory);
    let note = match fs::read_to_string(&path) {
        Ok(note) => note,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if let Some((value, boot)) = note.trim().split_once(' ')
        && boot == fs::read_to_string(BOOT_ID)?.trim()
    {
        fs::write(SETTING, value)?;
    }
    crate::checkpoint::pass("forwarding restored");
    fs::remove_file(&path)
}

fn note_path(directory: &Path) -> PathBuf {
    directory.join("ip_forward.before")
}
