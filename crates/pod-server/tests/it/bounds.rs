//! What clients cannot do to the server.

use http::Method;
use serde_json::json;

use crate::world::World;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[test]
fn bodies_end_at_three_mebibytes() {
    let world = World::new();
    let reply = world.config_map("large", &json!({"x": "y".repeat((3 << 20) + 1)}));
    assert_eq!((reply.status.as_u16(), reply.json()["reason"].as_str()), (413, Some("RequestEntityTooLarge")));
    assert_eq!(reply.message(), "Request entity too large: limit is 3145728");
}

#[test]
fn a_panic_is_one_answer() {
    let world = World::new();
    let pod = json!({"metadata": {"name": "panics"}, "spec": {"containers": [{"name": "app", "image": "x"}]}});
    assert_eq!(world.post("/api/v1/namespaces/default/pods", &pod).status, 201);
    let reply = world.get("/apis/metrics.k8s.io/v1beta1/namespaces/default/pods/panics");
    assert_eq!((reply.status.as_u16(), reply.json()["reason"].as_str()), (500, Some("InternalError")));
    assert_eq!(world.get(MAPS).status, 200);
}

#[test]
fn hostile_texts_are_refused() {
    let world = World::new();
    let deep = "[".repeat(100_000);
    let yaml = [("content-type", "application/yaml")];
    let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c]\n\
                e: &e [*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e]\ng: &g [*f,*f,*f,*f,*f,*f]\nh: [*g,*g,*g,*g,*g,*g,*g]\n";
    for (headers, body) in
        [(&[][..], deep.as_str()), (&yaml[..], &deep), (&yaml[..], bomb), (&yaml[..], "a: b\n---\nc: d\n")]
    {
        let reply = world.call(Method::POST, MAPS, headers, body);
        assert_eq!(reply.status, 400, "{}", &body[..20]);
    }
    world.config_map("one", &json!({}));
    let grow = [("content-type", "application/json-patch+json")];
    let copies: Vec<_> = (0..40).map(|_| json!({"op": "copy", "from": "/data", "path": "/data/x"})).collect();
    let reply = world.call(Method::PATCH, &format!("{MAPS}/one"), &grow, &json!(copies).to_string());
    assert!(reply.status.is_client_error(), "{reply:?}");
    for path in ["/api/v1/namespaces/..%2f..%2f/configmaps/x", "/api/v1/namespaces/%00/pods", "/%", "//api//v1//pods"] {
        let status = world.get(path).status;
        assert!(status.is_client_error() || status.is_success(), "{path}: {status}");
    }
}

#[test]
fn many_watches_share_one_connection_at_a_time() {
    let world = World::new();
    let open = |count: usize| -> Vec<_> {
        (0..count)
            .map(|_| {
                let request = world.request(Method::GET, &format!("{MAPS}?watch=true"), &[], "");
                world.block_on(world.send(true, request))
            })
            .collect()
    };
    let held = open(100);
    assert!(held.iter().all(|response| response.status() == 200));
    assert_eq!(world.get(MAPS).status, 200);
}

#[test]
fn no_number_of_seconds_is_too_large() {
    let world = World::new();
    let request = world.request(Method::GET, &format!("{MAPS}?watch=1&timeoutSeconds={}", i64::MAX), &[], "");
    assert_eq!(world.block_on(world.send(false, request)).status(), 200);
}

#[test]
fn warnings_leave_the_answer_readable() {
    let world = World::new();
    let unknown: serde_json::Map<String, serde_json::Value> =
        (0..100_000).map(|number| (format!("field{number}"), json!(1))).collect();
    let mut body = json!(unknown);
    body["metadata"] = json!({"name": "one"});
    let reply = world.post(MAPS, &body);
    let bytes: usize = reply.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    assert!(reply.status == 201 && bytes < 32 << 10, "{} with {bytes} bytes of head", reply.status);
}

#[test]
fn patches_do_not_make_objects_grow_without_end() {
    let world = World::new();
    world.config_map("one", &json!({}));
    let merge = [("content-type", "application/merge-patch+json")];
    let grow = |number: usize| {
        let labels: serde_json::Map<String, serde_json::Value> =
            (0..30_000).map(|at| (format!("label-{number}-{at}"), json!("x"))).collect();
        let body = json!({"metadata": {"labels": labels}}).to_string();
        world.call(Method::PATCH, &format!("{MAPS}/one"), &merge, &body)
    };
    let refused = (0..8).map(grow).find(|reply| reply.status != 200).expect("it grew");
    assert_eq!((refused.status.as_u16(), refused.json()["reason"].as_str()), (413, Some("RequestEntityTooLarge")));
    assert_eq!(world.call(Method::DELETE, &format!("{MAPS}/one"), &[], "").status, 200);
}

#[test]
fn a_merge_patch_that_is_too_deep_is_refused() {
    let world = World::new();
    world.config_map("one", &json!({"a": "1"}));
    let merge = [("content-type", "application/merge-patch+json")];
    let body = format!("{}1{}", "{\"data\":".repeat(110), "}".repeat(110));
    assert_eq!(world.call(Method::PATCH, &format!("{MAPS}/one"), &merge, &body).status, 400);
}
