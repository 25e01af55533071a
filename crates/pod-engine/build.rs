//! Builds the shim, which the engine carries inside itself (`OUTRIGGER_SHIM_PATH`).
//!
//! A build of its own, because it wants what the engine must not have: static, position-dependent, small, ending at a
//! panic — relocations and unwind tables would be private memory of every pod. And because in one build with the engine,
//! cargo would give the crates they share the engine's features.

use std::env;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the shim is made of.
const CRATES: [&str; 3] = ["pod-shim", "pod-container", "logfile"];

fn main() -> Result<(), Box<dyn Error>> {
    let workspace = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../..").canonicalize()?;
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={}", workspace.join("Cargo.toml").display());
    println!("cargo::rerun-if-changed={}", workspace.join("Cargo.lock").display());
    for name in CRATES {
        let folder = workspace.join("crates").join(name);
        println!("cargo::rerun-if-changed={}", folder.join("Cargo.toml").display());
        println!("cargo::rerun-if-changed={}", folder.join("src").display());
    }
    // Clippy only looks; it need not wait for a program.
    println!("cargo::rerun-if-env-changed=RUSTC_WORKSPACE_WRAPPER");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let shim = if env::var("RUSTC_WORKSPACE_WRAPPER").is_ok_and(|wrapper| wrapper.contains("clippy")) {
        let empty = out.join("no-shim");
        std::fs::write(&empty, b"")?;
        empty
    } else {
        build(&workspace, &out)?
    };
    println!("cargo::rustc-env=OUTRIGGER_SHIM_PATH={}", shim.display());
    Ok(())
}

fn build(workspace: &Path, out: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let target = env::var("TARGET")?;
    // One for all profiles of the engine: …/target/PROFILE/build/pod-engine-HASH/out.
    let directory = out.ancestors().nth(4).ok_or("OUT_DIR is too short")?.join("shim");
    let status = Command::new(env::var("CARGO")?)
        .current_dir(workspace)
        .args(["build", "--package", "pod-shim", "--bin", "outrigger-shim", "--profile", "shim", "--target", &target])
        .arg("--target-dir")
        .arg(&directory)
        .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static\u{1f}-Crelocation-model=static")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("RUSTFLAGS")
        .status()?;
    if !status.success() {
        return Err(format!("building the shim failed: {status}").into());
    }
    Ok(directory.join(target).join("shim/outrigger-shim"))
}
