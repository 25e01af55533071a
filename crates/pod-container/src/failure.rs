//! What a child says when it cannot become the container.
//!
//! A child has no `Error` chain to hand up: its parent is another process. So each failure is flattened here to the one
//! line of text that a person will read, in the words Kubernetes' users know from runc.

use std::fmt;

use rustix::io::Errno;

/// Why there will be no process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub stage: Stage,
    pub message: String,
}

/// Which half failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Making the surroundings.
    Create,
    /// Executing the program in them.
    Start,
}

/// An errno as `strerror` says it, in lower case and without its number.
pub(crate) struct Reason(pub(crate) Errno);

impl Failure {
    pub(crate) fn create(message: impl Into<String>) -> Failure {
        Failure { stage: Stage::Create, message: message.into() }
    }

    pub(crate) fn start(message: impl Into<String>) -> Failure {
        Failure { stage: Stage::Start, message: message.into() }
    }
}

/// Gives a failed system call the words around it.
pub(crate) trait OrFail<T> {
    /// A [`Stage::Create`] failure `WHAT: reason`.
    fn or_fail(self, what: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T> OrFail<T> for Result<T, Errno> {
    fn or_fail(self, what: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|errno| Failure::create(format!("{}: {}", what(), Reason(errno))))
    }
}

impl<T> OrFail<T> for std::io::Result<T> {
    fn or_fail(self, what: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| match Errno::from_io_error(&error) {
            Some(errno) => Failure::create(format!("{}: {}", what(), Reason(errno))),
            None => Failure::create(format!("{}: {error}", what())),
        })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = std::io::Error::from(self.0).to_string();
        let text = text.split(" (os error").next().unwrap_or(&text);
        let mut characters = text.chars();
        let first = characters.next().map(|first| first.to_ascii_lowercase());
        write!(formatter, "{}{}", first.map(String::from).unwrap_or_default(), characters.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_as_go_says_it() {
        assert_eq!(Reason(Errno::NOENT).to_string(), "no such file or directory");
        assert_eq!(Reason(Errno::ACCESS).to_string(), "permission denied");
        assert_eq!(Reason(Errno::NOEXEC).to_string(), "exec format error");
    }
}
