//! What exists lists back.

use nft::*;

use crate::world::{in_private_network, run};

#[test]
fn tables_chains_rules_and_sets_list_back() {
    in_private_network(|| {
        let netfilter = Netfilter::open().unwrap();
        assert_eq!(netfilter.tables(Family::Ip).unwrap(), []);
        run("nft 'add table ip other { comment \"by nft\"; }; add set ip other named { type ipv4_addr; }'");
        let table = Table::new(Family::Ip, "ours").comment("layout 3");
        let chain = Chain::base(&table, "c", ChainType::Filter, Hook::Forward, Priority(-17)).policy(Policy::Drop);
        let mut batch = Batch::new();
        batch.add_table(&table);
        batch.add_chain(&chain);
        batch.add_rule(&Rule::new(&chain).counter().comment("first"));
        batch.add_rule(&Rule::new(&chain).accept());
        netfilter.commit(&batch).unwrap();

        let tables = netfilter.tables(Family::Ip).unwrap();
        assert_eq!(tables[0].table, Table::new(Family::Ip, "other").comment("by nft"));
        assert_eq!(tables[1].table, table);
        assert_eq!(netfilter.tables(Family::Ip6).unwrap(), []);
        assert_eq!(netfilter.chains(Family::Ip).unwrap(), [ChainInfo { chain: chain.clone() }]);
        assert_eq!(netfilter.sets(&tables[0].table).unwrap(), [SetInfo { name: "named".into() }]);
        assert_eq!(netfilter.sets(&Table::new(Family::Ip, "absent")).unwrap(), []);
        assert_eq!(netfilter.rules(&Chain::new(&table, "absent")).unwrap(), []);

        let rules = netfilter.rules(&chain).unwrap();
        assert_eq!(rules.len(), 2);
        assert_eq!(rules[0].comment.as_deref(), Some("first"));
        let mut batch = Batch::new();
        batch.delete_rule(&chain, rules[0].handle);
        netfilter.commit(&batch).unwrap();
        assert_eq!(netfilter.rules(&chain).unwrap(), rules[1..]);

        let absent = Set::new(&table, "absent", [Kind::Port]);
        assert!(netfilter.elements(&absent).unwrap_err().is_not_found());
    });
}

#[test]
fn deleting_and_making_a_table_again_in_one_batch_replaces_it() {
    in_private_network(|| {
        let netfilter = Netfilter::open().unwrap();
        let table = Table::new(Family::Ip, "t");
        let old = Chain::new(&table, "old");
        let new = Chain::new(&table, "new");
        for chain in [&old, &new] {
            let mut batch = Batch::new();
            batch.add_table(&table);
            batch.delete_table(&table);
            batch.add_table(&table);
            batch.add_chain(chain);
            netfilter.commit(&batch).unwrap();
            assert_eq!(netfilter.chains(Family::Ip).unwrap(), [ChainInfo { chain: chain.clone() }]);
        }
    });
}
