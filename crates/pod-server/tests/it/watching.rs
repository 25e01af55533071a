//! Watches on the wire.

use http::Method;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::world::World;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// Reads a watch line by line.
struct Lines {
    body: Incoming,
    buffer: Vec<u8>,
}

impl Lines {
    fn open(world: &World, second: bool, query: &str, accept: &str) -> Self {
        Self::open_at(world, second, &format!("{MAPS}?watch=true&{query}"), accept)
    }

    fn open_at(world: &World, second: bool, path: &str, accept: &str) -> Self {
        let request = world.request(Method::GET, path, &[("accept", accept)], "");
        let response = world.block_on(world.send(second, request));
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "application/json");
        Self { body: response.into_body(), buffer: Vec::new() }
    }

    /// `None` at the end.
    fn next(&mut self, world: &World) -> Option<Value> {
        world.block_on(async {
            loop {
                if let Some(at) = self.buffer.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = self.buffer.drain(..=at).collect();
                    return Some(serde_json::from_slice(&line).unwrap());
                }
                let frame = self.body.frame().await?.unwrap();
                self.buffer.extend_from_slice(&frame.into_data().unwrap());
            }
        })
    }

    /// Type and name.
    fn told(&mut self, world: &World) -> String {
        let event = self.next(world).unwrap();
        let name = event["object"]["metadata"]["name"].as_str().unwrap_or("-");
        format!("{} {name}", event["type"].as_str().unwrap())
    }
}

fn patch(world: &World, name: &str, patch: &Value) {
    let merge = [("content-type", "application/merge-patch+json")];
    assert_eq!(world.call(Method::PATCH, &format!("{MAPS}/{name}"), &merge, &patch.to_string()).status, 200);
}

#[test]
fn from_nothing_from_a_revision_and_over_both_versions() {
    let world = World::new();
    world.config_map("a", &json!({}));
    let revision = world.get(MAPS).json()["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    for second in [false, true] {
        let mut all = Lines::open(&world, second, "", "application/json");
        assert_eq!(all.told(&world), "ADDED a");
        let mut later = Lines::open(&world, second, &format!("resourceVersion={revision}"), "application/json");
        if !second {
            world.config_map("b", &json!({}));
            patch(&world, "b", &json!({"data": {"x": "1"}}));
            world.call(Method::DELETE, &format!("{MAPS}/b"), &[], "");
            assert_eq!(all.told(&world), "ADDED b");
        }
        assert_eq!(later.told(&world), "ADDED b");
        let modified = later.next(&world).unwrap();
        assert_eq!((&modified["type"], &modified["object"]["kind"]), (&"MODIFIED".into(), &"ConfigMap".into()));
        let deleted = later.next(&world).unwrap();
        assert_eq!((&deleted["type"], &deleted["object"]["data"]["x"]), (&"DELETED".into(), &"1".into()));
        let revision =
            |event: &Value| event["object"]["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap();
        assert!(revision(&deleted) > revision(&modified));
    }
}

#[test]
fn selectors_make_comings_and_goings() {
    let world = World::new();
    let mut lines = Lines::open(&world, false, "labelSelector=on%3Dyes", "application/json");
    let mut named = Lines::open(&world, false, "fieldSelector=metadata.name%3Db&resourceVersion=0", "application/json");
    world.config_map("a", &json!({"x": "1"}));
    world.config_map("b", &json!({}));
    patch(&world, "a", &json!({"metadata": {"labels": {"on": "yes"}}}));
    patch(&world, "a", &json!({"data": {"x": "2"}}));
    patch(&world, "a", &json!({"metadata": {"labels": {"on": "no"}}, "data": {"x": "3"}}));
    patch(&world, "a", &json!({"metadata": {"labels": {"on": "yes"}}}));
    world.call(Method::DELETE, &format!("{MAPS}/a"), &[], "");
    assert_eq!(lines.told(&world), "ADDED a");
    assert_eq!(lines.told(&world), "MODIFIED a");
    let left = lines.next(&world).unwrap();
    // The last state that belonged to the selection.
    assert_eq!((&left["type"], &left["object"]["data"]["x"]), (&"DELETED".into(), &"2".into()));
    assert_eq!(lines.told(&world), "ADDED a");
    assert_eq!(lines.told(&world), "DELETED a");
    assert_eq!(named.told(&world), "ADDED b");
}

#[test]
fn a_streaming_list_ends_with_a_bookmark() {
    let world = World::new();
    world.config_map("a", &json!({}));
    world.config_map("b", &json!({}));
    let query = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut lines = Lines::open(&world, true, query, "application/json");
    assert_eq!((lines.told(&world), lines.told(&world)), ("ADDED a".into(), "ADDED b".into()));
    let end = lines.next(&world).unwrap();
    assert_eq!((&end["type"], &end["object"]["kind"]), (&"BOOKMARK".into(), &"ConfigMap".into()));
    assert_eq!(end["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!(end["object"]["metadata"]["resourceVersion"], world.store.revision().to_string());
    world.config_map("c", &json!({}));
    assert_eq!(lines.told(&world), "ADDED c");
}

#[test]
fn tables_send_their_columns_once() {
    let world = World::new();
    world.config_map("a", &json!({}));
    let mut lines = Lines::open(&world, false, "", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json");
    let first = lines.next(&world).unwrap();
    assert_eq!(first["object"]["columnDefinitions"][0]["name"], "Name");
    world.config_map("b", &json!({}));
    let second = lines.next(&world).unwrap();
    assert!(second["object"]["columnDefinitions"].is_null());
    assert_eq!(second["object"]["rows"][0]["cells"][0], "b");
}

#[test]
fn a_watch_ends_in_time_and_with_the_server() {
    let mut world = World::new();
    let mut short = Lines::open(&world, false, "timeoutSeconds=1", "application/json");
    let mut open = Lines::open(&world, true, "", "application/json");
    assert_eq!(short.next(&world), None);
    let started = std::time::Instant::now();
    world.stop();
    assert_eq!(open.next(&world), None);
    assert!(started.elapsed() < std::time::Duration::from_secs(30));
}

#[test]
fn every_kind_is_listed_and_watched_in_every_form() {
    let world = World::new();
    for resource in pod_api::resource::all().iter().filter(|resource| resource.verbs.contains(&"watch")) {
        let prefix = if resource.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", resource.group) };
        let path = format!("{prefix}/{}/{}", resource.version, resource.plural);
        for form in ["", ";as=Table;v=v1;g=meta.k8s.io", ";as=PartialObjectMetadata;v=v1;g=meta.k8s.io"] {
            let accept = format!("application/json{form}");
            let list = world.call(Method::GET, &path, &[("accept", &accept)], "");
            assert_eq!(list.status, 200, "{path} {form}");
            let query = "watch=1&sendInitialEvents=1&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=1";
            let mut lines = Lines::open_at(&world, true, &format!("{path}?{query}"), &accept);
            // The two seeded objects come before it.
            let end = std::iter::from_fn(|| lines.next(&world)).find(|event| event["type"] != "ADDED").unwrap();
            assert_eq!(end["type"], "BOOKMARK", "{path} {form}: {end}");
            assert!(end.to_string().contains("k8s.io/initial-events-end"), "{path} {form}: {end}");
        }
    }
}
