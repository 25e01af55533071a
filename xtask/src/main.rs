//! What CI runs and what keeps the house in order: `cargo xtask ci`, or one part of it by name.

#![forbid(unsafe_code)]

mod tidy;

use std::process::{Command, ExitCode};

use anyhow::{Context, bail};

type Part = fn() -> anyhow::Result<()>;

/// In the order in which a failure is cheapest to learn of.
const PARTS: [(&str, Part); 5] =
    [("format", format), ("tidy", tidy::check), ("lint", lint), ("doc", doc), ("test", test)];

fn main() -> ExitCode {
    let asked: Vec<String> = std::env::args().skip(1).collect();
    let result = match asked.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["ci"] => PARTS.iter().try_for_each(|(name, part)| run_part(name, *part)),
        [name] => match PARTS.iter().find(|(known, _)| *known == name) {
            Some((name, part)) => run_part(name, *part),
            None => usage(),
        },
        _ => usage(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> anyhow::Result<()> {
    bail!("usage: cargo xtask ci|{}", PARTS.map(|(name, _)| name).join("|"))
}

fn run_part(name: &str, part: Part) -> anyhow::Result<()> {
    eprintln!("=== {name}");
    part().with_context(|| format!("{name} failed"))
}

fn format() -> anyhow::Result<()> {
    cargo(&["fmt", "--all", "--check"], &[])
}

fn lint() -> anyhow::Result<()> {
    cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"], &[])
}

fn doc() -> anyhow::Result<()> {
    cargo(
        &["doc", "--workspace", "--no-deps", "--document-private-items", "--locked"],
        &[("RUSTDOCFLAGS", "-D warnings -A rustdoc::private_intra_doc_links")],
    )
}

/// Everything at once would put all timing tests on two cores at the same time; crates run one after another. All of
/// them run, so that one run tells of every failure.
fn test() -> anyhow::Result<()> {
    cargo(&["test", "--workspace", "--locked", "--no-fail-fast"], &[])
}

fn cargo(arguments: &[&str], environment: &[(&str, &str)]) -> anyhow::Result<()> {
    let status = Command::new(env!("CARGO"))
        .args(arguments)
        .envs(environment.iter().copied())
        .status()
        .context("failed to run cargo")?;
    if !status.success() {
        bail!("`cargo {}` ended with {status}", arguments.join(" "));
    }
    Ok(())
}
