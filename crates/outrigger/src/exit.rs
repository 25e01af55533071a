//! How a command ends: exit codes, and the one `error:` line with its `hint:`.

use std::fmt;
use std::io;

/// Everything that was asked for was done; for `run`, every pod Succeeded.
pub(crate) const OK: u8 = 0;
/// The command could not do what was asked.
pub(crate) const FAILED: u8 = 1;
/// Wrong arguments or a manifest with problems; nothing was created. The code clap ends with, too.
pub(crate) const USAGE: u8 = 2;
/// `run` only, where smaller codes are the pod's: the engine itself failed. The code `docker run` and `podman run` use.
pub(crate) const ENGINE: u8 = 125;

/// The code of a command that was ended by a signal, as shells count.
pub(crate) fn interrupted(signal: rustix::process::Signal) -> u8 {
    u8::try_from(128 + signal.as_raw()).unwrap_or(FAILED)
}

/// A pod's exit code as the process can say it: Linux keeps the low eight bits, and a failure must not become 0.
pub(crate) fn of_pod(code: i32) -> u8 {
    match u8::try_from(code & 0xff) {
        Ok(0) if code != 0 => FAILED,
        Ok(code) => code,
        Err(_) => FAILED,
    }
}

/// An error that knows with which code the command ends, and what the person can do about it.
#[derive(Debug)]
pub(crate) struct Coded {
    pub(crate) code: u8,
    pub(crate) hint: Option<String>,
    error: anyhow::Error,
}

impl Coded {
    pub(crate) fn new(code: u8, error: impl Into<anyhow::Error>) -> Self {
        Self { code, hint: None, error: error.into() }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Coded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.error)
    }
}

impl std::error::Error for Coded {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

/// Wrong usage that clap cannot see.
pub(crate) fn usage(message: impl fmt::Display + fmt::Debug + Send + Sync + 'static) -> anyhow::Error {
    Coded::new(USAGE, anyhow::Error::msg(message)).into()
}

/// What is printed for an error, and the code the command ends with.
pub(crate) fn report(error: &anyhow::Error) -> (String, u8) {
    let coded = error.downcast_ref::<Coded>();
    let mut text = format!("error: {}\n", one_line(&format!("{error:#}")));
    let hint =
        coded.and_then(|coded| coded.hint.clone()).or_else(|| guess(error, rustix::process::geteuid().is_root()));
    if let Some(hint) = hint {
        text.push_str(&format!("hint: {hint}\n"));
    }
    (text, coded.map_or(FAILED, |coded| coded.code))
}

/// Errors of the kernel that a person can do something about, wherever in the chain they are.
fn guess(error: &anyhow::Error, root: bool) -> Option<String> {
    let kind = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind)?;
    match kind {
        io::ErrorKind::PermissionDenied if !root => Some("run as root (sudo)".into()),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some(
            "the disk is full: `outrigger image list` shows what images take, `outrigger image remove` frees it".into(),
        ),
        io::ErrorKind::ReadOnlyFilesystem => {
            Some("the file system is read-only: choose a writable place with --root DIR".into())
        }
        _ => None,
    }
}

fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[test]
    fn an_error_is_one_line_with_its_chain() {
        let error = Err::<(), _>(io::Error::other("line one\nline two")).context("failed to open `x`").unwrap_err();
        assert_eq!(report(&error), ("error: failed to open `x`: line one; line two\n".into(), FAILED));
    }

    #[test]
    fn a_code_and_a_hint_survive_context() {
        let error = anyhow::Error::new(Coded::new(ENGINE, anyhow::anyhow!("no cgroups")).hint("mount them"));
        let error = error.context("failed to start");
        assert_eq!(report(&error), ("error: failed to start: no cgroups\nhint: mount them\n".into(), ENGINE));
    }

    #[test]
    fn who_is_not_root_is_told_so() {
        let error =
            Err::<(), _>(io::Error::from(io::ErrorKind::PermissionDenied)).context("failed to write").unwrap_err();
        assert_eq!(guess(&error, false).as_deref(), Some("run as root (sudo)"));
        assert_eq!(guess(&error, true), None);
    }

    #[test]
    fn a_failure_never_becomes_success() {
        assert_eq!(of_pod(0), 0);
        assert_eq!(of_pod(3), 3);
        assert_eq!(of_pod(137), 137);
        assert_eq!(of_pod(256), FAILED);
        assert_eq!(of_pod(-1), 255);
    }
}
