//! Kernels compiled ahead: by a process that never meets a model, into a cache of which each worker gets a copy.
//!
//! A worker's driver reads and writes its copy; what a model might leave there, no other process ever runs.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    process::{self, Stdio},
};

use nix::unistd::alarm;
use shared::file;

/// How long compiling may take, in seconds; a GPU's worker takes 15 seconds of one core.
const LIMIT_SECONDS: u32 = 100;

/// Names the folder of a worker's own copy, followed by its process number.
const COPY: &str = "copy-of-";

/// Tells by whom and for what the cache was filled.
const STAMP: &str = "filled";

/// What a cache may take, twice the driver's own limit: what is larger was not filled by us.
const MAX_BYTES: u64 = 4 << 30;

/// Ends this process, which compiles, should it take too long.
pub fn limit_time() {
    alarm::set(LIMIT_SECONDS);
}

/// Has `cache` filled by a process of its own, unless that was done; returns the copy for this process.
pub(super) fn copy_of(cache: &Path, device: &str, compile: &[OsString]) -> io::Result<PathBuf> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(cache)?;
    remove_old(cache);
    let stamp = stamp(device)?;
    let stamped = cache.join(STAMP);
    let kept = file::read_limited(&stamped, 1 << 16).ok().flatten();
    if kept.is_none_or(|kept| kept != stamp.as_bytes()) {
        let status = shared::process::blocking_command(std::env::current_exe()?)
            .args(compile)
            .stdout(Stdio::null())
            .status()?;
        if !status.success() {
            return Err(io::Error::other(format!(
                "compiling ahead ended with {status}"
            )));
        }
        file::write_atomic(&stamped, stamp.as_bytes()).map_err(io::Error::other)?;
    }
    let copy = cache.join(format!("{COPY}{}", process::id()));
    copy_folder(cache, &copy, &mut 0)?;
    Ok(copy)
}

/// Removes the copy of a process, if it has one.
pub(super) fn remove_copy(allowed: Option<&Path>) {
    let is_copy = |path: &&Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(COPY)
    };
    if let Some(copy) = allowed.filter(is_copy) {
        let _ = fs::remove_dir_all(copy);
    }
}

/// What the kernels depend on: this program, the driver, the device asked for.
fn stamp(device: &str) -> io::Result<String> {
    let program = fs::metadata(std::env::current_exe()?)?;
    let driver = file::read_limited(Path::new("/proc/driver/nvidia/version"), 1 << 12);
    let driver = driver.ok().flatten().unwrap_or_default();
    Ok(format!(
        "{} bytes of {}.{:09}, {device}\n{}",
        program.len(),
        program.mtime(),
        program.mtime_nsec(),
        String::from_utf8_lossy(&driver),
    ))
}

/// Removes the copies of processes that are gone.
fn remove_old(cache: &Path) {
    for entry in fs::read_dir(cache).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.strip_prefix(COPY));
        if process.is_some_and(|number| !Path::new("/proc").join(number).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn copy_folder(from: &Path, to: &Path, copied: &mut u64) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (name, kind) = (entry.file_name(), entry.file_type()?);
        if kind.is_dir() && !name.to_string_lossy().starts_with(COPY) {
            copy_folder(&entry.path(), &to.join(name), copied)?;
        } else if kind.is_file() {
            *copied += fs::copy(entry.path(), to.join(name))?;
            if *copied > MAX_BYTES {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_what_was_compiled_and_no_other_copy() {
        let cache = tempfile::tempdir().unwrap();
        fs::create_dir_all(cache.path().join("a/b")).unwrap();
        file::write_atomic(&cache.path().join("a/b/kernels"), b"compiled").unwrap();
        let gone = cache.path().join(format!("{COPY}4194305"));
        fs::create_dir(&gone).unwrap();
        remove_old(cache.path());
        assert!(!gone.exists());

        let copy = cache.path().join(format!("{COPY}1"));
        copy_folder(cache.path(), &copy, &mut 0).unwrap();
        assert_eq!(fs::read(copy.join("a/b/kernels")).unwrap(), b"compiled");
        let other = cache.path().join(format!("{COPY}2"));
        copy_folder(cache.path(), &other, &mut 0).unwrap();
        assert!(!other.join(format!("{COPY}1")).exists());

        remove_copy(Some(&copy));
        assert!(!copy.exists());
        remove_copy(Some(cache.path()));
        assert!(cache.path().join("a/b/kernels").exists(), "not a copy");
    }
}
