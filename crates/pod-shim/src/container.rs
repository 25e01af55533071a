//! One attempt of a container: from the fork to the last byte of its log.
//!
//! ```text
//! Making ──runs──▶ Running ──first process ends──▶ Ending ──nobody left──▶ Over
//!    └──failed, silent, too late──────────────────────────────────────────▶ Over
//! ```

use std::os::fd::AsFd as _;
use std::path::PathBuf;

use pod_container::spec::PidMode;
use rustix::io::Errno;

use crate::child::{Child, Verdict};
use crate::facts::Facts;
use crate::input::Input;
use crate::output::Output;
use crate::request::Key;
use crate::serve::{monotonic_ms, now};
use crate::sys;
use crate::text::{Line, parse_number};

#[derive(Debug)]
pub(crate) struct Container {
    name: Box<[u8]>,
    attempt: u32,
    pub(crate) child: Child,
    state: State,
    cgroups: Box<[PathBuf]>,
    /// It lives in another container's PID namespace.
    joined: bool,
    /// Kills for memory in its cgroup before it began.
    oom_kills_before: u64,
    pub(crate) output: Output,
    pub(crate) input: Input,
}

#[derive(Debug)]
enum State {
    Making,
    Running,
    /// The wait status of the first process, and until when to wait for the others.
    Ending(i32, u64),
    /// The wait status of a first process that ran, and whether the kernel killed for memory.
    Over(Option<(i32, bool)>),
}

/// How long processes that the first one left behind may take to die.
const ENDING_MS: u64 = 10_000;

impl Container {
    pub(crate) fn new(
        key: Key<'_>,
        cgroups: Box<[PathBuf]>,
        spawned: (Child, Output, Input),
        joined: bool,
        oom_kills: u64,
    ) -> Self {
        let (child, output, input) = spawned;
        Container {
            name: key.container.into(),
            attempt: key.attempt,
            child,
            state: State::Making,
            cgroups,
            joined,
            oom_kills_before: oom_kills,
            output,
            input,
        }
    }

    pub(crate) fn is(&self, key: Key<'_>) -> bool {
        *self.name == *key.container && self.attempt == key.attempt
    }

    pub(crate) fn is_named(&self, name: &[u8]) -> bool {
        *self.name == *name
    }

    pub(crate) fn cgroups(&self) -> &[PathBuf] {
        &self.cgroups
    }

    pub(crate) fn is_making(&self) -> bool {
        matches!(self.state, State::Making)
    }

    pub(crate) fn is_ending(&self) -> bool {
        matches!(self.state, State::Ending(..))
    }

    /// The PID of a first process that runs.
    pub(crate) fn running(&self) -> Option<i32> {
        self.child.process().filter(|_| matches!(self.state, State::Running))
    }

    /// Nothing of it is left to be done.
    pub(crate) fn is_done(&self) -> bool {
        self.child.is_over() && matches!(self.state, State::Over(_)) && self.output.is_finished()
    }

    /// The child has said something.
    pub(crate) fn hear(&mut self, mode: PidMode, facts: &mut Facts, buffer: &mut [u8]) {
        let verdict = self.child.hear(buffer);
        if let Some(terminal) = self.child.take_terminal() {
            self.input.set_terminal(terminal.as_fd());
            self.output.set_terminal(terminal);
        }
        self.judge(verdict, mode, facts, buffer);
    }

    /// One of its processes has ended.
    pub(crate) fn reap(&mut self, pid: i32, status: i32, mode: PidMode, facts: &mut Facts, buffer: &mut [u8]) {
        let verdict = self.child.reap(pid, status);
        self.judge(verdict, mode, facts, buffer);
    }

    fn judge(&mut self, verdict: Option<Verdict>, mode: PidMode, facts: &mut Facts, buffer: &mut [u8]) {
        match (verdict, &self.state) {
            (Some(Verdict::Runs(identity)), State::Making) => {
                facts.append(self.fact("started").word(&identity).end());
                self.state = State::Running;
            }
            (Some(Verdict::Failed(failure)), State::Making) => self.fail(facts, &failure),
            (Some(Verdict::Died(status)), State::Making) => {
                let oom = self.oom_kills() > self.oom_kills_before;
                self.fail(facts, death(status, oom));
            }
            _ => {}
        }
        let (State::Running, Some(status)) = (&self.state, self.child.ended()) else { return };
        // With a PID namespace of its own the others have died with it, before it could be reaped.
        if mode == PidMode::Container && !self.joined {
            self.end(status, facts, buffer);
        } else {
            self.state = State::Ending(status, monotonic_ms() + ENDING_MS);
            self.finish_ending(facts, buffer);
        }
    }

    /// Kills what the first process left behind, and tells the end when nothing is left.
    pub(crate) fn finish_ending(&mut self, facts: &mut Facts, buffer: &mut [u8]) {
        let State::Ending(status, until) = self.state else { return };
        if kill_group(&self.cgroups, buffer) && monotonic_ms() < until {
            return;
        }
        self.end(status, facts, buffer);
    }

    /// Too late.
    pub(crate) fn expire(&mut self, facts: &mut Facts, now_ms: u64) {
        if self.is_making() && self.child.deadline <= now_ms {
            self.child.kill();
            self.fail(facts, b"create timed out while the container was made");
        }
    }

    /// Also what is not below it in a PID namespace.
    pub(crate) fn kill_all(&mut self, buffer: &mut [u8]) {
        self.child.kill();
        kill_group(&self.cgroups, buffer);
    }

    fn end(&mut self, status: i32, facts: &mut Facts, buffer: &mut [u8]) {
        self.output.drain(buffer);
        let oom = self.oom_kills() > self.oom_kills_before;
        facts.append(exit_words(self.fact("exited"), status, oom).end());
        self.state = State::Over(Some((status, oom)));
        self.input.close();
    }

    /// `failure` is `STAGE MESSAGE`.
    fn fail(&mut self, facts: &mut Facts, failure: &[u8]) {
        let (stage, message) = split(failure);
        facts.append(self.fact("start-failed").word(stage).message(message).end());
        self.state = State::Over(None);
        self.output.close();
        self.input.close();
    }

    // === attached clients ===

    /// A client has typed, or come to its end.
    pub(crate) fn listen(&mut self, client: usize, buffer: &mut [u8]) {
        let client = &mut self.output.audience[client];
        let Some(stdin) = &client.stdin else { return };
        match rustix::io::read(stdin, &mut *buffer) {
            Ok(0) => {
                client.stdin = None;
                // As CRI runtimes: who typed into an input that stays open without him leaves with his last word.
                client.gone |= self.input.client_ended();
            }
            Ok(count) => self.input.give(&buffer[..count]),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => client.gone = true,
        }
    }

    /// Lets go who has left, does not read, or has seen all there is; says to whom to tell what.
    pub(crate) fn dismiss(&mut self, mut tell: impl FnMut(u64, Line)) {
        if self.output.audience.is_empty() {
            return;
        }
        let now = monotonic_ms();
        let ended = match self.state {
            State::Over(ended) if self.output.is_drained() => ended,
            _ => None,
        };
        let input = &mut self.input;
        self.output.audience.retain_mut(|client| {
            if !input.is_open() {
                // Whatever else is typed, nobody reads it: so the client is told.
                client.stdin = None;
            }
            if client.gone || client.patience_ends().is_some_and(|until| until <= now) {
                tell(client.peer, Line::new("detached").number(client.id));
                if client.stdin.is_some() {
                    input.client_ended();
                }
                return false;
            }
            let Some((status, oom)) = ended.filter(|_| !client.is_behind()) else { return true };
            tell(client.peer, exit_words(Line::new("exec-exited").number(client.id), status, oom));
            false
        });
    }

    fn fact(&self, verb: &str) -> Line {
        fact(verb, &self.name, self.attempt)
    }

    fn oom_kills(&self) -> u64 {
        oom_kills(&self.cgroups)
    }
}

/// The beginning of a fact line.
pub(crate) fn fact(verb: &str, name: &[u8], attempt: u32) -> Line {
    Line::new(verb).word(name).number(attempt.into()).number(now().cast_unsigned())
}

/// `CODE SIGNAL oom`.
pub(crate) fn exit_words(line: Line, status: i32, oom: bool) -> Line {
    let (code, signal) = sys::exit_of(status);
    let line = line.number(code.into());
    let line = match signal {
        Some(signal) => line.number(signal.into()),
        None => line.word(b"-"),
    };
    line.word(if oom { b"oom" } else { b"-" })
}

/// `STAGE MESSAGE` of a child that died without a word.
pub(crate) fn death(status: i32, oom: bool) -> &'static [u8] {
    match sys::exit_of(status) {
        (_, Some(_)) if oom => b"create killed for memory while it was made: the memory limit is too low",
        (_, Some(_)) => b"create killed while it was made",
        (_, None) => b"create died while it was made",
    }
}

pub(crate) fn split(failure: &[u8]) -> (&[u8], &[u8]) {
    let space = failure.iter().position(|byte| *byte == b' ').unwrap_or(failure.len());
    (&failure[..space], failure.get(space + 1..).unwrap_or_default())
}

/// How many processes of these groups the kernel has killed for memory; zero without a memory controller.
pub(crate) fn oom_kills(cgroups: &[PathBuf]) -> u64 {
    let mut buffer = [0; 512];
    for directory in cgroups {
        // v2, v1.
        for name in ["memory.events", "memory.oom_control"] {
            let text = read_file(directory, name, &mut buffer);
            for line in text.split(|byte| *byte == b'\n') {
                if let Some(count) = line.strip_prefix(b"oom_kill ").and_then(parse_number) {
                    return count;
                }
            }
        }
    }
    0
}

/// Kills every process of the group; were there any?
fn kill_group(cgroups: &[PathBuf], buffer: &mut [u8]) -> bool {
    // The same processes are in the group of each tree.
    let Some(directory) = cgroups.first() else { return false };
    let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CLOEXEC;
    // v2 has a switch, which also reaches groups below.
    if let Ok(switch) = rustix::fs::open(directory.join("cgroup.kill"), flags, rustix::fs::Mode::empty()) {
        let _ = rustix::io::write(&switch, b"1");
    }
    // v1 has none, but may hold a fork bomb still while its processes are listed and killed; all end when it thaws.
    let freezer = cgroups
        .iter()
        .find_map(|directory| rustix::fs::open(directory.join("freezer.state"), flags, rustix::fs::Mode::empty()).ok());
    let order = |word: &[u8]| freezer.as_ref().map(|freezer| rustix::io::write(freezer, word));
    order(b"FROZEN");
    let text = read_file(directory, "cgroup.procs", buffer);
    let any = kill_listed(text);
    order(b"THAWED");
    any
}

fn kill_listed(text: &[u8]) -> bool {
    let mut any = false;
    for pid in listed(text) {
        any = true;
        let _ = sys::kill(pid, libc::SIGKILL);
    }
    any
}

/// The numbers of whole lines: what a full buffer has cut off is another process's. Zero is one outside our namespace.
fn listed(text: &[u8]) -> impl Iterator<Item = i32> {
    let lines = text.split_inclusive(|byte| *byte == b'\n').filter_map(|line| line.strip_suffix(b"\n"));
    lines.filter_map(|line| parse_number(line)?.try_into().ok()).filter(|pid| *pid > 0)
}

fn read_file<'a>(directory: &std::path::Path, name: &str, buffer: &'a mut [u8]) -> &'a [u8] {
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
    let count = rustix::fs::open(directory.join(name), flags, rustix::fs::Mode::empty())
        .and_then(|fd| rustix::io::read(&fd, &mut *buffer))
        .unwrap_or(0);
    &buffer[..count]
}

#[cfg(test)]
mod tests {
    use super::listed;

    #[test]
    fn a_number_that_was_cut_is_nobody() {
        assert_eq!(listed(b"0\n4711\n123").collect::<Vec<_>>(), [4711]);
    }
}
