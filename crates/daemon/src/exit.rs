//! How a program ends: the exit code, and the message where Kubernetes looks for it.

use std::io::Write as _;
use std::path::Path;

/// The kubelet keeps this much of a termination message (Pod API, `terminationMessagePath`).
const MESSAGE_LIMIT: usize = 4096;

/// Exit codes; a contract (`docs/reference/`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Finished, or drained completely.
    Success = 0,
    /// A part failed and cannot go on.
    Failure = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The configuration is wrong.
    Config = 3,
    /// The deadline passed before everything was drained; what is left is kept for the next start.
    Incomplete = 4,
    /// A second signal ended the drain.
    Aborted = 5,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        std::process::ExitCode::from(exit as u8)
    }
}

/// Writes the reason where the pod's status will show it. Only into a file that is there already: outside of a pod there
/// is none, and nothing is to be left lying around.
pub fn termination_message(path: &Path, message: &str) {
    let Ok(mut file) = std::fs::OpenOptions::new().write(true).truncate(true).open(path) else { return };
    let mut end = message.len().min(MESSAGE_LIMIT);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    // Nothing more can be done at this point; the log has the same text.
    let _ = file.write_all(&message.as_bytes()[..end]);
}
