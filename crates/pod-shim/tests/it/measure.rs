//! Numbers, on demand: what a pod costs in time and memory.
//!
//! ```text
//! OUTRIGGER_SHIM=target/shim/x86_64-unknown-linux-gnu/shim/outrigger-shim \
//!     cargo test --release -p pod-shim --features client --test it -- --ignored --nocapture measure
//! ```

use std::time::{Duration, Instant};

use crate::world::{World, sandbox};

#[tokio::test]
#[ignore = "measures; run it on a quiet machine with the release build of the shim"]
async fn measure() {
    const ROUNDS: usize = 40;
    let mut times = [const { Vec::new() }; 5];
    let names = ["sandbox", "start 1st", "start 2nd", "exec true", "kill both"];
    let mut memory = String::new();
    for round in 0..ROUNDS {
        let begin = Instant::now();
        let mut world = World::new(sandbox()).await;
        times[0].push(begin.elapsed());
        for (index, name) in ["one", "two"].into_iter().enumerate() {
            let spec = world.spec_of(name, &["sleep", "1000"]);
            let begin = Instant::now();
            world.client().start(name, 0, &spec).await.expect("start");
            times[1 + index].push(begin.elapsed());
        }
        let process = crate::world::process(&["true"], Default::default());
        let begin = Instant::now();
        let mut exec = world.client().exec("one", 0, &process, crate::world::null_stdio()).await.expect("exec");
        exec.wait().await.expect("end");
        times[3].push(begin.elapsed());
        if round == 0 {
            tokio::time::sleep(Duration::from_millis(300)).await;
            memory = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", world.shim)).expect("smaps_rollup");
            memory += &std::fs::read_to_string(format!("/proc/{}/smaps", world.shim)).expect("smaps");
        }
        let begin = Instant::now();
        for name in ["one", "two"] {
            world.client().signal(name, 0, 9).await.expect("signal");
        }
        let mut exits = 0;
        while exits < 2 {
            exits += usize::from(matches!(world.next_fact().await, pod_shim::protocol::Fact::Exited { .. }));
        }
        times[4].push(begin.elapsed());
    }
    for (name, mut times) in names.into_iter().zip(times) {
        times.sort_unstable();
        let at = |share: usize| times[times.len() * share / 100];
        let show = |time: Duration| format!("{:.2}", time.as_secs_f64() * 1e3);
        println!("{name:10} ms: best {} p50 {} p90 {}", show(times[0]), show(at(50)), show(at(90)));
    }
    let interesting =
        |line: &&str| line.contains('-') || ["Pss:", "Rss:", "Private_Dirty"].iter().any(|word| line.starts_with(word));
    memory.lines().filter(interesting).for_each(|line| println!("{line}"));
}
