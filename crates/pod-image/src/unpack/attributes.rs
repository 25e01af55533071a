//! Owner, mode, time and extended attributes of a tar entry.

use std::io::{self, Read};

use rustix::fs::Timespec;

use super::UnpackError;

/// A file's attributes, as the header and its extensions have them.
#[derive(Debug, Clone)]
pub(super) struct Attributes {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// `None` leaves what creation gave.
    pub modified: Option<Timespec>,
    pub xattrs: Vec<(String, Vec<u8>)>,
}

impl Attributes {
    /// Of a directory that the tar leaves out.
    pub(super) fn implicit() -> Attributes {
        Attributes { mode: 0o755, uid: 0, gid: 0, modified: None, xattrs: Vec::new() }
    }

    pub(super) fn owner(&self) -> (rustix::fs::Uid, rustix::fs::Gid) {
        (rustix::fs::Uid::from_raw(self.uid), rustix::fs::Gid::from_raw(self.gid))
    }

    pub(super) fn read<R: Read>(entry: &mut tar::Entry<'_, R>, shown: &str) -> Result<Attributes, UnpackError> {
        let fail = |source: io::Error| UnpackError::Entry { path: shown.to_owned(), source };
        let header = entry.header();
        // An id of 2³² − 1 means "leave" to chown(2).
        let id = |id: io::Result<u64>| match id.map(u32::try_from) {
            Ok(Ok(id)) if id != u32::MAX => Ok(id),
            Ok(_) => Err(UnpackError::Unsupported { path: shown.to_owned(), what: "owned by an impossible id".into() }),
            Err(error) => Err(fail(error)),
        };
        // A time that cannot be read hurts nobody.
        let seconds = header.mtime().ok().and_then(|time| i64::try_from(time).ok()).unwrap_or(0);
        let mut attributes = Attributes {
            mode: blank_is_zero(&header.as_old().mode, header.mode()).map_err(fail)? & 0o7777,
            uid: id(blank_is_zero(&header.as_old().uid, header.uid()))?,
            gid: id(blank_is_zero(&header.as_old().gid, header.gid()))?,
            modified: Some(Timespec { tv_sec: seconds, tv_nsec: 0 }),
            xattrs: Vec::new(),
        };
        let Some(extensions) = entry.pax_extensions().map_err(fail)? else { return Ok(attributes) };
        for extension in extensions {
            let extension = extension.map_err(fail)?;
            // A name that is not text is none we know.
            let Ok(key) = extension.key() else { continue };
            let value = extension.value_bytes();
            if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
                if is_portable_xattr(name) {
                    attributes.xattrs.push((name.to_owned(), value.to_owned()));
                }
            } else if key == "mtime" {
                attributes.modified = parse_time(value).or(attributes.modified);
            } else if key.starts_with("GNU.sparse.") {
                let what = "a sparse file in the PAX form".to_owned();
                return Err(UnpackError::Unsupported { path: shown.to_owned(), what });
            }
        }
        Ok(attributes)
    }
}

/// Some writers leave numbers out that they have no use for; Go's reader, and so Docker, takes that as 0.
fn blank_is_zero<T: Default>(field: &[u8], parsed: io::Result<T>) -> io::Result<T> {
    if field.iter().all(|byte| matches!(byte, 0 | b' ')) { Ok(T::default()) } else { parsed }
}

/// Attributes that belong to the file. `trusted.overlay.*` would command overlayfs, `security.selinux` and such are the
/// host's to give.
fn is_portable_xattr(name: &str) -> bool {
    (name.starts_with("user.") && !name.starts_with("user.overlay."))
        || matches!(name, "security.capability" | "system.posix_acl_access" | "system.posix_acl_default")
}

/// PAX times are decimal seconds, perhaps negative and with a fraction.
pub(super) fn parse_time(value: &[u8]) -> Option<Timespec> {
    let text = std::str::from_utf8(value).ok()?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let mut tv_sec: i64 = seconds.parse().ok()?;
    let mut tv_nsec: i64 = format!("{fraction:0<9.9}").parse().ok()?;
    if seconds.starts_with('-') && tv_nsec > 0 {
        tv_sec = tv_sec.checked_sub(1)?;
        tv_nsec = 1_000_000_000 - tv_nsec;
    }
    Some(Timespec { tv_sec, tv_nsec })
}
