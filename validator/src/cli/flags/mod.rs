//! Flags that several commands share, by the names the Python validator gave them.

mod chain;
mod config;
mod engine;
mod hub;
mod log;
mod models;
mod own;
mod publish;
mod samples;
mod size;
mod state;
mod wallet;
mod wandb;
mod watch;

pub(crate) use self::{
    chain::{ChainFlags, SubnetFlag},
    config::ConfigFlag,
    engine::{Devices, EngineFlags, WorkerFlag},
    hub::HubFlags,
    log::LoggingFlags,
    models::{FetchFlags, KeepFlags, StoreFlags, store_failure},
    own::{OWN_FLAGS, OwnFlags, index_failure},
    publish::PublishFlags,
    samples::SampleFlags,
    size::ByteSize,
    state::StateFlags,
    wallet::WalletFlags,
    wandb::{WandbFlags, WandbLogFlags},
    watch::WatchFlags,
};
