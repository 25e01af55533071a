//! A pod's plan in words, before anything runs: what starts when, what holds what up, and how it stops.

mod share;
mod words;

use std::fmt;

use k8s_openapi::api::core::v1::{Pod, Probe};

use self::words::{at_the_earliest, earliest_success, failures, list, rhythm, seconds, sleep_of};
use crate::admission::refusal;
use crate::shape::{ContainerShape, PodShape, ProbeShape, RestartPolicy, Role, containers_of};
use crate::{Hook, ProbeKind};

/// The start order and the stop order of a defaulted, validated pod, with the times that its probes, hooks and grace
/// period imply. For people; `outrigger plan` prints it.
pub fn describe(pod: &Pod) -> String {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let sheet = Sheet { manifest: pod, pod: PodShape::new(pod, uid), containers: containers_of(pod) };
    sheet.to_string()
}

struct Sheet<'a> {
    manifest: &'a Pod,
    pod: PodShape,
    containers: Vec<ContainerShape>,
}

impl fmt::Display for Sheet<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.headline(out)?;
        share::write(self.manifest, out)?;
        self.start(out)?;
        self.end(out)?;
        self.stop(out)
    }
}

impl Sheet<'_> {
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
        writeln!(out, "pod {namespace}/{name}: {}; restartPolicy {policy:?}", parts.join(", "))?;
        match refusal(self.manifest) {
            Some((reason, message)) => writeln!(out, "  It is rejected and fails at once: {reason}: {message}"),
            None => Ok(()),
        }
    }

    // === start ===

    fn start(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "\nStart, in this order (times from the first start, at the earliest)")?;
        let width = self.name_width();
        let (mut earliest, mut ready) = (0, 0);
        for (index, container) in self.containers.iter().enumerate() {
            let role = words::role(container.role);
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
        if let Some(hook) = words::hook(container, Hook::PostStart) {
            lines.push(format!("postStart {hook}: nothing else starts before it is done"));
        }
        if let Some((spec, probe)) = probe(container, ProbeKind::Startup) {
            let then = if container.is_sidecar() { "the next one starts" } else { "it counts as started" };
            lines.push(format!(
                "startup probe {}: when it succeeds{} {then}; {}",
                rhythm(spec),
                at_the_earliest(earliest_success(probe)),
                self.failure(container, probe)
            ));
        } else if container.is_sidecar() {
            lines.push("the next one starts as soon as it runs".to_owned());
        }
        if container.is_init() {
            lines.push(format!("the next one starts when it has exited with 0; {}", self.init_failure(container)));
        }
        let once = if container.probe(ProbeKind::Startup).is_some() { ", once started" } else { "" };
        if let Some((spec, probe)) = probe(container, ProbeKind::Readiness) {
            lines.push(format!(
                "readiness probe {}{once}: ready when it succeeds{}, unready after {}",
                rhythm(spec),
                at_the_earliest(earliest_success(probe)),
                failures(probe.failure_threshold)
            ));
        }
        if let Some((spec, probe)) = probe(container, ProbeKind::Liveness) {
            lines.push(format!("liveness probe {}{once}: {}", rhythm(spec), self.failure(container, probe)));
        }
        lines.extend(self.own_policy(container));
        lines
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
        write!(out, "  Ready{}: when all have started", at_the_earliest(earliest))?;
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
            if let Some(hook) = words::hook(container, Hook::PreStop) {
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
        let (end, last) = (seconds(grace), seconds(grace + 2));
        if self.of(Role::Sidecar).count() > 0 || self.containers.iter().any(|c| c.has_hook(Hook::PreStop)) {
            writeln!(
                out,
                "      {end:>6}  SIGKILL  for what still runs; what waits until then gets its signal and 2 s more"
            )?;
            writeln!(out, "      {last:>6}  SIGKILL  for that: all is down")?;
        } else {
            writeln!(out, "      {end:>6}  SIGKILL  for what still runs: all is down")?;
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

/// As it is written, and its numbers.
fn probe(container: &ContainerShape, kind: ProbeKind) -> Option<(&Probe, ProbeShape)> {
    container.probe_spec(kind).zip(container.probe(kind))
}
