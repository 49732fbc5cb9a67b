//! `doctor`: is everything there that running and updating needs?

use std::io;

use clap::Args;
use shared::{Exit, Failure, causes::one_line, file, term};

use super::{
    configure::{configure, state_dir},
    options::RunOptions,
    query::{ask, names},
};
use crate::{
    child::group::{self, ChildGroup},
    config::{BuildSandbox, Config, GitSource, Source},
    control::{Reply, Request},
    error::Fault,
    home::Home,
    job::{Answer, Job, Poll, Reach, Task},
    self_update::Boot,
    text::harmless,
    update::{
        checkout, confine::Wall, journal, release::Release, release_list::Trust, sandbox,
        transport, trial_build, upstream::Upstream, verify,
    },
    worker,
};

#[derive(Debug, Clone, Args)]
pub(super) struct DoctorArgs {
    #[command(flatten)]
    pub(super) run: RunOptions,
    /// Do not ask the remote
    #[arg(long)]
    pub(super) offline: bool,
}

/// A finding: what was looked at, and what is wrong with it or good about it.
type Finding = (&'static str, Result<String, String>);

/// Looks at everything and says what is missing; exit code 1 if anything is.
pub(super) fn run(mut args: DoctorArgs) -> Result<Exit, Failure> {
    let child = &mut args.run.child;
    if child.child_name.is_none() {
        let folder = state_dir(child.state_dir.as_deref())?;
        // Before the first start there is none to name.
        let name = names(&folder)
            .ok()
            .and_then(|names| names.into_iter().next());
        child.child_name = name.or_else(|| Some("doctor".to_owned()));
    }
    let config = configure(args.run)?;
    let findings = [
        ("state directory", state(&config)),
        ("cargo", cargo()),
        ("compiler", compiler(&config)),
        ("build sandbox", walls(&config)),
        ("disk", disk(&config)),
        ("ssh", ssh(&config)),
        (
            "remote",
            if args.offline {
                Ok("not asked".into())
            } else {
                ask_remote(&config)
            },
        ),
        ("signatures", signatures(&config)),
        ("memory", Ok(memory(&config))),
        ("control group", Ok(control_group(&config))),
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
    file::write_atomic_private(&probe, b"").map_err(|error| one_line(&error))?;
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

/// Builds a small program, as updates are built: compiler, linker, cargo's configuration, what the
/// features need and the walls around all that have to work together.
fn compiler(config: &Config) -> Result<String, String> {
    if matches!(config.source, Source::Releases(_)) {
        return Ok("not needed".to_owned());
    }
    trial_build::run(config).map(|()| {
        let features = config.build.features.join(", ");
        match features.as_str() {
            "" => "builds and links".to_owned(),
            some => format!("builds and links with {some}"),
        }
    })
}

/// What a build can't see or do, see docs/supervisor.md.
fn walls(config: &Config) -> Result<String, String> {
    if matches!(config.source, Source::Releases(_)) {
        return Ok("nothing is built".to_owned());
    }
    let walls = sandbox::walls(config)?;
    let said: Vec<String> = walls
        .iter()
        .map(|(wall, stands)| match stands {
            Ok(how) => format!("{wall}: {how}"),
            Err(why) => format!("{wall}: none, {why}"),
        })
        .collect();
    let said = format!("{}; no secrets in the environment", said.join("; "));
    let asked = config.build.sandbox == BuildSandbox::Full;
    // Namespaces hide once more what landlock does, and containers seldom allow them.
    let missed = |(wall, stands): &Wall| wall != "namespaces" && stands.is_err();
    if asked && walls.iter().any(missed) {
        return Err(format!(
            "{said} (--build-sandbox files or off asks for no more)"
        ));
    }
    Ok(said)
}

fn ssh(config: &Config) -> Result<String, String> {
    let upstream = match &config.source {
        Source::Git(git) => upstream(config, git).ok(),
        Source::Releases(_) => None,
    };
    if !upstream.is_some_and(|upstream| transport::is_ssh(&upstream.url)) {
        return Ok("not needed".to_owned());
    }
    let output = shared::process::blocking_command("ssh").arg("-V").output();
    let output = output.map_err(|error| {
        format!("not in PATH, but the remote needs it: {error}; install OpenSSH's client")
    })?;
    Ok(String::from_utf8_lossy(&output.stderr).trim().to_owned())
}

fn upstream(config: &Config, git: &GitSource) -> Result<Upstream, Fault> {
    Upstream::of(&checkout::open(&config.repo)?, git)
}

fn disk(config: &Config) -> Result<String, String> {
    let free = file::free_space(&config.build.target_dir).map_err(|error| one_line(&error))?;
    let text = format!("{} GiB free for builds", free >> 30);
    if free < config.build.min_disk {
        Err(text)
    } else {
        Ok(text)
    }
}

fn ask_remote(config: &Config) -> Result<String, String> {
    let state = journal::read(&config.home.journal()).map_err(|error| one_line(&error))?;
    let state = state.unwrap_or_default();
    if let Source::Git(git) = &config.source {
        upstream(config, git).map_err(text)?;
    }
    let job = Job {
        config: config.clone(),
        task: Task::Poll(Poll {
            accepted: state.accepted,
            trusted: state.trusted,
            upstream: state.upstream,
            requested: state.requested,
            reach: Reach::Dry,
            ..Poll::default()
        }),
    };
    match worker::carry_out(&job).map_err(text)? {
        Answer::Polled { found, .. } => found.map(|_| "answers".to_owned()).map_err(text),
        Answer::Done => Err("the worker answered nothing".to_owned()),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is passed to map_err")]
fn text(fault: Fault) -> String {
    harmless(&fault.to_string())
}

fn signatures(config: &Config) -> Result<String, String> {
    match &config.source {
        Source::Releases(releases) => Trust::read(releases)
            .map(|_| {
                format!(
                    "{} of {} release keys",
                    releases.threshold,
                    releases.keys.len()
                )
            })
            .map_err(text),
        Source::Git(git) => match &git.signers {
            Some(file) => verify::check_file(file)
                .map(|count| format!("{count} allowed signers"))
                .map_err(text),
            None => Ok("not required".to_owned()),
        },
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

/// That of the running child; without one, what it would be if it were started from here.
fn control_group(config: &Config) -> String {
    if let Ok(Reply::Status(report)) = ask(&config.home, &Request::Status)
        && report.child.pid.is_some()
    {
        return report.child.control_group();
    }
    match try_control_group() {
        Ok(()) => "there is one for a child that is started from here".to_owned(),
        Err(error) => group::none(&one_line(&error)),
    }
}

/// Makes that of another child: the supervisor of this one may be at work.
fn try_control_group() -> io::Result<()> {
    let folder = tempfile::tempdir()?;
    let home = Home::of(folder.path(), "doctor");
    std::fs::create_dir(home.path())?;
    ChildGroup::of(&home)?.remove();
    Ok(())
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
    match ask(&config.home, &Request::Status) {
        Ok(Reply::Status(report)) => match report.update.problem {
            Some(problem) => Err(problem),
            None => Ok(format!("running; child {}", report.child.state)),
        },
        Ok(_) => Err("it answers something else".to_owned()),
        Err(_) => Ok("not running".to_owned()),
    }
}
