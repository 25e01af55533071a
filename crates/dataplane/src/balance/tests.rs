use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn entries(count: usize) -> Vec<Entry> {
    (0..count).map(|n| Entry { key: hash(format!("10.0.0.{n}:80").as_bytes()), weight: 1 }).collect()
}

type Make = fn(&[Entry]) -> Table;
const MAKES: [(&str, Make); 2] = [("ring", Table::ring), ("maglev", Table::maglev)];

fn owners(table: &Table, keys: usize) -> Vec<usize> {
    (0..keys).map(|n| table.walk(hash(format!("user-{n}").as_bytes())).next().unwrap()).collect()
}

fn shares(owners: &[usize]) -> BTreeMap<usize, f64> {
    let mut shares = BTreeMap::new();
    owners.iter().for_each(|owner| *shares.entry(*owner).or_insert(0.0) += 1.0 / owners.len() as f64);
    shares
}

#[test]
fn keys_are_spread_evenly() {
    for (name, make) in MAKES {
        for count in [2, 5, 16] {
            let shares = shares(&owners(&make(&entries(count)), 50_000));
            let fair = 1.0 / count as f64;
            // A ring's shares vary by about 1/sqrt(points); Maglev's by a hundredth, and chance adds its own.
            let slack = if name == "ring" { 0.30 } else { 0.08 };
            for (endpoint, share) in &shares {
                assert!((share / fair - 1.0).abs() < slack, "{name} {count}: {endpoint} has {share}");
            }
            assert_eq!(shares.len(), count);
        }
    }
}

#[test]
fn keys_are_spread_by_weight() {
    for (name, make) in MAKES {
        let mut entries = entries(4);
        for (entry, weight) in entries.iter_mut().zip([1, 2, 5, 0]) {
            entry.weight = weight;
        }
        let shares = shares(&owners(&make(&entries), 50_000));
        for (endpoint, wanted) in [(0, 0.125), (1, 0.25), (2, 0.625)] {
            assert!((shares[&endpoint] / wanted - 1.0).abs() < 0.25, "{name}: {shares:?}");
        }
        assert_eq!(shares.get(&3), None);
    }
}

#[test]
fn who_leaves_takes_only_its_own_keys_along() {
    for (name, make) in MAKES {
        let before = entries(10);
        let mut after = before.clone();
        after.remove(3);
        let (old, new) = (owners(&make(&before), 20_000), owners(&make(&after), 20_000));
        let back = |index: usize| if index >= 3 { index + 1 } else { index };
        let moved = old.iter().zip(&new).filter(|(old, new)| **old != 3 && **old != back(**new)).count();
        // A ring moves nothing else at all; Maglev a little, for evenness.
        let most = if name == "ring" { 0 } else { 20_000 / 20 };
        assert!(moved <= most, "{name}: {moved} of 20000 moved without need");
    }
}

#[test]
fn the_order_of_the_list_does_not_matter() {
    for (name, make) in MAKES {
        let forward = entries(7);
        let backward: Vec<Entry> = forward.iter().rev().copied().collect();
        let (one, other) = (owners(&make(&forward), 5000), owners(&make(&backward), 5000));
        assert!(one.iter().zip(&other).all(|(one, other)| *one == 6 - other), "{name}");
    }
}

#[test]
fn a_walk_meets_everybody() {
    for (_, make) in MAKES {
        let table = make(&entries(5));
        let met: std::collections::BTreeSet<_> = table.walk(hash(b"x")).collect();
        assert_eq!(met, (0..5).collect());
        assert_eq!(make(&[]).walk(7).next(), None);
    }
}

#[test]
fn hashes_are_the_same_everywhere() {
    // Other replicas, and this one after an update, must agree.
    assert_eq!((hash(b""), hash(b"a")), (0xf52a_15e9_a9b5_e89b, 0x02c0_bdbf_4814_20f8));
}

#[test]
fn own_zone_first() {
    assert_eq!(near_share(3, 3, 70), 100);
    assert_eq!(near_share(7, 10, 70), 100);
    assert_eq!(near_share(5, 10, 70), 71);
    assert_eq!(near_share(1, 10, 100), 10);
    assert_eq!((near_share(0, 10, 70), near_share(0, 0, 70)), (0, 0));
}

#[test]
fn a_cold_endpoint_warms_up() {
    assert!((warmth(0, 100) - 0.1).abs() < 1e-9);
    assert!((warmth(50, 100) - 0.5).abs() < 1e-9);
    assert!((warmth(100, 100) - 1.0).abs() < 1e-9 && (warmth(0, 0) - 1.0).abs() < 1e-9);
}

proptest! {
    #[test]
    fn a_subset_hardly_changes(count in 2_usize..60, size in 1_usize..20, who: u64, gone: prop::sample::Index) {
        let all: Vec<u64> = (0..count as u64).map(|n| mix(n + 1)).collect();
        let chosen = subset(&all, who, size);
        prop_assert_eq!(chosen.len(), size.min(count));
        prop_assert!(chosen.is_sorted());
        let gone = gone.index(count);
        let mut fewer = all.clone();
        fewer.remove(gone);
        let keys = |list: &[u64], chosen: &[usize]| chosen.iter().map(|index| list[*index]).collect::<Vec<_>>();
        let (before, after) = (keys(&all, &chosen), keys(&fewer, &subset(&fewer, who, size)));
        let lost = before.iter().filter(|key| !after.contains(key)).count();
        prop_assert!(lost <= 1, "{} were lost", lost);
        prop_assert!(lost == 0 || before.contains(&all[gone]));
    }
}

#[test]
fn subsets_of_many_use_everybody() {
    let all: Vec<u64> = (0..20).map(|n| mix(n + 1)).collect();
    let mut load = [0; 20];
    for who in 0..400 {
        subset(&all, who, 5).into_iter().for_each(|index| load[index] += 1);
    }
    assert!(load.iter().all(|count| (60..140).contains(count)), "{load:?}");
}
