//! Power cuts and refusing disks, played at every point.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::power::{Dice, PowerDisk, apply, cut};
use crate::{Change, ChangeKind, Durability, Event, Key, Object, Store, WriteError};

fn key(n: usize) -> Key {
    Key { resource: "configmaps".into(), namespace: format!("n{}", n % 3), name: format!("c{n}") }
}

fn value(n: usize, version: usize, length: usize) -> Value {
    json!({"metadata": {"name": format!("c{n}"), "labels": {"n": n.to_string()}}, "data": {"v": version, "t": "x".repeat(length)}})
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

/// Key to JSON.
type Snapshot = BTreeMap<Key, Vec<u8>>;

fn snapshot(store: &Store) -> Snapshot {
    let items = store.list("configmaps", None).items;
    items.iter().map(|object| (object.key.clone(), object.json.to_vec())).collect()
}

/// The state after all events up to `revision`.
fn at(events: &[Event], revision: u64) -> Snapshot {
    let mut state = Snapshot::new();
    for event in events.iter().take_while(|event| event.object.revision <= revision) {
        match event.kind {
            ChangeKind::Deleted => state.remove(&event.object.key),
            _ => state.insert(event.object.key.clone(), event.object.json.to_vec()),
        };
    }
    state
}

fn any_change(store: &Store, n: usize, version: usize, dice: &mut Dice) -> Change {
    // Mostly small, sometimes over several pages.
    let length = if dice.roll(6) == 0 { dice.roll(20_000) } else { dice.roll(600) };
    match (store.get(&key(n)), dice.roll(4)) {
        (Some(_), 0) => Change::Delete { expected: None, last: None },
        (Some(_), _) => Change::Replace { value: value(n, version, length), expected: None },
        (None, _) => Change::Create(value(n, version, length)),
    }
}

/// Writes for a while, groups and single ones, both durabilities; all changes in order.
fn work(disk: &PowerDisk, rounds: usize, dice: &mut Dice) -> Vec<Event> {
    let store = Store::on(Box::new(disk.clone())).unwrap();
    let promises = disk.promises.clone();
    let promise = |durability, object: &Object| {
        promises.seen.fetch_max(object.revision, Ordering::SeqCst);
        if durability == Durability::Synced {
            promises.acknowledged.fetch_max(object.revision, Ordering::SeqCst);
        }
    };
    runtime().block_on(async {
        let mut watch = store.watch("configmaps", None, Some(1)).unwrap();
        for round in 0..rounds {
            let group: Vec<_> = (0..1 + dice.roll(6))
                .map(|member| {
                    let n = dice.roll(5) * 6 + member;
                    let change = any_change(&store, n, round, dice);
                    let durability = if dice.roll(3) == 0 { Durability::Lazy } else { Durability::Synced };
                    let store = store.clone();
                    tokio::spawn(async move { (durability, store.write(key(n), change, durability).await.unwrap()) })
                })
                .collect();
            for member in group {
                let (durability, object) = member.await.unwrap();
                promise(durability, &object);
            }
        }
        store.close();
        let mut events = Vec::new();
        while let Ok(event) = watch.next().await {
            events.push(event);
        }
        events
    })
}

#[test]
fn a_power_cut_at_any_sync_loses_nothing_that_was_acknowledged() {
    let deadline = Instant::now() + Duration::from_secs(12);
    let mut played = 0;
    for seed in 1..=6 {
        let mut dice = Dice::new(seed);
        let disk = PowerDisk::default();
        let events = work(&disk, 25, &mut dice);
        let mut image = Vec::new();
        let (epochs, unnamed) = disk.epochs();
        for (n, epoch) in epochs.iter().enumerate() {
            for _ in 0..if n < unnamed { 0 } else { 8 } {
                let after = PowerDisk::with(cut(&image, &epoch.operations, &mut dice));
                let store = Store::on(Box::new(after)).unwrap();
                let opened = store.0.feed.opened();
                let place = format!("seed {seed}, sync {n}: opened at {opened} of {epoch:?}");
                let place = &place[..place.len().min(120)];
                assert!(opened >= epoch.acknowledged, "{place}: {} was acknowledged", epoch.acknowledged);
                assert!(store.revision() >= epoch.seen, "{place}: {} was seen", epoch.seen);
                assert_eq!(snapshot(&store), at(&events, opened), "{place}");
                played += 1;
            }
            epoch.operations.iter().for_each(|operation| apply(&mut image, operation));
            // A slow machine plays fewer, but never too few.
            if Instant::now() > deadline && played > 100 {
                break;
            }
        }
    }
    assert!(played > 100, "only {played} power cuts were played");
    println!("{played} power cuts");
}

#[test]
fn numbers_go_on_above_all_that_a_crash_took_back() {
    let disk = PowerDisk::default();
    let store = Store::on(Box::new(disk.clone())).unwrap();
    let write = |store: &Store, n, durability| {
        runtime().block_on(store.write(key(n), Change::Create(value(n, 0, 10)), durability)).unwrap().revision
    };
    let synced = write(&store, 0, Durability::Synced);
    let crashed = PowerDisk::with(disk.image());
    let lost = write(&store, 1, Durability::Lazy);
    assert_eq!((synced, lost), (2, 3));

    let store = Store::on(Box::new(crashed)).unwrap();
    assert!(store.get(&key(1)).is_none());
    assert!(store.revision() > lost);
    assert_eq!(store.list("configmaps", None).revision, store.revision());
    // Who had seen the durable state goes on; who had seen what is lost, or less than what is there, lists again.
    assert!(store.watch("configmaps", None, Some(synced)).is_ok());
    assert!(store.watch("configmaps", None, Some(lost)).is_err());
    assert!(store.watch("configmaps", None, Some(1)).is_err());
    assert!(store.watch("configmaps", None, Some(store.revision())).is_ok());
    assert!(store.watch("configmaps", None, Some(store.revision() + 1)).is_err());
    let mut watch = store.watch("configmaps", None, Some(synced)).unwrap();
    let next = write(&store, 2, Durability::Synced);
    assert!(next > lost);
    assert_eq!(runtime().block_on(watch.next()).unwrap().object.revision, next);
}

/// Until `what` holds.
fn eventually(what: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !what() {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn nobody_sees_a_synced_write_before_it_is_durable_nor_a_later_one_before_it() {
    let disk = PowerDisk::default();
    let store = Store::on(Box::new(disk.clone())).unwrap();
    runtime().block_on(async {
        let mut watch = store.watch("configmaps", None, None).unwrap();
        disk.weather.stop(true);
        let write = |n, change, durability| {
            let store = store.clone();
            tokio::spawn(async move { store.write(key(n), change, durability).await })
        };
        let synced = write(0, Change::Create(value(0, 0, 1)), Durability::Synced);
        let builds_on_it = Change::Replace { value: value(0, 1, 1), expected: Some(2) };
        let lazy = write(0, builds_on_it, Durability::Lazy);
        for _ in 0..50 {
            tokio::task::yield_now().await;
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(!synced.is_finished() && !lazy.is_finished());
        assert!(store.get(&key(0)).is_none());
        assert_eq!((store.revision(), watch.revision()), (1, 1));
        disk.weather.stop(false);
        assert_eq!(synced.await.unwrap().unwrap().revision, 2);
        assert_eq!(lazy.await.unwrap().unwrap().revision, 3);
        assert_eq!(watch.next().await.unwrap().object.revision, 2);
        assert_eq!(watch.next().await.unwrap().object.revision, 3);
    });
}

#[test]
fn a_refused_group_is_decided_anew_without_its_synced_writes() {
    let disk = PowerDisk::default();
    let store = Store::on(Box::new(disk.clone())).unwrap();
    runtime().block_on(async {
        store.write(key(9), Change::Create(value(9, 0, 1)), Durability::Synced).await.unwrap();
        let write = |n, change, durability| {
            let store = store.clone();
            tokio::spawn(async move { store.write(key(n), change, durability).await })
        };
        disk.weather.stop(true);
        let first = write(0, Change::Create(value(0, 0, 1)), Durability::Synced);
        tokio::task::yield_now().await;
        // These wait together while the first is stuck.
        let second = write(1, Change::Create(value(1, 0, 1)), Durability::Synced);
        let exists = write(9, Change::Create(value(9, 0, 1)), Durability::Synced);
        let lazy = write(2, Change::Create(value(2, 0, 1)), Durability::Lazy);
        let builds_on_it = write(1, Change::Replace { value: value(1, 1, 1), expected: None }, Durability::Lazy);
        tokio::task::yield_now().await;
        disk.weather.break_after(Some(0));
        disk.weather.stop(false);
        assert!(matches!(first.await.unwrap(), Err(WriteError::Disk(_))));
        assert!(matches!(second.await.unwrap(), Err(WriteError::Disk(_))));
        assert!(matches!(exists.await.unwrap(), Err(WriteError::Exists(_))));
        assert!(matches!(builds_on_it.await.unwrap(), Err(WriteError::Missing)));
        let lazy = lazy.await.unwrap().unwrap();
        assert_eq!(snapshot(&store).len(), 2);
        disk.weather.break_after(None);
        let next = store.write(key(3), Change::Create(value(3, 0, 1)), Durability::Synced).await.unwrap();
        assert!(next.revision > lazy.revision);
    });
}

#[test]
fn lazy_writes_reach_the_disk_by_themselves_and_with_a_synced_one_that_changes_nothing() {
    let disk = PowerDisk::default();
    let store = Store::on(Box::new(disk.clone())).unwrap();
    let on_disk = || Store::on(Box::new(PowerDisk::with(disk.image()))).unwrap().0.feed.opened();
    let write = |change, durability| runtime().block_on(store.write(key(0), change, durability)).unwrap().revision;
    write(Change::Create(value(0, 0, 1)), Durability::Lazy);
    eventually(|| on_disk() == 2);
    write(Change::Replace { value: value(0, 1, 1), expected: None }, Durability::Lazy);
    assert_eq!(write(Change::Replace { value: value(0, 1, 1), expected: None }, Durability::Synced), 3);
    assert_eq!(on_disk(), 3);
}

/// The disk refuses from every operation on in turn, also while a new file is made; then it works again.
#[test]
fn a_refusing_disk_costs_the_writes_it_refused_and_no_others() {
    let mut refused = 0;
    for budget in 0..60 {
        let disk = PowerDisk::default();
        let store = Store::on(Box::new(disk.clone())).unwrap();
        runtime().block_on(async {
            let mut watch = store.watch("configmaps", None, None).unwrap();
            let mut expected = BTreeMap::new();
            let (mut last, mut synced) = (1, 1);
            for round in 0..12 {
                match round {
                    2 => disk.weather.break_after(Some(budget)),
                    8 => disk.weather.break_after(None),
                    _ => {}
                }
                let durability = if round % 3 == 1 { Durability::Lazy } else { Durability::Synced };
                let change = match store.get(&key(round % 4)) {
                    Some(_) => Change::Replace { value: value(round % 4, round, 3000), expected: None },
                    None => Change::Create(value(round % 4, round, 3000)),
                };
                let before = snapshot(&store);
                match store.write(key(round % 4), change, durability).await {
                    Ok(object) => {
                        assert!(object.revision > last);
                        last = object.revision;
                        if durability == Durability::Synced {
                            synced = last;
                        }
                        expected.insert(object.key.clone(), object.json.to_vec());
                        assert_eq!(watch.next().await.unwrap().object.revision, last);
                    }
                    Err(WriteError::Disk(error)) => {
                        assert_eq!(error.raw_os_error(), Some(28), "{error}");
                        assert!((2..8).contains(&round), "refused in round {round}");
                        assert_eq!(durability, Durability::Synced);
                        assert_eq!(snapshot(&store), before);
                        // A crash at this moment leaves a store with all that was answered as synced.
                        let crashed = Store::on(Box::new(PowerDisk::with(disk.image()))).unwrap();
                        assert!(crashed.0.feed.opened() >= synced);
                        refused += 1;
                    }
                    Err(other) => panic!("{other}"),
                }
                assert_eq!(snapshot(&store), expected);
            }
            // What was answered is on the disk, Lazy or not, after one more sync.
            let again = Store::on(Box::new(PowerDisk::with(disk.image()))).unwrap();
            assert_eq!(snapshot(&again), snapshot(&store));
            assert!(again.revision() >= last);
        });
    }
    assert!(refused > 20, "only {refused} writes were refused");
}

#[test]
fn an_unclean_end_of_the_disk_does_not_keep_the_store_from_closing() {
    let disk = PowerDisk::default();
    let store = Store::on(Box::new(disk.clone())).unwrap();
    disk.weather.break_after(Some(0));
    let write = runtime().block_on(store.write(key(0), Change::Create(value(0, 0, 1)), Durability::Lazy));
    assert!(matches!(write, Err(WriteError::Disk(_))), "no revision may be given out that is not reserved");
    store.close();
    let write = runtime().block_on(store.write(key(0), Change::Create(value(0, 0, 1)), Durability::Synced));
    assert!(matches!(write, Err(WriteError::Disk(_))));
}

#[test]
fn another_format_is_refused_by_name() {
    let disk = PowerDisk::default();
    drop(Store::on(Box::new(disk.clone())).unwrap());
    let mut medium: Box<dyn super::Medium> = Box::new(disk.clone());
    let database = super::database(medium.existing().unwrap().unwrap()).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(super::NUMBERS).unwrap().insert(super::FORMAT, 7).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let error = Store::on(medium).unwrap_err();
    assert_eq!(error.to_string(), "its format is 7; this program reads format 1");
}

#[test]
fn rot_is_an_error_and_not_a_panic() {
    let disk = PowerDisk::default();
    work(&disk, 10, &mut Dice::new(9));
    let image = disk.image();
    let mut dice = Dice::new(3);
    for _ in 0..60 {
        let mut rotten = image.clone();
        for _ in 0..40 {
            let at = dice.roll(rotten.len().min(200_000));
            rotten[at] ^= 0x55;
        }
        let _ = Store::on(Box::new(PowerDisk::with(rotten)));
    }
}
