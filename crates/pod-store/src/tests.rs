//! What a caller sees of the store, on a real file.

mod crash;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::*;

fn key(namespace: &str, name: &str) -> Key {
    Key { resource: "configmaps".into(), namespace: namespace.into(), name: name.into() }
}

fn value(name: &str, data: u64) -> Value {
    json!({"metadata": {"name": name, "uid": format!("u-{name}")}, "data": {"n": data.to_string()}})
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

fn put(store: &Store, key: &Key, data: u64, durability: Durability) -> Arc<Object> {
    let value = value(&key.name, data);
    let change = match store.get(key) {
        None => Change::Create(value),
        Some(_) => Change::Replace { value, expected: None },
    };
    runtime().block_on(store.write(key.clone(), change, durability)).unwrap()
}

fn open(path: &Path) -> Store {
    Store::open(path).unwrap()
}

#[test]
fn a_store_comes_back_as_it_was_closed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = open(&path);
    assert_eq!(store.revision(), 1);
    let first = put(&store, &key("b", "x"), 1, Durability::Synced);
    assert_eq!(first.revision, 2);
    put(&store, &key("a", "y"), 2, Durability::Lazy);
    put(&store, &key("a", "x"), 3, Durability::Lazy);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let before = store.list("configmaps", None);
    drop(store);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);

    let store = open(&path);
    let after = store.list("configmaps", None);
    assert_eq!(before, after);
    let names: Vec<_> = after.items.iter().map(|object| (&*object.key.namespace, &*object.key.name)).collect();
    assert_eq!(names, [("a", "x"), ("a", "y"), ("b", "x")]);
    assert_eq!(store.list("configmaps", Some("a")).items.len(), 2);
    assert_eq!(store.list("configmaps", Some("aa")).items.len(), 0);
    assert_eq!(store.list("pods", None).items.len(), 0);
    // Closed cleanly: no number was wasted, and who was up to date still is.
    assert!(store.watch("configmaps", None, Some(4)).is_ok());
    assert_eq!(put(&store, &key("a", "x"), 4, Durability::Lazy).revision, 5);
}

#[test]
fn preconditions_are_checked_where_changes_are_put_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory.path().join("store"));
    let key = key("a", "x");
    let write = |change| runtime().block_on(store.write(key.clone(), change, Durability::Synced));
    let replace = |data, expected| Change::Replace { value: value("x", data), expected };
    assert!(matches!(write(replace(1, None)), Err(WriteError::Missing)));
    assert!(matches!(write(Change::Delete { expected: None, last: None }), Err(WriteError::Missing)));
    let created = write(Change::Create(value("x", 1))).unwrap();
    assert!(matches!(write(Change::Create(value("x", 1))), Err(WriteError::Exists(object)) if object.revision == 2));
    let same = write(replace(1, Some(created.revision))).unwrap();
    assert!(Arc::ptr_eq(&created, &same));
    let second = write(replace(2, Some(created.revision))).unwrap();
    assert_eq!(second.revision, 3);
    assert!(matches!(write(replace(3, Some(2))), Err(WriteError::Conflict(object)) if object.revision == 3));
    let deletion = Change::Delete { expected: Some(2), last: None };
    assert!(matches!(write(deletion), Err(WriteError::Conflict(_))));
    let gone = write(Change::Delete { expected: Some(3), last: Some(value("x", 9)) }).unwrap();
    assert_eq!((gone.revision, gone.value()["data"]["n"].as_str()), (4, Some("9")));
    assert!(store.get(&key).is_none());
    assert!(matches!(write(Change::Create(json!("text"))), Err(WriteError::Unfit(_))));
    let nul = Key { name: "a\0b".into(), ..key.clone() };
    let unfit = runtime().block_on(store.write(nul, Change::Create(json!({})), Durability::Synced));
    assert!(matches!(unfit, Err(WriteError::Unfit(_))));
    assert_eq!(store.revision(), 4);
}

#[test]
fn a_watch_tells_all_changes_of_its_namespace_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory.path().join("store"));
    runtime().block_on(async {
        let mut watch = store.watch("configmaps", Some("a"), None).unwrap();
        let mut all = store.watch("configmaps", None, Some(1)).unwrap();
        let write = |namespace: &str, change, durability| store.write(key(namespace, "x"), change, durability);
        write("a", Change::Create(value("x", 1)), Durability::Synced).await.unwrap();
        write("b", Change::Create(value("x", 1)), Durability::Lazy).await.unwrap();
        assert_eq!(watch.revision(), 1);
        write("a", Change::Replace { value: value("x", 2), expected: None }, Durability::Lazy).await.unwrap();
        write("a", Change::Delete { expected: None, last: None }, Durability::Synced).await.unwrap();
        let mut seen = Vec::new();
        for _ in 0..3 {
            let event = watch.next().await.unwrap();
            seen.push((event.kind, event.before.map(|before| before.revision), event.object.revision));
        }
        assert_eq!(
            seen,
            [(ChangeKind::Added, None, 2), (ChangeKind::Modified, Some(2), 4), (ChangeKind::Deleted, Some(4), 5)]
        );
        for revision in 2..=5 {
            assert_eq!(all.next().await.unwrap().object.revision, revision);
        }
        let idle = tokio::time::timeout(Duration::from_millis(20), watch.next()).await;
        assert!(idle.is_err());
        write("b", Change::Replace { value: value("x", 7), expected: None }, Durability::Lazy).await.unwrap();
        assert_eq!(watch.revision(), 6);
        store.close();
        assert!(watch.next().await.is_err());
        assert_eq!(all.next().await.unwrap().object.revision, 6);
        assert!(all.next().await.is_err());
    });
}

#[test]
fn modify_loses_no_change_to_another() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory.path().join("store"));
    let key = key("a", "x");
    put(&store, &key, 0, Durability::Synced);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (store, key) = (&store, &key);
            scope.spawn(move || {
                let durability = if thread % 2 == 0 { Durability::Synced } else { Durability::Lazy };
                for _ in 0..25 {
                    let add = |_: &Object, mut value: Value| {
                        let n: u64 = value["data"]["n"].as_str().unwrap().parse().unwrap();
                        value["data"]["n"] = (n + 1).to_string().into();
                        Ok::<_, ()>(Some(value))
                    };
                    runtime().block_on(store.modify(key, durability, add)).unwrap();
                }
            });
        }
    });
    let object = store.get(&key).unwrap();
    assert_eq!(object.value()["data"]["n"], "100");
    assert_eq!(object.revision, 102);
    let refused = runtime().block_on(store.modify(&key, Durability::Lazy, |_, _| Err("no")));
    assert!(matches!(refused, Err(ModifyError::Refused("no"))));
}

#[test]
fn a_dropped_write_is_made_all_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory.path().join("store"));
    runtime().block_on(async {
        let mut watch = store.watch("configmaps", None, None).unwrap();
        let write = store.write(key("a", "x"), Change::Create(value("x", 1)), Durability::Synced);
        let _ = tokio::time::timeout(Duration::ZERO, write).await;
        assert_eq!(watch.next().await.unwrap().object.revision, 2);
    });
}

#[test]
fn one_process_at_a_time_and_the_other_learns_who() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = open(&path);
    let error = Store::open(&path).unwrap_err();
    assert!(error.to_string().contains(&format!("in use by process {}", std::process::id())), "{error}");
    drop(store);
    open(&path);
}

#[test]
fn what_is_no_store_is_refused_and_kept() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    std::fs::write(&path, "apiVersion: v1\n".repeat(1000)).unwrap();
    assert!(Store::open(&path).is_err());
    assert!(std::fs::read_to_string(&path).unwrap().starts_with("apiVersion"));
    assert!(matches!(Store::open(&directory.path().join("none/store")), Err(OpenError::Open(..))));
}

/// The check and the write are one step: however many changes wait, nothing gets in behind the guard's change.
#[test]
fn a_write_is_made_only_while_its_guard_holds() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory.path().join("store"));
    let guard_key = key("", "guard");
    let seen = put(&store, &guard_key, 1, Durability::Synced);
    let guard = Guard { key: guard_key.clone(), revision: seen.revision };
    runtime().block_on(async {
        let create = |name: &str, guard: Guard, durability| {
            store.write_while(guard, key("a", name), Change::Create(value(name, 1)), durability)
        };
        create("before", guard.clone(), Durability::Synced).await.unwrap();
        let change = Change::Replace { value: value("guard", 2), expected: None };
        // All are queued before the first is answered.
        let (changed, late, later) = tokio::join!(
            store.write(guard_key.clone(), change, Durability::Synced),
            create("late", guard.clone(), Durability::Synced),
            create("later", guard, Durability::Lazy),
        );
        let guard = Guard { key: guard_key.clone(), revision: changed.unwrap().revision };
        assert!(matches!(late, Err(WriteError::Outdated)) && matches!(later, Err(WriteError::Outdated)));
        create("again", guard.clone(), Durability::Lazy).await.unwrap();
        store.write(guard_key, Change::Delete { expected: None, last: None }, Durability::Synced).await.unwrap();
        assert!(matches!(create("gone", guard, Durability::Lazy).await, Err(WriteError::Outdated)));
    });
    let names: Vec<_> =
        store.list("configmaps", Some("a")).items.iter().map(|object| object.key.name.clone()).collect();
    assert_eq!(names, ["again", "before"]);
}

#[test]
fn an_object_is_bounded_and_a_large_one_can_be_followed() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory.path().join("store"));
    let large = |bytes: usize| json!({"metadata": {"name": "x"}, "data": {"n": "x".repeat(bytes)}});
    runtime().block_on(async {
        let refused = store.write(key("a", "x"), Change::Create(large(4 << 20)), Durability::Lazy).await;
        assert!(matches!(refused, Err(WriteError::TooLarge(bytes)) if bytes > 4 << 20), "{refused:?}");
        store.write(key("a", "x"), Change::Create(large(3 << 20)), Durability::Lazy).await.unwrap();
        let mut watch = store.watch("configmaps", None, None).unwrap();
        let grown = Change::Replace { value: large(7 << 19), expected: None };
        let grown = store.write(key("a", "x"), grown, Durability::Lazy).await.unwrap();
        assert_eq!(watch.next().await.unwrap().object.revision, grown.revision);
        store.write(key("a", "x"), Change::Delete { expected: None, last: None }, Durability::Lazy).await.unwrap();
        assert_eq!(watch.next().await.unwrap().kind, ChangeKind::Deleted);
    });
}
