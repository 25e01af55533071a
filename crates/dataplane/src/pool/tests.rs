use std::collections::BTreeMap;
use std::path::PathBuf;

use super::*;
use crate::backend::{Address, Passive, Settings};

fn pool(balance: Balance, count: usize) -> Pool {
    let addresses = (0..count).map(|n| (Address::Unix(PathBuf::from(format!("/{n}"))), n.to_string())).collect();
    let passive = Some(Passive { failures: 2, ejection: SECOND, most_percent: 50 });
    let settings = Settings {
        balance,
        connect_timeout: SECOND,
        idle_timeout: SECOND,
        idle_most: 8,
        requests_most: 2,
        retry_percent: 20,
        passive,
        tls: None,
        http2: false,
        announce: None,
    };
    Pool::new(Arc::new(Backend::new("b", addresses, settings, 1, String::new())))
}

#[test]
fn round_robin_is_even_and_avoids_what_failed() {
    let (pool, mut dice) = (pool(Balance::RoundRobin, 3), Dice::new(7));
    let picked: Vec<_> = (0..6).map(|_| pool.pick(0, None, &mut dice).unwrap()).collect();
    assert_eq!(picked, [0, 1, 2, 0, 1, 2]);
    assert!((0..9).all(|_| pool.pick(0, Some(1), &mut dice) != Some(1)));
}

#[test]
fn ejection_has_a_floor_and_an_end() {
    let (pool, mut dice) = (pool(Balance::RoundRobin, 3), Dice::new(7));
    for endpoint in [0, 0, 1, 1] {
        pool.backend.note(endpoint, false, 5);
    }
    // Half of three is one: the second is not ejected.
    let seen: std::collections::BTreeSet<_> = (0..6).map(|_| pool.pick(6, None, &mut dice).unwrap()).collect();
    assert_eq!(seen, [1, 2].into());
    let seen: std::collections::BTreeSet<_> = (0..6).map(|_| pool.pick(2 * SECOND, None, &mut dice).unwrap()).collect();
    assert_eq!(seen, [0, 1, 2].into());
    // When all are down all are tried.
    pool.backend.endpoints.iter().for_each(|endpoint| endpoint.health.set_down(true));
    assert!(pool.pick(0, None, &mut dice).is_some());
}

#[test]
fn least_request_and_ewma_prefer_the_less_loaded() {
    let (least, mut dice) = (pool(Balance::LeastRequest, 3), Dice::new(7));
    least.members[0].active.set(3);
    least.members[1].active.set(1);
    least.members[2].active.set(2);
    assert!((0..5).all(|_| least.pick(0, None, &mut dice) == Some(1)));

    let ewma = pool(Balance::PeakEwma, 3);
    ewma.observe(0, 50_000_000, 1);
    ewma.observe(1, 1_000_000, 1);
    ewma.observe(2, 1_000_000, 1);
    let mut counts = BTreeMap::new();
    for _ in 0..300 {
        *counts.entry(ewma.pick(2, None, &mut dice).unwrap()).or_insert(0) += 1;
    }
    assert_eq!(counts.get(&0), None, "{counts:?}");
    assert!(counts[&1] > 50 && counts[&2] > 50, "{counts:?}");
}

#[test]
fn retries_are_paid_for() {
    let pool = pool(Balance::RoundRobin, 1);
    let mut allowed = (0..100).filter(|_| pool.withdraw(1)).count();
    assert_eq!(allowed, 10);
    (0..50).for_each(|_| pool.deposit());
    allowed = (0..100).filter(|_| pool.withdraw(1)).count();
    assert_eq!(allowed, 10);
    assert_eq!((0..100).filter(|_| pool.withdraw(SECOND / 2)).count(), 5);
}

#[test]
fn the_bound_of_requests() {
    let backend = Arc::clone(&pool(Balance::RoundRobin, 1).backend);
    assert!(backend.enter() && backend.enter() && !backend.enter());
    backend.leave();
    assert!(backend.enter());
}
