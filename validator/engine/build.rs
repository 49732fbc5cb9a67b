//! Compiles our own CUDA kernels to PTX, for builds with the feature `cuda`.
#![expect(
    clippy::disallowed_methods,
    reason = "a build script hears from cargo through the environment, and runs the compiler"
)]

use std::{env, path::PathBuf, process::Command};

/// PTX for this runs on every GPU from Ampere on: the driver compiles it for the one it finds.
const ARCHITECTURE: &str = "compute_80";

fn main() {
    println!("cargo::rerun-if-changed=kernels");
    println!("cargo::rerun-if-env-changed=NVCC");
    println!("cargo::rerun-if-env-changed=CUDA_HOME");
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    let out = env::var("OUT_DIR").expect("cargo sets it");
    for kernels in ["attention", "attention_f32", "norm", "rows"] {
        let status = Command::new(nvcc())
            .args([
                "--ptx",
                "-O3",
                "-std=c++17",
                "--gpu-architecture",
                ARCHITECTURE,
            ])
            .args(["--output-directory", &out])
            .arg(format!("kernels/{kernels}.cu"))
            .status()
            .expect("nvcc is on PATH, or named by NVCC");
        assert!(status.success(), "nvcc: {status}");
    }
}

/// Where candle's build script looks for the compiler, too.
fn nvcc() -> PathBuf {
    if let Some(path) = env::var_os("NVCC") {
        return path.into();
    }
    let home = env::var_os("CUDA_HOME").map(|home| PathBuf::from(home).join("bin/nvcc"));
    home.filter(|path| path.exists())
        .unwrap_or_else(|| "nvcc".into())
}
