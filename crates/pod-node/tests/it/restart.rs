//! The daemon dies, the machine dies, the node is stopped: what becomes of the pods.

use std::time::Duration;

use serde_json::json;

use pod_store::{Change, Durability, Store};

use crate::world::{World, eventually, key, shell, sleeper};

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

#[test]
fn who_waits_for_room_does_not_take_it_from_those_that_have_it() {
    let world = World::new();
    world.live(async |life| {
        let most = format!("{}m", life.engine.node().cpu_millis * 2 / 3);
        let greedy = || {
            let mut app = sleeper("app");
            app["resources"] = json!({"requests": {"cpu": most}});
            json!({"terminationGracePeriodSeconds": 1, "containers": [app]})
        };
        life.create_pod("second", greedy()).await;
        eventually("the first that came", || life.is_ready("second")).await;
        life.create_pod("another", greedy()).await;
        eventually("the one that waits", || life.condition("another", "PodScheduled")["reason"] == "Unschedulable")
            .await;
    });
    world.live(async |life| {
        eventually("adoption", || life.engine.drives("default", "second")).await;
        // Whatever was to be bound was bound in the same round.
        life.create_pod("last", json!({"containers": [sleeper("app")]})).await;
        eventually("a later one", || life.is_ready("last")).await;
        assert_eq!(life.pod("another")["spec"]["nodeName"], json!(null));
        for name in ["another", "second", "last"] {
            life.delete_pod(name, 0).await;
        }
        eventually("the end", || world.pod_directories() == 0).await;
    });
}

#[test]
fn what_was_replaced_while_no_node_ran_is_stopped_though_its_successor_may_not_run() {
    let world = World::new();
    world.live(async |life| {
        life.create_pod("web", json!({"containers": [sleeper("app")]})).await;
        eventually("the pod", || life.is_ready("web")).await;
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Store::open(&world.store_path()).unwrap();
        let object = store.get(&key("pods", "web")).unwrap();
        let mut pod: serde_json::Value = serde_json::from_slice(&object.json).unwrap();
        let delete = Change::Delete { expected: None, last: None };
        store.write(key("pods", "web"), delete, Durability::Synced).await.unwrap();
        pod["metadata"]["uid"] = pod_engine::record::new_uid().unwrap().into();
        pod["spec"].as_object_mut().unwrap().remove("nodeName");
        pod["spec"]["schedulingGates"] = json!([{"name": "example.com/wait"}]);
        pod["status"] = json!({"phase": "Pending"});
        store.write(key("pods", "web"), Change::Create(pod), Durability::Synced).await.unwrap();
        store.close();
    });
    world.live(async |life| {
        eventually("the old one to be gone", || world.pod_directories() == 0).await;
        eventually("the gate", || life.condition("web", "PodScheduled")["reason"] == "SchedulingGated").await;
        life.change("pods", "web", |pod| pod["spec"]["schedulingGates"] = json!([])).await;
        eventually("the new one", || life.is_ready("web")).await;
        life.delete_pod("web", 0).await;
        eventually("the end", || world.pod_directories() == 0).await;
    });
}

#[test]
fn what_was_being_forgotten_is_forgotten_by_the_next_node() {
    let world = World::new();
    let uid = world.live(async |life| {
        life.create_pod("job", json!({"restartPolicy": "Never", "containers": [shell("app", "echo done")]})).await;
        eventually("its end", || life.phase("job") == "Succeeded" && !life.engine.drives("default", "job")).await;
        life.pod("job")["metadata"]["uid"].as_str().unwrap().to_owned()
    });
    // As an engine leaves it that dies between the rename and the end of the removal.
    let paths = world.roots().pod("default", "job");
    std::fs::rename(&paths.run, paths.gone(&uid)).unwrap();
    let nameless = paths.gone("without a record");
    std::fs::create_dir(&nameless).unwrap();
    assert!(paths.logs(&uid).exists());
    world.live(async |_| {
        let left = || [paths.gone(&uid), nameless.clone(), paths.logs(&uid)].iter().any(|path| path.exists());
        eventually("the rest to go", || !left()).await;
    });
}

#[test]
fn a_cleanup_before_the_next_node_spares_what_its_pods_come_back_to() {
    let world = World::new();
    let roots = world.roots();
    let place = |uid: &str| [roots.logs.join(format!("default_web_{uid}")), roots.data.join("pods").join(uid)];
    let (known, unknown) = (place("known"), place("unknown"));
    for path in known.iter().chain(&unknown) {
        std::fs::create_dir_all(path).unwrap();
    }
    let config = pod_engine::Config {
        roots: roots.clone(),
        pod_cidr: "10.89.0.0/16".parse().unwrap(),
        socket: roots.run.join("sweep.sock"),
        node_name: None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let sweep = async { pod_engine::cleanup::sweep_but(config, |uid| uid == "known").unwrap() };
    let report = tokio::task::LocalSet::new().block_on(&runtime, sweep);
    assert!(report.complaints.is_empty(), "{report:?}");
    assert!(known.iter().all(|path| path.exists()) && unknown.iter().all(|path| !path.exists()));
}
