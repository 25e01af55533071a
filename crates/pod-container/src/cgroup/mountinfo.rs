//! Which control group trees are mounted where.

use std::path::PathBuf;

/// The v1 controllers this driver uses.
const USED: [&str; 6] = ["cpu", "cpuacct", "memory", "pids", "devices", "freezer"];

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// (controller, mount point); two controllers may share one tree.
    pub(super) v1: Vec<(String, PathBuf)>,
    pub(super) v2: Option<PathBuf>,
}

/// Reads the lines of a `/proc/PID/mountinfo`: fields, ` - `, type, source, super options.
pub(super) fn parse(text: &str) -> Found {
    let mut found = Found::default();
    for line in text.lines() {
        let Some((mount, filesystem)) = line.split_once(" - ") else { continue };
        let mut filesystem = filesystem.split(' ');
        let (kind, options) = (filesystem.next(), filesystem.nth(1));
        let Some(point) = mount.split(' ').nth(4) else { continue };
        match kind {
            Some("cgroup2") => {
                found.v2.get_or_insert_with(|| unescape(point));
            }
            Some("cgroup") => {
                for controller in options.unwrap_or_default().split(',').filter(|option| USED.contains(option)) {
                    // The first mount wins: a later one is a copy for some container.
                    if !found.v1.iter().any(|(known, _)| known == controller) {
                        found.v1.push((controller.to_owned(), unescape(point)));
                    }
                }
            }
            _ => {}
        }
    }
    found
}

/// Space, tab, newline and backslash come as three octal digits.
fn unescape(field: &str) -> PathBuf {
    let mut plain = String::with_capacity(field.len());
    let mut rest = field;
    while let Some(at) = rest.find('\\') {
        plain.push_str(&rest[..at]);
        match rest.get(at + 1..at + 4).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                plain.push(char::from(byte));
                rest = &rest[at + 4..];
            }
            None => {
                plain.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    plain.push_str(rest);
    PathBuf::from(plain)
}
