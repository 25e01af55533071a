use super::*;
use crate::Protocol;
use crate::dns::{Endpoint, Port, Service};

fn zone(endpoints: u8) -> Zone {
    let http = Port { name: "http".into(), protocol: Protocol::Tcp, number: 80 };
    let endpoint =
        |last| Endpoint { address: Ipv4Addr::new(10, 89, 0, last), hostname: None, ports: vec![http.clone()] };
    let web = Service { address: Some(Ipv4Addr::new(10, 96, 0, 7)), ports: vec![http.clone()], endpoints: Vec::new() };
    let db = Service { address: None, ports: vec![http.clone()], endpoints: (1..=endpoints).map(endpoint).collect() };
    let services = [("web", web), ("db", db)].map(|(name, service)| (("default".to_owned(), name.to_owned()), service));
    Zone { domain: "cluster.local".into(), services: services.into() }
}

fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.id = 7;
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(absolute(name).unwrap(), kind));
    message
}

fn ask(zone: &Zone, message: &Message, transport: Transport) -> Message {
    match answer(zone, &message.to_vec().unwrap(), transport) {
        Outcome::Answer(bytes) => Message::from_vec(&bytes).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// `rcode | answers | additionals`
fn told(name: &str, kind: RecordType) -> String {
    let reply = ask(&zone(2), &query(name, kind), Transport::Udp);
    assert!(reply.metadata.authoritative && reply.metadata.id == 7);
    assert_eq!(reply.answers.is_empty(), !reply.authorities.is_empty(), "absence comes with an SOA");
    let data = |records: &[Record]| records.iter().map(|record| record.data.to_string()).collect::<Vec<_>>().join(", ");
    format!("{:?} | {} | {}", reply.metadata.response_code, data(&reply.answers), data(&reply.additionals))
}

#[test]
fn types_and_codes() {
    for (name, kind, expected) in [
        ("web.default.svc.cluster.local", RecordType::A, "NoError | 10.96.0.7 | "),
        ("web.default.svc.cluster.local", RecordType::AAAA, "NoError |  | "),
        ("gone.default.svc.cluster.local", RecordType::A, "NXDomain |  | "),
        ("db.default.svc.cluster.local", RecordType::A, "NoError | 10.89.0.1, 10.89.0.2 | "),
        (
            "_http._tcp.db.default.svc.cluster.local",
            RecordType::SRV,
            "NoError | 0 50 80 10-89-0-1.db.default.svc.cluster.local., 0 50 80 10-89-0-2.db.default.svc.cluster.local. | 10.89.0.1, 10.89.0.2",
        ),
        ("7.0.96.10.in-addr.arpa", RecordType::PTR, "NoError | web.default.svc.cluster.local. | "),
        ("dns-version.cluster.local", RecordType::TXT, "NoError | 1.1.0 | "),
    ] {
        assert_eq!(told(name, kind), expected, "{name} {kind}");
    }
}

#[test]
fn what_is_not_ours_is_forwarded() {
    for name in ["example.com", "9.9.9.9.in-addr.arpa", "local"] {
        let bytes = query(name, RecordType::A).to_vec().unwrap();
        assert!(matches!(answer(&zone(1), &bytes, Transport::Udp), Outcome::Forward(_)), "{name}");
    }
}

#[test]
fn a_large_answer_is_cut_over_udp_and_whole_over_tcp() {
    let question = query("db.default.svc.cluster.local", RecordType::A);
    let cut = ask(&zone(200), &question, Transport::Udp);
    assert!(cut.metadata.truncation && cut.to_vec().unwrap().len() <= 512);
    assert_eq!(ask(&zone(200), &question, Transport::Tcp).answers.len(), 200);
}

#[test]
fn broken_queries_are_answered_or_ignored_but_never_answered_in_a_circle() {
    assert!(matches!(answer(&zone(1), &[1], Transport::Udp), Outcome::Ignore));
    let mut broken = query("web.default.svc.cluster.local", RecordType::A).to_vec().unwrap();
    broken.truncate(20);
    match answer(&zone(1), &broken, Transport::Udp) {
        Outcome::Answer(bytes) => {
            assert_eq!(Message::from_vec(&bytes).unwrap().metadata.response_code, ResponseCode::FormErr);
        }
        other => panic!("{other:?}"),
    }
    broken[2] |= 0x80;
    assert!(matches!(answer(&zone(1), &broken, Transport::Udp), Outcome::Ignore));
}
