//! What a shim and an engine say to each other: fact lines, requests and answers.
//!
//! A fact is one line of text, `VERB CONTAINER ATTEMPT NANOS …`, the same in the file `facts` and on the socket. It is
//! text because a person looks at it when something went wrong, and it is fields between spaces because the shim
//! must not carry a serializer in its resident memory.

use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use pod_container::spec::{Exit, Identity, LogSpec, Stdin};

/// The socket a shim listens on, in its directory; `SOCK_SEQPACKET`, mode 0600.
pub const SOCKET: &str = "shim.sock";
/// The shim's PID as the host sees it, in decimal.
pub const PID_FILE: &str = "shim.pid";
/// Everything that happened so far, one fact a line.
pub const FACTS: &str = "facts";

/// One thing that happened to an attempt of a container. `at_nanos` is wall time, nanoseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// The program runs: `execve` succeeded.
    Started {
        container: String,
        attempt: u32,
        /// As the host sees it.
        pid: u32,
        at_nanos: u64,
        identity: Identity,
    },
    /// It never ran.
    StartFailed { container: String, attempt: u32, stage: Stage, message: String, at_nanos: u64 },
    /// Its first process ended, and with it the others. All it printed is in the log by now, unless the log's disk
    /// is full.
    Exited { container: String, attempt: u32, exit: Exit, at_nanos: u64 },
}

/// Where a start failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The surroundings could not be made: mounts, cgroup, user, capabilities. Kubernetes' `CreateContainerError`.
    Create,
    /// The program could not be executed. Kubernetes' `StartError`, exit code 128.
    Start,
}

/// What the shim in `directory` has seen so far, also when it no longer lives. A last line without its end (the
/// machine lost power) is left out.
///
/// # Errors
/// Whatever reading the file says; `InvalidData` for a line that no shim wrote.
pub fn read_facts(directory: &Path) -> io::Result<Vec<Fact>> {
    let text = std::fs::read_to_string(directory.join(FACTS))?;
    text.split_inclusive('\n')
        .filter_map(|line| line.strip_suffix('\n'))
        .map(|line| Fact::parse(line).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, line.to_owned())))
        .collect()
}

impl Fact {
    /// Reads one line, without its newline.
    pub fn parse(line: &str) -> Option<Fact> {
        let mut fields = line.splitn(5, ' ');
        let verb = fields.next()?;
        let container = fields.next()?.to_owned();
        let attempt = fields.next()?.parse().ok()?;
        let at_nanos = fields.next()?.parse().ok()?;
        let rest = fields.next()?;
        match verb {
            "started" => {
                let (pid, identity) = rest.split_once(' ')?;
                let pid = pid.parse().ok()?;
                Some(Fact::Started { container, attempt, pid, at_nanos, identity: parse_identity(identity)? })
            }
            "start-failed" => {
                let (stage, message) = rest.split_once(' ')?;
                let stage = Stage::parse(stage)?;
                Some(Fact::StartFailed { container, attempt, stage, message: unescape(message), at_nanos })
            }
            "exited" => Some(Fact::Exited { container, attempt, exit: parse_exit(rest)?, at_nanos }),
            _ => None,
        }
    }
}

impl Stage {
    pub(crate) fn parse(text: &str) -> Option<Stage> {
        match text {
            "create" => Some(Stage::Create),
            "start" => Some(Stage::Start),
            _ => None,
        }
    }
}

/// `UID GID GROUP,GROUP…` (`-` for no groups).
pub(crate) fn parse_identity(text: &str) -> Option<Identity> {
    let mut fields = text.split(' ');
    let uid = fields.next()?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    let groups = match fields.next()? {
        "-" => Vec::new(),
        list => list.split(',').map(|group| group.parse().ok()).collect::<Option<_>>()?,
    };
    fields.next().is_none().then_some(Identity { uid, gid, groups })
}

/// `CODE SIGNAL oom`, the last two `-` when they are not so.
pub(crate) fn parse_exit(text: &str) -> Option<Exit> {
    let mut fields = text.split(' ');
    let code = fields.next()?.parse().ok()?;
    let signal = match fields.next()? {
        "-" => None,
        number => Some(number.parse().ok()?),
    };
    let oom_killed = fields.next()? == "oom";
    fields.next().is_none().then_some(Exit { code, signal, oom_killed })
}

/// A message may hold newlines (a file name of the container's); on the wire they are `\n`, a backslash is `\\`.
pub(crate) fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some('n') => plain.push('\n'),
                Some(other) => plain.push(other),
                None => plain.push('\\'),
            },
            other => plain.push(other),
        }
    }
    plain
}

/// No packet is longer, in either direction.
pub const MAX_PACKET: usize = 16 * 1024;

/// What a shim sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    Fact(Fact),
    Answer {
        id: u64,
        answer: Answer,
    },
    /// The process of an exec, or the container of an attach, has ended. Of the latter all output is in the client's pipes.
    Exited {
        id: u64,
        exit: Exit,
    },
    /// The client of an attach was let go while the container lives.
    Detached {
        id: u64,
    },
}

/// The answer to the request with the same id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Done,
    Refused(String),
    ExecStarted { pid: u32, identity: Identity },
    ExecFailed { stage: Stage, message: String },
}

/// What an engine sends: fields between NUL bytes, the verb first, then the request's id. File descriptors ride along.
#[derive(Debug, Clone, Copy)]
pub enum Request<'a> {
    /// With the `ContainerSpec` as JSON in one descriptor. Only the child that becomes the container parses it; what the
    /// shim itself needs is repeated here.
    Start {
        container: &'a [u8],
        attempt: u32,
        deadline_ms: u64,
        tty: bool,
        stdin: Stdin,
        /// See [`pod_container::spec::ContainerSpec::processes_of`]; empty for none.
        processes_of: &'a [u8],
        log: &'a LogSpec,
        cgroups: &'a [PathBuf],
    },
    Signal {
        container: &'a [u8],
        attempt: u32,
        signo: i32,
    },
    /// With four descriptors: the `ExecSpec` as JSON, stdin, stdout, stderr. The request's id names the exec.
    Exec {
        container: &'a [u8],
        attempt: u32,
        deadline_ms: u64,
    },
    KillExec {
        exec: u64,
    },
    /// With a descriptor, an end of a pipe, for each stream that is wanted, in the order of stdin, stdout, stderr. The
    /// request's id names the attach; its client leaves by closing its ends.
    Attach {
        container: &'a [u8],
        attempt: u32,
        streams: Streams,
    },
    /// Of the container's own terminal.
    Resize {
        container: &'a [u8],
        attempt: u32,
        columns: u16,
        rows: u16,
    },
    Shutdown,
}

/// Which streams an attach wants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Streams {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

/// Bits of a start request's field.
pub const TTY: u64 = 1;
pub const STDIN: u64 = 2;
pub const STDIN_ONCE: u64 = 4;

impl Message {
    /// Reads one packet.
    pub fn parse(packet: &[u8]) -> Option<Message> {
        let text = std::str::from_utf8(packet).ok()?;
        let text = text.strip_suffix('\n').unwrap_or(text);
        let (verb, rest) = text.split_once(' ')?;
        let (id, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        let answer = match verb {
            "done" => Answer::Done,
            "refused" => Answer::Refused(unescape(rest)),
            "exec-started" => {
                let (pid, identity) = rest.split_once(' ')?;
                Answer::ExecStarted { pid: pid.parse().ok()?, identity: parse_identity(identity)? }
            }
            "exec-failed" => {
                let (stage, message) = rest.split_once(' ')?;
                Answer::ExecFailed { stage: Stage::parse(stage)?, message: unescape(message) }
            }
            "exec-exited" => return Some(Message::Exited { id: id.parse().ok()?, exit: parse_exit(rest)? }),
            "detached" => return Some(Message::Detached { id: id.parse().ok()? }),
            _ => return Fact::parse(text).map(Message::Fact),
        };
        Some(Message::Answer { id: id.parse().ok()?, answer })
    }
}

impl Request<'_> {
    /// One packet.
    pub fn encode(&self, id: u64) -> Vec<u8> {
        let mut packet = Vec::with_capacity(256);
        let mut field = |bytes: &[u8]| {
            packet.extend_from_slice(bytes);
            packet.push(0);
        };
        let number = |value: u64| value.to_string().into_bytes();
        match *self {
            Request::Start { container, attempt, deadline_ms, tty, stdin, processes_of, log, cgroups } => {
                field(b"start");
                field(&number(id));
                field(container);
                field(&number(attempt.into()));
                field(&number(deadline_ms));
                let stdin = match stdin {
                    Stdin::Null => 0,
                    Stdin::Open => STDIN,
                    Stdin::Once => STDIN | STDIN_ONCE,
                };
                field(&number((u64::from(tty) * TTY) | stdin));
                field(processes_of);
                field(&number(log.max_size));
                field(&number(log.max_files.into()));
                field(log.path.as_os_str().as_bytes());
                for directory in cgroups {
                    field(directory.as_os_str().as_bytes());
                }
            }
            Request::Signal { container, attempt, signo } => {
                field(b"signal");
                field(&number(id));
                field(container);
                field(&number(attempt.into()));
                field(signo.to_string().as_bytes());
            }
            Request::Exec { container, attempt, deadline_ms } => {
                field(b"exec");
                field(&number(id));
                field(container);
                field(&number(attempt.into()));
                field(&number(deadline_ms));
            }
            Request::KillExec { exec } => {
                field(b"kill-exec");
                field(&number(id));
                field(&number(exec));
            }
            Request::Attach { container, attempt, streams } => {
                field(b"attach");
                field(&number(id));
                field(container);
                field(&number(attempt.into()));
                for wanted in [streams.stdin, streams.stdout, streams.stderr] {
                    field(&number(wanted.into()));
                }
            }
            Request::Resize { container, attempt, columns, rows } => {
                field(b"resize");
                field(&number(id));
                field(container);
                field(&number(attempt.into()));
                field(&number(columns.into()));
                field(&number(rows.into()));
            }
            Request::Shutdown => {
                field(b"shutdown");
                field(&number(id));
            }
        }
        packet
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fact_lines_are_read() {
        let identity = Identity { uid: 7, gid: 8, groups: vec![8, 9] };
        let container = || "web".to_owned();
        #[rustfmt::skip]
        let cases = [
            ("started web 3 1700000000000000001 42 7 8 8,9",
             Fact::Started { container: container(), attempt: 3, pid: 42, at_nanos: 1_700_000_000_000_000_001, identity }),
            ("started web 0 5 42 0 0 -",
             Fact::Started { container: container(), attempt: 0, pid: 42, at_nanos: 5, identity: Identity::default() }),
            ("start-failed web 0 5 start exec: \"a\\nb\\\\c\": not found",
             Fact::StartFailed { container: container(), attempt: 0, stage: Stage::Start, at_nanos: 5,
                                 message: "exec: \"a\nb\\c\": not found".into() }),
            ("exited web 0 5 137 9 oom",
             Fact::Exited { container: container(), attempt: 0, at_nanos: 5,
                            exit: Exit { code: 137, signal: Some(9), oom_killed: true } }),
            ("exited web 0 5 3 - -",
             Fact::Exited { container: container(), attempt: 0, at_nanos: 5,
                            exit: Exit { code: 3, signal: None, oom_killed: false } }),
        ];
        for (line, fact) in cases {
            assert_eq!(Fact::parse(line), Some(fact), "{line}");
        }
        for line in [
            "",
            "started",
            "exited web 0 5 137 9",
            "exited web x 5 3 - -",
            "gone web 0 5 x",
            "started web 0 5 1 0 0 1,x",
        ] {
            assert_eq!(Fact::parse(line), None, "{line}");
        }
    }

    #[test]
    fn packets_are_told_apart() {
        assert_eq!(Message::parse(b"done 7\n"), Some(Message::Answer { id: 7, answer: Answer::Done }));
        let refused = Answer::Refused("the container is not running".into());
        let packet = b"refused 8 the container is not running\n";
        assert_eq!(Message::parse(packet), Some(Message::Answer { id: 8, answer: refused }));
        let exit = Exit { code: 42, signal: None, oom_killed: false };
        assert_eq!(Message::parse(b"exec-exited 9 42 - -\n"), Some(Message::Exited { id: 9, exit }));
        assert_eq!(Message::parse(b"detached 10\n"), Some(Message::Detached { id: 10 }));
        assert!(matches!(Message::parse(b"exited a 0 1 0 - -\n"), Some(Message::Fact(Fact::Exited { .. }))));
        assert_eq!(Message::parse(b"\xff"), None);
    }

    #[test]
    fn only_whole_lines_are_facts() {
        let directory = tempfile::tempdir().expect("temporary directory");
        std::fs::write(directory.path().join(FACTS), "exited a 0 1 0 - -\nexited b 0").expect("written");
        assert_eq!(read_facts(directory.path()).expect("facts").len(), 1);
    }
}
