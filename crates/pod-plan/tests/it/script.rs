//! The language of `tests/cases/*.txt`. Lines that begin with `> ` are what the script printed; the rest is input:
//!
//! ```text
//! # comment
//! pod <<END … END                    the manifest (YAML); `update` and `recreate` take a changed one
//! describe <<END … END               only prints its plan in words
//! behave app: exit 0 after 2s, on-term exit 0 after 5s, on-term ignore, pre-stop takes 3s, liveness ok until 10s
//! behave app#1: …                    one attempt's own behaviour
//! sandbox takes 1s | sandbox fails MESSAGE | sandbox ok | volumes …
//! resize ok | resize infeasible MESSAGE | resize fails CONTAINER MESSAGE
//! trace probes notices conditions    print these too (steps, facts and kubectl's columns are always printed)
//! quiet                              print nothing of what happens from here on; `trace` turns it on again
//! run until 30s | run for 5s | run   the last one: until nothing happens any more by itself
//! stop | stop grace 5 | evict REASON MESSAGE | lose-sandbox | crash | condition TYPE STATUS
//! show columns | status | containers | resources | conditions | notices | plan
//! ```

use std::fmt::Write as _;

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod, PodStatus};
use pod_plan::{Event, Hook, Lifecycle, Notice, ProbeKind, ResizeOutcome, Role, Step, Time};

use crate::column::{Columns, columns};
use crate::world::{Behaviour, HookBehaviour, ProbeBehaviour, Pull, Start, World};
use crate::yaml;

/// The script again, with what it prints now.
pub(crate) fn run(name: &str, text: &str) -> String {
    let mut out = String::new();
    let mut stage = Stage::default();
    let mut lines = text.lines().filter(|line| !line.starts_with('>')).peekable();
    while let Some(line) = lines.next() {
        writeln!(out, "{line}").unwrap();
        let command = line.split('#').next().filter(|_| line.starts_with('#')).unwrap_or(line).trim();
        let mut body = String::new();
        if let Some(end) = command.split_once("<<").map(|(_, end)| end) {
            for line in lines.by_ref() {
                writeln!(out, "{line}").unwrap();
                if line == end {
                    break;
                }
                writeln!(body, "{line}").unwrap();
            }
        }
        stage.command(command, &body).unwrap_or_else(|problem| panic!("{name}: `{line}`: {problem}"));
        for printed in stage.printed.drain(..) {
            writeln!(out, "{}", format!("> {printed}").trim_end()).unwrap();
        }
    }
    out
}

#[derive(Default)]
struct Stage {
    world: World,
    lifecycle: Option<Lifecycle>,
    deleting: bool,
    last_columns: String,
    last_conditions: String,
    quiet: bool,
    trace_probes: bool,
    trace_notices: bool,
    trace_conditions: bool,
    notices: Vec<Notice>,
    printed: Vec<String>,
}

type Outcome = Result<(), String>;

impl Stage {
    fn command(&mut self, line: &str, body: &str) -> Outcome {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        match verb {
            "" | "#" => {}
            "pod" => {
                self.lifecycle = Some(Lifecycle::new(&manifest(body), "uid-1", self.world.now));
                self.observe();
            }
            // What `outrigger plan` says about a manifest.
            "describe" => self.printed.extend(pod_plan::describe(&manifest(body)).lines().map(str::to_owned)),
            "update" | "recreate" => {
                let now = self.world.now;
                self.lifecycle().update(&manifest(body), verb == "recreate", now);
                self.observe();
            }
            "behave" => {
                let (who, how) = rest.split_once(':').ok_or("behave WHO: HOW")?;
                let behaviour = match who.split_once('#') {
                    Some((name, attempt)) => {
                        self.world.attempt_behaviour(name, attempt.parse().map_err(|_| "an attempt number")?)
                    }
                    None => self.world.behaviour(who),
                };
                for clause in how.split(',') {
                    behave(behaviour, clause.trim())?;
                }
            }
            "sandbox" | "volumes" => {
                let preparation = if verb == "sandbox" { &mut self.world.sandbox } else { &mut self.world.volumes };
                match rest.split_once(' ').unwrap_or((rest, "")) {
                    ("takes", time) => preparation.takes = duration(time)?,
                    ("fails", message) => preparation.fails = Some(message.to_owned()),
                    ("ok", "") => preparation.fails = None,
                    _ => return Err("takes, fails or ok".to_owned()),
                }
            }
            "resize" => {
                self.world.resize = match rest.split_once(' ').unwrap_or((rest, "")) {
                    ("ok", "") => None,
                    ("infeasible", message) => Some(ResizeOutcome::Infeasible(message.to_owned())),
                    ("fails", rest) => {
                        let (container, message) = rest.split_once(' ').ok_or("resize fails CONTAINER MESSAGE")?;
                        let containers = vec![container.to_owned()];
                        Some(ResizeOutcome::Failed { containers, message: message.to_owned() })
                    }
                    _ => return Err("ok, infeasible or fails".to_owned()),
                };
            }
            "trace" => {
                self.quiet = false;
                for what in rest.split_whitespace() {
                    match what {
                        "probes" => self.trace_probes = true,
                        "notices" => self.trace_notices = true,
                        "conditions" => self.trace_conditions = true,
                        _ => return Err(format!("nothing to trace: {what}")),
                    }
                }
            }
            "quiet" => self.quiet = true,
            "run" => self.run(match rest.split_once(' ') {
                Some(("until", time)) => Some(Time::UNIX_EPOCH + duration(time)?),
                Some(("for", time)) => Some(self.world.now + duration(time)?),
                _ => None,
            }),
            "stop" => {
                self.deleting = true;
                let grace =
                    rest.strip_prefix("grace ").map(|grace| grace.parse().map_err(|_| "seconds")).transpose()?;
                self.apply(Event::StopRequested { grace });
            }
            "evict" => {
                let (reason, message) = rest.split_once(' ').ok_or("evict REASON MESSAGE")?;
                self.apply(Event::Evicted { reason: reason.to_owned(), message: message.to_owned(), grace: None });
            }
            "lose-sandbox" => {
                self.world.lose_sandbox();
                self.apply(Event::SandboxLost);
            }
            "crash" => self.crash(),
            "condition" => {
                // Without a status it is taken away.
                let (kind, status) = rest.split_once(' ').unwrap_or((rest, ""));
                let now = self.world.now;
                self.lifecycle().set_condition(kind, status, now);
                self.observe();
            }
            "show" => self.show(rest)?,
            _ => return Err("no such command".to_owned()),
        }
        Ok(())
    }

    fn lifecycle(&mut self) -> &mut Lifecycle {
        self.lifecycle.as_mut().expect("a script begins with a pod")
    }

    fn print(&mut self, what: &str) {
        if !self.quiet {
            let time = clock(self.world.now);
            self.printed.push(format!("{time:>8}  {what}"));
        }
    }

    fn apply(&mut self, event: Event) {
        let text = event_text(&event);
        let probe = matches!(event, Event::ProbeEnded { .. });
        let now = self.world.now;
        self.lifecycle().apply(event, now);
        if !text.is_empty() && (!probe || self.trace_probes) {
            self.print(&text);
        }
        self.observe();
    }

    /// Prints what changed to the eye.
    fn observe(&mut self) {
        let now = self.world.now;
        self.lifecycle().settle(now);
        let notices = self.lifecycle().take_notices();
        if self.trace_notices && !self.quiet {
            for notice in &notices {
                self.printed.push(format!("          {}", notice_text(notice)));
            }
        }
        self.notices.extend(notices);
        let status = self.status();
        let Columns { ready, status: word, restarts } = self.columns(&status);
        let phase = status.phase.clone().unwrap_or_default();
        let line = format!("{ready} {word} {restarts} ({phase})");
        if line != self.last_columns {
            self.print(&format!("= {line}"));
            self.last_columns = line;
        }
        let conditions = true_conditions(&status);
        if self.trace_conditions && conditions != self.last_conditions {
            self.print(&format!("conditions {conditions}"));
            self.last_conditions = conditions;
        }
    }

    fn status(&mut self) -> PodStatus {
        let now = self.world.now;
        self.lifecycle().status(now)
    }

    fn columns(&mut self, status: &PodStatus) -> Columns {
        let containers: Vec<_> = self.lifecycle().containers().map(|c| (c.name.to_owned(), c.role)).collect();
        let of = |role| containers.iter().filter(move |c| c.1 == role);
        let sidecars: Vec<String> = of(Role::Sidecar).map(|c| c.0.clone()).collect();
        let inits = of(Role::Init).count() + sidecars.len();
        columns(status, &sidecars, inits, self.deleting)
    }

    /// Carries the plan out until `until`, or until nothing is left to wait for.
    fn run(&mut self, until: Option<Time>) {
        let mut rounds = 0;
        loop {
            rounds += 1;
            assert!(rounds < 100_000, "the script never comes to rest");
            if let Some(event) = self.world.next_event() {
                self.apply(event);
                continue;
            }
            let now = self.world.now;
            let plan = self.lifecycle().plan(now);
            if !plan.steps.is_empty() {
                self.execute(&plan.steps);
                continue;
            }
            assert!(plan.wake.is_none_or(|wake| wake > now), "the plan asks to be woken in the past");
            self.observe();
            let next = self.world.next_time().into_iter().chain(plan.wake).min();
            match (next, until) {
                (Some(next), Some(until)) if next > until => break self.world.now = until,
                (Some(next), _) => self.world.now = next,
                (None, Some(until)) => break self.world.now = until.max(now),
                (None, None) => {
                    if plan.finished {
                        self.print("finished");
                    }
                    break;
                }
            }
            self.observe();
        }
    }

    fn execute(&mut self, steps: &[Step]) {
        let now = self.world.now;
        for step in steps {
            if self.trace_probes || !matches!(step, Step::Probe { .. }) {
                self.print(&step_text(step));
            }
            self.lifecycle().begin(step, now);
            self.observe();
        }
        assert_eq!(self.lifecycle().plan(now).steps, Vec::new(), "asked again after {steps:?}");
        for step in steps {
            self.world.execute(step);
        }
    }

    /// The engine dies and comes back: ledger read, resumed, all facts of the shim told again.
    fn crash(&mut self) {
        self.print("the engine crashes and comes back");
        self.world.crash_engine();
        let ledger = serde_json::to_string(self.lifecycle()).unwrap();
        let mut lifecycle: Lifecycle = serde_json::from_str(&ledger).unwrap();
        let now = self.world.now;
        lifecycle.resume(now);
        let resumed = lifecycle.clone();
        for fact in self.world.facts.clone() {
            lifecycle.apply(fact, now);
        }
        assert_eq!(resumed, lifecycle, "facts told again changed something");
        self.lifecycle = Some(lifecycle);
        self.observe();
    }

    fn show(&mut self, what: &str) -> Outcome {
        let status = self.status();
        let lines = match what {
            "columns" => {
                let Columns { ready, status, restarts } = self.columns(&status);
                vec![format!("{ready} {status} {restarts}")]
            }
            "containers" => container_lines(&status),
            "resources" => resource_lines(&status),
            "conditions" => condition_lines(&status),
            "notices" => self.notices.drain(..).map(|n| format!("{} {}", clock(n.at), notice_text(&n))).collect(),
            "status" => serde_json::to_string_pretty(&status).unwrap().lines().map(str::to_owned).collect(),
            "phase" => vec![reason_text(&status)],
            "plan" => {
                let now = self.world.now;
                let plan = self.lifecycle().plan(now);
                let wake = plan.wake.map_or("never".to_owned(), clock);
                plan.steps.iter().map(step_text).chain([format!("wake {wake}")]).collect()
            }
            _ => return Err("nothing to show".to_owned()),
        };
        self.printed.extend(lines);
        Ok(())
    }
}

fn manifest(body: &str) -> Pod {
    serde_json::from_value(yaml::parse(body)).expect("a manifest")
}

// === reading ===

fn behave(behaviour: &mut Behaviour, clause: &str) -> Outcome {
    let words: Vec<&str> = clause.split_whitespace().collect();
    let tail = |n: usize| clause.splitn(n + 1, ' ').nth(n).unwrap_or_default().to_owned();
    match words[..] {
        ["exit", code, "after", time] => behaviour.exit = Some((number(code)?, duration(time)?, false)),
        ["exit", code, "after", time, "oom"] => behaviour.exit = Some((number(code)?, duration(time)?, true)),
        ["runs"] => behaviour.exit = None,
        ["on-term", "exit", code, "after", time] => behaviour.on_term = Some((number(code)?, duration(time)?)),
        ["on-term", "ignore"] => behaviour.on_term = None,
        ["pull", "present"] => behaviour.pull = Pull::Present,
        ["pull", "takes", time] => behaviour.pull = Pull::Takes(duration(time)?),
        ["pull", "fails", reason, ..] => behaviour.pull = Pull::Fails(reason.to_owned(), tail(3)),
        ["start", "takes", time] => behaviour.start = Start::Takes(duration(time)?),
        ["start", "fails", ..] => behaviour.start = Start::Fails(tail(2)),
        ["config", "fails", ..] => behaviour.start = Start::ConfigFails(tail(2)),
        ["create", "fails", ..] => behaviour.start = Start::CreateFails(tail(2)),
        ["config", "ok"] => behaviour.start = Start::Takes(SignedDuration::ZERO),
        ["startup", ref rest @ ..] => probe(&mut behaviour.startup, rest)?,
        ["liveness", ref rest @ ..] => probe(&mut behaviour.liveness, rest)?,
        ["readiness", ref rest @ ..] => probe(&mut behaviour.readiness, rest)?,
        ["post-start", ref rest @ ..] => hook(&mut behaviour.post_start, rest)?,
        ["pre-stop", ref rest @ ..] => hook(&mut behaviour.pre_stop, rest)?,
        ["message", ..] => behaviour.message = tail(1),
        _ => return Err(format!("no such behaviour: {clause}")),
    }
    Ok(())
}

fn probe(behaviour: &mut ProbeBehaviour, words: &[&str]) -> Outcome {
    match words {
        ["ok"] => *behaviour = ProbeBehaviour::default(),
        ["ok", "from", time] => (behaviour.from, behaviour.until) = (duration(time)?, SignedDuration::MAX),
        ["ok", "until", time] => (behaviour.from, behaviour.until) = (SignedDuration::ZERO, duration(time)?),
        ["ok", "from", from, "until", until] => {
            (behaviour.from, behaviour.until) = (duration(from)?, duration(until)?);
        }
        ["fails"] => behaviour.until = SignedDuration::ZERO,
        ["takes", time] => behaviour.takes = duration(time)?,
        ["errs"] => behaviour.unknown = true,
        ["warns"] => behaviour.warning = true,
        _ => return Err(format!("no such probe behaviour: {words:?}")),
    }
    Ok(())
}

fn hook(behaviour: &mut HookBehaviour, words: &[&str]) -> Outcome {
    match words {
        ["takes", time] => behaviour.takes = Some(duration(time)?),
        ["hangs"] => behaviour.takes = None,
        ["fails", "after", time, message @ ..] => {
            behaviour.takes = Some(duration(time)?);
            behaviour.fails = Some(message.join(" "));
        }
        ["ok"] => *behaviour = HookBehaviour::default(),
        _ => return Err(format!("no such hook behaviour: {words:?}")),
    }
    Ok(())
}

fn number(text: &str) -> Result<i32, String> {
    text.parse().map_err(|_| format!("not a number: {text}"))
}

/// `1.5s`, `2m`.
fn duration(text: &str) -> Result<SignedDuration, String> {
    let wrong = || format!("not a duration: {text}");
    let (amount, unit) = text.split_at(text.len().saturating_sub(1));
    let amount: f64 = amount.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "s" => amount,
        "m" => amount * 60.0,
        _ => return Err(wrong()),
    };
    #[expect(clippy::cast_possible_truncation, reason = "scripts last minutes")]
    Ok(SignedDuration::from_millis((seconds * 1000.0).round() as i64))
}

// === printing ===

fn clock(time: Time) -> String {
    let milliseconds = time.as_millisecond();
    format!("{}.{:03}", milliseconds / 1000, milliseconds % 1000)
}

fn hook_name(hook: Hook) -> &'static str {
    if hook == Hook::PostStart { "postStart" } else { "preStop" }
}

fn probe_name(probe: ProbeKind) -> &'static str {
    match probe {
        ProbeKind::Startup => "startup",
        ProbeKind::Liveness => "liveness",
        ProbeKind::Readiness => "readiness",
    }
}

fn step_text(step: &Step) -> String {
    match step {
        Step::PrepareVolumes => "prepare volumes".to_owned(),
        Step::CreateSandbox => "create sandbox".to_owned(),
        Step::EnsureImage { container } => format!("image {container}"),
        Step::Start { container, attempt } => format!("start {container}#{attempt}"),
        Step::RunHook { container, attempt, hook, abandon_after } => {
            let limit = abandon_after.map(|seconds| format!(" for at most {seconds} s")).unwrap_or_default();
            format!("{} {container}#{attempt}{limit}", hook_name(*hook))
        }
        Step::Probe { container, attempt, probe } => format!("probe {} {container}#{attempt}", probe_name(*probe)),
        Step::Terminate { container, attempt } => format!("terminate {container}#{attempt}"),
        Step::Kill { container, attempt } => format!("kill {container}#{attempt}"),
        Step::RemoveAttempt { container, attempt } => format!("remove {container}#{attempt}"),
        Step::Resize { containers } => format!("resize {}", containers.join(" ")),
        Step::RemoveSandbox => "remove sandbox".to_owned(),
    }
}

/// What the script itself says, or its step said already, is not said again.
fn event_text(event: &Event) -> String {
    match event {
        Event::SandboxFailed { message } => format!("- sandbox failed: {message}"),
        Event::SandboxLost => "- sandbox lost".to_owned(),
        Event::VolumesFailed { message } => format!("- volumes failed: {message}"),
        Event::ImageReady { container, pulled: Some(_), .. } => format!("- {container} pulled"),
        Event::ImageFailed { container, reason, .. } => format!("- {container} {reason}"),
        Event::ConfigFailed { container, attempt, .. } => format!("- {container}#{attempt} config failed"),
        Event::CreateFailed { container, attempt, .. } => format!("- {container}#{attempt} create failed"),
        Event::StartFailed { container, attempt, .. } => format!("- {container}#{attempt} start failed"),
        Event::Started { container, attempt, .. } => format!("- {container}#{attempt} runs"),
        Event::Exited { container, attempt, exit, .. } => {
            let oom = if exit.oom_killed { " (OOM)" } else { "" };
            format!("- {container}#{attempt} exits {}{oom}", exit.code)
        }
        Event::HookEnded { container, attempt, hook, outcome, .. } => {
            let word = if outcome.is_ok() { "done" } else { "failed" };
            format!("- {} {container}#{attempt} {word}", hook_name(*hook))
        }
        Event::ProbeEnded { container, attempt, probe, outcome, .. } => {
            let word = match outcome {
                pod_plan::ProbeOutcome::Success => "ok",
                pod_plan::ProbeOutcome::Warning(_) => "ok with a warning",
                pod_plan::ProbeOutcome::Failure(_) => "failed",
                pod_plan::ProbeOutcome::Unknown(_) => "erred",
            };
            format!("- {} {container}#{attempt} {word}", probe_name(*probe))
        }
        Event::ResizeEnded { outcome: ResizeOutcome::Applied } => "- resized".to_owned(),
        Event::ResizeEnded { .. } => "- not resized".to_owned(),
        Event::StopRequested { .. }
        | Event::Evicted { .. }
        | Event::SandboxReady { .. }
        | Event::VolumesReady
        | Event::Pulling { .. }
        | Event::ImageReady { .. }
        | Event::SandboxRemoved => String::new(),
    }
}

fn notice_text(notice: &Notice) -> String {
    let kind = if notice.warning { "Warning" } else { "Normal" };
    let path = if notice.field_path.is_empty() { String::new() } else { format!(" [{}]", notice.field_path) };
    format!("{kind} {}{path} {}", notice.reason, notice.message)
}

fn true_conditions(status: &PodStatus) -> String {
    let held = status.conditions.iter().flatten().filter(|condition| condition.status == "True");
    held.map(|condition| condition.type_.as_str()).collect::<Vec<_>>().join(" ")
}

fn condition_lines(status: &PodStatus) -> Vec<String> {
    let lines = status.conditions.iter().flatten().map(|condition| {
        let since = condition.last_transition_time.as_ref().map(|time| clock(time.0)).unwrap_or_default();
        let reason = condition.reason.as_deref().unwrap_or_default();
        let message = condition.message.as_ref().map(|message| format!(": {message}")).unwrap_or_default();
        format!("{} {} since {since} {reason}{message}", condition.type_, condition.status)
    });
    lines.collect()
}

fn reason_text(status: &PodStatus) -> String {
    let parts = [&status.phase, &status.reason, &status.message];
    parts.into_iter().flatten().map(String::as_str).collect::<Vec<_>>().join(" | ")
}

fn container_lines(status: &PodStatus) -> Vec<String> {
    let inits = status.init_container_statuses.iter().flatten();
    let mains = status.container_statuses.iter().flatten();
    let ephemerals = status.ephemeral_container_statuses.iter().flatten();
    inits.chain(mains).chain(ephemerals).map(container_line).collect()
}

fn resource_lines(status: &PodStatus) -> Vec<String> {
    let inits = status.init_container_statuses.iter().flatten();
    let line = |status: &ContainerStatus| {
        let json = |value: serde_json::Value| value.to_string().replace('"', "");
        let allocated = json(serde_json::to_value(&status.allocated_resources).unwrap());
        let actual = json(serde_json::to_value(&status.resources).unwrap());
        format!("{} allocated={allocated} actual={actual}", status.name)
    };
    inits.chain(status.container_statuses.iter().flatten()).map(line).collect()
}

fn container_line(status: &ContainerStatus) -> String {
    let last = status.last_state.as_ref().map(|state| format!(" last[{}]", state_text(state))).unwrap_or_default();
    let mut flags = String::new();
    if status.started == Some(true) {
        flags.push_str(" started");
    }
    if status.ready {
        flags.push_str(" ready");
    }
    let state = status.state.as_ref().map(state_text).unwrap_or_default();
    format!("{} restarts={}{flags} {state}{last}", status.name, status.restart_count)
}

fn state_text(state: &ContainerState) -> String {
    let time = |time: &Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>| {
        time.as_ref().map_or("?".to_owned(), |time| clock(time.0))
    };
    let message = |message: &Option<String>| message.as_ref().map(|m| format!(" \"{m}\"")).unwrap_or_default();
    if let Some(running) = &state.running {
        format!("running since {}", time(&running.started_at))
    } else if let Some(end) = &state.terminated {
        let reason = end.reason.as_deref().unwrap_or_default();
        let (from, to) = (time(&end.started_at), time(&end.finished_at));
        format!("terminated {reason} {} {from}-{to}{}", end.exit_code, message(&end.message))
    } else {
        let waiting = state.waiting.as_ref().expect("one of three");
        format!("waiting {}{}", waiting.reason.as_deref().unwrap_or_default(), message(&waiting.message))
    }
}
