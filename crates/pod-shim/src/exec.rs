//! A process beside a container's first one, on behalf of one client. No fact: only that client hears of it, and with its
//! connection it ends.

use crate::child::{Child, Verdict};
use crate::container::{death, exit_words, split};
use crate::text::Line;

#[derive(Debug)]
pub(crate) struct Exec {
    /// The serial number of the client's connection.
    pub(crate) peer: u64,
    /// The id of the client's request.
    pub(crate) id: u64,
    pub(crate) child: Child,
    state: State,
}

#[derive(Debug)]
enum State {
    Making,
    Running,
    Over,
}

impl Exec {
    pub(crate) fn new(peer: u64, id: u64, child: Child) -> Exec {
        Exec { peer, id, child, state: State::Making }
    }

    pub(crate) fn is_making(&self) -> bool {
        matches!(self.state, State::Making)
    }

    pub(crate) fn is_done(&self) -> bool {
        self.child.is_over() && matches!(self.state, State::Over)
    }

    /// What to tell the client now: up to two words, how it began and how it ended.
    pub(crate) fn hear(&mut self, buffer: &mut [u8]) -> [Option<Line>; 2] {
        let verdict = self.child.hear(buffer);
        self.judge(verdict)
    }

    pub(crate) fn reap(&mut self, pid: i32, status: i32) -> [Option<Line>; 2] {
        let verdict = self.child.reap(pid, status);
        self.judge(verdict)
    }

    fn judge(&mut self, verdict: Option<Verdict>) -> [Option<Line>; 2] {
        let first = match (verdict, &self.state) {
            (Some(Verdict::Runs(identity)), State::Making) => {
                self.state = State::Running;
                Some(Line::new("exec-started").number(self.id).word(&identity))
            }
            (Some(Verdict::Failed(failure)), State::Making) => Some(self.fail(&failure)),
            (Some(Verdict::Died(status)), State::Making) => Some(self.fail(death(status, false))),
            _ => None,
        };
        let (State::Running, Some(status)) = (&self.state, self.child.ended()) else { return [first, None] };
        self.state = State::Over;
        [first, Some(exit_words(Line::new("exec-exited").number(self.id), status, false))]
    }

    pub(crate) fn expire(&mut self, now_ms: u64) -> Option<Line> {
        if !self.is_making() || self.child.deadline > now_ms {
            return None;
        }
        self.child.kill();
        Some(self.fail(b"create timed out while entering the container"))
    }

    fn fail(&mut self, failure: &[u8]) -> Line {
        self.state = State::Over;
        let (stage, message) = split(failure);
        Line::new("exec-failed").number(self.id).word(stage).message(message)
    }
}
