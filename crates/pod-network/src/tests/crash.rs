//! Dying at any point between two changes, and what the next engine makes of it.

use std::{
    collections::BTreeSet,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
};

use super::world::{Space, World, tcp, udp};
use crate::{
    Swept,
    checkpoint::armed::{Killed, arm, disarm},
};

/// Runs `work` until its `count`th checkpoint. None if it came through, else where it died.
fn killed_at(count: u32, work: impl FnOnce()) -> Option<&'static str> {
    arm(count);
    let outcome = catch_unwind(AssertUnwindSafe(work));
    disarm();
    match outcome {
        Ok(()) => None,
        Err(panic) => match panic.downcast::<Killed>() {
            Ok(killed) => Some(killed.0),
            Err(panic) => std::panic::resume_unwind(panic),
        },
    }
}

/// Dies at every checkpoint of `work` in turn, then recovers; returns where.
fn at_every_checkpoint(world: &World, work: impl Fn() + Sync, recover: impl Fn(&str) + Sync) -> Vec<&'static str> {
    let mut places = Vec::new();
    loop {
        let count = places.len() as u32;
        match world.host.inside(|| killed_at(count, &work)) {
            Some(place) => {
                recover(place);
                places.push(place);
            }
            None => {
                recover("the end");
                return places;
            }
        }
    }
}

#[test]
fn a_sweep_finds_all_that_a_dying_attach_left() {
    let world = World::new();
    let before = world.traces();
    let pod = Space::new();
    let ports = [tcp(8080, 80), udp(5353, 53)];
    let places = at_every_checkpoint(
        &world,
        || drop(world.network.attach("a", &pod.path(), &ports).unwrap()),
        |place| {
            let swept = world.host.inside(|| world.network.sweep(&BTreeSet::new())).unwrap();
            assert!(!swept.is_clean(), "{place}");
            assert_eq!(world.traces(), before, "after dying at {place}");
        },
    );
    assert_eq!(places.first(), Some(&"address claimed"));
    assert_eq!(places.last(), Some(&"record completed"));
    assert!(places.len() >= 8, "{places:?}");
}

#[test]
fn attaching_again_after_dying_needs_no_sweep() {
    let world = World::new();
    let before = world.traces();
    let pod = Space::new();
    at_every_checkpoint(
        &world,
        || drop(world.network.attach("a", &pod.path(), &[tcp(8080, 80)]).unwrap()),
        |place| {
            world.host.inside(|| world.network.attach("a", &pod.path(), &[tcp(8080, 80)])).unwrap();
            assert!(world.gets_out(&pod));
            world.detach("a");
            world.host.inside(|| world.network.sweep(&BTreeSet::new())).unwrap();
            assert_eq!(world.traces(), before, "after dying at {place}");
        },
    );
}

#[test]
fn a_sweep_finishes_a_dying_detach_and_spares_the_living() {
    let world = World::new();
    world.host.run(
        "nft 'add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }'",
    );
    let before = world.traces();
    let live = BTreeSet::from(["resident".to_owned()]);
    for with_resident in [false, true] {
        let resident = with_resident.then(|| world.pod("resident", &[tcp(8000, 80)]).0);
        let expected = world.traces();
        let pod = Space::new();
        let places = at_every_checkpoint(
            &world,
            || {
                world.network.attach("a", &pod.path(), &[tcp(8080, 80)]).unwrap();
                world.network.detach("a").unwrap();
            },
            |place| {
                world.host.inside(|| world.network.sweep(&live)).unwrap();
                assert_eq!(world.traces(), expected, "after dying at {place}");
            },
        );
        assert!(places.contains(&"record removed"), "{places:?}");
        if let Some(resident) = resident {
            assert!(world.gets_out(&resident));
            let again = world.host.inside(|| world.network.sweep(&live)).unwrap();
            assert_eq!(again, Swept::default(), "nothing left to do");
            world.detach("resident");
        }
        assert_eq!(world.traces(), before);
    }
}

#[test]
fn a_lost_register_is_made_good() {
    let world = World::new();
    let before = world.traces();
    let (_a, _) = world.pod("a", &[tcp(8080, 80)]);
    let forget = || {
        for part in ["pods", "addresses"] {
            let path = world.directory.path().join(part);
            fs::remove_dir_all(&path).unwrap();
            fs::create_dir(&path).unwrap();
        }
    };
    forget();
    let swept = world.host.inside(|| world.network.sweep(&BTreeSet::new())).unwrap();
    assert_eq!((swept.links.len(), swept.tables), (1, vec!["outrigger".to_owned()]));
    assert_eq!(world.traces(), before);
    // An attach that finds the old table without its pods replaces nothing but needs no sweep either.
    let (_b, _) = world.pod("b", &[]);
    forget();
    world.host.run("nft delete table ip outrigger");
    let (c, _) = world.pod("c", &[]);
    assert!(world.gets_out(&c));
}

#[test]
fn flushed_rules_come_back_with_the_next_pod_or_sweep() {
    let world = World::new();
    let (a, _) = world.pod("a", &[tcp(8080, 80)]);
    a.serve("0.0.0.0:80");
    let live = BTreeSet::from(["a".to_owned(), "b".to_owned()]);
    world.host.run("nft flush ruleset");
    let (_b, _) = world.pod("b", &[]);
    assert_eq!(world.outside.call("203.0.113.1:8080").unwrap(), "203.0.113.2");
    world.host.run("nft flush ruleset");
    let swept = world.host.inside(|| world.network.sweep(&live)).unwrap();
    assert_eq!(swept, Swept { repaired: vec!["outrigger".to_owned()], ..Swept::default() });
    assert_eq!(world.outside.call("203.0.113.1:8080").unwrap(), "203.0.113.2");
}

#[test]
fn the_note_of_another_boot_is_not_believed() {
    let world = World::new();
    world.host.run("echo 1 > /proc/sys/net/ipv4/ip_forward");
    let note = world.directory.path().join("ip_forward.before");
    fs::write(&note, "0 11111111-2222-3333-4444-555555555555").unwrap();
    world.host.inside(|| world.network.sweep(&BTreeSet::new())).unwrap();
    assert!(!note.exists());
    assert_eq!(world.host.run("cat /proc/sys/net/ipv4/ip_forward"), "1\n");
}

#[test]
fn an_unreadable_record_costs_a_living_pod_nothing() {
    let world = World::new();
    let before = world.traces();
    let (a, _) = world.pod("a", &[]);
    let record = world.directory.path().join("pods/a.json");
    fs::write(&record, "{}").unwrap();
    world.host.inside(|| world.network.sweep(&BTreeSet::from(["a".to_owned()]))).unwrap();
    assert!(world.gets_out(&a));
    world.host.inside(|| world.network.sweep(&BTreeSet::new())).unwrap();
    assert_eq!(world.traces(), before);
}
