//! Taking up the work: locks, sockets, journal, and the child an earlier supervisor left running.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    time::{Duration, Instant},
};

use nix::sys::prctl;
use shared::{
    Exit, Failure,
    causes::one_line,
    file::{FileLock, LockError},
    task::TaskSet,
};
use tokio::sync::mpsc;

use super::{
    Reload, Signals, Supervisor, child_policy, machine::Machine, troubles::Troubles,
    workers::Workers,
};
use crate::{
    child::{
        control,
        group::ChildGroup,
        health::{Notified, NotifySocket},
        log::{ChildLog, Pipe},
        state::ChildEvent,
    },
    config::Config,
    update::{
        journal::{self, JournalError},
        leftovers, release,
        state::UpdateEvent,
    },
};

/// How long the locks may still be held by the image we replace.
const LOCK_PATIENCE: Duration = Duration::from_secs(3);
/// Between tries to take them.
const LOCK_RETRY: Duration = Duration::from_millis(10);

impl Supervisor {
    /// Takes the locks and opens everything; nothing is started yet.
    /// `identity` is the release that this process was started from, where that is known.
    pub(crate) async fn new(
        config: Config,
        reload: Reload,
        version: String,
        identity: Option<String>,
    ) -> Result<Self, Failure> {
        let home = config.home.clone();
        let failed = |what: &str, error: &(dyn std::error::Error + 'static)| {
            Failure::new(
                Exit::Machine,
                format!("could not {what} in {}", home.path().display()),
            )
            .caused_by(error)
        };
        let folder = || {
            fs::create_dir_all(home.path())?;
            fs::set_permissions(home.path(), fs::Permissions::from_mode(0o700))
        };
        folder()
            .map_err(|error| failed("keep state", &error).hint("choose another --state-dir"))?;
        let locks = locks(&config).await?;
        let update = journal::read(&home.journal())
            .map_err(|error| journal_failure(&error))?
            .unwrap_or_default();
        prctl::set_child_subreaper(true).map_err(|error| failed("adopt orphans", &error))?;
        let signals = Signals::new().map_err(|error| failed("listen for signals", &error))?;
        let pipe = Pipe::open(&home.output()).map_err(|error| failed("open the pipe", &error))?;
        let log_path = config.child_log();
        let log = ChildLog::open(
            &log_path,
            config.log.max_bytes,
            config.log.keep,
            config.log.echo,
        )
        .map_err(|error| {
            let text = format!("could not open the log {}", log_path.display());
            Failure::new(Exit::Machine, text).caused_by(&error)
        })?;
        let notify_socket =
            NotifySocket::bind(&home.notify_socket()).map_err(|error| socket_failure(&error))?;
        let listener = crate::control::listen(&home.control_socket())
            .map_err(|error| socket_failure(&error))?;
        let scrapes = match config.metrics_addr {
            Some(address) => Some(crate::metrics::Scrapes::listen(address)?),
            None => None,
        };
        let group = ChildGroup::of(&home).map_err(|error| one_line(&error));
        if let Err(why) = &group {
            tracing::debug!(why, "no control group for the child");
        }
        let pings = sd_notify::watchdog_enabled().map(|limit| (limit / 2, Duration::ZERO));
        Ok(Self {
            machine: Machine::new(update, config.policy.clone(), child_policy(&config)),
            config,
            reload,
            version,
            began: Instant::now(),
            adopted: None,
            group,
            launcher: None,
            look_at: Duration::ZERO,
            notified: Notified::default(),
            workers: Workers::new(),
            progress: None,
            polled_at: None,
            pings,
            identity,
            successor: None,
            log,
            pipe,
            buffer: vec![0; 16 << 10],
            notify_socket,
            listener,
            scrapes,
            requests: mpsc::channel(16),
            signals,
            tasks: TaskSet::new(),
            troubles: Troubles::default(),
            call_at: None,
            checks: Vec::new(),
            _locks: locks,
        })
    }

    /// Adopts a child left running and goes on where the journal stopped.
    pub(super) fn recover(&mut self) {
        self.adopt();
        self.reap();
        leftovers::remove_stale(&self.config.home);
        if let Some(accepted) = &self.machine.update().accepted {
            release::mend_link(&self.config.home, &accepted.release);
        } else {
            let repo = self.config.repo.display();
            tracing::info!(%repo, "no release yet: building the checked-out commit first");
        }
        self.take(UpdateEvent::Started);
    }

    fn adopt(&mut self) {
        let mut found = control::find_left_behind(&self.config.home);
        // More than one can only come from meddling; the wanted release stays.
        let wanted = self.machine.update().wanted().map(str::to_owned);
        found.sort_by_key(|found| Some(&found.release) != wanted.as_ref());
        let mut found = found.into_iter();
        if let Some(child) = found.next() {
            tracing::info!(
                pid = child.pid,
                release = child.release,
                "adopting the running child"
            );
            let event = ChildEvent::Adopted {
                pid: child.pid,
                release: child.release.clone(),
            };
            self.adopted = Some(child);
            self.take(event);
        } else {
            // What a child that has ended left in sessions of its own.
            self.kill_all();
        }
        for extra in found {
            tracing::warn!(pid = extra.pid, "ending a second child");
            control::kill_group(extra.pid);
        }
    }
}

async fn locks(config: &Config) -> Result<[FileLock; 2], Failure> {
    let holder = format!("supervisor of {}", config.child_name);
    let repo = config.repo.join(".git");
    let checkout = if repo.is_dir() {
        repo
    } else {
        config.home.path().to_owned()
    };
    let began = Instant::now();
    loop {
        let taken = FileLock::try_acquire(&config.home.lock(), &holder).and_then(|name| {
            Ok([
                name,
                FileLock::try_acquire(&checkout.join("supervisor.lock"), &holder)?,
            ])
        });
        match taken {
            Ok(locks) => return Ok(locks),
            // The image that we replace by exec gives its locks up with a small delay.
            Err(LockError::Held { holder, .. })
                if holder.contains(&format!("pid {} ", std::process::id()))
                    && began.elapsed() < LOCK_PATIENCE =>
            {
                tokio::time::sleep(LOCK_RETRY).await;
            }
            Err(LockError::Held { path, holder }) => {
                let text = format!(
                    "{} is already supervised by {holder}",
                    subject(config, &path)
                );
                return Err(Failure::new(Exit::Denied, text)
                    .hint("see `supervisor status`, or choose another --child-name and checkout"));
            }
            Err(LockError::File(error)) => return Err(Failure::of(Exit::Machine, &error)),
        }
    }
}

fn subject(config: &Config, lock: &std::path::Path) -> String {
    if lock == config.home.lock() {
        config.child_name.clone()
    } else {
        format!("the checkout {}", config.repo.display())
    }
}

fn journal_failure(error: &JournalError) -> Failure {
    match error {
        JournalError::TooNew { .. } => Failure::of(Exit::Config, error)
            .hint("start the newer supervisor (current/supervisor in the same folder)"),
        JournalError::Malformed { .. } => Failure::of(Exit::Config, error)
            .hint("move the file away to start over; the child goes on meanwhile"),
        JournalError::File(_) => Failure::of(Exit::Machine, error),
    }
}

fn socket_failure(error: &std::io::Error) -> Failure {
    Failure::new(
        Exit::Machine,
        "could not open a socket in the state directory",
    )
    .caused_by(error)
    .hint("the folder's path must be shorter than 90 letters; see --state-dir")
}
