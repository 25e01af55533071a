//! The walkthrough: a main container writes the date to a shared volume, its sidecar tails it.

use rustix::process::Signal;

use crate::world::{World, eventually, text};

const WALKTHROUGH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/walkthrough.yaml");

#[test]
fn in_the_foreground_only_the_sidecar_speaks_and_two_interrupts_end_it() {
    let world = World::new();
    let run = world.foreground(&["run", "--offline", WALKTHROUGH]);
    eventually("the sidecar to have said two dates", || {
        world.status("sidecar").is_some() && {
            let said = world.log("sidecar", "sidecar-container", 0) + &world.log("sidecar", "sidecar-container", 1);
            said.lines().filter(|line| line.contains("UTC")).count() >= 2
        }
    });
    assert_eq!(world.log("sidecar", "main-container", 0), "");
    run.signal(Signal::INT);
    // Two at once would be one (signal(7)).
    eventually("the first one's effect", || world.notices("sidecar").iter().any(|notice| notice.reason == "Killing"));
    run.signal(Signal::INT);
    let output = run.end();
    let said = text(&output.stdout);
    assert!(said.lines().filter(|line| line.contains("sidecar-container")).count() >= 2, "{said}");
    assert!(!said.lines().any(|line| line.starts_with("main-container")), "{said}");
    assert!(text(&output.stderr).contains("host"), "the stand-in of the images is said");
    assert_eq!(output.status.code(), Some(130));
    world.assert_nothing_left();
}

#[test]
fn detached_it_is_listed_read_and_taken_down() {
    let world = World::new();
    world.ok(&["run", "--offline", "--detach", WALKTHROUGH]);
    let listed = world.ok(&["ps"]);
    assert!(listed.contains("sidecar") && listed.contains("2/2") && listed.contains("Running"), "{listed}");
    eventually("a date in the sidecar's log", || {
        world.ok(&["logs", "sidecar", "-c", "sidecar-container"]).contains("UTC")
    });
    assert_eq!(world.ok(&["logs", "sidecar"]), "", "the main container says nothing");
    world.ok(&["down", "sidecar", "--force"]);
    assert!(!world.ok(&["ps"]).contains("sidecar"));
    world.assert_nothing_left();
}
