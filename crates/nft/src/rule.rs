//! Rules: tests and what to do when all of them hold.

use std::{net::IpAddr, time::Duration};

use crate::{Chain, Family, Kind, Set, Value};

/// A rule at the end (or the start) of a chain: statements in order, each reached only if the ones before it held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub family: Family,
    pub table: String,
    pub chain: String,
    pub statements: Vec<Statement>,
    /// Shown by `nft list` and [`crate::RuleInfo`], at most 128 bytes.
    pub comment: Option<String>,
}

/// A test or an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statement {
    /// Goes on only if the field passes.
    Test(Field, Test),
    /// Goes on only if the fields, side by side, are in the set (or are not, if `inverted`).
    Lookup {
        fields: Vec<Field>,
        set: String,
        inverted: bool,
    },
    /// Follows the verdict the map has for the fields; goes on if it has none.
    VerdictMap {
        fields: Vec<Field>,
        map: String,
    },
    Counter,
    Limit(Limit),
    /// Goes on until (`until`) or only after this many bytes have passed.
    Quota {
        bytes: u64,
        until: bool,
    },
    Log(Log),
    SetMark(u32),
    Verdict(Verdict),
    /// Refuses with an answer to the sender.
    Reject(Reject),
    /// The source becomes the address of the outgoing interface.
    Masquerade,
    SourceNat {
        address: IpAddr,
    },
    DestinationNat {
        address: IpAddr,
        port: Option<u16>,
    },
    /// The destination becomes the `address . port` the map has for the fields; goes on if it has none.
    DestinationNatMap {
        fields: Vec<Field>,
        map: String,
        /// Of the addresses in the map.
        family: Family,
    },
    /// The destination becomes this machine, at this port if given.
    Redirect {
        port: Option<u16>,
    },
    /// Hands the packet to a local transparent socket on this port; prerouting filter chains only, needs a mark and a
    /// routing rule that delivers it locally.
    TransparentProxy {
        family: Family,
        port: u16,
    },
}

/// What a packet carries or is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Field {
    /// The transport protocol (`meta l4proto`).
    Protocol,
    InputInterface,
    OutputInterface,
    InputInterfaceIndex,
    OutputInterfaceIndex,
    Mark,
    /// Owner of the sending socket; output and postrouting only.
    SocketUser,
    SocketGroup,
    Ipv4Source,
    Ipv4Destination,
    Ipv6Source,
    Ipv6Destination,
    /// Means something for protocols with ports only: test [`Field::Protocol`] before.
    SourcePort,
    DestinationPort,
    /// First byte of the transport header: test [`Field::Protocol`] before.
    IcmpType,
    Icmpv6Type,
    ConntrackState,
    ConntrackStatus,
    ConntrackMark,
    /// What the routing tables say about the source or destination.
    SourceType,
    DestinationType,
    /// A number at random below this one (`numgen random mod N`), as a [`Kind::Mark`]. 0 is refused by the kernel.
    Random(u32),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    Is(Value),
    IsNot(Value),
    /// The first bits equal those of the value.
    Within {
        value: Value,
        prefix: u8,
    },
    NotWithin {
        value: Value,
        prefix: u8,
    },
    /// At least one of these bits is set.
    AnyBit(Value),
    /// None of these bits is set.
    NoBit(Value),
    /// Both ends included; for kinds in network order (addresses, ports, protocols).
    Between(Value, Value),
    NotBetween(Value, Value),
    /// An interface name begins with this.
    StartsWith(String),
}

impl Test {
    pub fn is(value: impl Into<Value>) -> Self {
        Test::Is(value.into())
    }

    pub fn is_not(value: impl Into<Value>) -> Self {
        Test::IsNot(value.into())
    }

    pub fn within(value: impl Into<Value>, prefix: u8) -> Self {
        Test::Within { value: value.into(), prefix }
    }

    pub fn not_within(value: impl Into<Value>, prefix: u8) -> Self {
        Test::NotWithin { value: value.into(), prefix }
    }

    pub fn any_bit(value: impl Into<Value>) -> Self {
        Test::AnyBit(value.into())
    }

    pub fn no_bit(value: impl Into<Value>) -> Self {
        Test::NoBit(value.into())
    }

    /// The values the test compares with.
    pub(crate) fn values(&self) -> Vec<&Value> {
        match self {
            Test::Is(value)
            | Test::IsNot(value)
            | Test::Within { value, .. }
            | Test::NotWithin { value, .. }
            | Test::AnyBit(value)
            | Test::NoBit(value) => vec![value],
            Test::Between(first, last) | Test::NotBetween(first, last) => vec![first, last],
            Test::StartsWith(_) => vec![],
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Ends this hook's chain; chains of other tables on the same hook still decide.
    Accept,
    /// Ends everything.
    Drop,
    /// Evaluates a chain and comes back.
    Jump(String),
    /// Evaluates a chain and does not come back.
    Goto(String),
    /// Back to the calling chain; in a base chain: the policy.
    Return,
}

/// A token bucket in packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Packets per `unit`.
    pub rate: u64,
    /// A whole number of seconds.
    pub unit: Duration,
    pub burst: u32,
    /// Goes on for the packets above the limit instead of those below it.
    pub over: bool,
}

/// A line in the kernel log, or a packet to nflog group `group`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Log {
    /// At most 127 bytes.
    pub prefix: String,
    pub group: Option<u16>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reject {
    /// What a closed port answers: connection refused. UDP and TCP callers fail at once.
    PortUnreachable,
    HostUnreachable,
    NoRoute,
    /// EACCES or EHOSTUNREACH for the caller: a policy, not an outage.
    AdministrativelyProhibited,
    /// TCP only: test [`Field::Protocol`] before.
    TcpReset,
}

impl Rule {
    pub fn new(chain: &Chain) -> Self {
        Self {
            family: chain.family,
            table: chain.table.clone(),
            chain: chain.name.clone(),
            statements: Vec::new(),
            comment: None,
        }
    }

    #[must_use]
    pub fn comment(mut self, comment: impl Into<String>) -> Self {
        self.comment = Some(comment.into());
        self
    }

    #[must_use]
    pub fn statement(mut self, statement: Statement) -> Self {
        self.statements.push(statement);
        self
    }

    #[must_use]
    pub fn test(self, field: Field, test: Test) -> Self {
        self.statement(Statement::Test(field, test))
    }

    #[must_use]
    pub fn in_set(self, fields: impl Into<Vec<Field>>, set: &Set) -> Self {
        self.statement(Statement::Lookup { fields: fields.into(), set: set.name.clone(), inverted: false })
    }

    #[must_use]
    pub fn not_in_set(self, fields: impl Into<Vec<Field>>, set: &Set) -> Self {
        self.statement(Statement::Lookup { fields: fields.into(), set: set.name.clone(), inverted: true })
    }

    #[must_use]
    pub fn verdict_of(self, fields: impl Into<Vec<Field>>, map: &Set) -> Self {
        self.statement(Statement::VerdictMap { fields: fields.into(), map: map.name.clone() })
    }

    #[must_use]
    pub fn counter(self) -> Self {
        self.statement(Statement::Counter)
    }

    #[must_use]
    pub fn limit(self, limit: Limit) -> Self {
        self.statement(Statement::Limit(limit))
    }

    #[must_use]
    pub fn log(self, log: Log) -> Self {
        self.statement(Statement::Log(log))
    }

    #[must_use]
    pub fn verdict(self, verdict: Verdict) -> Self {
        self.statement(Statement::Verdict(verdict))
    }

    #[must_use]
    pub fn accept(self) -> Self {
        self.verdict(Verdict::Accept)
    }

    #[must_use]
    pub fn drop(self) -> Self {
        self.verdict(Verdict::Drop)
    }

    #[must_use]
    pub fn reject(self, reject: Reject) -> Self {
        self.statement(Statement::Reject(reject))
    }

    #[must_use]
    pub fn masquerade(self) -> Self {
        self.statement(Statement::Masquerade)
    }

    #[must_use]
    pub fn redirect(self, port: Option<u16>) -> Self {
        self.statement(Statement::Redirect { port })
    }

    #[must_use]
    pub fn destination_nat(self, address: IpAddr, port: Option<u16>) -> Self {
        self.statement(Statement::DestinationNat { address, port })
    }

    /// Destination translation by a map from the fields to IPv4 `address . port`.
    #[must_use]
    pub fn destination_nat_map(self, fields: impl Into<Vec<Field>>, map: &Set) -> Self {
        self.statement(Statement::DestinationNatMap {
            fields: fields.into(),
            map: map.name.clone(),
            family: if map.data_is_ipv6() { Family::Ip6 } else { Family::Ip },
        })
    }

    /// Why the kernel could not evaluate this, or would mean something else by it.
    pub(crate) fn defect(&self) -> Option<String> {
        self.statements.iter().find_map(|statement| match statement {
            Statement::Test(field, test) => {
                let wrong = test.values().into_iter().find(|value| value.kind() != field.kind());
                if let Some(value) = wrong {
                    return Some(format!("{field:?} cannot be compared with {value:?}"));
                }
                match test {
                    Test::Between(..) | Test::NotBetween(..) if !field.kind().is_big_endian() => {
                        Some(format!("{field:?} has no ranges"))
                    }
                    Test::StartsWith(_) if field.kind() != Kind::InterfaceName => {
                        Some(format!("{field:?} is no interface name"))
                    }
                    _ => test.values().into_iter().find_map(Value::defect),
                }
            }
            Statement::Log(log) if log.prefix.len() > 127 => Some("a log prefix has at most 127 bytes".to_owned()),
            Statement::Limit(limit) if limit.rate == 0 || limit.unit.as_secs() == 0 => {
                Some("a limit needs a rate and a unit of at least one second".to_owned())
            }
            _ => None,
        })
    }
}

impl Set {
    fn data_is_ipv6(&self) -> bool {
        matches!(&self.data, crate::SetData::Values(kinds) if kinds.first() == Some(&Kind::Ipv6Address))
    }
}

impl Field {
    pub fn kind(self) -> Kind {
        match self {
            Field::Protocol => Kind::Protocol,
            Field::InputInterface | Field::OutputInterface => Kind::InterfaceName,
            Field::InputInterfaceIndex | Field::OutputInterfaceIndex => Kind::InterfaceIndex,
            Field::Mark | Field::ConntrackMark | Field::Random(_) => Kind::Mark,
            Field::SocketUser => Kind::UserId,
            Field::SocketGroup => Kind::GroupId,
            Field::Ipv4Source | Field::Ipv4Destination => Kind::Ipv4Address,
            Field::Ipv6Source | Field::Ipv6Destination => Kind::Ipv6Address,
            Field::SourcePort | Field::DestinationPort => Kind::Port,
            Field::IcmpType => Kind::IcmpType,
            Field::Icmpv6Type => Kind::Icmpv6Type,
            Field::ConntrackState => Kind::ConntrackState,
            Field::ConntrackStatus => Kind::ConntrackStatus,
            Field::SourceType | Field::DestinationType => Kind::AddressType,
        }
    }

    /// The family of packets that have this field, if only one has.
    pub(crate) fn family(self) -> Option<Family> {
        match self {
            Field::Ipv4Source | Field::Ipv4Destination => Some(Family::Ip),
            Field::Ipv6Source | Field::Ipv6Destination => Some(Family::Ip6),
            _ => None,
        }
    }
}
