//! Capability names, capabilities(7).

/// In the order of their numbers: the name at index N is capability N.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// Every capability this table knows, as a mask.
pub const ALL: u64 = (1 << NAMES.len()) - 1;

/// What containerd and Docker give a container that asks for nothing: CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL,
/// SETGID, SETUID, SETPCAP, NET_BIND_SERVICE, NET_RAW, SYS_CHROOT, MKNOD, AUDIT_WRITE, SETFCAP.
pub const DEFAULT: u64 = (1 << 0)
    | (1 << 1)
    | (1 << 3)
    | (1 << 4)
    | (1 << 5)
    | (1 << 6)
    | (1 << 7)
    | (1 << 8)
    | (1 << 10)
    | (1 << 13)
    | (1 << 18)
    | (1 << 27)
    | (1 << 29)
    | (1 << 31);

/// The number of a capability by its name, with or without `CAP_`, in any case.
pub fn number(name: &str) -> Option<u32> {
    let short = match name.get(..4) {
        Some(prefix) if prefix.eq_ignore_ascii_case("CAP_") => &name[4..],
        _ => name,
    };
    NAMES.iter().position(|known| known.eq_ignore_ascii_case(short)).and_then(|index| index.try_into().ok())
}

/// The name of a capability by its number, without `CAP_`.
pub fn name(number: u32) -> Option<&'static str> {
    NAMES.get(usize::try_from(number).ok()?).copied()
}

/// The mask of one capability by name; `ALL` is every known one.
pub fn mask(name: &str) -> Option<u64> {
    if name.eq_ignore_ascii_case("ALL") { Some(ALL) } else { number(name).map(|number| 1 << number) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_agree_with_the_kernel() {
        // linux/capability.h
        for (name, expected) in [("CAP_CHOWN", 0), ("cap_sys_admin", 21), ("MKNOD", 27), ("CHECKPOINT_RESTORE", 40)] {
            assert_eq!(number(name), Some(expected), "{name}");
        }
        assert_eq!(number("CAP_ALL"), None);
        assert_eq!(mask("all"), Some(ALL));
    }

    #[test]
    fn default_mask_holds_the_fourteen_of_containerd() {
        assert_eq!(DEFAULT.count_ones(), 14);
        // The mask that `docker run alpine grep CapBnd /proc/self/status` prints.
        assert_eq!(DEFAULT, 0xa804_25fb);
    }
}
