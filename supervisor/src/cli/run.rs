//! `run`: a configuration becomes a supervisor at work.

use std::ffi::OsString;

use shared::{Exit, Failure, log::Format, version::Version};

use super::{
    args::Run,
    configure::configure,
    layers::{self, Parsed},
};
use crate::{self_update, supervise::Supervisor};

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
    let identity = self_update::identity(&config.home);
    if let Some(successor) = self_update::successor(&config.home, identity.as_deref()) {
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
        let supervisor = Supervisor::new(config, reload, version.to_string(), identity)?;
        supervisor.run().await
    })
}
