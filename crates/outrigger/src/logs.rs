//! `outrigger logs`: a container's log as `kubectl logs` prints it, read from the files by this process alone. It works the
//! same with and without an engine.

mod choice;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use jiff::{SignedDuration, Timestamp};
use logfile::follow::{Follower, Options};
use pod_engine::Roots;
use pod_engine::record::{Listed, find};

use self::choice::Chosen;
use crate::cli::{Global, Logs};
use crate::exit::{self, Coded, FAILED, usage};
use crate::host;
use crate::kube;
use crate::manifest;
use crate::orphans;
use crate::terminal::watch::Watch;

pub(crate) fn run(global: &Global, arguments: Logs) -> anyhow::Result<u8> {
    if let Some(code) = kube::logs::run(global, &arguments)? {
        return Ok(code);
    }
    let roots = host::roots(global);
    orphans::tell(&roots, &[]);
    let name = manifest::pod_name(arguments.pod.as_deref().unwrap_or_default());
    let namespace = arguments.server.namespace.as_deref().unwrap_or("default");
    let pod = find(&roots, namespace, name).with_context(|| format!("failed to look for pod \"{name}\""))?;
    let pod = pod.ok_or_else(|| Coded::new(FAILED, anyhow::anyhow!("pods \"{name}\" not found")))?;
    let options = options(&arguments, Timestamp::now())?;
    let wanted = arguments.container.as_deref().or(arguments.positional_container.as_deref());
    let chosen = if arguments.all_containers {
        choice::all(&pod.record.pod, &pod.status, arguments.previous)
    } else {
        let (chosen, note) = choice::one(&pod.record.pod, &pod.status, wanted, arguments.previous)?;
        if let Some(note) = note {
            eprintln!("{note}");
        }
        vec![chosen]
    };
    let readings: Vec<Reading> =
        chosen.into_iter().map(|chosen| Reading::new(&roots, &pod, chosen, options, &arguments)).collect();
    let result = if arguments.follow {
        host::block_on(follow(&roots, &pod, readings))?
    } else {
        readings.into_iter().try_for_each(|mut reading| reading.print())
    };
    match result {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(exit::OK),
        other => other.context("failed to print the log").map(|()| exit::OK),
    }
}

fn options(arguments: &Logs, now: Timestamp) -> anyhow::Result<Options> {
    let tail = match arguments.tail {
        None | Some(-1) => None,
        Some(lines) => Some(u64::try_from(lines).map_err(|_| usage("--tail: must be at least -1"))?),
    };
    let since = match (&arguments.since, arguments.since_time) {
        (Some(text), _) => {
            let duration: SignedDuration =
                text.parse().map_err(|_| usage(format!("--since: `{text}` is not a duration like 90s, 5m or 2h")))?;
            if !duration.is_positive() {
                return Err(usage("--since: must be greater than 0"));
            }
            Some(now.checked_sub(duration).unwrap_or(Timestamp::UNIX_EPOCH))
        }
        (None, time) => time,
    };
    let since = since.map(|time| i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX));
    Ok(Options { tail, since, rotated: true, ..Options::default() })
}

/// One container's log on its way to stdout.
struct Reading {
    chosen: Chosen,
    directory: PathBuf,
    follower: Follower,
    timestamps: bool,
    prefix: Option<String>,
    /// A line was begun and not ended.
    mid_line: bool,
}

impl Reading {
    fn new(roots: &Roots, pod: &Listed, chosen: Chosen, options: Options, arguments: &Logs) -> Self {
        let (namespace, name) = (pod.record.namespace(), pod.record.name());
        let log = roots.pod(namespace, name).log(&pod.record.uid, &chosen.container, chosen.attempt);
        let directory = log.parent().map(PathBuf::from).unwrap_or_default();
        Self {
            follower: Follower::new(&directory, chosen.attempt, options),
            directory,
            timestamps: arguments.timestamps,
            prefix: arguments.prefix.then(|| format!("[pod/{name}/{}] ", chosen.container)),
            chosen,
            mid_line: false,
        }
    }

    /// Prints everything that is there.
    fn print(&mut self) -> io::Result<()> {
        let mut out = io::stdout().lock();
        loop {
            let lines = self.follower.read_available()?;
            if lines.is_empty() {
                return out.flush();
            }
            let mut text = Vec::new();
            for line in &lines {
                if let (Some(prefix), false) = (&self.prefix, self.mid_line) {
                    text.extend_from_slice(prefix.as_bytes());
                }
                line.append_to(&mut text, self.timestamps, &mut self.mid_line);
            }
            out.write_all(&text)?;
        }
    }

    /// Whether this attempt is over: then its log is whole.
    fn has_ended(&self, pod: Option<&Listed>) -> bool {
        pod.is_none_or(|pod| choice::has_ended(&pod.status, &self.chosen))
    }
}

/// Until every attempt is over, as kubectl does; a restart is another attempt.
async fn follow(roots: &Roots, pod: &Listed, mut readings: Vec<Reading>) -> io::Result<()> {
    let watch = Watch::new()?;
    // The status file is replaced there.
    watch.add(&pod.paths.run)?;
    for reading in &readings {
        watch.add(&reading.directory)?;
    }
    while !readings.is_empty() {
        // Asked before the rest is read: what ended has written its last line.
        let now = find(roots, pod.record.namespace(), pod.record.name())?;
        let now = now.filter(|now| now.record.uid == pod.record.uid);
        let ended: Vec<bool> = readings.iter().map(|reading| reading.has_ended(now.as_ref())).collect();
        readings.iter_mut().try_for_each(Reading::print)?;
        let mut ended = ended.into_iter();
        readings.retain(|_| !ended.next().unwrap_or(true));
        if !readings.is_empty() {
            // The second is for file systems that inotify does not reach.
            if let Ok(changed) = tokio::time::timeout(Duration::from_secs(1), watch.changed()).await {
                changed?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Verb};
    use clap::Parser as _;

    fn parse(words: &[&str]) -> anyhow::Result<Options> {
        let now: Timestamp = "2025-01-01T01:00:00Z".parse().expect("a time");
        let Verb::Logs(arguments) = Cli::parse_from([&["outrigger", "logs", "web"], words].concat()).verb else {
            unreachable!("the verb is logs")
        };
        options(&arguments, now)
    }

    #[test]
    fn times_and_counts_are_kubectls() {
        let nanos = |time: &str| time.parse::<Timestamp>().ok().and_then(|t| i64::try_from(t.as_nanosecond()).ok());
        assert_eq!(parse(&[]).expect("valid").tail, None);
        assert_eq!(parse(&["--tail", "-1"]).expect("valid").tail, None);
        assert_eq!(parse(&["--tail=5"]).expect("valid").tail, Some(5));
        assert_eq!(parse(&["--since", "10m"]).expect("valid").since, nanos("2025-01-01T00:50:00Z"));
        assert_eq!(parse(&["--since=1h30m"]).expect("valid").since, nanos("2024-12-31T23:30:00Z"));
        assert_eq!(parse(&["--since-time=2025-01-01T00:00:00Z"]).expect("valid").since, nanos("2025-01-01T00:00:00Z"));
        assert!(parse(&["--tail=-2"]).is_err());
        assert!(parse(&["--since=soon"]).is_err());
        assert!(parse(&["--since=-5s"]).is_err());
    }
}
