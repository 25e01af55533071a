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
mod kube;
mod logs;
mod manifest;
mod narrate;
mod orphans;
mod plan;
mod ps;
mod reference;
mod run;
mod start;
mod status;
mod stdout;
mod stop;
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
        Verb::Start(arguments) => start::run(&global, &arguments),
        Verb::Stop(arguments) => stop::run(&global, &arguments),
        Verb::Status(arguments) => status::run(&global, &arguments),
        Verb::Node(arguments) => start::daemon::serve(&host::roots(&global), &arguments),
        Verb::Apply(arguments) => kube::apply::run(&global, &arguments),
        Verb::Get(arguments) => kube::get::run(&global, &arguments),
        Verb::Describe(arguments) => kube::describe::run(&global, &arguments),
        Verb::Delete(arguments) => kube::delete::run(&global, &arguments),
        Verb::Exec(arguments) => kube::exec::run(&global, &arguments),
        Verb::Attach(arguments) => kube::attach::run(&global, &arguments),
        Verb::PortForward(arguments) => kube::forward::run(&global, &arguments),
        Verb::Copy(arguments) => kube::copy::run(&global, &arguments),
        Verb::Wait(arguments) => kube::wait::run(&global, &arguments),
        Verb::Top(arguments) => kube::top::run(&global, &arguments),
        Verb::Events(arguments) => kube::events::run(&global, &arguments),
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
