//! Receivers that other people wrote, and the examples as they stand, driven by `benches/logs/receivers.py`: rsyslog,
//! OpenTelemetry's own decoder over HTTP and gRPC, MessagePack's, and what Loki and Elasticsearch document. The cases that
//! want an S3 server say `NOT RUN` where it is not installed (`moto[server,s3]` from PyPI; CI has none).

use std::path::Path;
use std::process::Command;

#[test]
fn other_peoples_receivers_take_every_record() {
    let agent = Path::new(env!("CARGO_BIN_EXE_outrigger-logs"));
    // What `.ci/kubectl` brings, and otherwise whatever this machine has.
    let ours = agent.ancestors().nth(2).unwrap().join("clients/python/bin/python3");
    let python = if ours.exists() { ours } else { "python3".into() };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../benches/logs/receivers.py");
    match Command::new(python).arg(script).arg(agent).output() {
        Err(error) => println!("NOT RUN: there is no python3: {error}"),
        Ok(output) => {
            let (said, failed) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            println!("{said}");
            assert!(output.status.success(), "{said}\n{failed}");
        }
    }
}
