//! A small program, built as updates are, to see whether this machine can.

use std::process::Stdio;

use shared::{causes::one_line, file};

use super::{build_environment::BuildStage, sandbox::Sandbox};
use crate::config::Config;

/// Tries what the features are known to need: for CUDA its compiler, on a kernel that does nothing.
const SCRIPT: &str = r#"
use std::{env, path::{Path, PathBuf}, process::Command};

fn main() {
    let cuda = |name: String| name.starts_with("CARGO_FEATURE_") && name.contains("CUDA");
    if !env::vars().any(|(name, _)| cuda(name)) {
        return;
    }
    let homes = ["CUDA_HOME", "CUDA_PATH", "CUDA_ROOT"].iter().filter_map(env::var_os);
    let nvcc = homes.map(|home| PathBuf::from(home).join("bin/nvcc")).find(|nvcc| nvcc.exists());
    let nvcc = nvcc.unwrap_or_else(|| PathBuf::from("nvcc"));
    let out = Path::new(&env::var_os("OUT_DIR").unwrap()).join("kernel.ptx");
    let compiled = Command::new(nvcc).args(["--ptx", "kernel.cu", "-o"]).arg(out).output();
    match compiled {
        Ok(output) if output.status.success() => {}
        Ok(output) => panic!("nvcc failed: {}", String::from_utf8_lossy(&output.stderr).trim()),
        Err(error) => panic!(
            "nvcc is neither in PATH nor under CUDA_HOME ({error}): see scripts/cuda-home"
        ),
    }
}
"#;

/// Builds the program; says what failed, in one line.
pub(crate) fn run(config: &Config) -> Result<(), String> {
    let said = |error: &dyn std::error::Error| one_line(error);
    let target = &config.build.target_dir;
    file::create_dir(target).map_err(|error| said(&error))?;
    // Where builds may write, and below what configures them.
    let folder = tempfile::tempdir_in(target).map_err(|error| said(&error))?;
    // A feature of one package of a workspace is named after it: `engine/cuda`.
    let features = config.build.features.iter();
    let features: Vec<&str> = features
        .map(|name| name.rsplit('/').next().unwrap_or(name))
        .collect();
    let table: Vec<String> = features
        .iter()
        .map(|feature| format!("{feature:?} = []\n"))
        .collect();
    let manifest = format!(
        "[package]\nname = \"doctor\"\nedition = \"2024\"\n[workspace]\n[features]\n{}",
        table.concat()
    );
    for (name, text) in [
        ("Cargo.toml", manifest.as_str()),
        ("build.rs", SCRIPT),
        ("kernel.cu", "__global__ void nothing() {}\n"),
        ("src/main.rs", "fn main() {}\n"),
    ] {
        file::write_atomic(&folder.path().join(name), text.as_bytes())
            .map_err(|error| said(&error))?;
    }
    let sandbox = Sandbox::of(config, BuildStage::Compile, false).map_err(|error| said(&error))?;
    let mut command = sandbox.command("cargo");
    command
        .args(["build", "--offline", "--color", "never", "--target-dir"])
        .arg(folder.path().join("target"))
        .args(["--features", &features.join(",")])
        .current_dir(folder.path())
        .stderr(Stdio::piped());
    let (child, _) = sandbox
        .spawn(&mut command, &[])
        .map_err(|error| said(&error))?;
    let output = child.wait_with_output().map_err(|error| said(&error))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let error = lines.clone().find(|line| line.starts_with("error"));
    let mut text = format!(
        "a program that does nothing can't be built: {}",
        error.unwrap_or("no reason was given")
    );
    if let Some(said) = lines.find(|line| line.starts_with("nvcc ")) {
        text = format!("{text}: {said}");
    } else {
        text.push_str("; is there a C compiler (`cc`)?");
    }
    Err(text)
}
