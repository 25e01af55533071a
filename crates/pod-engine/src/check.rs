//! Probes and hooks: from the manifest's handler to its run against a container of this pod.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use pod_plan::{Hook, ProbeKind, ProbeOutcome};

use crate::hook::{handler_of_hook, run_hook_told};
use crate::probe::{self, ExecError, ExecResult, handler_of_probe};
use crate::running::{Running, hook_name};
use crate::{chain, launch};

/// What is kept of an exec probe's output.
const OUTPUT_BYTES: u64 = probe::OUTPUT_BYTES as u64;

/// Runs commands inside one attempt of one container.
#[derive(Debug, Clone)]
struct Inside {
    running: Rc<Running>,
    container: String,
    attempt: u32,
}

pub(crate) async fn run_probe(running: &Rc<Running>, name: &str, attempt: u32, kind: ProbeKind) -> ProbeOutcome {
    let Some(container) = running.container(name) else {
        return ProbeOutcome::Unknown("the container left the manifest".into());
    };
    let probe = match kind {
        ProbeKind::Startup => &container.startup_probe,
        ProbeKind::Liveness => &container.liveness_probe,
        ProbeKind::Readiness => &container.readiness_probe,
    };
    let Some(probe) = probe else {
        return ProbeOutcome::Unknown("the probe left the manifest".into());
    };
    let timeout = Duration::from_secs(u64::try_from(probe.timeout_seconds.unwrap_or(1)).unwrap_or(1));
    match handler_of_probe(probe, &container) {
        Ok(handler) => {
            let inside = Inside { running: running.clone(), container: name.into(), attempt };
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
    let container = running.container(name).ok_or("the container left the manifest")?;
    let lifecycle = container.lifecycle.clone().unwrap_or_default();
    let handler = match hook {
        Hook::PostStart => lifecycle.post_start,
        Hook::PreStop => lifecycle.pre_stop,
    };
    let handler = handler.ok_or_else(|| format!("no {} hook", hook_name(hook)))?;
    let handler = handler_of_hook(&handler, &container)?;
    let inside = Inside { running: running.clone(), container: name.into(), attempt };
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

impl crate::probe::Exec for Inside {
    async fn exec(&self, command: &[String], timeout: Option<Duration>) -> Result<ExecResult, ExecError> {
        let broken = |message: String| ExecError::Broken(message);
        let shim = self.running.shim().ok_or_else(|| broken("the pod's sandbox is gone".into()))?;
        let spec = launch::exec_spec(&self.running, &self.container, command).map_err(broken)?;
        let (read, write) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|e| broken(e.to_string()))?;
        let null = File::open("/dev/null").map_err(|e| broken(e.to_string()))?;
        let error = write.try_clone().map_err(|e| broken(e.to_string()))?;
        let mut exec = shim
            .exec(&self.container, self.attempt, &spec, [OwnedFd::from(null), write, error])
            .await
            .map_err(|e| broken(chain(&e)))?;
        let output = tokio::task::spawn_blocking(move || read_some(File::from(read)));
        let exit = match timeout {
            Some(limit) => match tokio::time::timeout(limit, exec.wait()).await {
                Ok(exit) => exit,
                Err(_) => {
                    let _ = exec.kill().await;
                    return Err(ExecError::TimedOut);
                }
            },
            None => exec.wait().await,
        };
        let exit = exit.map_err(|e| broken(chain(&e)))?;
        // A grandchild may hold the pipe open for ever; the verdict does not wait for it.
        let output = tokio::time::timeout(Duration::from_millis(100), output).await;
        let output = output.ok().and_then(Result::ok).unwrap_or_default();
        Ok(ExecResult { exit_code: exit.code, output })
    }
}

/// Keeps the beginning and swallows the rest, so that the command never blocks on a full pipe.
fn read_some(mut pipe: File) -> Vec<u8> {
    let mut kept = Vec::new();
    let _ = (&mut pipe).take(OUTPUT_BYTES).read_to_end(&mut kept);
    let _ = std::io::copy(&mut pipe, &mut std::io::sink());
    kept
}
