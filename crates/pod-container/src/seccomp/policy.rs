//! What to do about which system call.

use std::collections::BTreeMap;

/// A filter's verdict, as the kernel encodes it (`SECCOMP_RET_*`, linux/seccomp.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Action(pub(super) u32);

impl Action {
    pub(super) const KILL_PROCESS: Action = Action(0x8000_0000);
    pub(super) const KILL_THREAD: Action = Action(0);
    pub(super) const TRAP: Action = Action(0x0003_0000);
    pub(super) const LOG: Action = Action(0x7ffc_0000);
    pub(super) const ALLOW: Action = Action(0x7fff_0000);

    /// Fails the call with an error number, at most 4095.
    pub(super) const fn errno(number: u16) -> Action {
        Action(0x0005_0000 | if number > 4095 { 4095 } else { number } as u32)
    }

    /// Asks a tracer, and fails with `ENOSYS` without one.
    pub(super) const fn trace(number: u16) -> Action {
        Action(0x7ff0_0000 | number as u32)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Policy {
    pub(super) default: Action,
    /// By number. The rules of one call are tried in order; [`Policy::add`] keeps the unconditional ones last.
    pub(super) calls: BTreeMap<u32, Vec<Rule>>,
}

/// Holds when all its conditions do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) conditions: Vec<Condition>,
    pub(super) action: Action,
}

/// About one argument, 0–5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) argument: u8,
    pub(super) comparison: Comparison,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    NotEqual(u64),
    Less(u64),
    LessOrEqual(u64),
    Equal(u64),
    GreaterOrEqual(u64),
    Greater(u64),
    MaskedEqual { mask: u64, value: u64 },
}

impl Policy {
    pub(super) fn new(default: Action) -> Policy {
        Policy { default, calls: BTreeMap::new() }
    }

    /// A name that this architecture lacks is passed over: profiles are written for many.
    pub(super) fn add(&mut self, name: &str, rule: &Rule) {
        let Some(number) = super::syscall::number(name) else { return };
        let rules = self.calls.entry(number).or_default();
        let conditional = rules.partition_point(|rule| !rule.conditions.is_empty());
        let at = if rule.conditions.is_empty() { rules.len() } else { conditional };
        rules.insert(at, rule.clone());
    }

    /// Each word of `names`.
    pub(super) fn add_all(&mut self, names: &str, conditions: &[Condition], action: Action) {
        let rule = Rule { conditions: conditions.to_vec(), action };
        names.split_whitespace().for_each(|name| self.add(name, &rule));
    }
}
