//! `run`: a configuration becomes a supervisor at work.

use shared::{Exit, Failure, log::Format, version::Version};

use super::{configure::configure, options::RunOptions};
use crate::{
    self_update,
    supervise::{Reload, Supervisor},
};

/// Keeps the child alive until told to stop.
pub(super) fn run(options: RunOptions, reload: Reload, version: Version) -> Result<Exit, Failure> {
    let format = if options.log.log_json {
        Format::Json
    } else {
        Format::Text
    };
    shared::log::init(&options.log.log_level, format);
    let config = configure(options)?;
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
