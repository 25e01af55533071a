//! `outrigger-shim DIR`: reads a `SandboxSpec` (JSON) from standard input, makes the sandbox, prints `ready PID` and ends;
//! the process with that PID then is the pod's shim.
//!
//! ```text
//! engine ─▶ outrigger-shim DIR          reads the spec, forks into new namespaces, waits for one word
//!             └─ child                  hostname, loopback, sysctls, tmpfs, socket, facts  (launch)
//!                 └─ exec, same binary  the shim proper: one poll loop, no parser, no spec  (serve)
//!                     ├─ container      forked, made and exec'd                             (spawn)
//!                     └─ …
//! ```
//! The exec in the middle throws away every page that reading the spec and making the sandbox has touched. And it goes
//! through a read-only mount of the binary, so that no container can ever write to it (CVE-2019-5736).
#![deny(unsafe_code)]

use std::process::ExitCode;

mod audience;
mod child;
mod container;
mod exec;
mod facts;
mod input;
mod launch;
mod loopback;
mod output;
mod pause;
mod peer;
mod request;
mod serve;
mod spawn;
mod sys;
mod text;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match (arguments.next(), arguments.next()) {
        (Some(word), Some(settings)) if word == serve::WORD => serve::run(settings),
        (Some(directory), None) => launch::run(directory.as_ref()),
        _ => launch::usage(),
    }
}
