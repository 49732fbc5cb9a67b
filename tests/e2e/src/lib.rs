//! What tests over real processes share: the programs as they are shipped, and bounds on them.

pub mod limit;
pub mod network;
pub mod wait;
pub mod wall_clock;
pub mod wandb_client;

use std::{
    fs::File,
    io::Write as _,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use nix::unistd::getpgrp;
use shared::process;

/// Returns the root of the workspace.
pub fn workspace() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize()
        .expect("the workspace is where it was compiled")
}

/// Returns a program as operators get it: built from the default members in the release profile,
/// not with the features that the tests around it ask for.
///
/// The first call in a process lets cargo bring the programs up to date.
///
/// # Panics
///
/// Panics if they don't build, or if there is no such program.
pub fn program(name: &str) -> PathBuf {
    static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
        let target = target_folder();
        let mut cargo = process::blocking_command("cargo");
        // What cargo tells a test of its own package: build scripts that ask for it (ring's does) would have
        // half of the programs built again for each package that is tested.
        let told = |name: &str| {
            // A package with a build script, as the engine has one, is told where that wrote to.
            let prefixes = [
                "CARGO_PKG_",
                "CARGO_MANIFEST_",
                "CARGO_BIN_EXE_",
                "CARGO_CRATE_",
                "OUT_DIR",
            ];
            prefixes.iter().any(|prefix| name.starts_with(prefix))
        };
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(told) {
                cargo.env_remove(name);
            }
        }
        let status = cargo
            .args(["build", "--release", "--locked", "--target-dir"])
            .arg(&target)
            .current_dir(workspace())
            // One group with the test: Ctrl-C ends both.
            .process_group(getpgrp().as_raw())
            .status()
            .expect("cargo starts, as it did for this test");
        assert!(status.success(), "`cargo build --release` fails");
        target.join("release")
    });
    let program = FOLDER.join(name);
    assert!(program.is_file(), "there is no {}", program.display());
    program
}

/// Returns the target folder that the running test was built in.
///
/// # Panics
///
/// Panics if the test lies elsewhere than where cargo puts tests.
pub fn target_folder() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let target = test.ancestors().nth(3);
    target.expect("target/<profile>/deps/<test>").to_owned()
}

/// Says that the running test can't do its work on this machine, and why.
///
/// libtest has no word for it. So it goes past libtest's capture to standard error, and into the
/// file that `SKIPPED_TESTS` names, which `.ci/run` shows at its end.
///
/// # Panics
///
/// Panics if that file can't be written.
#[expect(
    clippy::disallowed_methods,
    reason = "`.ci/run` talks to tests by the environment"
)]
pub fn skip(why: &str) {
    let thread = std::thread::current();
    let line = format!(
        "SKIPPED {}: {why}",
        thread.name().unwrap_or("in a test's thread")
    );
    shared::term::note(&line);
    if let Some(path) = std::env::var_os("SKIPPED_TESTS") {
        let file = File::options().create(true).append(true).open(path);
        let written = file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
        written.expect("the file that SKIPPED_TESTS names can be written");
    }
}
