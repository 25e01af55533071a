//! The kernel and the nft program agree with us about what a batch means.

use std::{net::Ipv4Addr, time::Duration};

use nft::*;

use crate::world::{in_private_network, run};

fn listed() -> String {
    run("nft list ruleset").replace('\t', "    ")
}

fn commit(fill: impl FnOnce(&mut Batch)) -> Result<(), CommitError> {
    let mut batch = Batch::new();
    fill(&mut batch);
    Netfilter::open().unwrap().commit(&batch)
}

#[test]
fn every_statement_reads_as_nft_would_have_written_it() {
    in_private_network(|| {
        let table = Table::new(Family::Inet, "wall").comment("layout 1");
        let input = Chain::base(&table, "input", ChainType::Filter, Hook::Input, Priority::FILTER).policy(Policy::Drop);
        let prerouting = Chain::base(&table, "early", ChainType::Filter, Hook::Prerouting, Priority::MANGLE);
        let translate = Chain::base(&table, "translate", ChainType::Nat, Hook::Output, Priority::DESTINATION_NAT);
        let leave = Chain::base(&table, "leave", ChainType::Nat, Hook::Postrouting, Priority::SOURCE_NAT);
        let side = Chain::new(&table, "side");
        let rule = Rule::new(&input);
        let tcp = || Rule::new(&input).test(Field::Protocol, Test::is(Protocol::TCP));
        commit(|batch| {
            batch.add_table(&table);
            for chain in [&side, &input, &prerouting, &translate, &leave] {
                batch.add_chain(chain);
            }
            let established = ConntrackState::ESTABLISHED | ConntrackState::RELATED;
            batch.add_rule(&rule.clone().test(Field::ConntrackState, Test::any_bit(established)).counter().accept());
            batch.add_rule(&rule.clone().test(Field::ConntrackState, Test::no_bit(ConntrackState::NEW)).drop());
            batch.add_rule(
                &rule
                    .clone()
                    .test(Field::Ipv4Source, Test::within([10, 0, 0, 0], 8))
                    .test(Field::Ipv4Destination, Test::not_within([10, 1, 0, 0], 20))
                    .comment("two networks")
                    .verdict(Verdict::Jump("side".into())),
            );
            batch.add_rule(
                &rule
                    .clone()
                    .test(Field::Ipv6Source, Test::is("fd00::1".parse::<std::net::Ipv6Addr>().unwrap()))
                    .drop(),
            );
            batch.add_rule(
                &rule.clone().test(Field::InputInterface, Test::Is(Value::InterfaceName("lo".into()))).accept(),
            );
            batch.add_rule(&rule.clone().test(Field::InputInterface, Test::StartsWith("veth".into())).drop());
            batch
                .add_rule(&rule.clone().test(Field::InputInterfaceIndex, Test::IsNot(Value::InterfaceIndex(1))).drop());
            batch.add_rule(&rule.clone().test(Field::Mark, Test::Is(Value::Mark(0x2a))).verdict(Verdict::Return));
            batch.add_rule(&tcp().test(Field::DestinationPort, Test::is(Value::Port(22))).accept());
            batch
                .add_rule(&tcp().test(Field::SourcePort, Test::Between(Value::Port(1000), Value::Port(2000))).accept());
            batch.add_rule(&tcp().test(Field::SourcePort, Test::NotBetween(Value::Port(1), Value::Port(9))).accept());
            batch.add_rule(
                &rule
                    .clone()
                    .test(Field::Protocol, Test::is(Protocol::ICMP))
                    .test(Field::IcmpType, Test::is(Value::IcmpType(8)))
                    .accept(),
            );
            let limit = Limit { rate: 10, unit: Duration::from_secs(1), burst: 5, over: false };
            batch.add_rule(&rule.clone().limit(limit).log(Log { prefix: "seen: ".into(), group: None }));
            batch.add_rule(
                &rule.clone().limit(Limit { rate: 3, unit: Duration::from_secs(60), over: true, ..limit }).drop(),
            );
            batch.add_rule(&rule.clone().log(Log { prefix: "to group ".into(), group: Some(7) }));
            batch.add_rule(&rule.clone().statement(Statement::Quota { bytes: 1 << 20, until: true }).accept());
            batch.add_rule(&tcp().reject(Reject::TcpReset));
            batch.add_rule(&rule.clone().reject(Reject::AdministrativelyProhibited));
            batch.insert_rule(&rule.clone().test(Field::SourceType, Test::is(AddressType::MULTICAST)).drop());
            batch.add_rule(
                &Rule::new(&prerouting).statement(Statement::SetMark(7)).verdict(Verdict::Goto("side".into())),
            );
            batch.add_rule(
                &Rule::new(&prerouting)
                    .test(Field::Protocol, Test::is(Protocol::TCP))
                    .statement(Statement::TransparentProxy { family: Family::Ip, port: 15001 }),
            );
            let translate = Rule::new(&translate).test(Field::Protocol, Test::is(Protocol::TCP));
            batch.add_rule(
                &translate
                    .clone()
                    .test(Field::DestinationType, Test::is(AddressType::LOCAL))
                    .destination_nat(Ipv4Addr::new(10, 0, 0, 9).into(), Some(80)),
            );
            batch.add_rule(
                &translate.clone().test(Field::SocketUser, Test::Is(Value::UserId(1000))).redirect(Some(15001)),
            );
            batch.add_rule(
                &Rule::new(&leave)
                    .test(Field::Ipv4Source, Test::is([10, 0, 0, 9]))
                    .test(Field::ConntrackStatus, Test::any_bit(ConntrackStatus::DESTINATION_NAT))
                    .masquerade(),
            );
            batch.add_rule(
                &Rule::new(&leave).statement(Statement::SourceNat { address: Ipv4Addr::new(1, 2, 3, 4).into() }),
            );
        })
        .unwrap();
        let expected = r#"table inet wall {
    comment "layout 1"
    chain side {
    }

    chain input {
        type filter hook input priority filter; policy drop;
        fib saddr type multicast drop
        ct state established,related counter packets 0 bytes 0 accept
        ct state ! new drop
        ip saddr 10.0.0.0/8 ip daddr != 10.1.0.0/20 jump side comment "two networks"
        ip6 saddr fd00::1 drop
        iifname "lo" accept
        iifname "veth*" drop
        iif != "lo" drop
        meta mark 0x0000002a return
        tcp dport 22 accept
        tcp sport 1000-2000 accept
        tcp sport != 1-9 accept
        icmp type echo-request accept
        limit rate 10/second log prefix "seen: "
        limit rate over 3/minute drop
        log prefix "to group " group 7
        quota 1 mbytes accept
        meta l4proto tcp reject with tcp reset
        reject with icmpx admin-prohibited
    }

    chain early {
        type filter hook prerouting priority mangle; policy accept;
        meta mark set 0x00000007 goto side
        meta l4proto tcp tproxy ip to :15001
    }

    chain translate {
        type nat hook output priority dstnat; policy accept;
        meta l4proto tcp fib daddr type local dnat ip to 10.0.0.9:80
        meta l4proto tcp meta skuid 1000 redirect to :15001
    }

    chain leave {
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr 10.0.0.9 ct status dnat masquerade
        snat ip to 1.2.3.4
    }
"#;
        // How nft words priorities differs between its versions.
        let listed = listed();
        for line in expected.lines().filter(|line| !line.contains("priority")) {
            assert!(listed.contains(line.trim_end()), "missing `{line}` in\n{listed}");
        }
        assert!(!listed.contains('@') && !listed.contains("unknown"), "raw expressions in\n{listed}");
    });
}

#[test]
fn refusals_answer_in_the_words_of_each_family() {
    in_private_network(|| {
        for (family, code) in [(Family::Ip, "icmp host-unreachable"), (Family::Ip6, "icmpv6 addr-unreachable")] {
            let table = Table::new(family, "t");
            let chain = Chain::base(&table, "c", ChainType::Filter, Hook::Input, Priority::FILTER);
            commit(|batch| {
                batch.add_table(&table);
                batch.add_chain(&chain);
                batch.add_rule(&Rule::new(&chain).reject(Reject::HostUnreachable));
            })
            .unwrap();
            assert!(listed().contains(code), "{}", listed());
        }
    });
}

#[test]
fn sets_and_maps_of_every_shape_show_their_elements() {
    in_private_network(|| {
        let table = Table::new(Family::Ip, "shapes");
        let nat = Chain::base(&table, "nat", ChainType::Nat, Hook::Prerouting, Priority::DESTINATION_NAT);
        let ports =
            Set::map(&table, "ports", [Kind::Protocol, Kind::Ipv4Address, Kind::Port], [Kind::Ipv4Address, Kind::Port]);
        let networks = Set::new(&table, "networks", [Kind::Ipv4Address]).with_intervals();
        let pairs = Set::new(&table, "pairs", [Kind::Ipv4Address, Kind::Port]).with_intervals();
        let timed = Set::new(&table, "timed", [Kind::Ipv4Address]).with_timeouts();
        let names = Set::new(&table, "names", [Kind::InterfaceName]);
        let verdicts = Set::verdict_map(&table, "verdicts", [Kind::Mark]);
        commit(|batch| {
            batch.add_table(&table);
            batch.add_chain(&nat);
            for set in [&ports, &networks, &pairs, &timed, &names, &verdicts] {
                batch.add_set(set);
            }
            let entry = Element::new([Protocol::TCP.into(), Ipv4Addr::LOCALHOST.into(), Value::Port(8080)]);
            batch.create_elements(&ports, &[entry.to([[10, 89, 0, 2].into(), Value::Port(80)])]);
            batch.add_elements(
                &networks,
                &[
                    Element::network([10, 0, 0, 0], 8),
                    Element::network([192, 168, 1, 1], 32),
                    Element::network([240, 0, 0, 0], 4),
                ],
            );
            let from = vec![[10, 0, 0, 1].into(), Value::Port(80)];
            let to = vec![[10, 0, 0, 9].into(), Value::Port(90)];
            batch.add_elements(&pairs, &[Element { end: Some(to), ..Element::new(from) }]);
            batch.add_elements(&timed, &[Element::new([[1, 1, 1, 1].into()]).timeout(Duration::from_secs(3600))]);
            batch.add_elements(&names, &[Element::new([Value::InterfaceName("eth0".into())])]);
            batch.add_elements(&verdicts, &[Element::new([Value::Mark(5)]).to_verdict(Verdict::Drop)]);
            let fields = [Field::Protocol, Field::Ipv4Destination, Field::DestinationPort];
            batch.add_rule(&Rule::new(&nat).destination_nat_map(fields, &ports));
            batch.add_rule(&Rule::new(&nat).in_set([Field::Ipv4Source], &networks).counter());
            batch.add_rule(&Rule::new(&nat).not_in_set([Field::InputInterface], &names).counter());
            batch.add_rule(&Rule::new(&nat).verdict_of([Field::Mark], &verdicts));
        })
        .unwrap();
        let listed = listed();
        for line in [
            "type inet_proto . ipv4_addr . inet_service : ipv4_addr . inet_service",
            "elements = { tcp . 127.0.0.1 . 8080 : 10.89.0.2 . 80 }",
            "elements = { 10.0.0.0/8, 192.168.1.1,",
            "240.0.0.0/4 }",
            "elements = { 10.0.0.1-10.0.0.9 . 80-90 }",
            "1.1.1.1 timeout 1h",
            "elements = { \"eth0\" }",
            "elements = { 0x00000005 : drop }",
            "dnat ip to meta l4proto . ip daddr . th dport map @ports",
            "ip saddr @networks counter",
            "iifname != @names counter",
            "meta mark vmap @verdicts",
        ] {
            assert!(listed.contains(line), "missing `{line}` in\n{listed}");
        }
        // The same elements list back.
        let netfilter = Netfilter::open().unwrap();
        let mut networks = netfilter.elements(&networks).unwrap();
        networks.sort_by(|a, b| a.key.cmp(&b.key));
        assert_eq!(networks[0], Element::network([10, 0, 0, 0], 8));
        assert_eq!(networks[1], Element::new([[192, 168, 1, 1].into()]));
        assert_eq!(networks[2], Element::network([240, 0, 0, 0], 4));
        let pair = netfilter.elements(&pairs).unwrap().remove(0);
        assert_eq!(pair.end, Some(vec![[10, 0, 0, 9].into(), Value::Port(90)]));
        let port = netfilter.elements(&ports).unwrap().remove(0);
        assert_eq!(port.target, Target::Values(vec![[10, 89, 0, 2].into(), Value::Port(80)]));
        assert_eq!(netfilter.elements(&verdicts).unwrap()[0].target, Target::Verdict(Verdict::Drop));
    });
}

#[test]
fn a_refused_change_undoes_the_whole_batch_and_is_named() {
    in_private_network(|| {
        let table = Table::new(Family::Ip, "half");
        let error = commit(|batch| {
            batch.add_table(&table);
            batch.add_chain(&Chain::new(&table, "fine"));
            batch.add_rule(&Rule::new(&Chain::new(&table, "absent")).drop());
            batch.add_chain(&Chain::new(&table, "also fine"));
        })
        .unwrap_err();
        assert_eq!(error.kind(), Some(std::io::ErrorKind::NotFound));
        assert_eq!(error.to_string(), "the kernel refused to add a rule to chain ip half absent");
        assert_eq!(listed(), "");
        // Also when the last change is the refused one.
        let error = commit(|batch| batch.delete_table(&table)).unwrap_err();
        assert_eq!(error.to_string(), "the kernel refused to delete table ip half");
    });
}

#[test]
fn an_element_taken_by_another_is_refused() {
    in_private_network(|| {
        let table = Table::new(Family::Ip, "t");
        let map = Set::map(&table, "m", [Kind::Port], [Kind::Port]);
        let entry = |to: u16| [Element::new([Value::Port(1)]).to([Value::Port(to)])];
        commit(|batch| {
            batch.add_table(&table);
            batch.add_set(&map);
            batch.add_elements(&map, &entry(2));
        })
        .unwrap();
        commit(|batch| batch.add_elements(&map, &entry(2))).unwrap();
        let taken = commit(|batch| batch.add_elements(&map, &entry(3))).unwrap_err();
        assert_eq!(taken.kind(), Some(std::io::ErrorKind::AlreadyExists));
        assert!(commit(|batch| batch.create_elements(&map, &entry(2))).is_err());
    });
}

#[test]
fn large_batches_go_in_one_commit() {
    in_private_network(|| {
        let table = Table::new(Family::Ip, "many");
        let set = Set::new(&table, "s", [Kind::Ipv4Address]);
        // More than a socket sends by default (net.core.wmem_default).
        let elements: Vec<_> =
            (0..80_000u32).map(|number| Element::new([Ipv4Addr::from(0x0a00_0000 + number).into()])).collect();
        commit(|batch| {
            batch.add_table(&table);
            batch.add_set(&set);
            batch.add_elements(&set, &elements);
        })
        .unwrap();
        let netfilter = Netfilter::open().unwrap();
        assert_eq!(netfilter.elements(&set).unwrap().len(), 80_000);
        commit(|batch| batch.delete_elements(&set, &elements[1..])).unwrap();
        assert_eq!(netfilter.elements(&set).unwrap(), &elements[..1]);
    });
}
