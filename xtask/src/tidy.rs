//! Checks that no compiler makes: arrows between crates, licences, banned crates, where `unsafe` may stand, file and
//! module habits. All problems are reported at once.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};
use serde_json::Value;

/// Which of our crates each may use. A missing arrow is a design decision, not an oversight: below the plan nobody has
/// heard of Kubernetes, and mechanisms do not know each other.
const ARROWS: &[(&str, &[&str])] = &[
    ("footprint", &[]),
    ("logfile", &[]),
    ("nft", &[]),
    ("daemon", &["footprint"]),
    ("record", &[]),
    ("sidecar-logs", &["daemon", "record", "logfile"]),
    ("dataplane", &["daemon", "footprint"]),
    ("sidecar-proxy", &["daemon", "dataplane", "nft"]),
    ("pod-api", &[]),
    ("pod-plan", &["pod-api"]),
    ("pod-container", &[]),
    ("pod-shim", &["pod-container", "logfile"]),
    ("pod-image", &[]),
    ("pod-network", &["nft"]),
    ("pod-volume", &[]),
    (
        "pod-engine",
        &["pod-api", "pod-plan", "pod-container", "pod-shim", "pod-image", "pod-network", "pod-volume", "logfile"],
    ),
    ("pod-service", &["nft"]),
    ("pod-store", &[]),
    ("pod-schema", &[]),
    ("pod-patch", &["pod-schema"]),
    ("pod-client", &["pod-api", "pod-schema"]),
    ("pod-server", &["pod-api", "pod-store", "pod-schema", "pod-patch", "logfile"]),
    ("pod-node", &["pod-api", "pod-store", "pod-engine", "pod-plan", "pod-image", "pod-service"]),
    (
        "outrigger",
        &[
            "pod-api",
            "pod-plan",
            "pod-engine",
            "pod-image",
            "pod-network",
            "pod-store",
            "pod-schema",
            "pod-patch",
            "pod-server",
            "pod-client",
            "pod-node",
            "footprint",
            "logfile",
        ],
    ),
    ("e2e", &[]),
    ("xtask", &[]),
];

/// Reasons in `docs/decisions/0003-dependencies.md`.
const BANNED: &[&str] = &[
    "aws-lc-sys",
    "aws-lc-rs",
    "openssl",
    "openssl-sys",
    "native-tls",
    "libcontainer",
    "libseccomp",
    "rustables",
    "nftnl",
    "mnl",
    "openmetrics-parser",
    "serde_yaml",
];

const LICENCES: &[&str] = &[
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "MIT",
    "MIT-0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "MPL-2.0",
    "Zlib",
    "Unicode-3.0",
    "CC0-1.0",
    "BSL-1.0",
    "0BSD",
    "Unlicense",
    "CDLA-Permissive-2.0",
];

const VAGUE: &[&str] = &["utils", "util", "common", "helpers", "misc"];

/// At this length a file holds a second idea.
const LONG_FILE: usize = 900;

pub(crate) fn check() -> anyhow::Result<()> {
    let metadata = metadata()?;
    let mut problems = Vec::new();
    check_packages(&metadata, &mut problems);
    check_sources(Path::new("."), &mut problems)?;
    check_used(Path::new("."), &mut problems)?;
    if problems.is_empty() {
        return Ok(());
    }
    for problem in &problems {
        eprintln!("{problem}");
    }
    bail!("{} problem(s)", problems.len())
}

fn metadata() -> anyhow::Result<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked"])
        .output()
        .context("failed to run cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    }
    serde_json::from_slice(&output.stdout).context("failed to read cargo metadata")
}

fn check_packages(metadata: &Value, problems: &mut Vec<String>) {
    let ours: BTreeSet<&str> = ARROWS.iter().map(|(name, _)| *name).collect();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        if package["source"].is_null() {
            check_arrows(name, package, &ours, problems);
            continue;
        }
        if BANNED.contains(&name) {
            problems.push(format!("crate {name} is banned; `cargo tree -i {name}` says who brings it"));
        }
        let licence = package["license"].as_str().unwrap_or_default();
        if !licence_allowed(licence) {
            problems.push(format!("crate {name}: licence `{licence}` is not on the list"));
        }
    }
}

fn check_arrows(name: &str, package: &Value, ours: &BTreeSet<&str>, problems: &mut Vec<String>) {
    let Some((_, allowed)) = ARROWS.iter().find(|(known, _)| *known == name) else {
        problems.push(format!("crate {name} has no row in xtask's ARROWS"));
        return;
    };
    for dependency in package["dependencies"].as_array().into_iter().flatten() {
        let to = dependency["name"].as_str().unwrap_or_default();
        // A test may look at anything.
        let normal = dependency["kind"].is_null();
        if normal && ours.contains(to) && !allowed.contains(&to) {
            problems.push(format!("crate {name} may not use {to}: arrows go only downward (ARCHITECTURE.md)"));
        }
    }
}

/// An SPDX expression is fine when one alternative of each `OR` is. Parentheses occur only around alternatives.
fn licence_allowed(expression: &str) -> bool {
    let flat = expression.replace('/', " OR ").replace(['(', ')'], "");
    flat.split(" AND ").all(|part| part.split(" OR ").any(|one| LICENCES.contains(&one.trim())))
        || flat.split(" OR ").any(|part| part.split(" AND ").all(|one| LICENCES.contains(&one.trim())))
}

fn check_sources(root: &Path, problems: &mut Vec<String>) -> anyhow::Result<()> {
    for folder in ["crates", "xtask", "e2e", "benches"] {
        walk(&root.join(folder), problems)?;
    }
    Ok(())
}

/// A dependency of the workspace that no crate takes is a claim nobody makes any more.
fn check_used(root: &Path, problems: &mut Vec<String>) -> anyhow::Result<()> {
    let workspace = std::fs::read_to_string(root.join("Cargo.toml")).context("failed to read Cargo.toml")?;
    let mut taken =
        std::fs::read_to_string(root.join("xtask/Cargo.toml")).context("failed to read xtask/Cargo.toml")?;
    for entry in std::fs::read_dir(root.join("crates")).context("failed to list crates")? {
        taken.push_str(&std::fs::read_to_string(entry?.path().join("Cargo.toml")).unwrap_or_default());
    }
    let listed = workspace.split("[workspace.dependencies]").nth(1).unwrap_or_default();
    let listed = listed.split("\n[").next().unwrap_or_default();
    for line in listed.lines() {
        let Some((name, _)) = line.split_once(" = ").filter(|(name, _)| !name.starts_with('#')) else { continue };
        let used = taken.lines().any(|line| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(".workspace") || rest.starts_with(" = { workspace"))
        });
        if !used {
            problems.push(format!("Cargo.toml: no crate uses the workspace dependency {name}"));
        }
    }
    Ok(())
}

fn walk(folder: &Path, problems: &mut Vec<String>) -> anyhow::Result<()> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(()) };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                walk(&path, problems)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            check_file(&path, problems)?;
        }
    }
    Ok(())
}

fn check_file(path: &Path, problems: &mut Vec<String>) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))?;
    let shown = path.display();
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    if VAGUE.contains(&stem.as_str()) {
        problems.push(format!("{shown}: a module is named for its idea, not `{stem}`"));
    }
    let lines = text.lines().count();
    if lines > LONG_FILE {
        problems.push(format!("{shown}: {lines} lines; what is the second idea in it?"));
    }
    // A module's tests are introduced by the module.
    if stem != "tests" && !text.trim_start().starts_with("//!") && !text.starts_with("#!") {
        problems.push(format!("{shown}: begins without a `//!` that says what it is for"));
    }
    let in_sys = path.components().any(|part| part.as_os_str() == "sys") || stem == "sys";
    let in_test = path.components().any(|part| part.as_os_str() == "tests") || stem == "tests";
    let block = concat!(" unsafe", " {");
    let opens = text.lines().any(|line| line.trim_start().starts_with("unsafe ") || line.contains(block));
    if opens && !in_sys && !in_test {
        problems.push(format!("{shown}: `unsafe` outside a `sys` module"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::licence_allowed;

    #[test]
    fn licence_expressions() {
        assert!(licence_allowed("MIT OR Apache-2.0"));
        assert!(licence_allowed("MIT/Apache-2.0"));
        assert!(licence_allowed("(MIT OR Apache-2.0) AND Unicode-3.0"));
        assert!(licence_allowed("Apache-2.0 AND ISC"));
        assert!(licence_allowed("MPL-2.0 OR LGPL-3.0-or-later"));
        assert!(!licence_allowed("GPL-3.0-or-later"));
        assert!(!licence_allowed("MIT AND GPL-2.0"));
        assert!(!licence_allowed(""));
    }
}
