//! A pod's plan in words, before anything runs: what starts when, what holds what up, and how it stops.

use std::fmt;

use k8s_openapi::api::core::v1::{LifecycleHandler, Pod};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::duration::go_text;
use crate::shape::{ContainerShape, PodShape, ProbeShape, RestartPolicy, Role, containers_of};
use crate::{Hook, ProbeKind};

/// The start order and the stop order of a defaulted, validated pod, with the times that its probes, hooks and grace
/// period imply. For people; `outrigger plan` prints it.
pub fn describe(pod: &Pod) -> String {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let sheet = Sheet { pod: PodShape::new(pod, uid), containers: containers_of(pod) };
    sheet.to_string()
}

struct Sheet {
    pod: PodShape,
    containers: Vec<ContainerShape>,
}

impl fmt::Display for Sheet {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.headline(out)?;
        self.start(out)?;
        self.end(out)?;
        self.stop(out)
    }
}

impl Sheet {
    fn of(&self, role: Role) -> impl DoubleEndedIterator<Item = &ContainerShape> {
        self.containers.iter().filter(move |container| container.role == role)
    }

    fn headline(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |role, one: &str, many: &str| match self.of(role).count() {
            0 => None,
            1 => Some(format!("1 {one}")),
            number => Some(format!("{number} {many}")),
        };
        let parts: Vec<String> = [
            count(Role::Init, "init container", "init containers"),
            count(Role::Sidecar, "sidecar", "sidecars"),
            count(Role::Main, "main container", "main containers"),
        ]
        .into_iter()
        .flatten()
        .collect();
        let PodShape { namespace, name, policy, .. } = &self.pod;
        writeln!(out, "pod {namespace}/{name}: {}; restartPolicy {policy:?}", parts.join(", "))
    }

    // === start ===

    fn start(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "\nStart, in this order (times from the first start, at the earliest)")?;
        let width = self.name_width();
        let (mut earliest, mut ready) = (0, 0);
        for (index, container) in self.containers.iter().enumerate() {
            let role = role_name(container.role);
            let at = seconds(earliest);
            let (number, name, image) = (index + 1, container.name(), container.image());
            writeln!(out, "{number:>3}. {at:>6}  {role:<7}  {name:<width$}  {image}")?;
            for line in self.start_lines(container) {
                writeln!(out, "               {line}")?;
            }
            earliest += sleep_of(container, Hook::PostStart).unwrap_or(0);
            let started = container.probe(ProbeKind::Startup).map_or(0, earliest_success);
            let readiness = container.probe(ProbeKind::Readiness).map_or(0, earliest_success);
            ready = ready.max(earliest + started.max(readiness));
            if container.is_sidecar() {
                earliest += started;
            }
        }
        self.ready(out, ready)
    }

    fn start_lines(&self, container: &ContainerShape) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(hook) = hook_text(container, Hook::PostStart) {
            lines.push(format!("postStart {hook}: nothing else starts before it is done"));
        }
        if let Some(probe) = container.probe(ProbeKind::Startup) {
            let then = if container.is_sidecar() { "the next one starts" } else { "it counts as started" };
            lines.push(format!(
                "startup probe {}: when it succeeds ({} at the earliest) {then}; {}",
                rhythm(probe),
                seconds(earliest_success(probe)),
                self.failure(container, probe)
            ));
        } else if container.is_sidecar() {
            lines.push("the next one starts as soon as it runs".to_owned());
        }
        if container.is_init() {
            lines.push(format!("the next one starts when it has exited with 0; {}", self.init_failure(container)));
        }
        if let Some(probe) = container.probe(ProbeKind::Readiness) {
            lines.push(format!(
                "readiness probe {}: ready {} at the earliest, unready after {} failures in a row",
                self.rhythm_after_startup(container, probe),
                seconds(earliest_success(probe)),
                probe.failure_threshold
            ));
        }
        if let Some(probe) = container.probe(ProbeKind::Liveness) {
            let rhythm = self.rhythm_after_startup(container, probe);
            lines.push(format!("liveness probe {rhythm}: {}", self.failure(container, probe)));
        }
        lines.extend(self.own_policy(container));
        lines
    }

    fn rhythm_after_startup(&self, container: &ContainerShape, probe: ProbeShape) -> String {
        let waits = container.probe(ProbeKind::Startup).is_some();
        format!("{}{}", rhythm(probe), if waits { ", once started" } else { "" })
    }

    /// What becomes of a container whose startup or liveness probe keeps failing.
    fn failure(&self, container: &ContainerShape, probe: ProbeShape) -> String {
        let at = probe.initial_delay + u64::from(probe.failure_threshold - 1) * probe.period;
        let grace = probe.grace.map(|grace| format!(" within {}", seconds(grace))).unwrap_or_default();
        let again = crate::restart::restarts_after_kill(container, self.pod.policy);
        let end = if again { "stopped and restarted" } else { "stopped for good" };
        format!("if it only fails, {end}{grace} after {}", seconds(at))
    }

    fn init_failure(&self, container: &ContainerShape) -> &'static str {
        if crate::restart::restarts_after(container, self.pod.policy, 1) {
            "a failure is tried again (at once, then after 10 s, 20 s … 5 min)"
        } else {
            "a failure fails the pod"
        }
    }

    fn own_policy(&self, container: &ContainerShape) -> Option<String> {
        let own = container.spec.restart_policy.as_deref().filter(|_| !container.is_sidecar())?;
        let rules = match container.spec.restart_policy_rules.as_deref().unwrap_or_default() {
            [] => String::new(),
            [_] => ", after an exit-code rule".to_owned(),
            rules => format!(", after {} exit-code rules", rules.len()),
        };
        Some(format!("its own restartPolicy {own}{rules}"))
    }

    fn ready(&self, out: &mut fmt::Formatter<'_>, earliest: u64) -> fmt::Result {
        let probed: Vec<&str> = self
            .containers
            .iter()
            .filter(|container| container.probe(ProbeKind::Readiness).is_some())
            .map(ContainerShape::name)
            .collect();
        write!(out, "  Ready  {:>4}  when all have started", seconds(earliest))?;
        if !probed.is_empty() {
            write!(out, " and the readiness probes of {} succeed", list(&probed))?;
        }
        if !self.pod.readiness_gates.is_empty() {
            write!(out, ", and somebody has set {} to True", self.pod.readiness_gates.join(", "))?;
        }
        writeln!(out)
    }

    // === end ===

    fn end(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "\nEnd")?;
        let mains = || self.of(Role::Main).map(|main| main.policy(self.pod.policy));
        if mains().all(|policy| policy == RestartPolicy::Always) {
            writeln!(out, "  never by itself: what exits is restarted (at once, then after 10 s, 20 s … 5 min)")?;
        } else if mains().any(|policy| policy == RestartPolicy::Always) {
            writeln!(out, "  never by itself: a main container with restartPolicy Always is restarted for ever")?;
        } else {
            let all =
                if self.of(Role::Main).count() == 1 { "the main container has" } else { "all main containers have" };
            let sidecars = if self.of(Role::Sidecar).count() == 0 { "" } else { "the sidecars are stopped and " };
            writeln!(out, "  when {all} ended for good, {sidecars}the pod is Succeeded (all exits 0) or Failed")?;
        }
        if let Some(deadline) = self.pod.deadline {
            writeln!(out, "  stopped and Failed (DeadlineExceeded) after {}", seconds(deadline))?;
        }
        Ok(())
    }

    // === stop ===

    fn stop(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let grace = self.pod.grace.max(1);
        writeln!(out, "\nStop, within {} (times from the request)", seconds(grace))?;
        let width = self.name_width();
        for container in &self.containers {
            if let Some(hook) = hook_text(container, Hook::PreStop) {
                let name = container.name();
                writeln!(out, "      {:>6}  preStop  {name:<width$}  {hook}", seconds(0))?;
            }
        }
        let mains: Vec<&ContainerShape> = self.of(Role::Main).collect();
        for main in &mains {
            self.stop_line(out, main, None)?;
        }
        let mut before = list(&mains.iter().map(|main| main.name()).collect::<Vec<_>>());
        for sidecar in self.of(Role::Sidecar).rev() {
            self.stop_line(out, sidecar, Some(&before))?;
            sidecar.name().clone_into(&mut before);
        }
        writeln!(out, "      {:>6}  SIGKILL  for what still runs", seconds(grace))?;
        if self.of(Role::Sidecar).count() > 0 || self.containers.iter().any(|c| c.has_hook(Hook::PreStop)) {
            let last = seconds(grace + 2);
            writeln!(
                out,
                "      {last:>6}  SIGKILL  for what got its signal so late that it had 2 s left: all is down"
            )?;
        }
        Ok(())
    }

    fn stop_line(&self, out: &mut fmt::Formatter<'_>, container: &ContainerShape, after: Option<&str>) -> fmt::Result {
        let hook = container.has_hook(Hook::PreStop);
        let at = match (after, sleep_of(container, Hook::PreStop)) {
            (None, Some(sleep)) => seconds(sleep.min(self.pod.grace)),
            (None, None) if !hook => seconds(0),
            _ => "then".to_owned(),
        };
        let mut when = Vec::new();
        when.extend(hook.then(|| "its preStop is done".to_owned()));
        when.extend(after.map(|after| format!("{after} ended")));
        let when = if when.is_empty() { "at once".to_owned() } else { format!("when {}", when.join(" and ")) };
        let width = self.name_width();
        writeln!(out, "      {at:>6}  signal   {:<width$}  {when}", container.name())
    }

    fn name_width(&self) -> usize {
        self.containers.iter().map(|container| container.name().len()).max().unwrap_or(0)
    }
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Init => "init",
        Role::Sidecar => "sidecar",
        Role::Main => "main",
    }
}

fn rhythm(probe: ProbeShape) -> String {
    let delay =
        if probe.initial_delay == 0 { String::new() } else { format!(" from {}", seconds(probe.initial_delay)) };
    format!("every {}{delay}", seconds(probe.period))
}

/// Seconds from the container's start to the probe's first possible verdict of success.
fn earliest_success(probe: ProbeShape) -> u64 {
    probe.initial_delay + u64::from(probe.success_threshold - 1) * probe.period
}

fn hook_of(container: &ContainerShape, hook: Hook) -> Option<&LifecycleHandler> {
    let lifecycle = container.spec.lifecycle.as_ref()?;
    match hook {
        Hook::PostStart => lifecycle.post_start.as_ref(),
        Hook::PreStop => lifecycle.pre_stop.as_ref(),
    }
}

fn sleep_of(container: &ContainerShape, hook: Hook) -> Option<u64> {
    hook_of(container, hook)?.sleep.as_ref().and_then(|sleep| u64::try_from(sleep.seconds).ok())
}

fn hook_text(container: &ContainerShape, hook: Hook) -> Option<String> {
    let handler = hook_of(container, hook)?;
    if let Some(sleep) = sleep_of(container, hook) {
        return Some(format!("sleeps {}", seconds(sleep)));
    }
    if let Some(exec) = &handler.exec {
        return Some(format!("runs `{}`", exec.command.as_deref().unwrap_or_default().join(" ")));
    }
    let Some(get) = &handler.http_get else { return Some("fails (not a handler a hook can have)".to_owned()) };
    let port = match &get.port {
        IntOrString::Int(port) => port.to_string(),
        IntOrString::String(name) => name.clone(),
    };
    let path = get.path.as_deref().unwrap_or("/");
    let scheme = get.scheme.as_deref().unwrap_or("HTTP").to_lowercase();
    Some(format!("gets {scheme}://{}:{port}{path}", get.host.as_deref().unwrap_or("POD-IP")))
}

/// `90 s`, `5m0s`.
fn seconds(seconds: u64) -> String {
    if seconds < 120 { format!("{seconds} s") } else { go_text(seconds.saturating_mul(1000)) }
}

/// `a`, `a and b`, `a, b and c`.
fn list(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}
