//! The real W&B clients, each in a Python environment of its own beside the programs.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use shared::file::{FileLock, LockError};

/// Client versions, with what else they need.
pub const CLIENTS: [(&str, &[&str]); 2] = [("0.16.6", &["setuptools<80"]), ("0.31.0", &[])];
/// A key of the right shape.
pub const KEY: &str = "10ca1ne710ca1ne710ca1ne710ca1ne710ca1ne7";

/// Returns the Python of an environment with this client; says so and returns `None` if it can't be
/// had here.
///
/// # Panics
///
/// Panics if the target folder can't be written.
pub async fn python(version: &str, extra: &[&str]) -> Option<PathBuf> {
    let folder = crate::target_folder().join(format!("wandb-{version}"));
    let python = folder.join("bin/python");
    let complete = folder.join("complete");
    // Tests run side by side; one of them sets it up.
    let lock = folder.with_extension("lock");
    let _lock = loop {
        match FileLock::try_acquire(&lock, "wandb client") {
            Err(LockError::Held { .. }) => tokio::time::sleep(Duration::from_millis(200)).await,
            lock => break lock.expect("the target folder can be written"),
        }
    };
    if complete.exists() {
        return Some(python);
    }
    let folder = folder.to_str().expect("cargo's paths are UTF-8");
    let wanted = format!("wandb=={version}");
    let install = ["-m", "pip", "install", "--quiet", "--retries", "0", &wanted];
    let install = [&install, extra].concat();
    let made = async {
        run(Path::new("python3"), &["-m", "venv", folder], &[]).await?;
        run(&python, &install, &[]).await
    };
    if let Err(error) = made.await {
        crate::skip(&format!("no Python with wandb {version}: {error}"));
        return None;
    }
    shared::file::write_atomic(&complete, b"").expect("the target folder can be written");
    Some(python)
}

/// Runs a program to its end; returns what it printed, or all it said if it failed.
pub async fn run(
    program: &Path,
    arguments: &[&str],
    environment: &[(&str, &str)],
) -> Result<String, String> {
    let output = shared::process::command(program)
        .args(arguments)
        .envs(environment.iter().copied())
        .output();
    let output = tokio::time::timeout(Duration::from_secs(150), output)
        .await
        .map_err(|_| "no end within 150 s".to_owned())?
        .map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(format!(
            "{}\n{}",
            text(&output.stdout),
            text(&output.stderr)
        ))
    }
}

/// A client's environment: our server, a home of its own, nothing phoned home.
pub fn environment<'a>(url: &'a str, home: &'a str) -> [(&'a str, &'a str); 6] {
    [
        ("WANDB_BASE_URL", url),
        ("WANDB_API_KEY", KEY),
        ("HOME", home),
        ("WANDB_DIR", home),
        ("WANDB_SILENT", "true"),
        ("WANDB_ERROR_REPORTING", "false"),
    ]
}
