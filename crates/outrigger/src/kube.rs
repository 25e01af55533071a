//! kubectl's verbs for the node that `outrigger start` runs: the same requests, and the same words on the terminal.
//!
//! Each verb is one future over one [`Node`]; what goes wrong is gathered and told at the end as kubectl tells it.

pub(crate) mod apply;
pub(crate) mod arguments;
pub(crate) mod attach;
pub(crate) mod copy;
pub(crate) mod delete;
pub(crate) mod describe;
pub(crate) mod document;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod forward;
pub(crate) mod get;
pub(crate) mod logs;
mod pod;
mod raw;
mod target;
pub(crate) mod top;
mod value;
pub(crate) mod wait;

use std::cell::OnceCell;
use std::time::Duration;

use pod_client::discovery::NoSuchKind;
use pod_client::{CallError, Choice, Client, Config, ConfigError, Discovery, Kind};

use crate::cli::Global;
use crate::exit::{self, Coded, FAILED};
use crate::{host, start};
use arguments::Server;

/// The server, as one command sees it.
pub(crate) struct Node {
    pub(crate) client: Client,
    discovery: OnceCell<Discovery>,
    /// Of objects that name none.
    pub(crate) namespace: String,
    /// It was asked for on the command line: objects of others are a mistake.
    pub(crate) enforced: bool,
}

/// What went wrong with one object, or with all.
#[derive(Debug)]
pub(crate) enum Trouble {
    Call(CallError),
    /// Said after `error: `.
    Text(String),
    /// Everything has been said.
    Exit(u8),
}

pub(crate) type Outcome<T> = Result<T, Trouble>;

impl From<CallError> for Trouble {
    fn from(error: CallError) -> Self {
        Trouble::Call(error)
    }
}

impl From<NoSuchKind> for Trouble {
    fn from(error: NoSuchKind) -> Self {
        Trouble::Text(error.to_string())
    }
}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            // Whoever reads has seen enough.
            std::io::ErrorKind::BrokenPipe => Trouble::Exit(exit::OK),
            _ => Trouble::Text(error.to_string()),
        }
    }
}

pub(crate) fn text<T>(text: impl Into<String>) -> Outcome<T> {
    Err(Trouble::Text(text.into()))
}

impl Trouble {
    /// As the only one.
    fn said(&self) -> String {
        match self {
            Trouble::Call(CallError::Refused(status)) => status.said(),
            Trouble::Text(text) => format!("error: {text}"),
            other => other.line(),
        }
    }

    /// As one of several.
    fn line(&self) -> String {
        match self {
            Trouble::Call(CallError::Refused(status)) => status.line(),
            Trouble::Call(error) => chain(error),
            Trouble::Text(text) => text.clone(),
            Trouble::Exit(_) => String::new(),
        }
    }

    /// Puts what was tried before the server's words, as kubectl does for objects of files.
    pub(crate) fn about(self, doing: &str, source: &str) -> Trouble {
        let context = format!("error when {doing} \"{source}\"");
        match self {
            Trouble::Call(CallError::Refused(mut status)) => {
                status.message = format!("{context}: {}", status.message);
                Trouble::Call(CallError::Refused(status))
            }
            Trouble::Text(text) => Trouble::Text(format!("{context}: {text}")),
            other => other,
        }
    }

    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Trouble::Call(error) if error.is_not_found())
    }
}

fn chain(error: &CallError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

impl Node {
    /// Nothing is asked of the server yet.
    pub(crate) fn connect(global: &Global, server: &Server) -> anyhow::Result<Node> {
        let usual = start::context_name(&host::roots(global));
        let context = server.context.as_deref().unwrap_or(&usual);
        let config = Config::load(Choice { kubeconfig: server.kubeconfig.as_deref(), context });
        let config = config.map_err(|error| {
            let missing = matches!(error, ConfigError::NoFile(_) | ConfigError::NoContext { .. });
            let coded = Coded::new(FAILED, error);
            if missing && server.context.is_none() { coded.hint(START) } else { coded }
        })?;
        let namespace = server.namespace.clone().filter(|name| !name.is_empty());
        Ok(Node {
            enforced: namespace.is_some(),
            namespace: namespace.or(config.namespace.clone()).unwrap_or_else(|| "default".to_owned()),
            client: Client::new(config, |warning| eprintln!("Warning: {warning}")),
            discovery: OnceCell::new(),
        })
    }

    /// What the server serves; asked once.
    pub(crate) async fn discovery(&self) -> Outcome<&Discovery> {
        if self.discovery.get().is_none() {
            let discovery = Discovery::fetch(&self.client).await?;
            // Set twice is set to the same.
            let _ = self.discovery.set(discovery);
        }
        self.discovery.get().ok_or_else(|| Trouble::Text("the server's kinds are unknown".to_owned()))
    }

    pub(crate) async fn kind(&self, word: &str) -> Outcome<&Kind> {
        Ok(self.discovery().await?.find(word)?)
    }
}

const START: &str = "start one: outrigger start";

/// Runs a verb's future, tells its troubles, and says with which code the command ends.
pub(crate) fn run(work: impl Future<Output = Result<u8, Vec<Trouble>>>) -> anyhow::Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = tokio::task::LocalSet::new().block_on(&runtime, work);
    // A thread that waits for the terminal's next key must not hold up the end.
    runtime.shutdown_timeout(Duration::ZERO);
    match outcome {
        Ok(code) => Ok(code),
        Err(troubles) => tell(troubles),
    }
}

fn tell(troubles: Vec<Trouble>) -> anyhow::Result<u8> {
    if let [Trouble::Exit(code)] = troubles.as_slice() {
        return Ok(*code);
    }
    // With nobody there every object fails in the same way.
    let silence = troubles.iter().find(|trouble| matches!(trouble, Trouble::Call(CallError::Unreachable { .. })));
    if let Some(Trouble::Call(error)) = silence {
        return Err(Coded::new(FAILED, anyhow::anyhow!("{}", chain(error))).hint(START).into());
    }
    match troubles.as_slice() {
        [one] => eprintln!("{}", one.said()),
        several => several.iter().for_each(|trouble| eprintln!("{}", trouble.line())),
    }
    Ok(FAILED)
}

/// `90s`, `5m`, `1h30m`, `500ms`, `0`: Go's durations.
pub(crate) fn duration(text: &str) -> Result<jiff::SignedDuration, String> {
    let wrong = || format!("invalid duration \"{text}\"");
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let mut seconds = 0.0;
    let mut rest = unsigned;
    if rest == "0" {
        return Ok(jiff::SignedDuration::ZERO);
    }
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let end = rest.find(|character: char| !character.is_ascii_digit() && character != '.').ok_or_else(wrong)?;
        let number: f64 = rest[..end].parse().map_err(|_| wrong())?;
        let units = rest[end..].find(|character: char| character.is_ascii_digit()).map_or(rest.len(), |at| at + end);
        let factor = match &rest[end..units] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(wrong()),
        };
        seconds += number * factor;
        rest = &rest[units..];
    }
    jiff::SignedDuration::try_from_secs_f64(if negative { -seconds } else { seconds }).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        for (text, milliseconds) in
            [("90s", 90_000), ("1h30m", 5_400_000), ("500ms", 500), ("0", 0), ("-1s", -1000), ("1.5s", 1500)]
        {
            assert_eq!(duration(text).map(|duration| duration.as_millis()), Ok(milliseconds), "{text}");
        }
        for text in ["", "5", "s", "1x", "soon"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
