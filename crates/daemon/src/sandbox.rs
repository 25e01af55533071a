//! A program locks itself in before its parts are built: it gains no privileges (no-new-privs), writes only where it said it
//! would (Landlock, landlock(7)), executes nothing and calls nothing that only intruders want (seccomp(2)). Where the kernel
//! has one of these not, or something around us forbids it, the others hold and the log says so.
//!
//! Reading is not restricted: patterns and certificates may be anywhere, and a reload may name others.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, AccessFs, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetStatus,
};

/// What a program needs beyond reading and the network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sandbox {
    /// Directories (made if they are not there) and files that may be written.
    pub writes: Vec<PathBuf>,
}

/// A sandbox that stands, for as long as the process lives.
#[derive(Debug)]
pub(crate) struct Walls {
    writes: Vec<PathBuf>,
    landlock: bool,
}

impl Walls {
    /// What a new configuration wants and these walls do not let it have.
    pub(crate) fn refuses(&self, wanted: &Sandbox) -> Vec<PathBuf> {
        if !self.landlock {
            return Vec::new();
        }
        let inside = |path: &Path| self.writes.iter().any(|allowed| path.starts_with(allowed));
        wanted.writes.iter().filter(|path| !inside(path)).cloned().collect()
    }
}

/// Applies to this thread and those it starts from now on. `more` are files and directories the runtime itself writes.
/// Returns the walls and what to say about them.
pub(crate) fn enter(sandbox: &Sandbox, more: &[PathBuf]) -> (Walls, String) {
    let writes: Vec<PathBuf> = sandbox.writes.iter().chain(more).cloned().collect();
    for path in &sandbox.writes {
        // A path that cannot be made is the business of whoever wants to write there.
        let _ = std::fs::create_dir_all(path);
    }
    let (landlock, fences) = match fence(&writes) {
        Ok(RulesetStatus::NotEnforced) => (false, "not in this kernel".to_owned()),
        Ok(RulesetStatus::PartiallyEnforced) => (true, "on, as far as this kernel knows it".to_owned()),
        Ok(RulesetStatus::FullyEnforced) => (true, "on".to_owned()),
        Err(error) => (false, format!("off: {}", crate::log::chain(&error))),
    };
    let filter = match filter() {
        Ok(()) => "on".to_owned(),
        Err(error) => format!("off: {error}"),
    };
    (Walls { writes, landlock }, format!("landlock {fences}; seccomp {filter}"))
}

fn fence(writes: &[PathBuf]) -> Result<RulesetStatus, landlock::RulesetError> {
    // The newest of what is asked for here; older kernels do what they can.
    let abi = ABI::V3;
    let handled = AccessFs::from_write(abi) | AccessFs::Execute;
    let mut rules = Ruleset::default().set_compatibility(CompatLevel::BestEffort).handle_access(handled)?.create()?;
    // Standard streams are open already; this is for libraries that open it.
    let null = PathBuf::from("/dev/null");
    for path in writes.iter().chain([&null]) {
        let Ok(fd) = PathFd::new(path) else { continue };
        let allowed = if path.is_dir() { AccessFs::from_write(abi) } else { AccessFs::WriteFile | AccessFs::Truncate };
        rules = rules.add_rule(PathBeneath::new(fd, allowed))?;
    }
    Ok(rules.restrict_self()?.ruleset)
}

/// Refused with EPERM: starting programs, looking into other processes, changing the machine or one's own surroundings.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn filter() -> Result<(), seccompiler::Error> {
    use seccompiler::{SeccompAction, SeccompFilter, TargetArch};
    let refused = [
        libc::SYS_execve,
        libc::SYS_execveat,
        libc::SYS_ptrace,
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
        libc::SYS_pidfd_getfd,
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_move_mount,
        libc::SYS_open_tree,
        libc::SYS_fsopen,
        libc::SYS_fsmount,
        libc::SYS_pivot_root,
        libc::SYS_chroot,
        libc::SYS_setns,
        libc::SYS_unshare,
        libc::SYS_bpf,
        libc::SYS_perf_event_open,
        libc::SYS_userfaultfd,
        libc::SYS_io_uring_setup,
        libc::SYS_init_module,
        libc::SYS_finit_module,
        libc::SYS_delete_module,
        libc::SYS_kexec_load,
        libc::SYS_reboot,
        libc::SYS_swapon,
        libc::SYS_swapoff,
        libc::SYS_add_key,
        libc::SYS_request_key,
        libc::SYS_keyctl,
        libc::SYS_open_by_handle_at,
        libc::SYS_settimeofday,
        libc::SYS_clock_settime,
        libc::SYS_sethostname,
        libc::SYS_acct,
        libc::SYS_quotactl,
    ];
    let arch = if cfg!(target_arch = "x86_64") { TargetArch::x86_64 } else { TargetArch::aarch64 };
    let rules = refused.into_iter().map(|number| (number, Vec::new())).collect();
    let eperm = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, eperm, arch)?;
    let program: seccompiler::BpfProgram = filter.try_into()?;
    seccompiler::apply_filter(&program)
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn filter() -> Result<(), String> {
    Err("not for this machine".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_said_can_be_written_and_nothing_runs() {
        let directory = tempfile::tempdir().unwrap();
        let (inside, outside) = (directory.path().join("in/deep"), directory.path().join("out"));
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("read"), "text").unwrap();
        // Both apply to a thread; the other tests run in others.
        std::thread::spawn(move || {
            let sandbox = Sandbox { writes: vec![inside.clone()] };
            let (walls, said) = enter(&sandbox, &[]);
            assert_eq!(std::fs::read_to_string(outside.join("read")).unwrap(), "text");
            std::fs::write(inside.join("file"), "x").unwrap();
            std::fs::rename(inside.join("file"), inside.join("other")).unwrap();
            std::thread::spawn(|| {}).join().unwrap();
            if walls.landlock {
                let refused = std::fs::write(outside.join("file"), "x").unwrap_err();
                assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied, "{said}");
                let wanted = Sandbox { writes: vec![inside.join("more"), outside.clone()] };
                assert_eq!(walls.refuses(&wanted), std::slice::from_ref(&outside));
            }
            if said.ends_with("seccomp on") {
                let refused = std::process::Command::new("/bin/true").status().unwrap_err();
                assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied, "{said}");
            }
        })
        .join()
        .unwrap();
    }
}
