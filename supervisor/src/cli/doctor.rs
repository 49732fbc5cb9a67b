//! `doctor`: is everything there that running and updating needs?

use shared::{Exit, Failure, file, term};

use super::{args::Doctor, configure::configure, talk};
use crate::{
    config::{Config, Source},
    control::{Command, Reply},
    error::{Fault, chain},
    job::Poll,
    self_update::Boot,
    update::{
        channel,
        journal::Journal,
        release::Release,
        remote::{self, Upstream},
        transport, verify,
    },
};

/// A finding: what was looked at, and what is wrong with it or good about it.
type Finding = (&'static str, Result<String, String>);

/// Looks at everything and says what is missing; exit code 1 if anything is.
pub(super) fn examine(options: Doctor) -> Result<Exit, Failure> {
    let config = configure(options.run)?;
    let findings = [
        ("state directory", state(&config)),
        ("cargo", cargo()),
        ("disk", disk(&config)),
        ("ssh", ssh(&config)),
        (
            "remote",
            if options.offline {
                Ok("not asked".into())
            } else {
                ask_remote(&config)
            },
        ),
        ("signatures", signatures(&config)),
        ("memory", Ok(memory(&config))),
        ("release", release(&config)),
        ("supervisor", supervisor(&config)),
    ];
    let mut table = term::table(["", "what", "finding"]);
    for (what, finding) in &findings {
        let (mark, text) = match finding {
            Ok(text) => ("ok", text),
            Err(text) => ("WRONG", text),
        };
        table.add_row([mark, what, text]);
    }
    term::line(table);
    let wrong = findings
        .iter()
        .any(|(_, finding): &Finding| finding.is_err());
    Ok(if wrong { Exit::Failed } else { Exit::Ok })
}

fn state(config: &Config) -> Result<String, String> {
    let probe = config.home.path().join("doctor");
    file::write_atomic_private(&probe, b"").map_err(|error| chain(&error))?;
    let _ = std::fs::remove_file(probe);
    if config.home.control_socket().as_os_str().len() > 100 {
        return Err("the path is too long for a socket".to_owned());
    }
    Ok(config.home.path().display().to_string())
}

fn cargo() -> Result<String, String> {
    let output = shared::process::blocking_command("cargo")
        .arg("--version")
        .output();
    let output = output.map_err(|error| format!("not in PATH: {error}; see https://rustup.rs"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// What fetches over SSH.
fn ssh(config: &Config) -> Result<String, String> {
    let git = config.source.downloads.is_none();
    if !git || !upstream(&config.source).is_ok_and(|upstream| transport::is_ssh(&upstream.url)) {
        return Ok("not needed".to_owned());
    }
    let output = shared::process::blocking_command("ssh").arg("-V").output();
    let output = output.map_err(|error| {
        format!("not in PATH, but the remote needs it: {error}; install OpenSSH's client")
    })?;
    Ok(String::from_utf8_lossy(&output.stderr).trim().to_owned())
}

fn upstream(source: &Source) -> Result<Upstream, Fault> {
    let checkout = remote::open_checkout(&source.repo)?;
    let (remote, branch) = (source.remote.as_deref(), source.branch.as_deref());
    Upstream::of(&checkout, remote, branch)
}

fn disk(config: &Config) -> Result<String, String> {
    let free = file::free_space(&config.source.target_dir).map_err(|error| chain(&error))?;
    let text = format!("{} GiB free for builds", free >> 30);
    if free < config.source.min_disk {
        Err(text)
    } else {
        Ok(text)
    }
}

fn ask_remote(config: &Config) -> Result<String, String> {
    let source = &config.source;
    let state = Journal::read(&config.home.journal()).map_err(|error| chain(&error))?;
    let state = state.unwrap_or_default();
    let poll = Poll {
        home: config.home.clone(),
        repo: source.repo.clone(),
        remote: source.remote.clone(),
        branch: source.branch.clone(),
        pin: source.pin.clone(),
        accepted: state.accepted,
        trusted: state.trusted,
        follow_rewrites: source.follow_rewrites,
        forced: false,
        ssh_keys: source.ssh_keys.clone(),
        signers: source.signers.clone(),
        every_commit: source.every_commit,
        downloads: source.downloads.clone(),
        dry: true,
        offline: false,
    };
    if source.downloads.is_none() {
        upstream(source).map_err(text)?;
    }
    remote::poll(&poll)
        .map(|_| "answers".to_owned())
        .map_err(text)
}

#[expect(clippy::needless_pass_by_value, reason = "it is passed to map_err")]
fn text(fault: Fault) -> String {
    fault.to_string()
}

fn signatures(config: &Config) -> Result<String, String> {
    match (&config.source.downloads, &config.source.signers) {
        (Some(downloads), _) => channel::public_key(&downloads.key)
            .map(|_| format!("archives by {}", downloads.key.display()))
            .map_err(text),
        (None, Some(file)) => verify::check_file(file)
            .map(|count| format!("{count} allowed signers"))
            .map_err(text),
        (None, None) => Ok("not required".to_owned()),
    }
}

fn memory(config: &Config) -> String {
    match config.child.memory_max {
        None => "the child has no limit (--memory-max)".to_owned(),
        Some(bytes) => format!(
            "RLIMIT_DATA of {} MiB: what the child allocates, not files or GPU",
            bytes >> 20
        ),
    }
}

fn release(config: &Config) -> Result<String, String> {
    let current = std::fs::canonicalize(config.home.current());
    let Ok(current) = current else {
        return Ok("none yet; the first start builds it".to_owned());
    };
    let name = current
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let release = Release::read(&config.home, &name).ok_or("the current release is incomplete")?;
    match release.damaged(&config.home) {
        Some(program) => Err(format!(
            "{program} of {name} has changed since it was installed"
        )),
        None => Ok(format!("{name} is intact")),
    }
}

fn supervisor(config: &Config) -> Result<String, String> {
    let boot = Boot::read(&config.home);
    if boot.given_up(&boot.release) {
        return Err(format!(
            "the supervisor of {} does not start; the old one stays",
            boot.release
        ));
    }
    match talk::ask(&config.home, &Command::Status) {
        Ok(Reply::Status(report)) => match report.update.problem {
            Some(problem) => Err(problem),
            None => Ok(format!(
                "running, pid {}; child {}",
                report.supervisor.pid, report.child.state
            )),
        },
        Ok(_) => Err("it answers something else".to_owned()),
        Err(_) => Ok("not running".to_owned()),
    }
}
