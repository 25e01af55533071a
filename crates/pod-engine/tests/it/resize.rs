//! CPU and memory of running containers.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::world::{World, world};

fn spec(cpu: &str, memory: &str) -> Value {
    let resources = json!({"requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": "1", "memory": memory}});
    json!({"hostNetwork": true,
        "initContainers": [{"name": "side", "image": "i", "restartPolicy": "Always", "command": ["sleep", "1000"], "resources": resources}],
        "containers": [{"name": "m", "image": "i", "command": ["sleep", "1000"], "resources": resources}]})
}

/// A number of the group of a container, or of the pod where that is empty.
fn number(world: &World, container: &str, v1: &str, v2: &str) -> String {
    let record = pod_engine::record::find(&world.roots, "default", "app").unwrap().unwrap().record;
    let hierarchy = pod_container::cgroup::Hierarchy::detect().unwrap();
    let directories: Vec<PathBuf> = hierarchy.directories(&record.cgroup.join(container)).unwrap();
    let found = directories
        .iter()
        .find_map(|directory| [v1, v2].iter().find_map(|name| std::fs::read_to_string(directory.join(name)).ok()));
    found.unwrap_or_default().trim().to_owned()
}

fn memory(world: &World, container: &str) -> String {
    number(world, container, "memory.limit_in_bytes", "memory.max")
}

fn condition(world: &World, kind: &str) -> Option<(String, String)> {
    let conditions = world.status("app").conditions.unwrap_or_default();
    let found = conditions.into_iter().find(|condition| condition.type_ == kind)?;
    Some((found.reason.unwrap_or_default(), found.message.unwrap_or_default()))
}

#[test]
fn limits_change_under_running_containers() {
    world(async |world| {
        world.run("app", spec("100m", "64Mi"));
        world.until_running("app", "m").await;
        world.until_running("app", "side").await;
        assert_eq!((memory(&world, "m"), memory(&world, "")), ((64 << 20).to_string(), (128 << 20).to_string()));
        let before = number(&world, "m", "cpu.shares", "cpu.weight");
        // Larger, then smaller.
        for (cpu, text, bytes) in [("500m", "96Mi", 96_u64 << 20), ("200m", "32Mi", 32 << 20)] {
            world.run("app", spec(cpu, text));
            for container in ["m", "side"] {
                world.until("the limit holds", |world| memory(world, container) == bytes.to_string()).await;
                assert_ne!(number(&world, container, "cpu.shares", "cpu.weight"), before);
            }
            world.until("the pod's limit holds", |world| memory(world, "") == (2 * bytes).to_string()).await;
            world
                .until("the status says so", |world| {
                    let told = world.container("app", "m").resources.unwrap_or_default();
                    told.limits.is_some_and(|limits| limits["memory"].0 == text)
                        && condition(world, "PodResizeInProgress").is_none()
                })
                .await;
        }
        assert_eq!((world.container("app", "m").restart_count, world.container("app", "side").restart_count), (0, 0));
    });
}

#[test]
fn what_cannot_be_is_said() {
    world(async |world| {
        world.run("app", spec("100m", "64Mi"));
        world.until_running("app", "m").await;
        world.run("app", spec("100m", "4Ki"));
        world
            .until("it fails", |world| {
                condition(world, "PodResizeInProgress").is_some_and(|(reason, _)| reason == "Error")
            })
            .await;
        let (_, message) = condition(&world, "PodResizeInProgress").unwrap();
        assert!(message.starts_with("cannot decrease memory limits: ["), "{message}");
        assert!(
            message.contains("attempting to set container \"m\" memory limit (4096) below current usage ("),
            "{message}"
        );
        assert_eq!(memory(&world, "m"), (64 << 20).to_string());
        world.run("app", spec("100", "64Mi"));
        world.until("it is refused", |world| condition(world, "PodResizePending").is_some()).await;
        let (reason, message) = condition(&world, "PodResizePending").unwrap();
        assert!(
            reason == "Infeasible" && message.starts_with("Node didn't have enough capacity: cpu, requested: "),
            "{message}"
        );
        assert_eq!(world.container("app", "m").restart_count, 0);
    });
}
