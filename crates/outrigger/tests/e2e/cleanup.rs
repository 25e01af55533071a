//! `cleanup` removes what is dead and nothing that lives, also while pods come and go and however long their paths are.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::world::{World, eventually, text};

fn pod(name: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: app
    image: busybox
    command: [sh, -c, 'trap "exit 0" TERM; while :; do sleep 0.05; done']
    volumeMounts: [{{name: data, mountPath: /data}}]
  volumes:
  - {{name: data, emptyDir: {{}}}}
"#
    )
}

/// Everything that a cleanup could take away from it is there.
fn assert_whole(world: &World, name: &str) {
    let listed = pod_engine::record::find(&world.roots(), "default", name).unwrap();
    let listed = listed.unwrap_or_else(|| panic!("{name} has a record"));
    let uid = listed.record.uid;
    let paths = listed.paths;
    assert_eq!(listed.status.phase.as_deref(), Some("Running"), "{name}");
    assert_eq!(world.container(name, "app").unwrap().restart_count, 0, "{name}");
    assert!(pod_engine::record::Ownership::is_taken(&paths).unwrap(), "{name} has an engine");
    let shim = Pid::from_raw(world.shim_pid(name) as i32).unwrap();
    kill_process(shim, Signal::CONT).unwrap_or_else(|error| panic!("{name}'s shim lives: {error}"));
    assert!(paths.disk_volume(&uid, "data").is_dir(), "{name} has its volume");
    assert!(paths.logs(&uid).is_dir(), "{name} has its logs");
    let roots = world.roots();
    let network = roots.network().join("pods").join(format!("{}.json", roots.network_id(&uid)));
    assert!(network.is_file(), "{name} has its network");
}

#[test]
fn pods_that_come_and_go_meanwhile_are_left_alone() {
    let world = World::new();
    world.detach(&pod("steady"));
    let shim = world.shim_pid("steady");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (world, done) = (&world, &done);
        let sweeper = scope.spawn(move || {
            let mut sweeps = 0;
            while !done.load(Ordering::Relaxed) || sweeps < 3 {
                world.ok(&["cleanup"]);
                sweeps += 1;
            }
        });
        let comers = ["first", "second"].map(|name| {
            let path = world.manifest(&format!("{name}.yaml"), &pod(name));
            scope.spawn(move || {
                for _ in 0..6 {
                    world.ok(&["run", "--offline", "--detach", path.to_str().unwrap()]);
                    assert_whole(world, name);
                    world.ok(&["down", name, "--force"]);
                }
                world.ok(&["run", "--offline", "--detach", path.to_str().unwrap()]);
            })
        });
        let comers = comers.map(std::thread::ScopedJoinHandle::join);
        done.store(true, Ordering::Relaxed);
        sweeper.join().unwrap();
        comers.into_iter().for_each(|comer| comer.unwrap());
    });
    for name in ["steady", "first", "second"] {
        assert_whole(&world, name);
    }
    assert_eq!(world.shim_pid("steady"), shim);
    world.ok(&["down", "--all", "--force"]);
    world.assert_nothing_left();
}

/// The background engine of this world.
fn engine(world: &World) -> Pid {
    let root = world.path("root").to_string_lossy().into_owned();
    let mut engines = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let line = text(&std::fs::read(entry.path().join("cmdline")).unwrap_or_default());
        let is_ours = line.contains("__engine") && line.contains(&root);
        if is_ours { entry.file_name().to_str()?.parse::<i32>().ok() } else { None }
    });
    Pid::from_raw(engines.next().expect("the background engine runs")).unwrap()
}

#[test]
fn an_orphan_with_paths_longer_than_a_socket_address_is_left_alone() {
    let world = World::deep();
    let name = "n".repeat(60);
    world.detach(&pod(&name));
    assert_whole(&world, &name);
    let shim = Pid::from_raw(world.shim_pid(&name) as i32).unwrap();
    let engine = engine(&world);
    kill_process(engine, Signal::KILL).unwrap();
    eventually("the engine to be dead", || kill_process(engine, Signal::CONT).is_err());
    world.ok(&["cleanup"]);
    kill_process(shim, Signal::CONT).expect("the orphan lives");

    // Taken over by an engine whose own socket is as deep, and stopped through it by another command.
    let adopted = world.foreground(&["run", "--adopt", &name]);
    eventually("the pod to have an owner", || {
        pod_engine::record::find(&world.roots(), "default", &name).unwrap().unwrap().owned
    });
    assert_whole(&world, &name);
    std::thread::sleep(Duration::from_millis(100));
    world.ok(&["down", &name]);
    adopted.end();
    world.assert_nothing_left();
}

#[test]
fn state_is_roots_alone_whatever_the_umask() {
    use std::os::unix::fs::PermissionsExt as _;
    let world = World::new();
    let path = world.manifest("pod.yaml", &pod("private"));
    let script = "umask 000; exec \"$0\" run --offline --detach \"$1\"";
    let mut command = std::process::Command::new("/bin/sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_outrigger"), path.to_str().unwrap()]);
    assert!(command.env("OUTRIGGER_ROOT", world.path("root")).status().unwrap().success());
    let run = world.roots().run;
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(format!("{:o}", mode(&run)), "700");
    for name in ["engine.sock", "engine.log"] {
        assert_eq!(format!("{name} {:o}", mode(&run.join(name))), format!("{name} 600"));
    }
    world.ok(&["down", "private", "--force"]);
    world.assert_nothing_left();
}
