//! The daemon dies, the machine dies, the node is stopped: what becomes of the pods.

use std::time::Duration;

use serde_json::json;

use crate::world::{World, eventually, shell, sleeper};

#[test]
fn pods_go_on_without_the_daemon_and_are_adopted() {
    let world = World::new();
    let counting = shell("app", "i=0; trap 'exit 0' TERM; while :; do echo line $i; i=$((i+1)); sleep 0.02; done");
    let uid = world.live(async |life| {
        life.create_pod("web", json!({"containers": [counting]})).await;
        life.create_pod("gone", json!({"containers": [sleeper("app")]})).await;
        life.create_pod("job", json!({"restartPolicy": "Never", "containers": [shell("app", "echo done")]})).await;
        eventually("them", || life.is_ready("web") && life.is_ready("gone") && life.phase("job") == "Succeeded").await;
        life.pod("web")["metadata"]["uid"].clone()
    });
    std::thread::sleep(Duration::from_millis(300));
    world.live(async |life| {
        let lines = life.log("web", "app", 0).lines().count();
        assert!(lines > 5, "it went on");
        eventually("adoption", || life.engine.drives("default", "web")).await;
        eventually("more lines", || life.log("web", "app", 0).lines().count() > lines).await;
        for (number, line) in life.log("web", "app", 0).lines().enumerate() {
            assert_eq!(line, format!("line {number}"));
        }
        assert_eq!(life.pod("web")["metadata"]["uid"], uid);
        assert_eq!(life.pod("web")["status"]["containerStatuses"][0]["restartCount"], 0);
        assert_eq!((life.phase("job").as_str(), life.log("job", "app", 0).as_str()), ("Succeeded", "done\n"));
        // Told to the store, and the daemon dies before the engine hears of it.
        life.delete_pod("gone", 0).await;
    });
    world.live(async |life| {
        eventually("what was deleted to be stopped", || {
            !life.engine.drives("default", "gone") && !life.engine.roots().pod("default", "gone").record().exists()
        })
        .await;
        assert!(life.is_ready("web"));
        life.delete_pod("web", 1).await;
        life.delete_pod("job", 0).await;
        eventually("the end", || world.pod_directories() == 0).await;
    });
}

#[test]
fn after_a_reboot_policy_decides() {
    let world = World::new();
    world.live(async |life| {
        life.create_pod("always", json!({"containers": [sleeper("app")]})).await;
        life.create_pod("never", json!({"restartPolicy": "Never", "containers": [sleeper("app")]})).await;
        life.create_pod("done", json!({"restartPolicy": "OnFailure", "containers": [shell("app", "true")]})).await;
        eventually("them", || life.is_ready("always") && life.is_ready("never") && life.phase("done") == "Succeeded")
            .await;
        // What is lazy is on the disk when the store is closed; a machine that goes down right now may lose it.
    });
    world.reboot();
    world.live(async |life| {
        eventually("the one that always runs", || {
            let status = life.pod("always")["status"]["containerStatuses"][0].clone();
            status["restartCount"] == 1 && status["state"]["running"].is_object()
        })
        .await;
        let last = life.pod("always")["status"]["containerStatuses"][0]["lastState"]["terminated"].clone();
        assert_eq!((&last["exitCode"], &last["reason"]), (&json!(137), &json!("ContainerStatusUnknown")));
        assert!(life.reasons("always").contains(&"SandboxChanged".to_owned()));
        eventually("the one that ran once", || life.phase("never") == "Failed").await;
        assert_eq!(life.phase("done"), "Succeeded");
        for name in ["always", "never", "done"] {
            life.delete_pod(name, 0).await;
        }
        eventually("the end", || world.pod_directories() == 0).await;
    });
}

#[test]
fn a_stopped_node_keeps_the_objects_and_starts_them_again() {
    let world = World::new();
    world.live(async |life| {
        life.create_pod("web", json!({"restartPolicy": "OnFailure", "containers": [sleeper("app")]})).await;
        eventually("the pod", || life.is_ready("web")).await;
        life.handle.stop_pods().await;
        assert_eq!(world.pod_directories(), 0);
        assert_eq!(life.phase("web"), "Running", "the object says what it said");
    });
    world.live(async |life| {
        eventually("the pod again", || {
            life.pod("web")["status"]["containerStatuses"][0]["restartCount"] == 1 && life.is_ready("web")
        })
        .await;
        life.delete_pod("web", 0).await;
        eventually("the end", || world.pod_directories() == 0).await;
    });
}

#[test]
fn down_takes_the_object_along() {
    let world = World::new();
    world.live(async |life| {
        life.create_pod("web", json!({"containers": [sleeper("app")]})).await;
        eventually("the pod", || life.is_ready("web")).await;
        life.engine.stop("default", "web", Some(1)).unwrap();
        eventually("the object to go", || life.read("pods", "web").is_none()).await;
        assert!(world.path().exists());
    });
}
