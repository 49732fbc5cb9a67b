//! What may not be read or written is named, with an exit code of its own.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

use e2e::program;
use shared::{Exit, process::blocking_command};

/// Starts a program that has no more rights to files than a user has.
fn as_a_user(name: &str) -> Command {
    let mut command = if nix::unistd::geteuid().is_root() {
        let mut command = blocking_command("setpriv");
        command.arg("--bounding-set=-dac_override,-dac_read_search");
        command.arg(program(name));
        command
    } else {
        blocking_command(program(name))
    };
    // A program of a user without a home would look elsewhere.
    command.env("NO_COLOR", "1");
    command
}

#[test]
fn what_permissions_forbid_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let closed = folder.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o0)).unwrap();
    let at = |name: &str| closed.join(name).display().to_string();
    let (state, file) = (at("state"), at("file"));
    let config = at("a.toml");
    let lines: [(&str, &[&str]); 9] = [
        ("validator", &["status", "--state-dir", &state]),
        ("validator", &["show", "leaders", "--state-dir", &state]),
        ("validator", &["score", &file]),
        ("validator", &["run", "--config", &config]),
        ("validator", &["check", "--subnet", &config]),
        ("validator", &["inspect", "wallet", "--wallet.path", &state]),
        ("supervisor", &["--child-name", "a", "--state-dir", &state]),
        ("supervisor", &["status", "--state-dir", &state]),
        ("supervisor", &["status", "--config", &config]),
    ];
    for (name, line) in lines {
        let ended = as_a_user(name)
            .args(line)
            .current_dir(folder.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        let expected = i32::from(Exit::Denied.code());
        assert_eq!(ended.status.code(), Some(expected), "{line:?}: {said}");
        let closed = closed.display().to_string();
        assert!(said.contains("Permission denied"), "{line:?}: {said}");
        assert!(said.contains(&closed), "{line:?}: {said}");
    }
}
