//! Lists: their forms, pages and revisions.

use std::io::Read;

use http::Method;
use serde_json::{Value, json};

use crate::world::World;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn names(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().unwrap();
    items.iter().map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn items_are_bare_and_objects_are_not() {
    let world = World::new();
    world.config_map("a", &json!({"kind": "x,\"}"}));
    let list = world.get(MAPS).json();
    assert_eq!((&list["kind"], &list["apiVersion"]), (&"ConfigMapList".into(), &"v1".into()));
    let item = &list["items"][0];
    assert!(item.get("kind").is_none() && item.get("apiVersion").is_none());
    assert_eq!(item["data"]["kind"], "x,\"}");
    let one = world.get(&format!("{MAPS}/a")).json();
    assert_eq!((&one["kind"], &one["metadata"]["uid"]), (&"ConfigMap".into(), &item["metadata"]["uid"]));
    assert!(list["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap() > 0);
    assert_eq!(names(&world.get("/api/v1/namespaces/other/configmaps").json()), Vec::<String>::new());
    let head = world.call(Method::HEAD, MAPS, &[], "");
    assert_eq!((head.status.as_u16(), head.bytes.len()), (200, 0));
}

#[test]
fn pages_show_one_revision() {
    let world = World::new();
    for name in ["a", "b", "c", "d", "e"] {
        world.config_map(name, &json!({"at": "first"}));
    }
    let first = world.get(&format!("{MAPS}?limit=2")).json();
    assert_eq!((names(&first), &first["metadata"]["remainingItemCount"]), (vec!["a".into(), "b".into()], &3.into()));
    // What happens in between is not on the pages.
    world.config_map("aa", &json!({}));
    world.config_map("f", &json!({}));
    let merge = [("content-type", "application/merge-patch+json")];
    world.call(Method::PATCH, &format!("{MAPS}/c"), &merge, r#"{"data":{"at":"later"}}"#);
    world.call(Method::PATCH, &format!("{MAPS}/c"), &merge, r#"{"data":{"at":"much later"}}"#);
    world.call(Method::DELETE, &format!("{MAPS}/d"), &[], "");
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = world.get(&format!("{MAPS}?limit=2&continue={token}")).json();
    assert_eq!(names(&second), ["c", "d"]);
    assert_eq!(second["items"][0]["data"]["at"], "first");
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    let token = second["metadata"]["continue"].as_str().unwrap();
    let last = world.get(&format!("{MAPS}?limit=2&continue={token}")).json();
    assert_eq!(names(&last), ["e"]);
    assert!(last["metadata"].get("continue").is_none());

    let revision = first["metadata"]["resourceVersion"].as_str().unwrap();
    let exact = world.get(&format!("{MAPS}?resourceVersion={revision}&resourceVersionMatch=Exact")).json();
    assert_eq!(names(&exact), ["a", "b", "c", "d", "e"]);
    for query in ["", "?resourceVersion=0", &format!("?resourceVersion={revision}&resourceVersionMatch=NotOlderThan")] {
        assert_eq!(names(&world.get(&format!("{MAPS}{query}")).json()), ["a", "aa", "b", "c", "e", "f"], "{query}");
    }
}

#[test]
fn selectors_choose() {
    let world = World::new();
    for (name, tier) in [("a", "front"), ("b", "back"), ("c", "")] {
        let labels = if tier.is_empty() { json!({}) } else { json!({"tier": tier}) };
        world.post(MAPS, &json!({"metadata": {"name": name, "labels": labels}}));
    }
    for (query, expected) in [
        ("labelSelector=tier", "a b"),
        ("labelSelector=%21tier", "c"),
        ("labelSelector=tier%3Dfront", "a"),
        ("labelSelector=tier+notin+%28front%29", "b c"),
        ("fieldSelector=metadata.name%3Db", "b"),
        ("fieldSelector=metadata.name%21%3Db%2Cmetadata.namespace%3Ddefault&labelSelector=tier", "a"),
    ] {
        assert_eq!(names(&world.get(&format!("{MAPS}?{query}")).json()).join(" "), expected, "{query}");
    }
}

#[test]
fn tables_and_metadata_alone() {
    let world = World::new();
    world.config_map("a", &json!({"x": "1"}));
    let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json")];
    let list = world.call(Method::GET, MAPS, &table, "").json();
    assert_eq!((&list["kind"], &list["apiVersion"]), (&"Table".into(), &"meta.k8s.io/v1".into()));
    assert_eq!(list["columnDefinitions"][0]["name"], "Name");
    assert_eq!(list["rows"][0]["cells"][0], "a");
    let object = &list["rows"][0]["object"];
    assert_eq!((&object["kind"], &object["metadata"]["name"]), (&"PartialObjectMetadata".into(), &"a".into()));
    let whole = world.call(Method::GET, &format!("{MAPS}/a?includeObject=Object"), &table, "").json();
    assert_eq!(whole["rows"][0]["object"]["data"]["x"], "1");
    let none = world.call(Method::GET, &format!("{MAPS}/a?includeObject=None"), &table, "").json();
    assert!(none["rows"][0]["object"].is_null());
    let partial = [("accept", "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io")];
    let list = world.call(Method::GET, MAPS, &partial, "").json();
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert_eq!((&list["items"][0]["kind"], list["items"][0].get("data")), (&"PartialObjectMetadata".into(), None));
}

#[test]
fn long_lists_are_compressed_and_sent_in_pieces() {
    let world = World::new();
    let filling = "0123456789".repeat(2000);
    for at in 0..12 {
        world.config_map(&format!("m{at:02}"), &json!({"x": filling}));
    }
    let plain = world.get(MAPS);
    assert!(!plain.headers.contains_key("content-encoding") && plain.bytes.len() > 200_000);
    let packed = world.call(Method::GET, MAPS, &[("accept-encoding", "gzip")], "");
    assert_eq!(packed.headers["content-encoding"], "gzip");
    assert!(packed.bytes.len() < 50_000);
    let mut text = String::new();
    flate2::read::GzDecoder::new(&packed.bytes[..]).read_to_string(&mut text).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), plain.json());
    assert_eq!(names(&plain.json()).len(), 12);
    let small = world.call(Method::GET, &format!("{MAPS}?limit=1"), &[("accept-encoding", "gzip")], "");
    assert!(!small.headers.contains_key("content-encoding"));
}
