//! `run`: from options to a configuration to a supervisor at work.

use std::{
    ffi::OsString,
    io::IsTerminal,
    path::{Path, PathBuf},
};

use shared::{Exit, Failure, log::Format, version::Version};

use super::{
    args::{Echo, OnRewrite, Run},
    layers::{self, Parsed},
};
use crate::{
    child::spec::Spec,
    config::{Config, Hooks, Log, Source, spread, words},
    home::Home,
    self_update,
    supervise::Supervisor,
    update::state::Policy,
};

/// Keeps the child alive until told to stop.
pub(super) fn run(options: Run, line: &[OsString], version: Version) -> Result<Exit, Failure> {
    let format = if options.log.log_json {
        Format::Json
    } else {
        Format::Text
    };
    shared::log::init(&options.log.log_level, format);
    let config = configure(options)?;
    // Whoever starts us may know only the first supervisor ever installed.
    if let Some(successor) = self_update::successor(&config.home) {
        let failure = self_update::become_(&successor, &config.home);
        tracing::error!(%failure, "staying the old supervisor");
    }
    let again = line.to_vec();
    let reload = Box::new(move || match layers::parse(&again, version)? {
        Parsed::Cli(cli) => configure(cli.into_run()),
        Parsed::Text(_) => Err(Failure::new(
            Exit::Bug,
            "the command line has changed its meaning",
        )),
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::of(Exit::Machine, &error))?;
    runtime.block_on(async {
        let supervisor = Supervisor::new(config, reload, version.to_string())?;
        supervisor.run().await
    })
}

/// Turns options into a configuration.
pub(super) fn configure(options: Run) -> Result<Config, Failure> {
    let Run {
        child,
        update,
        build,
        log,
    } = options;
    let name = child.child_name.ok_or_else(|| {
        Failure::new(Exit::Usage, "the child has no name")
            .hint("supervisor --child-name NAME -- [arguments of the child]")
    })?;
    check_name(&name)?;
    let repo = std::fs::canonicalize(&update.repo).map_err(|error| {
        let text = format!("there is no checkout at {}", update.repo.display());
        Failure::new(Exit::Config, text)
            .because(&error)
            .hint("see --repo")
    })?;
    let home = Home::of(&state_dir(child.state_dir.as_deref())?, &name);
    let program = build
        .bins
        .first()
        .cloned()
        .ok_or_else(|| Failure::new(Exit::Usage, "--bins names no program"))?;
    let host = nix::unistd::gethostname()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let names = [name.as_str(), host.as_str()];
    let jitter = update.jitter.unwrap_or(update.interval / 10);
    let hold_off = update.hold_off.unwrap_or(update.interval);
    let policy = Policy {
        interval: update.interval,
        jitter: spread(jitter, &names),
        hold_off: spread(hold_off, &names),
        ready_timeout: update.ready_timeout,
        probation: update.probation,
        max_wait: update.max_wait,
        updates: !update.no_update,
    };
    let follow_rewrites = match update.on_rewrite {
        Some(choice) => choice == OnRewrite::Accept,
        None => update.require_signed.is_none(),
    };
    Ok(Config {
        child: Spec {
            program,
            args: child.child_args,
            cwd: repo.clone(),
            nice: child.nice,
            watchdog: child.watchdog,
            memory_max: child.memory_max,
        },
        stop_timeout: child.stop_timeout,
        policy,
        window: update.window,
        source: Source {
            repo,
            remote: update.remote,
            branch: update.branch,
            pin: update.pin,
            signers: update
                .require_signed
                .map(|path| absolute(&path))
                .transpose()?,
            every_commit: update.require_signed_all,
            follow_rewrites,
            bins: build.bins,
            profile: build.profile,
            features: build.features,
            target_dir: match &build.target_dir {
                Some(folder) => absolute(folder)?,
                None => home.target(),
            },
            check: words(&build.check),
            fetch_timeout: build.fetch_timeout,
            build_timeout: build.build_timeout,
            min_disk: build.min_disk,
            min_memory: build.min_memory,
            keep_releases: update.keep_releases,
        },
        log: Log {
            dir: match &log.log_dir {
                Some(folder) => absolute(folder)?,
                None => home.path().join("logs"),
            },
            max_bytes: log.log_max_size,
            keep: log.log_keep,
            echo: match log.echo {
                Echo::Auto => std::io::stdout().is_terminal(),
                Echo::Always => true,
                Echo::Never => false,
            },
        },
        hooks: Hooks {
            pre_update: update.pre_update,
            post_update: update.post_update,
            on_failure: update.on_failure,
        },
        notify: update.notify,
        metrics_addr: log.metrics_addr,
        child_name: name,
        home,
    })
}

/// The name becomes a folder and part of file names.
fn check_name(name: &str) -> Result<(), Failure> {
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if !name.is_empty() && name.len() <= 64 && name.chars().all(good) && !name.starts_with('.') {
        return Ok(());
    }
    Err(
        Failure::new(Exit::Usage, format!("{name:?} can't be a child's name"))
            .hint("letters, digits, - _ . and at most 64 of them"),
    )
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| Failure::of(Exit::Machine, &error))
}

/// Returns the folder of all state: as told, else by the XDG rules.
#[expect(
    clippy::disallowed_methods,
    reason = "cli is where the environment is read"
)]
pub(super) fn state_dir(told: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(path) = told {
        return absolute(path);
    }
    let set = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    if let Some(state) = set("XDG_STATE_HOME") {
        return Ok(state.join("supervisor"));
    }
    match set("HOME") {
        Some(home) => Ok(home.join(".local/state/supervisor")),
        None => Err(
            Failure::new(Exit::Config, "neither HOME nor XDG_STATE_HOME is set")
                .hint("say where to keep state with --state-dir"),
        ),
    }
}
