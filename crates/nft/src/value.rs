//! Values and their kinds: what fields hold, sets are keyed by and maps lead to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The kind of a value: its length in a register and the name `nft` shows it under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Ipv4Address,
    Ipv6Address,
    /// A transport protocol's number.
    Protocol,
    Port,
    InterfaceName,
    InterfaceIndex,
    Mark,
    ConntrackState,
    ConntrackStatus,
    AddressType,
    IcmpType,
    Icmpv6Type,
    UserId,
    GroupId,
}

/// A value. Numbers are given in host order; the encoding knows which the kernel keeps in network order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Value {
    Ipv4Address(Ipv4Addr),
    Ipv6Address(Ipv6Addr),
    Protocol(Protocol),
    Port(u16),
    /// At most 15 bytes.
    InterfaceName(String),
    InterfaceIndex(u32),
    Mark(u32),
    ConntrackState(ConntrackState),
    ConntrackStatus(ConntrackStatus),
    AddressType(AddressType),
    IcmpType(u8),
    Icmpv6Type(u8),
    UserId(u32),
    GroupId(u32),
}

/// A transport protocol's number (`IPPROTO_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Protocol(pub u8);

impl Protocol {
    pub const ICMP: Protocol = Protocol(1);
    pub const TCP: Protocol = Protocol(6);
    pub const UDP: Protocol = Protocol(17);
    pub const ICMPV6: Protocol = Protocol(58);
    pub const SCTP: Protocol = Protocol(132);
}

/// A set of connection states (`ct state`); combine with `|`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConntrackState(pub u32);

impl ConntrackState {
    pub const INVALID: ConntrackState = ConntrackState(1);
    pub const ESTABLISHED: ConntrackState = ConntrackState(2);
    pub const RELATED: ConntrackState = ConntrackState(4);
    pub const NEW: ConntrackState = ConntrackState(8);
    pub const UNTRACKED: ConntrackState = ConntrackState(64);
}

impl std::ops::BitOr for ConntrackState {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A set of connection properties (`ct status`, `IPS_*`); combine with `|`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConntrackStatus(pub u32);

impl ConntrackStatus {
    /// The source is being translated.
    pub const SOURCE_NAT: ConntrackStatus = ConntrackStatus(1 << 4);
    /// The destination is being translated.
    pub const DESTINATION_NAT: ConntrackStatus = ConntrackStatus(1 << 5);
}

impl std::ops::BitOr for ConntrackStatus {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What the routing tables say about an address (`fib daddr type`, `RTN_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressType(pub u32);

impl AddressType {
    pub const UNICAST: AddressType = AddressType(1);
    /// An address of this machine.
    pub const LOCAL: AddressType = AddressType(2);
    pub const BROADCAST: AddressType = AddressType(3);
    pub const MULTICAST: AddressType = AddressType(5);
}

/// `IFNAMSIZ`.
pub(crate) const INTERFACE_NAME_LENGTH: usize = 16;

impl Kind {
    /// Bytes in a register; in a concatenation each value is padded to four.
    pub(crate) fn length(self) -> usize {
        match self {
            Kind::Protocol | Kind::IcmpType | Kind::Icmpv6Type => 1,
            Kind::Port => 2,
            Kind::Ipv6Address => 16,
            Kind::InterfaceName => INTERFACE_NAME_LENGTH,
            Kind::Ipv4Address
            | Kind::InterfaceIndex
            | Kind::Mark
            | Kind::ConntrackState
            | Kind::ConntrackStatus
            | Kind::AddressType
            | Kind::UserId
            | Kind::GroupId => 4,
        }
    }

    /// The number of nft's data type, which only `nft list` reads (`enum datatypes` of the nft program).
    pub(crate) fn number(self) -> u32 {
        match self {
            Kind::Ipv4Address => 7,
            Kind::Ipv6Address => 8,
            Kind::Protocol => 12,
            Kind::Port => 13,
            Kind::IcmpType => 14,
            Kind::Mark => 19,
            Kind::InterfaceIndex => 20,
            Kind::UserId => 24,
            Kind::GroupId => 25,
            Kind::ConntrackState => 26,
            Kind::ConntrackStatus => 28,
            Kind::Icmpv6Type => 29,
            Kind::AddressType => 38,
            Kind::InterfaceName => 41,
        }
    }

    /// Whether the kernel keeps it in network order.
    pub(crate) fn is_big_endian(self) -> bool {
        matches!(
            self,
            Kind::Ipv4Address | Kind::Ipv6Address | Kind::Protocol | Kind::Port | Kind::IcmpType | Kind::Icmpv6Type
        )
    }

    pub(crate) fn decode(self, bytes: &[u8]) -> Option<Value> {
        let bytes = bytes.get(..self.length())?;
        let number = || Some(u32::from_ne_bytes(bytes.try_into().ok()?));
        Some(match self {
            Kind::Ipv4Address => Value::Ipv4Address(<[u8; 4]>::try_from(bytes).ok()?.into()),
            Kind::Ipv6Address => Value::Ipv6Address(<[u8; 16]>::try_from(bytes).ok()?.into()),
            Kind::Protocol => Value::Protocol(Protocol(bytes[0])),
            Kind::Port => Value::Port(u16::from_be_bytes(bytes.try_into().ok()?)),
            Kind::InterfaceName => {
                let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
                Value::InterfaceName(String::from_utf8_lossy(&bytes[..end]).into_owned())
            }
            Kind::InterfaceIndex => Value::InterfaceIndex(number()?),
            Kind::Mark => Value::Mark(number()?),
            Kind::ConntrackState => Value::ConntrackState(ConntrackState(number()?)),
            Kind::ConntrackStatus => Value::ConntrackStatus(ConntrackStatus(number()?)),
            Kind::AddressType => Value::AddressType(AddressType(number()?)),
            Kind::IcmpType => Value::IcmpType(bytes[0]),
            Kind::Icmpv6Type => Value::Icmpv6Type(bytes[0]),
            Kind::UserId => Value::UserId(number()?),
            Kind::GroupId => Value::GroupId(number()?),
        })
    }
}

impl Value {
    pub fn kind(&self) -> Kind {
        match self {
            Value::Ipv4Address(_) => Kind::Ipv4Address,
            Value::Ipv6Address(_) => Kind::Ipv6Address,
            Value::Protocol(_) => Kind::Protocol,
            Value::Port(_) => Kind::Port,
            Value::InterfaceName(_) => Kind::InterfaceName,
            Value::InterfaceIndex(_) => Kind::InterfaceIndex,
            Value::Mark(_) => Kind::Mark,
            Value::ConntrackState(_) => Kind::ConntrackState,
            Value::ConntrackStatus(_) => Kind::ConntrackStatus,
            Value::AddressType(_) => Kind::AddressType,
            Value::IcmpType(_) => Kind::IcmpType,
            Value::Icmpv6Type(_) => Kind::Icmpv6Type,
            Value::UserId(_) => Kind::UserId,
            Value::GroupId(_) => Kind::GroupId,
        }
    }

    /// The bytes as the kernel compares them.
    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            Value::Ipv4Address(address) => address.octets().to_vec(),
            Value::Ipv6Address(address) => address.octets().to_vec(),
            Value::Protocol(Protocol(number)) => vec![*number],
            Value::IcmpType(number) | Value::Icmpv6Type(number) => vec![*number],
            Value::Port(port) => port.to_be_bytes().to_vec(),
            Value::InterfaceName(name) => {
                let mut bytes = name.as_bytes().to_vec();
                bytes.resize(INTERFACE_NAME_LENGTH, 0);
                bytes
            }
            Value::InterfaceIndex(number) | Value::Mark(number) | Value::UserId(number) | Value::GroupId(number) => {
                number.to_ne_bytes().to_vec()
            }
            Value::ConntrackState(ConntrackState(bits)) => bits.to_ne_bytes().to_vec(),
            Value::ConntrackStatus(ConntrackStatus(bits)) => bits.to_ne_bytes().to_vec(),
            Value::AddressType(AddressType(number)) => number.to_ne_bytes().to_vec(),
        }
    }

    /// Why the kernel could not hold this value, if it could not.
    pub(crate) fn defect(&self) -> Option<String> {
        match self {
            Value::InterfaceName(name) if name.is_empty() || name.len() >= INTERFACE_NAME_LENGTH => {
                Some(format!("`{name}` is no interface name: it must have 1 to 15 bytes"))
            }
            _ => None,
        }
    }
}

impl From<Ipv4Addr> for Value {
    fn from(address: Ipv4Addr) -> Self {
        Value::Ipv4Address(address)
    }
}

impl From<[u8; 4]> for Value {
    fn from(address: [u8; 4]) -> Self {
        Value::Ipv4Address(address.into())
    }
}

impl From<Ipv6Addr> for Value {
    fn from(address: Ipv6Addr) -> Self {
        Value::Ipv6Address(address)
    }
}

impl From<IpAddr> for Value {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => address.into(),
            IpAddr::V6(address) => address.into(),
        }
    }
}

impl From<Protocol> for Value {
    fn from(protocol: Protocol) -> Self {
        Value::Protocol(protocol)
    }
}

impl From<AddressType> for Value {
    fn from(kind: AddressType) -> Self {
        Value::AddressType(kind)
    }
}

impl From<ConntrackState> for Value {
    fn from(state: ConntrackState) -> Self {
        Value::ConntrackState(state)
    }
}

impl From<ConntrackStatus> for Value {
    fn from(status: ConntrackStatus) -> Self {
        Value::ConntrackStatus(status)
    }
}

/// Several values side by side, as a register or a set element holds them: one alone in its own length, several padded
/// to four bytes each.
pub(crate) fn concatenate(values: &[Value]) -> Vec<u8> {
    if let [single] = values {
        return single.encode();
    }
    let mut bytes = Vec::new();
    for value in values {
        bytes.extend(value.encode());
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

/// The length of a concatenation of these kinds.
pub(crate) fn concatenated_length(kinds: &[Kind]) -> usize {
    match kinds {
        [single] => single.length(),
        several => several.iter().map(|kind| kind.length().next_multiple_of(4)).sum(),
    }
}

/// Takes a concatenation apart.
pub(crate) fn split(kinds: &[Kind], bytes: &[u8]) -> Option<Vec<Value>> {
    let mut values = Vec::with_capacity(kinds.len());
    let mut offset = 0;
    for kind in kinds {
        values.push(kind.decode(bytes.get(offset..)?)?);
        offset += kind.length().next_multiple_of(4);
    }
    Some(values)
}
