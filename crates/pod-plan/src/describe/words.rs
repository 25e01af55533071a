//! The single words and phrases of a plan in words: probes, hooks, times, amounts.

use k8s_openapi::api::core::v1::{GRPCAction, HTTPGetAction, LifecycleHandler, Probe, TCPSocketAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::Hook;
use crate::duration::go_text;
use crate::shape::{ContainerShape, ProbeShape, Role};

/// Characters of a command before it is cut: with what stands around it a line stays readable.
const COMMAND: usize = 60;

pub(super) fn role(role: Role) -> &'static str {
    match role {
        Role::Init => "init",
        Role::Sidecar => "sidecar",
        Role::Main => "main",
        Role::Ephemeral => "ephemeral",
    }
}

/// ` GET :8080/healthz every 5 s from 10 s on`.
pub(super) fn rhythm(probe: &Probe) -> String {
    let numbers = ProbeShape::new(probe);
    let delay = match numbers.initial_delay {
        0 => String::new(),
        delay => format!(" from {} on", seconds(delay)),
    };
    format!("{}every {}{delay}", handler(probe), seconds(numbers.period))
}

fn handler(probe: &Probe) -> String {
    if let Some(exec) = &probe.exec {
        format!("`{}` ", command(exec.command.as_deref()))
    } else if let Some(get) = &probe.http_get {
        format!("{} ", http(get, ""))
    } else if let Some(TCPSocketAction { host, port }) = &probe.tcp_socket {
        format!("connects to {}:{} ", host.as_deref().unwrap_or_default(), port_text(port))
    } else if let Some(GRPCAction { port, service }) = &probe.grpc {
        let service = service.as_deref().filter(|service| !service.is_empty());
        format!("gRPC :{port}{} ", service.map(|service| format!("/{service}")).unwrap_or_default())
    } else {
        String::new()
    }
}

/// Seconds from the container's start to the probe's first possible verdict of success.
pub(super) fn earliest_success(probe: ProbeShape) -> u64 {
    probe.initial_delay + u64::from(probe.success_threshold - 1) * probe.period
}

/// ` (12 s at the earliest)`, or nothing for at once.
pub(super) fn at_the_earliest(time: u64) -> String {
    if time == 0 { String::new() } else { format!(" ({} at the earliest)", seconds(time)) }
}

fn hook_of(container: &ContainerShape, hook: Hook) -> Option<&LifecycleHandler> {
    let lifecycle = container.spec.lifecycle.as_ref()?;
    match hook {
        Hook::PostStart => lifecycle.post_start.as_ref(),
        Hook::PreStop => lifecycle.pre_stop.as_ref(),
    }
}

pub(super) fn sleep_of(container: &ContainerShape, hook: Hook) -> Option<u64> {
    hook_of(container, hook)?.sleep.as_ref().and_then(|sleep| u64::try_from(sleep.seconds).ok())
}

pub(super) fn hook(container: &ContainerShape, hook: Hook) -> Option<String> {
    let handler = hook_of(container, hook)?;
    if let Some(sleep) = sleep_of(container, hook) {
        return Some(format!("sleeps {}", seconds(sleep)));
    }
    if let Some(exec) = &handler.exec {
        return Some(format!("runs `{}`", command(exec.command.as_deref())));
    }
    Some(match &handler.http_get {
        Some(get) => http(get, "POD-IP"),
        None => "fails (not a handler a hook can have)".to_owned(),
    })
}

fn http(get: &HTTPGetAction, no_host: &str) -> String {
    let path = get.path.as_deref().unwrap_or("/");
    let host = get.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(no_host);
    let scheme = get.scheme.as_deref().unwrap_or("HTTP").to_lowercase();
    let scheme = if no_host.is_empty() && scheme == "http" { String::new() } else { format!("{scheme}://") };
    format!("GET {scheme}{host}:{}{path}", port_text(&get.port))
}

fn port_text(port: &IntOrString) -> String {
    match port {
        IntOrString::Int(port) => port.to_string(),
        IntOrString::String(name) => name.clone(),
    }
}

/// One line of a command, whatever it has of its own; a long one is cut.
fn command(words: Option<&[String]>) -> String {
    let text = match words.unwrap_or_default() {
        // What the shell is told is what matters.
        [shell, flag, script] if shell.ends_with("sh") && flag.starts_with('-') && flag.ends_with('c') => {
            script.clone()
        }
        words => words.join(" "),
    };
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(COMMAND) {
        Some((end, _)) => format!("{} …", line[..end].trim_end()),
        None => line,
    }
}

/// `90 s`, `5m0s`.
pub(super) fn seconds(seconds: u64) -> String {
    if seconds < 120 { format!("{seconds} s") } else { go_text(seconds.saturating_mul(1000)) }
}

/// `a`, `a and b`, `a, b and c`.
pub(super) fn list(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

/// `1 failure`, `3 failures in a row`.
pub(super) fn failures(number: u32) -> String {
    if number == 1 { "1 failure".to_owned() } else { format!("{number} failures in a row") }
}

/// `0.25`, `2`.
pub(super) fn cores(millis: i64) -> String {
    let text = format!("{}.{:03}", millis / 1000, millis % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// In the largest binary unit that leaves a whole number: `64 MiB`.
pub(super) fn bytes(bytes: i64) -> String {
    let units = [(1_i64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.iter().find(|(size, _)| bytes >= *size && bytes % size == 0) {
        Some((size, unit)) => format!("{} {unit}", bytes / size),
        None => format!("{bytes} bytes"),
    }
}
