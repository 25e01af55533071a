//! `exec`: a command inside the container, well if it exits with 0.

use std::time::Duration;

use pod_plan::ProbeOutcome;

use super::{Exec, ExecError, OUTPUT_BYTES, text};

/// The command is killed when its timeout has passed; should even that hang, the probe does not.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) async fn probe<E: Exec + ?Sized>(
    command: &[String],
    timeout: Duration,
    exec: &E,
) -> Result<ProbeOutcome, String> {
    let run = tokio::time::timeout(timeout + PATIENCE, exec.exec(command, Some(timeout))).await;
    match run.unwrap_or(Err(ExecError::TimedOut)) {
        Ok(result) if result.exit_code == 0 => Ok(ProbeOutcome::Success),
        Ok(result) => Ok(ProbeOutcome::Failure(shown(&result.output))),
        Err(ExecError::TimedOut) => Ok(ProbeOutcome::Failure(timed_out(command))),
        Err(ExecError::Broken(message)) => Err(message),
    }
}

fn timed_out(command: &[String]) -> String {
    format!("command {} timed out", text::quote(command.join(" ").as_bytes()))
}

/// The beginning of the output as text.
pub(crate) fn shown(output: &[u8]) -> String {
    String::from_utf8_lossy(&output[..output.len().min(OUTPUT_BYTES)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::super::ExecResult;
    use super::super::tests::Scripted;
    use super::*;

    async fn outcome(answer: Result<ExecResult, ExecError>) -> Result<ProbeOutcome, String> {
        let command = ["sh", "-c", "cat \"/x\""].map(str::to_owned);
        probe(&command, Duration::from_secs(1), &Scripted(Box::new(move |_| answer.clone()))).await
    }

    #[tokio::test]
    async fn verdicts() {
        let result = |exit_code, output: &[u8]| Ok(ExecResult { exit_code, output: output.to_vec() });
        assert_eq!(outcome(result(0, b"fine")).await, Ok(ProbeOutcome::Success));
        assert_eq!(outcome(result(1, b"cat: /x: no\n")).await, Ok(ProbeOutcome::Failure("cat: /x: no\n".into())));
        let long = vec![b'x'; 20 << 10];
        assert_eq!(outcome(result(137, &long)).await, Ok(ProbeOutcome::Failure("x".repeat(10 << 10))));
        assert_eq!(
            outcome(Err(ExecError::TimedOut)).await,
            Ok(ProbeOutcome::Failure(r#"command "sh -c cat \"/x\"" timed out"#.into()))
        );
        assert_eq!(outcome(Err(ExecError::Broken("no shim".into()))).await, Err("no shim".into()));
    }

    #[tokio::test(start_paused = true)]
    async fn an_exec_that_never_returns_does_not_hold_the_probe() {
        struct Hanging;
        impl Exec for Hanging {
            async fn exec(&self, _: &[String], _: Option<Duration>) -> Result<ExecResult, ExecError> {
                std::future::pending().await
            }
        }
        let outcome = probe(&["x".to_owned()], Duration::from_secs(1), &Hanging).await;
        assert_eq!(outcome, Ok(ProbeOutcome::Failure("command \"x\" timed out".into())));
    }
}
