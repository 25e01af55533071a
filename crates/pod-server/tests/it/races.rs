//! Writes that meet: with others, with a deletion, with themselves.

use http::Method;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::world::{GIVEN, Reply, World};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const APPLY: [(&str, &str); 1] = [("content-type", "application/apply-patch+yaml")];
const MERGE: [(&str, &str); 1] = [("content-type", "application/merge-patch+json")];

fn map(name: &str) -> Value {
    json!({"metadata": {"name": name}})
}

/// All at once, over one connection each.
fn together(world: &World, requests: Vec<(Method, String, String)>) -> Vec<u16> {
    world.block_on(async {
        let answers = requests.into_iter().map(|(method, path, body)| async move {
            let response = world.send(false, world.request(method, &path, &[], &body)).await;
            let status = response.status().as_u16();
            response.into_body().collect().await.unwrap();
            status
        });
        futures_util::future::join_all(answers).await
    })
}

#[test]
fn nothing_is_created_behind_the_end_of_its_namespace() {
    let world = World::new();
    for round in 0..10 {
        let name = format!("n{round}");
        assert_eq!(world.post("/api/v1/namespaces", &map(&name)).status, 201);
        let maps = format!("/api/v1/namespaces/{name}/configmaps");
        let mut requests: Vec<_> =
            (0..40).map(|number| (Method::POST, maps.clone(), map(&format!("m{number}")).to_string())).collect();
        requests.insert(15, (Method::DELETE, format!("/api/v1/namespaces/{name}"), String::new()));
        // What the node does: once the namespace is seen to end, it is emptied of what is there.
        let mut watch = world.store.watch("namespaces", None, None).unwrap();
        let store = world.store.clone();
        let ending = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                loop {
                    let event = watch.next().await.unwrap();
                    if event.object.value()["metadata"]["deletionTimestamp"].is_string() {
                        return store.list("configmaps", Some(&event.object.key.name)).items.len();
                    }
                }
            })
        });
        let answers = together(&world, requests);
        let seen = ending.join().unwrap();
        let made = answers.iter().filter(|status| **status == 201).count();
        assert_eq!((seen, made), (made, seen), "created behind its end: {answers:?}");
        assert!(answers.iter().all(|status| [200, 201, 403].contains(status)), "{answers:?}");
    }
}

#[test]
fn a_quota_holds_against_many_at_once() {
    let world = World::new();
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {"configmaps": "5"}}});
    assert_eq!(world.post("/api/v1/namespaces/default/resourcequotas", &quota).status, 201);
    let requests = (0..40).map(|number| (Method::POST, MAPS.to_owned(), map(&format!("m{number}")).to_string()));
    let answers = together(&world, requests.collect());
    assert_eq!(answers.iter().filter(|status| **status == 201).count(), 5, "{answers:?}");
    assert_eq!(world.store.list("configmaps", Some("default")).items.len(), 5);
}

#[test]
fn applying_again_writes_nothing() {
    let world = World::new();
    let body = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "labels": {"a": "b"}}, "stringData": {"a": "1"},
    });
    let path = "/api/v1/namespaces/default/secrets/s?fieldManager=kubectl";
    let apply = || -> Reply { world.call(Method::PATCH, path, &APPLY, &body.to_string()) };
    assert_eq!(apply().status, 201);
    let first = apply().json();
    // Times are in seconds.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let second = apply().json();
    assert_eq!(first["metadata"]["resourceVersion"], second["metadata"]["resourceVersion"]);
    assert_eq!(first, second);
}

#[test]
fn no_finalizer_is_added_to_what_is_going() {
    let world = World::new();
    let kept = json!({"metadata": {"name": "m", "finalizers": ["a.b/c", "a.b/d"]}});
    assert_eq!(world.post(MAPS, &kept).status, 201);
    let path = format!("{MAPS}/m");
    assert_eq!(world.call(Method::DELETE, &path, &[], "").status, 200);
    let finalizers = |list: &[&str]| json!({"metadata": {"finalizers": list}}).to_string();
    let refused = world.call(Method::PATCH, &path, &MERGE, &finalizers(&["a.b/c", "x.y/z"]));
    assert_eq!(refused.status, 422);
    let expected = "ConfigMap \"m\" is invalid: metadata.finalizers: Forbidden: no new finalizers can be added if the \
                    object is being deleted, found new finalizers []string{\"x.y/z\"}";
    assert_eq!(refused.message(), expected);
    assert_eq!(world.call(Method::PATCH, &path, &MERGE, &finalizers(&["a.b/c"])).status, 200);
    assert_eq!(world.call(Method::PATCH, &path, &MERGE, &finalizers(&[])).status, 200);
    assert_eq!(world.get(&path).status, 404);
}

#[test]
fn a_dry_run_takes_no_address() {
    let world = World::new();
    let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}});
    let path = "/api/v1/namespaces/default/services";
    let before = GIVEN.load(std::sync::atomic::Ordering::Relaxed);
    let dry = world.post(&format!("{path}?dryRun=All"), &service);
    assert_eq!(dry.status, 201);
    assert!(dry.json()["spec"]["clusterIP"].as_str().unwrap().starts_with("10.96."));
    assert_eq!(GIVEN.load(std::sync::atomic::Ordering::Relaxed), before);
    assert_eq!(world.post(path, &service).status, 201);
    assert_eq!(GIVEN.load(std::sync::atomic::Ordering::Relaxed), before + 1);
}

#[test]
fn what_is_orphaned_names_its_owner_no_more() {
    let world = World::new();
    let owner = world.post(MAPS, &map("owner")).json();
    let owned = |name: &str| {
        let owners = json!([
            {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]},
            {"apiVersion": "v1", "kind": "ConfigMap", "name": "other", "uid": "o"},
        ]);
        assert_eq!(world.post(MAPS, &json!({"metadata": {"name": name, "ownerReferences": owners}})).status, 201);
    };
    owned("one");
    owned("two");
    let path = format!("{MAPS}/owner?propagationPolicy=Orphan");
    assert_eq!(world.call(Method::DELETE, &format!("{path}&dryRun=All"), &[], "").status, 200);
    assert_eq!(world.get(&format!("{MAPS}/one")).json()["metadata"]["ownerReferences"].as_array().unwrap().len(), 2);
    assert_eq!(world.call(Method::DELETE, &path, &[], "").status, 200);
    for name in ["one", "two"] {
        let left = world.get(&format!("{MAPS}/{name}")).json();
        let owners = left["metadata"]["ownerReferences"].as_array().unwrap();
        assert_eq!((owners.len(), &owners[0]["uid"]), (1, &json!("o")), "{left}");
    }
}
