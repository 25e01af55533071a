//! The engine's binary: verbs, wiring, exit codes. What happens to pods is decided in `pod-plan` and done in `pod-engine`.

#![forbid(unsafe_code)]

mod background;
mod cleanup;
mod cli;
mod down;
mod exit;
mod hint;
mod host;
mod image;
mod logs;
mod manifest;
mod narrate;
mod orphans;
mod plan;
mod ps;
mod reference;
mod run;
mod stdout;
mod table;
mod terminal;

use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::{Cli, Verb};

fn main() -> ExitCode {
    let Cli { global, verb } = Cli::parse();
    let outcome = match verb {
        Verb::Run(arguments) => run::run(&global, arguments),
        Verb::Ps(arguments) => ps::run(&global, &arguments),
        Verb::Logs(arguments) => logs::run(&global, arguments),
        Verb::Down(arguments) => down::run(&global, arguments),
        Verb::Plan(arguments) => plan::run(&arguments),
        Verb::Image(arguments) => image::run(&global, arguments.verb),
        Verb::Cleanup(arguments) => cleanup::run(&global, &arguments),
        Verb::Version(_) => said(concat!("outrigger ", env!("CARGO_PKG_VERSION"), "\n")),
        Verb::Engine(arguments) => background::serve(&host::roots(&global), arguments.network.pod_cidr),
        Verb::Reference => said(&reference::markdown()),
    };
    ExitCode::from(outcome.unwrap_or_else(|error| {
        let (text, code) = exit::report(&error);
        eprint!("{text}");
        code
    }))
}

fn said(text: &str) -> anyhow::Result<u8> {
    stdout::print(text)?;
    Ok(exit::OK)
}
