//! From options to a checked configuration.

use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
};

use shared::{Exit, Failure};

use super::options::{
    BuildOptions, Channel, ChildOptions, Echo, LogOptions, OnRewrite, RunOptions, UpdateOptions,
};
use crate::{
    child::spec::Spec,
    config::{
        BuildConfig, Config, GitSource, Hooks, LogConfig, Manager, ReleaseSource, Source, spread,
        words,
    },
    home::Home,
    update::{login::KEY_FILES, state::UpdatePolicy},
};

/// Turns options into a configuration.
pub(super) fn configure(options: RunOptions) -> Result<Config, Failure> {
    let RunOptions {
        child,
        update,
        build,
        log,
    } = options;
    let name = child.child_name.clone().ok_or_else(|| {
        Failure::new(Exit::Usage, "the child has no name")
            .hint("supervisor --child-name NAME -- [arguments of the child]")
    })?;
    check_name(&name)?;
    let repo = std::fs::canonicalize(&update.repo).map_err(|error| {
        let text = format!("there is no checkout at {}", update.repo.display());
        Failure::new(Exit::Config, text)
            .caused_by(&error)
            .hint("see --repo")
    })?;
    let home = Home::of(&state_dir(child.state_dir.as_deref())?, &name);
    let (log, metrics_addr) = (logs(&log, &home)?, log.metrics_addr);
    Ok(Config {
        stop_timeout: child.stop_timeout,
        child: spec(child, &build, &repo)?,
        policy: policy(&update, &name),
        window: update.window,
        hooks: Hooks {
            pre_update: update.pre_update.clone(),
            post_update: update.post_update.clone(),
            on_failure: update.on_failure.clone(),
        },
        notify: update.notify.clone(),
        manager: manager(),
        metrics_addr,
        log,
        keep_releases: update.keep_releases,
        source: source(update)?,
        build: build_config(build, &home)?,
        repo,
        child_name: name,
        home,
    })
}

fn spec(child: ChildOptions, build: &BuildOptions, repo: &Path) -> Result<Spec, Failure> {
    let Some(program) = build.bins.first().cloned() else {
        return Err(Failure::new(Exit::Usage, "--bins names no program"));
    };
    Ok(Spec {
        program,
        args: child.args,
        cwd: repo.to_owned(),
        nice: child.nice,
        watchdog: child.watchdog,
        memory_max: child.memory_max,
    })
}

fn policy(update: &UpdateOptions, name: &str) -> UpdatePolicy {
    let host = nix::unistd::gethostname()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    // Machines made from one image may share a host name.
    let machine = shared::file::read_limited(Path::new("/etc/machine-id"), 1 << 10);
    let machine = machine.ok().flatten().unwrap_or_default();
    let machine = String::from_utf8_lossy(&machine);
    let names = [name, host.as_str(), machine.trim()];
    UpdatePolicy {
        interval: update.interval,
        jitter: spread(update.jitter.unwrap_or(update.interval / 10), &names),
        hold_off: spread(update.hold_off.unwrap_or(update.interval), &names),
        ready_timeout: update.ready_timeout,
        probation: update.probation,
        max_wait: update.max_wait,
        updates: !update.no_update,
    }
}

fn source(update: UpdateOptions) -> Result<Source, Failure> {
    if update.channel == Channel::Release {
        return releases(update).map(Source::Releases);
    }
    let follow_rewrites = match update.on_rewrite {
        Some(choice) => choice == OnRewrite::Accept,
        None => update.require_signed.is_none(),
    };
    Ok(Source::Git(GitSource {
        remote: update.remote,
        branch: update.branch,
        pin: update.pin,
        ssh_keys: match &update.ssh_key {
            Some(file) => vec![existing(file)?],
            None => usual_keys(),
        },
        signers: update.require_signed.as_deref().map(absolute).transpose()?,
        every_commit: update.require_signed_all,
        follow_rewrites,
    }))
}

fn releases(update: UpdateOptions) -> Result<ReleaseSource, Failure> {
    let keys = update.release_key.iter().map(|key| absolute(key));
    let keys: Vec<PathBuf> = keys.collect::<Result<_, _>>()?;
    let (Some(repository), false) = (update.release_repo, keys.is_empty()) else {
        let text = "--channel release needs --release-repo and --release-key";
        return Err(Failure::new(Exit::Usage, text)
            .hint("an archive that nobody signed is never installed"));
    };
    let threshold = update.release_threshold.unwrap_or(keys.len() / 2 + 1);
    if threshold == 0 || threshold > keys.len() {
        let text = format!("--release-threshold {threshold} with {} keys", keys.len());
        return Err(Failure::new(Exit::Usage, text).hint("see --release-key"));
    }
    Ok(ReleaseSource {
        repository,
        api: update.release_api,
        keys,
        threshold,
        pin: update.pin,
        allow_incompatible: update.allow_incompatible,
    })
}

fn build_config(build: BuildOptions, home: &Home) -> Result<BuildConfig, Failure> {
    Ok(BuildConfig {
        bins: build.bins,
        profile: build.profile,
        features: build.features,
        target_dir: match &build.target_dir {
            Some(folder) => absolute(folder)?,
            None => home.target(),
        },
        check: build.check.as_deref().map(words),
        sandbox: build.build_sandbox,
        environment: build.build_env,
        paths: build.build_path.into_iter().map(Into::into).collect(),
        fetch_timeout: build.fetch_timeout,
        build_timeout: build.build_timeout,
        min_disk: build.min_disk,
        min_memory: build.min_memory,
    })
}

/// pm2 and systemd (`Type=notify`) give marks to what they start.
#[expect(
    clippy::disallowed_methods,
    reason = "cli is where the environment is read"
)]
fn manager() -> Option<Manager> {
    let marks = [("pm_id", Manager::Pm2), ("NOTIFY_SOCKET", Manager::Systemd)];
    let found = marks
        .iter()
        .find(|(mark, _)| std::env::var_os(mark).is_some());
    found.map(|(_, manager)| *manager)
}

fn existing(key: &Path) -> Result<PathBuf, Failure> {
    let key = absolute(key)?;
    if key.is_file() {
        return Ok(key);
    }
    Err(Failure::new(
        Exit::Config,
        format!("there is no SSH key {}", key.display()),
    )
    .hint("see --ssh-key"))
}

#[expect(
    clippy::disallowed_methods,
    reason = "cli is where the environment is read"
)]
fn usual_keys() -> Vec<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    home.iter()
        .flat_map(|home| KEY_FILES.map(|file| home.join(file)))
        .collect()
}

fn logs(log: &LogOptions, home: &Home) -> Result<LogConfig, Failure> {
    let dir = match &log.log_dir {
        Some(folder) => absolute(folder)?,
        None => home.logs(),
    };
    let echo = match log.echo {
        Echo::Auto => std::io::stdout().is_terminal(),
        Echo::Always => true,
        Echo::Never => false,
    };
    Ok(LogConfig {
        dir,
        max_bytes: log.log_max_size,
        keep: log.log_keep,
        echo,
        filter: log.log_level.clone(),
        json: log.log_json,
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
