use std::collections::BTreeMap;
use std::path::PathBuf;

use super::*;
use crate::backend::{Address, Found, Passive, Settings};
use crate::slab::Kind;

fn found(n: usize) -> Found {
    Found::new(Address::Unix(PathBuf::from(format!("/{n}"))), &n.to_string())
}

fn settings(balance: Balance) -> Settings {
    let passive = Some(Passive { failures: 2, ejection: SECOND, most_percent: 50 });
    Settings { balance, requests_most: 2, passive, ..Settings::default() }
}

fn with(settings: Settings, found: &[Found]) -> Pool {
    Pool::new(Arc::new(Backend::new("b", found, settings, 1, String::new())))
}

fn pool(balance: Balance, count: usize) -> Pool {
    with(settings(balance), &(0..count).map(found).collect::<Vec<_>>())
}

fn at(pool: &Pool, now: u64, wish: Wish, dice: &mut Dice) -> Option<usize> {
    match pool.pick(now, &wish, dice) {
        Pick::At(index) => Some(index),
        _ => None,
    }
}

fn any(pool: &Pool, now: u64, dice: &mut Dice) -> usize {
    at(pool, now, Wish::default(), dice).unwrap()
}

#[test]
fn round_robin_is_even_and_avoids_what_failed() {
    let (pool, mut dice) = (pool(Balance::RoundRobin, 3), Dice::new(7));
    let picked: Vec<_> = (0..6).map(|_| any(&pool, 0, &mut dice)).collect();
    assert_eq!(picked, [0, 1, 2, 0, 1, 2]);
    // A second try is nobody's turn.
    assert_eq!(at(&pool, 0, Wish { avoid: Some(2), ..Wish::default() }, &mut dice), Some(0));
    assert_eq!(any(&pool, 0, &mut dice), 0);
    assert!((0..9).all(|_| at(&pool, 0, Wish { avoid: Some(1), ..Wish::default() }, &mut dice) != Some(1)));
}

#[test]
fn ejection_has_a_floor_and_an_end() {
    let (pool, mut dice) = (pool(Balance::RoundRobin, 3), Dice::new(7));
    for endpoint in [0, 0, 1, 1] {
        pool.backend.note(endpoint, false, 5);
    }
    // Half of three is one: the second is not ejected.
    let seen: std::collections::BTreeSet<_> = (0..6).map(|_| any(&pool, 6, &mut dice)).collect();
    assert_eq!(seen, [1, 2].into());
    let seen: std::collections::BTreeSet<_> = (0..6).map(|_| any(&pool, 2 * SECOND, &mut dice)).collect();
    assert_eq!(seen, [0, 1, 2].into());
    // When all are down all are tried.
    pool.backend.endpoints.iter().for_each(|endpoint| endpoint.health.set_down(true, 7));
    assert!(at(&pool, 0, Wish::default(), &mut dice).is_some());
}

/// One comes back before its time is over, and then the other one fails: its second tries find that out.
#[test]
fn an_answer_ends_an_ejection() {
    let (pool, mut dice) = (pool(Balance::RoundRobin, 2), Dice::new(7));
    (0..2).for_each(|_| pool.backend.note(0, false, 5));
    (0..2).for_each(|_| pool.backend.note(1, false, 6));
    assert_eq!((any(&pool, 7, &mut dice), any(&pool, 7, &mut dice)), (1, 1), "no more than half are left out");
    let second = Wish { avoid: Some(1), ..Wish::default() };
    assert_eq!(at(&pool, 8, second, &mut dice), Some(0));
    pool.backend.note(0, true, 8);
    pool.backend.note(1, false, 9);
    assert_eq!((any(&pool, 10, &mut dice), any(&pool, 10, &mut dice)), (0, 0));
}

#[test]
fn least_request_and_ewma_prefer_the_less_loaded() {
    let (least, mut dice) = (pool(Balance::LeastRequest, 3), Dice::new(7));
    least.members[0].active.set(3);
    least.members[1].active.set(1);
    least.members[2].active.set(2);
    assert!((0..5).all(|_| any(&least, 0, &mut dice) == 1));

    let ewma = pool(Balance::PeakEwma, 3);
    ewma.observe(0, 50_000_000, 1);
    ewma.observe(1, 1_000_000, 1);
    ewma.observe(2, 1_000_000, 1);
    let mut counts = BTreeMap::new();
    for _ in 0..300 {
        *counts.entry(any(&ewma, 2, &mut dice)).or_insert(0) += 1;
    }
    assert_eq!(counts.get(&0), None, "{counts:?}");
    assert!(counts[&1] > 50 && counts[&2] > 50, "{counts:?}");
}

/// How often each of `count` endpoints is picked, of so many times.
fn shares(pool: &Pool, count: usize, times: usize) -> Vec<usize> {
    let (mut dice, mut picked) = (Dice::new(7), vec![0; count]);
    for key in 0..times as u64 {
        let wish = Wish { key: Some(crate::balance::mix(key)), ..Wish::default() };
        picked[at(pool, 5, wish, &mut dice).unwrap()] += 1;
    }
    picked
}

const ALL: [Balance; 5] =
    [Balance::RoundRobin, Balance::LeastRequest, Balance::PeakEwma, Balance::Ring, Balance::Maglev];

#[test]
fn who_is_left_out_burdens_all_others_alike() {
    for balance in [Balance::RoundRobin, Balance::LeastRequest] {
        let pool = pool(balance, 4);
        pool.backend.endpoints[1].health.set_down(true, 0);
        assert_eq!(shares(&pool, 4, 300), [100, 0, 100, 100], "{balance:?}");
    }
}

#[test]
fn when_nobody_is_well_all_are_asked() {
    let weighted = |balance| {
        let found: Vec<Found> = (0..3).zip([2, 2, 1]).map(|(n, weight)| Found { weight, ..found(n) }).collect();
        with(settings(balance), &found)
    };
    for balance in ALL {
        // With nothing in flight the least load for its weight is always a heavy one's.
        let by_load = matches!(balance, Balance::LeastRequest | Balance::PeakEwma);
        let uneven = Some(weighted(balance)).filter(|_| !by_load);
        for pool in std::iter::once(pool(balance, 3)).chain(uneven) {
            pool.backend.endpoints.iter().for_each(|endpoint| endpoint.health.set_down(true, 0));
            let shares = shares(&pool, 3, 300);
            assert!(shares.iter().all(|share| (20..200).contains(share)), "{balance:?}: {shares:?}");
        }
    }
}

#[test]
fn who_fails_is_left_out_as_far_as_the_floor_allows() {
    for (count, percent, out) in [(1, 50, 0), (1, 100, 1), (2, 50, 1), (3, 50, 1), (3, 67, 2), (3, 100, 3), (4, 0, 0)] {
        let passive = Passive { failures: 1, ejection: SECOND, most_percent: percent };
        let found: Vec<Found> = (0..count).map(found).collect();
        let pool = with(Settings { passive: Some(passive), ..settings(Balance::RoundRobin) }, &found);
        for _ in 0..3 {
            (0..count).for_each(|endpoint| pool.backend.note(endpoint, false, 5));
        }
        let ejected = pool.backend.endpoints.iter().filter(|endpoint| endpoint.health.is_ejected(5)).count();
        assert_eq!(ejected, out, "{percent} % of {count}");
    }
}

#[test]
fn who_has_never_answered_is_not_asked_by_everybody() {
    let (ewma, mut dice) = (pool(Balance::PeakEwma, 3), Dice::new(7));
    ewma.observe(1, 1_000_000, 1);
    ewma.observe(2, 1_000_000, 1);
    // The newcomer has one request, and is silent.
    for now in [2, SECOND, 100 * SECOND] {
        ewma.members[0].active.set(0);
        assert!((0..50).any(|_| any(&ewma, now, &mut dice) == 0), "one is asked of him");
        ewma.members[0].active.set(1);
        assert!((0..50).all(|_| any(&ewma, now, &mut dice) != 0), "{now}");
    }
    // If nobody has ever answered they share what comes.
    let ewma = pool(Balance::PeakEwma, 2);
    ewma.members.iter().for_each(|member| member.active.set(5));
    ewma.members[0].active.set(6);
    assert!((0..50).all(|_| any(&ewma, 2, &mut dice) == 1));
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
    // A pause makes no more than a second's, and a long run of successes pays for a bounded trouble.
    assert_eq!((0..100).filter(|_| pool.withdraw(1000 * SECOND)).count(), 10);
    (0..100_000).for_each(|_| pool.deposit());
    let next = pool.next(Arc::new(pool.backend.with(&[found(0), found(1)])));
    assert_eq!((0..5000).filter(|n| if n % 2 == 0 { &pool } else { &next }.withdraw(1000 * SECOND)).count(), 1000);
}

#[test]
fn the_bound_of_requests() {
    let backend = Arc::clone(&pool(Balance::RoundRobin, 1).backend);
    assert!(backend.is_bounded());
    assert!(backend.enter() && backend.enter() && !backend.enter());
    backend.leave();
    assert!(backend.enter());
}

#[test]
fn weights_are_kept_smoothly() {
    let weighted: Vec<Found> = (0..3).zip([5, 1, 0]).map(|(n, weight)| Found { weight, ..found(n) }).collect();
    let (pool, mut dice) = (with(settings(Balance::RoundRobin), &weighted), Dice::new(7));
    let picked: Vec<_> = (0..6).map(|_| any(&pool, 0, &mut dice)).collect();
    assert_eq!(picked, [0, 0, 0, 1, 0, 0], "the lighter one in between, not at the end");
    // Weight 0 is for who is stuck to it, and for when nobody else is there.
    assert_eq!(at(&pool, 0, Wish { stuck: Some(2), ..Wish::default() }, &mut dice), Some(2));
    for balance in [Balance::LeastRequest, Balance::PeakEwma, Balance::Ring, Balance::Maglev] {
        let pool = with(settings(balance), &weighted);
        assert!((0..50).all(|_| any(&pool, 0, &mut dice) != 2), "{balance:?}");
    }
}

#[test]
fn a_key_has_its_endpoint_and_another_when_that_is_ill() {
    let mut dice = Dice::new(7);
    for balance in [Balance::Ring, Balance::Maglev] {
        let pool = pool(balance, 5);
        for key in (1..200).map(crate::balance::mix) {
            let wish = Wish { key: Some(key), ..Wish::default() };
            let own = at(&pool, 0, wish, &mut dice).unwrap();
            assert_eq!(at(&pool, 0, wish, &mut dice), Some(own));
            pool.backend.endpoints[own].health.set_down(true, 0);
            let other = at(&pool, 0, wish, &mut dice).unwrap();
            assert!(other != own && at(&pool, 0, wish, &mut dice) == Some(other));
            pool.backend.endpoints[own].health.set_down(false, 0);
        }
    }
}

#[test]
fn the_own_zone_first_and_overflow_when_it_is_ill() {
    let zoned: Vec<Found> = (0..8).map(|n| Found { near: n < 4, ..found(n) }).collect();
    let (pool, mut dice) = (with(settings(Balance::RoundRobin), &zoned), Dice::new(7));
    assert!((0..40).all(|_| any(&pool, 0, &mut dice) < 4));
    pool.backend.endpoints[..2].iter().for_each(|endpoint| endpoint.health.set_down(true, 0));
    let near = (0..1000).filter(|_| any(&pool, 0, &mut dice) < 4).count();
    // Half are good, seventy of a hundred would be enough: 71 stay.
    assert!((660..760).contains(&near), "{near}");
    pool.backend.endpoints[..4].iter().for_each(|endpoint| endpoint.health.set_down(true, 0));
    assert!((0..40).all(|_| any(&pool, 0, &mut dice) >= 4));
}

#[test]
fn who_is_new_warms_up() {
    for balance in [Balance::RoundRobin, Balance::LeastRequest, Balance::PeakEwma] {
        let mut dice = Dice::new(7);
        let settings = Settings { slow_start: 10 * SECOND, ..settings(balance) };
        let pool = with(settings, &[found(0), found(1)]);
        pool.backend.endpoints[1].health.set_down(true, SECOND);
        pool.backend.endpoints[1].health.set_down(false, SECOND);
        let share = |now, dice: &mut Dice| (0..1000).filter(|_| any(&pool, now, dice) == 1).count();
        let (cold, warm) = (share(2 * SECOND, &mut dice), share(20 * SECOND, &mut dice));
        if balance == Balance::RoundRobin {
            assert!((80..110).contains(&cold) && (495..506).contains(&warm), "{cold} {warm}");
        } else {
            assert!(cold < 200, "{balance:?} {cold}");
        }
    }
}

#[test]
fn panic_believes_no_health() {
    let settings = Settings { panic_percent: 50, ..settings(Balance::RoundRobin) };
    let (pool, mut dice) = (with(settings, &(0..4).map(found).collect::<Vec<_>>()), Dice::new(7));
    pool.backend.endpoints[..2].iter().for_each(|endpoint| endpoint.health.set_down(true, 0));
    assert!((0..40).all(|_| any(&pool, 0, &mut dice) >= 2));
    pool.backend.endpoints[2].health.set_down(true, 0);
    let seen: std::collections::BTreeSet<_> = (0..40).map(|_| any(&pool, 0, &mut dice)).collect();
    assert_eq!(seen.len(), 4);
}

#[test]
fn a_full_endpoint_is_passed_over() {
    use crate::backend::Limits;
    let limits = Limits { endpoint_requests: 1, ..Limits::default() };
    let (pool, mut dice) =
        (with(Settings { limits, ..settings(Balance::RoundRobin) }, &[found(0), found(1)]), Dice::new(7));
    pool.backend.endpoints[0].counters[0].active.add(1);
    assert!((0..5).all(|_| any(&pool, 0, &mut dice) == 1));
    pool.backend.endpoints[1].counters[0].active.add(1);
    assert_eq!(pool.pick(0, &Wish::default(), &mut dice), Pick::Full);
}

#[test]
fn who_stays_in_the_list_stays_the_same() {
    let old = pool(Balance::PeakEwma, 3);
    old.backend.endpoints[2].health.set_down(true, 0);
    old.members[2].idle.borrow_mut().push(Token::new(Kind::Up, 0, 7));
    let new = old.next(Arc::new(old.backend.with(&[found(2), found(5)])));
    assert!(Arc::ptr_eq(&new.backend.endpoints[0], &old.backend.endpoints[2]));
    assert!(Rc::ptr_eq(&new.members[0], &old.members[2]) && new.backend.endpoints[0].health.is_down());
    assert!(new.members[1].idle.borrow().is_empty());
    assert_eq!(new.backend.common.endpoints().len(), 3);
    new.backend.publish();
    assert_eq!(new.backend.common.endpoints().len(), 2);
    assert!(new.backend.has(&[found(2), found(5)]) && !new.backend.has(&[found(5), found(2)]));
}

#[test]
fn a_peak_is_believed_at_once() {
    let (ewma, mut dice) = (pool(Balance::PeakEwma, 2), Dice::new(7));
    ewma.observe(0, 1_000_000, SECOND);
    ewma.observe(1, 2_000_000, SECOND);
    assert!((0..50).all(|_| any(&ewma, SECOND, &mut dice) == 0));
    ewma.observe(0, 50_000_000, SECOND + 1);
    assert!((0..50).all(|_| any(&ewma, SECOND + 1, &mut dice) == 1));
    // A better time only slowly, and what was long ago hardly counts.
    ewma.observe(0, 1_000_000, SECOND + 2);
    assert!((0..50).all(|_| any(&ewma, SECOND + 2, &mut dice) == 1));
    ewma.observe(1, 2_000_000, 100 * SECOND);
    assert!((0..50).all(|_| any(&ewma, 100 * SECOND, &mut dice) == 0));
    // Requests in flight count as much as time.
    ewma.members[0].active.set(50);
    ewma.observe(0, 1_000_000, 101 * SECOND);
    assert!((0..50).all(|_| any(&ewma, 101 * SECOND, &mut dice) == 1));
}

#[test]
fn who_is_ill_is_not_stuck_to() {
    let (pool, mut dice) = (pool(Balance::RoundRobin, 3), Dice::new(7));
    let stuck = Wish { stuck: Some(1), ..Wish::default() };
    assert!((0..5).all(|_| at(&pool, 0, stuck, &mut dice) == Some(1)));
    pool.backend.endpoints[1].health.set_down(true, 0);
    assert!((0..5).all(|_| at(&pool, 0, stuck, &mut dice) != Some(1)));
}

#[test]
fn when_all_are_ill_those_with_a_weight_come_first() {
    let weighted = |weights: [u32; 3]| {
        let list: Vec<Found> = (0..3).zip(weights).map(|(n, weight)| Found { weight, ..found(n) }).collect();
        with(settings(Balance::RoundRobin), &list)
    };
    let (pool, mut dice) = (weighted([1, 0, 1]), Dice::new(7));
    pool.backend.endpoints.iter().for_each(|endpoint| endpoint.health.set_down(true, 0));
    assert!((0..9).all(|_| at(&pool, 0, Wish { avoid: Some(0), ..Wish::default() }, &mut dice) == Some(2)));
    // If nobody has any, all have the same, and health counts.
    let pool = weighted([0, 0, 0]);
    pool.backend.endpoints[1].health.set_down(true, 0);
    let picked: Vec<_> = (0..30).map(|_| any(&pool, 0, &mut dice)).collect();
    assert!(picked.contains(&0) && picked.contains(&2) && !picked.contains(&1), "{picked:?}");
}

#[test]
fn who_is_left_out_is_not_left_out_again() {
    let pool = pool(Balance::RoundRobin, 2);
    (0..10).for_each(|now| pool.backend.note(0, false, 5 + now));
    assert_eq!(pool.backend.endpoints[0].health.ejected(), 1);
}

#[test]
fn connections_have_a_bound_for_all_and_for_each() {
    use crate::backend::Limits;
    let limits = Limits { connections: 3, endpoint_connections: 2, ..Limits::default() };
    let pool = with(Settings { limits, ..settings(Balance::RoundRobin) }, &[found(0), found(1)]);
    let may = || (pool.backend.may_connect(0), pool.backend.may_connect(1));
    pool.backend.count_connection(0, true);
    pool.backend.count_connection(0, true);
    assert_eq!(may(), (false, true));
    pool.backend.count_connection(1, true);
    assert_eq!(may(), (false, false));
    pool.backend.count_connection(0, false);
    assert_eq!(may(), (true, true));
}

#[test]
fn a_list_is_the_same_only_in_every_point() {
    let old = Backend::new("b", &[found(0), found(1)], settings(Balance::RoundRobin), 2, String::new());
    assert!(old.has_room(2) && !old.has_room(3));
    assert!(!old.has(&[found(0), Found { weight: 2, ..found(1) }]) && !old.has(&[found(0)]));
    let renamed = Found { name: "other".to_owned(), ..found(1) };
    let new = old.with(&[found(0), renamed]);
    assert!(Arc::ptr_eq(&new.endpoints[0], &old.endpoints[0]) && !Arc::ptr_eq(&new.endpoints[1], &old.endpoints[1]));
    // Who was there from the beginning is as old as can be, who comes later is new.
    let ages = |backend: &Backend| -> Vec<u64> {
        backend.endpoints.iter().map(|endpoint| endpoint.health.age(crate::clock::now())).collect()
    };
    assert_eq!(ages(&old), [u64::MAX; 2]);
    assert!(ages(&new)[1] < 600 * SECOND);
    let late = Backend::new("b", &[], settings(Balance::RoundRobin), 1, String::new()).with(&[found(0)]);
    assert_eq!(ages(&late), [u64::MAX]);
}
