//! What a program brings; everything else is here already.

use std::collections::BTreeMap;
use std::error::Error;
use std::ffi::OsString;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::process::ExitCode;

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::config::envelope::refuse_kind;
use crate::config::tree::Node;
use crate::config::{Decoder, Document, Loaded};
use crate::drain::Drain;
use crate::exit::Exit;
use crate::hand_over::Inherited;
use crate::health::Report;
use crate::metrics::Exposition;
use crate::sandbox::Sandbox;

/// A flag of one program, besides those all share. Given more than once, its values are gathered.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    pub name: &'static str,
    /// What stands for the value in `--help`.
    pub value: &'static str,
    pub help: &'static str,
}

/// What a program is given to build its parts with.
#[derive(Debug)]
pub struct Context {
    /// The memory limit around this process in bytes, if there is one.
    pub memory_limit: Option<u64>,
    /// Descriptors this process may have open.
    pub descriptors: u64,
    /// Sockets of the process this one takes over from.
    pub inherited: Inherited,
}

/// Why the parts cannot be built; on a reload the old ones go on.
#[derive(Debug, thiserror::Error)]
#[error("failed to build {part}")]
pub struct BuildError {
    /// Which part, with its name.
    pub part: String,
    #[source]
    pub source: Box<dyn Error + Send + Sync>,
}

impl BuildError {
    pub fn new(part: impl Into<String>, source: impl Into<Box<dyn Error + Send + Sync>>) -> BuildError {
        BuildError { part: part.into(), source: source.into() }
    }
}

/// How a program's work ended.
#[derive(Debug)]
pub struct Ending {
    pub exit: Exit,
    /// The last log line and the termination message.
    pub message: String,
}

/// A sidecar, or the engine's daemon.
pub trait Program: Sized + 'static {
    /// The binary's name.
    const NAME: &'static str;
    /// The prefix of its metrics.
    const METRICS: &'static str;
    /// The kind of its document.
    const KIND: &'static str;
    /// One line for `--help`.
    const ABOUT: &'static str;
    /// Health and metrics are served here unless a flag says otherwise.
    const ADMIN_PORT: u16;
    const FLAGS: &'static [Flag];
    /// Commands of its own: how one is called, and what it does.
    const COMMANDS: &'static [(&'static str, &'static str)] = &[];
    /// Whether a new process can take its sockets over (`--take-over`).
    const HANDS_OVER: bool = false;
    type Spec: Document + Clone;

    /// The `spec` that flags alone stand for. An error is one sentence.
    fn spec_of_flags(flags: &BTreeMap<&'static str, Vec<String>>) -> Result<Value, String>;
    /// Notes what is wrong although every field by itself is fine.
    fn check(spec: &Self::Spec, decoder: &mut Decoder);
    /// Takes documents of other kinds that stand in the same text into the specification. The default knows none.
    fn adopt(_loaded: &mut Loaded<Self::Spec>, others: &[Node], decoder: &mut Decoder) {
        others.iter().for_each(|other| refuse_kind(other, Self::KIND, decoder));
    }
    /// Makes the parts, with nothing running yet.
    fn build(loaded: &Loaded<Self::Spec>, context: &Context) -> Result<Self, BuildError>;
    /// Builds new parts and swaps them in; on an error the old ones have not been touched.
    fn reload(&self, loaded: &Loaded<Self::Spec>, context: &Context) -> Result<(), BuildError>;
    /// Works until the drain is over, or there is nothing left to do.
    fn serve(&self, drain: Drain) -> impl Future<Output = Ending>;
    fn ready(&self, report: &mut Report);
    fn metrics(&self, out: &mut Exposition);

    /// Its listening sockets by name, for a new process that takes over; it finds them in [`Context::inherited`]. When that
    /// one is ready, the drain begins and says [`Drain::is_handed_over`].
    fn sockets(&self) -> Vec<(String, OwnedFd)> {
        Vec::new()
    }

    /// What it writes besides its streams, so that it can be locked in; `None`: it is not.
    fn sandbox(_loaded: &Loaded<Self::Spec>) -> Option<Sandbox> {
        None
    }

    /// An endless answer of its own to a GET of `path` (which begins with `/-/`) on the Unix socket; it ends when the
    /// sender is dropped.
    fn stream(&self, _path: &str, _query: &str) -> Option<mpsc::Receiver<Bytes>> {
        None
    }

    /// Runs a command of its own: a first argument that is no flag. Their names and what they do are in
    /// [`Program::COMMANDS`].
    fn command(_name: &str, _arguments: Vec<OsString>) -> ExitCode {
        Exit::Usage.into()
    }

    /// The text of a page of its own on the health port, which changes nothing; `None`: there is no such page.
    fn page(&self, _path: &str) -> Option<String> {
        None
    }
}
