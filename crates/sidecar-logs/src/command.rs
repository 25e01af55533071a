//! Commands beside running: `test`, `tap`, `import`.

#[cfg(test)]
pub(crate) use import::survives as import_survives;

mod import;
mod test;

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;

use daemon::Exit;
use lexopt::Arg::{Long, Short, Value};

use crate::tap::Point;

pub(crate) const COMMANDS: &[(&str, &str)] = &[
    ("test --config FILE", "run the document's `tests`: lines in, records out"),
    ("tap [--at parsed|staged] [--contains TEXT] [--limit N] [--socket PATH]", "show records of a running agent live"),
    ("import --from fluent-bit|promtail FILE", "print another agent's configuration as ours"),
];

/// A sentence for whoever called it wrongly.
type Usage = String;

pub(crate) fn run(name: &str, arguments: Vec<OsString>) -> ExitCode {
    let of_command = |(usage, _): &&(&str, &str)| usage.split(' ').next() == Some(name);
    let (usage, about) = COMMANDS.iter().find(of_command).copied().unwrap_or((name, ""));
    if arguments.iter().any(|argument| argument == "--help" || argument == "-h") {
        print(&format!("Usage: outrigger-logs {usage}\n\n{about}\n"));
        return Exit::Success.into();
    }
    let outcome = match name {
        "test" => test(arguments),
        "tap" => tap(arguments),
        _ => import(arguments),
    };
    match outcome {
        Ok(exit) => exit.into(),
        Err(reason) => {
            print_error(&format!("outrigger-logs {name}: {reason}\nusage: outrigger-logs {usage}"));
            Exit::Usage.into()
        }
    }
}

/// Somebody who closed standard error does not want to know.
pub(super) fn print_error(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn text_of(value: Result<OsString, lexopt::Error>, name: &str) -> Result<String, Usage> {
    let value = value.map_err(|_| format!("--{name} needs a value"))?;
    value.into_string().map_err(|_| format!("the value of --{name} is not UTF-8"))
}

fn test(arguments: Vec<OsString>) -> Result<Exit, Usage> {
    let mut parser = lexopt::Parser::from_args(arguments);
    let mut path = None;
    while let Some(argument) = parser.next().map_err(|error| error.to_string())? {
        match argument {
            Short('c') | Long("config") => path = Some(PathBuf::from(text_of(parser.value(), "config")?)),
            other => return Err(other.unexpected().to_string()),
        }
    }
    let path = path.ok_or("needs --config FILE")?;
    let text = std::fs::read_to_string(&path).map_err(|error| format!("failed to read {}: {error}", path.display()))?;
    match test::run(&text) {
        Err(problems) => {
            for problem in &problems {
                print_error(&format!("{}:{}:{}: {problem}", path.display(), problem.mark.line, problem.mark.column));
            }
            Ok(Exit::Config)
        }
        Ok(report) => {
            print(&report.text);
            Ok(if report.failed == 0 { Exit::Success } else { Exit::Failure })
        }
    }
}

fn tap(arguments: Vec<OsString>) -> Result<Exit, Usage> {
    let mut parser = lexopt::Parser::from_args(arguments);
    let (mut at, mut contains, mut limit) = ("staged".to_owned(), None, u64::MAX);
    let mut socket = PathBuf::from("/run/outrigger/logs.sock");
    while let Some(argument) = parser.next().map_err(|error| error.to_string())? {
        match argument {
            Long("at") => at = text_of(parser.value(), "at")?,
            Long("contains") => contains = Some(text_of(parser.value(), "contains")?),
            Long("socket") => socket = PathBuf::from(text_of(parser.value(), "socket")?),
            Short('n') | Long("limit") => {
                let text = text_of(parser.value(), "limit")?;
                limit = text.parse().map_err(|_| format!("--limit: `{text}` is no number"))?;
            }
            other => return Err(other.unexpected().to_string()),
        }
    }
    Point::parse(&at).ok_or_else(|| format!("--at: `{at}` is not parsed or staged"))?;
    let shown = socket.display();
    let mut stream = match UnixStream::connect(&socket) {
        Ok(stream) => stream,
        Err(error) => {
            print_error(&format!("no agent at {shown}: {error}"));
            return Ok(Exit::Failure);
        }
    };
    // HTTP/1.0: the body ends with the connection and has no frames.
    let request = format!("GET /-/tap?at={at} HTTP/1.0\r\nHost: agent\r\n\r\n");
    let mut lines = match stream.write_all(request.as_bytes()) {
        Ok(()) => BufReader::new(stream).lines().map_while(Result::ok),
        Err(error) => {
            print_error(&format!("failed to ask the agent at {shown}: {error}"));
            return Ok(Exit::Failure);
        }
    };
    let status = lines.next().unwrap_or_default();
    if !status.contains(" 200 ") {
        print_error(&format!("the agent at {shown} answered {status:?}"));
        return Ok(Exit::Failure);
    }
    let records = lines.skip_while(|line| !line.is_empty()).skip(1);
    let mut left = limit;
    for record in records.filter(|line| contains.as_ref().is_none_or(|text| line.contains(text.as_str()))) {
        if writeln!(std::io::stdout(), "{record}").is_err() {
            break;
        }
        left -= 1;
        if left == 0 {
            break;
        }
    }
    Ok(Exit::Success)
}

fn import(arguments: Vec<OsString>) -> Result<Exit, Usage> {
    let mut parser = lexopt::Parser::from_args(arguments);
    let (mut from, mut path) = (None, None);
    while let Some(argument) = parser.next().map_err(|error| error.to_string())? {
        match argument {
            Long("from") => from = Some(text_of(parser.value(), "from")?),
            Value(value) if path.is_none() => path = Some(PathBuf::from(value)),
            other => return Err(other.unexpected().to_string()),
        }
    }
    let path = path.ok_or("needs a file")?;
    let text = std::fs::read_to_string(&path).map_err(|error| format!("failed to read {}: {error}", path.display()))?;
    let outcome = match from.as_deref() {
        Some("fluent-bit") => import::fluent_bit(&text),
        Some("promtail") => import::promtail(&text),
        _ => return Err("needs --from fluent-bit or --from promtail".to_owned()),
    };
    for note in &outcome.notes {
        print_error(&format!("{}:{note}", path.display()));
    }
    match outcome.document {
        Some(document) => {
            print(&document);
            Ok(Exit::Success)
        }
        None => {
            print_error("nothing was written: the above has no counterpart here");
            Ok(Exit::Config)
        }
    }
}
