//! Chains: ordered rules, either called by other rules or hung into the kernel's packet path.

use crate::{Family, Table};

/// A chain. Without a [`Base`] it is only reached by `jump` and `goto`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    pub family: Family,
    pub table: String,
    pub name: String,
    pub base: Option<Base>,
}

/// Where in the packet path a base chain sits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Base {
    pub kind: ChainType,
    pub hook: Hook,
    pub priority: Priority,
    pub policy: Policy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainType {
    Filter,
    /// Sees the first packet of a connection only; the translation then applies to all.
    Nat,
    /// Output hook only: a packet whose mark or addresses changed is routed again.
    Route,
}

/// `enum nf_inet_hooks`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
}

/// The order among chains of one hook, lowest first (`enum nf_ip_hook_priorities`). Connection tracking runs at -200.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Priority(pub i32);

impl Priority {
    /// Before connection tracking.
    pub const RAW: Priority = Priority(-300);
    pub const MANGLE: Priority = Priority(-150);
    pub const DESTINATION_NAT: Priority = Priority(-100);
    pub const FILTER: Priority = Priority(0);
    pub const SECURITY: Priority = Priority(50);
    pub const SOURCE_NAT: Priority = Priority(100);
}

/// What happens to a packet no rule of the base chain decided about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    Accept,
    Drop,
}

impl Chain {
    /// A chain that other rules jump to.
    pub fn new(table: &Table, name: impl Into<String>) -> Self {
        Self { family: table.family, table: table.name.clone(), name: name.into(), base: None }
    }

    /// A chain in the packet path, with policy accept.
    pub fn base(table: &Table, name: impl Into<String>, kind: ChainType, hook: Hook, priority: Priority) -> Self {
        Self { base: Some(Base { kind, hook, priority, policy: Policy::Accept }), ..Self::new(table, name) }
    }

    /// Changes a base chain's policy; a chain that is jumped to has none.
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        if let Some(base) = &mut self.base {
            base.policy = policy;
        }
        self
    }
}

impl std::fmt::Display for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "chain {} {} {}", self.family, self.table, self.name)
    }
}

impl ChainType {
    pub(crate) fn name(self) -> &'static str {
        match self {
            ChainType::Filter => "filter",
            ChainType::Nat => "nat",
            ChainType::Route => "route",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        [ChainType::Filter, ChainType::Nat, ChainType::Route].into_iter().find(|kind| kind.name() == name)
    }
}

impl Hook {
    pub(crate) fn number(self) -> u32 {
        match self {
            Hook::Prerouting => 0,
            Hook::Input => 1,
            Hook::Forward => 2,
            Hook::Output => 3,
            Hook::Postrouting => 4,
        }
    }

    pub(crate) fn from_number(number: u32) -> Option<Self> {
        [Hook::Prerouting, Hook::Input, Hook::Forward, Hook::Output, Hook::Postrouting]
            .into_iter()
            .find(|hook| hook.number() == number)
    }
}

impl Policy {
    pub(crate) fn number(self) -> u32 {
        match self {
            Policy::Drop => 0,
            Policy::Accept => 1,
        }
    }
}
