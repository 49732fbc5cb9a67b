//! A localnet, and the real validator run in it.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use e2e::{limit::LIMIT, wait::until};
use localnet::{
    miners::{Family, Role},
    subnet::{Localnet, Options},
};
use report::{
    StepRecord, journal,
    status::{self, Status},
};
use shared::process;
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    time::timeout,
};
use validator::service;

use crate::plan::number;

/// Nothing here takes longer.
const DEADLINE: Duration = Duration::from_secs(90);

/// What somebody asked for may take longer than what tests do by themselves, in minutes.
const LOAD_MINUTES: u64 = 2;

pub(crate) struct World {
    pub(crate) net: Localnet,
    folder: TempDir,
}

impl World {
    /// Starts a subnet.
    pub(crate) async fn start(name: &str, block_time: Duration) -> Self {
        Self::with(Self::options(name, block_time)).await
    }

    /// Starts a subnet with these options.
    pub(crate) async fn with(options: Options) -> Self {
        // Builds it if need be: epochs should not pass meanwhile.
        e2e::program("validator");
        Self {
            net: Localnet::start(options).await.unwrap(),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// Returns the usual options. Models are trained once for each name and kept beside the
    /// programs.
    pub(crate) fn options(name: &str, block_time: Duration) -> Options {
        let miners = [
            (Family::Llama, Role::Good),
            (Family::StableLm, Role::Good),
            (Family::Llama, Role::Better),
            (Family::StableLm, Role::Better),
            (Family::Llama, Role::BoundCopy),
            (Family::StableLm, Role::Liar),
        ];
        Options {
            state_dir: Some(Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)),
            miners: miners.to_vec(),
            samples: 60,
            block_time: Some(block_time),
            chain_id: rand::random(),
            ..Options::default()
        }
    }

    /// Returns the folder that all others are in.
    pub(crate) fn root(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the folder of a validator's state.
    pub(crate) fn state(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Returns a command of the validator, led to this subnet by its environment only.
    pub(crate) fn command(&self, state: &str) -> Command {
        self.led(e2e::program("validator"), state)
    }

    /// Returns a command whose environment leads validators to this subnet.
    pub(crate) fn led(&self, program: impl AsRef<OsStr>, state: &str) -> Command {
        let mut command = process::command(program);
        command
            .envs(self.net.environment())
            .env("VALIDATOR_SUBNET", self.net.endpoints().subnet)
            .env("VALIDATOR_STATE_DIR", self.state(state))
            .env("XDG_DATA_HOME", self.folder.path())
            .env("HF_HOME", self.folder.path())
            .env("VALIDATOR_EVAL_WORKER", e2e::program("eval-worker"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Returns a validator that runs until it is told to stop.
    pub(crate) fn running(&self, state: &str, flags: &[&str]) -> Child {
        self.logged(self.command(state), state, flags)
    }

    /// Starts a command that ends in the validator's program, with the usual flags and these.
    pub(crate) fn logged(&self, mut command: Command, state: &str, flags: &[&str]) -> Child {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.log(state))
            .unwrap();
        command
            .args(["run", "--device", "cpu", "--dtype", "float32"])
            .args(["--latest_cortex_samples", "12", "--min-samples", "4"])
            .args(flags)
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    /// Runs a command to its end; returns its exit code and what it said.
    pub(crate) async fn run(&self, state: &str, arguments: &[&str]) -> (i32, String) {
        let mut command = self.command(state);
        command.args(arguments);
        Self::ended(command).await
    }

    /// Waits for a command to end; returns its exit code and what it said.
    pub(crate) async fn ended(mut command: Command) -> (i32, String) {
        let output = timeout(LIMIT, command.output()).await;
        let Output {
            status,
            stdout,
            stderr,
        } = output.expect("no end").unwrap();
        let text = [stdout, stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        (status.code().unwrap_or(-1), text)
    }

    /// Returns the file of what a running validator says.
    pub(crate) fn log(&self, state: &str) -> PathBuf {
        self.folder.path().join(format!("{state}.log"))
    }

    /// Returns what a running validator said.
    pub(crate) fn log_text(&self, state: &str) -> String {
        std::fs::read_to_string(self.log(state)).unwrap_or_default()
    }

    /// Returns the folder of the models, which all validators of this subnet share.
    pub(crate) fn store(&self) -> PathBuf {
        self.folder.path().join("finetune-vali/models")
    }

    /// Returns the newest block's number.
    pub(crate) fn block(&self) -> u64 {
        u64::from(self.net.chain.block_number())
    }

    /// Returns the journal of a validator.
    pub(crate) fn journal(&self, state: &str) -> PathBuf {
        self.state(state).join("records").join(journal::CURRENT)
    }

    /// Returns the complete records of a validator, oldest first.
    pub(crate) fn records(&self, state: &str) -> Vec<StepRecord> {
        let bytes = std::fs::read(self.journal(state)).unwrap_or_default();
        let complete = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |n| n + 1);
        bytes[..complete]
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect()
    }

    /// Returns what a running validator says of itself, if it has said anything yet.
    pub(crate) fn status(&self, state: &str) -> Option<Status> {
        status::read(&self.state(state).join(service::STATUS)).unwrap()
    }

    /// Returns the metrics of a running validator, each with its value.
    pub(crate) fn metrics(&self, state: &str) -> BTreeMap<String, f64> {
        let text = std::fs::read_to_string(self.state(state).join(service::METRICS));
        readings(&text.unwrap_or_default())
    }

    /// Waits for something to become true; the log is shown if it does not.
    pub(crate) async fn until(&self, state: &str, what: &str, holds: impl FnMut() -> bool) {
        self.within(DEADLINE, state, what, holds).await;
    }

    /// Waits for what takes as long as somebody asked for: a load of any size.
    pub(crate) async fn patiently(&self, state: &str, what: &str, holds: impl FnMut() -> bool) {
        let minutes = number("LOAD_MINUTES", LOAD_MINUTES);
        self.within(Duration::from_mins(minutes), state, what, holds)
            .await;
    }

    async fn within(
        &self,
        deadline: Duration,
        state: &str,
        what: &str,
        holds: impl FnMut() -> bool,
    ) {
        let came = until(deadline, holds).await;
        assert!(
            came,
            "never came: {what}; the log:\n{}",
            self.log_text(state)
        );
    }

    /// Returns the validator's last weight set on the chain: block, uids and weights.
    pub(crate) fn weights(&self) -> (u64, Vec<(u16, u16)>) {
        let neurons = self.net.chain.neurons(self.net.netuid);
        (neurons[0].last_update, neurons[0].weights.clone())
    }

    /// Sets weights with the validator's hotkey, as another machine would; returns their block.
    pub(crate) async fn set_foreign_weights(&self, state: &str) -> u64 {
        let pair = &self.net.validator.hotkey.pair;
        let (chain, netuid) = (&self.net.chain, self.net.netuid);
        self.until(state, "weights of another machine", || {
            chain.set_weights(netuid, pair, &[(2, 65535)], 27).is_ok()
        })
        .await;
        self.weights().0
    }
}

/// Returns metrics from their text, each with its value.
pub(crate) fn readings(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        })
        .collect()
}

/// Asks a validator to stop and returns its exit code.
pub(crate) async fn stop(child: &mut Child) -> i32 {
    let status = process::stop(child, DEADLINE).await.unwrap();
    status.code().unwrap_or(-1)
}
