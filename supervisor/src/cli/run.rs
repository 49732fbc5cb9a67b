//! `run`: a configuration becomes a supervisor at work.

use shared::{Exit, Failure, version::Version};

use super::{configure::configure, options::RunOptions};
use crate::{
    config::{Config, Source},
    self_update,
    supervise::{Reload, Supervisor},
    update::{checkout, journal},
};

/// Keeps the child alive until told to stop.
pub(super) fn run(options: RunOptions, reload: Reload, version: Version) -> Result<Exit, Failure> {
    let config = configure(options)?;
    config.log.start();
    find_checkout(&config)?;
    // Whoever starts us may know only the first supervisor ever installed.
    let identity = self_update::identity(&config.home);
    if let Some(successor) = self_update::successor(&config.home, identity.as_deref()) {
        let failure = self_update::become_(&successor, &config.home);
        tracing::error!(%failure, "staying the old supervisor");
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::of(Exit::Machine, &error))?;
    runtime.block_on(async {
        let supervisor = Supervisor::new(config, reload, version.to_string(), identity).await?;
        supervisor.run().await
    })
}

/// Without a checkout there is nothing to build, and no other try will find one. A supervisor that has a
/// release starts all the same: its child is to run, and a checkout that is moved or not mounted yet may
/// come back.
fn find_checkout(config: &Config) -> Result<(), Failure> {
    let has_release = match journal::read(&config.home.journal()) {
        Ok(state) => state.is_some_and(|state| state.accepted.is_some()),
        // Told of where the journal is needed.
        Err(_) => true,
    };
    if has_release || matches!(config.source, Source::Releases(_)) {
        return Ok(());
    }
    checkout::open(&config.repo).map(drop).map_err(|fault| {
        let failure = Failure::new(Exit::Config, &fault.message);
        match fault.hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    })
}
