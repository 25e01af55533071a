//! A process beside a container's first one, on behalf of one client. No fact: only that client hears of it, and with its
//! connection it ends.

use crate::container::{death, exit_words, split};
use crate::spawn::{Making, Spawned, Verdict};
use crate::sys;
use crate::text::Line;

#[derive(Debug)]
pub(crate) struct Exec {
    /// The serial number of the client's connection.
    pub(crate) peer: u64,
    /// The id of the client's request.
    pub(crate) id: u64,
    pid: i32,
    state: State,
    reaped: bool,
}

#[derive(Debug)]
enum State {
    Making(Making),
    Running,
    Over,
}

impl Exec {
    pub(crate) fn new(peer: u64, id: u64, spawned: Spawned) -> Exec {
        Exec { peer, id, pid: spawned.pid, state: State::Making(spawned.making), reaped: false }
    }

    pub(crate) fn has_pid(&self, pid: i32) -> bool {
        self.pid == pid && !self.reaped
    }

    pub(crate) fn making(&self) -> Option<&Making> {
        match &self.state {
            State::Making(making) => Some(making),
            _ => None,
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.reaped && matches!(self.state, State::Over)
    }

    /// What to tell the client now, if anything.
    pub(crate) fn hear(&mut self, buffer: &mut [u8]) -> Option<Line> {
        let State::Making(making) = &mut self.state else { return None };
        match making.hear(buffer)? {
            Verdict::Runs(identity) => {
                self.state = State::Running;
                Some(Line::new("exec-started").number(self.id).word(&identity))
            }
            Verdict::Failed(failure) => Some(self.fail(&failure)),
            Verdict::Silent => {
                self.kill();
                None
            }
        }
    }

    /// What to tell the client: up to two words, how it began and how it ended.
    pub(crate) fn reap(&mut self, status: i32, buffer: &mut [u8]) -> [Option<Line>; 2] {
        self.reaped = true;
        let first = self.hear(buffer);
        let second = match self.state {
            State::Making(_) => Some(self.fail(death(status, false))),
            State::Running => Some(exit_words(Line::new("exec-exited").number(self.id), status, false)),
            State::Over => None,
        };
        self.state = State::Over;
        [first, second]
    }

    pub(crate) fn expire(&mut self, now_ms: u64) -> Option<Line> {
        if self.making().is_none_or(|making| making.deadline > now_ms) {
            return None;
        }
        self.kill();
        Some(self.fail(b"create timed out while entering the container"))
    }

    pub(crate) fn kill(&self) {
        if !self.reaped {
            let _ = sys::kill(self.pid, libc::SIGKILL);
        }
    }

    fn fail(&mut self, failure: &[u8]) -> Line {
        self.state = State::Over;
        let (stage, message) = split(failure);
        Line::new("exec-failed").number(self.id).word(stage).message(message)
    }
}
