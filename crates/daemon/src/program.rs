//! What a program brings; everything else is here already.

use std::collections::BTreeMap;
use std::error::Error;
use std::future::Future;

use serde_json::Value;

use crate::config::{Decoder, Document, Loaded};
use crate::drain::Drain;
use crate::exit::Exit;
use crate::health::Report;
use crate::metrics::Exposition;

/// A flag of one program, besides those all share. Given more than once, its values are gathered.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    pub name: &'static str,
    /// What stands for the value in `--help`.
    pub value: &'static str,
    pub help: &'static str,
}

/// What a program is given to build its parts with.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// The memory limit around this process in bytes, if there is one.
    pub memory_limit: Option<u64>,
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
    type Spec: Document + Clone;

    /// The `spec` that flags alone stand for. An error is one sentence.
    fn spec_of_flags(flags: &BTreeMap<&'static str, Vec<String>>) -> Result<Value, String>;
    /// Notes what is wrong although every field by itself is fine.
    fn check(spec: &Self::Spec, decoder: &mut Decoder);
    /// Makes the parts, with nothing running yet.
    fn build(loaded: &Loaded<Self::Spec>, context: &Context) -> Result<Self, BuildError>;
    /// Builds new parts and swaps them in; on an error the old ones have not been touched.
    fn reload(&self, loaded: &Loaded<Self::Spec>, context: &Context) -> Result<(), BuildError>;
    /// Works until the drain is over, or there is nothing left to do.
    fn serve(&self, drain: Drain) -> impl Future<Output = Ending>;
    fn ready(&self, report: &mut Report);
    fn metrics(&self, out: &mut Exposition);
}
