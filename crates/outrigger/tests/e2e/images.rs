//! Images: packed without Docker, pushed to a real registry, pulled by a pod, and what is said when that fails.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::world::{Port, World, eventually, text};

/// Debian's `docker-registry` on a free loopback port, with its storage in the test's directory.
struct Registry {
    server: Child,
    port: u16,
    _reserved: Port,
}

impl Registry {
    fn start(world: &World) -> Registry {
        let reserved = Port::reserve();
        let port = reserved.number;
        let config = world.path("registry.yml");
        let storage = world.path("registry");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: 127.0.0.1:{port}}}\n",
            storage.display()
        );
        std::fs::write(&config, text).unwrap();
        let server = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("Debian package docker-registry is needed for this test");
        eventually("the registry to listen", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        Registry { server, port, _reserved: reserved }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn pod(image: &str, policy: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: pulled}}\nspec:\n  restartPolicy: Never\n  containers:\n  - {{name: m, image: \"{image}\", imagePullPolicy: {policy}}}\n"
    )
}

#[test]
fn a_packed_image_goes_through_a_registry_into_a_pod() {
    let world = World::new();
    let registry = Registry::start(&world);
    let name = format!("127.0.0.1:{}/team/tool:1", registry.port);
    // Debian's busybox-static: one file that needs nothing else.
    world.ok(&[
        "image",
        "pack",
        &name,
        "--add",
        "/bin/busybox:/bin/busybox",
        "--entrypoint",
        "/bin/busybox",
        "--cmd",
        "echo",
        "--cmd",
        "said by the image",
    ]);
    world.ok(&["image", "push", &name]);
    world.ok(&["image", "remove", &name]);
    assert!(!world.ok(&["image", "list"]).contains("team/tool"));

    let path = world.manifest("pod.yaml", &pod(&name, "IfNotPresent"));
    let output = world.run(&["run", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).contains("said by the image"));
    assert!(text(&output.stderr).contains(&format!("pulled {name}")), "{}", text(&output.stderr));

    let output = world.run(&["run", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0));
    assert!(!text(&output.stderr).contains("pulling "), "it is in the store: {}", text(&output.stderr));
    assert!(world.ok(&["image", "list"]).contains("team/tool"));
    world.assert_nothing_left();
}

#[test]
fn an_image_that_is_not_there_is_a_waiting_reason_not_a_failure() {
    let world = World::new();
    let registry = Registry::start(&world);
    let missing = format!("127.0.0.1:{}/no/such:1", registry.port);
    let path = world.manifest("pod.yaml", &pod(&missing, "IfNotPresent"));
    let output = world.run(&["run", "--detach", path.to_str().unwrap()]);
    assert!(!output.status.success());
    eventually("the waiting reason", || {
        let waiting = world.container("pulled", "m").and_then(|c| c.state?.waiting?.reason);
        matches!(waiting.as_deref(), Some("ErrImagePull" | "ImagePullBackOff"))
    });
    assert_eq!(world.phase("pulled"), "Pending");
    world.ok(&["down", "pulled", "--force"]);

    let path = world.manifest("pod.yaml", &pod("example.invalid/never:1", "Never"));
    world.run(&["run", "--detach", path.to_str().unwrap()]);
    let waiting = world.container("pulled", "m").and_then(|c| c.state?.waiting?.reason);
    assert_eq!(waiting.as_deref(), Some("ErrImageNeverPull"));
    world.ok(&["down", "pulled", "--force"]);
    world.assert_nothing_left();
}

#[test]
fn a_pull_that_hangs_holds_up_neither_a_present_image_nor_the_pods_end() {
    let world = World::new();
    // Takes connections (the backlog does) and never says a word.
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let name = format!("127.0.0.1:{}/tool:1", mute.local_addr().unwrap().port());
    let pack =
        ["--add", "/bin/busybox:/bin/busybox", "--entrypoint", "/bin/busybox", "--cmd", "sleep", "--cmd", "1000"];
    world.ok(&[&["image", "pack", &name], &pack[..]].concat());
    let named = |pod: String, name: &str| pod.replace("name: pulled", &format!("name: {name}"));

    let hanging = world.manifest("hanging.yaml", &named(pod(&name, "Always"), "hanging"));
    let waiting = world.foreground(&["run", "--detach", hanging.to_str().unwrap()]);
    eventually("the pull", || world.notices("hanging").iter().any(|notice| notice.reason == "Pulling"));
    let present = world.manifest("present.yaml", &named(pod(&name, "IfNotPresent"), "present"));
    let asked = Instant::now();
    world.ok(&["run", "--detach", present.to_str().unwrap()]);
    world.ok(&["down", "hanging", "--force"]);
    world.ok(&["down", "present", "--force"]);
    // The pull is given up after a minute of silence.
    assert!(asked.elapsed() < Duration::from_secs(45), "{:?}", asked.elapsed());
    drop(waiting);
    world.assert_nothing_left();
}
