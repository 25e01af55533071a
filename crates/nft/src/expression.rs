//! Statements as the kernel's register machine.
//!
//! Every statement loads what it needs into registers from the first on and forgets it afterwards. Registers are four
//! bytes wide; a value or a concatenation begins at byte 0 of the file and continues without gaps, as the kernel expects
//! of set keys.

use std::net::IpAddr;

use crate::{
    Family, Field, Limit, Log, Reject, Rule, Statement, Test, Verdict,
    attribute::{Writer, address_bytes},
    set::prefix_mask,
    value::Value,
};

/// `NFT_REG_VERDICT`.
const VERDICT_REGISTER: u32 = 0;
/// `NFTA_LIST_ELEM`.
const LIST_ELEMENT: u16 = 1;

const COMPARE_EQUAL: u32 = 0;
const COMPARE_NOT_EQUAL: u32 = 1;

/// The register that begins this many bytes into the file: `NFT_REG_1` (sixteen bytes) for the start, which old nft
/// programs insist on, `NFT_REG32_xx` else.
fn register(offset: usize) -> u32 {
    if offset == 0 { 1 } else { 8 + (offset / 4) as u32 }
}

/// Writes a rule's statements as the elements of `NFTA_RULE_EXPRESSIONS`.
pub(crate) fn write_statements(out: &mut Writer, rule: &Rule) {
    // In an inet table an IPv4 field read from an IPv6 packet would be other bytes: the packet's family is asked first.
    let mut known_family = (rule.family != Family::Inet).then_some(rule.family);
    for statement in &rule.statements {
        let needed = fields_of(statement).iter().find_map(|field| field.family());
        if let Some(family) = needed.filter(|family| Some(*family) != known_family) {
            write_family_test(out, family);
            known_family = Some(family);
        }
        write_statement(out, rule.family, statement);
    }
}

fn fields_of(statement: &Statement) -> &[Field] {
    match statement {
        Statement::Test(field, _) => std::slice::from_ref(field),
        Statement::Lookup { fields, .. }
        | Statement::VerdictMap { fields, .. }
        | Statement::DestinationNatMap { fields, .. } => fields,
        _ => &[],
    }
}

fn write_statement(out: &mut Writer, family: Family, statement: &Statement) {
    match statement {
        Statement::Test(field, test) => {
            write_load(out, *field, register(0));
            write_test(out, *field, test);
        }
        Statement::Lookup { fields, set, inverted } => {
            write_loads(out, fields);
            expression(out, "lookup", |data| {
                data.text(1, set);
                data.u32(2, register(0));
                if *inverted {
                    data.u32(5, 1); // NFT_LOOKUP_F_INV
                }
            });
        }
        Statement::VerdictMap { fields, map } => {
            write_loads(out, fields);
            write_map(out, map, VERDICT_REGISTER);
        }
        Statement::Counter => expression(out, "counter", |data| {
            data.u64(1, 0);
            data.u64(2, 0);
        }),
        Statement::Limit(limit) => write_limit(out, limit),
        Statement::Quota { bytes, until } => expression(out, "quota", |data| {
            data.u64(1, *bytes);
            data.u32(2, u32::from(!until)); // NFT_QUOTA_F_INV
        }),
        Statement::Log(log) => write_log(out, log),
        Statement::SetMark(mark) => {
            write_immediate(out, register(0), &mark.to_ne_bytes());
            expression(out, "meta", |data| {
                data.u32(2, META_MARK);
                data.u32(3, register(0));
            });
        }
        Statement::Verdict(verdict) => expression(out, "immediate", |data| {
            data.u32(1, VERDICT_REGISTER);
            data.nest(2, |value| write_verdict(value, verdict));
        }),
        Statement::Reject(reject) => expression(out, "reject", |data| write_reject(data, family, *reject)),
        Statement::Masquerade => expression(out, "masq", |_| {}),
        Statement::SourceNat { address } => {
            write_immediate(out, register(0), &address_bytes(*address));
            write_nat(out, NAT_SOURCE, family_of(*address), false, 0);
        }
        Statement::DestinationNat { address, port } => {
            let bytes = address_bytes(*address);
            write_immediate(out, register(0), &bytes);
            if let Some(port) = port {
                write_immediate(out, register(bytes.len()), &port.to_be_bytes());
            }
            write_nat(out, NAT_DESTINATION, family_of(*address), port.is_some(), bytes.len());
        }
        Statement::DestinationNatMap { fields, map, family } => {
            write_loads(out, fields);
            write_map(out, map, register(0));
            let address_length = if *family == Family::Ip6 { 16 } else { 4 };
            write_nat(out, NAT_DESTINATION, *family, true, address_length);
        }
        Statement::Redirect { port } => {
            if let Some(port) = port {
                write_immediate(out, register(0), &port.to_be_bytes());
            }
            expression(out, "redir", |data| {
                if port.is_some() {
                    data.u32(1, register(0));
                }
            });
        }
        Statement::TransparentProxy { family, port } => {
            write_immediate(out, register(0), &port.to_be_bytes());
            expression(out, "tproxy", |data| {
                data.u32(1, u32::from(family.number()));
                data.u32(3, register(0));
            });
        }
    }
}

fn expression(out: &mut Writer, name: &str, body: impl FnOnce(&mut Writer)) {
    out.nest(LIST_ELEMENT, |expression| {
        expression.text(1, name);
        expression.nest(2, body);
    });
}

fn write_loads(out: &mut Writer, fields: &[Field]) {
    let mut offset = 0;
    for field in fields {
        write_load(out, *field, register(offset));
        offset += field.kind().length().next_multiple_of(4);
    }
}

const META_MARK: u32 = 3;
const META_NFPROTO: u32 = 15;

fn write_load(out: &mut Writer, field: Field, register: u32) {
    const NETWORK_HEADER: u32 = 1;
    const TRANSPORT_HEADER: u32 = 2;
    let mut payload = |base: u32, offset: u32, length: u32| {
        expression(out, "payload", |data| {
            data.u32(1, register);
            data.u32(2, base);
            data.u32(3, offset);
            data.u32(4, length);
        });
    };
    match field {
        Field::Ipv4Source => payload(NETWORK_HEADER, 12, 4),
        Field::Ipv4Destination => payload(NETWORK_HEADER, 16, 4),
        Field::Ipv6Source => payload(NETWORK_HEADER, 8, 16),
        Field::Ipv6Destination => payload(NETWORK_HEADER, 24, 16),
        Field::SourcePort => payload(TRANSPORT_HEADER, 0, 2),
        Field::DestinationPort => payload(TRANSPORT_HEADER, 2, 2),
        Field::IcmpType | Field::Icmpv6Type => payload(TRANSPORT_HEADER, 0, 1),
        Field::Protocol => write_meta(out, 16, register),
        Field::InputInterface => write_meta(out, 6, register),
        Field::OutputInterface => write_meta(out, 7, register),
        Field::InputInterfaceIndex => write_meta(out, 4, register),
        Field::OutputInterfaceIndex => write_meta(out, 5, register),
        Field::Mark => write_meta(out, META_MARK, register),
        Field::SocketUser => write_meta(out, 10, register),
        Field::SocketGroup => write_meta(out, 11, register),
        Field::ConntrackState => write_conntrack(out, 0, register),
        Field::ConntrackStatus => write_conntrack(out, 2, register),
        Field::ConntrackMark => write_conntrack(out, 3, register),
        Field::SourceType => write_fib(out, 1, register),
        Field::DestinationType => write_fib(out, 2, register),
        Field::Random(modulus) => expression(out, "numgen", |data| {
            data.u32(1, register);
            data.u32(2, modulus);
            data.u32(3, 1); // NFT_NG_RANDOM
            data.u32(4, 0);
        }),
    }
}

fn write_meta(out: &mut Writer, key: u32, register: u32) {
    expression(out, "meta", |data| {
        data.u32(1, register);
        data.u32(2, key);
    });
}

fn write_conntrack(out: &mut Writer, key: u32, register: u32) {
    expression(out, "ct", |data| {
        data.u32(1, register);
        data.u32(2, key);
    });
}

/// The type of the source (`NFTA_FIB_F_SADDR`) or destination (`NFTA_FIB_F_DADDR`) address.
fn write_fib(out: &mut Writer, flags: u32, register: u32) {
    expression(out, "fib", |data| {
        data.u32(1, register);
        data.u32(2, 3); // NFT_FIB_RESULT_ADDRTYPE
        data.u32(3, flags);
    });
}

fn write_family_test(out: &mut Writer, family: Family) {
    write_meta(out, META_NFPROTO, register(0));
    write_compare(out, COMPARE_EQUAL, &[family.number()]);
}

fn write_test(out: &mut Writer, field: Field, test: &Test) {
    let masked = |out: &mut Writer, mask: &[u8]| {
        expression(out, "bitwise", |data| {
            data.u32(1, register(0));
            data.u32(2, register(0));
            data.u32(3, mask.len() as u32);
            data.nest(4, |value| value.raw(1, mask));
            data.nest(5, |value| value.raw(1, &vec![0; mask.len()]));
        });
    };
    let within = |out: &mut Writer, operator: u32, value: &Value, prefix: u8| {
        let mut bytes = value.encode();
        let mask = prefix_mask(bytes.len(), prefix);
        masked(out, &mask);
        bytes.iter_mut().zip(&mask).for_each(|(byte, mask)| *byte &= mask);
        write_compare(out, operator, &bytes);
    };
    let range = |out: &mut Writer, operator: u32, first: &Value, last: &Value| {
        expression(out, "range", |data| {
            data.u32(1, register(0));
            data.u32(2, operator);
            data.nest(3, |value| value.raw(1, &first.encode()));
            data.nest(4, |value| value.raw(1, &last.encode()));
        });
    };
    match test {
        Test::Is(value) => write_compare(out, COMPARE_EQUAL, &value.encode()),
        Test::IsNot(value) => write_compare(out, COMPARE_NOT_EQUAL, &value.encode()),
        Test::Within { value, prefix } => within(out, COMPARE_EQUAL, value, *prefix),
        Test::NotWithin { value, prefix } => within(out, COMPARE_NOT_EQUAL, value, *prefix),
        Test::AnyBit(value) => {
            masked(out, &value.encode());
            write_compare(out, COMPARE_NOT_EQUAL, &vec![0; field.kind().length()]);
        }
        Test::NoBit(value) => {
            masked(out, &value.encode());
            write_compare(out, COMPARE_EQUAL, &vec![0; field.kind().length()]);
        }
        Test::Between(first, last) => range(out, 0, first, last),
        Test::NotBetween(first, last) => range(out, 1, first, last),
        Test::StartsWith(prefix) => write_compare(out, COMPARE_EQUAL, prefix.as_bytes()),
    }
}

fn write_compare(out: &mut Writer, operator: u32, bytes: &[u8]) {
    expression(out, "cmp", |data| {
        data.u32(1, register(0));
        data.u32(2, operator);
        data.nest(3, |value| value.raw(1, bytes));
    });
}

fn write_immediate(out: &mut Writer, register: u32, bytes: &[u8]) {
    expression(out, "immediate", |data| {
        data.u32(1, register);
        data.nest(2, |value| value.raw(1, bytes));
    });
}

fn write_map(out: &mut Writer, map: &str, destination: u32) {
    expression(out, "lookup", |data| {
        data.text(1, map);
        data.u32(2, register(0));
        data.u32(3, destination);
    });
}

/// `NFTA_DATA_VERDICT`, also the target of a verdict map's element.
pub(crate) fn write_verdict(out: &mut Writer, verdict: &Verdict) {
    let (code, chain) = match verdict {
        Verdict::Drop => (0, None),
        Verdict::Accept => (1, None),
        Verdict::Jump(chain) => (-3, Some(chain)),
        Verdict::Goto(chain) => (-4, Some(chain)),
        Verdict::Return => (-5, None),
    };
    out.nest(2, |value| {
        value.raw(1, &i32::to_be_bytes(code));
        if let Some(chain) = chain {
            value.text(2, chain);
        }
    });
}

fn write_limit(out: &mut Writer, limit: &Limit) {
    expression(out, "limit", |data| {
        data.u64(1, limit.rate);
        data.u64(2, limit.unit.as_secs());
        data.u32(3, limit.burst);
        data.u32(4, 0); // NFT_LIMIT_PKTS
        data.u32(5, u32::from(limit.over));
    });
}

fn write_log(out: &mut Writer, log: &Log) {
    expression(out, "log", |data| {
        if !log.prefix.is_empty() {
            data.text(2, &log.prefix);
        }
        match log.group {
            Some(group) => data.u16(1, group),
            None => data.u32(5, 4), // NFT_LOGLEVEL_WARNING, what nft takes for granted
        }
    });
}

/// The kernel translates the family-neutral ICMPX codes in inet tables only; elsewhere they would turn into a plain drop.
fn write_reject(out: &mut Writer, family: Family, reject: Reject) {
    const ICMP: u32 = 0;
    const TCP_RESET: u32 = 1;
    const ICMPX: u32 = 2;
    let kind = match (reject, family) {
        (Reject::TcpReset, _) => TCP_RESET,
        (_, Family::Inet) => ICMPX,
        _ => ICMP,
    };
    // Codes of ICMP destination unreachable (RFC 792, 1812), ICMPv6 (RFC 4443 §3.1) and `enum nft_reject_inet_code`.
    let code = match (reject, family) {
        (Reject::TcpReset, _) | (Reject::NoRoute, _) => 0,
        (Reject::HostUnreachable, Family::Ip) => 1,
        (Reject::HostUnreachable, Family::Ip6) => 3,
        (Reject::HostUnreachable, Family::Inet) => 2,
        (Reject::PortUnreachable, Family::Ip) => 3,
        (Reject::PortUnreachable, Family::Ip6) => 4,
        (Reject::PortUnreachable, Family::Inet) => 1,
        (Reject::AdministrativelyProhibited, Family::Ip) => 13,
        (Reject::AdministrativelyProhibited, Family::Ip6) => 1,
        (Reject::AdministrativelyProhibited, Family::Inet) => 3,
    };
    out.u32(1, kind);
    if kind != TCP_RESET {
        out.u8(2, code);
    }
}

const NAT_SOURCE: u32 = 0;
const NAT_DESTINATION: u32 = 1;

/// Translation to the address at byte 0 of the registers and, `with_port`, the port right behind it.
fn write_nat(out: &mut Writer, kind: u32, family: Family, with_port: bool, address_length: usize) {
    expression(out, "nat", |data| {
        data.u32(1, kind);
        data.u32(2, u32::from(family.number()));
        data.u32(3, register(0));
        if with_port {
            data.u32(5, register(address_length));
        }
    });
}

fn family_of(address: IpAddr) -> Family {
    match address {
        IpAddr::V4(_) => Family::Ip,
        IpAddr::V6(_) => Family::Ip6,
    }
}
