//! What end-to-end tests share: where the workspace and its programs are.

pub mod wall_clock;
pub mod wandb_client;

use std::path::{Path, PathBuf};

/// Returns the root of the workspace.
pub fn workspace() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize()
        .expect("the workspace is where it was compiled")
}

/// Returns a program of the workspace, as built beside the running test.
///
/// # Panics
///
/// Panics if it was not built: `cargo nextest run --workspace` builds all programs.
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let profile = test
        .parent()
        .and_then(Path::parent)
        .expect("target/<profile>/deps/<test>");
    let program = profile.join(name);
    assert!(
        program.is_file(),
        "{} is missing: run `cargo build --workspace`",
        program.display()
    );
    program
}
