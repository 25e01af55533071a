//! The reference page of the command line, made of the command line itself. A test fails when `docs/reference/cli.md` is
//! not what this prints (`outrigger __reference > docs/reference/cli.md`).

use std::fmt::Write as _;

use clap::{Arg, Command, CommandFactory as _};

use crate::cli::Cli;

pub(crate) fn markdown() -> String {
    let mut root = Cli::command();
    root.build();
    let mut text = String::from("# The command line\n\n");
    text.push_str("<!-- Made by `outrigger __reference`; do not edit. -->\n\n");
    section(&mut text, &root, 2);
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

fn section(text: &mut String, command: &Command, level: usize) {
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{} {name}\n", "#".repeat(level));
    if let Some(about) = command.get_long_about().or_else(|| command.get_about()) {
        let _ = writeln!(text, "{about}\n");
    }
    let usage = command.clone().render_usage().to_string();
    let _ = writeln!(text, "```\n{}\n```\n", usage.trim_start_matches("Usage: "));
    let shown = |argument: &&Arg| !argument.is_hide_set() && !matches!(argument.get_id().as_str(), "help" | "version");
    // What every verb understands stands with the program itself.
    let here = |argument: &&Arg| level == 2 || !argument.is_global_set();
    for argument in command.get_arguments().filter(shown).filter(here) {
        let _ = writeln!(text, "* {}", item(argument));
    }
    if command.get_arguments().filter(shown).any(|argument| here(&argument)) {
        text.push('\n');
    }
    if let Some(after) = command.get_after_long_help().or_else(|| command.get_after_help()) {
        let _ = writeln!(text, "```\n{after}\n```\n");
    }
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set() && verb.get_name() != "help") {
        section(text, verb, level + 1);
    }
}

/// `` `-f`, `--filename FILE` — what it is (default `x`) ``
fn item(argument: &Arg) -> String {
    let values: Vec<String> = argument.get_value_names().into_iter().flatten().map(ToString::to_string).collect();
    let takes = argument.get_action().takes_values();
    let value = if takes { values.join(" ") } else { String::new() };
    let mut spellings = Vec::new();
    spellings.extend(argument.get_short().map(|short| format!("-{short}")));
    spellings.extend(argument.get_long().map(|long| format!("--{long}")));
    let spelled = match (spellings.is_empty(), value.is_empty()) {
        (true, _) => format!("`{value}`"),
        (false, true) => format!("`{}`", spellings.join("`, `")),
        (false, false) => format!("`{} {value}`", spellings.join("`, `")),
    };
    let help = argument.get_long_help().or_else(|| argument.get_help()).map(ToString::to_string).unwrap_or_default();
    let mut text = if help.is_empty() { spelled } else { format!("{spelled} — {}", help.replace('\n', " ")) };
    let defaults: Vec<_> = argument.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    if takes && !defaults.is_empty() {
        text.push_str(&format!(" (default `{}`)", defaults.join(" ")));
    }
    if takes {
        let possible = argument.get_possible_values();
        let names: Vec<String> = possible.iter().map(|value| format!("`{}`", value.get_name())).collect();
        if !names.is_empty() {
            text.push_str(&format!(" (one of {})", names.join(", ")));
        }
    }
    if let Some(variable) = argument.get_env() {
        text.push_str(&format!(" (environment: `{}`)", variable.to_string_lossy()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_reference_page_is_what_the_program_says() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/cli.md");
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&path, markdown()).expect("written");
        }
        let page = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            page == markdown(),
            "docs/reference/cli.md is stale; refresh it with: cargo run -p outrigger -- __reference > docs/reference/cli.md"
        );
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
