//! `start`, `stop` and `status`: the node as a process, its kubeconfig, and its manners beside `run`.

use std::path::PathBuf;
use std::process::Output;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::world::{World, eventually, text};

const SLEEPER: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  terminationGracePeriodSeconds: 2
  containers:
  - name: app
    image: busybox
    command: [sh, -c, 'trap "exit 0" TERM; while :; do sleep 0.05; done']
"#;

/// Whatever happens in the test, the daemon and all it has go.
struct Node {
    world: World,
}

impl Node {
    fn new() -> Self {
        Self { world: World::new() }
    }

    fn kubeconfig(&self) -> PathBuf {
        self.world.path("kubeconfig")
    }

    fn outrigger(&self, arguments: &[&str]) -> Output {
        let mut command = self.world.command(arguments);
        let output = command.env("KUBECONFIG", self.kubeconfig()).stdin(std::process::Stdio::null()).output().unwrap();
        eprintln!("$ outrigger {}\n{}{}", arguments.join(" "), text(&output.stdout), text(&output.stderr));
        output
    }

    fn start(&self) -> String {
        let output = self.outrigger(&["start", "--offline", "--port", "0"]);
        assert!(output.status.success());
        text(&output.stdout)
    }

    fn pid(&self) -> Pid {
        let card = std::fs::read(self.world.roots().run.join("node.json")).unwrap();
        let card: serde_json::Value = serde_json::from_slice(&card).unwrap();
        Pid::from_raw(i32::try_from(card["pid"].as_i64().unwrap()).unwrap()).unwrap()
    }

    fn code(&self, arguments: &[&str]) -> Option<i32> {
        self.outrigger(arguments).status.code()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.outrigger(&["stop", "--clean"]);
    }
}

#[test]
fn a_node_comes_once_tells_of_itself_and_goes_without_a_trace() {
    let node = Node::new();
    assert_eq!(node.code(&["status"]), Some(3));
    std::fs::write(node.kubeconfig(), "# mine\nkind: Config\ncurrent-context: other\n").unwrap();
    let said = node.start();
    assert!(said.contains("the node is ready at https://127.0.0.1:"), "{said}");
    assert!(said.contains("the current context was \"other\""), "{said}");
    let config = std::fs::read_to_string(node.kubeconfig()).unwrap();
    assert!(config.starts_with("# mine\n") && config.contains("- name: outrigger-"), "{config}");
    let again = node.outrigger(&["start"]);
    assert_eq!(again.status.code(), Some(0));
    assert!(text(&again.stdout).starts_with("the node is running already at https://127.0.0.1:"));
    let status = node.outrigger(&["status"]);
    assert_eq!(status.status.code(), Some(0));
    assert!(text(&status.stdout).contains("pods       0 running"));
    assert_eq!(node.code(&["stop", "--clean"]), Some(0));
    assert!(!node.world.roots().data.join("node").exists());
    let config = std::fs::read_to_string(node.kubeconfig()).unwrap();
    assert!(config.starts_with("# mine\n") && !config.contains("outrigger"), "{config}");
    assert_eq!(node.code(&["status"]), Some(3));
    node.world.assert_nothing_left();
}

#[test]
fn a_killed_daemon_leaves_nothing_in_the_way() {
    let node = Node::new();
    node.start();
    kill_process(node.pid(), Signal::KILL).unwrap();
    eventually("it to be gone", || node.code(&["status"]) == Some(3));
    node.start();
    assert_eq!(node.code(&["status"]), Some(0));
}

#[test]
fn a_taken_port_and_a_broken_kubeconfig_are_told() {
    let node = Node::new();
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = other.local_addr().unwrap().port().to_string();
    let refused = node.outrigger(&["start", "--port", &port]);
    assert_eq!(refused.status.code(), Some(125));
    let said = text(&refused.stderr);
    assert!(said.contains(&format!("127.0.0.1:{port} is taken by")) && said.contains("--port"), "{said}");
    assert_eq!(node.code(&["start", "--listen", "0.0.0.0:0"]), Some(2));

    let half = "kind: Config\nclusters:\n- cluster: {server: x\n";
    std::fs::write(node.kubeconfig(), half).unwrap();
    let refused = node.outrigger(&["start", "--port", "0"]);
    assert_eq!(refused.status.code(), Some(1));
    let said = text(&refused.stderr);
    assert!(said.contains("was not changed") && said.contains("--kubeconfig FILE"), "{said}");
    assert_eq!(std::fs::read_to_string(node.kubeconfig()).unwrap(), half);
    assert_eq!(node.code(&["status"]), Some(0), "the node runs all the same");
    let elsewhere = node.world.path("elsewhere");
    assert_eq!(node.code(&["start", "--kubeconfig", elsewhere.to_str().unwrap()]), Some(0));
    assert!(std::fs::read_to_string(elsewhere).unwrap().contains("kind: Config"));
}

#[test]
fn detached_pods_go_to_the_node_and_back() {
    let node = Node::new();
    node.world.detach(SLEEPER);
    let uid = node.world.uid("web");
    let owned = || {
        let listed = pod_engine::record::find(&node.world.roots(), "default", "web").unwrap();
        listed.is_some_and(|listed| listed.owned)
    };
    node.start();
    eventually("the node to have the pod", owned);
    assert_eq!(node.code(&["stop"]), Some(0));
    eventually("an engine to have the pod", owned);
    std::thread::sleep(Duration::from_millis(200));
    let app = node.world.container("web", "app").unwrap();
    assert_eq!((app.restart_count, node.world.uid("web")), (0, uid));
    node.start();
    assert_eq!(node.code(&["down", "web", "--force"]), Some(0));
}
