//! Containers that join another one's processes, as a debugger does.

use pod_container::spec::*;
use pod_shim::client::StartError;

use crate::world::{World, eventually, process, world};

fn debugger(world: &World, name: &str, script: &str) -> ContainerSpec {
    ContainerSpec { processes_of: Some("app".into()), ..world.spec(name, script) }
}

#[tokio::test]
async fn a_debugger_sees_the_processes_of_its_target_and_keeps_its_own_root() {
    let mut world = world!();
    let spec = world.spec("app", "touch /mine; exec sleep 1000");
    world.client().start("app", 0, &spec).await.expect("start");
    eventually("the file is there", || world.path("app-upper").join("mine").exists()).await;
    let script =
        "cat /proc/1/cmdline | tr '\\0' ' '; echo; test -e /mine || echo no file; test $$ != 1 && echo not the first";
    let script = script.replace("| tr '\\0' ' '", "");
    let spec = debugger(&world, "debug", &script);
    let output = world.output_of("debug", &spec).await;
    assert_eq!(output, "sleep\u{0}1000\u{0}\nno file\nnot the first\n");
    // An exec into it is among the same processes.
    let spec = debugger(&world, "second", "exec sleep 1001");
    world.client().start("second", 0, &spec).await.expect("start");
    let (mut exec, master) = world
        .client()
        .exec_in_terminal("second", 0, &process(&["sh", "-c", "cat /proc/1/cmdline; echo"], Default::default()))
        .await
        .expect("exec");
    assert!(crate::terminals::read_terminal(&master, "").contains("1000"));
    assert_eq!(exec.wait().await.expect("end").code, 0);
}

#[tokio::test]
async fn the_end_of_either_is_its_own_or_the_targets() {
    let mut world = world!();
    let spec = world.spec("app", "exec sleep 1000");
    let app = world.client().start("app", 0, &spec).await.expect("start");
    // What it leaves behind goes with it, although the namespace stays.
    let spec = debugger(&world, "debug", "sleep 1002 & sleep 0.1; exit 3");
    assert_eq!(world.run("debug", &spec).await.code, 3);
    assert_eq!(world.hierarchy.processes(&world.cgroup.join("debug")).expect("processes"), Vec::<u32>::new());
    assert!(crate::world::is_alive(app.pid));
    let spec = debugger(&world, "second", "exec sleep 1003");
    world.client().start("second", 0, &spec).await.expect("start");
    world.client().signal("app", 0, 9).await.expect("signal");
    // The kernel takes the namespace with its first process.
    let mut codes = [("app", 0), ("second", 0)];
    for _ in 0..2 {
        if let pod_shim::protocol::Fact::Exited { container, exit, .. } = next_exit(&mut world).await {
            codes.iter_mut().filter(|(name, _)| *name == container).for_each(|(_, code)| *code = exit.code);
        }
    }
    assert_eq!(codes, [("app", 137), ("second", 137)]);
}

async fn next_exit(world: &mut World) -> pod_shim::protocol::Fact {
    loop {
        let fact = world.next_fact().await;
        if matches!(fact, pod_shim::protocol::Fact::Exited { .. }) {
            return fact;
        }
    }
}

#[tokio::test]
async fn a_target_that_does_not_run_is_a_create_error() {
    let world = world!();
    let spec = debugger(&world, "debug", "exit 0");
    match world.client().start("debug", 0, &spec).await {
        Err(StartError::Create { message, .. }) => {
            assert_eq!(message, "the container whose processes it is to join is not running");
        }
        other => panic!("{other:?}"),
    }
}
