//! The document `LogAgent`.

mod check;
mod sink;
mod source;
mod stage;

use std::collections::BTreeMap;

use daemon::config::{Decoder, Seconds, Size};
use daemon::{choice, document, one_of};

pub use check::check;
pub use sink::*;
pub use source::*;
pub use stage::*;

document! {
    /// What is read, what happens to it, and where it goes.
    pub struct Spec {
        /// Where logs come from.
        sources: Vec<Source> = required,
        /// What happens to each record, in this order.
        stages: Vec<Stage> = default(Vec::new()),
        /// Where records go. Each sink has its own pace; a position is saved when all have acknowledged it.
        sinks: Vec<Sink> = required,
        /// Added to every record, and labels of its stream.
        fields: BTreeMap<String, Value> = default(BTreeMap::new()),
        /// Where positions, and what could not be delivered yet, are kept.
        state: State = default(State::default()),
        /// How the end is found after SIGTERM.
        drain: Drain = default(Drain::default()),
        /// Tests of the stages, for `outrigger-logs test`.
        tests: Vec<Test> = default(Vec::new()),
    }
}

one_of! {
    /// Where a value comes from. No API server is asked.
    pub enum Value {
        /// Written down.
        Text(Text) = "value",
        /// An environment variable, such as one from the downward API.
        Env(Text) = "env",
        /// A file's text.
        File(Text) = "file",
        /// A downward API file of `key="value"` lines; becomes an object.
        Labels(Text) = "labelsFile",
    }
}

/// A single text where a map of fields could stand.
#[derive(Clone, Debug, PartialEq)]
pub struct Text(pub String);

impl daemon::config::Document for Text {
    fn decode(node: &daemon::config::tree::Node, decoder: &mut Decoder) -> Option<Text> {
        String::decode(node, decoder).map(Text)
    }
    fn schema() -> daemon::config::Schema {
        String::schema()
    }
    fn print(&self) -> daemon::config::print::Value {
        self.0.print()
    }
}

document! {
    /// Where positions, and what could not be delivered yet, are kept.
    pub struct State : Default {
        /// A directory that survives a restart of the container: put it on a volume.
        directory: String = default("/var/lib/outrigger/logs".to_owned()),
        /// Whether there is a spool.
        spool: Spooling = default(Spooling::Overflow),
        /// The spool never holds more; then reading waits.
        spool_max_bytes: Size = default(Size(512 << 20)),
        /// Bytes in memory before the spool is used; 0: a quarter of the memory limit, from 1Mi to 4Mi.
        memory: Size = default(Size(0)),
        /// How often positions are saved.
        save_every: Seconds = default(Seconds::new(1)),
    }
}

choice! {
    /// Whether there is a spool.
    pub enum Spooling {
        /// No: reading waits for the receivers.
        Off = "off",
        /// When memory is full, a source is about to vanish, or the drain ends before the delivery.
        Overflow = "overflow",
        /// Every record, before it is delivered.
        Always = "always",
    }
}

document! {
    /// How the end is found after SIGTERM.
    pub struct Drain : Default {
        /// Files that have not grown for this long are at their end.
        settle: Seconds = default(Seconds::millis(250)),
        /// Kept back from the deadline, to put on the spool what could not be delivered.
        reserve: Seconds = default(Seconds::new(1)),
    }
}
