//! The command line: the same flags for every program, and a few of its own.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::Seconds;
use crate::log::Level;
use crate::program::{Flag, Program};

/// Below Kubernetes' default grace period of 30 s, so that the receipt is written before the kill.
const DRAIN: Duration = Duration::from_secs(25);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Run,
    Check,
    PrintConfig,
    PrintDefaults,
    PrintSchema,
    PrintReference,
    Help,
    Version,
}

#[derive(Debug)]
pub struct Args {
    pub verb: Verb,
    /// Files whose documents are the configuration.
    pub config: Vec<PathBuf>,
    /// The program's own flags.
    pub flags: BTreeMap<&'static str, Vec<String>>,
    pub log_level: Level,
    pub log_json: Option<bool>,
    /// Where health and metrics are served; `None`: nowhere.
    pub admin: Option<String>,
    /// The Unix socket for what changes something; `None`: the default place if it can be used.
    pub socket: Option<PathBuf>,
    pub drain: Duration,
    pub termination_log: PathBuf,
    /// Whether the program locks itself in.
    pub sandbox: bool,
    /// Whether the sockets of a running process are asked for.
    pub take_over: bool,
}

const SHARED: &[(&str, &str)] = &[
    ("-c, --config FILE", "the configuration; reloaded when it changes and on SIGHUP; may be repeated"),
    ("--check", "tell every problem of the configuration and exit"),
    ("--print-config", "print the configuration with every default filled in and exit"),
    ("--print-defaults", "print every field with its default and exit"),
    ("--print-schema", "print the JSON Schema of the configuration and exit"),
    ("--print-reference", "print the reference of the configuration (Markdown) and exit"),
    ("--admin ADDRESS", "serve /livez /readyz /metrics here; `off` for nowhere"),
    ("--socket PATH", "the Unix socket for reload, log level and drain"),
    ("--drain-timeout TIME", "after SIGTERM, finish within this time (25s)"),
    ("--log-level LEVEL", "error, warn, info or debug (info)"),
    ("--log-format FORMAT", "text or json (text on a terminal)"),
    ("--termination-log PATH", "where the last message goes, if it exists (/dev/termination-log)"),
    ("--sandbox on|off", "lock itself in: no new programs, writes only where needed (on)"),
    ("-h, --help", "print this and exit"),
    ("-V, --version", "print the version and exit"),
];

/// Only for programs that hand over.
const TAKE_OVER: (&str, &str) =
    ("--take-over", "take the sockets over from the process that listens at --socket, if there is one; it drains");

pub fn help<P: Program>() -> String {
    let mut out = format!("{}: {}\n\nUsage: {} [FLAGS]\n", P::NAME, P::ABOUT, P::NAME);
    for (usage, _) in P::COMMANDS {
        let _ = writeln!(out, "       {} {usage}", P::NAME);
    }
    if !P::COMMANDS.is_empty() {
        out.push_str("\nCommands:\n");
        for (usage, help) in P::COMMANDS {
            let _ = writeln!(out, "  {:26} {help}", usage.split(' ').next().unwrap_or_default());
        }
    }
    out.push_str("\nFlags:\n");
    let own: Vec<(String, &str)> =
        P::FLAGS.iter().map(|flag| (format!("--{} {}", flag.name, flag.value), flag.help)).collect();
    let shared =
        P::HANDS_OVER.then_some(&TAKE_OVER).into_iter().chain(SHARED).map(|(flag, help)| ((*flag).to_owned(), *help));
    for (flag, help) in own.into_iter().chain(shared) {
        let _ = writeln!(out, "  {flag:26} {help}");
    }
    out
}

/// Reads the command line; an error is one sentence for the user.
pub fn parse(
    arguments: impl IntoIterator<Item = std::ffi::OsString>,
    own: &'static [Flag],
    admin_port: u16,
) -> Result<Args, String> {
    use lexopt::Arg::{Long, Short, Value};

    let mut args = Args {
        verb: Verb::Run,
        config: Vec::new(),
        flags: BTreeMap::new(),
        log_level: Level::Info,
        log_json: None,
        admin: Some(format!("[::]:{admin_port}")),
        socket: None,
        drain: DRAIN,
        termination_log: PathBuf::from("/dev/termination-log"),
        sandbox: true,
        take_over: false,
    };
    let mut parser = lexopt::Parser::from_args(arguments);
    while let Some(argument) = parser.next().map_err(|error| error.to_string())? {
        let name = match argument {
            Long(name) => name.to_owned(),
            Short('c') => "config".to_owned(),
            Short('h') => "help".to_owned(),
            Short('V') => "version".to_owned(),
            Short(other) => return Err(format!("unknown flag -{other}; see --help")),
            Value(other) => return Err(format!("unexpected argument `{}`; see --help", other.to_string_lossy())),
        };
        let mut value = |name: &str| -> Result<String, String> {
            let value = parser.value().map_err(|_| format!("--{name} needs a value"))?;
            value.into_string().map_err(|_| format!("the value of --{name} is not UTF-8"))
        };
        match name.as_str() {
            "check" => args.verb = Verb::Check,
            "print-config" => args.verb = Verb::PrintConfig,
            "print-defaults" => args.verb = Verb::PrintDefaults,
            "print-schema" => args.verb = Verb::PrintSchema,
            "print-reference" => args.verb = Verb::PrintReference,
            "take-over" => args.take_over = true,
            "help" => args.verb = Verb::Help,
            "version" => args.verb = Verb::Version,
            "config" => args.config.push(PathBuf::from(value("config")?)),
            "socket" => args.socket = Some(PathBuf::from(value("socket")?)),
            "termination-log" => args.termination_log = PathBuf::from(value("termination-log")?),
            "admin" => {
                let address = value("admin")?;
                let address = if address.starts_with(':') { format!("[::]{address}") } else { address };
                args.admin = (address != "off").then_some(address);
            }
            "drain-timeout" => {
                let text = value("drain-timeout")?;
                let time = Seconds::parse(&text).ok_or_else(|| format!("--drain-timeout: `{text}` is no duration"))?;
                args.drain = time.0;
            }
            "log-level" => {
                let text = value("log-level")?;
                let level = Level::parse(&text);
                args.log_level =
                    level.ok_or_else(|| format!("--log-level: `{text}` is not error, warn, info or debug"))?;
            }
            "sandbox" => {
                args.sandbox = match value("sandbox")?.as_str() {
                    "on" => true,
                    "off" => false,
                    other => return Err(format!("--sandbox: `{other}` is not on or off")),
                };
            }
            "log-format" => {
                args.log_json = Some(match value("log-format")?.as_str() {
                    "json" => true,
                    "text" => false,
                    other => return Err(format!("--log-format: `{other}` is not text or json")),
                });
            }
            name => {
                let Some(flag) = own.iter().find(|flag| flag.name == name) else {
                    return Err(format!("unknown flag --{name}; see --help"));
                };
                let given = value(flag.name)?;
                args.flags.entry(flag.name).or_default().push(given);
            }
        }
    }
    if !args.config.is_empty() && !args.flags.is_empty() {
        let names: Vec<String> = args.flags.keys().map(|name| format!("--{name}")).collect();
        return Err(format!("--config and {} exclude each other", names.join(", ")));
    }
    Ok(args)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &[Flag] = &[Flag { name: "file", value: "GLOB", help: "" }];

    fn read(line: &str) -> Result<Args, String> {
        parse(line.split_whitespace().map(Into::into), OWN, 7610)
    }

    #[test]
    fn flags() {
        let args = read("--file a --file=b --admin :0 --drain-timeout 2s --log-format json").unwrap();
        assert_eq!(args.flags["file"], ["a", "b"]);
        assert_eq!(args.admin.as_deref(), Some("[::]:0"));
        assert_eq!((args.drain, args.log_json), (Duration::from_secs(2), Some(true)));
        assert_eq!(read("--admin off").unwrap().admin, None);
        for (line, message) in [
            ("--bogus", "unknown flag --bogus; see --help"),
            ("x", "unexpected argument `x`; see --help"),
            ("--file", "--file needs a value"),
            ("--config a --file b", "--config and --file exclude each other"),
            ("--log-level loud", "--log-level: `loud` is not error, warn, info or debug"),
        ] {
            assert_eq!(read(line).unwrap_err(), message);
        }
    }
}
