//! What holds for every pod, every behaviour and every order of events.

use std::collections::BTreeSet;
use std::net::IpAddr;

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Pod;
use pod_plan::{Event, Exit, Hook, Identity, Lifecycle, ProbeKind, ProbeOutcome, Role, Step, Time};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::world::{Behaviour, HookBehaviour, ProbeBehaviour, Pull, Start, World};

// === pods ===

fn pods() -> impl Strategy<Value = Pod> {
    let init = (any::<bool>(), any::<[bool; 5]>());
    let inits = prop::collection::vec(init, 0..4);
    let mains = prop::collection::vec(any::<[bool; 5]>(), 1..3);
    let policy = prop::sample::select(vec!["Always", "OnFailure", "Never"]);
    (inits, mains, policy, 1..20_u32, prop::option::of(5..200_u32)).prop_map(
        |(inits, mains, policy, grace, deadline)| {
            let inits: Vec<Value> = inits
                .iter()
                .enumerate()
                .map(|(n, (sidecar, has))| {
                    let mut spec = if *sidecar { container(*has) } else { json!({ "image": "i" }) };
                    spec["name"] = json!(format!("i{n}"));
                    if *sidecar {
                        spec["restartPolicy"] = json!("Always");
                    }
                    spec
                })
                .collect();
            let mains: Vec<Value> = mains
                .iter()
                .enumerate()
                .map(|(n, has)| {
                    let mut spec = container(*has);
                    spec["name"] = json!(format!("m{n}"));
                    spec
                })
                .collect();
            let spec = json!({
                "restartPolicy": policy,
                "terminationGracePeriodSeconds": grace,
                "activeDeadlineSeconds": deadline,
                "initContainers": inits,
                "containers": mains,
            });
            serde_json::from_value(json!({ "metadata": { "name": "p", "namespace": "d" }, "spec": spec })).unwrap()
        },
    )
}

fn container([startup, liveness, readiness, post_start, pre_stop]: [bool; 5]) -> Value {
    let probe = |has: bool| has.then(|| json!({ "periodSeconds": 2, "failureThreshold": 2, "exec": {} }));
    let hook = |has: bool| has.then(|| json!({ "exec": {} }));
    json!({
        "image": "i",
        "startupProbe": probe(startup),
        "livenessProbe": probe(liveness),
        "readinessProbe": probe(readiness),
        "lifecycle": { "postStart": hook(post_start), "preStop": hook(pre_stop) },
    })
}

// === behaviours ===

fn span() -> impl Strategy<Value = SignedDuration> {
    (0..12_000_i64).prop_map(|ms| SignedDuration::from_millis(ms / 250 * 250))
}

fn behaviours() -> impl Strategy<Value = Behaviour> {
    let exit = prop::option::of((prop::sample::select(vec![0, 1, 137]), span(), any::<bool>()));
    let on_term = prop::option::of((prop::sample::select(vec![0, 143]), span()));
    let pull = prop_oneof![
        Just(Pull::Present),
        span().prop_map(Pull::Takes),
        Just(Pull::Fails("ErrImagePull".to_owned(), "no".to_owned())),
    ];
    let start = prop_oneof![
        4 => (0..2_000_i64).prop_map(|ms| Start::Takes(SignedDuration::from_millis(ms))),
        1 => Just(Start::ConfigFails("no".to_owned())),
        1 => Just(Start::Fails("no".to_owned())),
    ];
    let probe = || {
        (span(), span(), span(), any::<bool>()).prop_map(|(from, length, takes, sound)| ProbeBehaviour {
            from: if sound { SignedDuration::ZERO } else { from },
            until: if sound { SignedDuration::MAX } else { from + length },
            takes: takes / 4,
            ..ProbeBehaviour::default()
        })
    };
    let hook = || {
        (prop::option::weighted(0.8, span()), any::<bool>())
            .prop_map(|(takes, fails)| HookBehaviour { takes, fails: fails.then(|| "no".to_owned()) })
    };
    (exit, on_term, pull, start, (probe(), probe(), probe()), (hook(), hook())).prop_map(
        |(exit, on_term, pull, start, (startup, liveness, readiness), (post_start, pre_stop))| Behaviour {
            exit,
            on_term,
            pull,
            start,
            startup,
            liveness,
            readiness,
            post_start,
            pre_stop,
            message: String::new(),
        },
    )
}

// === a pod in a world ===

#[derive(Debug, Clone)]
enum Disturbance {
    CrashEngine,
    LoseSandbox,
    Update(bool),
    Wait,
}

struct Run {
    lifecycle: Lifecycle,
    world: World,
    /// Init containers and sidecars that have passed (or run) in the present sandbox.
    passed: BTreeSet<String>,
    roles: Vec<(String, Role)>,
    /// Updates change what has to pass.
    ordered: bool,
}

impl Run {
    fn until(&mut self, end: Time) {
        for _ in 0..20_000 {
            let now = self.world.now;
            if let Some(event) = self.world.next_event() {
                self.watch(&event);
                self.lifecycle.apply(event, now);
                continue;
            }
            let plan = self.lifecycle.plan(now);
            if !plan.steps.is_empty() {
                self.execute(&plan.steps);
                continue;
            }
            if plan.finished {
                return;
            }
            let wake = self.world.next_time().into_iter().chain(plan.wake).min();
            match wake {
                Some(wake) if wake <= end => {
                    assert!(wake > now, "woken in the past");
                    self.world.now = wake;
                }
                _ => {
                    self.world.now = end;
                    return;
                }
            }
        }
        panic!("never comes to rest");
    }

    fn execute(&mut self, steps: &[Step]) {
        let now = self.world.now;
        for step in steps {
            if let Step::Start { container, attempt } = step {
                let view = self.lifecycle.containers().find(|view| view.name == container).unwrap();
                assert!(!view.running, "{container}#{attempt} beside a running attempt");
                self.check_order(container, view.role);
            }
            self.lifecycle.begin(step, now);
        }
        assert_eq!(self.lifecycle.plan(now).steps, Vec::new(), "asked again after {steps:?}");
        for step in steps {
            self.world.execute(step);
        }
    }

    fn watch(&mut self, event: &Event) {
        match event {
            Event::Exited { container, exit, .. } if exit.code == 0 && !exit.oom_killed => {
                self.passed.insert(container.clone());
            }
            Event::Started { container, .. } if self.role(container) == Some(Role::Sidecar) => {
                self.passed.insert(container.clone());
            }
            _ => {}
        }
    }

    fn role(&self, name: &str) -> Option<Role> {
        self.roles.iter().find(|(known, _)| known == name).map(|(_, role)| *role)
    }

    /// Everything before it in the order has passed.
    fn check_order(&self, container: &str, role: Role) {
        if !self.ordered {
            return;
        }
        let earlier = self.roles.iter().take_while(|(name, _)| name != container);
        for (name, earlier) in earlier.filter(|(_, role)| *role != Role::Main) {
            let passed = self.passed.contains(name);
            assert!(passed, "{container} ({role:?}) starts before {name} ({earlier:?}) has passed");
        }
    }

    fn disturb(&mut self, disturbance: &Disturbance, pod: &Pod) {
        let now = self.world.now;
        match disturbance {
            Disturbance::CrashEngine => {
                self.world.crash_engine();
                let ledger = serde_json::to_string(&self.lifecycle).unwrap();
                let saved: Lifecycle = serde_json::from_str(&ledger).unwrap();
                assert_eq!(saved.plan(now), self.lifecycle.plan(now), "the ledger forgets something");
                self.lifecycle = saved;
                self.lifecycle.resume(now);
                let plan = self.lifecycle.plan(now);
                for fact in self.world.facts.clone() {
                    self.lifecycle.apply(fact, now);
                }
                assert_eq!(self.lifecycle.plan(now), plan, "known facts changed the plan");
            }
            Disturbance::LoseSandbox => {
                self.world.lose_sandbox();
                self.passed.clear();
                self.lifecycle.apply(Event::SandboxLost, now);
            }
            Disturbance::Update(recreate) => {
                let mut pod = pod.clone();
                for main in &mut pod.spec.as_mut().unwrap().containers {
                    main.image = Some(format!("i-{now}"));
                }
                self.lifecycle.update(&pod, *recreate, now);
            }
            Disturbance::Wait => {}
        }
        let _ = self.lifecycle.status(now);
        let _ = self.lifecycle.take_notices();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// No attempt twice, none beside another, mains after inits, no step asked twice, and an end within the grace
    /// period (the world asserts the first two).
    #[test]
    fn every_pod_keeps_the_rules(
        pod in pods(),
        behaviours in prop::collection::vec(behaviours(), 6),
        disturbances in prop::collection::vec((span(), prop_oneof![
            2 => Just(Disturbance::CrashEngine),
            1 => Just(Disturbance::LoseSandbox),
            1 => any::<bool>().prop_map(Disturbance::Update),
            3 => Just(Disturbance::Wait),
        ]), 0..6),
        grace in prop::option::of(0..15_u64),
    ) {
        let lifecycle = Lifecycle::new(&pod, "u", Time::UNIX_EPOCH);
        let roles: Vec<_> = lifecycle.containers().map(|c| (c.name.to_owned(), c.role)).collect();
        let mut world = World::default();
        for ((name, _), behaviour) in roles.iter().zip(&behaviours) {
            *world.behaviour(name) = behaviour.clone();
        }
        let mut run = Run { lifecycle, world, passed: BTreeSet::new(), roles, ordered: true };
        for (wait, disturbance) in &disturbances {
            run.until(run.world.now + *wait);
            run.disturb(disturbance, &pod);
        }
        run.until(run.world.now + SignedDuration::from_secs(7));

        let asked = run.world.now;
        run.lifecycle.apply(Event::StopRequested { grace }, asked);
        let manifest = u64::try_from(pod.spec.as_ref().unwrap().termination_grace_period_seconds.unwrap()).unwrap();
        let limit = grace.unwrap_or(manifest).max(1) + 2;
        // A start that was under way may take two more seconds, and what comes up has its own window.
        run.until(asked + SignedDuration::from_secs(i64::try_from(limit).unwrap() + 4));
        prop_assert!(run.lifecycle.is_finished(), "not finished {limit} s after the request");
        prop_assert!(run.lifecycle.phase().is_terminal());
    }
}

// === events from nowhere ===

fn names() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["i0", "i1", "m0", "m1", "nobody"]).prop_map(str::to_owned)
}

fn events() -> impl Strategy<Value = Event> {
    let time = || (0..100_i64).prop_map(|s| Time::UNIX_EPOCH + SignedDuration::from_secs(s));
    let who = || (names(), 0..4_u32);
    let text = || Just("text".to_owned());
    let probe = prop::sample::select(vec![ProbeKind::Startup, ProbeKind::Liveness, ProbeKind::Readiness]);
    let outcome = prop::sample::select(vec![ProbeOutcome::Success, ProbeOutcome::Failure("f".to_owned())]);
    prop_oneof![
        Just(Event::SandboxReady { ips: vec![IpAddr::from([10, 0, 0, 1])], host_ip: None }),
        text().prop_map(|message| Event::SandboxFailed { message }),
        Just(Event::SandboxLost),
        Just(Event::SandboxRemoved),
        Just(Event::VolumesReady),
        text().prop_map(|message| Event::VolumesFailed { message }),
        names().prop_map(|container| Event::Pulling { container }),
        names().prop_map(|container| Event::ImageReady {
            container,
            image_id: "sha".to_owned(),
            pulled: None,
            host_userland: false
        }),
        (names(), text()).prop_map(|(container, message)| Event::ImageFailed {
            container,
            reason: "ErrImagePull".to_owned(),
            message
        }),
        (who(), text()).prop_map(|((container, attempt), message)| Event::ConfigFailed { container, attempt, message }),
        (who(), time(), text()).prop_map(|((container, attempt), at, message)| Event::StartFailed {
            container,
            attempt,
            at,
            message
        }),
        (who(), time()).prop_map(|((container, attempt), at)| Event::Started {
            container,
            attempt,
            at,
            container_id: "id".to_owned(),
            identity: Identity::default()
        }),
        (who(), time(), 0..3_i32).prop_map(|((container, attempt), at, code)| Event::Exited {
            container,
            attempt,
            at,
            exit: Exit { code, signal: None, oom_killed: false },
            message: String::new()
        }),
        (who(), time(), any::<[bool; 2]>()).prop_map(|((container, attempt), at, [hook, ok])| Event::HookEnded {
            container,
            attempt,
            hook: if hook { Hook::PostStart } else { Hook::PreStop },
            at,
            outcome: if ok { Ok(()) } else { Err("no".to_owned()) }
        }),
        (who(), time(), probe, outcome).prop_map(|((container, attempt), at, probe, outcome)| Event::ProbeEnded {
            container,
            attempt,
            probe,
            at,
            outcome
        }),
        prop::option::of(0..30_u64).prop_map(|grace| Event::StopRequested { grace }),
        Just(Event::Evicted { reason: "Evicted".to_owned(), message: "m".to_owned(), grace: None }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Events in no sensible order: no panic, no start beside a running attempt, and the same event again is nothing
    /// new.
    #[test]
    fn any_order_of_events_is_survived(
        pod in pods(),
        events in prop::collection::vec((events(), any::<bool>(), 0..20_i64), 0..60),
    ) {
        let mut now = Time::UNIX_EPOCH;
        let mut lifecycle = Lifecycle::new(&pod, "u", now);
        for (event, again, wait) in events {
            now += SignedDuration::from_secs(wait);
            lifecycle.apply(event.clone(), now);
            if again && matches!(event, Event::Started { .. } | Event::Exited { .. } | Event::StartFailed { .. }) {
                let before = lifecycle.clone();
                lifecycle.apply(event, now);
                prop_assert_eq!(&before, &lifecycle);
            }
            let plan = lifecycle.plan(now);
            let views: Vec<_> = lifecycle.containers().map(|view| (view.name.to_owned(), view.running)).collect();
            for step in &plan.steps {
                if let Step::Start { container, .. } = step {
                    prop_assert!(!views.contains(&(container.clone(), true)));
                }
                lifecycle.begin(step, now);
            }
            prop_assert_eq!(lifecycle.plan(now).steps, Vec::new());
            let _ = lifecycle.status(now);
        }
    }
}
