//! Capability names and sets (capabilities(7)): bit N of a mask is capability N.

/// Every capability up to `CAP_CHECKPOINT_RESTORE`; the layer below drops what its kernel does not know.
pub const ALL: u64 = (1 << NAMES.len()) - 1;

/// What a container gets that says nothing (containerd's and Docker's set): chown, dac_override, fowner, fsetid, kill,
/// setgid, setuid, setpcap, net_bind_service, net_raw, sys_chroot, mknod, audit_write, setfcap.
pub const DEFAULT: u64 = 0xa804_25fb;

pub const SYS_ADMIN: u64 = 1 << 21;

/// In kernel order, without `CAP_`.
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

/// The mask of one name, in any case, with or without `CAP_`; `ALL` is every capability.
pub fn mask(name: &str) -> Option<u64> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    if bare == "ALL" {
        return Some(ALL);
    }
    NAMES.iter().position(|known| *known == bare).map(|number| 1 << number)
}

/// The names in a mask, in kernel order, without `CAP_`.
pub fn names(mask: u64) -> impl Iterator<Item = &'static str> {
    NAMES.iter().enumerate().filter(move |(number, _)| mask & (1 << number) != 0).map(|(_, name)| *name)
}

/// The set after `add` and `drop`. `ALL` acts first, whichever list it is in, so that dropping ALL and adding one leaves
/// that one; of the single names, drops come last. The error is the first unknown name.
pub fn adjusted<'a>(start: u64, add: &'a [String], drop: &'a [String]) -> Result<u64, &'a str> {
    let read = |names: &'a [String]| -> Result<(bool, u64), &'a str> {
        let (mut all, mut set) = (false, 0);
        for name in names {
            match mask(name).ok_or(name.as_str())? {
                ALL => all = true,
                single => set |= single,
            }
        }
        Ok((all, set))
    };
    let (add_all, added) = read(add)?;
    let (drop_all, dropped) = read(drop)?;
    let base = match (add_all, drop_all) {
        (_, true) => 0,
        (true, false) => ALL,
        (false, false) => start,
    };
    Ok((base | added) & !dropped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_set_is_spelled_out_by_its_names() {
        let default = [
            "CHOWN",
            "DAC_OVERRIDE",
            "FSETID",
            "FOWNER",
            "MKNOD",
            "NET_RAW",
            "SETGID",
            "SETUID",
            "SETFCAP",
            "SETPCAP",
            "NET_BIND_SERVICE",
            "SYS_CHROOT",
            "KILL",
            "AUDIT_WRITE",
        ];
        assert_eq!(default.iter().map(|name| mask(name).unwrap()).fold(0, |a, b| a | b), DEFAULT);
        assert_eq!(names(DEFAULT).count(), 14);
        assert_eq!((ALL, mask("sys_admin"), mask("CAP_BPF")), (0x1ff_ffff_ffff, Some(SYS_ADMIN), Some(1 << 39)));
        assert_eq!(mask("SYS_NONSENSE"), None);
    }

    #[test]
    fn adding_and_dropping() {
        let set = |add: &[&str], drop: &[&str]| {
            let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
            adjusted(DEFAULT, &own(add), &own(drop)).map_err(str::to_owned)
        };
        let bit = |name| mask(name).unwrap();
        assert_eq!(set(&[], &[]), Ok(DEFAULT));
        assert_eq!(set(&["NET_ADMIN"], &["KILL"]), Ok((DEFAULT | bit("NET_ADMIN")) & !bit("KILL")));
        assert_eq!(set(&["NET_ADMIN"], &["ALL"]), Ok(bit("NET_ADMIN")));
        assert_eq!(set(&["ALL"], &["SYS_ADMIN"]), Ok(ALL & !SYS_ADMIN));
        assert_eq!(set(&["all"], &["all"]), Ok(0));
        assert_eq!(set(&["KILL"], &["KILL"]), Ok(DEFAULT & !bit("KILL")));
        assert_eq!(set(&[], &["all"]), Ok(0));
        assert_eq!(set(&["KILL", "NOPE"], &[]), Err("NOPE".to_owned()));
    }
}
