//! What the history keeps, and who is told that it did not.

use serde_json::json;

use super::*;
use crate::object::Key;

fn event(resource: &str, name: &str, revision: u64, length: usize) -> Event {
    let key = Key { resource: resource.into(), namespace: "a".into(), name: name.into() };
    let object = Object::render(key, &mut json!({"data": "x".repeat(length)}), revision).unwrap();
    Event { kind: ChangeKind::Modified, object: Arc::new(object), before: None }
}

fn feed() -> Feed {
    Feed::new(Vec::new(), 1, 1)
}

#[test]
fn who_misses_a_change_is_told_and_who_saw_all_is_not() {
    let (feed, now) = (feed(), Instant::now());
    let events = EVENTS as u64 + 10;
    for revision in 2..2 + events {
        feed.publish(vec![event("pods", "p", revision, 10)], now);
    }
    let newest = 1 + events;
    assert_eq!(feed.subscribe("pods", Some(11)).map(drop), Ok(()));
    assert_eq!(feed.subscribe("pods", Some(10)).map(drop), Err(Expired { asked: 10, oldest: 11 }));
    assert_eq!(feed.read().after("pods", None, 11).unwrap().unwrap().object.revision, 12);
    assert!(feed.read().after("pods", None, 10).is_err());
    // Nothing of services was dropped, because nothing happened to them.
    assert_eq!(feed.subscribe("services", Some(1)).map(drop), Ok(()));
    // After any time, who was up to date is.
    assert_eq!(feed.expire(now + AGE), None);
    assert_eq!(feed.subscribe("pods", Some(newest)).map(drop), Ok(()));
    assert!(feed.subscribe("pods", Some(newest - 1)).is_err());
    assert_eq!(feed.read().bytes, 0);
    assert_eq!(feed.read().list("pods", None).items.len(), 1);
}

#[test]
fn a_storm_costs_its_own_watchers_and_no_others() {
    let (feed, now) = (feed(), Instant::now());
    feed.publish(vec![event("pods", "p", 2, 1000)], now);
    for revision in 3..1000 {
        feed.publish(vec![event("events", "e", revision, 10_000)], now);
    }
    let state = feed.read();
    assert!(state.bytes <= BYTES);
    assert_eq!(state.bytes, state.resources.values().map(|resource| resource.bytes).sum::<usize>());
    assert!(state.after("events", None, 2).is_err());
    assert_eq!(state.after("pods", None, 1).unwrap().unwrap().object.revision, 2);
}

#[test]
fn history_is_looked_through_when_its_oldest_change_is_due() {
    let (feed, now) = (feed(), Instant::now());
    assert_eq!(feed.expire(now), None);
    feed.publish(vec![event("pods", "p", 2, 10)], now);
    let later = now + Duration::from_secs(60);
    feed.publish(vec![event("services", "s", 3, 10)], later);
    assert_eq!(feed.expire(later), Some(now + AGE));
    assert_eq!(feed.expire(now + AGE), Some(later + AGE));
    assert!(feed.read().after("pods", None, 1).is_err());
    assert!(feed.read().after("services", None, 1).is_ok());
}

#[test]
fn a_list_is_sorted_however_it_came_about() {
    let (feed, now) = (feed(), Instant::now());
    for (revision, name) in (2..).zip(["c", "a", "d", "b", "a"]) {
        feed.publish(vec![event("pods", name, revision, 1)], now);
    }
    let gone = Event { kind: ChangeKind::Deleted, ..event("pods", "c", 7, 1) };
    feed.publish(vec![gone], now);
    let list = feed.read().list("pods", Some("a"));
    let names: Vec<_> = list.items.iter().map(|object| &*object.key.name).collect();
    assert_eq!((list.revision, names), (7, vec!["a", "b", "d"]));
    assert!(feed.read().list("pods", Some("")).items.is_empty());
}
