//! Probes and lifecycle hooks (`validateProbe`, `validateLifecycle`).

use k8s_openapi::api::core::v1::{
    Container, ExecAction, GRPCAction, HTTPGetAction, Lifecycle, LifecycleHandler, Probe, SleepAction, TCPSocketAction,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::format;
use crate::path::Path;
use crate::problem::Findings;

const SIGNALS_NEED_OS: &str = "may not be set for containers with empty `spec.os.name`";

/// All probes and hooks of a main container or sidecar. `grace` is the pod's; `os` its `os.name`.
pub(super) fn container(container: &Container, grace: Option<i64>, os: &str, path: &Path, findings: &mut Findings) {
    if let Some(lifecycle) = &container.lifecycle {
        hooks(lifecycle, grace, os, &path.field("lifecycle"), findings);
    }
    if let Some(probe) = &container.liveness_probe {
        must_succeed_once(probe, grace, &path.field("livenessProbe"), findings);
    }
    if let Some(probe) = &container.readiness_probe {
        let path = path.field("readinessProbe");
        common(probe, grace, &path, findings);
        if let Some(seconds) = probe.termination_grace_period_seconds {
            let path = path.field("terminationGracePeriodSeconds");
            findings.invalid(path, seconds, "must not be set for readinessProbes");
        }
    }
    if let Some(probe) = &container.startup_probe {
        must_succeed_once(probe, grace, &path.field("startupProbe"), findings);
    }
}

fn must_succeed_once(probe: &Probe, grace: Option<i64>, path: &Path, findings: &mut Findings) {
    common(probe, grace, path, findings);
    if let Some(threshold) = probe.success_threshold.filter(|threshold| *threshold != 1) {
        findings.invalid(path.field("successThreshold"), threshold, "must be 1");
    }
}

fn common(probe: &Probe, grace: Option<i64>, path: &Path, findings: &mut Findings) {
    let handler = Handler {
        exec: probe.exec.as_ref(),
        http_get: probe.http_get.as_ref(),
        tcp_socket: probe.tcp_socket.as_ref(),
        grpc: probe.grpc.as_ref(),
        sleep: None,
    };
    handler.check(grace, path, findings);
    let numbers = [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ];
    for (name, value) in numbers {
        if let Some(value) = value.filter(|value| *value < 0) {
            findings.invalid(path.field(name), value, super::NEGATIVE);
        }
    }
    if let Some(seconds) = probe.termination_grace_period_seconds.filter(|seconds| *seconds <= 0) {
        findings.invalid(path.field("terminationGracePeriodSeconds"), seconds, "must be greater than 0");
    }
}

fn hooks(lifecycle: &Lifecycle, grace: Option<i64>, os: &str, path: &Path, findings: &mut Findings) {
    if let Some(hook) = &lifecycle.post_start {
        Handler::of_hook(hook).check(grace, &path.field("postStart"), findings);
    }
    if let Some(hook) = &lifecycle.pre_stop {
        Handler::of_hook(hook).check(grace, &path.field("preStop"), findings);
    }
    if let Some(signal) = &lifecycle.stop_signal {
        let path = path.field("stopSignal");
        if os.is_empty() {
            findings.forbidden(path, SIGNALS_NEED_OS);
        } else if !is_signal(signal) {
            findings.add(path, format!("Unsupported value: {}", crate::problem::quote(signal)));
        }
    }
}

/// The Linux signal names of KEP-4960: the standard ones and `SIGRTMIN…SIGRTMAX` with offsets up to 15 and 14.
fn is_signal(name: &str) -> bool {
    const STANDARD: &str = " SIGABRT SIGALRM SIGBUS SIGCHLD SIGCLD SIGCONT SIGFPE SIGHUP SIGILL SIGINT SIGIO SIGIOT \
        SIGKILL SIGPIPE SIGPOLL SIGPROF SIGPWR SIGQUIT SIGSEGV SIGSTKFLT SIGSTOP SIGSYS SIGTERM SIGTRAP SIGTSTP \
        SIGTTIN SIGTTOU SIGURG SIGUSR1 SIGUSR2 SIGVTALRM SIGWINCH SIGXCPU SIGXFSZ SIGRTMIN SIGRTMAX ";
    let offset = |prefix: &str, most: u8| {
        let digits = name.strip_prefix(prefix)?;
        let number = digits.parse::<u8>().ok()?;
        Some(!digits.starts_with(['+', '0']) && (1..=most).contains(&number))
    };
    (!name.contains(' ') && STANDARD.contains(&format!(" {name} ")))
        || offset("SIGRTMIN+", 15).or_else(|| offset("SIGRTMAX-", 14)).unwrap_or(false)
}

/// What a probe or hook can do; exactly one must be there.
struct Handler<'a> {
    exec: Option<&'a ExecAction>,
    http_get: Option<&'a HTTPGetAction>,
    tcp_socket: Option<&'a TCPSocketAction>,
    grpc: Option<&'a GRPCAction>,
    sleep: Option<&'a SleepAction>,
}

impl<'a> Handler<'a> {
    fn of_hook(hook: &'a LifecycleHandler) -> Self {
        Handler {
            exec: hook.exec.as_ref(),
            http_get: hook.http_get.as_ref(),
            tcp_socket: hook.tcp_socket.as_ref(),
            grpc: None,
            sleep: hook.sleep.as_ref(),
        }
    }

    fn check(&self, grace: Option<i64>, path: &Path, findings: &mut Findings) {
        let present = [
            ("exec", self.exec.is_some()),
            ("httpGet", self.http_get.is_some()),
            ("tcpSocket", self.tcp_socket.is_some()),
            ("grpc", self.grpc.is_some()),
            ("sleep", self.sleep.is_some()),
        ];
        let mut present = present.iter().filter(|(_, present)| *present).map(|(name, _)| *name);
        let Some(first) = present.next() else {
            findings.required(path.clone(), "must specify a handler type");
            return;
        };
        for extra in present {
            findings.forbidden(path.field(extra), "may not specify more than 1 handler type");
        }
        let path = path.field(first);
        match self {
            Handler { exec: Some(exec), .. } => {
                if exec.command.as_ref().is_none_or(Vec::is_empty) {
                    findings.required(path.field("command"), "");
                }
            }
            Handler { http_get: Some(get), .. } => http_get(get, &path, findings),
            Handler { tcp_socket: Some(socket), .. } => port(&socket.port, &path.field("port"), findings),
            Handler { grpc: Some(grpc), .. } => port(&IntOrString::Int(grpc.port), &path.field("port"), findings),
            Handler { sleep: Some(sleep), .. } => {
                if let Some(grace) = grace.filter(|grace| !(0..=*grace).contains(&sleep.seconds)) {
                    let detail = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
                    findings.invalid(path, sleep.seconds, &detail);
                }
            }
            Handler { .. } => {}
        }
    }
}

fn http_get(get: &HTTPGetAction, path: &Path, findings: &mut Findings) {
    if get.path.as_deref().is_none_or(str::is_empty) {
        findings.required(path.field("path"), "");
    }
    port(&get.port, &path.field("port"), findings);
    let scheme = get.scheme.as_deref().unwrap_or_default();
    if !matches!(scheme, "HTTP" | "HTTPS") {
        findings.not_supported(path.field("scheme"), scheme, &["HTTP", "HTTPS"]);
    }
    for header in get.http_headers.iter().flatten() {
        findings.each_invalid(&path.field("httpHeaders"), &header.name, format::header_name(&header.name));
    }
}

fn port(port: &IntOrString, path: &Path, findings: &mut Findings) {
    match port {
        IntOrString::Int(number) => {
            if let Some(complaint) = format::port_number(i64::from(*number)) {
                findings.invalid(path.clone(), *number, &complaint);
            }
        }
        IntOrString::String(name) => findings.each_invalid(path, name, format::port_name(name)),
    }
}
