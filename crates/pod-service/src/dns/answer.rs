//! A query's bytes to its answer's, for the names of a zone.

use std::net::Ipv4Addr;
use std::str::FromStr as _;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use super::zone::{Found, SPECIFICATION, Zone};

/// Seconds; CoreDNS' for cluster names. Short, because endpoints come and go.
const TTL: u32 = 5;
/// What an answer over UDP may be without EDNS (RFC 1035 §2.3.4).
const PLAIN_UDP: usize = 512;
/// The most we send over UDP: fits every link without fragments (the DNS flag day's 1232).
const LARGEST_UDP: u16 = 1232;

/// What becomes of a query.
#[derive(Debug)]
pub(crate) enum Outcome {
    Answer(Vec<u8>),
    /// Not ours: ask the host's resolvers.
    Forward(Box<Message>),
    /// Not a query at all: silence.
    Ignore,
}

/// How it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

pub(crate) fn answer(zone: &Zone, query: &[u8], transport: Transport) -> Outcome {
    let Ok(message) = Message::from_vec(query) else { return malformed(query) };
    if message.metadata.message_type != MessageType::Query {
        return Outcome::Ignore;
    }
    if message.metadata.op_code != OpCode::Query {
        return refuse(&message, ResponseCode::NotImp, transport);
    }
    let [question] = message.queries.as_slice() else {
        return refuse(&message, ResponseCode::FormErr, transport);
    };
    if question.query_class() != DNSClass::IN {
        return refuse(&message, ResponseCode::NotImp, transport);
    }
    let Some((code, answers, additionals)) = look_up(zone, question) else {
        return Outcome::Forward(Box::new(message));
    };
    let mut reply = reply_to(&message, code);
    reply.metadata.authoritative = true;
    if answers.is_empty() {
        // RFC 2308: how long the absence may be remembered.
        reply.add_authority(authority(zone));
    }
    reply.add_answers(answers);
    reply.add_additionals(additionals);
    encode(reply, &message, transport)
}

/// An answer that only says why there is none.
pub(crate) fn refusal(message: &Message, code: ResponseCode, transport: Transport) -> Vec<u8> {
    match refuse(message, code, transport) {
        Outcome::Answer(bytes) => bytes,
        _ => Vec::new(),
    }
}

fn refuse(message: &Message, code: ResponseCode, transport: Transport) -> Outcome {
    encode(reply_to(message, code), message, transport)
}

/// At least the id can be read of most broken queries.
fn malformed(query: &[u8]) -> Outcome {
    let Some(id) = query.first_chunk::<2>().map(|id| u16::from_be_bytes(*id)) else { return Outcome::Ignore };
    // An answer to an answer would be answered.
    if query.len() < 12 || query[2] & 0x80 != 0 {
        return Outcome::Ignore;
    }
    match Message::error_msg(id, OpCode::Query, ResponseCode::FormErr).to_vec() {
        Ok(bytes) => Outcome::Answer(bytes),
        Err(_) => Outcome::Ignore,
    }
}

/// Code, answers, and what comes along with them.
type Reply = (ResponseCode, Vec<Record>, Vec<Record>);

/// `None`: not below the zone's domain.
fn look_up(zone: &Zone, question: &Query) -> Option<Reply> {
    let asked = question.name();
    let name = asked.to_ascii();
    let name = name.trim_end_matches('.');
    let wanted = question.query_type();
    let is = |kind: RecordType| wanted == kind || wanted == RecordType::ANY;
    if let Some(address) = reversed(name) {
        let target = zone.name_of(address).and_then(|name| absolute(&name))?;
        let records = if is(RecordType::PTR) { vec![record(asked, RData::PTR(PTR(target)))] } else { Vec::new() };
        return Some((ResponseCode::NoError, records, Vec::new()));
    }
    let plain = |records| Some((ResponseCode::NoError, records, Vec::new()));
    match zone.find(name) {
        Found::Elsewhere => None,
        Found::Nothing => Some((ResponseCode::NXDomain, Vec::new(), Vec::new())),
        Found::Version if is(RecordType::TXT) => {
            plain(vec![record(asked, RData::TXT(TXT::new(vec![SPECIFICATION.to_owned()])))])
        }
        Found::Addresses(addresses) if is(RecordType::A) => plain(addresses_of(asked, addresses)),
        Found::Services(services) if is(RecordType::SRV) => Some(services_of(zone, asked, services)),
        Found::Version | Found::Addresses(_) | Found::Services(_) => plain(Vec::new()),
    }
}

fn addresses_of(asked: &Name, addresses: Vec<Ipv4Addr>) -> Vec<Record> {
    addresses.into_iter().map(|address| record(asked, RData::A(A(address)))).collect()
}

/// The targets' addresses come along, so that one question is enough.
fn services_of(zone: &Zone, asked: &Name, services: Vec<(u16, String)>) -> Reply {
    // All alike: the weights add up to about 100, as CoreDNS has it.
    let weight = u16::try_from(100 / services.len().max(1)).unwrap_or(1).max(1);
    let (mut answers, mut additionals) = (Vec::new(), Vec::new());
    for (port, target) in services {
        let Some(name) = absolute(&target) else { continue };
        if let Found::Addresses(addresses) = zone.find(&target) {
            additionals.extend(addresses_of(&name, addresses));
        }
        answers.push(record(asked, RData::SRV(SRV::new(0, weight, port, name))));
    }
    (ResponseCode::NoError, answers, additionals)
}

/// `3.0.89.10.in-addr.arpa`
fn reversed(name: &str) -> Option<Ipv4Addr> {
    let name = name.to_ascii_lowercase();
    let labels: Vec<&str> = name.strip_suffix(".in-addr.arpa")?.split('.').collect();
    let [d, c, b, a] = labels.as_slice() else { return None };
    format!("{a}.{b}.{c}.{d}").parse().ok()
}

fn absolute(name: &str) -> Option<Name> {
    let mut name = Name::from_str(name).ok()?;
    name.set_fqdn(true);
    Some(name)
}

fn record(name: &Name, data: RData) -> Record {
    Record::from_rdata(name.clone(), TTL, data)
}

fn authority(zone: &Zone) -> Record {
    let domain = absolute(&zone.domain).unwrap_or_else(Name::root);
    let of = |label: &str| absolute(&format!("{label}.{}", zone.domain)).unwrap_or_else(Name::root);
    let soa = SOA::new(of("ns.dns"), of("hostmaster"), 1, 7200, 1800, 86400, TTL);
    record(&domain, RData::SOA(soa))
}

fn reply_to(message: &Message, code: ResponseCode) -> Message {
    let mut reply = Message::response(message.metadata.id, message.metadata.op_code);
    reply.metadata.response_code = code;
    reply.metadata.recursion_desired = message.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    reply.add_queries(message.queries.iter().cloned());
    if message.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(LARGEST_UDP);
        reply.set_edns(edns);
    }
    reply
}

/// Too large for its transport: cut, with the bit that says so (the client asks again over TCP).
fn encode(reply: Message, query: &Message, transport: Transport) -> Outcome {
    let Ok(bytes) = reply.to_vec() else { return Outcome::Ignore };
    let offered = query.edns.as_ref().map_or(PLAIN_UDP, |edns| edns.max_payload().min(LARGEST_UDP).into());
    if transport == Transport::Tcp || bytes.len() <= offered.max(PLAIN_UDP) {
        return Outcome::Answer(bytes);
    }
    match reply.truncate().to_vec() {
        Ok(bytes) => Outcome::Answer(bytes),
        Err(_) => Outcome::Ignore,
    }
}

#[cfg(test)]
mod tests;
