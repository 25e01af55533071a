//! Probes and hooks: from the handler an attempt was launched with to its run against that attempt.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use pod_plan::{Hook, ProbeKind, ProbeOutcome};
use tokio::net::unix::pipe;

use crate::chain;
use crate::hook::{handler_of_hook, run_hook_told};
use crate::launch::Snapshot;
use crate::probe::{self, ExecError, ExecResult, OUTPUT_BYTES, handler_of_probe};
use crate::running::{Running, hook_name};

/// A grandchild may hold the pipe open for ever; what the command itself wrote is in the pipe when it ends.
const OUTPUT_PATIENCE: Duration = Duration::from_millis(100);

/// Runs commands inside one attempt of one container.
#[derive(Debug, Clone)]
struct Inside {
    running: Rc<Running>,
    launched: Rc<Snapshot>,
    attempt: u32,
}

pub(crate) async fn run_probe(running: &Rc<Running>, name: &str, attempt: u32, kind: ProbeKind) -> ProbeOutcome {
    let Some(launched) = running.launched(name, attempt) else {
        return ProbeOutcome::Unknown(unknown(name, attempt));
    };
    let container = &launched.container;
    let probe = match kind {
        ProbeKind::Startup => &container.startup_probe,
        ProbeKind::Liveness => &container.liveness_probe,
        ProbeKind::Readiness => &container.readiness_probe,
    };
    let Some(probe) = probe else {
        return ProbeOutcome::Unknown("the container was started without this probe".into());
    };
    let timeout = Duration::from_secs(u64::try_from(probe.timeout_seconds.unwrap_or(1)).unwrap_or(1));
    match handler_of_probe(probe, container) {
        Ok(handler) => {
            let inside = Inside { running: running.clone(), launched: launched.clone(), attempt };
            probe::run_probe(&handler, running.target_ip(), timeout, &inside).await
        }
        Err(message) => ProbeOutcome::Unknown(message),
    }
}

/// A preStop hook that takes longer than the grace period is reported as failed and left to die with its container.
pub(crate) async fn run_hook(
    running: &Rc<Running>,
    name: &str,
    attempt: u32,
    hook: Hook,
    abandon_after: Option<u64>,
) -> Result<(), String> {
    let launched = running.launched(name, attempt).ok_or_else(|| unknown(name, attempt))?;
    let lifecycle = launched.container.lifecycle.as_ref();
    let handler = match hook {
        Hook::PostStart => lifecycle.and_then(|lifecycle| lifecycle.post_start.as_ref()),
        Hook::PreStop => lifecycle.and_then(|lifecycle| lifecycle.pre_stop.as_ref()),
    };
    let handler = handler.ok_or_else(|| format!("no {} hook", hook_name(hook)))?;
    let handler = handler_of_hook(handler, &launched.container)?;
    let inside = Inside { running: running.clone(), launched, attempt };
    let ip = running.target_ip();
    let work = tokio::task::spawn_local(async move { run_hook_told(&handler, ip, &inside).await });
    let ended = match abandon_after {
        Some(seconds) => match tokio::time::timeout(Duration::from_secs(seconds), work).await {
            Ok(ended) => ended,
            Err(_) => return Err(format!("it did not end within {seconds}s")),
        },
        None => work.await,
    };
    let done = ended.unwrap_or_else(|panic| Err(format!("the hook panicked: {panic}")))?;
    if let Some(text) = done.http_fallback {
        running.warn_container(name, "LifecycleHTTPFallback", &text);
    }
    Ok(())
}

fn unknown(container: &str, attempt: u32) -> String {
    format!("nothing is written down about attempt {attempt} of container {container}")
}

impl crate::probe::Exec for Inside {
    async fn exec(&self, command: &[String], timeout: Option<Duration>) -> Result<ExecResult, ExecError> {
        let broken = |message: String| ExecError::Broken(message);
        let shim = self.running.shim().ok_or_else(|| broken("the pod's sandbox is gone".into()))?;
        let (mut output, stdio) = Output::pipe().map_err(|error| broken(error.to_string()))?;
        let (name, process) = (&self.launched.container.name, self.launched.exec(command));
        let started = shim.exec(name, self.attempt, &process, stdio).await;
        let mut exec = started.map_err(|error| broken(chain(&error)))?;
        let ended = async {
            // Both keep what they have when the other is first.
            tokio::select! {
                exit = exec.wait() => exit,
                never = output.drain() => match never {},
            }
        };
        let exit = match timeout {
            Some(limit) => match tokio::time::timeout(limit, ended).await {
                Ok(exit) => exit,
                Err(_) => {
                    let _ = exec.kill().await;
                    return Err(ExecError::TimedOut);
                }
            },
            None => ended.await,
        };
        let exit = exit.map_err(|error| broken(chain(&error)))?;
        let _ = tokio::time::timeout(OUTPUT_PATIENCE, output.read_to_end()).await;
        Ok(ExecResult { exit_code: exit.code, output: output.kept })
    }
}

/// The reading end of a command's output: keeps the beginning and swallows the rest, so that the command never blocks on
/// a full pipe. Dropping it closes the pipe, whoever still holds the other end.
#[derive(Debug)]
struct Output {
    pipe: pipe::Receiver,
    kept: Vec<u8>,
}

// === impl Output ===

impl Output {
    /// And the command's standard input, output and error.
    fn pipe() -> io::Result<(Output, [OwnedFd; 3])> {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let null = File::open("/dev/null")?;
        let error = write.try_clone()?;
        let output = Output { pipe: pipe::Receiver::from_owned_fd(read)?, kept: Vec::new() };
        Ok((output, [null.into(), write, error]))
    }

    /// May be cancelled: what was read is kept.
    async fn read_to_end(&mut self) {
        let mut chunk = [0; 4096];
        // An error is the end, too: the exit code is the verdict.
        while self.pipe.readable().await.is_ok() {
            match self.pipe.try_read(&mut chunk) {
                Ok(0) => return,
                Ok(length) => {
                    let room = OUTPUT_BYTES.saturating_sub(self.kept.len());
                    self.kept.extend_from_slice(&chunk[..length.min(room)]);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    }

    /// Does not end by itself.
    async fn drain(&mut self) -> std::convert::Infallible {
        self.read_to_end().await;
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[tokio::test]
    async fn the_beginning_is_kept_and_the_rest_never_blocks_the_writer() {
        let (mut output, [_, stdout, stderr]) = Output::pipe().unwrap();
        // More than a pipe holds.
        let writer = std::thread::spawn(move || {
            let mut stdout = File::from(stdout);
            stdout.write_all(b"first ").unwrap();
            stdout.write_all(&vec![b'x'; 1 << 20]).unwrap();
        });
        drop(stderr);
        output.read_to_end().await;
        writer.join().unwrap();
        assert_eq!(output.kept.len(), OUTPUT_BYTES);
        assert!(output.kept.starts_with(b"first xxx"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_held_pipe_is_given_up() {
        let (mut output, [_, stdout, stderr]) = Output::pipe().unwrap();
        File::from(stdout).write_all(b"said").unwrap();
        assert!(tokio::time::timeout(OUTPUT_PATIENCE, output.read_to_end()).await.is_err());
        assert_eq!(output.kept, b"said");
        drop(output);
        assert!(File::from(stderr).write_all(b"more").is_err(), "the grandchild is told");
    }
}
