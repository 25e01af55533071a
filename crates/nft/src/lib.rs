//! Typed nftables over netlink: one atomic transaction.
//!
//! A [`Batch`] gathers changes (tables, chains, sets, rules, elements); [`Netfilter::commit`] hands them to the kernel,
//! which applies all of them or none. The vocabulary is that of the `nft` program, one level above the kernel's
//! registers: a [`Rule`] is a list of [`Statement`]s, a test is a [`Field`] and a [`Test`], a set is described by the
//! [`Kind`]s of its key. What was committed reads in `nft list ruleset` as if `nft` had written it.
//!
//! ```no_run
//! use nft::{Batch, Chain, ChainType, Family, Field, Hook, Netfilter, Priority, Rule, Table, Test};
//!
//! let table = Table::new(Family::Ip, "example");
//! let out = Chain::base(&table, "out", ChainType::Nat, Hook::Postrouting, Priority::SOURCE_NAT);
//! let mut batch = Batch::new();
//! batch.add_table(&table);
//! batch.add_chain(&out);
//! batch.add_rule(&Rule::new(&out).test(Field::Ipv4Source, Test::within([10, 0, 0, 0], 8)).masquerade());
//! Netfilter::open()?.commit(&batch)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The messages are written as plain netlink attributes (`linux/netfilter/nf_tables.h`) rather than through a message
//! library: the ones there are know neither nat, fib, ct nor set elements, so most of a rule would be raw bytes in a
//! typed wrapper. Nothing here starts a program, blocks or needs a runtime; a commit takes about 0.1 ms.
//!
//! Every call works on the network namespace of the calling thread at [`Netfilter::open`].

#![forbid(unsafe_code)]

mod attribute;
mod batch;
mod chain;
mod conntrack;
mod expression;
mod list;
mod rule;
mod set;
mod socket;
mod table;
mod value;

pub use batch::Batch;
pub use chain::{Base, Chain, ChainType, Hook, Policy, Priority};
pub use conntrack::Flows;
pub use list::{ChainInfo, RuleInfo, SetInfo, TableInfo};
pub use rule::{Field, Limit, Log, Reject, Rule, Statement, Test, Verdict};
pub use set::{Element, Set, SetData, Target};
pub use socket::{CommitError, ListError, Netfilter, OpenError};
pub use table::{Family, Table};
pub use value::{AddressType, ConntrackState, ConntrackStatus, Kind, Protocol, Value};
